"""What serves does not answer, and its fix goes on: whose fault it is is found out by asking each side alone."""

from __future__ import annotations

import copy
import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.fleet import FakeGateway
from tests.plan.model import Model

from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import GateStatus, Verdict
from pointsman.plan import facts, silence

MINUTE = timedelta(minutes=1)
DEAD = "the endpoint of v7 fails with HTTP 500"
GATES = fleet.EVALUATED | fleet.CANARIES
STEPS: list[dict[str, Any]] = [{"weight": 10}, {"pause": {"for": "1m"}}, {"weight": 100}]


def world(**spec: Any) -> Model:
    """A gateway, v7 that serves with a model that answers nobody any more, and v8 that is to come."""
    model = Model(
        gateways=[FakeGateway("g1")],
        spec={"version": "v7", "strategy": {"steps": STEPS}, "gates": GATES, "burnIn": fleet.BURN_IN, **spec},
    )
    model.settle()
    model.break_model("v7")
    return model


def minutes(model: Model, count: int) -> None:
    """Let time pass, and every back-off with it."""
    for _ in range(count):
        model.wait(MINUTE)
        model.settle()


def goal(model: Model) -> tuple[ConditionType, Reason, str]:
    return b.goal(model.status)


def gate(model: Model, name: str) -> GateStatus:
    return next(found for found in model.status.gates if found.name == name)


def weight(model: Model) -> int:
    return model.weights.get("v8", 0)


def index_of(model: Model, version: str) -> str:
    return next(index.name for index in model.facts.indexes if index.version == version)


def test_a_model_of_what_serves_that_is_dead_keeps_no_fix_away() -> None:
    model = world()

    model.edit(version="v8")
    model.settle()
    assert (weight(model), goal(model)[1]) == (0, Reason.GATES_UNDECIDED)
    since = f"{model.now:%Y-%m-%d %H:%M} UTC"
    assert goal(model)[2] == (
        f"v8 waits: canaries: v7 has not answered since {since}: {DEAD}; v7 stays on the route, and does not answer"
    )
    minutes(model, 9)
    assert weight(model) == 0
    minutes(model, 5)

    assert (model.weights, goal(model)[1]) == ({"v8": 100}, Reason.BURNING_IN)
    assert model.facts.rejected == () and model.facts.silence is None


def test_what_was_decided_names_what_is_broken() -> None:
    model = world(strategy={"steps": [{"weight": 10}, {"pause": {"name": "look"}}, {"weight": 100}]})
    since = f"{model.now:%Y-%m-%d %H:%M} UTC"
    model.edit(version="v8")
    model.settle()

    minutes(model, 12)

    assert (weight(model), goal(model)[1]) == (10, Reason.PAUSED)
    found = gate(model, "evaluation")
    why = f"v7 has not answered since {since}: {DEAD}"
    assert (found.verdict, found.message) == (
        Verdict.PASSED,
        f"nDCG@10 is 0.500 over 700 groups, with nothing whole to compare with: {why}",
    )
    assert gate(model, "canaries").verdict is Verdict.PASSED


def test_a_model_that_fails_for_a_moment_makes_no_gate_lax() -> None:
    model = world()
    model.verdicts["v8"] = fleet.FAILS
    model.edit(version="v8")
    model.settle()

    minutes(model, 8)
    assert (weight(model), model.facts.rejected) == (0, ())
    model.mend_model("v7")
    minutes(model, 2)

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)
    assert "nDCG@10 fell by 0.041" in goal(model)[2]


def test_a_model_that_answers_again_on_the_way_is_compared_with_again() -> None:
    model = world(strategy={"steps": [{"weight": 10}, {"pause": {"for": "1h"}}, {"weight": 100}]})
    model.edit(version="v8")
    model.settle()
    minutes(model, 15)
    assert weight(model) == 10
    model.verdicts["v8"] = fleet.FAILS

    model.mend_model("v7")
    minutes(model, 3)

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_a_source_that_moves_on_without_what_serves_keeps_no_fix_away() -> None:
    model = world()
    model.change_source()
    model.settle()
    assert model.serving == "v7@1"

    model.edit(version="v8")
    model.settle()
    assert "not measured yet; v7" in gate(model, "evaluation").message
    minutes(model, 18)

    assert (model.serving, model.facts.rejected) == ("v8@2", ())


