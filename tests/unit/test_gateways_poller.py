"""What the operator learns of gateways: asked over real HTTP, from servers that answer well, badly, late or never."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from tests.unit.waiting import wait_until

from pointsman.api.conditions import Reason
from pointsman.cluster.resources import DEPLOYMENT
from pointsman.controller import gateways
from pointsman.controller.gateways import Address, Gateways, Nobody
from pointsman.core.guards import Arm
from pointsman.errors import Retryable, Terminal
from pointsman.plan.reported import Day, Gateway, Minute, Shadowed
from pointsman.plan.tasks import Key

PAPERS, BOOKS = Key(DEPLOYMENT, "search", "papers"), Key(DEPLOYMENT, "search", "books")
PATIENCE = 0.3
"""Seconds that a gateway has to answer in these tests."""


def served(revision: int = 3, **changes: Any) -> dict[str, Any]:
    """What a gateway says of one deployment."""
    values: dict[str, Any] = {
        "uid": "u1",
        "epoch": 2,
        "revision": revision,
        "adoptedAt": "2026-03-01T12:00:00Z",
        "refused": None,
        "problem": "",
        "answered": {"pm_a": 90, "pm_b": 10},
        "totals": {"pm_a": {"queries": 900, "errors": 1, "empty": 2}, "pm_b": {"queries": 10}},
        "mispaired": 0,
        "sessions": 7,
        "minutes": [
            {
                "at": "2026-03-01T12:00:00+00:00",
                "index": "pm_a",
                "shadow": False,
                "queries": 90,
                "errors": 1,
                "empty": 2,
                "latency": {"40": 89},
                "scores": {},
            }
        ],
        "days": [{"date": "2026-03-01", "index": "pm_a", "sessions": 7, "scores": {"190": 89}}],
        "shadow": {"index": "pm_b", "sent": 20, "dropped": 1, "compared": 19, "overlap": 0.5, "correlation": None},
    }
    return {**values, **changes}


def scored(date: str = "2026-03-01", **changes: Any) -> dict[str, Any]:
    """What a gateway says of the scores of a day."""
    return {"date": date, "index": "pm_a", "sessions": 7, "scores": {"190": 89}, **changes}


def report(process: str = "p1", **changes: Any) -> dict[str, Any]:
    values = {
        "gateway": process,
        "startedAt": "2026-03-01T00:00:00Z",
        "ready": True,
        "draining": False,
        "deployments": {"search/papers": served()},
    }
    return {**values, **changes}


class FakeServer:
    """A server that answers GET /report with what it is told, or lets whoever asks wait."""

    def __init__(self) -> None:
        self.body: bytes = json.dumps(report()).encode()
        self.status, self.headers = 200, {"content-type": "application/json"}
        self.asked: list[str] = []
        self.is_silent = self.is_dripping = False
        self._go = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if outer.is_silent:
                    outer._go.wait(30)
                    return
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(outer.body)))
                self.end_headers()
                if not outer.is_dripping:
                    self.wfile.write(outer.body)
                    return
                for byte in outer.body:
                    if outer._go.wait(0.05):
                        return
                    with contextlib.suppress(OSError):
                        self.wfile.write(bytes([byte]))

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def says(self, value: Any) -> None:
        self.body = json.dumps(value).encode()

    def close(self) -> None:
        self._go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def servers() -> Iterator[Callable[[], FakeServer]]:
    started: list[FakeServer] = []

    def start() -> FakeServer:
        started.append(FakeServer())
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(servers: Callable[[], FakeServer]) -> FakeServer:
    return servers()


class Asking:
    """Gateways under test, with what they woke and whom they are told of."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses: list[Address] = list(addresses)
        self.error: Exception | None = None
        self.woken: list[Key] = []
        client = httpx.Client(timeout=PATIENCE, follow_redirects=False, trust_env=False)
        self.gateways = Gateways(self._find, self.woken.append, client)

    def _find(self) -> list[Address]:
        if self.error is not None:
            raise self.error
        return self.addresses

    def one(self, key: Key = PAPERS) -> Gateway:
        self.gateways.ask()
        (found,) = self.gateways.of(key)
        return found


def test_a_report_is_read_whole(server: FakeServer) -> None:
    found = Asking(Address(server.url)).one()

    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert found == Gateway(
        name=server.url,
        is_ready=True,
        epoch=2,
        revision=3,
        answered={"pm_a": 90, "pm_b": 10},
        totals={"pm_a": 899, "pm_b": 10},
        process="p1",
        minutes=(Minute(at, "pm_a", Arm(90, 1, 2, {40: 89})),),
        days=(Day("2026-03-01", "pm_a", 7, {190: 89}),),
        shadowed=Shadowed("pm_b", 20, 1, 19, 0.5, None),
        mispaired=0,
    )
    assert server.asked == ["/report"]


