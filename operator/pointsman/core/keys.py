"""Which of many 16-byte keys are the same: joins over digests, without hash tables.

The keys are digests, so their first eight bytes are as good as random: sorting and searching those alone finds the
only candidate, and the other eight bytes confirm it. Where two keys share their first half, which chance does not
bring about, the answer comes from a hash join instead: slower, and right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.core import rows

Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]


def array(keys: pa.Array | pa.ChunkedArray) -> pa.FixedSizeBinaryArray:
    """Return keys as one contiguous array of `rows.KEY`."""
    if isinstance(keys, pa.ChunkedArray):
        keys = keys.combine_chunks() if keys.num_chunks != 1 else keys.chunk(0)
    return keys if keys.type == rows.KEY else keys.cast(rows.KEY)


def words(keys: pa.Array | pa.ChunkedArray) -> Words:
    """Return keys as little-endian 64-bit words, shape (n, 2), without a copy where they are contiguous."""
    whole = array(keys)
    if len(whole) == 0:
        return np.empty((0, 2), dtype=np.uint64)
    flat = np.frombuffer(whole.buffers()[1], dtype="<u8", count=2 * len(whole), offset=16 * whole.offset)
    return flat.reshape(-1, 2)


def repeated(keys: pa.Array | pa.ChunkedArray) -> Mask:
    """Return where a key stands that stood before; shape (n,)."""
    found = words(keys)
    order = np.lexsort((found[:, 1], found[:, 0]))
    again = np.zeros(len(order), dtype=bool)
    again[order[1:]] = (found[order[1:]] == found[order[:-1]]).all(axis=1)
    return again


def any_repeated(parts: Sequence[pa.Array]) -> bool:
    """Return whether a key stands in them twice; looks at a sixteenth of them at a time, as sorting takes memory."""
    whole = [np.empty((0, 2), dtype=np.uint64), *map(words, parts)]
    for share in range(16):
        found = np.concatenate([part[(part[:, 0] & np.uint64(15)) == share] for part in whole])
        found = found[np.lexsort((found[:, 1], found[:, 0]))]
        if (found[1:] == found[:-1]).all(axis=1).any():
            return True
    return False


class KeyIndex:
    """Keys, and where each stood. Costs 16 bytes a key beside the keys themselves."""

    def __init__(self, keys: pa.Array | pa.ChunkedArray) -> None:
        self.keys = array(keys)
        self._words = words(self.keys)
        self._order = np.argsort(self._words[:, 0])
        self._sorted = self._words[self._order, 0]
        self._is_simple = not _any_half_shared(self._sorted, self._words[self._order, 1])

    def __len__(self) -> int:
        return len(self.keys)

    def positions(self, keys: pa.Array | pa.ChunkedArray) -> Positions:
        """Return where each key stands in the index, -1 where it does not; shape (n,).

        Of a key that stands there twice it is always the same one of the two.
        """
        asked = words(keys)
        if len(asked) == 0 or len(self) == 0:
            return np.full(len(asked), -1, dtype=np.int64)
        if not self._is_simple:
            return _by_hash(self.keys, array(keys))
        # Searching in ascending order walks the index once instead of jumping through it: fifteen times faster
        # on a million keys, the sorting included four times.
        ascending = np.argsort(asked[:, 0])
        slots = np.empty(len(asked), dtype=np.int64)
        slots[ascending] = np.searchsorted(self._sorted, asked[ascending, 0])
        np.minimum(slots, len(self) - 1, out=slots)
        found: Positions = self._order[slots]
        return np.where((self._words[found] == asked).all(axis=1), found, -1)

    def contains(self, keys: pa.Array | pa.ChunkedArray) -> Mask:
        """Return for each key whether it is in the index."""
        return self.positions(keys) >= 0


class KeySet:
    """Keys to which more come: each index at least twice as long as the next, so that n keys cost n log n in all."""

    def __init__(self, *indexes: KeyIndex) -> None:
        self._indexes = list(indexes)

    def add(self, keys: pa.Array | pa.ChunkedArray) -> None:
        """Add keys, which may be there already."""
        self._indexes.append(KeyIndex(keys))
        while len(self._indexes) > 1 and len(self._indexes[-2]) < 2 * len(self._indexes[-1]):
            last, before = self._indexes.pop(), self._indexes.pop()
            self._indexes.append(KeyIndex(pa.concat_arrays([before.keys, last.keys])))

    def contains(self, keys: pa.Array | pa.ChunkedArray) -> Mask:
        """Return for each key whether it is there."""
        found = np.zeros(len(keys), dtype=bool)
        for index in self._indexes:
            found |= index.contains(keys)
        return found

    def missing(self, keys: pa.Array) -> pa.Array:
        """Return the distinct keys, in order, that are not there."""
        wanted = array(pc.unique(keys))
        return wanted.filter(pa.array(~self.contains(wanted)))


def _any_half_shared(first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> bool:
    """Return whether two keys that differ have the same first half; the keys come sorted by it."""
    is_same = first[1:] == first[:-1]
    return bool(is_same.any()) and bool((second[1:][is_same] != second[:-1][is_same]).any())


def _by_hash(among: pa.Array, keys: pa.Array) -> Positions:
    found = pc.fill_null(pc.index_in(keys, value_set=among), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int64)
