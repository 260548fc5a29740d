from __future__ import annotations

from typing import Any

import pytest

from pointsman.api import queryset as api
from pointsman.api.conditions import Reason
from pointsman.core import judgements
from pointsman.errors import Terminal

Rows = list[dict[str, Any]]
QUERIES: Rows = [
    {"id": "q1", "text": "how to fly", "group": "birds"},
    {"id": "q2", "text": "how to swim"},
    {"id": 3, "text": "how to walk", "group": None},
]
JUDGEMENTS: Rows = [
    {"query": "q1", "document": "d1", "grade": 2},
    {"query": "q1", "document": "d2", "grade": 0},
    {"query": "q2", "document": 7},
    {"query": 3, "document": "d1", "grade": "0.5"},
]


def test_rows_become_queries_groups_and_grades() -> None:
    found = judgements.load(QUERIES, JUDGEMENTS)

    assert found.queries == {"q1": "how to fly", "q2": "how to swim", "3": "how to walk"}
    assert found.groups == {"q1": "birds", "q2": "query q2", "3": "query 3"}
    assert found.judgements == {"q1": {"d1": 2.0, "d2": 0.0}, "q2": {"7": 1.0}, "3": {"d1": 0.5}}
    assert found.judged == 4
    assert len(found.digest) == 32


def test_the_digest_is_that_of_the_content_and_not_of_its_order() -> None:
    found = judgements.load(QUERIES, JUDGEMENTS)

    assert judgements.load(QUERIES[::-1], JUDGEMENTS[::-1]).digest == found.digest
    assert judgements.load(QUERIES, [*JUDGEMENTS, {"query": "q1", "document": "d3"}]).digest != found.digest
    assert judgements.load([{**QUERIES[0], "group": "fish"}, *QUERIES[1:]], JUDGEMENTS).digest != found.digest


def test_queries_of_one_text_share_a_group_and_so_do_their_groups() -> None:
    queries = [
        {"id": "a", "text": "one", "group": "x"},
        {"id": "b", "text": "two", "group": "x"},
        {"id": "c", "text": "two ", "group": "y"},
        {"id": "d", "text": "three", "group": "y"},
        {"id": "e", "text": "four"},
        {"id": "f", "text": "four"},
        {"id": "g", "text": "five"},
    ]

    groups = judgements.load(queries, [{"query": q["id"], "document": "d"} for q in queries]).groups

    assert [groups[q] for q in "abcdefg"] == ["x", "x", "x", "x", "query e", "query e", "query g"]


@pytest.mark.parametrize(
    ("queries", "judged", "sentence"),
    [
        ([{"text": "t"}], [], "1 queries without an id (row 4)"),
        ([{"id": "", "text": "t"}, {"id": None, "text": "t"}], [], "2 queries without an id (rows 4, 5)"),
        ([{"id": "q1", "text": "t"}], [], "1 queries with the id of another (row 4)"),
        ([{"id": "q4", "text": " "}], [{"query": "q4", "document": "d"}], "1 queries without a text (row 4)"),
        ([{"id": "q4", "text": 5}], [], "1 queries without a text (row 4)"),
        ([{"id": "q4", "text": "t", "group": [1]}], [], "1 queries with a group that is no text (row 4)"),
        ([{"id": "q4", "text": "t"}], [], "1 queries without a relevant document (row 4)"),
        (
            [{"id": "q4", "text": "t"}],
            [{"query": "q4", "document": "d", "grade": 0}],
            "1 queries without a relevant document (row 4)",
        ),
        ([], [{"query": "q9", "document": "d"}], "1 judgements of a query that is not there (row 5)"),
        ([], [{"query": "q1"}], "1 judgements without a query or a document (row 5)"),
        ([], [{"query": "q1", "document": "d1"}], "1 judgements of a pair that was judged before (row 5)"),
        (
            [],
            [{"query": "q1", "document": f"x{n}", "grade": g} for n, g in enumerate(["much", True, float("nan"), []])],
            "4 judgements with a grade that is no number (rows 5, 6, 7, …)",
        ),
    ],
)
def test_rows_that_are_wrong_are_refused_with_counts_and_places(queries: Rows, judged: Rows, sentence: str) -> None:
    with pytest.raises(Terminal) as refused:
        judgements.load([*QUERIES, *queries], [*JUDGEMENTS, *judged])

    assert refused.value.reason is Reason.SOURCE_INVALID
    assert refused.value.message == f"the query set is refused: {sentence}"


def test_mistakes_of_several_kinds_are_told_at_once() -> None:
    with pytest.raises(Terminal) as refused:
        judgements.load([{"id": "q1", "text": ""}, {"text": "t"}], [{"query": "q9", "document": "d"}])

    assert refused.value.message == (
        "the query set is refused: 1 queries without a text (row 1); 1 queries without an id (row 2); "
        "1 judgements of a query that is not there (row 1)"
    )


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(Terminal, match="the query set is empty; wanted at least one query"):
        judgements.load([], [])


def test_queries_of_a_resource_itself_make_the_same_set_as_files() -> None:
    queries = [
        api.Query(id="q1", text="how to fly", relevant=["d1", "d2"]),
        api.Query(id="q2", text="x", relevant=["d"]),
    ]

    found = judgements.inline(queries)

    assert found == judgements.load(
        [{"id": "q1", "text": "how to fly"}, {"id": "q2", "text": "x"}],
        [{"query": "q1", "document": "d1"}, {"query": "q1", "document": "d2"}, {"query": "q2", "document": "d"}],
    )
