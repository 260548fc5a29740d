"""The labels that helm renders: users add their own, and never in the place of those that selectors and roles go by."""

from __future__ import annotations

import pytest
from tests.integration import chart
from tests.integration.chart import FULLNAME, of, refusal, render
from tests.integration.test_chart import ALL_OF_IT

pytestmark = [pytest.mark.helm, chart.NEEDS_HELM]

OF_THE_CHART = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "rbac.authorization.k8s.io/aggregate-to-admin",
)
PLACES = (
    "commonLabels",
    "operator.podLabels",
    "gateway.podLabels",
    "monitoring.serviceMonitor.labels",
    "monitoring.podMonitor.labels",
    "monitoring.rules.labels",
    "monitoring.dashboards.labels",
)


def test_the_charts_own_labels_are_nobody_elses_to_say() -> None:
    said = refusal("commonLabels={" + ",".join(f'"{label}":"x"' for label in OF_THE_CHART) + "}")

    wanted = [f"at '/commonLabels/{label.replace('/', '~1')}': false schema" for label in OF_THE_CHART]
    assert [each for each in wanted if each not in said] == []


def test_no_place_for_labels_takes_one_of_them() -> None:
    said = refusal(*(f'{place}={{"app.kubernetes.io/name":"x"}}' for place in PLACES))

    wanted = [f"at '/{place.replace('.', '/')}/app.kubernetes.io~1name': false schema" for place in PLACES]
    assert [each for each in wanted if each not in said] == []


def test_every_label_that_the_chart_gives_itself_is_one_that_it_refuses_from_others() -> None:
    given = {label for document in render(*ALL_OF_IT) for label in document["metadata"]["labels"]}
    given -= {"grafana_dashboard"}
    aggregated = {label for label in given if label.startswith("rbac.authorization.k8s.io/aggregate-to-")}

    assert aggregated != set()
    assert given - aggregated == {label for label in OF_THE_CHART if "rbac" not in label}


def test_what_is_said_of_a_part_wins_over_what_is_said_of_all() -> None:
    everywhere = 'commonLabels={"team":"search","app.kubernetes.io/owner":"ana"}'
    of_parts = [f'{place}={{"team":"{place.lower()}"}}' for place in PLACES[1:]]

    documents = render(*ALL_OF_IT, everywhere, *of_parts)

    assert {d["metadata"]["labels"]["app.kubernetes.io/owner"] for d in documents} == {"ana"}
    teams = {
        f"{d['kind']} {d['metadata']['name'].removeprefix(FULLNAME)}": d["metadata"]["labels"]["team"]
        for d in documents
        if d["metadata"]["labels"]["team"] != "search"
    }
    assert teams == {
        "ServiceMonitor -operator": "monitoring.servicemonitor.labels",
        "ServiceMonitor -gateway": "monitoring.servicemonitor.labels",
        "PodMonitor -operator": "monitoring.podmonitor.labels",
        "PodMonitor -gateway": "monitoring.podmonitor.labels",
        "PrometheusRule ": "monitoring.rules.labels",
        "ConfigMap -dashboard-pointsman": "monitoring.dashboards.labels",
    }
    pods = [d["spec"]["template"]["metadata"]["labels"]["team"] for d in of(documents, "Deployment")]
    assert sorted(pods) == ["gateway.podlabels", "operator.podlabels"]
