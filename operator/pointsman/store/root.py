"""Where everything is kept: one root on a local disk or an object store."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman.store import objects
from pointsman.store.dataset import DatasetStore
from pointsman.store.log import RecordLog, Shelf
from pointsman.store.remembered import Remembered


class Store:
    """The store below one root: a directory (made where it is missing, for its owner alone), or `s3://bucket/prefix`.

    `options` are those of an object store, such as `aws_access_key_id`, `aws_endpoint` and `allow_http`. Raises
    Terminal(INVALID_SPEC) for a root of another kind, Retryable(STORE_UNREACHABLE) where it cannot be made.
    """

    def __init__(self, uri: str, options: Mapping[str, str] | None = None) -> None:
        self._objects = objects.Objects(uri, options)
        self._remembered = Remembered(self._objects)

    def probe(self) -> None:
        """Raise Terminal(STORE_UNSAFE) if a second put-if-absent gets through, STORE_UNREACHABLE if nothing does."""
        self._objects.probe()

    def dataset(self, namespace: str, name: str) -> DatasetStore:
        """Return what is stored of a dataset, whether there is anything yet or not."""
        return DatasetStore(self._objects, self._remembered, namespace, name)

    def log(self, *path: str) -> RecordLog:
        """Return a log of records."""
        return RecordLog(self._objects, objects.path(*path))

    def shelf(self, *path: str) -> Shelf:
        """Return all logs below a path, as they are now."""
        return Shelf(self._objects, self._remembered, objects.path(*path))

    def logs(self, *path: str) -> list[str]:
        """Return the names directly below a path that have records below themselves, ascending."""
        return self._objects.folders(objects.path(*path))
