"""Documents from files of JSON Lines, CSV or Parquet, one a row, read as a stream in bounded memory.

Every row is looked at before anything is refused, so that one look at the condition shows all there is to mend.
"""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet

from pointsman.access import Access
from pointsman.api import dataset
from pointsman.api.conditions import Reason
from pointsman.core import documents, portions
from pointsman.errors import Terminal
from pointsman.sources import batches, folders

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_BOM = b"\xef\xbb\xbf"
_PARQUET_ROWS = 256


class FilesSource:
    """The rows of all files that a URI names."""

    def __init__(
        self, spec: dataset.FilesSource, id_field: str, credentials: Mapping[str, str], access: Access
    ) -> None:
        self._folder = folders.Folder(spec.uri, credentials, access)
        self._read = {"jsonl": self._json_lines, "csv": self._csv, "parquet": self._parquet}[spec.format]
        self._id_field = id_field
        self._rows = 0
        self._refusals = documents.Refusals()

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield all documents once, file by file in the order of their names; see `ports.Source`."""
        self._rows, self._refusals = 0, documents.Refusals()
        collected = batches.Batches()
        for file in self._folder.files():
            with self._folder.open(file) as stream:
                for number, row in self._read(stream, file.name):
                    try:
                        identity, fields = batches.document(row, self._id_field)
                    except documents.Refused as refused:
                        self._refusals.add(str(refused), file.name, number)
                        continue
                    yield from collected.add(identity, fields)
        self._refusals.raise_if_any(self._rows)
        yield from collected.rest()

    def _json_lines(self, stream: IO[bytes], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(_lines(stream), 1):
            if line is None:
                self._rows += 1
                self._refusals.add(batches.TOO_LONG, name, number)
                continue
            if line.isspace() or not line:
                continue
            self._rows += 1
            try:
                row = _row(line)
            except (ValueError, RecursionError):
                self._refusals.add("broken JSON" if _is_utf8(line) else "invalid UTF-8", name, number)
                continue
            if isinstance(row, dict):
                yield number, row
            else:
                self._refusals.add("no JSON object", name, number)

    def _csv(self, stream: IO[bytes], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        # The limit is the interpreter's; ours is the longest row that any format may have.
        csv.field_size_limit(batches.MAX_ROW_BYTES)
        number, is_between_rows = 0, False

        def lines() -> Iterator[str]:
            nonlocal number, is_between_rows
            for number, line in enumerate(_lines(stream), 1):
                if line is not None:
                    is_between_rows = False
                    # Invalid bytes become lone surrogates, which are found again where the row is written as UTF-8.
                    yield line.decode("utf-8", "surrogateescape") + "\n"
                elif is_between_rows:
                    self._rows += 1
                    self._refusals.add(batches.TOO_LONG, name, number)
                else:
                    # A part of the header, or of a quote whose end nobody sees.
                    raise csv.Error

        reader = csv.reader(lines(), strict=True)
        try:
            header = next(reader, None)
            if header is None:
                return
            self._check_header(header, name)
            is_between_rows = True
            for row in reader:
                is_between_rows = True
                if not row:
                    continue
                self._rows += 1
                if len(row) == len(header):
                    yield number, dict(zip(header, row, strict=True))
                else:
                    self._refusals.add("with the wrong number of columns", name, number)
        except csv.Error:
            # After a quote that is not closed nothing tells where the next row begins.
            self._rows += 1
            self._refusals.add("broken CSV, after which the file cannot be read", name, number)

    def _parquet(self, stream: IO[bytes], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        try:
            file = pyarrow.parquet.ParquetFile(stream, buffer_size=folders.READ_BYTES, pre_buffer=False)
            self._check_header(file.schema_arrow.names, name)
            _check_types(file.schema_arrow, name)
            for batch in _parquet_batches(file):
                for row in _rows(_plain_times(batch)):
                    number += 1
                    self._rows += 1
                    if row is None:
                        self._refusals.add("invalid UTF-8", name, number)
                    else:
                        yield number, row
        except (pa.ArrowException, OSError) as error:
            # Arrow reports damaged pages as OSError without a number; the file system's own errors have one.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            self._rows += 1
            self._refusals.add("broken Parquet", name, number + 1 if number else None)

    def _check_header(self, header: list[str], name: str) -> None:
        if self._id_field not in header:
            raise Terminal(
                Reason.SOURCE_INVALID,
                f"{name} has no column `{self._id_field}`, which source.idField names; the last snapshot stays current",
            )
        if len(set(header)) < len(header):
            raise Terminal(
                Reason.SOURCE_INVALID, f"{name} has two columns of one name; the last snapshot stays current"
            )


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield lines without their ends, and None for one that is too long, holding no more than one at a time."""
    rest, skips, is_first = b"", False, True
    while block := stream.read(folders.READ_BYTES):
        if is_first:
            block, is_first = block.removeprefix(_BOM), False
        *ended, last = block.split(b"\n")
        for line in ended:
            whole = rest + line if rest else line
            yield None if skips or len(whole) > batches.MAX_ROW_BYTES else whole.removesuffix(b"\r")
            rest, skips = b"", False
        rest = b"" if skips else rest + last
        if len(rest) > batches.MAX_ROW_BYTES:
            rest, skips = b"", True
    if rest or skips:
        yield None if skips else rest


def _row(line: bytes) -> Any:
    row = orjson.loads(line)
    # Integers of more than 64 bits become floats there, without a word, and ids and keys lose their last digits.
    return json.loads(line) if _LONG_NUMBER.search(line) else row


def _is_utf8(line: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        line.decode()
        return True
    return False


def _parquet_batches(file: pyarrow.parquet.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield all rows in batches of some megabytes, by what the file says of the size of each group."""
    for at in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(at)
        rows = portions.next_rows(group.num_rows, group.total_byte_size, _PARQUET_ROWS)
        yield from file.iter_batches(batch_size=rows, row_groups=[at])


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """Yield rows, and None for those whose text is not UTF-8, which Parquet does not check."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for at in range(batch.num_rows):
            try:
                yield batch.slice(at, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _plain_times(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with all instants in microseconds and UTC, since Python knows no nanoseconds."""
    for at, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type):
            wanted = pa.timestamp("us", "UTC" if field.type.tz else None)
            batch = batch.set_column(at, field.name, batch.column(at).cast(wanted, safe=False))
        elif pa.types.is_time64(field.type):
            batch = batch.set_column(at, field.name, batch.column(at).cast(pa.time64("us"), safe=False))
    return batch


def _check_types(schema: pa.Schema, name: str) -> None:
    for field in schema:
        pending = [field.type]
        while pending:
            kind = pending.pop()
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
                raise Terminal(
                    Reason.SOURCE_INVALID,
                    f"{name} has the binary column `{field.name}`; leave it out, documents hold text and numbers",
                )
            pending.extend(kind.field(at).type for at in range(kind.num_fields))
