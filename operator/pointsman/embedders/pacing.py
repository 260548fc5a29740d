"""How much may be sent to an endpoint at once, and when? Learnt from its answers; knows nothing of HTTP
requests.

Being asked to slow down is not a failure: a queue that treats it as one and sends smaller batches sooner is
many times slower than one that waits. Only an endpoint that lets nothing through for `patience` is given up
on.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from pointsman.api.conditions import Reason
from pointsman.errors import Retryable

FIRST_TEXTS: Final = 256
MOST_TEXTS: Final = 2_048
"""OpenAI's limit of inputs per request; nobody's is higher."""
MOST_TOKENS: Final = 250_000
"""Estimated tokens per request, below OpenAI's limit of 300,000 as an estimate must be."""
_TRIES_AT_CEILING: Final = 64

LONGEST_DELAY: Final = 60.0
"""Seconds between two attempts where the endpoint names no time itself."""
_SHORTEST_DELAY: Final = 1e-6
LONGEST_ASKED: Final = 86_400.0
"""Seconds that an endpoint is left alone at most, whatever it asks."""

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


class BatchSize:
    """The number of texts per request: halved when refused, grown while accepted. Not thread-safe."""

    def __init__(self, first: int = FIRST_TEXTS, most: int = MOST_TEXTS) -> None:
        self.texts = first
        self._most = most
        self._ceiling = most
        self._accepted = 0
        self._proven = 0
        self._at_ceiling = 0
        self._tries = _TRIES_AT_CEILING
        self._is_raised = False

    def accepted(self, texts: int) -> None:
        """Learn that a request of so many texts was answered."""
        self._accepted = max(self._accepted, texts)
        self._proven = max(self._proven, texts)
        if texts < self.texts:
            # A remainder, or a batch that was cut by its tokens, says nothing about a larger one.
            return
        room = self._ceiling - self.texts
        if room > self.texts // 16:
            # Half-way to what was refused, and never by more than an eighth.
            self.texts += min(self.texts // 8 + 1, (room + 1) // 2)
        elif self._ceiling < self._most:
            # The limit may have been the length of certain texts, so it is tried again now and then.
            self._at_ceiling += 1
            if self._at_ceiling >= self._tries:
                self._at_ceiling = 0
                self._is_raised = True
                self._ceiling = min(self._most, self._ceiling + self._ceiling // 8 + 1)
        else:
            self.texts = self._most

    def refused(self, texts: int) -> None:
        """Learn that so many texts were too many: a limit, to be approached but not reached again for a
        while."""
        self._ceiling = max(1, min(self._ceiling, texts - 1))
        if texts <= self._accepted:
            self._accepted = 0
        self._at_ceiling = 0
        if self._is_raised:
            # Still there: ask again less often.
            self._is_raised = False
            self._tries *= 2
        smaller = max(1, texts // 2, self._accepted)
        self.texts = min(self.texts, smaller, self._ceiling)

    def acquitted(self) -> None:
        """Learn that it was a text and not the number of them that was refused: go back to what has passed."""
        self._ceiling = self._most
        self.texts = max(self.texts, self._proven)

    def failed(self, texts: int) -> None:
        """Learn that so many texts failed, perhaps because they were many: try fewer, and grow again."""
        self.texts = max(1, min(self.texts, texts // 2))


@dataclass(slots=True)
class _Bucket:
    """What the endpoint says is left of one budget, refilled at the pace that it states."""

    limit: float
    level: float
    rate: float
    at: float

    def refill(self, now: float) -> None:
        self.level = min(self.limit, self.level + self.rate * max(0.0, now - self.at))
        self.at = now

    def delay(self, need: float) -> float:
        # A need above the whole budget is let through with a full one: the endpoint decides.
        missing = min(need, self.limit) - self.level
        return missing / self.rate if missing > 0 else 0.0


class Pace:
    """When the next request may go, shared by all threads that use one endpoint."""

    def __init__(
        self,
        wait: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
        patience: float = 600.0,
    ) -> None:
        """`wait` sleeps for seconds, or raises when the work is called off."""
        self._wait = wait
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._in_flight = {"requests": 0.0, "tokens": 0.0}
        self._paused_until = 0.0
        self._waiting_since: float | None = None
        self._refusals = 0

    def acquire(self, tokens: int) -> None:
        """Return once a request of an estimated number of tokens may go; call `release` when it is over.

        Raises Retryable(MODEL_RATE_LIMITED) where the wait would exceed the patience.
        """
        while True:
            with self._lock:
                now = self._clock()
                need = {"requests": 1.0, "tokens": float(tokens)}
                for bucket in self._buckets.values():
                    bucket.refill(now)
                delay = max([self._paused_until - now, *(b.delay(need[k]) for k, b in self._buckets.items())])
                # Rounding leaves slivers that no clock can tell from nothing: they would be waited for again and again.
                if delay <= _SHORTEST_DELAY:
                    for kind, amount in need.items():
                        self._in_flight[kind] += amount
                        if kind in self._buckets:
                            self._buckets[kind].level -= amount
                    return
                self._check_patience(now, delay)
            self._wait(delay)

    def release(self, tokens: int, headers: Mapping[str, str] | None = None) -> None:
        """End a request, and learn from the headers of its answer, if there was one."""
        with self._lock:
            self._in_flight["requests"] -= 1.0
            self._in_flight["tokens"] -= tokens
            for kind in ("requests", "tokens") if headers is not None else ():
                self._learn(kind, headers or {})

    def answered(self) -> None:
        """Learn that a request was let through: the endpoint's patience and ours begin anew."""
        with self._lock:
            self._waiting_since = None
            self._refusals = 0

    def pause(self, seconds: float | None, jitter: float = 1.0) -> None:
        """Hold all threads: the endpoint asked for so many seconds, or None where it named no time.

        It is held for no less than a back-off of our own: `Retry-After: 0` and dates that are past would be asked
        for again at once, and refused again. Raises Retryable(MODEL_RATE_LIMITED) where that exceeds the patience.
        """
        with self._lock:
            now = self._clock()
            if now >= self._paused_until:
                # Refusals of requests that were already under way say nothing new.
                self._refusals += 1
            until = max(self._paused_until, now + max(seconds or 0.0, backoff(self._refusals, jitter)))
            self._check_patience(now, until - now)
            self._paused_until = until

    def token_budget(self) -> int:
        """Return the most estimated tokens that one request should have: half of the endpoint's own
        budget."""
        with self._lock:
            bucket = self._buckets.get("tokens")
            return MOST_TOKENS if bucket is None else max(1, min(MOST_TOKENS, int(bucket.limit // 2)))

    def _check_patience(self, now: float, delay: float) -> None:
        if self._waiting_since is None:
            self._waiting_since = now
        waited = now - self._waiting_since
        if waited + delay > self._patience:
            raise Retryable(
                Reason.MODEL_RATE_LIMITED,
                f"the endpoint asks for another {delay:.0f} s after {waited:.0f} s of waiting, one batch waits at "
                f"most {self._patience:.0f} s; raise the account's rate limit",
                retry_after=min(delay, LONGEST_ASKED),
            )

    def _learn(self, kind: str, headers: Mapping[str, str]) -> None:
        limit = _number(headers.get(f"x-ratelimit-limit-{kind}"))
        remaining = _number(headers.get(f"x-ratelimit-remaining-{kind}"))
        if limit is None or remaining is None or limit < 1:
            return
        reset = seconds(headers.get(f"x-ratelimit-reset-{kind}"))
        # `reset` is the time until the budget is full again; without it, the limits are per minute.
        rate = (limit - remaining) / reset if reset and remaining < limit else limit / 60.0
        rate = max(rate, limit / 86400.0)
        # What we have under way may not have been counted yet.
        level = min(remaining, limit) - self._in_flight[kind]
        self._buckets[kind] = _Bucket(limit, level, rate, self._clock())


def backoff(attempt: int, jitter: float = 1.0, first: float = 0.5) -> float:
    """Return the seconds before attempt `attempt + 1`: doubled each time, times half to all by `jitter` in
    [0, 1]."""
    return min(LONGEST_DELAY, first * 2.0 ** min(attempt - 1, 16)) * (0.5 + 0.5 * jitter)


def asked_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds that an answer's headers ask to wait, or None.

    Reads `retry-after-ms`, `retry-after` (seconds or a date) and, of budgets that are used up,
    `x-ratelimit-reset-requests` and `-tokens` (spans such as `6m0s` or `120ms`).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    text = headers.get("retry-after")
    if text is not None:
        plain = _number(text)
        if plain is not None:
            return plain
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            date = None
        if date is not None:
            aware = date if date.tzinfo else date.replace(tzinfo=UTC)
            return max(0.0, (aware - (now or datetime.now(UTC))).total_seconds())
    resets = [
        reset
        for kind in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{kind}")) == 0
        and (reset := seconds(headers.get(f"x-ratelimit-reset-{kind}"))) is not None
    ]
    return max(resets, default=None)


def seconds(span: str | None) -> float | None:
    """Read a span such as `1s`, `6m0s`, `120ms` or plain seconds; None for anything else."""
    if span is None:
        return None
    plain = _number(span)
    if plain is not None:
        return plain
    text = span.strip()
    if not text or _SPAN.sub("", text):
        return None
    return sum(float(amount) * _UNIT_SECONDS[unit] for amount, unit in _SPAN.findall(text))


def estimated_tokens(text: str) -> int:
    """Return no fewer tokens than most tokenizers make of a text: a third of its bytes, and one."""
    return len(text.encode("utf-8", "replace")) // 3 + 1


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"\s*[0-9]{1,15}(\.[0-9]{1,9})?\s*", text):
        return None
    return float(text)
