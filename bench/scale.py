"""What does the operator cost with many deployments that have nothing to do, and how soon does it act on one of them?

    python bench/scale.py [DEPLOYMENTS ...]

On a real API server and a real PostgreSQL. The operator itself builds one dataset of two versions and one deployment
that serves one and retains the other. Both are then copied under other names, a dataset for every five deployments:
resources, status, ConfigMap, what the store has of them, tables and their markers, so that every copy is looked at as
what it is, at rest. An operator that was started anew is measured: how long until it has listed everything, and until
it has looked at every deployment; then what it spends while nothing happens, over two periods of its resync; then how
long a rollback takes, from the accepted edit to the first effect, which is on record then, and to the switched
ConfigMap, the last but the status, one deployment after the other.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from psycopg import sql

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integration import databases
from tests.integration.operator_process import (
    DATASET,
    DEPLOYMENT,
    GROUP,
    PLURALS,
    Object,
    Stage,
    papers,
    running,
    wordllama,
)
from tests.servers import postgres

from pointsman.controlplane import plane
from pointsman.plan.tasks import Key
from pointsman.work import jobs

SIZES = (1_000,)
SHARED = 5
"""How many deployments rely on one dataset."""
RESYNC = 60.0
EDITS = 40
PATIENCE = 1800.0
SET, DEP = "templateset", "templatedep"
"""The names that are replaced in every copy, by others of the same length."""


@dataclass(frozen=True)
class Spent:
    """What an operator had spent at a moment."""

    at: float
    processor: float
    looks: float
    requests: float
    writes: int


def main() -> None:
    """Measure each size on a stage of its own."""
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    heads = ["deployments", "datasets", "all listed", "all looked at", "memory", "of it libraries' files", "at most"]
    heads += ["processor at rest", "of a look", "requests of a look", "writes at rest"]
    heads += ["edit to first effect, p50", "p99", "to ConfigMap, p50", "p99"]
    print(f"| {' | '.join(heads)} |\n|{'---:|' * len(heads)}")
    settings = {"resync_seconds": f"{RESYNC:g}", "metrics_host": "127.0.0.1", "metrics_port": "0"}
    for size in sizes:
        with (
            tempfile.TemporaryDirectory() as name,
            plane.start() as control_plane,
            postgres.start_postgres(Path(name)) as server,
            running(control_plane, Path(name).resolve() / "stage", **settings) as stage,
        ):
            build(stage, server)
            stage.operator.stop()
            copy(stage, server, size)
            rest(stage, size)
            print(measured(stage, size), flush=True)


def build(stage: Stage, server: postgres.Server) -> None:
    """Let the operator make what is copied: it serves v8 and retains v7."""
    stage.put_secret(databases.SECRET, {"username": server.username, "password": server.password}, "127.0.0.1")
    stage.declare(SET, stage.write(papers(5)), wordllama("v7", 64), wordllama("v8", 128))
    stage.deploy(DEP, databases.pgvector_spec(server), dataset=SET)
    stage.wait(lambda: stage.serves(DEP, "v7"), "v7 to serve", PATIENCE)
    stage.edit(DEPLOYMENT, DEP, version="v8")
    stage.wait(lambda: stage.serves(DEP, "v8"), "v8 to serve", PATIENCE)
    # A copy whose way back was never asked would ask it first.
    indexes = stage.get(DEPLOYMENT, DEP)["status"]["indexes"]
    back = next(index["name"] for index in indexes if index["role"] == "Retained")
    log = stage.store().log(*jobs.probe_log(Key(DEPLOYMENT, stage.namespace, DEP), back))
    stage.wait(lambda: log.read() is not None, "the way back to be asked", PATIENCE)


def copy(stage: Stage, server: postgres.Server, size: int) -> None:
    """Make so many deployments, and the datasets that they rely on."""
    dataset, deployment, route = stage.get(DATASET, SET), stage.get(DEPLOYMENT, DEP), stage.route(DEP)
    tables(server, size)
    with ThreadPoolExecutor(8) as pool:
        numbers = range(size)
        for kept, at in (("datasets", SET), ("deployments", DEP)):
            folder = stage.folder / "store" / kept / stage.namespace / at
            # What is stored of documents and vectors lies in tables, which nobody at rest reads.
            files = {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.json"))}
            list(pool.map(lambda n, found=files, to=folder.parent, of=at: stored(found, to, of, n), numbers))
        list(pool.map(lambda n: put(stage, DATASET, dataset, n * SHARED), range(-(-size // SHARED))))
        list(pool.map(lambda n: put(stage, DEPLOYMENT, deployment, n, route), numbers))


def named(text: str, number: int) -> str:
    """Return a text of the originals as that of a copy."""
    return text.replace(DEP, f"dep{number:08d}").replace(SET, f"set{number // SHARED:08d}")


def stored(files: dict[Path, bytes], folder: Path, original: str, number: int) -> None:
    """Write down of a copy what the store has of the original."""
    for path, content in files.items():
        if "lance" in str(path):
            continue
        where = folder / named(f"{original}/{path}", number)
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(named(content.decode(), number))


def tables(server: postgres.Server, size: int) -> None:
    """Copy the tables, without the graphs: nobody searches."""
    place = f"host={server.host} port={server.port} dbname={server.database} user={server.username}"
    with psycopg.connect(place, password=server.password, autocommit=True) as connection:
        listed = "SELECT relname, obj_description(oid) FROM pg_class WHERE relkind = 'r' AND relname LIKE %s"
        found = connection.execute(listed, (f"%{DEP}%",)).fetchall()
        assert len(found) == 2, found
        for first in range(0, size, 100):
            with connection.transaction():
                for number in range(first, min(size, first + 100)):
                    for table, comment in found:
                        names = (sql.Identifier(named(table, number)), sql.Identifier(table))
                        connection.execute(sql.SQL("CREATE TABLE {} AS TABLE {}").format(*names))
                        marker = sql.Literal(named(comment, number))
                        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(names[0], marker))


def put(stage: Stage, kind: str, original: Object, number: int, route: Object | None = None) -> None:
    """Create a copy of a resource with its status, and its ConfigMap."""
    body = json.loads(named(json.dumps(first_generation(original)), number))
    meta = {"name": body["metadata"]["name"], "finalizers": body["metadata"]["finalizers"]}
    path = f"/apis/{GROUP}/namespaces/{stage.namespace}/{PLURALS[kind]}"
    made = stage.admin.create(path, {"apiVersion": GROUP, "kind": kind, "metadata": meta, "spec": body["spec"]})
    said = json.dumps({**made, "status": body["status"]}).encode()
    stage.admin.request("PUT", f"{path}/{meta['name']}/status", said, "application/json")
    if route is not None:
        owner = {"apiVersion": GROUP, "kind": kind, "name": meta["name"], "uid": made["metadata"]["uid"]}
        labels = {"app.kubernetes.io/managed-by": "pointsman"}
        about = {"name": f"{meta['name']}-serving", "labels": labels, "ownerReferences": [owner]}
        data = json.loads(named(json.dumps(route), number))
        stage.admin.create(f"/api/v1/namespaces/{stage.namespace}/configmaps", {"metadata": about, "data": data})


def first_generation(value: Any) -> Any:
    """Return a resource with a status that speaks of the first generation, as a copy's is."""
    if isinstance(value, dict):
        return {n: 1 if n == "observedGeneration" else first_generation(each) for n, each in value.items()}
    return [first_generation(each) for each in value] if isinstance(value, list) else value


