"""Documents from a query against PostgreSQL, read by a server-side cursor inside one read-only snapshot.

Says which SQLSTATE the server answered and never what it wrote beside it: its messages quote values.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import rows as row_factories

from pointsman.access import Access
from pointsman.api import dataset
from pointsman.api.conditions import Reason
from pointsman.core import documents, portions
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.sources import batches

CONNECT_SECONDS = 10
STATEMENT_SECONDS = 600
"""How long the server may work on one fetch of the cursor."""
MOST_ROWS = 500
"""Rows of one fetch at most; fewer where they are long."""

_BYTEA = 17
_SSLMODES = {"Disable": "disable", "Require": "require", "VerifyFull": "verify-full"}
# A failed connection has no SQLSTATE, only the server's words.
_REFUSED = re.compile(r"authentication failed|no password|pg_hba\.conf|role .* does not exist|permission denied", re.I)
_NO_DATABASE = re.compile(r"database .* does not exist", re.I)
_TLS = re.compile(r"\bSSL\b|certificate", re.I)


class PostgresSource:
    """The rows of one query."""

    def __init__(
        self, spec: dataset.PostgresSource, id_field: str, credentials: Mapping[str, str], access: Access
    ) -> None:
        missing = [key for key in ("username", "password") if key not in credentials]
        if missing:
            raise Terminal(
                Reason.CREDENTIALS_REQUIRED,
                f"the Secret of source.postgres.credentialsRef has no {' and no '.join(missing)}; add it",
            )
        self._spec = spec
        self._id_field = id_field
        self._credentials = credentials
        self._access = access

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield all documents once, as of one moment; see `ports.Source`."""
        collected, refusals, number = batches.Batches(), documents.Refusals(), 0
        wanted = portions.FIRST_ROWS
        with self._connected() as connection, self._cursor(connection) as cursor:
            self._check_columns(cursor)
            while fetched := cursor.fetchmany(wanted):
                size = 0
                for row in fetched:
                    number += 1
                    try:
                        identity, fields = batches.document(row, self._id_field)
                    except documents.Refused as refused:
                        refusals.add(str(refused), number=number)
                        size += batches.MAX_ROW_BYTES if str(refused) == batches.TOO_LONG else 0
                        continue
                    size += len(fields)
                    yield from collected.add(identity, fields)
                wanted = portions.next_rows(len(fetched), size, MOST_ROWS)
        refusals.raise_if_any(number)
        yield from collected.rest()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        spec = self._spec
        address = self._access.check_host(spec.host, spec.port)
        with contextlib.ExitStack() as stack:
            with _errors(spec):
                connection = psycopg.connect(
                    host=spec.host,
                    # The address that was judged is the one that is used, whatever the name resolves to next.
                    hostaddr=address,
                    port=spec.port,
                    dbname=spec.database,
                    user=self._credentials["username"],
                    password=self._credentials["password"],
                    sslmode=_SSLMODES[spec.tls],
                    sslrootcert=self._authorities(stack),
                    # Nothing of the operator's own environment or home: no certificate, no file of passwords, no
                    # Kerberos. An empty name would mean the default one in the home.
                    sslcertmode="disable",
                    passfile="/dev/null",
                    gssencmode="disable",
                    connect_timeout=CONNECT_SECONDS,
                    keepalives_idle=30,
                    tcp_user_timeout=60_000,
                    application_name="pointsman",
                    options=f"-c statement_timeout={STATEMENT_SECONDS}s -c TimeZone=UTC -c DateStyle=ISO",
                    row_factory=row_factories.dict_row,
                )
            stack.callback(connection.close)
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with _errors(spec):
                yield connection

    def _authorities(self, stack: contextlib.ExitStack) -> str:
        """Return the file of authorities that the server's certificate is checked against."""
        if self._spec.tls != "VerifyFull":
            return ""
        if own := self._credentials.get("ca.crt"):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-"))
            file = Path(folder, "ca.crt")
            file.write_text(own)
            return str(file)
        # The binary wheel of psycopg carries an OpenSSL whose own default folder exists on no machine.
        return ssl.get_default_verify_paths().cafile or "system"

    @contextlib.contextmanager
    def _cursor(self, connection: psycopg.Connection[dict[str, Any]]) -> Iterator[psycopg.ServerCursor[dict[str, Any]]]:
        with connection.cursor("documents") as cursor:
            cursor.execute(self._spec.query.strip().removesuffix(";").encode())
            yield cursor

    def _check_columns(self, cursor: psycopg.ServerCursor[dict[str, Any]]) -> None:
        columns = cursor.description or []
        names = [column.name for column in columns]
        problem = ""
        if self._id_field not in names:
            problem = f"has no column `{self._id_field}`, which source.idField names"
        elif len(set(names)) < len(names):
            problem = "has two columns of one name; rename one with AS"
        elif binary := next((column.name for column in columns if column.type_code == _BYTEA), None):
            problem = f"has the binary column `{binary}`; leave it out, documents hold text and numbers"
        if problem:
            raise Terminal(Reason.SOURCE_INVALID, f"source.postgres.query {problem}; the last snapshot stays current")


@contextlib.contextmanager
def _errors(spec: dataset.PostgresSource) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _mapped(error, f"PostgreSQL at {spec.host}:{spec.port}", spec) from None


def _mapped(error: psycopg.Error, server: str, spec: dataset.PostgresSource) -> PointsmanError:
    state = error.sqlstate or ""
    words = "" if state else str(error)
    if state.startswith("28") or state == "42501" or _REFUSED.search(words):
        return Terminal(
            Reason.SOURCE_UNAUTHORIZED,
            f"{server} refused the user or its rights{_said(error)}; check credentialsRef",
        )
    if state == "3D000" or _NO_DATABASE.search(words):
        return Terminal(Reason.SOURCE_INVALID, f"{server} has no database {spec.database}")
    if not state and _TLS.search(words):
        return Retryable(
            Reason.SOURCE_UNREACHABLE,
            f"{server} failed the TLS check {spec.tls}; give it a certificate that passes, add its authority as "
            "ca.crt to the Secret, or change source.postgres.tls",
        )
    # Syntax, data, features, cursors, transactions of the wrong kind: only another query mends these.
    if state[:2] in {"0A", "21", "22", "23", "24", "25", "2F", "34", "42", "44"} or isinstance(
        error, psycopg.DataError
    ):
        return Terminal(
            Reason.SOURCE_INVALID,
            f"source.postgres.query was refused{_said(error)}; the last snapshot stays current",
        )
    if state == "57014":
        return Retryable(
            Reason.SOURCE_UNREACHABLE,
            f"{server} took longer than {STATEMENT_SECONDS} s over a fetch from source.postgres.query",
        )
    return Retryable(Reason.SOURCE_UNREACHABLE, f"{server} could not be read{_said(error)}")


def _said(error: psycopg.Error) -> str:
    return f" with SQLSTATE {error.sqlstate} ({type(error).__name__})" if error.sqlstate else ""
