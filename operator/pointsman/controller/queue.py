"""Which resource is looked at next: each key once, one at a time, when it is due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from pointsman.plan.tasks import Key

Reconcile = Callable[[Key], timedelta | None]


@dataclass(frozen=True, slots=True)
class Load:
    """How much there is to do."""

    due: int
    """Keys that wait for a thread."""
    busy: int
    """Keys that are worked on."""
    waited: float
    """Seconds for which the one that waits longest has been due."""
    threads: int
    """Those that live."""


class Queue:
    """Keys with the time at which each is due. A key that is added while it is worked on is due again right after."""

    def __init__(self, reconcile: Reconcile, workers: int, on_error: Callable[[Key, BaseException], None]) -> None:
        self._reconcile, self._on_error = reconcile, on_error
        self._condition = threading.Condition()
        self._due: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._is_stopping = False
        self._threads = [threading.Thread(target=self._run, name=f"loop-{n}") for n in range(workers)]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def add(self, key: Key, after: timedelta = timedelta(0)) -> None:
        """Make a key due after a while, or keep it where it is due sooner."""
        at = time.monotonic() + after.total_seconds()
        with self._condition:
            self._due[key] = min(at, self._due.get(key, at))
            self._condition.notify()

    def load(self) -> Load:
        """Return how much there is to do just now."""
        with self._condition:
            now = time.monotonic()
            due = [at for key, at in self._due.items() if key not in self._busy and at <= now]
            threads = sum(thread.is_alive() for thread in self._threads)
            return Load(len(due), len(self._busy), now - min(due, default=now), threads)

    def stop(self) -> None:
        """Let what is under way finish, and end the workers."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (key := self._next()) is not None:
            try:
                again = self._reconcile(key)
                self._failures.pop(key, None)
            except Exception as error:
                # The outermost loop: whatever nobody foresaw is logged, and the key is looked at again, ever later.
                self._on_error(key, error)
                count = self._failures[key] = self._failures.get(key, 0) + 1
                again = timedelta(seconds=min(300, 2 ** min(count, 9)))
            with self._condition:
                self._busy.discard(key)
                self._condition.notify()
            if again is not None:
                self.add(key, again)

    def _next(self) -> Key | None:
        with self._condition:
            while not self._is_stopping:
                now = time.monotonic()
                ready = [(at, key) for key, at in self._due.items() if key not in self._busy]
                at, key = min(ready, default=(now + 60.0, None))
                if key is not None and at <= now:
                    del self._due[key]
                    self._busy.add(key)
                    return key
                self._condition.wait(min(60.0, at - now))
            return None