def test_gateways_that_say_the_same_of_what_serves_hold_no_fix_up() -> None:
    model = world()
    model.gateways[0].problems = {index_of(model, "v7"): DEAD}
    model.edit(version="v8")
    model.settle()
    assert b.said(model.status, ConditionType.TRAFFIC_VERIFIED)[1:] == (
        Reason.ROUTE_NOT_ACCEPTED,
        f"gateway g1: {DEAD}",
    )

    minutes(model, 18)

    assert model.weights == {"v8": 100}


@pytest.mark.parametrize(
    "problem", ["the candidate fails too", "something else fails"], ids=["of the candidate", "of nobody"]
)
def test_gateways_that_fail_otherwise_hold_it_up(problem: str) -> None:
    model = world()
    model.edit(version="v8")
    model.settle()
    named = {index_of(model, "v8"): problem} if problem.startswith("the candidate") else {}
    model.gateways[0].problems = {index_of(model, "v7"): DEAD, **named}
    model.gateways[0].problem = problem

    minutes(model, 18)

    assert (weight(model), goal(model)[1]) == (0, Reason.ROUTE_NOT_ACCEPTED)


def test_a_candidate_that_answers_nobody_either_gains_nothing_by_it() -> None:
    model = world()
    model.edit(version="v8")
    model.settle()
    model.failing["Probe v8"] = b.failure(Reason.MODEL_UNREACHABLE, "the endpoint of v8 fails with HTTP 503")

    minutes(model, 30)
    assert (weight(model), gate(model, "evaluation").verdict) == (0, Verdict.ERROR)
    model.wait(2 * b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_a_candidate_that_stops_answering_later_is_held_up_from_then_on() -> None:
    model = world(strategy={"steps": [{"weight": 10}, {"pause": {"for": "1h"}}, {"weight": 100}]})
    model.edit(version="v8")
    model.settle()
    minutes(model, 15)
    assert weight(model) == 10

    model.failing["Probe v8"] = b.failure(Reason.MODEL_UNREACHABLE, "the endpoint of v8 fails with HTTP 503")
    model.evaluation = model.canaries = None
    minutes(model, 65)

    assert (weight(model), goal(model)[1]) == (10, Reason.GATES_UNDECIDED)


def test_a_candidate_that_misses_its_canaries_is_rejected_though_nothing_else_answers() -> None:
    model = world()
    model.edit(version="v8")
    model.settle()
    model.lacking.add("v8")

    minutes(model, 15)

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)
    assert "4 of 5 canaries find their documents" in goal(model)[2]


