"""The watched time after a promotion: the gates go on, and what fails them goes back in one shift."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.api.deployment import Verdict
from pointsman.plan import approvals, gates, indexes, rollout, traffic
from pointsman.plan.facts import BurnIn, Facts, Index
from pointsman.plan.gates import Finding, Pair
from pointsman.plan.measured import HISTORY, Earlier, Evaluation
from pointsman.plan.observed import Deployment, Presence


def watched(seen: Deployment, facts: Facts, now: datetime) -> Facts:
    """Return the facts with the burn-in under way accepted, over, or failed."""
    burn_in, serving = facts.burn_in, facts.serving
    if burn_in is None or serving is None or serving.name != burn_in.index:
        return _begun(seen, replace(facts, burn_in=None), now)
    before, refusal = way_back(seen, facts, now), approvals.rejected(seen, facts, now)
    if refusal is not None and before is not None:
        used = approvals.used(facts, refusal)
        rejected = rollout.rejection(seen, serving, Reason.REJECTED_BY_A_PERSON, approvals.said(refusal), now)
        return _back(seen, used, before, now).refused(rejected)
    facts = _judged(seen, facts, burn_in, now)
    burn_in = facts.burn_in or burn_in
    if burn_in.failed and seen.spec.strategy.on_failure == "RollBack":
        if before is not None:
            rejected = rollout.rejection(seen, serving, Reason.GATE_FAILED, burn_in.failed, now)
            return _back(seen, facts, before, now).refused(rejected)
        return facts
    if burn_in.accepted_at is None and traffic.is_accepted(seen, facts):
        facts = replace(facts, burn_in=replace(burn_in, accepted_at=now))
    is_doubted = bool(burn_in.failed) or refusal is not None
    if is_doubted or left(seen, facts, now) or indexes.presence(seen, serving.name) is not Presence.PRESENT:
        return facts
    over = facts.put(replace(serving, proven_at=now))
    return replace(over, burn_in=None, shadow=None, route=facts.route + (facts.shadow is not None))


def way_back(seen: Deployment, facts: Facts, now: datetime) -> Index | None:
    """Return the index that may take the queries of one that is refused.

    It is none that a person keeps them off, none that was refused before it could prove itself, and not another
    snapshot of what is refused.
    """
    serving = facts.serving
    refused = None if serving is None else (serving.recipe, serving.parameters)
    for index in rollout.retained(facts):
        is_kept_off = approvals.aborted(seen, index.version, now) is not None
        is_rejected = rollout.was_refused(seen, facts, index)
        if not is_kept_off and not is_rejected and (index.recipe, index.parameters) != refused:
            return index if indexes.may_take_over(seen, facts, index, now) else None
    return None


def _back(seen: Deployment, facts: Facts, before: Index, now: datetime) -> Facts:
    where = indexes.cursor(seen, before)
    return facts.switched(before, 0 if where is None else where.snapshot, now)


def _judged(seen: Deployment, facts: Facts, burn_in: BurnIn, now: datetime) -> Facts:
    """Note that a gate has failed, or that a person lets the one pass that did."""
    target = indexes.target(seen)
    if burn_in.failed and not isinstance(target, str):
        plan = approvals.plan_hash(seen, facts, target)
        approval = approvals.approved(seen, facts, plan, burn_in.failed_by, now)
        if approval is not None:
            answered = (*burn_in.answered, burn_in.failed_by)
            burn_in = replace(burn_in, failed="", failed_by="", answered=answered)
            facts = approvals.used(replace(facts, burn_in=burn_in), approval)
    worse = failing(seen, facts, now)
    if worse is None or burn_in.failed:
        return facts
    return replace(facts, burn_in=replace(burn_in, failed=worse.message, failed_by=worse.gate))


def _begun(seen: Deployment, facts: Facts, now: datetime) -> Facts:
    """Return the facts with the burn-in begun of what serves unproven: cut short, or in place of a lost one."""
    serving = facts.serving
    if serving is None or serving.proven_at is not None or facts.rollout is not None:
        return facts
    if indexes.is_gone(seen, serving) or rollout.was_refused(seen, facts, serving):
        return facts
    burning = rollout.burning(seen, facts, serving, rollout.before(facts), now)
    return replace(burning, route=facts.route + (burning.shadow != facts.shadow))


def failing(seen: Deployment, facts: Facts, now: datetime) -> Finding | None:
    """Return the first gate that what serves fails beside what served before."""
    serving = facts.serving
    if serving is None:
        return None
    found = gates.findings(seen, facts, Pair(serving, rollout.before(facts)), now)
    passed = () if facts.burn_in is None else facts.burn_in.answered
    return next((f for f in found if f.verdict is Verdict.FAILED and f.gate not in passed), None)


def left(seen: Deployment, facts: Facts, now: datetime) -> str:
    """Return what the burn-in under way still waits for, as a clause; empty where it is over."""
    burn_in, spec = facts.burn_in, seen.spec.burn_in
    if burn_in is None:
        return ""
    if burn_in.accepted_at is None:
        return traffic.why_not(seen, facts)
    ends = burn_in.accepted_at + base.parse_duration(spec.for_)
    if now < ends:
        return f"for {spec.for_}"
    answered = max(0, traffic.answered(seen, burn_in.index) - burn_in.queries)
    # Where no gateway is known nobody counts queries: time alone decides.
    if seen.gateways and answered < spec.min_queries:
        return f"until it has answered {spec.min_queries:,} queries, {answered:,} so far"
    return ""


def ends(seen: Deployment, facts: Facts) -> datetime | None:
    """Return when the burn-in under way is over by time."""
    burn_in = facts.burn_in
    if burn_in is None or burn_in.accepted_at is None:
        return None
    return burn_in.accepted_at + base.parse_duration(seen.spec.burn_in.for_)


def is_stable(seen: Deployment, facts: Facts, now: datetime) -> str:
    """Return what keeps `retire.stable` from holding, as a clause; empty where it holds or is not asked for.

    It holds where what serves was evaluated through the whole time, at least twice in each two periods of the
    schedule, and was never worse than the policy allows.
    """
    wanted, serving, found = seen.spec.retire.stable, facts.serving, seen.stable
    if wanted is None or serving is None:
        return ""
    span, policy = base.parse_duration(wanted.for_), _policy(seen)
    looks: list[Earlier | Evaluation] = [] if found is None else [*found.history, found]
    looks = [
        look for look in looks if look.version == serving.version and now - look.measured_at <= span + period(seen)
    ]
    if not looks:
        return f"{serving.version} was not evaluated on {wanted.query_set_ref.name} yet"
    worse = [look for look in looks if look.high is not None and not look.high >= -policy]
    if worse:
        at = worse[-1].measured_at
        return f"{serving.version} was worse at {at:%Y-%m-%d %H:%M} UTC, wanted no worse for {wanted.for_}"
    times = [look.measured_at for look in looks]
    if now - times[0] < span:
        return f"it held since {times[0]:%Y-%m-%d %H:%M} UTC, wanted for {wanted.for_}"
    gap = max((later - sooner for sooner, later in zip(times, [*times[1:], now], strict=True)), default=timedelta(0))
    return "" if gap <= 2 * period(seen) else f"nothing was evaluated for {gap}, wanted every {period(seen)}"


def period(seen: Deployment) -> timedelta:
    """Return how often what serves is evaluated on the set that its retirement names."""
    wanted = seen.spec.retire.stable
    view = None if wanted is None else seen.query_sets.get(wanted.query_set_ref.name)
    every = base.parse_duration(view.every) if view is not None and view.every else timedelta(hours=24)
    # No more often than a record has room for: it must tell of the whole time.
    least = timedelta(0) if wanted is None else base.parse_duration(wanted.for_) / (HISTORY - 10)
    return max(every, least)


def _policy(seen: Deployment) -> float:
    gate = seen.spec.gates.evaluation
    return float(gate.not_worse_by) if gate is not None else 0.02
