"""What do live indexes answer when they are asked all queries of a set?

Each index is asked with its own model's query side, and answers documents, not points. Questions go at a bounded rate
over a few connections, and wait while the serving index is slower than usual: those who are served come first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import numpy as np

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.backends import documents
from pointsman.core.canaries import Hit
from pointsman.core.judgements import QuerySet
from pointsman.core.recipes import Recipe
from pointsman.errors import Conflict, Retryable, Terminal, TextsRefused
from pointsman.plan import facts
from pointsman.store.dataset import DatasetStore
from pointsman.store.log import RecordLog
from pointsman.work import pipeline
from pointsman.work.exact import Stored
from pointsman.work.indexing import Pace
from pointsman.work.progress import Report

EMBEDDED = 1_024
"""Queries that are embedded at a time, and held as vectors."""
CONNECTIONS = 4
"""Searches under way at once."""
MOST_A_SECOND = 500
BLOCK = 50
"""Searches between two looks at the pace."""
LEAST_SHARE = 0.5
"""A set of whose relevant documents fewer are in the snapshot was judged for other documents."""


@dataclass(frozen=True, slots=True)
class Answering:
    """One index, with what it takes to ask it."""

    index: str
    version: str
    recipe: Recipe
    embedder: ports.Embedder
    log: RecordLog
    """Of the index's record."""


@dataclass(frozen=True, slots=True)
class Room:
    """Those who are asked, all at one snapshot, and what."""

    dataset: DatasetStore
    corpus: str
    """The dataset's name."""
    snapshot: int
    backend: ports.Backend
    candidate: Answering
    serving: Answering | None
    name: str
    """The query set's."""
    queries: QuerySet
    set_log: RecordLog
    """Of the query set's record."""
    now: Callable[[], datetime]
    report: Report

    @property
    def sides(self) -> tuple[Answering, ...]:
        """The candidate and, where there is one, the serving index."""
        return (self.candidate,) if self.serving is None else (self.candidate, self.serving)

    def check_standing(self) -> None:
        """Raise Conflict unless every index is at the snapshot, and the set is what was read, as the records say."""
        for side in self.sides:
            found = side.log.read()
            record = facts.IndexRecord() if found is None else facts.record_from_json(found.value)
            at = None if record.cursor is None else record.cursor.snapshot
            if record.pending is not None or at != self.snapshot:
                is_at = "on its way between snapshots" if record.pending is not None else f"at snapshot {at or 'none'}"
                message = f"index {side.index} is {is_at}, wanted {self.snapshot} while it is asked; asking again"
                raise Conflict(message)
            if record.differences:
                message = f"index {side.index} differs from its snapshot in {record.differences:,} points, wanted none"
                raise Retryable(Reason.INDEX_DIFFERS, f"{message}; it is asked once it is mended")
        known = self.set_log.read()
        if known is None or facts.query_set_from_json(known.value).digest != self.queries.digest:
            is_read = "was not read yet" if known is None else "has changed since it was read last"
            raise Conflict(f"query set {self.name} {is_read}, wanted it as its record says; asking again once it is")

    def check_judged(self, stored: Stored) -> None:
        """Raise Terminal(SOURCE_INVALID) where too few of the relevant documents are in the snapshot."""
        judgements = self.queries.judgements.values()
        relevant = {document for grades in judgements for document, grade in grades.items() if grade > 0}
        present = stored.count(relevant)
        if present < LEAST_SHARE * len(relevant):
            raise Terminal(
                Reason.SOURCE_INVALID,
                f"{present:,} of {len(relevant):,} relevant documents of query set {self.name} are in {self.corpus}@"
                f"{self.snapshot}, wanted half of them or more; name a query set that was judged for {self.corpus}",
            )


