"""The main job, end to end, on this machine and under live queries: migrate, refuse a worse version, roll back.

    python examples/stdlib/demo.py [--backend milvus|pgvector|qdrant]

Brings up a control plane, a vector database, a gateway and the operator, each a process of its own on loopback, plays
the story against them as a user would, by edits of two resources, while another process sends queries to the gateway
from start to end, and ends them all again. Writes build/demo/summary.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "operator")]

from examples.stdlib import answered, corpus, judge, stage  # noqa: E402
from examples.stdlib.answered import Edit  # noqa: E402

from pointsman.core import evaluation  # noqa: E402

RATE = 60.0
"""Live queries a second."""
LEAST_QUERIES = 10_000
MODELS: Mapping[str, Any] = {
    "v7": {"dimensions": 64, "template": "{name}. {text}"},
    "v8": {"dimensions": 256, "template": "{name}. {text}"},
    "v10": {"dimensions": 256, "template": "{name}: {text}"},
}
"""How the versions that answer embed."""


@dataclass
class Story:
    """What is told on the terminal, and what is counted for the summary."""

    begun: float = field(default_factory=time.monotonic)
    summary: dict[str, Any] = field(default_factory=lambda: {"errors": 0, "verdicts": []})

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
    arguments.add_argument("--backend", choices=("milvus", "pgvector", "qdrant"), default="pgvector")
    backend = arguments.parse_args().backend
    story = Story()
    # Whoever stops the demo wants all of it to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        here = stage.up(ROOT / "build" / "demo", backend, story.say, stack)
        try:
            tell(story, here)
        except BaseException:
            story.summary["errors"] += 1
            logs = ", ".join(str(here.folder / f"{name}.log") for name in ("operator", "gateway", "traffic"))
            print(f"\nThe logs are {logs}.", file=sys.stderr)
            raise
        finally:
            path = here.folder / "summary.json"
            path.write_text(json.dumps(story.summary, indent=2) + "\n")
    story.say("everything has ended", f"summary in {path.relative_to(ROOT)}")


def tell(story: Story, here: stage.Stage) -> None:
    """Play the story, and look at every answer afterwards."""
    summary = story.summary
    judged = judge.Judge(here)
    summary |= {
        "backend": here.backend,
        "python": corpus.PYTHON,
        "documents": here.documents,
        "judged_queries": len(judged.set.queries),
        "versions": {},
    }
    shutil.copy(here.corpus / "documents.jsonl", here.folder / "documents-before.jsonl")
    log = here.folder / "answers.jsonl"

    story.title(f"A dataset of {here.documents:,} documents, its first version v7, and a deployment that serves it")
    here.declare()
    watch(story, here, "v7", 1)
    here.wait(lambda: here.gateway.report().get("revision", 0) > 0, "the gateway to serve")
    with stage.live_queries(here, log, RATE) as traffic:
        story.say(f"{RATE:g} live queries a second from here on", f"process {traffic.pid}")
        before = quality(story, summary, judged, "v7")
        edits = play(story, here, judged, before)
        enough = LEAST_QUERIES / RATE + 5
        here.wait(lambda: time.monotonic() - edits[0].at > enough, "enough queries")
        report = here.gateway.report()
    story.title("Every answer, looked at again")
    look_back(story, here, log, report, edits)

    story.title("Away: the resources are deleted")
    here.delete()
    story.say("indexes, vectors and corpus are gone")
    check(summary)


def play(story: Story, here: stage.Stage, judged: judge.Judge, before: judge.Answers) -> list[Edit]:
    """Edit the resources as a user would; return each edit of the version."""
    summary, edits = story.summary, [Edit(time.monotonic(), "v7", -1)]

    story.title("Another model: v8 is added to the dataset, and one line of the deployment changes")
    here.add_version("v8", 256)
    edits.append(edit(story, here, "v8"))
    watch(story, here, "v8", 1)
    summary["promote_seconds"] = round(time.monotonic() - edits[-1].at, 3)
    after = quality(story, summary, judged, "v8")
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
    here.wait(lambda: here.step() != "BurnIn", "the burn-in of v8 to be over")
    story.say("v8 has burnt in", "it may come back at once from now on")

    story.title("A worse version: v9 has a quarter of the dimensions, and cuts texts into pieces of 24 tokens")
    here.add_version("v9", 64, tokens=24)
    edits.append(edit(story, here, "v9"))
    summary["rejected"] = rejected(story, here, "v9")
    edits.append(edit(story, here, "v8"))
    here.wait(lambda: here.is_ready("v8"), "v8 to be Ready")

    here.declare_another()
    here.wait(here.is_other_ready, "another dataset to be there")
    story.title("Another template: v10; half of the queries go to it when somebody rolls back")
    here.add_version("v10", 256, template=MODELS["v10"]["template"])
    edits.append(edit(story, here, "v10"))
    watch_weight(story, here, "v10", 10)
    here.embed_another()
    watch_weight(story, here, "v10", 50)
    here.wait(here.is_busy, "another dataset to be embedded meanwhile")
    summary["rollback_while_embedding"] = here.is_busy()
    edits.append(edit(story, here, "v8"))
    here.wait(lambda: here.answers_alone("v8"), "all queries to be answered by v8")
    story.say("all queries are answered by v8 again", "another dataset was being embedded")
    here.leave_alone()
    here.wait(lambda: here.is_ready("v8"), "v8 to be Ready")

    story.title("Back to v7, which is kept current: one shift; and forward to v8 again: one shift")
    embedded = here.embedded_rows()
    edits.append(edit(story, here, "v7"))
    watch(story, here, "v7", 2)
    summary["rollback_seconds"] = round(time.monotonic() - edits[-1].at, 3)
    again = judged.ask("v7")
    summary["rollback_embedded_rows"] = here.embedded_rows() - embedded
    same, compared = before.same_answers(again, touched)
    summary["rollback_answers"] = {"same": same, "of": compared}
    story.say("answers equal those before the migration", f"{same:,} of {compared:,} queries, edited documents aside")
    edits.append(edit(story, here, "v8"))
    watch(story, here, "v8", 2)
    summary["rollforward_seconds"] = round(time.monotonic() - edits[-1].at, 3)
    summary["snapshots"] = here.snapshots()
    return edits


def edit(story: Story, here: stage.Stage, version: str) -> Edit:
    """Edit the one line."""
    revision = here.status()["route"]["revision"]
    accepted = here.serve(version)
    story.say(f"version: {version}", "edit accepted")
    return Edit(accepted, version, revision)


def watch(story: Story, here: stage.Stage, version: str, snapshot: int) -> None:
    """Tell what the deployment says until it serves a snapshot of a version, and every query goes there."""
    last = ""
    wanted = {"version": version, "snapshot": str(snapshot)}

    def is_there() -> bool:
        nonlocal last
        last = tell_change(story, here, last)
        route = here.route()
        return route is not None and wanted.items() <= route.items() and here.is_ready(version)

    here.wait(is_there, f"{version}@{snapshot} to serve")
    keep_verdicts(story, here)
    story.say(f"{version}@{snapshot} serves")


def watch_weight(story: Story, here: stage.Stage, version: str, weight: int) -> None:
    """Tell what the deployment says until a version has a weight that the gateway serves."""
    last = ""

    def is_there() -> bool:
        nonlocal last
        last = tell_change(story, here, last)
        return (version, weight) in here.accepted_weights()

    here.wait(is_there, f"{version} to get {weight} % of the queries")
    story.say(f"{version} answers {weight} % of the queries")


def rejected(story: Story, here: stage.Stage, version: str) -> dict[str, Any]:
    """Tell what the deployment says until a version was refused; return what was said of it."""
    last = ""

    def is_there() -> bool:
        nonlocal last
        last = tell_change(story, here, last)
        return any(entry["version"] == version for entry in here.status().get("rejected", ()))

    here.wait(is_there, f"{version} to be refused")
    found = next(entry for entry in here.status()["rejected"] if entry["version"] == version)
    here.wait(lambda: here.condition("Stalled") == "True", "the refusal to be said")
    tell_change(story, here, last)
    return {"version": version, "reason": found["reason"], "message": found["message"]}


def keep_verdicts(story: Story, here: stage.Stage) -> None:
    """Keep what the gates said for the summary."""
    for gate in here.status().get("gates", ()):
        kept = {name: gate.get(name, "") for name in ("version", "name", "verdict", "value", "wanted", "interval")}
        if kept not in story.summary["verdicts"]:
            story.summary["verdicts"].append(kept)


def tell_change(story: Story, here: stage.Stage, last: str) -> str:
    """Print the deployment's sentence if it is a new one, and return it."""
    said = here.sentence()
    reason = said.partition(" (")[0]
    if said and reason != last:
        story.say(f"  {said[:150]}")
    return reason


