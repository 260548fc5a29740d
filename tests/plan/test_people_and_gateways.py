"""What is set, accepted and measured; what people decide and whether it counts; and when an index goes for good."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.fleet import FakeGateway
from tests.plan.model import Model

from pointsman.api import approval as approval_api
from pointsman.api import conditions as conditions_api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import Role
from pointsman.plan import approvals, deployment, facts, measured, rollout, traffic
from pointsman.plan.facts import Facts, Rollout
from pointsman.plan.measured import Earlier, Streams
from pointsman.plan.observed import Decision, Deployment, QueriesView
from pointsman.plan.reported import Gateway
from pointsman.plan.tasks import Key

MINUTE = timedelta(minutes=1)
STEPS: list[dict[str, Any]] = [{"weight": 10}, {"weight": 50}, {"weight": 100}]

# Set, accepted, served.


def at_a_tenth(*gateways: Gateway, **changes: Any) -> Deployment:
    """v8 was given a tenth by route 7 of epoch 2, and waits for more."""
    spec = b.spec("v8", strategy={"steps": STEPS})
    seen = b.deployment(
        b.serving(),
        b.candidate(),
        spec=spec,
        records={"v8": b.record()},
        physical={"v8": b.present()},
        gateways=gateways,
        epoch=2,
        **changes,
    )
    known = dataclasses.replace(seen.facts, route=7, epoch=2)
    seen = dataclasses.replace(seen, facts=known)
    plan = deployment.plan(dataclasses.replace(seen, gateways=()), b.NOW).status.plan_hash
    road = Rollout(
        "v8", plan, begun_at=b.NOW - b.HOUR, since=b.NOW - MINUTE, step=1, steps=rollout.digest(seen), weight=10
    )
    return dataclasses.replace(seen, facts=dataclasses.replace(known, rollout=road))


def at(revision: int = 7, epoch: int = 2, name: str = "g1", **changes: Any) -> Gateway:
    return fleet.gateway(revision, name, epoch=epoch, **changes)


UNACCEPTED: dict[str, tuple[tuple[Gateway, ...], str]] = {
    "one is silent": (
        (at(), Gateway("g2", is_ready=True, problem="does not answer within 2 s")),
        "gateway g2: does not answer within 2 s",
    ),
    "one serves an older route": ((at(), at(6, name="g2")), "gateway g2 serves route 6, wanted 7"),
    "one serves the route of an older operator": (
        (at(epoch=1),),
        "gateway g1 serves route 7 of epoch 1, wanted 7 of epoch 2",
    ),
    "one does not know the deployment": ((at(0, 0),), "gateway g1 serves route 0, wanted 7"),
    "one cannot serve some index": (
        (at(problem="the model does not answer"),),
        "gateway g1: the model does not answer",
    ),
    "one sends queries where none should go": (
        (at(answered={"v7": 90, "v8": 9, "v6": 1}),),
        "gateway g1 sends queries to v6, which has no weight",
    ),
    "none is ready": ((at(is_ready=False),), "no gateway serves: none is ready"),
    "none is ready, and one says why": (
        (Gateway("g1", is_ready=False, problem="cannot be reached (ConnectError)"),),
        "no gateway serves: cannot be reached (ConnectError)",
    ),
}


@pytest.mark.parametrize(("gateways", "why"), UNACCEPTED.values(), ids=UNACCEPTED.keys())
def test_no_step_goes_on_from_a_weight_that_is_not_accepted(gateways: tuple[Gateway, ...], why: str) -> None:
    seen = at_a_tenth(*gateways)

    plan = deployment.plan(seen, b.NOW)

    known = next((a.facts for a in plan.actions if hasattr(a, "facts")), seen.facts)
    assert dict(known.weights) == {"v8": 10, "v7": 90}
    assert b.goal(plan.status) == (
        ConditionType.RECONCILING,
        Reason.ROUTE_NOT_ACCEPTED,
        f"v8 waits: {why}; serving v8 10, v7 90",
    )
    assert b.said(plan.status, ConditionType.TRAFFIC_VERIFIED) == ("False", Reason.ROUTE_NOT_ACCEPTED, why)
    assert plan.status.step is not None and plan.status.step.deadline == b.NOW - MINUTE + 2 * b.HOUR
    (weight,) = [i.weight for i in plan.status.indexes if i.name == "v8"]
    assert weight is not None and (weight.desired, weight.accepted, weight.measured) == (10, None, None)


def test_a_route_that_no_gateway_takes_over_for_minutes_is_overdue() -> None:
    model = Model(gateways=[FakeGateway("g1")], spec={"version": "v7"})
    model.settle()
    model.gateways[0].is_silent = True
    before = model.now
    model.live(MINUTE)
    assert b.said(model.status, ConditionType.TRAFFIC_VERIFIED)[:2] == ("False", Reason.ROUTE_NOT_ACCEPTED)
    model.live(2 * MINUTE)

    assert b.said(model.status, ConditionType.TRAFFIC_VERIFIED)[:2] == ("False", Reason.ROUTE_OVERDUE)
    turned = conditions_api.get(model.status.conditions, ConditionType.TRAFFIC_VERIFIED)
    assert turned is not None and turned.last_transition_time <= before + MINUTE
    model.gateways[0].is_silent = False
    model.live(MINUTE)
    assert b.said(model.status, ConditionType.TRAFFIC_VERIFIED)[:2] == ("True", Reason.ROUTE_ACCEPTED)


def test_a_migration_that_waits_for_long_for_its_route_goes_on_saying_so_and_one_condition_that_it_is_overdue() -> None:
    seen = at_a_tenth(at(6))
    status = deployment.plan(seen, b.NOW).status

    later = deployment.plan(dataclasses.replace(seen, status=status), b.NOW + 3 * MINUTE).status

    assert b.goal(later)[:2] == (ConditionType.RECONCILING, Reason.ROUTE_NOT_ACCEPTED)
    assert {c.reason for c in later.conditions if c.type is ConditionType.READY} == {Reason.ROUTE_NOT_ACCEPTED}
    assert b.said(later, ConditionType.TRAFFIC_VERIFIED)[1] is Reason.ROUTE_OVERDUE


def test_what_all_that_are_ready_serve_is_accepted_and_goes_on() -> None:
    seen = at_a_tenth(at(answered={"v7": 880, "v8": 101}), at(3, name="g2", is_ready=False))

    plan = deployment.plan(seen, b.NOW)

    known = next(a.facts for a in plan.actions if hasattr(a, "facts"))
    assert dict(known.weights) == {"v8": 50, "v7": 50} and known.route == 8


def test_a_first_deployment_is_ready_when_its_gateways_serve_it() -> None:
    late = FakeGateway("g1", is_late=True)
    model = Model(gateways=[late], spec={"version": "v7"})
    model.settle()
    assert model.weights == {"v7": 100}
    assert b.goal(model.status) == (
        ConditionType.RECONCILING,
        Reason.ROUTE_NOT_ACCEPTED,
        "v7@1 is to serve, but no gateway serves: none is ready",
    )

    late.is_late = False
    model.settle()
    assert b.goal(model.status)[0] is ConditionType.READY


def test_a_gateway_that_starts_again_takes_nothing_away_from_what_serves() -> None:
    model = Model(gateways=[FakeGateway("g1")], spec={"version": "v7"})
    model.settle()

    model.gateways[0].is_ready = False
    model.settle()

    assert b.goal(model.status)[0] is ConditionType.READY
    assert b.said(model.status, ConditionType.TRAFFIC_VERIFIED)[0] == "False"


def test_no_gateway_is_no_canary() -> None:
    plan = deployment.plan(at_a_tenth(), b.NOW)

    assert b.goal(plan.status)[1:] == (
        Reason.NO_GATEWAY,
        "v8 waits: steps shift queries at gateways, and the operator knows none; set POINTSMAN_GATEWAYS, or no steps; "
        "serving v8 10, v7 90",
    )
    assert b.said(plan.status, ConditionType.TRAFFIC_VERIFIED)[:2] == ("Unknown", Reason.NO_GATEWAY)


def test_desired_accepted_and_measured_are_said() -> None:
    gateway = at(8, answered={"v7": 4_000, "v8": 6_000})
    seen = at_a_tenth(at())
    known = next(a.facts for a in deployment.plan(seen, b.NOW).actions if hasattr(a, "facts"))
    pausing = {"steps": [{"weight": 50}, {"pause": {"for": "1h"}}, {"weight": 100}]}
    later = dataclasses.replace(seen, facts=known, gateways=(gateway,), spec=b.spec("v8", strategy=pausing))

    status = deployment.plan(later, b.NOW).status

    weights = {i.name: i.weight for i in status.indexes}
    assert {n: (w.desired, w.accepted, w.measured) for n, w in weights.items() if w is not None} == {
        "v7": (50, 50, 40),
        "v8": (50, 50, 60),
    }


def test_only_what_was_answered_under_the_route_is_measured() -> None:
    known = Facts((b.serving(),), route=7, epoch=2)
    seen = dataclasses.replace(at_a_tenth(at(answered={"v7": 30}), at(6, name="g2", answered={"v9": 70})), facts=known)

    assert traffic.measured(seen, known) == {"v7": 100}
    assert traffic.measured(dataclasses.replace(seen, gateways=()), known) == {}


# What a person decides, and whether it counts.

STEP = b.spec("v8", strategy={"steps": [{"approval": {"name": "go-wide"}}, {"weight": 100}]})
COUNTING = "it counts until 2026-03-02 12:00:00 UTC"
COUNTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an answer to a step": ({}, {}, COUNTING),
    "an answer to a gate": ({"answers": "evaluation"}, {}, COUNTING),
    "an abort": ({"decision": "Abort", "version": "v1"}, {}, COUNTING),
    "one that was used": ({}, {"used": ("approve-v8",)}, "it has let something pass"),
    "one that has expired": (
        {"expires": b.NOW},
        {},
        "it expired at 2026-03-01 12:00:00 UTC; create another one",
    ),
    "one for a deployment that is not there": (
        {},
        {"deployment": None},
        "there is no IndexDeployment papers in search",
    ),
    "one about another version": (
        {"version": "v7"},
        {},
        "it is about v7, the deployment wants v8; create one for v8",
    ),
    "one that answers what nothing asks": (
        {"answers": "go-home"},
        {},
        "it answers go-home, which nothing asks; wanted one of go-wide, parity, model, evaluation, canaries, shadow, "
        "errors, empty, latency, deadline, retire",
    ),
    "one for another plan": (
        {"plan": "0ff"},
        {},
        "it is for plan 0ff, the plan is plan: the target, the steps or the gates have changed",
    ),
    "made for the try before": (
        {},
        {"asked_since": b.NOW - MINUTE},
        "it was made before 2026-03-01 11:59:00 UTC, for a try that is over; create another one",
    ),
    "made in the second in which the try before was over": ({"at": b.NOW}, {"asked_since": b.NOW}, COUNTING),
    "an abort, however old": ({"decision": "Abort"}, {"asked_since": b.NOW}, COUNTING),
    "a refusal needs no plan": ({"decision": "Reject"}, {"plan": "0ff"}, COUNTING),
}


@pytest.mark.parametrize(("changes", "around", "said"), COUNTS.values(), ids=COUNTS.keys())
def test_an_approval_says_whether_it_counts(changes: dict[str, Any], around: dict[str, Any], said: str) -> None:
    made = fleet.approval(**changes)
    values: dict[str, Any] = {"deployment": STEP, "plan": "plan", "used": (), **around}
    seen = Decision(
        key=Key("Approval", "search", made.name),
        uid=made.uid,
        generation=1,
        spec=made.spec,
        status=approval_api.ApprovalStatus(),
        created_at=made.created_at,
        **values,
    )

    plan = approvals.plan(seen, b.NOW)

    counts = said.startswith("it counts") or said == "it has let something pass"
    holds = ConditionType.READY if counts else ConditionType.STALLED
    assert b.goal(plan.status) == (holds, Reason.COUNTS if counts else Reason.DOES_NOT_COUNT, said)
    assert plan.actions == () and timedelta(0) < plan.look_again <= 5 * MINUTE
    assert conditions_api.get(plan.status.conditions, ConditionType.READY) is not None


def test_an_approval_is_looked_at_when_it_expires() -> None:
    made = fleet.approval(expires=b.NOW + MINUTE)
    key = Key("Approval", "search", made.name)
    seen = Decision(key, made.uid, 1, made.spec, approval_api.ApprovalStatus(), STEP, "plan", (), b.NOW)

    assert approvals.plan(seen, b.NOW).look_again == MINUTE


def test_a_refusal_that_was_used_counts_once() -> None:
    made = fleet.approval("Reject")
    seen = at_a_tenth(at(), approvals=(made,))
    used = dataclasses.replace(seen.facts, used=(made.uid,))

    assert approvals.rejected(seen, seen.facts, b.NOW) is None, "it answers no step of these"
    seen = dataclasses.replace(seen, spec=STEP)
    assert approvals.rejected(seen, seen.facts, b.NOW) == made
    assert approvals.rejected(seen, used, b.NOW) is None


# Retirement.


def old(**spec: Any) -> Model:
    """v8 serves and is proven, and the time of v7 is nearly over."""
    values = {"version": "v7", "burnIn": {"for": "1h"}, "retire": {"after": "48h"}, **spec}
    model = Model(gateways=[FakeGateway("g1"), FakeGateway("g2")], spec=values)
    model.settle()
    model.edit(version="v8")
    model.settle()
    model.wait(2 * b.HOUR)
    model.settle()
    assert model.roles() == ["v7 Retained @1", "v8 Serving @1"]
    return model


def test_a_retirement_that_is_supervised_asks_a_person_and_says_so() -> None:
    model = old(retire={"after": "48h", "mode": "Supervised"})
    assert b.said(model.status, ConditionType.AWAITING_APPROVAL)[0] == "False"

    model.wait(48 * b.HOUR)
    model.settle()
    assert model.roles() == ["v7 Retained @1", "v8 Serving @1"]
    assert b.said(model.status, ConditionType.AWAITING_APPROVAL) == (
        "True",
        Reason.A_PERSON_IS_ASKED,
        "retire.mode is Supervised: an Approval that answers retire is awaited",
    )
    used = model.decide(answers="retire")
    model.settle()

    assert model.roles() == ["v8 Serving @1"] and used.uid in model.facts.used
    assert b.said(model.status, ConditionType.AWAITING_APPROVAL)[0] == "False"


@pytest.mark.parametrize("mode", ["Automatic", "Supervised"])
def test_nothing_retires_while_the_spec_suspends_it(mode: str) -> None:
    model = old(retire={"after": "48h", "mode": mode})
    model.edit(suspend=True)
    model.wait(30 * b.DAY)
    model.settle()
    assert model.roles() == ["v7 Retained @1", "v8 Serving @1"]
    assert b.said(model.status, ConditionType.AWAITING_APPROVAL)[0] == "False"

    model.edit(suspend=False, retire={"after": "48h"})
    model.settle()
    assert model.roles() == ["v8 Serving @1"]


@pytest.mark.parametrize("is_ready", [True, False], ids=["a ready one", "one that is not ready"])
@pytest.mark.parametrize("harm", ["is_late", "is_silent"])
def test_nothing_retires_that_a_gateway_may_still_search(harm: str, is_ready: bool) -> None:
    model = old()
    setattr(model.gateways[1], harm, True)
    model.gateways[1].is_ready = is_ready
    name = model.facts.indexes[0].name
    model.wait(48 * b.HOUR)
    model.edit(suspend=False)
    model.settle()
    model.wait(30 * b.DAY)
    model.settle()
    assert name in model.database

    setattr(model.gateways[1], harm, False)
    model.settle()

    assert name not in model.database


def test_an_index_that_a_query_still_asks_is_not_removed() -> None:
    def seen(*held: str) -> Deployment:
        gateway = dataclasses.replace(fleet.gateway(), held=held)
        return b.deployment(b.serving("v8", b.V8), b.retiring(), spec=b.spec("v8"), gateways=(gateway,))

    assert b.kinds(deployment.plan(seen("v7"), b.NOW).actions) == []
    assert b.kinds(deployment.plan(seen("v8"), b.NOW).actions) == ["DeleteIndex"]


KEEPS: dict[str, Any] = {
    "another version is on its way": lambda m: (m.edit(version="v9", strategy={"steps": fleet.ROAD}), m.settle()),
    "what serves differs from its snapshot": lambda m: m.records.update(
        {m.facts.serving.name: dataclasses.replace(m.records[m.facts.serving.name], verified_at=None)}
    ),
}


@pytest.mark.parametrize("harm", KEEPS.values(), ids=KEEPS.keys())
def test_what_may_be_needed_is_kept(harm: Any) -> None:
    model = old()
    harm(model)
    model.failing = {"Build v8": b.failure(is_terminal=True)}
    model.wait(48 * b.HOUR)

    model.turn_dataset()
    model.turn()
    model.finish()
    model.turn()

    assert {index.version: index.role for index in model.facts.indexes}["v7"] is Role.RETAINED


STABLE = {"after": "1h", "stable": {"querySetRef": {"name": "papers-eval"}, "for": "48h"}}


def looks(*hours: float, high: float | None = 0.01, **changes: Any) -> measured.Evaluation:
    """Evaluations of v8 so many hours ago, the last one last."""
    before = [Earlier(b.NOW - timedelta(hours=h), "v8", 0.5, low=-0.01, high=high) for h in hours[:-1]]
    at_ = b.NOW - timedelta(hours=hours[-1])
    return fleet.evaluation(
        (0.0, -0.01, 0.01), candidate="v8", serving="v7", measured_at=at_, history=tuple(before), **changes
    )


KEPT: dict[str, tuple[measured.Evaluation | None, Role]] = {
    "it was never evaluated": (None, Role.RETAINED),
    "it was evaluated through the whole time": (looks(60, 40, 20, 1), Role.RETIRING),
    "it was evaluated for too short a time": (looks(40, 20, 1), Role.RETAINED),
    "there is a gap": (looks(60, 55, 1), Role.RETAINED),
    "the last one is long ago": (looks(70, 60, 50), Role.RETAINED),
    "it was worse meanwhile": (looks(60, 40, 20, 1, high=-0.03), Role.RETAINED),
    "it was of another version": (looks(1, version="v9"), Role.RETAINED),
}


@pytest.mark.parametrize(("found", "role"), KEPT.values(), ids=KEPT.keys())
def test_an_index_retires_once_its_successor_has_held_without_a_break(
    found: measured.Evaluation | None, role: Role
) -> None:
    seen = b.deployment(
        b.serving("v8", b.V8),
        b.retained(),
        spec=b.spec("v8", retire=STABLE, gates=fleet.EVALUATED),
        query_sets={"papers-eval": fleet.queries(every="24h")},
        stable=found,
        evaluation=fleet.evaluation(candidate="v8", serving="v7"),
    )

    plan = deployment.plan(seen, b.NOW)

    known = next((a.facts for a in plan.actions if hasattr(a, "facts")), seen.facts)
    after = known.get("v7")
    assert after is not None and after.role is role


ASKED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "never asked": ({}, ["StartWork Evaluate"]),
    "asked of late": ({"stable": looks(1)}, []),
    "asked a period ago": ({"stable": looks(24)}, ["StartWork Evaluate"]),
    "asked of another index": ({"stable": dataclasses.replace(looks(1), candidate="v9")}, ["StartWork Evaluate"]),
    "a set that cannot be read": ({"query_sets": {"papers-eval": QueriesView(exists=True)}}, []),
    "no set": ({"query_sets": {}}, []),
}


@pytest.mark.parametrize(("changes", "wanted"), ASKED.values(), ids=ASKED.keys())
def test_what_serves_is_asked_as_often_as_its_retirement_wants(changes: dict[str, Any], wanted: list[str]) -> None:
    values = {"query_sets": {"papers-eval": fleet.queries(every="24h")}, **changes}
    seen = b.deployment(b.serving("v8", b.V8), b.retained(since=b.NOW), spec=b.spec("v8", retire=STABLE), **values)

    assert b.kinds(deployment.plan(seen, b.NOW).actions) == wanted


# Drills.


def drilled(token: str = "d1") -> Model:
    model = old()
    model.drill_token = token
    return model


def test_a_drill_sends_a_sliver_beside_and_ends() -> None:
    model = drilled()
    before = model.weights

    model.settle()
    assert model.facts.shadow is not None and model.facts.shadow.percent == 5
    assert model.weights == before
    model.wait(2 * MINUTE)
    model.settle()

    assert model.facts.shadow is None and model.status.drill is not None
    assert (model.status.drill.token, model.status.drill.message) == ("d1", "no query came")
    assert model.settle() == []


def test_a_drill_without_a_retained_index_says_so_at_once() -> None:
    model = Model(gateways=[FakeGateway("g1")], spec={"version": "v7"}, drill_token="d1")
    model.settle()

    assert model.status.drill is not None
    assert model.status.drill.message == "there is no retained index to go back to"


def test_a_drill_without_a_gateway_says_so_at_once() -> None:
    model = drilled()
    model.gateways.clear()
    model.settle()

    assert model.status.drill is not None
    assert model.status.drill.message == "the operator knows no gateway that could ask it"


def test_a_drill_whose_index_is_lost_is_over() -> None:
    model = drilled()
    model.settle()
    model.lose(model.facts.indexes[0].name)
    model.settle()

    assert model.facts.shadow is None and model.status.drill is not None
    assert model.status.drill.message == "the retained index is gone"


# What was written down is read back.

ROAD = Rollout(
    "v8",
    "plan",
    b.NOW,
    b.NOW,
    2,
    "steps",
    10,
    b.NOW,
    b.NOW,
    b.NOW,
    ("go-wide", "evaluation/failed"),
    "why",
    "evaluation",
)
WHOLE = Facts(
    indexes=(b.serving(), b.candidate()),
    made=2,
    route=9,
    history=(facts.Promotion("v7", "v7", 12, b.NOW),),
    rollout=ROAD,
    burn_in=facts.BurnIn("v8", b.NOW, b.NOW, 7, "worse", "evaluation", ("errors",)),
    shadow=facts.Shadow("v8", 5),
    drill=facts.Drill("d1", "v7", b.NOW, b.NOW, 3, 1, 0.5, 1),
    rejected=(facts.Rejection("v8", b.V8.key, Reason.GATE_FAILED, "worse", b.NOW, "again", "p1"),),
    used=("u1",),
    epoch=4,
    holder="operator-4",
)


def test_facts_of_a_migration_are_read_back_as_they_were_written() -> None:
    assert facts.from_json(facts.to_json(WHOLE)) == WHOLE


def test_what_was_measured_is_read_back_as_it_was_written() -> None:
    evaluation = measured.with_history(fleet.evaluation(interval=(-0.1, 0.1)), fleet.evaluation(fleet.FAILS))
    first = fleet.canaries(4, kept=0.7, pinned_at=b.NOW)
    asked = measured.canaries_with_history(fleet.canaries(overlap=0.9, pinned_at=b.NOW), first)

    assert measured.evaluation_from_json(measured.to_json(evaluation)) == evaluation
    assert measured.canaries_from_json(measured.to_json(asked)) == asked
    assert measured.canaries_with_history(asked, None) == asked


def test_what_canaries_found_the_last_times_is_in_the_status() -> None:
    asked = None
    for n in range(12):
        found = fleet.canaries(5 if n else 4, overlap=0.9, kept=0.95, measured_at=b.NOW - timedelta(minutes=12 - n))
        asked = measured.canaries_with_history(found, asked)
    seen = b.deployment(spec=b.spec("v7", gates=fleet.CANARIES), canaries=asked, query_sets=fleet.sets())

    said = deployment.plan(seen, b.NOW).status.canaries

    assert [each.at for each in said] == [b.NOW - timedelta(minutes=n) for n in range(10, 0, -1)]
    assert [(each.overlap, each.kept) for each in said] == [("0.900", "0.950")] * 10
    assert (said[-1].version, said[-1].found, said[-1].against) == ("v8", "1.000", "v7")


def test_a_deployment_is_looked_at_again_when_its_canaries_are_due() -> None:
    seen = b.deployment(
        spec=b.spec("v7", gates=fleet.CANARIES),
        canaries=fleet.canaries(candidate="v7", serving="", measured_at=b.NOW - timedelta(seconds=50)),
        query_sets=fleet.sets(**{"papers-canaries": fleet.queries(5, every="1m")}),
    )

    assert deployment.plan(seen, b.NOW).look_again == timedelta(seconds=10)


def test_what_live_queries_showed_is_read_back_as_it_was_written() -> None:
    model = old()
    model.edit(version="v9", strategy={"steps": [{"weight": 10}, {"pause": {"for": "1h"}}, {"weight": 100}]})
    model.live(5 * MINUTE)
    assert model.streams.guards and model.streams.answered

    assert measured.streams_from_json(measured.streams_to_json(model.streams)) == model.streams
    assert measured.streams_from_json(measured.streams_to_json(Streams())) == Streams()