def rest(stage: Stage, size: int) -> None:
    """Let an operator write whatever a copy is wrong about, until nothing is left to be written."""
    stage.operator.start()
    until(stage, lambda: looked_at(page(stage)) >= size + 1, "everything to be looked at", 5.0)
    written = -1
    while written != (written := stage.writes()):
        time.sleep(RESYNC / 2)
    stage.operator.stop()


def measured(stage: Stage, size: int) -> str:
    """Start an operator and return a line of the table."""
    lines, start = len(stage.operator.lines()), time.monotonic()
    stage.operator.start()
    assert stage.operator.process is not None
    process = psutil.Process(stage.operator.process.pid)
    # Not what the probe says: whoever stands by is ready too, as is everybody for a moment.
    until(stage, lambda: "pointsman_synced 1.0" in page(stage, lines), "everything to be listed", 0.5)
    listed = time.monotonic() - start
    until(stage, lambda: looked_at(page(stage)) >= size + 1, "everything to be looked at", 5.0)
    seen = time.monotonic() - start
    # The first looks are over, and those that they have called for.
    time.sleep(RESYNC)
    before = spent(stage, process)
    time.sleep(2 * RESYNC)
    after = spent(stage, process)
    memory, files, most = (resident(process.pid, which) for which in ("VmRSS", "RssFile", "VmHWM"))
    looks, cpu = after.looks - before.looks, after.processor - before.processor
    told = len(stage.operator.lines())
    edits = [edited(stage, number) for number in range(min(EDITS, size))]
    first = first_effects(stage.operator.lines()[told:])
    until_first = [(first[number] - accepted).total_seconds() for number, (accepted, _) in enumerate(edits)]
    return (
        f"| {size:,} | {-(-size // SHARED):,} | {listed:.1f} s | {seen:.1f} s "
        f"| {memory:,.0f} MiB | {files:,.0f} MiB | {most:,.0f} MiB "
        f"| {cpu / (after.at - before.at):.0%} of a core | {cpu / looks * 1000:.1f} ms "
        f"| {(after.requests - before.requests) / looks:.1f} | {after.writes - before.writes} "
        f"| {' | '.join(middle_and_most(until_first) + middle_and_most([seconds for _, seconds in edits]))} |"
    )


