"""One of several processes that load an index: works off its portions, from wherever it or another was killed.

Needs the store and the database, and nothing else: texts and vectors are stored, so no model is asked. A point is the
same whoever writes it, so a portion may be written twice, by one after the other or by two at once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pointsman import logs
from pointsman.api.conditions import Reason
from pointsman.core import keys, rows
from pointsman.core.recipes import Recipe
from pointsman.errors import PointsmanError, Retryable
from pointsman.ports import Backend, Marker
from pointsman.store.dataset import DatasetStore
from pointsman.store.ledger import Ledger, Run
from pointsman.work import indexing
from pointsman.work.patience import Patience
from pointsman.work.permits import Permit

log = logs.logger()


@dataclass(frozen=True, slots=True)
class Target:
    """The index that is loaded."""

    name: str
    marker: Marker
    backend: Backend
    pace: indexing.Pace


@dataclass(frozen=True, slots=True)
class Share:
    """Which share of which attempt at which run is this process's."""

    snapshot: int
    run: str
    attempt: int
    shard: int
    patience: Patience = field(default_factory=Patience)


def load_shard(dataset: DatasetStore, recipe: Recipe, target: Target, share: Share) -> None:
    """Load the portions that an attempt has dealt out to a shard, as far as they are not loaded.

    Raises Retryable(WORK_LOST) where the run was given up, Retryable(INDEX_LOST) and Terminal(COLLECTION_FOREIGN) where
    the index is not there or not ours, and what the database and the store raise.
    """
    ledger, through = dataset.load(target.name, share.snapshot), share.patience.through
    run, dealt = through(ledger.run), through(lambda: ledger.attempt(share.attempt))
    if run is None or run.id != share.run or dealt is None:
        raise Retryable(Reason.WORK_LOST, "the run was given up meanwhile; wanted it under way")
    portions = dealt.of(share.shard)
    left = through(lambda: [number for number in portions if not ledger.is_finished(number)])
    log.info(logs.Event.SHARD_STARTED, attempt=share.attempt, shard=share.shard, portions=len(portions), left=len(left))
    if not left:
        return
    permit = Permit(lambda: ledger.is_under_way(run.id, share.attempt))
    # Written down before the first look at whether the run goes on: whoever has ended it since reads the name.
    writer = through(lambda: ledger.writers.enter(share.attempt, share.shard))
    try:
        loader = through(lambda: _Loader(dataset, recipe, target, run, ledger, permit, left))
        with permit.kept():
            for number in left:
                through(functools.partial(loader.portion, number))
    finally:
        if permit.is_clean:
            # Whoever cannot say so is waited for.
            with contextlib.suppress(PointsmanError):
                ledger.writers.leave(writer)


class _Loader:
    """What the portions of one shard share."""

    def __init__(
        self,
        dataset: DatasetStore,
        recipe: Recipe,
        target: Target,
        run: Run,
        ledger: Ledger,
        permit: Permit,
        left: Sequence[int],
    ) -> None:
        self._recipe, self._target, self._run, self._ledger, self._permit = recipe, target, run, ledger, permit
        self._chunks = dataset.chunks(recipe.key)
        # The keys of its own points alone: those of a large table fit into no pod.
        own = (batch["content_key"] for number in left for batch in self._rows(number, ["content_key"]))
        found = keys.KeyIndex(pa.concat_arrays([pa.array([], rows.KEY), *own]))
        self._vectors = dataset.vectors(recipe.space.document_side, recipe.space.dimensions).reader(found)

    def portion(self, number: int) -> None:
        """Write the points of one portion, and put its record last."""
        indexing.require_ours(self._target.backend, self._target.name, self._target.marker)
        points = (
            indexing.points(self._recipe, batch, self._vectors) for batch in self._rows(number, rows.POINT_COLUMNS)
        )
        with self._permit.sending():
            written = self._target.backend.load(self._target.name, self._permit.over(self._target.pace.over(points)))
        self._ledger.load(number, written)
        log.info(logs.Event.PORTION_FINISHED, portion=number, rows=written)

    def _rows(self, number: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return self._chunks.read_at(self._run.corpus_version, self._ledger.offsets(self._run, number), columns)
