"""Answers that the event loop waits for by itself: whole ones, pieces, errors, and those that nobody waits for."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.unit.gateway.stage import until

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.errors import Retryable
from pointsman.gateway.arrivals import Arrivals


class Letter:
    """A search whose answer is as many hits as the other end sends bytes, up to a full stop."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.is_given_up, self.looked, self._read = False, 0, b""

    def fileno(self) -> int:
        return self.near.fileno()

    def answer(self) -> list[ports.Hit] | None:
        self.looked += 1
        self._read += self.near.recv(100)
        if b"!" in self._read:
            self.near.close()
            raise Retryable(Reason.BACKEND_UNREACHABLE, "db:5432 cannot be reached")
        if b"." not in self._read:
            return None
        return [ports.Hit(b"", "d", 0, 1.0, "", {})] * (len(self._read) - 1)

    def give_up(self) -> None:
        self.is_given_up = True
        self.close()

    def close(self) -> None:
        self.near.close()
        self.far.close()


def test_each_answer_goes_to_whoever_waits_for_it_once_it_is_whole() -> None:
    async def story() -> None:
        arrivals, first, second = Arrivals(), Letter(), Letter()
        waiting = [asyncio.ensure_future(arrivals.answer(letter)) for letter in (first, second)]
        await asyncio.sleep(0)

        second.far.send(b"ab")
        await until(lambda: second.looked == 1)
        first.far.send(b"a.")
        second.far.send(b"c.")

        assert [len(found) for found in await asyncio.gather(*waiting)] == [1, 3]
        for each in (arrivals, first, second):
            each.close()

    asyncio.run(story())


def test_a_connection_is_used_again_and_so_is_the_number_of_one_that_was_closed() -> None:
    async def story() -> None:
        arrivals, numbers = Arrivals(), set()
        kept = Letter()
        for _ in range(5):
            kept._read = b""
            kept.far.send(b"a.")
            assert len(await arrivals.answer(kept)) == 1
            passing = Letter()
            numbers.add(passing.fileno())
            passing.far.send(b"ab.")
            assert len(await arrivals.answer(passing)) == 2
            passing.close()

        assert len(numbers) < 5
        for each in (arrivals, kept):
            each.close()

    asyncio.run(story())


def test_an_error_is_told_and_the_others_are_waited_for() -> None:
    async def story() -> None:
        arrivals, broken, whole = Arrivals(), Letter(), Letter()
        broken.far.send(b"!")
        with pytest.raises(Retryable, match="cannot be reached"):
            await arrivals.answer(broken)

        whole.far.send(b"a.")
        assert len(await arrivals.answer(whole)) == 1
        for each in (arrivals, broken, whole):
            each.close()

    asyncio.run(story())


def test_what_nobody_waits_for_any_more_is_given_up_and_its_answer_read_by_nobody() -> None:
    async def story() -> None:
        arrivals, late = Arrivals(), Letter()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await arrivals.answer(late)

        assert late.is_given_up
        assert late.looked == 0
        arrivals.close()

    asyncio.run(story())
