"""`pointsman why`: one screen that says what is waited for, until when, and how to answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.cli import migrations
from tests.unit.cli.bench import Bench, condition, goal

VERIFIED = condition("TrafficVerified", "True", "RouteAccepted", "2 gateways serve v8 50, v7 50")


def test_a_person_who_is_asked_sees_what_for_and_what_happens_without_an_answer(bench: Bench) -> None:
    status = migrations.asking()
    status["conditions"].append(VERIFIED)
    migrations.put(bench, status)

    answer = bench.run("why", "papers")

    assert answer.code == 0
    assert answer.lines == [
        "papers waits (APersonIsAsked): v8 waits: an Approval that answers go-wide is awaited for 24h",
        "  since    2031-05-01 11:50:00Z, 10m0s ago",
        "  until    2031-05-02 11:50:00Z, in 23h50m; then all queries go to v7 and v8 is rejected",
        "  step     4/5 Approval",
        "  queries  v8 50, v7 50",
        "  note     2 gateways serve v8 50, v7 50",
        "  answer   pointsman approve papers go-wide",
        "  or       pointsman reject papers go-wide",
        "  or       pointsman abort papers v8",
        "  or       pointsman rollback papers",
    ]


def test_a_person_who_is_asked_sees_how_alike_the_answers_beside_were(bench: Bench) -> None:
    shadow = {"index": "pm_papers_v8", "version": "v8", "against": "v7", "since": "2031-05-01T11:00:00Z"}
    compared = {"queries": 1_200, "overlap": "0.60", "correlation": "0.55"}
    line = "  note     1,200 answers of v8 were compared with v7's: overlap 0.60, correlation 0.55"

    for found, is_said in ({**shadow, **compared}, True), (shadow, False):
        migrations.put(bench, migrations.asking(shadow=found))

        assert (line in bench.run("why", "papers").lines) is is_said


def test_an_evaluation_that_cannot_decide_is_answered_by_judging_where_answers_are_unjudged(bench: Bench) -> None:
    measured = {"at": "2031-05-01T11:55:00Z", "version": "v8", "value": "0.6220"}

    def told(judged: str) -> list[str]:
        migrations.put(bench, migrations.undecided(evaluations=[{**measured, "judged": judged}]))
        lines = bench.run("why", "papers").lines
        return [line.split("pointsman ")[1] for line in lines if "pointsman " in line]

    assert told("0.834")[:2] == ["explain papers", "judge papers"]
    # Whole, or of a kind of judgements that has no holes.
    assert "judge papers" not in [*told("1.000"), *told("")]


def test_at_rest_nothing_is_waited_for_and_the_way_back_is_named(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted())

    answer = bench.run("why", "papers")

    assert answer.lines == [
        "papers waits for nothing (UpToDate): serving v8@12",
        "  since    2031-05-01 11:00:00Z, 1h0m ago",
        "  queries  v8 100",
        "  note     going back to v7 is one switch until 2031-05-15 12:00:00Z",
    ]


def test_commands_name_the_namespace_that_was_asked_for(bench: Bench) -> None:
    migrations.put(bench, migrations.asking(), meta={"namespace": "search"})

    answer = bench.run("why", "papers", "-n", "search")

    assert answer.lines[5] == "  answer   pointsman approve papers go-wide -n search"


def stalled(reason: str, message: str, **more: Any) -> dict[str, Any]:
    return {"servingVersion": "v7", "conditions": goal("Stalled", reason, message), **more}


def going(reason: str, message: str, number: int = 2, name: str = "Weight", **step: Any) -> dict[str, Any]:
    return migrations.between(number, name, reason, message, step=step)


SILENT = "gateway 10.0.0.7 did not answer within 2s"
NONE_KNOWN = "steps shift queries at gateways, and the operator knows none; set POINTSMAN_GATEWAYS, or no steps"
LAG = "v7@12 is 3m behind, spec.maxLag is 5s; it catches up as soon as its snapshot is embedded"
DEADLINE = {"deadline": "2031-05-01T13:50:00Z"}
BACK = "all queries go to v7 and v8 is rejected"
HELD = migrations.between(2, "Weight", "Held", "nDCG@10 fell", gates=[{**migrations.PASSED, "verdict": "Failed"}])
BURNING = {
    "conditions": goal("Ready", "BurningIn", "serving v8@12, burning in for 24h"),
    "step": {"name": "BurnIn", "startedAt": "2031-05-01T11:30:00Z", "until": "2031-05-02T11:30:00Z"},
}
OVER = {"rollback": {"ready": True, "to": "v7", "until": "2031-05-01T11:00:00Z"}}


@pytest.mark.parametrize(
    ("status", "spec", "until", "answers"),
    [
        pytest.param(
            stalled("TargetRejected", "serving v7 normally; v8 rejected: nDCG@10 fell", rejected=[migrations.REJECTED]),
            {},
            "",
            ["explain papers", "retry papers", "rollback papers"],
            id="rejected",
        ),
        pytest.param(
            stalled("TargetAborted", "Approval off keeps queries off v8"),
            {},
            "",
            ["abort papers v8 --withdraw", "rollback papers"],
            id="aborted",
        ),
        pytest.param(
            HELD,
            {},
            "",
            ["approve papers evaluation", "reject papers evaluation", "abort papers v8", "rollback papers"],
            id="held by a gate that failed",
        ),
        pytest.param(
            going("RouteNotAccepted", SILENT, **DEADLINE),
            {},
            f"2031-05-01 13:50:00Z, in 1h50m; then {BACK}",
            ["abort papers v8", "rollback papers"],
            id="a gateway is silent",
        ),
        pytest.param(
            going("NoGateway", NONE_KNOWN, 0, "Gates", **DEADLINE),
            {"strategy": {"steps": migrations.STEPS, "onFailure": "Hold"}},
            "2031-05-01 13:50:00Z, in 1h50m; then it is held as it is",
            ["abort papers v8", "rollback papers"],
            id="no gateway",
        ),
        pytest.param(
            migrations.between(3, "Pause", "Paused", "paused for 10m", step={"until": "2031-05-01T12:04:00Z"}),
            {},
            "2031-05-01 12:04:00Z, in 4m0s; then it goes on by itself",
            ["approve papers settle", "abort papers v8", "rollback papers"],
            id="a pause that ends by itself",
        ),
        pytest.param(
            migrations.endless(**DEADLINE),
            {},
            "2031-05-01 13:50:00Z, in 1h50m; then it is held as it is",
            ["approve papers settle", "reject papers settle", "abort papers v8", "rollback papers"],
            id="a pause that nobody ends",
        ),
        pytest.param(
            going("Suspended", "suspended by the spec before v8"),
            {"suspend": True},
            "",
            ["resume papers", "rollback papers"],
            id="suspended",
        ),
        pytest.param(
            stalled("Following", LAG, indexes=[migrations.index("v8", "Retained", 11)])
            | {"conditions": goal("Reconciling", "Following", LAG)},
            {},
            "",
            ["accept-lag papers v8", "rollback papers"],
            id="an index that is behind",
        ),
        pytest.param(
            migrations.promoted(**BURNING),
            {},
            "2031-05-02 11:30:00Z, in 23h30m; then v8 has proven itself",
            [],
            id="burning in",
        ),
        pytest.param(
            migrations.promoted(conditions=goal("Ready", "GateFailed", "serving v8@12, which is worse: nDCG@10 fell")),
            {},
            "",
            ["explain papers", "rollback papers"],
            id="what serves is worse",
        ),
        pytest.param(
            migrations.promoted(**OVER),
            {"retire": {"mode": "Supervised"}},
            "",
            ["approve papers retire"],
            id="a removal that asks",
        ),
    ],
)
def test_how_to_answer_is_a_command(
    bench: Bench, status: dict[str, Any], spec: dict[str, Any], until: str, answers: list[str]
) -> None:
    migrations.put(bench, status, spec)

    answer = bench.run("why", "papers")

    told = [(line[2:11].strip(), line[11:]) for line in answer.lines[1:]]
    assert answer.code == 0
    assert [text for label, text in told if label in ("answer", "or")] == [f"pointsman {each}" for each in answers]
    assert next((text for label, text in told if label == "until"), "") == until


def test_a_gate_that_is_undecided_says_what_it_lacks(bench: Bench) -> None:
    migrations.put(bench, migrations.undecided())

    answer = bench.run("why", "papers")

    assert answer.lines[0] == (
        "papers waits (GatesUndecided): v8 waits: evaluation: not measured yet; "
        "nDCG@10 needs 50 groups of judged queries or more, the set has 12"
    )
    assert answer.lines[-5:] == [
        "  answer   pointsman explain papers",
        "  or       pointsman approve papers evaluation",
        "  or       pointsman reject papers evaluation",
        "  or       pointsman abort papers v8",
        "  or       pointsman rollback papers",
    ]


@pytest.mark.parametrize(
    ("groups", "note"),
    [
        (12, ["  note     papers-eval has 12 groups of judged queries, 619 detect a fall of 0.02: 607 lack"]),
        (619, []),
    ],
    ids=["too few", "enough"],
)
def test_how_many_judged_queries_are_lacking_is_counted(bench: Bench, groups: int, note: list[str]) -> None:
    migrations.put(bench, migrations.undecided())
    meta = {"namespace": "default", "name": "papers-eval"}
    bench.apply({"kind": "QuerySet", "metadata": meta, "spec": {}}, {"groups": groups})

    assert [line for line in bench.run("why", "papers").lines if "groups of judged queries," in line] == note


def test_a_gate_that_could_not_be_measured_is_told_beside_the_one_that_is_waited_for(bench: Bench) -> None:
    canaries = {"name": "canaries", "verdict": "Error", "version": "v8", "message": "QuerySet smoke is not there"}
    migrations.put(bench, migrations.undecided() | {"gates": [migrations.UNDECIDED, canaries]})

    answer = bench.run("why", "papers")

    assert "  note     canaries: QuerySet smoke is not there" in answer.lines


def test_a_deadline_that_has_passed_is_overdue(bench: Bench) -> None:
    migrations.put(bench, going("RouteNotAccepted", SILENT, deadline="2031-05-01T11:59:00Z"))

    answer = bench.run("why", "papers")

    assert f"  until    2031-05-01 11:59:00Z, overdue; then {BACK}" in answer.lines


def test_a_version_that_nothing_guards_is_said(bench: Bench) -> None:
    status = migrations.asking()
    status["conditions"].append(condition("Unguarded", "True", "NoEvaluationGate", "there is no evaluation gate"))
    migrations.put(bench, status)

    assert "  note     no gate evaluates answers: a worse version would go through" in bench.run("why", "papers").lines


@pytest.mark.parametrize("status", [{}, migrations.asking(observedGeneration=0)], ids=["never seen", "edited since"])
def test_what_the_operator_has_not_seen_is_not_explained_by_what_it_said_before(
    bench: Bench, status: dict[str, Any]
) -> None:
    migrations.put(bench, {"observedGeneration": 0, **status})

    answer = bench.run("why", "papers")

    assert answer.lines == [
        "papers waits (NotObserved): the operator has seen generation 0, not 1 yet",
        "  note     see that the operator runs",
    ]


def test_a_deployment_that_is_being_deleted_waits_for_that(bench: Bench) -> None:
    status = migrations.promoted(conditions=goal("Reconciling", "Deleting", "removing 2 indexes"))
    migrations.put(bench, status, meta={"deletionTimestamp": "2031-05-01T11:59:00Z"})

    assert bench.run("why", "papers").lines == ["papers waits (Deleting): removing 2 indexes"]


def test_the_same_as_data(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("why", "idx/papers", "-o", "json")

    assert json.loads(answer.out) == {
        "namespace": "default",
        "name": "papers",
        "waits": True,
        "reason": "APersonIsAsked",
        "message": "v8 waits: an Approval that answers go-wide is awaited for 24h",
        "since": "2031-05-01T11:50:00+00:00",
        "until": "2031-05-02T11:50:00+00:00",
        "then": "all queries go to v7 and v8 is rejected",
        "step": "4/5 Approval",
        "weight": "v8 50, v7 50",
        "notes": [],
        "answers": [
            "pointsman approve papers go-wide",
            "pointsman reject papers go-wide",
            "pointsman abort papers v8",
            "pointsman rollback papers",
        ],
    }


def test_a_spec_of_another_release_is_an_error_not_a_traceback(bench: Bench) -> None:
    migrations.put(bench, migrations.asking(), {"strategy": {"steps": [{"teleport": 100}]}})

    answer = bench.run("why", "papers")

    assert answer.code == 3
    assert answer.err == (
        "error: spec.strategy.steps.0 of papers is not as this release knows it; use the operator's own pointsman\n"
    )
