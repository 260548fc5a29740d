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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.api.conditions import Reason
from pointsman.core import changes, rows
from pointsman.core.recipes import Recipe
from pointsman.errors import Retryable, Terminal
from pointsman.plan.facts import IndexRecord, record_from_json, record_to_json
from pointsman.ports import Backend, IndexSpec
from pointsman.store.dataset import DatasetStore
from pointsman.store.log import RecordLog
from pointsman.store.records import EmbeddedSnapshot
from pointsman.work.progress import Report

BATCH = 2_048
"""Rows written at a time outside the bulk path."""
SAMPLE = 1_000
"""Vectors compared with the store by a check: one index in 23,000 with 1 % of its vectors overwritten slips through."""
TOLERANCE = 1e-3
"""The largest cosine distance between a stored vector and the database's; half precision stays below it."""


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

    def write(self, record: IndexRecord) -> None:
        """Write a record after the newest."""
        self.log.write(record_to_json(record), after=self.record()[1])

    def embedded(self, snapshot: int) -> EmbeddedSnapshot:
        """Return an embedded snapshot of the index's recipe."""
        found = self.dataset.embedded_at(self.recipe.key, snapshot)
        if found is None:
            message = f"{self.spec.marker.version}@{snapshot} is not in the store any more"
            raise Retryable(Reason.SNAPSHOT_NOT_FOUND, message)
        return found

    def keys(self, embedded: EmbeddedSnapshot) -> pa.Table:
        """Return the keys of the rows that the index holds at an embedded snapshot."""
        return self.dataset.chunks(self.recipe.key).keys(embedded.chunks_version)


def build(index: Index, snapshot: int, pace: Pace) -> None:
    """Make an index hold a snapshot, whatever it holds now, and verify it by a full scan."""
    embedded = index.embedded(snapshot)
    index.backend.create(index.spec)
    if index.backend.count(index.name) == 0:
        index.backend.load(index.name, _counted(index, pace.over(_points(index, embedded)), embedded.rows))
    else:
        _converge(index, embedded, pace)
    index.backend.seal(index.name)
    _verify(index, embedded)


def follow(index: Index, snapshot: int) -> None:
    """Move a verified index to another snapshot by the difference of the two, and read back what was written."""
    record, _ = index.record()
    _require_ours(index)
    if record.cursor is None:
        raise Retryable(Reason.INDEX_DIFFERS, f"{index.name} was never complete; it is built first")
    embedded = index.embedded(snapshot)
    before, after = index.keys(index.embedded(record.cursor.snapshot)), index.keys(embedded)
    difference = changes.points(before, after)
    index.write(dataclasses.replace(record, pending=snapshot))
    # New chunks go in before old ones go out, so that no document is missing in between.
    _upsert(index, embedded, difference.upserts)
    _delete(index, difference.deletes)
    count = index.backend.count(index.name)
    wrong = _wrong_vectors(index, _sample(index, difference.upserts), after)
    cursor = rows.Cursor(snapshot, embedded.sequence)
    differences = abs(count - embedded.rows) + wrong
    index.write(
        dataclasses.replace(
            record, cursor=cursor, rows=embedded.rows, digest=embedded.digest, pending=None, differences=differences
        )
    )


def check(index: Index, snapshot: int) -> None:
    """Compare an index with its snapshot by a full scan and a sample of vectors, and write down what differs."""
    record, _ = index.record()
    _require_ours(index)
    embedded = index.embedded(snapshot)
    keys = index.keys(embedded)
    difference, count = _compare(index, keys)
    differences = len(difference.upserts) + len(difference.deletes) + abs(count - embedded.rows)
    differences += _wrong_vectors(index, _sample(index, keys["point_id"]), keys)
    index.write(dataclasses.replace(record, rows=embedded.rows, checked_at=index.now(), differences=differences))


def repair(index: Index, snapshot: int, pace: Pace) -> None:
    """Make an index equal its snapshot again, vectors included, and verify it by a full scan."""
    _require_ours(index)
    embedded = index.embedded(snapshot)
    _converge(index, embedded, pace)
    keys = index.keys(embedded)
    ids = keys["point_id"].combine_chunks()
    for start in range(0, len(ids), BATCH):
        part = ids.slice(start, BATCH)
        wrong = _wrong_ids(index, part, keys)
        if wrong:
            _upsert(index, embedded, pa.array(wrong, rows.KEY))
        index.report(min(start + BATCH, len(ids)), len(ids))
    index.backend.seal(index.name)
    _verify(index, embedded)


# What they share.


def _require_ours(index: Index) -> None:
    """Raise unless the index is there and made by us for this deployment."""
    marker = index.backend.find(index.name)
    if marker is None:
        raise Retryable(Reason.INDEX_LOST, f"index {index.name} is gone from the database")
    if marker != index.spec.marker:
        message = f"index {index.name} is marked as {marker.owner} {marker.version}, wanted {index.spec.marker.owner}"
        raise Terminal(Reason.COLLECTION_FOREIGN, message)


