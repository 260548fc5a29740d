"""What whoever runs the operator asks it: numbers and probes of real processes, one that acts and one that waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.integration.operator_process import (
    DATASET,
    DEPLOYMENT,
    PATIENCE,
    Operator,
    Stage,
    papers,
    running,
    wordllama,
)

from pointsman.controlplane import plane

pytestmark = pytest.mark.controlplane


@pytest.fixture
def stage(control_plane: plane.ControlPlane, tmp_path: Path) -> Iterator[Stage]:
    with running(control_plane, tmp_path / "stage", metrics_host="127.0.0.1", metrics_port="0") as stage:
        yield stage


def asked(operator: Operator, path: str) -> tuple[int, str]:
    """Return status and body of what an operator answers; 0 while it does not listen yet."""
    ports = [line["port"] for line in operator.lines() if line["event"] == "metrics_served"]
    if not ports:
        return 0, ""
    answer = httpx.get(f"http://127.0.0.1:{ports[-1]}{path}", trust_env=False, timeout=30)
    return answer.status_code, answer.text


def wait_until_ready(operator: Operator) -> None:
    """Wait until an operator says that it is; fail with its own log where it does not, or has ended."""
    deadline = time.monotonic() + PATIENCE
    while asked(operator, "/readyz") != (200, "ok"):
        assert operator.is_running() and time.monotonic() < deadline, f"not ready:\n{operator.log[-3000:]}"
        time.sleep(0.1)


def test_an_operator_that_acts_tells_of_what_it_acts_on_and_one_that_stands_by_of_itself(stage: Stage) -> None:
    stage.declare("papers", stage.write(papers(8)), wordllama("v7", 64))
    stage.deploy("papers", {"memory": {}})
    stage.wait(lambda: stage.serves("papers", "v7"), "v7 to serve")
    stage.wait(lambda: asked(stage.operator, "/readyz") == (200, "ok"), "everything to have been seen")
    folder = stage.folder / "second"
    folder.mkdir()
    second = Operator(folder, stage.operator.environment)
    second.start()
    try:
        wait_until_ready(second)

        status, text = asked(stage.operator, "/metrics")
        of_second = asked(second, "/metrics")[1]

        assert status == 200
        assert asked(stage.operator, "/healthz") == asked(second, "/healthz") == (200, "ok")
        lines, place = text.splitlines(), f'namespace="{stage.namespace}"'
        assert "pointsman_leader 1.0" in lines
        assert "pointsman_synced 1.0" in lines
        for kind in (DATASET, DEPLOYMENT):
            labels = f'kind="{kind}",name="papers",{place},status="True",type="Ready"'
            assert f"pointsman_condition{{{labels}}} 1.0" in lines
        assert f'pointsman_unguarded{{deployment="papers",{place}}} 1.0' in lines
        assert f'pointsman_dataset_documents{{dataset="papers",{place}}} 8.0' in lines
        assert any(line.startswith('pointsman_api_requests_total{method="GET",status="200"}') for line in lines)
        assert any(line.startswith('pointsman_index_parity{deployment="papers",') for line in lines)
        assert "pointsman_leader 0.0" in of_second.splitlines()
        assert "papers" not in of_second
    finally:
        second.kill()
