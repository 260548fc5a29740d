"""Evaluation asks every real database alike: what it finds there is what a search by hand through the store finds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contracts.backends_engines import Engine, engine, milvus_uri, postgres
from tests.unit.answering import TOPICS, Kept, Stage
from tests.unit.test_evaluate import ndcg, rankings

__all__ = ["engine", "milvus_uri", "postgres"]

COUNTER = itertools.count()


@pytest.fixture
def stage(engine: Engine, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, Kept(engine.backend), f"pm_asked_{next(COUNTER)}")
    made.publish("v7", "worse", "longer")
    yield made
    for name in engine.names(made.prefix):
        engine.backend.drop(name)


def test_the_numbers_are_those_of_a_search_by_hand(stage: Stage) -> None:
    stage.evaluate("longer", "v7")
    record = stage.evaluation()
    assert record is not None and record.difference is not None
    ours, theirs = (
        sum(ndcg(ranking, number) for number, ranking in enumerate(rankings(stage, version, 10))) / TOPICS
        for version in ("longer", "v7")
    )
    assert (record.value, record.other) == (pytest.approx(ours, abs=1e-6), pytest.approx(theirs, abs=1e-6))
    assert (record.recall, record.other_recall, record.recall_queries) == (1, 1, TOPICS)


def test_an_index_is_no_worse_than_itself(stage: Stage) -> None:
    stage.evaluate("v7", "v7")
    record = stage.evaluation()
    assert record is not None
    assert (record.difference, record.nonzero, record.recall, record.other_recall) == (0, 0, 1, 1)


def test_a_worse_candidate_is_found_out(stage: Stage) -> None:
    stage.evaluate("worse", "v7")
    record = stage.evaluation()
    assert record is not None and record.high is not None
    assert record.high < -0.2


def test_canaries_overlap_whole_with_the_same_index(stage: Stage) -> None:
    stage.ask_canaries("v7", "v7", k=5)
    record = stage.canaries()
    assert record is not None
    assert record.overlap == 1
