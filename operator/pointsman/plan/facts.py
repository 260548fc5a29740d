"""What a deployment must never forget: which indexes it made, what each is for, and what was published.

Facts are kept in the store as numbered records and written before the effect that they announce. A resource that is
restored or created again under the same name takes up where they left off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role
from pointsman.core.rows import Cursor
from pointsman.errors import Terminal

FORMAT = 1
_TIMES = frozenset(
    {
        "at",
        "since",
        "verified_at",
        "checked_at",
        "read_at",
        "proven_at",
        "begun_at",
        "accepted_at",
        "done_at",
        "left_at",
        "suspended_at",
        "measured_at",
        "pinned_at",
        "moved_at",
        "doubted_at",
        "written_at",
    }
)
HISTORY = 20
REJECTED = 16
USED = 64


@dataclass(frozen=True, slots=True)
class Index:
    """One physical index, for as long as it exists."""

    name: str
    version: str
    recipe: str
    parameters: str
    """A digest of the engine's index parameters."""
    role: Role
    frozen: int | None = None
    """The snapshot it is pinned to; None for an index that follows."""
    since: datetime | None = None
    """When it got its role."""
    address: str = ""
    """Where it was last found; empty until it was, and in facts that know no addresses."""
    proven_at: datetime | None = None
    """When its burn-in was over; going back to it later needs neither steps nor gates."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A migration under way: one candidate on its way through the steps."""

    index: str
    """The candidate."""
    plan: str
    """From where, to what, by which steps and gates, as a digest: what an Approval names."""
    begun_at: datetime
    since: datetime
    """When the step was entered."""
    step: int = 0
    """How many steps were entered; the last of them is the one under way."""
    steps: str = ""
    """The steps, as a digest: an edit of them is placed anew."""
    weight: int = 0
    """The candidate's share of the queries, in percent."""
    accepted_at: datetime | None = None
    """When all gateways were first seen to serve the step's route."""
    done_at: datetime | None = None
    """When the step had nothing left to wait for."""
    suspended_at: datetime | None = None
    """Since when the spec suspends it; such time does not count."""
    answered: tuple[str, ...] = ()
    """The steps and gates that Approvals let pass."""
    held: str = ""
    """Why the weights stay as they are, as a clause, where the spec wants no way back."""
    held_by: str = ""
    """What an Approval answers to let it go on: the gate or step that holds it."""

    def waiting_from(self, now: datetime) -> Rollout:
        """Return it with what it may still wait for counted from now."""
        done = None if self.done_at is None else now
        return dataclasses.replace(self, since=now if self.accepted_at is None else self.since, done_at=done)


@dataclass(frozen=True, slots=True)
class Silence:
    """What serves, and did not answer when it was asked alone; kept until it does, or the migration is over."""

    index: str
    since: datetime
    message: str
    """Why not, as a clause."""
    proven_at: datetime | None = None
    """When that had lasted for so long that it counts as broken; None before."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """An index that a share of the queries also goes to, off their path."""

    index: str
    percent: int


@dataclass(frozen=True, slots=True)
class Drill:
    """A practice of going back: who asked, whom, and what came of it."""

    token: str
    index: str
    since: datetime
    done_at: datetime | None = None
    queries: int = 0
    failed: int = 0
    overlap: float | None = None
    """The mean share of the documents that both indexes found."""
    before: int = 0
    """The share of the queries that went there beforehand, in percent."""


@dataclass(frozen=True, slots=True)
class BurnIn:
    """The watched time after a promotion."""

    index: str
    since: datetime
    """When queries were switched to it."""
    accepted_at: datetime | None = None
    queries: int = 0
    """How many queries it had answered when that began."""
    failed: str = ""
    """Which gate has failed, as a clause: it has, whatever it says later."""
    failed_by: str = ""
    """That gate, which an Approval may let pass."""
    answered: tuple[str, ...] = ()
    """The gates that Approvals let pass though they failed."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An index that was tried and refused: its recipe with its parameters stays so until `retry` changes."""

    version: str
    recipe: str
    reason: Reason
    message: str
    at: datetime
    retry: str = ""
    parameters: str = ""
    """As of the index; empty where an earlier release refused a recipe with whatever parameters."""

    def is_of(self, recipe: str, parameters: str) -> bool:
        """Return whether it refuses such an index. One with other parameters is another index, and is tried."""
        return self.recipe == recipe and self.parameters in ("", parameters)


