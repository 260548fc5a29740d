"""How long did queries take, in counts that can be added up over minutes and gateways?

A histogram maps a bucket to a count. Bucket 0 holds all up to a tenth of a millisecond, bucket b what is longer than
0.1 ms · 1.1^(b-1) and no longer than 0.1 ms · 1.1^b: whatever is read from it is known to a tenth.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

SHORTEST: Final = 0.0001
"""Seconds that bucket 0 holds."""
GROWTH: Final = 1.1
"""How many times as long as a bucket the next one reaches."""

Histogram = Mapping[int, int]
"""Bucket -> queries."""


def bucket(seconds: float) -> int:
    """Return the bucket of a duration."""
    # A duration on the edge belongs below it, whatever the logarithm makes of the last bits.
    return 0 if seconds <= SHORTEST else max(0, math.ceil(math.log(seconds / SHORTEST, GROWTH) - 1e-9))


def upper(number: int) -> float:
    """Return the longest duration that a bucket holds, in seconds."""
    return SHORTEST * GROWTH**number


def merged(*histograms: Histogram) -> dict[int, int]:
    """Return all counts added up."""
    total: Counter[int] = Counter()
    for histogram in histograms:
        total.update(histogram)
    return dict(total)


def quantile(histogram: Histogram, share: float) -> int | None:
    """Return the bucket of a quantile; None where too few queries were counted to have one.

    Of n queries it is the one at rank share · (n + 1), rounded up: a further query of the same kind is longer with a
    probability of 1 - share at the most, whatever the distribution.
    """
    rank = math.ceil(share * (sum(histogram.values()) + 1) - 1e-9)
    below = 0
    for number in sorted(histogram):
        below += histogram[number]
        if below >= rank:
            return number
    return None


def share_slower(histogram: Histogram, than: int, ratio: float) -> float:
    """Return the share of queries that took longer than `ratio` times as long as the bucket `than` holds.

    A bucket that lies on both sides of that line is not counted: what is called slower is so for certain.
    """
    line = than + math.ceil(math.log(ratio, GROWTH) - 1e-9)
    total = sum(histogram.values())
    return sum(count for number, count in histogram.items() if number > line) / total if total else 0.0
