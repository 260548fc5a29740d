"""May this process still act? Until a moment that the operator moves on whenever it has renewed its Lease.

The operator and its workers share that moment. Workers go on while their operator is frozen, and nobody can tell them
to stop: they see by themselves that it has passed.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NoReturn, Protocol

Lost = Callable[[str], NoReturn]
"""Ends the process at once, and says why."""

_MOMENT = struct.Struct("d")


def clock() -> float:
    """Return the seconds that have passed on this machine since it was started, alike for all of its processes.

    The wall clock plays no part. Time that the machine has slept through counts: a Lease runs out meanwhile.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


class Deadline:
    """A moment on `clock`, in memory that is shared with whoever inherits the descriptor; at first it has passed."""

    def __init__(self, descriptor: int | None = None, clock: Callable[[], float] = clock) -> None:
        """`descriptor` is that of the process which moves the moment; without one, this is that process."""
        self._clock = clock
        self.descriptor = _anonymous() if descriptor is None else descriptor
        access = mmap.ACCESS_WRITE if descriptor is None else mmap.ACCESS_READ
        self._shared = mmap.mmap(self.descriptor, _MOMENT.size, access=access)

    @property
    def left(self) -> float:
        """The seconds that are left, 0 or less once it has passed."""
        return float(_MOMENT.unpack_from(self._shared)[0]) - self._clock()

    def move(self, moment: float) -> None:
        """Put it at a moment."""
        _MOMENT.pack_into(self._shared, 0, moment)

    def close(self) -> None:
        """Give the memory back; what others hold of it stays as it is."""
        self._shared.close()
        os.close(self.descriptor)


class Fence(Protocol):
    """Stands before every effect."""

    def check(self) -> None:
        """Return while this process may act; otherwise end it."""
        ...


class Unfenced:
    """A fence for whoever is alone anyway."""

    def check(self) -> None:
        """Return."""


class Fenced:
    """A fence that opens until a deadline."""

    def __init__(self, deadline: Deadline, lost: Lost) -> None:
        self._deadline, self._lost = deadline, lost

    def check(self) -> None:
        """Return while the Lease was renewed lately enough that nobody can have taken it over."""
        if self._deadline.left <= 0:
            self._lost("it was not renewed in time, and another may act by now")

    def watch(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """End the process when the deadline passes, whatever it is doing then. For a thread of its own."""
        while (left := self._deadline.left) > 0:
            sleep(left)
        self.check()


def _anonymous() -> int:
    """Return the descriptor of a file without a name, which goes with the last process that holds it."""
    if sys.platform == "linux":
        # Where the root is read-only there may be no folder to put a file into.
        descriptor = os.memfd_create("deadline")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, _MOMENT.pack(0.0))
    return descriptor