@dataclass(frozen=True, slots=True)
class Answers:
    """What one index answered, best first, by query."""

    hits: dict[str, list[Hit]] = field(default_factory=dict)
    vectors: dict[str, ports.Vectors] = field(default_factory=dict)
    """The vectors of those queries that were to be remembered, each of shape (dimensions,)."""

    @property
    def rankings(self) -> Mapping[str, Sequence[str]]:
        """The documents alone."""
        return {query: [hit.document for hit in hits] for query, hits in self.hits.items()}


def ask(room: Room, depth: int, remembered: frozenset[str] = frozenset()) -> tuple[Answers, ...]:
    """Ask every side all queries, for so many documents each; the answers stand in the order of `Room.sides`.

    Two sides of one space share the queries' vectors. Raises what the models and the database raise.
    """
    answers = tuple(Answers() for _ in room.sides)
    asker: _Asker | None = None
    ids = list(room.queries.queries)
    for start in range(0, len(ids), EMBEDDED):
        part = ids[start : start + EMBEDDED]
        texts = [room.queries.queries[query] for query in part]
        by_space: dict[str, ports.Vectors] = {}
        for side in room.sides:
            if side.recipe.space.key not in by_space:
                by_space[side.recipe.space.key] = _embedded(room, side, texts)
        if asker is None:
            last = room.sides[-1]
            asker = _Asker(room, depth, last.index, by_space[last.recipe.space.key][0])
        for side, answered in zip(room.sides, answers, strict=True):
            vectors = by_space[side.recipe.space.key]
            answered.hits.update(zip(part, asker.ask(side.index, vectors), strict=True))
            answered.vectors.update({q: v for q, v in zip(part, vectors, strict=True) if q in remembered})
    return answers


def _embedded(room: Room, side: Answering, texts: list[str]) -> ports.Vectors:
    try:
        return pipeline.asked(side.embedder, side.recipe, texts)
    except TextsRefused as error:
        message = f"{error.message}, which are queries of {room.name}; mend them there"
        raise Terminal(error.reason, message) from None


class _Asker:
    """Sends searches on a few threads, in order, at a rate and a pace."""

    def __init__(self, room: Room, depth: int, served: str, vector: ports.Vectors) -> None:
        self._room, self._depth = room, depth
        self._pace = Pace(partial(room.backend.search, served, vector, 10, None))
        self._rate = Rate(MOST_A_SECOND)
        self._done, self._total = 0, len(room.queries.queries) * len(room.sides)

    def ask(self, index: str, vectors: ports.Vectors) -> list[list[Hit]]:
        found: list[list[Hit]] = []
        waiting: list[Future[list[Hit]]] = []
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="asking")
        try:
            # The serving index is timed while a block is under way: in between there is nothing that could slow it.
            for start in self._pace.over(range(0, len(vectors), BLOCK)):
                block = vectors[start : start + BLOCK]
                self._rate.wait(len(block))
                earlier, waiting = waiting, [pool.submit(self._search, index, vector) for vector in block]
                found += self._finished(earlier)
            found += self._finished(waiting)
        finally:
            pool.shutdown(cancel_futures=True)
        return found

    def _search(self, index: str, vector: ports.Vectors) -> list[Hit]:
        hits = documents.top_documents(self._room.backend, index, vector, self._depth)
        return [Hit(hit.document, hit.score) for hit in hits]

    def _finished(self, searches: list[Future[list[Hit]]]) -> Iterator[list[Hit]]:
        for search in searches:
            yield search.result()
        self._done += len(searches)
        self._room.report(self._done, self._total)


class Rate:
    """Lets through so many a second on average, in blocks."""

    def __init__(
        self,
        most: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._most, self._clock, self._sleep = most, clock, sleep
        self._next = clock()

    def wait(self, count: int) -> None:
        """Wait until so many may go."""
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + count / self._most


def stacked(answers: Answers, queries: Sequence[str]) -> ports.Vectors:
    """Return the remembered vectors of queries, in order, shape (n, dimensions)."""
    return np.stack([answers.vectors[query] for query in queries])
