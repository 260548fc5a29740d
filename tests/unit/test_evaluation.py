from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pointsman.core import evaluation
from pointsman.core.evaluation import Measure, Metric, Verdict

ORACLE = {
    Measure.NDCG: "ndcg_cut_{k}",
    Measure.RECALL: "recall_{k}",
    Measure.PRECISION: "P_{k}",
    Measure.RECIPROCAL_RANK: "recip_rank",
}


def random_case(seed: int) -> tuple[dict[str, list[tuple[str, float]]], dict[str, dict[str, int]]]:
    """Rankings with many ties, in the order that trec_eval would give them, and grades, some of them negative."""
    draw = random.Random(seed)
    documents = [f"d{number}" for number in range(60)]
    rankings, judgements = {}, {}
    for number in range(40):
        hits = [(d, draw.randint(0, 4) / 4) for d in draw.sample(documents, draw.randint(1, 50))]
        rankings[f"q{number}"] = sorted(hits, key=lambda hit: (hit[1], hit[0]), reverse=True)
        judgements[f"q{number}"] = {d: draw.randint(-1, 3) for d in draw.sample(documents, draw.randint(1, 25))}
    return rankings, judgements


@pytest.mark.parametrize("k", [1, 3, 5, 10, 100])
@pytest.mark.parametrize("measure", ORACLE)
def test_a_metric_agrees_with_trec_eval(measure: Measure, k: int) -> None:
    for seed in range(5):
        rankings, judgements = random_case(seed)
        cut = {query: dict(hits[:k]) for query, hits in rankings.items()}
        name = ORACLE[measure].format(k=k)
        oracle = pytrec_eval.RelevanceEvaluator(judgements, {name})
        wanted = {query: found[name] for query, found in oracle.evaluate(cut).items()}

        ours = Metric(measure, k).by_query({q: [d for d, _ in hits] for q, hits in rankings.items()}, judgements)

        assert ours == pytest.approx(wanted, abs=1e-9)


def test_ties_are_taken_in_the_order_given() -> None:
    grades = {"a": 1.0}

    assert Metric(Measure.RECIPROCAL_RANK, 10).of(["b", "a"], grades) == 0.5
    assert Metric(Measure.RECIPROCAL_RANK, 10).of(["a", "b"], grades) == 1.0


def test_exponential_gains_weigh_high_grades_more() -> None:
    ranking, grades = ["a", "b"], {"a": 1.0, "b": 3.0}
    linear = (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))
    exponential = (1 + 7 / math.log2(3)) / (7 + 1 / math.log2(3))

    assert Metric(Measure.NDCG, 10).of(ranking, grades) == pytest.approx(linear)
    assert Metric(Measure.NDCG_EXPONENTIAL, 10).of(ranking, grades) == pytest.approx(exponential)


def test_a_query_that_was_not_answered_scores_nothing() -> None:
    assert Metric(Measure.NDCG, 10).by_query({}, {"q": {"a": 1.0}}) == {"q": 0.0}


def test_a_query_without_relevant_documents_scores_nothing() -> None:
    assert Metric(Measure.RECALL, 10).of(["a"], {"a": 0.0}) == 0.0


def test_a_document_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a document stands twice in a ranking; keep each at its best chunk"):
        Metric(Measure.RECALL, 10).of(["a", "a"], {"a": 1.0})


def test_chunks_collapse_to_their_documents_at_the_best_chunk() -> None:
    assert evaluation.best_chunks(["b", "a", "b", "c", "d"], 3) == ["b", "a", "c"]
    assert evaluation.best_chunks(["b", "b"], 3) == ["b"]


@pytest.mark.parametrize("text", ["nDCG@10", "nDCG-exp@5", "recall@100", "precision@1", "RR@10"])
def test_a_metric_is_read_and_written_as_people_do(text: str) -> None:
    assert str(Metric.parse(text)) == text


@pytest.mark.parametrize("text", ["", "nDCG", "nDCG@", "nDCG@0", "ndcg@10", "MAP@10", "nDCG@10.5", "nDCG@99999"])
def test_what_is_no_metric_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(ValueError, match="is not a metric; wanted one of nDCG@k, nDCG-exp@k, recall@k"):
        Metric.parse(text)


