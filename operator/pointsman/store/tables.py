"""Versioned tables in the store. The one file that knows Lance.

A version, once named by a record, is never written to again: each change is one commit that makes a new version. One
process at a time writes a table; any number read. Lance's automatic clean-up stays off, and its merge is not used: it
holds the whole table in memory (lance-format/lance#1983). Rows are found by their key column and removed by address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import lance
import lance.commit
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lance.fragment import FragmentMetadata, write_fragments

from pointsman.api.conditions import Reason
from pointsman.core import portions
from pointsman.errors import Conflict, Retryable
from pointsman.store.locks import Exclusive
from pointsman.store.objects import Objects, unreachable

BATCH_ROWS = 8192
_KEYS_BATCH_ROWS = 65_536
# Left to itself Lance reads up to two gigabytes ahead, and 8,192 rows of long documents are large by themselves.
_READAHEAD_BATCHES, _READAHEAD_BYTES, _BATCH_BYTES = 2, 32 << 20, 8 << 20
_TAKE_ROWS = 1024
# A table is compacted before a write once so many fragments have gathered, or this share of its rows is deleted.
_MANY_FRAGMENTS = 32
# An append grows slower with every fragment there is: 7 ms of processor with 250, 36 with 2,000.
_MOST_FRAGMENTS = 512
_MANY_DELETED = 0.5
# Above this share of the rows a scan of all is faster than taking them one by one.
_MANY_ROWS = 0.2

Offsets = npt.NDArray[np.int64]
"""Positions in a version's rows, counted as a scan yields them."""


