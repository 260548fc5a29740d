"""How documents become the rows of a recipe: rendered, cut, and named by what they hold."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pointsman.core import chunking, digests, documents, rows
from pointsman.core.recipes import Recipe

DOCUMENTS_AT_ONCE = 1_024


class Cutter:
    """Makes the rows of one recipe, and counts the documents that it refuses."""

    def __init__(self, recipe: Recipe) -> None:
        chunking.check(recipe.chunker)
        self._recipe = recipe
        self._render = documents.renderer(recipe)
        self._refusals = documents.Refusals()
        self._documents = 0

    def cut(self, corpus: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Take batches of `rows.CORPUS`; yield (documents, their rows as `rows.CHUNKS`), a thousand documents at most.

        Raises Terminal(SOURCE_INVALID) once all were looked at, where the recipe cannot render some.
        """
        for batch in corpus:
            for start in range(0, batch.num_rows, DOCUMENTS_AT_ONCE):
                part = batch.slice(start, DOCUMENTS_AT_ONCE)
                yield part.num_rows, self._rows(part)
        self._refusals.raise_if_any(
            self._documents,
            "documents of the snapshot cannot be rendered by this version",
            "mend them in the source, or declare a version with another template",
        )

    def _rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        space, chunker = self._recipe.space, self._recipe.chunker
        found: list[tuple[object, ...]] = []
        sequences = batch.column("sequence").to_pylist()
        for identity, fields, sequence in zip(
            batch.column("id").to_pylist(), batch.column("fields").to_pylist(), sequences, strict=True
        ):
            self._documents += 1
            try:
                rendered = self._render(fields)
            except documents.Refused as refused:
                self._refusals.add(str(refused))
                continue
            texts = chunking.cut(rendered.text, chunker)
            whole, cut = digests.text_digest(rendered.text), digests.cut_digest(texts)
            metadata = digests.text_digest(rendered.metadata)
            for ordinal, text in enumerate(texts):
                found.append(
                    (
                        digests.point_id(identity, ordinal),
                        identity,
                        ordinal,
                        text,
                        digests.content_key(space.document_side, space.document_prefix + text),
                        whole,
                        cut,
                        rendered.metadata,
                        metadata,
                        sequence,
                    )
                )
        columns = zip(*found, strict=True) if found else [()] * len(rows.CHUNKS)
        return pa.RecordBatch.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, rows.CHUNKS, strict=True)],
            schema=rows.CHUNKS,
        )
