"""How much memory does the process keep that nobody uses? What glibc's allocator is told, where there is one.

By default each thread that allocates at the same moment as another is given an arena of its own, and what is freed in
one is of no use to the others. A loop of many threads that mostly wait gains nothing from that.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

_TRIM_THRESHOLD: Final = -1
_ARENA_MAX: Final = -8
"""Names of malloc.h: https://man7.org/linux/man-pages/man3/mallopt.3.html."""
KEPT: Final = 128 * 1024
"""Bytes that are kept for later at the end of the heap; glibc would raise it with the largest piece ever freed."""


def keep_small() -> None:
    """Have all threads that begin from now on share one arena, and what is free at its end given back at once."""
    libc = _libc()
    # Not musl, whose allocator has nothing to be told.
    if hasattr(libc, "mallopt"):
        libc.mallopt(_ARENA_MAX, 1)
        libc.mallopt(_TRIM_THRESHOLD, KEPT)


def give_back() -> None:
    """Give back to the system what is free in between, as after much was read of which little is kept."""
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _libc() -> Any:
    return ctypes.CDLL(None)
