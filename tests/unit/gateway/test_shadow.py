"""Queries that also go to the candidate: off the request's path, with its own model, counted, compared, or dropped."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from tests.unit.gateway import stage
from tests.unit.gateway.stage import Stage, entry, fill, space
from tests.unit.gateway.test_directory import Slow

from pointsman import ports
from pointsman.backends.memory import Memory
from pointsman.cluster.resources import DEPLOYMENT

SMALL, LARGE = space(64), space(128)
SHADOW = {"index": "v8", "percent": 100}


async def serve(found: Stage, percent: int = 100, texts: dict[str, str] | None = None) -> None:
    fill(found.database, "v7", SMALL)
    fill(found.database, "v8", LARGE, stage.TEXTS if texts is None else texts)
    shadow = {"index": "v8", "percent": percent}
    found.route(entry("v8", 0, LARGE), entry("v7", 100, SMALL), shadow=shadow)
    await found.served()


def test_a_sampled_query_is_asked_of_the_shadow_with_its_own_model_and_compared_by_documents() -> None:
    async def story() -> None:
        async with stage.running() as found:
            await serve(found)

            answer = await found.search(query="steam engines", topK=3)
            await found.shadow.idle()

            report = await found.report()
            assert answer["version"] == "v7"
            assert report["shadow"] == {
                "index": "v8",
                "sent": 1,
                "dropped": 0,
                "compared": 1,
                "overlap": 1.0,
                "correlation": report["shadow"]["correlation"],
            }
            assert 0 < report["shadow"]["correlation"] <= 1
            (shadowed,) = [minute for minute in report["minutes"] if minute["shadow"]]
            assert (shadowed["index"], shadowed["queries"], shadowed["errors"]) == ("v8", 1, 0)
            assert sum(shadowed["latency"].values()) == sum(shadowed["scores"].values()) == 1
            # What the shadow does is nobody's answer.
            assert report["answered"] == {"v7": 1}
            assert set(report["totals"]) == {"v7"}

    asyncio.run(story())


def test_an_answer_with_other_documents_overlaps_by_what_both_have() -> None:
    async def story() -> None:
        async with stage.running() as found:
            await serve(found, texts={"engines": stage.TEXTS["engines"], "gauges": "Narrow gauge lines"})

            await found.search(query="steam engines", topK=2)
            await found.shadow.idle()

            assert (await found.report())["shadow"]["overlap"] == 0.5
            text = (await found.admin.get("/metrics")).text
            place = '{deployment="papers",index="v8",namespace="search"}'
            assert f"pointsman_gateway_shadow_overlap_sum{place} 0.5" in text
            assert f"pointsman_gateway_shadow_overlap_count{place} 1.0" in text
            assert f"pointsman_gateway_shadow_correlation_count{place} 1.0" in text

    asyncio.run(story())


def test_a_shadow_that_fails_hurts_nobody_and_is_counted() -> None:
    async def story() -> None:
        database = Slow()
        async with stage.running(database) as found:
            await serve(found)
            await found.search(vector=[1.0] * 128, space=LARGE.key)
            fill_missing = found.database
            fill_missing.drop("v8")

            answer = await found.search(query="steam engines")
            await found.shadow.idle()

            report = await found.report()
            assert answer["version"] == "v7"
            assert (report["shadow"]["sent"], report["shadow"]["compared"]) == (1, 0)
            assert [minute["errors"] for minute in report["minutes"] if minute["shadow"]] == [1]

    asyncio.run(story())


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted() -> None:
    async def story() -> None:
        async with stage.running(waiting=2) as found:
            await serve(found)
            found.shadow.close()
            await asyncio.sleep(0)

            for number in range(5):
                await found.search(query=f"steam engine {number}")

            shadow = (await found.report())["shadow"]
            assert (shadow["sent"], shadow["dropped"]) == (2, 3)

    asyncio.run(story())


def test_only_the_sample_is_asked_beside_and_only_texts_are() -> None:
    async def story() -> None:
        async with stage.running() as found:
            await serve(found, percent=0)
            await found.search(query="steam")
            await serve_all(found)
            await found.search(like="engines")
            await found.search(vector=[1.0] * 64, space=SMALL.key)
            await found.shadow.idle()

            assert (await found.report())["shadow"]["sent"] == 0

    async def serve_all(found: Stage) -> None:
        found.route(entry("v8", 0, LARGE), entry("v7", 100, SMALL), shadow=SHADOW, revision=2)
        await found.served(2)

    asyncio.run(story())


def test_what_waited_while_the_shadow_ended_is_not_asked_any_more() -> None:
    async def story() -> None:
        database = Slow()
        async with stage.running(database) as found:
            await serve(found)
            found.shadow.close()
            await found.search(query="steam engines")
            found.route(entry("v8", 0, LARGE), entry("v7", 100, SMALL), revision=2)
            await found.served(2)

            found.shadow.start()
            await found.shadow.idle()

            assert [minute for minute in (await found.report())["minutes"] if minute["shadow"]] == []

    asyncio.run(story())


class Stuck(Memory):
    """A database that answers searches of some indexes when it is told to."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self._names = names
        self.may_answer = threading.Event()
        self._counting = threading.Lock()
        self.stuck = 0
        """Searches that have come to wait."""

    def search(self, name: str, *more: Any) -> list[ports.Hit]:
        if name in self._names and not self.may_answer.is_set():
            with self._counting:
                self.stuck += 1
            self.may_answer.wait(20)
        return super().search(name, *more)


