"""A bulk load yields to the queries of the index that serves."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pointsman.api.conditions import Reason
from pointsman.errors import Retryable
from pointsman.work.indexing import Pace


class Clock:
    """A clock that moves when somebody sleeps or asks the serving index."""

    def __init__(self, *latencies: float) -> None:
        self.now, self.naps = 0.0, 0
        self._latencies = list(latencies)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.naps += 1

    def probe(self) -> None:
        self.now += self._latencies.pop(0) if len(self._latencies) > 1 else self._latencies[0]


def loaded(clock: Clock, batches: int = 3, seconds: float = 2.0) -> Pace:
    """Return the pace after a load of so many batches, each of which takes so many seconds."""
    pace = Pace(clock.probe, clock, clock.sleep)
    batch = pa.RecordBatch.from_pydict({"n": [1]})
    count = 0
    for _ in pace.over(iter([batch] * batches)):
        clock.now += seconds
        count += 1
    assert count == batches
    return pace


CALM = [0.01] * 5


def test_a_load_does_not_wait_while_the_serving_index_is_as_fast_as_usual() -> None:
    clock = Clock(*CALM, 0.025)
    assert loaded(clock).paused == 0.0
    assert clock.naps == 0


def test_a_load_waits_until_the_serving_index_has_recovered() -> None:
    clock = Clock(*CALM, 0.2, 0.2, 0.2, 0.01)
    assert loaded(clock).paused == 1.5
    assert clock.naps == 3


def test_a_load_waits_for_a_minute_at_most() -> None:
    clock = Clock(*CALM, 5.0)
    assert loaded(clock, batches=1).paused == 60.0


def test_the_serving_index_is_asked_once_a_second_at_most() -> None:
    clock = Clock(*CALM, 0.2)
    assert loaded(clock, batches=9, seconds=0.1).paused == 0.0
    assert clock.now == pytest.approx(0.05 + 0.9)


def test_without_an_index_that_serves_nothing_waits() -> None:
    batch = pa.RecordBatch.from_pydict({"n": [1]})
    pace = Pace(None)
    assert list(pace.over([batch, batch])) == [batch, batch]
    assert pace.paused == 0.0


def test_a_serving_index_that_does_not_answer_holds_no_load_up() -> None:
    clock = Clock(*CALM)
    asked = 0

    def probe() -> None:
        nonlocal asked
        asked += 1
        if asked > 5:
            raise Retryable(Reason.BACKEND_UNREACHABLE, "no answer")
        clock.probe()

    pace = Pace(probe, clock, clock.sleep)
    for _ in pace.over(pa.RecordBatch.from_pydict({"n": [n]}) for n in range(5)):
        clock.now += 2.0
    assert (pace.paused, clock.naps, asked) == (0.0, 0, 6)
