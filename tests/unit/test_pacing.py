"""How batches and the pace follow an endpoint's answers, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.api.conditions import Reason
from pointsman.embedders import pacing
from pointsman.embedders.pacing import BatchSize, Pace
from pointsman.errors import Retryable


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock.wait, clock, patience=600.0)


def budgets(limit: int, remaining: int, reset: str, kind: str = "requests") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(remaining),
        f"x-ratelimit-reset-{kind}": reset,
    }


# Sizes.


def run(size: BatchSize, limit: int, rounds: int) -> tuple[int, int]:
    """Send so many full batches to an endpoint with a limit; how many passed, and how many were refused."""
    passed = refused = 0
    for _ in range(rounds):
        texts = size.texts
        if texts <= limit:
            size.accepted(texts)
            passed += 1
        else:
            size.refused(texts)
            refused += 1
    return passed, refused


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 32, 64, 100, 255, 256, 1000, 2048])
def test_a_limit_is_found_and_kept_to(limit: int) -> None:
    size = BatchSize()
    run(size, limit, 60)
    passed, refused = run(size, limit, 200)
    assert limit - limit // 16 <= size.texts <= limit
    assert refused <= 8
    assert passed >= 192


def test_batches_grow_up_to_the_most_there_is() -> None:
    size = BatchSize()
    run(size, 10_000, 100)
    assert size.texts == 2048


def test_small_remainders_do_not_grow_the_batch() -> None:
    size = BatchSize()
    for _ in range(100):
        size.accepted(3)
    assert size.texts == 256


def test_a_failure_halves_and_is_forgotten() -> None:
    size = BatchSize()
    size.failed(256)
    assert size.texts == 128
    run(size, 10_000, 100)
    assert size.texts == 2048


def test_several_threads_refused_at_once_halve_once() -> None:
    size = BatchSize()
    for _ in range(4):
        size.refused(256)
    assert size.texts == 128


def test_a_limit_that_goes_away_is_found_out() -> None:
    size = BatchSize()
    run(size, 32, 60)
    run(size, 2048, 5000)
    assert size.texts == 2048


@given(st.lists(st.tuples(st.sampled_from(["accepted", "refused", "failed"]), st.integers(1, 2048))))
def test_a_batch_always_has_one_text_at_least_and_never_too_many(
    events: list[tuple[str, int]],
) -> None:
    size = BatchSize()
    for name, texts in events:
        getattr(size, name)(texts)
        assert 1 <= size.texts <= 2048


# Pace.


def test_without_headers_nothing_waits(pace: Pace, clock: Clock) -> None:
    for _ in range(1000):
        pace.acquire(250_000)
        pace.release(250_000, {})
    assert clock.waits == []


def test_the_stated_rate_of_requests_is_kept(pace: Pace, clock: Clock) -> None:
    pace.acquire(1)
    pace.release(1, budgets(60, 0, "60s"))
    started = clock.now
    for _ in range(30):
        pace.acquire(1)
        pace.release(1)
    assert clock.now - started == pytest.approx(30.0)


def test_the_stated_rate_of_tokens_is_kept(pace: Pace, clock: Clock) -> None:
    pace.acquire(1)
    pace.release(1, budgets(60_000, 0, "1m0s", kind="tokens"))
    started = clock.now
    for _ in range(10):
        pace.acquire(5_000)
        pace.release(5_000)
    assert clock.now - started == pytest.approx(50.0)


def test_a_sliver_that_rounding_leaves_is_not_waited_for(pace: Pace, clock: Clock) -> None:
    pace.acquire(10)
    pace.release(10, {"x-ratelimit-limit-requests": "31", "x-ratelimit-remaining-requests": "0"})
    pace.acquire(10)
    assert clock.waits == pytest.approx([60 / 31])


def test_what_is_under_way_counts_against_what_is_left(pace: Pace, clock: Clock) -> None:
    for _ in range(4):
        pace.acquire(1)
    # The endpoint has seen one of the four; the other three will use up what it says is left.
    pace.release(1, budgets(60, 3, "57s"))
    pace.acquire(1)
    assert sum(clock.waits) == pytest.approx(1.0)


def test_a_batch_above_the_whole_budget_goes_with_a_full_one(pace: Pace, clock: Clock) -> None:
    pace.acquire(1)
    pace.release(1, budgets(1000, 0, "60s", kind="tokens"))
    pace.acquire(5000)
    assert sum(clock.waits) == pytest.approx(60.0)
    assert pace.token_budget() == 500


def test_a_pause_holds_everyone_until_it_is_over(pace: Pace, clock: Clock) -> None:
    pace.pause(20.0)
    pace.pause(5.0)
    pace.acquire(1)
    assert clock.now == pytest.approx(1020.0)


def test_pauses_without_a_time_grow_and_one_answer_ends_them(pace: Pace, clock: Clock) -> None:
    for _ in range(5):
        pace.pause(None)
        pace.acquire(1)
        pace.release(1)
    assert clock.waits == pytest.approx([0.5, 1, 2, 4, 8])
    pace.answered()
    pace.pause(None)
    pace.acquire(1)
    assert clock.waits[-1] == pytest.approx(0.5)


def test_refusals_of_requests_already_under_way_do_not_add_up(pace: Pace, clock: Clock) -> None:
    for _ in range(4):
        pace.pause(None)
    pace.acquire(1)
    assert sum(clock.waits) == pytest.approx(0.5)


def test_a_pause_longer_than_patience_is_not_begun(pace: Pace, clock: Clock) -> None:
    with pytest.raises(Retryable) as caught:
        pace.pause(86_400.0)
    assert caught.value.reason is Reason.MODEL_RATE_LIMITED
    assert clock.waits == []


@pytest.mark.parametrize("asked", [0.0, 0.001], ids=["no time", "hardly any time"])
def test_a_wait_that_is_no_wait_is_ours(pace: Pace, clock: Clock, asked: float) -> None:
    for _ in range(5):
        pace.pause(asked)
        pace.acquire(1)
        pace.release(1)
    assert clock.waits == pytest.approx([0.5, 1, 2, 4, 8])


@pytest.mark.parametrize(("asked", "told"), [(3_600.0, 3_600.0), (1e15, 86_400.0)])
def test_who_gives_up_says_how_long_the_endpoint_wants_to_be_left_alone(pace: Pace, asked: float, told: float) -> None:
    with pytest.raises(Retryable) as caught:
        pace.pause(asked)
    assert caught.value.retry_after == told


def test_patience_ends_when_nothing_is_let_through_for_ten_minutes(pace: Pace, clock: Clock) -> None:
    with pytest.raises(Retryable) as caught:
        for _ in range(100):
            pace.pause(60.0)
            pace.acquire(1)
            pace.release(1)
    assert caught.value.reason is Reason.MODEL_RATE_LIMITED
    assert clock.now - 1000.0 == pytest.approx(600.0)


def test_slow_progress_is_progress(pace: Pace, clock: Clock) -> None:
    for _ in range(100):
        pace.pause(50.0)
        pace.acquire(1)
        pace.release(1)
        pace.answered()
    assert clock.now - 1000.0 == pytest.approx(5000.0)


_header = st.one_of(
    st.sampled_from(["", "0", "-1", "1e9", "nan", "inf", "6m0s", "1s", "120ms", "soon", "999999999999999", "٣"]),
    st.text("0123456789.-+e smhd", max_size=12),
)


@given(st.dictionaries(st.sampled_from(sorted(budgets(1, 1, "", "tokens") | budgets(1, 1, ""))), _header))
def test_whatever_headers_say_the_next_request_goes_or_patience_ends(headers: Mapping[str, str]) -> None:
    clock = Clock()
    pace = Pace(clock.wait, clock, patience=600.0)
    pace.acquire(10)
    pace.release(10, headers)
    try:
        pace.acquire(10)
    except Retryable:
        return
    assert clock.now - 1000.0 <= 601.0


# Reading headers.


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "6m0s"}, None),
        (budgets(1, 0, "1s") | budgets(1, 0, "2s", "tokens"), 2.0),
    ],
)
def test_the_asked_wait_is_read_in_all_its_forms(headers: Mapping[str, str], expected: float | None) -> None:
    assert pacing.asked_wait(headers, datetime(2026, 1, 1, tzinfo=UTC)) == expected


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400.0),
        ("12", 12.0),
        ("", None),
        ("s", None),
        ("1 s", None),
        ("-1s", None),
        (None, None),
    ],
)
def test_spans_are_read(span: str | None, expected: float | None) -> None:
    assert pacing.seconds(span) == expected


def test_estimates_are_above_what_tokenizers_make_of_a_text() -> None:
    assert pacing.estimated_tokens("a railway") == 4
    assert pacing.estimated_tokens("転轍手") == 4
    assert pacing.estimated_tokens("") == 1
