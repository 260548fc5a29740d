"""Embedding in Kubernetes Jobs on a real API server, with every pod a process of its own that may be killed.

The controller of Jobs is Kubernetes' own. A kubelet is not there, so the test plays one: it runs what each pod says as
a process, and writes into the pod's status what becomes of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.integration.operator_process import DATASET, LEASE, ROOT, Object, Stage, papers, running
from tests.integration.setting import Model
from tests.servers import processes
from tests.servers.openai_server import MODEL, OpenAIServer

from pointsman import errors
from pointsman.controlplane import plane
from pointsman.core import digests

pytestmark = pytest.mark.server

TEXT = {"template": "{title}. {text}", "metadataFields": ["year"]}
VERSION: Object = {
    "name": "v7",
    "model": {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 256}},
    "text": TEXT,
}


@dataclass
class Kubelet:
    """Runs the pods of one namespace as processes: starts what their templates say, and says how they end."""

    stage: Stage
    pods: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started: list[Object] = field(default_factory=list)
    kills: Callable[[], bool] = lambda: False
    """Whether a pod is to be killed now; asked at every look."""

    def look(self) -> None:
        """See every pod one step further."""
        pods = self.stage.admin.get(self._path())["items"]
        for pod in pods:
            name, phase = pod["metadata"]["name"], pod["status"].get("phase")
            process = self.pods.get(name)
            if process is None and phase == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                self.pods[name] = self._process(pod)
                self.started.append(pod)
                self._report(name, "Running", {"running": {}})
            elif process is not None and process.poll() is not None:
                del self.pods[name]
                code = process.returncode if process.returncode >= 0 else 128 - process.returncode
                self._report(name, "Failed" if code else "Succeeded", {"terminated": {"exitCode": code}})
            elif process is not None and self.kills():
                process.kill()
        there = {pod["metadata"]["name"] for pod in pods}
        for name in self.pods.keys() - there:
            # It was deleted: its process ends as the kubelet would have it end.
            self._end(self.pods.pop(name))

    def stop(self) -> None:
        """End all pods."""
        for process in self.pods.values():
            self._end(process)

    def _process(self, pod: Object) -> subprocess.Popen[bytes]:
        (container,) = pod["spec"]["containers"]
        environment = {each["name"]: each.get("value", "") for each in container["env"]}
        index = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
        mine = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator")}
        with (self.stage.folder / "pods.log").open("ab") as log:
            return processes.start(
                [sys.executable, "-m", "pointsman.cli.main", *container["command"][1:]],
                signal.SIGKILL,
                env={**mine, **environment, "JOB_COMPLETION_INDEX": index},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _report(self, name: str, phase: str, state: Object) -> None:
        container = {"name": "shard", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        body = json.dumps({"status": {"phase": phase, "containerStatuses": [container]}}).encode()
        # A pod that went meanwhile needs no status.
        with contextlib.suppress(errors.Terminal):
            self.stage.admin.request("PATCH", f"{self._path(name)}/status", body, "application/merge-patch+json")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait()

    def _path(self, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self.stage.namespace}/pods"
        return f"{path}/{name}" if name else path


@pytest.fixture
def model() -> Iterator[tuple[Model, str]]:
    found = Model(texts_per_second=400)
    with OpenAIServer(embed=found.embed) as server:
        yield found, server.url


@pytest.fixture
def stage(control_plane: plane.ControlPlane, tmp_path: Path) -> Iterator[Stage]:
    with running(
        control_plane, tmp_path / "stage", job_image="pointsman:test", job_store_shared="true", lease_seconds=LEASE
    ) as found:
        yield found


@pytest.fixture
def kubelet(stage: Stage) -> Iterator[Kubelet]:
    found, is_over = Kubelet(stage), threading.Event()

    def run() -> None:
        while not is_over.wait(0.2):
            found.look()

    thread = threading.Thread(target=run, name="kubelet")
    thread.start()
    yield found
    is_over.set()
    thread.join()
    found.stop()


def declare(stage: Stage, url: str, count: int, **job: Any) -> None:
    stage.declare(
        "papers",
        stage.write(papers(count)),
        VERSION,
        endpoints=[{"name": "main", "baseURL": url}],
        work={"mode": "Job", "job": {"shards": 3, **job}},
    )


def kept(stage: Stage, asked: Model) -> set[str]:
    """Return the texts whose vectors the ledger has by now."""
    dataset = stage.store().dataset(stage.namespace, "papers")
    (recipe,) = dataset.pins().values()
    ledger, side = dataset.ledger(recipe.key, 1), recipe.space.document_side
    found = {key for number in ledger.finished() for key in ledger.keys(number).to_pylist()}
    for number in ledger.spilled():
        found |= {key for batch in ledger.spills(number) for key in batch.column("content_key").to_pylist()}
    return {text for text in asked.documents() if digests.content_key(side, text) in found}


def test_pods_that_are_killed_at_random_embed_what_one_process_would(
    stage: Stage, kubelet: Kubelet, model: tuple[Model, str]
) -> None:
    asked, url = model
    kills: list[tuple[int, set[str]]] = []

    def is_time() -> bool:
        documents = len(asked.documents())
        if len(kills) < 4 and documents > 80 * (1 + len(kills)):
            # In this order: what is asked for in between is then not taken for asked again.
            texts = kept(stage, asked)
            kills.append((len(asked.sent), texts))
            return True
        return False

    kubelet.kills = is_time
    declare(stage, url, 600)
    stage.wait(lambda: stage.is_ready(DATASET, "papers"), "the dataset is ready")

    ((_, _, rows, digest),) = stage.embedded("papers")
    assert rows == 600
    assert len(kills) == 4 and len(kubelet.started) > 3
    # What was kept when a pod was killed is never asked for again; what was under way is, of one portion at most.
    for position, texts in kills:
        assert texts.isdisjoint(asked.sent[position:])
    assert any(texts for _, texts in kills)
    assert len(asked.documents()) - 600 <= 4 * 50
    stage.declare("alone", stage.write(papers(600), "alone"), VERSION, endpoints=[{"name": "main", "baseURL": url}])
    stage.wait(lambda: stage.is_ready(DATASET, "alone"), "the other dataset is ready")
    assert stage.embedded("alone")[0][3] == digest
    assert stage.get(DATASET, "papers")["status"].get("jobs", []) == []


def test_suspending_ends_the_pods_and_going_on_loses_nothing(
    stage: Stage, kubelet: Kubelet, model: tuple[Model, str]
) -> None:
    asked, url = model
    declare(stage, url, 400)
    stage.wait(lambda: len(asked.documents()) > 50, "pods embed")
    stage.edit(DATASET, "papers", suspend=True)
    stage.wait(lambda: not kubelet.pods and stage.said(DATASET, "papers")[0] == "Suspended", "the pods have ended")
    position, texts = len(asked.sent), kept(stage, asked)
    stage.edit(DATASET, "papers", suspend=False)
    stage.wait(lambda: stage.is_ready(DATASET, "papers"), "the dataset is ready")

    assert texts and texts.isdisjoint(asked.sent[position:])
    (job,) = stage.admin.get(f"/apis/batch/v1/namespaces/{stage.namespace}/jobs")["items"]
    assert job["spec"]["suspend"] is False


def test_an_operator_that_takes_over_adopts_the_job(stage: Stage, kubelet: Kubelet, model: tuple[Model, str]) -> None:
    asked, url = model
    declare(stage, url, 400)
    stage.wait(lambda: len(asked.documents()) > 50, "pods embed")
    stage.operator.kill()
    stage.operator.start()
    stage.wait(lambda: stage.is_ready(DATASET, "papers"), "the dataset is ready")

    assert len({pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] for pod in kubelet.started}) == 1
    assert max(Counter(asked.documents()).values()) == 1


def test_a_job_that_nobody_admits_is_told_of_and_goes_with_its_dataset(
    stage: Stage, kubelet: Kubelet, model: tuple[Model, str]
) -> None:
    declare(stage, model[1], 40, queueName="gpus")
    stage.wait(lambda: stage.said(DATASET, "papers")[0] == "JobNotAdmitted", "the queue is named")

    (job,) = stage.admin.get(f"/apis/batch/v1/namespaces/{stage.namespace}/jobs")["items"]
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    said = stage.said(DATASET, "papers")[1]
    assert f"queue gpus has not admitted Job {job['metadata']['name']} since" in said
    assert "given up and created anew at" in said
    assert stage.get(DATASET, "papers")["status"]["jobs"] == [job["metadata"]["name"]]
    stage.delete(DATASET, "papers")
    stage.wait(lambda: not stage.exists(DATASET, "papers"), "the dataset is gone")
    assert stage.admin.get(f"/apis/batch/v1/namespaces/{stage.namespace}/jobs")["items"] == []
    assert stage.store().dataset(stage.namespace, "papers").pins() == {}
    assert kubelet.started == []
    assert model[0].documents() == []
