"""The vectors of all texts ever embedded for one document side, under the key of the exact text sent.

Append only: each finished batch is one commit, so a killed writer leaves whole batches and nothing else, and nothing
that was paid for is embedded twice. A snapshot names no version of this table: a key has one vector, for ever.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.api.conditions import Reason
from pointsman.core import keys, rows
from pointsman.errors import Retryable
from pointsman.store.tables import BATCH_ROWS, Table, View

Vectors = npt.NDArray[np.float32]
_KEY = "content_key"


class VectorTable:
    """One table of vectors. Remembers its keys, 32 bytes each, and reads them again when another wrote or cleaned."""

    def __init__(self, table: Table, dimensions: int) -> None:
        self._table = table
        self._dimensions = dimensions
        self._view: View | None = None
        # Each at least twice as long as the next, so that remembering n keys costs n log n in all.
        self._known: list[keys.KeyIndex] = []

    def missing(self, content_keys: pa.Array) -> pa.Array:
        """Return the distinct keys, in order, that have no vector yet."""
        wanted = keys.array(pc.unique(content_keys))
        return wanted.filter(pa.array(~self._is_known(wanted)))

    def append(self, batch: pa.RecordBatch) -> None:
        """Store a finished batch of `rows.vectors(dimensions)` in one commit; keys that are there are skipped.

        Each commit costs some 10 ms and a file, so batches of a thousand rows or more serve best.
        """
        batch = batch.select(rows.vectors(self._dimensions).names)
        content_keys = keys.array(batch.column(_KEY))
        is_new = ~self._is_known(content_keys) & _is_first(content_keys)
        if not is_new.any():
            return
        self._view = self._table.append(batch.filter(pa.array(is_new)))
        self._known.append(keys.KeyIndex(content_keys.filter(pa.array(is_new))))
        while len(self._known) > 1 and len(self._known[-2]) < 2 * len(self._known[-1]):
            last, before = self._known.pop(), self._known.pop()
            self._known.append(keys.KeyIndex(pa.concat_arrays([before.keys, last.keys])))

    def clean(self, grace: timedelta) -> int:
        """Remove versions older than `grace` with the files that they alone have; return the bytes that came free.

        No record names a version of this table, and each batch leaves one behind.
        """
        return self._table.clean(set(), grace)

    def reader(self) -> VectorReader:
        """Return a reader of what is stored now."""
        return VectorReader(self._table, self._dimensions)

    def _is_known(self, content_keys: pa.Array) -> npt.NDArray[np.bool_]:
        if self._view is None or not self._view.is_newest():
            self._view = self._table.newest()
            self._known = [_index(self._view)]
        is_known = np.zeros(len(content_keys), dtype=bool)
        for index in self._known:
            is_known |= index.contains(content_keys)
        return is_known


class VectorReader:
    """Vectors by key, fastest when asked in the order of the chunks. Holds 32 bytes a stored vector."""

    def __init__(self, table: Table, dimensions: int) -> None:
        self._table = table
        self._dimensions = dimensions
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
        self._index = _index(self._view)

    def _take(self, asked: pa.Array) -> Vectors:
        positions = self._index.positions(asked)
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


def _is_first(content_keys: pa.Array) -> npt.NDArray[np.bool_]:
    """Return where each key stands for the first time."""
    distinct = keys.array(pc.unique(content_keys))
    if len(distinct) == len(content_keys):
        return np.ones(len(content_keys), dtype=bool)
    _, first = np.unique(keys.KeyIndex(distinct).positions(content_keys), return_index=True)
    found = np.zeros(len(content_keys), dtype=bool)
    found[first] = True
    return found
