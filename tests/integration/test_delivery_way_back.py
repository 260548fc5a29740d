"""What does not answer: a way back that is practised and said to be shut, and what serves and keeps no fix away."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest
from tests.integration.delivery import HALF, PLACES, SUBJECTS, TEXT, VERSIONS, Delivery, delivering, documents
from tests.integration.operator_process import DEPLOYMENT, Object
from tests.servers import door
from tests.servers.door import Door
from tests.servers.openai_server import MODEL, OpenAIServer

from pointsman.controlplane import plane

pytestmark = pytest.mark.server

AT_ONCE: list[Object] = [{"weight": 100}]
BATCH = 20
"""Queries of one request, each of which may be one of the sample."""


@dataclass
class Room:
    """Two deployments of one dataset, and the way to the model of its v7: shut, that answers nobody."""

    delivery: Delivery
    way: Door


@pytest.fixture(scope="module")
def room(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with (
        delivering(control_plane, tmp_path_factory.mktemp("delivery")) as delivery,
        OpenAIServer() as server,
        door.before("127.0.0.1", server.port) as way,
    ):
        choice = {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 256}}
        versions = ({"name": "v7", "model": choice, "text": TEXT}, VERSIONS[1])
        endpoints = [{"name": "main", "baseURL": f"http://127.0.0.1:{way.port}/v1"}]
        delivery.stage.declare("asked", delivery.stage.write(documents(), "asked"), *versions, endpoints=endpoints)
        delivery.deploy("retaining", AT_ONCE, gates={}, dataset="asked", check={"every": "1m"})
        delivery.deploy("serving", strategy={"steps": HALF, "progressDeadline": "3m"}, dataset="asked")
        for name in ("retaining", "serving"):
            delivery.wait_for(name, "UpToDate", v7=100)
        delivery.want("retaining", "v8")
        delivery.wait_for("retaining", "UpToDate", v8=100)
        yield Room(delivery, way)


@pytest.fixture(scope="module")
def shut(room: Room) -> Room:
    """Return the room once the model of v7 is gone, and who is served by that wants another version."""
    room.way.shut()
    room.delivery.want("serving", "v8")
    return room


@contextlib.contextmanager
def asking(delivery: Delivery, name: str, edition: str) -> Iterator[set[tuple[int, str]]]:
    """Ask for something new all the time; yield the statuses and versions of all answers.

    A query that was asked before would be embedded by nobody: no two editions have one in common.
    """
    is_over, got = threading.Event(), set[tuple[int, str]]()
    url = f"{delivery.gateway.url()}/v1/namespaces/{delivery.stage.namespace}/indexes/{name}/search"
    texts = (f"{s} in {p}, {edition} edition, part {n}" for n in itertools.count() for s in SUBJECTS for p in PLACES)

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not is_over.is_set():
                answer = client.post(url, json={"query": list(itertools.islice(texts, BATCH)), "topK": 3})
                got.add((answer.status_code, answer.json().get("version", answer.text)))

    with ThreadPoolExecutor(1, "queries") as pool:
        asked = pool.submit(ask)
        try:
            yield got
        finally:
            is_over.set()
        asked.result()


def rollback_ready(delivery: Delivery, name: str) -> tuple[str, str, str]:
    """Return status, reason and message of what a deployment says of its way back."""
    found = delivery.stage.condition(DEPLOYMENT, name, "RollbackReady")
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


def test_a_drill_asks_the_way_back_real_queries_and_reports(room: Room) -> None:
    delivery, current = room.delivery, "v7@1 is complete and current; going back is one switch"
    delivery.stage.wait(lambda: rollback_ready(delivery, "retaining")[2] == current, current)

    with asking(delivery, "retaining", "first") as got:
        done = delivery.stage.run("drill", "retaining")

    assert done.returncode == 0, done.stderr + done.stdout
    assert got == {(200, "v8")}
    found = delivery.status("retaining")["drill"]
    assert (found["version"], found["queries"] >= 100, found.get("failed", 0)) == ("v7", True, 0)
    assert re.search(r"v7 was asked [\d,]+ real queries, 0 failed; [01]\.\d\d of the documents", done.stdout), done


def test_a_way_back_whose_model_is_gone_is_none_and_fails_a_drill(shut: Room) -> None:
    delivery, stage = shut.delivery, shut.delivery.stage

    with asking(delivery, "retaining", "second") as got:
        done = stage.run("drill", "retaining")
    stage.wait(lambda: rollback_ready(delivery, "retaining")[0] == "False", "the way back to be shut")

    _, reason, message = rollback_ready(delivery, "retaining")
    assert reason == "RetainedIndexDoesNotAnswer"
    assert re.match(r"v7@1 is kept, but was asked and does not answer: .*cannot be reached", message), message
    assert not delivery.status("retaining")["rollback"]["ready"]
    assert delivery.goal("retaining") == ("Ready", "UpToDate", "serving v8@1")
    assert done.returncode == 1, done.stderr + done.stdout
    assert got == {(200, "v8")}
    found = delivery.status("retaining")["drill"]
    assert 0 < found["failed"] <= found["queries"]
    assert f"v7 was asked {found['queries']:,} real queries, {found['failed']:,} failed" in done.stdout


def test_what_serves_and_answers_nobody_keeps_no_fix_away(shut: Room) -> None:
    delivery = shut.delivery

    delivery.ask("serving")

    (evaluation,) = (gate for gate in delivery.status("serving")["gates"] if gate["name"] == "evaluation")
    assert evaluation["verdict"] == "Passed"
    alone = r"nDCG@10 is [01]\.\d{3} over 60 groups, with nothing whole to compare with: v7 has not answered since .*"
    assert re.fullmatch(alone, evaluation["message"]), evaluation
    # Whoever is sent to what is broken is told so, and gets nobody else's answer.
    asked = [delivery.search("serving", str(number)) for number in range(40)]
    assert {got.json()["version"] for got in asked if got.status_code == 200} == {"v8"}
    refused = {(got.status_code, got.json()["error"]["code"]) for got in asked if got.status_code != 200}
    assert refused == {(503, "model_failed")}
    done = delivery.stage.run("approve", "serving")
    assert done.returncode == 0, done.stderr
    delivery.wait_for("serving", "UpToDate", v8=100)
    assert delivery.answering("serving") == {"v8"}


def test_a_way_back_whose_model_is_there_again_is_one(shut: Room) -> None:
    delivery, stage = shut.delivery, shut.delivery.stage
    stage.wait(lambda: rollback_ready(delivery, "retaining")[0] == "False", "the way back to be shut")

    shut.way.open()
    stage.wait(lambda: rollback_ready(delivery, "retaining")[0] == "True", "the way back to be open")

    assert rollback_ready(delivery, "retaining")[1] == "RetainedIndexIsCurrent"
