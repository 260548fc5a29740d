"""What does a snapshot look like to one recipe, and which of its texts still need a vector?

Made as a difference from the nearest earlier snapshot of the same recipe: documents that did not change keep their
chunks, and texts that ever had a vector on this document side keep it. The record comes last; whatever kills us before
it, the next call ends with the same rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from pointsman import ports
from pointsman.api.conditions import Reason
from pointsman.api.dataset import Cause
from pointsman.core import changes, digests, drift, rows
from pointsman.core.recipes import Recipe
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.store.dataset import GRACE, DatasetStore
from pointsman.store.records import EmbeddedSnapshot, Snapshot
from pointsman.work import cutting, pipeline
from pointsman.work.progress import Report

_KEY_COLUMNS = [name for name in rows.CHUNKS.names if name not in ("text", "metadata", "sequence")]
_KEY_ROWS = 65_536


def embed(
    dataset: DatasetStore,
    version: str,
    recipe: Recipe,
    number: int,
    embedder: ports.Embedder,
    now: Callable[[], datetime],
    report: Report,
) -> EmbeddedSnapshot:
    """Embed a snapshot by a recipe, publish its record and return it; at once where it is there already.

    Reports texts. Raises Terminal(SNAPSHOT_NOT_FOUND), Terminal(MODEL_CHANGED) with the distance where the pinned texts
    moved, Terminal(MODEL_INVALID), Terminal(SOURCE_INVALID) where the recipe cannot render some documents, and what
    the embedder and the store raise.
    """
    done = dataset.embedded_at(recipe.key, number)
    if done is not None:
        return done
    snapshot = dataset.snapshot(number)
    if snapshot is None:
        raise Terminal(Reason.SNAPSHOT_NOT_FOUND, f"snapshot {number} does not exist or was cleaned up")
    cutter = cutting.Cutter(recipe)
    check_model(dataset, recipe, embedder)
    before = ports.spent(embedder)
    base, difference = difference_of(dataset, recipe, snapshot)
    chunks = dataset.chunks(recipe.key)
    vectors = pipeline.Vectors(dataset.vectors(recipe.space.document_side, recipe.space.dimensions))
    total = len(difference.added) + len(difference.edited)
    changed = pa.concat_arrays([difference.added, difference.edited]) if base else None

    def produce(offer: Callable[[pipeline.Wanted], None]) -> int:
        corpus = dataset.corpus.read(snapshot.corpus_version, changed)
        # Edited documents are replaced by having new chunks.
        return chunks.write(
            base.chunks_version if base else None, difference.deleted, offered(cutter.cut(corpus), offer)
        )

    def offered(
        cut: Iterator[tuple[int, pa.RecordBatch]], offer: Callable[[pipeline.Wanted], None]
    ) -> Iterator[pa.RecordBatch]:
        for documents, batch in cut:
            offer(vectors.claim(documents, batch))
            yield batch

    seen_documents = seen_rows = 0
    with (
        pipeline.Embedding(vectors, recipe, embedder, snapshot.sequence, now) as embedding,
        pipeline.Supply(produce) as supply,
    ):
        for wanted in supply:
            embedding.add(wanted)
            seen_documents += wanted.documents
            seen_rows += wanted.rows
            # How many texts there will be is not known before the last document was cut.
            report(seen_rows - embedding.waiting, round(seen_rows * total / seen_documents))
        embedding.finish()
        chunks_version = supply.result()
    report(seen_rows, seen_rows)
    record = record_of(dataset, version, recipe, snapshot, base, chunks_version, embedder.identity())
    spent = ports.spent(embedder).since(before)
    record = dataclasses.replace(
        record,
        embedded=embedding.embedded,
        reused=record.rows - embedding.embedded,
        tokens=spent.tokens,
        tokens_stated=spent.stated,
        created_at=now(),
    )
    dataset.publish_embedded(record)
    if record.embedded:
        dataset.vectors(recipe.space.document_side, recipe.space.dimensions).clean(GRACE)
    return record


class ProbesRefused(Terminal):
    """The model refuses texts of ours: what is wrong is not wrong with documents."""

    def __init__(self, answer: PointsmanError) -> None:
        super().__init__(
            answer.reason, f"{answer.message}; these are the pinned texts, so no document would fare better"
        )


def check_model(dataset: DatasetStore, recipe: Recipe, embedder: ports.Embedder) -> None:
    """Raise Terminal(MODEL_CHANGED) where the model's vectors of the pinned texts are not those of the first day."""
    moved = distance(dataset, recipe, embedder)
    if moved > drift.LIMIT:
        raise Terminal(
            Reason.MODEL_CHANGED,
            f"{recipe.space.model} moved the pinned texts by a cosine distance of {moved:.3f}, {drift.LIMIT} is "
            "allowed; bring the old model back, or declare a new version for the new one",
        )


