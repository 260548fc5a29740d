"""What the C library's allocator does for the operator, and what it would do by itself."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
THREADS = 6
ALLOCATING = f"""
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


FREEING = """
from pointsman.controller import footprint

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024

pieces = [bytearray(8 * 1024) for _ in range(8_000)]
pieces = pieces[::50]
before = resident()
footprint.give_back()
print(before - resident())
"""


def arenas(how: str) -> int:
    """Return how many arenas a process has whose threads have allocated at the same time."""
    return run(ALLOCATING, how).count("<heap nr=")


def run(program: str, *arguments: str) -> str:
    """Return what a process of its own prints."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_all_threads_of_the_operator_share_one_arena() -> None:
    assert arenas("small") == 1
    assert arenas("as it is") > 1


def test_what_is_free_between_pieces_that_are_kept_is_given_back() -> None:
    freed = 8_000 * 8 * 1024

    assert int(run(FREEING)) > freed / 2
