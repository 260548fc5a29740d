"""`pointsman explain`, `evaluate` and `drill`: evidence, and asking for more of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.unit.cli import migrations
from tests.unit.cli.bench import Bench

ASKED = "2031-05-01T12:00:00+00:00"
EVALUATIONS = [
    {"at": "2031-05-01T06:00:00Z", "version": "v7", "value": "0.6120", "recall": "0.981"},
    {
        "at": "2031-05-01T11:55:00Z",
        "version": "v8",
        "value": "0.6220",
        "against": "v7",
        "difference": "+0.0100",
        "interval": "-0.0012 to +0.0212",
        "recall": "0.993",
        "againstRecall": "0.981",
    },
]
POOLED = {**EVALUATIONS[1], "judged": "0.834", "againstJudged": "0.951"}


CANARIES = [
    {"at": "2031-05-01T06:00:00Z", "version": "v7", "found": "1.000"},
    {
        "at": "2031-05-01T11:55:00Z",
        "version": "v8",
        "found": "0.800",
        "against": "v7",
        "overlap": "0.912",
        "kept": "0.985",
    },
]
SHADOW = {
    "index": "pm_papers_v8",
    "version": "v8",
    "against": "v7",
    "since": "2031-05-01T11:00:00Z",
    "percent": 0,
    "queries": 1200,
    "overlap": "0.60",
    "correlation": "0.55",
}


def squeezed(lines: list[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


def test_verdicts_weights_and_rejections_are_shown_with_their_numbers(bench: Bench) -> None:
    migrations.put(
        bench,
        migrations.asking(rejected=[migrations.REJECTED], evaluations=EVALUATIONS, canaries=CANARIES, shadow=SHADOW),
    )

    answer = bench.run("explain", "papers")

    assert answer.code == 0
    assert squeezed(answer.lines) == [
        "papers: v7 serves, v8 is wanted, step 4/5 Approval",
        "",
        "what the gates said",
        "GATE VERSION VERDICT VALUE WANTED INTERVAL SAMPLES WHEN",
        "parity v8 Passed - - - 7,101 - all 7,101 rows are there",
        "evaluation v8 Passed +0.010 -0.02 or more -0.003 to +0.023 120 5m0s ago "
        "nDCG@10 rose by 0.010 (-0.003 to +0.023) over 120 groups; policy allows a fall of 0.02",
        "",
        "evaluations",
        "WHEN VERSION VALUE AGAINST DIFFERENCE BOUNDS RECALL",
        "6h0m ago v7 0.6120 - - - 0.981",
        "5m0s ago v8 0.6220 v7 +0.0100 -0.0012 to +0.0212 0.993 / 0.981",
        "",
        "canaries",
        "WHEN VERSION FOUND AGAINST OVERLAP KEPT",
        "6h0m ago v7 1.000 - - -",
        "5m0s ago v8 0.800 v7 0.912 0.985",
        "",
        "who was asked beside",
        "VERSION BESIDE SHARE COMPARED OVERLAP CORRELATION",
        "v8 v7 over 1,200 0.60 0.55",
        "",
        "who answers",
        "VERSION INDEX ROLE DESIRED ACCEPTED MEASURED",
        "v7 pm_papers_v7 Serving 50 50 50",
        "v8 pm_papers_v8 Candidate 50 50 50",
        "",
        "what was rejected",
        "VERSION WHEN REASON RETRY",
        "v8 10m0s ago GateFailed - nDCG@10 fell by 0.041 (-0.060 to -0.022) over 120 groups, "
        "policy allows a fall of 0.02",
    ]


def test_how_much_is_judged_stands_beside_the_number_where_that_may_explain_it(bench: Bench) -> None:
    migrations.put(bench, migrations.asking(evaluations=[EVALUATIONS[0], POOLED]))

    lines = squeezed(bench.run("explain", "papers").lines)

    assert "WHEN VERSION VALUE AGAINST DIFFERENCE BOUNDS RECALL JUDGED" in lines
    assert "6h0m ago v7 0.6120 - - - 0.981 -" in lines
    assert "5m0s ago v8 0.6220 v7 +0.0100 -0.0012 to +0.0212 0.993 / 0.981 0.834 / 0.951" in lines


def test_a_rejection_that_may_be_tried_again_says_so(bench: Bench) -> None:
    migrations.put(bench, migrations.asking(rejected=[migrations.REJECTED]), {"retry": "again"})

    assert "v8 10m0s ago GateFailed asked for nDCG@10" in " ".join(squeezed(bench.run("explain", "papers").lines))


def test_what_is_not_known_yet_is_said_to_be_so(bench: Bench) -> None:
    migrations.put(bench, {"observedGeneration": 0})

    answer = bench.run("explain", "papers")

    assert answer.lines == [
        "papers: nothing serves, v8 is wanted",
        "the operator has not seen generation 1 yet: this is about 0",
        "",
        "no gate has said anything yet",
    ]


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_the_same_as_data(bench: Bench, output: str, read: Any) -> None:
    route = {"epoch": 3, "revision": 17, "salt": "3f2a", "entries": [], "address": "db:5432/vectors"}
    migrations.put(bench, migrations.asking(rejected=[migrations.REJECTED], route=route, shadow=SHADOW))

    told = read(bench.run("explain", "papers", "-o", output).out)

    assert (told["namespace"], told["name"], told["planHash"]) == ("default", "papers", "3f2a9c")
    assert told["gates"] == [migrations.PARITY, migrations.PASSED]
    assert told["shadow"] == SHADOW
    assert told["rejected"] == [migrations.REJECTED]
    assert told["indexes"][0] == {
        "name": "pm_papers_v7",
        "version": "v7",
        "role": "Serving",
        "cursor": {"snapshot": 12, "sequence": 12},
        "weight": {"desired": 50, "accepted": 50, "measured": 50},
    }
    assert told["route"] == {"epoch": 3, "revision": 17}


def annotations(bench: Bench) -> dict[str, str]:
    found = bench.cluster.get("IndexDeployment", "default", "papers")
    assert found is not None
    return dict(found["metadata"].get("annotations", {}))


def again(bench: Bench, status: dict[str, Any]) -> None:
    about = {"kind": "IndexDeployment", "metadata": {"namespace": "default", "name": "papers"}}
    bench.report(about, {"observedGeneration": 1, **status})


FAILED = {**migrations.PASSED, "verdict": "Failed", "message": "nDCG@10 fell by 0.041"}


@pytest.mark.parametrize(
    ("gates", "code", "verdict"),
    [
        ([migrations.PASSED], 0, "Passed"),
        ([FAILED], 1, "Failed"),
        ([migrations.UNDECIDED], 3, "Inconclusive"),
        ([{**migrations.UNDECIDED, "verdict": "Error"}], 3, "Error"),
    ],
    ids=["passed", "failed", "it cannot tell", "it could not be measured"],
)
def test_an_evaluation_is_asked_for_and_its_verdict_is_the_exit_code(
    bench: Bench, gates: list[dict[str, Any]], code: int, verdict: str
) -> None:
    migrations.put(bench, migrations.asking(gates=[]))
    done = migrations.asking(gates=gates, evaluationHandled=ASKED)
    bench.clock.planned = {
        2: lambda: again(bench, migrations.asking(evaluationHandled="2030-01-01T00:00:00+00:00")),
        7: lambda: again(bench, done),
    }

    answer = bench.run("evaluate", "papers")

    assert answer.code == code
    assert bench.clock.seconds == 7
    assert annotations(bench) == {"pointsman.dev/evaluate": ASKED}
    assert answer.lines[0] == "asked for an evaluation of papers"
    assert answer.lines[2].split()[:3] == ["evaluation", "v8", verdict]


def test_where_there_is_nothing_to_compare_with_nothing_was_found_out(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted(gates=[migrations.PARITY]))
    bench.clock.planned = {
        2: lambda: again(bench, migrations.promoted(gates=[migrations.PARITY], evaluationHandled=ASKED))
    }

    answer = bench.run("evaluate", "papers")

    assert (answer.code, answer.err) == (3, "there is no other index to compare with yet\n")


def test_an_operator_that_does_not_answer_in_time_ends_with_2(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted())

    evaluated = bench.run("evaluate", "papers", "--timeout", "30s")
    drilled = bench.run("drill", "papers", "--timeout", "30s")

    assert (evaluated.code, evaluated.err) == (2, "not evaluated after 30s: the operator has not answered yet\n")
    assert (drilled.code, drilled.err) == (2, "not over after 30s: the operator has not begun yet\n")


def test_an_evaluation_without_queries_is_not_asked_for(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted(), {"gates": {}})

    answer = bench.run("evaluate", "papers")

    assert answer.code == 3
    assert answer.err == "error: spec.gates.evaluation of papers is not there: it names no queries to ask\n"
    assert annotations(bench) == {}


@pytest.mark.parametrize("command", ["evaluate", "drill"])
def test_asking_alone_does_not_wait(bench: Bench, command: str) -> None:
    migrations.put(bench, migrations.promoted())

    answer = bench.run(command, "papers", "--no-wait")

    assert (answer.code, bench.clock.seconds) == (0, 0)
    assert annotations(bench) == {f"pointsman.dev/{command}": ASKED}


@pytest.mark.parametrize("command", ["evaluate", "drill"])
def test_a_request_to_commit_is_printed_and_not_made(bench: Bench, command: str) -> None:
    migrations.put(bench, migrations.promoted())

    answer = bench.run(command, "papers", "-o", "patch")

    assert yaml.safe_load(answer.out)["metadata"]["annotations"] == {f"pointsman.dev/{command}": ASKED}
    assert annotations(bench) == {}


def drill(**more: Any) -> dict[str, Any]:
    return migrations.promoted(drill={"token": ASKED, "version": "v7", "at": "2031-05-01T12:00:01Z", **more})


DONE = "2031-05-01T12:01:00Z"


@pytest.mark.parametrize(
    ("result", "code", "said"),
    [
        pytest.param(
            {"queries": 120, "overlap": "0.71"},
            0,
            "v7 was asked 120 real queries, 0 failed; 0.71 of the documents are those that were answered",
            id="it would serve",
        ),
        pytest.param({"queries": 120, "failed": 3}, 1, "v7 was asked 120 real queries, 3 failed", id="queries failed"),
        pytest.param(
            {"message": "the operator knows no gateway that could ask it"},
            3,
            "v7 was asked no query: the operator knows no gateway that could ask it",
            id="nobody asked it",
        ),
    ],
)
def test_a_drill_reports_what_came_of_it(bench: Bench, result: dict[str, Any], code: int, said: str) -> None:
    migrations.put(bench, migrations.promoted())
    bench.clock.planned = {
        2: lambda: again(bench, drill(message="queries are awaited")),
        9: lambda: again(bench, drill(doneAt=DONE, **result)),
    }

    answer = bench.run("drill", "papers")

    assert answer.code == code
    assert answer.lines == [
        "asked papers to practise going back to v7",
        "the operator has not begun yet",
        "the drill is on: queries are awaited",
        said,
    ]


def test_a_drill_that_was_asked_for_before_is_not_the_answer(bench: Bench) -> None:
    migrations.put(bench, drill(doneAt=DONE, queries=120) | {"drill": {"token": "older", "at": DONE, "doneAt": DONE}})

    assert bench.run("drill", "papers", "--timeout", "3s").code == 2


def test_without_a_retained_index_there_is_nothing_to_practise(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted(rollback=None))

    answer = bench.run("drill", "papers")

    assert answer.code == 3
    assert answer.err == (
        "error: papers has no retained index: there is nothing to go back to, and nothing to practise\n"
    )
    assert annotations(bench) == {}
