"""What a filter means, and what is no filter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.core import filters

MEANINGS: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("a string equals itself", {"type": "eq", "key": "k", "value": "a"}, {"k": "a"}, True),
    ("a string equals no other", {"type": "eq", "key": "k", "value": "a"}, {"k": "A"}, False),
    ("a missing key equals nothing", {"type": "eq", "key": "k", "value": "a"}, {}, False),
    ("a null equals nothing", {"type": "eq", "key": "k", "value": "a"}, {"k": None}, False),
    ("a missing key is not equal", {"type": "ne", "key": "k", "value": "a"}, {}, True),
    ("a null is not equal", {"type": "ne", "key": "k", "value": "a"}, {"k": None}, True),
    ("an integer equals its float", {"type": "eq", "key": "k", "value": 1}, {"k": 1.0}, True),
    ("a truth value is no number", {"type": "eq", "key": "k", "value": 1}, {"k": True}, False),
    ("a number is no truth value", {"type": "eq", "key": "k", "value": False}, {"k": 0}, False),
    ("a number is no string", {"type": "eq", "key": "k", "value": "1"}, {"k": 1}, False),
    ("a list equals any of its elements", {"type": "eq", "key": "k", "value": "b"}, {"k": ["a", "b"]}, True),
    (
        "a list with the element is not unequal",
        {"type": "ne", "key": "k", "value": "b"},
        {"k": ["a", "b"]},
        False,
    ),
    ("an empty list equals nothing", {"type": "eq", "key": "k", "value": "a"}, {"k": []}, False),
    ("an empty list is not equal", {"type": "ne", "key": "k", "value": "a"}, {"k": []}, True),
    ("a list in a list equals nothing", {"type": "eq", "key": "k", "value": 1}, {"k": [[1]]}, False),
    ("an object equals nothing", {"type": "eq", "key": "k", "value": 1}, {"k": {"k": 1}}, False),
    ("more is more", {"type": "gt", "key": "k", "value": 1}, {"k": 1.5}, True),
    ("equal is not more", {"type": "gt", "key": "k", "value": 1}, {"k": 1}, False),
    ("equal is at least", {"type": "gte", "key": "k", "value": 1}, {"k": 1}, True),
    ("less is less", {"type": "lt", "key": "k", "value": 1}, {"k": 0}, True),
    ("equal is at most", {"type": "lte", "key": "k", "value": 1}, {"k": 1}, True),
    ("a string is neither more", {"type": "gt", "key": "k", "value": 1}, {"k": "2"}, False),
    ("nor less", {"type": "lte", "key": "k", "value": 1}, {"k": "0"}, False),
    ("a truth value has no order", {"type": "gte", "key": "k", "value": 0}, {"k": True}, False),
    ("a missing key has no order", {"type": "lt", "key": "k", "value": 1}, {}, False),
    ("an integer beyond all floats is more", {"type": "gt", "key": "k", "value": 1}, {"k": 10**400}, True),
    ("any element may be more", {"type": "gt", "key": "k", "value": 5}, {"k": [1, 9]}, True),
    ("one of several", {"type": "in", "key": "k", "value": ["a", 2]}, {"k": 2}, True),
    ("none of several", {"type": "in", "key": "k", "value": ["a", 2]}, {"k": "2"}, False),
    ("a missing key is in nothing", {"type": "in", "key": "k", "value": ["a"]}, {}, False),
    ("a missing key is outside of everything", {"type": "nin", "key": "k", "value": ["a"]}, {}, True),
    (
        "an element inside is not outside",
        {"type": "nin", "key": "k", "value": ["a"]},
        {"k": ["a", "b"]},
        False,
    ),
    (
        "all must pass",
        {
            "type": "and",
            "filters": [{"type": "gt", "key": "n", "value": 1}, {"type": "eq", "key": "k", "value": "a"}],
        },
        {"n": 2, "k": "b"},
        False,
    ),
    (
        "one must pass",
        {
            "type": "or",
            "filters": [{"type": "gt", "key": "n", "value": 1}, {"type": "eq", "key": "k", "value": "a"}],
        },
        {"n": 2, "k": "b"},
        True,
    ),
]


@pytest.mark.parametrize(("value", "metadata", "wanted"), [m[1:] for m in MEANINGS], ids=[m[0] for m in MEANINGS])
def test_a_filter_means_what_the_table_says(value: dict[str, Any], metadata: dict[str, Any], wanted: bool) -> None:
    assert filters.matches(filters.parse(value), metadata) is wanted


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "eq", "key": "k", "value": 1}
    for _ in range(depth):
        inner = {"type": "and", "filters": [inner]}
    return inner


MISTAKES: list[tuple[str, object, str]] = [
    ("a list", [], "filter is not an object"),
    (
        "no type",
        {"key": "k", "value": 1},
        "filter.type is none of eq, ne, gt, gte, lt, lte, in, nin, and, or",
    ),
    (
        "an unhashable type",
        {"type": ["eq"], "key": "k", "value": 1},
        "filter.type is none of eq, ne, gt, gte, lt, lte, in, nin, and, or",
    ),
    (
        "a field too much",
        {"type": "eq", "key": "k", "value": 1, "x": 1},
        "filter has 1 unknown fields beside key, type, value",
    ),
    ("no key", {"type": "eq", "value": 1}, "filter.key is not a text of 1 to 256 characters"),
    (
        "an empty key",
        {"type": "eq", "key": "", "value": 1},
        "filter.key is not a text of 1 to 256 characters",
    ),
    (
        "a key with NUL",
        {"type": "eq", "key": "a\0", "value": 1},
        "filter.key is not a text of 1 to 256 characters",
    ),
    (
        "a null value",
        {"type": "eq", "key": "k", "value": None},
        "filter.value is not a number, a truth value or a text of at most 1024 characters",
    ),
    (
        "a lone surrogate",
        {"type": "eq", "key": "k", "value": "\ud800"},
        "filter.value is not a number, a truth value or a text of at most 1024 characters",
    ),
    (
        "an ordering of strings",
        {"type": "gt", "key": "k", "value": "a"},
        "filter.value is not a number, and gt orders numbers only",
    ),
    (
        "not a number",
        {"type": "eq", "key": "k", "value": float("nan")},
        "filter.value is not a number within 2**53 - 1 of zero",
    ),
    (
        "an integer that floats do not tell apart",
        {"type": "eq", "key": "k", "value": 2**53},
        "filter.value is not a number within 2**53 - 1 of zero",
    ),
    (
        "in without a list",
        {"type": "in", "key": "k", "value": "a"},
        "filter.value is not a list of 1 to 256 values, which in wants",
    ),
    (
        "in with an empty list",
        {"type": "in", "key": "k", "value": []},
        "filter.value is not a list of 1 to 256 values, which in wants",
    ),
    (
        "an empty compound",
        {"type": "and", "filters": []},
        "filter.filters is not a list of at least one filter",
    ),
    (
        "a mistake further down",
        {
            "type": "and",
            "filters": [{"type": "eq", "key": "k", "value": 1}, {"type": "eq", "key": 1, "value": 1}],
        },
        "filter.filters[1].key is not a text of 1 to 256 characters",
    ),
    (
        "too many values",
        {"type": "or", "filters": [{"type": "in", "key": "k", "value": list(range(200))}] * 2},
        "filter compares with 400 values, 256 are allowed",
    ),
]


@pytest.mark.parametrize(("value", "message"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_what_is_no_filter_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(errors.Terminal) as refused:
        filters.parse(value)
    assert refused.value.reason is Reason.INVALID_SPEC
    assert refused.value.message == message


def test_compounds_nest_to_a_depth_of_eight() -> None:
    filters.parse(nested(8))
    with pytest.raises(errors.Terminal, match="stands inside 8 compounds"):
        filters.parse(nested(9))


SCALARS = st.one_of(st.text(alphabet="ab1 ", max_size=3), st.integers(-3, 3), st.floats(-2, 2), st.booleans())
COMPARISONS = st.one_of(
    st.builds(
        lambda t, k, v: {"type": t, "key": k, "value": v},
        st.sampled_from(["eq", "ne"]),
        st.sampled_from("kn"),
        SCALARS,
    ),
    st.builds(
        lambda t, k, v: {"type": t, "key": k, "value": v},
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        st.sampled_from("kn"),
        st.integers(-3, 3),
    ),
    st.builds(
        lambda t, k, v: {"type": t, "key": k, "value": v},
        st.sampled_from(["in", "nin"]),
        st.sampled_from("kn"),
        st.lists(SCALARS, min_size=1, max_size=3),
    ),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda inner: st.builds(
        lambda t, f: {"type": t, "filters": f},
        st.sampled_from(["and", "or"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)
METADATA = st.dictionaries(
    st.sampled_from("kn"), st.one_of(st.none(), SCALARS, st.lists(SCALARS, max_size=3)), max_size=2
)


@given(st.sampled_from("kn"), SCALARS, METADATA)
def test_unequal_is_the_opposite_of_equal(key: str, value: Any, metadata: dict[str, Any]) -> None:
    equal = filters.parse({"type": "eq", "key": key, "value": value})
    unequal = filters.parse({"type": "ne", "key": key, "value": value})
    assert filters.matches(equal, metadata) is not filters.matches(unequal, metadata)
