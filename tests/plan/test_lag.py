"""What an AcceptLag lets be missed: which snapshots, how many documents, and what nobody has counted yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.plan import builders as b
from tests.plan import fleet

from pointsman.api import approval as api
from pointsman.plan import approvals, lag
from pointsman.plan.facts import Facts
from pointsman.plan.observed import Decision, Embedded, Lag
from pointsman.plan.tasks import Key

FACTS = Facts(indexes=(b.serving("v8", b.V8), b.retained()), made=2)
UNTIL = "it counts until 2026-03-02 12:00:00 UTC"


def embedded(*numbers: int, **changes: int) -> tuple[Embedded, ...]:
    """Each snapshot has changed so much beside the one before it."""
    return tuple(replace(each, changes={"unchanged": 90, **changes}) for each in b.embedded(*numbers))


def found(has: int, by: dict[str, tuple[Embedded, ...]], newest: int = 14, **changes: Any) -> Lag | None:
    records = {"v7": b.record(has, **changes), "v8": b.record(newest)}
    return lag.of("v7", FACTS, records, b.snapshots(*range(11, newest + 1)), by)


LACKING: dict[str, tuple[Lag | None, Lag | None]] = {
    "its own version is embedded, and only it is not loaded": (
        found(12, {b.V7.key: embedded(12, 13, 14, added=3, edited=7), b.V8.key: embedded(12, 13, 14, added=99)}),
        Lag(12, 14, {"edited": 14, "added": 6}, 14),
    ),
    "its own version is not embedded so far: another one counts": (
        found(12, {b.V7.key: embedded(12, added=1), b.V8.key: embedded(12, 13, 14, deleted=2)}),
        Lag(12, 14, {"deleted": 4}, 14),
    ),
    "nobody has embedded the newest yet": (
        found(12, {b.V7.key: embedded(11, 12, 13, added=5)}),
        Lag(12, 14, {"added": 5}, 13),
    ),
    "what was embedded first later on says nothing of a difference": (
        found(12, {b.V7.key: (), b.V8.key: embedded(13, 14, added=1_000)}),
        Lag(12, 14, {}, 12),
    ),
    "it has all": (found(14, {b.V7.key: embedded(14, added=3)}), Lag(14, 14, {}, 14)),
    "it was never whole": (found(12, {}, verified_at=None), None),
    "it has no cursor": (found(12, {}, cursor=None), None),
    "there is no such version": (lag.of("v6", FACTS, {"v7": b.record()}, b.snapshots(12), {}), None),
    "it has taken over already, as it was": (
        lag.of("v8", FACTS, {"v8": b.record(11)}, b.snapshots(11, 12), {b.V8.key: embedded(11, 12, added=1)}),
        Lag(11, 12, {"added": 1}, 12),
    ),
}


@pytest.mark.parametrize(("told", "wanted"), LACKING.values(), ids=LACKING.keys())
def test_what_an_index_lacks_is_counted_by_a_version_that_has_seen_the_difference(
    told: Lag | None, wanted: Lag | None
) -> None:
    assert told == wanted


def decision(found: Lag | None, before: api.Missed | None = None, **changes: Any) -> Decision:
    made = fleet.approval("AcceptLag", "v7", **changes)
    status = api.ApprovalStatus(missed=before)
    key = Key("Approval", "search", made.name)
    return Decision(key, made.uid, 1, made.spec, status, b.spec("v8"), "plan", (), b.NOW, lag=found)


SAID: dict[str, tuple[Lag | None, str]] = {
    "several snapshots": (
        Lag(12, 14, {"edited": 1_400, "added": 6}, 14),
        "v7@12 lacks what snapshots 13 to 14 changed: 1,400 edited, 6 added",
    ),
    "one snapshot": (Lag(13, 14, {"added": 6}, 14), "v7@13 lacks what snapshot 14 changed: 6 added"),
    "some of them counted": (
        Lag(12, 14, {"added": 6}, 13),
        "v7@12 lacks what snapshots 13 to 14 changed: 6 added by snapshot 13, the rest not counted yet",
    ),
    "none of them counted": (Lag(12, 14, {}, 12), "v7@12 lacks what snapshots 13 to 14 changed: not counted yet"),
    "nothing that it would show": (
        Lag(13, 14, {}, 14),
        "v7@13 lacks what snapshot 14 changed: none that its index would show",
    ),
    "nothing": (Lag(14, 14, {}, 14), "v7@14 lacks nothing"),
    "nobody knows": (None, "v7 has no index that was ever whole, and what one would lack is not known"),
}


@pytest.mark.parametrize(("found", "said"), SAID.values(), ids=SAID.keys())
def test_an_accepted_lag_says_what_is_missed(found: Lag | None, said: str) -> None:
    plan = approvals.plan(decision(found), b.NOW)

    assert b.goal(plan.status)[2] == f"{UNTIL}; {said}"


def test_what_was_missed_is_kept_in_numbers_once_it_has_caught_up() -> None:
    first = approvals.plan(decision(Lag(12, 14, {"edited": 14, "added": 6}, 14)), b.NOW).status
    later = approvals.plan(decision(Lag(14, 14, {}, 14), first.missed), b.NOW).status

    assert first.missed == later.missed == api.Missed(snapshot=12, newest=14, documents=20, counted=14)
    assert b.goal(later)[2] == f"{UNTIL}; v7@14 lacks nothing"


def test_one_that_does_not_count_says_why_and_no_more() -> None:
    plan = approvals.plan(decision(Lag(12, 14, {"added": 6}, 14), expires=b.NOW), b.NOW)

    assert b.goal(plan.status)[2] == "it expired at 2026-03-01 12:00:00 UTC; create another one"
