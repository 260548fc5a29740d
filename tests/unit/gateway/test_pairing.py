"""Embedded by one model, searched in another's index: never answered, always counted. And the check can fail."""

from __future__ import annotations

import asyncio

from tests.unit.gateway import stage
from tests.unit.gateway.stage import entry, fill, space

from pointsman import ports
from pointsman.backends.memory import Memory

SMALL, LARGE = space(64), space(128)


class Swapped(Memory):
    """A database in which somebody puts an index of another space in the place of ours while it is open."""

    space = ""

    def find(self, name: str) -> ports.Marker | None:
        found = super().find(name)
        if found is None or not self.space:
            return found
        return ports.Marker(found.owner, found.uid, found.version, found.recipe, self.space, found.model)


def test_an_index_that_was_swapped_under_an_open_gateway_answers_nothing_and_each_query_is_counted() -> None:
    async def story() -> None:
        database = Swapped()
        async with stage.running(database) as found:
            fill(database, "v7", SMALL)
            found.route(entry("v7", 100, SMALL))
            await found.served()
            assert (await found.search(query="steam"))["version"] == "v7"

            database.space = LARGE.key
            adopted = found.deployment.adopted
            assert adopted is not None
            held = await adopted.hold("v7")
            await held.serving.look()
            held.close()
            answers = [await found.post(stage.SEARCH, {"query": each}) for each in ("steam", "points")]

            assert {answer.status_code for answer in answers} == {502}
            assert {answer.json()["error"]["code"] for answer in answers} == {"mispaired"}
            report = await found.report()
            assert (report["mispaired"], report["answered"]) == (2, {"v7": 1})
            assert report["problem"] == (f"v7 holds vectors of space {LARGE.key}, its model makes those of {SMALL.key}")

    asyncio.run(story())


def test_a_pair_that_was_put_together_wrongly_answers_nothing() -> None:
    async def story() -> None:
        async with stage.running() as found:
            fill(found.database, "v7", SMALL)
            fill(found.database, "v8", SMALL)
            prefixed = space(64, query_prefix="query: ")
            fill(found.database, "v9", prefixed)
            found.route(entry("v8", 0, SMALL), entry("v9", 0, prefixed), entry("v7", 100, SMALL))
            await found.served()
            adopted = found.deployment.adopted
            assert adopted is not None

            # The bug that all of this is about: the old index asked with the new model's vector.
            wrong, right = await adopted.hold("v9"), await adopted.hold("v7")
            right.serving.model = wrong.serving.model
            answer = await found.post(stage.SEARCH, {"query": "steam"})

            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "mispaired")
            assert (await found.report())["mispaired"] == 1

    asyncio.run(story())
