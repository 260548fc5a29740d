"""One of several processes that embed a snapshot: works off its portions, from wherever it or another was killed.

Needs the store and the model, and nothing else. What the model has answered is kept within a quarter of a second; what
is kept is never asked for again, in this process or the next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import pyarrow as pa

from pointsman import logs, ports
from pointsman.api.conditions import Reason
from pointsman.core import keys, rows
from pointsman.core.recipes import Recipe
from pointsman.errors import Retryable, Terminal
from pointsman.store.dataset import DatasetStore
from pointsman.store.ledger import Ledger, Portion, Run
from pointsman.store.tables import Part
from pointsman.work import cutting, embed, pipeline
from pointsman.work.patience import Patience

SPILL_SECONDS = 0.25
"""How old finished vectors may become before they are kept: what a kill may cost, weighed against four writes a second
of each shard."""
FEW_VECTORS = 4_000_000
"""Up to so many stored vectors a shard reads all of their keys, 128 MB of them; of more only its own, which costs
cutting its documents once more."""
OF_DOCUMENTS = (Reason.SOURCE_INVALID, Reason.MODEL_REJECTED)
"""What is wrong with some documents, and not with the others."""

BROKEN_DOCUMENTS, BROKEN_SETTING, EVICTED = 20, 21, 143
"""Exit codes: some documents cannot be embedded, none can, and the pod was told to end, which is nobody's fault."""

log = logs.logger()


def embed_shard(
    dataset: DatasetStore,
    recipe: Recipe,
    snapshot: int,
    attempt: int,
    shard: int,
    embedder: ports.Embedder,
    now: Callable[[], datetime],
    patience: Patience | None = None,
) -> None:
    """Finish the portions that an attempt has dealt out to a shard, as far as they are not finished.

    Raises Terminal(SOURCE_INVALID, MODEL_REJECTED) for documents that are broken, once all others are embedded;
    Retryable(WORK_LOST) where the run was given up; what the embedder raises, and what the store goes on raising.
    """
    ledger, through = dataset.ledger(recipe.key, snapshot), (patience or Patience()).through
    run, dealt = through(ledger.run), through(lambda: ledger.attempt(attempt))
    if run is None or dealt is None:
        raise Retryable(Reason.WORK_LOST, "the run was given up meanwhile; wanted it under way")
    portions = dealt.of(shard)
    left = through(lambda: [number for number in portions if not ledger.is_finished(number)])
    log.info(logs.Event.SHARD_STARTED, attempt=attempt, shard=shard, portions=len(portions), left=len(left))
    if not left:
        return
    through(lambda: embed.check_model(dataset, recipe, embedder))
    shared = _Shard(dataset, recipe, run, ledger, embedder, now)
    through(lambda: shared.learn([number for number in portions if number not in left], left))
    broken: list[Terminal] = []
    for number in left:
        try:
            through(functools.partial(shared.portion, number))
        except Terminal as error:
            if error.reason not in OF_DOCUMENTS:
                raise
            broken.append(error)
    if broken:
        more = f" (and in {len(broken) - 1:,} more portions)" if len(broken) > 1 else ""
        raise Terminal(broken[0].reason, f"{broken[0].message}{more}")


class _Spills:
    """The vectors of one portion, as the pipeline stores them: each batch is kept at once."""

    def __init__(self, ledger: Ledger, portion: int, known: keys.KeySet) -> None:
        self._ledger, self._portion, self._known = ledger, portion, known
        self.count = 0
        for batch in ledger.spills(portion):
            known.add(batch.column("content_key"))
            self.count += batch.num_rows

    def missing(self, content_keys: pa.Array) -> pa.Array:
        """Return the distinct keys, in order, that have no vector yet."""
        return self._known.missing(content_keys)

    def append(self, batch: pa.RecordBatch) -> None:
        """Keep a finished batch."""
        self._ledger.spill(self._portion, batch)
        self._known.add(batch.column("content_key"))
        self.count += batch.num_rows


