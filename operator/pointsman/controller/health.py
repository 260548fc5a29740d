"""Is the process well, and has it seen what there is? What a cluster asks before it starts a process anew.

A part that goes on says so from time to time. The API server's or a database's absence is nobody's ill health: to start
anew would mend nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from pointsman.controller.queue import Queue

MOST_WAITED: Final = 300.0
"""Seconds for which a resource may be due while no look at another one ends; a long queue that moves is well."""


class Part(StrEnum):
    """What has to go on."""

    WATCHES = "watches"
    """The event loop that watches resources."""
    RESYNC = "resync"
    """The thread that wakes everything from time to time."""


class Health:
    """What each part said last. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._beats: dict[Part, tuple[float, float]] = {}
        self._queue: Queue | None = None
        self._epoch, self._is_synced = 0, False
        self._looks, self._moved = 0, float("-inf")

    def lead(self, epoch: int) -> None:
        """Note that this process holds the Lease, under an epoch above 0."""
        with self._lock:
            self._epoch = epoch

    def expect(self, part: Part, within: float) -> None:
        """Expect a part to say that it goes on, every so many seconds at the least, from now on."""
        with self._lock:
            self._beats[part] = (self._clock(), within)

    def beat(self, part: Part) -> None:
        """Note that a part goes on."""
        with self._lock:
            _, within = self._beats.get(part, (0.0, float("inf")))
            self._beats[part] = (self._clock(), within)

    def serve(self, queue: Queue) -> None:
        """Expect a queue to be worked off."""
        with self._lock:
            self._queue = queue

    def sync(self) -> None:
        """Note that every resource has been seen once."""
        with self._lock:
            self._is_synced = True

    @property
    def epoch(self) -> int:
        """Under which epoch this process holds the Lease; 0 while it stands by."""
        with self._lock:
            return self._epoch

    @property
    def is_synced(self) -> bool:
        """Whether every resource has been seen once."""
        with self._lock:
            return self._is_synced

    def problem(self, looks: int = 0) -> str:
        """Return what does not go on, as a clause; empty where all does.

        So many looks at resources have ended by now.
        """
        now = self._clock()
        with self._lock:
            beats, queue = dict(self._beats), self._queue
            if looks != self._looks:
                self._looks, self._moved = looks, now
            since = now - self._moved
        for part, (at, within) in beats.items():
            if now - at > within:
                return f"{part}: nothing heard for {now - at:.0f} s, wanted every {within:.0f} s"
        if queue is None:
            return ""
        load = queue.load()
        if load.threads == 0:
            return "loop: none of its threads lives"
        # A database that thousands wait for, each its time, makes the queue long: anew it would only be longer.
        if load.waited > MOST_WAITED and since > MOST_WAITED:
            return f"loop: a resource has been due for {load.waited:.0f} s, and no thread takes it"
        return ""

    def waits(self) -> str:
        """Return what it is not ready for, as a clause; empty where it is, and while it stands by for another."""
        if self.epoch and not self.is_synced:
            return "resources have not all been seen yet"
        return ""
