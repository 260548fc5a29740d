"""Asking for a dataset's source to be read again now."""

from __future__ import annotations

from pointsman.api import conditions, dataset
from pointsman.api.conditions import Condition, ConditionType
from pointsman.cli import resources, session, status
from pointsman.cli.session import Session
from pointsman.cli.status import Judgement, Outcome
from pointsman.cluster.resources import DATASET, REFRESH_ANNOTATION, Resource


def run(current: Session, reference: str, keep_waiting: bool, timeout: str) -> int:
    """Ask for a refresh and, where wanted, wait until it is done; return the exit code."""
    seconds = resources.seconds(timeout)
    _, resource = resources.find(current, reference, (DATASET,))
    name = resources.metadata(resource)["name"]
    stalled = _stalled(resource)
    asked = current.world.now().isoformat()
    patch = {"metadata": {"annotations": {REFRESH_ANNOTATION: asked}}}
    resource = current.cluster.patch(DATASET, current.namespace, name, patch)
    out = session.console()
    if not keep_waiting:
        out.print(f"asked for a refresh of dataset {name}", soft_wrap=True)
        return 0

    def say(judgement: Judgement) -> None:
        out.print(f"dataset {name}  {judgement.message}", soft_wrap=True)

    def look() -> tuple[Resource, Judgement]:
        found = status.look_again(current, DATASET, name)
        return found, _judge(found, asked, stalled)

    first = _judge(resource, asked, stalled)
    say(first)
    _, judgement = status.wait(current, (resource, first), look, say, seconds)
    if judgement.outcome is Outcome.PENDING:
        session.console(to_stderr=True).print(f"not refreshed after {timeout}: {judgement.message}", soft_wrap=True)
    return status.EXIT_CODES[judgement.outcome]


def _judge(resource: Resource, asked: str, stalled_before: Condition | None) -> Judgement:
    seen = resources.status(resource, dataset.DatasetStatus)
    if seen.last_handled_refresh == asked:
        message = f"refreshed: snapshot {seen.snapshot}, {seen.documents:,} documents"
        return Judgement(Outcome.READY, "", message)
    stalled = _stalled(resource)
    # A dataset that was stalled when it was asked may be mended by this very refresh: the wait ends with a new stall,
    # or where what was read for it was refused as well.
    if stalled is not None and (stalled != stalled_before or seen.last_refused_refresh == asked):
        return Judgement(Outcome.STALLED, stalled.reason, stalled.message)
    goal = resources.goal(seen.conditions)
    under_way = goal is not None and goal.type is not ConditionType.READY
    message = goal.message if goal is not None and under_way else "waiting for the operator to read the source"
    return Judgement(Outcome.PENDING, "", message)


def _stalled(resource: Resource) -> Condition | None:
    found = conditions.get(resources.conditions_of(resource), ConditionType.STALLED)
    return found if found is not None and found.status is conditions.Status.TRUE else None
