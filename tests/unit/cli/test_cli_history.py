"""`pointsman history`: what was when."""

from __future__ import annotations

from tests.unit.cli.bench import Bench, dataset, deployment


def test_a_deployment_shows_what_served_when_and_for_how_long(bench: Bench) -> None:
    history = [
        {"version": "v7", "index": "pm_1", "snapshot": 11, "at": "2031-05-01T09:00:00Z"},
        {"version": "v8", "index": "pm_2", "snapshot": 12, "at": "2031-05-01T10:30:00Z"},
        {"version": "v7", "index": "pm_1", "snapshot": 12, "at": "2031-05-01T10:30:05Z"},
    ]
    bench.apply(deployment(), {"history": history})

    answer = bench.run("history", "papers")

    assert answer.code == 0
    assert [line.split("  ") for line in (" ".join(row) for row in map(str.split, answer.lines))] == [
        ["SINCE SERVED FOR INDEX"],
        ["2031-05-01 09:00:00Z v7@11 1h30m pm_1"],
        ["2031-05-01 10:30:00Z v8@12 5s pm_2"],
        ["2031-05-01 10:30:05Z v7@12 now pm_1"],
    ]


def test_a_deployment_that_never_served_says_so(bench: Bench) -> None:
    bench.apply(deployment())

    assert bench.run("history", "idx/papers").out == "nothing has served yet\n"


def test_a_dataset_shows_its_snapshots_and_what_they_are_embedded_as(stored: Bench) -> None:
    stored.apply(dataset())

    answer = stored.run("history", "papers")

    assert [" ".join(line.split()) for line in answer.lines] == [
        "SNAPSHOT AT DOCUMENTS ADDED DELETED EDITED UNCHANGED EMBEDDED AS",
        "1 2031-05-01 12:00:00Z 3 3 0 0 0 v7",
        "2 2031-05-01 12:05:00Z 3 1 1 1 1 v7, v8",
    ]


def test_a_dataset_that_is_named_as_one_needs_no_cluster(stored: Bench) -> None:
    answer = stored.run("history", "eds/papers")

    assert answer.code == 0
    assert stored.connected == []


def test_a_name_that_neither_has_is_an_error(bench: Bench) -> None:
    answer = bench.run("history", "papers")

    assert answer.code == 3
    assert answer.err.startswith("error: there is no deployment or dataset papers in namespace default")
