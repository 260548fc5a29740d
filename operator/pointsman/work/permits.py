"""May this pod still write to an index? While it saw, a moment ago, on the ledger that its run goes on.

Nobody can reach a pod whose node fell silent, and no database of ours refuses an older writer. So a pod looks by
itself, and writes for so long after a look and no longer: whoever has ended a run knows when its last pod has stopped.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from pointsman import logs
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable
from pointsman.work.fence import clock

T = TypeVar("T")

SECONDS = 40.0
"""How long a look holds, from when it began."""
LOOK_EVERY = 10.0
"""Seconds between two looks, of two small objects each."""
WATCH_EVERY = 0.5
"""Seconds within which a process that slept past its permit is ended."""
LOST = 1
"""The exit code of a pod whose permit ran out while it wrote: what it did is done again."""

log = logs.logger()


def end(why: str) -> NoReturn:
    """End this process where it stands."""
    log.error(logs.Event.SHARD_FAILED, why=why)
    os._exit(LOST)


class Permit:
    """The permit of one process."""

    def __init__(
        self,
        is_under_way: Callable[[], bool],
        clock: Callable[[], float] = clock,
        lost: Callable[[str], None] = end,
    ) -> None:
        """`is_under_way` looks at the ledger, and raises where that does not answer; `lost` ends the process."""
        self._is_under_way, self._clock, self._lost = is_under_way, clock, lost
        self._until, self._is_over, self._is_sending = float("-inf"), False, False
        self.is_clean = True
        """Whether each piece that was sent was also answered: nothing of it is under way."""

    def renew(self) -> None:
        """Look at the ledger; raises what the store raises."""
        began = self._clock()
        if self._is_under_way():
            # A look that took long may end after a later one.
            self._until = max(self._until, began + SECONDS)
        else:
            self._is_over = True

    def check(self) -> None:
        """Return while the process may write; raises Retryable(WORK_LOST) once the run is over."""
        if not self._is_over and self._until - self._clock() < LOOK_EVERY:
            self.renew()
        if self._is_over:
            raise Retryable(Reason.WORK_LOST, "the run was given up meanwhile; wanted it under way")

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, each while the process may write it."""
        for batch in batches:
            self.check()
            yield batch

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Hold for as long as anything is sent; a process that sleeps past its permit in between is ended."""
        self.check()
        was_clean, self.is_clean = self.is_clean, False
        self._is_sending = True
        try:
            yield
            self.is_clean = was_clean
        finally:
            self._is_sending = False

    def watch(self) -> None:
        """End the process if its permit has run out while it sends."""
        if self._is_sending and self._clock() >= self._until:
            self._lost("the run could not be looked at for too long, and may be over by now")

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Have the ledger looked at, and the time watched, by threads beside."""
        done = threading.Event()
        threads = [
            threading.Thread(target=self._every, args=(LOOK_EVERY, self._renew_quietly, done), daemon=True),
            threading.Thread(target=self._every, args=(WATCH_EVERY, self.watch, done), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                # One that waits for a store that is away is left behind: nothing hangs on it any more.
                thread.join(1.0)

    def _every(self, seconds: float, do: Callable[[], None], done: threading.Event) -> None:
        while not done.wait(seconds):
            do()

    def _renew_quietly(self) -> None:
        try:
            self.renew()
        except PointsmanError as error:
            # Whoever sends next finds out, or the time runs out.
            log.warning(logs.Event.SHARD_WAITED, error=error, seconds=LOOK_EVERY)
