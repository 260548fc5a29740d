"""How long does a switch take, from the accepted edit to the switched ConfigMap, and does it grow with the index?

    python bench/rollback.py [ROWS ...]

For each size: a control plane, PostgreSQL and the operator as processes of their own; two versions of one dataset are
built and then the deployment is edited back and forth. The graph index is built thin (m 4, ef 8), since it is not what
is measured. Prints a Markdown table; a million rows take about a quarter of an hour to build.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration.operator_process import DATASET, DEPLOYMENT, Stage, running, wordllama
from tests.servers import postgres

from pointsman.controlplane import plane

SIZES = (10_000, 1_000_000)
SWITCHES = 11
PATIENCE = 3600.0


def main() -> None:
    """Measure each size on a stage of its own."""
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    print("| rows of each index | switches | median | range | embedded for them |")
    print("|---:|---:|---:|---:|---:|")
    with plane.start() as control_plane:
        for size in sizes:
            with (
                tempfile.TemporaryDirectory() as name,
                postgres.start_postgres(Path(name)) as server,
                running(control_plane, Path(name).resolve() / "stage") as stage,
            ):
                print(measured(stage, server, size), flush=True)


def measured(stage: Stage, server: postgres.Server, size: int) -> str:
    """Build both versions, switch to and fro, and return a line of the table."""
    stage.put_secret("database", {"username": server.username, "password": server.password}, server.host)
    place = {"host": server.host, "port": server.port, "database": server.database, "tls": "Disable"}
    hnsw = {"m": 4, "efConstruction": 8}
    write(stage, size)
    uri = f"file://{stage.folder}/corpus/papers.jsonl"
    stage.declare("papers", uri, wordllama("v7", 64))
    stage.deploy("papers", {"pgvector": {**place, "credentialsRef": {"name": "database"}, "hnsw": hnsw}})
    stage.wait(lambda: stage.serves("papers", "v7"), "v7 to serve", PATIENCE)
    stage.edit(DATASET, "papers", versions=[wordllama("v7", 64), wordllama("v8", 128)])
    stage.edit(DEPLOYMENT, "papers", version="v8")
    stage.wait(lambda: stage.serves("papers", "v8"), "v8 to serve", PATIENCE)
    embedded = stage.embedded("papers")
    seconds = []
    for turn in range(SWITCHES):
        version = ("v7", "v8")[turn % 2]
        stage.edit(DEPLOYMENT, "papers", version=version)
        accepted = time.monotonic()
        while stage.route("papers").get("version") != version:
            time.sleep(0.002)
        seconds.append(time.monotonic() - accepted)
        stage.wait(lambda version=version: stage.serves("papers", version), f"{version} to be Ready")
    rows = sum(after[2] for after in stage.embedded("papers")) - sum(before[2] for before in embedded)
    median, low, high = statistics.median(seconds), min(seconds), max(seconds)
    return f"| {size:,} | {SWITCHES} | {median:.3f} s | {low:.3f} to {high:.3f} s | {rows} rows |"


def write(stage: Stage, size: int) -> None:
    """Write so many short documents."""
    kinds = ("signal boxes", "points and crossings", "steam locomotives", "night trains", "narrow gauge lines")
    with (stage.folder / "corpus" / "papers.jsonl").open("w") as stream:
        for n in range(size):
            text = f"Number {n} of the series is about {kinds[n % 5]}, and what became of them."
            stream.write(f'{{"id":"paper-{n}","title":"Paper {n}","text":"{text}","year":{1900 + n % 100}}}\n')


if __name__ == "__main__":
    main()
