"""What did the gateway answer, how long did it take, and how near were the answers? Counts that are exact.

All of it is counted on the event loop, one thing at a time, so that nothing needs a lock and nothing is lost. Counts
only: no query, no document and no vector is kept here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pointsman.core import latencies, shifts
from pointsman.gateway.days import Days

KEPT_MINUTES: Final = 10
"""Whole minutes that are reported beside the current one."""
MOST_SESSIONS: Final = 100_000
"""Sessions of a day that are told apart."""

Clock = Callable[[], float]
"""Seconds since 1970."""


def iso(seconds: float) -> str:
    """Return a time as status and reports write it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Totals:
    """Of one index since the process began."""

    queries: int = 0
    """All that were sent to it, the failed ones too."""
    errors: int = 0
    """Those that its model or database failed; refusals of bad input are none."""
    empty: int = 0
    """Those answered without a hit."""


@dataclass(slots=True)
class Minute:
    """What one index did in one minute."""

    queries: int = 0
    errors: int = 0
    empty: int = 0
    latency: Counter[int] = field(default_factory=Counter)
    """Of the answered ones, by `latencies.bucket`."""
    scores: Counter[int] = field(default_factory=Counter)
    """Of the best hit of each text query, by `shifts.score_bin`."""


@dataclass(slots=True)
class Shadowed:
    """What became of the queries that also went to one index, in one rollout."""

    sent: int = 0
    dropped: int = 0
    compared: int = 0
    overlap: float = 0.0
    """Summed over the compared."""
    correlated: int = 0
    correlation: float = 0.0
    """Summed over the correlated."""


class Ledger:
    """The counts of one deployment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.answered: Counter[str] = Counter()
        """Queries answered by index, under the revision that is served now."""
        self.totals: dict[str, Totals] = {}
        self.latency: dict[str, Counter[int]] = {}
        """By index, since the process began."""
        self.mispaired = 0
        self.shadowed: dict[str, Shadowed] = {}
        self._minutes: dict[tuple[int, str, bool], Minute] = {}
        self._days = Days(clock)
        self._sessions: set[bytes] = set()
        self._day = 0
        self._salt = ""

    def begin_revision(self, salt: str) -> None:
        """Count anew what is counted by revision, and what is counted by rollout where it has another salt."""
        self.answered.clear()
        if salt != self._salt:
            self._salt = salt
            self.shadowed.clear()

    def answer(
        self,
        index: str,
        seconds: float,
        is_empty: bool,
        top: float | None,
        is_shadow: bool = False,
        is_proof: bool = True,
        asker: bytes = b"",
    ) -> None:
        """Count an answered query; `top` is the best hit's cosine, None where it says nothing of queries.

        `asker` is whose query it was (`days.asker`), for counting the sessions of a day; without one its score is of no
        day. `is_proof` says whether it shows how the route that is served now is followed: a vector goes to the index
        of its space whatever the weights, and what began under an older route ends by that.
        """
        minute = self._minute(index, is_shadow)
        minute.queries += 1
        minute.empty += is_empty
        took = latencies.bucket(seconds)
        minute.latency[took] += 1
        if top is not None:
            score = shifts.score_bin(top)
            minute.scores[score] += 1
            if asker and not is_shadow:
                self._days.count(index, asker, score)
        if not is_shadow:
            self.answered[index] += is_proof
            totals = self._totals(index)
            totals.queries += 1
            totals.empty += is_empty
            self.latency.setdefault(index, Counter())[took] += 1

    def fail(self, index: str, is_shadow: bool = False) -> None:
        """Count a query that the index's model or database failed."""
        minute = self._minute(index, is_shadow)
        minute.queries += 1
        minute.errors += 1
        if not is_shadow:
            totals = self._totals(index)
            totals.queries += 1
            totals.errors += 1

    def meet(self, asker: bytes) -> None:
        """Count a session, as `days.asker` tells it apart, once a day."""
        day = int(self._clock() // 86_400)
        if day != self._day:
            self._day, self._sessions = day, set()
        if len(self._sessions) < MOST_SESSIONS:
            self._sessions.add(asker)

    @property
    def sessions(self) -> int:
        """How many sessions came today, UTC; no more than `MOST_SESSIONS` are told apart."""
        return len(self._sessions) if self._day == int(self._clock() // 86_400) else 0

    def shadow(self, index: str) -> Shadowed:
        """Return the counts of a shadow index."""
        return self.shadowed.setdefault(index, Shadowed())

    def report(self, shadow: str) -> dict[str, Any]:
        """Return the counts as the report writes them; `shadow` is the index that is asked beside, or empty."""
        return {
            "answered": dict(self.answered),
            "totals": {
                index: {"queries": each.queries, "errors": each.errors, "empty": each.empty}
                for index, each in self.totals.items()
            },
            "mispaired": self.mispaired,
            "sessions": self.sessions,
            "minutes": self._reported_minutes(),
            "days": self._days.report(),
            "shadow": None if not shadow else _shadow(shadow, self.shadow(shadow)),
        }

    def _totals(self, index: str) -> Totals:
        found = self.totals.get(index)
        if found is None:
            found = self.totals[index] = Totals()
        return found

    def _minute(self, index: str, is_shadow: bool) -> Minute:
        now = int(self._clock() // 60)
        found = self._minutes.get((now, index, is_shadow))
        if found is None:
            self._forget(now)
            found = self._minutes[now, index, is_shadow] = Minute()
        return found

    def _forget(self, now: int) -> None:
        self._minutes = {key: minute for key, minute in self._minutes.items() if key[0] >= now - KEPT_MINUTES}

    def _reported_minutes(self) -> list[Mapping[str, Any]]:
        self._forget(int(self._clock() // 60))
        return [
            {
                "at": iso(at * 60),
                "index": index,
                "shadow": is_shadow,
                "queries": minute.queries,
                "errors": minute.errors,
                "empty": minute.empty,
                "latency": {str(bucket): count for bucket, count in sorted(minute.latency.items())},
                "scores": {str(each): count for each, count in sorted(minute.scores.items())},
            }
            for (at, index, is_shadow), minute in sorted(self._minutes.items())
        ]


def _shadow(index: str, found: Shadowed) -> Mapping[str, Any]:
    return {
        "index": index,
        "sent": found.sent,
        "dropped": found.dropped,
        "compared": found.compared,
        "overlap": found.overlap / found.compared if found.compared else None,
        "correlation": found.correlation / found.correlated if found.correlated else None,
    }
