"""How did a migration end, and how long did it take? Read from the facts before and after; nothing is decided by it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pointsman.plan import approvals
from pointsman.plan.facts import Facts, Index
from pointsman.plan.observed import Deployment


class Outcome(StrEnum):
    """How a migration ended."""

    PROMOTED = "promoted"
    """All queries go to it."""
    REJECTED = "rejected"
    """It was refused before it got any query."""
    ROLLED_BACK = "rolled_back"
    """It was refused after it had got some."""
    FAILED_IN_BURN_IN = "failed_in_burn_in"
    """It was refused after it had got them all; counted beside its promotion, from that on."""
    ABORTED = "aborted"
    """An Approval keeps queries off it."""
    CALLED_OFF = "called_off"
    """The spec wants something else, or its index is gone."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A migration that is over."""

    outcome: Outcome
    took: timedelta


def ended(seen: Deployment, after: Facts, now: datetime) -> Ended | None:
    """Return how the migration that was seen under way has ended by facts that follow; None where none has."""
    before = seen.facts
    if before.rollout is None:
        return _in_burn_in(before, after, now)
    rollout, candidate, serving = before.rollout, before.get(before.rollout.index), after.serving
    if after.rollout is not None and (after.rollout.index, after.rollout.begun_at) == (rollout.index, rollout.begun_at):
        return None
    if serving is not None and serving.name == rollout.index:
        outcome = Outcome.PROMOTED
    elif candidate is not None and _is_refused(candidate, before, after):
        outcome = Outcome.ROLLED_BACK if rollout.weight else Outcome.REJECTED
    elif candidate is not None and any(approvals.aborted(seen, v, now) for v in (candidate.version, seen.spec.version)):
        outcome = Outcome.ABORTED
    else:
        outcome = Outcome.CALLED_OFF
    return Ended(outcome, now - rollout.begun_at)


def _in_burn_in(before: Facts, after: Facts, now: datetime) -> Ended | None:
    index = None if before.burn_in is None else before.get(before.burn_in.index)
    if before.burn_in is None or index is None or not _is_refused(index, before, after):
        return None
    return Ended(Outcome.FAILED_IN_BURN_IN, now - before.burn_in.since)


def _is_refused(index: Index, before: Facts, after: Facts) -> bool:
    new = (rejection for rejection in after.rejected if rejection not in before.rejected)
    return any(rejection.is_of(index.recipe, index.parameters) for rejection in new)