def quality(story: Story, summary: dict[str, Any], judged: judge.Judge, version: str) -> judge.Answers:
    """Ask all judged queries, and tell and count how well they are answered."""
    answers = judged.ask(version)
    story.say(f"{version} answers {len(answers.hits):,} judged queries", f"nDCG@10 {answers.mean:.3f}")
    summary["versions"][version] = {"rows": answers.rows, "ndcg10": round(answers.mean, 4)}
    return answers


def look_back(story: Story, here: stage.Stage, log: Path, report: Mapping[str, Any], edits: list[Edit]) -> None:
    """Count what became of the live queries."""
    summary, answers = story.summary, answered.read(log)
    summary["queries"] = len(answers)
    summary["failed_queries"] = sum(not answer.is_answered for answer in answers)
    summary["weights"] = answered.shares(answers)
    summary["session_flaps"] = answered.flaps(answers, edits)
    back = edits[[edit.version for edit in edits].index("v10") + 1]
    summary["rollback_under_load_seconds"] = round(answered.seconds_until_gone(answers, "v10", back.at), 3)
    script = Path(__file__).with_name("recheck.py")
    texts = [here.folder / "documents-before.jsonl", here.corpus / "documents.jsonl"]
    command = [sys.executable, script, log, here.corpus / "queries.jsonl", json.dumps(MODELS), *texts]
    rechecked = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    summary["mispaired_queries"] = report["mispaired"] + rechecked["mispaired"]
    summary["rechecked"] = rechecked
    versions = ", ".join(f"{count:,} by {version}" for version, count in answered.by_version(answers).items())
    story.say(f"{summary['queries']:,} queries, {summary['failed_queries']} failed", versions)
    story.say(
        f"{rechecked['scores']:,} scores computed anew from the texts",
        f"{summary['mispaired_queries']} queries answered by another model's index",
    )
    story.say("moves of a session against the direction", f"{summary['session_flaps']}")
    story.say("rollback in mid-canary, to the last by v10", f"{summary['rollback_under_load_seconds']:.3f} s")


