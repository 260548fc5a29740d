"""What to do next for a QuerySet: read it where that is due, and say what is in it.

Knows nothing of queries and judgements themselves: a worker reads them and writes down numbers.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api import conditions as conditions_api
from pointsman.api import queryset as api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.core import evaluation
from pointsman.plan import actions, words
from pointsman.plan.facts import QuerySetRecord
from pointsman.plan.observed import Plan, QueriesView, QuerySet
from pointsman.plan.tasks import Failure, Phase, ReadQueries

State = tuple[ConditionType, Reason, str]


def plan(seen: QuerySet, now: datetime) -> Plan[api.QuerySetStatus]:
    """Return what to do for a query set, what to say of it, and when to look again."""
    is_starting = _is_due(seen, now) and _may_start(seen, now)
    task = ReadQueries(seen.key, seen.source_digest)
    started = (actions.StartWork(task, seen.generation),) if is_starting else ()
    look_again = words.SOON if is_starting or _is_running(seen) else _look_again(seen, now)
    return Plan(started, _status(seen, now), look_again)


def _is_due(seen: QuerySet, now: datetime) -> bool:
    """Return whether the set was never read as the spec says it now, or was read too long ago."""
    record = _current(seen)
    return record is None or _remaining(seen, record, now) <= timedelta(0)


def _may_start(seen: QuerySet, now: datetime) -> bool:
    """Return whether nothing reads it now, and the last failure was waited out or the spec edited since."""
    if _is_running(seen):
        return False
    failures = [work for work in seen.work if work.failure is not None]
    return all(w.generation != seen.generation or w.failure is None or now >= w.failure.retry_at for w in failures)


def _is_running(seen: QuerySet) -> bool:
    return any(work.phase is Phase.RUNNING for work in seen.work)


def _current(seen: QuerySet) -> QuerySetRecord | None:
    """Return what was found by reading what the spec says now; None where that was not read yet."""
    return seen.record if seen.record is not None and seen.record.source == seen.source_digest else None


def _remaining(seen: QuerySet, record: QuerySetRecord, now: datetime) -> timedelta:
    """Return how long what was found stays good. What stands in the spec itself changes with the spec alone."""
    if seen.spec.queries.files is None:
        return timedelta.max
    return record.read_at + base.parse_duration(seen.spec.refresh.every) - now


def _look_again(seen: QuerySet, now: datetime) -> timedelta:
    failure, record = _failure(seen, now), _current(seen)
    waits = [] if failure is None else [failure.retry_at - now]
    waits += [] if record is None else [_remaining(seen, record, now)]
    return min((wait for wait in waits if timedelta(0) < wait < words.AT_REST), default=words.AT_REST)


# What to say.


def _status(seen: QuerySet, now: datetime) -> api.QuerySetStatus:
    record = seen.record
    goal = words.goal(_state(seen, now), seen.generation, now)
    return api.QuerySetStatus(
        observed_generation=seen.generation,
        conditions=conditions_api.merge(seen.status.conditions, goal),
        effective=api.effective(seen.spec),
        queries=0 if record is None else record.queries,
        groups=0 if record is None else record.groups,
        judgements=0 if record is None else record.judgements,
        read_at=None if record is None else record.read_at,
        digest="" if record is None else record.digest,
    )


def _state(seen: QuerySet, now: datetime) -> State:
    """Return the one of Ready, Reconciling and Stalled that holds, with its reason and sentence."""
    failure, record = _failure(seen, now), _current(seen)
    if failure is not None:
        kind = ConditionType.STALLED if failure.is_terminal else ConditionType.RECONCILING
        kept = "" if record is None else "; what was read before stays current"
        return kind, failure.reason, f"{failure.message}{kept}"
    if record is None:
        return ConditionType.RECONCILING, Reason.REFRESHING, "the queries are being read"
    # Being read again does not take Ready away.
    found = f"{record.queries:,} queries in {record.groups:,} groups with {record.judgements:,} judgements"
    return ConditionType.READY, Reason.UP_TO_DATE, found


def _failure(seen: QuerySet, now: datetime) -> Failure | None:
    """Return why the last reading failed, while there is still something to read."""
    return next((work.failure for work in seen.work if work.failure is not None), None) if _is_due(seen, now) else None


def detects(view: QueriesView, policy: float) -> str:
    """Return what a set can detect, before anything is built, as a clause."""
    groups = 0 if view.record is None else view.record.groups
    if groups < evaluation.MIN_GROUPS:
        return f"needs {evaluation.MIN_GROUPS} groups of judged queries or more, the set has {groups}"
    smallest = evaluation.detectable(evaluation.USUAL_SPREAD, groups)
    if policy <= 0:
        return f"by {groups} groups detects {smallest:.3f}; a policy of 0 needs no loss at all in sight"
    needed = evaluation.groups_needed(policy)
    lack = f"; {needed} would detect {policy:g}" if needed > groups else ""
    return f"by {groups} groups detects a fall of {smallest:.3f} with 80 % power{lack}"
