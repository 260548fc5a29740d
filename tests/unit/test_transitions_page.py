"""The page of transitions names for each line a test at the planner and one on a real API server; they are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "transitions.md").read_text()
LAYERS = {"plan": "decided", "integration": "on a real API server"}


def rows() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each line of the page's tables: what it is about, and its cells by their columns."""
    for table in re.findall(r"((?:^\|.*\|$\n)+)", PAGE, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
        for cells in lines[2:]:
            yield cells[0], dict(zip(lines[0], cells, strict=True))


@pytest.mark.parametrize(("line", "cells"), list(rows()), ids=[line for line, _ in rows()])
def test_each_line_names_tests_that_are_there(line: str, cells: dict[str, str]) -> None:
    for layer, column in LAYERS.items():
        if column not in cells:
            continue
        named = re.findall(r"`(\w+\.py)::(\w+)`", cells[column])
        assert named, f"nothing shows {line!r} {column}"
        for file, test in named:
            assert re.search(rf"^def {test}\(", (TESTS / layer / file).read_text(), re.MULTILINE), f"{file}::{test}"


def test_what_is_named_beside_the_tables_is_there_too() -> None:
    for file, test in re.findall(r"`(\w+\.py)::(\w+)`", PAGE):
        assert any(f"def {test}(" in path.read_text() for path in TESTS.rglob(file)), f"{file}::{test}"
