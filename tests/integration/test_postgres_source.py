import datetime
import ipaddress
import json
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.servers import postgres

from pointsman.access import Access
from pointsman.api import dataset
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.sources.postgres import PostgresSource

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgres.start_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


def execute(server: postgres.Server, *statements: str) -> None:
    with psycopg.connect(
        host=server.host,
        port=server.port,
        dbname=server.database,
        user=server.username,
        password=server.password,
    ) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def source(server: postgres.Server, query: str, **changed: Any) -> PostgresSource:
    credentials = {"username": server.username, "password": server.password} | changed.pop("credentials", {})
    access = changed.pop("access", Access(allow_loopback=True))
    wanted = {"host": server.host, "port": server.port, "database": server.database, "tls": "Disable", **changed}
    spec = dataset.PostgresSource(**wanted, query=query, credentials_ref={"name": "any"})
    return PostgresSource(spec, "id", credentials, access)


def read(server: postgres.Server, query: str, **changed: Any) -> list[dict[str, Any]]:
    return [row for batch in source(server, query, **changed).read() for row in batch.to_pylist()]


def refusal(server: postgres.Server, query: str = "SELECT 1 AS id", **changed: Any) -> PointsmanError:
    with pytest.raises(PointsmanError) as error:
        read(server, query, **changed)
    return error.value


def test_the_types_of_the_database_become_json(server: postgres.Server) -> None:
    (row,) = read(
        server,
        """SELECT 7::bigint AS id, true AS bool, 1.50::numeric AS decimal, 'NaN'::float8 AS nan,
        '2024-05-06 07:08:09.5+02'::timestamptz AS utc, '2024-05-06'::date AS day, ARRAY['a', NULL] AS list,
        '{"a": [1, null]}'::jsonb AS json, NULL AS nothing,
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS uuid, '[1,3)'::int4range AS range, 12.5::float8 AS float""",
    )
    assert row["id"] == "7"
    assert json.loads(row["fields"]) == {
        "bool": True,
        "day": "2024-05-06",
        "decimal": "1.50",
        "float": 12.5,
        "json": {"a": [1, None]},
        "list": ["a", None],
        "nan": None,
        "nothing": None,
        "range": "[1, 3)",
        "utc": "2024-05-06T05:08:09.500000+00:00",
        "uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    }


@pytest.mark.parametrize(
    ("literal", "identity"),
    [
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("7::numeric", "7"),
        ("700.00::numeric", "700"),
        ("123456789012345678901234567890::numeric", "123456789012345678901234567890"),
    ],
)
def test_ids_that_are_written_in_one_way_alone_are_text(server: postgres.Server, literal: str, identity: str) -> None:
    assert read(server, f"SELECT {literal} AS id") == [{"id": identity, "fields": "{}"}]


@pytest.mark.parametrize("literal", ["7.5::numeric", "'NaN'::numeric", "7::float8"])
def test_ids_that_are_no_integers_are_refused(server: postgres.Server, literal: str) -> None:
    assert (
        "1 with an id that is neither text nor an integer (row 1)" in refusal(server, f"SELECT {literal} AS id").message
    )


def test_all_rows_are_of_one_moment(server: postgres.Server) -> None:
    execute(server, "CREATE TABLE moment AS SELECT n AS id, 'old' AS text FROM generate_series(1, 20000) AS n")
    batches = source(server, "SELECT * FROM moment").read()
    texts = [row["fields"] for row in next(batches).to_pylist()]
    execute(server, "UPDATE moment SET text = 'new'")
    texts += [row["fields"] for batch in batches for row in batch.to_pylist()]
    assert texts == ['{"text":"old"}'] * 20_000


def test_a_reader_that_stops_early_leaves_no_connection(server: postgres.Server) -> None:
    batches = source(server, "SELECT n AS id FROM generate_series(1, 100000) AS n").read()
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    own = read(server, "SELECT count(*)::text AS id FROM pg_stat_activity WHERE application_name = 'pointsman'")
    assert own[0]["id"] == "1"


@pytest.mark.parametrize(
    ("query", "state"),
    [
        pytest.param("SELECT nothing FROM nowhere", "42P01", id="a table that is not there"),
        pytest.param("SELEC 1", "42601", id="a misspelt query"),
        pytest.param("CREATE TABLE x (a int)", "42601", id="a statement that is no query"),
        pytest.param("SELECT 1 AS id; DROP TABLE kept", "42601", id="two statements"),
        pytest.param("SELECT 'secret'::int AS id", "22P02", id="a value of the wrong type"),
        pytest.param("SELECT nextval('numbers') AS id", "25006", id="a query that writes"),
    ],
)
def test_a_bad_query_is_told_by_its_sqlstate_and_never_quoted(server: postgres.Server, query: str, state: str) -> None:
    execute(server, "CREATE TABLE IF NOT EXISTS kept (a int)", "CREATE SEQUENCE IF NOT EXISTS numbers")
    error = refusal(server, query)
    assert isinstance(error, Terminal)
    assert error.reason is Reason.SOURCE_INVALID
    assert error.message.startswith(f"source.postgres.query was refused with SQLSTATE {state} (")
    assert "secret" not in error.message
    assert read(server, "SELECT count(*)::text AS id FROM kept") == [{"id": "0", "fields": "{}"}]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1 AS a", "has no column `id`, which source.idField names"),
        ("SELECT 1 AS id, 2 AS a, 3 AS a", "has two columns of one name; rename one with AS"),
        (
            "SELECT 1 AS id, 'x'::bytea AS image",
            "has the binary column `image`; leave it out, documents hold text and numbers",
        ),
    ],
)
def test_columns_that_make_no_document_are_refused(server: postgres.Server, query: str, message: str) -> None:
    assert refusal(server, query).message == f"source.postgres.query {message}; the last snapshot stays current"


