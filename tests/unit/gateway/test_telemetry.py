"""Counts that are exact, kept for as long as they are reported, and the same for Prometheus."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.unit.gateway import stage
from tests.unit.gateway.stage import entry, fill, space

from pointsman.gateway import days
from pointsman.gateway.telemetry import Ledger

SMALL, LARGE = space(64), space(128)
MINUTE = 28_000_000 * 60.0


class Clock:
    now = MINUTE

    def __call__(self) -> float:
        return self.now


def test_a_ledger_reports_what_it_counted_by_minute_index_and_side() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    ledger.answer("v7", 0.001, False, 0.5)
    ledger.answer("v7", 0.0001, True, None)
    ledger.fail("v7")
    ledger.answer("v8", 0.001, False, -1.0, is_shadow=True)

    found = ledger.report("")

    assert found["answered"] == {"v7": 2}
    assert found["totals"] == {"v7": {"queries": 3, "errors": 1, "empty": 1}}
    assert found["minutes"] == [
        {
            "at": "2023-03-28T10:40:00.000Z",
            "index": "v7",
            "shadow": False,
            "queries": 3,
            "errors": 1,
            "empty": 1,
            "latency": {"0": 1, "25": 1},
            "scores": {"192": 1},
        },
        {
            "at": "2023-03-28T10:40:00.000Z",
            "index": "v8",
            "shadow": True,
            "queries": 1,
            "errors": 0,
            "empty": 0,
            "latency": {"25": 1},
            "scores": {"0": 1},
        },
    ]
    assert (found["shadow"], found["mispaired"], found["sessions"]) == (None, 0, 0)


def test_ten_whole_minutes_and_the_current_one_are_kept_and_totals_for_ever() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    for number in range(20):
        clock.now = MINUTE + 60 * number
        ledger.answer("v7", 0.001, False, None)

    found = ledger.report("")

    assert len(found["minutes"]) == 11
    assert found["totals"]["v7"]["queries"] == 20
    clock.now += 3_600
    assert ledger.report("")["minutes"] == []


def test_a_session_counts_once_a_day_up_to_the_bound() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    for session in ("ana", "ben", "ana"):
        ledger.meet(days.asker(session))
    today = ledger.sessions
    clock.now += 86_400

    assert (today, ledger.sessions) == (2, 0)


def test_counts_are_exact_however_many_ask_at_once() -> None:
    async def story() -> None:
        async with stage.running(at_once=1_000) as found:
            fill(found.database, "v7", SMALL)
            fill(found.database, "v8", LARGE)
            found.route(entry("v8", 40, LARGE), entry("v7", 60, SMALL))
            await found.served()

            answers = await asyncio.gather(
                *(found.search(query=f"steam {number}", session=str(number % 97)) for number in range(400))
            )

            chosen = Counter(answer["index"] for answer in answers)
            report = await found.report()
            assert report["answered"] == dict(chosen)
            assert {index: each["queries"] for index, each in report["totals"].items()} == dict(chosen)
            by_minute: Counter[str] = Counter()
            for minute in report["minutes"]:
                by_minute[minute["index"]] += minute["queries"]
                assert sum(minute["latency"].values()) == sum(minute["scores"].values()) == minute["queries"]
            assert by_minute == chosen
            assert report["sessions"] == 97

            text = (await found.admin.get("/metrics")).text
            for index, count in chosen.items():
                place = f'{{deployment="papers",index="{index}",namespace="search"}}'
                assert f"pointsman_gateway_queries_total{place} {float(count)}" in text
                bucket = f'{{deployment="papers",index="{index}",le="+Inf",namespace="search"}}'
                assert f"pointsman_gateway_query_duration_seconds_bucket{bucket} {float(count)}" in text
            assert 'pointsman_gateway_mispaired_queries_total{deployment="papers",namespace="search"} 0.0' in text
            assert "pointsman_gateway_ready 1.0" in text

    asyncio.run(story())
