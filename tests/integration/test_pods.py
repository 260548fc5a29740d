"""Embedding in Kubernetes Jobs on a real API server, with every pod a process of its own that may be killed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kubelet import Kubelet
from tests.integration.operator_process import DATASET, LEASE, Object, Stage, papers, running
from tests.integration.setting import Model
from tests.servers.openai_server import MODEL, OpenAIServer

from pointsman.controlplane import plane
from pointsman.core import digests

pytestmark = pytest.mark.server

TEXT = {"template": "{title}. {text}", "metadataFields": ["year"]}
VERSION: Object = {
    "name": "v7",
    "model": {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 256}},
    "text": TEXT,
}


@pytest.fixture
def model() -> Iterator[tuple[Model, str]]:
    found = Model(texts_per_second=400)
    with OpenAIServer(embed=found.embed) as server:
        yield found, server.url


@pytest.fixture
def stage(control_plane: plane.ControlPlane, tmp_path: Path) -> Iterator[Stage]:
    with running(
        control_plane, tmp_path / "stage", job_image="pointsman:test", job_store_shared="true", job_store_claim="store",
        lease_seconds=LEASE,
    ) as found:  # fmt: skip
        yield found


@pytest.fixture
def kubelet(stage: Stage) -> Iterator[Kubelet]:
    with Kubelet(stage).at_work() as found:
        yield found


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


def test_a_quota_that_is_used_up_after_the_first_pod_is_told_of_and_once_it_is_lifted_the_job_goes_on(
    stage: Stage, kubelet: Kubelet, model: tuple[Model, str]
) -> None:
    quotas = f"/api/v1/namespaces/{stage.namespace}/resourcequotas"
    hard = {"pods": "1"}
    quota = stage.admin.create(quotas, {"metadata": {"name": "one"}, "spec": {"hard": hard}})
    # Nobody keeps the count here that the first pod, once it has ended, would be taken off.
    counted = json.dumps({**quota, "status": {"hard": hard, "used": {"pods": "0"}}}).encode()
    stage.admin.request("PUT", f"{quotas}/one/status", counted, "application/json")
    declare(stage, model[1], 200, shards=2, parallelism=1)
    stage.wait(lambda: stage.said(DATASET, "papers")[0] == "JobRefused", "the refusal is told of")

    (job,) = stage.get(DATASET, "papers")["status"]["jobs"]
    message = f"no further pod of Job {job} could be created, as by a quota or a policy; kubectl describe job {job}"
    assert f"{message} names it; given up and created anew at" in stage.said(DATASET, "papers")[1]
    assert len(kubelet.started) == 1
    stage.admin.delete(f"{quotas}/one")
    stage.wait(lambda: stage.is_ready(DATASET, "papers"), "the dataset is ready")
    assert len(kubelet.started) == 2
