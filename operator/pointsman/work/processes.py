"""Worker processes: started when there is work, kept warm for a while, ended with the operator.

The protocol is one JSON object a line. In: a job. Out: `{"done", "total"}` while it runs, then `{"ended": true}` or
`{"reason", "message", "terminal", "retry_after"}`. The worker ends itself when its standard input ends, which also
happens when the operator is killed, and when its operator's deadline has passed, which it has when the operator is
frozen, so that nobody's orphan writes beside a new operator's workers.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import IO, Any, cast

import orjson

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal, unforeseen
from pointsman.ports import Backend
from pointsman.work import jobs, progress, wire
from pointsman.work.fence import Deadline, Fence, Unfenced
from pointsman.work.jobs import Doors, Job, Stage
from pointsman.work.progress import Report, Waits

IDLE = 60.0
"""Seconds that an idle worker is kept."""
REPORT_EVERY = 0.5
"""Seconds between two lines of progress."""
ORPHANED = 3
"""The exit code of a worker without an operator."""
LONGEST_SEAL = timedelta(seconds=ports.BUILD_SECONDS) + timedelta(hours=1)
"""What a seal may take at least: stopped before the database gives up by itself, it would never get to its end."""


class Processes:
    """A pool of worker processes; each carries out one job at a time."""

    def __init__(
        self,
        longest: timedelta,
        command: tuple[str, ...] = (),
        idle: float = IDLE,
        deadline: Deadline | None = None,
    ) -> None:
        """`longest` is what one job may take, `idle` how many seconds a worker without one is kept.

        A seal may take LONGEST_SEAL at least. No worker outlives the `deadline`, wherever its job is.
        """
        self._longest, self._idle_seconds = longest, idle
        self._command = command or (sys.executable, "-m", "pointsman.cli.main", "worker")
        self._inherited = () if deadline is None else (deadline.descriptor,)
        self._lock = threading.Lock()
        self._idle: list[tuple[float, subprocess.Popen[bytes]]] = []
        self._all: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    def carry_out(
        self, job: Job, report: Report, is_cancelled: threading.Event, waits: Waits = progress.silently
    ) -> None:
        """Carry a job out in a worker; a worker that dies, or takes too long, is Retryable(WORK_LOST)."""
        process, longest = self._take(), self._longest
        if job.stage is Stage.SEAL:
            longest = max(longest, LONGEST_SEAL)
        try:
            error = _converse(process, job, report, is_cancelled, longest)
        except BaseException:
            # It is in the middle of something, which is safe to cut short and of no use to the next job.
            self._end(process)
            raise
        finally:
            self._give_back(process)
        if error is not None:
            raise error

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            self._is_closed = True
            processes = list(self._all)
        for process in processes:
            self._end(process)

    def kill(self) -> None:
        """End all workers without a word and without waiting: this process is about to end itself."""
        for process in tuple(self._all):
            process.kill()

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_closed:
                raise Retryable(Reason.WORK_LOST, "the operator is stopping")
            while self._idle:
                _, process = self._idle.pop()
                if process.poll() is None:
                    return process
                self._all.discard(process)
            # Nothing of the job is in the arguments or the environment: both can be read by others.
            command = [*self._command, *(f"--deadline={descriptor}" for descriptor in self._inherited)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=self._inherited)
            self._all.add(process)
            return process

    def _give_back(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if process.poll() is not None or self._is_closed:
                self._all.discard(process)
                return
            self._idle.append((time.monotonic(), process))
        reaper = threading.Timer(self._idle_seconds + 1, self._reap)
        reaper.daemon = True
        reaper.start()

    def _reap(self) -> None:
        oldest = time.monotonic() - self._idle_seconds
        with self._lock:
            stale = [entry for entry in self._idle if entry[0] <= oldest]
            self._idle = [entry for entry in self._idle if entry[0] > oldest]
        for _, process in stale:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        with self._lock:
            self._all.discard(process)


def _converse(
    process: subprocess.Popen[bytes], job: Job, report: Report, is_cancelled: threading.Event, longest: timedelta
) -> PointsmanError | None:
    """Have a worker carry a job out; return the error that it answers with."""
    assert process.stdin is not None and process.stdout is not None
    lines: queue.Queue[bytes] = queue.Queue()
    stdout = process.stdout

    def read() -> None:
        while line := stdout.readline():
            lines.put(line)
            if b'"done"' not in line:
                return
        lines.put(b"")

    try:
        process.stdin.write(orjson.dumps(wire.to_json(job)) + b"\n")
        process.stdin.flush()
    except OSError as error:
        raise Retryable(Reason.WORK_LOST, "the worker has gone; it is started again") from error
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    deadline = time.monotonic() + longest.total_seconds()
    while True:
        if is_cancelled.is_set():
            raise Retryable(Reason.WORK_LOST, "cancelled")
        if time.monotonic() > deadline:
            message = f"it was stopped, as it had taken longer than the {longest} that it may by POINTSMAN_WORK_TIMEOUT"
            raise Retryable(Reason.WORK_LOST, f"{message}; it goes on from what was finished")
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            continue
        if not line:
            code = process.wait()
            raise Retryable(
                Reason.WORK_LOST, f"the worker ended without an answer (exit code {code}); it is tried again"
            )
        try:
            answer = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise Retryable(Reason.WORK_LOST, "the worker said what is not of the protocol; it is ended") from None
        if "done" in answer:
            report(answer["done"], answer["total"])
        elif "ended" in answer:
            return None
        else:
            reason, message = Reason(answer["reason"]), answer["message"]
            return (
                Terminal(reason, message) if answer["terminal"] else Retryable(reason, message, answer["retry_after"])
            )


class InProcess:
    """Carries jobs out on the calling thread: for the in-memory database, which no other process can see."""

    def __init__(self, doors: Doors, now: Callable[[], datetime]) -> None:
        self._doors, self._now = doors, now

    def carry_out(
        self, job: Job, report: Report, is_cancelled: threading.Event, waits: Waits = progress.silently
    ) -> None:
        """Carry a job out here; it cannot be cancelled once it has begun."""
        jobs.carry_out(job, self._doors, self._now, report)

    def close(self) -> None:
        """Do nothing: the jobs end with their threads."""


class Either:
    """Sends jobs on the in-memory database to this process and all others to workers."""

    def __init__(self, workers: Processes, here: InProcess) -> None:
        self._workers, self._here = workers, here

    def carry_out(
        self, job: Job, report: Report, is_cancelled: threading.Event, waits: Waits = progress.silently
    ) -> None:
        """Carry a job out where it has to be."""
        is_memory = job.backend is not None and job.backend.memory is not None
        (self._here if is_memory else self._workers).carry_out(job, report, is_cancelled)

    def close(self) -> None:
        """End all workers."""
        self._workers.close()


def serve(
    stdin: IO[bytes],
    stdout: IO[bytes],
    doors: Doors,
    now: Callable[[], datetime],
    fence: Fence | None = None,
) -> None:
    """Carry out the jobs that come in, one after the other, until the input ends.

    A thread reads the input while a job runs: its end means that the operator is gone, and then this process ends at
    once, wherever the job is. The fence is asked before every job, every batch and whatever is asked of a database.
    """
    fence = fence or Unfenced()
    fenced = dataclasses.replace(doors, backend=lambda *how: Guarded.of(doors.backend(*how), fence))
    incoming: queue.Queue[bytes | None] = queue.Queue()
    is_busy = threading.Event()

    def read() -> None:
        for line in stdin:
            incoming.put(line)
        if is_busy.is_set():
            os._exit(ORPHANED)
        incoming.put(None)

    threading.Thread(target=read, daemon=True).start()

    def answer(value: dict[str, Any]) -> None:
        stdout.write(orjson.dumps(value) + b"\n")
        stdout.flush()

    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        fence.check()
        if time.monotonic() - last >= REPORT_EVERY:
            last = time.monotonic()
            answer({"done": done, "total": total})

    while (line := incoming.get()) is not None:
        is_busy.set()
        fence.check()
        try:
            jobs.carry_out(wire.from_json(orjson.loads(line)), fenced, now, report)
            answer({"ended": True})
        except PointsmanError as error:
            answer(_told(error.reason, error.message, isinstance(error, Terminal), error.retry_after))
        except Exception as error:
            said = unforeseen(error)
            answer(_told(said.reason, said.message, False, None))
        is_busy.clear()


class Guarded:
    """A database of which nothing is asked but through a fence."""

    def __init__(self, backend: Backend, fence: Fence) -> None:
        self._backend, self._fence = backend, fence

    @staticmethod
    def of(backend: Backend, fence: Fence) -> Backend:
        """Return a database behind a fence."""
        return cast(Backend, Guarded(backend, fence))

    def __getattr__(self, name: str) -> Any:
        self._fence.check()
        return getattr(self._backend, name)


def _told(reason: Reason, message: str, is_terminal: bool, retry_after: float | None) -> dict[str, Any]:
    return {"reason": reason, "message": message, "terminal": is_terminal, "retry_after": retry_after}
