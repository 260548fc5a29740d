"""Making an index hold what a snapshot holds: build it, move it along, compare it, mend it.

Every function may be cut short anywhere and be run again. What was found and done is written down in the index's
record, after the effect; only a move by difference announces itself first, as half of it is neither snapshot.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.api.conditions import Reason
from pointsman.core import changes, digests, keys, rows
from pointsman.core.recipes import Recipe
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.plan.facts import IndexRecord, record_from_json, record_to_json
from pointsman.ports import Backend, IndexSpec, Marker
from pointsman.store.dataset import DatasetStore
from pointsman.store.log import RecordLog
from pointsman.store.vectors import VectorReader, VectorTable
from pointsman.work.progress import Report

T = TypeVar("T")

BATCH = 2_048
"""Rows written at a time outside the bulk path."""
SAMPLE = 1_000
"""Points compared whole with the store by a check: one index in 23,000 with 1 % of its vectors overwritten slips by."""


@dataclass(frozen=True, slots=True)
class Index:
    """One index, with all that is needed to work on it."""

    spec: IndexSpec
    backend: Backend
    dataset: DatasetStore
    recipe: Recipe
    log: RecordLog
    now: Callable[[], datetime]
    report: Report

    @property
    def name(self) -> str:
        """Its physical name."""
        return self.spec.name

    def record(self) -> tuple[IndexRecord, int]:
        """Return the newest record and its revision; an empty one and 0 where there is none."""
        found = self.log.read()
        return (IndexRecord(), 0) if found is None else (record_from_json(found.value), found.revision)

    def write(self, record: IndexRecord, after: int) -> int:
        """Write a record that was decided from revision `after`, and return its own.

        Raises Conflict where another was written in between: what was done is looked at again, and done again.
        """
        return self.log.write(record_to_json(record), after)


class Content:
    """What an index is to hold at a snapshot. Keys and the way to the vectors are read once."""

    def __init__(self, index: Index, snapshot: int) -> None:
        found = index.dataset.embedded_at(index.recipe.key, snapshot)
        if found is None:
            message = f"{index.spec.marker.version}@{snapshot} is not in the store any more"
            raise Retryable(Reason.SNAPSHOT_NOT_FOUND, message)
        self.embedded = found
        self._recipe, self._dataset = index.recipe, index.dataset
        self._chunks = index.dataset.chunks(index.recipe.key)

    @cached_property
    def keys(self) -> pa.Table:
        """The columns `changes.POINT_COLUMNS` of all points."""
        return self._chunks.keys(self.embedded.chunks_version, changes.POINT_COLUMNS)

    def points(self, ids: pa.Array | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the points of these ids, or all, as batches of `rows.points`."""
        documents, wanted = None, None
        if ids is not None:
            wanted = keys.KeyIndex(ids)
            documents = pc.unique(self.keys["document"].filter(pa.array(wanted.contains(self.keys["point_id"]))))
        for batch in self._chunks.read(self.embedded.chunks_version, documents, columns=list(rows.POINT_COLUMNS)):
            chosen = batch if wanted is None else batch.filter(pa.array(wanted.contains(batch["point_id"])))
            yield points(self._recipe, chosen, self._vectors)

    def sample(self) -> Iterator[pa.RecordBatch]:
        """Yield up to SAMPLE of the points, other ones each time, as batches of `rows.points`."""
        count = self.embedded.rows
        places = np.arange(min(count, SAMPLE), dtype=np.int64)
        if count > SAMPLE:
            places = np.sort(np.random.default_rng().choice(count, SAMPLE, replace=False))
        drawn = list(self._chunks.read_at(self.embedded.chunks_version, places, rows.POINT_COLUMNS))
        found = pa.concat_arrays([pa.array([], rows.KEY), *(batch["content_key"] for batch in drawn)])
        # The way to all vectors takes memory for each of them: it is not opened for these.
        is_open = "_vectors" in self.__dict__
        vectors = self._vectors if is_open else self._table.reader(keys.KeyIndex(found))
        yield from (points(self._recipe, batch, vectors) for batch in drawn)

    @property
    def _table(self) -> VectorTable:
        space = self._recipe.space
        return self._dataset.vectors(space.document_side, space.dimensions)

    @cached_property
    def _vectors(self) -> VectorReader:
        return self._table.reader()


def points(recipe: Recipe, chunks: pa.RecordBatch, vectors: VectorReader) -> pa.RecordBatch:
    """Return chunks, of `rows.POINT_COLUMNS`, joined with their vectors as `rows.points`."""
    dimensions = recipe.space.dimensions
    found = pa.array(vectors.take(chunks["content_key"]).reshape(-1))
    columns = [chunks[name] for name in rows.POINT_COLUMNS]
    columns.append(pa.repeat(recipe.key, chunks.num_rows))
    columns.append(pa.FixedSizeListArray.from_arrays(found, dimensions))
    return pa.RecordBatch.from_arrays(columns, schema=rows.points(dimensions))


