"""A source whose rows are given: the one that tests, and whoever embeds Pointsman, start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pointsman.core import documents
from pointsman.sources import batches


class MemorySource:
    """Yields the given rows as documents; edit `rows` between reads to change the content."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], id_field: str = "id") -> None:
        self.rows = list(rows)
        self._id_field = id_field

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield all documents once; see `ports.Source`."""
        collected, refusals = batches.Batches(), documents.Refusals()
        for number, row in enumerate(self.rows, 1):
            try:
                identity, fields = batches.document(dict(row), self._id_field)
            except documents.Refused as refused:
                refusals.add(str(refused), number=number)
                continue
            yield from collected.add(identity, fields)
        refusals.raise_if_any(len(self.rows))
        yield from collected.rest()
