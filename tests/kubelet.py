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
    done: dict[str, set[int]] = field(default_factory=dict)
    codes: dict[str, dict[int, int]] = field(default_factory=dict)
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
                    self.batch.report(job["metadata"]["namespace"], job["metadata"]["name"], {"active": 1}, stuck)

    def _pod(self, job: dict[str, Any]) -> None:
        meta, spec = job["metadata"], job["spec"]
        name, done = meta["name"], self.done.setdefault(job["metadata"]["name"], set())
        codes = self.codes.setdefault(name, {})
        index = next((n for n in range(spec["completions"]) if n not in done and n not in codes), None)
        if index is not None:
            (container,) = spec["template"]["spec"]["containers"]
            told = json.loads(next(e["value"] for e in container["env"] if e["name"] == job_objects.SHARD))
            self.pods.append(f"{name}-{index}")
            try:
                code = shard.run(told, index, self.secrets, self.doors)
            except Killed:
                return
            if code == 0:
                done.add(index)
            elif code in (BROKEN_DOCUMENTS, BROKEN_SETTING):
                codes[index] = code
        self.batch.report(meta["namespace"], name, self._status(spec["completions"], done, codes))

    def _status(self, completions: int, done: set[int], codes: dict[int, int]) -> dict[str, Any]:
        if len(done) == completions:
            return {"conditions": [{"type": "Complete", "status": "True"}]}
        if BROKEN_SETTING in codes.values() or len(done) + len(codes) == completions:
            reason = "PodFailurePolicy" if BROKEN_SETTING in codes.values() else "FailedIndexes"
            return {"conditions": [{"type": "Failed", "status": "True", "reason": reason}]}
        return {"active": 1}