def _points(index: Index, embedded: EmbeddedSnapshot, documents: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a snapshot joined with their vectors, as batches of `rows.points`."""
    space = index.recipe.space
    reader = index.dataset.vectors(space.document_side, space.dimensions).reader()
    schema = rows.points(space.dimensions)
    chunks = index.dataset.chunks(index.recipe.key)
    for batch in chunks.read(embedded.chunks_version, documents, columns=list(rows.POINT_COLUMNS)):
        vectors = reader.take(batch["content_key"])
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), space.dimensions)
        columns = [batch[name] for name in rows.POINT_COLUMNS]
        yield pa.RecordBatch.from_arrays([*columns, column], schema=schema)


def _counted(index: Index, batches: Iterable[pa.RecordBatch], total: int) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in batches:
        yield batch
        done += batch.num_rows
        index.report(done, total)


def _converge(index: Index, embedded: EmbeddedSnapshot, pace: Pace) -> None:
    difference, _ = _compare(index, index.keys(embedded))
    _upsert(index, embedded, difference.upserts, pace)
    _delete(index, difference.deletes)


def _upsert(index: Index, embedded: EmbeddedSnapshot, ids: pa.Array, pace: Pace | None = None) -> None:
    if not len(ids):
        return
    keys = index.keys(embedded)
    wanted = keys.filter(pc.is_in(keys["point_id"], value_set=ids))
    documents = pc.unique(wanted["document"]).to_pylist()
    batches = _points(index, embedded, documents)
    done = 0
    for batch in pace.over(batches) if pace is not None else batches:
        chosen = batch.filter(pc.is_in(batch["point_id"], value_set=ids))
        for start in range(0, chosen.num_rows, BATCH):
            index.backend.upsert(index.name, chosen.slice(start, BATCH))
        done += chosen.num_rows
        index.report(done, len(ids))


def _delete(index: Index, ids: pa.Array) -> None:
    for start in range(0, len(ids), BATCH):
        index.backend.delete(index.name, ids.slice(start, BATCH).to_pylist())


def _compare(index: Index, keys: pa.Table) -> tuple[changes.PointChanges, int]:
    """Return what would have to be written and deleted to make the index equal the keys, and how many points it has."""
    scanned = pa.Table.from_batches(list(index.backend.scan(index.name)), schema=rows.PRESENCE)
    return changes.points(scanned, keys), scanned.num_rows


def _verify(index: Index, embedded: EmbeddedSnapshot) -> None:
    """Prove by a full scan that the index equals the snapshot, and write that down."""
    if not index.backend.is_built(index.name):
        raise Retryable(Reason.INDEX_DIFFERS, f"the database has not finished building {index.name}")
    keys = index.keys(embedded)
    difference, count = _compare(index, keys)
    wrong = _wrong_vectors(index, _sample(index, keys["point_id"]), keys)
    missing, extra = len(difference.upserts), len(difference.deletes)
    if missing or extra or wrong or not (count == embedded.rows == index.backend.count(index.name)):
        message = (
            f"{index.name} holds {count:,} rows, {embedded.rows:,} wanted; {missing:,} are missing or other, "
            f"{extra:,} are not in the snapshot, {wrong:,} of {SAMPLE:,} sampled vectors differ from the store"
        )
        raise Retryable(Reason.INDEX_DIFFERS, message)
    now = index.now()
    index.write(
        IndexRecord(
            cursor=rows.Cursor(embedded.snapshot, embedded.sequence),
            rows=embedded.rows,
            digest=embedded.digest,
            verified_at=now,
            checked_at=now,
        )
    )


def _sample(index: Index, ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return up to SAMPLE of the ids, other ones each time."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if len(ids) <= SAMPLE:
        return ids
    drawn = np.random.default_rng().choice(len(ids), SAMPLE, replace=False)
    return ids.take(pa.array(np.sort(drawn)))


def _wrong_vectors(index: Index, ids: pa.Array, keys: pa.Table) -> int:
    return len(_wrong_ids(index, ids, keys))


def _wrong_ids(index: Index, ids: pa.Array, keys: pa.Table) -> list[bytes]:
    """Return those of the ids that the database lacks, or whose vectors differ from the store's."""
    if not len(ids):
        return []
    space = index.recipe.space
    found, vectors = index.backend.fetch(index.name, ids.to_pylist())
    places = pc.index_in(pa.array(found, rows.KEY), value_set=keys["point_id"].combine_chunks())
    wanted = keys["content_key"].combine_chunks().take(places)
    stored = index.dataset.vectors(space.document_side, space.dimensions).reader().take(wanted)
    distances = 1.0 - np.einsum("ij,ij->i", vectors, stored)
    # A vector that is not a number is as wrong as one that points elsewhere.
    wrong = [point for point, distance in zip(found, distances, strict=True) if not distance <= TOLERANCE]
    return [*wrong, *(set(ids.to_pylist()) - set(found))]


class Pace:
    """Lets a bulk load yield to the queries of the index that serves.

    Once a second one query is timed on the serving index. While it takes more than three times what it took before the
    load, and at least 20 ms more, the load pauses for half a second before each batch, for a minute at most: a load
    that never ends helps nobody.
    """

    RATIO, FLOOR, PAUSE, LONGEST = 3.0, 0.02, 0.5, 60.0

    def __init__(
        self,
        probe: Callable[[], None] | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._probe, self._clock, self._sleep = probe, clock, sleep
        self.paused = 0.0
        self._last = clock()
        self._usual = min(self._timed() for _ in range(5)) if probe is not None else 0.0

    def over(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the batches, each when the serving index is at its usual speed."""
        for batch in batches:
            yield batch
            if self._probe is not None and self._clock() - self._last >= 1.0:
                self._yield()

    def _yield(self) -> None:
        waited = 0.0
        while waited < self.LONGEST and self._timed() > max(self._usual * self.RATIO, self._usual + self.FLOOR):
            self._sleep(self.PAUSE)
            waited += self.PAUSE
        self.paused += waited
        self._last = self._clock()

    def _timed(self) -> float:
        assert self._probe is not None
        start = self._clock()
        self._probe()
        return self._clock() - start
