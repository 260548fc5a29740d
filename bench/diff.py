"""What it costs to compare two snapshots of which 1 % is edited, the reading of their keys from the store included.

    python bench/diff.py [ROWS ...]

Prints a Markdown table. Each line is measured in child processes of its own that did nothing before but import: medians
of several, and the largest growth of resident memory over what the imports take.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pointsman.core import changes, digests, rows
from pointsman.store.root import Store

SIZES = (100_000, 300_000, 1_000_000)
RUNS = 5
EDITED = 0.01
BATCH = 10_000
KINDS = {
    "documents": "documents added, deleted, edited",
    "chunks": "documents by cause",
    "points": "points to write and to remove",
}


def main() -> None:
    """Build the snapshots of each size, measure in children, print the table."""
    if sys.argv[1:2] == ["--child"]:
        _measure(*sys.argv[2:])
        return
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    heads = "read keys, s | compare, s | both, s | of that processor, s | microseconds a row"
    print(f"| rows | comparison | {heads} | peak memory growth, MB |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for size in sizes:
        with tempfile.TemporaryDirectory() as root:
            # Built in a child too, so that nothing of it is cached in the process that measures.
            subprocess.run([sys.executable, __file__, "--child", root, "build", str(size)], check=True)
            for kind, words in KINDS.items():
                runs = [_run(root, kind) for _ in range(RUNS)]
                read, compare = (statistics.median(run[part] for run in runs) for part in ("read", "compare"))
                both = statistics.median(run["read"] + run["compare"] for run in runs)
                peak = max(run["peak"] for run in runs) / 1e6
                # On a busy machine the processor's time, of all threads, says more than the clock's.
                processor = statistics.median(run["processor"] for run in runs)
                times = f"{read:.3f} | {compare:.3f} | {both:.3f} | {processor:.3f} | {both / size * 1e6:.2f}"
                print(f"| {size:,} | {words} | {times} | {peak:.0f} |", flush=True)


def _run(root: str, kind: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--child", root, kind], check=True, stdout=subprocess.PIPE)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _measure(root: str, kind: str, size: str = "0") -> None:
    if kind == "build":
        _build(root, int(size))
        return
    dataset = Store(root).dataset("bench", "papers")
    before = _memory("VmRSS")
    busy = time.process_time()
    start = time.perf_counter()
    if kind == "documents":
        old, new = (dataset.corpus.keys(version).select(changes.DOCUMENT_COLUMNS) for version in (1, 2))
    else:
        columns = changes.CHUNK_COLUMNS if kind == "chunks" else changes.POINT_COLUMNS
        old, new = (dataset.chunks("recipe").keys(version, columns) for version in (1, 2))
    middle = time.perf_counter()
    if kind == "documents":
        edited = len(changes.documents(old, new).edited)
    elif kind == "chunks":
        edited = changes.chunks(old, new, same_space=True).counts[changes.Cause.EDITED]
    else:
        edited = len(changes.points(old, new).upserts)
    end = time.perf_counter()
    busy = time.process_time() - busy
    assert edited == round(new.num_rows * EDITED), edited
    peak = _memory("VmHWM") - before
    print(json.dumps({"read": middle - start, "compare": end - middle, "processor": busy, "peak": peak}))


def _build(root: str, size: int) -> None:
    dataset = Store(root).dataset("bench", "papers")
    edited = np.random.default_rng(1).choice(size, round(size * EDITED), replace=False)
    nothing = pa.array([], pa.string())
    for table, batches in ((dataset.corpus, _documents), (dataset.chunks("recipe"), _chunks)):
        first = table.write(None, nothing, batches(np.arange(size), seed=1))
        assert (first, table.write(first, nothing, batches(edited, seed=2))) == (1, 2)


def _documents(numbers: np.ndarray, seed: int) -> Iterator[pa.RecordBatch]:
    random = np.random.default_rng(seed)
    for start in range(0, len(numbers), BATCH):
        ids = pa.array([f"document-{n:09d}" for n in numbers[start : start + BATCH]])
        count = len(ids)
        columns = [ids, pa.array(['{"text":"the text of a document"}'] * count), _keys(random, count), _ones(count)]
        yield pa.RecordBatch.from_arrays(columns, schema=rows.CORPUS)


def _chunks(numbers: np.ndarray, seed: int) -> Iterator[pa.RecordBatch]:
    random = np.random.default_rng(seed)
    for start in range(0, len(numbers), BATCH):
        documents = pa.array([f"document-{n:09d}" for n in numbers[start : start + BATCH]])
        count = len(documents)
        columns = {
            "point_id": digests.point_ids(documents, [0] * count),
            "document": documents,
            "ordinal": pa.array([0] * count, pa.int32()),
            "text": pa.array(["the text of a document"] * count),
            "content_key": _keys(random, count),
            "text_digest": _keys(random, count),
            "cut_digest": _keys(random, count),
            "metadata": pa.array(["{}"] * count),
            "metadata_digest": digests.text_digests(["{}"] * count),
            "sequence": _ones(count),
        }
        yield pa.RecordBatch.from_arrays([columns[name] for name in rows.CHUNKS.names], schema=rows.CHUNKS)


def _keys(random: np.random.Generator, count: int) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(rows.KEY, count, [None, pa.py_buffer(random.bytes(16 * count))])


def _ones(count: int) -> pa.Array:
    return pa.array([1] * count, pa.int64())


def _memory(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
