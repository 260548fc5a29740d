"""`pointsman diff`: what changed, counted by cause."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.bench import Bench

from pointsman.cli import points
from pointsman.cli.points import Point
from pointsman.errors import Terminal


def test_two_snapshots_of_a_version_differ_by_what_became_of_each_document(stored: Bench) -> None:
    answer = stored.run("diff", "papers", "v7@1", "v7@2")

    assert answer.code == 0
    assert [line.split() for line in answer.lines] == [
        ["v7@1", "->", "v7@2", "DOCUMENTS"],
        ["added", "1"],
        ["deleted", "1"],
        ["edited", "1"],
        ["metadataOnly", "0"],
        ["rechunked", "0"],
        ["reEmbedded", "0"],
        ["unchanged", "1"],
    ]


def test_a_version_without_a_snapshot_is_its_newest(stored: Bench) -> None:
    answer = stored.run("diff", "papers", "v7", "v8", "-o", "json")

    assert json.loads(answer.out) == {
        "dataset": "papers",
        "from": "v7@2",
        "to": "v8@2",
        "changes": {
            "added": 0,
            "deleted": 0,
            "edited": 0,
            "metadataOnly": 0,
            "rechunked": 0,
            "reEmbedded": 3,
            "unchanged": 0,
        },
    }


@pytest.mark.parametrize(("old", "new"), [("1", "2"), ("@1", "@2")], ids=["bare numbers", "numbers with an at sign"])
def test_two_snapshots_without_a_version_are_compared_by_content(stored: Bench, old: str, new: str) -> None:
    answer = stored.run("diff", "papers", old, new, "--output=json")

    told = json.loads(answer.out)
    assert (told["from"], told["to"]) == ("@1", "@2")
    assert told["changes"] == {"added": 1, "deleted": 1, "edited": 1, "unchanged": 1}


@pytest.mark.parametrize(
    ("cause", "listed"),
    [("added", "d\n"), ("deleted", "c\n"), ("EDITED", "b\n"), ("re-embedded", "")],
)
def test_the_ids_of_one_cause_are_listed_one_a_line(stored: Bench, cause: str, listed: str) -> None:
    answer = stored.run("diff", "papers", "v7@1", "v7@2", "--ids", cause)

    assert (answer.code, answer.out) == (0, listed)


def test_as_json_the_ids_stand_beside_the_counts(stored: Bench) -> None:
    answer = stored.run("diff", "papers", "@1", "@2", "--ids", "deleted", "-o", "json")

    assert json.loads(answer.out)["ids"] == {"deleted": ["c"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("v7@3", "v7@2"), "version v7 of papers is not embedded at snapshot 3, only at 1-2"),
        (("v9", "v7"), "dataset papers has no version v9, only v7, v8"),
        (("@9", "@1"), "dataset papers has no snapshot 9, only 1-2"),
        (("v7@1", "@2"), "v7@1 and @2 cannot be compared; wanted two versions or two snapshots"),
        (("V7", "v8"), "'V7' is not a point; wanted v7@12, v7 or @12"),
        (("v7", "v8", "--ids", "moved"), "moved is no cause of a change; wanted added, deleted, edited, metadataOnly,"),
        (("1", "2", "--ids", "unchanged"), "two snapshots are compared without unchanged; wanted added, deleted or"),
    ],
    ids=[
        "a snapshot that is not embedded",
        "a version that was never pinned",
        "a snapshot that is not there",
        "a version and a snapshot",
        "a word",
        "a cause that does not exist",
        "a cause that snapshots do not have",
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_could_be(
    stored: Bench, arguments: tuple[str, ...], message: str
) -> None:
    answer = stored.run("diff", "papers", *arguments)

    assert answer.code == 3
    assert answer.err.startswith(f"error: {message}")


def test_a_dataset_that_the_store_does_not_know_is_an_error(stored: Bench) -> None:
    answer = stored.run("diff", "papers", "v7", "v8", "-n", "search")

    assert answer.code == 3
    assert answer.err == (
        "error: the store has nothing of dataset papers; check --namespace and --store or POINTSMAN_STORE\n"
    )


def test_a_store_that_is_not_there_is_an_error_and_is_not_made(bench: Bench, tmp_path: Path) -> None:
    answer = bench.run("diff", "papers", "v7", "v8", "--store", str(tmp_path / "nowhere"))

    assert answer.code == 3
    assert answer.err == f"error: there is no store at {tmp_path}/nowhere; set --store or POINTSMAN_STORE\n"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("v7@12", Point("v7", 12)),
        ("v7", Point("v7", None)),
        ("12", Point(None, 12)),
        ("@12", Point(None, 12)),
        ("7@12", Point("7", 12)),
    ],
)
def test_points_are_read_as_people_write_them(text: str, point: Point) -> None:
    assert points.parse(text) == point


@pytest.mark.parametrize("text", ["", "@", "v7@", "v7@0", "@0", "v7@x", "-v7", "v7@1@2", "v7 @1"])
def test_anything_else_is_no_point(text: str) -> None:
    with pytest.raises(Terminal):
        points.parse(text)


def test_numbers_are_written_as_ranges() -> None:
    assert points.ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
