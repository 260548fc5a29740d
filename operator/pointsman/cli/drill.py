"""Practising a rollback: a sliver of the real queries also goes to the retained index, and what comes of it."""

from __future__ import annotations

from pointsman.api.conditions import Reason
from pointsman.api.evidence import DrillStatus
from pointsman.cli import deployments, resources, session, status, writing
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session
from pointsman.cli.status import Judgement, Outcome
from pointsman.cluster.resources import DEPLOYMENT, DRILL_ANNOTATION, Resource
from pointsman.errors import Terminal

NOTHING_FOUND_OUT = 3
"""The exit code where no query came."""


def run(current: Session, reference: str, keep_waiting: bool, timeout: str, as_patch: bool) -> int:
    """Ask for a drill and, unless told not to, wait until it is over; return the exit code."""
    seconds = resources.seconds(timeout)
    seen = deployments.read(current, reference)
    if seen.status.rollback is None:
        message = f"{seen.name} has no retained index: there is nothing to go back to, and nothing to practise"
        raise Terminal(Reason.NOTHING_RETAINED, message)
    asked = current.world.now().isoformat()
    writing.annotate(current, seen, DRILL_ANNOTATION, asked, as_patch)
    if as_patch:
        return 0
    writing.tell(f"asked {seen.name} to practise going back to {seen.status.rollback.to}")
    if not keep_waiting:
        return 0

    def look() -> tuple[Resource, Judgement]:
        resource = status.look_again(current, DEPLOYMENT, seen.name)
        return resource, _judge(deployments.of(resource), asked)

    def say(judgement: Judgement) -> None:
        if judgement.outcome is Outcome.PENDING:
            writing.tell(judgement.message)

    first = look()
    say(first[1])
    resource, judgement = status.wait(current, first, look, say, seconds)
    if judgement.outcome is Outcome.PENDING:
        session.console(to_stderr=True).print(f"not over after {timeout}: {judgement.message}", soft_wrap=True)
        return status.EXIT_CODES[judgement.outcome]
    writing.tell(judgement.message)
    found = deployments.of(resource).status.drill
    # Nobody asked is nothing found out.
    return status.EXIT_CODES[judgement.outcome] if found is not None and found.queries else NOTHING_FOUND_OUT


def _judge(seen: Deployment, asked: str) -> Judgement:
    """Judge a drill: done well, done badly, or not over."""
    found = seen.status.drill
    if found is None or found.token != asked:
        return Judgement(Outcome.PENDING, "", "the operator has not begun yet")
    if found.done_at is None:
        why = f": {found.message}" if found.message else ""
        return Judgement(Outcome.PENDING, "", f"the drill is on{why}")
    return Judgement(Outcome.STALLED if found.failed else Outcome.READY, "", _said(found))


def _said(found: DrillStatus) -> str:
    if not found.queries:
        return f"{found.version or 'nothing'} was asked no query: {found.message or 'none came while the drill was on'}"
    overlap = f"; {found.overlap} of the documents are those that were answered" if found.overlap else ""
    return f"{found.version} was asked {found.queries:,} real queries, {found.failed:,} failed{overlap}"
