"""One version of a table, which never changes, and how its rows are read without holding all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.core import portions
from pointsman.store.objects import unreachable

if TYPE_CHECKING:
    import lance

BATCH_ROWS = 8192
KEYS_BATCH_ROWS = 65_536
# Left to itself Lance reads up to two gigabytes ahead, and 8,192 rows of long documents are large by themselves.
_READAHEAD_BATCHES, _READAHEAD_BYTES, _BATCH_BYTES = 2, 32 << 20, 8 << 20
_TAKE_ROWS = 1024
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
        with _read(self._name):
            return int(self._data.count_rows())

    def is_newest(self) -> bool:
        """Return whether nothing was committed since."""
        with _read(self._name):
            return bool(self._data.latest_version == self.version)

    def files(self) -> set[str]:
        """Return the names of its files."""
        with _read(self._name):
            return {str(file.path) for fragment in self._data.get_fragments() for file in fragment.data_files()}

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Read whole columns, in the order of the rows."""
        with _read(self._name):
            return self._data.to_table(columns=list(names), batch_size=KEYS_BATCH_ROWS)

    def scan(self, names: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in order, in batches of at most so many rows and some megabytes."""
        with _read(self._name):
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
        with _read(self._name):
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


@contextmanager
def _read(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
        raise unreachable(what, error) from error
