"""What a deployment asks people now, and by which names an Approval answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import Role, Verdict
from pointsman.cli.deployments import Decision, Deployment

RETIRE = "retire"
DEADLINE = "deadline"
"""What lets a migration go on that is held since a step took too long."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Names that an Approval answers."""

    now: tuple[str, ...]
    """What the deployment waits for: without an answer it does not go on."""
    early: tuple[str, ...]
    """What may be answered though nobody is waited for: a pause that ends by itself, a gate that is not decided yet."""
    since: datetime | None
    """Since when it is asked: an Approval that is older answered something else."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.now, *self.early)


def of(seen: Deployment, now: datetime) -> Asked:
    """Return what is asked; nothing where the operator has not seen the spec as it is."""
    if not seen.is_observed:
        return Asked((), (), None)
    step, waiting = seen.status.step, seen.condition(ConditionType.AWAITING_APPROVAL)
    named, undecided = _name_of_step(seen), _undecided(seen)
    asked = [*(_told(seen) or _concluded(seen, named, undecided)), *_retirement(seen, now)]
    began = [at for at in (step and step.started_at, waiting and waiting.last_transition_time) if at]
    early = [name for name in dict.fromkeys((*named, *undecided)) if name not in asked]
    return Asked(tuple(dict.fromkeys(asked)), tuple(early), max(began, default=None))


def answered(found: Sequence[Decision], seen: Deployment, asked: Asked, name: str, now: datetime) -> Decision | None:
    """Return the Approval that answers a name already and that the operator is yet to take."""
    for decision in found:
        spec = decision.spec
        if (spec.decision, spec.answers, spec.plan_hash) != ("Approve", name, seen.status.plan_hash):
            continue
        # The API server keeps the second in which something was made, and not more.
        since = None if asked.since is None else asked.since.replace(microsecond=0)
        is_new = decision.made_at is None or since is None or decision.made_at >= since
        if is_new and decision.counts and now < spec.expires_at:
            return decision
    return None


def answerable(seen: Deployment) -> tuple[str, ...]:
    """Return the names that an Approval can ever answer here: of steps, of the gates that there are, of retirement."""
    named = (step.approval or step.pause for step in seen.spec.strategy.steps)
    steps = [each.name for each in named if each is not None and each.name is not None]
    return (*steps, *(gate.name for gate in seen.status.gates), DEADLINE, RETIRE)


def _told(seen: Deployment) -> tuple[str, ...]:
    """Return what the operator itself says that it asks; an older one leaves it to be concluded."""
    step = (seen.resource.get("status") or {}).get("step") or {}
    return tuple(step.get("asks") or ())


def _concluded(seen: Deployment, named: list[str], undecided: list[str]) -> list[str]:
    """Return what is asked, from the conditions, the step and the gates."""
    goal, waiting = seen.goal, seen.condition(ConditionType.AWAITING_APPROVAL)
    if waiting is not None and waiting.reason is Reason.A_PERSON_IS_ASKED:
        return named
    if waiting is not None and waiting.reason is Reason.HELD:
        # What failed is what holds it; where nothing failed, the step took too long.
        return [gate.name for gate in seen.status.gates if gate.verdict is Verdict.FAILED] or named or [DEADLINE]
    if goal is None or goal.reason is not Reason.GATES_UNDECIDED or seen.status.step is None:
        return []
    # Some gates cannot decide and keep nobody waiting, such as one that has seen too few queries yet.
    said = seen.status.step.waiting_for
    return [g.name for g in seen.status.gates if said == f"{g.name}: {g.message}"] or undecided


def _name_of_step(seen: Deployment) -> list[str]:
    """Return the name of the step under way, where it has one."""
    step, steps = seen.status.step, seen.spec.strategy.steps
    if step is None or not step.index or step.index > len(steps):
        return []
    found = steps[step.index - 1]
    named = found.approval or found.pause
    return [named.name] if named is not None and named.name is not None else []


def _undecided(seen: Deployment) -> list[str]:
    """Return the gates that keep a migration from its next weight; none where no migration is under way."""
    step, target = seen.status.step, seen.spec.version
    if step is None or step.index is None:
        return []
    return [
        gate.name for gate in seen.status.gates if gate.verdict is not Verdict.PASSED and gate.version in ("", target)
    ]


def _retirement(seen: Deployment, now: datetime) -> list[str]:
    """Return the question whether an index may go, once its time is over."""
    rollback = seen.status.rollback
    if seen.spec.retire.mode != "Supervised" or rollback is None or rollback.until is None:
        return []
    is_kept = any(index.role is Role.RETAINED for index in seen.status.indexes)
    return [RETIRE] if is_kept and now >= rollback.until else []