def test_what_processes_told_of_days_is_remembered_when_they_end_or_fall_silent(
    servers: Callable[[], FakeServer],
) -> None:
    first, second = servers(), servers()
    second.says(report("p2", deployments={"search/papers": served(days=[scored(sessions=9)])}))
    asking = Asking(Address(first.url), Address(second.url))
    asking.gateways.ask()

    # The one is started anew, the other gone for good.
    first.says(report("p3", deployments={"search/papers": served(days=[scored(sessions=1)])}))
    asking.addresses = [Address(first.url)]
    asking.gateways.ask()
    asking.gateways.ask()

    told = {process: [day.sessions for day in days] for process, days in asking.gateways.days(PAPERS).items()}
    assert told == {"p1": [7], "p2": [9], "p3": [1]}
    assert asking.gateways.days(BOOKS) == {}
    assert len(asking.gateways.of(PAPERS)) == 1

    first.says(report("p1", deployments={"search/papers": served(days=[scored(sessions=8)])}))
    asking.gateways.ask()
    assert [day.sessions for day in asking.gateways.days(PAPERS)["p1"]] == [8]


def test_a_gateway_of_an_older_release_tells_of_no_days(server: FakeServer) -> None:
    said = served()
    del said["days"]
    server.says(report(deployments={"search/papers": said}))
    asking = Asking(Address(server.url))

    assert asking.one().days == ()
    assert (asking.gateways.days(PAPERS), Nobody().days(PAPERS)) == ({}, {})


def test_of_a_deployment_that_it_does_not_know_a_gateway_serves_nothing(server: FakeServer) -> None:
    found = Asking(Address(server.url)).one(BOOKS)

    assert (found.is_ready, found.epoch, found.revision, found.answered, found.problem) == (True, 0, 0, {}, "")


BROKEN: dict[str, Any] = {
    "no object": [],
    "no gateway": {"ready": True, "deployments": {}},
    "deployments that are a list": report(deployments=[1]),
    "a deployment that is a number": report(deployments={"search/papers": 7}),
    "a revision that is a word": report(deployments={"search/papers": served("three")}),  # type: ignore[arg-type]
    "counts that are words": report(deployments={"search/papers": served(answered={"pm_a": "many"})}),
    "a minute without counts": report(deployments={"search/papers": served(minutes=[{"at": "2026-03-01T12:00:00Z"}])}),
    "a minute at no time": report(
        deployments={
            "search/papers": served(minutes=[{"at": "noon", "index": "a", "queries": 1, "errors": 0, "empty": 0}])
        }
    ),
    "a day that is none": report(deployments={"search/papers": served(days=[scored("today")])}),
    "scores beyond the last bin": report(deployments={"search/papers": served(days=[scored(scores={"256": 1})])}),
    "fewer answers than none": report(deployments={"search/papers": served(days=[scored(scores={"3": -1})])}),
    "a shadow without a name": report(deployments={"search/papers": served(shadow={"sent": 1})}),
    "a count that is no number": report(deployments={"search/papers": served(mispaired=float("nan"))}),
}


@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_read_is_no_report_and_the_gateway_counts_as_there(server: FakeServer, said: Any) -> None:
    server.says(said)

    found = Asking(Address(server.url)).one()

    assert (found.is_ready, found.revision) == (True, 0)
    assert found.problem == "answers GET /report with something else than a report"


def test_an_answer_that_is_no_json_is_no_report(server: FakeServer) -> None:
    server.body = b"<html>hello</html>"

    assert Asking(Address(server.url)).one().problem == "answers GET /report with something else than a report"


@pytest.mark.parametrize("status", [302, 401, 404, 500, 503])
def test_a_status_is_said(server: FakeServer, status: int) -> None:
    server.status, server.headers = status, {"location": "http://169.254.169.254/"}

    found = Asking(Address(server.url)).one()

    assert (found.problem, found.is_ready) == (f"answers HTTP {status} to GET /report", True)
    assert server.asked == ["/report"]


def test_a_gateway_that_is_silent_counts_as_there_and_as_serving_nobody_knows_what(server: FakeServer) -> None:
    asking = Asking(Address(server.url))
    assert asking.one().revision == 3
    server.is_silent = True

    found = asking.one()

    assert (found.is_ready, found.revision, found.answered) == (True, 0, {})
    assert found.problem == "does not answer within 2 s"


def test_a_gateway_that_is_gone_cannot_be_reached(servers: Callable[[], FakeServer]) -> None:
    gone = servers()
    url = gone.url
    gone.close()
    gone._server.server_close()

    found = Asking(Address(url)).one()

    assert found.problem == "cannot be reached (ConnectError)" and found.is_ready


