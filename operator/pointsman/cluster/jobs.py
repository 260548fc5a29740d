"""Carries embeddings out in the pods of Kubernetes Jobs, and says of each why it does not move.

What is done is on the store's ledger and nowhere else: a Job is made for what is left, is found again by whoever comes
after us, and may be deleted at any time. Nobody but the planner decides that one is not wanted any more: cancelled,
this only stops looking.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pointsman import logs
from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.cluster import credentials, job_objects, job_trouble
from pointsman.cluster.batch import Batch
from pointsman.cluster.job_objects import Pods
from pointsman.cluster.resources import DATASET, Cluster, Resource
from pointsman.core.recipes import Recipe
from pointsman.errors import Conflict, Retryable, Terminal
from pointsman.plan.embedding import ENDING
from pointsman.plan.tasks import Embed, Wait
from pointsman.store import options
from pointsman.store.ledger import Attempt, Ledger
from pointsman.store.root import Store
from pointsman.work import jobs, progress
from pointsman.work.fence import Fence, Unfenced
from pointsman.work.jobs import Job, Stage
from pointsman.work.progress import Report, Waits
from pointsman.work.runners import Carrier

LOOK_EVERY = 3.0
"""Seconds between two looks at a Job: two calls of the API and a listing of the ledger."""

_TOLD = frozenset({"allow_http", "allow_invalid_certificates", "connect_timeout", "timeout"}) | {
    f"aws_{name}"
    for name in (
        "checksum_algorithm", "conditional_put", "default_region", "disable_tagging", "endpoint", "endpoint_url",
        "region", "request_payer", "s3_express", "server_side_encryption", "skip_signature", "sse_bucket_key_enabled",
        "sse_kms_key_id", "unsigned_payload", "virtual_hosted_style_request",
    )
}  # fmt: skip
"""The options of the operator's store that pods are told in their environment, which whoever reads Jobs can read: where
it is and how it is spoken to, nothing that opens it."""

Pause = Callable[[threading.Event, float], None]
"""Waits for so many seconds, or until the work is cancelled."""

log = logs.logger()


def pause(is_cancelled: threading.Event, seconds: float) -> None:
    """Wait for so many seconds, or until the work is cancelled."""
    is_cancelled.wait(seconds)


@dataclass(frozen=True, slots=True)
class Means:
    """What it takes to have pods work."""

    batch: Batch
    cluster: Cluster
    pods: Pods
    store: Callable[[str, Mapping[str, str]], Store]
    now: Callable[[], datetime]
    fence: Fence = dataclasses.field(default_factory=Unfenced)
    pause: Pause = pause


class InPods:
    """Sends embeddings of datasets with `work.mode: Job` to pods, and all else to another carrier."""

    def __init__(self, others: Carrier, means: Means, workers: int = 2) -> None:
        """At most so many of the steps before and after the pods are carried out at once."""
        self._others, self._means = others, means
        self._workers, self._places = workers, threading.BoundedSemaphore(workers)

    def carry_out(
        self, job: Job, report: Report, is_cancelled: threading.Event, waits: Waits = progress.silently
    ) -> None:
        """Carry a job out where it has to be."""
        if not isinstance(job.task, Embed) or not jobs.is_for_pods(job):
            self._others.carry_out(job, report, is_cancelled, waits)
            return
        _check(job, self._means.pods)
        _Embedding(self._means, self._step, job, job.task, report, is_cancelled, waits).run()

    def close(self) -> None:
        """Stop what is under way here. Jobs go on, and whoever comes after us finds them."""
        self._others.close()

    def _step(self, job: Job, is_cancelled: threading.Event) -> None:
        if not self._places.acquire(blocking=False):
            raise Conflict(
                f"all workers ({self._workers}) divide or publish for other pods; wanted one free, trying again"
            )
        try:
            self._others.carry_out(job, progress.nowhere, is_cancelled)
        finally:
            self._places.release()


def _check(job: Job, pods: Pods) -> None:
    """Raise Terminal(STORE_NOT_SHARED) where pods could not reach the store, INVALID_SPEC where they have no image."""
    if not pods.image:
        raise Terminal(
            Reason.INVALID_SPEC, "work.mode Job needs POINTSMAN_JOB_IMAGE in the operator's settings, as the chart sets"
        )
    _check_priority(job, pods)
    if job.home:
        return
    if not pods.is_store_shared:
        what = "an object store" if job.store.startswith("s3://") else "a volume of its own"
        raise Terminal(
            Reason.STORE_NOT_SHARED,
            f"the operator's store is {what} that pods of other namespaces cannot reach, which work.mode Job wants; "
            "declare it with spec.store, or share the volume (ReadWriteMany) and set POINTSMAN_JOB_STORE_SHARED",
        )
    opened = options.current(job.store_options)
    kept = sorted(name for name, value in opened.items() if name not in _TOLD or "@" in value)
    if kept:
        raise Terminal(
            Reason.STORE_NOT_SHARED,
            f"the operator's store is opened with {', '.join(kept)}, which may be secret and is given to no pod; "
            "declare the dataset with spec.store",
        )


def _check_priority(job: Job, pods: Pods) -> None:
    """Raise Terminal(INVALID_SPEC) for a priority that no tenant may give: it would need no right to make pods."""
    assert job.dataset is not None, "an embedding has its dataset's spec"
    wanted = job.dataset.work.job.priority_class_name
    if wanted and wanted not in pods.priority_classes:
        allowed = ", ".join(pods.priority_classes) or "none"
        raise Terminal(
            Reason.INVALID_SPEC,
            f"work.job.priorityClassName {wanted} is not for datasets to name, allowed: {allowed}; "
            "leave it out, or have POINTSMAN_JOB_PRIORITY_CLASSES list it",
        )


class _Embedding:
    """One embedding in pods, from wherever an earlier operator left it."""

    def __init__(
        self,
        means: Means,
        step: Callable[[Job, threading.Event], None],
        job: Job,
        task: Embed,
        report: Report,
        is_cancelled: threading.Event,
        waits: Waits,
    ) -> None:
        assert job.dataset is not None, "an embedding has its dataset's spec"
        self._means, self._step, self._job, self._task = means, step, job, task
        self._report, self._is_cancelled, self._waits = report, is_cancelled, waits
        self._wanted = job.dataset.work.job
        self._namespace = task.owner.namespace
        store = means.store(job.home or job.store, job.home_options if job.home else job.store_options)
        self._dataset = store.dataset(self._namespace, task.owner.name)
        self._ledger: Ledger = self._dataset.ledger(task.recipe, task.snapshot)

    def run(self) -> None:
        """Have pods embed what is left until nothing is, and have it published."""
        recipe = jobs.recipe_of(self._dataset, self._task.version, self._task.recipe)
        if self._dataset.embedded_at(self._task.recipe, self._task.snapshot) is not None:
            return
        if self._ledger.run() is None:
            self._carry_out(Stage.DIVIDE)
        while self._left():
            if self._wanted.queue_name and self._is_suspended():
                # Kueue would start what is created, whatever the spec says.
                self._waits(Wait(Reason.SUSPENDED, "suspended by the spec; what is finished stays finished"))
                self._sleep()
                continue
            attempt, name = self._attempt(recipe)
            self._watch(attempt, name, recipe)
        self._waits(None)
        self._carry_out(Stage.PUBLISH)

    def _left(self) -> int:
        """Return how many portions are not finished."""
        run = self._ledger.run()
        if run is None:
            raise Retryable(Reason.WORK_LOST, "the run was given up meanwhile; wanted it under way, dividing anew")
        return run.portions - len(self._ledger.finished())

    def _carry_out(self, stage: Stage) -> None:
        """Have a worker do what comes before or after the pods, once nobody else is writing the dataset."""
        job = dataclasses.replace(self._job, stage=stage, shards=self._wanted.shards)
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
                self._sleep()

    def _attempt(self, recipe: Recipe) -> tuple[Attempt, str]:
        """Return the attempt that is under way and its Job's name: the newest, or one that deals out what is left."""
        attempt = self._ledger.attempt()
        if attempt is not None and not self._ledger.is_closed(attempt.number):
            name = job_objects.name_of(self._task, self._job.uid, attempt.number)
            found = self._means.batch.job(self._namespace, name)
            if found is not None and job_objects.going_since(found) is None:
                return attempt, name
            self._wait_until_gone(name)
            if self._is_untouched(attempt) and self._means.batch.job(self._namespace, name) is None:
                return self._create(attempt, recipe)
            self._ledger.close(attempt.number)
        return self._create(self._ledger.deal(self._wanted.shards), recipe)

    def _is_untouched(self, attempt: Attempt) -> bool:
        """Return whether an attempt is what would be dealt now, as one whose Job the cluster has refused."""
        left = len(attempt.left)
        is_as_wanted = attempt.shards == max(1, min(self._wanted.shards, left))
        return is_as_wanted and left == self._left() and not self._ledger.failures(attempt.number)

    def _create(self, attempt: Attempt, recipe: Recipe) -> tuple[Attempt, str]:
        name = job_objects.name_of(self._task, self._job.uid, attempt.number)
        self._means.fence.check()
        body = job_objects.manifest(self._job, self._task, recipe, attempt, self._means.pods)
        self._means.batch.create(self._namespace, body)
        log.info(logs.Event.JOB_CREATED, job=f"{self._namespace}/{name}", shards=attempt.shards)
        return attempt, name

    def _watch(self, attempt: Attempt, name: str, recipe: Recipe) -> None:
        """Look at a Job until it is over; raises why, where it is over too early."""
        ran_at: datetime | None = None
        while True:
            self._tell()
            try:
                job = self._means.batch.job(self._namespace, name)
                if job is None or job_objects.is_ended(job):
                    return self._over(attempt, name, job)
                job = self._suspended_as_wanted(attempt, job)
                if job is None:
                    return None
                pods, now = self._means.batch.pods(self._namespace, name), self._means.now()
                is_going = job_objects.going_since(job) is not None
                wait = None if is_going else self._named(job_trouble.trouble(job, pods, now), recipe)
            except Retryable as error:
                if error.reason is not Reason.CLUSTER_UNREACHABLE:
                    raise
                # The pods go on without the API, and so does what they write down.
                self._sleep()
                continue
            is_running = job_trouble.is_any_running(pods)
            if is_running:
                ran_at = now
            elif ran_at is None:
                ran_at = job_trouble.ran_last(job, pods, now)
            moved = (job_trouble.idle_since(job), ran_at, job_trouble.ended_at(pods))
            self._judge(attempt, name, wait, None if is_running else max(at for at in moved if at is not None))
            self._sleep()

    def _judge(self, attempt: Attempt, name: str, wait: Wait | None, idle_since: datetime | None) -> None:
        """Say what is waited for and until when; give a Job up none of whose pods has run for too long.

        While one runs, nothing is given up for the others, but the Job by its deadline: `idle_since` is None.
        """
        if wait is None or wait.reason is Reason.SUSPENDED:
            self._waits(wait)
            return
        if idle_since is None:
            # No time here: it would move with each look, and the status be written anew each time.
            message = f"{wait.message}; others run, and what they leave is dealt out anew"
            self._waits(Wait(wait.reason, f"{message} after {self._wanted.deadline} at the latest"))
            return
        deadline = idle_since + base.parse_duration(self._wanted.start_deadline)
        if self._means.now() < deadline:
            self._waits(Wait(wait.reason, f"{wait.message}; given up and created anew at {deadline:%Y-%m-%dT%H:%MZ}"))
            return
        self._delete(name)
        self._ledger.close(attempt.number)
        raise Retryable(wait.reason, f"{wait.message}; it was given up after {self._wanted.start_deadline}")

    def _named(self, wait: Wait | None, recipe: Recipe) -> Wait | None:
        """Name the Secret that is missing, where that is what a pod waits for."""
        if wait is None or wait.reason is not Reason.JOB_CANNOT_START:
            return wait
        for secret in job_objects.secrets(self._job, self._task, recipe):
            try:
                is_there = self._means.cluster.secret(self._namespace, secret) is not None
            except Retryable as error:
                if not credentials.is_forbidden(error):
                    raise
                # The pods need no right of ours: it is something else that they wait for.
                continue
            if not is_there:
                return Wait(Reason.SECRET_NOT_FOUND, f"Secret {secret} is not there, which the pods mount")
        return wait

    def _is_suspended(self) -> bool:
        """Return whether the dataset, as it is now, wants no pods at work; False where it is not ours any more."""
        found = self._means.cluster.get(DATASET, self._namespace, self._task.owner.name)
        if found is None or found["metadata"]["uid"] != self._job.uid:
            return False
        spec = found["spec"]
        return bool(spec.get("suspend") or spec.get("work", {}).get("job", {}).get("suspend"))

    def _suspended_as_wanted(self, attempt: Attempt, job: Resource) -> Resource | None:
        """Have a Job suspended as the dataset says by now, and return it; None where it was deleted.

        What Kueue has admitted is deleted and queues anew after: Kueue would start it again.
        """
        name, is_suspended = job["metadata"]["name"], bool(job["spec"].get("suspend"))
        is_queued = job_objects.QUEUE in job["metadata"].get("labels", {})
        wanted = self._is_suspended()
        if wanted == is_suspended or (is_queued and is_suspended) or job_objects.going_since(job) is not None:
            return job
        self._means.fence.check()
        if is_queued:
            self._delete(name)
            self._ledger.close(attempt.number)
            return None
        self._means.batch.suspend(self._namespace, name, wanted)
        return {**job, "spec": {**job["spec"], "suspend": wanted}}

    def _over(self, attempt: Attempt, name: str, job: Resource | None) -> None:
        """Close an attempt whose Job has ended, or is gone for None; raise why something is left, if it is."""
        left = self._left()
        self._ledger.close(attempt.number)
        if not left:
            return
        said = self._ledger.failures(attempt.number)
        if said and isinstance(said[0], Terminal):
            raise said[0]
        how = "was deleted" if job is None else f"ended ({job_objects.why_failed(job) or 'Complete'})"
        why = f", the last said: {said[-1].message}" if said else ""
        run = self._ledger.run()
        portions = 0 if run is None else run.portions
        message = f"Job {name} {how} with {left:,} of {portions:,} portions left{why}; what is left is dealt out anew"
        raise Retryable(Reason.JOB_FAILED, message)

    def _delete(self, name: str) -> None:
        self._means.fence.check()
        self._means.batch.delete(self._namespace, name)
        log.info(logs.Event.JOB_DELETED, job=f"{self._namespace}/{name}")
        self._wait_until_gone(name)

    def _wait_until_gone(self, name: str) -> None:
        """Return once a Job that is being deleted is gone, and its pods with it, or has been given time enough.

        Pods of a node that fell silent never end. Beside the next ones they cost what both embed, and harm nothing.
        """
        while (job := self._means.batch.job(self._namespace, name)) is not None:
            until = (job_objects.going_since(job) or self._means.now()) + ENDING
            if self._means.now() >= until:
                return
            self._waits(Wait(Reason.JOB_FAILED, f"the pods of Job {name} are ending, at the latest {until:%H:%MZ}"))
            self._sleep()

    def _tell(self) -> None:
        run, finished = self._ledger.run(), self._ledger.finished()
        documents, rows = (sum(getattr(p, of) for p in finished.values()) for of in ("documents", "rows"))
        if run is not None and documents:
            self._report(rows, round(rows * run.documents / documents))

    def _sleep(self) -> None:
        self._means.pause(self._is_cancelled, LOOK_EVERY)
        if self._is_cancelled.is_set():
            raise Retryable(Reason.WORK_LOST, "cancelled")
