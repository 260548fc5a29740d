"""Which Events are posted: a Warning where something is wrong, and no sentence twice."""

from __future__ import annotations

import pytest
import structlog
from tests.crash import stories
from tests.crash.stage import Stage, told
from tests.plan.builders import NOW

from pointsman.api.conditions import Condition, ConditionType, Reason, Status
from pointsman.cluster.resources import DEPLOYMENT
from pointsman.controller import report
from pointsman.controller.reconcile import reconcile
from pointsman.plan import words
from pointsman.plan.tasks import Key

State = tuple[ConditionType, Reason, str]

READY = (ConditionType.READY, Reason.UP_TO_DATE, "serving v7")
BUILDING = (ConditionType.RECONCILING, Reason.BUILDING, "v8 is being built")
AWAY = (ConditionType.RECONCILING, Reason.BACKEND_UNREACHABLE, "no answer")
MISTYPED = (ConditionType.STALLED, Reason.VERSION_NOT_FOUND, "no version v99")
UNEMBEDDED = (ConditionType.STALLED, Reason.WAITING_FOR_DATASET, "papers cannot go on")


def goal(state: State) -> list[Condition]:
    return words.goal(state, 1, NOW)


TURNS: dict[str, tuple[State, State, dict[str, tuple[bool, Reason]]]] = {
    "a migration begins": (READY, BUILDING, {"v8 is being built": (False, Reason.BUILDING)}),
    "a migration ends": (BUILDING, READY, {"serving v7": (False, Reason.UP_TO_DATE)}),
    "a database is away": (READY, AWAY, {"no answer": (True, Reason.BACKEND_UNREACHABLE)}),
    "a spec is wrong": (READY, MISTYPED, {"no version v99": (True, Reason.VERSION_NOT_FOUND)}),
    "what stalls is a warning, though its reason is none": (
        READY,
        UNEMBEDDED,
        {"papers cannot go on": (True, Reason.WAITING_FOR_DATASET)},
    ),
    "a spec is mended: one sentence, once": (MISTYPED, READY, {"serving v7": (False, Reason.UP_TO_DATE)}),
    "a spec is mended, and work begins": (MISTYPED, BUILDING, {"v8 is being built": (False, Reason.BUILDING)}),
    "another fault comes before the first one is mended": (
        AWAY,
        MISTYPED,
        {"no version v99": (True, Reason.VERSION_NOT_FOUND)},
    ),
    "work goes on after a fault": (AWAY, BUILDING, {}),
    "nothing turned": (READY, READY, {}),
}


@pytest.mark.parametrize(("before", "after", "due"), TURNS.values(), ids=TURNS.keys())
def test_an_event_for_each_turn(before: State, after: State, due: dict[str, tuple[bool, Reason]]) -> None:
    assert report.announced(goal(before), goal(after)) == due


@pytest.mark.parametrize("kind", [ConditionType.AVAILABLE, ConditionType.SOURCE_REACHABLE])
def test_what_is_there_no_more_is_a_warning(kind: ConditionType) -> None:
    def said(status: Status) -> list[Condition]:
        condition = words.condition(kind, status is Status.TRUE, Reason.REFRESHING, "there is nothing", 1, NOW)
        return [condition]

    assert report.announced(said(Status.TRUE), said(Status.FALSE)) == {"there is nothing": (True, Reason.REFRESHING)}


def said(kind: ConditionType, status: Status, reason: Reason, message: str = "so it is") -> list[Condition]:
    found = words.condition(kind, None, reason, message, 1, NOW)
    return [found.model_copy(update={"status": status})]


