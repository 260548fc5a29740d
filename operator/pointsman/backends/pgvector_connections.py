"""How is a PostgreSQL server reached? Pooled connections, timeouts, and the one place that knows its client.

Errors are told apart by SQLSTATE and said in words of our own: PostgreSQL's messages quote the rows they are about.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import psycopg
import psycopg.types.json
from psycopg import pq

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.backends import markers, pgvector_rows

_Connection = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")

CALL_SECONDS = 30
CONNECT_SECONDS = 10
IDLE = 8
MOST_SENT = 16 << 10
"""Bytes of parameters that a connection nobody uses takes at once, whatever the system's buffers are."""
_OLDEST_EXTENSION = (0, 8)


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

    def fetch(self, statement: str, parameters: Sequence[bytes | str]) -> list[pgvector_rows.Row]:
        """Return the rows of a statement with `$1` and so on, as they were sent: in PostgreSQL's binary formats.

        Parameters that are bytes are in these too. It does without the client's cursors, at a third of their price.
        """
        values, formats = _sent(parameters)
        connection = self._connection.pgconn
        return _rows(connection.exec_params(statement.encode(), values, None, formats, pq.Format.BINARY))

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


class Sent(Generic[T]):
    """A statement that was sent. Its connection is its own until the answer was read, or it is given up."""

    def __init__(
        self, connections: Connections, connection: _Connection, name: str, read: Callable[[list[pgvector_rows.Row]], T]
    ) -> None:
        self._connections, self._connection, self._name, self._read = connections, connection, name, read
        self._result: pq.abc.PGresult | None = None

    def fileno(self) -> int:
        """Return what becomes readable when more of the answer has come."""
        return self._connection.pgconn.socket

    def answer(self) -> T | None:
        """Read what has come, without waiting; return the answer once it is whole, None before."""
        connection = self._connection.pgconn
        with self._connections.mapped(self._name):
            try:
                connection.consume_input()
                while not connection.is_busy():
                    result = connection.get_result()
                    if result is None:
                        break
                    self._result = result
                else:
                    return None
            except BaseException:
                self._connection.close()
                self._connections.give_back(self._connection)
                raise
            self._connections.give_back(self._connection)
            assert self._result is not None, "the client makes a result of its own where the server sent none"
            return self._read(_rows(self._result))

    def give_up(self) -> None:
        """Wait for no answer; with its connection the statement ends, or with its time."""
        self._connection.close()


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
    def transaction(
        self, name: str = "the index", seconds: float | None = None, *, is_waited_for: bool = False
    ) -> Iterator[Session]:
        """Lend a connection for one transaction on `name`; each of its statements may take so many seconds.

        One that others wait for ends with its connection where its client is silent for as long as a call may take: one
        that was frozen before its commit would hold its rows, and write them hours later.

        Raises INDEX_LOST where the table of that name is not there.
        """
        with self.mapped(name):
            connection = self._borrow()
            try:
                with connection.transaction():
                    if seconds is not None:
                        connection.execute(f"SET LOCAL statement_timeout = {int(seconds * 1000)}".encode())
                    if is_waited_for:
                        limit = int(self._call_seconds * 1000)
                        connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {limit}".encode())
                    yield Session(connection)
            finally:
                self.give_back(connection)

    @contextlib.contextmanager
    def query(self, name: str, candidates: int) -> Iterator[Session]:
        """Lend a connection for single statements that look at so many candidates of a graph index.

        What a transaction would set anew each time, in round trips of their own, the connection keeps.
        """
        with self.mapped(name):
            connection = self._borrow()
            try:
                if self._candidates.get(connection) != candidates:
                    connection.execute(f"SET hnsw.ef_search = {candidates}".encode())
                    self._candidates[connection] = candidates
                yield Session(connection)
            finally:
                self.give_back(connection)

    def send(
        self,
        name: str,
        candidates: int,
        statement: str,
        parameters: Sequence[bytes | str],
        read: Callable[[list[pgvector_rows.Row]], T],
    ) -> Sent[T] | None:
        """Send what `Session.fetch` of a `query` would, whose rows `read` makes the answer of; wait for nothing.

        None, and nothing was sent, where that cannot be: no connection is idle that looks at so many candidates, or
        the statement is too long.
        """
        if sum(map(len, parameters)) > MOST_SENT:
            return None
        with self._lock:
            if not self._idle or self._candidates.get(self._idle[-1]) != candidates or self._idle[-1].closed:
                return None
            connection = self._idle.pop()
        values, formats = _sent(parameters)
        try:
            with self.mapped(name):
                connection.pgconn.send_query_params(statement.encode(), values, None, formats, pq.Format.BINARY)
                if not connection.pgconn.flush():
                    return Sent(self, connection, name, read)
        except errors.PointsmanError:
            connection.close()
            self.give_back(connection)
            raise
        connection.close()
        return None

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

    def give_back(self, connection: _Connection) -> None:
        """Take back what was lent."""
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
        psycopg.types.json.set_json_loads(pgvector_rows.json_value, connection)
        # Otherwise a filter that most rows fail would end a search early.
        connection.execute(b"SET hnsw.iterative_scan = strict_order")

    @contextlib.contextmanager
    def mapped(self, name: str) -> Iterator[None]:
        """Say in our words what the client raises of a call that is about `name`."""
        try:
            yield
        except psycopg.Error as error:
            raise self._mapped(error, name) from None

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


def _sent(parameters: Sequence[bytes | str]) -> tuple[list[bytes], list[int]]:
    """Return the values of parameters and their formats: those of text are said in words, those of bytes are binary."""
    values = [each.encode() if isinstance(each, str) else each for each in parameters]
    return values, [pq.Format.TEXT if isinstance(each, str) else pq.Format.BINARY for each in parameters]


def _rows(result: pq.abc.PGresult) -> list[pgvector_rows.Row]:
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise psycopg.errors.error_from_result(result)
    columns, value = range(result.nfields), result.get_value
    return [[value(row, column) for column in columns] for row in range(result.ntuples)]


def quoted(name: str) -> str:
    """Return an identifier as SQL."""
    return '"' + name.replace('"', '""') + '"'
