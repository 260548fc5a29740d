"""Versioned tables in the store. The one file that knows Lance.

A version, once named by a record, is never written to again: each change is one commit that makes a new version. One
process at a time writes a table; any number read. Lance's automatic clean-up stays off, and its merge is not used: it
holds the whole table in memory (lance-format/lance#1983). Rows are found by their key column and removed by address.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.api.conditions import Reason
from pointsman.core import keys
from pointsman.errors import Conflict, Retryable
from pointsman.store.incoming import Incoming
from pointsman.store.locks import Exclusive
from pointsman.store.objects import Objects, is_of_object, unreachable
from pointsman.store.views import BATCH_ROWS as BATCH_ROWS
from pointsman.store.views import KEYS_BATCH_ROWS
from pointsman.store.views import Offsets as Offsets
from pointsman.store.views import View as View

if TYPE_CHECKING:
    import lance
    from lance.fragment import FragmentMetadata

# A table is compacted before a write once so many fragments have gathered, or this share of its rows is deleted.
_MANY_FRAGMENTS = 32
# An append grows slower with every fragment there is: 7 ms of processor with 250, 36 with 2,000.
_MOST_FRAGMENTS = 512
# What has so many rows is left alone: gathering it again would be copying it, for one process to do.
_WHOLE_ROWS = 100_000
_MANY_DELETED = 0.5

MOST = timedelta(days=6)
"""For how long files of no version may lie about beside clean-ups: Lance takes them after seven."""

Part = Mapping[str, Any]
"""Rows in files of their own, as JSON: what Lance calls a fragment."""


class Table:
    """One table, whether it exists yet or not."""

    def __init__(
        self,
        objects: Objects,
        path: str,
        schema: pa.Schema,
        lock: Exclusive,
        lie_about: Callable[[], timedelta | None] = lambda: None,
    ) -> None:
        """`lie_about` tells for how long files have that a later commit is to take in; None where none do."""
        self._uri = objects.at(path)
        self._objects = objects
        self._lie_about = lie_about
        self._name = path
        self._schema = schema
        self._lock = lock

    @property
    def _options(self) -> dict[str, str] | None:
        # Of each moment: a table that is written for hours outlives the credentials that it was opened with.
        return dict(self._objects.options) or None

    def newest(self) -> View | None:
        """Return the newest version, or None where there is no table."""
        data = self._open()
        return None if data is None else View(data, self._name)

    def at(self, version: int) -> View:
        """Return a version; raises Retryable(SNAPSHOT_NOT_FOUND) where it is gone."""
        with _mapped(self._name):
            try:
                data = _lance().dataset(self._uri, version=version, storage_options=self._options)
            except (ValueError, OSError) as error:
                if _is_missing(error):
                    raise self._gone(version) from error
                raise
        return View(data, self._name)

    def replace(self, base: int | None, key: str, gone: pa.Array, upserts: Iterator[pa.RecordBatch]) -> int:
        """Write the version that follows `base` and return its number.

        It has the rows of `base`, less those whose key is in `gone` or among the upserts, plus the upserts. Whatever
        was committed after `base`, which only a writer that died can have left, is dropped first. With `base` None
        the table starts from nothing. Costs one pass over the key column and the upserts, in bounded memory but for
        the keys; nothing is visible until the last commit.
        """
        incoming = Incoming(upserts, key, self._schema)
        with self._lock.held(), _mapped(self._name, incoming):
            data = self._open()
            if base is None:
                # The mode says what is there, since Lance warns of an overwrite that finds nothing.
                made = _lance().write_dataset(
                    incoming.reader(),
                    self._uri,
                    mode="create" if data is None else "overwrite",
                    storage_options=self._options,
                )
                return int(made.version)
            if data is None:
                raise self._gone(base)
            data = _tidied(self._restored(data, base))
            fragments = _lance().fragment.write_fragments(incoming.reader(), data, storage_options=self._options)
            doomed = _addresses(data, key, pa.concat_arrays([gone.cast(incoming.keys.type), incoming.keys]))
            if not fragments and not len(doomed):
                return int(data.version)
            return int(_committed(data, doomed, fragments).version)

    def append(self, batch: pa.RecordBatch) -> View:
        """Add rows in one commit and return the version that has them."""
        with self._lock.held(), _mapped(self._name):
            data = self._open()
            mode, target = ("create", self._uri) if data is None else ("append", data)
            made = _lance().write_dataset(
                pa.Table.from_batches([batch.cast(self._schema)]), target, mode=mode, storage_options=self._options
            )
            if _small(made.get_fragments()) > _MOST_FRAGMENTS:
                _compact(made)
        return View(made, self._name)

    def write_apart(self, batches: Iterator[pa.RecordBatch], key: str) -> list[Part]:
        """Write rows to files that no version has yet, and return what names them; needs no lock.

        Whoever has the names takes them in by `take_in` or `replace_by`, or removes them by `discard`.
        """
        incoming = Incoming(batches, key, self._schema)
        with _mapped(self._name, incoming):
            data = self._open()
            mode, target = ("create", self._uri) if data is None else ("append", data)
            made = _lance().fragment.write_fragments(
                incoming.reader(), target, schema=self._schema, mode=mode, storage_options=self._options
            )
            return [dict(fragment.to_json()) for fragment in made]

    def take_in(self, parts: Sequence[Part]) -> None:
        """Add the rows of parts in one commit."""
        with self._lock.held(), _mapped(self._name):
            data, added = self._open(), _fragments(parts)
            if data is None:
                self._made_of(added)
            elif added:
                _lance().LanceDataset.commit(
                    data, _lance().LanceOperation.Append(added), read_version=data.version, max_retries=0
                )

    def replace_by(self, base: int | None, key: str, gone: pa.Array, parts: Sequence[Part]) -> int:
        """Write the version that follows `base` as `replace` does, with parts in place of upserts; return its number.

        Rows that parts are to take the place of have their keys in `gone`.
        """
        with self._lock.held(), _mapped(self._name):
            data, added = self._open(), _fragments(parts)
            if base is None:
                return self._made_of(added)
            if data is None:
                raise self._gone(base)
            data = _tidied(self._restored(data, base))
            doomed = _addresses(data, key, gone.cast(self._schema.field(key).type))
            if not added and not len(doomed):
                return int(data.version)
            return int(_committed(data, doomed, added).version)

    def there(self) -> set[str]:
        """Return the names of the files that are there, in whichever version or none."""
        return set(self._objects.files(f"{self._name}/data"))

    def discard(self, parts: Sequence[Part]) -> None:
        """Remove the files of parts, but for those that the newest version has."""
        view = self.newest()
        used = set() if view is None else view.files()
        for name in files(parts) - used:
            self._objects.delete(f"{self._name}/data/{name}")

    def keep_first(self, key: str) -> int:
        """Drop the rows of the newest version whose 16-byte key stands before them; return how many those were."""
        with self._lock.held(), _mapped(self._name):
            data = self._open()
            if data is None:
                return 0
            table = data.to_table(columns=[key], with_row_address=True, batch_size=KEYS_BATCH_ROWS)
            doomed = table["_rowaddr"].to_numpy()[keys.repeated(table[key])]
            if len(doomed):
                _committed(data, doomed, [])
            return len(doomed)

    def keep(self, key: str, is_needed: Callable[[pa.ChunkedArray], npt.NDArray[np.bool_]]) -> int:
        """Drop the rows of the newest version whose key is not needed, in one commit; return how many those were."""
        with self._lock.held(), _mapped(self._name):
            data = self._open()
            if data is None:
                return 0
            table = data.to_table(columns=[key], with_row_address=True, batch_size=KEYS_BATCH_ROWS)
            doomed = table["_rowaddr"].to_numpy()[~is_needed(table[key])]
            if len(doomed):
                _committed(data, doomed, [])
            return len(doomed)

    def compact(self) -> None:
        """Gather the rows of the newest version in few files, where they are scattered over many."""
        with self._lock.held(), _mapped(self._name):
            data = self._open()
            if data is not None:
                _tidied(data)

    def protect(self, version: int) -> None:
        """Tag a version, so that no clean-up takes it before its record is gone."""
        with _mapped(self._name):
            data = _lance().dataset(self._uri, storage_options=self._options)
            if _tag(version) not in data.tags.list():
                data.tags.create(_tag(version), version)

    def clean(self, named: set[int], grace: timedelta) -> int:
        """Remove all versions but the newest and those that records name, and return the bytes that came free.

        A version younger than `grace` stays for those who still read it, and all of them once files that a later commit
        is to take in have lain about for MOST.
        """
        with self._lock.held(), _mapped(self._name):
            data = self._open()
            if data is None:
                return 0
            tagged = {int(tag["version"]) for tag in data.tags.list().values()}
            for version in named - tagged:
                data.tags.create(_tag(version), version)
            for version in tagged - named:
                data.tags.delete(_tag(version))
            oldest = self._lie_about()
            if oldest is not None and oldest > MOST:
                # What no version has yet would go once it is seven days old, which Lance cannot be told not to do: of
                # pods that waited for so long, what was paid for.
                return 0
            stats = data.cleanup_old_versions(
                # Zero would be read as not said.
                older_than=max(grace, timedelta(microseconds=1)),
                # The files of writers that died. Where no lock says that nobody is writing, and where pods do without
                # one, Lance lets them lie for seven days.
                delete_unverified=self._objects.local is not None and oldest is None,
                error_if_tagged_old_versions=False,
            )
            return int(stats.bytes_removed)

    def _made_of(self, added: list[FragmentMetadata]) -> int:
        """Write the version that has these rows alone."""
        operation = _lance().LanceOperation.Overwrite(self._schema, added)
        return int(_lance().LanceDataset.commit(self._uri, operation, storage_options=self._options).version)

    def _open(self) -> lance.LanceDataset | None:
        with _mapped(self._name):
            try:
                found: lance.LanceDataset = _lance().dataset(self._uri, storage_options=self._options)
                return found
            except (ValueError, OSError) as error:
                if _is_missing(error):
                    return None
                raise

    def _restored(self, data: lance.LanceDataset, base: int) -> lance.LanceDataset:
        if data.version == base:
            return data
        try:
            data = data.checkout_version(base)
        except (ValueError, OSError) as error:
            if _is_missing(error):
                raise self._gone(base) from error
            raise
        data.restore()  # type: ignore[no-untyped-call]
        return data

    def _gone(self, version: int) -> Retryable:
        return Retryable(
            Reason.SNAPSHOT_NOT_FOUND,
            f"version {version} of {self._name} is not in the store; wanted one that the record of a snapshot names",
        )


def _lance() -> Any:
    # Imported when a table is wanted: the operator itself only reads records, and it is a third of its memory.
    import lance.commit
    import lance.fragment

    return lance


def _tag(version: int) -> str:
    return f"kept-{version}"


def _addresses(data: lance.LanceDataset, key: str, keys: pa.Array) -> npt.NDArray[np.uint64]:
    """Return the addresses (fragment << 32 | row in its file) of the rows that have one of the keys."""
    if not len(keys):
        return np.empty(0, dtype=np.uint64)
    table = data.to_table(columns=[key], with_row_address=True, batch_size=KEYS_BATCH_ROWS)
    found: npt.NDArray[np.uint64] = table["_rowaddr"].to_numpy()[pc.is_in(table[key], value_set=keys).to_numpy()]
    return found


def _committed(
    data: lance.LanceDataset, doomed: npt.NDArray[np.uint64], added: list[FragmentMetadata]
) -> lance.LanceDataset:
    """Commit removals and additions as one version."""
    there = {fragment.fragment_id: fragment for fragment in data.get_fragments()}
    updated, removed = [], []
    fragments = doomed >> np.uint64(32)
    for fragment in np.unique(fragments):
        rows = (doomed[fragments == fragment] & np.uint64(0xFFFFFFFF)).tolist()
        left = there[int(fragment)].delete_rows(rows)
        if left is None:
            removed.append(int(fragment))
        else:
            updated.append(left)
    made: lance.LanceDataset = _lance().LanceDataset.commit(
        data,
        _lance().LanceOperation.Update(
            removed_fragment_ids=removed, updated_fragments=updated, new_fragments=list(added)
        ),
        read_version=data.version,
        max_retries=0,
    )
    if made.version != data.version + 1:
        # Lance lets two writers of different fragments both through, and the other's rows would be ours.
        raise Conflict("another process wrote the table meanwhile; wanted it alone, writing again")
    return made


def files(parts: Sequence[Part]) -> set[str]:
    """Return the names of the files of parts."""
    return {str(file["path"]) for part in parts for file in part["files"]}


def _fragments(parts: Sequence[Part]) -> list[FragmentMetadata]:
    return [_lance().fragment.FragmentMetadata.from_json(json.dumps(part)) for part in parts]


def _compact(data: lance.LanceDataset) -> None:
    data.optimize.compact_files(target_rows_per_fragment=_WHOLE_ROWS, num_threads=1, batch_size=1024)


def _small(fragments: Sequence[lance.LanceFragment]) -> int:
    return sum(fragment.physical_rows < _WHOLE_ROWS for fragment in fragments)


def _tidied(data: lance.LanceDataset) -> lance.LanceDataset:
    """Return the same rows in few fragments, as a version of its own where that needs work; older ones stay."""
    fragments = data.get_fragments()
    rows = sum(fragment.physical_rows for fragment in fragments)
    deleted = sum(fragment.num_deletions for fragment in fragments)
    if _small(fragments) > _MANY_FRAGMENTS or deleted > _MANY_DELETED * rows:
        _compact(data)
    return data


def _is_missing(error: BaseException) -> bool:
    return ("was not found" in str(error) or "does not exist" in str(error)) and is_of_object(error)


@contextmanager
def _mapped(what: str, incoming: Incoming | None = None) -> Iterator[None]:
    try:
        yield
    except _lance().commit.CommitConflictError as error:
        raise Conflict(f"another process wrote {what} meanwhile; wanted it alone, writing again") from error
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        if incoming is not None and incoming.error is not None:
            raise incoming.error from None
        raise unreachable(what, error) from error
