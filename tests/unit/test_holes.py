"""Documents that nobody has judged."""

from __future__ import annotations

import math
import random

import pytest
import pytrec_eval
from tests.unit.test_evaluation import ORACLE, random_case

from pointsman.core import holes
from pointsman.core.evaluation import Measure, Metric, Verdict

GRADES = {"q1": {"a": 1.0, "b": 0.0}, "q2": {"c": 2.0}}


def test_judged_is_the_share_of_answers_that_has_a_grade_whichever() -> None:
    rankings = {"q1": ["a", "b", "x", "y"], "q2": ["x", "c"]}

    assert holes.judged(rankings, GRADES, 4) == 0.5
    assert holes.judged(rankings, GRADES, 2) == 0.75
    assert holes.judged({"q1": ["x"]}, GRADES, 2) == 0.5
    assert holes.judged({}, {}, 2) == 1.0


def test_a_condensed_list_is_the_ranking_without_the_documents_that_have_no_grade() -> None:
    rankings = {"q1": ["x", "b", "y", "a"], "q9": ["a"]}

    assert holes.condensed(rankings, GRADES) == {"q1": ["b", "a"], "q2": []}


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("measure", ORACLE)
def test_a_metric_on_condensed_lists_agrees_with_trec_eval_on_judged_documents_alone(measure: Measure, k: int) -> None:
    for seed in range(5):
        rankings, judgements = random_case(seed)
        # trec_eval -J is not in the oracle; its runs without the unjudged documents are the same.
        kept = {
            q: dict([(d, s) for d, s in hits if d in judgements[q]][:k] or [("none", 0.0)])
            for q, hits in rankings.items()
        }
        name = ORACLE[measure].format(k=k)
        found = pytrec_eval.RelevanceEvaluator(judgements, {name}).evaluate(kept)

        ours = holes.condensed({q: [d for d, _ in hits] for q, hits in rankings.items()}, judgements)

        assert Metric(measure, k).by_query(ours, judgements) == pytest.approx(
            {query: values[name] for query, values in found.items()}, abs=1e-9
        )


@pytest.mark.parametrize(
    ("verdict", "condensed", "judged", "wanted"),
    [
        (Verdict.FAILED, Verdict.INCONCLUSIVE, (0.6, 0.9), True),
        (Verdict.FAILED, Verdict.PASSED, (0.6, 0.9), True),
        (Verdict.FAILED, Verdict.FAILED, (0.6, 0.9), False),
        (Verdict.FAILED, Verdict.PASSED, (0.85, 0.9), False),
        (Verdict.FAILED, Verdict.PASSED, (0.849, 0.9), True),
        (Verdict.FAILED, Verdict.PASSED, (0.9, 0.6), False),
        (Verdict.PASSED, Verdict.PASSED, (0.6, 0.9), False),
        (Verdict.INCONCLUSIVE, Verdict.PASSED, (0.6, 0.9), False),
    ],
)
def test_a_failure_is_explained_by_holes_only_where_the_candidate_has_more_of_them_and_would_not_fail_without(
    verdict: Verdict, condensed: Verdict, judged: tuple[float, float], wanted: bool
) -> None:
    assert holes.explain_failure(verdict, condensed, *judged) is wanted


def test_those_documents_are_judged_first_whose_place_changed_most() -> None:
    candidate = {"q1": ["x", "a", "y"], "q2": ["c", "z"]}
    serving = {"q1": ["a", "b", "y"], "q2": ["z", "c"]}

    found = holes.to_judge(candidate, serving, GRADES, 3)

    # x is new at place 1, z fell from 1 to 2; y stands at 3 in both and moves nothing.
    assert [(pair.query, pair.document) for pair in found] == [("q1", "x"), ("q2", "z")]
    assert [pair.change for pair in found] == pytest.approx([1.0, 1 - 1 / math.log2(3)])


def test_what_to_judge_does_not_tell_which_version_found_it() -> None:
    draw = random.Random(5)
    one, other = ({"q1": draw.sample("cdefghijklm", 8)} for _ in range(2))

    assert holes.to_judge(one, other, GRADES, 5) == holes.to_judge(other, one, GRADES, 5)
