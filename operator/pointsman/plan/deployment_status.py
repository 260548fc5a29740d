"""What to say of a deployment: serving and the goal apart, the road in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pointsman.api import base, steps
from pointsman.api import conditions as conditions_api
from pointsman.api import deployment as api
from pointsman.api import routes as routes_api
from pointsman.api.conditions import Condition, ConditionType, Reason, Status
from pointsman.api.deployment import Role
from pointsman.plan import (
    answers,
    approvals,
    burn_in,
    estimates,
    evidence,
    gates,
    indexes,
    retirement,
    rollout,
    routes,
    scores,
    traffic,
    words,
)
from pointsman.plan.facts import Facts, Index, Rollout
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment, Presence
from pointsman.plan.tasks import Build, Check, IndexTask, Phase, Repair

_ROUTE = (ConditionType.TRAFFIC_VERIFIED, Reason.ROUTE_NOT_ACCEPTED)
_BACK = (ConditionType.ROLLBACK_READY, Reason.RETAINED_INDEX_IS_BEHIND)
LASTING: Mapping[tuple[ConditionType, Reason], tuple[timedelta, Reason]] = {
    _ROUTE: (timedelta(minutes=2), Reason.ROUTE_OVERDUE),
    _BACK: (timedelta(minutes=15), Reason.RETAINED_INDEX_STAYS_BEHIND),
}
"""For how long a condition may be False for a reason that comes with every step or snapshot, and what it is then."""

State = tuple[ConditionType, Reason, str]
"""The one of Ready, Reconciling and Stalled that holds, with its reason and its sentence."""


def status(
    seen: Deployment, facts: Facts, state: State, now: datetime, under_way: api.StepStatus | None = None
) -> api.DeploymentStatus:
    """Return the whole status, as it will be true once the plan's actions have been carried out."""
    serving = facts.serving
    rollback = _rollback(seen, facts, now)
    conditions = [
        *words.goal(state, seen.generation, now),
        _available(seen, serving, now),
        _rollback_ready(seen, facts, rollback, now),
        _awaiting_approval(seen, facts, now),
        _traffic_verified(seen, facts, now),
        _unguarded(seen, now),
        scores.condition(seen, facts, now),
    ]
    return api.DeploymentStatus(
        observed_generation=seen.generation,
        conditions=[_lasting(each, now) for each in conditions_api.merge(seen.status.conditions, conditions)],
        effective=api.effective(seen.spec),
        phase=_phase(state),
        serving_version=serving.version if serving else "",
        serving_index=serving.name if serving else "",
        target_version=seen.spec.version,
        step=under_way,
        weight=_weights(facts),
        rollback=rollback,
        route=routes.for_gateways(seen, facts),
        gates=_gates(seen, facts, now),
        rejected=[evidence.rejected(rejection) for rejection in facts.rejected],
        evaluations=evidence.evaluations(seen.evaluation),
        canaries=evidence.canaries(seen.canaries),
        evaluation_handled=_handled(seen),
        shadow=evidence.shadow(seen, facts),
        drill=evidence.drill(seen, facts),
        plan_hash=_plan_hash(seen, facts),
        writer=api.WriterStatus(holder=facts.holder, epoch=facts.epoch) if facts.epoch else None,
        jobs=_jobs(seen),
        indexes=[_index(seen, facts, index) for index in _listed(facts)],
        history=[api.Promotion(version=p.version, index=p.index, snapshot=p.snapshot, at=p.at) for p in facts.history],
    )


def _lasting(said: Condition, now: datetime) -> Condition:
    """Return a condition with the reason of a fault where it was False for longer than is to be expected."""
    patience, reason = LASTING.get((said.type, said.reason), (timedelta.max, said.reason))
    is_long = said.status is Status.FALSE and now - said.last_transition_time >= patience
    return said.model_copy(update={"reason": reason}) if is_long else said


def _jobs(seen: Deployment) -> list[str]:
    """Return the Jobs that load now; those that were known, where they could not be looked at."""
    if seen.unlisted is not None:
        return seen.status.jobs
    return sorted(job.name for job in seen.jobs if not job.is_ended)


