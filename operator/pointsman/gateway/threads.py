"""Threads that make blocking calls for the event loop: what a query pays for, and no more than that.

A general executor would do, at twice the price for each call: its futures are made for threads that wait, and here
nobody but the event loop does.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_Call = tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class Threads:
    """A bounded number of threads, started as they are needed, for one event loop. They end with the process."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        # Counted on the event loop alone: calls that wait or are being made, and threads.
        self._under_way = 0
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Make a call in a thread; the future is the running event loop's. Raises RuntimeError once closed.

        A call that is given up before a thread came to it is not made.
        """
        if self._is_closed:
            raise RuntimeError("the threads have ended")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._under_way += 1
        if self._under_way > len(self._threads) < self._most:
            self._threads.append(threading.Thread(target=self._work, name=self._name, daemon=True))
            self._threads[-1].start()
        self._calls.put((work, future, loop))
        return future

    def close(self) -> None:
        """End the threads and return after the last call. Called from any thread but the event loop's."""
        self._is_closed = True
        for _ in range(self._most):
            self._calls.put(None)
        for thread in list(self._threads):
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            work, future, loop = call
            try:
                # After an hour without its database nobody wants to have made up for all that was given up meanwhile.
                found, error = None if future.cancelled() else work(), None
            except BaseException as raised:
                found, error = None, raised
            try:
                loop.call_soon_threadsafe(self._tell, future, found, error)
            except RuntimeError:
                # The event loop has ended, and with it whoever asked.
                return
            # Otherwise the last answer would be kept until the next call.
            del call, work, future, found, error

    def _tell(self, future: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
        self._under_way -= 1
        if future.cancelled():
            return
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error)
