"""Is a candidate within its limits while it answers real queries? Decided minute by minute, and valid at every look.

A guard is a gambler who bets against the claim that the candidate stays within a limit. Its bets are set beforehand, so
that as long as the claim holds its capital is not expected to grow; that it ever grows a hundredfold then has a
probability of 0.01 at the most, however often one looks (Ville). A mirror of it bets that the limit is exceeded and
proves, when it wins, that it is not. Who measures the minutes and who acts on a verdict is not this module's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from scipy import special

from pointsman.core import latencies
from pointsman.core.evaluation import Verdict

LEVEL: Final = 0.01
"""How often a candidate that keeps to a limit is ever said to exceed it, or one that exceeds it to keep to it."""
RATIO: Final = 1.5
"""How many times as long as the control's 95th percentile is slow."""
QUANTILE: Final = 0.95
LEAST_CONTROL: Final = 20
"""Queries of the control that have a 95th percentile; minutes with fewer are pooled. By its rank it is exact from there
on, and with a control that is a mirrored hundredth of the queries a hundred would take an hour to come together."""
MORE_OFTEN: Final = 3.0
"""The odds ratio bet on when failures are compared with the control's: capital grows from about twice as often on."""
STALE: Final = 15
"""Minutes without a usable one after which nothing more is said than that a limit was exceeded before."""
MOST_DROPPED: Final = 0.01
"""The share of shadow queries that may be dropped before the others no longer speak for all."""

# Fractions of 1/m, the bet at which a minute without any failure would ruin the gambler. The large one finds
# a clear fault in few minutes, the small one a share little above the limit.
_BETS: Final = (0.5, 0.1)
_MIRROR_BETS: Final = (0.9, 0.5)
# How many times over a limit is shown to be kept, at the most: so much that one bad minute does not take it back.
_MOST_PROVEN: Final = 20


class Signal(StrEnum):
    """What a guard watches."""

    ERRORS = "errors"
    """Queries that failed in the model or the database."""
    LATENCY = "latency"
    """Queries slower than so many times the control's 95th percentile of the same minute, by default 1.5."""
    EMPTY = "empty"
    """Queries that were answered with nothing."""


LIMITS: Final[Mapping[Signal, float]] = {Signal.ERRORS: 0.01, Signal.LATENCY: 0.05, Signal.EMPTY: 0.05}
"""The share of queries that is allowed where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one version did in one minute, over all gateways."""

    queries: int = 0
    errors: int = 0
    empty: int = 0
    latency: latencies.Histogram = field(default_factory=dict)

    def __add__(self, other: Arm) -> Arm:
        return Arm(
            self.queries + other.queries,
            self.errors + other.errors,
            self.empty + other.empty,
            latencies.merged(self.latency, other.latency),
        )

    @property
    def is_sound(self) -> bool:
        """Whether the counts can be counts: whole, not negative, no more bad than all."""
        counts = (self.queries, self.errors, self.empty, *self.latency.values())
        # NaN is no int, and neither is anything else that a broken report may hold.
        return all(type(count) is int and count >= 0 for count in counts) and self.errors + self.empty <= self.queries


@dataclass(frozen=True, slots=True)
class Guard:
    """All that is known of one limit: small, and whole after a restart. `observe` makes the next one."""

    signal: Signal
    limit: float
    """The allowed share of queries, above 0 and below 1."""
    level: float = LEVEL
    ratio: float = RATIO
    """How many times as long as the control's 95th percentile is slow; for latency alone."""
    minute: int = -1
    """The last minute that was looked at, counted from 1970; it and those before are not looked at again."""
    measured: int = -1
    """The last minute that something was learnt from."""
    count: int = 0
    """Observations: minutes, or pools of them."""
    total: float = 0.0
    """The sum of their shares."""
    last: float = 0.0
    """The share of the last one."""
    unusable: int = 0
    """Minutes whose counts cannot be true."""
    capital: tuple[float, ...] = (0.0,) * len(_BETS)
    """What is in play against the limit, per bet."""
    mirror: tuple[float, ...] = (1 / len(_MIRROR_BETS),) * len(_MIRROR_BETS)
    """What is in play for it, per bet."""
    pool: tuple[Arm, Arm] = (Arm(), Arm())
    """Candidate and control of minutes that had too few queries of the control each."""
    has_failed: bool = False
    """Whether the limit was exceeded; nothing that comes later takes it back."""

    @property
    def value(self) -> float:
        """The mean share; 0 where there is none."""
        return self.total / self.count if self.count else 0.0

    @property
    def evidence(self) -> float:
        """How many times its stake the gambler has: 1/level proves that the limit is exceeded."""
        return sum(self.capital) + 1 / (self.count + 1)

    @property
    def has_passed(self) -> bool:
        """Whether it is shown that the limit is kept; bad minutes can take that back."""
        return sum(self.mirror) >= 1 / self.level

    def verdict(self, minute: int) -> Verdict:
        """Return what can be said at a minute: without fresh observations never that all is well."""
        if self.has_failed:
            return Verdict.FAILED
        is_fresh = self.measured >= 0 and minute - self.measured <= STALE
        return Verdict.PASSED if self.has_passed and is_fresh else Verdict.INCONCLUSIVE


def guard(signal: Signal, limit: float | None = None, ratio: float = RATIO) -> Guard:
    """Return a guard that has seen nothing; raises ValueError for a limit outside (0, 1)."""
    wanted = LIMITS[signal] if limit is None else limit
    if not 0 < wanted < 1:
        raise ValueError(f"a limit of {wanted} on {signal} cannot be tested; wanted a share above 0 and below 1")
    return Guard(signal, wanted, ratio=ratio)


