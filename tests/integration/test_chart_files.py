"""The chart holds what it is made from: definitions, a rule for each value, alerts with a page for each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pointsman.api.conditions import Reason

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pointsman"


def test_the_charts_definitions_are_copies_of_the_repositorys() -> None:
    copies = {path.name: path.read_text() for path in (CHART / "files" / "crds").iterdir()}

    # `make generate` copies them.
    assert copies == {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}


def _unruled(values: dict[str, Any], schema: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield each value that the schema does not know by its name."""
    known = schema.get("properties", {})
    for name, value in values.items():
        here = f"{place}.{name}"
        if name not in known:
            yield here
        elif isinstance(value, dict) and "properties" in known[name]:
            yield from _unruled(value, known[name], here)


def test_every_value_has_a_rule_and_every_rule_a_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    # What a chart that includes this one would share with it, and the forms of a list in Kubernetes' own words.
    del schema["properties"]["global"]

    assert list(_unruled(values, schema)) == []
    assert list(_unasked(schema, values)) == []


def _unasked(schema: dict[str, Any], values: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield each rule of which values.yaml shows no default."""
    for name, rule in schema.get("properties", {}).items():
        here = f"{place}.{name}"
        if name not in values:
            if name not in ("claims",):
                yield here
        elif isinstance(values[name], dict):
            yield from _unasked(rule, values[name], here)


def _groups(schema: dict[str, Any], values: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield each group of values, and each list that must name something, which may be left out."""
    for name, rule in schema.get("properties", {}).items():
        found = values.get(name)
        is_group = isinstance(found, dict) and "properties" in rule and name != "resources"
        if (is_group or rule.get("minItems")) and found is not None and name not in schema.get("required", ()):
            yield f"{place}.{name}"
        if is_group:
            yield from _groups(rule, values[name], f"{place}.{name}")


def test_no_group_of_values_may_be_left_out() -> None:
    """`helm upgrade --reuse-values` leaves out what an earlier chart lacked, and an empty rule lets all through."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    assert list(_groups(schema, values)) == []


def _alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_leads_to_its_part_of_the_runbook_and_every_part_is_of_an_alert() -> None:
    parts = re.findall(r"^### (Pointsman\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)

    assert [alert["alert"] for alert in _alerts()] == parts
    assert all(
        alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}" for alert in _alerts()
    )
    assert {alert["labels"]["severity"] for alert in _alerts()} <= {"critical", "warning", "info"}


def test_every_alert_is_tried_on_series_by_make_alerts() -> None:
    tried = (CHART / "files" / "tests" / "alerts.yaml").read_text()

    assert [alert["alert"] for alert in _alerts() if alert["alert"] not in tried] == []


def test_every_reason_is_in_the_runbook() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()

    assert sorted(reason for reason in Reason if f"`{reason}`" not in page) == []


def test_every_metric_of_an_alert_and_of_the_dashboard_is_one_that_there_is() -> None:
    known = set(re.findall(r"^\| `(pointsman_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    dashboard = json.loads((CHART / "files" / "dashboards" / "pointsman.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    asked += [alert["expr"] for alert in _alerts()]

    used = {name for expression in asked for name in re.findall(r"pointsman_\w+", expression)}
    assert len(used) > 30
    assert sorted(name for name in used if re.sub(r"_(bucket|count|sum)$", "", name) not in known) == []
