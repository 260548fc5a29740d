"""Milvus and Milvus Lite: an index is a collection, its marker a property of the collection."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman import errors, ports
from pointsman.api.conditions import Reason
from pointsman.backends import markers, milvus_connections, milvus_rows, points
from pointsman.core import filters, rows

BUILD_SECONDS = ports.BUILD_SECONDS
"""The longest that building one index may take."""
MOST_DIMENSIONS = 32_768
MOST_HITS = 16_384
"""https://milvus.io/docs/limitations.md."""

_MARKER = "pointsman.marker"
_LOAD_BYTES = 4 << 20
_THREADS = 2
_PAGE = 8192
_FETCHED = 1024


class Milvus:
    """The collections of one database of one server."""

    def __init__(self, connection: milvus_connections.Connection, *, waits_for_writes: bool = True) -> None:
        """A search that does not wait for writes may miss those of the last seconds, and is a fifth of a second faster.

        See https://milvus.io/docs/consistency.md.
        """
        self._connection = connection
        self._consistency = "Strong" if waits_for_writes else "Bounded"
        self._client, self._timeout = connection.client, connection.timeout

    def probe(self) -> None:
        """Raise unless the server answers and lets us in."""
        with self._client() as client:
            client.list_collections(timeout=self._timeout)

    def find(self, name: str) -> ports.Marker | None:
        """Return the marker of a collection, or None where there is none of that name."""
        found = self._words(name)
        if found is None:
            return None
        collection, text = found
        marker = markers.from_text(text)
        # An alias is described as the collection that it points to.
        if marker is None or collection != name:
            raise markers.foreign(name)
        return marker

    def create(self, spec: ports.IndexSpec) -> None:
        """Make an empty collection with its marker, not indexed yet."""
        if spec.dimensions > MOST_DIMENSIONS:
            raise errors.Terminal(
                Reason.BACKEND_UNSUPPORTED,
                f"Milvus holds at most {MOST_DIMENSIONS} dimensions, {spec.dimensions} were asked for",
            )
        if not markers.is_free(self, spec):
            return
        text = markers.to_text(spec)
        with self._client(spec.name) as client:
            client.create_collection(
                spec.name,
                # Milvus Lite forgets descriptions; some versions of Milvus drop properties that they do not know.
                schema=milvus_connections.schema(spec.dimensions, text),
                properties={_MARKER: text},
                consistency_level="Strong",
                timeout=self._timeout,
            )

    def load(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Upsert batches, sized, from two threads, so that the next is made ready while the server takes one."""
        return points.in_parallel(
            points.pieces(batches, _LOAD_BYTES, 2000), lambda piece: self._upsert(name, piece), _THREADS
        )

    def seal(self, name: str) -> None:
        """Flush, index and load the collection, and return when the server says that all rows are indexed."""
        with self._client(name) as client:
            client.flush(name, timeout=BUILD_SECONDS)
        self._make_readable(name)
        deadline = time.monotonic() + BUILD_SECONDS
        while not self.is_built(name):
            if time.monotonic() > deadline:
                raise errors.Retryable(
                    Reason.BACKEND_UNREACHABLE, f"{self._connection.shown} did not index {name} in 12 hours"
                )
            time.sleep(0.5)

    def is_built(self, name: str) -> bool:
        """Return whether the server says that the index is finished and the collection loaded."""
        with self._client(name) as client:
            if "vector" not in client.list_indexes(name, timeout=self._timeout):
                return False
            found = client.describe_index(name, "vector", timeout=self._timeout)
            state = client.get_load_state(name, timeout=self._timeout)["state"]
        is_finished = found["state"] == "Finished" and not found["pending_index_rows"]
        return is_finished and state == milvus_connections.LOADED

    def upsert(self, name: str, batch: pa.RecordBatch) -> None:
        """Write one batch."""
        for piece in points.pieces([batch], _LOAD_BYTES, 2000):
            self._upsert(name, piece)

    def delete(self, name: str, point_ids: Sequence[bytes]) -> None:
        """Delete entities by their keys."""
        with self._client(name) as client:
            for start in range(0, len(point_ids), _PAGE):
                ids = [point_id.hex() for point_id in point_ids[start : start + _PAGE]]
                client.delete(name, ids=ids, timeout=self._timeout)

    def remove_foreign(self, name: str) -> int:
        """Delete entities whose keys are not hexadecimal as ours are."""
        foreign = [entity["id"] for page in self._pages(name, ["id"]) for entity in page if not _id(entity)]
        with self._client(name) as client:
            for start in range(0, len(foreign), _FETCHED):
                condition = f"id in {json.dumps(foreign[start : start + _FETCHED], ensure_ascii=False)}"
                client.delete(name, filter=condition, timeout=self._timeout)
        return len(foreign)

    def count(self, name: str) -> int:
        """Return the number of entities that a query sees, which is exact; the statistics are not."""
        if not self._is_loaded(name) and self._is_empty(name):
            return 0
        fields = ["count(*)"]
        with self._reading(name) as client:
            found = client.query(name, "", output_fields=fields, consistency_level="Strong", timeout=self._timeout)
            return int(found[0]["count(*)"])

    def scan(self, name: str) -> Iterator[pa.RecordBatch]:
        """Yield every entity once, page by page in the order of keys."""
        for page in self._pages(name, ["id", *rows.SCANNED.names[1:]]):
            keys, digests = (
                [points.from_hex(entity[key]) for entity in page] for key in ("content_key", "metadata_digest")
            )
            yield points.scanned([_id(entity) for entity in page], keys, digests, [entity["recipe"] for entity in page])

    def differing(self, name: str, batch: pa.RecordBatch) -> list[bytes]:
        """Return those points that the collection lacks or holds otherwise."""
        wrong: list[bytes] = []
        for piece in points.pieces([batch], _LOAD_BYTES, _FETCHED):
            wanted = milvus_rows.entities(piece)
            for entity in wanted:
                del entity["vector"]
            found = self._get(name, [entity["id"] for entity in wanted], ["*"])
            wrong += points.differing(piece, wanted, {_id(entity): (entity, entity["vector"]) for entity in found})
        return wrong

    def fetch(self, name: str, point_ids: Sequence[bytes]) -> tuple[list[bytes], ports.Vectors]:
        """Return the entities found and their vectors."""
        ids: list[bytes] = []
        vectors: list[npt.NDArray[np.float32]] = []
        with self._reading(name) as client:
            dimensions = milvus_rows.dimensions(client.describe_collection(name, timeout=self._timeout))
        for start in range(0, len(point_ids), _FETCHED):
            wanted = [point_id.hex() for point_id in point_ids[start : start + _FETCHED]]
            found = self._get(name, wanted, ["vector"])
            ids += [_id(entity) for entity in found]
            vectors += [np.asarray(entity["vector"], np.float32) for entity in found]
        return ids, points.unit(np.array(vectors), dimensions)

    def search(
        self, name: str, vector: npt.NDArray[np.float32], limit: int, where: filters.Filter | None
    ) -> list[ports.Hit]:
        """Return the nearest entities that pass, of at most 16,384."""
        most = min(limit, MOST_HITS)
        # Milvus Lite counts the candidates that do not pass as well: with 128 of them, a filter that keeps one in
        # a hundred finds three quarters of the nearest, with 1,024 all.
        candidates = max(128 if where is None else 1024, 2 * most)
        with self._reading(name) as client:
            found = client.search(
                name,
                [np.asarray(vector, np.float32)],
                anns_field="vector",
                filter="" if where is None else milvus_rows.expression(where),
                limit=most,
                output_fields=["document", "ordinal", "text", "metadata"],
                search_params={"metric_type": "COSINE", "params": {"ef": candidates}},
                consistency_level=self._consistency,
                timeout=self._timeout,
            )[0]
        return [milvus_rows.hit(entity) for entity in found]

    def publish(self, alias: str, name: str) -> None:
        """Move the alias in one request, or make it."""
        wanted = self.find(name)
        if wanted is None:
            raise markers.lost(name)
        found = self._words(alias)
        if found is not None:
            if found[0] == alias:
                raise markers.foreign(alias)
            markers.check_alias(alias, markers.from_text(found[1]), wanted.owner)
        with self._client(name) as client:
            if found is None:
                client.create_alias(name, alias, timeout=self._timeout)
            else:
                client.alter_alias(name, alias, timeout=self._timeout)

    def unpublish(self, alias: str, owner: str) -> None:
        """Drop an alias."""
        found = self._words(alias)
        if found is None:
            return
        markers.check_alias(alias, None if found[0] == alias else markers.from_text(found[1]), owner)
        with self._client(alias) as client:
            client.drop_alias(alias, timeout=self._timeout)

    def drop(self, name: str) -> None:
        """Drop a collection of ours and its aliases: Milvus drops none that has an alias."""
        if self.find(name) is None:
            return
        with self._client(name) as client:
            for alias in client.list_aliases(name, timeout=self._timeout)["aliases"]:
                client.drop_alias(alias, timeout=self._timeout)
            client.drop_collection(name, timeout=self._timeout)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _upsert(self, name: str, piece: pa.RecordBatch) -> None:
        entities = milvus_rows.entities(piece)
        with self._client(name) as client:
            client.upsert(name, entities, timeout=self._timeout)

    def _get(self, name: str, keys: list[str], fields: list[str]) -> list[dict[str, Any]]:
        with self._reading(name) as client:
            return list(client.get(name, keys, output_fields=fields, consistency_level="Strong", timeout=self._timeout))

    def _pages(self, name: str, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        with self._reading(name) as client:
            pages = client.query_iterator(
                name,
                batch_size=_PAGE,
                output_fields=fields,
                consistency_level="Strong",
                timeout=self._timeout,
            )
            try:
                while page := pages.next():
                    yield page
            finally:
                pages.close()

    def _words(self, name: str) -> tuple[str, str] | None:
        """Return what a collection or alias stands for: the collection's name and its marker's text."""
        try:
            with self._client(name) as client:
                found = client.describe_collection(name, timeout=self._timeout)
        except errors.Retryable as error:
            if error.reason is not Reason.INDEX_LOST:
                raise
            return self._words_of_alias(name)
        properties = found.get("properties") or {}
        return found["collection_name"], properties.get(_MARKER) or found.get("description") or ""

    def _words_of_alias(self, alias: str) -> tuple[str, str] | None:
        """Do the same for an alias on Milvus Lite, which describes collections by their own names only."""
        try:
            with self._client(alias) as client:
                target = client.describe_alias(alias, timeout=self._timeout)["collection_name"]
        except errors.Retryable as error:
            if error.reason is not Reason.INDEX_LOST:
                raise
            return None
        return self._words(target) if target != alias else None

    def _make_readable(self, name: str) -> None:
        """Make the index and load the collection, where that was not done yet."""
        found = self._words(name)
        if found is None:
            raise markers.lost(name)
        spec = markers.spec_from_text(name, found[1])
        with self._client(name) as client:
            if "vector" not in client.list_indexes(name, timeout=self._timeout):
                client.create_index(name, milvus_connections.graph(spec.m, spec.ef_construct), timeout=BUILD_SECONDS)
        # Milvus Lite has no index over arrays and looks at each; answers are the same.
        with contextlib.suppress(errors.Terminal), self._client(name) as client:
            if "terms" not in client.list_indexes(name, timeout=self._timeout):
                client.create_index(name, milvus_connections.inverted(), timeout=BUILD_SECONDS)
        with self._client(name) as client:
            client.load_collection(name, timeout=BUILD_SECONDS)
        self._connection.set_readable(name)

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[milvus_connections.Client]:
        """Lend the connection for queries, which Milvus answers of loaded collections only."""
        if not self._is_loaded(name):
            self._make_readable(name)
        with self._client(name) as client:
            yield client

    def _is_loaded(self, name: str) -> bool:
        if self._connection.is_readable(name):
            return True
        with self._client(name) as client:
            if not client.has_collection(name, timeout=self._timeout):
                raise markers.lost(name)
            is_loaded = bool(client.get_load_state(name, timeout=self._timeout)["state"] == milvus_connections.LOADED)
        if is_loaded:
            self._connection.set_readable(name)
        return is_loaded

    def _is_empty(self, name: str) -> bool:
        """Return whether nothing was ever written, without loading an index that a bulk load is to come before."""
        with self._client(name) as client:
            client.flush(name, timeout=BUILD_SECONDS)
            return int(client.get_collection_stats(name, timeout=self._timeout)["row_count"]) == 0


def _id(entity: dict[str, Any]) -> bytes:
    """Return an entity's id as 16 bytes; none of a key that is no id of ours."""
    return points.from_hex(entity["id"])
