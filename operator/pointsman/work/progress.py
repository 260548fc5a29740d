"""How work says how far it has come."""

from __future__ import annotations

from collections.abc import Callable

from pointsman.plan.tasks import Wait

Report = Callable[[int, int], None]
"""Takes (done, total), total 0 while it is not known; called as often as the work likes, the runner throttles."""


Waits = Callable[[Wait | None], None]
"""Takes what work waits for, None once it moves again."""


def silently(wait: Wait | None) -> None:
    """Tell nobody what is waited for."""


def nowhere(done: int, total: int) -> None:
    """Report to nobody."""
