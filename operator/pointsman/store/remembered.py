"""Decoded records, so that a look at a dataset lists what there is and reads only what it has not seen.

A record never changes, but its path may come to hold another: a dataset is removed and made again, by another process
even. So what is remembered is known by its path and by the mark of the object, which every listing shows anew.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pointsman.store.objects import Objects

MOST = 40_960
"""How many records are remembered, of about a kilobyte each; those that were not asked for longest go first. Where
there are more in use none would be found again: 5,000 deployments and 1,000 datasets have some 35,000."""
_READ_AT_ONCE = 16

T = TypeVar("T")


class Remembered:
    """What the objects of one store hold. Safe to use from many threads."""

    def __init__(self, objects: Objects, most: int = MOST) -> None:
        self._objects = objects
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[str, Any]] = OrderedDict()

    def below(self, path: str, name: re.Pattern[str], decode: Callable[[str, bytes], T]) -> dict[str, T]:
        """Return what the objects below a path hold, by what follows it in their paths, ascending.

        Names that do not match are passed over: people and backup tools leave files everywhere. `decode` takes an
        object's path and content, and what it raises is raised.
        """
        marks = {f"{path}/{found}": mark for found, mark in self._objects.marks(path).items() if name.fullmatch(found)}
        with self._lock:
            there = {where: self._known[where][1] for where, mark in marks.items() if self._is_known(where, mark)}
            for where in there:
                self._known.move_to_end(where)
        unread = [where for where in marks if where not in there]
        if unread:
            contents = self._contents(unread)
            # What was removed since the listing is not there.
            read = {where: decode(where, content) for where, content in contents.items() if content is not None}
            self._remember({where: (marks[where], value) for where, value in read.items()})
            there |= read
        return {where.removeprefix(f"{path}/"): there[where] for where in sorted(there)}

    def _contents(self, paths: Sequence[str]) -> dict[str, bytes | None]:
        if self._objects.local is not None or len(paths) == 1:
            # At the start every thread of the loop reads, and threads of threads would cost more than they save.
            return {where: self._objects.get(where) for where in paths}
        # One after the other a thousand records would take half a minute from an object store.
        with ThreadPoolExecutor(min(len(paths), _READ_AT_ONCE), thread_name_prefix="reading") as readers:
            return dict(zip(paths, readers.map(self._objects.get, paths), strict=True))

    def one(self, where: str, mark: str) -> bytes | None:
        """Return the content of an object that was listed with a mark; None where it has gone since.

        That of a local store is not remembered: the system's own memory of its files is as near.
        """
        if self._objects.local is not None:
            return self._objects.get(where)
        with self._lock:
            if self._is_known(where, mark):
                self._known.move_to_end(where)
                return bytes(self._known[where][1])
        content = self._objects.get(where)
        if content is not None:
            self._remember({where: (mark, content)})
        return content

    def _is_known(self, where: str, mark: str) -> bool:
        return where in self._known and self._known[where][0] == mark

    def _remember(self, read: dict[str, tuple[str, Any]]) -> None:
        with self._lock:
            for where, entry in read.items():
                self._known[where] = entry
                self._known.move_to_end(where)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
