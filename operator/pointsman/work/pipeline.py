"""Three stations at once: one thread cuts and writes chunks, the caller's embeds, one stores finished vectors.

Each text goes to the model once: it is left out where its vector is stored or on its way. Vectors are stored soon
after the model has answered, not at the end of a call to it: whoever kills us destroys what was answered in the last
two seconds at most and the requests under way, and whoever makes the call fail destroys nothing.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.core import rows
from pointsman.core.recipes import Recipe
from pointsman.embedders import vectors as vector_checks
from pointsman.errors import Terminal, TextsRefused

STORE_ROWS = 16_384
STORE_SECONDS = 2.0
"""A batch of finished vectors is stored when it has so many rows or is so old: what a kill may cost, weighed against
the files that small commits leave behind."""
SHOWN_TEXTS = 5
"""How many of the texts that a model refuses are named."""
_QUEUED = 8
_FIRST_TEXTS, _MOST_TEXTS = 512, 8_192
# A call to the model should take about as long: short enough to lose little, long enough to be worth its overhead.
_QUICK_SECONDS, _SLOW_SECONDS = 0.5, 5.0


T = TypeVar("T")
Place = tuple[str, int]
"""The document that a text is of, and its ordinal there."""


@dataclass(slots=True)
class Wanted:
    """Texts without a vector, and how many documents and rows they were found among."""

    documents: int
    rows: int
    keys: list[bytes] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)


@dataclass(slots=True)
class _Finished:
    keys: list[bytes] = field(default_factory=list)
    vectors: list[ports.Vectors] = field(default_factory=list)


class Cancelled(Exception):
    """The other station failed; its error is the one to show."""


class Table(Protocol):
    """Where finished vectors go."""

    def missing(self, content_keys: pa.Array) -> pa.Array:
        """Return the distinct keys, in order, that have no vector yet."""
        ...

    def append(self, batch: pa.RecordBatch) -> None:
        """Keep a finished batch of `rows.vectors`."""
        ...


class Vectors:
    """A table of vectors that several threads share, with the keys on their way to it."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._awaited: set[bytes] = set()

    def claim(self, documents: int, chunks: pa.RecordBatch) -> Wanted:
        """Return the texts of so many documents' chunks whose vectors nobody has stored or claimed, and claim them."""
        content_keys = chunks.column("content_key")
        with self._lock:
            missing = set(self._table.missing(content_keys).to_pylist()) - self._awaited
            self._awaited |= missing
        if not missing:
            return Wanted(documents, chunks.num_rows)
        # Of chunks with the same text the last one stands for all.
        at = {key: row for row, key in enumerate(content_keys.to_pylist()) if key in missing}
        names = ("content_key", "text", "document", "ordinal")
        keys, texts, *places = (chunks.column(name).take(pa.array(at.values())).to_pylist() for name in names)
        return Wanted(documents, chunks.num_rows, keys, texts, list(zip(*places, strict=True)))

    def store(self, batch: pa.RecordBatch) -> None:
        """Store a finished batch in one commit."""
        with self._lock:
            self._table.append(batch)
            self._awaited.difference_update(batch.column("content_key").to_pylist())


class Supply(Generic[T]):
    """The first station: a thread that drives `produce` and hands what it offers to the caller's."""

    def __init__(self, produce: Callable[[Callable[[Wanted], None]], T]) -> None:
        self._produce = produce
        self._queue: queue.Queue[Wanted | None] = queue.Queue(_QUEUED)
        self._is_over = threading.Event()
        self._result: Future[T] = Future()
        self._thread = threading.Thread(target=self._run, name="cutting", daemon=True)

    def __enter__(self) -> Supply[T]:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Wanted]:
        while (wanted := self._queue.get()) is not None:
            yield wanted
        self._result.result()

    def result(self) -> T:
        """Return what `produce` returned, or raise what it raised."""
        return self._result.result()

    def _run(self) -> None:
        try:
            self._result.set_result(self._produce(self._offer))
        except BaseException as error:
            self._result.set_exception(error)
        while not self._is_over.is_set():
            try:
                self._queue.put(None, timeout=0.1)
                return
            except queue.Full:
                continue

    def _offer(self, wanted: Wanted) -> None:
        while not self._is_over.is_set():
            try:
                self._queue.put(wanted, timeout=0.1)
                return
            except queue.Full:
                continue
        raise Cancelled


class Storing:
    """The third station: a thread that stores what it is given, soon and in batches."""

    def __init__(self, write: Callable[[list[bytes], ports.Vectors], None], seconds: float = STORE_SECONDS) -> None:
        self._write = write
        self._seconds = seconds
        self._open = _Finished()
        self._is_closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="storing", daemon=True)
        self._thread.start()

    def put(self, keys: list[bytes], vectors: ports.Vectors) -> None:
        """Take finished vectors, from any thread; raises what storing earlier ones raised.

        Waits while a whole batch is open, so that memory is bounded where the store is slower than the model.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._is_closed or not self._is_full())
            if self._error is not None:
                raise self._error
            self._open.keys += keys
            self._open.vectors.append(vectors)
            self._changed.notify_all()

    def finish(self) -> None:
        """Store what is open, and return when all is stored; raises what storing raised."""
        self.close(stores=True)
        if self._error is not None:
            raise self._error

    def close(self, stores: bool) -> None:
        """Store what is open, or drop it, and end."""
        with self._changed:
            if not stores:
                self._open = _Finished()
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _is_full(self) -> bool:
        return len(self._open.keys) >= STORE_ROWS

    def _run(self) -> None:
        try:
            while (finished := self._next()).keys:
                self._write(finished.keys, np.concatenate(finished.vectors))
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _next(self) -> _Finished:
        """Wait for the next batch; an empty one is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._open.keys)
            self._changed.wait_for(lambda: self._is_closed or self._is_full(), self._seconds)
            finished, self._open = self._open, _Finished()
            self._changed.notify_all()
            return finished


