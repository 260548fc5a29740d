"""The documents of a dataset's snapshots: one table, a version for each snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.core import portions, rows
from pointsman.store.tables import BATCH_ROWS, Offsets, Part, Table, View


class Corpus:
    """The documents with their raw fields. Its versions are named by `Snapshot.corpus_version`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def keys(self, version: int) -> pa.Table:
        """Return `id`, `digest` and `sequence` of every document."""
        return self._table.at(version).columns(["id", "digest", "sequence"])

    def read(self, version: int, ids: Sequence[str] | pa.Array | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the documents of these ids, or all, in the order of the table, as batches of `rows.CORPUS`.

        Ids that are not there are left out.
        """
        wanted = None if ids is None else _strings(ids)
        yield from self._table.at(version).read("id", wanted, rows.CORPUS.names)

    def positions(self, version: int, ids: pa.Array) -> Offsets:
        """Return where the documents of these ids stand, ascending."""
        found = self._table.at(version).columns(["id"])["id"]
        return np.flatnonzero(pc.is_in(found, value_set=_strings(ids)).to_numpy()).astype(np.int64)

    def read_at(self, version: int, offsets: Offsets) -> Iterator[pa.RecordBatch]:
        """Yield the documents at these ascending positions as batches of `rows.CORPUS`."""
        yield from _read_at(self._table.at(version), offsets, rows.CORPUS.names)

    def write(self, base: int | None, deleted: pa.Array, upserts: Iterator[pa.RecordBatch]) -> int:
        """Write the version that follows `base`, or the first for None, and return its number.

        It has the documents of `base`, less the deleted, with the upserts (batches of `rows.CORPUS`, each id once)
        in place of those of their ids. It is what a snapshot's record may name; until one does, the next call drops
        it. The same call after a crash gives the same documents.
        """
        return self._table.replace(base, "id", deleted, upserts)


class Chunks:
    """The rows of one recipe. Its versions are named by `EmbeddedSnapshot.chunks_version`."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def keys(self, version: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return these columns of every chunk, or all of `rows.CHUNKS` but `text` and `metadata`."""
        names = columns or [name for name in rows.CHUNKS.names if name not in ("text", "metadata")]
        return self._table.at(version).columns(names)

    def read(
        self,
        version: int,
        documents: Sequence[str] | pa.Array | None = None,
        columns: Sequence[str] | None = None,
        batch_rows: int = 8192,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the chunks of these documents, or all, in the order of the table, at most `batch_rows` at a time."""
        wanted = None if documents is None else _strings(documents)
        yield from self._table.at(version).read("document", wanted, columns or rows.CHUNKS.names, batch_rows)

    def read_at(self, version: int, offsets: Offsets, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield these columns of the chunks at these ascending positions, at most some megabytes at a time."""
        yield from _read_at(self._table.at(version), offsets, columns)

    def write(self, base: int | None, replaced: pa.Array, upserts: Iterator[pa.RecordBatch]) -> int:
        """Write the version that follows `base`, or the first for None, and return its number.

        It has the chunks of `base`, less all of the replaced documents and of those that have upserts, plus the
        upserts (batches of `rows.CHUNKS`). The same call after a crash gives the same chunks.
        """
        return self._table.replace(base, "document", replaced, upserts)

    def write_apart(self, upserts: Iterator[pa.RecordBatch]) -> list[Part]:
        """Write chunks that no version has yet, and return what names them."""
        return self._table.write_apart(upserts, "document")

    def write_by(self, base: int | None, replaced: pa.Array, parts: Sequence[Part]) -> int:
        """Write the version that follows `base` as `write` does, of chunks that were written apart.

        Each document that they are of must be among the replaced, unless it is new.
        """
        return self._table.replace_by(base, "document", replaced, parts)

    def files(self) -> set[str]:
        """Return the names of the files that are there, in whichever version or none."""
        return self._table.there()

    def discard(self, parts: Sequence[Part]) -> None:
        """Remove what was written apart and was not taken in."""
        self._table.discard(parts)


def _read_at(view: View, offsets: Offsets, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    start, step = 0, portions.FIRST_ROWS
    while start < len(offsets):
        taken = view.take(offsets[start : start + step], names).combine_chunks()
        start += taken.num_rows
        step = portions.next_rows(taken.num_rows, taken.nbytes, BATCH_ROWS)
        yield from taken.to_batches()


def _strings(values: Sequence[str] | pa.Array) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values, pa.string())