def values(differences: list[float]) -> tuple[dict[str, float], dict[str, float]]:
    serving = {f"q{number}": 0.5 for number in range(len(differences))}
    return {query: 0.5 + d for query, d in zip(serving, differences, strict=True)}, serving


def spread_around(mean: float, groups: int = 100, spread: float = 0.1) -> list[float]:
    """Differences of exactly this mean and this standard deviation."""
    draws = np.random.default_rng(7).normal(size=groups)
    exact = (draws - draws.mean()) / draws.std(ddof=1)
    return [float(value) for value in mean + spread * exact]


def test_the_bounds_are_those_of_the_paired_t_test_where_groups_are_many() -> None:
    differences = spread_around(0.01, groups=20_000)

    found = evaluation.compare(*values(differences))

    test = stats.ttest_1samp(differences, 0.0)
    assert found.interval == pytest.approx(tuple(test.confidence_interval(0.95)), abs=2e-5)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.90)), abs=2e-5)


def test_the_bounds_assume_a_fifth_of_a_group_that_was_not_seen() -> None:
    found = evaluation.compare(*values(spread_around(0.01)))

    # Mean and standard error of a hundred groups with a deviation of 0.1 and a fifth of one of -1, and of 1.
    assert found.difference == pytest.approx(0.01)
    assert found.standard_error == pytest.approx(0.01)
    assert found.low == pytest.approx(0.007984 - 1.66039 * 0.0109693, abs=1e-6)
    assert found.high == pytest.approx(0.011976 + 1.66039 * 0.0109326, abs=1e-6)
    assert (found.queries, found.groups, found.nonzero, found.is_counted) == (100, 100, 100, False)


def test_queries_of_one_group_count_once() -> None:
    candidate, serving = values([0.3, 0.1, -0.1, *spread_around(0.0, 60)])
    groups = {"q0": "a", "q1": "a", "q2": "b"}

    found = evaluation.compare(candidate, serving, groups)

    assert (found.queries, found.groups) == (63, 62)
    assert found.difference == pytest.approx((0.2 - 0.1) / 62)


def test_a_group_that_bears_the_id_of_a_query_is_not_that_query() -> None:
    candidate, serving = values([0.2, 0.4])

    assert evaluation.compare(candidate, serving, {"q1": "q0"}).groups == 2


@pytest.mark.parametrize(
    ("mean", "verdict"),
    # The bounds lie 0.0201 to either side.
    [
        (0.05, Verdict.PASSED),
        (0.001, Verdict.PASSED),
        (0.0, Verdict.INCONCLUSIVE),
        (-0.04, Verdict.INCONCLUSIVE),
        (-0.041, Verdict.FAILED),
    ],
)
def test_a_verdict_takes_a_bound_and_not_a_mean(mean: float, verdict: Verdict) -> None:
    candidate, serving = values(spread_around(mean))

    assert evaluation.compare(candidate, serving).verdict(0.02) is verdict


def test_fewer_than_fifty_groups_decide_nothing() -> None:
    candidate, serving = values(spread_around(0.3, groups=49))

    assert evaluation.compare(candidate, serving).verdict(0.02) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("look", "level", "verdict"),
    [
        (1, 0.05, Verdict.FAILED),
        (2, 0.03, Verdict.FAILED),
        (3, 0.0075, Verdict.INCONCLUSIVE),
        (4, 0.03 / 9, Verdict.INCONCLUSIVE),
        (101, 3e-6, Verdict.INCONCLUSIVE),
    ],
)
def test_a_later_look_fails_by_clearer_numbers_only(look: int, level: float, verdict: Verdict) -> None:
    found = evaluation.compare(*values(spread_around(-0.044)))

    assert evaluation.level_of(look) == pytest.approx(level)
    assert found.verdict(0.02, look) is verdict
    assert (found.bounds(level)[1] < -0.02) is (verdict is Verdict.FAILED)


def test_a_later_look_passes_as_the_first_does() -> None:
    found = evaluation.compare(*values(spread_around(0.001)))

    assert found.verdict(0.02, look=9) is Verdict.PASSED


