"""What is on its way into a table: which keys does it have, and what stopped it?"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc


class Incoming:
    """Batches on their way into a table: remembers their distinct keys, and the error that stopped them."""

    def __init__(self, batches: Iterator[pa.RecordBatch], key: str, schema: pa.Schema) -> None:
        self._batches = batches
        self._key = key
        self._schema = schema
        self._seen: list[pa.Array] = []
        self.error: BaseException | None = None

    def reader(self) -> pa.RecordBatchReader:
        """Return the batches, once, for whoever writes them."""
        return pa.RecordBatchReader.from_batches(self._schema, self._watched())

    @property
    def keys(self) -> pa.Array:
        """The distinct keys of each batch that was read, one after the other."""
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
