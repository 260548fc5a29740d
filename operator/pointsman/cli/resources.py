"""What people call a resource, and what its parts mean to a command."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, TypeVar

import pydantic

from pointsman.api import base, conditions
from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.cli.session import Session
from pointsman.cluster.resources import DATASET, DEPLOYMENT, QUERY_SET, Resource
from pointsman.errors import Terminal

WORDS = {DATASET: "dataset", DEPLOYMENT: "deployment", QUERY_SET: "query set"}
"""What a kind is called in a sentence."""

_NAMES = {
    DATASET: {"embeddingdataset", "embeddingdatasets", "dataset", "datasets", "eds"},
    DEPLOYMENT: {"indexdeployment", "indexdeployments", "deployment", "deployments", "idx"},
    QUERY_SET: {"queryset", "querysets", "qs"},
}
_SHORT = {DATASET: "eds", DEPLOYMENT: "idx", QUERY_SET: "qs"}

Status = TypeVar("Status", bound=base.Model)


class _Conditions(base.Model):
    conditions: tuple[Condition, ...] = ()


def split(reference: str, kinds: tuple[str, ...]) -> tuple[str | None, str]:
    """Return kind, where it is said, and name of `NAME` or `KIND/NAME`; raises Terminal for a kind not asked for."""
    prefix, slash, name = reference.rpartition("/")
    if not slash:
        return None, reference
    # kubectl prints resources as `kind.group/name`, and people paste that.
    stem = prefix.lower().removesuffix(f".{base.GROUP}")
    kind = next((kind for kind in kinds if stem in _NAMES[kind]), None)
    if kind is None or not name:
        wanted = " or ".join(f"{_SHORT[kind]}/NAME" for kind in kinds)
        raise Terminal(Reason.INVALID_SPEC, f"{reference} is not a resource that this command knows; wanted {wanted}")
    return kind, name


def find(session: Session, reference: str, kinds: tuple[str, ...]) -> tuple[str, Resource]:
    """Return kind and resource of `NAME` or `KIND/NAME`; raises Terminal where there is none, or more than one."""
    kind, name = split(reference, kinds)
    candidates = (kind,) if kind else kinds
    found = []
    for candidate in candidates:
        resource = session.cluster.get(candidate, session.namespace, name)
        if resource is not None:
            found.append((candidate, resource))
    if not found:
        wanted = " or ".join(WORDS[candidate] for candidate in candidates)
        message = f"there is no {wanted} {name} in namespace {session.namespace}"
        raise Terminal(Reason.INVALID_SPEC, f"{message}; see pointsman get --all-namespaces")
    if len(found) > 1:
        which = " or ".join(f"{_SHORT[candidate]}/{name}" for candidate, _ in found)
        raise Terminal(Reason.INVALID_SPEC, f"{name} is the name of {len(found)} resources; say {which}")
    return found[0]


def name_of(reference: str, kind: str) -> str:
    """Return the name in `NAME` or `KIND/NAME` where only one kind will do."""
    return split(reference, (kind,))[1]


def status(resource: Resource, model: type[Status]) -> Status:
    """Read a resource's status; fields of a later release are passed over, reasons unknown to this one refused."""
    try:
        return model.model_validate(resource.get("status") or {}, extra="ignore")
    except pydantic.ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        name = resource["metadata"]["name"]
        raise Terminal(
            Reason.INVALID_SPEC, f"status.{place} of {name} is of another release; use the operator's own pointsman"
        ) from None


def conditions_of(resource: Resource) -> list[Condition]:
    """Return the conditions of a resource of any kind."""
    return list(status(resource, _Conditions).conditions)


def goal(found: list[Condition]) -> Condition | None:
    """Return the one of Ready, Stalled and Reconciling that holds."""
    for kind in (ConditionType.READY, ConditionType.STALLED, ConditionType.RECONCILING):
        condition = conditions.get(found, kind)
        if condition is not None and condition.status is conditions.Status.TRUE:
            return condition
    return None


def seconds(text: str) -> float:
    """Read a duration such as `5m`; raises Terminal for anything else."""
    try:
        return base.parse_duration(text).total_seconds()
    except ValueError as error:
        raise Terminal(Reason.INVALID_SPEC, str(error)) from None


def span(value: float) -> str:
    """Return seconds as `45s`, `3m20s` or `2h5m`."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def ago(then: datetime | None, now: datetime) -> str:
    """Return how long ago something was, or a dash where it never was."""
    return "-" if then is None else f"{span(max(timedelta(0), now - then).total_seconds())} ago"


def metadata(resource: Resource) -> dict[str, Any]:
    """Return a resource's metadata."""
    found: dict[str, Any] = resource["metadata"]
    return found
