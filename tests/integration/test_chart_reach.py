"""Whom each role reaches by the chart's NetworkPolicies, worked out from the values that the stories install it with.

`make e2e` connects for it, in a cluster; here the same is worked out by what enforces the policies there.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e import reach, stack
from e2e.cluster import policies
from tests.integration import chart

from pointsman.cluster.resources import MANAGED_BY

pytestmark = [pytest.mark.helm, pytest.mark.skipif(chart.helm_path() is None, reason="helm is not built: make chart")]

NODE, METADATA = "10.245.0.2", "169.254.169.254"
API_SERVER = {"cidrs": [f"{NODE}/32"], "ports": [6443]}
NAMESPACES = {name: {"kubernetes.io/metadata.name": name} for name in (stack.NAMESPACE, reach.ELSEWHERE, "kube-system")}


def pods(documents: list[chart.Object]) -> dict[str, policies.Pod]:
    """Return the pods of the chart and those around them, by name."""
    templates = {
        d["metadata"]["labels"]["app.kubernetes.io/component"]: d["spec"]["template"]
        for d in documents
        if d["kind"] == "Deployment"
    }
    here: dict[str, dict[str, Any]] = {
        **templates,
        "another gateway": templates["gateway"],
        "shard": {"metadata": {"labels": {**MANAGED_BY, "app.kubernetes.io/component": "shard"}}},
        **{name: {"metadata": {"labels": {"app": name}}} for name in (stack.ASKER, "postgres", "s3", "model")},
    }
    others = {"stranger": (reach.ELSEWHERE, {}), "names": ("kube-system", {"k8s-app": "kube-dns"})}
    found = [(name, stack.NAMESPACE, each["metadata"]["labels"], each.get("spec")) for name, each in here.items()]
    found += [(name, namespace, labels, None) for name, (namespace, labels) in others.items()]
    return {
        name: policies.pods(
            [
                {
                    "metadata": {"name": name, "namespace": namespace, "labels": labels},
                    "spec": spec or {"containers": []},
                    "status": {"podIP": f"10.244.0.{number}", "phase": "Running"},
                }
            ]
        )[0]
        for number, (name, namespace, labels, spec) in enumerate(found, start=2)
    }


def test_each_role_reaches_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(dict(stack.chart_values("pointsman:e2e", API_SERVER))))
    documents = chart.render(files=[values], namespace=stack.NAMESPACE)
    there = pods(documents)
    rules = [
        {**d, "metadata": {"namespace": stack.NAMESPACE, **d["metadata"]}}
        for d in documents
        if d["kind"] == "NetworkPolicy"
    ]
    cluster = policies.Cluster(list(there.values()), NAMESPACES, rules)
    stranger = str(there["stranger"].address.network_address)
    targets: dict[str, tuple[policies.Pod | str, int]] = {
        reach.NUMBERS: (there["operator"], 8082),
        reach.ADMIN: (there["another gateway"], 8081),
        reach.QUERIES: (there["another gateway"], 8080),
        reach.API: (NODE, 6443),
        reach.DATABASE: (there["postgres"], 5432),
        reach.STORE: (there["s3"], stack.S3_PORT),
        reach.MODEL: (there["model"], stack.MODEL_PORT),
        reach.KUBELET: (NODE, 10250),
        reach.METADATA: (METADATA, 80),
        **{name: (stranger, int(name.rpartition(" ")[2])) for name in reach.STRANGER},
    }

    def is_reached(source: policies.Pod, target: policies.Pod | str, port: int) -> bool:
        address = ipaddress.IPv4Address(target) if isinstance(target, str) else target.address.network_address
        out = cluster.egress(source)
        into = cluster.ingress(target) if isinstance(target, policies.Pod) else None
        return _is_let(out, address, port) and _is_let(into, source.address.network_address, port)

    seen = {
        who: {what for what, target in targets.items() if target[0] != there[who] and is_reached(there[who], *target)}
        for who in reach.WANTED
    }

    # The stranger is no other to itself.
    wanted = {who: what - set(reach.STRANGER) if who == "stranger" else what for who, what in reach.WANTED.items()}
    assert {who: what - set(reach.STRANGER) if who == "stranger" else what for who, what in seen.items()} == wanted
    names = there["names"].address.network_address
    assert all(_is_let(cluster.egress(there[who]), names, 53, "UDP") for who in reach.WANTED)


def _is_let(
    allowed: list[policies.Allowed] | None, other: ipaddress.IPv4Address, port: int, protocol: str = "TCP"
) -> bool:
    return allowed is None or any(
        other in each.network
        and each.protocol in ("", protocol)
        and (each.first == 0 or each.first <= port <= each.last)
        for each in allowed
    )
