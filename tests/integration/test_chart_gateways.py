"""What helm renders around gateways finds them: what scales, spreads and spares them, Services, monitors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration import chart
from tests.integration.chart import FULLNAME, Object, of, render
from tests.integration.test_chart import ALL_OF_IT

pytestmark = [pytest.mark.helm, chart.NEEDS_HELM]

GATEWAY, OPERATOR = f"{FULLNAME}-gateway", f"{FULLNAME}-operator"
SCALED = ("gateway.autoscaling.enabled=true", "gateway.autoscaling.minReplicas=3", "gateway.autoscaling.maxReplicas=7")


def named(documents: Sequence[Object], kind: str, name: str) -> Object:
    (found,) = of(documents, kind, name)
    return found


def selected(documents: Sequence[Object], selector: Object) -> list[str]:
    """Return the Deployments whose pods have all labels of a selector, and the chart's test where its pod has."""
    pods = [
        (d["metadata"]["name"], (d["spec"]["template"] if d["kind"] == "Deployment" else d)["metadata"]["labels"])
        for d in (*of(documents, "Deployment"), *of(documents, "Pod"))
    ]
    assert len(pods) == 3
    return [name for name, labels in pods if selector.items() <= labels.items()]


def containers(deployment: Object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
    return found


def test_as_many_gateways_run_as_the_values_say_where_nothing_scales_them() -> None:
    documents = render("gateway.replicas=4")

    assert named(documents, "Deployment", GATEWAY)["spec"]["replicas"] == 4
    assert of(documents, "HorizontalPodAutoscaler") == []


def test_what_scales_gateways_names_their_deployment_which_says_no_number_of_its_own() -> None:
    documents = render(*SCALED, "gateway.autoscaling.targetCPUUtilizationPercentage=55")
    scaler = named(documents, "HorizontalPodAutoscaler", GATEWAY)["spec"]
    target = scaler["scaleTargetRef"]

    (gateway,) = [
        d
        for d in of(documents, target["kind"], target["name"])
        if d["apiVersion"] == target["apiVersion"]
        and d["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
    ]
    # An upgrade would set it back otherwise.
    assert "replicas" not in gateway["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 7)
    assert [metric["resource"] for metric in scaler["metrics"]] == [
        {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 55}}
    ]
    # What a utilisation is a share of.
    assert all("cpu" in container["resources"]["requests"] for container in containers(gateway))


@pytest.mark.parametrize(("given", "wanted"), [(1, 1), (2, 2), ("25%", "25%")])
def test_a_drain_spares_gateways_and_gateways_alone(given: object, wanted: object) -> None:
    documents = render(f"gateway.podDisruptionBudget.maxUnavailable={given}")
    budget = named(documents, "PodDisruptionBudget", GATEWAY)["spec"]

    assert selected(documents, budget["selector"]["matchLabels"]) == [GATEWAY]
    assert budget["maxUnavailable"] == wanted
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert "minAvailable" not in budget


def test_gateways_are_spread_over_nodes_and_zones_and_each_revision_by_itself() -> None:
    documents = render()
    spread = named(documents, "Deployment", GATEWAY)["spec"]["template"]["spec"]["topologySpreadConstraints"]

    assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for each in spread:
        assert selected(documents, each["labelSelector"]["matchLabels"]) == [GATEWAY]
        assert each["matchLabelKeys"] == ["pod-template-hash"]
        # One node is enough to run them all.
        assert (each["maxSkew"], each["whenUnsatisfiable"]) == (1, "ScheduleAnyway")


def test_how_gateways_are_spread_is_the_users_to_say_instead(tmp_path: Path) -> None:
    own = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"gateway": {"topologySpreadConstraints": [own]}}))

    gateway = named(render(files=[values]), "Deployment", GATEWAY)

    assert gateway["spec"]["template"]["spec"]["topologySpreadConstraints"] == [own]


@pytest.mark.parametrize("more", [(), ("nameOverride=finder", "fullnameOverride=finder")], ids=["default", "renamed"])
def test_every_deployment_and_service_and_policy_selects_the_pods_of_its_own_role(more: tuple[str, ...]) -> None:
    documents = render(*more)
    name = "finder" if more else FULLNAME

    wanted = {f"{name}-{role}": [f"{name}-{role}"] for role in ("gateway", "operator")}
    assert {
        d["metadata"]["name"]: selected(documents, d["spec"]["selector"]["matchLabels"])
        for d in of(documents, "Deployment")
    } == wanted
    assert {
        d["metadata"]["name"]: selected(documents, d["spec"]["podSelector"]["matchLabels"])
        for d in of(documents, "NetworkPolicy")
    } == wanted
    assert {d["metadata"]["name"]: selected(documents, d["spec"]["selector"]) for d in of(documents, "Service")} == {
        f"{name}-gateway": [f"{name}-gateway"],
        f"{name}-gateway-admin": [f"{name}-gateway"],
        f"{name}-operator-metrics": [f"{name}-operator"],
    }


def test_every_monitor_of_services_finds_one_of_them_and_asks_a_port_that_it_has() -> None:
    documents = render(*ALL_OF_IT)

    found = {}
    for monitor in of(documents, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [d for d in of(documents, "Service") if selector.items() <= d["metadata"]["labels"].items()]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        found[monitor["metadata"]["name"]] = service["metadata"]["name"]
    assert found == {OPERATOR: f"{OPERATOR}-metrics", GATEWAY: f"{GATEWAY}-admin"}


def test_every_monitor_of_pods_finds_those_of_one_role_and_asks_a_port_that_they_have() -> None:
    documents = render(*ALL_OF_IT)

    found = {}
    for monitor in of(documents, "PodMonitor"):
        (name,) = selected(documents, monitor["spec"]["selector"]["matchLabels"])
        (container,) = containers(named(documents, "Deployment", name))
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
        found[monitor["metadata"]["name"]] = name
    assert found == {OPERATOR: OPERATOR, GATEWAY: GATEWAY}


def test_the_port_of_a_service_leads_to_a_port_of_its_pods() -> None:
    documents = render()

    for service in of(documents, "Service"):
        (name,) = selected(documents, service["spec"]["selector"])
        (container,) = containers(named(documents, "Deployment", name))
        has = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= has
