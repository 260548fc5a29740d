"""Measure everything, one thing at a time, and write the tables of the pages anew that show them.

    python bench/run.py [NAME ...]

Each table stands between two comments that name it; the words around them are a person's and stay. A name alone
measures that table only.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "docs" / "performance.md", ROOT / "docs" / "operating-characteristics.md")
MEASURES = {
    "embed": ("bench/embed.py",),
    "endpoint": ("bench/endpoint.py",),
    "load": ("bench/load.py", "30000"),
    "jobs": ("bench/jobs.py",),
    "load-jobs": ("bench/load_jobs.py", "200000", "256", "3"),
    "diff": ("bench/diff.py",),
    "refresh": ("bench/refresh.py", "1000000"),
    "rollback": ("bench/rollback.py",),
    "shift": ("bench/shift.py",),
    "gateway": ("bench/gateway.py",),
    "rest": ("bench/rest.py",),
    "start": ("bench/start.py",),
    "scale": ("bench/scale.py", "1000", "5000"),
    "evaluation": ("bench/operating.py", "evaluation"),
    "looks": ("bench/operating.py", "looks"),
    "guards": ("bench/operating.py", "guards"),
    "shifts": ("bench/operating.py", "shifts"),
}


def main() -> None:
    """Run each benchmark in a process of its own and put its table in its place."""
    names = sys.argv[1:] or list(MEASURES)
    unknown = sorted(set(names) - set(MEASURES))
    if unknown:
        raise SystemExit(f"there is no {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    for name in names:
        command = MEASURES[name]
        print(f"{name}: python {' '.join(command)}", flush=True)
        start = time.monotonic()
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'operator'}"}
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{name} ended with code {done.returncode}")
        print(f"{done.stdout}\n{name}: {time.monotonic() - start:.0f} s", flush=True)
        write(name, f"`python {' '.join(command)}`, {where()}:\n\n{done.stdout.strip()}")


def where() -> str:
    """Return what the numbers were measured on."""
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[1]
    python = platform.python_version()
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {python}, load of the last 5 minutes {load:.1f}"


def write(name: str, text: str) -> None:
    """Put a text between the comments that name it."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    for page in PAGES:
        found, count = re.subn(
            f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", page.read_text(), flags=re.DOTALL
        )
        if count == 1:
            page.write_text(found)
            return
    raise SystemExit(f"no page has a place for {name}: wanted {begin} and {end}, once each")


if __name__ == "__main__":
    main()