def test_a_wrong_password_is_unauthorized(server: postgres.Server) -> None:
    error = refusal(server, credentials={"password": "wrong"})
    assert isinstance(error, Terminal)
    assert error.reason is Reason.SOURCE_UNAUTHORIZED
    assert error.message == (
        f"PostgreSQL at 127.0.0.1:{server.port} refused the user or its rights; check credentialsRef"
    )


def test_a_table_that_may_not_be_read_is_unauthorized(server: postgres.Server) -> None:
    execute(server, "CREATE ROLE guest LOGIN PASSWORD 'guest'", "CREATE TABLE closed (id int)")
    error = refusal(server, "SELECT * FROM closed", credentials={"username": "guest", "password": "guest"})
    assert error.reason is Reason.SOURCE_UNAUTHORIZED
    assert "SQLSTATE 42501" in error.message


def test_a_missing_database_is_said(server: postgres.Server) -> None:
    error = refusal(server, database="nowhere")
    assert error.reason is Reason.SOURCE_INVALID
    assert error.message == f"PostgreSQL at 127.0.0.1:{server.port} has no database nowhere"


def test_a_server_that_is_not_there_is_unreachable(server: postgres.Server) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        error = refusal(server, port=closed.getsockname()[1])
    assert isinstance(error, Retryable)
    assert error.reason is Reason.SOURCE_UNREACHABLE


def test_a_host_that_is_not_allowed_is_never_connected_to(server: postgres.Server) -> None:
    assert refusal(server, access=Access()).reason is Reason.ENDPOINT_NOT_ALLOWED


def test_a_secret_without_a_password_is_said(server: postgres.Server) -> None:
    spec = dataset.PostgresSource(host="h", database="d", query="q", credentials_ref={"name": "s"})
    with pytest.raises(Terminal) as error:
        PostgresSource(spec, "id", {"username": "u"}, Access())
    assert error.value.message == "the Secret of source.postgres.credentialsRef has no password; add it"


def test_a_server_without_tls_is_refused_where_tls_is_wanted(server: postgres.Server) -> None:
    error = refusal(server, tls="Require")
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert error.message.startswith(f"PostgreSQL at 127.0.0.1:{server.port} failed the TLS check Require;")


@pytest.fixture
def encrypted(server: postgres.Server, tmp_path: Path) -> Iterator[tuple[postgres.Server, str]]:
    """The server behind TLS: the wheel's PostgreSQL is built without it, so a proxy answers the client's SSLRequest."""
    certificate = _certificate(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = (listener, (server.host, server.port), tmp_path)
        threading.Thread(target=_serve_tls, args=arguments, daemon=True).start()
        yield server._replace(port=listener.getsockname()[1]), certificate
        listener.shutdown(socket.SHUT_RDWR)


def test_a_certificate_of_a_given_authority_passes_the_full_check(
    encrypted: tuple[postgres.Server, str],
) -> None:
    server, certificate = encrypted
    rows = read(server, "SELECT 1 AS id", tls="VerifyFull", credentials={"ca.crt": certificate})
    assert rows == [{"id": "1", "fields": "{}"}]


def test_a_certificate_of_an_unknown_authority_fails_the_full_check_and_is_enough_otherwise(
    encrypted: tuple[postgres.Server, str],
) -> None:
    server, _ = encrypted
    error = refusal(server, tls="VerifyFull")
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "failed the TLS check VerifyFull" in error.message
    assert read(server, "SELECT 1 AS id", tls="Require") == [{"id": "1", "fields": "{}"}]


def test_no_certificate_or_password_of_the_operators_own_is_offered(
    encrypted: tuple[postgres.Server, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = encrypted
    own = tmp_path / ".postgresql"
    own.mkdir()
    for name in ("postgresql.crt", "postgresql.key"):
        # Whoever opened them would stumble.
        (own / name).write_text("no certificate")
        (own / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(server, "SELECT 1 AS id", tls="Require") == [{"id": "1", "fields": "{}"}]

    monkeypatch.setenv("PGSSLCERT", str(own / "postgresql.crt"))
    monkeypatch.setenv("PGSSLKEY", str(own / "postgresql.key"))
    assert read(server, "SELECT 1 AS id", tls="Require") == [{"id": "1", "fields": "{}"}]


def _certificate(folder: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(public)
    return public.decode()


def _serve_tls(listener: socket.socket, target: tuple[str, int], folder: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_relay, args=(plain, context, target), daemon=True).start()


def _relay(plain: socket.socket, context: ssl.SSLContext, target: tuple[str, int]) -> None:
    try:
        # An SSLRequest is eight bytes, and S says that the handshake may begin.
        plain.recv(8, socket.MSG_WAITALL)
        plain.sendall(b"S")
        with context.wrap_socket(plain, server_side=True) as client, socket.create_connection(target) as inner:
            while True:
                ready = [client] if client.pending() else select.select([client, inner], [], [])[0]
                for end in ready:
                    content = end.recv(65_536)
                    if not content:
                        return
                    (inner if end is client else client).sendall(content)
    except OSError:
        # The client gave up, as it should where the certificate is not good enough.
        return
    finally:
        plain.close()
