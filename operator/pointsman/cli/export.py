"""Writing one embedded snapshot to a Parquet file: ids, texts, vectors, metadata and where each came from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointsman.api.conditions import Reason
from pointsman.cli import points, resources, session
from pointsman.cli.session import Session
from pointsman.cluster.resources import DATASET
from pointsman.errors import Terminal

if TYPE_CHECKING:
    import pyarrow as pa

    from pointsman.core.recipes import Recipe
    from pointsman.store.dataset import DatasetStore
    from pointsman.store.records import EmbeddedSnapshot

GROUP_BYTES = 16 * 1024 * 1024
"""Bytes of vectors in one row group, which bounds the memory: one group is held at a time."""
COLUMNS = ("document", "ordinal", "text", "metadata", "point_id", "content_key", "sequence")
"""What is taken from the chunks as it is."""


def run(current: Session, reference: str, point: str, to: Path, store: str | None) -> int:
    """Write the file, whole or not at all; return the exit code."""
    wanted = points.parse(point)
    if wanted.version is None:
        raise Terminal(Reason.INVALID_SPEC, f"{point} names no version; wanted one such as v7{wanted}")
    name = resources.name_of(reference, DATASET)
    dataset = current.dataset(name, store)
    recipe, record = points.embedded(dataset, name, wanted)
    # Vectors of one text are stored once per document side; all rows of the file are of this recipe and snapshot.
    provenance: dict[str, Any] = {
        "version": wanted.version,
        "snapshot": record.snapshot,
        "recipe": recipe.key,
        "space": recipe.space.key,
        "model": record.model,
        "revision": record.revision,
    }
    rows = _write(to, _batches(dataset, recipe, record, provenance), schema(recipe.space.dimensions), record)
    session.console().print(f"wrote {rows:,} rows of {wanted.version}@{record.snapshot} to {to}", soft_wrap=True)
    return 0


def schema(dimensions: int) -> pa.Schema:
    """Return the columns of the file."""
    import pyarrow as pa

    from pointsman.core import rows

    return pa.schema(
        [
            *(rows.CHUNKS.field(name) for name in COLUMNS),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("snapshot", pa.int64(), nullable=False),
            *(pa.field(name, pa.string(), nullable=False) for name in ("recipe", "space", "model", "revision")),
        ]
    )


def _batches(
    dataset: DatasetStore, recipe: Recipe, record: EmbeddedSnapshot, provenance: dict[str, Any]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    dimensions = recipe.space.dimensions
    form = schema(dimensions)
    reader = dataset.vectors(recipe.space.document_side, dimensions).reader()
    size = max(1, GROUP_BYTES // (4 * dimensions))
    found = dataset.chunks(recipe.key).read(record.chunks_version, columns=COLUMNS, batch_rows=size)
    for batch in found:
        vectors = reader.take(batch["content_key"])
        columns = {name: batch[name] for name in COLUMNS}
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimensions)
        columns |= {
            key: pa.repeat(pa.scalar(value, form.field(key).type), len(batch)) for key, value in provenance.items()
        }
        yield pa.RecordBatch.from_arrays([columns[field.name] for field in form], schema=form)


def _write(to: Path, batches: Iterator[pa.RecordBatch], form: pa.Schema, record: EmbeddedSnapshot) -> int:
    """Write beside the file and rename at the end, so that a reader never sees half of it."""
    import pyarrow.parquet as pq

    partial = to.with_name(f".{to.name}.{os.getpid()}.partial")
    rows = 0
    try:
        try:
            with partial.open("wb") as file:
                with _progress(record.rows) as advance, pq.ParquetWriter(file, form, compression="zstd") as writer:
                    for batch in batches:
                        writer.write_batch(batch)
                        rows += len(batch)
                        advance(len(batch))
                os.fsync(file.fileno())
            if rows != record.rows:
                raise Terminal(Reason.INDEX_DIFFERS, f"the store holds {rows:,} rows, its record says {record.rows:,}")
            partial.replace(to)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise Terminal(
            Reason.INVALID_SPEC, f"{to} cannot be written: {error.strerror or type(error).__name__}"
        ) from error
    return rows


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Show how far it is, where somebody watches."""
    out = session.console(to_stderr=True)
    if not out.is_terminal:
        yield lambda rows: None
        return
    from rich.progress import Progress

    with Progress(console=out, transient=True) as bar:
        task = bar.add_task("rows", total=total)
        yield lambda rows: bar.advance(task, rows)
