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
from typing import Protocol

from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.plan.tasks import Check, Failure, Follow, Key, Phase, Work
from pointsman.work import jobs
from pointsman.work.jobs import Doors, Job
from pointsman.work.progress import Report

FIRST_RETRY = timedelta(seconds=2)
LAST_RETRY = timedelta(minutes=5)


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

    def carry_out(self, job: Job, report: Report, is_cancelled: threading.Event) -> None:
        """Carry a job out; raises PointsmanError."""
        ...

    def close(self) -> None:
        """Stop what is under way."""
        ...


def failed(error: PointsmanError, before: Work | None, now: datetime) -> Failure:
    """Return a failure with its back-off: doubling from 2 s to 5 min, terminal ones from 30 s."""
    attempts = 1
    if before is not None and before.failure is not None and before.failure.reason is error.reason:
        attempts = before.failure.attempts + 1
    is_terminal = isinstance(error, Terminal)
    # What only an edit can mend is looked at again all the same: a Secret or a file is edited too.
    first = FIRST_RETRY * 15 if is_terminal else FIRST_RETRY
    wait = min(LAST_RETRY, first * 2 ** min(attempts - 1, 10))
    return Failure(error.reason, error.message, is_terminal, attempts, now + wait)


class InlineRunner:
    """Carries each job out before `start` returns. For tests: nothing runs beside the loop."""

    def __init__(self, doors: Doors, now: Callable[[], datetime]) -> None:
        self._doors, self._now = doors, now
        self._work: dict[tuple[Key, str], Work] = {}

    def start(self, job: Job, generation: int) -> None:
        """Carry a job out and remember how it went."""
        key = (job.task.owner, job.task.subject)
        before = self._work.get(key)
        try:
            jobs.carry_out(job, self._doors, self._now, lambda done, total: None)
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


class PooledRunner:
    """Carries jobs out on threads, each of which waits for a worker process.

    Moves by difference and checks have threads of their own: they are short, and a rollback may wait for one, so they
    never queue behind a build or an embedding.
    """

    def __init__(
        self,
        carrier: Carrier,
        now: Callable[[], datetime],
        wake: Callable[[Key], None],
        long: int = 2,
        short: int = 2,
    ) -> None:
        self._carrier, self._now, self._wake = carrier, now, wake
        self._long = futures.ThreadPoolExecutor(long, thread_name_prefix="work-long")
        self._short = futures.ThreadPoolExecutor(short, thread_name_prefix="work-short")
        self._lock = threading.Lock()
        self._running: dict[tuple[Key, str], _Running] = {}
        self._ended: dict[tuple[Key, str], Work] = {}

    def start(self, job: Job, generation: int) -> None:
        """Start a job unless its subject is being worked on."""
        key = (job.task.owner, job.task.subject)
        with self._lock:
            if key in self._running:
                return
            before = self._ended.get(key)
            # While it is tried again what failed before is still true, unless the spec has been edited since.
            failure = before.failure if before is not None and before.generation == generation else None
            running = _Running(Work(job.task, generation, Phase.RUNNING, failure=failure), threading.Event(), [])
            self._running[key] = running
        pool = self._short if isinstance(job.task, Follow | Check) else self._long
        pool.submit(self._run, key, job, running)

    def work(self, owner: Key) -> tuple[Work, ...]:
        """Return the last work on each subject of an owner."""
        with self._lock:
            ended = {key: work for key, work in self._ended.items() if key[0] == owner}
            ended |= {key: running.work for key, running in self._running.items() if key[0] == owner}
        return tuple(ended.values())

    def cancel(self, owner: Key, subject: str = "") -> None:
        """Stop the work on a subject, or all work for an owner, and forget how it went."""
        with self._lock:
            for key in [key for key in self._ended if key[0] == owner and subject in ("", key[1])]:
                del self._ended[key]
            stopping = [r for key, r in self._running.items() if key[0] == owner and subject in ("", key[1])]
        for running in stopping:
            running.is_cancelled.set()

    def close(self) -> None:
        """Stop everything."""
        with self._lock:
            for running in self._running.values():
                running.is_cancelled.set()
        self._carrier.close()
        self._long.shutdown(wait=True, cancel_futures=True)
        self._short.shutdown(wait=True, cancel_futures=True)

    def _run(self, key: tuple[Key, str], job: Job, running: _Running) -> None:
        with self._lock:
            before = self._ended.get(key)
        ended: Work | None
        try:
            if not running.is_cancelled.is_set():
                self._carrier.carry_out(job, self._reporter(key, running), running.is_cancelled)
            ended = dataclasses.replace(running.work, phase=Phase.DONE, failure=None, finished_at=self._now())
        except PointsmanError as error:
            ended = dataclasses.replace(running.work, phase=Phase.FAILED, failure=failed(error, before, self._now()))
        except Exception as error:
            # A thread's own death would leave the subject running for ever; the type is enough to find it in the log.
            mapped = Retryable(Reason.INTERNAL_ERROR, f"{type(error).__name__} in the runner")
            ended = dataclasses.replace(running.work, phase=Phase.FAILED, failure=failed(mapped, before, self._now()))
        with self._lock:
            del self._running[key]
            if not running.is_cancelled.is_set():
                self._ended[key] = ended
        self._wake(job.task.owner)

    def _reporter(self, key: tuple[Key, str], running: _Running) -> Report:
        def report(done: int, total: int) -> None:
            at = time.monotonic()
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