class _Shard:
    """What the portions of one shard share."""

    def __init__(
        self,
        dataset: DatasetStore,
        recipe: Recipe,
        run: Run,
        ledger: Ledger,
        embedder: ports.Embedder,
        now: Callable[[], datetime],
    ) -> None:
        self._dataset, self._recipe, self._run, self._ledger = dataset, recipe, run, ledger
        self._embedder, self._now = embedder, now
        self._chunks = dataset.chunks(recipe.key)
        self._vectors = dataset.vectors(recipe.space.document_side, recipe.space.dimensions)
        self._known = keys.KeySet()
        self._told = ports.spent(embedder)

    def learn(self, finished: Sequence[int], left: Sequence[int]) -> None:
        """Learn which texts have a vector: those of the table, and those of this shard's finished portions."""
        stored = self._vectors.rows()
        if 0 < stored <= FEW_VECTORS:
            self._known = keys.KeySet(self._vectors.index())
        elif stored:
            # Each text once, where it is asked for: the keys of a large table fit into no pod.
            own = keys.KeyIndex(pa.concat_arrays([pa.array([], rows.KEY), *self._own_keys(left)]))
            self._known = keys.KeySet(keys.KeyIndex(own.keys.filter(pa.array(self._vectors.among(own)))))
        for number in finished:
            self._known.add(self._ledger.keys(number))

    def _own_keys(self, left: Sequence[int]) -> Iterator[pa.Array]:
        cutter = cutting.Cutter(self._recipe, refuses=False)
        for number in left:
            for _, batch in cutter.cut(self._documents(number)):
                yield batch.column("content_key")

    def portion(self, number: int) -> None:
        """Cut, embed and write one portion, and put its record last."""
        spills = _Spills(self._ledger, number, self._known)
        vectors, cutter = pipeline.Vectors(spills), cutting.Cutter(self._recipe)
        counted = _Counted()

        def produce(offer: Callable[[pipeline.Wanted], None]) -> list[Part]:
            return self._chunks.write_apart(offered(cutter.cut(self._documents(number)), offer))

        def offered(
            cut: Iterator[tuple[int, pa.RecordBatch]], offer: Callable[[pipeline.Wanted], None]
        ) -> Iterator[pa.RecordBatch]:
            for documents, batch in cut:
                offer(vectors.claim(documents, batch))
                yield batch

        with (
            pipeline.Embedding(
                vectors, self._recipe, self._embedder, self._run.sequence, self._now, SPILL_SECONDS
            ) as embedding,
            pipeline.Supply(produce) as supply,
        ):
            for wanted in supply:
                embedding.add(wanted)
                counted.add(wanted)
            embedding.finish()
            chunks = supply.result()
        written = _Written(self._ledger.spills(number))
        # What an attempt before had spent is a portion's too; of a process that was killed nobody knows.
        identity, spent = self._embedder.identity(), ports.spent(self._embedder)
        cost = spent.since(self._told)
        found = Portion(
            documents=counted.documents,
            rows=counted.rows,
            tokens=cost.tokens,
            tokens_stated=cost.stated,
            vectors=tuple(self._vectors.write_apart(iter(written)) if spills.count else ()),
            embedded=written.count,
            chunks=tuple(chunks),
            model=identity.name,
            revision=identity.revision,
        )
        if not self._ledger.finish(number, found, written.keys()):
            # Another process has finished it: a node that had fallen silent came back.
            self._chunks.discard(chunks)
            self._vectors.discard(found.vectors)
        else:
            self._told = spent
        log.info(logs.Event.PORTION_FINISHED, portion=number, rows=found.rows, embedded=found.embedded)

    def _documents(self, number: int) -> Iterator[pa.RecordBatch]:
        return self._dataset.corpus.read_at(self._run.corpus_version, self._ledger.offsets(self._run, number))


class _Counted:
    """What went through a portion."""

    def __init__(self) -> None:
        self.documents = self.rows = 0

    def add(self, wanted: pipeline.Wanted) -> None:
        self.documents += wanted.documents
        self.rows += wanted.rows


class _Written:
    """Kept batches on their way to a file, each key once: two processes may have kept the same."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._seen = keys.KeySet()
        self._keys: list[pa.Array] = []
        self.count = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            found = keys.array(batch.column("content_key"))
            new = batch.filter(pa.array(~self._seen.contains(found) & ~keys.repeated(found)))
            self._seen.add(new.column("content_key"))
            self._keys.append(new.column("content_key"))
            self.count += new.num_rows
            if new.num_rows:
                yield new

    def keys(self) -> pa.Array:
        """Return the keys that were written."""
        return pa.concat_arrays([pa.array([], rows.KEY), *self._keys])
