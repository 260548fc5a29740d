"""The command line against a real API server, whose statuses this test writes in the operator's place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointsman.api import approval
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
PLURALS = {"Approval": "approvals", "IndexDeployment": "indexdeployments"}
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

    def edit(self, plural: str, spec: dict[str, Any], manager: str = "kubectl-edit") -> None:
        body = json.dumps({"spec": spec}).encode()
        path = f"{self._base}/{plural}/papers?fieldManager={manager}"
        self._admin.request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, plural: str, name: str) -> None:
        self._admin.delete(f"{self._base}/{plural}/{name}")

    def approvals(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._admin.get(f"{self._base}/approvals")["items"]
        return found

    def commit(self, printed: str) -> None:
        """Apply what a command has printed, as whoever applies from Git would."""
        for resource in yaml.safe_load_all(printed):
            plural, name = PLURALS[resource["kind"]], resource["metadata"]["name"]
            if resource["kind"] == "Approval":
                self._admin.create(f"{self._base}/{plural}", resource)
            else:
                body = json.dumps(resource).encode()
                self._admin.request("PATCH", f"{self._base}/{plural}/{name}", body, "application/merge-patch+json")

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


@pytest.fixture
def migrating(cluster: Cluster) -> Cluster:
    """A deployment that asks a person to let v8 go wide while v7 serves, by a status that no operator wrote."""
    v8 = {"name": "v8", "model": {"wordllama": {"dimensions": 128}}}
    steps = [{"weight": 10}, {"approval": {"name": "go-wide"}}, {"weight": 100}]
    spec = {"version": "v8", "strategy": {"steps": steps}}
    cluster.edit("embeddingdatasets", {"versions": [*DATASET["versions"], v8]})
    cluster.edit("indexdeployments", spec)
    since = {"reason": "APersonIsAsked", "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    goals = goal("Reconciling", "v8 waits")
    status = {
        "observedGeneration": 2,
        "planHash": "3f2a9c",
        "servingVersion": "v7",
        "targetVersion": "v8",
        "weight": "v8 10, v7 90",
        "conditions": [
            *({**each, **since} for each in goals),
            {**goals[0], **since, "type": "AwaitingApproval", "status": "True"},
        ],
        "step": {"name": "Approval", "index": 2, "of": 3, "startedAt": "2026-01-01T00:00:00Z"},
        "rejected": [{"version": "v5", "reason": "GateFailed", "message": "worse", "at": "2026-01-01T00:00:00Z"}],
        "indexes": [
            {"name": "pm_papers_v7", "version": "v7", "recipe": "r7", "role": "Serving"},
            {"name": "pm_papers_v8", "version": "v8", "recipe": "r8", "role": "Candidate"},
        ],
    }
    cluster.report("indexdeployments", status)
    return cluster


@pytest.mark.parametrize(
    ("command", "spec"),
    [
        (["approve"], {"decision": "Approve", "answers": "go-wide", "planHash": "3f2a9c"}),
        (["reject", "go-wide"], {"decision": "Reject", "answers": "go-wide", "planHash": "3f2a9c"}),
        (["abort", "--for", "1h"], {"decision": "Abort"}),
    ],
    ids=["approve", "reject", "abort"],
)
def test_a_decision_is_admitted_as_it_is_made_and_as_it_is_committed(
    migrating: Cluster, run: Run, command: list[str], spec: dict[str, Any]
) -> None:
    verb, *rest = command

    code, printed, _ = run(verb, "papers", *rest, "-o", "patch")
    assert (code, migrating.approvals()) == (0, [])
    migrating.commit(printed)
    (committed,) = migrating.approvals()
    migrating.delete("approvals", committed["metadata"]["name"])
    assert run(verb, "papers", *rest)[0] == 0
    (made,) = migrating.approvals()

    whole = {"target": {"kind": "IndexDeployment", "name": "papers"}, "version": "v8", **spec}
    for each in (committed, made):
        found = approval.Spec.model_validate(each["spec"]).dump()
        assert {
            key: value for key, value in found.items() if key not in ("expiresAt", "approvedBy", "comment")
        } == whole
    # A person who decides is known to the API server; of whoever commits, the commit says it.
    assert made["spec"]["approvedBy"] != ""
    assert "approvedBy" not in committed["spec"]
    assert migrating.get("indexdeployments")["metadata"]["generation"] == 2


def test_what_was_approved_a_moment_ago_is_not_approved_again(migrating: Cluster, run: Run) -> None:
    assert run("approve", "papers")[0] == 0

    code, out, _ = run("approve", "papers")

    assert code == 0
    assert "answers go-wide already" in out
    assert len(migrating.approvals()) == 1


def test_an_abort_is_withdrawn(migrating: Cluster, run: Run) -> None:
    assert run("abort", "papers")[0] == 0

    code, out, _ = run("abort", "papers", "--withdraw")

    assert code == 0
    assert out.endswith("; v8 is what the spec wants: it goes on its way again\n")
    assert migrating.approvals() == []


@pytest.mark.parametrize(
    ("command", "edit"),
    [
        (["rollback", "papers"], {"version": "v7"}),
        (["promote", "papers", "v7"], {"version": "v7"}),
        (["pause", "papers"], {"suspend": True}),
        (["retry", "papers", "--value", "again"], {"retry": "again"}),
    ],
    ids=["rollback", "promote", "pause", "retry"],
)
def test_an_edit_comes_to_the_same_as_its_patch(
    migrating: Cluster, run: Run, command: list[str], edit: dict[str, Any]
) -> None:
    before = migrating.get("indexdeployments")["spec"]
    undone = {key: before.get(key) for key in edit}

    code, printed, _ = run(*command, "-o", "patch")
    assert code == 0
    assert migrating.get("indexdeployments")["spec"] == before
    migrating.commit(printed)
    committed = migrating.get("indexdeployments")["spec"]
    migrating.edit("indexdeployments", undone)
    assert run(*command)[0] == 0

    assert committed == {**before, **edit}
    assert migrating.get("indexdeployments")["spec"] == committed


def test_pausing_is_taken_back_by_resuming(migrating: Cluster, run: Run) -> None:
    assert [run(command, "papers")[0] for command in ("pause", "resume")] == [0, 0]

    assert migrating.get("indexdeployments")["spec"]["suspend"] is False


def test_git_that_will_undo_an_edit_is_known_by_the_fields_that_it_owns(migrating: Cluster, run: Run) -> None:
    migrating.edit("indexdeployments", {"version": "v8", "retry": "1"}, manager="argocd-controller")

    _, _, err = run("rollback", "papers")

    assert err.startswith("mind: Argo CD applies this from Git and puts spec.version back")


def test_why_and_explain_read_what_the_api_server_holds(migrating: Cluster, run: Run) -> None:
    code, out, _ = run("why", "papers")

    assert code == 0
    assert f"  answer   pointsman approve papers go-wide -n {migrating.namespace}" in out.splitlines()
    code, out, _ = run("explain", "papers", "-o", "json")
    assert (code, json.loads(out)["planHash"]) == (0, "3f2a9c")


def test_an_evaluation_and_a_drill_are_asked_for_without_a_new_generation(migrating: Cluster, run: Run) -> None:
    spec = {"gates": {"evaluation": {"querySetRef": {"name": "papers-eval"}}}}
    migrating.edit("indexdeployments", spec)
    migrating.report("indexdeployments", {"rollback": {"ready": True, "to": "v6"}})

    assert [run(command, "papers", "--no-wait")[0] for command in ("evaluate", "drill")] == [0, 0]

    metadata = migrating.get("indexdeployments")["metadata"]
    assert metadata["generation"] == 3
    assert metadata["annotations"].keys() >= {"pointsman.dev/evaluate", "pointsman.dev/drill"}


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
