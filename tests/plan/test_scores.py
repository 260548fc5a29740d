"""Scores of the best answers, by day: how they are added up, what they are compared with, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plan import builders as b
from tests.plan import fleet

from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import DeploymentStatus
from pointsman.core.shifts import Share
from pointsman.plan import actions, deployment, scores, tallies
from pointsman.plan.facts import Facts, Rollout
from pointsman.plan.observed import Deployment
from pointsman.plan.reported import Day, Gateway
from pointsman.plan.tallies import Scores, Tally, Watched

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
USUAL, LOWER = dict.fromkeys(range(150, 250), 6), dict.fromkeys(range(125, 225), 6)
"""Scores of a day of 600 queries: as ever, and all of them lower by a quarter of their range."""


def day(at: datetime, found: Mapping[int, int] = USUAL, sessions: int = 600, index: str = "v7") -> Day:
    return Day(at.date().isoformat(), index, sessions, dict(found))


def seen(*, days: Mapping[str, tuple[Day, ...]], known: Scores | None = None, **more: Any) -> Deployment:
    """v7 serves alone at a gateway that has taken that on."""
    values: dict[str, Any] = {"gateways": (fleet.gateway(),), "scores": Scores() if known is None else known}
    return b.deployment(**{**values, "days": days, **more})


def follow(known: Scores, now: datetime, days: Mapping[str, tuple[Day, ...]], **more: Any) -> Scores:
    here = seen(days=days, known=known, **more)
    return scores.followed(here, here.facts, now)


def begun(now: datetime = b.NOW) -> Scores:
    return follow(Scores(), now, {"g1/1": (day(now),)})


def lived(known: Scores, days: int, found: Mapping[int, int] = USUAL, sessions: int = 600) -> tuple[Scores, datetime]:
    """Let so many days begin and end after the last that is closed, and return when."""
    at = datetime.combine(date.fromisoformat(known.closed), datetime.min.time(), UTC)
    for _ in range(days):
        at += DAY
        known = follow(known, at + DAY + 2 * HOUR, {"g1/1": (day(at, found, sessions),)})
    return known, at + DAY + 2 * HOUR


def said(known: Scores, **more: Any) -> tuple[str, Reason, str]:
    here = seen(days={}, known=known, **more)
    found = scores.condition(here, here.facts, b.NOW)
    return str(found.status), found.reason, found.message


# Who is followed, and from when.


def test_what_serves_is_followed_once_every_gateway_serves_it_and_one_tells_of_scores() -> None:
    now = b.NOW
    assert follow(Scores(), now, {}) == Scores()

    found = follow(Scores(), now, {"g1/1": (day(now),)})

    # Of the day on which that was seen, some queries may have gone elsewhere.
    assert (found.recipe, found.since, found.closed, found.open) == (b.V7.key, now, "2026-03-01", {})


def test_nothing_is_followed_from_a_route_that_a_gateway_does_not_serve() -> None:
    late = fleet.gateway(revision=0)
    here = seen(gateways=(late,), days={"g1/1": (day(b.NOW),)})

    assert scores.followed(here, here.facts, b.NOW) == Scores()


def test_what_serves_is_followed_on_while_a_candidate_gets_a_part() -> None:
    known = begun()
    road = Rollout("v8", "plan", begun_at=b.NOW, since=b.NOW, step=1, weight=10)
    facts = Facts((b.serving(), b.candidate()), made=2, route=1, rollout=road)
    told = {"g1/1": (day(b.NOW + DAY), day(b.NOW + DAY, index="v8"))}

    found = follow(known, b.NOW + DAY, told, facts=facts)

    assert found.recipe == b.V7.key
    assert found.open == {"2026-03-02": {"g1/1": Tally(600, USUAL)}}


def test_a_new_version_begins_anew_and_the_old_one_goes_on_where_it_stood_when_it_serves_again() -> None:
    known, at = lived(begun(), 5)
    promoted = Facts((b.retained(), b.serving("v8", b.V8)), made=2, route=1)

    later = follow(known, at, {"g1/1": (day(at, index="v8"),)}, facts=promoted)
    back = follow(later, at + DAY, {"g1/1": (day(at + DAY),)})

    assert later.recipe == b.V8.key
    assert {recipe: len(found.days) for recipe, found in later.watched.items()} == {b.V7.key: 5, b.V8.key: 0}
    assert (back.recipe, back.closed, len(back.watched[b.V7.key].days)) == (b.V7.key, "2026-03-08", 5)


def test_what_left_the_books_is_forgotten() -> None:
    known, at = lived(begun(), 5)

    found = follow(known, at, {"g1/1": (day(at, index="v8"),)}, facts=Facts((b.serving("v8", b.V8),), made=2, route=1))

    assert list(found.watched) == [b.V8.key]


def test_two_indexes_of_one_recipe_are_one() -> None:
    known = begun()
    facts = Facts((b.serving(), b.candidate("v7_2", b.V7)), made=2, route=1)
    told = {"g1/1": (day(b.NOW + DAY), day(b.NOW + DAY, index="v7_2"), day(b.NOW + DAY, index="v6"))}

    found = follow(known, b.NOW + DAY, told, facts=facts)

    assert found.open["2026-03-02"]["g1/1"] == Tally(1200, {score: 2 * count for score, count in USUAL.items()})


# What is counted, and how often.


def test_the_same_report_twice_changes_nothing() -> None:
    at = b.NOW + DAY
    once = follow(begun(), at, {"g1/1": (day(at),)})

    assert follow(once, at, {"g1/1": (day(at),)}) == once


def test_a_process_that_was_started_anew_adds_to_what_its_ancestor_told() -> None:
    at = b.NOW + DAY
    known = follow(begun(), at, {"g1/1": (day(at, {200: 400}, 300),)})

    found = follow(known, at + HOUR, {"g1/2": (day(at, {200: 100}, 250),)})
    closed = follow(found, at + DAY, {"g1/2": (day(at, {200: 150}, 300),)})

    assert found.open["2026-03-02"] == {"g1/1": Tally(300, {200: 400}), "g1/2": Tally(250, {200: 100})}
    (whole,) = closed.watched[b.V7.key].days
    assert (whole.sessions, dict(whole.scores)) == (600, {200: 550})


def test_gateways_are_added_up_and_one_that_is_gone_takes_nothing_away() -> None:
    at = b.NOW + DAY
    known = follow(begun(), at, {"g1/1": (day(at),), "g2/1": (day(at),)})

    closed = follow(known, at + DAY, {"g1/1": (day(at),)})

    (whole,) = closed.watched[b.V7.key].days
    assert (whole.sessions, sum(whole.scores.values())) == (1200, 1200)


def test_an_older_report_takes_nothing_away() -> None:
    at = b.NOW + DAY
    known = follow(begun(), at, {"g1/1": (day(at, {200: 9}, 9),)})

    assert follow(known, at, {"g1/1": (day(at, {200: 8}, 8),)}) == known


@pytest.mark.parametrize(
    ("hours", "is_closed"),
    [(0.0, False), (0.99, False), (1.01, True), (11.0, True)],
    ids=["at midnight", "within the hour", "after it", "much later"],
)
def test_a_day_is_left_open_for_an_hour_after_its_end(hours: float, is_closed: bool) -> None:
    midnight = datetime(2026, 3, 3, tzinfo=UTC)

    found = follow(begun(), midnight + hours * HOUR, {"g1/1": (day(b.NOW + DAY),)})

    assert (found.closed == "2026-03-02") is is_closed
    assert bool(found.open) is not is_closed


def test_a_silent_gateway_is_waited_for_through_half_a_day() -> None:
    midnight, silent = datetime(2026, 3, 3, tzinfo=UTC), Gateway("g2", is_ready=False, problem="does not answer")
    both, told = (fleet.gateway(), silent), {"g1/1": (day(b.NOW + DAY),)}

    assert follow(begun(), midnight + 11 * HOUR, told, gateways=both).closed == "2026-03-01"
    assert follow(begun(), midnight + 13 * HOUR, told, gateways=both).closed == "2026-03-02"


def test_what_is_told_of_a_day_that_is_over_for_good_counts_no_more() -> None:
    known, at = lived(begun(), 1)

    assert follow(known, at, {"g3/1": (day(b.NOW + DAY),), "g4/1": (day(b.NOW),)}) == known


def test_a_clock_that_goes_ahead_is_believed_by_a_day_and_no_more() -> None:
    now = b.NOW + DAY

    found = follow(begun(), now, {"g1/1": (day(now + DAY), day(now + 2 * DAY), day(now + 400 * DAY))})

    assert list(found.open) == ["2026-03-03"]


def test_days_on_which_no_operator_looked_are_taken_in_one_after_the_other() -> None:
    first, second = b.NOW + DAY, b.NOW + 2 * DAY

    found = follow(begun(), b.NOW + 3 * DAY, {"g1/1": (day(first), day(second, sessions=700))})

    assert found.closed == "2026-03-03"
    assert [each.sessions for each in found.watched[b.V7.key].days] == [600, 700]


def test_a_day_has_room_for_so_many_processes_and_counts_no_one_twice() -> None:
    at = b.NOW + DAY
    crowd = {f"g{number}/1": (day(at, {200: 1}, 1),) for number in range(scores.MOST_PROCESSES + 9)}

    found = follow(begun(), at, crowd)

    assert len(found.open["2026-03-02"]) == 256
    assert follow(found, at, crowd) == found


@given(st.data())
def test_however_reports_come_every_answer_is_counted_once(data: st.DataObject) -> None:
    """Processes tell of a growing day, in any order, some restart; what was not written down is told again."""
    at, known = b.NOW + DAY, begun()
    totals = data.draw(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 50), min_size=1))
    told: dict[str, int] = {}
    for name in data.draw(st.lists(st.sampled_from(sorted(totals)), max_size=20)):
        told[name] = data.draw(st.integers(told.get(name, 0), totals[name]))
        after = follow(known, at, {p: (day(at, {200: n}, n),) for p, n in told.items() if n})
        # An operator may end before it has written anything down.
        known = after if data.draw(st.booleans()) else known

    closed = follow(known, at + DAY, {p: (day(at, {200: n}, n),) for p, n in totals.items()})

    days = scores._sum(closed.open.get("2026-03-02", {}).values())
    assert days.answers == 0
    again = follow(begun(), at, {p: (day(at, {200: n}, n),) for p, n in totals.items()})
    assert scores._sum(again.open["2026-03-02"].values()) == Tally(sum(totals.values()), {200: sum(totals.values())})
    assert closed.watched == follow(again, at + DAY, {}).watched


# What is written, and when.


def test_counts_are_written_once_an_hour_and_what_turns_at_once() -> None:
    at = b.NOW + DAY
    known = dataclasses.replace(begun(), written_at=at)
    counted = follow(known, at, {"g1/1": (day(at),)})

    assert scores.is_worth_writing(Scores(), known, b.NOW)
    assert not scores.is_worth_writing(known, counted, at + timedelta(minutes=59))
    assert scores.is_worth_writing(known, counted, at + HOUR)
    assert not scores.is_worth_writing(known, known, at + DAY)
    closed = follow(known, at + DAY, {"g1/1": (day(at),)})
    assert scores.is_worth_writing(dataclasses.replace(known, written_at=at + DAY), closed, at + DAY)


def test_a_plan_writes_after_the_revision_that_it_began_from_and_then_rests() -> None:
    here = seen(days={"g1/1": (day(b.NOW),)}, scores_revision=4)
    (written,) = [a for a in deployment.plan(here, b.NOW).actions if isinstance(a, actions.RecordScores)]

    there = dataclasses.replace(here, scores=written.scores, scores_revision=5)
    again = deployment.plan(there, b.NOW + timedelta(minutes=1))

    assert (written.after, written.scores.written_at) == (4, b.NOW)
    assert not any(isinstance(action, actions.RecordScores) for action in again.actions)


def test_where_nobody_asks_one_quiet_day_is_written_and_no_other() -> None:
    known, at = lived(begun(), 1, sessions=3)

    assert follow(known, at + 5 * DAY, {}) == known
    assert said(known)[1] is Reason.TOO_FEW_SESSIONS


def test_what_is_known_is_kept_as_json() -> None:
    for known in (begun(), lived(begun(), 3)[0], lived(begun(), 14)[0], shifted()):
        known = follow(known, b.NOW + DAY, {"g1/1": (day(b.NOW + DAY),)})

        assert tallies.from_json(json.loads(json.dumps(tallies.to_json(known)))) == known


# What is said.


def shifted() -> Scores:
    known, _ = lived(begun(), 16)
    return lived(known, 3, LOWER)[0]


SAID: dict[str, tuple[Scores, dict[str, Any], str, Reason, str]] = {
    "nothing serves": (Scores(), {"fresh": True}, "Unknown", Reason.NOTHING_SERVES, "no index serves yet"),
    "no gateway is known": (
        Scores(),
        {"gateways": ()},
        "Unknown",
        Reason.NO_GATEWAY,
        "no gateway is known to the operator, and nobody else counts scores",
    ),
    "nobody has asked": (
        Scores(),
        {},
        "Unknown",
        Reason.LEARNING_SCORES,
        "the baseline of v7 begins once every gateway serves it alone and it is asked by texts",
    ),
    "the first day": (
        begun(),
        {},
        "Unknown",
        Reason.LEARNING_SCORES,
        "v7 is compared from 2026-03-17 on at the earliest: its baseline takes 14 whole days of 500 sessions or more",
    ),
    "a quiet day in the baseline": (
        lived(lived(begun(), 3)[0], 1, sessions=499)[0],
        {},
        "Unknown",
        Reason.TOO_FEW_SESSIONS,
        "the last day of v7 had fewer than 500 sessions and does not count; its baseline has 3 of 14 days",
    ),
    "the baseline is whole": (
        lived(begun(), 14)[0],
        {},
        "Unknown",
        Reason.LEARNING_SCORES,
        "v7 is compared from 2026-03-17 on at the earliest: its baseline takes 14 whole days of 500 sessions or more",
    ),
    "as ever": (
        lived(begun(), 16)[0],
        {},
        "True",
        Reason.SCORES_AS_USUAL,
        "the best answers of v7 score as in its baseline",
    ),
    "a quiet day": (
        lived(lived(begun(), 16)[0], 1, sessions=3)[0],
        {},
        "Unknown",
        Reason.TOO_FEW_SESSIONS,
        "the last day of v7 had fewer than 500 sessions, which says nothing",
    ),
    "shifted": (
        shifted(),
        {},
        "False",
        Reason.SCORES_SHIFTED,
        "the best answers of v7 score otherwise than in its baseline since 2026-03-18: below q05 from 5% to 12%, below "
        "q50 from 50% to 59%; see whether queries or documents have changed, and evaluate v7",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_of_scores(name: str) -> None:
    known, more, status, reason, message = SAID[name]

    assert said(known, **more) == (status, reason, message)


def test_what_is_said_stays_the_same_from_day_to_day_until_it_turns() -> None:
    known, sentences = begun(), []
    for found in [USUAL] * 30 + [LOWER] * 20 + [USUAL] * 40:
        known, _ = lived(known, 1, found)
        sentences.append(said(known))

    turns = [sentence for before, sentence in zip([None, *sentences], sentences, strict=False) if sentence != before]
    assert [reason for _, reason, _ in turns][:2] == [Reason.LEARNING_SCORES, Reason.SCORES_AS_USUAL]
    assert turns[-1][1] is Reason.SCORES_AS_USUAL
    # Once more when another share has followed the first.
    assert 4 <= len(turns) <= 8
    assert {message.split("since ")[1][:10] for _, reason, message in turns if reason is Reason.SCORES_SHIFTED} == {
        "2026-04-01"
    }


def test_a_shift_is_still_the_same_one_after_a_quiet_day() -> None:
    known = shifted()
    quiet, _ = lived(known, 1, sessions=3)
    again, _ = lived(quiet, 1, LOWER)

    before, after = known.watched[b.V7.key].shift, again.watched[b.V7.key].shift
    assert before is not None and after is not None
    assert (said(quiet)[0], after.since) == ("Unknown", before.since)


def test_a_shift_acts_on_nothing() -> None:
    here = seen(days={}, known=shifted())
    steady = seen(days={}, known=lived(begun(), 16)[0])

    plan, other = (deployment.plan(each, b.NOW) for each in (here, steady))

    assert b.said(plan.status, ConditionType.SCORES_STEADY)[0] == "False"
    assert (plan.actions, plan.status.route, b.goal(plan.status)) == (
        other.actions,
        other.status.route,
        b.goal(other.status),
    )


def test_the_watch_is_of_what_serves() -> None:
    here = seen(days={}, known=lived(begun(), 14)[0])

    found = scores.watch(here, here.facts)

    assert found is not None and set(found.shares) == set(Share)
    assert scores.watch(here, Facts()) is None
    assert DeploymentStatus().conditions == [] and Watched().watch is None
