"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(claim: Callable[[], bool]) -> None:
    """Wait until a claim holds; fail after far longer than it needs."""
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.005)
