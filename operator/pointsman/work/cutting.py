"""How documents become the rows of a recipe: rendered, cut, and named by what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pointsman.core import chunking, digests, documents, rows
from pointsman.core.recipes import Recipe

DOCUMENTS_AT_ONCE = 1_024


class Cutter:
    """Makes the rows of one recipe, and counts the documents that it refuses."""

    def __init__(self, recipe: Recipe, refuses: bool = True) -> None:
        """With `refuses` False documents that cannot be rendered are passed over in silence."""
        chunking.check(recipe.chunker)
        self._recipe = recipe
        self._render = documents.renderer(recipe)
        # A digest of its own, which is not to be made again for each text.
        self._side = recipe.space.document_side
        self._refusals = documents.Refusals()
        self._documents = 0
        self._refuses = refuses

    def cut(self, corpus: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Take batches of `rows.CORPUS`; yield (documents, their rows as `rows.CHUNKS`), a thousand documents at most.

        Raises Terminal(SOURCE_INVALID) once all were looked at, where the recipe cannot render some.
        """
        for batch in corpus:
            for start in range(0, batch.num_rows, DOCUMENTS_AT_ONCE):
                part = batch.slice(start, DOCUMENTS_AT_ONCE)
                yield part.num_rows, self._rows(part)
        if not self._refuses:
            return
        self._refusals.raise_if_any(
            self._documents,
            "documents of the snapshot cannot be rendered by this version",
            "mend them in the source, or declare a version with another template",
        )

    def _rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        chunker, side, prefix = self._recipe.chunker, self._side, self._recipe.space.document_prefix
        columns: tuple[list[Any], ...] = tuple([] for _ in rows.CHUNKS)
        points, names, ordinals, texts, contents, wholes, cuts, metadata, metadata_digests, sequences = columns
        for identity, fields, sequence in zip(
            *(batch.column(name).to_pylist() for name in ("id", "fields", "sequence")), strict=True
        ):
            self._documents += 1
            try:
                rendered = self._render(fields)
            except documents.Refused as refused:
                self._refusals.add(str(refused))
                continue
            chunks = chunking.cut(rendered.text, chunker)
            count = len(chunks)
            points += [digests.point_id(identity, ordinal) for ordinal in range(count)]
            ordinals += range(count)
            texts += chunks
            contents += [digests.content_key(side, prefix + text) for text in chunks]
            names += [identity] * count
            wholes += [digests.text_digest(rendered.text)] * count
            cuts += [digests.cut_digest(chunks)] * count
            metadata += [rendered.metadata] * count
            metadata_digests += [digests.text_digest(rendered.metadata)] * count
            sequences += [sequence] * count
        return pa.RecordBatch.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, rows.CHUNKS, strict=True)],
            schema=rows.CHUNKS,
        )
