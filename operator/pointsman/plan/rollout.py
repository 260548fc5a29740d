"""The road from a version that is built to one that serves: step after step, each with a way out and a deadline.

    built ──> gates ──> step 1 ──> step 2 ──> … ──> weight 100 = the switch ──> burn-in ──> proven
                │          │          │                                           │
                └──────────┴──────────┴── a failed gate, a deadline, a person ────┘
                                          all queries back in one shift, the recipe rejected; or held

A step is entered once all ready gateways serve what the step before has set, and once nothing is left to wait for. At
most one step is entered in one plan. The road is for versions that have not proven themselves: what has needs one
shift, as does what serves while nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pointsman.api import base, steps
from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role, Verdict
from pointsman.core import recipes
from pointsman.plan import approvals, gates, indexes, silence, traffic
from pointsman.plan.facts import BurnIn, Facts, Index, Rejection, Rollout, Shadow
from pointsman.plan.gates import Finding, Pair
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment

AT_ONCE = steps.Step(weight=100)
DEADLINE = approvals.DEADLINE
OVER = "/failed"
"""What is noted behind the name of a gate that was let pass though it failed."""
MIRRORED = 1
"""The share of the queries, in percent, that also goes to the retained index during burn-in, as the control."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why the next step is not entered: who or what is waited for, and until when."""

    reason: Reason
    message: str
    deadline: datetime | None = None
    """When it is given up."""
    until: datetime | None = None
    """When it is over by itself."""
    is_for_a_person: bool = False
    answer: str = DEADLINE
    """What an Approval answers where it is given up and held."""


def is_needed(seen: Deployment, facts: Facts, wanted: Index) -> bool:
    """Return whether the way to an index leads through gates and steps."""
    serving = facts.serving
    if serving is None or indexes.is_gone(seen, serving) or wanted.proven_at is not None:
        return False
    # Another snapshot of what serves is not another version.
    return (wanted.recipe, wanted.parameters) != (serving.recipe, serving.parameters)


def road(seen: Deployment) -> tuple[steps.Step, ...]:
    """Return the steps; without any, the switch at once."""
    return tuple(seen.spec.strategy.steps) or (AT_ONCE,)


def digest(seen: Deployment) -> str:
    """Return the steps as a digest."""
    return recipes.digest([step.dump() for step in road(seen)])


def current(seen: Deployment, rollout: Rollout) -> steps.Step | None:
    """Return the step under way; None before the first is entered, and while an edit of the steps is to be placed."""
    return road(seen)[rollout.step - 1] if rollout.step and rollout.steps == digest(seen) else None


def pair(facts: Facts) -> Pair | None:
    """Return what is compared now: a candidate with what serves, or what serves with what served before."""
    serving = facts.serving
    if facts.rollout is not None and (candidate := facts.get(facts.rollout.index)) is not None:
        return Pair(candidate, serving)
    return None if serving is None else Pair(serving, before(facts))


def before(facts: Facts) -> Index | None:
    """Return the retained index that served last, to which a rollback leads."""
    return next(iter(retained(facts)), None)


def retained(facts: Facts) -> list[Index]:
    """Return the retained indexes: proven ones first, the youngest of them first."""
    found = [i for i in facts.indexes if i.role is Role.RETAINED]
    return sorted(found, key=lambda i: (i.proven_at is not None, i.since.timestamp() if i.since else 0.0), reverse=True)


def advance(seen: Deployment, facts: Facts, target: Target, wanted: Index, now: datetime) -> Facts:
    """Return the facts with the migration to an index begun, one step further, or over."""
    if facts.rollout is None:
        if not _may_take_over(seen, facts, wanted, now) or indexes.is_suspended(seen, facts):
            return facts
        facts = _begun(seen, facts, target, wanted, now)
    facts = _answered(seen, _placed(seen, facts, target, now), now)
    facts = _judged(seen, facts, wanted, now)
    rollout = facts.rollout
    if rollout is None or rollout.held:
        return facts
    if indexes.is_suspended(seen, facts):
        return replace(facts, rollout=replace(rollout, suspended_at=rollout.suspended_at or now))
    if rollout.suspended_at is not None:
        facts = replace(facts, rollout=_resumed(rollout, now - rollout.suspended_at))
    facts = _seen_accepted(seen, facts, now)
    return facts if wait(seen, facts, now) is not None else _entered(seen, facts, wanted, now)


