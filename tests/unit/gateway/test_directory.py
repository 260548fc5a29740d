"""Which route serves: what is adopted when, what is refused, and what a request that is under way ends on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.gateway import stage
from tests.unit.gateway.stage import Stage, entry, fill, space, until, version

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.backends.memory import Memory
from pointsman.cluster.resources import DATASET, DEPLOYMENT, All, Gone
from pointsman.errors import Retryable
from pointsman.gateway.directory import Deployment

SMALL, LARGE = space(64), space(128)
OLD, NEW = entry("v7", 100, SMALL), entry("v8", 100, LARGE)
Story = Callable[[Stage], Awaitable[None]]


class Slow(Memory):
    """A database that can be told to wait, and to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.may_find, self.may_search = threading.Event(), threading.Event()
        self.may_find.set()
        self.may_search.set()
        self.is_down = False
        self.cut = 0
        """Searches that will find their connection gone."""
        self.searching = threading.Event()

    def find(self, name: str) -> ports.Marker | None:
        self.may_find.wait(20)
        self._check()
        return super().find(name)

    def search(self, *arguments: Any) -> list[ports.Hit]:
        self.searching.set()
        self.may_search.wait(20)
        self._check()
        if self.cut:
            self.cut -= 1
            raise Retryable(Reason.BACKEND_UNREACHABLE, "db:5432 cannot be reached")
        return super().search(*arguments)

    def _check(self) -> None:
        if self.is_down:
            raise Retryable(Reason.BACKEND_UNREACHABLE, "db:5432 cannot be reached")


def play(story: Callable[[Stage, Slow], Awaitable[None]], *indexes: str) -> None:
    """Play a story on a gateway that serves v7, with v8 in the database too."""

    async def whole() -> None:
        database = Slow()
        async with stage.running(database) as found:
            fill(database, "v7", SMALL)
            fill(database, "v8", LARGE)
            found.declare(version("v7", 64), version("v8", 128))
            found.route(OLD)
            await found.served()
            await story(found, database)

    asyncio.run(whole())


async def version_of(found: Stage) -> str:
    return str((await found.search(query="steam"))["version"])


def test_a_route_waits_until_its_indexes_are_open_and_the_old_one_serves_meanwhile() -> None:
    async def story(found: Stage, database: Slow) -> None:
        database.may_find.clear()

        found.route(NEW, revision=2)
        before = await version_of(found)
        database.may_find.set()
        await found.served(2)

        assert (before, await version_of(found)) == ("v7", "v8")
        assert (await found.report())["answered"] == {"v8": 1}

    play(story)


def test_a_route_back_to_what_is_open_is_adopted_in_the_call_that_brings_it() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.route(entry("v8", 50, LARGE), entry("v7", 50, SMALL), revision=2)
        await found.served(2)
        database.is_down = True

        found.route(entry("v8", 0, LARGE), OLD, revision=3)

        assert found.deployment.adopted is not None
        assert found.deployment.adopted.route.revision == 3

    play(story)


def test_a_route_whose_index_cannot_be_opened_is_not_adopted_and_the_report_says_why() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.route(entry("v9", 100, LARGE), revision=2)
        await until(lambda: "v9" in found.deployment.problem())

        report = await found.report()

        assert (report["revision"], report["problem"]) == (1, "v9: v9 is not in the database")
        assert await version_of(found) == "v7"

    play(story)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        pytest.param(
            {"space": "elsewhere"},
            f"v9 holds vectors of space elsewhere, the route says {LARGE.key}; it is not served",
            id="another space",
        ),
        pytest.param(
            {"owner": "other/papers"}, "v9 belongs to another deployment; it is not served here", id="another owner"
        ),
    ],
)
def test_an_index_whose_marker_says_otherwise_is_not_served(marker: dict[str, str], message: str) -> None:
    async def story(found: Stage, database: Slow) -> None:
        fill(database, "v9", LARGE, **marker)
        found.route(entry("v9", 100, LARGE), revision=2)
        await until(lambda: found.deployment.problem())

        assert (await found.report())["problem"] == f"v9: {message}"

    play(story)


def test_the_first_route_is_adopted_with_what_could_be_opened() -> None:
    async def whole() -> None:
        async with stage.running() as found:
            fill(found.database, "v7", SMALL)
            found.route(entry("v9", 50, LARGE), entry("v7", 50, SMALL))
            await found.served()

            answers = [await found.post(stage.SEARCH, {"query": "x", "session": str(n)}) for n in range(20)]

            assert {answer.status_code for answer in answers} == {200, 502}
            refused = next(answer for answer in answers if answer.status_code == 502)
            assert refused.json()["error"]["message"] == "v9 could not be opened: v9 is not in the database"
            assert refused.json()["error"]["code"] == "index_not_open"
            assert (await found.report())["problem"] == "v9: v9 is not in the database"

    asyncio.run(whole())


