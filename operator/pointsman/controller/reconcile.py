"""The loop's body: observe, plan, apply, report."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
from pointsman.controller import apply, figures, judging, observe, reading, report
from pointsman.controller.figures import Sample
from pointsman.controller.world import World
from pointsman.errors import Conflict, PointsmanError, Terminal, unforeseen
from pointsman.plan import actions, approvals, dataset, deployment, observed, outcomes, querysets, words
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
log = logs.logger()


def reconcile(key: Key, world: World, now: datetime) -> timedelta | None:
    """Move one resource as far as the facts allow and return when to look again; None once it is gone.

    A glance shows of most that there is nothing to do. Whatever it finds to do is found again, and then done, by a
    look at the cluster itself.
    """
    rest = _glanced(key, world, now)
    if rest is not None:
        return rest
    resource = world.cluster.get(key.kind, key.namespace, key.name)
    if resource is None:
        world.runner.cancel(key)
        world.databases.forget(key)
        world.metrics.forget(key)
        if key.kind == QUERY_SET and (record := world.store.log(*jobs.query_set_log(key))).read() is not None:
            # Numbers are all that is kept of a query set, and they can be found again.
            world.fence.check()
            record.forget()
        return None
    try:
        return _looked_after(KINDS[key.kind], resource, world, now)
    except PointsmanError:
        raise
    except Exception as error:
        # What nobody foresaw is for the queue to log; whoever looks at the resource must not be told that all is well.
        _unseen(resource, KINDS[key.kind].status, unforeseen(error), world, now)
        raise


def _deployments_of(seen: observed.Dataset, plan: Plan[dataset_api.DatasetStatus], world: World) -> Iterable[Key]:
    """What a dataset has reached, or lacks, is what its deployments go on from."""
    is_news = plan.actions or plan.status != seen.status
    return [Key(DEPLOYMENT, seen.key.namespace, user.name) for user in seen.users] if is_news else []


def _decisions_on(
    seen: observed.Deployment, plan: Plan[deployment_api.DeploymentStatus], world: World
) -> Iterable[Key]:
    """Whether a decision counts depends on what is planned, and on whether it was used."""
    is_news = plan.actions or plan.status.plan_hash != seen.status.plan_hash
    return [Key(APPROVAL, seen.key.namespace, approval.name) for approval in seen.approvals] if is_news else []


def _askers_of(seen: observed.QuerySet, plan: Plan[queryset_api.QuerySetStatus], world: World) -> Iterable[Key]:
    """What a set has become is what gates ask by."""
    return judging.askers(seen.key, world) if plan.actions or plan.status != seen.status else []


def _nobody(seen: observed.Decision, plan: Plan[approval_api.ApprovalStatus], world: World) -> Iterable[Key]:
    """Whoever waits for a decision is woken by the event of it."""
    return []


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of resource is looked after."""

    status: type[Any]
    see: Callable[[Resource, World], Any]
    plan: Callable[[Any, datetime], Plan[Any]]
    concerns: Callable[[Any, Any, World], Iterable[Key]]
    """Whose next look depends on what came of this one."""
    figures: Callable[[Any, Any, datetime], Iterable[Sample]] = figures.none
    """What numbers it gives."""


KINDS: Mapping[str, Kind] = {
    DATASET: Kind(dataset_api.DatasetStatus, observe.dataset, dataset.plan, _deployments_of, figures.dataset),
    DEPLOYMENT: Kind(
        deployment_api.DeploymentStatus, observe.deployment, deployment.plan, _decisions_on, figures.deployment
    ),
    QUERY_SET: Kind(queryset_api.QuerySetStatus, observe.query_set, querysets.plan, _askers_of),
    APPROVAL: Kind(approval_api.ApprovalStatus, judging.approval, approvals.plan, _nobody),
}


def _looked_after(kind: Kind, resource: Resource, world: World, now: datetime) -> timedelta:
    try:
        seen = kind.see(resource, world)
        plan = kind.plan(seen, now)
    except PointsmanError as error:
        return _unseen(resource, kind.status, error, world, now)
    look_again = _carry_out(resource, seen.status, plan, world, now, functools.partial(_note, seen, world, now))
    _count(kind, reading.key_of(resource), seen, plan, world, now)
    for key in kind.concerns(seen, plan, world):
        world.wake(key)
    return look_again


def _glanced(key: Key, world: World, now: datetime) -> timedelta | None:
    """Return when to look again at what is at rest by what was heard of it; None where it has to be looked at."""
    near, kind = world.at_a_glance(), KINDS[key.kind]
    resource = None if near is None else near.sight.get(key.kind, key.namespace, key.name)
    if near is None or resource is None:
        return None
    try:
        seen = kind.see(resource, near)
        plan = kind.plan(seen, now)
    except PointsmanError:
        # What is wrong is looked at, and said, by whoever can.
        return None
    if plan.actions or plan.status != seen.status:
        return None
    _count(kind, key, seen, plan, world, now)
    world.metrics.said(key, plan.status.conditions)
    return plan.look_again


def _note(seen: Any, world: World, now: datetime, done: actions.Action) -> None:
    """Count what the writing of facts has made true: a migration that is over."""
    if isinstance(done, actions.RecordFacts) and isinstance(seen, observed.Deployment):
        ended = outcomes.ended(seen, done.facts, now)
        if ended is not None:
            world.metrics.ended(seen.key, ended)


def _count(kind: Kind, key: Key, seen: Any, plan: Plan[Any], world: World, now: datetime) -> None:
    """Tell in numbers what was seen and planned."""
    world.metrics.saw(key, kind.figures(seen, plan.status, now), getattr(seen, "work", ()))
    if isinstance(seen, observed.Dataset):
        world.metrics.embedded(seen)


def _carry_out(
    resource: Resource,
    before: Status,
    plan: Plan[Status],
    world: World,
    now: datetime,
    note: Callable[[actions.Action], None] = lambda done: None,
) -> timedelta:
    """Apply a plan and report it; an action that fails is folded into the report and ends the plan."""
    status, look_again = plan.status, plan.look_again
    said = f"{resource['kind']} {reading.key_of(resource)}"
    for action in plan.actions:
        try:
            apply.action(action, resource, world)
            log.info(logs.Event.ACTION_APPLIED, action=type(action).__name__, resource=said)
            world.metrics.acted(type(action).__name__)
            note(action)
        except Conflict:
            # Somebody else wrote first: what was planned may be wrong by now.
            return words.AT_ONCE
        except PointsmanError as error:
            status = _with_error(before, status, error, resource, now)
            look_again = timedelta(seconds=30 if isinstance(error, Terminal) else 5)
            log.warning(logs.Event.ACTION_FAILED, action=type(action).__name__, resource=said, error=error)
            world.metrics.failed(resource["kind"], error.reason)
            break
    world.metrics.said(reading.key_of(resource), status.conditions)
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
    world.metrics.failed(resource["kind"], error.reason)
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
