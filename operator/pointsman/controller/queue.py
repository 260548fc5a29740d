"""Which resource is looked at next: each key once, one at a time, when it is due.

Whoever has a reason is served before what is only looked at from time to time, so that an edit does not wait until
thousands of others have been found unchanged. Where even those that have waited too long are thousands, as on a machine
that is busy with something else, both are served by turns.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pointsman.plan.tasks import Key

Reconcile = Callable[[Key], timedelta | None]

BEHIND: Final = 30.0
"""Seconds for which a routine look gives way to whoever has a reason, and not longer: it may be the only way to find
out that there is one."""
ROUTINE: Final = timedelta(minutes=1)
"""Whoever asks to be looked at again so late expects nothing."""


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


@dataclass(frozen=True, slots=True)
class _Due:
    """When a key is due, and how urgently: of two that are due, the one with the smaller rank is taken."""

    at: float
    rank: float

    @property
    def is_routine(self) -> bool:
        """Whether nobody has a reason."""
        return self.rank >= self.at + BEHIND


_Entry = tuple[float, int, Key, _Due]


class Queue:
    """Keys with the time at which each is due. A key that is added while it is worked on is due again right after."""

    def __init__(self, reconcile: Reconcile, workers: int, on_error: Callable[[Key, BaseException], None]) -> None:
        self._reconcile, self._on_error = reconcile, on_error
        self._condition = threading.Condition()
        self._due: dict[Key, _Due] = {}
        # What is in one of the heaps and not in `_due`, or busy, is passed over: it was moved, or is put back later.
        self._order = itertools.count()
        self._later: list[_Entry] = []
        self._urgent: list[_Entry] = []
        self._routine: list[_Entry] = []
        self._was_routine = False
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._is_stopping = False
        self._threads = [threading.Thread(target=self._run, name=f"loop-{n}") for n in range(workers)]

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def add(self, key: Key, after: timedelta = timedelta(0)) -> None:
        """Make a key due after a while, or keep it where it is due sooner: somebody has a reason to look at it."""
        at = time.monotonic() + after.total_seconds()
        self._put(key, _Due(at, at))

    def look(self, key: Key, after: timedelta = timedelta(0)) -> None:
        """The same without a reason: it may have to let others go first."""
        at = time.monotonic() + after.total_seconds()
        self._put(key, _Due(at, at + BEHIND))

    def load(self) -> Load:
        """Return how much there is to do just now."""
        with self._condition:
            now = time.monotonic()
            due = [due.at for key, due in self._due.items() if key not in self._busy and due.at <= now]
            threads = sum(thread.is_alive() for thread in self._threads)
            return Load(len(due), len(self._busy), now - min(due, default=now), threads)

    def stop(self) -> None:
        """Let what is under way finish, and end those of the workers that were started."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        for thread in self._threads:
            if thread.is_alive():
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
                if key in self._due:
                    self._push(key, self._due[key])
            if again is not None:
                (self.look if again >= ROUTINE else self.add)(key, again)

    def _put(self, key: Key, due: _Due) -> None:
        with self._condition:
            known = self._due.get(key)
            if known is not None:
                due = _Due(min(known.at, due.at), min(known.rank, due.rank))
            if due != known:
                self._due[key] = due
                self._push(key, due)

    def _push(self, key: Key, due: _Due) -> None:
        heapq.heappush(self._later, (due.at, next(self._order), key, due))
        self._condition.notify()

    def _next(self) -> Key | None:
        with self._condition:
            while not self._is_stopping:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    _, order, key, due = heapq.heappop(self._later)
                    heapq.heappush(self._routine if due.is_routine else self._urgent, (due.rank, order, key, due))
                found = self._first()
                if found is not None:
                    del self._due[found]
                    self._busy.add(found)
                    if self._urgent or self._routine:
                        # It may have been put there by this thread alone.
                        self._condition.notify()
                    return found
                self._condition.wait(min(60.0, self._later[0][0] - now) if self._later else 60.0)
            return None

    def _first(self) -> Key | None:
        """Take out the key that is next of those that are due; None where none is."""
        for heap in (self._urgent, self._routine):
            while heap and (self._due.get(heap[0][2]) is not heap[0][3] or heap[0][2] in self._busy):
                heapq.heappop(heap)
        if not self._urgent and not self._routine:
            return None
        has_waited = bool(self._routine) and (not self._urgent or self._routine[0] < self._urgent[0])
        self._was_routine = has_waited and not (self._was_routine and self._urgent)
        return heapq.heappop(self._routine if self._was_routine else self._urgent)[2]
