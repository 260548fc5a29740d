"""Numbers and times as people read them, and the conditions of a status, built in one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from pointsman.api import dataset as dataset_api
from pointsman.api.conditions import Condition, ConditionType, Reason, Status
from pointsman.plan.tasks import AskCanaries, Embed, Evaluate, Failure, Phase, Refresh, Work

AT_REST = timedelta(minutes=5)
"""When to look again where nothing is under way."""
SOON = timedelta(seconds=1)
"""When to look again where work is under way."""
AT_ONCE = timedelta(0)
NAMED = 3
"""How many of many a sentence names."""


def duration(span: timedelta) -> str:
    """Return a span as a person would say it: `45s`, `3m 20s`, `2h 5m`, `3d 4h`."""
    seconds = max(0, round(span.total_seconds()))
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3_600)
    minutes, seconds = divmod(seconds, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{value}{unit}" for value, unit in parts[:2] if value or unit == parts[0][1])


def names(found: Iterable[str]) -> str:
    """Return names as a person would list them, the first three and how many more: `a, b, c and 4 more`."""
    known = sorted(found)
    more = len(known) - NAMED
    return ", ".join(known[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def progress(work: Work) -> dataset_api.Progress:
    """Return how far a piece of work has come, at a precision that does not flicker."""
    unit: Literal["documents", "texts", "rows", "queries"]
    match work.task:
        case Embed():
            unit = "texts"
        case Refresh():
            unit = "documents"
        case Evaluate() | AskCanaries():
            unit = "queries"
        case _:
            unit = "rows"
    rate, remaining = "", ""
    if work.rate > 0:
        rate = f"{_rounded(work.rate):,}/s"
        if work.total > work.done:
            remaining = duration(timedelta(seconds=(work.total - work.done) / work.rate))
    return dataset_api.Progress(done=work.done, total=work.total, unit=unit, rate=rate, remaining=remaining)


def running(work: Sequence[Work], subject: str) -> Work | None:
    """Return what is being done to a subject."""
    return next((w for w in work if w.phase is Phase.RUNNING and w.task.subject == subject), None)


def failure(work: Sequence[Work], subject: str) -> Failure | None:
    """Return why the last attempt at a subject that ended failed, if it did, whether or not the next one is on."""
    return next((w.failure for w in work if w.task.subject == subject), None)


def condition(
    kind: ConditionType, holds: bool | None, reason: Reason, message: str, generation: int, now: datetime
) -> Condition:
    """Return one condition; None is Unknown."""
    status = Status.UNKNOWN if holds is None else Status.TRUE if holds else Status.FALSE
    return Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=now,
        reason=reason,
        message=message,
    )


def goal(state: tuple[ConditionType, Reason, str], generation: int, now: datetime) -> list[Condition]:
    """Return kstatus's three conditions from the one that holds: Ready, Reconciling or Stalled."""
    holds, reason, message = state
    return [
        condition(kind, kind is holds, reason, message, generation, now)
        for kind in (ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED)
    ]


def two_digits(count: float) -> int:
    """Return a count as its first two digits tell it, so that it does not move all the time: 1,234 is 1,200."""
    magnitude: int = 10 ** max(0, len(str(int(count))) - 2)
    return int(count // magnitude * magnitude)


def _rounded(rate: float) -> int | float:
    return round(rate, 1) if rate < 10 else two_digits(rate)