def test_what_could_not_be_asked_before_either_keeps_no_route_from_being_adopted() -> None:
    async def whole() -> None:
        async with stage.running() as found:
            fill(found.database, "v7", SMALL)
            found.route(entry("v9", 100, LARGE), entry("v7", 0, SMALL))
            await until(lambda: found.deployment.adopted is not None)

            found.route(entry("v9", 50, LARGE), entry("v7", 50, SMALL), revision=2)
            await found.served(2)
            found.route(entry("v9", 50, LARGE), entry("v8", 50, SMALL), revision=3)
            await until(lambda: "v8" in found.deployment.problem())

            report = await found.report()
            assert (report["revision"], report["problems"]) == (
                2,
                {"v9": "v9: v9 is not in the database", "v8": "v8: v8 is not in the database"},
            )

    asyncio.run(whole())


def test_an_older_route_is_refused_and_said_to_be() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.route(NEW, epoch=2, revision=7)
        await found.served(7)

        found.route(OLD, epoch=1, revision=8)

        report = await found.report()
        assert (report["epoch"], report["revision"]) == (2, 7)
        assert report["refused"] == {"epoch": 1, "revision": 8, "why": "older than epoch 2, revision 7"}
        found.route(OLD, epoch=2, revision=8)
        assert (await found.report())["refused"] is None

    play(story)


def test_the_same_revision_with_a_newer_snapshot_replaces_and_counts_on() -> None:
    async def story(found: Stage, database: Slow) -> None:
        await found.search(query="steam")
        at = (await found.report())["adoptedAt"]

        found.route({**OLD, "snapshot": 13})

        assert (await found.search(query="steam"))["snapshot"] == 13
        report = await found.report()
        assert (report["answered"], report["adoptedAt"]) == ({"v7": 2}, at)

    play(story)


def test_a_request_ends_on_the_route_that_it_began_with() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.route(entry("v8", 0, LARGE), OLD, revision=2)
        await found.served(2)
        database.may_search.clear()
        database.searching.clear()

        under_way = asyncio.ensure_future(found.search(query="steam"))
        await until(database.searching.is_set)
        found.route(NEW, revision=3)
        await found.served(3)
        held = (await found.report())["held"]
        database.may_search.set()
        answer = await under_way

        assert (answer["version"], answer["route"]["revision"]) == ("v7", 2)
        assert (await found.report())["totals"]["v7"]["queries"] == 1
        # Until then nobody may remove it.
        assert (held, (await found.report())["held"]) == (["v7"], [])

    play(story)


def test_a_deployment_that_is_gone_or_being_deleted_is_not_routed() -> None:
    async def story(found: Stage, database: Slow) -> None:
        (resource,) = found.cluster.list(DEPLOYMENT, None)
        found.directory.see(DEPLOYMENT, None, Gone(resource))
        gone = await found.refused({"query": "x"})
        found.look(DEPLOYMENT)
        await found.served()

        found.cluster.patch(DEPLOYMENT, "search", "papers", {"metadata": {"finalizers": ["f"]}})
        found.cluster.delete(DEPLOYMENT, "search", "papers", datetime.now(UTC))
        found.look(DEPLOYMENT)

        assert gone == await found.refused({"query": "x"})
        assert gone == (404, "there is no deployment papers in namespace search")
        assert (await found.admin.get("/report")).json()["deployments"] == {}
        found.directory.see(DEPLOYMENT, None, All([]))

    play(story)


def test_a_route_that_is_lost_from_status_serves_on() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.cluster.apply(stage.deployment(None))
        found.look(DEPLOYMENT)

        assert await version_of(found) == "v7"

    play(story)


def test_another_deployment_of_the_same_name_begins_without_a_route() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.cluster.delete(DEPLOYMENT, "search", "papers", datetime.now(UTC))
        found.cluster.apply(stage.deployment(None))
        found.look(DEPLOYMENT)

        assert await found.refused({"query": "x"}) == (503, "search/papers is not served: it has no route yet")

    play(story)


def test_a_database_at_another_address_is_not_searched_in_its_place() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.route(OLD, revision=2, address="http://qdrant:6333")

        report = await found.report()
        assert report["revision"] == 1
        assert report["problem"] == ("the indexes are at http://qdrant:6333, spec.backend names memory; name it again")
        assert await version_of(found) == "v7"

    play(story)


