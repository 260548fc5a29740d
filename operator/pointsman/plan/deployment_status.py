"""What to say of a deployment: serving and the goal apart, the road in figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api import conditions as conditions_api
from pointsman.api import deployment as api
from pointsman.api import routes as routes_api
from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.api.deployment import Role
from pointsman.plan import indexes, routes, words
from pointsman.plan.facts import Facts, Index
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment, Presence
from pointsman.plan.tasks import Build, Check, IndexTask, Repair

State = tuple[ConditionType, Reason, str]
"""The one of Ready, Reconciling and Stalled that holds, with its reason and its sentence."""


def status(
    seen: Deployment, facts: Facts, state: State, now: datetime, under_way: api.Stage | None = None
) -> api.DeploymentStatus:
    """Return the whole status, as it will be true once the plan's actions have been carried out."""
    serving = facts.serving
    rollback = _rollback(seen, facts, now)
    conditions = [
        *words.goal(state, seen.generation, now),
        _available(seen, serving, now),
        _rollback_ready(seen, facts, rollback, now),
    ]
    return api.DeploymentStatus(
        observed_generation=seen.generation,
        conditions=conditions_api.merge(seen.status.conditions, conditions),
        effective=api.effective(seen.spec),
        phase=_phase(state),
        serving_version=serving.version if serving else "",
        serving_index=serving.name if serving else "",
        target_version=seen.spec.version,
        step=None if under_way is None else api.StepStatus(name=under_way),
        weight=f"{serving.version} 100" if serving else "",
        rollback=rollback,
        route=routes.for_gateways(seen, facts),
        indexes=[_index(seen, index) for index in _listed(facts)],
        history=[api.Promotion(version=p.version, index=p.index, snapshot=p.snapshot, at=p.at) for p in facts.history],
    )


def step(seen: Deployment, facts: Facts, target: Target | str, work: Sequence[IndexTask]) -> api.Stage | None:
    """Return the step under way to the version that must serve; None at rest, or where only an edit leads on.

    The switch itself is none: it is over before anything is said.
    """
    serving = facts.serving
    if isinstance(target, str):
        _, _, kind = indexes.why_no_target(seen, target)
        return api.Stage.EMBED if kind is ConditionType.RECONCILING else None
    wanted = indexes.find(seen, facts, target)
    if wanted is None or wanted == serving:
        return api.Stage.RETIRE if any(index.role is Role.RETIRING for index in facts.indexes) else None
    if wanted.role is Role.CANDIDATE and indexes.is_suspended(seen, facts):
        return None
    tried = (tried.task for tried in seen.work if tried.task.subject == f"index {wanted.name}")
    match next((task for task in work if task.index == wanted.name), None) or next(tried, None):
        case Build():
            return api.Stage.BUILD
        case Check() | Repair():
            return api.Stage.VERIFY
        case _:
            return api.Stage.FOLLOW


def _phase(state: State) -> str:
    kind, reason, _ = state
    if kind is ConditionType.READY:
        return "Serving"
    return "Stalled" if kind is ConditionType.STALLED else str(reason)


def _available(seen: Deployment, serving: Index | None, now: datetime) -> Condition:
    holds: bool | None
    if serving is None:
        holds, reason, message = False, Reason.NOTHING_SERVES, "no index serves yet"
    elif indexes.is_gone(seen, serving):
        holds, reason, message = False, Reason.INDEX_LOST, f"index {serving.name} is gone from the database"
    elif (problem := indexes.unseen(seen, serving)) is not None:
        holds, reason, message = None, problem.reason, f"index {serving.name} could not be looked at"
    else:
        holds, reason, message = True, Reason.SERVING, f"serving {serving.version} from {serving.name}"
    return words.condition(ConditionType.AVAILABLE, holds, reason, message, seen.generation, now)


def _retained(seen: Deployment, facts: Facts) -> Index | None:
    """Return the retained index that a rollback would go to: the one that served last."""
    found = [i for i in facts.indexes if i.role is Role.RETAINED]
    return max(found, key=lambda i: i.since.timestamp() if i.since else 0.0, default=None)


