"""How do points come out of Arrow batches, in pieces of a size that a database likes, and how are they compared?"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.core import rows
from pointsman.ports import Vectors

TOLERANCE = 1e-3
"""The largest cosine distance between a vector and what the database has of it; half precision stays below it."""

# What a row takes beside its vector and its texts: ids, keys and the names of its fields.
_BYTES_BESIDE = 512
# Metadata are sent as JSON, and once more as the terms and extremes that filters ask for.
_METADATA_TIMES = 4


def pieces(batches: Iterable[pa.RecordBatch], target_bytes: int, most: int) -> Iterator[pa.RecordBatch]:
    """Cut batches of `rows.points` into pieces of at most so many bytes, or one row, and of at most so many rows."""
    for batch in batches:
        ends, start = np.cumsum(_sizes(batch)), 0
        while start < batch.num_rows:
            sent = ends[start - 1] if start else 0
            fitting = int(np.searchsorted(ends, sent + target_bytes, side="right")) - start
            size = min(most, max(1, fitting))
            yield batch.slice(start, size)
            start += size


def _sizes(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    dimensions = batch.schema.field("vector").type.list_size
    sizes = np.full(batch.num_rows, 4 * dimensions + _BYTES_BESIDE, np.int64)
    for name, times in (("document", 1), ("text", 1), ("metadata", _METADATA_TIMES)):
        sizes += times * pc.binary_length(batch.column(name)).to_numpy(zero_copy_only=False)
    return sizes


def vectors(batch: pa.RecordBatch) -> Vectors:
    """Return the vectors of a batch, shape (rows, dimensions), without a copy."""
    column = batch.column("vector")
    values = column.flatten().to_numpy(zero_copy_only=False)
    return cast(Vectors, values.reshape(batch.num_rows, column.type.list_size))


def columns(batch: pa.RecordBatch) -> list[list[Any]]:
    """Return the values of `rows.POINT_COLUMNS` and of the recipe of a batch, in that order."""
    return [batch.column(name).to_pylist() for name in (*rows.POINT_COLUMNS, rows.RECIPE.name)]


def payloads(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return what each point has beside its id and its vector, by the name of its column, metadata as values."""
    names = (*rows.POINT_COLUMNS, rows.RECIPE.name)
    found = [dict(zip(names, point, strict=True)) for point in zip(*columns(batch), strict=True)]
    for payload in found:
        del payload["point_id"]
        payload["metadata"] = json.loads(payload["metadata"])
    return found


def scanned(
    point_ids: Sequence[bytes], keys: Sequence[bytes], digests: Sequence[bytes], recipes: Sequence[object]
) -> pa.RecordBatch:
    """Return a batch of `rows.SCANNED`.

    An id of another length is none of ours. A key of another length becomes zeros and a recipe that is no text an
    empty one, so that what somebody changed is found to differ and repaired, not refused.
    """
    arrays = [
        pa.array([_key(value) for value in point_ids], rows.KEY),
        *(
            pa.array([_key(value) or bytes(rows.KEY.byte_width) for value in values], rows.KEY)
            for values in (keys, digests)
        ),
        pa.array([value if isinstance(value, str) else "" for value in recipes], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=rows.SCANNED)


def _key(value: bytes | None) -> bytes | None:
    return value if value is not None and len(value) == rows.KEY.byte_width else None


def from_hex(value: object) -> bytes:
    """Return the bytes of a hexadecimal text as we write it; none of anything else, which is no key of ours."""
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""
    return found if found.hex() == value else b""


def differing(
    batch: pa.RecordBatch,
    wanted: Iterable[Mapping[str, Any]],
    found: Mapping[bytes, tuple[Mapping[str, Any], Sequence[Any]]],
) -> list[bytes]:
    """Return the ids of those points of a batch that were not found, or not with that payload and vector.

    `wanted` are the payloads as they would be written, in the order of the batch; `found` are the payloads and
    vectors that the database has, by id.
    """
    stored = vectors(batch)
    there = np.full(stored.shape, np.nan, np.float32)
    ids, is_same = batch.column("point_id").to_pylist(), []
    for row, (point_id, payload) in enumerate(zip(ids, wanted, strict=True)):
        its_payload, vector = found.get(point_id, ({}, ()))
        is_same.append(all(_is_same(value, its_payload.get(name)) for name, value in payload.items()))
        if len(vector) == stored.shape[1]:
            there[row] = vector
    # A vector that is not a number is as wrong as one that points elsewhere.
    is_near = 1.0 - np.einsum("ij,ij->i", unit(there, stored.shape[1]), stored) <= TOLERANCE
    return [point_id for point_id, *is_good in zip(ids, is_same, is_near, strict=True) if not all(is_good)]


def _is_same(wanted: object, found: object) -> bool:
    """Return whether two JSON values are the same, in whichever way a database writes its numbers."""
    match wanted, found:
        case dict(), dict():
            return wanted.keys() == found.keys() and all(_is_same(wanted[key], found[key]) for key in wanted)
        case list(), list():
            return len(wanted) == len(found) and all(map(_is_same, wanted, found))
        case float(), float():
            # Not every parser of JSON returns the very float that was written.
            return wanted == found or math.isclose(wanted, found, rel_tol=1e-12)
        case (bool(), _) | (_, bool()):
            # True is no 1 in JSON.
            return wanted is found
        case _:
            return wanted == found


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
