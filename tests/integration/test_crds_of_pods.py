"""What the API server lets through, and refuses, of where a dataset is kept and of the pods that embed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pointsman import errors
from pointsman.controlplane import admin, plane

CRDS = Path(__file__).parents[2] / "crds"
STORE = {"uri": "s3://vectors/papers", "credentialsRef": {"name": "store"}}
POD = {
    "shards": 200,
    "parallelism": 50,
    "resources": {"requests": {"cpu": "500m", "memory": "4Gi"}, "limits": {"nvidia.com/gpu": "1"}},
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "queueName": "gpus",
    "priorityClassName": "low",
    "deadline": "24h",
    "startDeadline": "30m",
}


class User:
    """Whoever writes datasets into a namespace."""

    def __init__(self, control_plane: plane.ControlPlane, namespace: str) -> None:
        admin.apply_crds(control_plane.kubeconfig, CRDS)
        self._admin = control_plane.admin()
        self._path = f"/apis/pointsman.dev/v1alpha1/namespaces/{namespace}/embeddingdatasets"

    def create(self, **spec: Any) -> dict[str, Any]:
        whole = {
            "source": {"files": {"uri": "file:///data/a.jsonl", "format": "jsonl"}, "idField": "id"},
            "versions": [{"name": "v7", "model": {"wordllama": {}}}],
            **spec,
        }
        body = {"apiVersion": "pointsman.dev/v1alpha1", "kind": "EmbeddingDataset", "spec": whole}
        return dict(self._admin.create(self._path, {**body, "metadata": {"generateName": "papers-"}}))

    def refused(self, **spec: Any) -> str:
        with pytest.raises(errors.Terminal) as found:
            self.create(**spec)
        return found.value.message

    def edit_refused(self, made: dict[str, Any], patch: bytes) -> str:
        with pytest.raises(errors.Terminal) as found:
            self.edit(made, patch)
        return found.value.message

    def edit(self, made: dict[str, Any], patch: bytes) -> None:
        where = f"{self._path}/{made['metadata']['name']}"
        self._admin.request("PATCH", where, patch, "application/merge-patch+json")


@pytest.fixture
def user(control_plane: plane.ControlPlane, namespace: str) -> User:
    return User(control_plane, namespace)


def test_pods_are_described_as_kubernetes_does_and_nothing_is_filled_in(user: User) -> None:
    made = user.create(store=STORE, work={"mode": "Job", "job": POD})

    assert made["spec"]["work"] == {"mode": "Job", "job": POD}
    assert made["spec"]["store"] == STORE


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"resources": {"limits": {"memory": "4 gigabytes"}}}, "must be a quantity, such as 500m, 2 or 4Gi"),
        ({"deadline": "10s"}, "deadline must be 1m or more"),
        ({"startDeadline": "10s"}, "startDeadline must be 1m or more"),
        ({"shards": 0}, "should be greater than or equal to 1"),
    ],
    ids=["no quantity", "a short deadline", "a short wait", "no shard"],
)
def test_pods_that_make_no_sense_are_refused_in_a_sentence(user: User, job: dict[str, Any], said: str) -> None:
    assert said in user.refused(work={"mode": "Job", "job": job})


def test_what_pods_run_is_not_for_a_tenant_to_say(user: User) -> None:
    made = user.create(work={"mode": "Job", "job": {"shards": 2, "image": "evil", "command": ["evil"]}})

    # The API server drops what it does not know: it never reaches a pod.
    assert made["spec"]["work"]["job"] == {"shards": 2}


@pytest.mark.parametrize("uri", ["file:///store", "s3://Vectors", "https://bucket", "s3://bucket/../other"])
def test_a_store_is_a_bucket_and_a_plain_prefix(user: User, uri: str) -> None:
    assert "must be s3://bucket/prefix" in user.refused(store={**STORE, "uri": uri})


def test_a_prefix_may_have_dots_inside_its_names(user: User) -> None:
    assert user.create(store={**STORE, "uri": "s3://bucket.eu/a.b/c_d=1"})


def test_a_store_never_moves_and_its_secret_may(user: User) -> None:
    made, without = user.create(store=STORE), user.create()

    user.edit(made, b'{"spec":{"store":{"credentialsRef":{"name":"rotated"}}}}')
    assert "the store cannot be moved" in user.edit_refused(made, b'{"spec":{"store":{"uri":"s3://other/papers"}}}')
    assert "a store cannot be added or taken away" in user.edit_refused(made, b'{"spec":{"store":null}}')
    added = b'{"spec":{"store":{"uri":"s3://a/b","credentialsRef":{"name":"s"}}}}'
    assert "a store cannot be added or taken away" in user.edit_refused(without, added)
