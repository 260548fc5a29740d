"""The operator's watches outlive whatever becomes of the API server: kopf as it is, on a server that misbehaves."""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kopf
import pytest
from tests.unit.waiting import wait_until

from pointsman.cluster.mirror import Mirror
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, PLURALS, QUERY_SET, Identity
from pointsman.controller import handlers
from pointsman.controller.handlers import Patience
from pointsman.plan.tasks import Key

GROUP, NAMESPACE = "pointsman.dev/v1alpha1", "search"
WATCHED = (DATASET, DEPLOYMENT, QUERY_SET, APPROVAL)
PAPERS, BOOKS = Key(DATASET, NAMESPACE, "papers"), Key(DATASET, NAMESPACE, "books")
FORGOTTEN = {"kind": "Status", "code": 410, "reason": "Expired"}
BROKEN = {"kind": "Status", "code": 500, "message": "etcdserver: request timed out"}
KOPFS_OWN = 9
"""Attempts after which kopf, left to itself, gives up."""


def resource(key: Key, version: int) -> dict[str, Any]:
    meta = {"namespace": key.namespace, "name": key.name, "uid": key.name, "resourceVersion": str(version)}
    return {"apiVersion": GROUP, "kind": key.kind, "metadata": meta, "spec": {}}


class Api:
    """What there is, and how it is told of: from the state at version 10 on, by what a test sends."""

    def __init__(self) -> None:
        self.there: dict[str, list[dict[str, Any]]] = {kind: [] for kind in WATCHED}
        self.happened: dict[str, list[dict[str, Any]]] = {kind: [] for kind in WATCHED}
        self.refuses: dict[str, int] = {}
        """The status that is answered for a kind, whatever is asked."""
        self.refused: list[str] = []
        self.lists: list[tuple[str, dict[str, str]]] = []
        self.watches: list[tuple[str, dict[str, str], queue.Queue[dict[str, Any] | None]]] = []

    def began(self, kind: str) -> list[str]:
        """Return from which version each watch of a kind was asked for."""
        return [query["resourceVersion"] for watched, query, _ in self.watches if watched == kind]

    def listed(self, kind: str) -> int:
        """Return how often a kind was listed."""
        return sum(asked == kind for asked, _ in self.lists)

    def send(self, kind: str, event: str, content: dict[str, Any], is_lost: bool = False) -> None:
        """Send an event on the newest watch of a kind, or lose it on the way: then only the next one tells of it."""
        happened = {"type": event, "object": content}
        if "metadata" in content:
            self.happened[kind].append(happened)
        *_, newest = (events for watched, _, events in self.watches if watched == kind)
        if not is_lost:
            newest.put(happened)

    def close(self, kind: str) -> None:
        """End the watches of a kind, as the server does from time to time."""
        for watched, _, events in self.watches:
            if watched == kind:
                events.put(None)