class Embedding:
    """The second station: embeds what it is given, and hands on what is finished."""

    def __init__(
        self,
        vectors: Vectors,
        recipe: Recipe,
        embedder: ports.Embedder,
        sequence: int,
        now: Callable[[], datetime],
        seconds: float = STORE_SECONDS,
    ) -> None:
        """`seconds` is how old finished vectors may become before they are stored."""
        self._vectors = vectors
        self._recipe = recipe
        self._embedder = embedder
        self._sequence = sequence
        self._now = now
        self._waiting = Wanted(0, 0)
        self._refused: list[Place] = []
        self._answer = ""
        self._size = _FIRST_TEXTS
        self._storing = Storing(self._write, seconds)
        self.embedded = 0

    def __enter__(self) -> Embedding:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # What the model has answered is paid for, whatever came after; but a dying process stores nothing.
        self._storing.close(stores=kind is None or issubclass(kind, Exception))

    def add(self, wanted: Wanted) -> None:
        """Take texts, and embed as soon as there are enough for a call."""
        self._waiting.keys += wanted.keys
        self._waiting.texts += wanted.texts
        self._waiting.places += wanted.places
        while self.waiting >= self._size:
            self._embed(self._size)

    def finish(self) -> None:
        """Embed what waits and store all; raises Terminal(MODEL_REJECTED) where the model refuses some texts."""
        while self.waiting:
            self._embed(self._size)
        self._storing.finish()
        if self._refused:
            raise self._refusal()

    @property
    def waiting(self) -> int:
        """How many texts wait for the model."""
        return len(self._waiting.keys)

    def _embed(self, size: int) -> None:
        waiting = self._waiting
        content_keys = waiting.keys[:size]
        began = time.monotonic()

        def finished(start: int, found: ports.Vectors) -> None:
            part = content_keys[start : start + len(found)]
            self._storing.put(part, _checked(found, len(part), self._recipe))

        try:
            self._embedder.embed(_prefixed(self._recipe, waiting.texts[:size]), finished)
        except TextsRefused as error:
            self._refused += [waiting.places[position] for position in error.positions]
            self._answer = error.answer
            if len(self._refused) >= vector_checks.MOST_REFUSED:
                raise self._refusal() from None
        took = time.monotonic() - began
        if took < _QUICK_SECONDS:
            self._size = min(self._size * 2, _MOST_TEXTS)
        elif took > _SLOW_SECONDS:
            self._size = max(self._size // 2, 1)
        for column in (waiting.keys, waiting.texts, waiting.places):
            del column[:size]
        self.embedded += len(content_keys)

    def _refusal(self) -> Terminal:
        refused = TextsRefused(range(len(self._refused)), self._answer)
        places = ", ".join(f"{document} (ordinal {ordinal})" for document, ordinal in self._refused[:SHOWN_TEXTS])
        return Terminal(
            refused.reason,
            f"{refused.message}: of document {places}; mend them in the source, or declare a version with a smaller "
            "chunking.maxTokens",
        )

    def _write(self, content_keys: list[bytes], found: ports.Vectors) -> None:
        space, identity = self._recipe.space, self._embedder.identity()
        count = len(content_keys)
        provenance: dict[str, Any] = {
            "content_key": pa.array(content_keys, rows.KEY),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1), pa.float32()), space.dimensions),
            "space": pa.repeat(space.key, count),
            "model": pa.repeat(identity.name, count),
            "revision": pa.repeat(identity.revision, count),
            "recipe": pa.repeat(self._recipe.key, count),
            "embedded_at": pa.repeat(pa.scalar(self._now(), pa.timestamp("us", tz="UTC")), count),
            "sequence": pa.repeat(pa.scalar(self._sequence, pa.int64()), count),
        }
        schema = rows.vectors(space.dimensions)
        self._vectors.store(pa.RecordBatch.from_arrays([provenance[name] for name in schema.names], schema=schema))


def embedded(embedder: ports.Embedder, recipe: Recipe, texts: list[str]) -> ports.Vectors:
    """Embed texts as documents of a recipe's space; raises Terminal(MODEL_INVALID) for vectors that are none of it."""
    return _checked(embedder.embed(_prefixed(recipe, texts)), len(texts), recipe)


def asked(embedder: ports.Embedder, recipe: Recipe, texts: list[str]) -> ports.Vectors:
    """Embed texts as queries of a recipe's space; raises as `embedded` does."""
    prefix = recipe.space.query_prefix
    return _checked(embedder.embed([prefix + text for text in texts]), len(texts), recipe)


def _prefixed(recipe: Recipe, texts: list[str]) -> list[str]:
    prefix = recipe.space.document_prefix
    return [prefix + text for text in texts] if prefix else texts


def _checked(found: ports.Vectors, texts: int, recipe: Recipe) -> ports.Vectors:
    dimensions = recipe.space.dimensions
    if found.shape != (texts, dimensions):
        raise Terminal(
            Reason.MODEL_INVALID,
            f"the model answered {texts:,} texts with an array of shape {found.shape}, "
            f"wanted {dimensions:,} dimensions for each; declare a version with the right dimensions",
        )
    return vector_checks.unit(found)
