"""Guards on live queries: what each minute teaches, what nothing teaches, and how often they err."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pointsman.core import guards
from pointsman.core.evaluation import Verdict
from pointsman.core.guards import Arm, Guard, Signal

HEALTHY = Arm(queries=200)
FAST = Arm(queries=200, latency={40: 200})
SLOW = Arm(queries=200, latency={60: 200})


def after(guard: Guard, minutes: int, candidate: Arm, control: Arm = HEALTHY) -> Guard:
    for minute in range(guard.minute + 1, guard.minute + 1 + minutes):
        guard = guards.observe(guard, minute, candidate, control)
    return guard


def until_failed(guard: Guard, candidate: Arm, control: Arm = HEALTHY) -> int:
    """Minutes until the guard fails."""
    for minute in range(1, 10_000):
        guard = guards.observe(guard, guard.minute + 1, candidate, control)
        if guard.has_failed:
            return minute
    raise AssertionError("never failed")


BAD = {
    Signal.ERRORS: (Arm(queries=200, errors=200), HEALTHY),
    Signal.EMPTY: (Arm(queries=200, empty=200), HEALTHY),
    Signal.LATENCY: (SLOW, FAST),
}
GOOD = {Signal.ERRORS: (HEALTHY, HEALTHY), Signal.EMPTY: (HEALTHY, HEALTHY), Signal.LATENCY: (FAST, FAST)}


@pytest.mark.parametrize("signal", Signal)
def test_a_version_that_fails_every_query_is_failed_within_three_minutes(signal: Signal) -> None:
    assert until_failed(guards.guard(signal), *BAD[signal]) <= 3


@pytest.mark.parametrize("signal", Signal)
def test_a_week_of_good_minutes_does_not_blind_a_guard(signal: Signal) -> None:
    assert until_failed(after(guards.guard(signal), 7 * 24 * 60, *GOOD[signal]), *BAD[signal]) <= 12


@pytest.mark.parametrize(("signal", "minutes"), [(Signal.ERRORS, 575), (Signal.EMPTY, 113), (Signal.LATENCY, 113)])
def test_good_minutes_alone_prove_after_hours_that_the_limit_is_kept(signal: Signal, minutes: int) -> None:
    almost = after(guards.guard(signal), minutes - 1, *GOOD[signal])

    assert almost.verdict(almost.minute) is Verdict.INCONCLUSIVE
    assert after(almost, 1, *GOOD[signal]).verdict(minutes) is Verdict.PASSED


# What is said after twenty such minutes: from the beginning, and once the limit had been shown to be kept.
@pytest.mark.parametrize(
    ("candidate", "control", "verdict", "later"),
    [
        pytest.param(Arm(queries=200, errors=10), HEALTHY, Verdict.FAILED, Verdict.FAILED, id="too many fail"),
        pytest.param(HEALTHY, HEALTHY, Verdict.INCONCLUSIVE, Verdict.PASSED, id="none fails"),
        pytest.param(Arm(), HEALTHY, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, id="no query came to the candidate"),
        pytest.param(HEALTHY, Arm(), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, id="no query came to the control"),
        pytest.param(Arm(), Arm(), Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, id="nobody asks"),
        pytest.param(
            Arm(queries=10, errors=11), HEALTHY, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, id="more failed than came"
        ),
        pytest.param(
            Arm(queries=-5), HEALTHY, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, id="fewer than no query came"
        ),
        pytest.param(
            Arm(queries=200, errors=math.nan),  # type: ignore[arg-type]
            HEALTHY,
            Verdict.INCONCLUSIVE,
            Verdict.INCONCLUSIVE,
            id="what failed is not a number",
        ),
        pytest.param(
            Arm(queries=200, errors=100),
            Arm(queries=200, errors=100),
            Verdict.INCONCLUSIVE,
            Verdict.INCONCLUSIVE,
            id="both fail alike",
        ),
    ],
)
def test_what_a_minute_may_hold_and_what_is_said_of_it(
    candidate: Arm, control: Arm, verdict: Verdict, later: Verdict
) -> None:
    fresh = after(guards.guard(Signal.ERRORS), 20, candidate, control)
    passed = after(after(guards.guard(Signal.ERRORS), 600, HEALTHY), 20, candidate, control)

    assert fresh.verdict(fresh.minute) is verdict
    assert passed.verdict(passed.minute) is later


def test_minutes_that_cannot_be_true_are_counted() -> None:
    found = after(guards.guard(Signal.ERRORS), 3, Arm(queries=1, errors=2))

    assert (found.unusable, found.count) == (3, 0)


def test_success_after_failure_does_not_take_it_back() -> None:
    failed = after(guards.guard(Signal.ERRORS), 10, Arm(queries=200, errors=200))

    later = after(failed, 5000, HEALTHY)

    assert later == failed
    assert later.verdict(1_000_000) is Verdict.FAILED


def test_a_version_that_was_shown_to_be_good_can_still_fail() -> None:
    passed = after(guards.guard(Signal.ERRORS), 600, HEALTHY)
    assert passed.verdict(passed.minute) is Verdict.PASSED

    assert after(passed, 20, Arm(queries=200, errors=100)).verdict(620) is Verdict.FAILED


def test_one_bad_minute_of_both_versions_takes_back_nothing_and_an_hour_of_them_does() -> None:
    passed = after(guards.guard(Signal.ERRORS), 10_000, HEALTHY)
    outage = Arm(queries=200, errors=200)

    assert after(passed, 1, outage, outage).verdict(10_000) is Verdict.PASSED
    assert after(passed, 60, outage, outage).verdict(10_059) is Verdict.INCONCLUSIVE


def test_what_was_shown_a_while_ago_is_not_said_of_today() -> None:
    passed = after(guards.guard(Signal.ERRORS), 600, HEALTHY)

    assert passed.verdict(599 + 15) is Verdict.PASSED
    assert passed.verdict(599 + 16) is Verdict.INCONCLUSIVE


def test_a_minute_is_learnt_from_once() -> None:
    once = guards.observe(guards.guard(Signal.ERRORS), 7, Arm(queries=200, errors=2), HEALTHY)

    assert guards.observe(once, 7, Arm(queries=200, errors=200), HEALTHY) == once
    assert guards.observe(once, 3, Arm(queries=200, errors=200), HEALTHY) == once


def test_minutes_with_few_queries_of_the_control_are_pooled_for_latency() -> None:
    control = Arm(queries=8, latency={40: 8})
    two = after(guards.guard(Signal.LATENCY), 2, SLOW, control)

    assert (two.count, two.pool) == (0, (SLOW + SLOW, control + control))
    three = after(two, 1, SLOW, control)
    assert (three.count, three.last, three.pool) == (1, 1.0, (Arm(), Arm()))


def test_latency_is_compared_with_the_control_of_the_same_minute() -> None:
    found = guards.guard(Signal.LATENCY)
    for minute in range(200):
        slower = {40 + minute % 30: 200}
        found = guards.observe(found, minute, Arm(queries=200, latency=slower), Arm(queries=200, latency=slower))

    assert (found.value, found.verdict(199)) == (0.0, Verdict.PASSED)


def test_a_query_that_failed_is_not_one_that_was_answered_with_nothing() -> None:
    found = guards.observe(guards.guard(Signal.EMPTY), 0, Arm(queries=200, errors=100, empty=50), HEALTHY)

    assert found.last == 0.5


def test_what_is_empty_in_both_versions_fails_neither() -> None:
    third = Arm(queries=300, empty=100)

    assert after(guards.guard(Signal.EMPTY), 1000, third, third).verdict(999) is Verdict.INCONCLUSIVE


def test_a_database_that_fails_both_versions_fails_neither() -> None:
    found = after(guards.guard(Signal.ERRORS), 60, HEALTHY)
    found = after(found, 60, Arm(queries=20, errors=20), Arm(queries=180, errors=180))

    assert found.verdict(found.minute) is Verdict.INCONCLUSIVE
    assert found.evidence < 1


def test_a_limit_that_cannot_be_tested_is_refused() -> None:
    for limit in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="wanted a share above 0 and below 1"):
            guards.guard(Signal.ERRORS, limit)


def test_a_guard_goes_on_after_a_restart_as_if_there_had_been_none() -> None:
    control = Arm(queries=8, latency={40: 7, 47: 1})
    before = after(guards.guard(Signal.LATENCY, 0.1), 41, Arm(queries=30, latency={44: 27, 55: 3}), control)

    restored = guards.from_json(json.loads(json.dumps(guards.to_json(before))))

    assert restored == before
    assert before.pool != (Arm(), Arm())
    assert guards.observe(restored, 99, SLOW, FAST) == guards.observe(before, 99, SLOW, FAST)


def test_shadow_queries_that_were_dropped_leave_the_rest_speaking_up_to_one_in_a_hundred() -> None:
    assert guards.is_whole(sent=990, dropped=10)
    assert not guards.is_whole(sent=989, dropped=11)
    assert not guards.is_whole(sent=0, dropped=0)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_failing_as_often_as_the_control_is_expected_to_win_nothing(of: int, control_of: int, data: Any) -> None:
    both = data.draw(st.integers(0, of + control_of))
    split = np.arange(max(0, both - control_of), min(both, of) + 1)

    chances = stats.hypergeom(of + control_of, of, both).pmf(split)
    wins = [guards._more_often(int(bad), of, int(both - bad), control_of) for bad in split]

    assert float(chances @ np.array(wins)) == pytest.approx(1.0, abs=1e-6)


Draw = Callable[[np.random.Generator], tuple[Arm, Arm]]


def binomial(of: int, share: float, control_of: int, control_share: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Arm, Arm]:
        return (
            Arm(queries=of, errors=int(rng.binomial(of, share))),
            Arm(queries=control_of, errors=int(rng.binomial(control_of, control_share))),
        )

    return draw


def in_bursts(rng: np.random.Generator) -> tuple[Arm, Arm]:
    """One minute in a hundred fails as a whole: 0.01 on average, as uneven as can be."""
    return Arm(queries=50, errors=50 * int(rng.random() < 0.01)), HEALTHY


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(binomial(20, 0.01, 180, 0.0), id="few queries, at the limit"),
        pytest.param(binomial(200, 0.01, 200, 0.0), id="many queries, at the limit"),
        pytest.param(in_bursts, id="bursts, at the limit on average"),
        pytest.param(binomial(180, 0.2, 20, 0.2), id="far above the limit, as the control is"),
        pytest.param(binomial(50, 0.2, 2, 0.2), id="as the control, of which little is seen"),
    ],
)
def test_looked_at_every_minute_a_good_version_is_failed_once_in_a_hundred_at_the_most(draw: Draw) -> None:
    rng = np.random.default_rng(11)
    failed = 0
    for _ in range(200):
        guard = guards.guard(Signal.ERRORS)
        for minute in range(120):
            guard = guards.observe(guard, minute, *draw(rng))
        failed += guard.has_failed

    # 7 of 200 would come by chance once in 200 times where the rate is 0.01.
    assert failed <= 6


def test_a_version_somewhat_above_the_limit_is_found_within_the_hour() -> None:
    rng = np.random.default_rng(12)
    for _ in range(20):
        guard = guards.guard(Signal.ERRORS)
        for minute in range(60):
            guard = guards.observe(guard, minute, *binomial(100, 0.03, 100, 0.001)(rng))
        assert guard.has_failed
