"""What is remembered of the scores of the best answers: numbers, by day, until they have been compared.

Dates are of UTC, as `2026-03-01`, and compare as texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pointsman.core import shifts
from pointsman.core.shifts import Day, Share, Watch
from pointsman.plan import facts


@dataclass(frozen=True, slots=True)
class Tally:
    """What one process of a gateway has told of one day."""

    sessions: int
    scores: shifts.Histogram

    @property
    def answers(self) -> int:
        """How many answers it is of; it only grows, so that the larger of two is the later."""
        return sum(self.scores.values())


@dataclass(frozen=True, slots=True)
class Shift:
    """Scores that have moved, as they were when that was seen: it is said once, and not again every day."""

    since: str
    """The first day on which they had."""
    shares: Mapping[Share, tuple[float, float]]
    """Which shares, from what to what."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of the scores of one recipe."""

    days: tuple[Day, ...] = ()
    """Those of the baseline, until it is whole."""
    watch: Watch | None = None
    is_quiet: bool = False
    """Whether the last day had too few sessions."""
    shift: Shift | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """All that is known of the scores of a deployment."""

    recipe: str = ""
    """The one that is followed: it serves alone, and every gateway has taken that on."""
    since: datetime | None = None
    """When that was first seen."""
    closed: str = ""
    """The last day that is over for good: what is told of it or of earlier ones later counts no more."""
    open: Mapping[str, Mapping[str, Tally]] = field(default_factory=dict)
    """Day -> process of a gateway -> what it has told, for the days after that."""
    watched: Mapping[str, Watched] = field(default_factory=dict)
    """By recipe."""
    written_at: datetime | None = None


def to_json(scores: Scores) -> dict[str, Any]:
    """Return what is known as the value that the store keeps."""
    return facts.plain(scores)


def from_json(value: dict[str, Any]) -> Scores:
    """Read it back; raises as `facts.from_json` does."""
    found = facts.known(Scores, value)
    days = {
        date: {process: Tally(told["sessions"], _histogram(told["scores"])) for process, told in tallies.items()}
        for date, tallies in found["open"].items()
    }
    watched = {recipe: _watched(each) for recipe, each in found["watched"].items()}
    return Scores(**found | {"open": days, "watched": watched})


def _watched(value: dict[str, Any]) -> Watched:
    found = facts.known(Watched, value)
    watch, shift = found["watch"], found["shift"]
    parts = {
        "days": tuple(Day(day["sessions"], _histogram(day["scores"])) for day in found["days"]),
        "watch": None if watch is None else _watch(facts.known(Watch, watch)),
        "shift": None if shift is None else _shift(shift),
    }
    return Watched(**found | parts)


def _watch(value: dict[str, Any]) -> Watch:
    parts: dict[str, Any] = {name: tuple(part) if isinstance(part, list) else part for name, part in value.items()}
    return Watch(**parts)


def _shift(value: dict[str, Any]) -> Shift:
    return Shift(value["since"], {Share(share): (then, now) for share, (then, now) in value["shares"].items()})


def _histogram(value: Mapping[str, int]) -> dict[int, int]:
    return {int(number): count for number, count in value.items()}
