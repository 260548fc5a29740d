"""Scores by day: whole ones and the one under way, through midnight and a restart, bounded."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.gateway import stage
from tests.unit.gateway.stage import entry, fill, space

from pointsman.gateway import days
from pointsman.gateway.days import Days
from pointsman.gateway.telemetry import Ledger

SMALL = space(64)
NOON = 19_417 * 86_400.0 + 43_200
"""2023-03-01T12:00:00Z."""


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


def told(found: Days) -> dict[tuple[str, str], tuple[int, dict[str, int]]]:
    return {(day["date"], day["index"]): (day["sessions"], day["scores"]) for day in found.report()}


def test_the_day_under_way_is_told_of_as_far_as_it_has_come() -> None:
    found = Days(Clock())
    for asker, score in (("ana", 200), ("ana", 200), ("ben", 90)):
        found.count("v7", days.asker(asker), score)
    found.count("v8", days.asker("ana"), 255)

    assert told(found) == {
        ("2023-03-01", "v7"): (2, {"90": 1, "200": 2}),
        ("2023-03-01", "v8"): (1, {"255": 1}),
    }


def test_at_midnight_a_day_stays_as_it_is_and_another_begins() -> None:
    clock = Clock()
    found = Days(clock)
    found.count("v7", days.asker("ana"), 200)
    clock.now += 43_199.9
    found.count("v7", days.asker("ben"), 201)
    clock.now += 0.1
    found.count("v7", days.asker("ana"), 202)

    assert told(found) == {
        ("2023-03-01", "v7"): (2, {"200": 1, "201": 1}),
        ("2023-03-02", "v7"): (1, {"202": 1}),
    }


def test_two_whole_days_are_kept_beside_the_one_under_way() -> None:
    clock = Clock()
    found = Days(clock)
    for _ in range(5):
        found.count("v7", days.asker("ana"), 200)
        clock.now += 86_400

    assert sorted(date for date, _ in told(found)) == ["2023-03-04", "2023-03-05"]
    clock.now += 86_400
    assert sorted(date for date, _ in told(found)) == ["2023-03-05"]


def test_no_more_sessions_are_told_apart_than_there_is_room_for() -> None:
    found = Days(Clock())
    for number in range(days.MOST_ASKERS + 5):
        found.count("v7", days.asker(str(number)), 200)

    assert told(found) == {("2023-03-01", "v7"): (10_000, {"200": 10_005})}


def test_only_what_says_something_of_queries_is_of_a_day() -> None:
    ledger = Ledger(Clock())
    ledger.answer("v7", 0.001, False, 0.5, asker=days.asker("ana"))
    ledger.answer("v7", 0.001, True, None, asker=days.asker("ana"))
    ledger.answer("v8", 0.001, False, 0.5, is_shadow=True, asker=days.asker("ana"))
    ledger.answer("v7", 0.001, False, 0.5)
    ledger.fail("v7")

    (day,) = ledger.report("")["days"]

    wanted: dict[str, Any] = {"date": "2023-03-01", "index": "v7", "sessions": 1, "scores": {"192": 1}}
    assert day == wanted


def test_a_session_is_one_and_the_same_for_the_count_of_today_and_of_each_index() -> None:
    ana, ben = days.asker("ana"), days.asker("ben")
    ledger = Ledger(Clock())
    for each in (ana, ben, ana):
        ledger.meet(each)
        ledger.answer("v7", 0.001, False, 0.5, asker=each)

    (day,) = ledger.report("")["days"]

    assert (ana == days.asker("ana"), len(ana), days.asker("")) == (True, 8, b"")
    assert (ledger.sessions, day["sessions"]) == (2, 2)


def test_a_gateway_counts_the_sessions_that_each_index_answered_by_texts() -> None:
    async def story() -> None:
        async with stage.running() as found:
            fill(found.database, "v7", SMALL)
            found.route(entry("v7", 100, SMALL))
            await found.served()
            for number in range(6):
                await found.search(query=f"steam {number}", session=str(number % 2))
            # Without a session the same text is the same asker; what is like a document says nothing of queries.
            await found.search(query="points")
            await found.search(query="points")
            await found.search(like="signals")

            (day,) = (await found.report())["days"]

            assert (day["index"], day["sessions"], sum(day["scores"].values())) == ("v7", 3, 8)

    asyncio.run(story())


def test_a_report_says_nothing_of_who_asked() -> None:
    ledger = Ledger(Clock())
    ledger.answer("v7", 0.001, False, 0.5, asker=days.asker("xylophone"))

    assert "xylophone" not in str(ledger.report(""))
