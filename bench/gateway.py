"""What does the gateway add to a search, beside the same search sent to the database directly?

Run as `python bench/gateway.py [ROWS] [SECONDS] [ENGINE ...]`; engines are pgvector and milvus. Both ways take turns of
so many seconds, three each: the same query vectors, the same index, the same calls of the same client library; once by
threads of this process, once by a gateway in a process of its own, bound to one core, whose cache knows the queries.

An index of 1,000 rows by default, which a database on two cores answers 500 times a second with time to spare: what the
gateway adds hardly depends on how long the database takes, and where that is out of breath, its queue is what is seen.
20,000 rows are a search through the graph. Whoever asks the gateway sends head and body in one packet and reads no more
of an answer than its length, as clients in other languages do; Python's own would take more time than the gateway.

Open loop: 500 requests/s, or half of what the database alone can do where that is less, are sent when they are due,
whatever became of those before, and a latency counts from when a request was due. Added is the difference of the two
ways' quantiles, the median over the rounds. Closed loop: eight threads ask as fast as they are answered. Without the
cache every query is new: beside it stands what the embedded model takes for one query by itself. CPU is what a request
took in the open loop: of this process for the direct way, its own clockwork included, and of the gateway's process for
the other.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.contracts import backends_points
from tests.servers import milvus as milvus_server
from tests.servers import postgres as postgres_server
from tests.servers import processes

from pointsman import ports, settings
from pointsman.access import Access
from pointsman.api import base, engines
from pointsman.backends import registry
from pointsman.cli.gateway import open_embedder
from pointsman.cluster.memory import MemoryCluster
from pointsman.core.recipes import Space
from pointsman.embedders import wordllama
from pointsman.gateway import server

LOCAL = Access(allow_loopback=True, allowed_hosts=("*",))
DIMENSIONS, TOP_K, RATE, THREADS, ROUNDS = 256, 10, 500, 16, 3
NAMESPACE, NAME, INDEX = "bench", "papers", "papers_v7"
CORES = sorted(os.sched_getaffinity(0))
WORDS = ("signal", "box", "points", "crossing", "train", "engine", "steam", "night", "alps", "gauge", "yard", "rail")

Ask = Callable[[int], None]
"""Asks the query of a number, and returns when it is answered."""


def main() -> None:
    """Measure each engine, or be the gateway that is measured."""
    if sys.argv[1:2] == ["serve"]:
        serve(json.loads(sys.argv[2]))
        return
    rows, seconds, *wanted = [*sys.argv[1:], *["1000", "5"][len(sys.argv) - 1 :]]
    sys.setswitchinterval(0.0005)
    latencies = ["p50", "p99", "added p50", "added p99"]
    names = ["engine", "way", "requests/s", *latencies, "highest rate", "share of direct", "CPU per request"]
    print(f"| {' | '.join(names)} |")
    print(f"|{'---|' * len(names)}")
    for engine in wanted or ("pgvector", "milvus"):
        with tempfile.TemporaryDirectory() as folder, database(engine, Path(folder)) as (spec, credentials):
            measure(engine, spec, credentials, int(rows), float(seconds))


@contextlib.contextmanager
def database(engine: str, folder: Path) -> Iterator[tuple[engines.Backend, dict[str, str]]]:
    """Start a database and say how it is reached."""
    if engine == "milvus":
        with milvus_server.start_milvus(folder) as uri:
            yield engines.Backend(milvus=engines.MilvusBackend(uri=uri)), {}
        return
    with postgres_server.start_postgres(folder) as at:
        found = engines.PgvectorBackend(
            host=at.host,
            port=at.port,
            database=at.database,
            credentials_ref=base.SecretReference(name="database"),
            tls="Disable",
        )
        yield engines.Backend(pgvector=found), {"username": at.username, "password": at.password}


def measure(engine: str, spec: engines.Backend, credentials: dict[str, str], rows: int, seconds: float) -> None:
    """Fill an index, start a gateway before it, and print a row for each way."""
    model = wordllama.Wordllama(DIMENSIONS)
    backend = registry.open_backend(spec, credentials, LOCAL, calls=registry.Calls(10, THREADS, True))
    fill(backend, rows)
    texts = [f"{a} {b} of the {c}" for a, b, c in itertools.islice(itertools.product(WORDS, repeat=3), 500)]
    vectors = list(model.embed(texts))

    def direct(number: int) -> None:
        found = backend.search(INDEX, vectors[number % len(vectors)], TOP_K, None)
        assert len(found) == TOP_K

    def embedding_too(number: int) -> None:
        found = backend.search(INDEX, model.embed([f"{texts[number % 500]} {number}"])[0], TOP_K, None)
        assert len(found) == TOP_K

    with gateway(spec, credentials) as (port, process):
        bodies = [orjson.dumps({"query": text, "topK": TOP_K}) for text in texts]
        cached = functools.partial(asked, port, lambda number: bodies[number % len(bodies)])
        new = functools.partial(
            asked, port, lambda number: orjson.dumps({"query": f"{texts[number % 500]} {number}", "topK": TOP_K})
        )
        for number in range(500):
            direct(number)
            cached(number)
        rate = min(RATE, int(closed_loop(direct, itertools.count(), 2) / 2))
        compare(engine, "direct", direct, "gateway", cached, seconds, rate, process)
        compare(engine, "direct, embedding", embedding_too, "gateway, no query twice", new, seconds, rate, process)
        one = statistics.median(timed(lambda: model.embed([texts[0]])) for _ in range(500))
        print(f"| {engine} | the model's own time for one query | | {1000 * one:.2f} ms | | | | | | |", flush=True)
    backend.close()


def compare(
    engine: str,
    name: str,
    direct: Ask,
    other_name: str,
    other: Ask,
    seconds: float,
    rate: int,
    process: psutil.Process,
) -> None:
    """Print two rows: the database directly, and the gateway beside it."""
    quantiles: dict[str, list[tuple[float, float]]] = {name: [], other_name: []}
    rates: dict[str, list[float]] = {name: [], other_name: []}
    cpu = {name: 0.0, other_name: 0.0}
    whose = {name: psutil.Process(), other_name: process}
    numbers = itertools.count(1)
    for turn in range(ROUNDS):
        ways = [(name, direct), (other_name, other)]
        for way, ask in ways if turn % 2 == 0 else reversed(ways):
            before = whose[way].cpu_times()
            found = open_loop(ask, numbers, seconds, rate)
            after = whose[way].cpu_times()
            cpu[way] += after.user + after.system - before.user - before.system
            quantiles[way].append((float(np.quantile(found, 0.5)), float(np.quantile(found, 0.99))))
            rates[way].append(closed_loop(ask, numbers, seconds / 2))
    added = [
        statistics.median(o[i] - d[i] for o, d in zip(quantiles[other_name], quantiles[name], strict=True))
        for i in (0, 1)
    ]
    share = statistics.median(o / d for o, d in zip(rates[other_name], rates[name], strict=True))
    for way in (name, other_name):
        p50, p99 = (statistics.median(each[i] for each in quantiles[way]) for i in (0, 1))
        told = [f"{1000 * p50:.2f} ms", f"{1000 * p99:.2f} ms"]
        told += [f"{1000 * each:.2f} ms" for each in added] if way == other_name else ["", ""]
        told += [f"{statistics.median(rates[way]):.0f}/s", f"{share:.2f}" if way == other_name else ""]
        told += [f"{1e6 * cpu[way] / (ROUNDS * seconds * rate):.0f} µs"]
        print(f"| {engine} | {way} | {rate} | {' | '.join(told)} |", flush=True)


def open_loop(ask: Ask, numbers: Iterator[int], seconds: float, rate: int) -> list[float]:
    """Send requests when they are due; return how long after that each was answered, in seconds."""
    begin, count, turns = time.perf_counter() + 0.1, int(seconds * rate), itertools.count()
    found: list[list[float]] = [[] for _ in range(2 * THREADS)]

    def work(own: list[float]) -> None:
        while (turn := next(turns)) < count:
            due = begin + turn / rate
            if (left := due - time.perf_counter()) > 0:
                time.sleep(left)
            ask(next(numbers))
            own.append(time.perf_counter() - due)

    in_threads([functools.partial(work, own) for own in found])
    return [each for own in found for each in own]


def closed_loop(ask: Ask, numbers: Iterator[int], seconds: float) -> float:
    """Return how many requests a second eight threads get answered."""
    until, done = time.perf_counter() + seconds, [0] * 8

    def work(own: int) -> None:
        while time.perf_counter() < until:
            ask(next(numbers))
            done[own] += 1

    in_threads([functools.partial(work, own) for own in range(8)])
    return sum(done) / seconds


def in_threads(works: Sequence[Callable[[], None]]) -> None:
    """Run all at once; return after the last."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


