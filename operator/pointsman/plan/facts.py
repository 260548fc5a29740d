"""What a deployment must never forget: which indexes it made, what each is for, and what was published.

Facts are kept in the store as numbered records and written before the effect that they announce. A resource that is
restored or created again under the same name takes up where they left off.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role
from pointsman.core.rows import Cursor
from pointsman.errors import Terminal

FORMAT = 1
_TIMES = frozenset({"at", "since", "verified_at", "checked_at", "read_at"})
HISTORY = 20


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
    """The revision of the route; it moves with every switch."""
    history: tuple[Promotion, ...] = ()

    @property
    def serving(self) -> Index | None:
        """The index that answers queries."""
        return next((index for index in self.indexes if index.role is Role.SERVING), None)

    def get(self, name: str) -> Index | None:
        """Return the index of a name."""
        return next((index for index in self.indexes if index.name == name), None)

    def put(self, index: Index) -> Facts:
        """Return the facts with one index added or replaced."""
        others = tuple(other for other in self.indexes if other.name != index.name)
        return dataclasses.replace(self, indexes=(*others, index))

    def without(self, name: str) -> Facts:
        """Return the facts without one index."""
        return dataclasses.replace(self, indexes=tuple(i for i in self.indexes if i.name != name))

    def switched(self, to: Index, snapshot: int, now: datetime) -> Facts:
        """Return the facts after a switch: `to` serves, and what served before is retained, or was lost."""
        facts = self
        before = self.serving
        if before is not None:
            facts = facts.put(dataclasses.replace(before, role=Role.RETAINED, since=now))
        facts = facts.put(dataclasses.replace(to, role=Role.SERVING, since=now))
        promotion = Promotion(version=to.version, index=to.name, snapshot=snapshot, at=now)
        return dataclasses.replace(facts, route=facts.route + 1, history=(*facts.history, promotion)[-HISTORY:])


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
    return {"format": FORMAT, **_plain(dataclasses.asdict(facts))}


def from_json(value: dict[str, Any]) -> Facts:
    """Read facts back; raises Terminal(STORE_UNREACHABLE) for a format that this release does not know."""
    known = _known(Facts, value)
    indexes = tuple(Index(**_known(Index, index) | {"role": Role(index["role"])}) for index in known["indexes"])
    history = tuple(Promotion(**_known(Promotion, entry)) for entry in known["history"])
    return Facts(**known | {"indexes": indexes, "history": history})


def record_to_json(record: IndexRecord) -> dict[str, Any]:
    """Return an index's record as the value that the store keeps."""
    return {"format": FORMAT, **_plain(dataclasses.asdict(record))}


def record_from_json(value: dict[str, Any]) -> IndexRecord:
    """Read an index's record back; raises as `from_json` does."""
    known = _known(IndexRecord, value)
    cursor = known["cursor"]
    return IndexRecord(**known | {"cursor": None if cursor is None else Cursor(**_known(Cursor, cursor))})


def query_set_to_json(record: QuerySetRecord) -> dict[str, Any]:
    """Return a query set's record as the value that the store keeps."""
    return {"format": FORMAT, **_plain(dataclasses.asdict(record))}


def query_set_from_json(value: dict[str, Any]) -> QuerySetRecord:
    """Read a query set's record back; raises as `from_json` does."""
    return QuerySetRecord(**_known(QuerySetRecord, value))


def _known(kind: type[Any], value: dict[str, Any]) -> dict[str, Any]:
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
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case datetime():
            return value.isoformat()
        case _:
            return value


def _time(value: str | None) -> Any:
    return None if value is None else datetime.fromisoformat(value)
