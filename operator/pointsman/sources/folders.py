"""Which files does a URI name, how are they opened, and did one change while it was read?

The only module that speaks to file systems, through fsspec; `s3` opens those that are not local. `*` matches within one
folder; files come in the order of their names.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import fsspec

from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.errors import Retryable, Terminal
from pointsman.sources import s3

READ_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was when it was looked at."""

    path: str
    """What the file system opens."""
    name: str
    """The last part, for people."""
    mark: tuple[Any, ...]
    """Size and what else moves when the content does."""


class Folder:
    """The files of one `file://` or `s3://` URI."""

    def __init__(self, uri: str, credentials: Mapping[str, str], access: Access) -> None:
        self._uri = uri
        self._access = access
        self._is_local = uri.startswith("file://")
        self._system = fsspec.filesystem("file") if self._is_local else s3.open_store(uri, credentials, access)
        path = str(access.check_file(uri)) if self._is_local else uri.removeprefix("s3://")
        self._parent, _, self._pattern = path.rpartition("/")
        if "*" in self._parent:
            raise Terminal(
                Reason.INVALID_SPEC, f"{uri} has a * in the name of a folder; it may only stand in the last part"
            )

    def files(self) -> list[Found]:
        """List the files by name; raises Retryable(SOURCE_UNREACHABLE) where there is none.

        No file is taken for a source that is not there (yet), never for one without documents: a wrong folder must
        not delete everything.
        """
        wanted = re.compile(".*".join(map(re.escape, self._pattern.split("*"))))
        with self._errors(self._uri):
            # Of a folder that is written to as we read, an old listing would hide the newest files.
            self._system.invalidate_cache()
            listed = self._system.ls(self._parent, detail=True)
        found = [
            self._found(entry)
            for entry in listed
            if entry["type"] != "directory" and wanted.fullmatch(_name(entry["name"])) and self._is_shown(entry)
        ]
        if not found:
            raise Retryable(Reason.SOURCE_UNREACHABLE, f"no file matches {self._uri}; the last snapshot stays current")
        return sorted(found, key=lambda file: file.name)

    @contextlib.contextmanager
    def open(self, file: Found) -> Iterator[IO[bytes]]:
        """Open a file; raises Retryable(SOURCE_UNREACHABLE) on leaving where it changed meanwhile.

        One that changed before it was opened is read as it is by then: a folder that is written to all the time would
        otherwise never be read to its end.
        """
        with self._errors(file.name):
            with self._system.open(file.path, "rb", block_size=READ_BYTES) as stream:
                # A file of an object store was asked about when it was opened.
                opened = self._found(getattr(stream, "details", None) or self._system.info(file.path))
                yield cast(IO[bytes], stream)
            self._system.invalidate_cache()
            now = self._found(self._system.info(file.path))
        if now.mark != opened.mark:
            raise Retryable(
                Reason.SOURCE_UNREACHABLE,
                f"{file.name} changed while it was read; it will be read again from the start",
            )

    def _is_shown(self, entry: Mapping[str, Any]) -> bool:
        # As in a shell, a leading star leaves hidden files out: editors and copying tools keep halves there.
        return not (self._pattern.startswith("*") and _name(entry["name"]).startswith("."))

    def _found(self, entry: Mapping[str, Any]) -> Found:
        path = str(entry["name"])
        if self._is_local:
            # A link inside the folder may lead out of it.
            path = str(self._access.check_path(Path(path)))
            entry = self._system.info(path)
        marks = (entry.get("size"), entry.get("mtime"), entry.get("ETag"), str(entry.get("LastModified")))
        return Found(path, _name(str(entry["name"])), marks)

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise Terminal(
                Reason.SOURCE_UNAUTHORIZED, f"{what} may not be read with these credentials; check credentialsRef"
            ) from None
        except FileNotFoundError:
            raise Retryable(
                Reason.SOURCE_UNREACHABLE, f"{what} is not there; the last snapshot stays current"
            ) from None
        except OSError as error:
            raise Retryable(Reason.SOURCE_UNREACHABLE, f"{what} could not be read: {type(error).__name__}") from None
        except Exception as error:
            # botocore's and aiohttp's errors share no base class with anything.
            if type(error).__module__.split(".")[0] not in {"botocore", "aiobotocore", "aiohttp", "asyncio"}:
                raise
            raise Retryable(Reason.SOURCE_UNREACHABLE, f"{what} could not be read: {type(error).__name__}") from None


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
