"""What the commands read is what the planner says, and what they write is what the planner takes.

A small world is led to each kind of wait by real plans; the commands see its status, and what they decide or edit goes
back into it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.fleet import FakeGateway
from tests.plan.model import Model
from tests.unit.cli import bench as benches
from tests.unit.cli.bench import Answer, Bench

from pointsman.api import approval
from pointsman.plan.observed import Approval

MINUTE = timedelta(minutes=1)


def world(**spec: Any) -> Model:
    """Two gateways, and v7 that serves while v8 is wanted."""
    defaults = {"version": "v7", "strategy": {"steps": fleet.ROAD}, "gates": fleet.EVALUATED, "burnIn": fleet.BURN_IN}
    model = Model(gateways=[FakeGateway("g1"), FakeGateway("g2")], spec={**defaults, **spec})
    model.settle()
    model.edit(version="v8")
    return model


def shadowing() -> Model:
    model = world()
    model.settle()
    return model


def asking() -> Model:
    model = shadowing()
    model.live(14 * MINUTE)
    return model


def undecided() -> Model:
    model = world()
    model.verdicts["v8"] = fleet.UNDECIDED
    model.settle()
    model.live(4 * MINUTE)
    return model


def held() -> Model:
    model = world(strategy={"steps": fleet.ROAD, "onFailure": "Hold"})
    model.verdicts["v8"] = fleet.FAILS
    model.settle()
    model.live(4 * MINUTE)
    return model


def held_by_a_deadline() -> Model:
    model = world(strategy={"steps": fleet.ROAD, "onFailure": "Hold", "progressDeadline": "1h"})
    model.settle()
    model.live(3 * MINUTE)
    model.live(10 * MINUTE)
    model.gateways[0].is_late = True
    model.decide(answers="go-wide")
    model.live(2 * b.HOUR)
    model.gateways[0].is_late = False
    return model


def paused() -> Model:
    steps = [{"weight": 10}, {"pause": {"name": "settle"}}, {"weight": 100}]
    model = world(strategy={"steps": steps})
    model.settle()
    model.live(2 * MINUTE)
    return model


def rejected() -> Model:
    model = world()
    model.verdicts["v8"] = fleet.FAILS
    model.settle()
    model.live(4 * MINUTE)
    return model


def promoted() -> Model:
    model = asking()
    model.decide(answers="go-wide")
    model.settle()
    return model


def run(bench: Bench, model: Model, *arguments: str) -> Answer:
    """Run a command in the world as it is, and let what it wrote come back into it."""
    known = {each["metadata"]["name"] for each in bench.cluster.list("Approval", "default")}
    resource = benches.deployment()
    wanted = b.spec(model.spec["version"], **{k: v for k, v in model.spec.items() if k != "version"})
    resource["spec"] = wanted.dump()
    bench.apply(resource)
    found = bench.cluster.get("IndexDeployment", "default", "papers")
    assert found is not None
    seen = {"observedGeneration": found["metadata"]["generation"]}
    bench.report(resource, model.status.dump() | seen)
    bench.clock.seconds = (model.now - benches.NOON).total_seconds()

    answer = bench.run(*arguments)

    after = bench.cluster.get("IndexDeployment", "default", "papers")
    assert after is not None
    changes = {k: v for k, v in after["spec"].items() if v != resource["spec"].get(k)}
    if changes:
        model.edit(**changes)
    for each in bench.cluster.list("Approval", "default"):
        name = each["metadata"]["name"]
        if name not in known:
            spec = approval.Spec.model_validate(each["spec"])
            model.approvals[name] = Approval(name, each["metadata"]["uid"], spec, model.now)
    model.settle()
    return answer


@pytest.mark.parametrize(
    ("waiting", "answers", "goes_on"),
    [
        pytest.param(asking, "go-wide", lambda m: m.weights == {"v8": 100}, id="a step"),
        pytest.param(undecided, "evaluation", lambda m: m.weights == {"v8": 10, "v7": 90}, id="a gate"),
        pytest.param(paused, "settle", lambda m: m.weights == {"v8": 100}, id="a pause that has no end"),
        pytest.param(held, "evaluation", lambda m: not m.facts.rollout.held, id="a gate that failed"),
        pytest.param(held_by_a_deadline, "deadline", lambda m: m.weights == {"v8": 100}, id="a deadline"),
    ],
)
def test_what_is_asked_is_answered_without_naming_it_and_the_migration_goes_on(
    bench: Bench, waiting: Callable[[], Model], answers: str, goes_on: Callable[[Model], bool]
) -> None:
    model = waiting()
    assert not goes_on(model)
    told = run(bench, model, "why", "papers").lines

    answer = run(bench, model, "approve", "papers")

    assert (answer.code, answer.err) == (0, "")
    assert f"approved {answers} of papers for v8" in answer.out
    assert [line for line in told if f"pointsman approve papers {answers}" in line] != []
    assert goes_on(model)


@pytest.mark.parametrize("waiting", [asking, undecided, paused, held, held_by_a_deadline])
def test_a_refusal_sends_all_queries_back(bench: Bench, waiting: Callable[[], Model]) -> None:
    model = waiting()

    assert run(bench, model, "reject", "papers").code == 0

    assert model.weights == {"v7": 100}
    assert [each.reason for each in model.status.rejected] == ["RejectedByAPerson"]


@pytest.mark.parametrize("where", [shadowing, asking, undecided, held, promoted])
@pytest.mark.parametrize("command", ["abort", "rollback"])
def test_from_everywhere_there_is_a_way_back(bench: Bench, where: Callable[[], Model], command: str) -> None:
    model = where()

    answer = run(bench, model, command, "papers")

    assert answer.code == 0
    assert model.weights == {"v7": 100}
    assert model.spec["version"] == ("v8" if command == "abort" else "v7")


def test_an_abort_that_is_withdrawn_lets_the_version_go_on_its_way(bench: Bench) -> None:
    model = asking()
    run(bench, model, "abort", "papers")
    assert "pointsman abort papers v8 --withdraw" in run(bench, model, "why", "papers").out

    run(bench, model, "abort", "papers", "--withdraw")
    model.approvals.clear()
    model.settle()

    assert model.status.step is not None
    assert (model.status.step.name, model.status.step.index) == ("Shadow", 1)


def test_a_rejected_version_is_explained_and_tried_again(bench: Bench) -> None:
    model = rejected()

    explained, why = run(bench, model, "explain", "papers"), run(bench, model, "why", "papers")
    # What was measured before would refuse it again.
    model.verdicts["v8"], model.evaluation = fleet.PASSES, None
    retried = run(bench, model, "retry", "papers", "--value", "mended")

    assert "nDCG@10 fell by 0.041" in explained.out
    assert why.lines[0].startswith("papers waits (TargetRejected): serving v7 normally; v8 rejected: nDCG@10 fell by")
    assert retried.lines == ["v8 of papers may be tried again: from the first step"]
    assert model.status.step is not None
    assert model.status.step.name == "Shadow"


def test_while_it_is_paused_nothing_goes_on_and_going_back_does(bench: Bench) -> None:
    model = shadowing()

    run(bench, model, "pause", "papers")
    model.live(10 * MINUTE)
    why = run(bench, model, "why", "papers")
    assert model.weights == {"v7": 100}
    run(bench, model, "resume", "papers")
    model.live(5 * MINUTE)

    assert why.lines[0].startswith("papers waits (Suspended)")
    assert "  answer   pointsman resume papers" in why.lines
    assert model.weights == {"v8": 10, "v7": 90}


@pytest.mark.parametrize(
    ("where", "head", "until"),
    [
        (shadowing, "papers waits (Shadowing): v8 waits: shadowed for 2m", "in 2m0s; then it goes on by itself"),
        (
            asking,
            "papers waits (APersonIsAsked): v8 waits: an Approval that answers go-wide is awaited for 24h",
            "then all queries go to v7 and v8 is rejected",
        ),
        (promoted, "papers waits (BurningIn): serving v8@1, burning in for 24h", "then v8 has proven itself"),
        (
            paused,
            "papers waits (Paused): v8 waits: paused until an Approval answers settle",
            "then it is held as it is",
        ),
    ],
)
def test_why_says_what_the_planner_waits_for_and_what_comes_then(
    bench: Bench, where: Callable[[], Model], head: str, until: str
) -> None:
    answer = run(bench, where(), "why", "papers")

    assert answer.lines[0].startswith(head)
    assert next(line for line in answer.lines if line.startswith("  until")).endswith(until)
