"""The alerts, run by promtool on series that are made up: each fires when it should and is silent when it should be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.integration import chart

FILES = chart.CHART / "files"
PROMTOOL = chart.promtool_path()

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not there; `make alerts` builds it and runs these"
)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_prometheus_reads_every_rule() -> None:
    groups = yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"]

    found = promtool("check", "rules", "--lint=all", "--lint-fatal", str(FILES / "alerts.yaml"))

    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{sum(len(group['rules']) for group in groups)} rules found" in found.stdout


def test_every_alert_fires_when_it_should_and_is_silent_when_it_should_be() -> None:
    found = promtool("test", "rules", str(FILES / "tests" / "alerts.yaml"))

    assert found.returncode == 0, found.stdout + found.stderr


@chart.NEEDS_HELM
@pytest.mark.helm
def test_prometheus_reads_the_rules_that_the_chart_renders(tmp_path: Path) -> None:
    values = ("monitoring.rules.enabled=true", "monitoring.rules.runbookURL=https://wiki/run")
    (rules,) = chart.of(chart.render(*values), "PrometheusRule")
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules["spec"]))

    found = promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))

    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("alert", "right", "wrong"),
    [
        ("PointsmanCanaryOverlap", "pointsman_canary_overlap < 0.8", "pointsman_canary_overlap < 0.7"),
        ("PointsmanScoresShifted", "pointsman_scores_shifted == 1", "pointsman_scores_shifted == 2"),
        ("PointsmanIndexLag", 'role=~"Serving|Retained"', 'role=~"Serving|Candidate"'),
        ("PointsmanParity", 'pointsman_index_parity{role!="Retiring"}', "pointsman_index_parity"),
        ("PointsmanRollbackNotReady", "pointsman_rollback_ready == 0", "pointsman_rollback_ready == 1"),
        ("PointsmanUnguarded", "pointsman_unguarded == 1", "pointsman_unguarded == 0"),
    ],
)
def test_an_alert_with_another_condition_does_not_pass(tmp_path: Path, alert: str, right: str, wrong: str) -> None:
    (tmp_path / "tests").mkdir()
    rules = (FILES / "alerts.yaml").read_text()
    assert rules.count(right) == 1
    (tmp_path / "alerts.yaml").write_text(rules.replace(right, wrong))
    shutil.copy(FILES / "tests" / "alerts.yaml", tmp_path / "tests")

    found = promtool("test", "rules", str(tmp_path / "tests" / "alerts.yaml"))

    assert found.returncode != 0
    assert alert in found.stdout + found.stderr
