"""What workers measured of an index's answers: numbers, never contents. Each is written after it was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pointsman.core import guards
from pointsman.core.guards import Guard, Signal
from pointsman.plan import facts

HISTORY = 50
"""How many earlier measurements a record keeps in short."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier measurement in short."""

    measured_at: datetime
    version: str
    value: float
    against: str = ""
    """The version that it was compared with."""
    difference: float | None = None
    low: float | None = None
    """The one-sided lower bound of the difference."""
    high: float | None = None
    digest: str = ""
    """The content of the query set."""
    candidate: str = ""
    """The index that was asked about."""
    serving: str = ""
    """The index that it was compared with."""
    look: int = 0
    judged: float | None = None
    """The share of the first k that is judged; None where an unjudged document counts as not relevant."""
    other_judged: float | None = None
    recall: float | None = None
    """The share of what exact search over the stored vectors finds that the index finds too."""
    other_recall: float | None = None
    overlap: float | None = None
    """Of canaries: the mean share of the first k that both found."""
    kept: float | None = None
    """Of canaries: the mean share of the pinned answers that was still found."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well an index answers judged queries, beside another one on the same snapshot."""

    query_set: str
    digest: str
    """The content of the query set."""
    metric: str
    candidate: str
    """The index that is asked about."""
    version: str
    serving: str
    """The index that it is compared with; empty where it was measured alone."""
    against: str
    """That one's version."""
    snapshot: int
    """Of both."""
    documents: int
    """Of the snapshot."""
    queries: int
    groups: int
    value: float
    """The candidate's mean over groups."""
    measured_at: datetime
    other: float | None = None
    """The mean of the one that it is compared with."""
    difference: float | None = None
    standard_error: float | None = None
    low: float | None = None
    """The one-sided lower bound of the difference at this look."""
    high: float | None = None
    """The one-sided upper bound of the difference at this look."""
    interval: tuple[float, float] | None = None
    """Two-sided, 95 %."""
    nonzero: int = 0
    losing: int = 0
    """Groups in which the candidate is worse."""
    winning: int = 0
    """Groups in which the candidate is better."""
    spread: float | None = None
    """The standard deviation of the group means of the difference."""
    look: int = 1
    """The how manieth comparison of these two indexes on this query set it is."""
    judged: float | None = None
    """The share of the first k that is judged."""
    other_judged: float | None = None
    condensed_high: float | None = None
    """The upper bound of the difference where unjudged documents are passed over; Pooled judgements only."""
    recall: float | None = None
    """The share of what exact search over the stored vectors finds that the index finds too."""
    other_recall: float | None = None
    recall_queries: int = 0
    """How many queries, drawn from all, that is of."""
    model_distance: float | None = None
    """How far the model's vectors of the pinned texts have moved."""
    other_model_distance: float | None = None
    pooled: bool = False
    """Whether an unjudged document is unknown rather than not relevant."""
    token: str = ""
    """What a person asked for last."""
    history: tuple[Earlier, ...] = ()
    """What was measured before, the last ones."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """Whether an index finds what it must."""

    query_set: str
    digest: str
    k: int
    candidate: str
    version: str
    serving: str
    against: str
    snapshot: int
    documents: int
    queries: int
    found: int
    """Queries whose expected documents all stand within the first k."""
    measured_at: datetime
    overlap: float | None = None
    """The mean share of the first k that both find; None across spaces."""
    kept: float | None = None
    """The mean share of its own pinned answers that it still finds; None when it is asked first."""
    pinned_at: datetime | None = None
    """When those were pinned."""
    history: tuple[Earlier, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether an index answers a few fixed questions, and its model as on the first day."""

    index: str
    version: str
    asked: int
    answered: int
    model_distance: float
    """How far the model's vectors of the pinned texts have moved."""
    measured_at: datetime


@dataclass(frozen=True, slots=True)
class Streams:
    """What is known of one pair of indexes, and of how much each index has answered since ever."""

    candidate: str = ""
    control: str = ""
    minute: int = -1
    """The last minute that was looked at, counted from 1970."""
    guards: tuple[Guard, ...] = ()
    counted: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Process of a gateway -> index -> queries: what it had told of when it was looked at."""
    answered: Mapping[str, int] = field(default_factory=dict)
    """Index -> queries that it answered."""

    def guard(self, signal: Signal) -> Guard | None:
        """Return what is known of one limit."""
        return next((guard for guard in self.guards if guard.signal is signal), None)


def to_json(record: Evaluation | Canaries | Probe) -> dict[str, Any]:
    """Return a record as the value that the store keeps."""
    return facts.plain(record)


def evaluation_from_json(value: dict[str, Any]) -> Evaluation:
    """Read a record back; raises as `facts.from_json` does."""
    found = facts.known(Evaluation, value)
    interval = found.get("interval")
    return Evaluation(**found | {"interval": None if interval is None else tuple(interval), "history": _history(found)})


def probe_from_json(value: dict[str, Any]) -> Probe:
    """Read a record back; raises as `facts.from_json` does."""
    return Probe(**facts.known(Probe, value))


def canaries_from_json(value: dict[str, Any]) -> Canaries:
    """Read a record back; raises as `facts.from_json` does."""
    found = facts.known(Canaries, value)
    return Canaries(**found | {"history": _history(found)})


def with_history(record: Evaluation, before: Evaluation | None) -> Evaluation:
    """Return a record that remembers the one before it, and those that it remembered."""
    if before is None:
        return record
    return dataclasses.replace(record, history=(*before.history, in_short(before))[-HISTORY:])


def in_short(record: Evaluation) -> Earlier:
    """Return what is remembered of a measurement once there is another."""
    return Earlier(
        measured_at=record.measured_at,
        version=record.version,
        value=record.value,
        against=record.against,
        difference=record.difference,
        low=record.low,
        high=record.high,
        digest=record.digest,
        candidate=record.candidate,
        serving=record.serving,
        look=record.look,
        judged=record.judged if record.pooled else None,
        other_judged=record.other_judged if record.pooled else None,
        recall=record.recall,
        other_recall=record.other_recall,
    )


def beside(record: Evaluation) -> str:
    """Return how much of both answers is judged, to be read behind the number; empty where nothing hangs on it."""
    if not record.pooled or record.judged is None or record.other_judged is None:
        return ""
    return f", judged@{record.metric.partition('@')[2]} {record.judged:.2f} beside {record.other_judged:.2f}"


def canaries_with_history(record: Canaries, before: Canaries | None) -> Canaries:
    """Return a record that remembers the one before it, and those that it remembered."""
    if before is None:
        return record
    return dataclasses.replace(record, history=(*before.history, canaries_in_short(before))[-HISTORY:])


def canaries_in_short(record: Canaries) -> Earlier:
    """Return what is remembered of asking canaries: as the value, the share that found their documents."""
    share = record.found / record.queries if record.queries else 0.0
    return Earlier(record.measured_at, record.version, share, record.against, overlap=record.overlap, kept=record.kept)


def _history(value: dict[str, Any]) -> tuple[Earlier, ...]:
    return tuple(Earlier(**facts.known(Earlier, entry)) for entry in value.get("history", ()))


def streams_to_json(streams: Streams) -> dict[str, Any]:
    """Return what is known as the value that the store keeps."""
    return facts.plain(replace(streams, guards=())) | {"guards": [guards.to_json(guard) for guard in streams.guards]}


def streams_from_json(value: dict[str, Any]) -> Streams:
    """Read it back; raises as `facts.from_json` does."""
    found = facts.known(Streams, value)
    return Streams(**found | {"guards": tuple(guards.from_json(guard) for guard in found.get("guards", ()))})