def wait(seen: Deployment, facts: Facts, now: datetime) -> Wait | None:
    """Return what the migration under way waits for; None where the next step may be entered."""
    rollout = facts.rollout
    if rollout is None or rollout.steps != digest(seen):
        return None
    patience = base.parse_duration(seen.spec.strategy.progress_deadline)
    step = current(seen, rollout)
    if step is not None and rollout.accepted_at is None and (why := traffic.why_not(seen, facts, is_to_go_on=True)):
        return Wait(Reason.ROUTE_NOT_ACCEPTED, why, _looked_at(seen, rollout.since) + patience)
    if step is not None and rollout.done_at is None and (found := _of_step(step, rollout, now)) is not None:
        return found
    following = road(seen)[rollout.step]
    began = _looked_at(seen, rollout.done_at or rollout.since)
    until = max(began, began if facts.silence is None else facts.silence.since) + patience
    if any(map(_needs_gateways, road(seen)[: rollout.step + 1])) and not seen.gateways:
        message = "steps shift queries at gateways, and the operator knows none; set POINTSMAN_GATEWAYS, or no steps"
        return Wait(Reason.NO_GATEWAY, message, until)
    if why := traffic.why_not(seen, facts, is_to_go_on=True):
        return Wait(Reason.ROUTE_NOT_ACCEPTED, why, until)
    if following.weight is not None and (undecided := _undecided(seen, facts, now)) is not None:
        message = f"{undecided.gate}: {undecided.message}"
        return Wait(Reason.GATES_UNDECIDED, message, until, answer=undecided.gate)
    candidate = facts.get(rollout.index)
    if candidate is not None and not _may_take_over(seen, facts, candidate, now):
        return Wait(Reason.FOLLOWING, f"{candidate.name} is not whole and current just now", until)
    return None


def _looked_at(seen: Deployment, since: datetime) -> datetime:
    """Return since when a wait was looked at: time in which there was no operator speaks against no version."""
    return since if seen.started is None else max(since, seen.started)


def _needs_gateways(step: steps.Step) -> bool:
    """Return whether a step shifts or copies queries. Once one has, those that follow are taken by what it shows."""
    return step.shadow is not None or step.weight not in (None, 100)


def _may_take_over(seen: Deployment, facts: Facts, candidate: Index, now: datetime) -> bool:
    lag_is_accepted = approvals.accepts_lag(seen, candidate.version, now) is not None
    return indexes.may_take_over(seen, facts, candidate, now, lag_is_accepted)


def looks(waiting: Wait, now: datetime) -> list[timedelta]:
    """Return after which times a wait has to be looked at again."""
    return [at - now for at in (waiting.deadline, waiting.until) if at is not None]


def overdue(seen: Deployment, facts: Facts, now: datetime) -> Facts:
    """Return the facts after a deadline that has passed: the version rejected, or the weights held."""
    rollout, found = facts.rollout, wait(seen, facts, now)
    if rollout is None or rollout.held or rollout.suspended_at is not None or found is None or found.deadline is None:
        return facts
    if now < found.deadline:
        return facts
    message = f"step {rollout.step} took longer than it may: {found.message}"
    step = current(seen, rollout)
    policy: str = seen.spec.strategy.on_failure
    if found.is_for_a_person and step is not None:
        policy = step.approval.on_timeout if step.approval is not None else "Hold"
        message = f"{found.message}, and nobody did"
    candidate, serving, lacking = facts.get(rollout.index), facts.serving, _undecided(seen, facts, now)
    is_unmeasured = lacking is not None and lacking.gate == found.answer and lacking.measured_at is None
    if is_unmeasured and found.answer in silence.COMPARING and candidate is not None and serving is not None:
        # What cannot be compared for no fault of its own is no worse: a person is asked, and nothing latches.
        policy = "Hold" if silence.speaks_against_nobody(seen, candidate, serving) else policy
    return failed(seen, facts, Reason.DEADLINE_EXCEEDED, message, policy, found.answer, now)


def failed(
    seen: Deployment, facts: Facts, reason: Reason, message: str, policy: str, answer: str, now: datetime
) -> Facts:
    """Return the facts after something spoke against the migration under way: gone back, or held for an answer."""
    rollout = facts.rollout
    candidate = None if rollout is None else facts.get(rollout.index)
    if rollout is None or candidate is None:
        return facts
    if policy == "Hold":
        return replace(facts, rollout=replace(rollout, held=message, held_by=answer))
    return facts.refused(rejection(seen, candidate, reason, message, now))


