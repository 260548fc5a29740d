"""The same query asked of the candidate too, after it was answered: how would its answer have differed?

Off the path of every request: samples wait in a bounded queue, and what does not fit is dropped and counted. Only which
documents were found, in which order, is compared: scores of two spaces have nothing to do with each other.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from pointsman import logs
from pointsman.core import rankings
from pointsman.errors import PointsmanError
from pointsman.gateway.searching import COMPARED, Sample

MOST_WAITING: Final = 1_000
AT_ONCE: Final = 4
"""Samples that are asked at the same time: what the shadow may take of database and model."""

log = logs.logger()


class Shadow:
    """The samples that wait, and the tasks that ask them. For one event loop."""

    def __init__(self, seconds: float, most_waiting: int = MOST_WAITING) -> None:
        """Each sample is given up after so many seconds."""
        self._seconds = seconds
        self._waiting: asyncio.Queue[Sample] = asyncio.Queue(most_waiting)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to ask."""
        self._tasks = [asyncio.get_running_loop().create_task(self._work()) for _ in range(AT_ONCE)]

    def put(self, sample: Sample) -> None:
        """Take a sample, or drop it where too many wait."""
        counts = sample.deployment.ledger.shadow(sample.entry.index)
        try:
            self._waiting.put_nowait(sample)
        except asyncio.QueueFull:
            counts.dropped += 1
            sample.adopted.leave()
        else:
            counts.sent += 1

    async def idle(self) -> None:
        """Return once nothing waits or is being asked."""
        await self._waiting.join()

    def close(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()

    async def _work(self) -> None:
        while True:
            sample = await self._waiting.get()
            try:
                await self._ask(sample)
            except Exception as error:
                log.error(logs.Event.REQUEST_FAILED, index=sample.entry.index, exc_info=error)
            finally:
                sample.adopted.leave()
                self._waiting.task_done()

    async def _ask(self, sample: Sample) -> None:
        ledger, index, asked = sample.deployment.ledger, sample.entry.index, sample.search
        if not _is_wanted(sample):
            return
        counts, began = ledger.shadow(index), time.perf_counter()
        try:
            async with asyncio.timeout(self._seconds):
                held = await sample.adopted.hold(index)
                try:
                    serving = held.serving
                    (vector,) = await serving.embed([sample.text], asked.side)
                    if not serving.is_paired(serving.model.key):
                        ledger.mispaired += 1
                        ledger.fail(index, is_shadow=True)
                        return
                    hits = await serving.search(vector, asked.top_k, asked.where, asked.of_documents)
                finally:
                    held.close()
        except (PointsmanError, TimeoutError):
            ledger.fail(index, is_shadow=True)
            return
        seconds = time.perf_counter() - began
        ledger.answer(index, seconds, not hits, hits[0].score if hits else None, is_shadow=True)
        found = tuple(dict.fromkeys(hit.document for hit in hits))[:COMPARED]
        counts.compared += 1
        overlap = rankings.overlap(sample.answered, found, COMPARED)
        # Two that both find nothing agree.
        counts.overlap += 1.0 if overlap is None else overlap
        correlation = rankings.rank_biased_overlap(sample.answered, found)
        if correlation is not None:
            counts.correlated += 1
            counts.correlation += correlation


def _is_wanted(sample: Sample) -> bool:
    """Return whether the same rollout asks the same index still: of another one nobody wants to know any more."""
    now, then = sample.deployment.adopted, sample.adopted.route
    return now is not None and (now.route.shadow, now.route.salt) == (sample.entry.index, then.salt)
