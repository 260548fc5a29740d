"""Each try of a version stands by itself: what people and numbers said of an earlier one counts for no later one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.model import Model
from tests.plan.test_transitions import MINUTE, burning_in, pausing, wanting, world

from pointsman.api.deployment import DeploymentStatus, Stage, Verdict
from pointsman.core import latencies
from pointsman.core.guards import Arm, Signal
from pointsman.plan import gates
from pointsman.plan.gates import Pair
from pointsman.plan.reported import Minute, Shadowed
from pointsman.plan.tasks import Evaluate, Phase

APPROVED = {"approval": {"name": "go-wide", "timeout": "24h"}}
ASKED: dict[str, Any] = {"steps": [{"weight": 10}, {"pause": {"for": "10m"}}, APPROVED, {"weight": 100}]}


def tried(model: Model, **spec: Any) -> Model:
    """Go on to the moment in which a person is asked, and as long again."""
    model.edit(**spec)
    model.settle()
    model.live(14 * MINUTE)
    return model


def given_ahead() -> Model:
    """A tenth of the queries goes to v8, and the approval that is asked for later is there already."""
    model = world(strategy=ASKED)
    model.edit(version="v8")
    model.settle()
    model.wait(MINUTE)
    model.decide(answers="go-wide", expires=model.now + 7 * b.DAY)
    return model


def waits_for_a_person(model: Model) -> bool:
    return model.weights == {"v7": 90, "v8": 10} and "go-wide" in model.status.step.waiting_for


def test_an_approval_that_was_given_ahead_counts_when_it_is_asked_for() -> None:
    model = given_ahead()

    model.live(14 * MINUTE)

    assert model.weights == {"v8": 100}


def test_an_approval_that_a_rejected_try_did_not_use_lets_the_next_one_not_pass() -> None:
    model = given_ahead()
    model.errors = {"v8": 1.0}
    model.live(8 * MINUTE)
    assert [r.version for r in model.facts.rejected] == ["v8"]
    model.errors = {}

    tried(model, retry="2")

    assert waits_for_a_person(model)
    model.decide(answers="go-wide")
    model.settle()
    assert model.weights == {"v8": 100}


def test_an_approval_that_a_try_did_not_use_which_was_left_lets_the_next_one_not_pass() -> None:
    model = given_ahead()
    model.wait(MINUTE)
    model.edit(version="v7")
    model.settle()
    model.wait(MINUTE)

    tried(model, version="v8")

    assert waits_for_a_person(model)


def test_an_approval_of_a_deployment_that_was_removed_counts_for_none_of_its_name() -> None:
    model = given_ahead()
    model.deleting[b.DEPLOYMENT] = model.now
    model.settle()
    for _ in range(6):
        model.wait(MINUTE)
        model.settle()
    assert b.DEPLOYMENT not in model.finalizers
    model.deleting, model.uid, model.made_at, model.status, model.work = {}, "u3", model.now, DeploymentStatus(), {}
    model.edit(version="v7")
    model.settle()

    tried(model, version="v8")

    assert waits_for_a_person(model)


def test_time_in_which_no_operator_ran_speaks_against_no_version() -> None:
    model = wanting(strategy=ASKED)
    for _ in range(12):
        model.turn_dataset()
        model.turn()
        model.finish(but=Evaluate)
    assert model.facts.rollout is not None and model.status.step.name == Stage.GATES
    model.work = {}
    model.now += 3 * b.HOUR
    model.started = model.now

    model.turn()

    assert not model.facts.rejected
    model.settle()
    assert model.weights == {"v7": 90, "v8": 10}


def evaluating(model: Model) -> bool:
    running = [work.task for work in model.work.values() if work.phase is Phase.RUNNING]
    return any(isinstance(task, Evaluate) for task in running)


@pytest.mark.parametrize(("minutes", "lag", "stays"), [(4, "5s", True), (20, "5s", False), (20, "1h", True)])
def test_an_index_that_is_asked_follows_once_it_has_answered_or_is_too_far_behind(
    minutes: int, lag: str, stays: bool
) -> None:
    model = wanting(strategy=ASKED, maxLag=lag)
    while not evaluating(model):
        model.turn_dataset()
        model.turn()
        model.finish(but=Evaluate)
    before = {name: record.cursor for name, record in model.records.items()}

    for _ in range(minutes):
        model.now += MINUTE
        model.change_source()
        for _ in range(4):
            model.turn_dataset()
            model.turn()
            model.finish(but=Evaluate)

    assert evaluating(model)
    assert ({name: record.cursor for name, record in model.records.items()} == before) is stays
    model.settle()
    assert {record.cursor.snapshot for record in model.records.values() if record.cursor} == {minutes + 1}


def test_without_gateways_a_candidate_that_gets_queries_goes_no_further() -> None:
    steps = [{"weight": 10}, {"pause": {"for": "10m"}}, {"weight": 100}]
    model = world(strategy={"steps": steps})
    model.edit(version="v8")
    model.settle()
    model.live(2 * MINUTE)
    model.gateways = []

    model.wait(11 * MINUTE)
    model.settle()

    assert model.weights == {"v7": 90, "v8": 10}
    assert "the operator knows none" in model.status.step.waiting_for


def slow(model: Model, minutes: int) -> None:
    """Let v8 answer some seven times as slowly as v7, for as long as both get queries."""
    for _ in range(minutes):
        for gateway in model.gateways:
            assert gateway.route is not None
            for entry in gateway.route.entries:
                latency = {latencies.bucket(0.07 if entry.version == "v8" else 0.01): 500}
                told = Minute(model.now.replace(second=0, microsecond=0), entry.index, Arm(500, 0, 0, latency))
                gateway.minutes = [*gateway.minutes, told][-40:]
        model.now += MINUTE
        model.settle()


@pytest.mark.parametrize(("ratio", "is_rejected"), [("1.5", True), ("90", False)])
def test_an_edit_of_how_slow_answers_may_be_is_what_they_are_judged_by(ratio: str, is_rejected: bool) -> None:
    model = world(gates={"latency": {"p95RatioAtMost": "1.4"}}, strategy=ASKED)
    model.edit(version="v8")
    model.settle()
    slow(model, 2)

    model.edit(gates={"latency": {"p95RatioAtMost": ratio}})
    slow(model, 8)

    known = model.streams.guard(Signal.LATENCY)
    assert known is None or known.ratio == float(ratio)
    assert bool(model.facts.rejected) is is_rejected


def test_an_evaluation_of_a_snapshot_that_is_gone_does_not_stand() -> None:
    model = pausing()
    seen = model.see()
    assert model.facts.rollout is not None and model.evaluation is not None
    candidate = model.facts.get(model.facts.rollout.index)
    assert candidate is not None
    found = dataclasses.replace(model.evaluation, documents=200, snapshot=1)
    each = dataclasses.replace(b.embedded(1)[0], changes={"unchanged": 200}, documents=200)

    def stands(*numbers: int) -> bool:
        kept = tuple(dataclasses.replace(each, snapshot=number) for number in numbers)
        view = dataclasses.replace(seen.dataset, embedded={**seen.dataset.embedded, candidate.recipe: kept})
        known = dataclasses.replace(seen, dataset=view, evaluation=found)
        pair, queries = Pair(candidate, model.facts.serving), known.query_sets["papers-eval"]
        return gates.standing(known, "nDCG@10", queries, pair, model.now) is not None

    assert stands(1) and stands(1, 2, 3)
    assert not stands(60)


def test_an_abort_of_what_serves_brings_back_nothing_that_was_rejected() -> None:
    model = burning_in()
    model.errors = {"v8": 1.0}
    model.live(8 * MINUTE)
    assert model.weights == {"v7": 100} and [r.version for r in model.facts.rejected] == ["v8"]

    model.decide("Abort", version="v7")
    model.settle()

    assert model.weights == {"v7": 100}


def test_the_step_of_what_a_person_keeps_queries_off_is_none() -> None:
    model = pausing()
    model.decide("Abort")
    model.settle()

    assert model.status.step is None


def test_a_wait_that_stands_still_has_no_end_in_the_past() -> None:
    model = pausing()
    model.edit(suspend=True)
    model.settle()
    model.wait(2 * b.DAY)
    model.settle()

    step = model.status.step
    assert step is not None and (step.deadline, step.until) == (None, None)


def test_a_person_lets_the_first_index_of_all_pass_though_its_canaries_were_not_asked() -> None:
    model = Model(spec={"version": "v7", "gates": fleet.CANARIES})
    model.query_sets = {}
    model.settle()
    assert model.weights == {} and model.status.step.name == Stage.GATES
    made = model.decide(answers="canaries", version="v7")

    model.settle()

    assert model.weights == {"v7": 100}
    assert model.facts.used == (made.uid,)


def test_a_gateway_that_is_not_ready_tells_nothing_of_a_shadow() -> None:
    model = world()
    model.edit(version="v8")
    model.settle()
    model.live(MINUTE)
    seen = model.see()
    assert seen.facts.shadow is not None
    index = seen.facts.shadow.index
    told = dataclasses.replace(seen.gateways[0], shadowed=Shadowed(index, 5000, 0, 5000))
    older = dataclasses.replace(seen.gateways[1], is_ready=False, shadowed=Shadowed(index, 10, 990, 10))
    candidate = seen.facts.get(index)
    assert candidate is not None

    found = gates.shadow_queries_speak_for_all(
        dataclasses.replace(seen, gateways=(told, older)), Pair(candidate, seen.facts.serving), model.now
    )

    assert found is not None and (found.verdict, found.samples) == (Verdict.PASSED, 5000)
