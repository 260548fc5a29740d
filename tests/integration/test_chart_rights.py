"""The chart's rules are the verbs that are used: operator and gateway live a whole story as its service accounts.

Whatever they lack is refused by the API server and stands in its audit log; whatever they have and never use is found
by comparing that log with the rules.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.integration import chart, databases
from tests.integration.chart import FULLNAME, ROOT, Cluster, Object
from tests.integration.delivery import EVALUATED, HALF, JUDGED, VERSIONS, documents, judged
from tests.integration.gateway_process import GatewayProcess
from tests.integration.operator_process import APPROVAL, DATASET, DEPLOYMENT, QUERY_SET, Operator, Stage
from tests.servers import processes

from pointsman.controlplane import plane

pytestmark = [
    pytest.mark.helm,
    pytest.mark.controlplane,
    pytest.mark.server,
    chart.NEEDS_HELM,
]

OPERATOR, GATEWAY = f"{FULLNAME}-operator", f"{FULLNAME}-gateway"
HOME, WATCHED, NAME = "pointsman", "search", "papers"
IN_PODS = "films"
THEIRS = (NAME, IN_PODS, JUDGED, "go-wide")
"""How the names begin of what users name, and of what is named after that: no rule can name it."""
OF_MANY = frozenset({"create", "list", "watch"})
"""What RBAC holds to no name."""


@dataclass(frozen=True)
class Right:
    """What somebody may do, or has done; `namespace` and `name` are empty for all of them."""

    namespace: str
    group: str
    resource: str
    """With its part."""
    verb: str
    name: str

    def is_used_by(self, used: Right) -> bool:
        """Return whether this right was needed for what was done, and no narrower one would have done."""
        known = (self.namespace, self.group, self.resource, self.verb)
        if known != (used.namespace, used.group, used.resource, used.verb):
            return False
        return used.name == self.name if self.name else self.verb in OF_MANY or used.name.startswith(THEIRS)


@dataclass
class Lived:
    """What is left of the story."""

    cluster: Cluster
    stage: Stage
    gateway: GatewayProcess


def environment_of(cluster: Cluster, name: str) -> dict[str, str]:
    """Return the settings of a Deployment of the chart, as it is in the cluster."""
    found = cluster.admin.get(f"/apis/apps/v1/namespaces/{HOME}/deployments/{name}")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    said = {e["name"]: e["value"] for e in container["env"] if e.get("value") and e["name"] != "HOME"}
    outer = {key: value for key, value in os.environ.items() if not key.startswith("POINTSMAN_")}
    return {**outer, **said, "PYTHONPATH": str(ROOT / "operator"), "POINTSMAN_ALLOW_LOOPBACK": "true"}


@contextlib.contextmanager
def gateway_of(cluster: Cluster, folder: Path) -> Iterator[GatewayProcess]:
    """Run a gateway as the chart's service account."""
    chosen = {"HOST": "127.0.0.1", "ADMIN_HOST": "127.0.0.1", "PORT": "0", "ADMIN_PORT": "0", "DRAIN": "0s"}
    environment = {
        **environment_of(cluster, GATEWAY),
        "KUBECONFIG": str(cluster.kubeconfig(folder, HOME, GATEWAY)),
        **{f"POINTSMAN_GATEWAY_{name}": value for name, value in chosen.items()},
    }
    command = [sys.executable, "-m", "pointsman.cli.main", "gateway"]
    with (folder / "gateway-0.log").open("wb") as log:
        process = processes.start(
            command, signal.SIGKILL, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    found = GatewayProcess(folder, environment, process, 0)
    try:
        yield found
    finally:
        found.stop()


@contextlib.contextmanager
def operator_of(cluster: Cluster, folder: Path, gateway: str) -> Iterator[Stage]:
    """Run an operator as the chart's service account, beside a user of the namespace that it looks after."""
    (folder / "corpus").mkdir()
    environment = {
        **environment_of(cluster, OPERATOR),
        "KUBECONFIG": str(cluster.kubeconfig(folder, HOME, OPERATOR)),
        "POINTSMAN_STORE": str(folder / "store"),
        "POINTSMAN_FILE_ROOTS": str(folder / "corpus"),
        "POINTSMAN_GATEWAYS": gateway,
        "POINTSMAN_RESYNC_SECONDS": "2",
        "POINTSMAN_METRICS_PORT": "0",
    }
    control_plane: plane.ControlPlane = cluster.plane
    stage = Stage(WATCHED, folder, control_plane, Operator(folder, environment), cluster.admin)
    stage.operator.start()
    try:
        yield stage
    finally:
        if stage.operator.is_running():
            stage.operator.stop()


def decide(stage: Stage, name: str) -> None:
    """Approve the step that is waited for."""
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    spec = {"target": {"name": NAME}, "decision": "Approve", "version": "v8", "expiresAt": expires}
    hashed = stage.get(DEPLOYMENT, NAME)["status"]["planHash"]
    stage.create(APPROVAL, name, {**spec, "answers": "go-wide", "planHash": hashed})


def migrate_and_leave(stage: Stage, database: databases.Database) -> None:
    """Declare, migrate by steps with a person in between, go back, and delete everything."""
    database.let_in(stage)
    stage.declare(NAME, stage.write(documents(), NAME), *VERSIONS[:2])
    stage.create(QUERY_SET, JUDGED, judged())
    stage.deploy(NAME, database.spec, strategy={"steps": HALF}, gates=EVALUATED)
    stage.wait(lambda: stage.serves(NAME, "v7"), "v7 to serve")
    stage.edit(DEPLOYMENT, NAME, version="v8")
    stage.wait(lambda: stage.said(DEPLOYMENT, NAME, "AwaitingApproval")[0] == "APersonIsAsked", "a person to be asked")
    decide(stage, "go-wide")
    stage.wait(lambda: stage.serves(NAME, "v8"), "v8 to serve")
    stage.edit(DEPLOYMENT, NAME, version="v7")
    stage.wait(lambda: stage.serves(NAME, "v7"), "v7 to serve again")


def embed_in_pods(stage: Stage) -> None:
    """Have a Job made whose pods find no node, stop it, and delete what it is for."""
    stage.declare(IN_PODS, stage.write(documents(), IN_PODS), VERSIONS[0], work={"mode": "Job", "job": {"shards": 1}})
    jobs = f"/apis/batch/v1/namespaces/{WATCHED}/jobs"
    pods = f"/api/v1/namespaces/{WATCHED}/pods"
    stage.wait(lambda: bool(stage.admin.get(pods)["items"]), "a Job with a pod")
    stage.edit(DATASET, IN_PODS, work={"job": {"suspend": True}})
    stage.wait(lambda: all(job["spec"]["suspend"] for job in stage.admin.get(jobs)["items"]), "the Job to be stopped")
    stage.delete(DATASET, IN_PODS)
    stage.wait(lambda: not stage.exists(DATASET, IN_PODS), "the dataset to be gone")


def leave(stage: Stage) -> None:
    """Delete everything, and wait until the operator has let it go."""
    for kind, name in ((DEPLOYMENT, NAME), (QUERY_SET, JUDGED), (DATASET, NAME)):
        stage.delete(kind, name)
        stage.wait(lambda kind=kind, name=name: not stage.exists(kind, name), f"{kind} {name} to be gone")  # type: ignore[misc]


def search(cluster: Cluster, gateway: GatewayProcess, folder: Path, account: str) -> int:
    """Search with a service account's token; return the status of the answer."""
    config = yaml.safe_load(cluster.kubeconfig(folder, WATCHED, account).read_text())
    headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
    url = f"{gateway.url()}/v1/namespaces/{WATCHED}/indexes/{NAME}/search"
    with httpx.Client(trust_env=False, timeout=30, headers=headers) as client:
        return client.post(url, json={"query": "night trains in Kenya"}).status_code


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    folder = tmp_path_factory.mktemp("rights")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(chart.running(folder))
        for name in (HOME, WATCHED):
            cluster.namespace(name)
        cluster.install(
            HOME,
            f'namespaces=["{WATCHED}"]',
            'secrets.names=["database"]',
            'access.allowedHosts=["127.0.0.1"]',
            "jobs.enabled=true",
            "jobs.storeShared=true",
            "jobs.storeClaim=shared",
            'store.volume.accessModes=["ReadWriteMany"]',
        )
        for name in ("searcher", "stranger"):
            cluster.admin.create(f"/api/v1/namespaces/{WATCHED}/serviceaccounts", {"metadata": {"name": name}})
        cluster.bind("searcher", WATCHED)
        database = stack.enter_context(databases.pgvector(tmp_path_factory.mktemp("postgres")))
        gateway = stack.enter_context(gateway_of(cluster, folder))
        stage = stack.enter_context(operator_of(cluster, folder, f"http://127.0.0.1:{gateway.ports()[1]}"))
        migrate_and_leave(stage, database)
        embed_in_pods(stage)
        assert [search(cluster, gateway, folder, name) for name in ("searcher", "stranger")] == [200, 403]
        leave(stage)
        yield Lived(cluster, stage, gateway)


@pytest.mark.parametrize("account", [OPERATOR, GATEWAY])
def test_nothing_that_is_asked_is_refused(lived: Lived, account: str) -> None:
    asked = lived.cluster.asked(HOME, account)

    refused = [(line["verb"], line["requestURI"]) for line in asked if line["responseStatus"].get("code") == 403]
    assert asked
    assert refused == []


@pytest.mark.parametrize("account", [OPERATOR, GATEWAY])
def test_nothing_is_allowed_that_is_never_asked(lived: Lived, account: str) -> None:
    used = needed(lived.cluster, account)

    assert unused(granted(lived.cluster, account), used) == set()


@pytest.mark.parametrize("account", [OPERATOR, GATEWAY])
def test_a_rule_that_had_lost_its_name_or_its_namespace_would_be_found(lived: Lived, account: str) -> None:
    rights, used = granted(lived.cluster, account), needed(lived.cluster, account)

    nameless = {replace(right, name="") for right in rights if right.name}
    everywhere = {replace(right, namespace="") for right in rights if right.namespace}
    assert nameless and everywhere
    assert unused(nameless | everywhere, used) == nameless | everywhere


def unused(rights: set[Right], used: set[Right]) -> set[Right]:
    """Return the rights that were needed for nothing that was done."""
    return {right for right in rights if not any(map(right.is_used_by, used))}


def needed(cluster: Cluster, account: str) -> set[Right]:
    """Return the rights that a service account of ours has needed."""
    return {right(line) for line in cluster.asked(HOME, account) if "objectRef" in line}


def right(line: Object) -> Right:
    """Return the right that a line of the audit log needed."""
    asked = line["objectRef"]
    part = f"/{asked['subresource']}" if "subresource" in asked else ""
    where, group = asked.get("namespace", ""), asked.get("apiGroup", "")
    return Right(where, group, f"{asked['resource']}{part}", line["verb"], asked.get("name", ""))


def granted(cluster: Cluster, account: str) -> set[Right]:
    """Return all rights that the cluster's roles give a service account of ours by its name."""
    rbac, found = "/apis/rbac.authorization.k8s.io/v1", set()
    for bindings in ("rolebindings", "clusterrolebindings"):
        for binding in cluster.admin.get(f"{rbac}/{bindings}")["items"]:
            if any(s["kind"] == "ServiceAccount" and s["name"] == account for s in binding.get("subjects", [])):
                found |= _rules(cluster, binding)
    return found


def _rules(cluster: Cluster, binding: Object) -> set[Right]:
    reference, where = binding["roleRef"], binding["metadata"].get("namespace", "")
    plural = {"Role": f"namespaces/{where}/roles", "ClusterRole": "clusterroles"}[reference["kind"]]
    # What is bound in a namespace holds there, wherever the role is.
    rules: Sequence[Any] = cluster.admin.get(f"/apis/{reference['apiGroup']}/v1/{plural}/{reference['name']}")["rules"]
    return {
        Right(where, group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or ("",)
    }