def build(index: Index, snapshot: int, pace: Pace, is_doubted: bool = False) -> None:
    """Make an index hold a snapshot, whatever it holds now, and verify it by a full scan.

    It is doubted where nobody can be sure that all who wrote to it before have ended.
    """
    _, revision = index.record()
    content = Content(index, snapshot)
    index.backend.create(index.spec)
    if index.backend.count(index.name) == 0:
        index.backend.load(index.name, _counted(index, pace.over(content.points()), content.embedded.rows))
    else:
        _converge(index, content, pace)
    index.backend.seal(index.name)
    _verify(index, content, revision, is_doubted)


def finish(index: Index, snapshot: int, pace: Pace, is_doubted: bool = False) -> None:
    """Verify by a full scan an index that others have loaded and sealed; what differs all the same is mended first.

    Such are the points of an earlier snapshot, which a run that was given up has left. It is doubted as in `build`.
    """
    _, revision = index.record()
    _require_ours(index)
    content = Content(index, snapshot)
    try:
        _verify(index, content, revision, is_doubted)
    except Retryable as error:
        if error.reason is not Reason.INDEX_DIFFERS:
            raise
        _take_away(index, content, pace)
        index.backend.seal(index.name)
        _verify(index, content, revision, is_doubted)


def follow(index: Index, snapshot: int) -> None:
    """Move a verified index to another snapshot by the difference of the two, and read back what was written."""
    record, revision = index.record()
    _require_ours(index)
    if record.cursor is None:
        raise Retryable(Reason.INDEX_DIFFERS, f"{index.name} was never complete; it is built first")
    content = Content(index, snapshot)
    difference = changes.points(Content(index, record.cursor.snapshot).keys, content.keys)
    record = dataclasses.replace(record, moved_at=index.now())
    revision = index.write(dataclasses.replace(record, pending=snapshot), revision)
    # New chunks go in before old ones go out, so that no document is missing in between.
    _upsert(index, content, difference.upserts)
    _delete(index, difference.deletes)
    embedded = content.embedded
    wrong = _differing(index, content, _sample(difference.upserts))
    differences = max(len(wrong), abs(index.backend.count(index.name) - embedded.rows))
    cursor = rows.Cursor(snapshot, embedded.sequence)
    index.write(
        dataclasses.replace(
            record, cursor=cursor, rows=embedded.rows, digest=embedded.digest, pending=None, differences=differences
        ),
        revision,
    )


def check(index: Index, snapshot: int) -> None:
    """Compare an index with its snapshot by a full scan and a sample of whole points, and write down what differs."""
    record, revision = index.record()
    _require_ours(index)
    content = Content(index, snapshot)
    differences, _ = _compare(index, content)
    index.write(
        dataclasses.replace(record, rows=content.embedded.rows, checked_at=index.now(), differences=differences),
        revision,
    )


def repair(index: Index, snapshot: int, pace: Pace) -> None:
    """Make an index equal its snapshot again, every payload and vector, and verify it by a full scan."""
    _, revision = index.record()
    _require_ours(index)
    content = Content(index, snapshot)
    _converge(index, content, pace)
    index.backend.seal(index.name)
    _verify(index, content, revision)


# What they share.


def _require_ours(index: Index) -> None:
    """Raise unless the index is there and made by us for this deployment."""
    require_ours(index.backend, index.name, index.spec.marker)


def require_ours(backend: Backend, name: str, wanted: Marker) -> None:
    """Raise Retryable(INDEX_LOST) where an index is not there, Terminal(COLLECTION_FOREIGN) where it is another's."""
    marker = backend.find(name)
    if marker is None:
        raise Retryable(Reason.INDEX_LOST, f"index {name} is gone from the database")
    if marker != wanted:
        message = f"index {name} is marked as {marker.owner} {marker.version}, wanted {wanted.owner}"
        raise Terminal(Reason.COLLECTION_FOREIGN, message)


def _counted(index: Index, batches: Iterable[pa.RecordBatch], total: int) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in batches:
        yield batch
        done += batch.num_rows
        index.report(done, total)


def _converge(index: Index, content: Content, pace: Pace) -> None:
    """Take away what is too much and write what differs: first what a scan tells, then every payload and vector."""
    _take_away(index, content, pace)
    for batch in _counted(index, pace.over(content.points()), content.embedded.rows):
        wrong = index.backend.differing(index.name, batch)
        if wrong:
            index.backend.upsert(index.name, batch.filter(pc.is_in(batch["point_id"], pa.array(wrong, rows.KEY))))


def _take_away(index: Index, content: Content, pace: Pace) -> None:
    """Take away what is too much and write what differs, as far as a scan tells."""
    parity = _parity(index, content)
    if parity.foreign:
        index.backend.remove_foreign(index.name)
    _upsert(index, content, parity.upserts, pace)
    _delete(index, parity.deletes)


def _upsert(index: Index, content: Content, ids: pa.Array, pace: Pace | None = None) -> None:
    if not len(ids):
        return
    batches = content.points(ids)
    for batch in _counted(index, pace.over(batches) if pace is not None else batches, len(ids)):
        for start in range(0, batch.num_rows, BATCH):
            index.backend.upsert(index.name, batch.slice(start, BATCH))


def _delete(index: Index, ids: pa.Array) -> None:
    for start in range(0, len(ids), BATCH):
        index.backend.delete(index.name, ids.slice(start, BATCH).to_pylist())


