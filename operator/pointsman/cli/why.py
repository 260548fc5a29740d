"""What a deployment waits for: since when, until when, what happens then, and how to answer."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from pointsman.api import queryset
from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.api.deployment import Role, Stage, Verdict
from pointsman.cli import asked, deployments, resources, session
from pointsman.cli.asked import Asked
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session
from pointsman.cluster.resources import QUERY_SET

WIDTH = 9
"""Of the column of labels."""


@dataclass(frozen=True, slots=True)
class Why:
    """The answer, as one screen."""

    waits: bool
    """Whether anything is waited for."""
    reason: str
    message: str
    since: datetime | None = None
    until: datetime | None = None
    then: str = ""
    """What happens when the time is up, as a clause."""
    step: str = ""
    weight: str = ""
    hints: tuple[str, ...] = ()
    """What else there is to know, as clauses."""
    answers: tuple[str, ...] = ()
    """Command lines, the likeliest first."""


def run(current: Session, reference: str, as_json: bool) -> int:
    """Print what a deployment waits for; return the exit code."""
    seen = deployments.read(current, reference)
    at = f" -n {current.asked_namespace}" if current.asked_namespace else ""
    now = current.world.now()
    found = why(seen, asked.of(seen, now), at)
    if lacking := _lacking(current, seen):
        found = dataclasses.replace(found, hints=(*found.hints, lacking))
    if as_json:
        session.console().print(_json(seen, found), soft_wrap=True)
        return 0
    for label, text in _lines(seen, found, now):
        session.console().print(f"  {label:<{WIDTH}}{text}" if label else text, soft_wrap=True)
    return 0


def why(seen: Deployment, found: Asked, at: str = "") -> Why:
    """Return what a deployment waits for. `at` ends each command line that it names, such as ` -n search`."""
    goal = seen.goal
    if resources.metadata(seen.resource).get("deletionTimestamp"):
        message = "it is being deleted" if goal is None else goal.message
        return Why(True, Reason.DELETING, message)
    if not seen.is_observed or goal is None:
        wanted = resources.metadata(seen.resource).get("generation", 0)
        message = f"the operator has seen generation {seen.status.observed_generation}, not {wanted} yet"
        return Why(True, "NotObserved", message, hints=("see that the operator runs",))
    step = seen.status.step
    waits = goal.type is not ConditionType.READY or goal.reason is Reason.BURNING_IN or bool(found.now)
    began = [moment for moment in (step and step.started_at, goal.last_transition_time) if moment]
    is_counted = step is not None and goal.reason is not Reason.SUSPENDED
    until = (step.deadline or step.until) if step is not None and is_counted else None
    return Why(
        waits=waits,
        reason=goal.reason,
        message=_retirement(seen) if asked.RETIRE in found.now and goal.type is ConditionType.READY else goal.message,
        since=max(began, default=None) if waits else goal.last_transition_time,
        until=until if waits else None,
        then=_then(seen) if until is not None and waits else "",
        step=place(seen),
        weight=seen.status.weight,
        hints=tuple(_hints(seen, goal)),
        answers=tuple(f"pointsman {line}{at}" for line in _answers(seen, goal, found)),
    )


def place(seen: Deployment) -> str:
    """Return where a deployment is on its way: `3/8 Weight`, or `Build`; empty at rest."""
    step = seen.status.step
    if step is None:
        return ""
    return f"{step.index}/{step.of} {step.name}" if step.index is not None else step.name


def _then(seen: Deployment) -> str:
    """Return what happens at the end of the time that is shown."""
    step, target = seen.status.step, seen.spec.version
    if step is None:
        return ""
    if step.deadline is None:
        return f"{target} has proven itself" if step.name == Stage.BURN_IN else "it goes on by itself"
    policy: str = seen.spec.strategy.on_failure
    steps = seen.spec.strategy.steps
    if step.name in (Stage.APPROVAL, Stage.PAUSE) and step.index and step.index <= len(steps):
        # A pause has nobody to say what becomes of it when nobody answers: it is held.
        found = steps[step.index - 1].approval
        is_for_a_person = seen.condition(ConditionType.AWAITING_APPROVAL) is not None
        policy = (found.on_timeout if found is not None else "Hold") if is_for_a_person else policy
    if policy == "Hold":
        return "it is held as it is"
    return f"all queries go to {seen.serving} and {target} is rejected" if seen.serving else f"{target} is rejected"


def _hints(seen: Deployment, goal: Condition) -> list[str]:
    """Return what the message leaves unsaid."""
    hints = []
    if seen.status.step is not None and seen.status.step.index is not None:
        # What could not be measured will be waited for sooner or later.
        broken = [gate for gate in seen.status.gates if gate.verdict is Verdict.ERROR]
        hints += [f"{gate.name}: {gate.message}" for gate in broken if gate.message not in goal.message]
    if goal.reason in (Reason.ROUTE_NOT_ACCEPTED, Reason.NO_GATEWAY):
        hints.append("queries go on being answered by the weights that gateways have")
    verified = seen.condition(ConditionType.TRAFFIC_VERIFIED)
    if seen.status.step is not None and seen.status.step.index and verified is not None:
        hints.append(verified.message)
    shadow = seen.status.shadow
    if shadow is not None and shadow.queries and seen.status.step is not None and seen.status.step.index:
        alike = f"overlap {shadow.overlap}" + (f", correlation {shadow.correlation}" if shadow.correlation else "")
        hints.append(f"{shadow.queries:,} answers of {shadow.version} were compared with {shadow.against}'s: {alike}")
    rollback = seen.status.rollback
    if goal.type is ConditionType.READY and rollback is not None:
        until = f" until {_at(rollback.until)}" if rollback.until is not None else ""
        hints.append(f"going back to {rollback.to} is {'one switch' if rollback.ready else 'not ready'}{until}")
    if seen.condition(ConditionType.UNGUARDED) is not None:
        hints.append("no gate evaluates answers: a worse version would go through")
    return hints


def _lacking(current: Session, seen: Deployment) -> str:
    """Return how many judged queries an evaluation that cannot decide lacks, as a clause; empty where it lacks none."""
    gate, goal = seen.spec.gates.evaluation, seen.goal
    said = next((each for each in seen.status.gates if each.name == "evaluation"), None)
    if gate is None or goal is None or goal.reason is not Reason.GATES_UNDECIDED:
        return ""
    query_set = current.cluster.get(QUERY_SET, seen.namespace, gate.query_set_ref.name)
    policy = float(gate.not_worse_by)
    if said is None or said.verdict is not Verdict.INCONCLUSIVE or query_set is None or policy <= 0:
        return ""
    from pointsman.core import evaluation

    has = resources.status(query_set, queryset.QuerySetStatus).groups
    needed = evaluation.groups_needed(policy)
    if has >= needed:
        return ""
    name = gate.query_set_ref.name
    return f"{name} has {has:,} groups of judged queries, {needed:,} detect a fall of {policy:g}: {needed - has:,} lack"


def _answers(seen: Deployment, goal: Condition, found: Asked) -> list[str]:
    """Return the commands by which a person may answer, the likeliest first."""
    name, target, serving = seen.name, seen.spec.version, seen.serving
    answers = [f"approve {name} {each}" for each in found.now]
    answers += [f"reject {name} {each}" for each in found.now if each != asked.RETIRE][:1]
    back = [f"rollback {name}"] if serving not in ("", target) else []
    match goal.reason:
        case Reason.PAUSED:
            answers += [f"approve {name} {each}" for each in found.early if each not in _gates(seen)]
        case Reason.TARGET_REJECTED:
            return [f"explain {name}", f"retry {name}", *back]
        case Reason.TARGET_ABORTED:
            return [f"abort {name} {target} --withdraw", *back]
        case Reason.SUSPENDED:
            return [f"resume {name}", *back]
        case Reason.FOLLOWING if seen.index(target, Role.RETAINED, Role.CANDIDATE) is not None:
            return [f"accept-lag {name} {target}", *back]
        case Reason.GATE_FAILED if goal.type is ConditionType.READY:
            return [f"explain {name}", f"rollback {name}"]
        case Reason.GATES_UNDECIDED:
            answers[:0] = [f"explain {name}", *([f"judge {name}"] if _has_holes(seen) else [])]
    if seen.status.step is not None and seen.status.step.index is not None and serving not in ("", target):
        answers += [f"abort {name} {target}", *back]
    return answers


def _has_holes(seen: Deployment) -> bool:
    """Return whether an evaluation cannot decide of whose answers some may be good, and nobody has judged them."""
    last = seen.status.evaluations[-1] if seen.status.evaluations else None
    is_open = any(gate.name == "evaluation" and gate.verdict is Verdict.INCONCLUSIVE for gate in seen.status.gates)
    return is_open and last is not None and bool(last.judged) and float(last.judged) < 1


def _gates(seen: Deployment) -> list[str]:
    return [gate.name for gate in seen.status.gates]


def _retirement(seen: Deployment) -> str:
    rollback = seen.status.rollback
    kept = "the retained index" if rollback is None else f"the retained index of {rollback.to}"
    return f"{kept} may go: its time is over, and retire.mode is Supervised"


def _lines(seen: Deployment, found: Why, now: datetime) -> list[tuple[str, str]]:
    head = f"{seen.name} {'waits' if found.waits else 'waits for nothing'} ({found.reason}): {found.message}"
    lines = [("", head)]
    if found.since is not None:
        lines.append(("since", f"{_at(found.since)}, {resources.ago(found.since, now)}"))
    if found.until is not None:
        left = (found.until - now).total_seconds()
        when = f"in {resources.span(left)}" if left > 0 else "overdue"
        lines.append(("until", f"{_at(found.until)}, {when}; then {found.then}"))
    for label, text in (("step", found.step), ("queries", found.weight)):
        if text:
            lines.append((label, text))
    lines += [("note", hint) for hint in found.hints]
    lines += [("answer" if number == 0 else "or", line) for number, line in enumerate(found.answers)]
    return lines


def _json(seen: Deployment, found: Why) -> str:
    told = {
        "namespace": seen.namespace,
        "name": seen.name,
        "waits": found.waits,
        "reason": found.reason,
        "message": found.message,
        "since": None if found.since is None else found.since.isoformat(),
        "until": None if found.until is None else found.until.isoformat(),
        "then": found.then,
        "step": found.step,
        "weight": found.weight,
        "notes": found.hints,
        "answers": found.answers,
    }
    return json.dumps(told, ensure_ascii=False)


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