def known(path: str) -> dict[str, Any] | None:
    """Return what an API server answers to whoever asks what it knows."""
    version = {"groupVersion": GROUP, "version": "v1alpha1"}
    group = {"name": "pointsman.dev", "versions": [version], "preferredVersion": version}
    ours = [{"name": PLURALS[kind], "kind": kind, "namespaced": True} for kind in WATCHED]
    core = [{"name": "namespaces", "kind": "Namespace", "namespaced": False}]
    answers: dict[str, dict[str, Any]] = {
        "/api": {"versions": ["v1"]},
        "/api/v1": {"resources": core},
        "/apis": {"groups": [group]},
        f"/apis/{GROUP}": {"resources": ours},
    }
    for each in [*core, *ours]:
        each |= {"singularName": "", "verbs": ["get", "list", "watch"]}
    return answers.get(path)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def server(api: Api) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, asked = self.path.partition("?")
            answer = known(path)
            if answer is not None:
                self.answer(200, answer)
                return
            kind = next(kind for kind in WATCHED if path == f"/apis/{GROUP}/namespaces/{NAMESPACE}/{PLURALS[kind]}")
            query, status = dict(urllib.parse.parse_qsl(asked)), api.refuses.get(kind)
            if status is not None:
                api.refused.append(kind)
                self.answer(status, {"kind": "Status", "code": status})
            elif "watch" in query:
                self.stream(kind, query)
            else:
                api.lists.append((kind, query))
                first = int(query.get("continue", "0"))
                rest = first + int(query["limit"])
                meta = {"resourceVersion": "10", "continue": str(rest) if rest < len(api.there[kind]) else ""}
                self.answer(200, {"items": api.there[kind][first:rest], "metadata": meta})

        def answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def stream(self, kind: str, query: dict[str, str]) -> None:
            events: queue.Queue[dict[str, Any] | None] = queue.Queue()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            since = int(query["resourceVersion"])
            for event in api.happened[kind]:
                if int(event["object"]["metadata"]["resourceVersion"]) > since:
                    events.put(event)
            api.watches.append((kind, query, events))
            while (told := events.get()) is not None:
                try:
                    self.wfile.write(json.dumps(told).encode() + b"\n")
                except OSError:
                    return

        def log_message(self, *arguments: Any) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    for kind in WATCHED:
        api.close(kind)
    served.shutdown()
    served.server_close()
    thread.join()


class Watching:
    """An operator's watches, and whom they woke."""

    def __init__(self, api: Api, server: str) -> None:
        self.api, self.server, self.mirror = api, server, Mirror()
        self.woken: list[Key] = []
        self.looked: list[Key] = []
        self.error: BaseException | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.mirror.complete()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self, patience: Patience) -> None:
        """Watch, and return once all kinds are watched that are not refused."""
        self.patience = patience
        self.thread.start()
        for kind in WATCHED:
            wait_until(lambda kind=kind: kind in self.api.refuses or bool(self.api.began(kind)))  # type: ignore[misc]

    def _run(self) -> None:
        registry = handlers.registry(self.mirror, self.woken.append, self.looked.append, self.patience)
        identity = Identity(self.server, None, False, None, None, None, None)

        async def watch() -> None:
            self.loop, self.task = asyncio.get_running_loop(), asyncio.current_task()
            await handlers.watch(registry, (NAMESPACE,), lambda: identity, lambda: None)

        try:
            asyncio.run(watch())
        except (asyncio.CancelledError, Exception) as error:
            self.error = error

    def end(self) -> None:
        """Have it end, and wait for that."""
        if self.thread.is_alive():
            assert self.loop is not None and self.task is not None
            self.loop.call_soon_threadsafe(self.task.cancel)
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def watching(api: Api, server: str) -> Iterator[Watching]:
    found = Watching(api, server)
    yield found
    found.end()


LONG = Patience(silence=600, first=0.001, longest=0.002)


def test_kopf_is_told_to_write_nothing_and_never_to_wait_for_ever() -> None:
    settings = kopf.OperatorSettings()

    handlers.configure(settings, Patience())

    assert (settings.posting.enabled, settings.scanning.disabled) == (False, True)
    watching, networking = settings.watching, settings.networking
    assert (watching.chunk_size, watching.inactivity_timeout) == (100, 70)
    assert (watching.server_timeout, watching.client_timeout) == (600, 660)
    assert (networking.connect_timeout, networking.request_timeout) == (10, 60)
    assert settings.queueing.idle_timeout == 0.01
    assert networking.error_backoffs == Patience()


def test_what_is_refused_is_asked_for_without_an_end_ever_more_seldom_and_not_by_all_at_once() -> None:
    for bound, waits in zip([1, 2, 4, 8, 16, 30, 30], zip(*[Patience()] * 20, strict=True), strict=False):
        assert all(bound / 2 <= wait <= bound for wait in waits)
        assert len(set(waits)) > 10

    assert len(list(itertools.islice(Patience(), 10_000))) == 10_000


