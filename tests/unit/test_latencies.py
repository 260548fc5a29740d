"""Counts of durations, and what is read from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.core import latencies


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.00005, 0), (0.0001, 0), (0.000105, 1), (0.00011, 1), (0.0001101, 2), (0.001, 25), (1.0, 97)],
)
def test_a_duration_falls_into_the_first_bucket_that_reaches_it(seconds: float, bucket: int) -> None:
    assert latencies.bucket(seconds) == bucket


@given(st.floats(1e-7, 1e5))
def test_a_bucket_holds_a_duration_to_a_tenth(seconds: float) -> None:
    bucket = latencies.bucket(seconds)

    assert seconds <= latencies.upper(bucket) * (1 + 1e-8)
    assert bucket == 0 or seconds > latencies.upper(bucket - 1) * (1 - 1e-8)


def test_histograms_add_up() -> None:
    assert latencies.merged({1: 2, 5: 1}, {1: 1}, {}) == {1: 3, 5: 1}


def test_the_quantile_stands_at_the_rank_that_a_further_query_exceeds_as_rarely() -> None:
    # Rank 0.95 · 101 is 96 of 100, and 0.95 · 20 is 19 of 19; of 18 no query stands high enough.
    assert latencies.quantile({3: 95, 7: 4, 9: 1}, 0.95) == 7
    assert latencies.quantile({3: 96, 7: 4}, 0.95) == 3
    assert latencies.quantile({3: 18, 7: 1}, 0.95) == 7
    assert latencies.quantile({3: 18}, 0.95) is None
    assert latencies.quantile({}, 0.95) is None


def test_only_what_is_slower_for_certain_counts_as_slower() -> None:
    # 1.5 times as long is 4.25 buckets on: bucket 15 may hold what is 1.45 times as long, 16 holds 1.61 and more.
    assert latencies.share_slower({15: 50, 16: 50}, 10, 1.5) == 0.5
    assert latencies.share_slower({15: 1}, 10, 1.5) == 0.0
    assert latencies.share_slower({}, 10, 1.5) == 0.0
    # A ratio of whole buckets is taken as it is.
    assert latencies.share_slower({12: 1, 13: 3}, 10, 1.21) == 0.75


def test_two_versions_as_fast_as_each_other_exceed_the_quantile_at_its_rate() -> None:
    draw = np.random.default_rng(3)

    def histogram(queries: int) -> dict[int, int]:
        durations = draw.lognormal(-4.0, 0.6, queries)
        return latencies.merged(*({latencies.bucket(seconds): 1} for seconds in durations))

    shares = []
    for _ in range(600):
        usual = latencies.quantile(histogram(100), 0.95)
        assert usual is not None
        shares.append(latencies.share_slower(histogram(100), usual, 1.0))

    # By the bucket's width a little less than the 0.05 that is never to be exceeded.
    assert 0.03 < np.mean(shares) < 0.05