ROUTE, BACK, SCORES = ConditionType.TRAFFIC_VERIFIED, ConditionType.ROLLBACK_READY, ConditionType.SCORES_STEADY
SERVED, CURRENT, USUAL = Reason.ROUTE_ACCEPTED, Reason.RETAINED_INDEX_IS_CURRENT, Reason.SCORES_AS_USUAL
TRUE, FALSE, UNKNOWN = Status.TRUE, Status.FALSE, Status.UNKNOWN
Said = tuple[Status, Reason]
RELIED_ON: dict[str, tuple[ConditionType, Said | None, Said, bool | None]] = {
    "a route is being taken over, as with each step": (ROUTE, (TRUE, SERVED), (FALSE, Reason.ROUTE_NOT_ACCEPTED), None),
    "it was taken over": (ROUTE, (FALSE, Reason.ROUTE_NOT_ACCEPTED), (TRUE, SERVED), None),
    "it is not for minutes": (ROUTE, (FALSE, Reason.ROUTE_NOT_ACCEPTED), (FALSE, Reason.ROUTE_OVERDUE), True),
    "it still is not": (ROUTE, (FALSE, Reason.ROUTE_OVERDUE), (FALSE, Reason.ROUTE_OVERDUE), None),
    "at last it is": (ROUTE, (FALSE, Reason.ROUTE_OVERDUE), (TRUE, SERVED), False),
    "there is no gateway": (ROUTE, (TRUE, SERVED), (UNKNOWN, Reason.NO_GATEWAY), None),
    "all gateways serve the first route": (ROUTE, None, (TRUE, SERVED), None),
    "a snapshot came": (BACK, (TRUE, CURRENT), (FALSE, Reason.RETAINED_INDEX_IS_BEHIND), None),
    "it is followed for long": (
        BACK,
        (FALSE, Reason.RETAINED_INDEX_IS_BEHIND),
        (FALSE, Reason.RETAINED_INDEX_STAYS_BEHIND),
        True,
    ),
    "the way back answers nobody": (BACK, (TRUE, CURRENT), (FALSE, Reason.RETAINED_INDEX_DOES_NOT_ANSWER), True),
    "it answers again": (BACK, (FALSE, Reason.RETAINED_INDEX_DOES_NOT_ANSWER), (TRUE, CURRENT), False),
    "it is gone on top": (BACK, (FALSE, Reason.RETAINED_INDEX_DOES_NOT_ANSWER), (FALSE, Reason.INDEX_LOST), True),
    "the way back was retired": (BACK, (TRUE, CURRENT), (FALSE, Reason.NOTHING_RETAINED), False),
    "there never was one": (BACK, None, (FALSE, Reason.NOTHING_RETAINED), None),
    "its database is away, which others say": (BACK, (TRUE, CURRENT), (UNKNOWN, Reason.BACKEND_UNREACHABLE), None),
    "scores shift": (SCORES, (TRUE, USUAL), (FALSE, Reason.SCORES_SHIFTED), True),
    "scores are as they were": (SCORES, (FALSE, Reason.SCORES_SHIFTED), (TRUE, USUAL), False),
    "a quiet day": (SCORES, (TRUE, USUAL), (UNKNOWN, Reason.TOO_FEW_SESSIONS), None),
    "the next one": (SCORES, (UNKNOWN, Reason.TOO_FEW_SESSIONS), (TRUE, USUAL), None),
}


@pytest.mark.parametrize(("kind", "before", "after", "is_warning"), RELIED_ON.values(), ids=RELIED_ON.keys())
def test_what_others_rely_on_is_said_when_it_fails_and_when_it_is_mended_and_not_with_every_step(
    kind: ConditionType, before: Said | None, after: Said, is_warning: bool | None
) -> None:
    was = [] if before is None else said(kind, *before)

    due = report.announced(was, said(kind, *after))

    assert due == ({} if is_warning is None else {"so it is": (is_warning, after[1])})


def test_a_person_hears_of_every_question_once() -> None:
    def asks(message: str, reason: Reason = Reason.A_PERSON_IS_ASKED) -> list[Condition]:
        return said(ConditionType.AWAITING_APPROVAL, TRUE, reason, message)

    nobody = said(ConditionType.AWAITING_APPROVAL, FALSE, Reason.NOBODY_IS_ASKED)
    asked = {"go-wide is awaited": (False, Reason.A_PERSON_IS_ASKED)}

    assert report.announced([], asks("go-wide is awaited")) == asked
    assert report.announced(nobody, asks("go-wide is awaited")) == asked
    assert report.announced(asks("settle is awaited"), asks("go-wide is awaited")) == asked
    assert report.announced(asks("go-wide is awaited"), asks("go-wide is awaited")) == {}
    assert report.announced(asks("go-wide is awaited"), nobody) == {}
    # Stalled says that a migration is held, and Ready that a burn-in fails.
    assert report.announced(nobody, asks("nDCG@10 fell", Reason.HELD)) == {}


def test_a_migration_and_its_way_back_are_no_reason_to_worry_but_for_who_follows_an_alias(stage: Stage) -> None:
    told(stage, *stories.MIGRATED, stories.serve("v7"))

    warnings = [(reason, message) for _, is_warning, reason, message in stage.cluster.events if is_warning]
    assert [reason for reason, _ in warnings] == [Reason.ALIAS_MOVED] * 3
    assert warnings[-1][1].endswith("do not notice; let them read ConfigMap papers-serving instead")


def test_whoever_reads_the_log_alone_is_told_the_same(stage: Stage) -> None:
    here = told(stage, *stories.MIGRATED)
    stories.serve("v99")(stage)
    with structlog.testing.capture_logs() as lines:
        reconcile(Key(DEPLOYMENT, stories.NAMESPACE, "papers"), here, stage.now())

    _, is_warning, reason, message = stage.cluster.events[-1]
    assert is_warning and reason is Reason.VERSION_NOT_FOUND
    assert [line for line in lines if line["event"] == "condition_turned"] == [
        {
            "event": "condition_turned",
            "log_level": "warning",
            "resource": "IndexDeployment search/papers",
            "reason": reason,
            "message": message,
        }
    ]