async def serve_two(found: Stage) -> None:
    """Serve a second deployment, `notes`, beside the one of all tests."""
    await serve(found)
    for index, where in (("n7", SMALL), ("n8", LARGE)):
        fill(found.database, index, where, owner="search/notes")
    shadow = {"index": "n8", "percent": 100}
    resource = stage.deployment([entry("n8", 0, LARGE), entry("n7", 100, SMALL)], shadow=shadow)
    resource["metadata"]["name"] = "notes"
    found.cluster.apply(resource)
    found.look(DEPLOYMENT)
    notes = found.directory.find("search", "notes")
    assert notes is not None
    await stage.until(lambda: notes.adopted is not None)


async def ask_notes(found: Stage) -> None:
    answer = await found.post("/v1/namespaces/search/indexes/notes/search", {"query": "steam engines"})
    assert answer.status_code == 200


async def shadow_of_notes(found: Stage) -> tuple[int, int, int]:
    shadow = (await found.admin.get("/report")).json()["deployments"]["search/notes"]["shadow"]
    return shadow["sent"], shadow["dropped"], shadow["compared"]


def test_a_deployment_that_has_taken_all_places_leaves_another_its_share() -> None:
    async def story() -> None:
        async with stage.running(waiting=4) as found:
            await serve_two(found)
            found.shadow.close()
            for number in range(6):
                await found.search(query=f"steam engine {number}")

            for _ in range(3):
                await ask_notes(found)

            busy = (await found.report())["shadow"]
            assert (busy["sent"], busy["dropped"]) == (4, 2)
            assert await shadow_of_notes(found) == (2, 1, 0)

    asyncio.run(story())


def test_a_shadow_that_hangs_keeps_no_other_deployment_waiting() -> None:
    async def story() -> None:
        database = Stuck("v8")
        async with stage.running(database) as found:
            await serve_two(found)
            for number in range(3):
                await found.search(query=f"steam engine {number}")

            for _ in range(5):
                await ask_notes(found)
            notes = found.directory.find("search", "notes")
            assert notes is not None
            await stage.until(lambda: notes.ledger.shadow("n8").compared == 5)

            assert (await found.report())["shadow"]["compared"] == 0
            database.may_answer.set()
            await found.shadow.idle()
            assert (await found.report())["shadow"]["compared"] == 3

    asyncio.run(story())


def test_shadows_that_hang_leave_people_half_of_what_a_database_may_be_asked() -> None:
    async def story() -> None:
        database = Stuck("v8", "n8")
        async with stage.running(database) as found:
            await serve_two(found)
            for number in range(6):
                await found.search(query=f"steam engine {number}")
                await ask_notes(found)
            await stage.until(lambda: database.stuck == 4)

            # Eight calls may be made at once; all that people send finds one of the other four.
            for number in range(6):
                await found.search(query=f"gauge {number}")
                await ask_notes(found)

            assert database.stuck == 4
            database.may_answer.set()
            await found.shadow.idle()
            assert (await found.report())["shadow"]["compared"] == 12

    asyncio.run(story())


def test_a_shadow_that_others_keep_waiting_has_not_failed_and_has_its_whole_time_once_it_is_its_turn() -> None:
    async def story() -> None:
        async with stage.running(seconds=1.0) as found:
            await serve_two(found)
            notes = found.directory.find("search", "notes")
            assert notes is not None and notes.adopted is not None
            held = await notes.adopted.hold("n8")
            aside = held.serving.database.aside
            for _ in range(4):
                await aside.acquire()
            await ask_notes(found)

            # Longer than a search may take.
            await asyncio.sleep(1.1)
            for _ in range(4):
                aside.release()
            await found.shadow.idle()
            held.close()

            report = (await found.admin.get("/report")).json()["deployments"]["search/notes"]
            assert [minute["errors"] for minute in report["minutes"] if minute["shadow"]] == [0]
            assert await shadow_of_notes(found) == (1, 0, 1)

    asyncio.run(story())


def test_a_shadow_whose_rollout_ended_while_it_waited_is_not_asked() -> None:
    async def story() -> None:
        async with stage.running() as found:
            await serve(found)
            assert found.deployment.adopted is not None
            held = await found.deployment.adopted.hold("v8")
            aside = held.serving.database.aside
            for _ in range(4):
                await aside.acquire()
            await found.search(query="steam engines")
            found.route(entry("v8", 0, LARGE), entry("v7", 100, SMALL), revision=2)
            await found.served(2)

            for _ in range(4):
                aside.release()
            await found.shadow.idle()
            held.close()

            assert [minute for minute in (await found.report())["minutes"] if minute["shadow"]] == []

    asyncio.run(story())
