"""Is there a way back? It is practised with real queries, and said to be shut while nobody answers there."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.integration.delivery import PLACES, SUBJECTS, TEXT, VERSIONS, Delivery, delivering, documents
from tests.integration.operator_process import DEPLOYMENT, Object
from tests.servers import door
from tests.servers.door import Door
from tests.servers.openai_server import MODEL, OpenAIServer

from pointsman.controlplane import plane

pytestmark = pytest.mark.server

AT_ONCE: list[Object] = [{"weight": 100}]
BATCH = 20
"""Queries of one request, each of which may be one of the sample."""


@pytest.fixture(scope="module")
def delivery(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    with delivering(control_plane, tmp_path_factory.mktemp("delivery")) as delivery:
        yield delivery


@pytest.fixture
def way(delivery: Delivery) -> Iterator[Door]:
    """The way to the model of v7, which a dataset of its own has."""
    with OpenAIServer() as server, door.before("127.0.0.1", server.port) as way:
        choice = {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 256}}
        versions = ({"name": "v7", "model": choice, "text": TEXT}, VERSIONS[1])
        endpoints = [{"name": "main", "baseURL": f"http://127.0.0.1:{way.port}/v1"}]
        uri = delivery.stage.write(documents(), "asked")
        delivery.stage.declare("asked", uri, *versions, endpoints=endpoints)
        yield way


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


def test_a_drill_reports_and_a_way_back_whose_model_is_gone_is_none_until_it_is_there_again(
    delivery: Delivery, way: Door
) -> None:
    stage, current = delivery.stage, "v7@1 is complete and current; going back is one switch"
    delivery.deploy("asked", AT_ONCE, gates={}, dataset="asked", check={"every": "1m"})
    delivery.wait_for("asked", "UpToDate", v7=100)
    delivery.want("asked", "v8")
    delivery.wait_for("asked", "UpToDate", v8=100)
    ready = ("True", "RetainedIndexIsCurrent", current)
    stage.wait(lambda: rollback_ready(delivery, "asked") == ready, current)

    with asking(delivery, "asked", "first") as got:
        done = stage.run("drill", "asked")
    assert done.returncode == 0, done.stderr + done.stdout
    assert got == {(200, "v8")}
    found = delivery.status("asked")["drill"]
    assert (found["version"], found["queries"] >= 100, found.get("failed", 0)) == ("v7", True, 0)
    assert re.search(r"v7 was asked [\d,]+ real queries, 0 failed; [01]\.\d\d of the documents", done.stdout), done

    way.shut()
    with ThreadPoolExecutor(1, "drill") as pool, asking(delivery, "asked", "second") as got:
        drill = pool.submit(stage.run, "drill", "asked")
        stage.wait(lambda: rollback_ready(delivery, "asked")[0] == "False", "the way back to be shut")
        _, reason, message = rollback_ready(delivery, "asked")
        assert reason == "RetainedIndexDoesNotAnswer"
        assert re.match(r"v7@1 is kept, but was asked and does not answer: .*cannot be reached", message), message
        assert delivery.status("asked")["rollback"]["to"] == "v7"
        assert not delivery.status("asked")["rollback"]["ready"]
        assert delivery.goal("asked") == ("Ready", "UpToDate", "serving v8@1")

        way.open()
        stage.wait(lambda: rollback_ready(delivery, "asked") == ready, "the way back to be there again")
        done = drill.result()

    assert done.returncode == 1, done.stderr + done.stdout
    assert got == {(200, "v8")}
    found = delivery.status("asked")["drill"]
    assert 0 < found["failed"] <= found["queries"]
    assert f"v7 was asked {found['queries']:,} real queries, {found['failed']:,} failed" in done.stdout
