"""Has the pods of Kubernetes Jobs work until nothing is left on a ledger, and says of each Job why it does not move.

What is done is on the ledger and nowhere else: a Job is made for what is left, is found again by whoever comes after
us, and may be deleted at any time. What the pods do there is nothing to this.
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
from pointsman.cluster.job_objects import Pods, PodTask
from pointsman.cluster.resources import DATASET, Cluster, Resource
from pointsman.core.recipes import Recipe
from pointsman.errors import Retryable, Terminal
from pointsman.plan.embedding import ENDING
from pointsman.plan.tasks import Build, Embed, Wait
from pointsman.store.ledger import Attempt, Ledger
from pointsman.store.root import Store
from pointsman.work.fence import Fence, Unfenced
from pointsman.work.jobs import Job
from pointsman.work.progress import Report, Waits

LOOK_EVERY = 3.0
"""Seconds between two looks at a Job: two calls of the API and a listing of the ledger."""

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


class Rounds:
    """The Jobs of one piece of work, from wherever an earlier operator left it."""

    def __init__(
        self,
        means: Means,
        job: Job,
        task: PodTask,
        recipe: Recipe,
        ledger: Ledger,
        report: Report,
        is_cancelled: threading.Event,
        waits: Waits,
    ) -> None:
        assert job.dataset is not None, "what pods carry out has its dataset's spec"
        self._means, self._job, self._task, self._recipe, self._ledger = means, job, task, recipe, ledger
        self._report, self._is_cancelled, self._waits = report, is_cancelled, waits
        self._wanted, self._namespace = job.dataset.work.job, task.owner.namespace

    def run(self) -> None:
        """Have pods work until nothing is left."""
        while self._left():
            if self._wanted.queue_name and self._is_suspended():
                # Kueue would start what is created, whatever the spec says.
                self._waits(Wait(Reason.SUSPENDED, "suspended by the spec; what is finished stays finished"))
                self.sleep()
                continue
            self._watch(*self._attempt())
        self._waits(None)

    def tidy(self) -> None:
        """Delete the Job of the last attempt, should it still be there: nothing is left for its pods."""
        attempt = self._ledger.attempt()
        name = "" if attempt is None else self._name(attempt)
        found = self._means.batch.job(self._namespace, name) if name else None
        if found is not None and not job_objects.is_ended(found) and job_objects.going_since(found) is None:
            self._delete(name)

    def _name(self, attempt: Attempt) -> str:
        return job_objects.name_of(self._task, self._job.uid, attempt.number, self._run())

    def _run(self) -> str:
        """Return which run it is, in names, where those before it may have left Jobs of the same attempt."""
        run = self._ledger.run() if isinstance(self._task, Build) else None
        return "" if run is None else run.id

    def _left(self) -> int:
        """Return how many portions are not finished."""
        run = self._ledger.run()
        if run is None:
            raise Retryable(Reason.WORK_LOST, "the run was given up meanwhile; wanted it under way, dividing anew")
        return len(self._ledger.left(run))

    def _attempt(self) -> tuple[Attempt, str]:
        """Return the attempt that is under way and its Job's name: the newest, or one that deals out what is left."""
        attempt = self._ledger.attempt()
        if attempt is not None and not self._ledger.is_closed(attempt.number):
            name = self._name(attempt)
            found = self._means.batch.job(self._namespace, name)
            if found is not None and job_objects.going_since(found) is None:
                return attempt, name
            self._wait_until_gone(name)
            if self._is_untouched(attempt) and self._means.batch.job(self._namespace, name) is None:
                return self._create(attempt)
            self._ledger.close(attempt.number)
        return self._create(self._ledger.deal(self._wanted.shards))

    def _is_untouched(self, attempt: Attempt) -> bool:
        """Return whether an attempt is what would be dealt now, as one whose Job the cluster has refused."""
        left = len(attempt.left)
        is_as_wanted = attempt.shards == max(1, min(self._wanted.shards, left))
        return is_as_wanted and left == self._left() and not self._ledger.failures(attempt.number)

    def _create(self, attempt: Attempt) -> tuple[Attempt, str]:
        name = self._name(attempt)
        self._means.fence.check()
        body = job_objects.manifest(self._job, self._task, self._recipe, attempt, self._means.pods, self._run())
        self._means.batch.create(self._namespace, body)
        log.info(logs.Event.JOB_CREATED, job=f"{self._namespace}/{name}", shards=attempt.shards)
        return attempt, name

    def _watch(self, attempt: Attempt, name: str) -> None:
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
                is_running = job_trouble.is_any_running(pods)
                ran_at = now if is_running else ran_at or job_trouble.ran_last(job, pods, now)
                moved = (job_trouble.idle_since(job), ran_at, job_trouble.ended_at(pods))
                moved_at = max(at for at in moved if at is not None)
                is_going = job_objects.going_since(job) is not None
                wait = None if is_going else self._named(job_trouble.trouble(job, pods, now, moved_at))
            except Retryable as error:
                if error.reason is not Reason.CLUSTER_UNREACHABLE:
                    raise
                # The pods go on without the API, and so does what they write down.
                self.sleep()
                continue
            self._judge(attempt, name, wait, None if is_running else moved_at)
            self.sleep()

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
        self._wait_until_gone(name)
        self._ledger.close(attempt.number)
        raise Retryable(wait.reason, f"{wait.message}; it was given up after {self._wanted.start_deadline}")

    def _named(self, wait: Wait | None) -> Wait | None:
        """Name the Secret that is missing, where that is what a pod waits for."""
        if wait is None or wait.reason is not Reason.JOB_CANNOT_START:
            return wait
        for secret in job_objects.secrets(self._job, self._task, self._recipe):
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
        """Return whether the dataset, as it is now, wants no pods at work; False where it is not that one any more."""
        task = self._task
        name = task.dataset if isinstance(task, Build) else task.owner.name
        found = self._means.cluster.get(DATASET, self._namespace, name)
        if found is None or (isinstance(task, Embed) and found["metadata"]["uid"] != self._job.uid):
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
            self._wait_until_gone(name)
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

    def _wait_until_gone(self, name: str) -> None:
        """Return once a Job that is being deleted is gone, and its pods with it, or has been given time enough.

        Pods of a node that fell silent never end. Beside the next ones they cost what both embed, and harm nothing.
        """
        while (job := self._means.batch.job(self._namespace, name)) is not None:
            until = (job_objects.going_since(job) or self._means.now()) + ENDING
            if self._means.now() >= until:
                return
            self._waits(Wait(Reason.JOB_FAILED, f"the pods of Job {name} are ending, at the latest {until:%H:%MZ}"))
            self.sleep()

    def _tell(self) -> None:
        run, finished = self._ledger.run(), self._ledger.finished()
        documents, rows = (sum(getattr(p, of) for p in finished.values()) for of in ("documents", "rows"))
        if run is not None and documents:
            self._report(rows, round(rows * run.documents / documents))

    def sleep(self) -> None:
        """Wait until the next look; raises Retryable(WORK_LOST) where the work was cancelled."""
        self._means.pause(self._is_cancelled, LOOK_EVERY)
        if self._is_cancelled.is_set():
            raise Retryable(Reason.WORK_LOST, "cancelled")
