"""How many rows to fetch at once, when nobody knows how long they are before they are there?"""

from __future__ import annotations

FIRST_ROWS = 16
"""Rows of the first portion: few enough for any length of row."""
MOST_BYTES = 8 * 2**20
"""Bytes that a portion should have at most."""
_GROWTH = 4


def next_rows(rows: int, size: int, most: int) -> int:
    """Return how many rows, of `most`, to fetch after so many rows had `size` bytes."""
    return max(1, min(most, _GROWTH * rows, MOST_BYTES * rows // max(1, size)))
