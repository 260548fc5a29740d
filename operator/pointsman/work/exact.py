"""Which documents are nearest to a query among all that are stored? No index is asked: every vector is looked at.

What an index finds of these is its own recall: what it misses by being quick, whatever the model is worth.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.core.canaries import Hit
from pointsman.core.recipes import Recipe
from pointsman.errors import Retryable
from pointsman.store.dataset import DatasetStore

ROWS = 4_096
"""Vectors that are looked at at once: with a thousand queries some 60 MB."""
MOST_QUERIES = 1_000
LEAST_QUERIES = 100
MOST_PRODUCTS = 5e11
"""Multiplications that an exact search of many queries should cost: half a minute of two cores."""

Codes = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


class Stored:
    """One embedded snapshot. Holds its documents and content keys, and reads the vectors block by block."""

    def __init__(self, dataset: DatasetStore, recipe: Recipe, snapshot: int) -> None:
        """Raises Retryable(SNAPSHOT_NOT_FOUND) where the snapshot was cleaned up."""
        found = dataset.embedded_at(recipe.key, snapshot)
        if found is None:
            message = f"snapshot {snapshot} of recipe {recipe.key} is not in the store any more; asking at a newer one"
            raise Retryable(Reason.SNAPSHOT_NOT_FOUND, message)
        self.embedded = found
        self._chunks = dataset.chunks(recipe.key)
        keys = self._chunks.keys(found.chunks_version, ["document", "content_key"])
        self._content_keys = keys["content_key"]
        self._names = pc.unique(keys["document"])
        self._documents = pc.index_in(keys["document"], value_set=self._names).to_numpy().astype(np.int64)
        self._dataset, self._space = dataset, recipe.space

    def texts(self, documents: Collection[str]) -> dict[str, bytes]:
        """Return the digest of the whole rendered text of each of these documents that is there."""
        keys = self._chunks.keys(self.embedded.chunks_version, ["document", "text_digest"])
        found = keys.filter(pc.is_in(keys["document"], value_set=pa.array(documents, pa.string())))
        return dict(zip(found["document"].to_pylist(), found["text_digest"].to_pylist(), strict=True))

    def count(self, documents: Collection[str]) -> int:
        """Return how many of these documents there are."""
        return int(pc.sum(pc.is_in(pa.array(documents, pa.string()), value_set=self._names)).as_py() or 0)

    def sample(self, queries: Sequence[str], seed: str) -> list[str]:
        """Return as many of the queries as an exact search can be afforded for, in order: the same for one seed."""
        cost = len(self._documents) * self._space.dimensions
        most = min(MOST_QUERIES, max(LEAST_QUERIES, int(MOST_PRODUCTS / max(1, cost))))
        if len(queries) <= most:
            return list(queries)
        drawn = np.random.default_rng(list(seed.encode())).choice(len(queries), most, replace=False)
        return [queries[position] for position in np.sort(drawn)]

    def nearest(self, vectors: ports.Vectors, k: int) -> list[list[Hit]]:
        """Return the k nearest documents of each query, each at its best chunk, best first.

        `vectors` have shape (n, dimensions) and unit length; the score is the cosine. Fewer than k come back where
        there are fewer.
        """
        best, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        reader = self._dataset.vectors(self._space.document_side, self._space.dimensions).reader()
        for start in range(0, len(self._documents), ROWS):
            block = reader.take(self._content_keys.slice(start, ROWS))
            found = _by_document(self._documents[start : start + ROWS], vectors @ block.T)
            best, scores = _merged((best, scores), _top(*found, k), k)
        names = self._names.take(pa.array(best.clip(0).reshape(-1))).to_pylist()
        return [
            [Hit(name, float(s)) for name, s in zip(names[row * k : row * k + k], of_query, strict=True) if s > -np.inf]
            for row, of_query in enumerate(scores)
        ]


def _by_document(documents: Codes, scores: Scores) -> tuple[Codes, Scores]:
    """Return the distinct documents of a block, and for each query the score of each document's best chunk there."""
    order = np.argsort(documents, kind="stable")
    distinct, starts = np.unique(documents[order], return_index=True)
    if len(distinct) == len(documents):
        return documents, scores
    return distinct, np.maximum.reduceat(scores[:, order], starts, axis=1)


def _top(documents: Codes, scores: Scores, k: int) -> tuple[Codes, Scores]:
    """Return the k best documents of each query, in any order, as arrays of shape (queries, k or fewer)."""
    if len(documents) <= k:
        return np.broadcast_to(documents, scores.shape), scores
    at = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return documents[at], np.take_along_axis(scores, at, axis=1)


def _merged(one: tuple[Codes, Scores], other: tuple[Codes, Scores], k: int) -> tuple[Codes, Scores]:
    """Return the k best of both, best first, each document once: its chunks may stand in several blocks."""
    documents, scores = np.concatenate([one[0], other[0]], axis=1), np.concatenate([one[1], other[1]], axis=1)
    # By document, the best first.
    order = np.lexsort((-scores, documents), axis=1)
    documents, scores = np.take_along_axis(documents, order, axis=1), np.take_along_axis(scores, order, axis=1)
    is_again = np.zeros(documents.shape, dtype=bool)
    is_again[:, 1:] = documents[:, 1:] == documents[:, :-1]
    scores = np.where(is_again, np.float32(-np.inf), scores)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(documents, order, axis=1), np.take_along_axis(scores, order, axis=1)