def observe(before: Guard, minute: int, candidate: Arm, control: Arm) -> Guard:
    """Return the guard after one minute that is over, in minutes since 1970; an arm that answered nothing is `Arm()`.

    A minute that was seen, one in which either arm answered nothing, and one whose counts cannot be true teach nothing.
    The signals differ in how the control counts. Slow queries are those slower than its own. Failed and empty ones
    count only as far as the candidate has them more often than the control at the same time, since a database that
    fails both is no fault of the candidate.
    """
    if before.has_failed or minute <= before.minute:
        return before
    seen = replace(before, minute=minute)
    if not (candidate.is_sound and control.is_sound):
        return replace(seen, unusable=seen.unusable + 1)
    match before.signal:
        case Signal.ERRORS:
            return _compared(seen, candidate.errors, candidate.queries, control.errors, control.queries)
        case Signal.EMPTY:
            answered = candidate.queries - candidate.errors, control.queries - control.errors
            return _compared(seen, candidate.empty, answered[0], control.empty, answered[1])
        case Signal.LATENCY:
            return _timed(seen, candidate, control)


def is_whole(sent: int, dropped: int) -> bool:
    """Return whether so few of the shadow queries were dropped that the others speak for all."""
    return sent > 0 and dropped <= MOST_DROPPED * (sent + dropped)


def to_json(state: Guard) -> dict[str, Any]:
    """Return a guard as JSON has it."""
    pool = [asdict(arm) | {"latency": {str(b): n for b, n in arm.latency.items()}} for arm in state.pool]
    return asdict(state) | {"capital": list(state.capital), "mirror": list(state.mirror), "pool": pool}


def from_json(value: Mapping[str, Any]) -> Guard:
    """Read a guard back; raises KeyError, TypeError or ValueError for what `to_json` never wrote."""
    candidate, control = (
        Arm(**{**arm, "latency": {int(b): int(n) for b, n in arm["latency"].items()}}) for arm in value["pool"]
    )
    return Guard(
        **{
            **value,
            "signal": Signal(value["signal"]),
            "capital": tuple(value["capital"]),
            "mirror": tuple(value["mirror"]),
            "pool": (candidate, control),
        }
    )


def _compared(seen: Guard, bad: int, of: int, control_bad: int, control_of: int) -> Guard:
    if not of or not control_of:
        return seen
    return _bet(seen, bad / of, _more_often(bad, of, control_bad, control_of))


def _timed(seen: Guard, candidate: Arm, control: Arm) -> Guard:
    if not candidate.latency or not control.latency:
        return seen
    pool = seen.pool[0] + candidate, seen.pool[1] + control
    usual = latencies.quantile(pool[1].latency, QUANTILE)
    if sum(pool[1].latency.values()) < LEAST_CONTROL or usual is None:
        return replace(seen, pool=pool)
    slow = latencies.share_slower(pool[0].latency, usual, seen.ratio)
    return _bet(replace(seen, pool=(Arm(), Arm())), slow, math.inf)


def _bet(seen: Guard, share: float, at_most: float) -> Guard:
    """One round of betting on a share between 0 and 1.

    The capital of bet λ is multiplied by 1 + λ(share - limit): Waudby-Smith and Ramdas, "Estimating means of bounded
    random variables by betting" (JRSS B 86, 2024), with two constant bets in place of theirs, which shrinks as time
    passes. Of the stake 1/(i(i+1)) is put in at round i, the rest kept back, so that a fault after a healthy week finds
    capital to bet with: the mixture of starting times of Shin, Ramdas and Rinaldo, "E-detectors" (NEJSDS 2, 2024).
    What a fault of both versions would win is capped: the smaller of two e-values holds against either claim.
    """
    count = seen.count + 1
    entry = 1 / (count * (count + 1) * len(_BETS))
    capital = tuple(
        (held + entry) * min(1 + bet / seen.limit * (share - seen.limit), at_most)
        for held, bet in zip(seen.capital, _BETS, strict=True)
    )
    kept = 1 - seen.limit
    mirror = tuple(
        held * (1 + bet / kept * (seen.limit - share)) for held, bet in zip(seen.mirror, _MIRROR_BETS, strict=True)
    )
    # Gains beyond that are given away, or years of good minutes would hide a bad hour.
    surplus = max(1.0, sum(mirror) * seen.level / _MOST_PROVEN)
    after = replace(
        seen,
        measured=seen.minute,
        count=count,
        total=seen.total + share,
        last=share,
        capital=capital,
        mirror=tuple(held / surplus for held in mirror),
    )
    return replace(after, has_failed=after.evidence >= 1 / seen.level)


def _more_often(bad: int, of: int, control_bad: int, control_of: int) -> float:
    """The e-value of one minute against "the candidate has no more of them than the control".

    Given how many were bad in both together, that number has a hypergeometric distribution if neither version is worse,
    and Fisher's noncentral one (JRSS 98, 1935) if the candidate has them at three times the odds: their ratio. It is
    exact for any counts, holds whatever befell both versions in that minute, and is 1 where nothing was bad.
    """
    both = bad + control_bad
    if not both:
        return 1.0
    split = np.arange(max(0, both - control_of), min(both, of) + 1)
    log_odds = math.log(MORE_OFTEN)
    ways = _log_choose(of, split) + _log_choose(control_of, both - split)
    weights = ways - special.logsumexp(ways)
    return math.exp(min(bad * log_odds - float(special.logsumexp(weights + split * log_odds)), 700.0))


def _log_choose(total: int, chosen: Any) -> Any:
    return special.gammaln(total + 1) - special.gammaln(chosen + 1) - special.gammaln(total - chosen + 1)
