"""Where the parts of one dataset stand in the store."""

from __future__ import annotations

import re
from datetime import timedelta

from pointsman.core import rows
from pointsman.store import locks, objects
from pointsman.store.tables import Table

NUMBERED = re.compile(r"[0-9]{12}\.json")
"""The name of a record in its folder."""


class Layout:
    """The paths and tables below `datasets/<namespace>/<name>`."""

    def __init__(self, store: objects.Objects, namespace: str, name: str) -> None:
        self.objects = store
        self.root = objects.path("datasets", namespace, name)
        # Outside the dataset's own folder, so that the lock outlives what it guards.
        lock = None if store.local is None else store.local / "locks" / namespace / name
        self.lock = locks.Exclusive(lock, f"dataset {namespace}/{name}")

    def snapshot(self, number: int) -> str:
        """Return the path of a snapshot's record."""
        return f"{self.root}/snapshots/{number:012d}.json"

    def embedded(self, recipe: str, number: int) -> str:
        """Return the path of an embedded snapshot's record."""
        return f"{self.root}/versions/{objects.path(recipe)}/{number:012d}.json"

    def pin(self, version: str) -> str:
        """Return the path of the recipe that a name is pinned to."""
        return f"{self.root}/pins/{objects.path(version)}.json"

    def probes(self, side: str) -> str:
        """Return the path of the pinned strings' vectors."""
        return f"{self.root}/probes/{objects.path(side)}.npy"

    def run(self, recipe: str, number: int) -> str:
        """Return the folder of what is finished of a snapshot that several processes embed."""
        return f"{self.root}/runs/{objects.path(recipe)}-{number:012d}"

    def load(self, index: str, number: int) -> str:
        """Return the folder of what is finished of a snapshot that several processes load into an index."""
        return f"{self.root}/loads/{objects.path(index)}-{number:012d}"

    def oldest_run(self) -> timedelta | None:
        """Return how old what several processes have embedded, but no version has yet, is; None where there is none."""
        return self.objects.age(f"{self.root}/runs")

    def corpus(self) -> Table:
        """Return the documents."""
        return Table(self.objects, f"{self.root}/corpus.lance", rows.CORPUS, self.lock)

    def chunks(self, recipe: str) -> Table:
        """Return a recipe's rows."""
        where = f"{self.root}/chunks/{objects.path(recipe)}.lance"
        return Table(self.objects, where, rows.CHUNKS, self.lock, self.oldest_run)

    def vectors(self, side: str, dimensions: int) -> Table:
        """Return the vectors of a document side."""
        where = f"{self.root}/vectors/{objects.path(side)}.lance"
        return Table(self.objects, where, rows.vectors(dimensions), self.lock, self.oldest_run)

    def numbers(self, folder: str) -> list[int]:
        """Return the numbers of the records in a folder, ascending."""
        names = self.objects.files(f"{self.root}/{folder}")
        return [int(name.removesuffix(".json")) for name in names if NUMBERED.fullmatch(name)]

    def tables(self, folder: str) -> list[str]:
        """Return the names of the tables in a folder."""
        return [name.removesuffix(".lance") for name in self.objects.folders(f"{self.root}/{folder}")]
