"""What people change behind our back is seen on every database, and taken back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from tests.contracts import backends_points as some
from tests.contracts.backends_engines import Engine, engine, milvus_uri, postgres
from tests.contracts.test_backends import ODD, PATHS, VALUES, spec_named

from pointsman.core import changes, rows

__all__ = ["engine", "milvus_uri", "postgres"]

COUNTER = itertools.count()
AXIS = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.fixture
def index(engine: Engine) -> Iterator[str]:
    name = f"pm_parity_{next(COUNTER)}"
    engine.backend.create(spec_named(name))
    yield name
    engine.backend.drop(name)


def loaded(engine: Engine, name: str, points: pa.RecordBatch) -> pa.RecordBatch:
    engine.backend.load(name, [points])
    engine.backend.seal(name)
    return points


def parity(engine: Engine, name: str, points: pa.RecordBatch) -> changes.Parity:
    scanned = pa.Table.from_batches(engine.backend.scan(name), schema=rows.SCANNED)
    return changes.parity(scanned, pa.Table.from_batches([points]), "a1b2c3d4e5f6")


def test_a_point_added_by_hand_is_counted_seen_and_removed(engine: Engine, index: str) -> None:
    points = loaded(engine, index, some.batch(some.directions(5, 8)))
    engine.insert(index, AXIS)
    added = engine.backend.count(index) - 5
    seen = parity(engine, index, points)
    assert added == len(seen.deletes) + seen.foreign > 0
    # Where people's ids are of the kind of ours, a point of theirs is one too many; elsewhere it is none of ours.
    assert seen.foreign in (0, added)
    assert len(engine.backend.search(index, some.directions(1, 8)[0], 10, None)) == 5 + added
    assert engine.backend.remove_foreign(index) == seen.foreign
    engine.backend.delete(index, seen.deletes.to_pylist())
    assert engine.backend.remove_foreign(index) == 0
    assert engine.backend.count(index) == 5
    assert {tuple(row.values()) for batch in engine.backend.scan(index) for row in batch.to_pylist()} == some.scanned(
        points
    )


EDITS: dict[str, Any] = {
    "document": "elsewhere",
    "ordinal": 9,
    "text": "edited by hand",
    "metadata": {"number": True},
    "sequence": 4,
    "recipe": "ffffffffffff",
    "terms": ["0" * 32],
    "extremes": {},
}


@pytest.mark.parametrize("field", EDITS)
def test_a_field_edited_by_hand_is_seen_and_mended(engine: Engine, index: str, field: str) -> None:
    if field in ("terms", "extremes") and engine.reads_metadata:
        pytest.skip("filters read the metadata themselves")
    points = loaded(engine, index, some.batch(some.directions(5, 8)))
    edited = some.ids(points)[1]
    engine.edit(index, edited, field, EDITS[field])
    assert engine.backend.differing(index, points) == [edited]
    assert parity(engine, index, points).upserts.to_pylist() == ([edited] if field == "recipe" else [])
    engine.backend.upsert(index, points.slice(1, 1))
    assert engine.backend.differing(index, points) == []


def test_a_vector_overwritten_by_hand_differs(engine: Engine, index: str) -> None:
    points = loaded(engine, index, some.batch(some.directions(5, 8)))
    engine.overwrite(index, some.ids(points)[3], AXIS)
    assert engine.backend.differing(index, points) == [some.ids(points)[3]]


def test_points_that_are_not_there_differ(engine: Engine, index: str) -> None:
    points = loaded(engine, index, some.batch(some.directions(5, 8)))
    engine.backend.delete(index, some.ids(points)[:2])
    assert engine.backend.differing(index, points) == some.ids(points)[:2]
    assert engine.backend.differing(index, points.slice(0, 0)) == []


def test_nothing_differs_of_what_was_written_whatever_its_shape(engine: Engine, index: str) -> None:
    values = [value for value in VALUES if value != 10**30 or engine.reads_metadata]
    metadata: list[dict[str, Any]] = [{}, *({"k": value} for value in values), *({path: "a"} for path in PATHS)]
    metadata += [{"k": 1e22}, {"k": 1 / 3}, {"k": -0.0}, {"k": {"deep": [1.0, {"er": None}]}}]
    odd = [ODD[i % len(ODD)] + str(i // len(ODD) or "") for i in range(len(metadata))]
    vectors = some.directions(len(metadata), 8)
    points = loaded(engine, index, some.batch(vectors, documents=odd, texts=odd, metadata=metadata))
    assert engine.backend.differing(index, points) == []
    engine.backend.upsert(index, points)
    assert engine.backend.differing(index, points) == []