def middle_and_most(seconds: list[float]) -> list[str]:
    """Return the median and the 99th percentile, as they are written down."""
    ordered = sorted(seconds)
    return [f"{statistics.median(ordered):.2f} s", f"{ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]:.2f} s"]


def resident(pid: int, which: str) -> float:
    """Return how much memory of a process is resident, or was, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{which}:")).split()[1]) / 1024


def edited(stage: Stage, number: int) -> tuple[datetime, float]:
    """Roll one deployment back; return when that was accepted, and the seconds until direct clients are told so."""
    name = named(DEP, number)
    stage.edit(DEPLOYMENT, name, version="v7")
    accepted, began = datetime.now(UTC), time.monotonic()
    until(stage, lambda: stage.route(name).get("version") == "v7", f"{name} to be rolled back", 0.005)
    return accepted, time.monotonic() - began


def first_effects(lines: list[Object]) -> dict[int, datetime]:
    """Return when the first effect on each deployment was logged, by the number of the deployment."""
    found: dict[int, datetime] = {}
    for line in lines:
        about = re.fullmatch(rf"{DEPLOYMENT} \S+/dep(\d+)", line.get("resource", ""))
        if line["event"] == "action_applied" and about is not None:
            found.setdefault(int(about[1]), datetime.fromisoformat(line["timestamp"]))
    return found


def spent(stage: Stage, process: psutil.Process) -> Spent:
    """Return what the operator has spent up to now."""
    told, times = page(stage), process.cpu_times()
    looks = total(told, r"pointsman_reconcile_duration_seconds_count\{.*\}")
    requests = total(told, r"pointsman_api_requests_total\{.*\}")
    return Spent(time.monotonic(), times.user + times.system, looks, requests, stage.writes())


def looked_at(told: str) -> int:
    """Return how many deployments have been looked at."""
    return len(re.findall(r"^pointsman_unguarded\{", told, re.MULTILINE))


def total(told: str, pattern: str) -> float:
    """Return the sum of what metrics of a pattern say."""
    return sum(float(found) for found in re.findall(rf"^{pattern} (\S+)$", told, re.MULTILINE))


def page(stage: Stage, after: int = 0) -> str:
    """Return all metrics of the operator; none while it does not listen, which it has said behind so many lines."""
    ports = [line["port"] for line in stage.operator.lines()[after:] if line["event"] == "metrics_served"]
    if not ports:
        return ""
    try:
        return httpx.get(f"http://127.0.0.1:{ports[-1]}/metrics", trust_env=False, timeout=60).text
    except httpx.HTTPError:
        return ""


def until(stage: Stage, claim: Callable[[], bool], what: str, every: float) -> None:
    """Wait for as long as a large stage may take."""
    stage.wait(claim, what, PATIENCE, every)


if __name__ == "__main__":
    main()
