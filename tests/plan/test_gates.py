"""What each gate says of each thing that can be found, and what becomes of it: the verdicts, and what latches."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.fleet import FakeGateway
from tests.plan.model import Model

from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import Verdict
from pointsman.core import guards
from pointsman.core.guards import Arm, Signal
from pointsman.plan import deployment, gates, words
from pointsman.plan.actions import RecordFacts
from pointsman.plan.facts import Facts, Rollout, Shadow
from pointsman.plan.gates import Finding, Pair
from pointsman.plan.measured import Streams
from pointsman.plan.observed import Deployment, Embedded, Physical, Presence, QueriesView
from pointsman.plan.reported import Gateway, Shadowed
from pointsman.plan.tasks import AskCanaries, Evaluate, Probe, Side

PASSED, FAILED, INCONCLUSIVE, ERROR = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.ERROR
MINUTE = timedelta(minutes=1)
NAN = math.nan
PAIR = Pair(b.candidate(), b.serving())
ALL = fleet.EVALUATED | fleet.CANARIES | {"latency": {"p95RatioAtMost": "1.5"}}


def compared(**changes: Any) -> Deployment:
    """v7 serves, v8 is whole beside it, and all gates are asked for."""
    values: dict[str, Any] = {
        "spec": b.spec("v8", gates=ALL),
        "records": {"v8": b.record()},
        "physical": {"v8": b.present()},
        "query_sets": fleet.sets(),
        "gateways": (fleet.gateway(),),
    }
    return b.deployment(b.serving(), b.candidate(), **{**values, **changes})


def found(seen: Deployment, gate: str, pair: Pair = PAIR, at: datetime = b.NOW) -> Finding | None:
    return next((f for f in gates.findings(seen, seen.facts, pair, at) if f.gate == gate), None)


def view(**changes: Any) -> dict[str, QueriesView]:
    return fleet.sets(**{"papers-eval": fleet.queries(**changes)})


def later(changed: int) -> Any:
    """Another snapshot of v8, with so many of its documents changed."""
    after = Embedded(13, 13, 100, 113, "d13", changes={"updated": changed, "unchanged": 100 - changed})
    return b.view(
        embedded={b.V7.key: b.embedded(11, 12), b.V8.key: (*b.embedded(11, 12), after)},
        snapshots=b.snapshots(11, 12, 13),
    )


READ = "s/q1"
"""What the query sets of `fleet` read, and held."""
V7 = Side("v7", "v7", b.V7.key)
TASK = Evaluate(
    b.DEPLOYMENT, "papers", "evaluation", "papers-eval", "nDCG@10", Side("v8", "v8", b.V8.key), V7, 12, queries=READ
)
ASKING = AskCanaries(b.DEPLOYMENT, "papers", "papers-canaries", 5, Side("v8", "v8", b.V8.key), V7, 12, READ)
ALONE = fleet.evaluation((None, None, None), serving="", value=0.5)
"""What v8 was found to be where nothing was asked beside it."""
NOT_YET = "not measured yet; nDCG@10 by 700 groups detects a fall of 0.019 with 80 % power"

EVALUATION: dict[str, tuple[dict[str, Any], Verdict, str]] = {
    "no worse": (
        {"evaluation": fleet.evaluation()},
        PASSED,
        "nDCG@10 rose by 0.004 (-0.004 to +0.012) over 700 groups; policy allows a fall of 0.02",
    ),
    "no worse, to the last digit": ({"evaluation": fleet.evaluation((0.0, -0.02, 0.02))}, PASSED, "nDCG@10 rose by"),
    "worse": (
        {"evaluation": fleet.evaluation(fleet.FAILS)},
        FAILED,
        "nDCG@10 fell by 0.041 (-0.052 to -0.030) over 700 groups, policy allows a fall of 0.02",
    ),
    "as bad as allowed, to the last digit": (
        {"evaluation": fleet.evaluation((-0.03, -0.04, -0.02))},
        INCONCLUSIVE,
        "nDCG@10 fell by 0.030",
    ),
    "neither": (
        {"evaluation": fleet.evaluation(fleet.UNDECIDED)},
        INCONCLUSIVE,
        "nDCG@10 fell by 0.019 (-0.040 to +0.002) over 700 groups; policy allows a fall of 0.02, the set detects "
        "0.020: judge more queries, or approve `evaluation`",
    ),
    "a difference that is no number": ({"evaluation": fleet.evaluation((NAN, -0.01, 0.01))}, ERROR, "is not a number"),
    "a bound that is no number": ({"evaluation": fleet.evaluation((0.0, NAN, 0.01))}, ERROR, "is not a number"),
    "a bound without end": ({"evaluation": fleet.evaluation((0.0, -0.01, math.inf))}, ERROR, "is not a number"),
    "a measurement without a comparison": (
        {"evaluation": fleet.evaluation((None, None, None))},
        ERROR,
        "is not a number",
    ),
    "nothing": ({}, INCONCLUSIVE, NOT_YET),
    "too old": ({"evaluation": fleet.evaluation(measured_at=b.NOW - 25 * b.HOUR)}, INCONCLUSIVE, NOT_YET),
    "too old, though it had failed": (
        {"evaluation": fleet.evaluation(fleet.FAILS, measured_at=b.NOW - 25 * b.HOUR)},
        INCONCLUSIVE,
        NOT_YET,
    ),
    "as old as it may be": ({"evaluation": fleet.evaluation(measured_at=b.NOW - 24 * b.HOUR)}, PASSED, "rose"),
    "of other content of the set": ({"evaluation": fleet.evaluation(digest="q0")}, INCONCLUSIVE, NOT_YET),
    "of another metric": ({"evaluation": fleet.evaluation(metric="RR@10")}, INCONCLUSIVE, NOT_YET),
    "of another candidate": ({"evaluation": fleet.evaluation(candidate="v9")}, INCONCLUSIVE, NOT_YET),
    "beside another index": ({"evaluation": fleet.evaluation(serving="v6")}, INCONCLUSIVE, NOT_YET),
    "of other content": (
        {"evaluation": fleet.evaluation(documents=100), "dataset": later(1)},
        INCONCLUSIVE,
        NOT_YET,
    ),
    "of nearly this content": (
        {"evaluation": fleet.evaluation(documents=101), "dataset": later(1)},
        PASSED,
        "rose",
    ),
    "it could not be measured": (
        {"work": (b.failed(TASK, message="the model does not answer"),)},
        ERROR,
        "the model does not answer",
    ),
    "it could not be measured again, and what stands stands": (
        {"evaluation": fleet.evaluation(), "work": (b.failed(TASK),)},
        PASSED,
        "rose",
    ),
    "too few groups, though much better": (
        {"evaluation": fleet.evaluation((0.2, 0.1, 0.3), groups=49), "query_sets": view(groups=49)},
        INCONCLUSIVE,
        "over 49 groups; 50 groups or more are wanted",
    ),
    "too few groups, though much worse": (
        {"evaluation": fleet.evaluation((-0.2, -0.3, -0.1), groups=49)},
        INCONCLUSIVE,
        "50 groups or more are wanted",
    ),
    "a set of too few groups, before anything is built": (
        {"query_sets": view(groups=7)},
        INCONCLUSIVE,
        "not measured yet; nDCG@10 needs 50 groups of judged queries or more, the set has 7",
    ),
    "a set that lacks queries for the policy, before anything is built": (
        {"query_sets": view(groups=100)},
        INCONCLUSIVE,
        "by 100 groups detects a fall of 0.050 with 80 % power; 619 would detect 0.02",
    ),
    "a policy of nothing at all": (
        {"spec": b.spec("v8", gates={"evaluation": {"querySetRef": {"name": "papers-eval"}, "notWorseBy": "0"}})},
        INCONCLUSIVE,
        "a policy of 0 needs no loss at all in sight",
    ),
    "holes may explain it": (
        {"evaluation": fleet.evaluation(fleet.FAILS, pooled=True, condensed_high=-0.01, judged=0.8, other_judged=0.95)},
        INCONCLUSIVE,
        "groups, judged@10 0.80 beside 0.95, which unjudged documents may explain: judge what `pointsman judge` lists",
    ),
    "holes do not explain it": (
        {"evaluation": fleet.evaluation(fleet.FAILS, pooled=True, condensed_high=-0.03, judged=0.8, other_judged=0.95)},
        FAILED,
        "fell by 0.041",
    ),
    "as many holes as before": (
        {
            "evaluation": fleet.evaluation(
                fleet.FAILS, pooled=True, condensed_high=-0.01, judged=0.92, other_judged=0.95
            )
        },
        FAILED,
        "fell by 0.041",
    ),
    "the set is not there": (
        {"evaluation": fleet.evaluation(), "query_sets": {}},
        ERROR,
        "QuerySet papers-eval is not there; create it, or take the gate away",
    ),
    "the set was deleted": (
        {"query_sets": fleet.sets(**{"papers-eval": QueriesView(exists=False)})},
        ERROR,
        "QuerySet papers-eval is not there",
    ),
    "the set cannot be read": (
        {"query_sets": fleet.sets(**{"papers-eval": QueriesView(exists=True, problem="line 3 is no query")})},
        ERROR,
        "QuerySet papers-eval: line 3 is no query",
    ),
    "the set is being read": (
        {"query_sets": fleet.sets(**{"papers-eval": QueriesView(exists=True)})},
        INCONCLUSIVE,
        "QuerySet papers-eval is being read",
    ),
    "what serves is broken, and the fix was not asked alone yet": (
        {"records": {"v8": b.record(), "v7": b.record(differences=3)}, "work": (b.failed(b.repair()),)},
        INCONCLUSIVE,
        "not measured yet; v8 is asked alone, as v7 is broken",
    ),
    "what serves is broken, which keeps no fix away": (
        {
            "records": {"v8": b.record(), "v7": b.record(differences=3)},
            "work": (b.failed(b.repair()),),
            "evaluation": ALONE,
        },
        PASSED,
        "nDCG@10 is 0.500 over 700 groups, with nothing whole to compare with: v7 is broken",
    ),
    "what serves is miscounted, which keeps no fix away": (
        {
            "physical": {"v8": b.present(), "v7": Physical(Presence.PRESENT, 7)},
            "work": (b.failed(b.check()),),
            "evaluation": ALONE,
        },
        PASSED,
        "v7 is broken",
    ),
    "what serves is broken, and the fix finds nothing either": (
        {
            "records": {"v8": b.record(), "v7": b.record(differences=3)},
            "work": (b.failed(b.repair()),),
            "evaluation": dataclasses.replace(ALONE, value=0.0),
        },
        INCONCLUSIVE,
        "nDCG@10 is 0.000 over 700 groups",
    ),
    "what serves is broken, and what the fix was found to be is no number": (
        {
            "records": {"v8": b.record(), "v7": b.record(differences=3)},
            "work": (b.failed(b.repair()),),
            "evaluation": dataclasses.replace(ALONE, value=NAN),
        },
        ERROR,
        "nDCG@10 is nan over 700 groups",
    ),
    "what serves is broken since the fix was found to be worse": (
        {
            "records": {"v8": b.record(), "v7": b.record(differences=3)},
            "work": (b.failed(b.repair()),),
            "evaluation": fleet.evaluation(fleet.FAILS),
        },
        FAILED,
        "fell by 0.041",
    ),
    "what serves is broken since neither was found": (
        {
            "records": {"v8": b.record(), "v7": b.record(differences=3)},
            "work": (b.failed(b.repair()),),
            "evaluation": fleet.evaluation(fleet.UNDECIDED),
        },
        INCONCLUSIVE,
        "not measured yet; v8 is asked alone, as v7 is broken",
    ),
    "the fix was asked alone, and what serves is whole": ({"evaluation": ALONE}, INCONCLUSIVE, NOT_YET),
    "what serves is being repaired, which is waited for": (
        {"records": {"v8": b.record(), "v7": b.record(differences=3)}},
        INCONCLUSIVE,
        "not measured yet; v7 is not whole just now",
    ),
}


@pytest.mark.parametrize(("changes", "verdict", "said"), EVALUATION.values(), ids=EVALUATION.keys())
def test_evaluation(changes: dict[str, Any], verdict: Verdict, said: str) -> None:
    finding = found(compared(**changes), "evaluation")

    assert finding is not None
    assert (finding.verdict, said in finding.message) == (verdict, True), finding.message


def test_a_verdict_carries_all_its_numbers() -> None:
    finding = found(compared(evaluation=fleet.evaluation(fleet.FAILS, interval=(-0.054, -0.028))), "evaluation")

    assert finding is not None
    said = finding.status("v8")
    assert (said.value, said.wanted, said.interval) == ("-0.041", "-0.02 or more", "-0.054 to -0.028")
    assert (said.samples, said.measured_at, said.version) == (700, b.NOW - MINUTE, "v8")


CANARIES: dict[str, tuple[dict[str, Any], Verdict, str]] = {
    "all are found": (
        {"canaries": fleet.canaries()},
        PASSED,
        "all 5 canaries find their documents in the first 5",
    ),
    "one is not": (
        {"canaries": fleet.canaries(4)},
        FAILED,
        "4 of 5 canaries find their documents in the first 5, wanted all",
    ),
    "inside one space other documents are found": (
        {"canaries": fleet.canaries(overlap=0.79)},
        FAILED,
        "the first 5 documents overlap by 0.79, 0.8 is wanted",
    ),
    "inside one space nearly the same": ({"canaries": fleet.canaries(overlap=0.8)}, PASSED, "all 5"),
    "no more what it found at first": (
        {"canaries": fleet.canaries(kept=0.79, pinned_at=b.NOW - b.DAY)},
        FAILED,
        "the first 5 documents overlap by 0.79 with its own of 2026-02-28 12:00 UTC, 0.8 is wanted",
    ),
    "nearly what it found at first": ({"canaries": fleet.canaries(kept=0.8)}, PASSED, "all 5"),
    "first answers whose overlap is no number": ({"canaries": fleet.canaries(kept=NAN)}, ERROR, "overlap by nan with"),
    "an overlap that is no number": ({"canaries": fleet.canaries(overlap=NAN)}, ERROR, "overlap by nan"),
    "nothing": ({}, INCONCLUSIVE, "not measured yet; the canaries were not asked yet"),
    "of another content of the set": ({"canaries": fleet.canaries(digest="q0")}, INCONCLUSIVE, "not measured yet"),
    "to another depth": ({"canaries": fleet.canaries(k=10)}, INCONCLUSIVE, "not measured yet"),
    "of another index": ({"canaries": fleet.canaries(candidate="v9")}, INCONCLUSIVE, "not measured yet"),
    "of other content": (
        {"canaries": fleet.canaries(documents=100), "dataset": later(1)},
        INCONCLUSIVE,
        "not measured yet",
    ),
    "they could not be asked": (
        {"work": (b.failed(ASKING, message="the model does not answer"),)},
        ERROR,
        "the model does not answer",
    ),
    "the set is not there": ({"query_sets": {}}, ERROR, "QuerySet papers-canaries is not there"),
}


@pytest.mark.parametrize(("changes", "verdict", "said"), CANARIES.values(), ids=CANARIES.keys())
def test_canaries(changes: dict[str, Any], verdict: Verdict, said: str) -> None:
    finding = found(compared(**changes), "canaries")

    assert finding is not None
    assert (finding.verdict, said in finding.message) == (verdict, True), finding.message


PARITY: dict[str, tuple[dict[str, Any], Verdict, str]] = {
    "everything is there": ({}, PASSED, "all 112 rows are there"),
    "nothing was verified": ({"records": {"v8": None}}, INCONCLUSIVE, "v8 is not complete yet"),
    "rows differ": (
        {"records": {"v8": b.record(differences=3)}},
        INCONCLUSIVE,
        "3 of 112 rows differ from the snapshot; they are being repaired",
    ),
    "rows are missing": (
        {"physical": {"v8": Physical(Presence.PRESENT, 111)}},
        INCONCLUSIVE,
        "111 rows were counted, its snapshot has 112; they are being compared",
    ),
    "the database does not answer": ({"physical": {"v8": b.UNKNOWN}}, ERROR, "no answer"),
}


@pytest.mark.parametrize(("changes", "verdict", "said"), PARITY.values(), ids=PARITY.keys())
def test_parity(changes: dict[str, Any], verdict: Verdict, said: str) -> None:
    finding = found(compared(**changes), "parity")

    assert finding is not None
    assert (finding.verdict, finding.message) == (verdict, said)


LATELY = b.NOW - timedelta(minutes=5)
PROBE = Probe(b.DEPLOYMENT, "papers", Side("v8", "v8", b.V8.key))
MODEL: dict[str, tuple[dict[str, Any], Verdict, str]] = {
    "unchanged when it was embedded": ({}, PASSED, "it was unchanged when snapshot 12 was embedded"),
    "not embedded": ({"dataset": b.view(embedded={})}, INCONCLUSIVE, "v8 is not embedded yet"),
    "unchanged": (
        {"evaluation": fleet.evaluation(model_distance=0.0004)},
        PASSED,
        "the pinned texts moved by 0.0004, 0.01 is allowed",
    ),
    "changed": (
        {"evaluation": fleet.evaluation(model_distance=0.4)},
        FAILED,
        "the model has changed: its pinned texts moved by 0.4000, 0.01 is allowed",
    ),
    "no number": (
        {"evaluation": fleet.evaluation(model_distance=NAN)},
        ERROR,
        "the distance of the pinned texts is not a number",
    ),
    "of another pair": ({"evaluation": fleet.evaluation(candidate="v9", model_distance=0.4)}, PASSED, "it was"),
    "asked without an evaluation, and unchanged": (
        {"probes": {"v8": b.probe("v8", model_distance=0.0004, measured_at=LATELY)}},
        PASSED,
        "the pinned texts moved by 0.0004, 0.01 is allowed",
    ),
    "asked without an evaluation, and changed": (
        {"probes": {"v8": b.probe("v8", model_distance=0.4, measured_at=LATELY)}},
        FAILED,
        "the model has changed: its pinned texts moved by 0.4000, 0.01 is allowed",
    ),
    "asked later than by the evaluation": (
        {
            "evaluation": fleet.evaluation(model_distance=0.0004),
            "probes": {"v8": b.probe("v8", model_distance=0.4, measured_at=b.NOW)},
        },
        FAILED,
        "the model has changed",
    ),
    "changed when it was asked, and brought back before the snapshot was embedded": (
        {"probes": {"v8": b.probe("v8", model_distance=0.4, measured_at=b.NOW - b.HOUR)}},
        PASSED,
        "it was unchanged when snapshot 12 was embedded",
    ),
    "the model beside it has changed": (
        {"probes": {"v7": b.probe("v7", model_distance=0.4, measured_at=LATELY)}},
        PASSED,
        "it was unchanged when snapshot 12 was embedded",
    ),
    "it does not answer just now": ({"work": (b.failed(PROBE),)}, PASSED, "it was unchanged"),
    "it does not answer for two checks": (
        {"work": (b.failed(PROBE),), "dataset": b.view(embedded={b.V8.key: (b.embedded_at(3),)})},
        ERROR,
        "it could not be asked: " + b.failure().message,
    ),
}


@pytest.mark.parametrize(("changes", "verdict", "said"), MODEL.values(), ids=MODEL.keys())
def test_model(changes: dict[str, Any], verdict: Verdict, said: str) -> None:
    finding = found(compared(**changes), "model")

    assert finding is not None
    assert (finding.verdict, finding.message.startswith(said)) == (verdict, True), finding.message


def test_a_verdict_about_the_model_says_when_it_was_asked_last() -> None:
    embedded, probed = compared(), compared(probes={"v8": b.probe("v8", measured_at=LATELY)})

    times = [finding.measured_at for each in (embedded, probed) if (finding := found(each, "model")) is not None]

    assert times == [b.NOW - timedelta(minutes=10), LATELY]


# What live queries show. Each minute: queries, failed and empty ones of the candidate, and the bucket that they took.

LAST = int(b.NOW.timestamp() // 60)
FINE = Arm(1000, 0, 0, {10: 1000})


def streamed(
    signal: Signal, minutes: list[Arm], ends: int = LAST, pair_of: tuple[str, str] = ("v8", "v7")
) -> Deployment:
    guard = guards.guard(signal)
    for number, arm in enumerate(minutes):
        guard = guards.observe(guard, ends - len(minutes) + number, arm, FINE)
    return compared(streams=Streams(pair_of[0], pair_of[1], ends, (guard,)))


BAD = {
    Signal.ERRORS: Arm(1000, 400, 0, {10: 600}),
    Signal.EMPTY: Arm(1000, 0, 700, {10: 1000}),
    Signal.LATENCY: Arm(1000, 0, 0, {60: 1000}),
}
UNTRUE = Arm(10, 40, 0, {})
WATCHED: dict[str, tuple[list[str], Verdict]] = {
    "all is well for long": (["fine"] * 600, PASSED),
    "all is well for a moment": (["fine"] * 3, INCONCLUSIVE),
    "bad": (["bad"] * 30, FAILED),
    "bad, then fine: what has failed has failed": (["bad"] * 30 + ["fine"] * 600, FAILED),
    "nothing": ([], INCONCLUSIVE),
    "minutes without a query": (["nothing"] * 30, INCONCLUSIVE),
    "minutes that cannot be true": (["untrue"] * 30, INCONCLUSIVE),
    "too few queries": (["few"] * 3, INCONCLUSIVE),
}


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize(("minutes", "verdict"), WATCHED.values(), ids=WATCHED.keys())
def test_live_queries(signal: Signal, minutes: list[str], verdict: Verdict) -> None:
    arms = {"fine": FINE, "bad": BAD[signal], "nothing": Arm(), "untrue": UNTRUE, "few": Arm(2, 0, 0, {10: 2})}

    finding = found(streamed(signal, [arms[name] for name in minutes]), str(signal))

    assert finding is not None
    assert (finding.verdict, finding.is_awaited) == (verdict, False), finding.message


@pytest.mark.parametrize("signal", Signal)
def test_live_queries_of_long_ago_say_nothing_of_today(signal: Signal) -> None:
    finding = found(streamed(signal, [FINE] * 600, ends=LAST - 60), str(signal))

    assert finding is not None and finding.verdict is INCONCLUSIVE


@pytest.mark.parametrize("signal", Signal)
def test_live_queries_of_another_pair_say_nothing(signal: Signal) -> None:
    for pair in (("v9", "v7"), ("v8", "v6")):
        finding = found(streamed(signal, [BAD[signal]] * 30, pair_of=pair), str(signal))
        assert finding is not None and (finding.verdict, finding.samples) == (INCONCLUSIVE, 0)


def test_without_gateways_nobody_watches() -> None:
    seen = dataclasses.replace(streamed(Signal.ERRORS, [BAD[Signal.ERRORS]] * 30), gateways=())

    assert found(seen, "errors") is None


def test_gates_that_the_spec_does_not_ask_for_say_nothing() -> None:
    findings = gates.findings(seen := compared(spec=b.spec("v8")), seen.facts, PAIR, b.NOW)

    assert [finding.gate for finding in findings] == ["parity", "model", "errors", "empty"]


def test_a_first_index_has_nothing_to_be_compared_with() -> None:
    seen = b.deployment(b.candidate(), spec=b.spec("v8", gates=ALL), query_sets=fleet.sets(), facts=Facts())

    findings = gates.findings(seen, seen.facts, Pair(b.candidate(), None), b.NOW)

    assert [finding.gate for finding in findings] == ["parity", "model", "canaries"]


# What becomes of a verdict.

DIRECT: dict[str, Any] = {"steps": [{"weight": 10}, {"pause": {"for": "3h"}}, {"weight": 100}]}


def world(**strategy: Any) -> Model:
    """v8 is whole and wanted; nothing of it was judged yet."""
    spec = {"version": "v7", "strategy": DIRECT | strategy, "gates": fleet.EVALUATED}
    model = Model(gateways=[FakeGateway("g1")], spec=spec)
    model.settle()
    model.edit(version="v8")
    return model


def at_a_tenth(**strategy: Any) -> Model:
    model = world(**strategy)
    model.settle()
    assert model.weights == {"v8": 10, "v7": 90}
    return model


def judge_again(model: Model, verdict: tuple[float, float, float]) -> None:
    """Let the judged queries show something else of v8."""
    model.verdicts["v8"], model.evaluation = verdict, None


def goal(model: Model) -> tuple[ConditionType, Reason, str]:
    return b.goal(model.status)


BEFORE_ANY_WEIGHT: dict[str, tuple[tuple[float, float, float], dict[str, int], Reason]] = {
    "passed": (fleet.PASSES, {"v8": 10, "v7": 90}, Reason.PAUSED),
    "failed": (fleet.FAILS, {"v7": 100}, Reason.TARGET_REJECTED),
    "inconclusive": (fleet.UNDECIDED, {"v7": 100}, Reason.GATES_UNDECIDED),
    "no number": ((NAN, NAN, NAN), {"v7": 100}, Reason.GATES_UNDECIDED),
}


@pytest.mark.parametrize(("verdict", "weights", "reason"), BEFORE_ANY_WEIGHT.values(), ids=BEFORE_ANY_WEIGHT.keys())
def test_no_query_goes_where_a_gate_has_not_passed(
    verdict: tuple[float, float, float], weights: dict[str, int], reason: Reason
) -> None:
    model = world()
    model.verdicts["v8"] = verdict

    model.settle()

    assert (model.weights, goal(model)[1]) == (weights, reason)


@pytest.mark.parametrize("verdict", [fleet.UNDECIDED, (NAN, NAN, NAN)], ids=["inconclusive", "no number"])
def test_what_cannot_be_told_on_the_way_takes_nothing_back_and_nothing_on(verdict: tuple[float, float, float]) -> None:
    model = at_a_tenth()
    judge_again(model, verdict)

    model.settle()
    model.wait(3 * b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.GATES_UNDECIDED)


def test_a_gate_that_fails_during_a_pause_takes_all_queries_back_at_once() -> None:
    model = at_a_tenth()
    judge_again(model, fleet.FAILS)

    model.settle()

    assert model.weights == {"v7": 100}
    assert goal(model)[2] == (
        "serving v7 normally; v8 rejected: nDCG@10 fell by 0.041 (-0.052 to -0.030) over 700 groups, policy allows a "
        "fall of 0.02; a new spec.retry would try it again"
    )


def test_what_was_rejected_stays_so_though_it_would_pass_later() -> None:
    model = at_a_tenth()
    judge_again(model, fleet.FAILS)
    model.settle()

    judge_again(model, fleet.PASSES)
    model.edit(version="v7")
    model.settle()
    model.edit(version="v8")
    model.settle()
    model.wait(30 * b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_a_retry_is_judged_anew_and_not_by_what_had_rejected_it() -> None:
    model = at_a_tenth()
    judge_again(model, fleet.FAILS)
    model.settle()
    assert model.evaluation is not None
    model.evaluation = dataclasses.replace(model.evaluation, measured_at=model.now - timedelta(seconds=1))
    model.verdicts["v8"] = fleet.PASSES

    model.edit(retry="again")
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.PAUSED)


def test_a_model_that_is_swapped_in_a_pause_is_found_and_the_version_tried_again_once_it_is_back() -> None:
    model = at_a_tenth()
    model.moved["v8"] = 0.4
    model.wait(b.HOUR)
    model.settle()
    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)
    assert model.facts.rejected[0].message.startswith("the model has changed: its pinned texts moved by 0.4000")

    (rejected,) = (name for name, probe in model.probes.items() if probe.model_distance)
    model.probes[rejected] = b.probe(rejected, model_distance=0.4, measured_at=model.now - timedelta(seconds=1))
    del model.moved["v8"]
    model.edit(retry="again")
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.PAUSED)


def test_a_retry_that_fails_again_is_rejected_again() -> None:
    model = at_a_tenth()
    judge_again(model, fleet.FAILS)
    model.settle()
    model.wait(MINUTE)

    model.edit(retry="again")
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)
    assert [rejection.retry for rejection in model.facts.rejected] == ["", "again"]


def test_a_retry_is_watched_anew_by_live_queries() -> None:
    model = at_a_tenth()
    model.errors["v8"] = 0.5
    model.live(30 * MINUTE)
    assert model.weights == {"v7": 100} and "of the queries fail" in goal(model)[2]
    del model.errors["v8"]
    model.live(30 * MINUTE)

    model.edit(retry="again")
    model.settle()
    model.live(30 * MINUTE)

    assert model.weights == {"v8": 10, "v7": 90}


def test_queries_that_fail_act_during_a_pause() -> None:
    model = at_a_tenth()
    model.errors["v8"] = 0.5

    model.live(30 * MINUTE)

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_a_fault_of_both_versions_is_nobodys() -> None:
    model = at_a_tenth()
    model.errors |= {"v8": 0.5, "v7": 0.5}

    model.live(30 * MINUTE)

    assert model.weights == {"v8": 10, "v7": 90}


def test_a_hold_keeps_the_weights_until_a_person_lets_it_go_on_though_it_would_pass_later() -> None:
    model = at_a_tenth(onFailure="Hold")
    judge_again(model, fleet.FAILS)
    model.settle()
    held = (
        "v8 is held: nDCG@10 fell by 0.041 (-0.052 to -0.030) over 700 groups, policy allows a fall of 0.02; "
        "approve evaluation, abort it, or change spec.version; serving v8 10, v7 90"
    )
    assert goal(model) == (ConditionType.STALLED, Reason.HELD, held)
    assert b.said(model.status, ConditionType.AWAITING_APPROVAL)[0] == "True"

    judge_again(model, fleet.PASSES)
    model.wait(30 * b.HOUR)
    model.settle()
    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.HELD)
    model.decide(answers="evaluation")
    model.settle()

    assert model.weights == {"v8": 100}


def test_who_approves_what_failed_lets_it_pass_in_all_that_follows() -> None:
    model = at_a_tenth(onFailure="Hold")
    judge_again(model, fleet.FAILS)
    model.settle()

    model.decide(answers="evaluation")
    model.settle()
    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.PAUSED)
    model.wait(4 * b.HOUR)
    model.settle()

    assert model.weights == {"v8": 100}


def test_who_approves_one_gate_lets_no_other_pass() -> None:
    model = at_a_tenth(onFailure="Hold")
    judge_again(model, fleet.FAILS)
    model.settle()

    model.decide(answers="errors")
    model.settle()

    assert goal(model)[1] is Reason.HELD


def test_an_undecided_gate_that_a_person_lets_pass_still_acts_when_it_fails() -> None:
    model = world()
    model.verdicts["v8"] = fleet.UNDECIDED
    model.settle()
    model.decide(answers="evaluation")
    model.settle()
    assert model.weights == {"v8": 10, "v7": 90}

    judge_again(model, fleet.FAILS)
    model.settle()

    assert model.weights == {"v7": 100}


@pytest.mark.parametrize("decision", ["Abort", "Reject"])
def test_a_hold_is_ended_by_who_wants_the_version_no_more(decision: str) -> None:
    model = at_a_tenth(onFailure="Hold")
    judge_again(model, fleet.FAILS)
    model.settle()

    model.decide(decision, **({"answers": "evaluation"} if decision == "Reject" else {}))
    model.settle()

    assert model.weights == {"v7": 100}


# Deadlines.


def test_gates_that_stay_undecided_are_given_up_at_the_deadline() -> None:
    model = world()
    model.verdicts["v8"] = fleet.UNDECIDED
    model.settle()
    assert model.status.step is not None and model.status.step.deadline == model.now + 2 * b.HOUR

    model.wait(2 * b.HOUR - MINUTE)
    model.settle()
    assert model.facts.rejected == ()
    model.wait(MINUTE)
    model.settle()

    assert goal(model)[1] is Reason.TARGET_REJECTED
    assert "v8 rejected: step 0 took longer than it may: evaluation: " in goal(model)[2]


def test_a_deadline_that_is_held_names_what_lets_it_go_on() -> None:
    model = world(onFailure="Hold")
    model.gateways[0].is_late = True
    model.settle()
    model.wait(2 * b.HOUR)
    model.settle()
    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.HELD)
    assert "; approve deadline, abort it, or change spec.version; " in goal(model)[2]

    model.gateways[0].is_late = False
    model.settle()
    assert goal(model)[1] is Reason.HELD
    model.decide(answers="deadline")
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.PAUSED)


def test_time_that_a_person_took_counts_for_no_deadline() -> None:
    model = at_a_tenth(onFailure="Hold")
    model.wait(4 * b.HOUR)
    judge_again(model, fleet.UNDECIDED)
    model.settle()
    judge_again(model, fleet.FAILS)
    model.settle()
    assert goal(model)[1] is Reason.HELD
    model.wait(5 * b.HOUR)
    judge_again(model, fleet.UNDECIDED)
    model.decide(answers="evaluation")

    model.settle()

    assert model.weights == {"v8": 100}


ON_TIMEOUT: dict[str, tuple[str, dict[str, int], Reason]] = {
    "goes back": ("RollBack", {"v7": 100}, Reason.TARGET_REJECTED),
    "stays": ("Hold", {"v8": 10, "v7": 90}, Reason.HELD),
}


@pytest.mark.parametrize(("policy", "weights", "reason"), ON_TIMEOUT.values(), ids=ON_TIMEOUT.keys())
@pytest.mark.parametrize("on_failure", ["RollBack", "Hold"])
def test_who_is_not_answered_in_time(policy: str, weights: dict[str, int], reason: Reason, on_failure: str) -> None:
    steps = [
        {"weight": 10},
        {"approval": {"name": "go-wide", "timeout": "30h", "onTimeout": policy}},
        {"weight": 100},
    ]
    model = at_a_tenth(steps=steps, onFailure=on_failure)
    model.wait(30 * b.HOUR - MINUTE)
    model.settle()
    # A person's time is none of progressDeadline's.
    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.A_PERSON_IS_ASKED)

    model.wait(MINUTE)
    model.settle()

    assert (model.weights, goal(model)[1]) == (weights, reason)
    if policy == "Hold":
        assert "approve go-wide, abort it" in goal(model)[2]
        model.decide(answers="go-wide")
        model.settle()
        assert model.weights == {"v8": 100}


def test_a_pause_without_an_end_waits_a_week_for_its_answer_and_is_then_held() -> None:
    model = at_a_tenth(steps=[{"weight": 10}, {"pause": {"name": "look"}}, {"weight": 100}])
    assert goal(model)[2] == "v8 waits: paused until an Approval answers look; serving v8 10, v7 90"

    model.wait(7 * b.DAY)
    model.settle()
    assert (model.weights, goal(model)[1]) == ({"v8": 10, "v7": 90}, Reason.HELD)
    model.decide(answers="look")
    model.settle()

    assert model.weights == {"v8": 100}


def test_a_pause_with_a_name_is_ended_sooner_by_its_answer() -> None:
    model = at_a_tenth(steps=[{"weight": 10}, {"pause": {"name": "look", "for": "72h"}}, {"weight": 100}])

    model.decide(answers="look")
    model.settle()

    assert model.weights == {"v8": 100}


def test_a_long_pause_leaves_the_whole_deadline_to_what_follows() -> None:
    model = at_a_tenth()
    model.gateways[0].is_silent = True

    model.wait(3 * b.HOUR)
    model.settle()
    assert goal(model)[1] is Reason.ROUTE_NOT_ACCEPTED
    model.wait(2 * b.HOUR - MINUTE)
    model.settle()
    assert model.weights == {"v8": 10, "v7": 90}
    model.wait(MINUTE)
    model.settle()

    assert model.weights == {"v7": 100}


def test_a_candidate_that_does_not_become_whole_again_is_given_up_at_the_deadline() -> None:
    model = at_a_tenth()
    model.change_source()
    model.failing = {"Follow v8": b.failure()}
    name = next(index.name for index in model.facts.indexes if index.version == "v8")
    model.settle()
    model.records[name] = dataclasses.replace(model.records[name], pending=2)
    model.wait(3 * b.HOUR)
    model.settle()
    assert model.status.step is not None and model.status.step.deadline == model.now + 2 * b.HOUR
    assert "is not whole and current just now" in model.status.step.waiting_for

    for _ in range(24):
        model.wait(5 * MINUTE)
        model.settle()

    assert model.weights == {"v7": 100}


# Burn-in.


def promoted(**spec: Any) -> Model:
    model = world(steps=[])
    model.edit(burnIn={"for": "24h"}, **spec)
    model.settle()
    assert model.weights == {"v8": 100} and goal(model)[1] is Reason.BURNING_IN
    return model


def test_a_gate_that_fails_in_the_burn_in_takes_all_queries_back_and_rejects() -> None:
    model = promoted()
    judge_again(model, fleet.FAILS)

    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)
    assert b.said(model.status, ConditionType.ROLLBACK_READY)[0] == "False"


def test_queries_that_fail_in_the_burn_in_take_all_queries_back() -> None:
    model = promoted()
    model.errors["v8"] = 0.5

    model.live(40 * MINUTE, queries=10_000)

    assert model.weights == {"v7": 100}


def test_a_hold_in_the_burn_in_says_so_and_does_not_end() -> None:
    model = promoted(strategy={"onFailure": "Hold"})
    judge_again(model, fleet.FAILS)
    model.settle()
    model.wait(30 * b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v8": 100}, Reason.GATE_FAILED)
    assert goal(model)[2].startswith("serving v8@1, which is worse: nDCG@10 fell by 0.041")
    assert model.facts.burn_in is not None


def test_a_failure_with_nothing_to_go_back_to_is_said() -> None:
    model = promoted()
    judge_again(model, fleet.FAILS)
    name = next(index.name for index in model.facts.indexes if index.version == "v7")
    model.database[name].is_ours = False

    model.settle()

    assert model.weights == {"v8": 100}


def test_after_the_burn_in_a_failure_alerts_and_moves_nothing() -> None:
    model = promoted()
    model.wait(25 * b.HOUR)
    model.settle()
    judge_again(model, fleet.FAILS)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v8": 100}, Reason.GATE_FAILED)
    assert {gate.name: gate.verdict for gate in model.status.gates}["evaluation"] is FAILED


def test_a_burn_in_waits_for_its_queries_and_counts_them_through_a_restart() -> None:
    model = promoted()
    model.edit(burnIn={"for": "1m", "minQueries": 10_000})
    model.live(5 * MINUTE)
    assert goal(model)[2].startswith("serving v8@1, burning in until it has answered 10,000 queries, ")

    model.gateways[0].restart()
    model.settle()
    model.live(2 * MINUTE)
    assert goal(model)[1] is Reason.BURNING_IN
    model.live(8 * MINUTE)

    assert goal(model)[1] is Reason.UP_TO_DATE


def test_a_burn_in_begins_once_the_switch_is_served() -> None:
    model = world(steps=[])
    model.edit(burnIn={"for": "1h"})
    while model.facts.burn_in is None:
        model.gateways[0].is_late = True
        model.turn_dataset()
        model.turn()
        model.finish()
        model.gateways[0].is_late = model.facts.burn_in is not None
        model.gateways[0].look(model.uid, model.status.route, False)

    model.wait(30 * b.HOUR)
    model.turn()
    assert model.facts.burn_in is not None and model.facts.burn_in.accepted_at is None
    model.gateways[0].is_late = False
    model.settle()

    assert model.facts.burn_in is not None and model.facts.burn_in.accepted_at == model.now


# The first of all has nothing to be compared with, and must find what it must.

FIRST: dict[str, tuple[dict[str, Any], dict[str, int], ConditionType, Reason, str]] = {
    "not asked yet": (
        {},
        {},
        ConditionType.RECONCILING,
        Reason.GATES_UNDECIDED,
        "v7 waits: canaries: not measured yet; the canaries were not asked yet; nothing serves yet",
    ),
    "one finds nothing": (
        {"canaries": fleet.canaries(4, candidate="v7", serving="")},
        {},
        ConditionType.STALLED,
        Reason.GATE_FAILED,
        "v7 waits: canaries: 4 of 5 canaries find their documents in the first 5, wanted all; approve canaries to let "
        "it pass; nothing serves yet",
    ),
    "all find what they must": (
        {"canaries": fleet.canaries(candidate="v7", serving="")},
        {"v7": 100},
        ConditionType.READY,
        Reason.UP_TO_DATE,
        "serving v7@12",
    ),
}


@pytest.mark.parametrize(("changes", "weights", "holds", "reason", "said"), FIRST.values(), ids=FIRST.keys())
def test_a_first_index(
    changes: dict[str, Any], weights: dict[str, int], holds: ConditionType, reason: Reason, said: str
) -> None:
    spec = b.spec("v7", gates=ALL, strategy={"steps": fleet.ROAD})
    seen = b.deployment(
        b.candidate("v7", b.V7),
        spec=spec,
        records={"v7": b.record()},
        physical={"v7": b.present()},
        query_sets=fleet.sets(),
        **changes,
    )

    plan = deployment.plan(seen, b.NOW)

    known = next((a.facts for a in plan.actions if isinstance(a, RecordFacts)), seen.facts)
    assert (dict(known.weights), b.goal(plan.status)) == (weights, (holds, reason, said))
    if not weights:
        assert plan.status.step is not None and plan.status.step.name == "Gates"


ASKED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "both, once the candidate is whole": ({}, ["StartWork AskCanaries", "StartWork Evaluate"]),
    "not while one of the two moves": ({"work": (b.running(b.check()),)}, []),
    "not at two snapshots": ({"records": {"v8": b.record(11)}, "physical": {"v8": b.present(11)}}, []),
    "not where one of the two is about to follow": ({"dataset": later(1)}, []),
    "not while they are asked": (
        {"work": (b.running(TASK), b.running(ASKING))},
        [],
    ),
    "not before its time, where it failed": (
        {"work": (b.failed(TASK, generation=3), b.failed(ASKING, generation=3))},
        [],
    ),
    "again when its time has come": (
        {"work": (b.failed(TASK, generation=3, wait=timedelta(0)), b.failed(ASKING, generation=3))},
        ["StartWork Evaluate"],
    ),
    "again when the spec was edited": (
        {"work": (b.failed(TASK, generation=2), b.failed(ASKING, generation=2))},
        ["StartWork AskCanaries", "StartWork Evaluate"],
    ),
    "again when the query set holds other queries by now": (
        {
            "work": (b.failed(dataclasses.replace(TASK, queries="s/q0"), generation=3), b.failed(ASKING, generation=3)),
        },
        ["StartWork Evaluate"],
    ),
    "again when the query set reads elsewhere by now, though it holds the same": (
        {
            "work": (b.failed(TASK, generation=3), b.failed(dataclasses.replace(ASKING, queries="r/q1"), generation=3)),
        },
        ["StartWork AskCanaries"],
    ),
    "not what stands": ({"evaluation": fleet.evaluation(), "canaries": fleet.canaries()}, []),
    "again by the schedule of the set": (
        {
            "evaluation": fleet.evaluation(measured_at=b.NOW - 6 * b.HOUR),
            "canaries": fleet.canaries(),
            "query_sets": view(every="6h"),
        },
        ["StartWork Evaluate"],
    ),
    "canaries again by the schedule of their set": (
        {
            "evaluation": fleet.evaluation(),
            "canaries": fleet.canaries(measured_at=b.NOW - 6 * b.HOUR),
            "query_sets": fleet.sets(**{"papers-canaries": fleet.queries(5, every="6h")}),
        },
        ["StartWork AskCanaries"],
    ),
    "canaries not before the schedule of their set": (
        {
            "evaluation": fleet.evaluation(),
            "canaries": fleet.canaries(measured_at=b.NOW - 5 * b.HOUR),
            "query_sets": fleet.sets(**{"papers-canaries": fleet.queries(5, every="6h")}),
        },
        [],
    ),
    "not a set without queries": (
        {"query_sets": {"papers-eval": QueriesView(True), "papers-canaries": QueriesView(True)}},
        [],
    ),
}


@pytest.mark.parametrize(("changes", "wanted"), ASKED.values(), ids=ASKED.keys())
def test_what_is_asked(changes: dict[str, Any], wanted: list[str]) -> None:
    seen = compared(**{"gateways": (), "dataset": b.view(), **changes})

    found = [kind for kind in b.kinds(deployment.plan(seen, b.NOW).actions) if "Follow" not in kind]

    assert [kind for kind in found if kind != "RecordFacts" and kind != "PublishRoute"] == wanted


def test_a_failure_whose_way_back_is_broken_goes_back_once_it_is_mended() -> None:
    model = promoted()
    name = next(index.name for index in model.facts.indexes if index.version == "v7")
    judge_again(model, fleet.FAILS)
    model.turn()
    model.finish()
    model.database[name].missing = 3
    model.failing = {"Check v7": b.failure(), "Repair v7": b.failure()}
    model.settle()
    assert (model.weights, goal(model)[1]) == ({"v8": 100}, Reason.GATE_FAILED)

    judge_again(model, fleet.UNDECIDED)
    model.failing = {}
    model.wait(MINUTE)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v7": 100}, Reason.TARGET_REJECTED)


def test_a_failure_in_the_burn_in_that_a_person_lets_pass_is_asked_no_more() -> None:
    model = promoted(strategy={"onFailure": "Hold"})
    judge_again(model, fleet.FAILS)
    model.settle()
    asked = b.said(model.status, ConditionType.AWAITING_APPROVAL)
    assert asked[:2] == ("True", Reason.GATE_FAILED)

    model.decide(answers="evaluation")
    model.settle()
    assert goal(model)[1] is Reason.BURNING_IN
    model.wait(23 * b.HOUR)
    model.settle()
    model.wait(b.HOUR)
    model.settle()

    assert (model.weights, goal(model)[1]) == ({"v8": 100}, Reason.GATE_FAILED)


def test_a_rejected_version_that_answers_for_a_lost_one_is_not_proven_by_time() -> None:
    model = promoted()
    judge_again(model, fleet.FAILS)
    model.settle()
    assert model.weights == {"v7": 100}

    model.lose(next(index.name for index in model.facts.indexes if index.version == "v7"))
    model.settle()
    model.wait(30 * b.DAY)
    model.settle()

    assert model.weights == {"v8": 100}
    assert model.facts.serving is not None and model.facts.serving.proven_at is None
    assert model.facts.burn_in is None


def test_how_far_asking_has_come_is_said_in_queries() -> None:
    said = words.progress(b.running(TASK, done=40, total=700, rate=100.0))

    assert (said.done, said.total, said.unit, said.remaining) == (40, 700, "queries", "7s")


SHADOWED: dict[str, tuple[tuple[int, int], tuple[Verdict, bool]]] = {
    "nobody asked anything": ((0, 0), (INCONCLUSIVE, False)),
    "none was dropped": ((500, 0), (PASSED, True)),
    "one in a hundred was dropped": ((99, 1), (PASSED, True)),
    "more were dropped": ((98, 2), (INCONCLUSIVE, True)),
    "all were dropped": ((0, 40), (INCONCLUSIVE, True)),
}


@pytest.mark.parametrize(("counts", "wanted"), SHADOWED.values(), ids=SHADOWED.keys())
def test_dropped_shadow_queries_keep_queries_away_and_silence_does_not(
    counts: tuple[int, int], wanted: tuple[Verdict, bool]
) -> None:
    sent, dropped = counts
    facts = dataclasses.replace(
        b.deployment(b.serving(), b.candidate()).facts,
        rollout=Rollout("v8", "plan", b.NOW, b.NOW, step=1),
        shadow=Shadow("v8", 100),
    )
    gateway = Gateway("a", True, shadowed=Shadowed("v8", sent, dropped, sent))
    seen = b.deployment(facts=facts, gateways=(gateway,))

    found = gates.shadow_queries_speak_for_all(seen, Pair(b.candidate(), b.serving()), b.NOW)

    assert found is not None and (found.verdict, found.is_awaited) == wanted


def test_what_a_query_set_lacks_is_said_before_anything_is_built() -> None:
    seen = b.deployment(
        spec=b.spec("v8", gates={"evaluation": {"querySetRef": {"name": "papers-eval"}}}),
        query_sets=view(groups=412),
    )
    model = deployment.plan(seen, b.NOW)
    again = dataclasses.replace(seen, facts=next(a.facts for a in model.actions if isinstance(a, RecordFacts)))

    (gate,) = [gate for gate in deployment.plan(again, b.NOW).status.gates if gate.name == "evaluation"]

    assert (gate.verdict, gate.version) == (INCONCLUSIVE, "v8")
    assert "412 groups detects a fall of 0.024 with 80 % power; 619 would detect 0.02" in gate.message


def test_a_person_who_rejects_in_the_burn_in_sends_queries_back() -> None:
    model = promoted()
    model.decide("Reject", answers="evaluation")
    model.settle()

    assert model.weights == {"v7": 100}
    assert [(r.version, r.reason) for r in model.facts.rejected] == [("v8", Reason.REJECTED_BY_A_PERSON)]


def test_without_gateways_nobody_counts_queries_and_time_alone_ends_a_burn_in() -> None:
    model = promoted()
    model.edit(burnIn={"for": "1m", "minQueries": 10_000})
    model.gateways.clear()
    model.wait(2 * MINUTE)
    model.settle()

    assert goal(model)[1] is Reason.UP_TO_DATE
