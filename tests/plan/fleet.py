"""What stands around a deployment in tests: gateways that do as they are told, late or never, people, and measurements.

Everything is in order, but for what is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.plan import builders as b

from pointsman.api import approval as approval_api
from pointsman.api.routes import RouteStatus
from pointsman.core.guards import Arm
from pointsman.plan.facts import QuerySetRecord
from pointsman.plan.measured import Canaries, Evaluation
from pointsman.plan.observed import Approval, QueriesView
from pointsman.plan.reported import Day, Gateway, Minute

ROAD: list[dict[str, Any]] = [
    {"shadow": {"percent": 100, "for": "2m"}},
    {"weight": 10},
    {"pause": {"for": "10m"}},
    {"approval": {"name": "go-wide", "timeout": "24h"}},
    {"weight": 50},
    {"weight": 100},
]
"""The steps of the README: shadow, a tenth, a pause, a person, a half, all."""
EVALUATED: dict[str, Any] = {"evaluation": {"querySetRef": {"name": "papers-eval"}, "notWorseBy": "0.02"}}
CANARIES: dict[str, Any] = {"canaries": {"querySetRef": {"name": "papers-canaries"}, "k": 5, "minOverlap": "0.8"}}
BURN_IN: dict[str, Any] = {"for": "24h", "minQueries": 0}


def gateway(revision: int = 1, name: str = "g1", **changes: Any) -> Gateway:
    """A gateway that is ready and serves a revision of the route."""
    values: dict[str, Any] = {"name": name, "is_ready": True, "revision": revision, "process": f"{name}/1"}
    return Gateway(**{**values, **changes})


def queries(groups: int = 700, **changes: Any) -> QueriesView:
    """A query set that was read: enough groups to see a fall of 0.02."""
    record = QuerySetRecord("s", groups, groups, 2 * groups, "q1", b.OLD)
    return QueriesView(**{"exists": True, "record": record, **changes})


def sets(**changes: QueriesView) -> dict[str, QueriesView]:
    """The query sets that the gates above name."""
    return {"papers-eval": queries(), "papers-canaries": queries(5), **changes}


# A verdict: the difference in metric points, and the bounds around it.
PASSES, FAILS, UNDECIDED = (0.004, -0.004, 0.012), (-0.041, -0.052, -0.03), (-0.019, -0.04, 0.002)


def evaluation(
    verdict: tuple[float | None, float | None, float | None] = PASSES,
    candidate: str = "v8",
    serving: str = "v7",
    **changes: Any,
) -> Evaluation:
    """What a worker found: a candidate beside what serves, both at snapshot 12, a minute ago."""
    difference, low, high = verdict
    values: dict[str, Any] = {
        "query_set": "papers-eval",
        "digest": "q1",
        "metric": "nDCG@10",
        "candidate": candidate,
        "version": candidate.partition("_")[0],
        "serving": serving,
        "against": serving.partition("_")[0],
        "snapshot": 12,
        "documents": 12,
        "queries": 700,
        "groups": 700,
        "value": 0.5,
        "other": 0.5,
        "measured_at": b.NOW - timedelta(minutes=1),
        "difference": difference,
        "low": low,
        "high": high,
        "standard_error": 0.008,
    }
    return Evaluation(**{**values, **changes})


def canaries(found: int = 5, candidate: str = "v8", serving: str = "v7", **changes: Any) -> Canaries:
    """What five canaries found."""
    values: dict[str, Any] = {
        "query_set": "papers-canaries",
        "digest": "q1",
        "k": 5,
        "candidate": candidate,
        "version": candidate.partition("_")[0],
        "serving": serving,
        "against": serving.partition("_")[0],
        "snapshot": 12,
        "documents": 12,
        "queries": 5,
        "found": found,
        "measured_at": b.NOW - timedelta(minutes=1),
    }
    return Canaries(**{**values, **changes})


def approval(decision: str = "Approve", version: str = "v8", **changes: Any) -> Approval:
    """A person's decision, by a person: `answers`, `plan`, `expires`, `by` and `uid` say more of it."""
    name, made = changes.pop("name", f"{decision.lower()}-{version}"), changes.pop("at", b.NOW - b.HOUR)
    uid = changes.pop("uid", name)
    spec: dict[str, Any] = {
        "target": {"name": "papers"},
        "decision": decision,
        "version": version,
        "expiresAt": changes.pop("expires", b.NOW + b.DAY),
        "approvedBy": changes.pop("by", ""),
    }
    if decision in ("Approve", "Reject"):
        spec["answers"] = changes.pop("answers", "go-wide")
    if decision == "Approve":
        spec["planHash"] = changes.pop("plan", "plan")
    assert not changes
    return Approval(name, uid, approval_api.Spec(**spec), made)


