"""How the rows of any source become batches of documents: one meaning of ids, values and sizes for all of them."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pointsman.core import documents, portions, rows

BATCH_ROWS = 8_192
MAX_ROW_BYTES = 16 * 2**20
"""The longest row that is read; a longer one is refused with its position and skipped."""
TOO_LONG = f"longer than {MAX_ROW_BYTES // 2**20} MiB"
"""How it is told."""


class Batches:
    """Collects documents and hands them out in batches of bounded rows and bytes."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._fields: list[str] = []
        self._bytes = 0

    def add(self, identity: str, fields: str) -> Iterator[pa.RecordBatch]:
        """Take one document; yield a batch where one became full."""
        self._ids.append(identity)
        self._fields.append(fields)
        self._bytes += len(fields)
        if len(self._ids) >= BATCH_ROWS or self._bytes >= portions.MOST_BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[pa.RecordBatch]:
        """Yield what is left, where there is any."""
        if self._ids:
            yield pa.RecordBatch.from_arrays(
                [pa.array(self._ids, pa.string()), pa.array(self._fields, pa.string())], schema=rows.DOCUMENTS
            )
            self._ids, self._fields, self._bytes = [], [], 0


def document(row: dict[str, Any], id_field: str) -> tuple[str, str]:
    """Return a row as (id, all other fields as canonical JSON); raises documents.Refused. Takes the id out of `row`."""
    identity = _text(row.pop(id_field, None))
    if identity is None or identity == "":
        raise documents.Refused("without id")
    if not isinstance(identity, str) or "\0" in identity:
        raise documents.Refused("with an id that is neither text nor an integer")
    try:
        # An id that was read from invalid bytes has no UTF-8 form.
        identity.encode()
        fields = _canonical(row)
    except UnicodeEncodeError:
        raise documents.Refused("invalid UTF-8") from None
    # Most are so short that nobody needs to know how many bytes their characters have.
    if 4 * len(fields) > MAX_ROW_BYTES and len(fields.encode()) > MAX_ROW_BYTES:
        raise documents.Refused(TOO_LONG)
    return identity, fields


def _text(identity: Any) -> Any:
    """Return an id that has one spelling as text, and any other as it is."""
    match identity:
        case int() if not isinstance(identity, bool):
            return str(identity)
        case decimal.Decimal() if identity.is_finite() and identity == identity.to_integral_value():
            return f"{identity.to_integral_value():f}"
        case uuid.UUID():
            return str(identity)
        case _:
            return identity


def _canonical(row: dict[str, Any]) -> str:
    try:
        return documents.canonical(row)
    except TypeError as error:
        if "surrogates" in str(error):
            raise documents.Refused("invalid UTF-8") from None
        return documents.canonical({name: plain(value) for name, value in row.items()})


def plain(value: Any) -> Any:
    """Return a database's value as JSON knows it: decimals and unknown types as text, NaN as null.

    Raises documents.Refused for binary values.
    """
    match value:
        case None | bool() | str():
            return value
        case float() if not math.isfinite(value):
            return None
        case int():
            # JSON numbers beyond 64 bits lose digits in most readers.
            return value if -(2**63) <= value < 2**64 else str(value)
        case float() | datetime.date() | datetime.time():
            return value if isinstance(value, float) else value.isoformat()
        case decimal.Decimal():
            return str(value) if value.is_finite() else None
        case dict():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple() | set():
            return [plain(item) for item in value]
        case bytes() | bytearray() | memoryview():
            raise documents.Refused("with binary values")
        case _:
            return str(value)
