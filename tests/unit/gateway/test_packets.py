"""What is written in one turn of the event loop goes together, in order, and before a connection is closed."""

from __future__ import annotations

import asyncio

from pointsman.gateway.packets import Gathering


class Wire(asyncio.Transport):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def close(self) -> None:
        self.told.append(b"closed")


def test_head_and_body_are_one_packet_and_the_next_answer_is_another() -> None:
    async def story() -> None:
        wire = Wire()
        gathering = Gathering(wire, asyncio.get_running_loop())

        gathering.write(b"head ")
        gathering.write(b"body")
        await asyncio.sleep(0)
        gathering.write(b"next")
        await asyncio.sleep(0)

        assert wire.told == [b"head body", b"next"]

    asyncio.run(story())


def test_nothing_that_was_written_is_lost_by_closing() -> None:
    async def story() -> None:
        wire = Wire()
        gathering = Gathering(wire, asyncio.get_running_loop())

        gathering.write(b"last")
        gathering.close()
        await asyncio.sleep(0)

        assert wire.told == [b"last", b"closed"]

    asyncio.run(story())