@pytest.mark.parametrize("more", [{}, {"hits": "documents"}], ids=["chunks", "documents"])
def test_a_search_whose_connection_was_cut_is_made_once_more(more: dict[str, str]) -> None:
    async def story(found: Stage, database: Slow) -> None:
        database.cut = 1
        assert (await found.search(query="x", **more))["version"] == "v7"

        database.cut = 2
        twice = await found.post(stage.SEARCH, {"query": "x", **more})

        assert twice.status_code == 503
        assert (await found.report())["totals"] == {"v7": {"queries": 2, "errors": 1, "empty": 0}}

    play(story)


def test_a_database_that_fails_is_said_to_and_no_other_version_answers() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.route(entry("v8", 0, LARGE), OLD, revision=2)
        await found.opened("v7", "v8")
        database.is_down = True

        down = await found.post(stage.SEARCH, {"query": "x"})
        problem = (await found.report())["problem"]
        database.is_down = False
        answer = await found.search(query="x")

        assert (down.status_code, down.json()["error"]["message"]) == (
            503,
            "the database of v7 failed: db:5432 cannot be reached",
        )
        assert down.headers["Retry-After"] == "1"
        assert problem == "v7: db:5432 cannot be reached"
        assert answer["version"] == "v7"
        report = await found.report()
        assert report["problem"] == ""
        assert report["totals"] == {"v7": {"queries": 2, "errors": 1, "empty": 0}}
        assert report["answered"] == {"v7": 1}

    play(story)


def test_a_database_that_hangs_is_given_up_in_time() -> None:
    async def whole() -> None:
        database = Slow()
        async with stage.running(database, seconds=0.2) as found:
            fill(database, "v7", SMALL)
            found.route(OLD)
            await found.served()
            database.may_search.clear()

            late = await found.post(stage.SEARCH, {"query": "x"})
            database.may_search.set()

            assert (late.status_code, late.json()["error"]["message"]) == (503, "not answered within 0.2 s")
            assert late.headers["Retry-After"] == "1"
            assert (await found.report())["totals"]["v7"]["errors"] == 1

    asyncio.run(whole())


def test_a_gateway_is_ready_once_what_there_was_is_served_and_stays_so() -> None:
    async def whole() -> None:
        async with stage.running() as found:
            fill(found.database, "v7", SMALL)
            found.directory.expect(DEPLOYMENT, None)

            blind = (await found.client.get("/readyz")).status_code
            unseen = await found.refused({"query": "x"})
            found.route(OLD)
            await found.served()
            seeing = (await found.client.get("/readyz")).status_code
            found.route(entry("v9", 100, LARGE), revision=2)
            later = (await found.client.get("/readyz")).status_code
            found.state.is_draining = True
            draining = await found.client.get("/readyz")
            last = await found.post(stage.SEARCH, {"query": "x"})

            assert (blind, seeing, later, draining.status_code) == (503, 200, 200, 503)
            assert unseen == (503, "the gateway has not seen the cluster's routes yet")
            assert draining.text == "not ready: draining\n"
            assert (last.status_code, last.headers["Connection"]) == (200, "close")
            assert (await found.admin.get("/report")).json()["draining"] is True

    asyncio.run(whole())


def test_what_comes_again_unchanged_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(found: Stage, database: Slow) -> None:
        read: list[str] = []
        see = Deployment.see
        monkeypatch.setattr(
            Deployment, "see", lambda self, *arguments: (read.append("/".join(self.name)), see(self, *arguments))[1]
        )

        for kind in (DATASET, DEPLOYMENT, DATASET, DEPLOYMENT):
            found.look(kind)
        unchanged = list(read)
        found.declare(version("v7", 64), version("v8", 128), version("v9", 256))
        found.route(NEW, revision=2)

        assert (unchanged, read) == ([], ["search/papers"] * 2)
        await found.served(2)

    play(story)


def test_a_backend_of_another_release_is_in_no_routes_way() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.route(entry("v8", 50, LARGE), entry("v7", 50, SMALL), revision=2)
        await found.served(2)

        resource = stage.deployment([entry("v8", 0, LARGE), OLD], revision=3)
        resource["spec"]["backend"]["memory"]["newer"] = True
        found.cluster.apply(resource)
        found.look(DEPLOYMENT)

        report = await found.report()
        assert (report["revision"], report["problem"]) == (3, "")
        assert found.deployment.problem() == "spec.backend cannot be read by this release"

    play(story)


def test_the_report_says_which_namespaces_are_watched() -> None:
    async def story(found: Stage, database: Slow) -> None:
        found.state.namespaces = ("search", "shop")

        assert (await found.admin.get("/report")).json()["namespaces"] == ["search", "shop"]

    play(story)
