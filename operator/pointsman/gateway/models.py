"""How does a text become a vector while somebody waits? One model with a cache in front, each text embedded once.

Texts that come while requests are under way go together in the next one. What is kept is found by a hash of the text
with its prefix; the text itself is not kept.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from pointsman import ports
from pointsman.core.recipes import Space
from pointsman.embedders import connection
from pointsman.errors import PointsmanError, TextsRefused, unforeseen
from pointsman.gateway import tracing
from pointsman.gateway.threads import Threads

Vector = npt.NDArray[np.float32]

AT_ONCE: Final = 8
"""Requests to one endpoint that may be under way, each in a thread: one that hangs takes nobody else's."""
MOST_TEXTS: Final = 64
"""Texts of one request to an endpoint."""
SHORT: Final = 512
"""Characters, of all texts of a request, that the embedded model may read while all others wait; a millisecond."""
SPELT: Final = 4
"""As how many of them one beyond ASCII counts: the model reads what it does not know byte by byte."""
PROBE: Final = "pointsman"
"""What a model is asked before queries are."""


class Side(StrEnum):
    """Which prefix a text is given."""

    QUERY = "query"
    """That of a query."""
    DOCUMENT = "document"
    """That of a document."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """A text that is to be embedded, and who waits for it."""

    key: bytes
    text: str
    waiting: asyncio.Future[Vector]
    is_alone: bool = False
    """Whether it is to go by itself: in company it was refused, or its company was."""
    waiters: int = 0
    """Without any it is not sent any more."""
    traced: list[tracing.Span] | None = None
    """The steps that wait for it; None where nobody traces them."""


class QueryModel:
    """One model, and the vectors of the texts that it was asked for last. For one event loop."""

    def __init__(self, space: Space, embedder: ports.Embedder, kept: int) -> None:
        """Up to `kept` vectors are remembered."""
        self.space = space
        self.key = space.key
        self.hits = self.misses = 0
        self._embedder, self._threads, self._kept = embedder, Threads(AT_ONCE, "embed"), kept
        self._prefixes = {Side.QUERY: space.query_prefix, Side.DOCUMENT: space.document_prefix}
        self._is_local = space.provider == "wordllama"
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._pending: dict[bytes, _Wanted] = {}
        self._queue: deque[_Wanted] = deque()
        self._under_way = 0

    async def embed(self, texts: Sequence[str], side: Side) -> list[Vector]:
        """Return the vectors of texts, in order; each of unit length and not to be written to.

        Raises what `ports.Embedder.embed` raises.
        """
        is_at_once = self._is_local and sum(map(_length, texts)) <= SHORT
        with tracing.step(tracing.Step.EMBED) as span:
            before = self.hits
            found = [self._found(self._prefixes[side] + text, is_at_once) for text in texts]
            if span is not None:
                told = {tracing.Told.TEXTS: len(texts), tracing.Told.CACHED: self.hits - before}
                span.tell({tracing.Told.MODEL: self.space.model, **told})
            wanted = [each for each in found if isinstance(each, _Wanted)]
            if wanted:
                self._send()
                try:
                    # All of them are waited for, and not only up to the first that fails.
                    await asyncio.wait({each.waiting for each in wanted})
                finally:
                    for each in wanted:
                        each.waiters -= 1
            return [each.waiting.result() if isinstance(each, _Wanted) else each for each in found]

    async def probe(self) -> None:
        """See whether the model answers, whatever is kept; raises as `embed` does."""
        self._vectors.pop(_key(self._prefixes[Side.QUERY] + PROBE), None)
        await self.embed([PROBE], Side.QUERY)

    def close(self) -> None:
        """Close the model after the requests under way. Called from any thread but the event loop's."""
        self._threads.close()
        self._embedder.close()

    def _found(self, prefixed: str, is_at_once: bool) -> Vector | _Wanted:
        """Return the vector of a text where nobody has to wait for it: because it is kept, or made in no time."""
        key = _key(prefixed)
        kept = self._vectors.get(key)
        if kept is not None:
            self.hits += 1
            self._vectors.move_to_end(key)
            return kept
        if is_at_once:
            self.misses += 1
            vector: Vector = self._embedder.embed([prefixed])[0]
            self._keep(key, vector)
            return vector
        wanted = self._pending.get(key)
        if wanted is None:
            self.misses += 1
            wanted = self._pending[key] = _Wanted(key, prefixed, asyncio.get_running_loop().create_future())
            wanted.waiting.add_done_callback(_seen)
            self._queue.append(wanted)
        wanted.waiters += 1
        if (span := tracing.current()) is not None:
            wanted.traced = [*(wanted.traced or ()), span]
        return wanted

    def _send(self) -> None:
        while self._under_way < AT_ONCE and (batch := self._batch()):
            self._under_way += 1
            call = functools.partial(self._embedder.embed, [wanted.text for wanted in batch])
            traced = tracing.together(_traced(batch), is_call=not self._is_local)
            if traced is not None:
                traced.span.tell({tracing.Told.MODEL: self.space.model, tracing.Told.TEXTS: len(batch)})
                call = functools.partial(_passing_on, traced.span.traceparent, call)
            answer = self._threads.call(call)
            answer.add_done_callback(functools.partial(self._answered, batch, traced))

    def _batch(self) -> list[_Wanted]:
        """Take the next texts from the queue; those that nobody waits for any more are dropped."""
        batch: list[_Wanted] = []
        while self._queue and len(batch) < MOST_TEXTS:
            wanted = self._queue[0]
            if not wanted.waiters:
                self._finish(self._queue.popleft()).cancel()
                continue
            if batch and (wanted.is_alone or batch[0].is_alone):
                break
            batch.append(self._queue.popleft())
        return batch

    def _answered(
        self, batch: list[_Wanted], traced: tracing.Together | None, answer: asyncio.Future[ports.Vectors]
    ) -> None:
        self._under_way -= 1
        error = answer.exception()
        if traced is not None:
            traced.end(_traced(batch), error)
        if isinstance(error, TextsRefused) and len(batch) > 1:
            # Whose text it was must not be the others' trouble.
            for wanted in batch:
                wanted.is_alone = True
            self._queue.extendleft(reversed(batch))
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


def _traced(batch: list[_Wanted]) -> list[tracing.Span]:
    """Return the steps that wait for a batch, each once."""
    return list(dict.fromkeys(span for wanted in batch for span in wanted.traced or ()))


def _passing_on(traceparent: str, call: Callable[[], ports.Vectors]) -> ports.Vectors:
    """Make a call whose requests take part in a trace."""
    with connection.passing_on({"traceparent": traceparent} if traceparent else {}):
        return call()


def _length(text: str) -> int:
    return len(text) if text.isascii() else SPELT * len(text)


def _key(prefixed: str) -> bytes:
    return hashlib.blake2b(prefixed.encode(), digest_size=16).digest()
