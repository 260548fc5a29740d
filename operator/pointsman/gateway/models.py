"""How does a text become a vector while somebody waits? One model with a cache in front, each text embedded once.

Texts that come while requests are under way go together in the next one. What is kept is found by a hash of the text
with its prefix; the text itself is not kept.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from pointsman import ports
from pointsman.core.recipes import Space
from pointsman.errors import PointsmanError, TextsRefused, unforeseen

Vector = npt.NDArray[np.float32]

AT_ONCE: Final = 8
"""Requests to one endpoint that may be under way."""
MOST_TEXTS: Final = 64
"""Texts of one request to an endpoint."""
SHORT: Final = 2_000
"""Characters that the embedded model reads in less time than handing them to a thread would take."""


class Side(StrEnum):
    """Which prefix a text is given."""

    QUERY = "query"
    """That of a query."""
    DOCUMENT = "document"
    """That of a document."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A text that is to be embedded, and who waits for it."""

    key: bytes
    text: str
    waiting: asyncio.Future[Vector]
    is_alone: bool = False
    """Whether it is to go by itself: in company it was refused, or its company was."""


class QueryModel:
    """One model, and the vectors of the texts that it was asked for last. For one event loop."""

    def __init__(self, space: Space, embedder: ports.Embedder, executor: Executor, kept: int) -> None:
        """Up to `kept` vectors are remembered."""
        self.space = space
        self.key = space.key
        self.hits = self.misses = 0
        self._embedder, self._executor, self._kept = embedder, executor, kept
        self._prefixes = {Side.QUERY: space.query_prefix, Side.DOCUMENT: space.document_prefix}
        self._is_local = space.provider == "wordllama"
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._pending: dict[bytes, asyncio.Future[Vector]] = {}
        self._queue: deque[_Wanted] = deque()
        self._under_way = 0

    def known(self, text: str, side: Side) -> Vector | None:
        """Return the vector of a text where no model has to be asked: because it is kept, or made in no time."""
        prefixed = self._prefixes[side] + text
        key = _key(prefixed)
        kept = self._vectors.get(key)
        if kept is not None:
            self.hits += 1
            self._vectors.move_to_end(key)
            return kept
        if not self._is_local or len(prefixed) > SHORT:
            return None
        self.misses += 1
        vector: Vector = self._embedder.embed([prefixed])[0]
        self._keep(key, vector)
        return vector

    async def embed(self, texts: Sequence[str], side: Side) -> list[Vector]:
        """Return the vectors of texts, in order; each of unit length and not to be written to.

        Raises what `ports.Embedder.embed` raises.
        """
        found: list[Vector | asyncio.Future[Vector]] = []
        for text in texts:
            known = self.known(text, side)
            found.append(self._wait_for(self._prefixes[side] + text) if known is None else known)
        waiting = [each for each in found if isinstance(each, asyncio.Future)]
        try:
            # All of them are waited for, and not only up to the first that fails.
            if waiting:
                await asyncio.wait(waiting)
        finally:
            for each in waiting:
                each.cancel()
        return [each.result() if isinstance(each, asyncio.Future) else each for each in found]

    def close(self) -> None:
        """Close the model. Texts that wait are failed by it."""
        self._embedder.close()

    def _wait_for(self, prefixed: str) -> asyncio.Future[Vector]:
        key = _key(prefixed)
        waiting = self._pending.get(key)
        if waiting is None:
            self.misses += 1
            waiting = self._pending[key] = asyncio.get_running_loop().create_future()
            waiting.add_done_callback(_seen)
            self._queue.append(_Wanted(key, prefixed, waiting))
            self._send()
        # Shielded, so that one who gives up does not end it for the others.
        mine = asyncio.shield(waiting)
        mine.add_done_callback(_seen)
        return mine

    def _send(self) -> None:
        while self._queue and self._under_way < AT_ONCE:
            batch = [self._queue.popleft()]
            while not batch[0].is_alone and self._queue and not self._queue[0].is_alone and len(batch) < MOST_TEXTS:
                batch.append(self._queue.popleft())
            self._under_way += 1
            texts = [wanted.text for wanted in batch]
            answer = asyncio.get_running_loop().run_in_executor(self._executor, self._embedder.embed, texts)
            answer.add_done_callback(functools.partial(self._answered, batch))

    def _answered(self, batch: list[_Wanted], answer: asyncio.Future[ports.Vectors]) -> None:
        self._under_way -= 1
        error = answer.exception()
        if isinstance(error, TextsRefused) and len(batch) > 1:
            # Whose text it was must not be the others' trouble.
            again = [_Wanted(wanted.key, wanted.text, wanted.waiting, is_alone=True) for wanted in batch]
            self._queue.extendleft(reversed(again))
        elif error is not None:
            known = error if isinstance(error, PointsmanError) else unforeseen(error)
            for wanted in batch:
                self._finish(wanted).set_exception(known)
        else:
            for wanted, vector in zip(batch, answer.result(), strict=True):
                # A row of its own: a view would keep the whole batch.
                own = vector.copy()
                self._keep(wanted.key, own)
                self._finish(wanted).set_result(own)
        self._send()

    def _finish(self, wanted: _Wanted) -> asyncio.Future[Vector]:
        del self._pending[wanted.key]
        return wanted.waiting

    def _keep(self, key: bytes, vector: Vector) -> None:
        vector.flags.writeable = False
        self._vectors[key] = vector
        if len(self._vectors) > self._kept:
            self._vectors.popitem(last=False)


def _seen(done: asyncio.Future[Vector]) -> None:
    """Look at an error that nobody waits for any more, so that the event loop does not complain of it."""
    if not done.cancelled():
        done.exception()


def _key(prefixed: str) -> bytes:
    return hashlib.blake2b(prefixed.encode(), digest_size=16).digest()
