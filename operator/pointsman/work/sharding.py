"""How is a snapshot embedded by several processes: divided into portions, and published once all of them are done?

Both ends are for one process, which holds the dataset; what lies between is in `shard`, for any number. What was
finished for a run that nobody wants any more is taken in all the same: it was paid for, and its vectors will do.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

import numpy as np
import pyarrow as pa

from pointsman.api.conditions import Reason
from pointsman.core import changes, keys
from pointsman.core.recipes import Recipe
from pointsman.errors import Retryable, Terminal
from pointsman.ports import Identity
from pointsman.store import tables
from pointsman.store.dataset import GRACE, DatasetStore
from pointsman.store.ledger import Ledger, Portion, Run
from pointsman.store.records import EmbeddedSnapshot, Snapshot
from pointsman.store.tables import Offsets, Part
from pointsman.work import cutting, embed

PORTION_ROWS = 16_384
"""About how many rows a portion has: few enough that a killed shard cuts little anew, enough to be worth a file."""
MOST_PORTIONS = 8_192
"""Of a run: each is two files, two small objects, and an entry in what every reader of the table reads."""
PER_SHARD = 4
"""Portions that each shard has at least, where there are documents enough, so that none waits long for the last."""
LEAST_DOCUMENTS = 16
_SAMPLE = 256
# Characters to a token, of which a chunk has so many: for a guess at the rows of a document and nothing else.
_CHARACTERS = 4


def begin(dataset: DatasetStore, recipe: Recipe, number: int, shards: int) -> Run:
    """Divide a snapshot unless it is divided already, and return how.

    Raises Terminal(SNAPSHOT_NOT_FOUND), and what the chunker of the recipe raises.
    """
    ledger = dataset.ledger(recipe.key, number)
    found = ledger.run()
    if found is not None:
        return found
    cutting.Cutter(recipe)
    snapshot = _snapshot(dataset, number)
    abandon(dataset, recipe)
    before, offsets = embed.before(dataset, recipe, snapshot), None
    if before is not None:
        difference = embed.difference_of(dataset, recipe, snapshot)[1]
        changed = pa.concat_arrays([difference.added, difference.edited])
        offsets = dataset.corpus.positions(snapshot.corpus_version, changed)
    documents = snapshot.documents if offsets is None else len(offsets)
    sample = np.arange(min(_SAMPLE, documents)) if offsets is None else offsets[:_SAMPLE]
    run = Run(
        snapshot=number,
        sequence=snapshot.sequence,
        corpus_version=snapshot.corpus_version,
        base=None if before is None else before.snapshot,
        documents=documents,
        per_portion=_per_portion(dataset, recipe, snapshot, sample, documents, shards),
        is_whole=offsets is None,
        id=uuid.uuid4().hex,
    )
    return ledger.begin(run, offsets)


def finish(
    dataset: DatasetStore, version: str, recipe: Recipe, number: int, now: Callable[[], datetime]
) -> EmbeddedSnapshot:
    """Take in what the shards have written, in one commit a table, publish the snapshot's record, and return it.

    Raises Retryable(WORK_LOST) where a portion is not finished or what it names is gone: it is dealt out again.
    """
    ledger = dataset.ledger(recipe.key, number)
    done = dataset.embedded_at(recipe.key, number)
    if done is not None:
        ledger.forget()
        return done
    run, finished, snapshot = ledger.run(), ledger.finished(), _snapshot(dataset, number)
    if run is None or finished.keys() != set(range(run.portions)):
        wanted = "all of them" if run is None else f"{run.portions:,}"
        raise Retryable(Reason.WORK_LOST, f"{len(finished):,} portions are finished, wanted {wanted}; going on")
    before = None if run.base is None else dataset.embedded_at(recipe.key, run.base)
    old = None if run.base is None else dataset.snapshot(run.base)
    if run.base is not None and (before is None or old is None):
        abandon(dataset, recipe)
        raise Retryable(Reason.WORK_LOST, f"snapshot {run.base} was cleaned up meanwhile; dividing {number} anew")
    _take_in(dataset, recipe, ledger, finished)
    chunks, parts = dataset.chunks(recipe.key), [part for n in sorted(finished) for part in finished[n].chunks]
    _require(ledger, {n: portion.chunks for n, portion in finished.items()}, chunks.files())
    gone = pa.array([], pa.string())
    if old is not None:
        # From what the run was divided by: since then a nearer snapshot may have been embedded.
        earlier, later = (dataset.corpus.keys(each.corpus_version) for each in (old, snapshot))
        difference = changes.documents(earlier, later)
        gone = pa.concat_arrays([difference.deleted, difference.edited])
    written = chunks.write_by(None if before is None else before.chunks_version, gone, parts)
    named = next((portion for portion in finished.values() if portion.model), None)
    space = recipe.space
    identity = Identity(
        space.model if named is None else named.model,
        space.revision if named is None else named.revision,
        space.dimensions,
    )
    try:
        record = embed.record_of(dataset, version, recipe, snapshot, before, written, identity)
    except Retryable:
        # Vectors that the shards found stored were cleaned up since. All that is new is taken in: beginning anew costs
        # the cutting, and embeds what is missing.
        ledger.forget()
        raise
    embedded = sum(portion.embedded for portion in finished.values())
    record = dataclasses.replace(
        record,
        embedded=embedded,
        reused=max(0, record.rows - embedded),
        tokens=sum(portion.tokens for portion in finished.values()),
        tokens_stated=sum(portion.tokens_stated for portion in finished.values()),
        created_at=now(),
    )
    dataset.publish_embedded(record)
    ledger.forget()
    if record.embedded:
        dataset.vectors(space.document_side, space.dimensions).clean(GRACE)
    return record


def abandon(dataset: DatasetStore, recipe: Recipe) -> None:
    """End all runs of a recipe: keep the vectors that are finished, and remove the rest.

    Nobody may be at work on them. Holds the dataset for writing.
    """
    for key, number in dataset.runs():
        if key == recipe.key:
            _end(dataset, recipe, number)


def clean(dataset: DatasetStore, recipes: Collection[str]) -> None:
    """End the runs that no snapshot will come of: of other recipes, of snapshots that are gone, or published."""
    pinned = {recipe.key: recipe for recipe in dataset.pins().values()}
    for key, number in dataset.runs():
        is_wanted = key in recipes and dataset.snapshot(number) is not None
        if key in pinned and (not is_wanted or dataset.embedded_at(key, number) is not None):
            _end(dataset, pinned[key], number)


def _end(dataset: DatasetStore, recipe: Recipe, number: int) -> None:
    whole = dataset.ledger(recipe.key, number)
    for ledger in whole.runs() if dataset.embedded_at(recipe.key, number) is None else ():
        finished = ledger.finished()
        _take_in(dataset, recipe, ledger, finished)
        vectors = dataset.vectors(recipe.space.document_side, recipe.space.dimensions)
        for portion in ledger.spilled():
            for batch in ledger.spills(portion):
                vectors.append(batch)
        dataset.chunks(recipe.key).discard([part for portion in finished.values() for part in portion.chunks])
        vectors.discard([part for portion in finished.values() for part in portion.vectors])
    whole.forget()


def _take_in(dataset: DatasetStore, recipe: Recipe, ledger: Ledger, finished: Mapping[int, Portion]) -> None:
    """Add the vectors of finished portions that the table lacks, in one commit, each key once in the end."""
    vectors = dataset.vectors(recipe.space.document_side, recipe.space.dimensions)
    new: list[pa.Array] = []
    wanted: dict[int, tuple[Part, ...]] = {}
    is_once = True
    for number, portion in sorted(finished.items()):
        if portion.vectors:
            found = ledger.keys(number, portion)
            missing = vectors.missing(found)
            if len(missing):
                is_once &= len(missing) == len(found)
                wanted[number] = portion.vectors
                new.append(found)
    there = vectors.files() if wanted else set()
    if wanted:
        if not is_once or keys.any_repeated(new):
            # Known before, as afterwards nothing tells: whoever is killed in between finds all keys stored.
            ledger.doubt()
        is_there = {number: tables.files(parts) <= there for number, parts in wanted.items()}
        vectors.take_in([part for number, parts in wanted.items() if is_there[number] for part in parts])
    if ledger.is_in_doubt():
        vectors.keep_first()
        ledger.settle()
    _require(ledger, wanted, there)


def _require(ledger: Ledger, wanted: Mapping[int, tuple[Part, ...]], there: Collection[str]) -> None:
    """Take back those portions whose files are gone, such as by a clean-up of what no version knows."""
    lost = [number for number, parts in wanted.items() if not tables.files(parts) <= set(there)]
    for number in lost:
        ledger.void(number)
    if lost:
        raise Retryable(
            Reason.WORK_LOST, f"the files of {len(lost):,} portions are not in the store; they are made again"
        )


def _snapshot(dataset: DatasetStore, number: int) -> Snapshot:
    found = dataset.snapshot(number)
    if found is None:
        raise Terminal(Reason.SNAPSHOT_NOT_FOUND, f"snapshot {number} does not exist or was cleaned up")
    return found


def _per_portion(
    dataset: DatasetStore, recipe: Recipe, snapshot: Snapshot, sample: Offsets, documents: int, shards: int
) -> int:
    """Return how many documents a portion has, by the length of some of them."""
    batches = list(dataset.corpus.read_at(snapshot.corpus_version, sample))
    characters = sum(len(text) for batch in batches for text in batch.column("fields").to_pylist())
    pieces = max(1.0, characters / max(1, len(sample)) / (recipe.chunker.max_tokens * _CHARACTERS))
    by_rows = int(PORTION_ROWS / pieces)
    by_shards = documents // (shards * PER_SHARD)
    return max(LEAST_DOCUMENTS, min(by_rows, by_shards), -(-documents // MOST_PORTIONS))