@dataclass(frozen=True, slots=True)
class Promotion:
    """One switch that happened."""

    version: str
    index: str
    snapshot: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of one deployment beyond what can be observed."""

    indexes: tuple[Index, ...] = ()
    made: int = 0
    """How many indexes were ever made; names count up and are never reused."""
    route: int = 0
    """The revision of the route; it moves with every change of it."""
    history: tuple[Promotion, ...] = ()
    rollout: Rollout | None = None
    burn_in: BurnIn | None = None
    shadow: Shadow | None = None
    drill: Drill | None = None
    silence: Silence | None = None
    rejected: tuple[Rejection, ...] = ()
    used: tuple[str, ...] = ()
    """The UIDs of the Approvals that have let something pass: each counts once."""
    left_at: datetime | None = None
    """When a migration was last over without a switch."""
    epoch: int = 0
    """Of the operator that wrote these facts last."""
    holder: str = ""
    """That operator's name."""

    @property
    def serving(self) -> Index | None:
        """The index that answers queries."""
        return next((index for index in self.indexes if index.role is Role.SERVING), None)

    @property
    def weights(self) -> Mapping[str, int]:
        """The share of the queries of each index that gets any, in percent: they sum to 100 where anything serves."""
        serving, rollout = self.serving, self.rollout
        if serving is None:
            return {}
        if rollout is None or rollout.weight == 0:
            return {serving.name: 100}
        return {rollout.index: rollout.weight, serving.name: 100 - rollout.weight}

    def is_rejected(self, recipe: str, parameters: str, retry: str) -> Rejection | None:
        """Return why an index of a recipe with such parameters was refused, if it was under this value of `retry`."""
        return next((r for r in self.rejected if r.is_of(recipe, parameters) and r.retry == retry), None)

    def get(self, name: str) -> Index | None:
        """Return the index of a name."""
        return next((index for index in self.indexes if index.name == name), None)

    def put(self, index: Index) -> Facts:
        """Return the facts with one index added or replaced."""
        others = tuple(other for other in self.indexes if other.name != index.name)
        return dataclasses.replace(self, indexes=(*others, index))

    def without(self, name: str) -> Facts:
        """Return the facts without one index; no query goes there any more, beside or otherwise."""
        facts = dataclasses.replace(self, indexes=tuple(i for i in self.indexes if i.name != name))
        if facts.shadow is None or facts.shadow.index != name:
            return facts
        return dataclasses.replace(facts, shadow=None, route=facts.route + 1)

    def switched(self, to: Index, snapshot: int, now: datetime) -> Facts:
        """Return the facts after a switch: `to` serves, and what served before is retained, or was lost."""
        facts = self
        before = self.serving
        if before is not None:
            facts = facts.put(dataclasses.replace(before, role=Role.RETAINED, since=now))
        facts = facts.put(dataclasses.replace(to, role=Role.SERVING, since=now))
        promotion = Promotion(version=to.version, index=to.name, snapshot=snapshot, at=now)
        history = (*facts.history, promotion)[-HISTORY:]
        return dataclasses.replace(
            facts, route=facts.route + 1, history=history, rollout=None, burn_in=None, shadow=None
        )

    def refused(self, rejection: Rejection) -> Facts:
        """Return the facts with an index refused, and its migration over."""
        same = (rejection.recipe, rejection.parameters, rejection.retry)
        kept = tuple(r for r in self.rejected if (r.recipe, r.parameters, r.retry) != same)
        rejected = (*kept, rejection)[-REJECTED:]
        return dataclasses.replace(self.called_off(rejection.at), rejected=rejected)

    def called_off(self, now: datetime) -> Facts:
        """Return the facts without the migration under way: all queries go to what serves."""
        if self.rollout is None:
            return self
        return dataclasses.replace(self, rollout=None, shadow=None, route=self.route + 1, left_at=now)


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """What workers found and did in one index; each writes it after the effect that it tells of.

    `pending` is the one exception: it is written before a move by difference begins, so that a move that was cut
    short is finished to the same snapshot, or mended by a full comparison, before any other begins.
    """

    cursor: Cursor | None = None
    rows: int = 0
    digest: str = ""
    verified_at: datetime | None = None
    checked_at: datetime | None = None
    differences: int = 0
    pending: int | None = None
    moved_at: datetime | None = None
    """When the last move by difference began; None where there was none since it was verified."""
    doubted_at: datetime | None = None
    """When it was verified though pods that loaded it ended without a word; None where all have said that they did."""


