"""The database in the operator's own memory: the meaning of the contract, for tests and a first look.

It searches exactly, over all points, and forgets everything when its process ends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman import ports
from pointsman.backends import markers, points
from pointsman.core import filters

_SCAN_ROWS = 8192


@dataclass(slots=True)
class _Row:
    document: str
    ordinal: int
    text: str
    content_key: bytes
    metadata: Mapping[str, Any]
    metadata_digest: bytes


@dataclass(slots=True)
class _Index:
    """Rows and vectors by slot; slots are dense, so that a deleted point's is taken by the last."""

    spec: ports.IndexSpec
    slots: dict[bytes, int] = field(default_factory=dict)
    ids: list[bytes] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)
    vectors: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def write(self, point_id: bytes, row: _Row, vector: npt.NDArray[np.float32]) -> None:
        slot = self.slots.setdefault(point_id, len(self.ids))
        if slot == len(self.ids):
            self.ids.append(point_id)
            self.rows.append(row)
            if slot >= len(self.vectors):
                grown = np.zeros((max(1024, 2 * slot), self.spec.dimensions), np.float32)
                grown[:slot] = self.vectors[:slot] if slot else 0
                self.vectors = grown
        self.rows[slot] = row
        self.vectors[slot] = vector

    def delete(self, point_id: bytes) -> None:
        slot = self.slots.pop(point_id, None)
        if slot is None:
            return
        last_id, last_row = self.ids.pop(), self.rows.pop()
        if last_id != point_id:
            self.ids[slot], self.rows[slot], self.slots[last_id] = last_id, last_row, slot
            self.vectors[slot] = self.vectors[len(self.ids)]


class Memory:
    """Indexes in memory. One object is one database: share it to share what it holds."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._indexes: dict[str, _Index] = {}
        self._aliases: dict[str, str] = {}

    def probe(self) -> None:
        """Do nothing: our own memory is always there."""

    def find(self, name: str) -> ports.Marker | None:
        """Return the marker of an index, or None."""
        with self._lock:
            index = self._indexes.get(name)
            return None if index is None else index.spec.marker

    def names(self, prefix: str) -> list[str]:
        """Return the names of the indexes that begin with a prefix."""
        with self._lock:
            return sorted(name for name in self._indexes if name.startswith(prefix))

    def create(self, spec: ports.IndexSpec) -> None:
        """Make an empty index."""
        with self._lock:
            if spec.name in self._aliases:
                raise markers.foreign(spec.name)
            if markers.is_free(self, spec):
                self._indexes[spec.name] = _Index(spec)

    def load(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Write batches; return how many rows were written."""
        written = 0
        for batch in batches:
            self.upsert(name, batch)
            written += batch.num_rows
        return written

    def seal(self, name: str) -> None:
        """Check that the index is there: exact search needs nothing built."""
        with self._lock:
            self._index(name)

    def is_built(self, name: str) -> bool:
        """Return True where the index is there."""
        with self._lock:
            return name in self._indexes

    def upsert(self, name: str, batch: pa.RecordBatch) -> None:
        """Write one batch."""
        vectors = points.unit(points.vectors(batch), batch.schema.field("vector").type.list_size)
        with self._lock:
            index = self._index(name)
            columns = zip(*points.columns(batch), strict=True)
            for (point_id, document, ordinal, text, key, metadata, digest, _), vector in zip(
                columns, vectors, strict=True
            ):
                row = _Row(document, ordinal, text, key, json.loads(metadata), digest)
                index.write(point_id, row, vector)

    def delete(self, name: str, point_ids: Sequence[bytes]) -> None:
        """Delete points; missing ones are no error."""
        with self._lock:
            index = self._index(name)
            for point_id in point_ids:
                index.delete(point_id)

    def count(self, name: str) -> int:
        """Return how many points the index holds."""
        with self._lock:
            return len(self._index(name).ids)

    def scan(self, name: str) -> Iterator[pa.RecordBatch]:
        """Yield every point once."""
        with self._lock:
            index = self._index(name)
            found = [(i, r.content_key, r.metadata_digest) for i, r in zip(index.ids, index.rows, strict=True)]
        for start in range(0, len(found), _SCAN_ROWS):
            ids, keys, digests = zip(*found[start : start + _SCAN_ROWS], strict=True)
            yield points.presence(ids, keys, digests)

    def fetch(self, name: str, point_ids: Sequence[bytes]) -> tuple[list[bytes], ports.Vectors]:
        """Return the points found and their vectors."""
        with self._lock:
            index = self._index(name)
            found = [point_id for point_id in dict.fromkeys(point_ids) if point_id in index.slots]
            slots = [index.slots[point_id] for point_id in found]
            vectors = index.vectors[slots] if slots else np.empty((0, index.spec.dimensions))
            return found, points.unit(vectors, index.spec.dimensions)

    def search(
        self, name: str, vector: npt.NDArray[np.float32], limit: int, where: filters.Filter | None
    ) -> list[ports.Hit]:
        """Return the nearest points that pass the filter, best first."""
        with self._lock:
            index = self._index(name)
            slots = np.array(
                [slot for slot, row in enumerate(index.rows) if where is None or filters.matches(where, row.metadata)],
                dtype=np.int64,
            )
            if not len(slots):
                return []
            scores = index.vectors[slots] @ points.unit(vector, index.spec.dimensions)[0]
            best = np.argsort(-scores, kind="stable")[:limit]
            return [self._hit(index, int(slots[i]), float(scores[i])) for i in best]

    @staticmethod
    def _hit(index: _Index, slot: int, score: float) -> ports.Hit:
        row = index.rows[slot]
        return ports.Hit(index.ids[slot], row.document, row.ordinal, score, row.text, row.metadata)

    def publish(self, alias: str, name: str) -> None:
        """Point an alias at an index."""
        with self._lock:
            wanted = self._index(name).spec.marker
            if alias in self._indexes:
                raise markers.foreign(alias)
            if alias in self._aliases:
                markers.check_alias(alias, self.find(self._aliases[alias]), wanted)
            self._aliases[alias] = name

    def unpublish(self, alias: str) -> None:
        """Remove an alias."""
        with self._lock:
            self._aliases.pop(alias, None)

    def drop(self, name: str) -> None:
        """Remove an index, and the aliases that point to it."""
        with self._lock:
            self._indexes.pop(name, None)
            self._aliases = {alias: target for alias, target in self._aliases.items() if target != name}

    def close(self) -> None:
        """Keep everything: another user may share this memory."""

    def _index(self, name: str) -> _Index:
        index = self._indexes.get(self._aliases.get(name, name))
        if index is None:
            raise markers.lost(name)
        return index
