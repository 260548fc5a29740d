"""With what is an object store opened? With options, some of which may stand in a file that is read again.

A Secret that is mounted changes under the process that was started with it. Whoever opens the store is told where that
file is, among the options, so that each worker reads it for itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

from pointsman.api.conditions import Reason
from pointsman.errors import Retryable

FILE: Final = "options_file"
"""The option that names a file of further ones, a JSON object of strings: what stands there goes before the others."""

_Stamp = tuple[int, int, int]


class Options:
    """The options of a store, as they are at each moment. Safe to use from many threads."""

    def __init__(self, told: Mapping[str, str]) -> None:
        self._told = {name: value for name, value in told.items() if name != FILE}
        self._file = Path(told[FILE]) if told.get(FILE) else None
        self._read: tuple[_Stamp | None, Mapping[str, str]] = (None, self._told)

    def now(self) -> Mapping[str, str]:
        """Return the options: the same object as before unless the file has changed.

        Raises Retryable(STORE_UNREACHABLE) while the file is not there or holds something else.
        """
        if self._file is None:
            return self._told
        try:
            stamp = _stamp(self._file)
            if self._read[0] != stamp:
                self._read = (stamp, {**self._told, **_options(self._file)})
        except OSError as error:
            message = f"the store's options cannot be read from {self._file} ({os.strerror(error.errno or 0)})"
            raise Retryable(Reason.STORE_UNREACHABLE, f"{message}; wanted the Secret mounted there") from error
        return self._read[1]


def current(told: Mapping[str, str]) -> Mapping[str, str]:
    """Return options with those of the file that they name in its place; raises as `Options.now` does."""
    return Options(told).now()


def _stamp(path: Path) -> _Stamp:
    # The kubelet puts a new folder in the old one's place: another file, which may have the same size and time.
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _options(path: Path) -> Mapping[str, str]:
    found: object = None
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        # Its text quotes what it could not read.
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        message = f"{path} is not a JSON object of strings, which the store is opened with; mend the Secret"
        raise Retryable(Reason.STORE_UNREACHABLE, f"{message}, it is read again")
    return {name: value for name, value in found.items() if name != FILE}
