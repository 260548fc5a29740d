"""The demo's own counts can fail: a session that flaps, a share that moves and a late answer are seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from examples.stdlib import answered
from examples.stdlib.answered import Answer, Edit

EDITS = [Edit(0.0, "v7", -1), Edit(10.0, "v8", 1), Edit(20.0, "v7", 3)]


def answers(*found: tuple[int, str], session: str = "a") -> list[Answer]:
    """One answer for each route and version, a second apart."""
    return [
        Answer(session, float(n), n + 0.1, True, version, (1, revision)) for n, (revision, version) in enumerate(found)
    ]


FLAPS: dict[str, tuple[list[Answer], int]] = {
    "it stays": (answers((1, "v7"), (1, "v7")), 0),
    "forward once, and back once after the edit back": (answers((1, "v7"), (2, "v7"), (3, "v8"), (4, "v7")), 0),
    "an edit is slept through": (answers((1, "v7"), (4, "v7")), 0),
    "to and fro under one edit": (answers((1, "v7"), (2, "v8"), (3, "v7")), 1),
    "two versions under one route": (answers((2, "v7"), (2, "v8")), 1),
}


@pytest.mark.parametrize(("given", "wanted"), FLAPS.values(), ids=FLAPS.keys())
def test_a_session_that_moves_more_than_once_per_edit_is_counted(given: list[Answer], wanted: int) -> None:
    assert answered.flaps(given, EDITS) == wanted


def test_the_last_answer_of_a_version_after_an_edit_is_timed() -> None:
    given = answers((1, "v7"), (2, "v8"), (2, "v8"), (4, "v7"))

    assert answered.seconds_until_gone(given, "v8", 1.5) == pytest.approx(0.6)
    assert answered.seconds_until_gone(given, "v8", 3.0) == 0.0


def test_shares_are_told_where_they_change() -> None:
    given = answers((1, "v7"), (1, "v7"), (1, "v7"), (1, "v7"), (2, "v8"), (2, "v7"))

    assert answered.shares(given) == [{"seconds": 0.0, "v7": 100.0}, {"seconds": 4.0, "v7": 50.0, "v8": 50.0}]


@pytest.mark.parametrize(("dimensions", "wrong"), [(64, 0), (256, 1)], ids=["the right model", "another model"])
def test_an_answer_of_another_model_is_found_out(tmp_path: Path, dimensions: int, wrong: int) -> None:
    from pointsman.embedders.wordllama import Wordllama

    query, document = {"id": "q", "text": "set the points"}, {"id": "d", "name": "points", "text": "a railway switch"}
    asked, found = Wordllama(64).embed([query["text"], "points. a railway switch"])
    answer = {"status": 200, "query": "q", "version": "v7", "hits": [["d", float(asked @ found)]]}
    for name, row in (("log", answer), ("queries", query), ("documents", document)):
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    models = json.dumps({"v7": {"dimensions": dimensions, "template": "{name}. {text}"}})

    counts = recheck(tmp_path / "log", tmp_path / "queries", models, tmp_path / "documents")

    assert counts == {"answers": 1, "scores": 1, "mispaired": wrong}


def recheck(*arguments: object) -> dict[str, Any]:
    script = Path(answered.__file__).with_name("recheck.py")
    command = [sys.executable, str(script), *map(str, arguments)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found