def rejection(seen: Deployment, index: Index, reason: Reason, message: str, now: datetime) -> Rejection:
    """Return an index, as its recipe and parameters, as refused under the spec's value of `retry`."""
    return Rejection(index.version, index.recipe, reason, message, now, seen.spec.retry, index.parameters)


def was_refused(seen: Deployment, facts: Facts, index: Index) -> bool:
    """Return whether an index was refused before it could prove itself."""
    rejected = facts.is_rejected(index.recipe, index.parameters, seen.spec.retry)
    return index.proven_at is None and rejected is not None


# One thing after the other.


def _begun(seen: Deployment, facts: Facts, target: Target, wanted: Index, now: datetime) -> Facts:
    plan = approvals.plan_hash(seen, facts, target)
    rollout = Rollout(wanted.name, plan, begun_at=now, since=now, steps=digest(seen))
    # The control of a burn-in that was not over is no candidate's.
    return replace(facts, rollout=rollout, route=facts.route + (facts.shadow is not None), burn_in=None, shadow=None)


def _placed(seen: Deployment, facts: Facts, target: Target, now: datetime) -> Facts:
    """Place a migration anew whose steps or gates were edited: at the last step that asks for no more weight."""
    rollout = facts.rollout
    plan = approvals.plan_hash(seen, facts, target)
    if rollout is None or rollout.plan == plan:
        return facts
    entered = 0
    if rollout.steps == digest(seen):
        entered = rollout.step
    else:
        for position, step in enumerate(road(seen), start=1):
            if step.weight is not None and step.weight <= rollout.weight:
                entered = position
        facts = replace(facts, shadow=None, route=facts.route + (facts.shadow is not None))
    # What people let pass was another plan.
    rollout = replace(rollout, plan=plan, steps=digest(seen), step=entered, since=now, answered=())
    return replace(facts, rollout=replace(rollout, accepted_at=None, done_at=None, held="", held_by=""))


def _answered(seen: Deployment, facts: Facts, now: datetime) -> Facts:
    """Take the Approvals that answer what is asked now; each counts once."""
    rollout = facts.rollout
    if rollout is None:
        return facts
    step = current(seen, rollout)
    named = None if step is None else step.approval or step.pause
    asked = [named.name] if named is not None and named.name is not None else []
    found = _findings(seen, facts, now)
    failing = [f.gate for f in found if f.verdict is Verdict.FAILED]
    undecided = [f.gate for f in found if f.is_awaited and f.verdict not in (Verdict.PASSED, Verdict.FAILED)]
    held = [rollout.held_by] if rollout.held else []
    for name in dict.fromkeys((*held, *asked, *undecided)):
        if name in rollout.answered and name not in held:
            continue
        approval = approvals.approved(seen, facts, rollout.plan, name, now)
        if approval is None:
            continue
        answered = (*rollout.answered, name, *((_over(name),) if name in failing and name in held else ()))
        rollout = replace(rollout, answered=tuple(dict.fromkeys(answered)))
        if name in held:
            rollout = _released(rollout, now)
        facts = approvals.used(replace(facts, rollout=rollout), approval)
    return facts


def _released(rollout: Rollout, now: datetime) -> Rollout:
    """Return a migration that a person lets go on: what it may still wait for counts from now."""
    return replace(rollout.waiting_from(now), held="", held_by="")


def _judged(seen: Deployment, facts: Facts, wanted: Index, now: datetime) -> Facts:
    """Act on a gate that failed, and on a person who refuses."""
    rollout = facts.rollout
    if rollout is None:
        return facts
    refusal = approvals.rejected(seen, facts, now)
    if refusal is not None:
        used = approvals.used(facts, refusal)
        return used.refused(rejection(seen, wanted, Reason.REJECTED_BY_A_PERSON, approvals.said(refusal), now))
    if rollout.held:
        return facts
    for found in _findings(seen, facts, now):
        if found.verdict is Verdict.FAILED and _over(found.gate) not in rollout.answered:
            policy = seen.spec.strategy.on_failure
            return failed(seen, facts, Reason.GATE_FAILED, found.message, policy, found.gate, now)
    return facts


def _resumed(rollout: Rollout, waited: timedelta) -> Rollout:
    """Return a migration whose clocks have stood still while it was suspended."""
    return replace(
        rollout,
        suspended_at=None,
        since=rollout.since + waited,
        accepted_at=None if rollout.accepted_at is None else rollout.accepted_at + waited,
        done_at=None if rollout.done_at is None else rollout.done_at + waited,
    )


