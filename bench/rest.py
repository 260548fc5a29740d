"""What does the operator cost while there is nothing to do: memory by part, requests to the API server, writes?

    python bench/rest.py [SECONDS]

Imports are measured one after the other in one fresh process, as the growth of its resident memory; what an earlier one
has brought along is not counted again. Then the real operator looks after one dataset and one deployment that serve.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.operator_process import PLURALS, Stage, papers, running, wordllama
from tests.servers import milvus

from pointsman.controlplane import plane

PARTS = (
    ("Python itself", ""),
    ("pydantic, the resources' types", "pointsman.api.dataset, pointsman.api.deployment, pointsman.api.queryset"),
    ("numpy", "numpy"),
    ("pyarrow", "pyarrow, pyarrow.compute"),
    ("scipy's distributions, and what of numpy they bring along", "scipy.special"),
    ("obstore (the store's records)", "pointsman.store.root"),
    ("kubernetes client", "pointsman.cluster.kube, kubernetes.client.api_client"),
    ("kopf", "pointsman.controller.handlers"),
    ("all else of the operator", "pointsman.cli.operator"),
    ("pymilvus, where a deployment is on Milvus", "pointsman.backends.milvus"),
    ("qdrant-client, where one is on Qdrant", "pointsman.backends.qdrant"),
    ("psycopg, where one is on PostgreSQL", "pointsman.backends.pgvector"),
    ("lance, in workers alone", "lance"),
    ("the kubernetes client's types of core objects, which nobody uses", "kubernetes.client.api.core_v1_api"),
)
PROBE = """
import importlib, json, sys, time
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024
found = []
for names in json.loads(sys.argv[1]):
    before, start = resident(), time.perf_counter()
    for name in filter(None, names.split(", ")):
        importlib.import_module(name)
    found.append((resident() - before if names else before, time.perf_counter() - start))
print(json.dumps(found))
"""


def main() -> None:
    """Print two Markdown tables: the imports, and the operator at rest."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    arguments = [sys.executable, "-c", PROBE, json.dumps([names for _, names in PARTS])]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    print("| part | memory, MiB | import, s |\n|---|---:|---:|")
    for (part, _), (size, took) in zip(PARTS, json.loads(done.stdout), strict=True):
        print(f"| {part} | {size:,.0f} | {took:.2f} |")
    print()
    with tempfile.TemporaryDirectory() as name, plane.start() as control_plane:
        folder = Path(name).resolve()
        with milvus.start_milvus(folder) as uri, running(control_plane, folder / "stage", resync_seconds="10") as stage:
            at_rest(stage, uri, seconds)


def at_rest(stage: Stage, uri: str, seconds: float) -> None:
    """Let the operator serve and rest, and print what it did meanwhile."""
    stage.declare("papers", stage.write(papers(1000)), wordllama("v7", 64))
    stage.deploy("papers", {"milvus": {"uri": uri}})
    stage.wait(lambda: stage.serves("papers", "v7"), "v7 to serve")
    # Workers that have nothing to do are ended after a minute.
    stage.wait(lambda: not stage.operator.workers(), "the workers to end")
    assert stage.operator.process is not None
    operator = psutil.Process(stage.operator.process.pid)
    before, processor = versions(stage), operator.cpu_times()
    time.sleep(seconds)
    after, spent = versions(stage), operator.cpu_times()
    busy = (spent.user + spent.system - processor.user - processor.system) / seconds
    writes = sum(after[key] != before.get(key) for key in after)
    print("| at rest, looked at every 10 s | |\n|---|---:|")
    print(f"| memory of the operator | {operator.memory_info().rss / 2**20:,.0f} MiB |")
    print(f"| worker processes | {len(stage.operator.workers())} |")
    print(f"| processor | {busy:.1%} of one core |")
    print(f"| objects written in {seconds:.0f} s | {writes} |")


def versions(stage: Stage) -> dict[str, str]:
    """Return the resourceVersion of everything in the namespace that the operator could write."""
    found = {}
    paths = [f"/apis/pointsman.dev/v1alpha1/namespaces/{stage.namespace}/{plural}" for plural in PLURALS.values()]
    paths += [f"/api/v1/namespaces/{stage.namespace}/{plural}" for plural in ("configmaps", "events", "secrets")]
    for path in paths:
        for item in stage.admin.get(path)["items"]:
            found[f"{path}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return found


if __name__ == "__main__":
    main()
