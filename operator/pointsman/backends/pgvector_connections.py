"""How is a PostgreSQL server reached? Pooled connections, timeouts, and the one place that knows its client.

Errors are told apart by SQLSTATE and said in words of our own: PostgreSQL's messages quote the rows they are about.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import psycopg
import psycopg.types.json

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.backends import markers

_Connection = psycopg.Connection[tuple[Any, ...]]

CALL_SECONDS = 30
CONNECT_SECONDS = 10
IDLE = 8
_OLDEST_EXTENSION = (0, 8)
_MANY_DIGITS = re.compile(rb"[0-9]{19}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how it is entered."""

    host: str
    pinned: str
    """The address that the host was checked at."""
    port: int
    database: str
    schema: str
    username: str
    password: str = field(repr=False)
    tls: Literal["Require", "VerifyFull", "Disable"]


class Duplicate(errors.Retryable):
    """A row that was to be copied is there already."""


class NoRoom(errors.Retryable):
    """The server lacks memory or disk for what was asked."""


class Session:
    """One transaction."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[Any] = (), *, binary: bool = False) -> list[tuple[Any, ...]]:
        """Return the rows of a statement; none of one that returns none."""
        # Without parameters nothing is looked for after a %.
        cursor = self._connection.execute(statement.encode(), parameters or None, binary=binary)
        return cursor.fetchall() if cursor.description else []

    def copy(self, statement: str, body: bytes) -> None:
        """Send the body of a COPY."""
        with self._connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.write(body)

    def stream(self, statement: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows of a statement, so many at a time, through a server-side cursor."""
        with self._connection.cursor("pointsman_scan") as cursor:
            cursor.execute(statement.encode(), binary=True)
            while rows := cursor.fetchmany(size):
                yield rows


