"""Numbered JSON records, each put if absent: a value with optimistic concurrency on any object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from pointsman.errors import Conflict
from pointsman.store import layout, records
from pointsman.store.objects import Objects
from pointsman.store.remembered import Remembered

KEPT = 20
"""How many of the newest records are kept."""


@dataclass(frozen=True, slots=True)
class Record:
    """One state of a log's value."""

    revision: int
    value: dict[str, Any]


class RecordLog:
    """One value and its last states. Whoever writes names the revision that the value was decided from."""

    def __init__(self, objects: Objects, path: str) -> None:
        self._objects = objects
        self._path = path

    def read(self) -> Record | None:
        """Return the newest record, or None where there is none."""
        while True:
            revisions = self._revisions()
            if not revisions:
                return None
            record = self._at(revisions[-1])
            if record is not None:
                return record
            # Twenty newer ones came, or all were forgotten, between the listing and the reading.

    def write(self, value: dict[str, Any], after: int) -> int:
        """Put the record that follows revision `after` (0 for the first) and return its revision.

        Raises Conflict where somebody else's stands there. The same value again is success.
        """
        revision = after + 1
        newest = max(self._revisions(), default=0)
        if newest != after or not self._objects.create(self._name(revision), _encoded(value)):
            there = self._at(revision)
            if there is None or _encoded(there.value) != _encoded(value):
                raise self._conflict(revision)
            return revision
        revisions = self._revisions(all_of_them=True)
        if revisions[-1] - revision >= KEPT:
            # While this writer slept others wrote so much that its place was taken and pruned again, which is
            # the one case that put-if-absent does not see.
            self._objects.delete(self._name(revision))
            raise self._conflict(revision)
        for old in revisions:
            if old <= revisions[-1] - KEPT:
                self._objects.delete(self._name(old))
        return revision

    def forget(self) -> None:
        """Remove all records, the newest last, so that one who is interrupted has forgotten nothing."""
        for revision in self._revisions(all_of_them=True):
            self._objects.delete(self._name(revision))
        self._objects.delete_tree(self._path)

    def _revisions(self, all_of_them: bool = False) -> list[int]:
        names = self._objects.files(self._path)
        found = [int(name.removesuffix(".json")) for name in names if layout.NUMBERED.fullmatch(name)]
        # What lies further back is being pruned, or was left by a writer that slept.
        return [revision for revision in found if all_of_them or revision > found[-1] - KEPT]

    def _at(self, revision: int) -> Record | None:
        where = self._name(revision)
        content = self._objects.get(where)
        return None if content is None else Record(revision, _decoded(where, content))

    def _name(self, revision: int) -> str:
        return f"{self._path}/{revision:012d}.json"

    def _conflict(self, revision: int) -> Conflict:
        return Conflict(f"revision {revision} of {self._path} was written by another; wanted it free, reading it again")


class Shelf:
    """Many logs as they are at one moment, found by one listing of all below a path. For looking: it writes nothing."""

    def __init__(self, objects: Objects, remembered: Remembered, path: str) -> None:
        self._remembered = remembered
        self._newest: dict[str, tuple[int, str, str]] = {}
        for name, mark in objects.marks(path).items():
            folder, _, file = name.rpartition("/")
            if layout.NUMBERED.fullmatch(file):
                revision = int(file.removesuffix(".json"))
                if revision > self._newest.get(folder, (0, "", ""))[0]:
                    self._newest[folder] = (revision, f"{path}/{name}", mark)

    def read(self, path: str) -> Record | None:
        """Return the newest record of a log, by what follows the shelf's path in its own; None where there was none.

        Raises Conflict where it has gone since: twenty newer ones came, or all were forgotten.
        """
        found = self._newest.get(path)
        if found is None:
            return None
        revision, where, mark = found
        content = self._remembered.one(where, mark)
        if content is None:
            raise Conflict(f"{where} has gone since it was listed; wanted it there, looking again")
        return Record(revision, _decoded(where, content))


def _encoded(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _decoded(where: str, content: bytes) -> dict[str, Any]:
    with records.reading(where):
        return dict(orjson.loads(content))
