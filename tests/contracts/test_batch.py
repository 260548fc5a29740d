"""What embedding in pods relies on of Jobs, in memory and on a real API server alike."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import pytest
from tests.unit.carrying import Enough
from tests.unit.test_job_carrier import Room
from tests.unit.test_sharding import RECIPE

from pointsman.api.conditions import Reason
from pointsman.cluster import job_objects
from pointsman.cluster.batch import OWNER, Batch
from pointsman.cluster.kube import Kube
from pointsman.cluster.kube_batch import KubeBatch
from pointsman.cluster.memory_batch import MemoryBatch
from pointsman.cluster.resources import DATASET
from pointsman.cluster.rest import Rest
from pointsman.controlplane import admin, plane
from pointsman.errors import Retryable
from pointsman.plan.tasks import Embed, Key
from pointsman.store.ledger import Attempt

CRDS = Path(__file__).parents[2] / "crds"


@dataclass
class Bench:
    """Jobs, and what an administrator does behind their back."""

    batch: Batch
    namespace: str
    forbid: Callable[[], None]
    """Has the cluster refuse all Jobs from now on."""


@pytest.fixture
def memory() -> Bench:
    batch = MemoryBatch()

    def forbid() -> None:
        batch.refusal = "exceeded quota: jobs"

    return Bench(batch, "search", forbid)


@pytest.fixture
def real(control_plane: plane.ControlPlane, namespace: str) -> Iterator[Bench]:
    admin.apply_crds(control_plane.kubeconfig, CRDS)
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    administrator = control_plane.admin()

    def forbid() -> None:
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        made = administrator.create(path, {"metadata": {"name": "jobs"}, "spec": {"hard": {"count/jobs.batch": "0"}}})
        # Whoever counts what is there must have counted once; there is nobody here but us.
        status = b'{"status":{"hard":{"count/jobs.batch":"0"},"used":{"count/jobs.batch":"0"}}}'
        where = f"{path}/{made['metadata']['name']}/status"
        administrator.request("PATCH", where, status, "application/merge-patch+json")

    with kubernetes.client.ApiClient(configuration) as client:
        yield Bench(KubeBatch(Kube(Rest(client)).call), namespace, forbid)


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.controlplane)])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


def job(name: str, owner: str = "u1", **spec: Any) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "shard", "image": "pointsman:test"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {OWNER: owner}},
        "spec": {
            "completionMode": "Indexed", "completions": 2, "parallelism": 2, "suspend": True,
            "template": {"spec": pod}, **spec,
        },
    }  # fmt: skip


def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_is_created_once(bench: Bench) -> None:
    assert bench.batch.job(bench.namespace, "a") is None
    bench.batch.create(bench.namespace, job("a"))
    bench.batch.create(bench.namespace, job("a", completions=5))

    found = bench.batch.job(bench.namespace, "a")
    assert found is not None
    assert found["spec"]["completions"] == 2
    assert job_objects.created_at(found).tzinfo is not None
    assert not job_objects.is_ended(found)
    assert job_objects.going_since(found) is None


def test_the_jobs_of_a_dataset_are_found_by_its_uid(bench: Bench) -> None:
    for name, owner in (("a", "u1"), ("b", "u1"), ("c", "u2")):
        bench.batch.create(bench.namespace, job(name, owner))

    assert sorted(each["metadata"]["name"] for each in bench.batch.jobs(bench.namespace, "u1")) == ["a", "b"]
    assert bench.batch.jobs(bench.namespace, "u3") == []


def test_a_job_is_suspended_and_let_go_on(bench: Bench) -> None:
    bench.batch.create(bench.namespace, job("a"))
    for is_suspended in (False, True):
        bench.batch.suspend(bench.namespace, "a", is_suspended)
        found = bench.batch.job(bench.namespace, "a")
        assert found is not None and found["spec"]["suspend"] is is_suspended


def test_a_job_that_is_deleted_goes_and_may_be_deleted_again(bench: Bench) -> None:
    bench.batch.create(bench.namespace, job("a"))
    bench.batch.delete(bench.namespace, "a")
    until(lambda: bench.batch.job(bench.namespace, "a") is None)

    bench.batch.delete(bench.namespace, "a")
    assert bench.batch.pods(bench.namespace, "a") == []


def test_what_the_cluster_refuses_is_told_in_its_own_words(bench: Bench) -> None:
    bench.forbid()
    errors: list[Retryable] = []

    def is_refused() -> bool:
        # It takes the API server a moment to learn of a quota.
        try:
            bench.batch.create(bench.namespace, job(f"a-{time.monotonic_ns()}"))
        except Retryable as error:
            errors.append(error)
        return bool(errors)

    until(is_refused)
    assert errors[0].reason is Reason.JOB_REFUSED
    assert "exceeded quota: jobs" in errors[0].message
    assert errors[0].message.startswith("the cluster refuses Job a-")


@pytest.mark.controlplane
def test_the_job_of_an_attempt_is_one_that_the_api_server_admits(real: Bench, tmp_path: Path) -> None:
    room = Room(tmp_path, queueName="gpus", nodeSelector={"pool": "gpu"}, resources={"limits": {"nvidia.com/gpu": "1"}})
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    (made,) = room.batch.all()
    wanted = {**made, "metadata": {**made["metadata"], "namespace": real.namespace}}
    for volatile in ("creationTimestamp", "ownerReferences"):
        del wanted["metadata"][volatile]
    del wanted["status"]

    real.batch.create(real.namespace, wanted)

    found = real.batch.job(real.namespace, made["metadata"]["name"])
    assert found is not None
    rules = [rule["action"] for rule in found["spec"]["podFailurePolicy"]["rules"]]
    assert rules == ["Ignore", "Ignore", "FailIndex", "FailJob"]
    assert found["spec"]["backoffLimitPerIndex"] == 6
    assert found["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert job_objects.of(found) == (room.job().task.recipe, 1)  # type: ignore[union-attr]


@pytest.mark.controlplane
@pytest.mark.parametrize(
    ("dataset", "version", "attempt"),
    [("papers.v2", "v7", 1), ("a." * 31 + "a", "v" * 40, 999_999), ("1.0-.b", "v1.", 1)],
    ids=["a dot", "as long as can be", "dots and dashes"],
)
def test_a_job_of_any_dataset_has_a_name_that_its_pods_may_bear(
    real: Bench, tmp_path: Path, dataset: str, version: str, attempt: int
) -> None:
    room = Room(tmp_path)
    task = Embed(Key(DATASET, real.namespace, dataset), version, RECIPE.key, 1)
    job = dataclasses.replace(room.job(), task=task)
    # The version of the spec is looked up by its name.
    assert job.dataset is not None
    versions = [job.dataset.versions[0].model_copy(update={"name": version})]
    job = dataclasses.replace(job, dataset=job.dataset.model_copy(update={"versions": versions}))
    made = job_objects.manifest(job, task, RECIPE, Attempt(attempt, 1000, tuple(range(1000))), room.pods)
    del made["metadata"]["ownerReferences"]

    real.batch.create(real.namespace, made)

    assert real.batch.job(real.namespace, made["metadata"]["name"]) is not None