def test_all_is_listed_in_pages_and_watched_from_there(api: Api, watching: Watching) -> None:
    keys = [Key(DATASET, NAMESPACE, f"d{number:03}") for number in range(250)]
    api.there[DATASET] = [resource(key, 1) for key in keys]

    watching.start(LONG)

    wait_until(lambda: sorted(watching.looked) == keys)
    assert [query for kind, query in api.lists if kind == DATASET] == [
        {"limit": "100"}, {"limit": "100", "continue": "100"}, {"limit": "100", "continue": "200"}
    ]  # fmt: skip
    (query,) = (query for kind, query, _ in api.watches if kind == DATASET)
    assert query == {
        "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "10", "timeoutSeconds": "600"
    }  # fmt: skip


def test_a_watch_that_fell_silent_is_resumed_where_it_was(api: Api, watching: Watching) -> None:
    watching.start(Patience(silence=0.5))

    api.send(DATASET, "ADDED", resource(PAPERS, 11), is_lost=True)

    wait_until(lambda: watching.woken == [PAPERS])
    wait_until(lambda: "11" in api.began(DATASET))
    assert api.began(DATASET)[:2] == ["10", "10"]
    assert api.listed(DATASET) == 1


def test_a_watch_whose_past_the_server_has_forgotten_begins_with_all(api: Api, watching: Watching) -> None:
    watching.start(LONG)
    api.there[DATASET] = [resource(PAPERS, 20)]

    api.send(DATASET, "ERROR", FORGOTTEN)

    wait_until(lambda: watching.looked == [PAPERS])
    wait_until(lambda: len(api.began(DATASET)) == 2)
    assert (api.listed(DATASET), api.listed(DEPLOYMENT)) == (2, 1)
    api.send(DATASET, "MODIFIED", resource(PAPERS, 21))
    wait_until(lambda: watching.woken == [PAPERS])


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_api_server_that_refuses_for_minutes_ends_no_watch(api: Api, watching: Watching, status: int) -> None:
    watching.start(LONG)
    api.refuses = dict.fromkeys(WATCHED, status)
    for kind in WATCHED:
        # The state is forgotten as well, so that both listing and watching are refused.
        api.send(kind, "ERROR", FORGOTTEN)
        wait_until(lambda kind=kind: api.refused.count(kind) > 3 * KOPFS_OWN)  # type: ignore[misc]
    api.there[DATASET] = [resource(PAPERS, 20)]
    api.refuses = {}

    wait_until(lambda: watching.looked == [PAPERS])
    wait_until(lambda: all(len(api.began(kind)) == 2 for kind in WATCHED))
    api.send(DATASET, "ADDED", resource(BOOKS, 21))
    wait_until(lambda: watching.woken == [BOOKS])


def test_a_watch_that_is_refused_goes_on_where_it_was(api: Api, watching: Watching) -> None:
    watching.start(LONG)
    api.send(DATASET, "ADDED", resource(PAPERS, 11))
    wait_until(lambda: watching.woken == [PAPERS])
    api.refuses = {DATASET: 503}
    api.close(DATASET)
    wait_until(lambda: api.refused.count(DATASET) > 3 * KOPFS_OWN)
    api.refuses = {}

    wait_until(lambda: api.began(DATASET) == ["10", "11"])
    assert api.listed(DATASET) == 1


@pytest.mark.parametrize("status", [403, 500], ids=["forbidden", "broken"])
def test_a_kind_that_cannot_be_watched_stops_no_other(api: Api, watching: Watching, status: int) -> None:
    api.refuses = {QUERY_SET: status}
    watching.start(LONG)
    wait_until(lambda: api.refused.count(QUERY_SET) > 3 * KOPFS_OWN)

    api.send(DATASET, "ADDED", resource(PAPERS, 11))

    wait_until(lambda: watching.woken == [PAPERS])
    assert watching.thread.is_alive()


def test_the_operator_ends_when_a_watch_has_died(api: Api, watching: Watching) -> None:
    watching.start(LONG)

    api.send(DATASET, "ERROR", BROKEN)

    wait_until(lambda: not watching.thread.is_alive())
    assert "Error in the watch-stream" in str(watching.error)