@dataclass
class FakeGateway:
    """A gateway of a small world: it serves the route that it last adopted, and counts what it answers."""

    name: str
    process: int = 1
    is_late: bool = False
    """Whether it goes on serving what it has, whatever is written."""
    is_silent: bool = False
    """Whether it answers nobody who asks what it serves; it serves on."""
    is_ready: bool = True
    problem: str = ""
    problems: dict[str, str] = field(default_factory=dict)
    """What is wrong with an index, by its name."""
    uid: str = ""
    route: RouteStatus | None = None
    answered: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    minutes: list[Minute] = field(default_factory=list)
    days: list[Day] = field(default_factory=list)

    def look(self, uid: str, route: RouteStatus | None, is_deleted: bool) -> None:
        """Adopt what is written, as real ones do: nothing older, and nothing for a status that was lost."""
        if self.is_late:
            return
        if is_deleted:
            self.route = None
            return
        if route is None:
            return
        age = (route.epoch, route.revision)
        before = (self.route.epoch, self.route.revision) if self.route is not None else (-1, -1)
        if uid == self.uid and age < before:
            return
        if uid != self.uid or age != before:
            self.answered = {}
        self.uid, self.route = uid, route

    @property
    def weights(self) -> dict[str, int]:
        return {} if self.route is None else {entry.index: entry.weight for entry in self.route.entries}

    def answer(self, queries: int, at: datetime, errors: Mapping[str, float]) -> None:
        """Answer queries in one minute, by weight to the query; a share of them fails by version."""
        for entry in self.route.entries if self.route is not None else ():
            asked = queries * entry.weight // 100
            shadow = self.route.shadow if self.route is not None else None
            beside = queries * shadow.percent // 100 if shadow is not None and shadow.index == entry.index else 0
            if not asked + beside:
                continue
            failed = int((asked + beside) * errors.get(entry.version, 0.0))
            arm = Arm(asked + beside, failed, 0, {10: asked + beside - failed})
            self.minutes = [*self.minutes, Minute(at.replace(second=0, microsecond=0), entry.index, arm)][-40:]
            if asked:
                self.answered[entry.index] = self.answered.get(entry.index, 0) + asked
                self.totals[entry.index] = self.totals.get(entry.index, 0) + asked

    def restart(self) -> None:
        """Start anew: what was counted is gone, and the route is read again."""
        self.process += 1
        self.route, self.answered, self.totals, self.minutes, self.days = None, {}, {}, [], []

    def seen(self) -> Gateway:
        """Return what the operator knows of it."""
        if self.is_silent:
            return Gateway(self.name, is_ready=self.is_ready, problem="does not answer within 2 s")
        return Gateway(
            name=self.name,
            is_ready=self.is_ready and self.route is not None,
            epoch=0 if self.route is None else self.route.epoch,
            revision=0 if self.route is None else self.route.revision,
            answered=dict(self.answered),
            totals=dict(self.totals),
            process=f"{self.name}/{self.process}",
            minutes=tuple(self.minutes),
            days=tuple(self.days),
            problem=self.problem or "; ".join(self.problems.values()),
            problems=dict(self.problems),
        )
