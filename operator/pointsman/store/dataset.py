"""All that is stored of one dataset: pins, snapshots, embedded snapshots, and the tables that they name.

A snapshot exists once its record does. Tables are written first, tagged next, and the record is put last and only if
absent: a writer that dies before leaves rows that nobody sees and that the next writer drops.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import orjson

from pointsman.core import recipes
from pointsman.core.recipes import Recipe
from pointsman.errors import Conflict
from pointsman.store import cleaning, layout, objects, records
from pointsman.store.cleaning import Cleaned
from pointsman.store.corpus import Chunks, Corpus
from pointsman.store.layout import Layout
from pointsman.store.ledger import Ledger
from pointsman.store.objects import Objects
from pointsman.store.records import EmbeddedSnapshot, Snapshot
from pointsman.store.remembered import Remembered
from pointsman.store.tables import Table
from pointsman.store.vectors import VectorTable

Vectors = npt.NDArray[np.float32]
_NAMED = re.compile(rf"{objects.NAME.pattern}\.json")
_EMBEDDED = re.compile(rf"{objects.NAME.pattern}/{layout.NUMBERED.pattern}")
_RUN = re.compile(rf"({objects.NAME.pattern})-([0-9]{{12}})")
GRACE = timedelta(hours=1)
"""How long a version that no record names stays for those who still read it."""


class DatasetStore:
    """One dataset's part of the store."""

    def __init__(self, store: Objects, remembered: Remembered, namespace: str, name: str) -> None:
        self._layout = Layout(store, namespace, name)
        self._objects = store
        self._remembered = remembered

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the dataset for writing; raises Conflict, which is retryable, where another process does.

        Every write takes it for itself; a worker holds it over a whole piece of work. It belongs to this object and
        may be nested. For stores on a local disk only: elsewhere it lets everybody through (see `locks`).
        """
        return self._layout.lock.held()

    def pins(self) -> dict[str, Recipe]:
        """Return the recipe that each version's name stands for, for ever."""
        pinned = self._remembered.below(f"{self._layout.root}/pins", _NAMED, _recipe)
        return {name.removesuffix(".json"): recipe for name, recipe in pinned.items()}

    def pin(self, version: str, recipe: Recipe) -> Recipe:
        """Pin a name to a recipe unless it is pinned, and return what it is pinned to."""
        self._objects.create(self._layout.pin(version), orjson.dumps(recipes.to_json(recipe)))
        return self._pinned(version) or recipe

    def snapshots(self) -> list[Snapshot]:
        """Return the snapshots that are kept, ascending."""
        return list(self._remembered.below(f"{self._layout.root}/snapshots", layout.NUMBERED, _snapshot).values())

    def snapshot(self, number: int) -> Snapshot | None:
        """Return a snapshot, or None where there is none or it was cleaned up."""
        where = self._layout.snapshot(number)
        content = self._objects.get(where)
        return None if content is None else _snapshot(where, content)

    def latest(self) -> Snapshot | None:
        """Return the newest snapshot."""
        numbers = self._layout.numbers("snapshots")
        return self.snapshot(numbers[-1]) if numbers else None

    def publish(self, snapshot: Snapshot) -> None:
        """Make a snapshot exist; the same again is fine, another of its number raises Conflict."""
        self._publish(self._layout.snapshot(snapshot.number), snapshot, self._layout.corpus(), snapshot.corpus_version)

    def embedded(self, recipe: str) -> list[EmbeddedSnapshot]:
        """Return the embedded snapshots of a recipe that are kept, ascending."""
        return self.embedded_by_recipe().get(recipe, [])

    def embedded_by_recipe(self) -> dict[str, list[EmbeddedSnapshot]]:
        """Return the embedded snapshots that are kept, ascending, of each recipe that has some."""
        found: dict[str, list[EmbeddedSnapshot]] = {}
        for name, record in self._remembered.below(f"{self._layout.root}/versions", _EMBEDDED, _embedded).items():
            found.setdefault(name.partition("/")[0], []).append(record)
        return found

    def embedded_at(self, recipe: str, number: int) -> EmbeddedSnapshot | None:
        """Return a snapshot as embedded by a recipe, or None."""
        where = self._layout.embedded(recipe, number)
        content = self._objects.get(where)
        return None if content is None else _embedded(where, content)

    def publish_embedded(self, record: EmbeddedSnapshot) -> None:
        """Make an embedded snapshot exist; the same again is fine, another of its number raises Conflict."""
        where = self._layout.embedded(record.recipe, record.snapshot)
        self._publish(where, record, self._layout.chunks(record.recipe), record.chunks_version)

    @property
    def corpus(self) -> Corpus:
        """The documents of the snapshots."""
        return Corpus(self._layout.corpus())

    def chunks(self, recipe: str) -> Chunks:
        """Return the rows of a recipe."""
        return Chunks(self._layout.chunks(recipe))

    def vectors(self, document_side: str, dimensions: int) -> VectorTable:
        """Return the vectors of a document side."""
        return VectorTable(self._layout.vectors(document_side, dimensions), dimensions)

    def probes(self, document_side: str) -> Vectors | None:
        """Return the vectors of the pinned strings when the document side was first used, shape (n, dimensions)."""
        content = self._objects.get(self._layout.probes(document_side))
        return None if content is None else np.load(io.BytesIO(content), allow_pickle=False)

    def pin_probes(self, document_side: str, vectors: Vectors) -> Vectors:
        """Pin the vectors of the pinned strings unless they are, and return what is pinned."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)
        self._objects.create(self._layout.probes(document_side), buffer.getvalue())
        pinned = self.probes(document_side)
        return vectors if pinned is None else pinned

    def ledger(self, recipe: str, number: int) -> Ledger:
        """Return what is finished of a snapshot that several processes embed by a recipe."""
        return Ledger(self._objects, self._remembered, self._layout.run(recipe, number))

    def runs(self) -> list[tuple[str, int]]:
        """Return recipe and snapshot of every ledger."""
        return self._runs("runs")

    def load(self, index: str, number: int) -> Ledger:
        """Return what is finished of a snapshot that several processes load into an index."""
        return Ledger(self._objects, self._remembered, self._layout.load(index, number))

    def loads(self) -> list[tuple[str, int]]:
        """Return index and snapshot of every ledger of an index that is loaded."""
        return self._runs("loads")

    def clean(self, keep: Collection[int], recipes: Collection[str], grace: timedelta = GRACE) -> Cleaned:
        """Remove what is no longer needed; see `cleaning` for what stays whatever is asked.

        `keep` are numbers of snapshots, `recipes` keys of recipes. Holds the dataset for writing.
        """
        with self.exclusive():
            return cleaning.clean(self, self._layout, set(keep), set(recipes), grace)

    def drop(self) -> None:
        """Remove all that is stored of the dataset: records first, so that none names what is gone, and pins last.

        While there is a pin there is something to drop: whoever is killed in between is sent again.
        """
        first, last = ("versions", "snapshots"), "pins"
        with self.exclusive():
            tables = [part for part in self._objects.folders(self._layout.root) if part not in (*first, last)]
            for part in (*first, *tables, last):
                self._objects.delete_tree(f"{self._layout.root}/{part}")
            self._objects.delete_tree(self._layout.root)

    def _publish(self, where: str, record: Snapshot | EmbeddedSnapshot, table: Table, version: int) -> None:
        content = records.encoded(record)
        there = self._objects.get(where)
        if there is None:
            table.protect(version)
            if self._objects.create(where, content):
                return
            there = self._objects.get(where)
        if there != content:
            raise Conflict(f"{where} was published by another; wanted it free, looking again")

    def _runs(self, folder: str) -> list[tuple[str, int]]:
        found = (_RUN.fullmatch(name) for name in self._objects.folders(f"{self._layout.root}/{folder}"))
        return [(run[1], int(run[2])) for run in found if run is not None]

    def _pinned(self, version: str) -> Recipe | None:
        where = self._layout.pin(version)
        content = self._objects.get(where)
        return None if content is None else _recipe(where, content)


def _snapshot(where: str, content: bytes) -> Snapshot:
    return records.decoded(Snapshot, content, where)


def _embedded(where: str, content: bytes) -> EmbeddedSnapshot:
    return records.decoded(EmbeddedSnapshot, content, where)


def _recipe(where: str, content: bytes) -> Recipe:
    with records.reading(where):
        return recipes.from_json(orjson.loads(content))
