"""What goes wrong with one index, text or Secret is in nobody else's way, and least of all in that of a way back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from tests.unit.gateway import stage
from tests.unit.gateway.stage import Stage, entry, fill, space, until, version

from pointsman import ports
from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api.conditions import Reason
from pointsman.backends.memory import Memory
from pointsman.core.recipes import Space
from pointsman.embedders import wordllama
from pointsman.errors import Retryable, Terminal, TextsRefused
from pointsman.ports import Finished, Identity, Vectors, nobody

SMALL = space(64)
REMOTE = Space("openai", "m", "", 64)
OLD = entry("v7", 100, SMALL)


class Model:
    """A model behind an endpoint that can be told to wait, to fail and to refuse."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.asked = threading.Event()
        self.error: Exception | None = None

    def identity(self) -> Identity:
        return Identity("m", "", 64)

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        self.asked.set()
        self.go.wait(20)
        if self.error is not None:
            raise self.error
        if "refused" in texts:
            raise TextsRefused([list(texts).index("refused")], "HTTP 400")
        return np.eye(1, 64, dtype=np.float32).repeat(len(texts), axis=0)

    def close(self) -> None:
        pass


class Guarded(Memory):
    """A database that may refuse credentials; it counts how often an index was looked for."""

    is_refusing = False
    found = 0

    def find(self, name: str) -> ports.Marker | None:
        self.found += 1
        return super().find(name)

    def search(self, *arguments: Any) -> list[ports.Hit]:
        if self.is_refusing:
            self.is_refusing = False
            raise Terminal(Reason.BACKEND_UNAUTHORIZED, "db:5432 refuses the credentials")
        return super().search(*arguments)


def remote(name: str) -> dict[str, Any]:
    """A version of a model behind the endpoint `main`."""
    model = {"openai": {"endpoint": "main", "model": "m", "dimensions": 64}}
    return {"name": name, "model": model, "text": {"template": "{text}", "metadataFields": ["year"]}}


def endpoint(url: str) -> list[dict[str, Any]]:
    return [{"name": "main", "baseURL": url}]


Story = Callable[[Stage, Guarded, Model], Awaitable[None]]


def play(story: Story) -> None:
    """Play a story on a gateway that serves v7 of the embedded model, with v8 of the remote one declared."""

    async def whole() -> None:
        database, model = Guarded(), Model()

        def opened(
            where: Space,
            reached: dataset_api.Endpoint | None,
            key: str | None,
            allowed: Access,
            chosen: dataset_api.ModelChoice,
        ) -> ports.Embedder:
            if reached is None:
                return wordllama.Wordllama(where.dimensions)
            if "broken" in reached.base_url:
                raise Terminal(Reason.ENDPOINT_NOT_ALLOWED, "the host is not among the allowed hosts")
            return model

        async with stage.running(database, embedder=opened) as found:
            fill(database, "v7", SMALL)
            fill(database, "v8", REMOTE)
            found.declare(version("v7", 64), remote("v8"), endpoints=endpoint("http://model/v1"))
            found.route(OLD)
            await found.served()
            await story(found, database, model)

    asyncio.run(whole())


def canary(weight: int) -> list[dict[str, Any]]:
    return [entry("v8", weight, REMOTE), entry("v7", 100 - weight, SMALL)]


def test_a_way_back_by_a_revert_that_takes_the_new_version_out_of_the_dataset_too_is_adopted_at_once() -> None:
    async def story(found: Stage, database: Guarded, model: Model) -> None:
        found.route(*canary(50), revision=2)
        await found.served(2)

        found.declare(version("v7", 64))
        found.route(*canary(0), revision=3)

        assert found.deployment.adopted is not None
        assert found.deployment.adopted.route.revision == 3
        report = await found.report()
        assert (report["revision"], report["problem"]) == (3, "")

    play(story)


def test_an_index_without_weight_whose_model_nobody_can_reach_is_said_to_be_so_to_whoever_asks_for_it() -> None:
    async def story(found: Stage, database: Guarded, model: Model) -> None:
        found.declare(version("v7", 64))
        found.route(*canary(0), revision=2)
        await found.served(2)

        answer = await found.post(stage.SEARCH, {"vector": [1.0] * 64, "space": REMOTE.key})
        route = (await found.client.get(stage.ROUTE)).json()

        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "index_not_open")
        assert route["problem"] == ("v8 was removed and no declared version says how to reach m; declare v8 again")

    play(story)


