"""How many rows are fetched at once."""

import pytest

from pointsman.core import portions


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [
        pytest.param(16, 16 * 100, 64, id="short rows: four times as many"),
        pytest.param(400, 400 * 100, 500, id="never more than there may be"),
        pytest.param(16, 16 * 2**20, 8, id="rows of a megabyte: eight"),
        pytest.param(16, 16 * 16 * 2**20, 1, id="rows longer than a portion: one at a time"),
        pytest.param(1, 16 * 2**20, 1, id="never none"),
        pytest.param(16, 0, 64, id="rows of nothing"),
        pytest.param(0, 0, 1, id="no rows at all"),
    ],
)
def test_the_next_portion_follows_the_last_one(rows: int, size: int, expected: int) -> None:
    assert portions.next_rows(rows, size, 500) == expected
