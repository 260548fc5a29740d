"""The command line against a real API server, whose statuses this test writes in the operator's place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pointsman.cli import main
from pointsman.controlplane import admin, plane

pytestmark = pytest.mark.controlplane

CRDS = Path(__file__).parents[2] / "crds"
GROUP = "pointsman.dev/v1alpha1"
Run = Callable[..., tuple[int, str, str]]

DATASET = {
    "source": {"files": {"uri": "file:///corpus/*.jsonl", "format": "jsonl"}, "idField": "id"},
    "versions": [{"name": "v7", "model": {"wordllama": {"dimensions": 64}}}],
}
DEPLOYMENT = {"datasetRef": {"name": "papers"}, "version": "v7", "backend": {"memory": {}}}


class Cluster:
    """An API server with our definitions and one namespace, and a hand that writes what an operator would."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self._admin = admin.Admin(kubeconfig)
        self._base = f"/apis/{GROUP}/namespaces/{namespace}"

    def create(self, kind: str, plural: str, spec: dict[str, Any]) -> None:
        body = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": "papers"}, "spec": spec}
        self._admin.create(f"{self._base}/{plural}", body)

    def get(self, plural: str) -> dict[str, Any]:
        return self._admin.get(f"{self._base}/{plural}/papers")

    def report(self, plural: str, status: dict[str, Any]) -> None:
        body = json.dumps({"status": status}).encode()
        path = f"{self._base}/{plural}/papers/status"
        self._admin.request("PATCH", path, body, "application/merge-patch+json")


@pytest.fixture
def cluster(control_plane: plane.ControlPlane, namespace: str) -> Cluster:
    admin.apply_crds(control_plane.kubeconfig, CRDS)
    cluster = Cluster(control_plane.kubeconfig, namespace)
    cluster.create("EmbeddingDataset", "embeddingdatasets", DATASET)
    cluster.create("IndexDeployment", "indexdeployments", DEPLOYMENT)
    return cluster


@pytest.fixture
def run(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main.run([*arguments, "--kubeconfig", str(cluster.kubeconfig), "-n", cluster.namespace])
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


def goal(holds: str, message: str) -> list[dict[str, Any]]:
    return [
        {
            "type": kind,
            "status": str(kind == holds),
            "observedGeneration": 1,
            "lastTransitionTime": "2031-05-01T12:00:00Z",
            "reason": "UpToDate",
            "message": message,
        }
        for kind in ("Ready", "Reconciling", "Stalled")
    ]


def test_the_tree_shows_what_the_api_server_holds(cluster: Cluster, run: Run) -> None:
    code, out, _ = run("get")

    assert code == 0
    assert [line.split()[:2] for line in out.splitlines() if "Unseen" in line] == [
        ["dataset", "papers"],
        ["└─", "deployment"],
    ]


def test_a_status_that_was_just_written_is_judged(cluster: Cluster, run: Run) -> None:
    assert run("status", "idx/papers", "--no-watch")[0] == 2

    cluster.report("indexdeployments", {"conditions": goal("Ready", "serving v7@1")})
    code, out, _ = run("status", "idx/papers")

    assert (code, out) == (0, "    0s  deployment papers  Ready (UpToDate): serving v7@1\n")


def test_a_refresh_is_asked_for_without_a_new_generation(cluster: Cluster, run: Run) -> None:
    assert run("refresh", "papers")[0] == 0

    metadata = cluster.get("embeddingdatasets")["metadata"]
    assert metadata["generation"] == 1
    assert metadata["annotations"].keys() >= {"pointsman.dev/refresh"}


def test_a_cluster_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nowhere = tmp_path / "config"
    nowhere.write_text(
        """
        apiVersion: v1
        kind: Config
        current-context: c
        contexts: [{name: c, context: {cluster: c, user: u}}]
        users: [{name: u, user: {token: none}}]
        clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
        """
    )

    code = main.run(["get", "--kubeconfig", str(nowhere)])

    assert code == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the Kubernetes API could not be reached")