def test_a_way_back_does_not_wait_for_an_endpoint_that_was_edited_into_nothing() -> None:
    async def story(found: Stage, database: Guarded, model: Model) -> None:
        fill(database, "v9", REMOTE)
        found.declare(remote("v8"), remote("v9"), endpoints=endpoint("http://model/v1"))
        found.route(entry("v9", 50, REMOTE), entry("v8", 50, REMOTE), revision=2)
        await found.served(2)

        found.declare(remote("v8"), remote("v9"), endpoints=endpoint("http://broken/v1"))
        await until(lambda: "allowed hosts" in found.deployment.problem())
        found.route(entry("v9", 0, REMOTE), entry("v8", 100, REMOTE), revision=3)

        assert found.deployment.adopted is not None
        assert found.deployment.adopted.route.revision == 3
        assert (await found.search(query="steam"))["version"] == "v8"
        found.declare(remote("v8"), remote("v9"), endpoints=endpoint("http://other/v1"))
        await until(lambda: not found.deployment.problem())

    play(story)


def test_what_is_wrong_with_an_index_without_weight_is_no_reason_to_take_a_route_for_not_served() -> None:
    async def story(found: Stage, database: Guarded, model: Model) -> None:
        found.route(*canary(0), revision=2)
        await found.served(2)
        await found.opened("v8")
        model.error = Retryable(Reason.MODEL_UNREACHABLE, "the endpoint fails with HTTP 500")

        answer = await found.post(stage.EMBEDDINGS, {"input": "steam", "model": "v8"})

        assert answer.status_code == 503
        assert found.deployment.problem() == "v8: the endpoint fails with HTTP 500"
        assert (await found.report())["problem"] == ""

    play(story)


def test_a_text_that_a_model_refuses_is_no_failure_of_the_model() -> None:
    async def story(found: Stage, database: Guarded, model: Model) -> None:
        found.route(entry("v8", 100, REMOTE), revision=2)
        await found.served(2)

        refused = await found.post(stage.SEARCH, {"query": "refused"})

        assert refused.status_code == 400
        report = await found.report()
        assert (report["problem"], report["totals"]) == ("", {})

    play(story)


def test_a_model_that_failed_is_asked_again_though_nobody_searches() -> None:
    async def story(found: Stage, database: Guarded, model: Model) -> None:
        found.route(entry("v8", 100, REMOTE), revision=2)
        await found.served(2)
        model.error = Retryable(Reason.MODEL_UNREACHABLE, "the endpoint fails with HTTP 500")
        await found.post(stage.SEARCH, {"query": "steam"})
        assert found.deployment.adopted is not None
        held = await found.deployment.adopted.hold("v8")

        await held.serving.look()
        report = await found.report()
        failing, by_index = report["problem"], report["problems"]
        model.error = None
        await held.serving.look()
        held.close()

        assert failing == "v8: the endpoint fails with HTTP 500"
        assert by_index == {"v8": failing}, "the same, by which a migration away from it goes on"
        report = await found.report()
        assert (report["problem"], report["problems"]) == ("", {})

    play(story)


def test_what_is_opened_anew_with_another_secret_is_not_closed_under_whoever_uses_it() -> None:
    async def story(found: Stage, database: Guarded, model: Model) -> None:
        found.route(entry("v8", 100, REMOTE), revision=2)
        await found.served(2)
        model.go.clear()
        model.asked.clear()
        under_way = asyncio.ensure_future(found.search(query="steam"))
        await until(model.asked.is_set)
        database.is_refusing = True

        vector = {"vector": [1.0] + [0.0] * 63, "space": REMOTE.key}
        refused = await found.post(stage.SEARCH, vector)
        before = database.found
        # The model waits still: what is opened first is the database, at once, and the old one lasts meanwhile.
        await until(lambda: database.found > before, within=10)
        model.go.set()
        answer = await under_way
        await until(lambda: not found.deployment.problem())

        assert (refused.status_code, answer["version"]) == (502, "v8")
        assert (await found.post(stage.SEARCH, vector)).status_code == 200

    play(story)
