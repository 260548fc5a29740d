"""The vectors of all texts ever embedded for one document side, under the key of the exact text sent.

Append only: each finished batch is one commit, so a killed writer leaves whole batches and nothing else, and nothing
that was paid for is embedded twice. A snapshot names no version of this table: a key has one vector, for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.api.conditions import Reason
from pointsman.core import keys, rows
from pointsman.errors import Retryable
from pointsman.store.tables import BATCH_ROWS, Part, Table, View

Vectors = npt.NDArray[np.float32]
_KEY = "content_key"
_SCANNED_ROWS = 1 << 18


class VectorTable:
    """One table of vectors. Remembers its keys, 32 bytes each, and reads them again when another wrote or cleaned."""

    def __init__(self, table: Table, dimensions: int) -> None:
        self._table = table
        self._dimensions = dimensions
        self._view: View | None = None
        self._known = keys.KeySet()

    def missing(self, content_keys: pa.Array) -> pa.Array:
        """Return the distinct keys, in order, that have no vector yet."""
        return self._keys().missing(content_keys)

    def append(self, batch: pa.RecordBatch) -> None:
        """Store a finished batch of `rows.vectors(dimensions)` in one commit; keys that are there are skipped.

        Each commit costs some 10 ms and a file, so batches of a thousand rows or more serve best.
        """
        batch = batch.select(rows.vectors(self._dimensions).names)
        content_keys = keys.array(batch.column(_KEY))
        is_new = ~self._keys().contains(content_keys) & _is_first(content_keys)
        if not is_new.any():
            return
        self._view = self._table.append(batch.filter(pa.array(is_new)))
        self._known.add(content_keys.filter(pa.array(is_new)))

    def write_apart(self, batches: Iterator[pa.RecordBatch]) -> list[Part]:
        """Write finished batches that no version has yet, and return what names them."""
        return self._table.write_apart(batches, _KEY)

    def take_in(self, parts: Sequence[Part]) -> None:
        """Add what was written apart in one commit; `keep_first` is for whoever took in a key twice."""
        self._table.take_in(parts)
        self._view = None

    def keep_first(self) -> int:
        """Drop the vectors of keys that came again; return how many those were."""
        self._view = None
        return self._table.keep_first(_KEY)

    def files(self) -> set[str]:
        """Return the names of the files that are there, in whichever version or none."""
        return self._table.there()

    def discard(self, parts: Sequence[Part]) -> None:
        """Remove what was written apart and was not taken in."""
        self._table.discard(parts)

    def rows(self) -> int:
        """Return how many vectors there are."""
        view = self._table.newest()
        return 0 if view is None else view.rows()

    def index(self) -> keys.KeyIndex:
        """Return the keys that have a vector."""
        return _index(self._table.newest())

    def among(self, content_keys: keys.KeyIndex) -> npt.NDArray[np.bool_]:
        """Return which of these keys have a vector, in memory that grows with them and not with the table."""
        found = np.zeros(len(content_keys), dtype=bool)
        view = self._table.newest()
        for batch in () if view is None else view.scan([_KEY], _SCANNED_ROWS):
            positions = content_keys.positions(batch.column(_KEY))
            found[positions[positions >= 0]] = True
        return found

    def clean(self, grace: timedelta) -> int:
        """Remove versions older than `grace` with the files that they alone have; return the bytes that came free.

        No record names a version of this table, and each batch leaves one behind.
        """
        return self._table.clean(set(), grace)

    def reader(self, among: keys.KeyIndex | None = None) -> VectorReader:
        """Return a reader of what is stored now, of the vectors of all keys or of these."""
        return VectorReader(self._table, self._dimensions, among)

    def _keys(self) -> keys.KeySet:
        if self._view is None or not self._view.is_newest():
            self._view = self._table.newest()
            self._known = keys.KeySet(_index(self._view))
        return self._known


class VectorReader:
    """Vectors by key, fastest when asked in the order of the chunks.

    Holds 32 bytes a stored vector, or, where it is told which keys it will be asked for, 40 bytes for each of those.
    """

    def __init__(self, table: Table, dimensions: int, among: keys.KeyIndex | None = None) -> None:
        self._table = table
        self._dimensions = dimensions
        self._among = among
        self._open()

    def take(self, content_keys: pa.Array | pa.ChunkedArray) -> Vectors:
        """Return the vectors of the keys, in order, shape (n, dimensions).

        Raises Retryable(STORE_UNREACHABLE), with how many, where some have none.
        """
        content_keys = keys.array(content_keys)
        taken = np.empty((len(content_keys), self._dimensions), dtype=np.float32)
        for start in range(0, len(content_keys), BATCH_ROWS):
            asked = content_keys.slice(start, BATCH_ROWS)
            try:
                found = self._take(asked)
            except Retryable:
                # A clean-up may have rewritten the table and removed the files that this reader knew.
                if self._view is not None and self._view.is_newest():
                    raise
                self._open()
                found = self._take(asked)
            taken[start : start + len(asked)] = found
        return taken

    def _open(self) -> None:
        self._view = self._table.newest()
        self._index = _index(self._view) if self._among is None else self._among
        # Where the vector of each key of the index stands, -1 for one that has none.
        self._places = None if self._among is None else _places(self._view, self._among)

    def _take(self, asked: pa.Array) -> Vectors:
        positions = self._index.positions(asked)
        if self._places is not None:
            positions = np.where(positions < 0, -1, self._places[positions])
        missing = int(np.count_nonzero(positions < 0))
        if missing or self._view is None:
            raise Retryable(
                Reason.STORE_UNREACHABLE,
                f"{missing} of {len(asked)} vectors are not in the store; wanted all of them, embedding again",
            )
        offsets, back = np.unique(positions, return_inverse=True)
        stored = self._view.take(offsets, ["vector"])["vector"]
        flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in stored.chunks]
        vectors: Vectors = np.concatenate(flat).reshape(-1, self._dimensions)[back]
        return vectors


def _index(view: View | None) -> keys.KeyIndex:
    return keys.KeyIndex(pa.array([], rows.KEY) if view is None else view.columns([_KEY])[_KEY])


def _places(view: View | None, among: keys.KeyIndex) -> keys.Positions:
    found = np.full(len(among), -1, dtype=np.int64)
    start = 0
    for batch in () if view is None else view.scan([_KEY], _SCANNED_ROWS):
        positions = among.positions(batch.column(_KEY))
        is_asked = positions >= 0
        found[positions[is_asked]] = start + np.flatnonzero(is_asked)
        start += batch.num_rows
    return found


def _is_first(content_keys: pa.Array) -> npt.NDArray[np.bool_]:
    """Return where each key stands for the first time."""
    distinct = keys.array(pc.unique(content_keys))
    if len(distinct) == len(content_keys):
        return np.ones(len(content_keys), dtype=bool)
    _, first = np.unique(keys.KeyIndex(distinct).positions(content_keys), return_index=True)
    found = np.zeros(len(content_keys), dtype=bool)
    found[first] = True
    return found
