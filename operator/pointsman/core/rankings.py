"""How alike are two rankings of the same query? Shown beside shadow traffic; between spaces it never decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PERSISTENCE: Final = 0.9
"""How likely a reader goes on to the next place: the first ten then have 86 % of the weight."""


def overlap(one: Sequence[str], other: Sequence[str], k: int) -> float | None:
    """Return the share of the longer one's first k documents that both have; None where both are empty."""
    first, second = set(one[:k]), set(other[:k])
    longest = max(len(first), len(second))
    return len(first & second) / longest if longest else None


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], persistence: float = PERSISTENCE) -> float | None:
    """Return how far two rankings agree, high places weighing more: 1 for the same, 0 without a common document.

    The extrapolated overlap RBO_ext of Webber, Moffat and Zobel, "A similarity measure for indefinite rankings" (TOIS
    28(4), 2010), equation 32. It is made for rankings that are cut off and differ in members and in length, which no
    correlation of ranks is. None where both are empty; raises ValueError where a document stands twice.
    """
    for ranking in (one, other):
        if len(set(ranking)) != len(ranking):
            raise ValueError("a document stands twice in a ranking; keep each at its best chunk")
    short, long = sorted((one, other), key=len)
    if not long:
        return None
    if not short:
        return 0.0
    common = _common(short, long)
    seen, all_seen = common[len(short) - 1], common[-1]
    weighed = sum(found / depth * persistence**depth for depth, found in enumerate(common, start=1))
    # Below its end the shorter one is taken to go on agreeing as it did up to there.
    weighed += sum(
        seen * (depth - len(short)) / (len(short) * depth) * persistence**depth
        for depth in range(len(short) + 1, len(long) + 1)
    )
    beyond = ((all_seen - seen) / len(long) + seen / len(short)) * persistence ** len(long)
    return (1 - persistence) / persistence * weighed + beyond


def _common(short: Sequence[str], long: Sequence[str]) -> list[int]:
    """How many documents both have down to each depth of the longer one."""
    first: set[str] = set()
    second: set[str] = set()
    counts = []
    for depth, document in enumerate(long):
        second.add(document)
        first.update(short[depth : depth + 1])
        counts.append(len(first & second))
    return counts
