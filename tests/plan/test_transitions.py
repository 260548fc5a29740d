"""Each line of the table of spec transitions, in each phase of a migration: with steps, gates, gateways and people.

A small world is led to a phase; then one thing is edited, or happens, and what comes of it is looked at: after one
plan, which is what an incident waits for, and once all has come to rest.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.fleet import FakeGateway
from tests.plan.model import Model

from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import DeploymentStatus, Role
from pointsman.plan import deployment, facts
from pointsman.plan.facts import Facts

MINUTE = timedelta(minutes=1)
SPEC: dict[str, Any] = {
    "strategy": {"steps": fleet.ROAD},
    "gates": fleet.EVALUATED | fleet.CANARIES,
    "burnIn": fleet.BURN_IN,
    "retire": {"after": "48h"},
}


def world(**spec: Any) -> Model:
    """Two gateways, and v7 that serves."""
    model = Model(gateways=[FakeGateway("g1"), FakeGateway("g2")], spec={"version": "v7", **SPEC, **spec})
    model.settle()
    return model


def wanting(**spec: Any) -> Model:
    model = world(**spec)
    model.edit(version="v8")
    return model


def building() -> Model:
    model = wanting()
    model.turn_dataset()
    model.turn()
    return model


def at_gates() -> Model:
    model = wanting()
    model.verdicts["v8"] = fleet.UNDECIDED
    model.settle()
    model.live(4 * MINUTE)
    return model


def shadowing() -> Model:
    model = wanting()
    model.settle()
    return model


def shifting() -> Model:
    """A tenth was set, and one gateway does not serve it yet."""
    model = shadowing()
    model.wait(2 * MINUTE)
    model.gateways[1].is_late = True
    model.settle()
    model.gateways[1].is_late = False
    return model


def pausing() -> Model:
    model = shadowing()
    model.live(3 * MINUTE)
    return model


def asking() -> Model:
    model = pausing()
    model.live(10 * MINUTE)
    return model


def burning_in() -> Model:
    model = asking()
    model.decide(answers="go-wide")
    model.settle()
    return model


def proven() -> Model:
    model = burning_in()
    model.wait(25 * b.HOUR)
    model.settle()
    model.wait(MINUTE)
    model.settle()
    return model


def retired() -> Model:
    model = proven()
    model.wait(48 * b.HOUR)
    model.settle()
    return model


PHASES: dict[str, tuple[Callable[[], Model], dict[str, int], str]] = {
    # How it is led to; how queries are shared then; the stage that is said.
    "before the build": (wanting, {"v7": 100}, ""),
    "during the build": (building, {"v7": 100}, "Build"),
    "at the gates": (at_gates, {"v7": 100}, "Shadow"),
    "while it is shadowed": (shadowing, {"v7": 100}, "Shadow"),
    "while a tenth is shifted": (shifting, {"v8": 10, "v7": 90}, "Weight"),
    "during the pause": (pausing, {"v8": 10, "v7": 90}, "Pause"),
    "while a person is asked": (asking, {"v8": 10, "v7": 90}, "Approval"),
    "during the burn-in": (burning_in, {"v8": 100}, "BurnIn"),
    "after the promotion": (proven, {"v8": 100}, ""),
    "after the retirement": (retired, {"v8": 100}, ""),
}
BEFORE = list(PHASES)[:7]
"""The phases in which v7 still serves."""
AFTER = list(PHASES)[7:]
BUILT = list(PHASES)[2:7]
WEIGHTED = list(PHASES)[4:7]


@functools.cache
def _told(name: str) -> Model:
    return PHASES[name][0]()


def phase(name: str) -> Model:
    """Return a world of its own in a phase."""
    return copy.deepcopy(_told(name))


def index_of(model: Model, version: str) -> facts.Index:
    return [index for index in model.facts.indexes if index.version == version][-1]


def go_on_to_v9(model: Model, **spec: Any) -> None:
    """Want v9 as well, and go on until it has all queries."""
    model.edit(version="v9", **spec)
    model.settle()
    model.live(13 * MINUTE)
    model.decide(answers="go-wide")
    model.settle()
    assert model.weights == {"v9": 100}


def goal(model: Model) -> tuple[ConditionType, Reason, str]:
    return b.goal(model.status)


def reason(model: Model) -> Reason:
    return goal(model)[1]


@pytest.mark.parametrize("name", PHASES)
def test_the_phases_are_what_they_are_called(name: str) -> None:
    model = phase(name)
    _, weights, stage = PHASES[name]

    assert model.weights == weights
    assert ("" if model.status.step is None else model.status.step.name) == stage
    assert {index.version for index in model.facts.indexes} == (
        {"v8"} if name == "after the retirement" else {"v7"} if name == "before the build" else {"v7", "v8"}
    )


# The line is changed.


@pytest.mark.parametrize("name", BEFORE)
def test_a_to_b_to_a_is_one_shift_and_b_is_kept(name: str) -> None:
    model = phase(name)

    model.edit(version="v7")
    plan = model.turn()

    assert model.weights == {"v7": 100}
    assert model.facts.rollout is None and model.facts.shadow is None
    assert not any("Build" in kind or "Delete" in kind for kind in b.kinds(plan.actions))
    model.settle()
    assert goal(model)[::2] == (ConditionType.READY, "serving v7@1")
    assert all(gateway.weights[index_of(model, "v7").name] == 100 for gateway in model.gateways)
    if name != "before the build":
        assert index_of(model, "v8").role is Role.CANDIDATE


@pytest.mark.parametrize("suspend", [False, True], ids=["", "suspended"])
@pytest.mark.parametrize("name", ["during the burn-in", "after the promotion"])
def test_a_rollback_after_the_switch_is_one_shift_back(name: str, suspend: bool) -> None:
    model = phase(name)

    model.edit(version="v7", suspend=suspend)
    plan = model.turn()

    assert b.kinds(plan.actions)[:2] == ["RecordFacts", "PublishRoute"]
    assert model.weights == {"v7": 100}
    model.settle()
    assert [(index.version, index.role) for index in model.facts.indexes] == [
        ("v8", Role.RETAINED),
        ("v7", Role.SERVING),
    ]


def test_a_rollback_after_the_retirement_is_built_again_from_stored_vectors_and_takes_the_steps() -> None:
    model = phase("after the retirement")
    embedded = dict(model.embedded)

    model.edit(version="v7")
    plan = model.turn()

    assert b.kinds(plan.actions) == ["RecordFacts", "StartWork Build v7@1"]
    assert model.weights == {"v8": 100}
    assert model.status.step is not None and model.status.step.estimate.startswith("at least 12m")
    model.settle()
    assert reason(model) is Reason.SHADOWING
    assert model.embedded == embedded


def test_a_to_b_to_a_to_b_takes_the_steps_from_the_beginning_with_the_same_index() -> None:
    model = phase("during the pause")
    name = index_of(model, "v8").name

    model.edit(version="v7")
    model.settle()
    model.edit(version="v8")
    model.settle()

    assert (model.weights, reason(model)) == ({"v7": 100}, Reason.SHADOWING)
    assert index_of(model, "v8").name == name


def _fails(model: Model) -> None:
    model.errors["v8"] = 0.9
    model.live(15 * MINUTE)
    assert reason(model) is Reason.TARGET_REJECTED
    model.errors.clear()
    model.edit(retry="again")


def _is_given_up(model: Model) -> None:
    model.gateways[1].is_silent = True
    for span in (3 * b.HOUR, 2 * b.HOUR):
        model.wait(span)
        model.settle()
    assert reason(model) is Reason.TARGET_REJECTED
    model.gateways[1].is_silent = False
    model.edit(retry="again")


def _is_refused(model: Model) -> None:
    model.decide("Reject", answers="go-wide")
    model.settle()
    assert reason(model) is Reason.TARGET_REJECTED
    model.edit(retry="again")


def _is_aborted(model: Model) -> None:
    model.decide("Abort", version="v8")
    model.settle()
    assert reason(model) is Reason.TARGET_ABORTED
    model.approvals.clear()


LEFT: dict[str, Callable[[Model], None]] = {
    "a gate failed": _fails,
    "a step took too long": _is_given_up,
    "a person refused it": _is_refused,
    "a person kept queries off it": _is_aborted,
}


@pytest.mark.parametrize("is_left", [False, True], ids=["still wanted", "after another version was wanted"])
@pytest.mark.parametrize("how", LEFT)
def test_a_candidate_that_was_left_by_failure_or_abort_begins_anew_with_the_index_that_it_has(
    how: str, is_left: bool
) -> None:
    model = phase("during the pause")
    assert model.facts.rollout is not None
    name, began = index_of(model, "v8").name, model.facts.rollout.begun_at
    made, embedded = model.facts.made, copy.copy(model.embedded)
    model.wait(MINUTE)
    LEFT[how](model)
    assert model.weights == {"v7": 100}
    if is_left:
        model.edit(version="v7")
        model.settle()
        model.edit(version="v8")

    model.settle()

    road = model.facts.rollout
    assert (model.weights, reason(model)) == ({"v7": 100}, Reason.SHADOWING)
    assert road is not None and (road.index, road.step, road.answered) == (name, 1, ()) and road.begun_at > began
    assert (model.facts.made, model.embedded) == (made, embedded), "nothing is made or embedded again"
    model.live(3 * MINUTE)
    assert model.weights == {"v8": 10, "v7": 90}


def test_back_and_forth_before_anybody_looks_is_nothing() -> None:
    model = phase("during the pause")
    before = model.facts

    model.edit(version="v7")
    model.edit(version="v8")
    model.turn()

    assert model.facts == before


@pytest.mark.parametrize("name", BEFORE)
def test_a_to_b_to_c_goes_to_a_first(name: str) -> None:
    model = phase(name)

    model.edit(version="v9")
    model.turn_dataset()
    model.turn()

    assert model.weights == {"v7": 100}
    model.settle()
    assert reason(model) is Reason.SHADOWING
    assert model.facts.rollout is not None and model.facts.rollout.index == index_of(model, "v9").name


def test_c_that_was_a_candidate_before_is_not_entered_until_a_has_all() -> None:
    model = phase("during the pause")
    model.edit(version="v9")
    model.settle()
    model.edit(version="v8")
    model.settle()
    model.live(3 * MINUTE)
    assert model.weights == {"v8": 10, "v7": 90}

    model.gateways[0].is_late = True
    model.edit(version="v9")
    model.turn()
    model.turn()

    assert model.weights == {"v7": 100} and model.facts.shadow is None
    assert goal(model)[2].startswith("v9 waits: gateway g1 serves route")
    model.gateways[0].is_late = False
    model.settle()
    assert reason(model) is Reason.SHADOWING


@pytest.mark.parametrize("name", AFTER)
def test_a_to_b_to_c_after_the_switch_leaves_b_serving(name: str) -> None:
    model = phase(name)

    model.edit(version="v9")
    model.settle()

    assert (model.weights, reason(model)) == ({"v8": 100}, Reason.SHADOWING)


def test_a_burn_in_that_was_cut_short_by_another_version_is_taken_up_again() -> None:
    model = phase("during the burn-in")
    model.edit(version="v9")
    model.settle()

    model.edit(version="v8")
    model.settle()

    assert reason(model) is Reason.BURNING_IN
    model.wait(25 * b.HOUR)
    model.settle()
    assert index_of(model, "v8").proven_at is not None


# The strategy, the gates and the parameters are edited on the way.


STRATEGIES: dict[str, tuple[list[dict[str, Any]], int, Reason]] = {
    # The new steps; which of them is under way at a tenth; what is waited for.
    "a step less": ([{"weight": 10}, {"pause": {"for": "10m"}}, {"weight": 100}], 2, Reason.PAUSED),
    "a smaller first weight: the tenth stays": (
        [{"weight": 5}, {"pause": {"for": "1h"}}, {"weight": 20}, {"weight": 100}],
        2,
        Reason.PAUSED,
    ),
    "a shadow before all": (
        [{"shadow": {"for": "1h"}}, {"weight": 20}, {"pause": {"for": "1h"}}, {"weight": 100}],
        1,
        Reason.SHADOWING,
    ),
    "a person is asked at once": (
        [{"weight": 10}, {"approval": {"name": "early"}}, {"weight": 100}],
        2,
        Reason.A_PERSON_IS_ASKED,
    ),
}


@pytest.mark.parametrize(("steps", "step", "waits"), STRATEGIES.values(), ids=STRATEGIES.keys())
def test_a_strategy_that_is_edited_in_flight_keeps_the_weight_until_it_is_placed(
    steps: list[dict[str, Any]], step: int, waits: Reason
) -> None:
    model = phase("during the pause")

    model.edit(strategy={"steps": steps})
    model.settle()

    assert model.weights == {"v8": 10, "v7": 90}
    assert model.status.step is not None and (model.status.step.index, model.status.step.of) == (step, len(steps))
    assert reason(model) is waits


def test_a_strategy_without_steps_switches_once_the_gates_have_passed() -> None:
    model = phase("during the pause")

    model.edit(strategy={"steps": []})
    model.settle()

    assert (model.weights, reason(model)) == ({"v8": 100}, Reason.BURNING_IN)


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_strategy_that_is_cut_short_while_the_database_does_not_answer_is_placed_later(name: str) -> None:
    model = phase(name)
    model.edit(strategy={"steps": [{"weight": 100}]})
    seen = dataclasses.replace(model.see(), physical={}, problem=b.NO_ANSWER)

    status = deployment.plan(seen, model.now).status

    assert b.goal(status)[1] is Reason.BACKEND_UNREACHABLE


def test_steps_at_rest_are_edited_without_a_stir() -> None:
    model = phase("after the promotion")

    model.edit(strategy={"steps": [{"weight": 100}]})

    assert (model.settle(), reason(model)) == ([], Reason.UP_TO_DATE)


def test_gates_that_are_edited_on_the_way_ask_people_again_and_move_nothing() -> None:
    model = phase("while a person is asked")
    before = model.status.plan_hash
    old = model.decide(answers="go-wide")

    model.edit(gates=fleet.EVALUATED)
    model.settle()

    assert model.status.plan_hash != before
    assert (model.weights, reason(model)) == ({"v8": 10, "v7": 90}, Reason.A_PERSON_IS_ASKED)
    assert old.uid not in model.facts.used
    model.decide(answers="go-wide")
    model.settle()
    assert model.weights == {"v8": 100}


@pytest.mark.parametrize("name", BUILT)
def test_parameters_that_are_edited_on_the_way_are_another_candidate(name: str) -> None:
    model = phase(name)
    before = index_of(model, "v8")

    model.edit(parameters="p2")
    model.turn()
    assert model.weights == {"v7": 100}
    model.settle()

    after = index_of(model, "v8")
    assert (after.name != before.name, after.parameters, reason(model)) == (True, "p2", Reason.SHADOWING)


def test_parameters_of_what_serves_go_through_the_steps() -> None:
    model = world()

    model.edit(parameters="p2")
    model.settle()
    assert (model.weights, reason(model)) == ({"v7": 100}, Reason.SHADOWING)
    model.live(3 * MINUTE)

    assert sorted(model.facts.weights.values()) == [10, 90]


# A pinned snapshot is no other version.


def test_parameters_that_were_rejected_keep_no_others_of_the_version_out() -> None:
    model = world(strategy={"steps": []})
    model.verdicts["v7"] = fleet.FAILS
    model.edit(parameters="p2")
    model.settle()
    assert (sorted(model.facts.weights.values()), reason(model)) == ([100], Reason.TARGET_REJECTED)
    model.verdicts.clear()

    model.edit(parameters="p3")
    model.settle()

    serving = model.facts.serving
    assert serving is not None and (serving.parameters, reason(model)) == ("p3", Reason.BURNING_IN)
    model.edit(parameters="p2")
    model.settle()
    assert (model.facts.serving, reason(model)) == (serving, Reason.TARGET_REJECTED)
    assert [each.parameters for each in model.facts.rejected] == ["p2"]


@pytest.mark.parametrize("is_of_before", [False, True], ids=["told by this release", "told by one that knew no such"])
def test_a_rejection_of_other_parameters_keeps_nobody_from_going_back_to_what_is_proven(is_of_before: bool) -> None:
    model = world(strategy={"steps": []})
    model.verdicts["v7"] = fleet.FAILS
    model.edit(parameters="p2")
    model.settle()
    model.verdicts.clear()
    model.edit(parameters="p1")
    if is_of_before:
        written = facts.to_json(model.facts)
        for each in written["rejected"]:
            del each["parameters"]
        model.facts = facts.from_json(written)
    model.edit(version="v8")
    model.settle()
    assert (model.weights, b.said(model.status, ConditionType.ROLLBACK_READY)[1]) == (
        {"v8": 100},
        Reason.RETAINED_INDEX_IS_CURRENT,
    )

    model.verdicts["v8"], model.evaluation = fleet.FAILS, None
    model.settle()

    assert (model.weights, reason(model)) == ({"v7": 100}, Reason.TARGET_REJECTED)
    assert [each.version for each in model.facts.rejected] == ["v7", "v8"]


def test_a_rejection_of_a_release_that_kept_no_parameters_refuses_the_recipe_with_any() -> None:
    model = phase("during the pause")
    model.decide("Reject", answers="go-wide")
    model.settle()
    written = facts.to_json(model.facts)
    for each in written["rejected"]:
        del each["parameters"]
    model.facts = facts.from_json(written)

    model.edit(parameters="p2")
    model.settle()

    assert (model.weights, reason(model)) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_a_snapshot_is_pinned_and_unpinned_in_one_shift_each() -> None:
    model = world()
    model.change_source()
    model.settle()
    assert model.serving == "v7@2"

    model.edit(snapshot=1)
    model.settle()
    assert (model.serving, reason(model)) == ("v7@1 frozen", Reason.UP_TO_DATE)
    assert model.roles() == ["v7 Retained @2", "v7 Serving @1 frozen"]
    model.edit(snapshot=None)
    plan = model.turn()

    assert b.kinds(plan.actions)[:2] == ["RecordFacts", "PublishRoute"]
    assert model.serving == "v7@2"


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("number", [1, 99], ids=["that is there", "that is not"])
def test_a_snapshot_that_is_pinned_on_the_way_takes_all_queries_back_first(name: str, number: int) -> None:
    model = phase(name)

    model.edit(snapshot=number)
    model.turn()

    assert model.weights == {"v7": 100}


def test_a_snapshot_that_is_pinned_during_the_burn_in_takes_the_burn_in_along() -> None:
    model = phase("during the burn-in")

    model.edit(snapshot=1)
    model.settle()

    assert (model.serving, reason(model)) == ("v8@1 frozen", Reason.BURNING_IN)
    model.wait(25 * b.HOUR)
    model.settle()
    assert reason(model) is Reason.UP_TO_DATE


# People.


@pytest.mark.parametrize("name", PHASES)
def test_an_abort_keeps_queries_off_the_version_until_it_is_withdrawn(name: str) -> None:
    model = phase(name)

    model.decide("Abort", version="v8")
    model.turn()
    model.settle()

    kind, why, message = goal(model)
    if name == "after the retirement":
        # There is nothing to go back to, and nobody is left without answers.
        assert model.weights == {"v8": 100}
        assert "nothing else could serve" in message
        return
    assert model.weights == {"v7": 100}
    assert (kind, why) == (ConditionType.STALLED, Reason.TARGET_ABORTED)
    assert message.endswith("; serving v7 normally") and "keeps queries off v8 until" in message
    assert model.settle() == []
    model.approvals.clear()
    model.settle()
    is_proven = name == "after the promotion"
    assert (model.weights, reason(model)) == (
        ({"v8": 100}, Reason.UP_TO_DATE) if is_proven else ({"v7": 100}, model_waits(name))
    )


def model_waits(name: str) -> Reason:
    return Reason.SHADOWING


@pytest.mark.parametrize("name", [*WEIGHTED, "during the burn-in", "after the promotion"])
def test_an_abort_is_one_plan_even_while_suspended(name: str) -> None:
    model = phase(name)

    model.edit(suspend=True)
    model.decide("Abort", version="v8")
    model.turn()

    assert model.weights == {"v7": 100}


def test_an_abort_that_expires_lets_the_version_try_again() -> None:
    model = phase("during the pause")
    model.decide("Abort", version="v8", expires=model.now + b.HOUR)
    model.settle()
    assert model.weights == {"v7": 100}
    assert model.turn().look_again <= b.HOUR

    model.wait(b.HOUR)
    model.settle()

    assert reason(model) is Reason.SHADOWING


def test_an_abort_of_what_serves_holds_whatever_the_spec_wants() -> None:
    model = phase("during the burn-in")
    model.edit(version="v9", strategy={"steps": fleet.ROAD})
    model.settle()

    model.decide("Abort", version="v8")
    model.turn()
    model.settle()

    assert model.weights == {"v7": 100}


def test_an_abort_goes_to_the_last_good_index() -> None:
    model = phase("after the promotion")
    go_on_to_v9(model, retire={"after": "336h"})
    assert {index.version for index in model.facts.indexes} == {"v7", "v8", "v9"}

    model.decide("Abort", version="v9")
    model.turn()

    assert model.weights == {"v8": 100}
    model.decide("Abort", version="v8")
    model.turn()
    assert model.weights == {"v7": 100}


@pytest.mark.parametrize("how", ["a person", "a gate"])
def test_what_is_refused_in_its_burn_in_goes_back_to_nothing_that_a_person_keeps_off(how: str) -> None:
    model = phase("during the burn-in")
    model.decide("Abort", version="v7")
    model.settle()
    state, rollback, message = b.said(model.status, ConditionType.ROLLBACK_READY)
    assert (state, rollback) == ("False", Reason.TARGET_ABORTED), message

    if how == "a person":
        model.decide("Reject", answers="evaluation")
    else:
        model.errors["v8"] = 0.5
        model.live(13 * MINUTE)
    model.settle()

    assert model.weights == {"v8": 100}
    kind, why, message = goal(model)
    assert (kind, why) == (
        ConditionType.READY,
        Reason.REJECTED_BY_A_PERSON if how == "a person" else Reason.GATE_FAILED,
    )
    assert "change spec.version" in message
    # However long: what is refused is not proven by time.
    model.wait(20 * b.HOUR)
    model.settle()
    assert model.facts.burn_in is not None

    withdrawn = next(name for name, found in model.approvals.items() if found.spec.decision == "Abort")
    del model.approvals[withdrawn]
    model.settle()
    assert model.weights == {"v7": 100}


def test_what_is_refused_in_its_burn_in_goes_past_what_a_person_keeps_off_to_the_one_before() -> None:
    model = phase("after the promotion")
    go_on_to_v9(model, retire={"after": "336h"})
    model.decide("Abort", version="v8")

    model.decide("Reject", answers="evaluation")
    model.settle()

    assert model.weights == {"v7": 100}


def test_what_is_refused_in_its_burn_in_does_not_go_back_to_another_snapshot_of_itself() -> None:
    model = phase("during the build")
    model.lose(index_of(model, "v7").name)
    model.settle()
    assert model.weights == {"v8": 100}

    model.decide("Reject", answers="evaluation")
    model.edit(snapshot=1)
    model.settle()

    assert model.weights == {"v8": 100}
    assert index_of(model, "v8").role is Role.SERVING and index_of(model, "v8").frozen == 1
    assert model.facts.rejected == ()


@pytest.mark.parametrize("name", BUILT)
def test_a_person_who_rejects_takes_all_queries_back_and_the_version_stays_out(name: str) -> None:
    model = phase(name)

    model.decide("Reject", answers="go-wide", by="ana")
    model.turn()

    assert model.weights == {"v7": 100}
    model.settle()
    refused = (
        "serving v7 normally; v8 rejected: refused by ana in Approval reject-0; a new spec.retry would try it again"
    )
    assert goal(model) == (ConditionType.STALLED, Reason.TARGET_REJECTED, refused)
    model.approvals.clear()
    assert model.settle() == []
    model.edit(retry="again")
    model.settle()
    assert reason(model) is Reason.SHADOWING


def test_who_rejects_a_retirement_rejects_no_version() -> None:
    model = phase("during the pause")

    model.decide("Reject", answers="retire")
    model.settle()

    assert model.weights == {"v8": 10, "v7": 90}


IGNORED: dict[str, dict[str, Any]] = {
    "for another plan": {"plan": "0000"},
    "that has expired": {"expires": b.NOW},
    "for another version": {"version": "v9"},
    "for another step": {"answers": "go-home"},
}


@pytest.mark.parametrize("changes", IGNORED.values(), ids=IGNORED.keys())
def test_an_approval_counts_for_nothing(changes: dict[str, Any]) -> None:
    model = phase("while a person is asked")

    model.decide(**{"answers": "go-wide", **changes})

    assert (model.settle(), model.weights) == ([], {"v8": 10, "v7": 90})


def test_an_approval_that_was_used_counts_once() -> None:
    model = phase("while a person is asked")
    model.decide(answers="go-wide")
    model.gateways[0].is_late = True
    model.settle()
    assert model.facts.used == ("approve-0",) and model.weights == {"v8": 50, "v7": 50}
    model.gateways[0].is_late = False
    model.edit(version="v7")
    model.settle()

    model.edit(version="v8")
    model.settle()
    model.live(14 * MINUTE)

    assert reason(model) is Reason.A_PERSON_IS_ASKED


def test_an_approval_that_nobody_gives_rejects_the_version() -> None:
    model = phase("while a person is asked")

    model.wait(24 * b.HOUR)
    model.settle()

    assert model.weights == {"v7": 100}
    assert goal(model)[2] == (
        "serving v7 normally; v8 rejected: an Approval that answers go-wide is awaited for 24h, and nobody did; "
        "a new spec.retry would try it again"
    )


def test_lag_that_a_person_accepts_is_no_obstacle() -> None:
    model = phase("after the promotion")
    name = index_of(model, "v7").name
    model.change_source()
    model.failing = {"Follow v7": b.failure(is_terminal=True)}
    model.settle()
    model.wait(b.HOUR)
    model.edit(version="v7")
    model.settle()
    assert model.weights == {"v8": 100} and model.records[name].cursor is not None

    model.decide("AcceptLag", version="v7")
    model.turn()

    assert model.serving == "v7@1"


# What is lost.


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_candidate_that_is_lost_on_the_way_is_built_again_beside_and_takes_the_steps(name: str) -> None:
    model = phase(name)
    lost = index_of(model, "v8").name

    model.lose(lost)
    model.turn()
    assert model.weights == {"v7": 100}
    model.settle()

    assert (index_of(model, "v8").name != lost, reason(model)) == (True, Reason.SHADOWING)


@pytest.mark.parametrize("name", WEIGHTED)
def test_what_serves_is_lost_on_the_way_and_the_candidate_takes_over_where_nothing_is_retained(name: str) -> None:
    model = phase(name)

    model.lose(index_of(model, "v7").name)
    model.turn()

    assert model.weights == {"v8": 100}


def test_what_serves_is_lost_on_the_way_and_what_is_retained_takes_over() -> None:
    model = phase("after the promotion")
    model.edit(version="v9", retire={"after": "336h"})
    model.settle()
    model.live(3 * MINUTE)
    assert model.weights == {"v9": 10, "v8": 90}

    model.lose(index_of(model, "v8").name)
    model.turn()

    assert model.weights == {"v7": 100}
    model.settle()
    assert reason(model) is Reason.SHADOWING


def test_what_serves_is_lost_and_a_version_that_a_person_keeps_off_does_not_take_over() -> None:
    model = phase("after the promotion")
    model.decide("Abort", version="v8")
    model.settle()
    assert model.weights == {"v7": 100}

    model.lose(index_of(model, "v7").name)
    model.settle()

    assert index_of(model, "v8").role is not Role.SERVING


def test_what_serves_is_lost_and_of_those_retained_the_rejected_one_comes_last() -> None:
    model = phase("during the burn-in")
    model.verdicts["v8"] = fleet.FAILS
    model.live(25 * b.HOUR, queries=10)
    assert model.weights == {"v7": 100}
    go_on_to_v9(model, retire={"after": "1000h"})

    model.lose(index_of(model, "v9").name)
    model.turn()

    assert model.weights == {"v7": 100}


def test_the_retained_index_is_lost_during_the_burn_in_and_no_gateway_is_told_to_mirror_to_it() -> None:
    model = phase("during the burn-in")
    assert model.status.route is not None and model.status.route.shadow is not None
    before = model.facts.route

    model.lose(index_of(model, "v7").name)
    model.turn()

    assert model.facts.shadow is None and model.facts.route == before + 1
    assert model.status.route.shadow is None
    model.settle()
    assert reason(model) is Reason.BURNING_IN


# The resources around it.


@pytest.mark.parametrize("name", PHASES)
def test_a_status_that_is_wiped_moves_nothing(name: str) -> None:
    model = phase(name)
    model.settle()
    before, said = model.facts, goal(model)

    model.status = DeploymentStatus()
    model.turn()
    model.settle()

    assert (model.facts, goal(model)) == (before, said)


@pytest.mark.parametrize("name", PHASES)
def test_a_resource_that_is_restored_under_a_new_uid_goes_on_where_it_was(name: str) -> None:
    model = phase(name)
    model.settle()
    before = model.facts

    model.status, model.uid, model.finalizers = DeploymentStatus(), "u3", set()
    model.work.clear()
    model.settle()

    assert model.facts == before
    assert all(gateway.uid == "u3" for gateway in model.gateways)


@pytest.mark.parametrize("name", PHASES)
def test_another_operator_goes_on_under_its_own_epoch(name: str) -> None:
    model = phase(name)
    before = model.weights

    model.epoch += 1
    model.work.clear()
    model.turn()

    assert model.weights == before
    model.settle()
    assert model.facts.epoch in (1, 2)


def test_an_operator_without_an_epoch_does_not_take_the_route_back_to_an_older_one() -> None:
    model = phase("during the pause")

    model.epoch = 0
    model.edit(version="v7")
    model.settle()

    assert all(gateway.weights[index_of(model, "v7").name] == 100 for gateway in model.gateways)


@pytest.mark.parametrize("name", ["during the pause", "during the burn-in"])
def test_a_version_that_is_removed_from_the_dataset_goes_on(name: str) -> None:
    model = phase(name)
    before = model.weights

    model.versions = ("v7",)
    model.settle()

    assert model.weights == before


def test_facts_of_a_release_that_knew_no_burn_in_are_trusted() -> None:
    model = phase("after the promotion")
    written = facts.to_json(model.facts)
    for index in written["indexes"]:
        del index["proven_at"]
    for name in ("rollout", "burn_in", "shadow", "rejected", "used", "epoch", "holder", "drill"):
        written.pop(name, None)
    model.facts = facts.from_json(written)

    model.edit(version="v7")
    model.turn()

    assert model.weights == {"v7": 100}


@pytest.mark.parametrize("name", [*WEIGHTED, "during the burn-in"])
def test_a_deployment_that_is_deleted_on_the_way_is_let_go_by_gateways_first(name: str) -> None:
    model = phase(name)
    model.gateways[0].is_late = True

    model.deleting[b.DEPLOYMENT] = model.now
    kinds = [kind for _ in range(6) for kind in b.kinds(model.turn().actions)]
    assert model.status.route is None and "DeleteIndex" not in kinds
    model.gateways[0].is_late = False
    model.settle()

    assert (model.database, model.facts, model.finalizers) == ({}, Facts(), {b.DATASET})


def test_a_gateway_that_never_lets_go_holds_a_deletion_up_to_the_deadline() -> None:
    model = phase("during the pause")
    model.gateways[0].is_late = True
    model.deleting[b.DEPLOYMENT] = model.now
    for _ in range(6):
        model.turn()
    assert b.DEPLOYMENT in model.finalizers

    model.wait(10 * MINUTE)
    model.turn()

    assert b.DEPLOYMENT not in model.finalizers


# What is suspended stands still, and its clocks too; what leads back does not.


@pytest.mark.parametrize("name", BUILT)
def test_suspended_weights_stay_and_no_clock_runs(name: str) -> None:
    model = phase(name)
    before = model.weights

    model.edit(suspend=True)
    model.settle()
    model.wait(30 * b.DAY)
    model.settle()

    assert (model.weights, reason(model)) == (before, Reason.SUSPENDED)
    said = ", ".join(f"{version} {weight}" for version, weight in before.items())
    assert goal(model)[2].endswith(f"serving {said}" if len(before) == 2 else "serving v7 normally")
    model.edit(suspend=False)
    model.settle()
    assert (model.weights, facts_rejected(model)) == (before, ())


def facts_rejected(model: Model) -> tuple[facts.Rejection, ...]:
    return model.facts.rejected


def test_a_pause_that_is_suspended_lasts_as_much_longer() -> None:
    model = phase("during the pause")
    model.edit(suspend=True)
    model.settle()
    model.wait(b.HOUR)
    model.edit(suspend=False)
    model.settle()
    assert reason(model) is Reason.PAUSED

    model.live(10 * MINUTE)

    assert reason(model) is Reason.A_PERSON_IS_ASKED


def test_a_gate_that_fails_acts_while_suspended() -> None:
    model = phase("during the pause")
    model.edit(suspend=True)
    model.verdicts["v8"] = fleet.FAILS
    model.evaluation = None

    model.settle()

    assert model.weights == {"v7": 100}


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_database_that_does_not_answer_the_operator_blocks_no_way_back(name: str) -> None:
    model = phase(name)
    model.edit(version="v7")
    seen = dataclasses.replace(model.see(), physical={}, problem=b.NO_ANSWER)

    plan = deployment.plan(seen, model.now)

    assert b.kinds(plan.actions) == ["RecordFacts"]
    assert plan.status.weight == "v7 100" and b.goal(plan.status)[1] is Reason.BACKEND_UNREACHABLE
