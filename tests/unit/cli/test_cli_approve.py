"""`pointsman approve` and `pointsman reject`: answering what is asked, and only that."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.unit.cli import migrations
from tests.unit.cli.bench import Bench, condition, goal

from pointsman.api import approval

MADE = "papers-go-wide-20310501-120000"


def test_without_a_name_what_is_asked_now_is_approved_for_this_plan_alone(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("approve", "papers", "--comment", "numbers look good")

    assert answer.code == 0
    assert answer.lines == [f"approved go-wide of papers for v8: Approval {MADE} counts for 24h, for this plan alone"]
    assert migrations.approvals(bench) == {
        MADE: {
            "target": {"kind": "IndexDeployment", "name": "papers"},
            "decision": "Approve",
            "answers": "go-wide",
            "version": "v8",
            "planHash": "3f2a9c",
            "expiresAt": "2031-05-02T12:00:00Z",
            "approvedBy": "ana",
            "comment": "numbers look good",
        }
    }


def test_what_is_created_is_what_the_types_admit(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    bench.run("approve", "papers", "--expires", "1h30m")

    (spec,) = migrations.approvals(bench).values()
    assert approval.Spec.model_validate(spec).expires_at.isoformat() == "2031-05-01T13:30:00+00:00"


def test_rejecting_says_where_the_queries_go(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("reject", "papers", "go-wide")

    assert answer.code == 0
    assert answer.lines == [
        f"rejected v8 of papers at go-wide; all queries go to v7: Approval {MADE} counts for 24h, for this plan alone"
    ]
    assert [spec["decision"] for spec in migrations.approvals(bench).values()] == ["Reject"]


def test_a_patch_is_the_object_to_commit_and_nothing_is_created(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("approve", "papers", "-o", "patch")

    assert answer.code == 0
    assert answer.out == (
        "---\n"
        "apiVersion: pointsman.dev/v1alpha1\n"
        "kind: Approval\n"
        "metadata:\n"
        f"  name: {MADE}\n"
        "  namespace: default\n"
        "spec:\n"
        "  target:\n"
        "    kind: IndexDeployment\n"
        "    name: papers\n"
        "  decision: Approve\n"
        "  version: v8\n"
        "  expiresAt: '2031-05-02T12:00:00Z'\n"
        "  answers: go-wide\n"
        "  planHash: 3f2a9c\n"
    )
    assert yaml.safe_load(answer.out)["spec"]["expiresAt"] == "2031-05-02T12:00:00Z"
    assert migrations.approvals(bench) == {}


def held(*gates: dict[str, Any]) -> dict[str, Any]:
    message = "step 2 took longer than it may: gateway a serves route 3, wanted 4"
    return migrations.between(2, "Weight", "Held", message, gates=list(gates))


PAUSED = migrations.between(3, "Pause", "Paused", "paused for 10m")
FAILED = {**migrations.PASSED, "verdict": "Failed"}
CANARIES = {
    "name": "canaries",
    "verdict": "Inconclusive",
    "version": "v8",
    "message": "the canaries were not asked yet",
}
ONE_OF_TWO = migrations.undecided() | {"gates": [CANARIES, migrations.UNDECIDED]}
TOLD = migrations.undecided(step={"asks": ["canaries"]}) | {"gates": [CANARIES, migrations.UNDECIDED]}
ENDLESS = migrations.endless()
KEPT = migrations.promoted(rollback={"ready": True, "to": "v7", "until": "2031-05-01T11:00:00Z"})
SUPERVISED = {"retire": {"mode": "Supervised"}}


@pytest.mark.parametrize(
    ("status", "spec", "name", "answered"),
    [
        pytest.param(migrations.undecided(), {}, None, "evaluation", id="a gate that cannot decide"),
        pytest.param(held(FAILED, CANARIES), {}, None, "evaluation", id="what failed is what holds it"),
        pytest.param(held(), {}, None, "deadline", id="a step that took too long"),
        pytest.param(ONE_OF_TWO, {}, None, "evaluation", id="the gate that keeps it waiting"),
        pytest.param(TOLD, {}, None, "canaries", id="of two what the operator says"),
        pytest.param(ENDLESS, {}, None, "settle", id="a pause that somebody has to end"),
        pytest.param(PAUSED, {}, "settle", "settle", id="a pause that would end by itself"),
        pytest.param(
            migrations.asking(gates=[migrations.UNDECIDED]), {}, "evaluation", "evaluation", id="a gate, early"
        ),
        pytest.param(KEPT, SUPERVISED, None, "retire", id="the removal of an index whose time is over"),
    ],
)
def test_whatever_asks_can_be_answered(
    bench: Bench, status: dict[str, Any], spec: dict[str, Any], name: str | None, answered: str
) -> None:
    migrations.put(bench, status, spec)

    answer = bench.run("approve", "papers", *([name] if name else []))

    assert (answer.code, answer.err) == (0, "")
    assert [found["answers"] for found in migrations.approvals(bench).values()] == [answered]


TWO = migrations.undecided(step={"waitingFor": "the gates"}) | {"gates": [CANARIES, migrations.UNDECIDED]}


@pytest.mark.parametrize("decision", ["approve", "reject"])
@pytest.mark.parametrize(
    ("status", "name", "error"),
    [
        pytest.param(
            migrations.promoted(),
            None,
            "papers asks nothing now: serving v8@12",
            id="nothing is asked at rest",
        ),
        pytest.param(
            PAUSED,
            None,
            "papers asks nothing now; what may be answered: settle",
            id="a pause that ends by itself is answered by its name alone",
        ),
        pytest.param(
            PAUSED,
            "go-wide",
            "papers does not ask go-wide now; what may be answered: settle",
            id="a step that is not reached yet",
        ),
        pytest.param(
            migrations.asking(),
            "go-home",
            "papers has no step or gate go-home, only settle, go-wide, parity, evaluation, deadline, retire",
            id="a name that there is not",
        ),
        pytest.param(
            TWO, None, "papers asks 2 things; say which: canaries, evaluation", id="more than one thing is asked"
        ),
        pytest.param(KEPT, "retire", "papers does not ask retire now", id="a removal that asks nobody"),
    ],
)
def test_what_is_not_asked_is_not_answered(
    bench: Bench, decision: str, status: dict[str, Any], name: str | None, error: str
) -> None:
    migrations.put(bench, status)

    answer = bench.run(decision, "papers", *([name] if name else []))

    assert answer.code == 3
    assert answer.err.startswith(f"error: {error}")
    assert migrations.approvals(bench) == {}


def test_rejecting_where_nothing_is_asked_names_the_way_that_needs_no_question(bench: Bench) -> None:
    migrations.put(bench, PAUSED)

    answer = bench.run("reject", "papers")

    assert answer.err == (
        "error: papers asks nothing now; what may be answered: settle; to keep queries off v8: pointsman abort papers\n"
    )


def test_a_removal_is_approved_or_left_alone(bench: Bench) -> None:
    migrations.put(bench, KEPT, SUPERVISED)

    answer = bench.run("reject", "papers", "retire")

    assert answer.code == 3
    assert answer.err == ("error: retire is answered by approving it, or not at all: the index is kept until then\n")


def test_a_plan_that_the_operator_has_not_seen_cannot_be_answered(bench: Bench) -> None:
    migrations.put(bench, migrations.asking() | {"observedGeneration": 0})

    answer = bench.run("approve", "papers")

    assert answer.code == 3
    assert answer.err == (
        "error: the operator has seen generation 0 of papers, not 1 yet; see that it runs, and ask again\n"
    )


def test_asking_twice_leaves_no_second_approval_behind(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())
    bench.run("approve", "papers")
    bench.clock.seconds = 5

    answer = bench.run("approve", "papers")

    assert answer.code == 0
    assert answer.lines == [f"Approval {MADE} answers go-wide already; the operator is yet to take it"]
    assert list(migrations.approvals(bench)) == [MADE]


@pytest.mark.parametrize(
    "old",
    [
        pytest.param({"made": "2031-05-01T11:40:00Z"}, id="made before the step began: it answered another question"),
        pytest.param({"planHash": "another"}, id="for another plan"),
        pytest.param({"expiresAt": "2031-05-01T11:59:00Z"}, id="expired"),
        pytest.param({"answers": "settle"}, id="of another name"),
    ],
)
def test_an_approval_of_something_else_is_no_answer(bench: Bench, old: dict[str, Any]) -> None:
    migrations.put(bench, migrations.asking())
    whole = {"decision": "Approve", "answers": "go-wide", "planHash": migrations.PLAN, **old}
    migrations.decide(bench, "earlier", **whole)

    bench.run("approve", "papers")

    assert sorted(migrations.approvals(bench)) == ["earlier", MADE]


def test_one_that_does_not_count_is_no_answer_either(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())
    migrations.decide(bench, "earlier", decision="Approve", answers="go-wide", planHash=migrations.PLAN)
    about = {"kind": "Approval", "metadata": {"namespace": "default", "name": "earlier"}}
    bench.report(about, {"conditions": goal("Stalled", "DoesNotCount", "it was used; what asks again needs another")})

    bench.run("approve", "papers")

    assert sorted(migrations.approvals(bench)) == ["earlier", MADE]


def test_a_decision_that_lasts_no_time_is_refused(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("approve", "papers", "--expires", "0s")

    assert answer.code == 3
    assert answer.err == "error: a decision that counts for 0s decides nothing; wanted 1s or more\n"


def test_a_comment_that_is_too_long_is_refused_without_being_repeated(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("approve", "papers", "--comment", "w" * 2000)

    assert answer.code == 3
    assert answer.err.startswith("error: comment is not allowed: String should have at most 1024 characters")
    assert "www" not in answer.err


def test_a_step_that_was_held_is_asked_again(bench: Bench) -> None:
    message = "an Approval that answers go-wide is awaited for 24h, and nobody did"
    status = migrations.between(4, "Approval", "Held", message)
    status["conditions"][-1] = condition("AwaitingApproval", "True", "Held", message)
    migrations.put(bench, status)

    answer = bench.run("approve", "papers")

    assert answer.code == 0
    assert list(migrations.approvals(bench)) == [MADE]
