"""Resources as the API server keeps them, read into our types. By whichever release they were written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from pointsman.api.conditions import Reason
from pointsman.cluster.resources import Resource
from pointsman.controller.world import World
from pointsman.errors import PointsmanError, Terminal
from pointsman.plan import facts as plan_facts
from pointsman.plan.facts import Facts
from pointsman.plan.observed import Problem
from pointsman.plan.tasks import Key
from pointsman.store.log import Record
from pointsman.work import jobs


def key_of(resource: Resource) -> Key:
    """Return the key of a resource."""
    return Key(resource["kind"], resource["metadata"]["namespace"], resource["metadata"]["name"])


def status(kind: Callable[..., Any], resource: Resource) -> Any:
    """Return a status without the conditions and fields that cannot be read, by whichever release they were written."""
    found = dict(resource.get("status", {}))
    try:
        return kind(**found)
    except ValidationError as error:
        unread = {tuple(part["loc"][:2]) for part in error.errors()}
    found["conditions"] = [c for n, c in enumerate(found.get("conditions", ())) if ("conditions", n) not in unread]
    fields = {name for name, *_ in unread} - {"conditions"}
    return kind(**{name: value for name, value in found.items() if name not in fields})


def deleting_since(resource: Resource, world: World) -> datetime | None:
    """Return since when a deleted resource is being removed; None where it is not deleted."""
    deleted = time(resource["metadata"].get("deletionTimestamp"))
    return None if deleted is None else max(deleted, world.started)


def valid(kind: Callable[..., Any], resource: Resource) -> Any:
    """Read a spec. The API server has judged it by the same schema, but perhaps by that of another release."""
    try:
        return kind(**resource["spec"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Terminal(Reason.INVALID_SPEC, f"spec.{where}: {first['msg']}") from error


def time(text: str | None) -> datetime | None:
    """Return a time as the API server writes it; None where there is none."""
    return None if text is None else datetime.fromisoformat(text)


def problem(error: PointsmanError) -> Problem:
    """Return what observing ran into."""
    return Problem(error.reason, error.message, isinstance(error, Terminal))


def facts_of(deployment: Key, world: World) -> tuple[Facts, int]:
    """Return a deployment's facts and their revision; empty ones and 0 where there are none."""
    found = record(jobs.facts_log(deployment), world)
    return (Facts(), 0) if found is None else (plan_facts.from_json(found.value), found.revision)


def record(log: tuple[str, ...], world: World) -> Record | None:
    """Return the newest record of a log; at a glance, that of the moment at which its owner was first looked at."""
    if world.shelves is None:
        return world.store.log(*log).read()
    owner, rest = log[:3], "/".join(log[3:])
    if owner not in world.shelves:
        world.shelves[owner] = world.store.shelf(*owner)
    return world.shelves[owner].read(rest)
