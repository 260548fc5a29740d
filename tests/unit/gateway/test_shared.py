"""What several use is opened once, closed after the last, and opened anew once it was forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pointsman.gateway.shared import Shared


class Thing:
    def __init__(self, made: list[Thing]) -> None:
        self.is_closed = False
        made.append(self)

    def close(self) -> None:
        self.is_closed = True


def play(story: Callable[[Shared[str, Thing], list[Thing]], Awaitable[None]]) -> list[Thing]:
    made: list[Thing] = []

    async def whole() -> None:
        with ThreadPoolExecutor(4) as executor:
            await story(Shared(executor), made)
            await asyncio.sleep(0)

    asyncio.run(whole())
    return made


def test_many_who_ask_at_once_share_one_and_the_last_closes_it() -> None:
    async def story(shared: Shared[str, Thing], made: list[Thing]) -> None:
        lent = await asyncio.gather(*(shared.borrow("a", lambda: Thing(made)) for _ in range(5)))
        for each in lent[1:]:
            shared.give_back("a", each)
        await asyncio.sleep(0)
        assert [thing.is_closed for thing in made] == [False]
        shared.give_back("a", lent[0])

    assert [thing.is_closed for thing in play(story)] == [True]


def test_what_was_forgotten_is_opened_anew_and_stays_open_for_who_uses_it() -> None:
    async def story(shared: Shared[str, Thing], made: list[Thing]) -> None:
        old = await shared.borrow("a", lambda: Thing(made))
        shared.forget("a", old)
        new = await shared.borrow("a", lambda: Thing(made))
        assert [thing.is_closed for thing in made] == [False, False]
        shared.give_back("a", old)
        again = await shared.borrow("a", lambda: Thing(made))
        assert again is new

    assert [thing.is_closed for thing in play(story)] == [True, False]


def test_what_cannot_be_opened_is_tried_again_by_the_next() -> None:
    async def story(shared: Shared[str, Thing], made: list[Thing]) -> None:
        def fail() -> Thing:
            raise OSError("no")

        with pytest.raises(OSError):
            await shared.borrow("a", fail)
        assert (await shared.borrow("a", lambda: Thing(made))).thing is made[0]

    assert len(play(story)) == 1
