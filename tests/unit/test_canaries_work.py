"""Canary queries are asked: what must be found is found or not, and inside one space the answers are compared."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from tests.unit.answering import AT, TOPICS, Stage

from pointsman.api.conditions import Reason
from pointsman.core import digests
from pointsman.errors import Conflict, Retryable, Terminal
from pointsman.plan.measured import Canaries, Earlier

CANARIES, K = 5, 10


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path)
    made.queries = [{"id": f"q{n}", "text": f"topic{n}"} for n in range(CANARIES)]
    made.judgements = made.judgements[: 2 * CANARIES]
    made.publish("v7", "worse", "longer")
    return made


def found(stage: Stage) -> Canaries:
    record = stage.canaries()
    assert record is not None
    return record


def remove(stage: Stage, version: str, document: str) -> None:
    ids: pa.Array = digests.point_ids([document] * 4, [0, 1, 2, 3])
    stage.backend.delete(stage.index(version), ids.to_pylist())


def test_every_canary_finds_its_documents_within_enough_places(stage: Stage) -> None:
    stage.ask_canaries("v7", "worse", k=K)
    assert found(stage) == Canaries(
        query_set="papers-eval",
        digest=stage.read_set().digest,
        k=K,
        candidate="pm_papers_v7",
        version="v7",
        serving="pm_papers_worse",
        against="worse",
        snapshot=1,
        documents=2 * TOPICS,
        queries=CANARIES,
        found=CANARIES,
        measured_at=AT,
        overlap=None,
    )


def test_a_canary_that_misses_one_of_its_documents_is_not_found(stage: Stage) -> None:
    remove(stage, "v7", "doc-3")
    stage.ask_canaries("v7", k=K)
    assert (found(stage).found, found(stage).queries) == (CANARIES - 1, CANARIES)


def test_inside_one_space_the_same_index_overlaps_whole(stage: Stage) -> None:
    stage.ask_canaries("v7", "v7", k=K)
    assert found(stage).overlap == 1


def test_what_the_candidate_does_not_find_lowers_the_overlap(stage: Stage) -> None:
    # Two indexes of one recipe, one of which lacks the documents of the canary.
    stage.queries, stage.judgements = stage.queries[3:4], stage.judgements[6:8]
    stage.publish("again")
    remove(stage, "again", "doc-3")
    remove(stage, "again", f"doc-{3 + TOPICS}")
    stage.ask_canaries("again", "v7", k=K)
    assert found(stage).overlap == 1 - 2 / K
    assert found(stage).found == 0


def test_across_spaces_nothing_is_compared(stage: Stage) -> None:
    stage.ask_canaries("worse", "v7", k=K)
    assert found(stage).overlap is None
    assert found(stage).found < CANARIES


def test_documents_that_the_two_recipes_cut_otherwise_are_left_out(stage: Stage) -> None:
    # Every other document of a topic is short: both recipes cut it alike.
    for number in range(TOPICS):
        stage.documents[number]["text"] = f"topic{number} in short."
        stage.documents[number + TOPICS]["text"] = f"topic{number} at length, {'and so on ' * 5}until it ends."
    stage.publish("v7", "longer")
    stage.ask_canaries("longer", "v7", k=K)
    assert found(stage).overlap == 1
    remove(stage, "longer", "doc-3")
    stage.ask_canaries("longer", "v7", k=K)
    assert found(stage).overlap == pytest.approx(1 - 1 / K / CANARIES)


def test_documents_that_others_push_out_of_sight_are_not_lost(stage: Stage) -> None:
    # Nearly all are cut otherwise: in v7 those come before the few that are not, of which it then shows four of ten.
    stage.queries, stage.judgements = stage.queries[:1], stage.judgements[:2]
    for number in range(2 * TOPICS):
        long = "so " * 5 + "topic0 " * 3 + "so " * 16
        stage.documents[number]["text"] = long if number % 12 else f"topic0 is number{number}"
    stage.publish("v7", "longer")
    stage.ask_canaries("v7", "longer", k=K)
    assert found(stage).overlap == 1


def test_where_all_documents_are_cut_otherwise_nothing_is_compared(stage: Stage) -> None:
    for number in range(2 * TOPICS):
        stage.documents[number]["text"] = f"topic{number % TOPICS} at length, {'and so on ' * 5}until it ends."
    stage.publish("v7", "longer")
    stage.ask_canaries("longer", "v7", k=K)
    assert found(stage).overlap is None


def test_an_index_that_finds_what_it_found_at_first_keeps_its_answers(stage: Stage) -> None:
    stage.ask_canaries("v7", k=K)
    assert (found(stage).kept, found(stage).pinned_at) == (None, None)
    stage.ask_canaries("v7", "worse", k=K)
    assert (found(stage).kept, found(stage).pinned_at, found(stage).overlap) == (1, AT, None)


def test_what_an_index_finds_no_more_is_seen_though_nothing_is_beside_it(stage: Stage) -> None:
    stage.ask_canaries("v7", k=K)
    remove(stage, "v7", "doc-3")
    stage.ask_canaries("v7", k=K)
    assert found(stage).kept == pytest.approx(1 - 1 / K / CANARIES)


def test_a_model_that_answers_otherwise_under_its_name_is_seen(stage: Stage) -> None:
    stage.ask_canaries("v7", k=K)
    stage.models["words"].salt = "another"
    stage.ask_canaries("v7", k=K)
    kept = found(stage).kept
    assert kept is not None and kept < 0.5


def test_documents_that_changed_since_the_first_answers_are_left_out(stage: Stage) -> None:
    stage.ask_canaries("v7", k=K)
    stage.documents[3]["text"] = "nothing of the kind"
    stage.documents += [{"id": f"new-{n}", "text": f"topic{n}"} for n in range(CANARIES)]
    stage.publish("v7")
    stage.ask_canaries("v7", k=K)
    assert (found(stage).snapshot, found(stage).kept) == (2, 1)
    remove(stage, "v7", "doc-4")
    stage.ask_canaries("v7", k=K)
    kept = found(stage).kept
    assert kept is not None and kept < 1


def test_other_queries_are_pinned_anew(stage: Stage) -> None:
    stage.ask_canaries("v7", k=K)
    stage.queries, stage.judgements = stage.queries[:3], stage.judgements[:6]
    stage.read_queries()
    stage.ask_canaries("v7", k=K)
    assert found(stage).kept is None
    stage.ask_canaries("v7", k=K)
    assert found(stage).kept == 1


def test_another_index_has_first_answers_of_its_own(stage: Stage) -> None:
    stage.ask_canaries("v7", k=K)
    stage.ask_canaries("worse", k=K)
    assert found(stage).kept is None


def test_a_canary_cannot_expect_more_than_is_looked_at(stage: Stage) -> None:
    with pytest.raises(Terminal) as error:
        stage.ask_canaries("v7", k=1)
    assert error.value.reason is Reason.SOURCE_INVALID
    assert error.value.message == (
        "5 of 5 queries of papers-eval expect more than 1 documents, wanted 1 or fewer each; raise k, or name fewer"
    )


def test_canaries_for_other_documents_are_refused(stage: Stage) -> None:
    for row in stage.judgements:
        row["document"] = "elsewhere-" + row["document"]
    stage.read_queries()
    with pytest.raises(Terminal) as error:
        stage.ask_canaries("v7", k=K)
    assert error.value.message.startswith("0 of 10 relevant documents of query set papers-eval are in papers@1")


def test_nothing_is_written_of_indexes_that_moved_meanwhile(stage: Stage) -> None:
    stage.backend.before_search = lambda: stage.away("v7")
    with pytest.raises(Conflict):
        stage.ask_canaries("v7", "worse")
    assert stage.canaries() is None


def test_nothing_is_written_while_a_model_is_down(stage: Stage) -> None:
    stage.models["first"].is_down = True
    with pytest.raises(Retryable):
        stage.ask_canaries("v7", "worse")
    assert stage.canaries() is None


def test_what_was_found_before_is_remembered_in_short(stage: Stage) -> None:
    stage.ask_canaries("worse", "v7", k=K)
    before = found(stage)
    stage.ask_canaries("v7", k=K)
    assert found(stage).history == (Earlier(AT, "worse", before.found / CANARIES, "v7"),)