def distance(dataset: DatasetStore, recipe: Recipe, embedder: ports.Embedder) -> float:
    """Return how far the model's vectors of the pinned texts have moved since the first day: a cosine distance, 0 to 2.

    Raises Terminal(MODEL_CHANGED) where the model itself says that it is another one, ProbesRefused where it refuses.
    """
    space = recipe.space
    try:
        now = pipeline.embedded(embedder, recipe, list(drift.PROBES))
    except Terminal as error:
        if error.reason is not Reason.MODEL_REJECTED:
            raise
        raise ProbesRefused(error) from error
    revision = embedder.identity().revision
    if revision != space.revision:
        raise Terminal(
            Reason.MODEL_CHANGED,
            f"{space.model} answers as revision {revision or 'unknown'}, "
            f"the recipe wants {space.revision or 'unknown'}; declare a new version for it",
        )
    # Pinned under the same name as the vectors are stored, so that whoever adds to those is compared with them.
    return drift.distance(dataset.pin_probes(space.document_side, now), now)


def difference_of(
    dataset: DatasetStore, recipe: Recipe, snapshot: Snapshot
) -> tuple[EmbeddedSnapshot | None, changes.DocumentChanges]:
    """Return the nearest earlier record of the recipe, or None, and what changed in the documents since."""
    record, new = before(dataset, recipe, snapshot), dataset.corpus.keys(snapshot.corpus_version)
    old = None if record is None else dataset.snapshot(record.snapshot)
    return record, changes.documents(None if old is None else dataset.corpus.keys(old.corpus_version), new)


def before(dataset: DatasetStore, recipe: Recipe, snapshot: Snapshot) -> EmbeddedSnapshot | None:
    """Return the record of the nearest earlier snapshot that is kept and embedded by the recipe, or None."""
    found = (record for record in reversed(dataset.embedded(recipe.key)) if record.snapshot < snapshot.number)
    return next((record for record in found if dataset.snapshot(record.snapshot) is not None), None)


def record_of(
    dataset: DatasetStore,
    version: str,
    recipe: Recipe,
    snapshot: Snapshot,
    base: EmbeddedSnapshot | None,
    chunks_version: int,
    identity: ports.Identity,
) -> EmbeddedSnapshot:
    """Return the record of what is stored, read back; raises Retryable where a row lacks its document or vector."""
    chunks = dataset.chunks(recipe.key)
    vectors = dataset.vectors(recipe.space.document_side, recipe.space.dimensions)
    digest, count, documents, missing, firsts = digests.Digest(), 0, 0, 0, list[pa.RecordBatch]()
    # A part at a time: all keys of a large snapshot at once would need more memory than all else here.
    for batch in chunks.read(chunks_version, columns=_KEY_COLUMNS, batch_rows=_KEY_ROWS):
        digest += digests.Digest.of(batch)
        missing += len(vectors.missing(batch.column("content_key")))
        first = _firsts(batch)
        documents += first.num_rows
        count += batch.num_rows
        if base is not None:
            firsts.append(first)
    if missing or documents != snapshot.documents:
        raise Retryable(
            Reason.STORE_UNREACHABLE,
            f"the store holds rows of {documents:,} documents and lacks {missing:,} vectors, "
            f"wanted {snapshot.documents:,} and none; writing them again",
        )
    counts = {cause: documents if cause is Cause.ADDED else 0 for cause in Cause}
    if base is not None:
        read = chunks.read(base.chunks_version, columns=_KEY_COLUMNS, batch_rows=_KEY_ROWS)
        old = _table([_firsts(batch) for batch in read])
        counts = changes.chunks(old, _table(firsts), same_space=True).counts
    return EmbeddedSnapshot(
        version=version,
        recipe=recipe.key,
        space=recipe.space.key,
        snapshot=snapshot.number,
        sequence=snapshot.sequence,
        chunks_version=chunks_version,
        documents=documents,
        rows=count,
        digest=digest.hex(recipe.key),
        changes={str(cause): changed for cause, changed in counts.items()},
        embedded=0,
        reused=0,
        tokens=0,
        model=identity.name,
        revision=identity.revision,
        created_at=snapshot.created_at,
    )


def _firsts(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows that stand for their documents: the first chunk of each."""
    return batch.filter(pc.equal(batch.column("ordinal"), 0))


def _table(batches: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches, schema=pa.schema([rows.CHUNKS.field(name) for name in _KEY_COLUMNS]))
