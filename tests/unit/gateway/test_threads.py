"""Calls in threads: no more at once than allowed, each told to whoever waits, and none lost at the end."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.unit.gateway.stage import until

from pointsman.gateway.threads import Threads


def test_no_more_calls_are_made_at_once_than_there_are_threads_and_all_are_made() -> None:
    async def story() -> None:
        threads, go, lock = Threads(3, "test"), threading.Event(), threading.Lock()
        at_once = most = 0

        def work() -> int:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            go.wait(20)
            with lock:
                at_once -= 1
            return 1

        calls = [threads.call(work) for _ in range(10)]
        await until(lambda: most == 3)
        go.set()

        assert await asyncio.gather(*calls) == [1] * 10
        assert most == 3

    asyncio.run(story())


def test_an_error_is_told_to_whoever_waits_and_the_thread_goes_on() -> None:
    async def story() -> None:
        threads = Threads(1, "test")

        def fail() -> int:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await threads.call(fail)
        assert await threads.call(lambda: 2) == 2

    asyncio.run(story())


def test_a_call_that_was_given_up_takes_no_place_after_its_end() -> None:
    async def story() -> None:
        threads, go = Threads(1, "test"), threading.Event()
        given_up = threads.call(lambda: go.wait(20))
        given_up.cancel()
        go.set()

        assert await threads.call(lambda: 2) == 2

    asyncio.run(story())


def test_closing_waits_for_the_calls_that_were_made_and_lets_no_other_in() -> None:
    async def story() -> None:
        threads, done = Threads(2, "test"), []
        calls = [threads.call(lambda number=number: done.append(number)) for number in range(5)]

        await asyncio.to_thread(threads.close)

        assert sorted(done) == [0, 1, 2, 3, 4]
        await asyncio.gather(*calls)
        with pytest.raises(RuntimeError, match="ended"):
            threads.call(lambda: None)

    asyncio.run(story())


def test_a_call_that_was_given_up_before_a_thread_came_to_it_is_not_made() -> None:
    async def story() -> None:
        threads, go, made = Threads(1, "test"), threading.Event(), []
        under_way = threads.call(lambda: go.wait(20))
        given_up = [threads.call(lambda: made.append("given up")) for _ in range(100)]
        for call in given_up:
            call.cancel()
        last = threads.call(lambda: made.append("last"))
        go.set()

        await asyncio.gather(under_way, last)

        assert made == ["last"]

    asyncio.run(story())
