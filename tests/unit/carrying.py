"""What the tests of both kinds of work in pods share: an operator's carrier that has just started, and its clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.kubelet import Kubelet

from pointsman.cluster.job_objects import Pods
from pointsman.cluster.jobs import InPods, Means
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.memory_batch import MemoryBatch
from pointsman.errors import PointsmanError
from pointsman.plan.tasks import Wait
from pointsman.store.root import Store
from pointsman.work.jobs import Doors, Job
from pointsman.work.processes import InProcess


class Enough(BaseException):
    """The test has seen enough."""


class Carried:
    """An operator's carrier, the cluster that it acts on, and a kubelet; `job` is what is carried out."""

    def __init__(self, folder: Path, doors: Doors) -> None:
        self.folder, self.cluster, self.doors = folder, MemoryCluster(), doors
        self.now, self.said, self.progress = datetime.now(UTC), list[Wait | None](), list[tuple[int, int]]()
        self.batch = MemoryBatch(lambda: self.now)
        self.kubelet = Kubelet(self.batch, doors, folder / "secrets")
        self.pods = Pods(image="pointsman:test", is_store_shared=True, store_claim="store")
        self.each: list[Callable[[], None]] = [self.kubelet.step]
        self.spec: dict[str, Any] = {}

    def apply(self) -> None:
        """Have the dataset in the cluster as `spec` has it."""
        raise NotImplementedError

    def job(self) -> Job:
        """Return what is carried out."""
        raise NotImplementedError

    def edit(self, **job: Any) -> None:
        """Edit what the dataset says of pods."""
        self.spec = {**self.spec, "work": {"mode": "Job", "job": {**self.spec["work"]["job"], **job}}}
        self.apply()

    def carry_out(self, job: Job | None = None, looks: int = 100) -> None:
        """Be an operator that has just started: nothing of an earlier one is left."""
        left = looks

        def pause(_cancelled: threading.Event, seconds: float) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Enough
            self.now += timedelta(seconds=seconds)
            for each in self.each:
                each()

        means = Means(self.batch, self.cluster, self.pods, Store, lambda: self.now, pause=pause)
        carrier = InPods(InProcess(self.doors, lambda: self.now), means)
        carrier.carry_out(
            job or self.job(),
            lambda done, total: self.progress.append((done, total)),
            threading.Event(),
            self.said.append,
        )

    def fails(self, kind: type[PointsmanError], job: Job | None = None) -> PointsmanError:
        """Carry a job out, and return the error that it ends with."""
        with pytest.raises(kind) as found:
            self.carry_out(job)
        return found.value


def none(*_: Any) -> Any:
    """Stand for what nothing of the sort opens."""
    raise AssertionError("nothing of the sort is opened")
