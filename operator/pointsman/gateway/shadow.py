"""The same query asked of the candidate too, after it was answered: how would its answer have differed?

Off the path of every request: samples wait in a bounded queue for each deployment, and what does not fit is dropped and
counted. A deployment takes neither another's places nor another's turns, and all of them together no more than a share
of what a database may be asked at once. Only which documents were found, in which order, is compared: scores of two
spaces have nothing to do with each other.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from pointsman import logs, ports
from pointsman.core import rankings
from pointsman.errors import PointsmanError
from pointsman.gateway import tracing
from pointsman.gateway.directory import Deployment
from pointsman.gateway.searching import COMPARED, Sample
from pointsman.gateway.serving import Serving

MOST_WAITING: Final = 1_000
"""Samples of a deployment that is alone; several have each their share of these places."""
AT_ONCE: Final = 4
"""Samples of a deployment that are asked at the same time: what its shadow may take of database and model."""

log = logs.logger()


@dataclass(slots=True)
class _Lane:
    """What one deployment has waiting, and how many tasks ask it."""

    waiting: deque[Sample] = field(default_factory=deque)
    at_once: int = 0


class Shadow:
    """The samples that wait, and the tasks that ask them. For one event loop."""

    def __init__(self, seconds: float, most_waiting: int = MOST_WAITING) -> None:
        """Each sample is given up so many seconds after its turn has come."""
        self._seconds, self._most = seconds, most_waiting
        self._lanes: dict[Deployment, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_started = False

    def start(self) -> None:
        """Begin to ask."""
        self._is_started = True
        for deployment, lane in self._lanes.items():
            for _ in range(min(AT_ONCE, len(lane.waiting))):
                self._begin(deployment, lane)

    def put(self, sample: Sample) -> None:
        """Take a sample, or drop it where its deployment has its share of the places."""
        counts, lane = sample.deployment.ledger.shadow(sample.entry.index), self._lanes.get(sample.deployment)
        if lane is None:
            lane = self._lanes[sample.deployment] = _Lane()
        # Whoever comes later finds a place, though somebody who was alone has taken all.
        if len(lane.waiting) >= max(1, self._most // len(self._lanes)):
            counts.dropped += 1
            sample.adopted.leave()
            return
        counts.sent += 1
        lane.waiting.append(sample)
        if self._is_started and lane.at_once < AT_ONCE:
            self._begin(sample.deployment, lane)

    async def idle(self) -> None:
        """Return once nothing is being asked, nor waits for it."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Ask no more."""
        self._is_started = False
        for task in self._tasks:
            task.cancel()

    def _begin(self, deployment: Deployment, lane: _Lane) -> None:
        lane.at_once += 1
        task = asyncio.get_running_loop().create_task(self._work(lane))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._end(deployment, lane, done))

    def _end(self, deployment: Deployment, lane: _Lane, done: asyncio.Task[None]) -> None:
        self._tasks.discard(done)
        lane.at_once -= 1
        if lane.waiting:
            # It came after the task had looked for the last time.
            if self._is_started:
                self._begin(deployment, lane)
        elif not lane.at_once and self._lanes.get(deployment) is lane:
            del self._lanes[deployment]

    async def _work(self, lane: _Lane) -> None:
        while lane.waiting:
            sample = lane.waiting.popleft()
            try:
                with tracing.beside(sample.request) as span:
                    tracing.chosen(span, sample.adopted.route, sample.entry)
                    await self._ask(sample)
            except Exception as error:
                log.error(logs.Event.REQUEST_FAILED, index=sample.entry.index, exc_info=error)
            finally:
                sample.adopted.leave()

    async def _ask(self, sample: Sample) -> None:
        ledger, index = sample.deployment.ledger, sample.entry.index
        if not _is_wanted(sample):
            return
        counts = ledger.shadow(index)
        try:
            async with asyncio.timeout(self._seconds):
                held = await sample.adopted.hold(index)
            try:
                async with held.serving.database.aside:
                    if not _is_wanted(sample):
                        return
                    # What was waited for is no latency of the index, and no failure either: others had their turn.
                    began = time.perf_counter()
                    async with asyncio.timeout(self._seconds):
                        hits = await _search(held.serving, sample)
            finally:
                held.close()
        except (PointsmanError, TimeoutError) as error:
            tracing.failed(error)
            ledger.fail(index, is_shadow=True)
            return
        if hits is None:
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


async def _search(serving: Serving, sample: Sample) -> list[ports.Hit] | None:
    """Return what is found; None, and counted, where its model is not that of the index."""
    asked, ledger = sample.search, sample.deployment.ledger
    (vector,) = await serving.embed([sample.text], asked.side)
    if not serving.is_paired(serving.model.key):
        ledger.mispaired += 1
        ledger.fail(serving.index, is_shadow=True)
        return None
    return await serving.search(vector, asked.top_k, asked.where, asked.of_documents)


def _is_wanted(sample: Sample) -> bool:
    """Return whether the same rollout asks the same index still: of another one nobody wants to know any more."""
    now, then = sample.deployment.adopted, sample.adopted.route
    return now is not None and (now.route.shadow, now.route.salt) == (sample.entry.index, then.salt)
