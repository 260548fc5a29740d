"""What a database that is away, shut or unfit is told as; and how none of it says a secret."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from tests.contracts import backends_points as some
from tests.contracts.backends_engines import LOCAL, milvus_uri, pgvector_spec, postgres
from tests.contracts.test_backends import MARKER, spec_named
from tests.servers.postgres import Server
from tests.unit.waiting import wait_until

from pointsman import errors, ports
from pointsman.access import Access
from pointsman.api import base, engines
from pointsman.api.conditions import Reason
from pointsman.backends import memory, milvus, pgvector, pgvector_connections, qdrant, registry

__all__ = ["milvus_uri", "postgres"]

CREDENTIALS = {
    "username": "tester",
    "password": "hunter2-secret",
    "apiKey": "hunter2-secret",
    "token": "hunter2-secret",
}
NOWHERE = {
    "qdrant": engines.Backend(qdrant=engines.QdrantBackend(url="http://127.0.0.1:1", grpc_port=1)),
    "milvus": engines.Backend(milvus=engines.MilvusBackend(uri="http://127.0.0.1:1")),
    "pgvector": engines.Backend(
        pgvector=engines.PgvectorBackend(
            host="127.0.0.1", port=1, database="d", credentials_ref=base.SecretReference(name="s"), tls="Disable"
        )
    ),
}


def raised(attempt: Any) -> errors.PointsmanError:
    with pytest.raises(errors.PointsmanError) as found:
        attempt()
    assert "hunter2" not in str(found.value)
    assert found.value.__cause__ is None
    return found.value


@contextlib.contextmanager
def opened(spec: engines.Backend, credentials: dict[str, str] = CREDENTIALS) -> Iterator[ports.Backend]:
    backend = registry.open_backend(spec, credentials, LOCAL)
    try:
        yield backend
    finally:
        backend.close()


@pytest.mark.parametrize("engine", NOWHERE)
def test_a_server_that_is_not_there_is_unreachable(engine: str) -> None:
    with opened(NOWHERE[engine]) as backend:
        for attempt in (backend.probe, lambda: backend.find("x"), lambda: backend.create(spec_named("x"))):
            found = raised(attempt)
            assert isinstance(found, errors.Retryable)
            assert found.reason is Reason.BACKEND_UNREACHABLE
            assert "127.0.0.1:1" in found.message


def test_a_wrong_password_is_unauthorised(postgres: Server) -> None:
    with opened(pgvector_spec(postgres), {**CREDENTIALS, "username": postgres.username}) as backend:
        found = raised(backend.probe)
    assert isinstance(found, errors.Terminal)
    assert found.reason is Reason.BACKEND_UNAUTHORIZED
    assert found.message.endswith("refused the user tester; check username and password in the Secret")


def changed(server: Server, **fields: Any) -> engines.Backend:
    found = pgvector_spec(server).pgvector
    assert found is not None
    return engines.Backend(pgvector=found.model_copy(update=fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"database": "nowhere"}, "has no database nowhere; create it"),
        ({"schema_": "nowhere"}, "the database has no schema nowhere; create it"),
        ({"tls": "Require"}, "has no certificate that tls: Require accepts; mend it or choose another mode"),
        ({"tls": "VerifyFull"}, "has no certificate that tls: VerifyFull accepts; mend it or choose another mode"),
    ],
    ids=["database", "schema", "tls", "verified tls"],
)
def test_what_postgres_lacks_is_said(postgres: Server, fields: dict[str, Any], message: str) -> None:
    credentials = {"username": postgres.username, "password": postgres.password}
    with opened(changed(postgres, **fields), credentials) as backend:
        said = [raised(backend.probe), raised(lambda: backend.find("x"))]
    for found in said:
        assert isinstance(found, errors.Terminal)
        assert found.reason is Reason.BACKEND_REJECTED
        assert found.message.endswith(message)


@pytest.fixture
def database(postgres: Server) -> Iterator[ports.Backend]:
    credentials = {"username": postgres.username, "password": postgres.password}
    with opened(pgvector_spec(postgres), credentials) as backend:
        yield backend


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dimensions": 4001},
            "pgvector indexes at most 4000 dimensions; choose a model with fewer, 4001 were asked for",
        ),
        ({"m": 101}, "pgvector indexes at most 100 links of a node; lower hnsw.m, 101 were asked for"),
        (
            {"ef_construct": 1001},
            "pgvector indexes at most 1000 candidates while building; lower hnsw.efConstruct, 1001 were asked for",
        ),
    ],
    ids=["dimensions", "m", "ef_construct"],
)
def test_what_pgvector_cannot_index_is_refused(database: ports.Backend, change: dict[str, int], message: str) -> None:
    found = raised(lambda: database.create(dataclasses.replace(spec_named("pm_refused"), **change)))
    assert isinstance(found, errors.Terminal)
    assert (found.reason, found.message) == (Reason.BACKEND_UNSUPPORTED, message)
    assert database.find("pm_refused") is None


def test_more_than_2000_dimensions_are_kept_in_half_precision(database: ports.Backend) -> None:
    vectors = some.directions(300, 3072)
    points, query = some.batch(vectors), some.directions(1, 3072, seed=5)[0]
    database.create(spec_named("pm_half", 3072))
    database.load("pm_half", [points])
    database.seal("pm_half")
    hits = database.search("pm_half", query, 10, None)
    best = np.sort(vectors @ query)[::-1][:10]
    np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-4)
    ids, found = database.fetch("pm_half", some.ids(points)[:5])
    wanted = dict(zip(some.ids(points), vectors, strict=True))
    np.testing.assert_allclose(found, np.array([wanted[i] for i in ids]), atol=1e-4)
    database.drop("pm_half")


def test_the_character_nul_is_refused_by_postgres_with_the_reason(database: ports.Backend) -> None:
    database.create(spec_named("pm_nul"))
    for points in (
        some.batch(some.directions(1, 8), texts=["hunter2\0"]),
        some.batch(some.directions(1, 8), metadata=[{"k": "hunter2\0"}]),
    ):
        for attempt in (lambda p=points: database.upsert("pm_nul", p), lambda p=points: database.load("pm_nul", [p])):
            found = raised(attempt)
            assert isinstance(found, errors.Terminal)
            assert found.reason is Reason.BACKEND_UNSUPPORTED
            assert "the character NUL" in found.message
    assert database.count("pm_nul") == 0
    database.drop("pm_nul")


def test_vectors_of_another_length_are_refused(database: ports.Backend) -> None:
    database.create(spec_named("pm_length", 8))
    found = raised(lambda: database.load("pm_length", [some.batch(some.directions(1, 4))]))
    assert isinstance(found, errors.Terminal)
    assert found.reason is Reason.BACKEND_REJECTED
    database.drop("pm_length")


def test_connections_are_used_again_and_a_server_that_restarted_is_found_again(
    postgres: Server, database: ports.Backend
) -> None:
    place = f"host={postgres.host} port={postgres.port} dbname={postgres.database}"
    login = f"user={postgres.username} password={postgres.password}"
    with psycopg.connect(f"{place} {login}", autocommit=True) as other:
        ours = "FROM pg_stat_activity WHERE application_name = 'pointsman'"
        for _ in range(5):
            database.probe()
        assert other.execute(f"SELECT count(*) {ours}").fetchone() == (1,)
        other.execute(f"SELECT pg_terminate_backend(pid) {ours}")
    found = raised(database.probe)
    assert isinstance(found, errors.Retryable)
    assert found.reason is Reason.BACKEND_UNREACHABLE
    database.probe()


def address_of(server: Server) -> pgvector_connections.Address:
    login = (server.username, server.password)
    return pgvector_connections.Address(
        server.host, server.host, server.port, server.database, "public", *login, "Disable"
    )


class Freezing(pgvector_connections.Connections):
    """Connections of a client that freezes before each commit, until the server has given it up."""

    def __init__(self, address: pgvector_connections.Address, other: psycopg.Connection[Any]) -> None:
        super().__init__(address, call_seconds=0.2)
        self._other, self.is_frozen = other, False

    @contextlib.contextmanager
    def transaction(self, *args: Any, **how: Any) -> Iterator[pgvector_connections.Session]:
        with super().transaction(*args, **how) as session:
            yield session
            if self.is_frozen and how:
                ((pid,),) = session.execute("SELECT pg_backend_pid()")
                wait_until(lambda: not self._is_there(pid))

    def _is_there(self, pid: int) -> bool:
        return bool(self._other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall())


def test_a_client_that_freezes_before_its_commit_neither_commits_later_nor_holds_up_the_next(
    postgres: Server, database: ports.Backend
) -> None:
    points = some.batch(some.directions(3, 8))
    database.create(spec_named("pm_frozen"))
    place = f"host={postgres.host} port={postgres.port} dbname={postgres.database}"
    login = f"user={postgres.username} password={postgres.password}"
    with psycopg.connect(f"{place} {login}", autocommit=True) as other:
        connections = Freezing(address_of(postgres), other)
        frozen = pgvector.Pgvector(connections, "public")
        for fill in (lambda: None, lambda: database.load("pm_frozen", [points])):
            fill()
            before = database.count("pm_frozen")
            connections.is_frozen = True
            found = raised(lambda: frozen.load("pm_frozen", [points]))
            assert (found.reason, found.message[-5:]) == (Reason.BACKEND_UNREACHABLE, "25P03")
            assert database.count("pm_frozen") == before
        connections.close()
    database.drop("pm_frozen")


def test_a_statement_that_takes_too_long_is_given_up(postgres: Server) -> None:
    address = address_of(postgres)
    assert postgres.password not in repr(address)
    connections = pgvector_connections.Connections(address, call_seconds=0.2)

    def sleep() -> None:
        with connections.transaction() as session:
            session.execute("SELECT pg_sleep(30)")

    found = raised(sleep)
    assert isinstance(found, errors.Retryable)
    assert found.message.endswith("did not answer within 0.2 s")
    connections.close()


def test_a_proxy_of_the_environment_is_not_used(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    # Another spelling of the address, so that no connection of another test is used again.
    uri = milvus_uri.replace("127.0.0.1", "localhost")
    with opened(engines.Backend(milvus=engines.MilvusBackend(uri=uri, database="default")), {}) as backend:
        backend.probe()


def test_texts_too_long_for_milvus_are_refused_with_their_count(milvus_uri: str) -> None:
    with opened(engines.Backend(milvus=engines.MilvusBackend(uri=milvus_uri)), {}) as backend:
        backend.create(spec_named("pm_long"))
        points = some.batch(some.directions(3, 8), texts=["ü" * 32767, "ü" * 32768, "hunter2" * 10000])
        found = raised(lambda: backend.load("pm_long", [points]))
        assert isinstance(found, errors.Terminal)
        assert found.reason is Reason.BACKEND_UNSUPPORTED
        assert found.message.startswith("2 rows have an id or text over 65535 bytes")
        backend.upsert("pm_long", points.slice(0, 1))
        assert backend.count("pm_long") == 1
        backend.drop("pm_long")


def test_more_dimensions_than_milvus_and_qdrant_hold_are_refused(milvus_uri: str) -> None:
    for spec in (engines.Backend(milvus=engines.MilvusBackend(uri=milvus_uri)), NOWHERE["qdrant"]):
        with opened(spec, {}) as backend:
            found = raised(lambda opened=backend: opened.create(spec_named("pm_wide", 70_000)))
            assert isinstance(found, errors.Terminal)
            assert found.reason is Reason.BACKEND_UNSUPPORTED


# Opening.


@pytest.mark.parametrize("engine", NOWHERE)
def test_a_host_that_may_not_be_reached_is_refused_before_anything_is_sent(engine: str) -> None:
    found = raised(lambda: registry.open_backend(NOWHERE[engine], CREDENTIALS, Access()))
    assert isinstance(found, errors.Terminal)
    assert found.reason is Reason.ENDPOINT_NOT_ALLOWED


def test_plain_http_goes_to_the_address_that_was_checked_and_https_to_the_name() -> None:
    allowed = Access(allowed_hosts=("db.example.com",), resolve=lambda host, port: ["10.1.2.3"])
    assert registry._pinned("http://db.example.com:19530", allowed) == "http://10.1.2.3:19530"
    assert registry._pinned("https://db.example.com:19530/p", allowed) == "https://db.example.com:19530/p"
    allowed = dataclasses.replace(allowed, resolve=lambda host, port: ["2001:db8::7"], allow_loopback=True)
    assert registry._pinned("http://db.example.com", allowed).startswith("http://[2001:db8::7]")


def test_each_engine_is_opened_as_its_own_kind() -> None:
    kinds = {"qdrant": qdrant.Qdrant, "milvus": milvus.Milvus, "pgvector": pgvector.Pgvector}
    for engine, spec in NOWHERE.items():
        with opened(spec) as backend:
            assert type(backend) is kinds[engine]
        assert "127.0.0.1:1" in registry.address(spec)
        assert registry.index_parameters(spec) == engines.Hnsw(m=16, ef_construct=128)


def test_the_memory_of_a_process_is_shared_by_all_that_are_given_it() -> None:
    spec, shared = engines.Backend(memory=engines.MemoryBackend()), memory.Memory()
    allowed = Access(allow_memory_backend=True)
    registry.open_backend(spec, {}, allowed, shared).create(spec_named("x"))
    assert registry.open_backend(spec, {}, allowed, shared).find("x") == MARKER
    assert registry.open_backend(spec, {}, allowed).find("x") is None


def test_tenants_may_not_keep_indexes_in_the_memory_of_the_operator_unless_the_settings_say_so() -> None:
    spec = engines.Backend(memory=engines.MemoryBackend())
    found = raised(lambda: registry.open_backend(spec, {}, Access(), memory.Memory()))
    assert isinstance(found, errors.Terminal)
    assert found.message == (
        "backend.memory is for tests and lost with the operator; name a database, or have allowMemoryBackend set"
    )


def test_index_parameters_and_engine_are_told_apart() -> None:
    specs = [*NOWHERE.values(), engines.Backend(memory=engines.MemoryBackend())]
    other = engines.MilvusBackend(uri="http://127.0.0.1:1", hnsw=engines.Hnsw(m=32))
    specs.append(engines.Backend(milvus=other))
    assert len({registry.parameters_digest(spec) for spec in specs}) == 5
