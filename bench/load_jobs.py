"""What does loading an index by pods cost beside loading it in one process, on the same machine?

Run as `python bench/load_jobs.py [POINTS] [DIMENSIONS] [ROUNDS]`, on PostgreSQL with pgvector. Pods are processes here,
started with what a Job's pod is started with, as many at once as there are shards. One process and the shards take
turns. Of both the time is told until the last point is written, from the store; building the graph and proving the
whole, which one process does after either, come on top. A share of which nothing is left tells what a pod costs before
its first point. Kubernetes itself is not in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.load import EF_CONSTRUCT, LOCAL, MARKER, M, batches, stored
from tests.contracts import backends_engines
from tests.servers import postgres

from pointsman import ports
from pointsman.backends import registry
from pointsman.cluster import job_objects
from pointsman.core import recipes
from pointsman.store.ledger import Attempt
from pointsman.work import indexing, loading, wire

SHARDS = (1, 2, 4)


def pods(
    whole: indexing.Index, folder: str, secrets: Path, told: dict[str, Any], attempt: Attempt, shards: int
) -> float:
    """Return the seconds until so many pods of an attempt have ended."""
    values = {
        "namespace": "bench", "dataset": "load", "recipe": recipes.to_json(whole.recipe), "snapshot": 1,
        "attempt": attempt.number, "store": folder, "store_options": {}, "has_own_store": False,
        "access": wire.access_to_json(LOCAL), "marker": dataclasses.asdict(MARKER), "has_credentials": True,
        "serving": "", "shards": shards, **told,
    }  # fmt: skip
    environment = {**os.environ, job_objects.SHARD: json.dumps(values), "POINTSMAN_SHARD_SECRETS": str(secrets)}
    began = time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pointsman.cli.main", "shard"],
            env={**environment, "JOB_COMPLETION_INDEX": str(index)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for index in range(shards)
    ]
    assert [each.wait() for each in running] == [0] * shards
    return time.perf_counter() - began


def by_pods(
    whole: indexing.Index, folder: str, secrets: Path, spec: dict[str, Any], shards: int
) -> tuple[float, float]:
    """Return the seconds of loading, dividing included, and of a pod without work."""
    began = time.perf_counter()
    run = loading.begin(whole, 1, shards)
    ledger = whole.dataset.load(whole.name, 1)
    attempt = ledger.deal(shards)
    told = {"index": whole.name, "run": run.id, "backend": spec}
    pods(whole, folder, secrets, told, attempt, attempt.shards)
    taken = time.perf_counter() - began
    assert len(ledger.finished()) == run.portions
    idle = pods(whole, folder, secrets, told, attempt, 1)
    loading.forget(whole.dataset, whole.name)
    return taken, idle


def alone(whole: indexing.Index) -> float:
    """Return the seconds of loading by one process."""
    began = time.perf_counter()
    whole.backend.create(whole.spec)
    whole.backend.load(whole.name, indexing.Content(whole, 1).points())
    return time.perf_counter() - began


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:]]
    count, dimensions, rounds = [*numbers, *(100_000, 256, 3)[len(numbers) :]]
    single: list[float] = []
    found: dict[int, list[tuple[float, float]]] = {shards: [] for shards in SHARDS}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as beside:
        secrets = Path(beside) / "secrets" / "database"
        secrets.mkdir(parents=True)
        whole = stored(folder, batches(count, dimensions), dimensions)
        with postgres.start_postgres(Path(beside)) as server:
            credentials = {"username": server.username, "password": server.password}
            for name, value in credentials.items():
                (secrets / name).write_text(value)
            backends_engines.pgvector_engine(server).close()
            spec = backends_engines.pgvector_spec(server)
            backend = registry.open_backend(spec, credentials, LOCAL)

            def index(name: str) -> indexing.Index:
                made = ports.IndexSpec(name, dimensions, M, EF_CONSTRUCT, MARKER)
                return dataclasses.replace(whole, spec=made, backend=backend)

            for turn in range(rounds):
                each = index(f"bench_alone_{turn}")
                single.append(alone(each))
                backend.drop(each.name)
                for shards in SHARDS:
                    each = index(f"bench_{shards}_{turn}")
                    found[shards].append(by_pods(each, folder, secrets.parent, spec.dump(), shards))
                    assert backend.count(each.name) == count
                    backend.drop(each.name)
            backend.close()
    print("| shards | points | points/s | ratio to one process, median (range) | a pod without work |")
    print("|---:|---:|---:|---:|---:|")
    print(f"| one process | {count:,} x {dimensions} | {count / statistics.median(single):,.0f} | | |")
    for shards, runs in found.items():
        ratios = [one / run[0] for one, run in zip(single, runs, strict=True)]
        print(
            f"| {shards} | {count:,} x {dimensions} | {count / statistics.median(run[0] for run in runs):,.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {statistics.median(run[1] for run in runs):.1f} s |"
        )


if __name__ == "__main__":
    main()
