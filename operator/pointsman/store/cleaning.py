"""What of a dataset may go: snapshots, their versions of tables, recipes, and vectors that nothing refers to.

Records go first and what they name after, so a clean-up that dies anywhere leaves no record that names what is gone,
and the next one finishes it. Kept whatever is asked:

- the newest snapshot;
- of every recipe that stays its newest embedded snapshot, and the snapshot that it embeds, since the next one is
  made as the difference from it;
- the vectors of a document side while a recipe that stays has yet to embed the newest snapshot, since some of them
  may be finished batches of that work.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman.api.conditions import Reason
from pointsman.core import keys
from pointsman.errors import Retryable
from pointsman.store.layout import Layout
from pointsman.store.records import EmbeddedSnapshot

if TYPE_CHECKING:
    from pointsman.store.dataset import DatasetStore


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a clean-up removed."""

    snapshots: tuple[int, ...] = ()
    recipes: tuple[str, ...] = ()
    """Recipes whose rows are gone."""
    vectors: int = 0
    bytes: int = 0
    """What came free in the tables that stay."""


@dataclass(frozen=True, slots=True)
class _Doomed:
    """What goes, and what stays, decided from the records alone."""

    newest: int
    snapshots: tuple[int, ...]
    records: tuple[EmbeddedSnapshot, ...]
    recipes: tuple[str, ...]
    stays: dict[str, list[EmbeddedSnapshot]]

    @property
    def is_anything(self) -> bool:
        return bool(self.snapshots or self.records or self.recipes)


def clean(dataset: DatasetStore, layout: Layout, keep: set[int], recipes: set[str], grace: timedelta) -> Cleaned:
    """Remove what is not kept. The caller holds the dataset."""
    doomed = _doomed(dataset, layout, keep, recipes)
    marker = f"{layout.root}/cleaning.json"
    # Vectors are looked through only after something went, which the next clean-up must know if this one dies.
    is_marked = not doomed.is_anything or _marked(layout, marker)
    for record in doomed.records:
        layout.objects.delete(layout.embedded(record.recipe, record.snapshot))
    for number in doomed.snapshots:
        layout.objects.delete(layout.snapshot(number))
    if not is_marked:
        layout.objects.create(marker, b"{}")
    freed = layout.corpus().clean({snapshot.corpus_version for snapshot in dataset.snapshots()}, grace)
    for recipe in doomed.recipes:
        layout.objects.delete_tree(f"{layout.root}/chunks/{recipe}.lance")
    for recipe in layout.tables("chunks"):
        freed += layout.chunks(recipe).clean({record.chunks_version for record in doomed.stays[recipe]}, grace)
    is_due = layout.objects.get(marker) is not None
    vectors, is_finished = _clean_vectors(dataset, layout, recipes, doomed, is_due)
    if is_due and is_finished:
        layout.objects.delete(marker)
    for side in layout.tables("vectors"):
        table = layout.vectors(side, 1)
        table.compact()
        freed += table.clean(set(), grace)
    return Cleaned(snapshots=doomed.snapshots, recipes=doomed.recipes, vectors=vectors, bytes=freed)


def _marked(layout: Layout, marker: str) -> bool:
    """Leave a mark that something goes; return False where there is no room for it: the records make some."""
    try:
        layout.objects.create(marker, b"{}")
    except Retryable as error:
        if error.reason is not Reason.STORE_FULL:
            raise
        return False
    return True


def _doomed(dataset: DatasetStore, layout: Layout, keep: set[int], recipes: set[str]) -> _Doomed:
    embedded = dataset.embedded_by_recipe()
    numbers = layout.numbers("snapshots")
    needed = keep | set(numbers[-1:])
    needed |= {found[-1].snapshot for recipe, found in embedded.items() if recipe in recipes and found}
    stays = {recipe: [r for r in embedded.get(recipe, []) if r.snapshot in needed] for recipe in recipes}
    return _Doomed(
        newest=max(numbers, default=0),
        snapshots=tuple(number for number in numbers if number not in needed),
        records=tuple(r for recipe, found in embedded.items() for r in found if r not in stays.get(recipe, [])),
        recipes=tuple(recipe for recipe in layout.tables("chunks") if recipe not in recipes),
        stays=stays,
    )


def _clean_vectors(
    dataset: DatasetStore, layout: Layout, recipes: set[str], doomed: _Doomed, is_due: bool
) -> tuple[int, bool]:
    """Remove the vectors that nothing refers to; return how many, and whether every table could be looked through."""
    pinned = {recipe.key: recipe.space.document_side for recipe in dataset.pins().values()}
    if not recipes <= pinned.keys():
        # Whose vectors an unpinned recipe uses is not known, so all stay.
        return 0, False
    removed, is_finished = 0, True
    for side in layout.tables("vectors"):
        users = sorted(recipe for recipe in recipes if pinned[recipe] == side)
        if not users:
            layout.objects.delete_tree(f"{layout.root}/vectors/{side}.lance")
        elif not all(doomed.newest in {record.snapshot for record in doomed.stays[recipe]} for recipe in users):
            is_finished = False
        elif is_due:
            records = [record for recipe in users for record in doomed.stays[recipe]]
            removed += layout.vectors(side, 1).keep("content_key", _Needed(layout, records))
    return removed, is_finished


class _Needed:
    """Which stored keys some record refers to. Holds the keys of one record at a time."""

    def __init__(self, layout: Layout, records: Collection[EmbeddedSnapshot]) -> None:
        self._layout = layout
        self._versions = sorted({(record.recipe, record.chunks_version) for record in records})

    def __call__(self, stored: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        index = keys.KeyIndex(stored)
        is_needed = np.zeros(len(index), dtype=bool)
        for recipe, version in self._versions:
            used = self._layout.chunks(recipe).at(version).columns(["content_key"])["content_key"]
            positions = index.positions(used)
            is_needed[positions[positions >= 0]] = True
        return is_needed
