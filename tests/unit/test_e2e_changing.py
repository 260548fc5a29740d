"""What the stories take for a source that changes: what there is at a turn, and what of it a search has to find."""

from __future__ import annotations

import itertools
import json

import pytest
from e2e import writing
from e2e.changing import Found


def test_a_document_comes_is_edited_and_goes() -> None:
    seen = [writing.present(turn).get(5) for turn in range(4, 15)]

    assert seen == [None, 0, 0, 1, 1, 1, 1, 1, 1, None, None]


def test_what_is_written_at_a_turn_is_what_there_is() -> None:
    rows = [json.loads(line) for line in writing.lines(6)]

    assert [row["id"] for row in rows] == [f"written/{number}" for number in range(1, 7)]
    assert rows[3]["text"] == writing.text(4, 1) and rows[4]["text"] == writing.text(5, 0)


def test_no_two_texts_are_alike() -> None:
    texts = [set(writing.text(number, revision).split()) for number in range(1, 400) for revision in (0, 1)]

    assert max(len(one & other) for one, other in itertools.combinations(texts, 2)) < 5


@pytest.mark.parametrize(
    "revisions",
    [{1: 1, 2: 1}, {1: 1, 2: 1, 3: 0}, {1: 1, 2: 0, 3: 0, 4: 0}, {0: 1, 1: 1, 2: 1, 3: 0, 4: 0}],
    ids=["what_came_is_missing", "the_newest_is_missing", "the_edit_is_missing", "what_went_is_there"],
)
def test_what_was_never_there_at_once_is_not_of_a_turn(revisions: dict[int, int]) -> None:
    assert Found(1, {1: 1, 2: 1, 3: 0, 4: 0}).is_of(4)
    assert not Found(1, revisions).is_of(4)
