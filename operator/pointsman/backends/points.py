"""How do points come out of Arrow batches, in pieces of a size that a database likes?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman.core import rows
from pointsman.ports import Vectors

# What a row takes beside its vector: text, metadata, ids. Pieces are sized by it without looking at each.
_BYTES_BESIDE_VECTOR = 2048


def pieces(batches: Iterable[pa.RecordBatch], target_bytes: int, most: int) -> Iterator[pa.RecordBatch]:
    """Cut batches of `rows.points` into pieces of about so many bytes, and of at most so many rows."""
    for batch in batches:
        dimensions = batch.schema.field("vector").type.list_size
        size = min(most, max(1, target_bytes // (4 * dimensions + _BYTES_BESIDE_VECTOR)))
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


def vectors(batch: pa.RecordBatch) -> Vectors:
    """Return the vectors of a batch, shape (rows, dimensions), without a copy."""
    column = batch.column("vector")
    values = column.flatten().to_numpy(zero_copy_only=False)
    return cast(Vectors, values.reshape(batch.num_rows, column.type.list_size))


def columns(batch: pa.RecordBatch) -> list[list[Any]]:
    """Return the values of `rows.POINT_COLUMNS` of a batch, in that order."""
    return [batch.column(name).to_pylist() for name in rows.POINT_COLUMNS]


def presence(point_ids: Sequence[bytes], keys: Sequence[bytes], digests: Sequence[bytes]) -> pa.RecordBatch:
    """Return a batch of `rows.PRESENCE`.

    A key that somebody replaced by one of another length becomes zeros, so that it is found to differ and
    repaired, not refused.
    """
    arrays = [pa.array([_key(value) for value in values], rows.KEY) for values in (point_ids, keys, digests)]
    return pa.RecordBatch.from_arrays(arrays, schema=rows.PRESENCE)


def _key(value: bytes | None) -> bytes:
    return value if value is not None and len(value) == rows.KEY.byte_width else bytes(rows.KEY.byte_width)


def from_hex(value: object) -> bytes:
    """Return the bytes of a hexadecimal text; none of anything else, which `presence` makes zeros."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""


def unit(values: npt.ArrayLike, dimensions: int) -> Vectors:
    """Return vectors scaled to unit length, shape (n, dimensions); a zero vector stays zero."""
    array = np.asarray(values, np.float32).reshape(-1, dimensions)
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return cast(Vectors, array / np.where(norms == 0, np.float32(1), norms))


def in_parallel(pieces: Iterable[pa.RecordBatch], send: Callable[[pa.RecordBatch], object], threads: int) -> int:
    """Send pieces from so many threads, holding few of them at a time; return how many rows were sent.

    The first error is raised, once no piece is on its way any more.
    """
    sent = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
        running: deque[Future[object]] = deque()
        for piece in pieces:
            if len(running) > threads:
                running.popleft().result()
            running.append(pool.submit(send, piece))
            sent += piece.num_rows
        while running:
            running.popleft().result()
    return sent
