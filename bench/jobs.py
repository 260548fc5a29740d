"""What does embedding in pods cost beside embedding in one process, on the same machine?

Run as `python bench/jobs.py [TEXTS] [ROUNDS]`. Pods are processes here, started with what a Job's pod is started with,
as many at once as there are shards. One process and the shards take turns. A share of which nothing is left tells what
a pod costs before its first document: the interpreter, the imports, the ledger. Scheduling, pulling the image and
Kubernetes itself come on top and are not in it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.embed import texts

from pointsman.access import Access
from pointsman.api.dataset import ModelChoice, Surprises, WordllamaModel
from pointsman.cluster import job_objects
from pointsman.core import chunking, recipes
from pointsman.core.recipes import Recipe
from pointsman.embedders import registry
from pointsman.embedders.wordllama import Wordllama
from pointsman.sources.memory import MemorySource
from pointsman.store.dataset import DatasetStore
from pointsman.store.ledger import Attempt
from pointsman.store.root import Store
from pointsman.work import progress, sharding, wire
from pointsman.work.embed import embed
from pointsman.work.refresh import refresh

CHOICE = ModelChoice(wordllama=WordllamaModel(dimensions=256))
RECIPE = Recipe(registry.space_of(CHOICE), "{text}", (), chunking.chunker(256, 0))
SHARDS = (1, 2, 4)


def now() -> datetime:
    return datetime.now(UTC)


def filled(folder: Path, content: list[str]) -> DatasetStore:
    dataset = Store(str(folder)).dataset("bench", "texts")
    rows: list[dict[str, Any]] = [{"id": str(n), "text": text} for n, text in enumerate(content)]
    refresh(dataset, MemorySource(rows), Surprises(), now, progress.nowhere)
    dataset.pin("v1", RECIPE)
    return dataset


def pod(folder: Path, attempt: Attempt, index: int) -> subprocess.Popen[bytes]:
    told = {
        "namespace": "bench", "dataset": "texts", "recipe": recipes.to_json(RECIPE), "snapshot": 1,
        "attempt": attempt.number, "store": str(folder), "store_options": {}, "has_own_store": False,
        "model": CHOICE.dump(), "endpoint": None, "has_key": False, "access": wire.access_to_json(Access()),
    }  # fmt: skip
    environment = {**os.environ, job_objects.SHARD: json.dumps(told), "JOB_COMPLETION_INDEX": str(index)}
    command = [sys.executable, "-m", "pointsman.cli.main", "shard"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ended(pods: list[subprocess.Popen[bytes]]) -> float:
    start = time.perf_counter()
    assert [each.wait() for each in pods] == [0] * len(pods)
    return time.perf_counter() - start


def alone(content: list[str]) -> tuple[float, str]:
    """Return the seconds of one process, and the digest."""
    with tempfile.TemporaryDirectory() as name:
        dataset, model = filled(Path(name), content), Wordllama(256)
        model.embed(content[:512])
        start = time.perf_counter()
        record = embed(dataset, "v1", RECIPE, 1, model, now, progress.nowhere)
        return time.perf_counter() - start, record.digest


def by_pods(content: list[str], shards: int) -> tuple[float, float, float, float, str]:
    """Return the seconds of all, of both ends, of the pods at once, and of a pod without work; and the digest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = filled(folder, content)
        start = time.perf_counter()
        sharding.begin(dataset, RECIPE, 1, shards)
        attempt = dataset.ledger(RECIPE.key, 1).deal(shards)
        ends = time.perf_counter() - start
        pods = ended([pod(folder, attempt, index) for index in range(attempt.shards)])
        idle = ended([pod(folder, attempt, 0)])
        start = time.perf_counter()
        record = sharding.finish(dataset, "v1", RECIPE, 1, now)
        ends += time.perf_counter() - start
        return ends + pods, ends, pods, idle, record.digest


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    content = texts(count)
    single: list[float] = []
    found: dict[int, list[tuple[float, float, float, float]]] = {shards: [] for shards in SHARDS}
    for _ in range(rounds):
        seconds, digest = alone(content)
        single.append(seconds)
        for shards in SHARDS:
            *measured, other = by_pods(content, shards)
            assert other == digest
            found[shards].append((measured[0], measured[1], measured[2], measured[3]))
    rate = statistics.median(single)
    print("| shards | texts | texts/s | ratio to one process, median (range) | before and after | a pod without work |")
    print("|---:|---:|---:|---:|---:|---:|")
    print(f"| one process | {count:,} | {count / rate:,.0f} | | | |")
    for shards, runs in found.items():
        ratios = [alone / run[0] for alone, run in zip(single, runs, strict=True)]
        both, idle = (statistics.median(run[n] for run in runs) for n in (1, 3))
        print(
            f"| {shards} | {count:,} | {count / statistics.median(run[0] for run in runs):,.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"| {both:.1f} s | {idle:.1f} s |"
        )


if __name__ == "__main__":
    main()