READY: dict[str, tuple[bool | None, dict[str, Any], bool]] = {
    # What the cluster says, what the gateway says, what counts.
    "only the gateway knows: ready": (None, {"ready": True}, True),
    "only the gateway knows: not ready": (None, {"ready": False}, False),
    "only the gateway knows: draining": (None, {"ready": True, "draining": True}, False),
    "both are ready": (True, {"ready": True}, True),
    "the cluster sends it nothing": (False, {"ready": True}, False),
    "the gateway says that it is not": (True, {"ready": False}, False),
}


@pytest.mark.parametrize(("cluster", "said", "is_ready"), READY.values(), ids=READY.keys())
def test_ready(server: FakeServer, cluster: bool | None, said: dict[str, Any], is_ready: bool) -> None:
    server.says(report(**said))

    assert Asking(Address(server.url, cluster)).one().is_ready is is_ready


@pytest.mark.parametrize(("cluster", "is_ready"), [(None, True), (True, True), (False, False)])
def test_whoever_is_silent_is_as_ready_as_who_sends_it_queries_says(
    server: FakeServer, cluster: bool | None, is_ready: bool
) -> None:
    server.is_silent = True

    assert Asking(Address(server.url, cluster)).one().is_ready is is_ready


def test_a_problem_of_its_own_is_passed_on(server: FakeServer) -> None:
    problem = {"problem": "the model does not answer", "problems": {"pm_a": "the model does not answer"}}
    server.says(report(deployments={"search/papers": served(**problem)}))

    found = Asking(Address(server.url)).one()

    assert (found.problem, found.problems, found.revision) == (*problem.values(), 3)


def test_a_process_that_is_listed_twice_counts_once(server: FakeServer) -> None:
    port = server.url.rpartition(":")[2]
    asking = Asking(Address(server.url), Address(server.url), Address(f"http://localhost:{port}"))

    asking.gateways.ask()

    assert [gateway.process for gateway in asking.gateways.of(PAPERS)] == ["p1"]


def test_several_gateways_are_all_there(servers: Callable[[], FakeServer]) -> None:
    first, second, third = servers(), servers(), servers()
    second.says(report("p2", deployments={"search/papers": served(2)}))
    third.is_silent = True
    asking = Asking(*(Address(each.url) for each in (first, second, third)))

    asking.gateways.ask()

    found = asking.gateways.of(PAPERS)
    assert [(gateway.revision, bool(gateway.problem)) for gateway in found] == [(3, False), (2, False), (0, True)]


@pytest.mark.parametrize("kind", [Retryable, Terminal])
def test_whoever_was_there_is_there_still_while_nobody_can_be_listed(
    server: FakeServer, kind: type[Retryable] | type[Terminal]
) -> None:
    asking = Asking(Address(server.url))
    asking.one()
    asking.error = kind(Reason.CLUSTER_UNREACHABLE, "no answer")

    server.says(report(deployments={"search/papers": served(4)}))

    assert asking.one().revision == 4


def test_where_nobody_was_ever_listed_somebody_is_taken_to_be_there(server: FakeServer) -> None:
    asking = Asking(Address(server.url))
    asking.error = Retryable(Reason.CLUSTER_UNREACHABLE, "the API server does not answer")

    for _ in range(2):
        found = asking.one()
        assert (found.is_ready, found.revision) == (True, 0)
        assert found.problem == "cannot be listed: the API server does not answer"
    asking.error = None

    assert (asking.one().name, asking.one().problem) == (server.url, "")


def test_a_deployment_is_woken_by_what_is_new_and_by_no_count(server: FakeServer) -> None:
    asking = Asking(Address(server.url))
    asking.gateways.ask()
    assert asking.woken == [PAPERS]
    asking.woken.clear()

    server.says(report(deployments={"search/papers": served(answered={"pm_a": 91}), "search/books": served()}))
    asking.gateways.ask()
    assert asking.woken == [BOOKS]
    asking.woken.clear()
    server.says(report(deployments={"search/papers": served(4), "search/books": served()}))
    asking.gateways.ask()
    assert asking.woken == [PAPERS]
    asking.woken.clear()
    server.is_silent = True
    asking.gateways.ask()

    assert sorted(asking.woken) == [BOOKS, PAPERS]


def test_it_asks_by_itself_until_it_is_stopped_and_at_once_when_it_is_hurried(server: FakeServer) -> None:
    asking = Asking(Address(server.url))
    asking.gateways.start()
    try:
        assert server.asked == ["/report"]
        server.says(report(deployments={"search/papers": served(4)}))
        asking.gateways.hurry()
        wait_until(lambda: asking.gateways.of(PAPERS)[0].revision == 4)
    finally:
        asking.gateways.stop()

    asked = len(server.asked)
    assert asked >= 2
    assert not asking.gateways._thread.is_alive()


