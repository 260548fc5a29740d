"""How near were the best answers, day by day? What the operator watches for a shift.

The day under way is told of as far as it has come, so that a gateway that ends takes with it only what nobody had asked
for yet. Days are those of UTC. Numbers only: who asked is kept as a hash, to be counted once, until the day is over.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

KEPT_DAYS: Final = 2
"""Whole days that are reported beside the one under way: so long may nobody ask."""
MOST_ASKERS: Final = 10_000
"""Sessions of a day and an index that are told apart."""
SECONDS: Final = 86_400


def asker(text: str) -> bytes:
    """Return by what a session, or what stands for it where there is none, is told apart; empty of nothing."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest() if text else b""


@dataclass(slots=True)
class Day:
    """What the best answers of one index scored on one day."""

    scores: Counter[int] = field(default_factory=Counter)
    """By `shifts.score_bin`."""
    askers: set[bytes] = field(default_factory=set)
    """Whose queries they were, while the day is under way."""
    sessions: int = 0
    """How many they were."""


class Days:
    """The last days of one deployment."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._days: dict[tuple[int, str], Day] = {}

    def count(self, index: str, asker: bytes, score: int) -> None:
        """Count the best answer to a query of an asker."""
        now = self._today()
        found = self._days.get((now, index))
        if found is None:
            self._forget(now)
            found = self._days[now, index] = Day()
        found.scores[score] += 1
        if len(found.askers) < MOST_ASKERS:
            found.askers.add(asker)
            found.sessions = len(found.askers)

    def report(self) -> list[Mapping[str, Any]]:
        """Return the days as the report writes them, today's so far among them."""
        self._forget(self._today())
        return [
            {
                "date": datetime.fromtimestamp(day * SECONDS, UTC).date().isoformat(),
                "index": index,
                "sessions": found.sessions,
                "scores": {str(score): count for score, count in sorted(found.scores.items())},
            }
            for (day, index), found in sorted(self._days.items())
        ]

    def _today(self) -> int:
        return int(self._clock() // SECONDS)

    def _forget(self, today: int) -> None:
        self._days = {key: day for key, day in self._days.items() if key[0] >= today - KEPT_DAYS}
        for (number, _), day in self._days.items():
            if number < today:
                day.askers.clear()