def _rollback(seen: Deployment, facts: Facts, now: datetime) -> api.RollbackStatus | None:
    index = _retained(seen, facts)
    if index is None:
        return None
    ready = _is_ready(seen, facts, index, now)
    until = index.since + base.parse_duration(seen.spec.retire.after) if index.since else None
    behind = words.running(seen.work, f"index {index.name}")
    estimate = "1s" if ready else ""
    if not ready and behind and behind.rate > 0 and behind.total > behind.done:
        estimate = words.duration(timedelta(seconds=(behind.total - behind.done) / behind.rate))
    return api.RollbackStatus(ready=ready, to=index.version, estimate=estimate, until=until)


def _is_ready(seen: Deployment, facts: Facts, index: Index, now: datetime) -> bool:
    """Return whether going back is one switch; it stays so while the index moves on and loses nothing by it."""
    if indexes.may_take_over(seen, facts, index, now):
        return True
    record = seen.records.get(index.name)
    is_moving = record is not None and record.pending is not None and record.verified_at and not record.differences
    is_there = indexes.presence(seen, index.name) is Presence.PRESENT
    return bool(is_moving) and is_there and indexes.is_no_step_back(seen, facts, index, now)


def _rollback_ready(seen: Deployment, facts: Facts, rollback: api.RollbackStatus | None, now: datetime) -> Condition:
    holds: bool | None = False
    index = _retained(seen, facts)
    if rollback is None or index is None:
        reason, message = Reason.NOTHING_RETAINED, "there is no earlier index to go back to"
        return words.condition(ConditionType.ROLLBACK_READY, False, reason, message, seen.generation, now)
    where = indexes.held(seen, index)
    said = index.version if where is None else f"{index.version}@{where.snapshot}"
    record, found = seen.records.get(index.name), seen.physical.get(index.name)
    failure = words.failure(seen.work, f"index {index.name}")
    if (problem := indexes.unseen(seen, index)) is not None:
        holds, reason, message = None, problem.reason, f"{said} could not be looked at"
    elif indexes.is_gone(seen, index):
        reason, message = Reason.INDEX_LOST, f"index {index.name} is gone from the database"
    elif rollback.ready:
        holds, reason = True, Reason.RETAINED_INDEX_IS_CURRENT
        message = f"{said} is complete and current; going back is one switch"
    elif record is not None and found is not None and (record.differences or indexes.is_miscounted(record, found)):
        reason, message = (
            Reason.INDEX_DIFFERS,
            f"{said} differs from its snapshot; it is repaired before it could serve",
        )
    else:
        reason, message = Reason.RETAINED_INDEX_IS_BEHIND, f"{said} has to catch up before it could serve"
    if holds is False and failure is not None:
        message += f"; {failure.message}"
    return words.condition(ConditionType.ROLLBACK_READY, holds, reason, message, seen.generation, now)


def _listed(facts: Facts) -> list[Index]:
    """Return the indexes that a status has room for, the most important first and of those the youngest."""
    order = (Role.SERVING, Role.RETAINED, Role.CANDIDATE, Role.RETIRING)

    def rank(index: Index) -> tuple[int, float]:
        return order.index(index.role), -index.since.timestamp() if index.since else 0.0

    return sorted(facts.indexes, key=rank)[: routes_api.MOST_INDEXES]


def _index(seen: Deployment, index: Index) -> api.IndexStatus:
    record = seen.records.get(index.name)
    running = words.running(seen.work, f"index {index.name}")
    cursor = record.cursor if record is not None else None
    return api.IndexStatus(
        name=index.name,
        version=index.version,
        recipe=index.recipe,
        role=index.role,
        frozen=index.frozen is not None,
        cursor=None if cursor is None else api.CursorStatus(snapshot=cursor.snapshot, sequence=cursor.sequence),
        rows=record.rows if record else 0,
        digest=record.digest if record else "",
        verified_at=record.verified_at if record else None,
        checked_at=record.checked_at if record else None,
        progress=words.progress(running) if running is not None and running.total else None,
    )
