"""How long does an operator take from the start of its process to the first reconcile?

    python bench/start.py [STARTS]

It is started again and again on a real API server, with a dataset and a deployment that serve, on Milvus Lite. Each
time the deployment was edited while none ran: the first reconcile is done once the status speaks of that edit. Before
it lie the imports, the Lease, which the one before has let go, the store's record of who holds it, and the lists of
everything. Files come from the machine's memory, which has read them before.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.operator_process import DEPLOYMENT, Stage, papers, running, wordllama
from tests.servers import milvus

from pointsman.controlplane import plane

LOOK_EVERY = 0.02


def main() -> None:
    """Print a Markdown table of the starts."""
    starts = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as name, plane.start() as control_plane:
        folder = Path(name).resolve()
        with milvus.start_milvus(folder) as uri, running(control_plane, folder / "stage") as stage:
            stage.declare("papers", stage.write(papers(100)), wordllama("v7", 64))
            stage.deploy("papers", {"milvus": {"uri": uri}})
            stage.wait(lambda: stage.serves("papers", "v7"), "v7 to serve")
            found = [started(stage, number) for number in range(1, starts + 1)]
    print("| of a start | median | fastest | slowest |\n|---|---:|---:|---:|")
    for what, values in zip(
        ("until the first reconcile", "processor's time until then"), zip(*found, strict=True), strict=True
    ):
        print(f"| {what} | {statistics.median(values):.1f} s | {min(values):.1f} s | {max(values):.1f} s |")
    print(f"\nOf {starts} starts.")


def started(stage: Stage, number: int) -> tuple[float, float]:
    """Start an operator after an edit; return seconds until its status says so, and those of a core that it took."""
    stage.operator.stop()
    wanted = stage.edit(DEPLOYMENT, "papers", burnIn={"for": f"{number}s"})
    begin = time.perf_counter()
    stage.operator.start()
    stage.wait(lambda: observed(stage) == wanted, "the edit to be seen", every=LOOK_EVERY)
    took = time.perf_counter() - begin
    assert stage.operator.process is not None
    spent = psutil.Process(stage.operator.process.pid).cpu_times()
    return took, spent.user + spent.system


def observed(stage: Stage) -> int:
    """Return which generation of the deployment its status speaks of."""
    return int(stage.get(DEPLOYMENT, "papers")["status"]["observedGeneration"])


if __name__ == "__main__":
    main()
