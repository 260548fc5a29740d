"""How work says how far it has come."""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[int, int], None]
"""Takes (done, total), total 0 while it is not known; called as often as the work likes, the runner throttles."""


def nowhere(done: int, total: int) -> None:
    """Report to nobody."""
