"""Whose turn it is: each key once, when it is due, and whoever has a reason first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

from tests.unit import waiting

from pointsman.controller.queue import BEHIND, ROUTINE, Queue
from pointsman.plan.tasks import Key


def key(name: str) -> Key:
    return Key("QuerySet", "search", name)


def taken(fill: Callable[[Queue], None], count: int) -> list[str]:
    """Return the order in which keys are taken that were added before anybody takes one."""
    found: list[str] = []
    done = threading.Event()

    def take(which: Key) -> None:
        found.append(which.name)
        if len(found) == count:
            done.set()

    queue = Queue(take, 1, on_error=lambda key, error: None)
    fill(queue)
    queue.start()
    try:
        assert done.wait(30), found
    finally:
        queue.stop()
    return found


def ago(seconds: float) -> timedelta:
    return timedelta(seconds=-seconds)


def test_whoever_has_waited_longest_is_first() -> None:
    def fill(queue: Queue) -> None:
        for name, seconds in (("b", 20), ("c", 10), ("a", 30)):
            queue.add(key(name), ago(seconds))

    assert taken(fill, 3) == ["a", "b", "c"]


def test_a_reason_goes_before_a_routine_that_has_not_waited_long() -> None:
    def fill(queue: Queue) -> None:
        queue.look(key("overdue"), ago(BEHIND + 60))
        queue.look(key("routine"), ago(BEHIND / 2))
        queue.add(key("edited"))

    assert taken(fill, 3) == ["overdue", "edited", "routine"]


def test_where_many_have_waited_too_long_they_and_reasons_are_served_by_turns() -> None:
    def fill(queue: Queue) -> None:
        for number in range(4):
            queue.look(key(f"overdue {number}"), ago(BEHIND + 60 - number))
        for number in range(2):
            queue.add(key(f"edited {number}"), ago(1 - number))

    assert taken(fill, 6) == ["overdue 0", "edited 0", "overdue 1", "edited 1", "overdue 2", "overdue 3"]


def test_a_routine_that_gets_a_reason_goes_before_others() -> None:
    def fill(queue: Queue) -> None:
        queue.look(key("a"))
        queue.look(key("b"))
        queue.add(key("b"))
        queue.look(key("b"))

    assert taken(fill, 2) == ["b", "a"]


def test_a_key_is_due_when_it_was_first_wanted_and_once() -> None:
    def fill(queue: Queue) -> None:
        queue.add(key("a"), timedelta(hours=1))
        queue.add(key("b"), ago(1))
        queue.add(key("a"), ago(2))
        queue.add(key("a"), timedelta(hours=2))

    assert taken(fill, 2) == ["a", "b"]


def test_a_key_that_is_added_while_it_is_worked_on_is_taken_again_after_and_by_nobody_beside() -> None:
    at_work, most, looks = [0], [0], [0]
    begun, go, again = threading.Event(), threading.Event(), threading.Event()
    lock = threading.Lock()

    def take(which: Key) -> None:
        with lock:
            at_work[0] += 1
            looks[0] += 1
            most[0] = max(most[0], at_work[0])
        if looks[0] == 2:
            again.set()
        begun.set()
        go.wait(30)
        with lock:
            at_work[0] -= 1

    queue = Queue(take, 3, on_error=lambda key, error: None)
    queue.start()
    try:
        queue.add(key("a"))
        assert begun.wait(30)
        for _ in range(3):
            queue.add(key("a"))
        assert queue.load().busy == 1
        go.set()
        assert again.wait(30)
        waiting.wait_until(lambda: queue.load().busy == 0 and queue.load().due == 0)
    finally:
        go.set()
        queue.stop()
    assert (looks[0], most[0]) == (2, 1)


def test_whoever_wants_to_be_looked_at_again_is_when_it_wants() -> None:
    looked: list[str] = []
    second = threading.Event()

    def take(which: Key) -> timedelta | None:
        looked.append(which.name)
        if len(looked) == 1:
            return timedelta(0)
        second.set()
        return ROUTINE

    queue = Queue(take, 1, on_error=lambda key, error: None)
    queue.add(key("a"))
    queue.start()
    try:
        assert second.wait(30)
    finally:
        queue.stop()
    assert looked == ["a", "a"]
    assert queue.load().due == 0


def test_one_that_is_ended_before_it_began_ends() -> None:
    queue = Queue(lambda which: None, 2, on_error=lambda key, error: None)

    queue.stop()

    assert queue.load().threads == 0
