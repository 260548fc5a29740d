"""The main job, end to end, on this machine: declare, migrate, follow an edit, roll back, roll forward.

    python examples/stdlib/demo.py [--backend milvus|pgvector|qdrant]

Brings up a control plane, a vector database and the operator, each a process of its own on loopback, plays the story
against them as a user would, by edits of two resources, and ends them all again. Writes build/demo/summary.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "operator")]

from examples.stdlib import corpus, judge, stage  # noqa: E402

from pointsman.core import evaluation  # noqa: E402


@dataclass
class Story:
    """What is told on the terminal, and what is counted for the summary."""

    begun: float = field(default_factory=time.monotonic)
    summary: dict[str, Any] = field(default_factory=lambda: {"errors": 0})

    def say(self, text: str, detail: str = "") -> None:
        """Print one line of the timeline."""
        at = time.monotonic() - self.begun
        print(f"{int(at // 60):3d}:{at % 60:04.1f}  {text:<44}{detail}", flush=True)

    def title(self, text: str) -> None:
        """Print what comes next."""
        print(f"\n── {text}", flush=True)


def main() -> None:
    """Tell the story and write the summary."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--backend", choices=("milvus", "pgvector", "qdrant"), default="milvus")
    backend = arguments.parse_args().backend
    story = Story()
    with contextlib.ExitStack() as stack:
        here = stage.up(ROOT / "build" / "demo", backend, story.say, stack)
        try:
            tell(story, here)
        except BaseException:
            story.summary["errors"] += 1
            print(f"\nThe operator's log is {here.folder / 'operator.log'}.", file=sys.stderr)
            raise
        finally:
            path = here.folder / "summary.json"
            path.write_text(json.dumps(story.summary, indent=2) + "\n")
    story.say("everything has ended", f"summary in {path.relative_to(ROOT)}")


def tell(story: Story, here: stage.Stage) -> None:
    """Play the story: six edits, and what comes of each."""
    summary = story.summary
    judged = judge.Judge(here)
    summary |= {
        "backend": here.backend,
        "python": corpus.PYTHON,
        "documents": here.documents,
        "queries": len(judged.set.queries),
    }

    story.title(f"A dataset of {here.documents:,} documents, its first version v7, and a deployment that serves it")
    here.declare()
    watch(story, here, "v7", 1)
    before = judged.ask("v7")
    tell_quality(story, summary, "v7", before)

    story.title("Another model: v8 is added to the dataset, and one line of the deployment changes")
    here.add_v8()
    summary["promote_seconds"] = round(switch(story, here, "v8"), 3)
    after = judged.ask("v8")
    tell_quality(story, summary, "v8", after)
    paired = evaluation.compare(after.ndcg, before.ndcg, judged.set.groups)
    low, high = paired.interval
    summary["ndcg10_difference"] = {"mean": paired.difference, "low": low, "high": high, "groups": paired.groups}
    interval = f"95 % interval {low:+.3f} to {high:+.3f}"
    story.say(f"v8 - v7, paired over {paired.groups} groups", f"{paired.difference:+.3f} nDCG@10, {interval}")

    story.title("The source changes: 25 documents edited, 10 added, 5 deleted")
    touched = here.edit_documents(edited=25, added=10, deleted=5)
    here.refresh()
    watch(story, here, "v8", 2)
    here.wait(lambda: here.has_followed("v7", 2), "the retained index to catch up")
    story.say("v7@2 is kept current beside it", "so going back loses none of it")
    for name in ("v7", "v8"):
        changes = here.version_status(name)["changes"]
        said = ", ".join(f"{count:,} {cause}" for cause, count in changes.items() if count)
        story.say(f"{name}@2 differs from {name}@1 by", said)
    here.wait(lambda: here.condition("RollbackReady") == "True", "the way back to be ready")

    story.title("Back: the same line, edited back")
    embedded = here.embedded_rows()
    summary["rollback_seconds"] = round(switch(story, here, "v7"), 3)
    again = judged.ask("v7")
    summary["rollback_embedded_rows"] = here.embedded_rows() - embedded
    same, compared = before.same_answers(again, touched)
    summary["rollback_answers"] = {"same": same, "of": compared}
    story.say("answers equal those before the migration", f"{same:,} of {compared:,} queries, edited documents aside")
    story.say("embedded for the rollback", f"{summary['rollback_embedded_rows']} rows")

    story.title("And forward again")
    summary["rollforward_seconds"] = round(switch(story, here, "v8"), 3)
    tell_quality(story, summary, "v8", judged.ask("v8"), is_final=True)
    summary["snapshots"] = here.snapshots()
    for entry in summary["snapshots"]:
        embedded, reused = entry["embedded_rows"], entry["reused_rows"]
        detail = f"{entry['rows']:,} rows: {embedded:,} embedded, {reused:,} reused"
        story.say(f"{entry['version']}@{entry['snapshot']}", detail)

    story.title("Away: both resources are deleted")
    here.delete()
    story.say("indexes, vectors and corpus are gone")
    check(summary)


def switch(story: Story, here: stage.Stage, version: str) -> float:
    """Edit the one line and return the seconds from the accepted edit to the switched ConfigMap."""
    story.say(f"version: {version}", "edit accepted")
    start = here.serve(version)
    last = ""
    while (route := here.route()) is None or route["version"] != version:
        last = tell_change(story, here, last)
        time.sleep(0.01)
    seconds = time.monotonic() - start
    story.say(f"{version} serves", f"{seconds:.2f} s after the edit")
    here.wait(lambda: here.is_ready(version), f"{version} to be Ready")
    return seconds


def watch(story: Story, here: stage.Stage, version: str, snapshot: int) -> None:
    """Tell what the deployment says until it serves a snapshot of a version."""
    last = ""
    wanted = {"version": version, "snapshot": str(snapshot)}

    def is_there() -> bool:
        nonlocal last
        last = tell_change(story, here, last)
        route = here.route()
        return route is not None and wanted.items() <= route.items() and here.is_ready(version)

    here.wait(is_there, f"{version}@{snapshot} to serve")
    story.say(f"{version}@{snapshot} serves")


def tell_change(story: Story, here: stage.Stage, last: str) -> str:
    """Print the deployment's sentence if it is a new one, and return it."""
    said = here.sentence()
    reason = said.partition(" (")[0]
    if said and reason != last:
        story.say(f"  {said[:100]}")
    return reason


def tell_quality(
    story: Story, summary: dict[str, Any], version: str, answers: judge.Answers, is_final: bool = False
) -> None:
    """Print and count the quality of a version's answers on the live index."""
    story.say(f"{version} answers {len(answers.hits):,} judged queries", f"nDCG@10 {answers.mean:.3f}")
    if not is_final:
        summary.setdefault("versions", {})[version] = {"rows": answers.rows, "ndcg10": round(answers.mean, 4)}


def check(summary: dict[str, Any]) -> None:
    """Fail where the story did not come out as it must."""
    claims: dict[str, Callable[[], bool]] = {
        "v8 answers better than v7, the interval excludes 0": lambda: summary["ndcg10_difference"]["low"] > 0,
        "the rollback embedded nothing": lambda: summary["rollback_embedded_rows"] == 0,
        "the rollback's answers are those of before": lambda: (
            summary["rollback_answers"]["same"] == summary["rollback_answers"]["of"] > 0
        ),
    }
    for claim, holds in claims.items():
        if not holds():
            summary["errors"] += 1
            raise SystemExit(f"not so: {claim}")


if __name__ == "__main__":
    main()