_CONNECTIONS = threading.local()
_LENGTH = re.compile(rb"content-length: ([0-9]+)")


def asked(port: int, body: Callable[[int], bytes], number: int) -> None:
    """Ask the gateway, on a connection of the thread's own."""
    found = getattr(_CONNECTIONS, "connection", None)
    if found is None or found.getpeername()[1] != port:
        found = _CONNECTIONS.connection = socket.create_connection(("127.0.0.1", port))
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    question = body(number)
    found.sendall(
        b"POST /v1/namespaces/%b/indexes/%b/search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n%b"
        % (NAMESPACE.encode(), NAME.encode(), len(question), question)
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += found.recv(65_536)
    head, _, content = head.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    assert length is not None, head
    while len(content) < int(length[1]):
        content += found.recv(65_536)
    assert head.startswith(b"HTTP/1.1 200") and len(orjson.loads(content)["results"]) == TOP_K, content


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def space() -> Space:
    """Return the space of the vectors."""
    return Space("wordllama", wordllama.MODEL, wordllama.revision(), DIMENSIONS)


def fill(backend: ports.Backend, rows: int) -> None:
    """Make the index."""
    marker = ports.Marker(f"{NAMESPACE}/{NAME}", "uid", "v7", "recipe", space().key, wordllama.MODEL)
    backend.create(ports.IndexSpec(INDEX, DIMENSIONS, 16, 64, marker))
    batch = backends_points.batch(backends_points.directions(rows, DIMENSIONS))
    backend.load(INDEX, [batch])
    backend.seal(INDEX)


@contextlib.contextmanager
def gateway(spec: engines.Backend, credentials: dict[str, str]) -> Iterator[tuple[int, psutil.Process]]:
    """Start a gateway in a process of its own; yield its port and the process."""
    job = json.dumps({"backend": spec.dump(), "credentials": credentials})
    started = processes.start(
        [sys.executable, __file__, "serve", job], signal.SIGKILL, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        assert started.stderr is not None
        port = 0
        for line in started.stderr:
            told = orjson.loads(line)
            port = told.get("port", port)
            if told["event"] == "route_adopted":
                break
        threading.Thread(target=started.stderr.read, daemon=True).start()
        yield port, psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(30)


def serve(job: dict[str, object]) -> None:
    """Be a gateway, on one core, whose cluster is in memory."""
    from pointsman import logs

    os.sched_setaffinity(0, {CORES[0]})
    logs.configure()
    spec, cluster, where = engines.Backend.model_validate(job["backend"]), MemoryCluster(), space()
    cluster.put_secret(NAMESPACE, "database", dict(job["credentials"]), {"pointsman.dev/allowed-hosts": "127.0.0.1"})
    entry = {
        "index": INDEX,
        "version": "v7",
        "weight": 100,
        "snapshot": 1,
        "recipe": "recipe",
        "space": where.key,
        "provider": where.provider,
        "model": where.model,
        "revision": where.revision,
        "dimensions": where.dimensions,
    }
    route = {"epoch": 1, "revision": 1, "salt": "s", "dataset": NAME, "address": registry.address(spec)}
    cluster.apply(
        {
            "apiVersion": "pointsman.dev/v1alpha1",
            "kind": "IndexDeployment",
            "metadata": {"namespace": NAMESPACE, "name": NAME},
            "spec": {"datasetRef": {"name": NAME}, "version": "v7", "backend": spec.dump()},
            "status": {"route": {**route, "entries": [entry]}},
        }
    )
    chosen = settings.load_gateway(auth="none", host="127.0.0.1", admin_host="127.0.0.1", port=0, admin_port=0)
    embedder = functools.partial(open_embedder, 10.0)
    server.run(chosen, (), cluster, LOCAL, registry.open_backend, embedder)


if __name__ == "__main__":
    main()
