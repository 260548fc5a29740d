"""Plays the controller of Jobs and the kubelets on a cluster in memory: runs shards, and says what became of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointsman.cli import shard
from pointsman.cluster import job_objects
from pointsman.cluster.memory_batch import MemoryBatch
from pointsman.work.jobs import Doors
from pointsman.work.shard import BROKEN_DOCUMENTS, BROKEN_SETTING


class Killed(BaseException):
    """A pod was killed: nothing in the product catches it."""


@dataclass
class Kubelet:
    """Runs the shards of every Job that is not suspended, one pod at a time, in this process."""

    batch: MemoryBatch
    doors: Doors
    secrets: Path = Path("/nowhere")
    holds: Callable[[dict[str, Any]], list[dict[str, Any]] | None] = lambda job: None
    """Returns the pods of a Job that cannot run, None where they can."""
    pods: list[str] = field(default_factory=list)
    """Every pod that was started."""

    def step(self) -> None:
        """Start one pod of each Job."""
        for job in self.batch.all():
            if not job["spec"].get("suspend") and not job_objects.is_ended(job):
                stuck = self.holds(job)
                if stuck is None:
                    self._pod(job)
                else:
                    self.batch.report(job["metadata"]["namespace"], job["metadata"]["name"], {}, stuck)

    def _pod(self, job: dict[str, Any]) -> None:
        meta, spec, status = job["metadata"], job["spec"], job["status"]
        done, codes = set(status.get("done", ())), dict(status.get("codes", {}))
        index = next((n for n in range(spec["completions"]) if n not in done and n not in codes), None)
        if index is not None:
            (container,) = spec["template"]["spec"]["containers"]
            told = json.loads(next(e["value"] for e in container["env"] if e["name"] == job_objects.SHARD))
            self.pods.append(f"{meta['name']}-{index}")
            try:
                code = shard.run(told, index, self.secrets, self.doors)
            except Killed:
                return
            if code == 0:
                done.add(index)
            elif code in (BROKEN_DOCUMENTS, BROKEN_SETTING):
                codes[index] = code
        said = {"done": sorted(done), "codes": codes, **_conditions(spec["completions"], done, codes)}
        self.batch.report(meta["namespace"], meta["name"], said)


def _conditions(completions: int, done: set[int], codes: dict[int, int]) -> dict[str, Any]:
    if len(done) == completions:
        return {"conditions": [{"type": "Complete", "status": "True"}]}
    if BROKEN_SETTING in codes.values() or len(done) + len(codes) == completions:
        reason = "PodFailurePolicy" if BROKEN_SETTING in codes.values() else "FailedIndexes"
        return {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}
    return {}
