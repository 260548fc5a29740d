"""How do points and filters read in PostgreSQL? Bytes for COPY BINARY and conditions for WHERE; no client here.

The binary formats are those of PostgreSQL's `COPY` page (https://www.postgresql.org/docs/current/sql-copy.html), of
`jsonb_recv`, which wants a version byte before the text, and of pgvector's `vector_send` and `halfvec_send`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from pointsman import ports
from pointsman.backends import points
from pointsman.core import filters
from pointsman.ports import Vectors

Row = Sequence[bytes | None]
"""One row, each value as the binary formats have it."""
FOUND = "point_id, document, ordinal, text, metadata"
"""The columns of a hit; behind them stands its score."""

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
_SCORE = struct.Struct(">d")
_MANY_DIGITS = re.compile(rb"[0-9]{19}")


def copied(batch: pa.RecordBatch, is_half: bool) -> bytes:
    """Return one batch of `rows.points` as the whole body of a COPY BINARY."""
    parts = [_SIGNATURE]
    for point, vector in zip(zip(*points.columns(batch), strict=True), _vectors(batch, is_half), strict=True):
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


def _vectors(batch: pa.RecordBatch, is_half: bool) -> Iterator[bytes]:
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


def sent(vector: npt.NDArray[np.float32], is_half: bool) -> bytes:
    """Return one vector as `vector_recv` or `halfvec_recv` reads it."""
    return struct.pack(">hh", len(vector), 0) + vector.astype(">f2" if is_half else ">f4").tobytes()


def hits(found: Iterable[Row]) -> list[ports.Hit]:
    """Return the rows of `FOUND` and a score as hits; none of these columns may be null."""
    # A version byte stands before the text of a jsonb.
    return [
        ports.Hit(
            point_id,
            str(document, "utf-8"),
            int.from_bytes(ordinal, "big", signed=True),
            _SCORE.unpack(score)[0],
            str(text, "utf-8"),
            json_value(metadata[1:]),
        )
        for point_id, document, ordinal, text, metadata, score in cast("Iterable[Sequence[bytes]]", found)
    ]


def json_value(content: bytes | str) -> Any:
    """Read a JSON value, whose integers may be of any size: the fast reader makes floats of those over 64 bits."""
    raw = content.encode() if isinstance(content, str) else content
    return json.loads(raw) if _MANY_DIGITS.search(raw) else orjson.loads(raw)


def numbered(statement: str) -> str:
    """Return a statement with `$1` and so on for each `%s`."""
    first, *others = statement.split("%s")
    return first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))


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