def stage(
    seen: Deployment, facts: Facts, target: Target | str, work: Sequence[IndexTask], now: datetime
) -> api.StepStatus | None:
    """Return the stage under way to the version that must serve; None at rest, or where only an edit leads on.

    The switch itself is none: it is over before anything is said.
    """
    serving = facts.serving
    if isinstance(target, str):
        _, _, kind = indexes.why_no_target(seen, target)
        return api.StepStatus(name=api.Stage.EMBED) if kind is ConditionType.RECONCILING else None
    wanted = indexes.find(seen, facts, target)
    if wanted is None or wanted == serving:
        return _at_rest(seen, facts, now)
    if facts.rollout is not None and facts.rollout.index == wanted.name:
        return _on_the_road(seen, facts, facts.rollout, now)
    rejected = facts.is_rejected(target.recipe, target.parameters, seen.spec.retry)
    if rejected is not None and rollout.is_needed(seen, facts, wanted):
        return _at_rest(seen, facts, now)
    if wanted.role is Role.CANDIDATE and indexes.is_suspended(seen, facts):
        return None
    if approvals.aborted(seen, target.version, now) is not None:
        return _at_rest(seen, facts, now)
    unfinished = (each for each in seen.work if each.phase is not Phase.DONE)
    tried = (each.task for each in unfinished if each.task.subject == f"index {wanted.name}")
    match next((task for task in work if task.index == wanted.name), None) or next(tried, None):
        case Build():
            name = api.Stage.BUILD
        case Check() | Repair():
            name = api.Stage.VERIFY
        case None if indexes.may_serve(seen, wanted) and serving is None:
            name = api.Stage.GATES
        case _:
            name = api.Stage.FOLLOW
    return api.StepStatus(name=name, estimate=estimates.of_road(seen) if seen.spec.strategy.steps else "")


def _at_rest(seen: Deployment, facts: Facts, now: datetime) -> api.StepStatus | None:
    burning = facts.burn_in
    if burning is not None:
        left = burn_in.left(seen, facts, now)
        until = burn_in.ends(seen, facts)
        return api.StepStatus(name=api.Stage.BURN_IN, started_at=burning.since, until=until, waiting_for=left)
    if any(index.role is Role.RETIRING for index in facts.indexes):
        return api.StepStatus(name=api.Stage.RETIRE, waiting_for=traffic.why_held(seen, facts))
    return None


def _on_the_road(seen: Deployment, facts: Facts, road: Rollout, now: datetime) -> api.StepStatus:
    step, found = rollout.current(seen, road), rollout.wait(seen, facts, now)
    stands_still = bool(road.held) or road.suspended_at is not None
    match step:
        case None:
            name = api.Stage.GATES
        case steps.Step(shadow=steps.Shadow()):
            name = api.Stage.SHADOW
        case steps.Step(pause=steps.Pause()):
            name = api.Stage.PAUSE
        case steps.Step(approval=steps.ApprovalStep()):
            name = api.Stage.APPROVAL
        case _:
            name = api.Stage.WEIGHT
    return api.StepStatus(
        name=name,
        index=road.step,
        of=len(rollout.road(seen)),
        hash=road.steps,
        started_at=road.since,
        deadline=None if found is None or stands_still else found.deadline,
        until=None if found is None or stands_still else found.until,
        waiting_for=road.held or ("" if found is None else found.message),
        estimate=estimates.of_road(seen),
    )


def _phase(state: State) -> str:
    kind, reason, _ = state
    if kind is ConditionType.READY:
        return "Serving"
    return "Stalled" if kind is ConditionType.STALLED else str(reason)


def _weights(facts: Facts) -> str:
    """Return the shares of the queries by version: `v8 10, v7 90`."""
    shares = ((facts.get(name), weight) for name, weight in facts.weights.items())
    return ", ".join(f"{index.version} {weight}" for index, weight in shares if index is not None)


def _gates(seen: Deployment, facts: Facts, now: datetime) -> list[api.GateStatus]:
    """Return what the gates say of the candidate, or of what serves beside what served before."""
    compared, target = rollout.pair(facts), indexes.target(seen)
    wanted = indexes.wanted(seen, facts, target)
    if wanted is not None and facts.rollout is None and rollout.is_needed(seen, facts, wanted):
        # What the gates lack is said before anything is built.
        compared = gates.Pair(wanted, facts.serving)
    if compared is None:
        return []
    return [found.status(compared.index.version) for found in gates.findings(seen, facts, compared, now)]


def _handled(seen: Deployment) -> str:
    """Return the request for an evaluation that is answered: by numbers, or by why there are none."""
    found, asked, before = seen.evaluation, seen.evaluate_token, seen.status.evaluation_handled
    if found is not None and found.token == asked:
        return asked
    is_unasked = seen.spec.gates.evaluation is None
    return asked if is_unasked or words.failure(seen.work, f"evaluation of {seen.key}") is not None else before


def _plan_hash(seen: Deployment, facts: Facts) -> str:
    target = indexes.target(seen)
    return "" if isinstance(target, str) else approvals.plan_hash(seen, facts, target)