def _parity(index: Index, content: Content) -> changes.Parity:
    scanned = pa.Table.from_batches(index.backend.scan(index.name), schema=rows.SCANNED)
    return changes.parity(scanned, content.keys, index.recipe.key)


def _compare(index: Index, content: Content) -> tuple[int, str]:
    """Return how many points differ from the snapshot, each counted once, and which ones in words."""
    # Whether all are as they should be, digests tell in little memory; which are not, all keys side by side.
    none = pa.array([], rows.KEY)
    parity = changes.Parity(none, none, 0) if _is_alike(index, content) else _parity(index, content)
    looked_at, wrong = 0, list[bytes]()
    for batch in content.sample():
        looked_at += batch.num_rows
        wrong += index.backend.differing(index.name, batch)
    found = keys.KeyIndex(pa.concat_arrays([parity.upserts, parity.deletes]))
    more = np.count_nonzero(~found.contains(pa.array(wrong, rows.KEY)))
    count, wanted = index.backend.count(index.name), content.embedded.rows
    said = (
        f"{count:,} rows, {wanted:,} wanted; {len(parity.upserts):,} are missing or other, "
        f"{len(parity.deletes) + parity.foreign:,} are not in the snapshot, "
        f"{len(wrong):,} of {looked_at:,} looked at whole differ from the store"
    )
    # The count only speaks where nothing else does: what a scan does not show may still be counted.
    return max(len(found) + int(more) + parity.foreign, abs(count - wanted)), said


def _is_alike(index: Index, content: Content) -> bool:
    """Return whether a scan finds the ids, keys and recipe of the snapshot, by their digest; stops at what is not ours.

    Of a billion points there is no list then. A point that is there twice makes another digest.
    """
    digest = digests.Digest()
    for batch in index.backend.scan(index.name):
        if batch["point_id"].null_count or not pc.all(pc.equal(batch["recipe"], index.recipe.key)).as_py():
            return False
        digest += digests.Digest.of(batch)
    return digest.hex(index.recipe.key) == content.embedded.digest


def _verify(index: Index, content: Content, revision: int, is_doubted: bool = False) -> None:
    """Prove by a full scan that the index equals the snapshot, and write that down."""
    if not index.backend.is_built(index.name):
        raise Retryable(Reason.INDEX_DIFFERS, f"the database has not finished building {index.name}")
    differences, said = _compare(index, content)
    if differences:
        raise Retryable(Reason.INDEX_DIFFERS, f"{index.name} holds {said}")
    now, embedded = index.now(), content.embedded
    index.write(
        IndexRecord(
            cursor=rows.Cursor(embedded.snapshot, embedded.sequence),
            rows=embedded.rows,
            digest=embedded.digest,
            verified_at=now,
            checked_at=now,
            doubted_at=now if is_doubted else None,
        ),
        revision,
    )


def _sample(ids: pa.Array) -> pa.Array:
    """Return up to SAMPLE of the ids, other ones each time."""
    if len(ids) <= SAMPLE:
        return ids
    drawn = np.random.default_rng().choice(len(ids), SAMPLE, replace=False)
    return ids.take(pa.array(np.sort(drawn)))


def _differing(index: Index, content: Content, ids: pa.Array) -> list[bytes]:
    """Return those of the ids that the database lacks, or whose payloads or vectors differ from the store's."""
    return [point_id for batch in content.points(ids) for point_id in index.backend.differing(index.name, batch)]


class Pace:
    """Lets a bulk load yield to the queries of the index that serves.

    Once a second, or as often as is said, one query is timed on the serving index. While it takes more than three times
    what it took before the load, and at least 20 ms more, the load pauses for half a second before each batch, for a
    minute at most: a load that never ends helps nobody. The graph is built by the database when all is loaded, at a
    pace of its own.
    """

    RATIO, FLOOR, PAUSE, LONGEST = 3.0, 0.02, 0.5, 60.0

    def __init__(
        self,
        probe: Callable[[], object] | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        every: float = 1.0,
    ) -> None:
        """`every` is in seconds: of many processes that load, all together ask once a second."""
        self._probe, self._clock, self._sleep, self._every = probe, clock, sleep, every
        self.paused = 0.0
        self._last = clock()
        self._usual = min(self._timed() for _ in range(5))

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, each when the serving index is at its usual speed."""
        for batch in batches:
            yield batch
            if self._probe is not None and self._clock() - self._last >= self._every:
                self._yield()

    def _yield(self) -> None:
        waited, pause = 0.0, min(self.LONGEST, max(self.PAUSE, self._every / 2))
        while waited < self.LONGEST and self._timed() > max(self._usual * self.RATIO, self._usual + self.FLOOR):
            self._sleep(pause)
            waited += pause
        self.paused += waited
        self._last = self._clock()

    def _timed(self) -> float:
        """Time one query. Where the serving index does not answer, there is nobody to be slowed down."""
        start = self._clock()
        if self._probe is not None:
            try:
                self._probe()
            except PointsmanError:
                self._probe = None
                return 0.0
        return self._clock() - start
