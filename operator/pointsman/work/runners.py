"""Who carries jobs out: a pool of worker processes, or, in tests, the caller itself.

A runner remembers how each subject's last work ended, so that a planner sees failures and their back-off as facts. That
memory is lost with the process, which costs one more attempt and nothing else.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent import futures
from datetime import datetime, timedelta
from typing import Any, Protocol, assert_never

from pointsman import logs
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.plan.tasks import (
    AskCanaries,
    Build,
    Check,
    Clean,
    Embed,
    Evaluate,
    Failure,
    Follow,
    Key,
    Phase,
    Probe,
    ReadQueries,
    Refresh,
    Repair,
    Wait,
    Work,
)
from pointsman.work import jobs, progress
from pointsman.work.jobs import Doors, Job
from pointsman.work.progress import Report, Waits

FIRST_RETRY = timedelta(seconds=2)
LAST_RETRY = timedelta(minutes=5)
LOST_SHARE = 20
"""What only an edit can mend is tried again by itself after this many times as long as the attempt took: a source of
bad rows that takes an hour to read is not read all day."""
MOST_JOBS = 16
"""How many embeddings in pods of one namespace, and how many loads of indexes, are looked after at once. Some wait for
days, as while suspended; they keep none of another kind or namespace waiting."""
REPORT_EVERY = 1.0
"""Seconds between two sights of progress."""

log = logs.logger()


class Runner(Protocol):
    """Who carries jobs out."""

    def start(self, job: Job, generation: int) -> None:
        """Start a job unless its subject is being worked on."""
        ...

    def work(self, owner: Key) -> tuple[Work, ...]:
        """Return the last work on each subject of an owner."""
        ...

    def cancel(self, owner: Key, subject: str = "") -> None:
        """Stop the work on a subject, or all work for an owner, and forget how it went."""
        ...

    def close(self) -> None:
        """Stop everything."""
        ...


class Carrier(Protocol):
    """One way to carry a job out and wait for it."""

    def carry_out(
        self, job: Job, report: Report, is_cancelled: threading.Event, waits: Waits = progress.silently
    ) -> None:
        """Carry a job out; raises PointsmanError."""
        ...

    def close(self) -> None:
        """Stop what is under way."""
        ...


def failed(error: PointsmanError, before: Work | None, now: datetime, took: timedelta = timedelta(0)) -> Failure:
    """Return a failure with its back-off: doubling from 2 s to 5 min, and no sooner than the other side asked for."""
    attempts = 1
    if before is not None and before.failure is not None and before.failure.reason is error.reason:
        attempts = before.failure.attempts + 1
    is_terminal = isinstance(error, Terminal)
    # What only an edit can mend is looked at again all the same: a Secret or a file is edited too.
    first = FIRST_RETRY * 15 if is_terminal else FIRST_RETRY
    wait = min(LAST_RETRY, first * 2 ** min(attempts - 1, 10))
    if is_terminal:
        wait = max(wait, took * LOST_SHARE)
    if error.retry_after is not None:
        wait = max(wait, timedelta(seconds=error.retry_after))
    return Failure(error.reason, error.message, is_terminal, attempts, now + wait)


class InlineRunner:
    """Carries each job out before `start` returns. For tests: nothing runs beside the loop."""

    def __init__(self, doors: Doors, now: Callable[[], datetime], carrier: Carrier | None = None) -> None:
        """Without a carrier, jobs are carried out by these doors."""
        self._doors, self._now, self._carrier = doors, now, carrier
        self._work: dict[tuple[Key, str], Work] = {}

    def start(self, job: Job, generation: int) -> None:
        """Carry a job out and remember how it went."""
        key = (job.task.owner, job.task.subject)
        before = self._work.get(key)
        try:
            if self._carrier is not None:
                self._carrier.carry_out(job, progress.nowhere, threading.Event())
            else:
                jobs.carry_out(job, self._doors, self._now, progress.nowhere)
        except PointsmanError as error:
            failure = failed(error, before, self._now())
            self._work[key] = Work(job.task, generation, Phase.FAILED, failure=failure)
        else:
            self._work[key] = Work(job.task, generation, Phase.DONE, finished_at=self._now())

    def work(self, owner: Key) -> tuple[Work, ...]:
        """Return how the last jobs of an owner went."""
        return tuple(work for (key, _), work in self._work.items() if key == owner)

    def cancel(self, owner: Key, subject: str = "") -> None:
        """Forget how the last jobs went."""
        for key in [key for key in self._work if key[0] == owner and subject in ("", key[1])]:
            del self._work[key]

    def close(self) -> None:
        """Do nothing: nothing is under way."""


@dataclasses.dataclass(slots=True)
class _Running:
    work: Work
    is_cancelled: threading.Event
    window: list[tuple[float, int]]
    is_for_pods: bool = False
    future: futures.Future[None] | None = None


class PooledRunner:
    """Carries jobs out on threads, each of which waits for a worker process.

    Work of one kind never queues behind that of another: a rollback may wait for a move by difference, and an index
    that was lost for its build, while others embed for hours.
    """

    def __init__(
        self, carrier: Carrier, now: Callable[[], datetime], wake: Callable[[Key], None], workers: int = 2
    ) -> None:
        self._carrier, self._now, self._wake = carrier, now, wake
        sizes = {"dataset": workers, "build": workers, "check": 1, "follow": 2, "queries": 1, "answers": 2}
        self._lanes = {
            lane: futures.ThreadPoolExecutor(threads, thread_name_prefix=f"work-{lane}")
            for lane, threads in sizes.items()
        }
        self._lock = threading.Lock()
        # By owner and subject: of thousands of owners each asks for its own work at every look.
        self._running: dict[Key, dict[str, _Running]] = {}
        self._ended: dict[Key, dict[str, Work]] = {}

    def start(self, job: Job, generation: int) -> None:
        """Start a job unless its subject is being worked on."""
        owner, subject = key = (job.task.owner, job.task.subject)
        with self._lock:
            if subject in self._running.get(owner, {}):
                return
            before = self._ended.get(owner, {}).get(subject)
            # While it is tried again what failed before is still true, unless the spec has been edited since.
            failure = before.failure if before is not None and before.generation == generation else None
            work = Work(job.task, generation, Phase.RUNNING, failure=failure, wait=self._queued(job))
            running = _Running(work, threading.Event(), [], jobs.is_for_pods(job))
            self._running.setdefault(owner, {})[subject] = running
            running.future = self._lane(job).submit(self._run, key, job, running)

    def work(self, owner: Key) -> tuple[Work, ...]:
        """Return the last work on each subject of an owner."""
        with self._lock:
            found = dict(self._ended.get(owner, {}))
            found |= {subject: running.work for subject, running in self._running.get(owner, {}).items()}
        return tuple(found.values())

    def cancel(self, owner: Key, subject: str = "") -> None:
        """Stop the work on a subject, or all work for an owner, and forget how it went."""
        has_left_the_queue = False
        with self._lock:
            for each in [each for each in self._ended.get(owner, {}) if subject in ("", each)]:
                _take(self._ended, owner, each)
            for each, running in list(self._running.get(owner, {}).items()):
                if subject not in ("", each):
                    continue
                running.is_cancelled.set()
                # What no thread has taken yet is over at once; it may be hours before one is free.
                if running.future is not None and running.future.cancel():
                    _take(self._running, owner, each)
                    has_left_the_queue = True
        if has_left_the_queue:
            self._wake(owner)

    def close(self) -> None:
        """Stop everything."""
        with self._lock:
            for found in self._running.values():
                for running in found.values():
                    running.is_cancelled.set()
        self._carrier.close()
        for lane in list(self._lanes.values()):
            lane.shutdown(wait=True, cancel_futures=True)

    def _lane(self, job: Job) -> futures.ThreadPoolExecutor:
        """Return the threads that carry a job out; those that wait for pods are their namespace's own."""
        lane = _lane(job)
        if jobs.is_for_pods(job):
            lane = f"{lane} by pods of {job.task.owner.namespace}"
            if lane not in self._lanes:
                # They take nothing of this machine but their own memory.
                self._lanes[lane] = futures.ThreadPoolExecutor(MOST_JOBS, thread_name_prefix="work-jobs")
        return self._lanes[lane]

    def _queued(self, job: Job) -> Wait | None:
        """Return what a job in pods waits for before it begins; None where it begins at once."""
        namespace = job.task.owner.namespace
        if not jobs.is_for_pods(job):
            return None
        beside = (
            each for owner, found in self._running.items() if owner.namespace == namespace for each in found.values()
        )
        ahead = sum(each.is_for_pods and type(each.work.task) is type(job.task) for each in beside)
        if ahead < MOST_JOBS:
            return None
        what = "loads" if isinstance(job.task, Build) else "embeddings"
        return Wait(
            Reason.JOB_NOT_ADMITTED,
            f"{ahead} {what} in pods of {namespace} are before it, {MOST_JOBS} are looked after at once; it begins "
            "when one of them ends or is removed",
        )

    def _run(self, key: tuple[Key, str], job: Job, running: _Running) -> None:
        owner, subject = key
        with self._lock:
            before = self._ended.get(owner, {}).get(subject)
        self._waits(running, None)
        told = log.bind(task=type(job.task).__name__, owner=f"{owner.kind} {owner}", subject=subject)
        start = time.monotonic()
        error: PointsmanError | None = None
        try:
            if not running.is_cancelled.is_set():
                told.info(logs.Event.WORK_STARTED)
                self._carrier.carry_out(
                    job, self._reporter(running), running.is_cancelled, lambda wait: self._waits(running, wait)
                )
        except PointsmanError as known:
            error = known
        except Exception as unknown:
            # A thread's own death would leave the subject running for ever.
            error = Retryable(Reason.INTERNAL_ERROR, f"{type(unknown).__name__} in the runner")
            told.error(logs.Event.WORK_FAILED, exc_info=unknown)
        took = time.monotonic() - start
        told = told.bind(seconds=round(took, 3))
        if error is None:
            ended = dataclasses.replace(
                running.work, phase=Phase.DONE, failure=None, finished_at=self._now(), wait=None
            )
        else:
            # What pods have finished is not lost, however long they took.
            lost = timedelta(0) if jobs.is_for_pods(job) else timedelta(seconds=took)
            failure = failed(error, before, self._now(), lost)
            ended = dataclasses.replace(running.work, phase=Phase.FAILED, failure=failure, wait=None)
        with self._lock:
            _take(self._running, owner, subject)
            is_wanted = not running.is_cancelled.is_set()
            if is_wanted:
                self._ended.setdefault(owner, {})[subject] = ended
        if not is_wanted:
            told.info(logs.Event.WORK_CANCELLED)
        elif ended.failure is not None:
            told.warning(logs.Event.WORK_FAILED, error=error, attempts=ended.failure.attempts)
        else:
            told.info(logs.Event.WORK_FINISHED)
        self._wake(job.task.owner)

    def _waits(self, running: _Running, wait: Wait | None) -> None:
        if running.work.wait != wait:
            with self._lock:
                running.work = dataclasses.replace(running.work, wait=wait)
            self._wake(running.work.task.owner)

    def _reporter(self, running: _Running) -> Report:
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            at = time.monotonic()
            if at - last < REPORT_EVERY and done < total:
                return
            last = at
            window = running.window
            window.append((at, done))
            # The rate is that of the last ten seconds or so.
            while len(window) > 2 and window[1][0] < at - 10:
                window.pop(0)
            span = at - window[0][0]
            rate = (done - window[0][1]) / span if span > 0 else 0.0
            with self._lock:
                running.work = dataclasses.replace(running.work, done=done, total=total, rate=rate)

        return report


def _take(known: dict[Key, dict[str, Any]], owner: Key, subject: str) -> None:
    """Remove what is known of a subject, and the owner with its last one."""
    del known[owner][subject]
    if not known[owner]:
        del known[owner]


def _lane(job: Job) -> str:
    match job.task:
        case Follow():
            return "follow"
        case Check():
            return "check"
        case Build() | Repair():
            return "build"
        case ReadQueries():
            return "queries"
        case Evaluate() | AskCanaries() | Probe():
            return "answers"
        case Refresh() | Embed() | Clean():
            return "dataset"
        case _:
            assert_never(job.task)
