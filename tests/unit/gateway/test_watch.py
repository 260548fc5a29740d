"""The watch passes on what it saw, and outlives whatever becomes of the API server."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import pytest
from tests.unit.gateway import stage
from tests.unit.waiting import wait_until

from pointsman.api.conditions import Reason
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.resources import DEPLOYMENT, All, Changed, Seen
from pointsman.errors import Retryable
from pointsman.gateway import watch


class Broken(MemoryCluster):
    """A cluster whose watches break off, each with another error."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    def watch(self, kind: str, namespace: str | None, seconds: float) -> Iterator[Seen]:
        if kind == DEPLOYMENT and self.errors:
            raise self.errors.pop(0)
        yield from super().watch(kind, namespace, seconds)


def seen(cluster: MemoryCluster, seconds: float = 30) -> queue.Queue[Seen]:
    found: queue.Queue[Seen] = queue.Queue()
    watch.start(cluster, (), lambda kind, namespace, seen: kind == DEPLOYMENT and found.put(seen), seconds)
    return found


def test_all_comes_first_and_then_each_change() -> None:
    cluster = MemoryCluster()
    cluster.apply(stage.deployment(None))

    found = seen(cluster)
    first = found.get(timeout=20)
    cluster.apply(stage.deployment([]))
    second = found.get(timeout=20)

    assert isinstance(first, All) and len(first.resources) == 1
    assert isinstance(second, Changed) and second.resource["status"]["route"]["entries"] == []


def test_a_watch_that_breaks_off_begins_anew_with_all() -> None:
    cluster = Broken(Retryable(Reason.CLUSTER_UNREACHABLE, "gone"), ValueError("nobody foresaw this"))
    cluster.apply(stage.deployment(None))

    found = seen(cluster).get(timeout=20)

    assert isinstance(found, All) and len(found.resources) == 1
    assert cluster.errors == []


def test_a_watch_that_ends_begins_anew_with_all() -> None:
    cluster = MemoryCluster()

    found = seen(cluster, seconds=0.01)

    assert [type(found.get(timeout=20)) for _ in range(3)] == [All, All, All]


class Short(MemoryCluster):
    """A cluster whose watches end at once, whatever was asked for."""

    listed = 0

    def watch(self, kind: str, namespace: str | None, seconds: float) -> Iterator[Seen]:
        self.listed += kind == DEPLOYMENT
        yield All([])


def test_a_watch_that_ends_at_once_does_not_list_everything_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: queue.Queue[float] = queue.Queue()
    others = set(threading.enumerate())

    class Stopped:
        """A clock that stands still, and on which nobody wakes up again."""

        @staticmethod
        def monotonic() -> float:
            return 0.0

        @staticmethod
        def sleep(seconds: float) -> None:
            # Watches of other tests outlive them.
            if threading.current_thread() not in others:
                slept.put(seconds)
            threading.Event().wait()

    monkeypatch.setattr(watch, "time", Stopped)
    cluster = Short()

    seen(cluster)

    assert slept.get(timeout=20) == watch.SHORTEST
    wait_until(lambda: cluster.listed == 1)
