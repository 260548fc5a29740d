"""Whether a resource has reached what is declared: the command that continuous integration waits on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pointsman.api import conditions
from pointsman.api.conditions import ConditionType, Reason
from pointsman.cli import resources, session
from pointsman.cli.session import Session
from pointsman.cluster.resources import DATASET, DEPLOYMENT, QUERY_SET, Resource
from pointsman.errors import Retryable, Terminal

EXIT_CODES = {"Ready": 0, "Stalled": 1, "Degraded": 1, "Pending": 2}
KINDS = (DEPLOYMENT, DATASET, QUERY_SET)
POLL_SECONDS = 1.0


class Outcome(StrEnum):
    """Where a resource stands with regard to its current spec."""

    READY = "Ready"
    """What is declared is what is."""
    STALLED = "Stalled"
    """It cannot be reached without an edit, or was rejected."""
    DEGRADED = "Degraded"
    """What is declared serves and is worse than it may be, or what served is gone and nothing else answers yet."""
    PENDING = "Pending"
    """It is on the way, or the operator has not looked yet."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """An outcome with the words of the condition it was read from."""

    outcome: Outcome
    reason: str
    message: str
    step: str = ""
    """Where a migration is, such as `3/8 Weight`; empty at rest."""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason and self.reason != self.outcome else ""
        step = f" {self.step}" if self.step else ""
        return f"{self.outcome}{reason}{step}: {self.message}"


def judge(resource: Resource) -> Judgement:
    """Judge a resource by kstatus's conditions, and only by those that speak of its current generation."""
    meta = resources.metadata(resource)
    if meta.get("deletionTimestamp"):
        return Judgement(Outcome.PENDING, "Deleting", "it is being deleted")
    generation = int(meta.get("generation", 0))
    found = resources.conditions_of(resource)
    seen = max((condition.observed_generation for condition in found), default=0)
    if not found or seen < generation:
        message = f"the operator has seen generation {seen}, wanted {generation}"
        return Judgement(Outcome.PENDING, "NotObserved", message)
    for kind, outcome in ((ConditionType.READY, Outcome.READY), (ConditionType.STALLED, Outcome.STALLED)):
        condition = conditions.get(found, kind)
        if condition is None or condition.observed_generation != generation:
            continue
        if condition.status is conditions.Status.TRUE:
            # What serves and fails its gates after a promotion, with nothing to go back to.
            is_worse = condition.reason is Reason.GATE_FAILED and kind is ConditionType.READY
            return Judgement(Outcome.DEGRADED if is_worse else outcome, condition.reason, condition.message)
    goal = resources.goal(found)
    if goal is None:
        return Judgement(Outcome.PENDING, "", "the operator has not said yet how it goes")
    return Judgement(Outcome.PENDING, goal.reason, goal.message, _step(resource))


def final(resource: Resource, judgement: Judgement) -> Judgement:
    """Return what is to be said when nobody waits any longer: what is on the way and does not answer is Degraded.

    While it is waited for it is Pending all the same: the next version may be what mends it.
    """
    available = conditions.get(resources.conditions_of(resource), ConditionType.AVAILABLE)
    if judgement.outcome is not Outcome.PENDING or available is None or available.status is not conditions.Status.FALSE:
        return judgement
    if available.reason is not Reason.INDEX_LOST:
        return judgement
    return Judgement(Outcome.DEGRADED, available.reason, available.message, judgement.step)


def run(current: Session, reference: str, timeout: str, keep_waiting: bool, as_json: bool) -> int:
    """Wait until a resource is Ready, Stalled or Degraded, printing each change; return the exit code."""
    seconds = resources.seconds(timeout)
    kind, resource = resources.find(current, reference, KINDS)
    name = resources.metadata(resource)["name"]
    out = session.console(to_stderr=as_json)
    began = current.world.monotonic()

    def say(judgement: Judgement) -> None:
        elapsed = resources.span(current.world.monotonic() - began)
        out.print(f"{elapsed:>6}  {resources.WORDS[kind]} {name}  {judgement}", soft_wrap=True)

    def look() -> tuple[Resource, Judgement]:
        found = look_again(current, kind, name)
        return found, judge(found)

    judgement = judge(resource)
    say(judgement)
    if keep_waiting:
        resource, judgement = wait(current, (resource, judgement), look, say, seconds)
    before, judgement = judgement, final(resource, judgement)
    if judgement != before:
        say(judgement)
    if as_json:
        elapsed = current.world.monotonic() - began
        session.console().print(_json(kind, resource, judgement, elapsed), soft_wrap=True)
    elif keep_waiting and judgement.outcome is Outcome.PENDING:
        session.console(to_stderr=True).print(f"not ready after {timeout}: {judgement.message}", soft_wrap=True)
    return EXIT_CODES[judgement.outcome]


def wait(
    current: Session,
    first: tuple[Resource, Judgement],
    look: Callable[[], tuple[Resource, Judgement]],
    say: Callable[[Judgement], None],
    seconds: float,
) -> tuple[Resource, Judgement]:
    """Look once a second until the outcome is no longer Pending or the time is up; say each change once."""
    world = current.world
    deadline = world.monotonic() + seconds
    resource, judgement = first
    while judgement.outcome is Outcome.PENDING and world.monotonic() < deadline:
        world.sleep(min(POLL_SECONDS, max(0.0, deadline - world.monotonic())))
        before = judgement
        try:
            resource, judgement = look()
        except Retryable as error:
            # An API server that restarts during a rollout must not fail the pipeline that waits for it.
            judgement = Judgement(Outcome.PENDING, error.reason, error.message)
        if judgement != before:
            say(judgement)
    return resource, judgement


def look_again(current: Session, kind: str, name: str) -> Resource:
    """Return a resource that was there before; raises Terminal where it was deleted since."""
    found = current.cluster.get(kind, current.namespace, name)
    if found is None:
        raise Terminal(Reason.INVALID_SPEC, f"{resources.WORDS[kind]} {name} was deleted while it was waited for")
    return found


def _step(resource: Resource) -> str:
    step = (resource.get("status") or {}).get("step") or {}
    return f"{step['index']}/{step['of']} {step['name']}" if "index" in step and "of" in step else ""


def _json(kind: str, resource: Resource, judgement: Judgement, elapsed: float) -> str:
    meta, status = resources.metadata(resource), resource.get("status") or {}
    told: dict[str, Any] = {
        "kind": kind,
        "namespace": meta.get("namespace", ""),
        "name": meta["name"],
        "outcome": judgement.outcome,
        "reason": judgement.reason,
        "message": judgement.message,
        "generation": meta.get("generation", 0),
        "observedGeneration": status.get("observedGeneration", 0),
        "phase": status.get("phase", ""),
        "seconds": round(elapsed, 1),
    }
    if kind == DEPLOYMENT:
        told |= {key: status.get(key, "") for key in ("servingVersion", "targetVersion", "weight")}
        told["step"] = status.get("step")
    return json.dumps(told, ensure_ascii=False)