class View:
    """One version of a table, as it was and will be."""

    def __init__(self, data: lance.LanceDataset, name: str) -> None:
        self._data = data
        self._name = name
        self.version: int = data.version

    def rows(self) -> int:
        """Return how many rows it has."""
        with _mapped(self._name):
            return int(self._data.count_rows())

    def is_newest(self) -> bool:
        """Return whether nothing was committed since."""
        with _mapped(self._name):
            return bool(self._data.latest_version == self.version)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read whole columns, in the order of the rows."""
        with _mapped(self._name):
            return self._data.to_table(columns=list(names), batch_size=_KEYS_BATCH_ROWS)

    def scan(self, names: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in order, in batches of at most so many rows and some megabytes."""
        with _mapped(self._name):
            yield from self._data.scanner(
                columns=list(names),
                scan_in_order=True,
                batch_size=batch_rows,
                batch_size_bytes=_BATCH_BYTES,
                batch_readahead=_READAHEAD_BATCHES,
                io_buffer_size=_READAHEAD_BYTES,
            ).to_batches()

    def take(self, offsets: Offsets, names: Sequence[str]) -> pa.Table:
        """Read the rows at ascending, distinct offsets."""
        with _mapped(self._name):
            return self._data.take(pa.array(offsets), columns=list(names))

    def read(
        self, key: str, wanted: pa.Array | None, names: Sequence[str], batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows whose key is wanted, or all for None, in the order of the table."""
        if wanted is None:
            yield from self.scan(names, batch_rows)
            return
        is_wanted = pc.is_in(self.columns([key])[key], value_set=wanted).to_numpy()
        offsets = np.flatnonzero(is_wanted)
        if len(offsets) < _MANY_ROWS * len(is_wanted):
            start, step = 0, min(batch_rows, portions.FIRST_ROWS)
            while start < len(offsets):
                taken = self.take(offsets[start : start + step], names).combine_chunks()
                start += taken.num_rows
                step = portions.next_rows(taken.num_rows, taken.nbytes, min(batch_rows, _TAKE_ROWS))
                yield from taken.to_batches()
            return
        start = 0
        for batch in self.scan(names, batch_rows):
            here = is_wanted[start : start + batch.num_rows]
            start += batch.num_rows
            if here.any():
                yield batch.filter(pa.array(here))


class Table:
    """One table, whether it exists yet or not."""

    def __init__(self, objects: Objects, path: str, schema: pa.Schema, lock: Exclusive) -> None:
        self._uri = objects.at(path)
        self._options = objects.options or None
        self._is_alone = objects.local is not None
        self._name = path
        self._schema = schema
        self._lock = lock

    def newest(self) -> View | None:
        """Return the newest version, or None where there is no table."""
        data = self._open()
        return None if data is None else View(data, self._name)

    def at(self, version: int) -> View:
        """Return a version; raises Retryable(SNAPSHOT_NOT_FOUND) where it is gone."""
        with _mapped(self._name):
            try:
                data = lance.dataset(self._uri, version=version, storage_options=self._options)
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
        incoming = _Incoming(upserts, key, self._schema)
        with self._lock.held(), _mapped(self._name, incoming):
            data = self._open()
            if base is None:
                # The mode says what is there, since Lance warns of an overwrite that finds nothing.
                made = lance.write_dataset(
                    incoming.reader(),
                    self._uri,
                    mode="create" if data is None else "overwrite",
                    storage_options=self._options,
                )
                return int(made.version)
            if data is None:
                raise self._gone(base)
            data = _tidied(self._restored(data, base))
            fragments = write_fragments(incoming.reader(), data, storage_options=self._options)
            doomed = _addresses(data, key, pa.concat_arrays([gone.cast(incoming.keys.type), incoming.keys]))
            if not fragments and not len(doomed):
                return int(data.version)
            return int(_committed(data, doomed, fragments).version)

    def append(self, batch: pa.RecordBatch) -> View:
        """Add rows in one commit and return the version that has them."""
        with self._lock.held(), _mapped(self._name):
            data = self._open()
            mode, target = ("create", self._uri) if data is None else ("append", data)
            made = lance.write_dataset(
                pa.Table.from_batches([batch.cast(self._schema)]), target, mode=mode, storage_options=self._options
            )
            if len(made.get_fragments()) > _MOST_FRAGMENTS:
                _compact(made)
        return View(made, self._name)

    def keep(self, key: str, is_needed: Callable[[pa.ChunkedArray], npt.NDArray[np.bool_]]) -> int:
        """Drop the rows of the newest version whose key is not needed, in one commit; return how many those were."""
        with self._lock.held(), _mapped(self._name):
            data = self._open()
            if data is None:
                return 0
            table = data.to_table(columns=[key], with_row_address=True, batch_size=_KEYS_BATCH_ROWS)
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
            data = lance.dataset(self._uri, storage_options=self._options)
            if _tag(version) not in data.tags.list():
                data.tags.create(_tag(version), version)

    def clean(self, named: set[int], grace: timedelta) -> int:
        """Remove all versions but the newest and those that records name, and return the bytes that came free.

        A version younger than `grace` stays for those who still read it.
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
            stats = data.cleanup_old_versions(
                # Zero would be read as not said.
                older_than=max(grace, timedelta(microseconds=1)),
                # The files of writers that died. Where no lock says that nobody is writing, Lance lets them lie for
                # seven days.
                delete_unverified=self._is_alone,
                error_if_tagged_old_versions=False,
            )
            return int(stats.bytes_removed)

    def _open(self) -> lance.LanceDataset | None:
        with _mapped(self._name):
            try:
                return lance.dataset(self._uri, storage_options=self._options)
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


class _Incoming:
    """Batches on their way into a table: remembers their distinct keys, and the error that stopped them."""

    def __init__(self, batches: Iterator[pa.RecordBatch], key: str, schema: pa.Schema) -> None:
        self._batches = batches
        self._key = key
        self._schema = schema
        self._seen: list[pa.Array] = []
        self.error: BaseException | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._schema, self._watched())

    @property
    def keys(self) -> pa.Array:
        kind = self._schema.field(self._key).type
        return pa.concat_arrays(self._seen) if self._seen else pa.array([], kind)

    def _watched(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                whole = batch.select(self._schema.names).cast(self._schema)
                self._seen.append(pc.unique(whole.column(self._key)))
                yield whole
        except GeneratorExit:
            raise
        except BaseException as error:
            # Lance would turn it into an error of its own, with its text; the caller gets the one that was raised.
            self.error = error
            raise


def _tag(version: int) -> str:
    return f"kept-{version}"


def _addresses(data: lance.LanceDataset, key: str, keys: pa.Array) -> npt.NDArray[np.uint64]:
    """Return the addresses (fragment << 32 | row in its file) of the rows that have one of the keys."""
    if not len(keys):
        return np.empty(0, dtype=np.uint64)
    table = data.to_table(columns=[key], with_row_address=True, batch_size=_KEYS_BATCH_ROWS)
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
    made = lance.LanceDataset.commit(
        data,
        lance.LanceOperation.Update(removed_fragment_ids=removed, updated_fragments=updated, new_fragments=list(added)),
        read_version=data.version,
        max_retries=0,
    )
    if made.version != data.version + 1:
        # Lance lets two writers of different fragments both through, and the other's rows would be ours.
        raise Conflict("another process wrote the table meanwhile; wanted it alone, writing again")
    return made


def _compact(data: lance.LanceDataset) -> None:
    data.optimize.compact_files(num_threads=1, batch_size=1024)


def _tidied(data: lance.LanceDataset) -> lance.LanceDataset:
    """Return the same rows in few fragments, as a version of its own where that needs work; older ones stay."""
    fragments = data.get_fragments()
    rows = sum(fragment.physical_rows for fragment in fragments)
    deleted = sum(fragment.num_deletions for fragment in fragments)
    if len(fragments) > _MANY_FRAGMENTS or deleted > _MANY_DELETED * rows:
        _compact(data)
    return data


def _is_missing(error: BaseException) -> bool:
    return "was not found" in str(error) or "does not exist" in str(error)


@contextmanager
def _mapped(what: str, incoming: _Incoming | None = None) -> Iterator[None]:
    try:
        yield
    except lance.commit.CommitConflictError as error:
        raise Conflict(f"another process wrote {what} meanwhile; wanted it alone, writing again") from error
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        if incoming is not None and incoming.error is not None:
            raise incoming.error from None
        raise unreachable(what, error) from error
