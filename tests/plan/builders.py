"""Observed values as tests want to say them: everything is in order, but for what is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api.conditions import ConditionType, Reason, Status, get
from pointsman.api.deployment import Role
from pointsman.core.recipes import Chunker, Recipe, Space
from pointsman.core.rows import Cursor
from pointsman.plan import measured, observed, rollout
from pointsman.plan.actions import Action, StartWork
from pointsman.plan.facts import Facts, Index, IndexRecord
from pointsman.plan.observed import Embedded, Physical, Presence, Problem, Snapshot
from pointsman.plan.tasks import (
    Build,
    Check,
    Clean,
    Embed,
    Failure,
    Follow,
    Key,
    Phase,
    Probe,
    Refresh,
    Repair,
    Task,
    Work,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATASET = Key("EmbeddingDataset", "search", "papers")
DEPLOYMENT = Key("IndexDeployment", "search", "papers")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OLD = NOW - 30 * DAY


def recipe(dimensions: int, template: str = "{text}", chunker: str = "1") -> Recipe:
    space = Space("wordllama", "wordllama", "r1", dimensions)
    return Recipe(space, template, (), Chunker("pointsman", chunker, 256, 0))


V7, V8, V9 = recipe(64), recipe(256), recipe(128)
PINS = {"v7": V7, "v8": V8}


def rows(snapshot: int) -> int:
    """Rows of a snapshot: 112 for snapshot 12."""
    return 100 + snapshot


def embedded(*numbers: int) -> tuple[Embedded, ...]:
    return tuple(
        Embedded(number, number, number, rows(number), f"d{number}", at=NOW - timedelta(minutes=10))
        for number in numbers
    )


def embedded_at(hours: int) -> Embedded:
    """Snapshot 12, embedded so many hours ago."""
    return dataclasses.replace(embedded(12)[0], at=NOW - hours * HOUR)


def snapshots(*numbers: int, at: datetime = OLD) -> tuple[Snapshot, ...]:
    """Snapshots, the first made at a time and each next one a second later."""
    first = min(numbers, default=0)
    return tuple(Snapshot(n, n, n, f"s{n}", at + timedelta(seconds=n - first)) for n in numbers)


# Datasets.


def version(name: str, dimensions: int = 64) -> dict[str, Any]:
    return {"name": name, "model": {"wordllama": {"dimensions": dimensions}}}


def dataset_spec(*names: str, **changes: Any) -> dataset_api.Spec:
    values: dict[str, Any] = {
        "source": {"files": {"uri": "file:///data/*.jsonl", "format": "jsonl"}, "idField": "id"},
        "versions": [version(name) for name in names or ("v7",)],
    }
    return dataset_api.Spec(**{**values, **changes})


def dataset(**changes: Any) -> observed.Dataset:
    """A dataset at rest: snapshots 11 and 12, version v7 embedded at both, nothing due."""
    values: dict[str, Any] = {
        "key": DATASET,
        "uid": "u1",
        "generation": 1,
        "spec": dataset_spec("v7"),
        "status": dataset_api.DatasetStatus(refreshed_at=NOW - HOUR, refresh_handled="source/#asked"),
        "has_finalizer": True,
        "deleting_since": None,
        "refresh_token": "",
        "source_digest": "source",
        "snapshots": snapshots(11, 12),
        "pins": {"v7": V7},
        "recipes": {"v7": V7},
        "embedded": {V7.key: embedded(11, 12)},
        "users": (),
        "work": (),
        "deadline": 10 * timedelta(minutes=1),
    }
    return observed.Dataset(**{**values, **changes})


def user(name: str = "papers", **changes: Any) -> observed.User:
    values: dict[str, Any] = {
        "name": name,
        "versions": ("v7",),
        "needs": ("v7",),
        "recipes": (V7.key,),
        "snapshots": (12,),
    }
    return observed.User(**{**values, **changes})


def refresh(token: str = "source/#asked") -> Refresh:
    return Refresh(DATASET, token)


def embed(name: str = "v7", number: int = 12, of: Recipe = V7) -> Embed:
    return Embed(DATASET, name, of.key, number)


def clean(keep: Iterable[int], recipes: Iterable[str]) -> Clean:
    return Clean(DATASET, tuple(keep), tuple(recipes))


# Deployments.


def index(name: str, role: Role, of: Recipe = V7, **changes: Any) -> Index:
    """An index named after its version: `v7` or `v7_2`."""
    values: dict[str, Any] = {
        "name": name,
        "version": name.partition("_")[0],
        "recipe": of.key,
        "parameters": "p1",
        "role": role,
        "since": NOW - DAY,
        "address": "memory:",
    }
    # What has ever served is proven, unless a test says otherwise.
    values["proven_at"] = NOW - DAY if role in (Role.SERVING, Role.RETAINED) else None
    return Index(**{**values, **changes})


def serving(name: str = "v7", of: Recipe = V7, **changes: Any) -> Index:
    return index(name, Role.SERVING, of, **changes)


def retained(name: str = "v7", of: Recipe = V7, **changes: Any) -> Index:
    return index(name, Role.RETAINED, of, **changes)


def candidate(name: str = "v8", of: Recipe = V8, **changes: Any) -> Index:
    return index(name, Role.CANDIDATE, of, **changes)


def retiring(name: str = "v7", of: Recipe = V7, **changes: Any) -> Index:
    return index(name, Role.RETIRING, of, **changes)


def record(snapshot: int = 12, **changes: Any) -> IndexRecord:
    """The record of an index that was verified at a snapshot and checked ten minutes ago."""
    values: dict[str, Any] = {
        "cursor": Cursor(snapshot, snapshot),
        "rows": rows(snapshot),
        "digest": f"d{snapshot}",
        "verified_at": NOW - DAY,
        "checked_at": NOW - timedelta(minutes=10),
    }
    return IndexRecord(**{**values, **changes})


def present(snapshot: int = 12) -> Physical:
    return Physical(Presence.PRESENT, rows(snapshot))


NO_ANSWER = Problem(Reason.BACKEND_UNREACHABLE, "no answer", False)
ABSENT, FOREIGN = Physical(Presence.ABSENT), Physical(Presence.FOREIGN)
UNKNOWN = Physical(Presence.UNKNOWN, problem=NO_ANSWER)
UNCOUNTED = Physical(Presence.PRESENT)


def view(**changes: Any) -> observed.DatasetView:
    """A dataset of two versions, both embedded at snapshots 11 and 12."""
    values: dict[str, Any] = {
        "exists": True,
        "declared": ("v7", "v8"),
        "pins": PINS,
        "snapshots": snapshots(11, 12),
        "embedded": {V7.key: embedded(11, 12), V8.key: embedded(11, 12)},
    }
    return observed.DatasetView(**{**values, **changes})


def spec(wanted: str = "v7", **changes: Any) -> deployment_api.Spec:
    values: dict[str, Any] = {"datasetRef": {"name": "papers"}, "version": wanted, "backend": {"memory": {}}}
    return deployment_api.Spec(**{**values, **changes})


def route(name: str = "v7", of: Recipe = V7, **changes: str) -> dict[str, str]:
    """What the ConfigMap says."""
    values = {
        "collection": name,
        "version": name.partition("_")[0],
        "snapshot": "12",
        "space": of.space.key,
        "recipe": of.key,
        "provider": "wordllama",
        "model": "wordllama",
        "revision": "r1",
        "dimensions": str(of.space.dimensions),
        "metric": "cosine",
        "queryPrefix": "",
        "engine": "memory",
        "address": "memory:",
        "alias": "",
        "routeRevision": "1",
    }
    return {**values, **changes}


def deployment(*indexes: Index, **changes: Any) -> observed.Deployment:
    """A deployment with indexes that are there, complete and at snapshot 12; by default one, v7, that serves."""
    indexes = indexes or (serving(),)
    first = next((i for i in indexes if i.role is Role.SERVING), None)
    recipes = {r.key: r for r in (V7, V8, V9)}
    made = 0 if changes.pop("fresh", False) else len(indexes)
    indexes = indexes if made else ()
    values: dict[str, Any] = {
        "key": DEPLOYMENT,
        "uid": "u2",
        "generation": 3,
        "spec": spec("v7"),
        "status": deployment_api.DeploymentStatus(),
        "has_finalizer": True,
        "deleting_since": None,
        "dataset": view(),
        "facts": Facts(indexes, made=made, route=1 if made else 0),
        "revision": 5 if made else 0,
        "records": {i.name: record() for i in indexes if i.role is not Role.CANDIDATE},
        "physical": {i.name: present() for i in indexes if i.role is not Role.CANDIDATE}
        | {i.name: ABSENT for i in indexes if i.role is Role.CANDIDATE},
        "engine": "memory",
        "address": "memory:",
        "parameters": "p1",
        "published": route(first.name, recipes[first.recipe]) if first is not None and made else None,
        "work": (),
        "deadline": timedelta(minutes=10),
    }
    back = rollout.before(changes.get("facts", values["facts"]))
    # Whoever is kept was asked ten minutes ago, and answered.
    values["probes"] = {} if back is None else {back.name: probe(back.name)}
    for name in ("records", "physical"):
        if name in changes:
            changes[name] = {**values[name], **changes[name]}
            changes[name] = {k: v for k, v in changes[name].items() if v is not None}
    return observed.Deployment(**{**values, **changes})


def probe(name: str = "v7", **changes: Any) -> measured.Probe:
    values = {"index": name, "version": name.partition("_")[0], "asked": 16, "answered": 16, "model_distance": 0.0}
    return measured.Probe(**{**values, "measured_at": NOW - timedelta(minutes=10), **changes})


def build(name: str = "v8", of: Recipe = V8, snapshot: int = 12) -> Build:
    return Build(DEPLOYMENT, "papers", name, name.partition("_")[0], of.key, snapshot)


def follow(name: str = "v7", of: Recipe = V7, snapshot: int = 12) -> Follow:
    return Follow(DEPLOYMENT, "papers", name, name.partition("_")[0], of.key, snapshot)


def check(name: str = "v7", of: Recipe = V7, snapshot: int = 12) -> Check:
    return Check(DEPLOYMENT, "papers", name, name.partition("_")[0], of.key, snapshot)


def repair(name: str = "v7", of: Recipe = V7, snapshot: int = 12) -> Repair:
    return Repair(DEPLOYMENT, "papers", name, name.partition("_")[0], of.key, snapshot)


# Work.


def running(task: Task, **changes: Any) -> Work:
    return Work(**{"task": task, "generation": 1, "phase": Phase.RUNNING, **changes})


def done(task: Task, at: datetime = NOW) -> Work:
    return Work(task, generation=1, phase=Phase.DONE, finished_at=at)


def failure(
    reason: Reason = Reason.BACKEND_UNREACHABLE,
    message: str = "qdrant:6334 does not answer",
    is_terminal: bool = False,
    wait: timedelta = timedelta(seconds=30),
) -> Failure:
    return Failure(reason, message, is_terminal, attempts=1, retry_at=NOW + wait)


def failed(task: Task, generation: int = 1, **changes: Any) -> Work:
    """Work that failed under a generation; the rest describes the failure."""
    return Work(task, generation=generation, phase=Phase.FAILED, failure=failure(**changes))


# What a test reads from a plan.


def started(actions: Iterable[Action]) -> list[Task]:
    return [action.task for action in actions if isinstance(action, StartWork)]


def is_probe(action: Action) -> bool:
    """Whether an action asks the index that is kept, which is routine wherever one is."""
    return isinstance(action, StartWork) and isinstance(action.task, Probe)


def kinds(actions: Iterable[Action]) -> list[str]:
    """What a plan does, as names: `RecordFacts`, `StartWork Build v8`."""
    names = []
    for action in actions:
        match action:
            case StartWork(task=Build() | Follow() | Check() | Repair() as task):
                names.append(f"StartWork {type(task).__name__} {task.version}@{task.snapshot}")
            case StartWork(task=Embed() as task):
                names.append(f"StartWork Embed {task.version}@{task.snapshot}")
            case StartWork(task=task):
                names.append(f"StartWork {type(task).__name__}")
            case _:
                names.append(type(action).__name__)
    return names


def goal(status: Any) -> tuple[ConditionType, Reason, str]:
    """The one of Ready, Reconciling and Stalled that holds, with its reason and message."""
    three = [get(status.conditions, t) for t in (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)]
    (holds,) = [c for c in three if c is not None and c.status is Status.TRUE]
    return holds.type, holds.reason, holds.message


def said(status: Any, kind: ConditionType) -> tuple[str, Reason, str]:
    """A condition as its status, reason and message."""
    found = get(status.conditions, kind)
    assert found is not None
    return str(found.status), found.reason, found.message
