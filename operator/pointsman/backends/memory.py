"""The database in the operator's own memory: the meaning of the contract, for tests and a first look.

It searches exactly, over all points, and forgets everything when its process ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman import ports
from pointsman.backends import markers, points
from pointsman.core import filters, rows

_SCAN_ROWS = 8192


@dataclass(slots=True)
class _Index:
    """Payloads and vectors by slot; slots are dense, so that a deleted point's is taken by the last."""

    spec: ports.IndexSpec
    slots: dict[bytes, int] = field(default_factory=dict)
    ids: list[bytes] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    vectors: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def write(self, point_id: bytes, payload: dict[str, Any], vector: npt.NDArray[np.float32]) -> None:
        slot = self.slots.setdefault(point_id, len(self.ids))
        if slot == len(self.ids):
            self.ids.append(point_id)
            self.payloads.append(payload)
            if slot >= len(self.vectors):
                grown = np.zeros((max(1024, 2 * slot), self.spec.dimensions), np.float32)
                grown[:slot] = self.vectors[:slot] if slot else 0
                self.vectors = grown
        self.payloads[slot] = payload
        self.vectors[slot] = vector

    def delete(self, point_id: bytes) -> None:
        slot = self.slots.pop(point_id, None)
        if slot is None:
            return
        last_id, last_payload = self.ids.pop(), self.payloads.pop()
        if last_id != point_id:
            self.ids[slot], self.payloads[slot], self.slots[last_id] = last_id, last_payload, slot
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
        """Return the names of the indexes that begin with a prefix; what other databases hold, their own tools tell."""
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
            ids = batch.column("point_id").to_pylist()
            for point_id, payload, vector in zip(ids, points.payloads(batch), vectors, strict=True):
                index.write(point_id, payload, vector)

    def delete(self, name: str, point_ids: Sequence[bytes]) -> None:
        """Delete points; missing ones are no error."""
        with self._lock:
            index = self._index(name)
            for point_id in point_ids:
                index.delete(point_id)

    def remove_foreign(self, name: str) -> int:
        """Delete points whose ids are not of our length."""
        with self._lock:
            index = self._index(name)
            foreign = [point_id for point_id in index.ids if len(point_id) != rows.KEY.byte_width]
            for point_id in foreign:
                index.delete(point_id)
            return len(foreign)

    def count(self, name: str) -> int:
        """Return how many points the index holds."""
        with self._lock:
            return len(self._index(name).ids)

    def scan(self, name: str) -> Iterator[pa.RecordBatch]:
        """Yield every point once."""
        with self._lock:
            index = self._index(name)
            names = rows.SCANNED.names[1:]
            found = [
                (point_id, *(payload[name] for name in names))
                for point_id, payload in zip(index.ids, index.payloads, strict=True)
            ]
        for start in range(0, len(found), _SCAN_ROWS):
            yield points.scanned(*zip(*found[start : start + _SCAN_ROWS], strict=True))

    def differing(self, name: str, batch: pa.RecordBatch) -> list[bytes]:
        """Return those points that the index lacks or holds otherwise."""
        with self._lock:
            index = self._index(name)
            slots = [(i, index.slots[i]) for i in batch.column("point_id").to_pylist() if i in index.slots]
            found = {i: (index.payloads[slot], index.vectors[slot]) for i, slot in slots}
            return points.differing(batch, points.payloads(batch), found)

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
                [
                    slot
                    for slot, payload in enumerate(index.payloads)
                    if where is None or filters.matches(where, payload["metadata"])
                ],
                dtype=np.int64,
            )
            if not len(slots):
                return []
            scores = index.vectors[slots] @ points.unit(vector, index.spec.dimensions)[0]
            best = np.argsort(-scores, kind="stable")[:limit]
            return [self._hit(index, int(slots[i]), float(scores[i])) for i in best]

    @staticmethod
    def _hit(index: _Index, slot: int, score: float) -> ports.Hit:
        point_id, payload = index.ids[slot], index.payloads[slot]
        return ports.Hit(point_id, payload["document"], payload["ordinal"], score, payload["text"], payload["metadata"])

    def publish(self, alias: str, name: str) -> None:
        """Point an alias at an index."""
        with self._lock:
            owner = self._index(name).spec.marker.owner
            if alias in self._indexes:
                raise markers.foreign(alias)
            if alias in self._aliases:
                markers.check_alias(alias, self.find(self._aliases[alias]), owner)
            self._aliases[alias] = name

    def unpublish(self, alias: str, owner: str) -> None:
        """Remove an alias."""
        with self._lock:
            target = self._aliases.get(alias)
            if target is not None:
                markers.check_alias(alias, self.find(target), owner)
                del self._aliases[alias]

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
