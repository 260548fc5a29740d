"""The loop's body: observe, plan, apply, report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pointsman import logs
from pointsman.api import approval as approval_api
from pointsman.api import conditions as conditions_api
from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api import queryset as queryset_api
from pointsman.api.conditions import ConditionType
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, FINALIZER, QUERY_SET, Resource
from pointsman.controller import apply, judging, observe, reading, report
from pointsman.controller.world import World
from pointsman.errors import Conflict, PointsmanError, Terminal, unforeseen
from pointsman.plan import actions, approvals, dataset, deployment, querysets, words
from pointsman.plan.observed import Plan
from pointsman.plan.tasks import Key
from pointsman.work import jobs

Status = TypeVar(
    "Status",
    dataset_api.DatasetStatus,
    deployment_api.DeploymentStatus,
    queryset_api.QuerySetStatus,
    approval_api.ApprovalStatus,
)
STATUSES: Mapping[str, type[Any]] = {
    DATASET: dataset_api.DatasetStatus,
    DEPLOYMENT: deployment_api.DeploymentStatus,
    QUERY_SET: queryset_api.QuerySetStatus,
    APPROVAL: approval_api.ApprovalStatus,
}

log = logs.logger()


def reconcile(key: Key, world: World, now: datetime) -> timedelta | None:
    """Move one resource as far as the facts allow and return when to look again; None once it is gone."""
    resource = world.cluster.get(key.kind, key.namespace, key.name)
    if resource is None:
        world.runner.cancel(key)
        world.databases.forget(key)
        if key.kind == QUERY_SET and (record := world.store.log(*jobs.query_set_log(key))).read() is not None:
            # Numbers are all that is kept of a query set, and they can be found again.
            world.fence.check()
            record.forget()
        return None
    try:
        match key.kind:
            case kind if kind == DATASET:
                return _dataset(resource, world, now)
            case kind if kind == DEPLOYMENT:
                return _deployment(resource, world, now)
            case kind if kind == QUERY_SET:
                return _query_set(resource, world, now)
            case kind if kind == APPROVAL:
                return _approval(resource, world, now)
    except PointsmanError:
        raise
    except Exception as error:
        # What nobody foresaw is for the queue to log; whoever looks at the resource must not be told that all is well.
        _unseen(resource, STATUSES[key.kind], unforeseen(error), world, now)
        raise
    return None


def _dataset(resource: Resource, world: World, now: datetime) -> timedelta:
    try:
        seen = observe.dataset(resource, world)
        plan = dataset.plan(seen, now)
    except PointsmanError as error:
        return _unseen(resource, dataset_api.DatasetStatus, error, world, now)
    look_again = _carry_out(resource, seen.status, plan, world, now)
    if plan.actions or plan.status != seen.status:
        # What a dataset has reached, or lacks, is what its deployments go on from.
        for user in seen.users:
            world.wake(Key(DEPLOYMENT, seen.key.namespace, user.name))
    return look_again


def _deployment(resource: Resource, world: World, now: datetime) -> timedelta:
    try:
        seen = observe.deployment(resource, world)
        plan = deployment.plan(seen, now)
    except PointsmanError as error:
        return _unseen(resource, deployment_api.DeploymentStatus, error, world, now)
    look_again = _carry_out(resource, seen.status, plan, world, now)
    if plan.actions or plan.status.plan_hash != seen.status.plan_hash:
        # Whether a decision counts depends on what is planned, and on whether it was used.
        for approval in seen.approvals:
            world.wake(Key(APPROVAL, seen.key.namespace, approval.name))
    return look_again


def _query_set(resource: Resource, world: World, now: datetime) -> timedelta:
    try:
        seen = observe.query_set(resource, world)
        plan = querysets.plan(seen, now)
    except PointsmanError as error:
        return _unseen(resource, queryset_api.QuerySetStatus, error, world, now)
    look_again = _carry_out(resource, seen.status, plan, world, now)
    if plan.actions or plan.status != seen.status:
        # What a set has become is what gates ask by.
        for user in judging.askers(seen.key, world):
            world.wake(user)
    return look_again


def _approval(resource: Resource, world: World, now: datetime) -> timedelta:
    try:
        seen = judging.approval(resource, world)
        plan = approvals.plan(seen, now)
    except PointsmanError as error:
        return _unseen(resource, approval_api.ApprovalStatus, error, world, now)
    return _carry_out(resource, seen.status, plan, world, now)


def _carry_out(resource: Resource, before: Status, plan: Plan[Status], world: World, now: datetime) -> timedelta:
    """Apply a plan and report it; an action that fails is folded into the report and ends the plan."""
    status, look_again = plan.status, plan.look_again
    said = f"{resource['kind']} {reading.key_of(resource)}"
    for action in plan.actions:
        try:
            apply.action(action, resource, world)
            log.info(logs.Event.ACTION_APPLIED, action=type(action).__name__, resource=said)
        except Conflict:
            # Somebody else wrote first: what was planned may be wrong by now.
            return words.AT_ONCE
        except PointsmanError as error:
            status = _with_error(before, status, error, resource, now)
            look_again = timedelta(seconds=30 if isinstance(error, Terminal) else 5)
            log.warning(logs.Event.ACTION_FAILED, action=type(action).__name__, resource=said, error=error)
            break
    try:
        report.status(resource, before, status, world)
    except Conflict:
        return words.AT_ONCE
    if getattr(status, "route", None) != getattr(before, "route", None):
        world.gateways.hurry()
    return look_again


def _unseen(resource: Resource, kind: type[Any], error: PointsmanError, world: World, now: datetime) -> timedelta:
    """Report that observing itself failed: the old status stays, but for what it says of the goal.

    What cannot be seen cannot be removed, so a deleted resource goes at its deadline, and what it has made stays.
    """
    before, since = reading.status(kind, resource), reading.deleting_since(resource, world)
    let_go: tuple[actions.Action, ...] = ()
    if since is not None and now - since >= world.deadline and FINALIZER in resource["metadata"].get("finalizers", ()):
        left = f"{error.message}; let go after {words.duration(world.deadline)}, and what it has made is left behind"
        let_go = (actions.RemoveFinalizer(reading.key_of(resource), left),)
    look_again = timedelta(seconds=30 if isinstance(error, Terminal) else 5)
    plan = Plan(let_go, _with_error(before, before, error, resource, now), look_again)
    return _carry_out(resource, before, plan, world, now)


def _with_error(before: Any, planned: Any, error: PointsmanError, resource: Resource, now: datetime) -> Any:
    kind = ConditionType.STALLED if isinstance(error, Terminal) else ConditionType.RECONCILING
    generation = resource["metadata"]["generation"]
    goal = words.goal((kind, error.reason, error.message), generation, now)
    others = [c for c in planned.conditions if c.type not in {g.type for g in goal}]
    if isinstance(planned, deployment_api.DeploymentStatus):
        # Gateways are told of nothing that is not on record.
        planned = planned.model_copy(update={"route": before.route})
    # Nothing has turned since it was last written: what was planned in between never came true.
    merged = conditions_api.merge(before.conditions, [*goal, *others])
    return planned.model_copy(update={"conditions": merged, "observed_generation": generation})
