"""Have the scores of the best answers shifted since the version was promoted?

Queries change, documents change, and a model that nobody watches answers both less well: that shows in how near the
nearest answer is. Days are compared with the first fortnight, by three shares and with a chart that sums up small
shifts. A shift is a reason to look, and no verdict on quality.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

BINS: Final = 256
"""Bins of a histogram of cosines over [-1, 1], all of one width."""
SESSIONS: Final = 500
"""A day with fewer says nothing."""
BASELINE_DAYS: Final = 14
WEIGHT: Final = 0.2
"""λ: what the last day counts in the moving average."""
REACH: Final = 4.0
"""L: how many standard deviations the average may move; by simulation for one false alarm a year at the most, which
docs/operating-characteristics.md shows."""
LEAST_SHIFT: Final = 0.05
"""A share that moved less is no shift, however certain."""

Histogram = Mapping[int, int]
"""Bin -> queries, by the score of the best answer."""


class Share(StrEnum):
    """Which part of the scores is followed."""

    BELOW_Q05 = "below q05"
    """Scores below the baseline's 5th percentile: queries that find nothing near."""
    BELOW_Q50 = "below q50"
    """Scores below its median."""
    ABOVE_Q95 = "above q95"
    """Scores above its 95th percentile: queries that find themselves."""


class State(StrEnum):
    """What can be said of a day."""

    STEADY = "Steady"
    """The scores are as they were."""
    SHIFTED = "Shifted"
    """A share has moved by 0.05 or more, and by more than days differ."""
    UNKNOWN = "Unknown"
    """There is no baseline, or the day had too few sessions."""


@dataclass(frozen=True, slots=True)
class Day:
    """What the best answers of one day scored."""

    sessions: int
    scores: Histogram

    @property
    def is_enough(self) -> bool:
        """Whether the day says anything."""
        return self.sessions >= SESSIONS and sum(self.scores.values()) > 0


@dataclass(frozen=True, slots=True)
class Watch:
    """A baseline and where the averages stand; shares are in the order of `Share`.

    They are kept as angles, 2 arcsin √share, whose spread is the same for small shares as for large ones (Anscombe,
    Biometrika 35, 1948): the days of a small share lie so unevenly that a limit on the share itself alarms too often.
    """

    edges: tuple[int, ...]
    """The bins at which the shares are cut: those below the edge count as below it."""
    usual: tuple[float, ...]
    """The mean angles of the baseline."""
    spreads: tuple[float, ...]
    """Their standard deviation between its days."""
    averages: tuple[float, ...]
    """The moving averages of the angles."""
    days: int = 0
    """Days since the baseline that said something."""
    is_fresh: bool = False
    """Whether the last day said something."""

    @property
    def shares(self) -> dict[Share, tuple[float, float]]:
        """Each share as it was in the baseline, and as its moving average is now."""
        angles = zip(Share, self.usual, self.averages, strict=True)
        return {share: (_share(then), _share(now)) for share, then, now in angles}

    @property
    def shifts(self) -> dict[Share, float]:
        """By how much each share has moved."""
        return {share: now - then for share, (then, now) in self.shares.items()}

    @property
    def shifted(self) -> list[Share]:
        """The shares that have moved too far.

        The limit is that of an exponentially weighted moving average (Lucas and Saccucci, Technometrics 32, 1990) and
        of the error of the baseline's own mean, which is as large: without that a fortnight makes four false alarms a
        year.
        """
        moved = WEIGHT / (2 - WEIGHT) * (1 - (1 - WEIGHT) ** (2 * self.days))
        reach = REACH * math.sqrt(moved + 1 / BASELINE_DAYS)
        columns = zip(self.shifts.items(), self.averages, self.usual, self.spreads, strict=True)
        return [
            share
            for (share, shift), now, then, spread in columns
            if abs(shift) >= LEAST_SHIFT and abs(now - then) >= reach * spread
        ]

    @property
    def state(self) -> State:
        """What can be said after the last day."""
        if not self.is_fresh:
            return State.UNKNOWN
        return State.SHIFTED if self.shifted else State.STEADY


def score_bin(cosine: float) -> int:
    """Return the bin of a cosine; what lies outside by the last bits belongs to the outermost."""
    return min(BINS - 1, max(0, math.floor((cosine + 1) / 2 * BINS)))


def watch(days: Sequence[Day]) -> Watch | None:
    """Return a watch whose baseline is the first fourteen days that say something; None until there are as many."""
    baseline = [day for day in days if day.is_enough][:BASELINE_DAYS]
    if len(baseline) < BASELINE_DAYS:
        return None
    # Each day counts once, however busy it was.
    mean_day = np.mean([_cumulated(day) for day in baseline], axis=0)
    edges = tuple(int(np.searchsorted(mean_day, quantile - 1e-12)) + 1 for quantile in (0.05, 0.5, 0.95))
    angles = list(zip(*(_angles(day, edges) for day in baseline), strict=True))
    usual = tuple(statistics.fmean(column) for column in angles)
    # Fourteen days that agree by chance are not a promise that all will: sessions differ at the least.
    least = 1 / math.sqrt(min(day.sessions for day in baseline))
    spreads = tuple(max(statistics.stdev(column), least) for column in angles)
    return Watch(edges, usual, spreads, usual)


def follow(before: Watch, day: Day) -> Watch:
    """Return the watch after one more day; one that says nothing moves no average."""
    if not day.is_enough:
        return replace(before, is_fresh=False)
    averages = tuple(
        (1 - WEIGHT) * average + WEIGHT * angle
        for average, angle in zip(before.averages, _angles(day, before.edges), strict=True)
    )
    return replace(before, averages=averages, days=before.days + 1, is_fresh=True)


def _angles(day: Day, edges: Sequence[int]) -> tuple[float, float, float]:
    low, middle, high = (float(_cumulated(day)[edge - 1]) for edge in edges)
    return _angle(low), _angle(middle), _angle(1 - high)


def _angle(share: float) -> float:
    return 2 * math.asin(math.sqrt(min(1.0, max(0.0, share))))


def _share(angle: float) -> float:
    return math.sin(angle / 2) ** 2


def _cumulated(day: Day) -> npt.NDArray[np.float64]:
    """The share of scores in each bin and all below it."""
    counts = np.zeros(BINS)
    for number, count in day.scores.items():
        counts[number] += count
    cumulated: npt.NDArray[np.float64] = np.cumsum(counts) / counts.sum()
    return cumulated
