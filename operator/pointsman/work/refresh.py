"""What is in the source now, and does it become the next snapshot?

The source is read once, as a stream. Only rows that are new or changed are kept, in a file beside; of the others only
their keys are looked at. Nothing is written to the store before all rows were seen and found good.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import IO

import numpy as np
import pyarrow as pa

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.api.dataset import Surprises
from pointsman.core import digests, documents, keys, rows
from pointsman.core.recipes import Recipe
from pointsman.errors import Retryable, Terminal
from pointsman.store.dataset import DatasetStore
from pointsman.store.records import Snapshot
from pointsman.work.progress import Report

SMALLEST_SURPRISE = 10
"""Fewer documents than these may well change all at once."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh led to."""

    snapshot: Snapshot
    is_new: bool


def refresh(
    dataset: DatasetStore,
    source: ports.Source,
    surprises: Surprises,
    now: Callable[[], datetime],
    report: Report,
    recipes: Sequence[Recipe] = (),
) -> Refreshed:
    """Read the source and publish the next snapshot, or return the latest where the content is the same.

    A new or changed row that one of `recipes` cannot render refuses the snapshot. Raises what the source raises,
    Terminal(SOURCE_INVALID) with counts and positions, and Terminal(SURPRISE_HELD) with the numbers. Costs memory of
    some 60 bytes a document and the ids of the latest snapshot.
    """
    latest = dataset.latest()
    comparison = _Comparison(dataset, latest, recipes)
    with tempfile.TemporaryFile(prefix="pointsman-refresh-") as spool:
        with pa.ipc.new_stream(spool, rows.CORPUS, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            for batch in source.read():
                changed = comparison.changed(batch)
                if changed.num_rows:
                    writer.write_batch(changed)
                report(comparison.rows, latest.documents if latest else 0)
        comparison.raise_if_refused()
        if latest is not None:
            if comparison.is_same():
                return Refreshed(latest, is_new=False)
            _hold(comparison, latest, surprises)
        deleted = comparison.deleted()
        base = latest.corpus_version if latest else None
        version = dataset.corpus.write(base, deleted, _batches(spool))
    # Read back, so that the digest is of what is stored and not of what was meant to be.
    stored = dataset.corpus.keys(version)
    if stored.num_rows != comparison.rows:
        raise Retryable(
            Reason.STORE_UNREACHABLE,
            f"the corpus holds {stored.num_rows:,} documents after writing {comparison.rows:,}; writing it again",
        )
    snapshot = Snapshot(
        number=latest.number + 1 if latest else 1,
        sequence=comparison.sequence,
        corpus_version=version,
        documents=comparison.rows,
        digest=digests.Digest.of_documents(stored).hex(),
        added=comparison.added,
        deleted=len(deleted),
        edited=comparison.edited,
        unchanged=comparison.rows - comparison.added - comparison.edited,
        created_at=now(),
    )
    dataset.publish(snapshot)
    return Refreshed(snapshot, is_new=True)


class _Comparison:
    """Compares the rows of the source, batch by batch, with the latest snapshot."""

    def __init__(self, dataset: DatasetStore, latest: Snapshot | None, recipes: Sequence[Recipe]) -> None:
        known = dataset.corpus.keys(latest.corpus_version) if latest else rows.CORPUS.empty_table()
        self._ids = known["id"]
        self._index = keys.KeyIndex(digests.text_digests(self._ids))
        self._digests = keys.words(known["digest"])
        self._is_seen = np.zeros(len(self._ids), dtype=bool)
        self._keys: list[keys.Words] = []
        self._refusals = documents.Refusals()
        # Recipes that differ in model or cutting alone render alike.
        distinct = {(recipe.template, recipe.metadata_fields): recipe for recipe in recipes}
        self._renderers = [documents.renderer(recipe) for recipe in distinct.values()]
        self.sequence = latest.sequence + 1 if latest else 1
        self.rows = self.added = self.edited = 0

    def changed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Take the next rows of the source; return those that are new or changed, as `rows.CORPUS`."""
        ids = digests.text_digests(batch.column("id"))
        content = digests.text_digests(batch.column("fields"))
        positions = self._index.positions(ids)
        is_new = positions < 0
        is_edited = ~is_new
        is_edited[~is_new] = (self._digests[positions[~is_new]] != keys.words(content)[~is_new]).any(axis=1)
        self._is_seen[positions[~is_new]] = True
        self._keys.append(keys.words(ids).copy())
        self.added += int(is_new.sum())
        self.edited += int(is_edited.sum())
        wanted = np.flatnonzero(is_new | is_edited)
        fields = batch.column("fields").take(pa.array(wanted))
        self._check(fields, wanted + self.rows + 1)
        self.rows += batch.num_rows
        columns = [batch.column("id"), batch.column("fields"), content]
        return pa.RecordBatch.from_arrays(
            [
                *(column.take(pa.array(wanted)) for column in columns),
                pa.array(np.full(len(wanted), self.sequence, dtype=np.int64)),
            ],
            schema=rows.CORPUS,
        )

    def raise_if_refused(self) -> None:
        """Raise Terminal(SOURCE_INVALID) for duplicate ids and for rows that a recipe cannot render."""
        for number in self._duplicates():
            self._refusals.add("with the id of an earlier row", number=int(number) + 1)
        self._refusals.raise_if_any(self.rows)

    def is_same(self) -> bool:
        """Whether the source holds what the latest snapshot holds."""
        return not self.added and not self.edited and bool(self._is_seen.all())

    def deleted(self) -> pa.Array:
        """Return the ids of the latest snapshot that the source has no more."""
        found = self._ids.filter(pa.array(~self._is_seen))
        return found.combine_chunks() if found.num_chunks != 1 else found.chunk(0)

    @property
    def deletions(self) -> int:
        """How many documents the source has no more."""
        return int(np.count_nonzero(~self._is_seen))

    def _check(self, fields: pa.Array, numbers: keys.Positions) -> None:
        if not self._renderers:
            return
        for number, value in zip(numbers, fields.to_pylist(), strict=True):
            try:
                for render in self._renderers:
                    render(value)
            except documents.Refused as refused:
                self._refusals.add(str(refused), number=int(number))

    def _duplicates(self) -> keys.Positions:
        """Return the rows, from 0, whose id an earlier row has."""
        words = np.concatenate(self._keys) if self._keys else np.empty((0, 2), dtype=np.uint64)
        order = np.lexsort((words[:, 1], words[:, 0]))
        # The sort is stable, so of equal keys the earliest row comes first and is the one that stays.
        is_again = (words[order[1:]] == words[order[:-1]]).all(axis=1)
        found: keys.Positions = np.sort(order[1:][is_again])
        return found


def _hold(comparison: _Comparison, latest: Snapshot, surprises: Surprises) -> None:
    """Raise Terminal(SURPRISE_HELD) where the change is larger than the spec lets through unasked."""
    deleted, limit = comparison.deletions, Decimal(surprises.deleted_share_above)
    if deleted > limit * latest.documents:
        raise Terminal(
            Reason.SURPRISE_HELD,
            f"{deleted:,} of {latest.documents:,} documents would be deleted "
            f"({100 * deleted / latest.documents:.0f} %), "
            f"surprises.deletedShareAbove is {surprises.deleted_share_above}; "
            f"snapshot {latest.number} stays current; raise the limit to let it through",
        )
    remaining = latest.documents - deleted
    if surprises.everything_updated == "Hold" and comparison.edited == remaining and remaining >= SMALLEST_SURPRISE:
        raise Terminal(
            Reason.SURPRISE_HELD,
            f"all {remaining:,} documents that were there have changed at once, surprises.everythingUpdated is Hold; "
            f"snapshot {latest.number} stays current; set it to Allow to let it through",
        )


def _batches(spool: IO[bytes]) -> Iterator[pa.RecordBatch]:
    spool.seek(0)
    with pa.ipc.open_stream(spool) as reader:
        yield from reader
