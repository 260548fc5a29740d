"""Three stations at once: one thread cuts and writes chunks, the caller's embeds, one stores finished vectors.

Each text goes to the model once: it is left out where its vector is stored or on its way. Vectors are stored in
batches as they are finished, so that whoever kills us destroys one unfinished batch at most.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.core import rows
from pointsman.core.recipes import Recipe
from pointsman.embedders import vectors as vector_checks
from pointsman.errors import Terminal
from pointsman.store.vectors import VectorTable

STORE_ROWS = 16_384
STORE_SECONDS = 10.0
"""A batch of finished vectors is stored when it has so many rows or is so old."""
_QUEUED = 8
_FIRST_TEXTS, _MOST_TEXTS = 512, 8_192
# A call to the model should take about as long: short enough to lose little, long enough to be worth its overhead.
_QUICK_SECONDS, _SLOW_SECONDS = 0.5, 5.0


@dataclass(slots=True)
class Wanted:
    """Texts without a vector, and how many documents and rows they were found among."""

    documents: int
    rows: int
    keys: list[bytes]
    texts: list[str]


@dataclass(slots=True)
class _Finished:
    keys: list[bytes] = field(default_factory=list)
    vectors: list[ports.Vectors] = field(default_factory=list)


class Cancelled(Exception):
    """The other station failed; its error is the one to show."""


class Vectors:
    """A table of vectors that several threads share, with the keys on their way to it."""

    def __init__(self, table: VectorTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._awaited: set[bytes] = set()

    def claim(self, chunks: pa.RecordBatch) -> tuple[list[bytes], list[str]]:
        """Return keys and texts of the chunks whose vectors nobody has stored or claimed, and claim them."""
        content_keys = chunks.column("content_key")
        with self._lock:
            missing = set(self._table.missing(content_keys).to_pylist()) - self._awaited
            self._awaited |= missing
        if not missing:
            return [], []
        texts = dict(zip(content_keys.to_pylist(), chunks.column("text").to_pylist(), strict=True))
        wanted = {key: text for key, text in texts.items() if key in missing}
        return list(wanted), list(wanted.values())

    def store(self, batch: pa.RecordBatch) -> None:
        """Store a finished batch in one commit."""
        with self._lock:
            self._table.append(batch)
            self._awaited.difference_update(batch.column("content_key").to_pylist())


class Supply:
    """The first station: a thread that drives `produce` and hands what it offers to the caller's."""

    def __init__(self, produce: Callable[[Callable[[Wanted], None]], int]) -> None:
        self._produce = produce
        self._queue: queue.Queue[Wanted | None] = queue.Queue(_QUEUED)
        self._is_over = threading.Event()
        self._result: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="cutting", daemon=True)

    def __enter__(self) -> Supply:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Wanted]:
        while (wanted := self._queue.get()) is not None:
            yield wanted
        self._result.result()

    def result(self) -> int:
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


class Embedding:
    """The second and third station: embeds what it is given, and stores it as it is finished."""

    def __init__(
        self,
        vectors: Vectors,
        recipe: Recipe,
        embedder: ports.Embedder,
        sequence: int,
        now: Callable[[], datetime],
    ) -> None:
        self._vectors = vectors
        self._recipe = recipe
        self._embedder = embedder
        self._sequence = sequence
        self._now = now
        self._waiting_keys: list[bytes] = []
        self._waiting_texts: list[str] = []
        self._finished = _Finished()
        self._finished_rows = 0
        self._stored_at = time.monotonic()
        self._size = _FIRST_TEXTS
        self._storing: Future[None] | None = None
        self._storer = ThreadPoolExecutor(1, thread_name_prefix="storing")
        self.embedded = 0

    def __enter__(self) -> Embedding:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            # What the model has answered is paid for, whatever came after; but a dying process stores nothing.
            if kind is None or issubclass(kind, Exception):
                self._store()
                self._stored()
        finally:
            self._storer.shutdown()

    def add(self, wanted: Wanted) -> None:
        """Take texts, and embed as soon as there are enough for a call."""
        self._waiting_keys += wanted.keys
        self._waiting_texts += wanted.texts
        while len(self._waiting_texts) >= self._size:
            self._embed(self._size)

    def finish(self) -> None:
        """Embed what waits and store all."""
        while self._waiting_texts:
            self._embed(self._size)
        self._store()
        self._stored()

    @property
    def waiting(self) -> int:
        """How many texts wait for the model."""
        return len(self._waiting_texts)

    def _embed(self, size: int) -> None:
        content_keys, texts = self._waiting_keys[:size], self._waiting_texts[:size]
        began = time.monotonic()
        found = embedded(self._embedder, self._recipe, texts)
        took = time.monotonic() - began
        if took < _QUICK_SECONDS:
            self._size = min(self._size * 2, _MOST_TEXTS)
        elif took > _SLOW_SECONDS:
            self._size = max(self._size // 2, 1)
        del self._waiting_keys[:size], self._waiting_texts[:size]
        self._finished.keys += content_keys
        self._finished.vectors.append(found)
        self.embedded += len(texts)
        if len(self._finished.keys) >= STORE_ROWS or time.monotonic() - self._stored_at >= STORE_SECONDS:
            self._store()

    def _store(self) -> None:
        # One batch is on its way at a time, so that memory is bounded where the store is slower than the model.
        self._stored()
        self._stored_at = time.monotonic()
        if self._finished.keys:
            self._storing = self._storer.submit(self._write, self._finished)
            self._finished = _Finished()

    def _stored(self) -> None:
        storing, self._storing = self._storing, None
        if storing is not None:
            storing.result()

    def _write(self, finished: _Finished) -> None:
        space, identity = self._recipe.space, self._embedder.identity()
        count = len(finished.keys)
        flat = np.concatenate(finished.vectors).reshape(-1)
        provenance: dict[str, Any] = {
            "content_key": pa.array(finished.keys, rows.KEY),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), space.dimensions),
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
    prefix, dimensions = recipe.space.document_prefix, recipe.space.dimensions
    found = embedder.embed([prefix + text for text in texts] if prefix else texts)
    if found.shape != (len(texts), dimensions):
        raise Terminal(
            Reason.MODEL_INVALID,
            f"the model answered {len(texts):,} texts with an array of shape {found.shape}, "
            f"wanted {dimensions:,} dimensions for each; declare a version with the right dimensions",
        )
    return vector_checks.unit(found)
