"""Answering what a deployment asks: letting a step or a gate pass, or refusing the version."""

from __future__ import annotations

from typing import Literal

from pointsman.api.conditions import Reason
from pointsman.cli import asked, deployments, writing
from pointsman.cli.asked import Asked
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session
from pointsman.errors import Terminal


def run(
    current: Session,
    reference: str,
    name: str | None,
    decision: Literal["Approve", "Reject"],
    expires: str,
    comment: str,
    as_patch: bool,
) -> int:
    """Create the Approval that answers, or print it; return the exit code."""
    writing.lasting(expires)
    seen = deployments.read(current, reference)
    seen.check_observed()
    now = current.world.now()
    found = asked.of(seen, now)
    answers = _chosen(seen, found, name, decision)
    if decision == "Reject" and answers == asked.RETIRE:
        message = "retire is answered by approving it, or not at all: the index is kept until then"
        raise Terminal(Reason.INVALID_SPEC, message)
    there = asked.answered(deployments.decisions(current, seen), seen, found, answers, now)
    if decision == "Approve" and there is not None:
        # A second one would stay behind unused, and let the next migration by the same plan pass unasked.
        writing.tell(f"Approval {there.name} answers {answers} already; the operator is yet to take it")
        return 0
    version = seen.spec.version
    made = writing.decide(current, seen, decision, version, expires, as_patch, answers, comment)
    if not as_patch:
        writing.tell(f"{_done(seen, decision, answers)}: Approval {made} counts for {expires}, for this plan alone")
    return 0


def _done(seen: Deployment, decision: Literal["Approve", "Reject"], answers: str) -> str:
    if decision == "Approve":
        return f"approved {answers} of {seen.name} for {seen.spec.version}"
    back = f"; all queries go to {seen.serving}" if seen.serving not in ("", seen.spec.version) else ""
    return f"rejected {seen.spec.version} of {seen.name} at {answers}{back}"


def _chosen(seen: Deployment, found: Asked, name: str | None, decision: Literal["Approve", "Reject"]) -> str:
    """Return what is answered; raises Terminal where nothing is asked, too much, or not this."""
    otherwise = (
        f"; to keep queries off {seen.spec.version}: pointsman abort {seen.name}" if decision == "Reject" else ""
    )
    if name is None:
        if len(found.now) == 1:
            return found.now[0]
        if found.now:
            message = f"{seen.name} asks {len(found.now)} things; say which: {', '.join(found.now)}"
            raise Terminal(Reason.INVALID_SPEC, message)
        raise Terminal(Reason.INVALID_SPEC, f"{seen.name} asks nothing now{_instead(seen, found)}{otherwise}")
    if name in found.names:
        return name
    if name in asked.answerable(seen):
        message = f"{seen.name} does not ask {name} now{_instead(seen, found)}{otherwise}"
        raise Terminal(Reason.INVALID_SPEC, message)
    known = ", ".join(asked.answerable(seen))
    raise Terminal(Reason.INVALID_SPEC, f"{seen.name} has no step or gate {name}, only {known}")


def _instead(seen: Deployment, found: Asked) -> str:
    """Return what there is to know where nothing is asked: what may be answered early, or what is going on."""
    if found.names:
        return f"; what may be answered: {', '.join(found.names)}"
    goal = seen.goal
    return "" if goal is None else f": {goal.message}"
