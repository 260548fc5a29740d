"""An operator whose loop is slow is well, and one whose loop has stopped is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from pointsman.cluster.counting import Requests
from pointsman.controller import listener
from pointsman.controller.exposition import Parts
from pointsman.controller.health import Health
from pointsman.controller.metrics import Metrics
from pointsman.controller.queue import Queue
from pointsman.plan.tasks import Key


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def late() -> Iterator[Queue]:
    """A queue whose one thread is at a resource, while another has been due for six minutes."""
    go, taken = threading.Event(), threading.Event()

    def hang(key: Key) -> None:
        taken.set()
        go.wait(30)

    queue = Queue(hang, 1, on_error=lambda key, error: None)
    queue.start()
    queue.add(Key("IndexDeployment", "search", "a"))
    assert taken.wait(30)
    queue.add(Key("IndexDeployment", "search", "b"), after=timedelta(minutes=-6))
    yield queue
    go.set()
    queue.stop()


def test_a_long_queue_that_is_worked_off_is_well_until_nothing_has_ended_for_as_long(late: Queue) -> None:
    clock, metrics = Clock(), Metrics()
    parts = Parts(metrics, Health(clock), Requests())
    parts.health.serve(late)
    healthz = listener.pages(parts)["/healthz"]
    metrics.took("IndexDeployment", 10.0)

    while_it_moves = healthz()
    clock.now += 299
    not_yet_for_long = healthz()
    clock.now += 2
    stopped = healthz()
    metrics.took("IndexDeployment", 600.0)
    on_again = healthz()

    assert (while_it_moves.status, not_yet_for_long.status, on_again.status) == (200, 200, 200)
    assert stopped.status == 503
    assert stopped.body[0].startswith(b"loop: a resource has been due for 360 s")