def test_all_later_looks_together_fail_a_good_version_5_times_of_100() -> None:
    assert sum(evaluation.level_of(look) for look in range(2, 10_000)) < 0.05


def test_a_comparison_that_was_kept_can_be_judged_at_any_level() -> None:
    found = evaluation.compare(*values([-0.3] * 3 + [0.2] * 2 + [0.0] * 95))
    kept = evaluation.Comparison(**dataclasses.asdict(found))

    assert (kept.losing, kept.winning, kept.groups) == (3, 2, 100)
    assert kept.bounds(0.001) == found.bounds(0.001)
    assert kept.bounds(0.001)[0] < kept.bounds(0.05)[0]


def test_where_hardly_a_group_differs_the_losing_ones_are_counted() -> None:
    candidate, serving = values([-0.001] * 2 + [0.001] * 3 + [0.0] * 495)

    found = evaluation.compare(candidate, serving)

    # With 2 and 3 of 500 seen, Clopper and Pearson's upper bounds at 95 % are 6.27 and 7.72 of 500.
    assert found.is_counted
    assert found.nonzero == 5
    assert found.low == pytest.approx(-6.269 / 500, abs=1e-5)
    assert found.high == pytest.approx(7.717 / 500, abs=1e-5)
    assert found.verdict(0.02) is Verdict.PASSED
    assert found.detectable == pytest.approx(6.269 / 500, abs=1e-5)


def test_two_versions_that_answer_alike_need_149_groups_for_a_policy_of_a_fiftieth() -> None:
    for groups, verdict in ((148, Verdict.INCONCLUSIVE), (149, Verdict.PASSED)):
        candidate, serving = values([0.0] * groups)
        found = evaluation.compare(candidate, serving)

        assert found.verdict(0.02) is verdict
        assert found.needed(0.02) == 149


def test_noise_in_the_last_bits_is_no_difference() -> None:
    candidate, serving = values([1e-16] * 60)

    assert evaluation.compare(candidate, serving).nonzero == 0


def test_every_group_losing_everything_is_seen_even_when_they_are_few() -> None:
    candidate, serving = {f"q{n}": 0.0 for n in range(5)}, {f"q{n}": 1.0 for n in range(5)}

    found = evaluation.compare(candidate, serving)

    assert found.low == -1.0
    assert found.difference == -1.0


def test_versions_that_answered_other_queries_are_not_compared() -> None:
    with pytest.raises(ValueError, match="2 queries were answered by one version alone"):
        evaluation.compare({"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0})


def test_one_group_is_not_compared() -> None:
    with pytest.raises(ValueError, match="1 groups of queries cannot be compared; wanted 2 or more"):
        evaluation.compare({"a": 1.0}, {"a": 0.0})


def test_the_size_of_a_set_is_said_before_anything_is_built() -> None:
    assert evaluation.groups_needed(0.02, 0.2) == 619
    assert evaluation.groups_needed(0.02) == 619
    assert evaluation.groups_needed(0.5) == 50
    assert evaluation.detectable(0.2, 619) == pytest.approx(0.02, abs=2e-5)
    assert evaluation.detectable(0.2, 100) == pytest.approx(2.49 * 0.02, abs=1e-4)
    assert evaluation.compare(*values(spread_around(0.0))).detectable == pytest.approx(0.0249, abs=1e-4)
    assert evaluation.compare(*values(spread_around(0.0))).needed(0.02) == 155


def test_no_number_of_queries_proves_a_difference_of_nothing() -> None:
    with pytest.raises(ValueError, match="no number of queries proves a difference of 0"):
        evaluation.groups_needed(0.0)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=80))
def test_the_interval_holds_the_bounds_and_the_bounds_the_mean(differences: list[float]) -> None:
    found = evaluation.compare(*values(differences))

    assert found.interval[0] <= found.low + 1e-12
    assert found.low <= found.difference + 1e-12
    assert found.difference <= found.high + 1e-12
    assert found.high <= found.interval[1] + 1e-12


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=80))
def test_swapping_the_versions_mirrors_the_bounds(differences: list[float]) -> None:
    candidate, serving = values(differences)
    there, back = evaluation.compare(candidate, serving), evaluation.compare(serving, candidate)

    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