def test_a_candidate_that_cannot_be_asked_alone_either_is_rejected_by_that() -> None:
    model = world()
    model.edit(version="v8")
    model.settle()
    busy = b.failure(Reason.MODEL_RATE_LIMITED, "the endpoint of v8 refuses so many")
    model.failing |= {"Evaluate": busy, "AskCanaries": busy}

    minutes(model, 15)
    assert (gate(model, "evaluation").verdict, weight(model)) == (Verdict.ERROR, 0)
    assert gate(model, "evaluation").message.startswith("the endpoint of v8 refuses so many; v8 is asked alone, as v7")
    model.wait(2 * b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_a_query_set_that_nobody_can_be_asked_is_given_up_at_the_deadline_as_ever() -> None:
    model = world()
    model.failing = {"Evaluate": b.failure(Reason.SOURCE_INVALID, "1 of 9 relevant documents are in papers@1")}
    model.edit(version="v8")
    model.settle()

    model.wait(2 * b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_what_nobody_is_to_blame_for_is_held_for_a_person_and_never_rejected() -> None:
    model = world()
    model.failing.clear()
    both = b.failure(Reason.MODEL_UNREACHABLE, "timed out")
    model.failing = {"Evaluate": both, "AskCanaries": both}
    model.edit(version="v8")
    model.settle()
    minutes(model, 3)
    assert model.facts.silence is None, "both answer where they are asked alone"

    model.wait(2 * b.HOUR)
    model.settle()
    assert (model.weights, goal(model)[1], model.facts.rejected) == ({"v7": 100}, Reason.HELD, ())
    assert "; approve canaries, abort it" in goal(model)[2]
    for name in ("canaries", "evaluation"):
        model.decide(answers=name)
    model.settle()
    minutes(model, 3)

    assert model.weights == {"v8": 100}


def test_a_person_lets_it_pass_before_that_is_proven() -> None:
    model = world()
    model.edit(version="v8")
    model.settle()
    assert weight(model) == 0

    for name in ("canaries", "evaluation"):
        model.decide(answers=name)
    model.settle()
    minutes(model, 2)

    assert model.weights == {"v8": 100}


def test_what_serves_and_lags_behind_for_ever_is_held_for_a_person() -> None:
    model = world()
    model.mend_model("v7")
    # Its queries are embedded, and its documents are not.
    model.failing["Embed v7"] = b.failure(Reason.MODEL_REJECTED, "the model refuses 1 text with HTTP 400")
    model.change_source()
    model.settle()
    model.edit(version="v8")
    model.settle()
    assert gate(model, "evaluation").message == "not measured yet; v7@1 is behind v8@2"

    model.wait(2 * b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1], model.facts.rejected) == ({"v7": 100}, Reason.HELD, ())


def test_who_was_compared_and_stays_undecided_is_given_up_whatever_what_serves_lacks_by_then() -> None:
    model = world()
    model.mend_model("v7")
    model.verdicts["v8"] = fleet.UNDECIDED
    model.edit(version="v8")
    model.settle()
    model.failing["Embed v7"] = b.failure(Reason.MODEL_REJECTED, "the model refuses 1 text with HTTP 400")
    model.change_source()
    model.settle()
    assert (model.serving, gate(model, "evaluation").verdict) == ("v7@1", Verdict.INCONCLUSIVE)

    model.wait(2 * b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_a_short_deadline_does_not_end_what_is_being_found_out() -> None:
    model = world(strategy={"steps": [{"weight": 100}], "progressDeadline": "4m"})
    model.edit(version="v8")
    model.settle()

    minutes(model, 5)

    assert (model.weights, model.facts.rejected) == ({"v8": 100}, ())


def test_after_an_answer_what_waited_for_it_has_its_whole_deadline_again() -> None:
    model = world(strategy={"steps": [{"weight": 100}], "progressDeadline": "1h"})
    model.failing["Probe v8"] = b.failure(Reason.MODEL_UNREACHABLE, "the endpoint of v8 fails with HTTP 503")
    model.edit(version="v8")
    model.settle()
    minutes(model, 58)
    model.verdicts["v8"] = fleet.UNDECIDED
    del model.failing["Probe v8"]
    model.mend_model("v7")

    minutes(model, 5)

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.GATES_UNDECIDED)


def test_an_operator_that_restarts_does_not_begin_to_wait_anew() -> None:
    model = world(strategy={"steps": [{"weight": 10}, {"pause": {"name": "look"}}, {"weight": 100}]})
    model.edit(version="v8")
    model.settle()
    minutes(model, 9)
    before = model.facts.silence
    assert before is not None and before.proven_at is None

    model.work.clear()
    model.epoch += 1
    model.turn()
    assert model.facts.silence == before, "nobody was asked since"
    minutes(model, 3)

    assert weight(model) == 10
    assert model.facts.silence is not None and model.facts.silence.since == before.since


def test_who_is_silent_is_forgotten_with_the_migration() -> None:
    model = world()
    model.edit(version="v8")
    model.settle()
    assert model.facts.silence is not None
    written = facts.to_json(model.facts)
    assert facts.from_json(written) == model.facts
    # A release that knew no such thing wrote none.
    del written["silence"]
    assert facts.from_json(written) == dataclasses.replace(model.facts, silence=None)

    model.edit(version="v7")
    model.settle()

    assert (model.weights, model.facts.silence) == ({"v7": 100}, None)


def test_nobody_is_asked_alone_where_no_gate_compares() -> None:
    model = world(gates={})
    model.edit(version="v8")
    model.settle()
    seen = copy.copy(model.see())

    assert not silence.is_doubted(seen, seen.facts)
    minutes(model, 3)
    assert model.weights == {"v8": 100}