@dataclass(frozen=True, slots=True)
class QuerySetRecord:
    """What a worker found in a query set when it read it last: numbers, never contents."""

    source: str
    """A digest of what the spec read then."""
    queries: int
    groups: int
    judgements: int
    digest: str
    """The content of the set."""
    read_at: datetime


def to_json(facts: Facts) -> dict[str, Any]:
    """Return facts as the value that the store keeps."""
    return plain(facts)


def from_json(value: dict[str, Any]) -> Facts:
    """Read facts back; raises Terminal(STORE_UNREACHABLE) for a format that this release does not know."""
    found = known(Facts, value)
    rollout, burn_in, shadow = (found.get(name) for name in ("rollout", "burn_in", "shadow"))
    drill, silence = (found.get(name) for name in ("drill", "silence"))
    parts = {
        "indexes": tuple(_index(index) for index in found["indexes"]),
        "history": tuple(Promotion(**known(Promotion, entry)) for entry in found["history"]),
        "rollout": None if rollout is None else Rollout(**known(Rollout, rollout) | _tuples(rollout, "answered")),
        "shadow": None if shadow is None else Shadow(**known(Shadow, shadow)),
        "drill": None if drill is None else Drill(**known(Drill, drill)),
        "silence": None if silence is None else Silence(**known(Silence, silence)),
        "burn_in": None if burn_in is None else BurnIn(**known(BurnIn, burn_in) | _tuples(burn_in, "answered")),
        "rejected": tuple(
            Rejection(**known(Rejection, entry) | {"reason": Reason(entry["reason"])})
            for entry in found.get("rejected", ())
        ),
        "used": tuple(found.get("used", ())),
    }
    return Facts(**found | parts)


def _index(value: dict[str, Any]) -> Index:
    found = known(Index, value) | {"role": Role(value["role"])}
    if "proven_at" not in value and found["role"] in (Role.SERVING, Role.RETAINED):
        # Written by a release that knew no burn-in: what served then is trusted.
        found["proven_at"] = found["since"]
    return Index(**found)


def _tuples(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: tuple(value.get(name, ())) for name in names}


def record_to_json(record: IndexRecord) -> dict[str, Any]:
    """Return an index's record as the value that the store keeps."""
    return plain(record)


def record_from_json(value: dict[str, Any]) -> IndexRecord:
    """Read an index's record back; raises as `from_json` does."""
    found = known(IndexRecord, value)
    cursor = found["cursor"]
    return IndexRecord(**found | {"cursor": None if cursor is None else Cursor(**known(Cursor, cursor))})


def query_set_to_json(record: QuerySetRecord) -> dict[str, Any]:
    """Return a query set's record as the value that the store keeps."""
    return plain(record)


def query_set_from_json(value: dict[str, Any]) -> QuerySetRecord:
    """Read a query set's record back; raises as `from_json` does."""
    return QuerySetRecord(**known(QuerySetRecord, value))


def plain(record: Any) -> dict[str, Any]:
    """Return a record of dataclasses as the value that the store keeps."""
    return {"format": FORMAT, **_plain(dataclasses.asdict(record))}


def known(kind: type[Any], value: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that a class has, with times read: a later release adds some, which are not for us."""
    found = value.get("format", FORMAT)
    if found != FORMAT:
        raise Terminal(
            Reason.STORE_UNREACHABLE,
            f"a record of the store has format {found}, this release reads {FORMAT}; install the release that wrote it",
        )
    fields = {field.name for field in dataclasses.fields(kind)}
    return {name: _time(part) if name in _TIMES else part for name, part in value.items() if name in fields}


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case datetime():
            return value.isoformat()
        case _:
            return value


def _time(value: str | None) -> Any:
    return None if value is None else datetime.fromisoformat(value)
