"""What the tests against a real API server share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import pytest


class Eventually(Protocol):
    """Waits until a claim holds."""

    def __call__(self, claim: Callable[[], bool], within_seconds: float = 30) -> None: ...


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a claim holds, looking often; fail when it does not within the time."""

    def wait(claim: Callable[[], bool], within_seconds: float = 30) -> None:
        deadline = time.monotonic() + within_seconds
        while not claim():
            assert time.monotonic() < deadline, f"not within {within_seconds} s"
            time.sleep(0.1)

    return wait
