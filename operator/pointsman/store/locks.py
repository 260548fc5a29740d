"""Which process may write a dataset: one lock a dataset, for stores on a local disk.

On an object store there is no such lock: a store belongs to one operator, and its Lease sees to it that one of them
acts. Of two all the same, the slower writer of a record is refused, since records are put only if absent, and a table
that another wrote meanwhile is written again: work is done twice, and nothing that a record names is lost.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pointsman.errors import Conflict
from pointsman.store.objects import unreachable


class Exclusive:
    """A lock for all who share this object, threads included; the kernel frees it when the process ends, however."""

    def __init__(self, path: Path | None, what: str) -> None:
        self._path = path
        self._what = what
        self._guard = threading.Lock()
        self._holders = 0
        self._file: BinaryIO | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; raises Conflict, which is retryable, at once where another holds it. May be nested."""
        if self._path is None:
            yield
            return
        with self._guard:
            if self._file is None:
                self._file = self._locked(self._path)
            self._holders += 1
        try:
            yield
        finally:
            with self._guard:
                self._holders -= 1
                if self._holders == 0:
                    self._file.close()
                    self._file = None

    def _locked(self, path: Path) -> BinaryIO:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The file is never removed: a lock on a removed file would keep nobody out.
            file = path.open("ab")
        except OSError as error:
            raise unreachable(f"the lock of {self._what}", error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise Conflict(f"another process is writing {self._what}; wanted it alone, trying again") from error
        return file
