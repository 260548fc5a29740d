"""What is planned for a query set: when it is read, and what is said of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b

from pointsman.api import queryset as api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.plan import querysets, words
from pointsman.plan.actions import StartWork
from pointsman.plan.facts import QuerySetRecord
from pointsman.plan.observed import QuerySet
from pointsman.plan.tasks import Failure, Key, Phase, ReadQueries, Work

READY, RECONCILING, STALLED = ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED
KEY = Key("QuerySet", "search", "papers-eval")
MINUTE = timedelta(minutes=1)
READ = ReadQueries(KEY, "source")
FILES = {"uri": "file:///data/a.jsonl", "format": "jsonl"}
FROM_FILES = api.Spec.model_validate(
    {"queries": {"files": FILES}, "judgements": {"files": FILES}, "refresh": {"every": "1h"}}
)
INLINE = api.Spec.model_validate({"queries": {"inline": [{"id": "q", "text": "why?", "relevant": ["d"]}]}})


def record(ago: timedelta = MINUTE, source: str = "source") -> QuerySetRecord:
    return QuerySetRecord(source, queries=1200, groups=40, judgements=5000, digest="d", read_at=b.NOW - ago)


def work(phase: Phase, failure: Failure | None = None, generation: int = 1) -> Work:
    return Work(READ, generation, phase, failure=failure)


def failed(wait: timedelta = MINUTE, is_terminal: bool = True) -> Failure:
    return Failure(
        Reason.SOURCE_INVALID,
        "the query set is refused: 1 queries without a text (row 3)",
        is_terminal,
        1,
        b.NOW + wait,
    )


def seen(**changes: Any) -> QuerySet:
    """A query set that was read a minute ago."""
    values: dict[str, Any] = {
        "key": KEY,
        "generation": 1,
        "spec": FROM_FILES,
        "status": api.QuerySetStatus(),
        "source_digest": "source",
        "record": record(),
        "work": (),
    }
    return QuerySet(**{**values, **changes})


READY_MESSAGE = "1,200 queries in 40 groups with 5,000 judgements"
REFUSED = "the query set is refused: 1 queries without a text (row 3)"
KEPT = f"{REFUSED}; what was read before stays current"
BEING_READ = (RECONCILING, Reason.REFRESHING, "the queries are being read")

# Each case: what was seen, whether it is read now, when to look again, and what is said of the goal.
CASES: dict[str, tuple[QuerySet, bool, timedelta, tuple[ConditionType, Reason, str]]] = {
    "never read": (seen(record=None), True, words.SOON, BEING_READ),
    "being read for the first time": (
        seen(record=None, work=(work(Phase.RUNNING),)), False, words.SOON, BEING_READ,
    ),
    "read": (seen(), False, words.AT_REST, (READY, Reason.UP_TO_DATE, READY_MESSAGE)),
    "read, and due in two minutes": (
        seen(record=record(58 * MINUTE)), False, 2 * MINUTE, (READY, Reason.UP_TO_DATE, READY_MESSAGE),
    ),
    "due by the clock": (
        seen(record=record(60 * MINUTE)), True, words.SOON, (READY, Reason.UP_TO_DATE, READY_MESSAGE),
    ),
    "being read again": (
        seen(record=record(61 * MINUTE), work=(work(Phase.RUNNING),)),
        False, words.SOON, (READY, Reason.UP_TO_DATE, READY_MESSAGE),
    ),
    "edited": (seen(source_digest="edited"), True, words.SOON, BEING_READ),
    "in the spec itself, read long ago": (
        seen(spec=INLINE, record=record(b.DAY)), False, words.AT_REST, (READY, Reason.UP_TO_DATE, READY_MESSAGE),
    ),
    "refused at the first reading": (
        seen(record=None, work=(work(Phase.FAILED, failed()),)),
        False, MINUTE, (STALLED, Reason.SOURCE_INVALID, REFUSED),
    ),
    "refused when read again": (
        seen(record=record(61 * MINUTE), work=(work(Phase.FAILED, failed()),)),
        False, MINUTE, (STALLED, Reason.SOURCE_INVALID, KEPT),
    ),
    "failed in a way that may pass": (
        seen(record=None, work=(work(Phase.FAILED, failed(is_terminal=False)),)),
        False, MINUTE, (RECONCILING, Reason.SOURCE_INVALID, REFUSED),
    ),
    "the back-off is over": (
        seen(record=None, work=(work(Phase.FAILED, failed(timedelta(0))),)),
        True, words.SOON, (STALLED, Reason.SOURCE_INVALID, REFUSED),
    ),
    "edited before the back-off is over": (
        seen(record=None, generation=2, work=(work(Phase.FAILED, failed()),)),
        True, words.SOON, (STALLED, Reason.SOURCE_INVALID, REFUSED),
    ),
    "failed once, edited back to what was read": (
        seen(work=(work(Phase.FAILED, failed()),)), False, words.AT_REST, (READY, Reason.UP_TO_DATE, READY_MESSAGE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_query_set_is_read_when_that_is_due_and_says_so(case: str) -> None:
    observed, is_read, look_again, goal = CASES[case]

    plan = querysets.plan(observed, b.NOW)

    wanted = (StartWork(ReadQueries(KEY, observed.source_digest), observed.generation),) if is_read else ()
    assert plan.actions == wanted
    assert plan.look_again == look_again
    holds = next(c for c in plan.status.conditions if c.status == "True")
    assert (holds.type, holds.reason, holds.message) == goal


def test_the_numbers_are_those_of_the_last_reading() -> None:
    status = querysets.plan(seen(source_digest="edited"), b.NOW).status

    assert (status.queries, status.groups, status.judgements, status.digest) == (1200, 40, 5000, "d")
    assert status.read_at == b.NOW - MINUTE
    assert querysets.plan(seen(record=None), b.NOW).status.read_at is None
