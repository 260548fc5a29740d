"""Canaries: the same answers inside one space, the expected ones across spaces."""

from __future__ import annotations

import pytest

from pointsman.core import canaries
from pointsman.core.canaries import Hit


def hits(**scores: float) -> list[Hit]:
    return [Hit(document, score) for document, score in scores.items()]


PINNED = hits(a=0.9, b=0.8, c=0.7, d=0.69995, e=0.5)


@pytest.mark.parametrize(
    ("now", "k", "wanted"),
    [
        pytest.param(PINNED, 5, 1.0, id="the same"),
        pytest.param(hits(b=0.9, a=0.8, c=0.7), 3, 1.0, id="the order does not count"),
        pytest.param(hits(a=0.9, b=0.8, x=0.75), 3, 2 / 3, id="another document stands above"),
        pytest.param(hits(a=0.9, b=0.8, d=0.69995, c=0.7), 3, 1.0, id="a tie at the end, known"),
        pytest.param(hits(a=0.9, b=0.8, x=0.70005), 3, 1.0, id="a tie at the end, not pinned"),
        pytest.param(hits(a=0.9, b=0.8, x=0.6998), 3, 2 / 3, id="no tie: below by more"),
        pytest.param(hits(b=0.8, x=0.7, y=0.7), 3, 2 / 3, id="whoever stood above the last has no equal"),
        pytest.param(hits(a=0.9), 3, 1 / 3, id="fewer answers"),
        pytest.param([], 3, 0.0, id="no answer"),
    ],
)
def test_overlap_takes_ties_for_the_same(now: list[Hit], k: int, wanted: float) -> None:
    assert canaries.overlap(PINNED, now, k) == pytest.approx(wanted)


def test_documents_that_changed_since_are_left_out_of_both() -> None:
    now = hits(n=0.95, a=0.9, c=0.7, d=0.69995, e=0.5)

    assert canaries.overlap(PINNED, now, 3) == pytest.approx(2 / 3)
    assert canaries.overlap(PINNED, now, 3, changed={"b", "n"}) == 1.0
    assert canaries.overlap(PINNED, now, 3, changed=set("abcden")) is None


def test_the_mean_is_over_the_queries_that_can_be_compared() -> None:
    pinned = {"q1": PINNED, "q2": PINNED, "q3": hits(z=0.9)}

    assert canaries.mean_overlap(pinned, {"q1": PINNED}, 5, changed={"z"}) == 0.5
    assert canaries.mean_overlap({}, {}, 5) is None


def test_across_spaces_every_expected_document_stands_within_the_top_k() -> None:
    expected = {"q1": ["a", "b"], "q2": ["c"], "q3": ["d"]}
    rankings = {"q1": ["x", "a", "b"], "q2": ["c"]}

    assert canaries.missing(expected, rankings, 3) == {"q3": ["d"]}
    assert canaries.missing(expected, rankings, 2) == {"q1": ["b"], "q3": ["d"]}
    assert canaries.missing({"q2": ["c"]}, rankings, 1) == {}
