"""PostgreSQL with pgvector: an index is a table, its marker the table's comment, an alias a view.

Tables are filled by COPY BINARY and get their graph index afterwards. Up to 2,000 dimensions are stored as `vector`,
up to 4,000 as `halfvec`: pgvector builds no index over more.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman import errors, ports
from pointsman.api.conditions import Reason
from pointsman.backends import markers, pgvector_connections, pgvector_rows, points
from pointsman.backends.pgvector_connections import Session, quoted
from pointsman.core import filters, rows

BUILD_SECONDS = ports.BUILD_SECONDS
"""The longest that building one graph index may take."""
MOST_VECTOR, MOST_HALFVEC = 2000, 4000
"""Dimensions that pgvector builds an index over: https://github.com/pgvector/pgvector#hnsw."""
MOST_M, MOST_EF_CONSTRUCT = 100, 1000

_COPY_BYTES = 8 << 20
_SCAN_ROWS = 8192
# More memory than this is not asked for without the server's owner having said so.
_MOST_BUILD_KIB = 1 << 20


class Pgvector:
    """The tables of one schema of one database."""

    def __init__(self, connections: pgvector_connections.Connections, schema: str) -> None:
        self._connections = connections
        self._schema = schema

    def probe(self) -> None:
        """Raise unless the database lets us in and has pgvector 0.8 or later, and the schema is there."""
        with self._connections.transaction() as session:
            self._text(session, "")

    def find(self, name: str) -> ports.Marker | None:
        """Return the marker of a table, or None where there is none of that name."""
        with self._connections.transaction(name) as session:
            found = self._relation(session, name)
        if found is None:
            return None
        kind, marker = found
        if kind != "r" or marker is None:
            raise markers.foreign(name)
        return marker

    def create(self, spec: ports.IndexSpec) -> None:
        """Make an empty table with its marker, in one transaction."""
        _check_supported(spec)
        if not markers.is_free(self, spec):
            return
        columns = ", ".join(f"{column} {definition}" for column, definition in pgvector_rows.COLUMNS)
        embedding = f"embedding {_type(spec.dimensions)}({spec.dimensions}) NOT NULL"
        with self._connections.transaction(spec.name) as session:
            session.execute(f"CREATE TABLE {self._quoted(spec.name)} ({columns}, {embedding})")
            session.execute(_comment("TABLE", self._quoted(spec.name), markers.to_text(spec)))

    def load(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Copy batches in, each in its own transaction; one with rows that are there already is merged."""
        is_half, written = self._is_half(name), 0
        for piece in points.pieces(batches, _COPY_BYTES, 65536):
            body = pgvector_rows.copied(piece, is_half)
            try:
                with self._connections.transaction(name, is_waited_for=True) as session:
                    session.copy(f"COPY {self._quoted(name)} FROM STDIN (FORMAT BINARY)", body)
            except pgvector_connections.Duplicate:
                self._merge(name, body)
            written += piece.num_rows
        return written

    def seal(self, name: str) -> None:
        """Build the graph index and the one over metadata, and return when both are built."""
        spec = self._spec(name)
        try:
            self._build(spec, is_parallel=True)
        except pgvector_connections.NoRoom:
            # Shared memory may be as small as 64 MiB in a container; a single process needs none of it.
            self._build(spec, is_parallel=False)

    def is_built(self, name: str) -> bool:
        """Return whether the graph index is there and valid; PostgreSQL keeps it current with every write."""
        with self._connections.transaction(name) as session:
            return self._has_index(session, name, "hnsw")

    def upsert(self, name: str, batch: pa.RecordBatch) -> None:
        """Write one batch."""
        is_half = self._is_half(name)
        for piece in points.pieces([batch], 4 * _COPY_BYTES, 65536):
            self._merge(name, pgvector_rows.copied(piece, is_half))

    def delete(self, name: str, point_ids: Sequence[bytes]) -> None:
        """Delete rows in one transaction."""
        with self._connections.transaction(name) as session:
            session.execute(f"DELETE FROM {self._quoted(name)} WHERE point_id = ANY(%s)", (_uuids(point_ids),))

    def remove_foreign(self, name: str) -> int:
        """Find nothing: the column's type lets only ids in that `delete` can name."""
        self._spec(name)
        return 0

    def count(self, name: str) -> int:
        """Return the table's exact number of rows."""
        with self._connections.transaction(name) as session:
            return int(session.execute(f"SELECT count(*) FROM {self._quoted(name)}")[0][0])

    def scan(self, name: str) -> Iterator[pa.RecordBatch]:
        """Yield every row once, as they were when the scan began."""
        statement = f"SELECT {', '.join(rows.SCANNED.names)} FROM {self._quoted(name)}"
        with self._connections.transaction(name) as session:
            for found in session.stream(statement, _SCAN_ROWS):
                ids, keys, digests, recipes = zip(*found, strict=True)
                yield points.scanned([point_id.bytes for point_id in ids], keys, digests, recipes)

    def differing(self, name: str, batch: pa.RecordBatch) -> list[bytes]:
        """Return those points that the table lacks or holds otherwise."""
        dimensions, wrong = self._spec(name).dimensions, []
        names = [column for column, _ in pgvector_rows.COLUMNS]
        statement = (
            f"SELECT {', '.join(names)}, {_type(dimensions)}_send(embedding) FROM {self._quoted(name)} "
            "WHERE point_id = ANY(%s)"
        )
        for piece in points.pieces([batch], _COPY_BYTES, _SCAN_ROWS):
            ids = _uuids(piece.column("point_id").to_pylist())
            with self._connections.transaction(name) as session:
                found = session.execute(statement, (ids,), binary=True)
            vectors = pgvector_rows.received([row[-1] for row in found], dimensions > MOST_VECTOR, dimensions)
            held = {
                row[0].bytes: (dict(zip(names, row, strict=False)), vector)
                for row, vector in zip(found, vectors, strict=True)
            }
            wrong += points.differing(piece, points.payloads(piece), held)
        return wrong

    def fetch(self, name: str, point_ids: Sequence[bytes]) -> tuple[list[bytes], ports.Vectors]:
        """Return the points found and their vectors."""
        dimensions = self._spec(name).dimensions
        statement = (
            f"SELECT point_id, {_type(dimensions)}_send(embedding) FROM {self._quoted(name)} WHERE point_id = ANY(%s)"
        )
        with self._connections.transaction(name) as session:
            found = session.execute(statement, (_uuids(point_ids),), binary=True)
        vectors = pgvector_rows.received([row[1] for row in found], dimensions > MOST_VECTOR, dimensions)
        return [row[0].bytes for row in found], vectors

    def search(
        self, name: str, vector: npt.NDArray[np.float32], limit: int, where: filters.Filter | None
    ) -> list[ports.Hit]:
        """Walk the graph until enough rows pass; look at all rows that pass where that found too few."""
        statement, parameters = self._nearest(name, vector, limit, where)
        with self._connections.query(name, _candidates(limit)) as session:
            found = session.fetch(statement, parameters)
        if len(found) < limit:
            # The walk ends after hnsw.max_scan_tuples rows, however few of them passed.
            with self._connections.transaction(name) as session:
                session.execute("SET LOCAL enable_indexscan = off")
                found = session.fetch(statement, parameters)
        return pgvector_rows.hits(found)

    def send_search(
        self, name: str, vector: npt.NDArray[np.float32], limit: int, where: filters.Filter | None
    ) -> pgvector_connections.Sent[list[ports.Hit]] | None:
        """Send the walk through the graph alone, on a connection that is idle."""
        statement, parameters = self._nearest(name, vector, limit, where)
        return self._connections.send(name, _candidates(limit), statement, parameters, pgvector_rows.hits)

    def _nearest(
        self, name: str, vector: npt.NDArray[np.float32], limit: int, where: filters.Filter | None
    ) -> tuple[str, list[bytes | str]]:
        condition, parameters = ("TRUE", []) if where is None else pgvector_rows.where(where)
        columns = pgvector_rows.FOUND
        # The vector is sent once: with many dimensions, reading it takes the server longer than the search.
        statement = (
            f"SELECT {columns}, 1 - distance FROM (SELECT {columns}, "
            f"embedding <=> %s::{_type(len(vector))} AS distance FROM {self._quoted(name)} "
            f"WHERE {condition} ORDER BY distance LIMIT %s) AS nearest ORDER BY distance"
        )
        sent = pgvector_rows.sent(vector, len(vector) > MOST_VECTOR)
        return pgvector_rows.numbered(statement), [sent, *parameters, str(limit)]

    def publish(self, alias: str, name: str) -> None:
        """Make the alias a view of the table, in one transaction."""
        spec = self._spec(name)
        with self._connections.transaction(name) as session:
            found = self._relation(session, alias)
            if found is not None:
                if found[0] != "v":
                    raise markers.foreign(alias)
                markers.check_alias(alias, found[1], spec.marker.owner)
                # A view's columns cannot change their type, and vectors of another space have another.
                session.execute(f"DROP VIEW {self._quoted(alias)}")
            session.execute(f"CREATE VIEW {self._quoted(alias)} AS SELECT * FROM {self._quoted(name)}")
            session.execute(_comment("VIEW", self._quoted(alias), markers.to_text(spec)))

    def unpublish(self, alias: str, owner: str) -> None:
        """Drop the view of an alias."""
        with self._connections.transaction() as session:
            found = self._relation(session, alias)
            if found is None:
                return
            markers.check_alias(alias, found[1] if found[0] == "v" else None, owner)
            session.execute(f"DROP VIEW IF EXISTS {self._quoted(alias)}")

    def drop(self, name: str) -> None:
        """Drop a table of ours, and the views of ours that are aliases of it."""
        if self.find(name) is None:
            return
        dependants = (
            "SELECT DISTINCT v.relname FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid "
            "JOIN pg_class v ON v.oid = r.ev_class JOIN pg_namespace n ON n.oid = v.relnamespace "
            "WHERE d.refobjid = to_regclass(%s) AND v.relkind = 'v' AND n.nspname = %s"
        )
        with self._connections.transaction(name) as session:
            for (alias,) in session.execute(dependants, (self._quoted(name), self._schema)):
                found = self._relation(session, alias)
                if found is not None and found[1] is not None:
                    session.execute(f"DROP VIEW IF EXISTS {self._quoted(alias)}")
            session.execute(f"DROP TABLE IF EXISTS {self._quoted(name)}")

    def close(self) -> None:
        """Give connections back."""
        self._connections.close()

    def _quoted(self, name: str) -> str:
        return f"{quoted(self._schema)}.{quoted(name)}"

    def _text(self, session: Session, name: str) -> tuple[str, str | None] | None:
        """Return the kind and the comment of a table or view; a schema that is not there is no absent table."""
        statement = (
            "SELECT c.relkind::text, obj_description(c.oid, 'pg_class') FROM pg_namespace n "
            "LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = %s WHERE n.nspname = %s"
        )
        found = session.execute(statement, (name, self._schema))
        if not found:
            raise errors.Terminal(Reason.BACKEND_REJECTED, f"the database has no schema {self._schema}; create it")
        kind, text = found[0]
        return None if kind is None else (kind, text)

    def _relation(self, session: Session, name: str) -> tuple[str, ports.Marker | None] | None:
        found = self._text(session, name)
        return None if found is None else (found[0], markers.from_text(found[1]))

    def _spec(self, name: str) -> ports.IndexSpec:
        with self._connections.transaction(name) as session:
            found = self._text(session, name)
        if found is None:
            raise markers.lost(name)
        return markers.spec_from_text(name, found[1])

    def _is_half(self, name: str) -> bool:
        return self._spec(name).dimensions > MOST_VECTOR

    def _merge(self, name: str, body: bytes) -> None:
        table, columns = self._quoted(name), [column for column, _ in pgvector_rows.COLUMNS] + ["embedding"]
        assigned = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
        with self._connections.transaction(name, is_waited_for=True) as session:
            session.execute(f"CREATE TEMP TABLE pointsman_merge (LIKE {table}) ON COMMIT DROP")
            session.copy("COPY pointsman_merge FROM STDIN (FORMAT BINARY)", body)
            # In the order of the ids, two writers of one batch cannot wait for each other.
            session.execute(
                f"INSERT INTO {table} SELECT * FROM pointsman_merge ORDER BY point_id "
                f"ON CONFLICT (point_id) DO UPDATE SET {assigned}"
            )

    def _has_index(self, session: Session, name: str, method: str) -> bool:
        statement = (
            "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
            "WHERE i.indrelid = to_regclass(%s) AND a.amname = %s AND i.indisvalid AND i.indisready"
        )
        return bool(session.execute(statement, (self._quoted(name), method)))

    def _build(self, spec: ports.IndexSpec, *, is_parallel: bool) -> None:
        table, kind = self._quoted(spec.name), _type(spec.dimensions)
        with self._connections.transaction(spec.name, BUILD_SECONDS) as session:
            # A second builder waits for the first and finds its work done.
            session.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (table,))
            if not self._has_index(session, spec.name, "gin"):
                session.execute(f"CREATE INDEX ON {table} USING gin (metadata jsonb_path_ops)")
            if not self._has_index(session, spec.name, "hnsw"):
                self._give_memory(session, spec)
                if not is_parallel:
                    session.execute("SET LOCAL max_parallel_maintenance_workers = 0")
                session.execute(
                    f"CREATE INDEX ON {table} USING hnsw (embedding {kind}_cosine_ops) "
                    f"WITH (m = {spec.m}, ef_construction = {max(spec.ef_construct, 2 * spec.m)})"
                )
            session.execute(f"ANALYZE {table}")

    def _give_memory(self, session: Session, spec: ports.IndexSpec) -> None:
        """Let the graph be built in memory, where that takes no more than 1 GiB; it is much slower on disk."""
        count = session.execute(f"SELECT count(*) FROM {self._quoted(spec.name)}")[0][0]
        # A node has its vector, 2 m links in the lowest layer and m in some above, and their headers.
        needed = count * (4 * spec.dimensions + 64 * spec.m + 256) // 1024
        allowed = session.execute("SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'")
        wanted = max(allowed[0][0], min(needed, _MOST_BUILD_KIB))
        session.execute(f"SET LOCAL maintenance_work_mem = '{wanted}kB'")


def _type(dimensions: int) -> str:
    return "halfvec" if dimensions > MOST_VECTOR else "vector"


def _candidates(limit: int) -> int:
    return min(1000, max(100, 2 * limit))


def _uuids(point_ids: Sequence[bytes]) -> list[uuid.UUID]:
    return [uuid.UUID(bytes=point_id) for point_id in point_ids]


def _comment(kind: str, table: str, text: str) -> str:
    # COMMENT takes no parameters. E'' means the same whatever standard_conforming_strings says.
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"COMMENT ON {kind} {table} IS E'{escaped}'"


def _check_supported(spec: ports.IndexSpec) -> None:
    limits = (
        (spec.dimensions, MOST_HALFVEC, "dimensions; choose a model with fewer"),
        (spec.m, MOST_M, "links of a node; lower hnsw.m"),
        (spec.ef_construct, MOST_EF_CONSTRUCT, "candidates while building; lower hnsw.efConstruct"),
    )
    for asked, most, what in limits:
        if asked > most:
            raise errors.Terminal(
                Reason.BACKEND_UNSUPPORTED, f"pgvector indexes at most {most} {what}, {asked} were asked for"
            )
