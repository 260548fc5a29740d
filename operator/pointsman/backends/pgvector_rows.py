"""How do points and filters read in PostgreSQL? Bytes for COPY BINARY and conditions for WHERE; no client here.

The binary formats are those of PostgreSQL's `COPY` page (https://www.postgresql.org/docs/current/sql-copy.html), of
`jsonb_recv`, which wants a version byte before the text, and of pgvector's `vector_send` and `halfvec_send`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from pointsman.backends import points
from pointsman.core import filters
from pointsman.ports import Vectors

COLUMNS = (
    ("point_id", "uuid PRIMARY KEY"),
    ("document", "text NOT NULL"),
    ("ordinal", "int NOT NULL"),
    ("text", "text NOT NULL"),
    ("content_key", "bytea NOT NULL"),
    ("metadata", "jsonb NOT NULL"),
    ("metadata_digest", "bytea NOT NULL"),
    ("sequence", "bigint NOT NULL"),
    ("recipe", "text NOT NULL"),
)
"""All columns but the vector's, in the order in which they are copied."""

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_BEGIN = struct.pack(">hi", len(COLUMNS) + 1, 16)
_LENGTH = struct.Struct(">i")
_ORDINAL = struct.Struct(">iii")
_DIGEST_SEQUENCE = struct.Struct(">i16siqi")


def copied(batch: pa.RecordBatch, is_half: bool) -> bytes:
    """Return one batch of `rows.points` as the whole body of a COPY BINARY."""
    parts = [_SIGNATURE]
    for point, vector in zip(zip(*points.columns(batch), strict=True), _sent(batch, is_half), strict=True):
        point_id, document, ordinal, text, key, metadata, digest, sequence, recipe = point
        name, body, fields, made_by = document.encode(), text.encode(), metadata.encode(), recipe.encode()
        parts += (
            _BEGIN,
            point_id,
            _LENGTH.pack(len(name)),
            name,
            _ORDINAL.pack(4, ordinal, len(body)),
            body,
            _LENGTH.pack(len(key)),
            key,
            _LENGTH.pack(len(fields) + 1),
            b"\x01",
            fields,
            _DIGEST_SEQUENCE.pack(16, digest, 8, sequence, len(made_by)),
            made_by,
            vector,
        )
    parts.append(_TRAILER)
    return b"".join(parts)


def _sent(batch: pa.RecordBatch, is_half: bool) -> Iterator[bytes]:
    """Yield each vector as its length and what `vector_recv` or `halfvec_recv` reads."""
    vectors = points.vectors(batch)
    values = vectors.astype(">f2" if is_half else ">f4").tobytes()
    size = len(values) // max(1, len(vectors))
    begin = struct.pack(">ihh", size + 4, vectors.shape[1], 0)
    for start in range(0, len(values), size):
        yield begin + values[start : start + size]


def received(values: Iterable[bytes], is_half: bool, dimensions: int) -> Vectors:
    """Return what `vector_send` or `halfvec_send` wrote as unit vectors of shape (n, dimensions)."""
    body = b"".join(value[4:] for value in values)
    return points.unit(np.frombuffer(body, ">f2" if is_half else ">f4"), dimensions)


def literal(vector: npt.NDArray[np.float32]) -> str:
    """Return one vector as pgvector reads it from text, to the last bit of a 32-bit float."""
    # The shortest digits that read back as the same number; a tenth of the time of formatting each by itself.
    contiguous = np.ascontiguousarray(vector, dtype=np.float32)
    return orjson.dumps(contiguous, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def where(filter_: filters.Filter) -> tuple[str, list[str]]:
    """Return a condition on the column `metadata`, with `%s` for each of the parameters returned.

    Equality is containment, which the GIN index answers; `{"k": ["v"]}` is contained in every list with the
    element. Orderings are SQL/JSON paths in strict mode, which does not look into lists inside of lists.
    """
    match filter_:
        case filters.Compound(junction, parts):
            conditions = [where(part) for part in parts]
            joined = f" {junction.upper()} ".join(condition for condition, _ in conditions)
            return f"({joined})", [parameter for _, parameters in conditions for parameter in parameters]
        case filters.Comparison("eq" | "in", key, values):
            return _contains_any(key, values)
        case filters.Comparison("ne" | "nin", key, values):
            condition, parameters = _contains_any(key, values)
            return f"NOT {condition}", parameters
        case filters.Comparison(operator, key, values):
            sign = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[operator]
            test = f'? (@.type() == "number" && @ {sign} {cast(float, values[0])!r})'
            paths = [f"strict $.{json.dumps(key)}{element} {test}" for element in ("", "[*]")]
            return "(metadata @? %s::jsonpath OR metadata @? %s::jsonpath)", paths


def _contains_any(key: str, values: Sequence[filters.Scalar]) -> tuple[str, list[str]]:
    parameters = [json.dumps({key: form}, ensure_ascii=False) for value in values for form in (value, [value])]
    return "(" + " OR ".join(["metadata @> %s::jsonb"] * len(parameters)) + ")", parameters
