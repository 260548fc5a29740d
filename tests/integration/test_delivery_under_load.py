"""A migration under live queries, and what becomes of it when its operator is frozen or killed half of the way."""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.integration.delivery import HALF, Answer, Delivery, answer, delivering, weights_of
from tests.integration.operator_process import DEPLOYMENT, LEASE, PATIENCE, Object, Operator

from pointsman.cli.operator import LOST
from pointsman.controlplane import plane

pytestmark = pytest.mark.server

STEPS: list[Object] = [
    {"shadow": {"percent": 100, "for": "1s"}},
    {"weight": 10},
    {"pause": {"for": "1s"}},
    {"weight": 50},
    {"approval": {"name": "go-wide"}},
    {"weight": 100},
]
SESSIONS = [f"session-{number}" for number in range(300)]


@pytest.fixture(scope="module")
def delivery(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    with delivering(control_plane, tmp_path_factory.mktemp("delivery"), lease_seconds=LEASE) as delivery:
        yield delivery


@dataclass
class Traffic:
    """Queries that are sent one after the other, by two who know nothing of each other, for as long as is wanted."""

    delivery: Delivery
    name: str
    answers: list[Answer] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def send(self, sessions: list[str]) -> None:
        for session in itertools.cycle(sessions):
            if self._stopped.wait(0.01):
                return
            self.answers.append(answer(session, self.delivery.search(self.name, session)))

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Send until left; what sending raises is raised."""
        with ThreadPoolExecutor(2) as pool:
            sent = [pool.submit(self.send, SESSIONS[half::2]) for half in (0, 1)]
            try:
                yield
            finally:
                self._stopped.set()
            for each in sent:
                each.result()


def versions(delivery: Delivery, name: str) -> dict[str, str]:
    """Return which version answers each session."""
    answers = [answer(session, delivery.search(name, session)) for session in SESSIONS]
    assert {each.status for each in answers} == {200}
    return {each.session: each.version for each in answers}


def test_a_migration_loses_no_live_query_and_gives_each_version_the_sessions_that_its_weight_says(
    delivery: Delivery,
) -> None:
    stage = delivery.stage
    delivery.deploy("busy", STEPS, burnIn={"for": "1s", "minQueries": 100})
    delivery.wait_for("busy", "UpToDate", v7=100)
    before = stage.get(DEPLOYMENT, "busy")
    traffic = Traffic(delivery, "busy")

    with traffic.flowing():
        delivery.want("busy", "v8")
        delivery.ask("busy")
        shadow, halfway = delivery.status("busy")["shadow"], delivery.status("busy")["route"]
        # Every session is heard of, by whichever of the two sends it.
        count = len(traffic.answers)
        stage.wait(lambda: len(traffic.answers) - count > 2 * len(SESSIONS), "every session to be answered")
        stage.wait(lambda: delivery.measured("busy").get("v8") is not None, "the shares to be measured")
        delivery.decide("busy", "Approve")
        delivery.wait_for("busy", "UpToDate", v8=100)

    assert (shadow["version"], shadow["against"], shadow["percent"]) == ("v8", "v7", 0)
    assert shadow["queries"] > 0 and 0 <= float(shadow["overlap"]) <= 1 and 0 <= float(shadow["correlation"]) <= 1
    # A person is asked once, and no step is worth an Event because its route takes a moment.
    told = Counter(reason for _, reason, _ in stage.events("busy"))
    assert (told["APersonIsAsked"], told["RouteAccepted"], told["RouteNotAccepted"]) == (1, 0, 0)

    answers, weights = traffic.answers, weights_of(stage.past(DEPLOYMENT, before))
    assert Counter(each.error for each in answers) == {"": len(answers)}
    assert all(weights[each.route][each.version] > 0 for each in answers)
    assert set(weights) >= {each.route for each in answers}
    for session, found in in_order(answers).items():
        # From v7 to v8 at most, and never back.
        assert found == sorted(found), session

    half = (halfway["epoch"], halfway["revision"])
    chosen = {each.session: each.version for each in answers if each.route == half}
    assert (weights[half]["v8"], len(chosen)) == (50, len(SESSIONS))
    by_new = sum(version == "v8" for version in chosen.values())
    # Four standard deviations: once in fifteen thousand such runs.
    assert abs(by_new - 150) <= 4 * math.sqrt(300 * 0.5 * 0.5)
    report = delivery.report("busy")
    assert report["mispaired"] == 0
    totals = Counter(each.version for each in answers)
    found = {index: total["queries"] for index, total in report["totals"].items()}
    assert found[delivery.index("busy", "v7")] >= totals["v7"]
    assert found[delivery.index("busy", "v8")] >= totals["v8"]
    assert all(total["errors"] == 0 for total in report["totals"].values())


def in_order(answers: list[Answer]) -> dict[str, list[str]]:
    """Return the versions that answered each session, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for each in answers:
        found[each.session].append(each.version)
    return found


def test_a_frozen_operator_changes_no_answer_and_the_next_one_goes_on_from_where_it_was(delivery: Delivery) -> None:
    stage, first = delivery.stage, delivery.stage.operator
    before, route = halfway(delivery, "frozen")

    workers = first.freeze()
    assert versions(delivery, "frozen") == before
    takes_over(delivery)

    try:
        assert versions(delivery, "frozen") == before
        delivery.ask("frozen")
        assert delivery.status("frozen")["route"] == route
        done = stage.run("approve", "frozen")
        assert done.returncode == 0, done.stderr
        delivery.wait_for("frozen", "UpToDate", v8=100)
        status, lines = delivery.status("frozen"), len(first.lines())
        assert status["writer"]["epoch"] == route["epoch"] + 1

        first.thaw(workers)
        assert first.process is not None and first.process.wait(PATIENCE) == LOST

        stage.wait_for_resyncs(2)
        after = delivery.status("frozen")
        assert [after[field] for field in ("route", "history", "writer")] == [
            status[field] for field in ("route", "history", "writer")
        ]
        assert delivery.answering("frozen") == {"v8"}
        late = [line["event"] for line in first.lines()[lines:]]
        assert "action_applied" not in late and late.count("lease_lost") == 1
    finally:
        if first.is_running():
            first.kill()


def test_a_killed_operator_changes_no_answer_and_the_next_one_goes_on_from_where_it_was(delivery: Delivery) -> None:
    stage = delivery.stage
    before, route = halfway(delivery, "killed")

    stage.operator.kill()
    assert versions(delivery, "killed") == before
    takes_over(delivery)

    delivery.ask("killed")
    assert delivery.status("killed")["route"] == route
    assert versions(delivery, "killed") == before
    delivery.want("killed", "v7")
    delivery.wait_for("killed", "UpToDate", v7=100)
    assert delivery.answering("killed") == {"v7"}


def halfway(delivery: Delivery, name: str) -> tuple[dict[str, str], Object]:
    """Lead a deployment to where a person is asked; return which version answers each session, and the route."""
    delivery.deploy(name, HALF)
    delivery.wait_for(name, "UpToDate", v7=100)
    delivery.want(name, "v8")
    delivery.ask(name)
    found = versions(delivery, name)
    assert set(found.values()) == {"v7", "v8"}
    return found, delivery.status(name)["route"]


def takes_over(delivery: Delivery) -> None:
    """Start another operator of the same settings; return once it acts in the place of the first."""
    stage = delivery.stage
    folder = Path(tempfile.mkdtemp(prefix="next-", dir=stage.folder))
    other = stage.operator = Operator(folder, stage.operator.environment)
    other.start()
    stage.wait(lambda: "lease_taken" in [line["event"] for line in other.lines()], "the next to take over")
