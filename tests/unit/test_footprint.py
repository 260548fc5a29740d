"""What the C library's allocator does for the operator, and what it would do by itself."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

THREADS = 6
PROGRAM = f"""
import ctypes, sys, threading
from pointsman.controller import footprint

if sys.argv[1] == "small":
    footprint.keep_small()
together = threading.Barrier({THREADS})

def allocate():
    held = bytearray(64 * 1024)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def arenas(how: str) -> int:
    """Return how many arenas a process has whose threads have allocated at the same time."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_all_threads_of_the_operator_share_one_arena() -> None:
    assert arenas("small") == 1
    assert arenas("as it is") > 1
