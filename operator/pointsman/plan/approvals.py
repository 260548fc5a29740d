"""What people have decided about a deployment, and which of it counts: for this version and plan, once, in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pointsman.api import approval as api
from pointsman.api import conditions as conditions_api
from pointsman.api import deployment as deployment_api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.core import recipes
from pointsman.plan import lag, words
from pointsman.plan.facts import USED, Facts
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Approval, Decision, Deployment, Plan

RETIRE = "retire"
"""What an Approval answers to let an index be removed."""
DEADLINE = "deadline"
"""What an Approval answers to let a migration go on that is held after a step took too long."""
GATES = ("parity", "model", "evaluation", "canaries", "shadow", "errors", "empty", "latency")
"""The gates, as an Approval answers them."""


def plan(seen: Decision, now: datetime) -> Plan[api.ApprovalStatus]:
    """Return what to say of an Approval: whether it counts, and until when."""
    why = _why_not(seen, now)
    kind, reason = (ConditionType.STALLED, Reason.DOES_NOT_COUNT) if why else (ConditionType.READY, Reason.COUNTS)
    said = why or f"it counts until {seen.spec.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    is_of_lag = seen.spec.decision == "AcceptLag" and seen.deployment is not None
    if is_of_lag and not why:
        said = f"{said}; {lag.said(seen)}"
    if seen.uid in seen.used:
        kind, reason, said = ConditionType.READY, Reason.COUNTS, "it has let something pass"
    goal = words.goal((kind, reason, said), seen.generation, now)
    status = api.ApprovalStatus(
        observed_generation=seen.generation,
        conditions=conditions_api.merge(seen.status.conditions, goal),
        missed=lag.missed(seen) if is_of_lag else None,
    )
    left = seen.spec.expires_at - now
    return Plan((), status, min(left, words.AT_REST) if left > timedelta(0) else words.AT_REST)


def _why_not(seen: Decision, now: datetime) -> str:
    if seen.deployment is None:
        return f"there is no IndexDeployment {seen.spec.target.name} in {seen.key.namespace}"
    asks = Asks(seen.deployment.version, seen.plan, answerable(seen.deployment), (), seen.asked_since)
    return why_not(Approval(seen.key.name, seen.uid, seen.spec, seen.created_at), asks, now)


def plan_hash(seen: Deployment, facts: Facts, target: Target) -> str:
    """Return the plan as a digest: from where, to what, by which steps and gates. Progress is no part of it."""
    serving, spec = facts.serving, seen.spec
    origin = None if serving is None else [serving.recipe, serving.parameters, serving.frozen]
    goal = [target.version, target.recipe, target.parameters, target.frozen]
    return recipes.digest([origin, goal, spec.strategy.dump(), spec.gates.dump()])


def approved(seen: Deployment, facts: Facts, plan: str, answers: str, now: datetime) -> Approval | None:
    """Return the Approval that lets a step or gate pass, if there is one that was not used before."""
    return next(_counting(seen, facts, "Approve", plan, answers, now), None)


def rejected(seen: Deployment, facts: Facts, now: datetime) -> Approval | None:
    """Return the Approval that refuses the version which the spec wants, if there is one that was not used before."""
    found = _counting(seen, facts, "Reject", "", "", now)
    return next((a for a in found if a.spec.answers != RETIRE), None)


def used(facts: Facts, approval: Approval) -> Facts:
    """Return the facts with an Approval used, which lets nothing pass a second time."""
    return replace(facts, used=(*facts.used, approval.uid)[-USED:])


def said(refusal: Approval) -> str:
    """Return who refused a version, as a clause."""
    by = f" by {refusal.spec.approved_by}" if refusal.spec.approved_by else ""
    return f"refused{by} in Approval {refusal.name}"


def aborted(seen: Deployment, version: str, now: datetime) -> Approval | None:
    """Return the Approval that keeps queries off a version, if there is one."""
    found = (a for a in seen.approvals if a.spec.decision == "Abort" and a.spec.version == version)
    return next((a for a in found if now < a.spec.expires_at), None)


def accepts_lag(seen: Deployment, version: str, now: datetime) -> Approval | None:
    """Return the Approval that lets a version take over without the newest documents, if there is one."""
    found = (a for a in seen.approvals if a.spec.decision == "AcceptLag" and a.spec.version == version)
    return next((a for a in found if now < a.spec.expires_at), None)


@dataclass(frozen=True, slots=True)
class Asks:
    """What a deployment asks people."""

    wanted: str
    """The version that it wants."""
    plan: str
    known: tuple[str, ...]
    """What there is to be answered."""
    used: tuple[str, ...]
    """The UIDs of the Approvals that have let something pass."""
    since: datetime | None
    """What was made before is about a try that is over; None where there was none."""


def asked_since(made_at: datetime | None, facts: Facts) -> datetime | None:
    """Return since when a deployment asks what it asks: since it was made, and its last migration was over.

    The plan of another try is the same, and an answer that lies there unused was given to the one before. In whole
    seconds, as the API server tells times.
    """
    times = [made_at, facts.left_at, *(promotion.at for promotion in facts.history[-1:])]
    last = max((at for at in times if at is not None), default=None)
    return None if last is None else last.replace(microsecond=0)


def why_not(approval: Approval, asks: Asks, now: datetime) -> str:
    """Return why an Approval does not count, as a clause; empty where it does."""
    spec, plan = approval.spec, asks.plan
    if now >= spec.expires_at:
        return f"it expired at {spec.expires_at:%Y-%m-%d %H:%M:%S} UTC; create another one"
    if spec.decision in ("Abort", "AcceptLag"):
        return ""
    if approval.uid in asks.used:
        return "it was used; what asks again needs another one"
    if spec.version != asks.wanted:
        return f"it is about {spec.version}, the deployment wants {asks.wanted}; create one for {asks.wanted}"
    if spec.answers not in asks.known:
        return f"it answers {spec.answers}, which nothing asks; wanted one of {', '.join(asks.known)}"
    if asks.since is not None and approval.created_at < asks.since:
        return f"it was made before {asks.since:%Y-%m-%d %H:%M:%S} UTC, for a try that is over; create another one"
    if spec.decision == "Approve" and spec.plan_hash != plan:
        return f"it is for plan {spec.plan_hash}, the plan is {plan}: the target, the steps or the gates have changed"
    return ""


def answerable(spec: deployment_api.Spec) -> tuple[str, ...]:
    """Return the names that an Approval can answer: of steps, of gates, of a deadline, and of the retirement."""
    found = (step.approval or step.pause for step in spec.strategy.steps)
    names = [named.name for named in found if named is not None and named.name is not None]
    return (*names, *GATES, DEADLINE, RETIRE)


def _counting(
    seen: Deployment, facts: Facts, decision: str, plan: str, answers: str, now: datetime
) -> Iterator[Approval]:
    asks = Asks(seen.spec.version, plan, answerable(seen.spec), facts.used, asked_since(seen.made_at, facts))
    for approval in sorted(seen.approvals, key=lambda a: (a.created_at, a.name)):
        spec = approval.spec
        if spec.decision != decision or (answers and spec.answers != answers):
            continue
        if not why_not(approval, asks, now):
            yield approval