def _awaiting_approval(seen: Deployment, facts: Facts, now: datetime) -> Condition:
    found = rollout.wait(seen, facts, now)
    if found is not None and found.is_for_a_person:
        holds, reason, message = True, Reason.A_PERSON_IS_ASKED, found.message
    elif facts.rollout is not None and facts.rollout.held:
        holds, reason, message = True, Reason.HELD, facts.rollout.held
    elif facts.burn_in is not None and facts.burn_in.failed:
        holds, reason, message = True, Reason.GATE_FAILED, facts.burn_in.failed
    elif retirement.asks(seen, facts, now):
        holds, reason, message = True, Reason.A_PERSON_IS_ASKED, retirement.APPROVAL
    else:
        holds, reason, message = False, Reason.NOBODY_IS_ASKED, "no person is waited for"
    return words.condition(ConditionType.AWAITING_APPROVAL, holds, reason, message, seen.generation, now)


def _traffic_verified(seen: Deployment, facts: Facts, now: datetime) -> Condition:
    holds: bool | None
    if not seen.gateways:
        holds, reason = None, Reason.NO_GATEWAY
        message = "no gateway is known to the operator; direct clients read the ConfigMap"
    elif why := traffic.why_not(seen, facts):
        holds, reason, message = False, Reason.ROUTE_NOT_ACCEPTED, why
    else:
        count = sum(gateway.is_ready for gateway in seen.gateways)
        holds, reason = True, Reason.ROUTE_ACCEPTED
        message = f"{count} {'gateway serves' if count == 1 else 'gateways serve'} {_weights(facts) or 'nothing'}"
    return words.condition(ConditionType.TRAFFIC_VERIFIED, holds, reason, message, seen.generation, now)


def _unguarded(seen: Deployment, now: datetime) -> Condition:
    gate = seen.spec.gates.evaluation
    if gate is None:
        reason, message = (
            Reason.NO_EVALUATION_GATE,
            "spec.gates.evaluation is not there: a worse version would go through",
        )
    else:
        reason, message = Reason.EVALUATION_GATE, f"{gate.query_set_ref.name} guards it by {gate.metric}"
    return words.condition(ConditionType.UNGUARDED, gate is None, reason, message, seen.generation, now)


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
    """Return the retained index that a rollback would go to: of those that are proven, the one that served last."""
    found = [i for i in facts.indexes if i.role is Role.RETAINED and i.proven_at is not None]
    return max(found, key=lambda i: i.since.timestamp() if i.since else 0.0, default=None)


def _rollback(seen: Deployment, facts: Facts, now: datetime) -> api.RollbackStatus | None:
    index = _retained(seen, facts)
    if index is None:
        return None
    ready = _is_ready(seen, facts, index, now) and not answers.way_back(seen, index)
    until = index.since + base.parse_duration(seen.spec.retire.after) if index.since else None
    behind = words.running(seen.work, f"index {index.name}")
    estimate = "1s" if ready else ""
    if not ready and behind and behind.rate > 0 and behind.total > behind.done:
        estimate = words.duration(timedelta(seconds=(behind.total - behind.done) / behind.rate))
    return api.RollbackStatus(ready=ready, to=index.version, estimate=estimate, until=until)


def _is_ready(seen: Deployment, facts: Facts, index: Index, now: datetime) -> bool:
    """Return whether going back is one switch; it stays so while the index moves on and loses nothing by it."""
    if approvals.aborted(seen, index.version, now) is not None:
        return False
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
    elif unanswered := answers.way_back(seen, index):
        reason = Reason.RETAINED_INDEX_DOES_NOT_ANSWER
        message = f"{said} is kept, but was asked and does not answer: {unanswered}"
    elif (abort := approvals.aborted(seen, index.version, now)) is not None:
        reason, message = Reason.TARGET_ABORTED, f"{said} is kept, but Approval {abort.name} keeps queries off it"
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


def _index(seen: Deployment, facts: Facts, index: Index) -> api.IndexStatus:
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
        weight=_weight(seen, facts, index),
    )


def _weight(seen: Deployment, facts: Facts, index: Index) -> api.Weight | None:
    """Return an index's share of the queries: wanted, accepted, and measured where a migration is under way."""
    wanted = facts.weights.get(index.name, 0)
    if not wanted and (facts.rollout is None or facts.rollout.index != index.name):
        return None
    is_accepted = bool(seen.gateways) and traffic.is_accepted(seen, facts)
    measured = traffic.measured(seen, facts) if facts.rollout is not None and is_accepted else {}
    return api.Weight(
        desired=wanted,
        accepted=wanted if is_accepted else None,
        measured=round(measured.get(index.name, 0) / 5) * 5 if measured else None,
    )
