"""How alike two rankings are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.core import rankings

RANKINGS = st.lists(st.sampled_from("abcdefghijkl"), unique=True, max_size=10)


def test_overlap_is_the_share_of_the_first_k_that_both_have() -> None:
    assert rankings.overlap("abcd", "badx", 4) == 0.75
    assert rankings.overlap("abcd", "badx", 2) == 1.0
    assert rankings.overlap("abcd", "ab", 4) == 0.5
    assert rankings.overlap("abcd", "", 4) == 0.0
    assert rankings.overlap("", "", 4) is None


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("abc", "abc", 1.0),
        ("abc", "xyz", 0.0),
        ("abc", "", 0.0),
        # As other implementations of the paper have it.
        ("12345", "23415", 0.828),
        # By hand: agreements 0, 1, 1, weighed 0.1, 0.09, 0.081 and 0.729 for all that follows.
        ("abc", "bac", 0.09 + 0.081 + 0.729),
        # The shorter one has nothing at the second place and is taken to go on agreeing there.
        ("a", "ab", 1.0),
        ("b", "ab", 0.1 * 0 + 0.1 * 0.9 / 2 + 0.5 * 0.81),
    ],
)
def test_rank_biased_overlap_is_that_of_the_paper(one: str, other: str, wanted: float) -> None:
    assert rankings.rank_biased_overlap(one, other) == pytest.approx(wanted, abs=5e-6)


def test_a_change_at_the_top_weighs_more_than_one_at_the_bottom() -> None:
    top, bottom = (rankings.rank_biased_overlap("abcdefgh", other) for other in ("bacdefgh", "abcdefhg"))

    assert top is not None
    assert bottom is not None
    assert top < bottom < 1.0


def test_two_empty_rankings_are_not_compared() -> None:
    assert rankings.rank_biased_overlap("", "") is None


def test_a_document_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a document stands twice in a ranking"):
        rankings.rank_biased_overlap("aa", "ab")


@given(RANKINGS, RANKINGS)
def test_either_ranking_may_come_first_and_the_value_is_a_share(one: list[str], other: list[str]) -> None:
    value = rankings.rank_biased_overlap(one, other)

    assert value == rankings.rank_biased_overlap(other, one) or value == pytest.approx(
        rankings.rank_biased_overlap(other, one)
    )
    assert value is None or -1e-12 <= value <= 1 + 1e-12
    if one and value is not None and one == other:
        assert value == pytest.approx(1.0)
