"""The nearest documents among all that are stored, found block by block, are those of one great product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.contracts.backends_points import directions, key
from tests.unit.test_indexing import AT, RECIPE

from pointsman.api.conditions import Reason
from pointsman.core import rows
from pointsman.errors import Retryable
from pointsman.store.dataset import DatasetStore
from pointsman.store.records import EmbeddedSnapshot
from pointsman.store.root import Store
from pointsman.work import exact

DIMENSIONS = RECIPE.space.dimensions


def publish(dataset: DatasetStore, documents: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Store a chunk for each of these, in order; a document may be there often. Return the vectors."""
    count = len(documents)
    ordinals = [documents[:at].count(name) for at, name in enumerate(documents)] if count < 1_000 else [0] * count
    texts = [f"text {at}" for at in range(count)]
    columns: dict[str, Any] = {
        "point_id": [key(f"point {at}") for at in range(count)],
        "document": documents,
        "ordinal": ordinals,
        "text": texts,
        "content_key": [key(text) for text in texts],
        **{name: [key("same")] * count for name in ("text_digest", "cut_digest", "metadata_digest")},
        "metadata": ["{}"] * count,
        "sequence": [1] * count,
    }
    batch = pa.RecordBatch.from_pydict(columns, schema=rows.CHUNKS)
    version = dataset.chunks(RECIPE.key).write(None, pa.array([], pa.string()), iter([batch]))
    vectors = directions(count, DIMENSIONS)
    stored: dict[str, Any] = {
        "content_key": columns["content_key"],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSIONS),
        **{name: [name] * count for name in ("space", "model", "revision", "recipe")},
        "embedded_at": [AT] * count,
        "sequence": [1] * count,
    }
    table = dataset.vectors(RECIPE.space.document_side, DIMENSIONS)
    table.append(pa.RecordBatch.from_pydict(stored, schema=rows.vectors(DIMENSIONS)))
    record = EmbeddedSnapshot(
        **{name: "v7" for name in ("version", "model", "revision", "space", "digest")},
        **{name: 1 for name in ("snapshot", "sequence", "embedded", "reused", "tokens")},
        recipe=RECIPE.key, chunks_version=version, documents=len(set(documents)), rows=count, changes={}, created_at=AT,
    )  # fmt: skip
    dataset.publish_embedded(record)
    return vectors


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetStore:
    return Store(str(tmp_path)).dataset("shop", "papers")


@pytest.mark.parametrize("k", [1, 10, 5_000])
def test_documents_whose_chunks_stand_in_several_blocks_count_once_at_their_best(dataset: DatasetStore, k: int) -> None:
    # Three blocks; each document has a chunk in every one of them, and in the first two beside each other.
    documents = [f"doc-{at // 2 % 2_000}" for at in range(10_000)]
    vectors = publish(dataset, documents)
    asked = directions(7, DIMENSIONS, seed=11)
    found = exact.Stored(dataset, RECIPE, 1).nearest(asked, k)
    for query, hits in zip(asked, found, strict=True):
        best: dict[str, float] = {}
        for name, score in zip(documents, (vectors @ query).tolist(), strict=True):
            best[name] = max(best.get(name, -2.0), score)
        wanted = sorted(best.values(), reverse=True)[:k]
        assert len(hits) == len({hit.document for hit in hits}) == min(k, 2_000)
        np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=1e-6)
        np.testing.assert_allclose([best[hit.document] for hit in hits], wanted, atol=1e-6)


def test_fewer_documents_than_wanted_are_all_there_are(dataset: DatasetStore) -> None:
    publish(dataset, ["a", "b", "a"])
    stored = exact.Stored(dataset, RECIPE, 1)
    (hits,) = stored.nearest(directions(1, DIMENSIONS), 10)
    assert sorted(hit.document for hit in hits) == ["a", "b"]
    assert stored.count({"a", "x", "y"}) == 1


def test_a_snapshot_that_was_cleaned_up_is_looked_for_again(dataset: DatasetStore) -> None:
    with pytest.raises(Retryable) as error:
        exact.Stored(dataset, RECIPE, 1)
    assert error.value.reason is Reason.SNAPSHOT_NOT_FOUND


def test_a_large_set_is_sampled_alike_each_time(dataset: DatasetStore) -> None:
    publish(dataset, ["a", "b"])
    stored = exact.Stored(dataset, RECIPE, 1)
    queries = [f"q{n:05}" for n in range(3_000)]
    drawn = stored.sample(queries, "one digest")
    assert len(drawn) == len(set(drawn)) == exact.MOST_QUERIES
    assert drawn == sorted(drawn) == stored.sample(queries, "one digest")
    assert drawn != stored.sample(queries, "another")
    assert stored.sample(queries[:500], "one digest") == queries[:500]


def test_the_more_vectors_there_are_the_fewer_queries_are_drawn(
    dataset: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(dataset, [f"doc-{at}" for at in range(100)])
    queries = [f"q{n}" for n in range(3_000)]
    stored = exact.Stored(dataset, RECIPE, 1)
    monkeypatch.setattr(exact, "MOST_PRODUCTS", 250 * 100 * DIMENSIONS)
    assert len(stored.sample(queries, "digest")) == 250
    monkeypatch.setattr(exact, "MOST_PRODUCTS", 1)
    assert len(stored.sample(queries, "digest")) == exact.LEAST_QUERIES
