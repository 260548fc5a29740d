"""Says what is true: one status write where something moved, one Event and one line where a condition turned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pointsman import logs
from pointsman.api import approval as approval_api
from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api import queryset as queryset_api
from pointsman.api.conditions import ROUTINE, Condition, ConditionType, Reason, Status, get
from pointsman.cluster.resources import Resource
from pointsman.controller.reading import key_of
from pointsman.controller.world import World
from pointsman.errors import Conflict

log = logs.logger()

AnyStatus = (
    dataset_api.DatasetStatus
    | deployment_api.DeploymentStatus
    | queryset_api.QuerySetStatus
    | approval_api.ApprovalStatus
)

ANNOUNCED = frozenset(
    {ConditionType.READY, ConditionType.STALLED, ConditionType.AVAILABLE, ConditionType.SOURCE_REACHABLE}
)
"""The conditions whose turns are worth an Event."""
DEPENDED_ON = frozenset({ConditionType.ROLLBACK_READY, ConditionType.TRAFFIC_VERIFIED, ConditionType.SCORES_STEADY})
"""Those of which an Event tells only when they begin not to hold, and when a fault is over."""
PASSING = frozenset({Reason.ROUTE_NOT_ACCEPTED, Reason.RETAINED_INDEX_IS_BEHIND})
"""Reasons that come and go with every step or snapshot: what lasts has another one."""


def status(resource: Resource, before: AnyStatus, after: AnyStatus, world: World) -> None:
    """Write a status if it differs from the one that was observed, then post Events for what turned.

    Raises Conflict where the resource has been edited in between: the next look will say more.
    """
    if after == before:
        return
    key = key_of(resource)
    latest = world.cluster.get(key.kind, key.namespace, key.name)
    if latest is None:
        return
    same = all(latest["metadata"][name] == resource["metadata"][name] for name in ("uid", "generation"))
    if not same:
        raise Conflict(f"{key} was edited in between")
    version = latest["metadata"]["resourceVersion"]
    world.fence.check()
    world.cluster.write_status(key.kind, key.namespace, key.name, dump(after), version)
    for message, (is_warning, reason) in announced(before.conditions, after.conditions).items():
        tell = log.warning if is_warning else log.info
        tell(logs.Event.CONDITION_TURNED, resource=f"{key.kind} {key}", reason=reason, message=message)
        world.fence.check()
        world.cluster.event(latest, is_warning, reason, message)


def dump(value: AnyStatus) -> dict[str, Any]:
    """Return a status as JSON, without what is not known."""
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def announced(before: Sequence[Condition], after: Sequence[Condition]) -> dict[str, tuple[bool, Reason]]:
    """Return what Events are due: each sentence once, whether it is a Warning, and its reason."""
    due: dict[str, tuple[bool, Reason]] = {}
    for condition in turned(before, after):
        was_warning, _ = due.get(condition.message, (False, None))
        due[condition.message] = (was_warning or _is_warning(condition), condition.reason)
    return due


def _is_warning(condition: Condition) -> bool:
    if condition.type is ConditionType.STALLED and condition.status is Status.TRUE:
        return True
    if condition.type in (ConditionType.AVAILABLE, ConditionType.SOURCE_REACHABLE) and condition.status is Status.FALSE:
        return True
    return condition.reason not in ROUTINE


def turned(before: Sequence[Condition], after: Sequence[Condition]) -> list[Condition]:
    """Return the conditions that have turned, and of which nobody would hear otherwise."""
    return [condition for condition in after if _has_turned(get(before, condition.type), condition)]


def _has_turned(old: Condition | None, new: Condition) -> bool:
    if new.type is ConditionType.AWAITING_APPROVAL:
        # What is held, or fails in a burn-in, is said by Stalled and Ready. Another question is one more to answer.
        is_asked = new.status is Status.TRUE and new.reason is Reason.A_PERSON_IS_ASKED
        return is_asked and (
            old is None or (old.status, old.reason, old.message) != (new.status, new.reason, new.message)
        )
    if new.type in DEPENDED_ON:
        return _fails_anew(old, new)
    return new.type in ANNOUNCED and _is_other(old, new)


def _is_other(old: Condition | None, new: Condition) -> bool:
    """Return whether status or reason has changed, but for the first sight of a dull one.

    One that does not hold has turned where another fault is the reason, and not where work goes on.
    """
    holds = new.status is Status.TRUE
    if old is None:
        return holds
    return old.status is not new.status or (old.reason is not new.reason and (holds or new.reason not in ROUTINE))


def _fails_anew(old: Condition | None, new: Condition) -> bool:
    """Return whether what others rely on is no more, for whatever does not pass by itself, or a fault of it is over."""
    was_faulty = old is not None and old.status is Status.FALSE and old.reason not in ROUTINE
    if new.status is Status.TRUE:
        return was_faulty
    if new.status is Status.UNKNOWN or new.reason in PASSING:
        return False
    if new.reason in ROUTINE:
        return old is not None and old.status is Status.TRUE
    return old is None or (old.status, old.reason) != (new.status, new.reason)