def _seen_accepted(seen: Deployment, facts: Facts, now: datetime) -> Facts:
    """Note when the route of the step was first accepted, and when the step had nothing left to wait for."""
    rollout = facts.rollout
    if rollout is None:
        return facts
    if rollout.accepted_at is None and traffic.is_accepted(seen, facts, is_to_go_on=True):
        rollout = replace(rollout, accepted_at=now)
    step = current(seen, rollout)
    is_done = rollout.accepted_at is not None and (step is None or _of_step(step, rollout, now) is None)
    if rollout.done_at is None and is_done:
        rollout = replace(rollout, done_at=now)
    return replace(facts, rollout=rollout)


def _of_step(step: steps.Step, rollout: Rollout, now: datetime) -> Wait | None:
    """Return what an accepted step itself waits for."""
    began = rollout.accepted_at or rollout.since
    if step.shadow is not None:
        over = began + base.parse_duration(step.shadow.for_)
        return None if now >= over else Wait(Reason.SHADOWING, f"shadowed for {step.shadow.for_}", until=over)
    if step.pause is not None:
        if step.pause.name in rollout.answered:
            return None
        if step.pause.for_ is None:
            message = f"paused until an Approval answers {step.pause.name}"
            over = began + timedelta(days=7)
            return Wait(Reason.PAUSED, message, over, is_for_a_person=True, answer=step.pause.name or DEADLINE)
        over = began + base.parse_duration(step.pause.for_)
        return None if now >= over else Wait(Reason.PAUSED, f"paused for {step.pause.for_}", until=over)
    if step.approval is not None and step.approval.name not in rollout.answered:
        over = began + base.parse_duration(step.approval.timeout)
        message = f"an Approval that answers {step.approval.name} is awaited for {step.approval.timeout}"
        name = step.approval.name
        return Wait(Reason.A_PERSON_IS_ASKED, message, over, is_for_a_person=True, answer=name)
    return None


def _undecided(seen: Deployment, facts: Facts, now: datetime) -> Finding | None:
    """Return the first gate that neither passed nor was let pass."""
    rollout = facts.rollout
    answered = () if rollout is None else rollout.answered
    for found in _findings(seen, facts, now):
        if found.is_awaited and found.verdict is not Verdict.PASSED and found.gate not in answered:
            return found
    return None


def _findings(seen: Deployment, facts: Facts, now: datetime) -> tuple[Finding, ...]:
    compared = pair(facts)
    return () if compared is None else gates.findings(seen, facts, compared, now)


def _entered(seen: Deployment, facts: Facts, wanted: Index, now: datetime) -> Facts:
    """Return the facts in the next step: the weights moved, the shadow cast, or only the clock started."""
    rollout = facts.rollout
    if rollout is None:
        return facts
    step = road(seen)[rollout.step]
    moved = facts.route + (step.weight is not None or step.shadow is not None or facts.shadow is not None)
    if step.weight == 100:
        return promoted(seen, facts, wanted, now)
    shadow = None if step.shadow is None else Shadow(wanted.name, step.shadow.percent)
    rollout = replace(
        rollout, step=rollout.step + 1, since=now, accepted_at=None, done_at=None, weight=step.weight or rollout.weight
    )
    return replace(facts, rollout=rollout, shadow=shadow, route=moved)


def promoted(seen: Deployment, facts: Facts, wanted: Index, now: datetime) -> Facts:
    """Return the facts after the switch at the end of the road: what served is retained, and the burn-in begins."""
    where, served = indexes.cursor(seen, wanted), facts.serving
    answered = () if facts.rollout is None else facts.rollout.answered
    facts = facts.switched(wanted, where.snapshot if where is not None else 0, now)
    facts = burning(seen, facts, wanted, served, now)
    if facts.burn_in is None:
        return facts
    passed = tuple(name.removesuffix(OVER) for name in answered if name.endswith(OVER))
    return replace(facts, burn_in=replace(facts.burn_in, answered=passed))


def burning(seen: Deployment, facts: Facts, index: Index, control: Index | None, now: datetime) -> Facts:
    """Return the facts with the burn-in of what serves begun, beside what served before."""
    begun = BurnIn(
        index.name,
        since=now,
        accepted_at=None if seen.gateways else now,
        queries=traffic.answered(seen, index.name),
    )
    mirrored = Shadow(control.name, MIRRORED) if control is not None and seen.gateways else None
    return replace(facts, burn_in=begun, shadow=mirrored)


def _over(gate: str) -> str:
    """Return how it is noted that a gate was let pass though it failed."""
    return f"{gate}{OVER}"
