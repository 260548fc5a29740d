"""What does a refresh cost that finds nothing new?

Run as `python bench/refresh.py [DOCUMENTS]`. Writes so many documents of about 300 bytes as JSON Lines, takes the first
snapshot, and reads the unchanged source again, in a process of its own whose peak memory is shown.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from pointsman.access import Access
from pointsman.api.dataset import FilesSource as Spec
from pointsman.api.dataset import Surprises
from pointsman.sources.files import FilesSource
from pointsman.store.root import Store
from pointsman.work import progress
from pointsman.work.refresh import refresh

TEXT = "The signalman set the points before the night train arrived. " * 4


def write(file: Path, count: int) -> None:
    with file.open("w") as stream:
        for number in range(count):
            stream.write(f'{{"id":"doc-{number:09}","title":"Document {number}","text":"{TEXT}"}}\n')


def measured(folder: Path) -> tuple[float, float, float, bool]:
    """Return wall seconds, CPU seconds, peak MiB above what the imports take, and whether there was anything new."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = FilesSource(Spec(uri=f"file://{folder}/*.jsonl", format="jsonl"), "id", {}, Access(file_roots=(folder,)))
    dataset = Store(str(folder / "store")).dataset("bench", "documents")
    wall, cpu = time.perf_counter(), time.process_time()
    done = refresh(dataset, source, Surprises(), lambda: datetime.now(UTC), progress.nowhere)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return wall, cpu, (peak - before) / 1024, done.is_new


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        wall, cpu, peak, is_new = measured(Path(sys.argv[2]))
        print(f"{wall:.2f} s | {cpu:.2f} s | {peak:,.0f} MiB | {'written' if is_new else 'nothing'} |")
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    print("| refresh | documents | wall | CPU | memory above imports | writes |")
    print("|---|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write(folder / "documents.jsonl", count)
        for kind in ("first", "no-op", "no-op"):
            done = subprocess.run(
                [sys.executable, __file__, "measure", str(folder)], capture_output=True, text=True, check=True
            )
            print(f"| {kind} | {count:,} | {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
