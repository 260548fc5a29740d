"""Points leave in pieces that a server takes in one message."""

from __future__ import annotations

import itertools
import json

import pytest
from tests.contracts import backends_points as some

from pointsman.backends import points

MIB = 1 << 20


def test_short_rows_leave_as_many_at_a_time_as_is_allowed() -> None:
    batch = some.batch(some.directions(5_000, 8))
    assert [piece.num_rows for piece in points.pieces([batch], 4 * MIB, 2_000)] == [2_000, 2_000, 1_000]


@pytest.mark.parametrize("field", ["texts", "documents", "metadata"])
def test_long_rows_leave_in_pieces_of_the_size_that_was_asked_for(field: str) -> None:
    long = ["ü" * 20_000 + str(i) for i in range(300)]
    values = [{"k": text} for text in long] if field == "metadata" else long
    batch = some.batch(some.directions(300, 64), **{field: values})  # type: ignore[arg-type]
    pieces = list(points.pieces([batch.slice(0, 150), batch.slice(150)], 4 * MIB, 2_000))
    sent = [len(json.dumps(points.payloads(piece), default=bytes.hex, ensure_ascii=False).encode()) for piece in pieces]
    assert max(sent) <= 4 * MIB
    assert 2 <= len(pieces) <= 24
    assert list(itertools.chain.from_iterable(map(some.ids, pieces))) == some.ids(batch)


def test_a_row_that_is_larger_than_a_piece_leaves_alone() -> None:
    batch = some.batch(some.directions(5, 8), texts=["short", "short", "x" * MIB, "short", "short"])
    assert [piece.num_rows for piece in points.pieces([batch], MIB // 2, 2_000)] == [2, 1, 2]


def test_of_no_rows_there_are_no_pieces() -> None:
    empty = some.batch(some.directions(1, 8)).slice(0, 0)
    assert list(points.pieces([empty], MIB, 2_000)) == []
