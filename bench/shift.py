"""How long from the edit of a rollback in mid-canary until every query is answered by the old version, under load?

    python bench/shift.py [--trials 50] [--rate 200]

A control plane, PostgreSQL with pgvector, an operator, a gateway and a stream of queries, each a process of its own.
Half of the queries go to the candidate when the line is edited back; a trial ends with the last answer of that one.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "operator")]

from examples.stdlib import answered, stage  # noqa: E402

ROAD: dict[str, Any] = {
    "strategy": {"steps": [{"weight": 50}, {"pause": {"name": "stay"}}, {"weight": 100}]},
}
APART = 1.0
"""Seconds between a trial and the next, so that the canary has answered some queries."""


def main() -> None:
    """Measure and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--trials", type=int, default=50)
    arguments.add_argument("--rate", type=float, default=200.0)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        here = stage.up(Path(folder) / "bench", "pgvector", lambda *_: None, stack)
        here.declare(ROAD)
        here.wait(lambda: here.is_ready("v7"), "v7 to serve")
        here.add_version("v8", 256)
        here.serve("v8")
        wait_for_half(here)
        here.serve("v7")
        here.wait(lambda: here.answers_nowhere("v8"), "v7 to have all weight")
        log = here.folder / "answers.jsonl"
        with stage.live_queries(here, log, given.rate):
            time.sleep(3 * APART)
            edits = [trial(here) for _ in range(given.trials)]
            time.sleep(APART)
            mispaired = here.gateway.report()["mispaired"]
        answers = answered.read(log)
    seconds = sorted(until_gone(answers, edit) for edit in edits)
    median, worst = statistics.median(seconds), seconds[min(len(seconds) - 1, round(0.99 * len(seconds)))]
    rate = len(answers) / (answers[-1].sent - answers[0].sent)
    failed = sum(not answer.is_answered for answer in answers)
    by_version = ", ".join(f"{count:,} by {version}" for version, count in answered.by_version(answers).items())
    print("| rollbacks | median | p99 | queries | queries/s | failed | mis-paired |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {len(seconds)} | {median:.3f} s | {worst:.3f} s | {len(answers):,} | {rate:.0f} | {failed} | {mispaired} |"
    )
    print(f"\nAnswered {by_version}.")


def trial(here: stage.Stage) -> float:
    """Send half of the queries to v8, and all of them back; return when the edit back was accepted."""
    here.serve("v8")
    wait_for_half(here)
    time.sleep(APART)
    edited = here.serve("v7")
    here.wait(lambda: here.answers_nowhere("v8"), "v7 to have all weight")
    time.sleep(APART)
    return edited


def wait_for_half(here: stage.Stage) -> None:
    """Wait until the gateway serves the canary."""
    here.wait(lambda: ("v8", 50) in here.accepted_weights(), "v8 to get half of the queries")


def until_gone(answers: list[answered.Answer], edited: float) -> float:
    """Return after how many seconds the last answer of v8 came that was before the next trial."""
    later = [a.done - edited for a in answers if a.version == "v8" and edited < a.done < edited + 5 * APART]
    gap = [end for end, begin in zip(later, [*later[1:], float("inf")], strict=True) if begin - end > APART / 2]
    return gap[0] if gap else 0.0


if __name__ == "__main__":
    main()
