"""What helm says to whoever installs, what an upgrade brings, what an end leaves, the way out without an operator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration import chart
from tests.integration.chart import FULLNAME, ROOT, Cluster
from tests.integration.test_chart_cluster import APPROVALS, approval

from pointsman.cluster import resources

pytestmark = [
    pytest.mark.helm,
    pytest.mark.controlplane,
    chart.NEEDS_HELM,
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with chart.running(tmp_path_factory.mktemp("chart")) as found:
        yield found


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> str:
    """The namespace of a release that looks after `search` and `shop`."""
    for name in ("pointsman", "search", "shop"):
        cluster.namespace(name)
    cluster.install("pointsman", 'namespaces=["search","shop"]')
    return "pointsman"


NOTES = [
    (
        # Of none at all helm takes those of the release.
        ("namespaces=[]",),
        [
            "looks after pointsman.",
            "kubectl -n pointsman rollout status deployment/pm-pointsman-operator",
            "kubectl -n pointsman rollout status deployment/pm-pointsman-gateway",
            "Applications ask http://pm-pointsman-gateway.pointsman.svc:8080\n",
            "as the ClusterRole pm-pointsman-searcher lets.",
            "No host with a private address may be named",
            "The NetworkPolicies let nothing out but DNS and the API server",
            "The store is the PersistentVolumeClaim pm-pointsman-store; it stays",
            "Before you uninstall, delete the resources",
        ],
        ["ANYONE", "The definitions are yours"],
    ),
    (
        (
            "clusterWide=true",
            "gateway.tls.secretName=tls",
            "gateway.service.port=8443",
            'gateway.auth.audiences=["search"]',
            'access.allowedHosts=["*.svc"]',
            "networkPolicy.publicEgress.enabled=true",
            "store.s3.uri=s3://bucket/prefix",
            "crds.enabled=false",
        ),
        [
            "looks after all namespaces.",
            "Applications ask https://pm-pointsman-gateway.pointsman.svc:8443\n",
            "made for the audience search.",
            "The definitions are yours to apply before each upgrade",
        ],
        ["No host with a private", "let nothing out", "PersistentVolumeClaim"],
    ),
    (('namespaces=["search","shop"]', "gateway.auth.mode=none"), ["looks after search, shop.", "ANYONE"], ["searcher"]),
    (("gateway.enabled=false",), ["pm-pointsman-operator"], ["gateway", "Applications"]),
]


@pytest.mark.parametrize(("values", "said", "unsaid"), NOTES, ids=["default", "outside", "open", "alone"])
def test_whoever_installs_is_told_what_comes_next_and_nothing_of_what_is_not_there(
    cluster: Cluster, installed: str, values: Any, said: list[str], unsaid: list[str]
) -> None:
    notes = cluster.install(installed, *values, verb="upgrade", is_dry=True).split("\nNOTES:\n")[1]

    assert [each for each in said if each not in notes] == []
    assert [each for each in unsaid if each in notes] == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not there, which the way out is written for")
def test_the_way_out_of_the_docs_lets_go_what_nobody_is_there_to_let_go(cluster: Cluster, installed: str) -> None:
    # Given resources that an operator looked after, which is gone.
    group = "/apis/pointsman.dev/v1alpha1/namespaces/search"
    version = {"name": "v7", "model": {"wordllama": {"dimensions": 64}}}
    source = {"files": {"uri": "file:///corpus/a.jsonl", "format": "jsonl"}, "idField": "id"}
    specs = {
        "embeddingdatasets": ("EmbeddingDataset", {"source": source, "versions": [version]}),
        "indexdeployments": (
            "IndexDeployment",
            {"datasetRef": {"name": "left"}, "version": "v7", "backend": {"memory": {}}},
        ),
    }
    for plural, (kind, spec) in specs.items():
        meta = {"name": "left", "finalizers": [resources.FINALIZER]}
        body = {"apiVersion": "pointsman.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}
        cluster.admin.create(f"{group}/{plural}", body)
        cluster.admin.delete(f"{group}/{plural}/left")
    assert all(cluster.admin.exists(f"{group}/{plural}/left") for plural in specs)

    # When what the page says is done.
    page = (ROOT / "docs" / "install.md").read_text()
    script = page.split("Otherwise** take the finalizers off")[1].split("```sh\n")[1].split("```")[0]
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(cluster.plane.kubeconfig), "HOME": "/nonexistent"}
    done = subprocess.run(
        ["bash", "-euc", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )

    # Then they are gone.
    assert done.returncode == 0, done.stderr
    assert not any(cluster.admin.exists(f"{group}/{plural}/left") for plural in specs)


def test_an_upgrade_brings_new_definitions_and_an_end_leaves_them_with_all_resources(
    cluster: Cluster, installed: str, tmp_path: Path
) -> None:
    # Given a release of a chart whose definitions have one field more.
    newer = tmp_path / "pointsman"
    shutil.copytree(chart.CHART, newer)
    path = newer / "files" / "crds" / "approvals.pointsman.dev.yaml"
    definition = yaml.safe_load(path.read_text())
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["ticket"] = {"type": "string", "maxLength": 63}
    path.write_text(yaml.safe_dump(definition))
    cluster.admin.create(APPROVALS, approval("before"))
    uid = cluster.admin.get(f"{APPROVALS}/before")["metadata"]["uid"]

    # When it is upgraded to.
    given = ("--set-json", 'namespaces=["search","shop"]')
    found = chart.helm("upgrade", "pm", str(newer), "-n", installed, *given, kubeconfig=cluster.plane.kubeconfig)
    assert found.returncode == 0, found.stderr

    # Then the field is there, and what was there is too.
    chart.wait(lambda: _has_ticket(cluster), "the new definition is served")
    assert cluster.admin.get(f"{APPROVALS}/before")["metadata"]["uid"] == uid

    # And when the release is removed, definitions, resources and the store stay.
    cluster.uninstall(installed)
    assert cluster.admin.get(f"{APPROVALS}/before")["metadata"]["uid"] == uid
    claims = cluster.admin.get(f"/api/v1/namespaces/{installed}/persistentvolumeclaims")["items"]
    assert [claim["metadata"]["name"] for claim in claims] == [f"{FULLNAME}-store"]

    # And a release of the same name takes them over again.
    cluster.install(installed, 'namespaces=["search","shop"]')
    assert cluster.admin.get(f"{APPROVALS}/before")["metadata"]["uid"] == uid


def _has_ticket(cluster: Cluster) -> bool:
    body = approval("ticketed", ticket="4711")
    made = cluster.admin.request("POST", f"{APPROVALS}?dryRun=All", json.dumps(body).encode(), "application/json")
    return bool(json.loads(made)["spec"].get("ticket") == "4711")