class Connections:
    """A few connections to one database, each used by one thread at a time."""

    def __init__(self, address: Address, call_seconds: float = CALL_SECONDS, most_idle: int = IDLE) -> None:
        """So many connections are kept open while nobody uses them; there are as many as threads ask for."""
        self._address = address
        self._call_seconds, self._most_idle = call_seconds, most_idle
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        # What each connection was told last. Only whoever has borrowed a connection asks for its own.
        self._candidates: weakref.WeakKeyDictionary[_Connection, int] = weakref.WeakKeyDictionary()

    @contextlib.contextmanager
    def transaction(self, name: str = "the index", seconds: float | None = None) -> Iterator[Session]:
        """Lend a connection for one transaction on `name`; each of its statements may take so many seconds.

        Raises INDEX_LOST where the table of that name is not there.
        """
        try:
            connection = self._borrow()
            try:
                with connection.transaction():
                    if seconds is not None:
                        connection.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}".encode())
                    yield Session(connection)
            finally:
                self._give_back(connection)
        except psycopg.Error as error:
            raise self._mapped(error, name) from None

    @contextlib.contextmanager
    def query(self, name: str, candidates: int) -> Iterator[Session]:
        """Lend a connection for single statements that look at so many candidates of a graph index.

        What a transaction would set anew each time, in round trips of their own, the connection keeps.
        """
        try:
            connection = self._borrow()
            try:
                if self._candidates.get(connection) != candidates:
                    connection.execute(f"SET hnsw.ef_search = {candidates}".encode())
                    self._candidates[connection] = candidates
                yield Session(connection)
            finally:
                self._give_back(connection)
        except psycopg.Error as error:
            raise self._mapped(error, name) from None

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _borrow(self) -> _Connection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
        return self._connect()

    def _give_back(self, connection: _Connection) -> None:
        if connection.closed:
            # What broke it has broken the others too: better one call fails than each in turn.
            self.close()
            return
        with self._lock:
            if len(self._idle) < self._most_idle:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> _Connection:
        at = self._address
        modes = {"Require": "require", "VerifyFull": "verify-full", "Disable": "disable"}
        # The client brings its own OpenSSL, which does not know where this system keeps its authorities.
        authorities = ssl.get_default_verify_paths().cafile or "system"
        connection = psycopg.connect(
            host=at.host,
            hostaddr=at.pinned,
            port=at.port,
            dbname=at.database,
            user=at.username,
            password=at.password,
            sslmode=modes[at.tls],
            sslrootcert=authorities if at.tls == "VerifyFull" else None,
            # Nothing of the machine's own: no password file, no client certificate of the operator's user. An empty
            # name of a certificate would mean the default one in the home.
            passfile="/dev/null",
            sslcertmode="disable",
            gssencmode="disable",
            connect_timeout=CONNECT_SECONDS,
            keepalives_idle=30,
            tcp_user_timeout=int(self._call_seconds * 1000),
            application_name="pointsman",
            autocommit=True,
            # A plan that is made once for all filters is wrong for most of them.
            prepare_threshold=None,
        )
        try:
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _configure(self, connection: _Connection) -> None:
        connection.execute(f"SET statement_timeout = {int(self._call_seconds * 1000)}".encode())
        # jsonb and text are sent as UTF-8 whatever the server's default for clients is.
        connection.execute("SET client_encoding = 'UTF8'")
        extension = (
            "SELECT e.extversion, n.nspname FROM pg_extension e "
            "JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
        )
        found = connection.execute(extension.encode()).fetchone()
        if found is None:
            # Another connection may be doing the same, or have done it just now.
            with contextlib.suppress(psycopg.errors.Error):
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            found = connection.execute(extension.encode()).fetchone()
        if found is None:
            raise errors.Terminal(
                Reason.BACKEND_UNSUPPORTED,
                "the database lacks the extension vector; have CREATE EXTENSION vector run in it",
            )
        version = tuple(int(part) for part in str(found[0]).split(".")[:2])
        if version < _OLDEST_EXTENSION:
            raise errors.Terminal(
                Reason.BACKEND_UNSUPPORTED, f"the database has pgvector {found[0]}, wanted 0.8 or later"
            )
        # Types and operators are found wherever the extension was put.
        path = f"SET search_path = {quoted(self._address.schema)}, {quoted(found[1])}, pg_catalog"
        connection.execute(path.encode())
        psycopg.types.json.set_json_loads(_json, connection)
        # Otherwise a filter that most rows fail would end a search early.
        connection.execute(b"SET hnsw.iterative_scan = strict_order")

    def _mapped(self, error: psycopg.Error, name: str) -> errors.PointsmanError:
        state, at = error.sqlstate or "", f"{self._address.host}:{self._address.port}"
        match state[:2], state:
            case _, "42P01":
                return markers.lost(name)
            case _, "23505":
                return Duplicate(Reason.BACKEND_REJECTED, f"{name} has rows that were to be added")
            case _, "22021" | "22P05":
                return errors.Terminal(
                    Reason.BACKEND_UNSUPPORTED,
                    f"a row for {name} has the character NUL, which PostgreSQL cannot hold; remove it at the source",
                )
            case _, "42501":
                return errors.Terminal(
                    Reason.BACKEND_UNAUTHORIZED,
                    f"{self._address.username} may not do this in schema {self._address.schema} at {at}",
                )
            case "28", _:
                return self._refused(at)
            case "53", _:
                return NoRoom(Reason.BACKEND_UNREACHABLE, f"{at} lacks memory, disk or connections ({state})")
            case _, "57014":
                return errors.Retryable(
                    Reason.BACKEND_UNREACHABLE, f"{at} did not answer within {self._call_seconds:g} s"
                )
            case "08" | "57" | "58" | "40" | "55" | "25", _:
                return errors.Retryable(Reason.BACKEND_UNREACHABLE, f"{at} answered SQLSTATE {state}")
            case "", _:
                return self._mapped_connecting(str(error), at)
            case _:
                return errors.Terminal(Reason.BACKEND_REJECTED, f"{at} refused the request with SQLSTATE {state}")

    def _mapped_connecting(self, text: str, at: str) -> errors.PointsmanError:
        # While connecting, the client tells errors apart by the server's words only.
        if any(words in text for words in ("authentication failed", "no password", "pg_hba.conf")):
            return self._refused(at)
        if "role " in text and "does not exist" in text:
            return self._refused(at)
        if "database " in text and "does not exist" in text:
            return errors.Terminal(Reason.BACKEND_REJECTED, f"{at} has no database {self._address.database}; create it")
        if "does not support SSL" in text or "certificate" in text:
            return errors.Terminal(
                Reason.BACKEND_REJECTED,
                f"{at} has no certificate that tls: {self._address.tls} accepts; mend it or choose another mode",
            )
        return errors.Retryable(Reason.BACKEND_UNREACHABLE, f"{at} cannot be reached")

    def _refused(self, at: str) -> errors.Terminal:
        return errors.Terminal(
            Reason.BACKEND_UNAUTHORIZED,
            f"{at} refused the user {self._address.username}; check username and password in the Secret",
        )


def _json(content: bytes | str) -> Any:
    """Read a JSON value, whose integers may be of any size: the fast reader makes floats of those over 64 bits."""
    raw = content.encode() if isinstance(content, str) else content
    return json.loads(raw) if _MANY_DIGITS.search(raw) else orjson.loads(raw)


def quoted(name: str) -> str:
    """Return an identifier as SQL."""
    return '"' + name.replace('"', '""') + '"'