def check(summary: dict[str, Any]) -> None:
    """Fail where the story did not come out as it must."""
    claims: dict[str, Callable[[], bool]] = {
        "v8 answers better than v7, the interval excludes 0": lambda: summary["ndcg10_difference"]["low"] > 0,
        "the rollback embedded nothing": lambda: summary["rollback_embedded_rows"] == 0,
        # Where documents came and went, a graph index finds its way by other links: not quite every answer is the same.
        "the rollback's answers are those of before, 99 of 100": lambda: (
            summary["rollback_answers"]["same"] >= 0.99 * summary["rollback_answers"]["of"] > 0
        ),
        f"{LEAST_QUERIES:,} queries or more were sent": lambda: summary["queries"] >= LEAST_QUERIES,
        "no query failed": lambda: summary["failed_queries"] == 0,
        "no query was answered by another model's index": lambda: summary["mispaired_queries"] == 0,
        "every answer was looked at": lambda: summary["rechecked"]["answers"] == summary["queries"],
        "each session moved at most once per direction": lambda: summary["session_flaps"] == 0,
        "the worse version was refused by evaluation": lambda: (
            summary["rejected"]["reason"] == "GateFailed" and "nDCG@10" in summary["rejected"]["message"]
        ),
        "the rollback under load took less than a second": lambda: 0 <= summary["rollback_under_load_seconds"] < 1,
        "another dataset was being embedded then": lambda: summary["rollback_while_embedding"],
    }
    for claim, holds in claims.items():
        if not holds():
            summary["errors"] += 1
            raise SystemExit(f"not so: {claim}")


if __name__ == "__main__":
    main()
