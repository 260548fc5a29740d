"""Shifts of scores, day by day."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from pointsman.core import shifts
from pointsman.core.shifts import Day, Share, State, Watch


def day(rng: np.random.Generator, middle: float = 0.6, sessions: int = 2000) -> Day:
    scores = rng.normal(middle, 0.1, sessions)
    bins, counts = np.unique((np.clip(scores, -1, 0.999) * 128 + 128).astype(int), return_counts=True)
    return Day(sessions, {int(number): int(count) for number, count in zip(bins, counts, strict=True)})


def started(rng: np.random.Generator, sessions: int = 2000) -> Watch:
    watch = shifts.watch([day(rng, sessions=sessions) for _ in range(14)])
    assert watch is not None
    return watch


@pytest.mark.parametrize(
    ("cosine", "number"),
    [
        (-1.1, 0),
        (-1.00001, 0),
        (-1.0, 0),
        (0.0, 128),
        (0.0077, 128),
        (0.0079, 129),
        (0.999, 255),
        (1.0, 255),
        (1.00001, 255),
        (1.1, 255),
    ],
)
def test_a_cosine_falls_into_one_of_256_bins(cosine: float, number: int) -> None:
    assert shifts.score_bin(cosine) == number


def test_a_baseline_is_fourteen_days_of_500_sessions() -> None:
    rng = np.random.default_rng(1)
    days = [day(rng) for _ in range(13)]

    assert shifts.watch([*days, day(rng, sessions=499)]) is None
    assert shifts.watch([*days, Day(500, {})]) is None
    assert shifts.watch([*days, day(rng, sessions=499), day(rng, sessions=500)]) is not None


def test_the_shares_are_those_below_and_above_the_baselines_quantiles() -> None:
    watch = started(np.random.default_rng(2))

    # As near as the width of a bin allows.
    shares = [math.sin(angle / 2) ** 2 for angle in watch.usual]
    assert shares == pytest.approx([0.05, 0.5, 0.05], abs=0.03)
    assert watch.state is State.UNKNOWN


def test_days_like_the_baseline_are_steady() -> None:
    rng = np.random.default_rng(3)
    watch = started(rng)
    for _ in range(365):
        watch = shifts.follow(watch, day(rng))
        assert watch.state is State.STEADY


@pytest.mark.parametrize(
    ("middle", "share", "sign"), [(0.56, Share.BELOW_Q50, 1), (0.5, Share.BELOW_Q05, 1), (0.7, Share.ABOVE_Q95, 1)]
)
def test_a_shift_is_seen_within_a_week(middle: float, share: Share, sign: int) -> None:
    rng = np.random.default_rng(4)
    watch = started(rng)
    for _ in range(7):
        watch = shifts.follow(watch, day(rng, middle))

    assert watch.state is State.SHIFTED
    assert share in watch.shifted
    assert watch.shifts[share] * sign >= 0.05


def test_a_small_shift_is_none_however_certain() -> None:
    rng = np.random.default_rng(5)
    watch = started(rng, sessions=20_000)
    for _ in range(60):
        watch = shifts.follow(watch, day(rng, 0.593, sessions=20_000))

    assert 0.02 < watch.shifts[Share.BELOW_Q50] < 0.05
    assert watch.state is State.STEADY


def test_a_day_with_too_few_sessions_is_unknown_and_moves_nothing() -> None:
    rng = np.random.default_rng(6)
    before = shifts.follow(started(rng), day(rng))

    after = shifts.follow(before, day(rng, 0.1, sessions=499))

    assert after.state is State.UNKNOWN
    assert (after.averages, after.days) == (before.averages, before.days)
    assert shifts.follow(after, day(rng)).state is State.STEADY


def test_fourteen_days_that_agree_to_the_last_do_not_make_the_next_one_a_shift() -> None:
    same = Day(500, {190: 30, 200: 440, 205: 10, 210: 20})
    watch = shifts.watch([same] * 14)
    assert watch is not None

    assert min(watch.spreads) == pytest.approx(1 / math.sqrt(500))
    assert shifts.follow(watch, Day(500, {190: 40, 200: 430, 205: 10, 210: 20})).state is State.STEADY


def test_a_watch_is_kept_as_json() -> None:
    watch = started(np.random.default_rng(7))

    kept = json.loads(json.dumps(dataclasses.asdict(watch)))

    assert Watch(**{name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()}) == watch


def test_a_baseline_of_a_fortnight_makes_one_false_alarm_a_year_at_the_most() -> None:
    rng = np.random.default_rng(8)
    alarms, years = 0, 100
    for _ in range(years):
        # Days that differ by much more than their sessions do, so that the least shift protects from nothing.
        middles = iter(rng.normal(0.6, 0.03, 14 + 365))
        watch = shifts.watch([day(rng, next(middles), 600) for _ in range(14)])
        assert watch is not None
        was = State.STEADY
        for middle in middles:
            watch = shifts.follow(watch, day(rng, middle, 600))
            alarms += watch.state is State.SHIFTED and was is State.STEADY
            was = watch.state

    assert alarms <= years
