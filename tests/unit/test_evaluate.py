"""Indexes are asked judged queries: the numbers are those of a search by hand, and half a look leaves nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from tests.crash.stage import PARTS, Crash, Tripwire, Wired
from tests.unit.answering import AT, RECIPES, TOPICS, Stage, answer, question

from pointsman.api.conditions import Reason
from pointsman.core import evaluation
from pointsman.errors import Conflict, PointsmanError, Retryable, Terminal
from pointsman.plan.measured import Evaluation
from pointsman.work import asking


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path)
    made.publish("v7", "worse")
    return made


def found(stage: Stage) -> Evaluation:
    record = stage.evaluation()
    assert record is not None
    return record


# The reference: every chunk of the store against every query, in plain loops.


def rankings(stage: Stage, version: str, k: int) -> list[list[str]]:
    recipe = RECIPES[version]
    model = stage.models[recipe.space.model]
    embedded = stage.dataset.embedded_at(recipe.key, stage.snapshot)
    assert embedded is not None
    chunks = pa.Table.from_batches(stage.dataset.chunks(recipe.key).read(embedded.chunks_version)).to_pylist()
    vectors = model.embed([chunk["text"] for chunk in chunks]).astype(np.float64)
    answers = []
    for query in model.embed([recipe.space.query_prefix + row["text"] for row in stage.queries]).astype(np.float64):
        best: dict[str, float] = {}
        for chunk, vector in zip(chunks, vectors, strict=True):
            best[chunk["document"]] = max(best.get(chunk["document"], -2.0), float(query @ vector))
        answers.append(sorted(best, key=lambda name: -best[name])[:k])
    return answers


def judged(stage: Stage, version: str, depth: int) -> list[list[str]]:
    """Return the first ten of these documents that have a grade, whichever."""
    pairs = {(row["query"], row["document"]) for row in stage.judgements}
    found = enumerate(rankings(stage, version, depth))
    return [[name for name in ranking if (f"q{n}", name) in pairs][:10] for n, ranking in found]


def ndcg(ranking: Sequence[str], number: int) -> float:
    grades = {row["document"]: row["grade"] for row in answer(number)}
    gain = sum(grades.get(name, 0) / math.log2(place + 2) for place, name in enumerate(ranking))
    return gain / (2 / math.log2(2) + 1 / math.log2(3))


def share_found(ranking: Sequence[str], number: int) -> float:
    return sum(row["document"] in ranking for row in answer(number)) / 2


@pytest.mark.parametrize(("metric", "by_hand"), [("nDCG@10", ndcg), ("recall@5", share_found)])
def test_the_numbers_are_those_of_a_search_by_hand(
    stage: Stage, metric: str, by_hand: Callable[[Sequence[str], int], float]
) -> None:
    stage.publish("longer")
    stage.evaluate("longer", "v7", metric)
    k = int(metric.partition("@")[2])
    ours = np.array([by_hand(ranking, n) for n, ranking in enumerate(rankings(stage, "longer", k))])
    theirs = np.array([by_hand(ranking, n) for n, ranking in enumerate(rankings(stage, "v7", k))])
    d = ours - theirs
    record = found(stage)
    assert 0.2 < theirs.mean() < 0.95, "a corpus on which nothing or everything is found proves nothing"
    assert record.value == pytest.approx(ours.mean(), abs=1e-9)
    assert record.other == pytest.approx(theirs.mean(), abs=1e-9)
    assert record.difference == pytest.approx(d.mean(), abs=1e-9)
    assert record.spread == pytest.approx(d.std(ddof=1), abs=1e-9)
    assert record.standard_error == pytest.approx(d.std(ddof=1) / math.sqrt(TOPICS), abs=1e-9)
    assert (record.losing, record.winning) == ((d < -1e-9).sum(), (d > 1e-9).sum())
    assert (record.queries, record.groups, record.documents) == (TOPICS, TOPICS, 2 * TOPICS)
    assert (record.candidate, record.serving) == ("pm_papers_longer", "pm_papers_v7")
    assert (record.version, record.against, record.snapshot) == ("longer", "v7", 1)
    assert (record.metric, record.digest, record.measured_at) == (metric, stage.read_set().digest, AT)


def test_an_index_is_no_worse_than_itself(stage: Stage) -> None:
    stage.evaluate("v7", "v7")
    record = found(stage)
    assert (record.difference, record.nonzero, record.value) == (0, 0, record.other)
    assert (record.recall, record.other_recall, record.recall_queries) == (1, 1, TOPICS)


def test_a_worse_candidate_is_found_out(stage: Stage) -> None:
    stage.evaluate("worse", "v7")
    record = found(stage)
    assert record.difference is not None and record.difference < -0.3
    assert record.high is not None and record.high < -0.2
    assert (record.recall, record.other_recall) == (1, 1), "its index finds all that is nearest: the model is worse"


def test_what_an_index_does_not_find_is_its_own_fault(stage: Stage) -> None:
    held = pa.Table.from_batches(stage.backend.scan("pm_papers_v7"))["point_id"].to_pylist()
    stage.backend.delete("pm_papers_v7", held[::2])
    stage.evaluate("v7")
    recall = found(stage).recall
    assert recall is not None and 0.3 < recall < 0.9


def test_an_index_is_measured_alone_where_nothing_serves(stage: Stage) -> None:
    stage.evaluate("v7")
    record = found(stage)
    assert record.value > 0.5
    assert (record.serving, record.against, record.look) == ("", "", 1)
    assert (record.other, record.difference, record.low, record.high, record.interval) == (None,) * 5
    assert record.judged is not None and record.other_judged is None


def test_each_group_counts_once(stage: Stage) -> None:
    # Half of the queries hang together.
    for number, row in enumerate(stage.queries):
        row["group"] = "one" if number < TOPICS // 2 else f"g{number}"
    stage.read_queries()
    stage.evaluate("v7", "worse")
    values = [ndcg(ranking, n) for n, ranking in enumerate(rankings(stage, "v7", 10))]
    half = TOPICS // 2
    assert found(stage).groups == half + 1
    assert found(stage).value == pytest.approx((np.mean(values[:half]) + sum(values[half:])) / (half + 1))


def test_every_side_is_asked_in_its_own_words(stage: Stage) -> None:
    stage.publish("asking")
    stage.evaluate("asking", "worse")
    texts = {row["text"] for row in stage.queries}
    assert {f"query: {text}" for text in texts} <= set(stage.models["words"].asked)
    assert not texts & set(stage.models["words"].asked)
    assert texts <= set(stage.models["first"].asked)
    assert set(stage.opened) == {("words", "main", "key of main"), ("first", "side", "key of side")}


def test_two_indexes_of_one_space_share_the_vectors_of_the_queries(stage: Stage) -> None:
    stage.publish("longer")
    stage.evaluate("longer", "v7")
    asked = stage.models["words"].asked
    assert [asked.count(row["text"]) for row in stage.queries] == [1] * TOPICS


def test_progress_is_told_in_queries_of_both(stage: Stage) -> None:
    stage.evaluate("worse", "v7")
    assert stage.reports[-1] == (2 * TOPICS, 2 * TOPICS)
    assert [done for done, _ in stage.reports] == sorted(done for done, _ in stage.reports)


def test_neither_queries_nor_documents_are_written_down(stage: Stage) -> None:
    stage.evaluate("worse", "v7")
    stage.evaluate("worse", "v7")
    assert "topic" not in str(found(stage)) and "doc-" not in str(found(stage))


# Judgements with holes.


def test_pooled_judgements_are_also_compared_where_their_holes_are_passed_over(stage: Stage) -> None:
    stage.kind = "Pooled"
    # What v7 finds first was judged, whatever it is worth: nobody has looked at what the other one finds.
    for number, ranking in enumerate(rankings(stage, "v7", 10)):
        known = {row["document"] for row in answer(number)}
        stage.judgements += [{"query": f"q{number}", "document": d, "grade": 0} for d in ranking if d not in known]
    stage.read_queries()
    stage.evaluate("worse", "v7")
    record = found(stage)
    assert record.pooled
    assert record.other_judged == 1
    assert record.judged is not None and record.judged < 0.3
    assert record.condensed_high is not None and record.high is not None
    assert record.condensed_high > record.high
    # As deep as five times k, so that k judged ones are mostly among them.
    ours, theirs = ({f"q{n}": ndcg(r, n) for n, r in enumerate(judged(stage, name, 50))} for name in ("worse", "v7"))
    assert record.condensed_high == pytest.approx(evaluation.compare(ours, theirs).high, abs=1e-9)
    stage.kind = "Complete"
    stage.evaluate("worse", "v7")
    assert (found(stage).pooled, found(stage).condensed_high) == (False, None)


def test_what_should_be_judged_next_is_listed_by_ids_and_says_nothing_of_who_found_it(stage: Stage) -> None:
    stage.kind = "Pooled"
    stage.judgements = [row for n in range(TOPICS) for row in answer(n)[: 1 + n % 2]]
    stage.publish("longer")
    stage.evaluate("worse", "longer")
    listed = stage.unjudged()
    assert listed is not None

    ours, theirs = ([ranking[:10] for ranking in rankings(stage, version, 10)] for version in ("worse", "longer"))
    graded = {(row["query"], row["document"]) for row in stage.judgements}

    def change(query: str, document: str) -> float:
        number = int(query[1:])
        places = [each[number].index(document) + 1 if document in each[number] else None for each in (ours, theirs)]
        one, other = (0.0 if place is None else 1 / math.log2(place + 1) for place in places)
        return abs(one - other)

    found = {(f"q{n}", name) for n in range(TOPICS) for each in (ours, theirs) for name in each[n]}
    wanted = {pair for pair in found - graded if change(*pair) > 0}
    assert set(listed.pairs) == wanted and len(listed.pairs) == listed.total == len(wanted)
    changes = [change(*pair) for pair in listed.pairs]
    assert changes == sorted(changes, reverse=True)
    assert (listed.query_set, listed.metric, listed.measured_at) == ("papers-eval", "nDCG@10", AT)
    assert listed.digest == stage.read_set().digest
    # The other way round the same is asked for, in the same order.
    stage.evaluate("longer", "worse")
    assert stage.unjudged() == listed


def test_where_nothing_unjudged_is_unknown_nothing_is_listed(stage: Stage) -> None:
    stage.evaluate("worse", "v7")

    assert stage.unjudged() is None


# Known items.


@pytest.fixture
def known(stage: Stage) -> Stage:
    stage.kind = "KnownItem"
    stage.judgements = [{"query": f"q{n}", "document": f"doc-{n}"} for n in range(TOPICS)]
    return stage


def test_a_document_of_the_same_text_counts_as_the_known_item(known: Stage) -> None:
    before = rankings(known, "v7", 10)
    places = [ranking.index(f"doc-{n}") for n, ranking in enumerate(before) if f"doc-{n}" in ranking]
    assert len(places) > 20 and sum(places) > 10
    # Every document gets two twins, of which any may come first.
    twins = [{**row, "id": f"{name}-{row['id']}"} for row in known.documents for name in ("a", "z")]
    known.documents = twins + known.documents
    known.publish("v7")
    known.evaluate("v7", metric="RR@30")
    assert found(known).value == pytest.approx(sum(1 / (3 * place + 1) for place in places) / TOPICS)


def test_a_template_that_tells_no_documents_apart_gains_nothing(known: Stage) -> None:
    known.publish("v7", "coarse")
    known.evaluate("coarse", "v7", metric="RR@10")
    record = found(known)
    assert record.other is not None and record.other > 0.3
    assert record.value < 0.1, "twenty documents read alike, and one of them is the item"


# Looking again.


def test_the_same_answers_are_no_other_look(stage: Stage) -> None:
    stage.evaluate("worse", "v7")
    first = found(stage)
    stage.evaluate("worse", "v7")
    assert (found(stage).look, found(stage).high) == (1, first.high)
    assert [(each.version, each.value, each.look) for each in found(stage).history] == [("worse", first.value, 1)]


def test_each_later_look_at_a_set_fails_at_a_smaller_level(stage: Stage) -> None:
    looks = []
    for number in range(3):
        stage.documents[number]["text"] += " edited"
        stage.publish("v7", "worse")
        stage.evaluate("worse", "v7")
        record = found(stage)
        assert record.difference is not None and record.standard_error is not None
        comparison = evaluation.Comparison(
            record.difference, record.standard_error, TOPICS, TOPICS, record.losing, record.winning
        )
        level = (0.05, 0.03, 0.0075)[number]
        assert (record.low, record.high) == (comparison.bounds(0.05)[0], comparison.bounds(level)[1])
        looks.append(record.look)
    assert looks == [1, 2, 3]


def test_looks_are_counted_by_pair_and_set_whatever_was_asked_in_between(stage: Stage) -> None:
    stage.evaluate("worse", "v7")
    stage.evaluate("v7")
    stage.documents[0]["text"] += " edited"
    stage.publish("v7", "worse")
    stage.evaluate("worse", "v7")
    assert found(stage).look == 2
    stage.evaluate("v7", "worse")
    assert found(stage).look == 1, "the other way round is another comparison"
    stage.queries = stage.queries[1:]
    stage.judgements = stage.judgements[2:]
    stage.read_queries()
    stage.evaluate("worse", "v7")
    assert found(stage).look == 1, "another set is looked at for the first time"


# What changes while they are asked.


def fails(stage: Stage, error: type[PointsmanError] = Conflict, candidate: str = "worse", serving: str = "v7") -> str:
    """Evaluate in vain, and see that what was known before is all that is known after."""
    before = stage.evaluation()
    with pytest.raises(error) as caught:
        stage.evaluate(candidate, serving)
    assert stage.evaluation() == before
    return caught.value.message


def test_a_set_that_changes_meanwhile_is_asked_again(stage: Stage) -> None:
    def change() -> None:
        stage.queries.append(question(99))
        stage.judgements.append({"query": "q99", "document": "doc-1"})
        stage.read_queries()

    stage.backend.before_search = change
    assert fails(stage) == (
        "query set papers-eval has changed since it was read last, wanted it as its record says; "
        "asking again once it is"
    )
    assert stage.backend.searched, "it was found out after the queries were asked"
    stage.evaluate("worse", "v7")
    assert found(stage).digest == stage.read_set().digest


@pytest.mark.parametrize("version", ["worse", "v7"])
def test_an_index_that_moves_meanwhile_is_asked_again(stage: Stage, version: str) -> None:
    stage.evaluate("v7", "worse")
    stage.backend.before_search = lambda: stage.away(version)
    assert fails(stage) == f"index pm_papers_{version} is at snapshot 2, wanted 1 while it is asked; asking again"


def test_an_index_on_its_way_is_not_asked(stage: Stage) -> None:
    stage.move("v7", pending=2)
    assert fails(stage).startswith("index pm_papers_v7 is on its way between snapshots, wanted 1")
    assert stage.backend.searched == []


def test_an_index_that_differs_from_its_snapshot_is_not_asked(stage: Stage) -> None:
    stage.move("worse", differences=7)
    assert fails(stage, Retryable).startswith("index pm_papers_worse differs from its snapshot in 7 points")


def test_a_set_that_was_edited_and_not_read_again_is_not_asked(stage: Stage) -> None:
    stage.judgements[0]["grade"] = 1
    assert fails(stage).startswith("query set papers-eval has changed since it was read last")
    assert stage.backend.searched == []


def test_whoever_was_overtaken_writes_nothing(stage: Stage) -> None:
    def overtake() -> None:
        stage.evaluate("v7")

    stage.backend.before_search = overtake
    with pytest.raises(Conflict):
        stage.evaluate("worse", "v7")
    assert found(stage).version == "v7"


# Models.


@pytest.mark.parametrize("model", ["words", "first"])
def test_a_model_that_is_down_is_waited_for(stage: Stage, model: str) -> None:
    stage.evaluate("v7", "worse")
    stage.models[model].is_down = True
    assert fails(stage, Retryable) == "model.example.com cannot be reached"
    stage.models[model].is_down = False
    stage.evaluate("worse", "v7")
    assert found(stage).version == "worse"


@pytest.mark.parametrize(("model", "moved", "other"), [("first", True, False), ("words", False, True)])
def test_a_changed_model_is_measured(stage: Stage, model: str, moved: bool, other: bool) -> None:
    stage.models[model].salt = "another"
    stage.evaluate("worse", "v7")
    record = found(stage)
    assert record.model_distance is not None and record.other_model_distance is not None
    assert (record.model_distance > 0.01, record.other_model_distance > 0.01) == (moved, other)


def test_queries_that_a_model_refuses_are_counted_and_not_shown(stage: Stage) -> None:
    stage.models["words"].refuses = "topic1"
    # q1 and q10 to q19.
    said = fails(stage, Terminal)
    assert said == "the model refuses 11 texts with HTTP 400, which are queries of papers-eval; mend them there"


# Sets that cannot judge.


def test_a_set_that_was_judged_for_other_documents_is_refused_with_counts(stage: Stage) -> None:
    for row in stage.judgements[3:]:
        row["document"] = f"other-{row['document']}"
    stage.read_queries()
    with pytest.raises(Terminal) as error:
        stage.evaluate("worse", "v7")
    assert error.value.reason is Reason.SOURCE_INVALID
    assert error.value.message == (
        "3 of 120 relevant documents of query set papers-eval are in papers@1, wanted half of them or more; "
        "name a query set that was judged for papers"
    )
    assert stage.backend.searched == []


def test_a_set_of_which_half_is_there_is_asked(stage: Stage) -> None:
    for row in stage.judgements[::2]:
        row["document"] = f"other-{row['document']}"
    stage.read_queries()
    stage.evaluate("worse", "v7")
    assert found(stage).queries == TOPICS


def test_an_empty_set_is_refused(stage: Stage) -> None:
    stage.queries, stage.judgements = [], []
    assert fails(stage, Terminal) == "the query set is empty; wanted at least one query"


def test_one_group_compares_nothing_and_measures_one(stage: Stage) -> None:
    stage.queries, stage.judgements = stage.queries[:1], stage.judgements[:2]
    stage.read_queries()
    assert fails(stage, Terminal) == (
        "query set papers-eval has 1 group of queries, wanted 2 or more to compare versions by; "
        "below 50 nothing is decided"
    )
    stage.evaluate("v7")
    assert found(stage).groups == 1


# Crashes.


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_effect_costs_a_repetition_and_nothing_else(stage: Stage, after: bool) -> None:
    store = stage.store
    traced = Tripwire()
    stage.store = cast(Any, Wired(store, traced, (), PARTS))
    stage.evaluate("worse", "v7")
    wanted = found(stage)
    assert traced.trace[-1] == "RecordLog.write"
    for at in range(len(traced.trace)):
        store.log("deployments", "shop", "papers", "answers", "evaluation").forget()
        stage.store = cast(Any, Wired(store, Tripwire(at, after), (), PARTS))
        with pytest.raises(Crash):
            stage.evaluate("worse", "v7")
        stage.store = store
        stage.evaluate("worse", "v7")
        again = found(stage)
        assert len(again.history) == (after and at == len(traced.trace) - 1)
        assert {**fields(again), "history": ()} == fields(wanted)


def fields(record: Evaluation) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


# The pace.


def test_searches_go_at_a_bounded_rate() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    rate = asking.Rate(500, lambda: now[0], sleep)
    rate.wait(50)
    rate.wait(50)
    now[0] += 0.04
    rate.wait(50)
    now[0] += 10
    rate.wait(50)
    rate.wait(50)
    assert slept == [pytest.approx(s) for s in (0.1, 0.06, 0.1)], "what was not used is not saved up"
