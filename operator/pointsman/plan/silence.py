"""Does what serves answer, asked alone and by its own model? What does not keeps no fix of its own away.

A comparison that cannot be made does not say whose fault that is. So each side is asked alone. Where the candidate
answers and what serves does not, for long enough, there is nothing to compare with: the candidate is then judged by
what it answers itself. A candidate that does not answer either gains nothing by that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.plan import indexes, words
from pointsman.plan.facts import Facts, Index, Silence
from pointsman.plan.observed import Deployment
from pointsman.plan.tasks import AskCanaries, Evaluate, Failure

COMPARING = frozenset({"canaries", "evaluation"})
"""The gates that ask both indexes themselves."""
PATIENCE = timedelta(minutes=10)
"""How long what serves has to be silent before it counts as broken; half of `progressDeadline` where that is less."""
AGAIN = timedelta(minutes=2)
"""How often both sides are asked alone while it is in doubt whether they answer."""
_OF_ASKING = frozenset(
    {
        Reason.MODEL_UNREACHABLE,
        Reason.MODEL_UNAUTHORIZED,
        Reason.MODEL_RATE_LIMITED,
        Reason.MODEL_REJECTED,
        Reason.MODEL_INVALID,
        Reason.MODEL_CHANGED,
        Reason.BACKEND_UNREACHABLE,
        Reason.BACKEND_UNAUTHORIZED,
        Reason.BACKEND_REJECTED,
        Reason.WORK_LOST,
    }
)
"""What may be either side's fault; anything else is of the query set, or of nobody that a migration is about."""


def followed(seen: Deployment, facts: Facts, now: datetime) -> Facts:
    """Return the facts with what is known of what serves while a candidate is to be compared with it."""
    serving, road, before = facts.serving, facts.rollout, facts.silence
    if serving is None or road is None:
        return dataclasses.replace(facts, silence=None)
    before = before if before is not None and before.index == serving.name else None
    failure = failure_of(seen, serving.name)
    if failure is None:
        told = seen.probes.get(serving.name)
        if before is not None and (told is None or told.measured_at <= before.since):
            # Nobody has asked it since, as after a restart.
            return facts
        # What has waited for it may wait on for as long as if it had begun to now.
        road = road if before is None else road.waiting_from(now)
        return dataclasses.replace(facts, silence=None, rollout=road)
    if before is None:
        return dataclasses.replace(facts, silence=Silence(serving.name, now, failure.message))
    patience = min(PATIENCE, base.parse_duration(seen.spec.strategy.progress_deadline) / 2)
    is_long = now < failure.retry_at and now - before.since >= patience
    if before.proven_at is None and is_long and _answers(seen, road.index, before.since):
        return dataclasses.replace(facts, silence=dataclasses.replace(before, proven_at=now))
    return facts


def failure_of(seen: Deployment, index: str) -> Failure | None:
    """Return why an index did not answer when it was last asked alone; None where it did, or was not asked."""
    return words.failure(seen.work, f"probe of {index}")


def is_doubted(seen: Deployment, facts: Facts) -> bool:
    """Return whether both sides of a migration have to be asked alone: something keeps them from being compared."""
    serving = facts.serving
    candidate = None if facts.rollout is None else facts.get(facts.rollout.index)
    if serving is None or candidate is None or (seen.spec.gates.evaluation, seen.spec.gates.canaries) == (None, None):
        return False
    is_named = any(serving.name in gateway.problems for gateway in seen.gateways)
    is_incomparable = any(_failures(seen, serving)) or _is_behind(seen, candidate, serving)
    return facts.silence is not None or is_named or is_incomparable


def broken(seen: Deployment, index: Index, other: Index | None) -> str:
    """Return why the other one is nothing to compare an index with, as a clause; empty where it is whole, or none."""
    if other is None:
        return ""
    record, found = seen.records.get(other.name), seen.physical.get(other.name)
    is_wrong = record is not None and found is not None and (record.differences or indexes.is_miscounted(record, found))
    if is_wrong and words.failure(seen.work, f"index {other.name}") is not None:
        # It is not what it should be, and mending it fails.
        return f"{other.name} is broken"
    silence = seen.facts.silence
    if silence is None or silence.index != other.name or silence.proven_at is None:
        return ""
    return "" if failure_of(seen, index.name) is not None else said(silence, other)


def why_incomparable(seen: Deployment, index: Index, other: Index | None) -> str:
    """Return what it is about the other index that keeps two from being compared, as a clause; empty where nothing."""
    if other is None:
        return ""
    if alone := broken(seen, index, other):
        return f"{index.version} is asked alone, as {alone}"
    silence = seen.facts.silence
    if silence is not None and silence.index == other.name:
        return said(silence, other)
    if not indexes.may_answer(seen, other):
        return f"{other.name} is not whole just now"
    if _is_behind(seen, index, other):
        return f"{indexes.said(seen, other)} is behind {indexes.said(seen, index)}"
    return ""


def speaks_against_nobody(seen: Deployment, index: Index, other: Index) -> bool:
    """Return whether a comparison is lacking through no fault of an index that was shown: it answers, asked alone."""
    if failure_of(seen, index.name) is not None or broken(seen, index, other):
        # What it does not answer asked alone is its own failure.
        return False
    if why_incomparable(seen, index, other):
        return True
    return index.name in seen.probes and any(reason in _OF_ASKING for reason in _failures(seen, other))


def said(silence: Silence, index: Index) -> str:
    """Return since when an index does not answer and why, as a clause."""
    return f"{index.version} has not answered since {silence.since:%Y-%m-%d %H:%M} UTC: {silence.message}"


def _answers(seen: Deployment, index: str, since: datetime) -> bool:
    told = seen.probes.get(index)
    return told is not None and told.measured_at >= since and failure_of(seen, index) is None


def _failures(seen: Deployment, other: Index) -> Iterator[Reason]:
    """Yield why two indexes could not be asked, of which it was the other."""
    for work in seen.work:
        side = work.task.serving if isinstance(work.task, Evaluate | AskCanaries) else None
        if work.failure is not None and side is not None and side.index == other.name:
            yield work.failure.reason


def _is_behind(seen: Deployment, index: Index, other: Index) -> bool:
    here, there = indexes.cursor(seen, index), indexes.held(seen, other)
    return here is not None and there is not None and there.snapshot < here.snapshot
