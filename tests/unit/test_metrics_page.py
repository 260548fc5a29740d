"""The page of metrics says what the code has: every metric of operator and gateway, and no other."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from pointsman.cluster.counting import Requests
from pointsman.controller import exposition, families
from pointsman.controller.exposition import Parts
from pointsman.controller.health import Health
from pointsman.controller.metrics import BUCKETS, Metrics
from pointsman.gateway import metrics as gateway_metrics
from pointsman.gateway.app import State
from pointsman.gateway.directory import Directory

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
Row = tuple[str, str, str]


def written(heading: str) -> dict[str, tuple[str, ...]]:
    """Return the rows of a table by their metrics."""
    table = PAGE.read_text().split(f"## {heading}")[1].split("\n## ")[0]
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split(" | "))
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def collected(registry: CollectorRegistry) -> dict[str, Any]:
    found = {}
    for family in registry.collect():
        labels = ", ".join(f"`{label}`" for label in family._labelnames) or "none"  # type: ignore[attr-defined]
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, labels, family.documentation)
    return {name: row for name, row in found.items() if name.startswith("pointsman_")}


def test_the_page_tells_of_every_metric_of_the_operator() -> None:
    shown = b"".join(exposition.text(Parts(Metrics(), Health(), Requests()))).decode()

    said = dict(re.findall(r"^# HELP (pointsman_\S+) (.*)$", shown, re.MULTILINE))
    shapes = dict(re.findall(r"^# TYPE (pointsman_\S+) (.*)$", shown, re.MULTILINE))
    labels = {family.name: ", ".join(f"`{label}`" for label in family.labels) or "none" for family in families.ALL}
    assert written("Of the operator") == {name: (shapes[name], labels[name], said[name]) for name in said}


def test_the_page_tells_of_every_metric_of_a_gateway() -> None:
    directory = Directory(None, time.time)  # type: ignore[arg-type]

    assert written("Of a gateway") == collected(gateway_metrics.registry(directory, State("g", 0.0)))


def test_every_family_is_listed_once_under_a_name_that_prometheus_takes() -> None:
    names = [family.name for family in families.ALL]

    assert len(set(names)) == len(names) == 40
    for family in families.ALL:
        assert re.fullmatch(r"pointsman_[a-z0-9_]+", family.name), family
        assert family.name.endswith("_total") is (family.shape is families.Shape.COUNTER), family
        assert (family in BUCKETS) is (family.shape is families.Shape.HISTOGRAM), family
