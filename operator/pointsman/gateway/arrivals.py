"""How does the event loop wait for databases that answer it directly? By one descriptor for all their connections.

A search that was sent without waiting is answered on a connection that is somebody else's a moment later. Telling the
event loop of each in turn costs it a handful of system calls per query; a set of descriptors of our own, which is one
for the loop, costs two, and a connection that is closed falls out of it by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import Final

from pointsman import ports

IS_KNOWN: Final = hasattr(select, "epoll")
"""Whether this system has such sets; Linux does."""
_ONCE: Final = 0x1 | (1 << 30)
"""`EPOLLIN | EPOLLONESHOT`: told once, and then again only if asked for."""


class Arrivals:
    """The answers that are waited for, on one event loop, from the first of them on."""

    def __init__(self) -> None:
        self._set = select.epoll()
        self._waiting: dict[int, tuple[ports.Sent, asyncio.Future[list[ports.Hit]]]] = {}
        asyncio.get_running_loop().add_reader(self._set.fileno(), self._read)

    async def answer(self, sent: ports.Sent) -> list[ports.Hit]:
        """Return what was found; raises what `sent.answer` raises, and gives it up where nobody waits any more."""
        number, answered = sent.fileno(), asyncio.get_running_loop().create_future()
        self._waiting[number] = sent, answered
        self._look_at(number)
        try:
            found: list[ports.Hit] = await answered
        except asyncio.CancelledError:
            if self._waiting.get(number) == (sent, answered):
                del self._waiting[number]
                sent.give_up()
            raise
        return found

    def close(self) -> None:
        """Wait for nothing any more."""
        asyncio.get_running_loop().remove_reader(self._set.fileno())
        self._set.close()

    def _look_at(self, number: int) -> None:
        try:
            self._set.modify(number, _ONCE)
        except FileNotFoundError:
            self._set.register(number, _ONCE)

    def _read(self) -> None:
        for number, _ in self._set.poll(0):
            sent, answered = self._waiting.pop(number, (None, None))
            if sent is None or answered is None:
                # Given up between its arrival and now.
                continue
            try:
                found = sent.answer()
            except Exception as error:
                with contextlib.suppress(asyncio.InvalidStateError):
                    answered.set_exception(error)
                continue
            if found is None:
                self._waiting[number] = sent, answered
                self._look_at(number)
            elif not answered.done():
                answered.set_result(found)
