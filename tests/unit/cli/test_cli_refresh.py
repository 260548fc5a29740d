"""`pointsman refresh`: asking for the source to be read now."""

from __future__ import annotations

from tests.unit.cli.bench import Bench, condition, dataset, goal

ASKED = "2031-05-01T12:00:00+00:00"


def test_asking_writes_the_time_into_the_annotation_and_nothing_else(bench: Bench) -> None:
    bench.apply(dataset())

    answer = bench.run("refresh", "papers")

    resource = bench.cluster.get("EmbeddingDataset", "default", "papers")
    assert resource is not None
    assert resource["metadata"]["annotations"] == {"pointsman.dev/refresh": ASKED}
    assert resource["metadata"]["generation"] == 1
    assert (answer.code, answer.out) == (0, "asked for a refresh of dataset papers\n")


def test_waiting_ends_when_the_operator_says_that_this_request_is_handled(bench: Bench) -> None:
    bench.apply(dataset(), {"lastHandledRefresh": "2030-01-01T00:00:00+00:00"})
    reading = {"conditions": goal("Reconciling", "Refreshing", "reading the source")}
    done = {"lastHandledRefresh": ASKED, "snapshot": 13, "documents": 7031}
    bench.clock.planned = {
        2: lambda: bench.report(dataset(), reading),
        7: lambda: bench.report(dataset(), done),
    }

    answer = bench.run("refresh", "papers", "--wait")

    assert answer.code == 0
    assert bench.clock.seconds == 7
    assert answer.lines == [
        "dataset papers  waiting for the operator to read the source",
        "dataset papers  reading the source",
        "dataset papers  refreshed: snapshot 13, 7,031 documents",
    ]


def test_a_refresh_that_is_held_ends_with_1_and_its_reason(bench: Bench) -> None:
    bench.apply(dataset(), {"conditions": goal("Ready", "UpToDate", "snapshot 12 is current")})
    message = "1,000 of 1,200 documents are gone, 20 % allowed; snapshot 12 stays current"
    bench.clock.planned = {4: lambda: bench.report(dataset(), {"conditions": goal("Stalled", "SurpriseHeld", message)})}

    answer = bench.run("refresh", "papers", "--wait")

    assert answer.code == 1
    assert answer.lines[-1] == f"dataset papers  {message}"


def test_a_stall_from_before_the_request_does_not_end_the_wait(bench: Bench) -> None:
    bench.apply(dataset(), {"conditions": [condition("Stalled", "True", "SourceInvalid", "2 rows have no id")]})
    bench.clock.planned = {6: lambda: bench.report(dataset(), {"lastHandledRefresh": ASKED, "snapshot": 13})}

    answer = bench.run("refresh", "papers", "--wait")

    assert answer.code == 0


def test_a_refresh_that_is_refused_for_the_same_reason_as_the_last_ends_with_1(bench: Bench) -> None:
    stalled = {"conditions": [condition("Stalled", "True", "SourceInvalid", "2 rows have no id")]}
    bench.apply(dataset(), stalled)
    bench.clock.planned = {6: lambda: bench.report(dataset(), {**stalled, "lastRefusedRefresh": ASKED})}

    answer = bench.run("refresh", "papers", "--wait")

    assert (answer.code, bench.clock.seconds) == (1, 6)
    assert answer.lines[-1] == "dataset papers  2 rows have no id"


def test_an_operator_that_does_not_answer_in_time_ends_with_2(bench: Bench) -> None:
    bench.apply(dataset())

    answer = bench.run("refresh", "eds/papers", "--wait", "--timeout", "30s")

    assert answer.code == 2
    assert answer.err == "not refreshed after 30s: waiting for the operator to read the source\n"


def test_a_dataset_that_is_not_there_is_an_error(bench: Bench) -> None:
    answer = bench.run("refresh", "papers")

    assert answer.code == 3
    assert answer.err.startswith("error: there is no dataset papers in namespace default")