def test_it_goes_on_asking_after_one_said_what_nobody_can_read(server: FakeServer) -> None:
    asking = Asking(Address(server.url))
    server.says(report(deployments=[1]))
    asking.gateways.start()
    try:
        asking.gateways.hurry()
        wait_until(lambda: len(server.asked) > 1)
        server.says(report())
        asking.gateways.hurry()
        wait_until(lambda: asking.gateways.of(PAPERS)[0].revision == 3)
    finally:
        asking.gateways.stop()


def test_what_was_never_started_is_stopped(server: FakeServer) -> None:
    Asking(Address(server.url)).gateways.stop()

    assert server.asked == []


def test_where_there_are_none_nobody_serves() -> None:
    nobody = Nobody()
    nobody.hurry()

    assert nobody.of(PAPERS) == ()


def test_a_gateway_for_other_namespaces_has_no_say_even_once_it_is_silent(servers: Callable[[], FakeServer]) -> None:
    ours, theirs = servers(), servers()
    theirs.says(report("p2", namespaces=["elsewhere"], deployments={}))
    asking = Asking(Address(ours.url), Address(theirs.url))

    asking.gateways.ask()
    found = [gateway.name for gateway in asking.gateways.of(PAPERS)]
    theirs.is_silent = True
    asking.gateways.ask()

    assert found == [gateway.name for gateway in asking.gateways.of(PAPERS)] == [ours.url]
    elsewhere = asking.gateways.of(Key(DEPLOYMENT, "elsewhere", "papers"))
    assert [(gateway.name, bool(gateway.problem)) for gateway in elsewhere] == [(ours.url, False), (theirs.url, True)]


def test_a_gateway_that_never_ends_its_answer_is_given_up(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "WHOLE", 0.2)
    server.is_dripping = True

    assert Asking(Address(server.url)).one().problem == "does not answer within 2 s"


def test_a_report_without_an_end_is_no_report(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "MOST_BYTES", 100)

    assert Asking(Address(server.url)).one().problem == "answers GET /report with something else than a report"


def test_who_is_late_is_taken_at_their_last_word_and_keeps_nobody_from_hearing_the_others(
    servers: Callable[[], FakeServer],
) -> None:
    quick, late = servers(), servers()
    late.says(report("p2"))
    asking = Asking(Address(quick.url), Address(late.url))
    asking.gateways.ask()
    late.is_silent = True
    quick.says(report(deployments={"search/papers": served(4)}))

    asking.gateways.ask(0.0)
    wait_until(lambda: (asking.gateways.ask(0.0), asking.gateways.of(PAPERS)[0].revision == 4)[1])
    meanwhile = asking.gateways.of(PAPERS)[1]
    wait_until(lambda: (asking.gateways.ask(0.0), bool(asking.gateways.of(PAPERS)[1].problem))[1])

    # The late one fails after its own time, and is asked once in it.
    assert (meanwhile.revision, meanwhile.problem) in ((3, ""), (0, "does not answer within 2 s"))
    assert asking.gateways.of(PAPERS)[0].revision == 4


def test_it_goes_on_asking_whatever_becomes_of_the_list(server: FakeServer) -> None:
    asking = Asking(Address(server.url))
    asking.gateways.start()
    try:
        asking.error = RuntimeError("nobody foresaw this")
        asking.gateways.hurry()
        wait_until(lambda: not asking.gateways._nudged.is_set())
        asking.error = None
        server.says(report(deployments={"search/papers": served(4)}))
        asking.gateways.hurry()
        wait_until(lambda: asking.gateways.of(PAPERS)[0].revision == 4)
    finally:
        asking.gateways.stop()


def test_what_did_not_change_is_not_read_again(server: FakeServer) -> None:
    asking = Asking(Address(server.url))
    asking.gateways.ask()
    (before,) = asking.gateways.reports()
    server.says(report(deployments={"search/papers": served(), "search/books": served(4)}))
    asking.gateways.ask()
    (after,) = asking.gateways.reports()

    assert after.deployments["search/papers"] is before.deployments["search/papers"]
    assert asking.gateways.of(BOOKS)[0].revision == 4


def test_an_address_that_is_none_is_that_gateways_trouble_alone(server: FakeServer) -> None:
    asking = Asking(Address("http://[::"), Address(server.url))

    asking.gateways.ask()

    assert [bool(gateway.problem) for gateway in asking.gateways.of(PAPERS)] == [True, False]
