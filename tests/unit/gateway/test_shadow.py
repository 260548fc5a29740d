"""Queries that also go to the candidate: off the request's path, with its own model, counted, compared, or dropped."""

from __future__ import annotations

import asyncio

from tests.unit.gateway import stage
from tests.unit.gateway.stage import Stage, entry, fill, space
from tests.unit.gateway.test_directory import Slow

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
