"""Points to fill an index with, and what is expected of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman.core import rows


def key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def directions(count: int, dimensions: int, seed: int = 7) -> npt.NDArray[np.float32]:
    """Return unit vectors that point anywhere."""
    drawn = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def batch(
    vectors: npt.NDArray[np.float32],
    *,
    documents: Sequence[str] | None = None,
    ordinals: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    metadata: Sequence[dict[str, Any]] | None = None,
) -> pa.RecordBatch:
    """Return points of `rows.points`; what is left out is made up, one document for each vector."""
    count, dimensions = vectors.shape
    documents = documents or [f"document-{i}" for i in range(count)]
    ordinals = ordinals or [0] * count
    texts = texts or [f"text of {document}" for document in documents]
    fields = [
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        for value in metadata or [{"number": i} for i in range(count)]
    ]
    columns = [
        pa.array([key(f"{d}#{o}") for d, o in zip(documents, ordinals, strict=True)], rows.KEY),
        pa.array(documents, pa.string()),
        pa.array(ordinals, pa.int32()),
        pa.array(texts, pa.string()),
        pa.array([key(text) for text in texts], rows.KEY),
        pa.array(fields, pa.string()),
        pa.array([key(field) for field in fields], rows.KEY),
        pa.array([3] * count, pa.int64()),
        pa.repeat("a1b2c3d4e5f6", count),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimensions),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=rows.points(dimensions))


def ids(points: pa.RecordBatch) -> list[bytes]:
    return points.column("point_id").to_pylist()


def scanned(points: pa.RecordBatch) -> set[tuple[bytes, bytes, bytes, str]]:
    return {tuple(row[name] for name in rows.SCANNED.names) for row in points.to_pylist()}
