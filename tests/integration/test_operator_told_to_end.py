"""A real operator that is told to end while it takes over: whatever it has started by then ends with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.operator_process import PATIENCE, ROOT, Operator, Stage, running
from tests.servers import processes

from pointsman.controlplane import plane

pytestmark = pytest.mark.controlplane

THREADS = ("lease", "gateways", "loop-0", "loop-7", "loop-15", "_resync", "asyncio_0")
"""Those that an operator starts once it has the Lease, in their order: the first and the last are not of the loop."""


@pytest.fixture(scope="module")
def stage(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Return what an operator has been at work on, and has given back."""
    nobody = f"http://127.0.0.1:{processes.free_port()}"
    with running(control_plane, tmp_path_factory.mktemp("told") / "stage", gateways=nobody) as stage:
        stage.wait(lambda: has_logged(stage.operator, "operator_started"), "the operator to begin")
        assert stage.operator.stop() == 0
        yield stage


@pytest.mark.parametrize("thread", THREADS)
def test_an_operator_that_is_told_to_while_it_takes_over_ends_and_gives_the_lease_back(
    stage: Stage, tmp_path: Path, thread: str
) -> None:
    told = Operator(tmp_path, {**stage.operator.environment, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"})
    with (tmp_path / "operator.log").open("wb") as log:
        told.process = processes.start(
            [sys.executable, "-m", "tests.integration.told_to_end", thread],
            signal.SIGKILL,
            env=dict(told.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    try:
        code = told.process.wait(PATIENCE)
    finally:
        told.kill()

    assert code == 0, told.log
    assert [line["holder"] for line in told.lines() if line["event"] == "lease_awaited"] == []
    assert has_logged(told, "lease_taken") and has_logged(told, "lease_given_back")
    assert has_logged(told, "operator_stopped")
    assert "Traceback" not in told.log


def has_logged(operator: Operator, event: str) -> bool:
    """Return whether an operator has logged an event."""
    return any(line["event"] == event for line in operator.lines())
