"""Carries embeddings, and the loading of new indexes, out in the pods of Kubernetes Jobs.

Both have a beginning and an end that one worker of the operator's carries out; what lies between is for pods, and is
done once nothing of it is left on the store's ledger. Nobody but the planner decides that a Job is not wanted any more:
cancelled, this only stops looking.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from pointsman.api.conditions import Reason
from pointsman.cluster import job_objects
from pointsman.cluster.job_objects import Pods
from pointsman.cluster.job_rounds import Means as Means
from pointsman.cluster.job_rounds import Rounds
from pointsman.errors import Conflict, Retryable, Terminal
from pointsman.plan.tasks import Build, Embed, Wait
from pointsman.work import jobs, loading, progress
from pointsman.work.jobs import Job, Stage
from pointsman.work.progress import Report, Waits
from pointsman.work.runners import Carrier


class InPods:
    """Sends what datasets with `work.mode: Job` have done by pods to them, and all else to another carrier."""

    def __init__(self, others: Carrier, means: Means, workers: int = 2) -> None:
        """At most so many of the steps before and after pods that embed, and of those that load, run at once.

        And as many seals beside: a database may build for hours, and other loads need not wait for that.
        """
        self._others, self._means, self._workers = others, means, workers
        self._places = {kind: threading.BoundedSemaphore(workers) for kind in (Embed, Build, Stage.SEAL)}

    def carry_out(
        self, job: Job, report: Report, is_cancelled: threading.Event, waits: Waits = progress.silently
    ) -> None:
        """Carry a job out where it has to be."""
        if not jobs.is_for_pods(job):
            self._others.carry_out(job, report, is_cancelled, waits)
            return
        _check(job, self._means.pods)
        by_pods = _ByPods(self._means, self._step, job, report, is_cancelled, waits)
        if isinstance(job.task, Embed):
            by_pods.embed(job.task)
        elif isinstance(job.task, Build):
            by_pods.load(job.task)

    def close(self) -> None:
        """Stop what is under way here. Jobs go on, and whoever comes after us finds them."""
        self._others.close()

    def _step(self, job: Job, is_cancelled: threading.Event) -> None:
        kind = Build if isinstance(job.task, Build) else Embed
        places = self._places[Stage.SEAL if job.stage is Stage.SEAL else kind]
        if not places.acquire(blocking=False):
            raise Conflict(
                f"all workers ({self._workers}) {_does(job.stage)} for other pods; wanted one free, trying again"
            )
        try:
            self._others.carry_out(job, progress.nowhere, is_cancelled)
        finally:
            places.release()


def _does(stage: Stage) -> str:
    return "have graphs built" if stage is Stage.SEAL else "divide or publish"


def _check(job: Job, pods: Pods) -> None:
    """Raise Terminal(STORE_NOT_SHARED) where pods could not reach the store, INVALID_SPEC where they have no image."""
    if not pods.image:
        raise Terminal(
            Reason.INVALID_SPEC, "work.mode Job needs POINTSMAN_JOB_IMAGE in the operator's settings, as the chart sets"
        )
    _check_priority(job, pods)
    if job.home:
        return
    is_folder = job_objects.is_folder(job.store)
    if not pods.is_store_shared:
        what = "a volume of its own" if is_folder else "an object store"
        raise Terminal(
            Reason.STORE_NOT_SHARED,
            f"the operator's store is {what} that pods of other namespaces cannot reach, which work.mode Job wants; "
            "declare it with spec.store, or share the volume (ReadWriteMany) and set POINTSMAN_JOB_STORE_SHARED",
        )
    if is_folder and not pods.store_claim:
        raise Terminal(
            Reason.STORE_NOT_SHARED,
            "the operator's store is a folder, of which pods find nothing where they mount no claim to its volume; "
            "declare it with spec.store, or name the claim in POINTSMAN_JOB_STORE_CLAIM",
        )
    job_objects.told_options(job)


def _check_priority(job: Job, pods: Pods) -> None:
    """Raise Terminal(INVALID_SPEC) for a priority that no tenant may give: it would need no right to make pods."""
    assert job.dataset is not None, "what pods carry out has its dataset's spec"
    wanted = job.dataset.work.job.priority_class_name
    if wanted and wanted not in pods.priority_classes:
        allowed = ", ".join(pods.priority_classes) or "none"
        raise Terminal(
            Reason.INVALID_SPEC,
            f"work.job.priorityClassName {wanted} is not for datasets to name, allowed: {allowed}; "
            "leave it out, or have POINTSMAN_JOB_PRIORITY_CLASSES list it",
        )


class _ByPods:
    """One piece of work in pods, with its two ends."""

    def __init__(
        self,
        means: Means,
        step: Callable[[Job, threading.Event], None],
        job: Job,
        report: Report,
        is_cancelled: threading.Event,
        waits: Waits,
    ) -> None:
        assert job.dataset is not None, "what pods carry out has its dataset's spec"
        self._means, self._step, self._job = means, step, job
        self._report, self._is_cancelled, self._waits = report, is_cancelled, waits
        self._shards = job.dataset.work.job.shards
        self._store = means.store(job.home or job.store, job.home_options if job.home else job.store_options)

    def embed(self, task: Embed) -> None:
        """Have pods embed what is left until nothing is, and have it published."""
        dataset = self._store.dataset(task.owner.namespace, task.owner.name)
        recipe, ledger = jobs.recipe_of(dataset, task.version, task.recipe), dataset.ledger(task.recipe, task.snapshot)
        rounds = Rounds(self._means, self._job, task, recipe, ledger, self._report, self._is_cancelled, self._waits)
        if dataset.embedded_at(task.recipe, task.snapshot) is not None:
            return
        if ledger.run() is None:
            self._carry_out(Stage.DIVIDE, rounds)
        rounds.run()
        self._carry_out(Stage.PUBLISH, rounds)

    def load(self, task: Build) -> None:
        """Have pods load what is left until nothing is, and have the whole verified once none of them can write."""
        dataset = self._store.dataset(task.owner.namespace, task.dataset)
        recipe, ledger = jobs.recipe_of(dataset, task.version, task.recipe), dataset.load(task.index, task.snapshot)
        rounds = Rounds(self._means, self._job, task, recipe, ledger, self._report, self._is_cancelled, self._waits)
        # Each time, as only who asks the database finds out that the index is gone.
        self._carry_out(Stage.DIVIDE, rounds)
        rounds.run()
        self._means.fence.check()
        # Of earlier ones too, by whatever they were cut short: one without an end would be waited for for ever.
        loading.end(dataset, task.index, self._means.now)
        rounds.tidy()
        self._carry_out(Stage.SEAL, rounds)
        while (until := loading.settles_at(dataset, task.index, self._means.now())) is not None:
            self._waits(Wait(Reason.JOB_FAILED, loading.waiting(task.index, until)))
            rounds.sleep()
        self._carry_out(Stage.PUBLISH, rounds)

    def _carry_out(self, stage: Stage, rounds: Rounds) -> None:
        """Have a worker do what comes before or after the pods, once nobody else is writing the dataset."""
        job = dataclasses.replace(self._job, stage=stage, shards=self._shards)
        while True:
            try:
                self._step(job, self._is_cancelled)
                return self._waits(None)
            except Retryable as error:
                if error.reason is not Reason.CONFLICT:
                    raise
                # Said at once: it may be hours, and then it is the only thing that is known.
                message = f"{error.message}; who is at it is stopped after POINTSMAN_WORK_TIMEOUT"
                self._waits(Wait(error.reason, message))
                rounds.sleep()
