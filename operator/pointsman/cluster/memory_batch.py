"""Kubernetes Jobs in memory. They have no pods of themselves: whoever plays the kubelet runs their shards."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pointsman.api.conditions import Reason
from pointsman.cluster.batch import OWNER
from pointsman.cluster.resources import Resource
from pointsman.errors import Retryable


class MemoryBatch:
    """The Jobs of a cluster in memory."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._jobs: dict[tuple[str, str], Resource] = {}
        self._pods: dict[tuple[str, str], list[Resource]] = {}
        self.refusal = ""
        """What the cluster says to whoever creates a Job; empty where it takes all."""
        self.lingers = False
        """Whether the pods of a deleted Job do not end, as on a node that fell silent."""
        self.created: list[str] = []

    def job(self, namespace: str, name: str) -> Resource | None:
        """Return a copy of a Job, or None."""
        with self._lock:
            return copy.deepcopy(self._jobs.get((namespace, name)))

    def jobs(self, namespace: str, uid: str) -> Sequence[Resource]:
        """Return copies of the Jobs that were made for the resource of a UID."""
        with self._lock:
            found = (job for (where, _), job in self._jobs.items() if where == namespace)
            return [copy.deepcopy(job) for job in found if job["metadata"]["labels"].get(OWNER) == uid]

    def create(self, namespace: str, job: Mapping[str, Any]) -> None:
        """Create a Job, unless there is one of its name."""
        if self.refusal:
            name = job["metadata"]["name"]
            raise Retryable(Reason.JOB_REFUSED, f"the cluster refuses Job {name}: {self.refusal}; it is tried again")
        with self._lock:
            made = copy.deepcopy(dict(job))
            made["metadata"] |= {"creationTimestamp": self._now().isoformat()}
            made["status"] = {}
            if self._jobs.setdefault((namespace, job["metadata"]["name"]), made) is made:
                self.created.append(job["metadata"]["name"])

    def suspend(self, namespace: str, name: str, is_suspended: bool) -> None:
        """Have the pods of a Job stopped, or started again."""
        with self._lock:
            if (namespace, name) in self._jobs:
                self._jobs[namespace, name]["spec"]["suspend"] = is_suspended

    def delete(self, namespace: str, name: str) -> None:
        """Delete a Job with its pods."""
        with self._lock:
            if self.lingers:
                found = self._jobs.get((namespace, name), {"metadata": {}})
                found["metadata"].setdefault("deletionTimestamp", self._now().isoformat())
                return
            self._jobs.pop((namespace, name), None)
            self._pods.pop((namespace, name), None)

    def pods(self, namespace: str, name: str) -> Sequence[Resource]:
        """Return copies of the pods of a Job."""
        with self._lock:
            return copy.deepcopy(self._pods.get((namespace, name), []))

    def all(self) -> Sequence[Resource]:
        """Return copies of all Jobs, for whoever plays the kubelet."""
        with self._lock:
            return [copy.deepcopy(job) for job in self._jobs.values()]

    def report(self, namespace: str, name: str, status: Mapping[str, Any], pods: Sequence[Resource] = ()) -> None:
        """Set the status of a Job, and its pods, as its controller and the kubelet would."""
        with self._lock:
            if (namespace, name) in self._jobs:
                self._jobs[namespace, name]["status"] = copy.deepcopy(dict(status))
                self._pods[namespace, name] = copy.deepcopy(list(pods))
