"""What gateways report of a deployment, as frozen values: what they serve, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pointsman.core.guards import Arm
from pointsman.core.shifts import Histogram


@dataclass(frozen=True, slots=True)
class Minute:
    """What one index did in one minute at one gateway."""

    at: datetime
    index: str
    arm: Arm


@dataclass(frozen=True, slots=True)
class Day:
    """What the best answers of one index scored on one day at one gateway, so far."""

    date: str
    """Of UTC, as `2026-03-01`."""
    index: str
    sessions: int
    """Whose queries they were; a query without a session stands for itself."""
    scores: Histogram


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What became of the queries that also went to an index, off their path."""

    index: str
    sent: int
    dropped: int
    compared: int
    overlap: float | None = None
    """The mean share of the documents that both found."""
    correlation: float | None = None
    """How alike the two orders are, on average."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What one gateway said of a deployment when it was last asked."""

    name: str
    is_ready: bool
    """Whether queries are sent to it."""
    epoch: int = 0
    revision: int = 0
    answered: Mapping[str, int] = field(default_factory=dict)
    """Queries answered under that revision, by index."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Queries answered since it started, by index."""
    process: str = ""
    """Which process answered: another one counts from zero."""
    minutes: tuple[Minute, ...] = ()
    """The last minutes that are over."""
    days: tuple[Day, ...] = ()
    """The last days, with what there is of the one under way."""
    shadowed: Shadowed | None = None
    held: tuple[str, ...] = ()
    """Indexes that a query of an older route is still asking."""
    mispaired: int = 0
    """Queries that were about to be answered in another space than they were embedded in."""
    problem: str = ""
    """Why it said nothing, or cannot serve, as a clause."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What of that is about one index that has weight, by index."""
