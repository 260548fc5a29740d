"""How do points and filters read in Milvus? Rows and expressions; no client here.

Comparisons of its JSON fields are not used: Milvus and Milvus Lite differ in whether true is 1 and in what `not` says
of a missing key, and Milvus splits a JSON path at brackets, quoted or not.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pointsman import errors, ports
from pointsman.api.conditions import Reason
from pointsman.backends import points, terms
from pointsman.core import filters

LONGEST_TEXT = 65_535
"""Bytes of a VARCHAR: https://milvus.io/docs/limitations.md."""
LONGEST_JSON = 65_536
"""Bytes of a JSON field."""
MOST_TERMS = 4_096
"""Elements of an ARRAY."""


def entities(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the entities of one batch of `rows.points`; raises BACKEND_UNSUPPORTED for what Milvus cannot hold."""
    made: dict[str, tuple[dict[str, Any], list[str], dict[str, float]]] = {}
    found, too_long, too_large = [], 0, 0
    for point, vector in zip(zip(*points.columns(batch), strict=True), points.vectors(batch), strict=True):
        point_id, document, ordinal, text, key, metadata, digest, sequence, recipe = point
        if metadata not in made:
            # The chunks of a document share its metadata, and so do many documents.
            value = json.loads(metadata)
            too_large += not terms.is_in_64_bits(value)
            made[metadata] = value, terms.terms(value), terms.extremes(value)
        value, its_terms, its_extremes = made[metadata]
        too_long += (
            _is_longer(text, LONGEST_TEXT)
            or _is_longer(document, LONGEST_TEXT)
            or _is_longer(metadata, LONGEST_JSON)
            or len(its_terms) > MOST_TERMS
        )
        found.append(
            {
                "id": point_id.hex(),
                "document": document,
                "ordinal": ordinal,
                "text": text,
                "content_key": key.hex(),
                "metadata": value,
                "metadata_digest": digest.hex(),
                "sequence": sequence,
                "recipe": recipe,
                "terms": its_terms,
                "extremes": its_extremes,
                "vector": vector,
            }
        )
    if too_large:
        raise errors.Terminal(
            Reason.BACKEND_UNSUPPORTED,
            f"the metadata of {too_large} documents has integers of more than 64 bits, which Milvus cannot hold; "
            "write them as texts",
        )
    if too_long:
        raise errors.Terminal(
            Reason.BACKEND_UNSUPPORTED,
            f"{too_long} rows have an id or text over {LONGEST_TEXT} bytes, metadata over {LONGEST_JSON} bytes or "
            f"over {MOST_TERMS} list elements, which Milvus cannot hold; cut them smaller",
        )
    return found


def _is_longer(text: str, most: int) -> bool:
    # No character takes more than four bytes, so that most texts need not be encoded to be measured.
    return 4 * len(text) > most and len(text.encode()) > most


def dimensions(description: dict[str, Any]) -> int:
    """Return the dimensions of a collection as it was described."""
    return next(int(f["params"]["dim"]) for f in description["fields"] if f["name"] == "vector")


def hit(found: Any) -> ports.Hit:
    """Return what a search found."""
    entity = found["entity"]
    return ports.Hit(
        point_id=points.from_hex(found["id"]),
        document=entity["document"],
        ordinal=int(entity["ordinal"]),
        score=float(found["distance"]),
        text=entity["text"],
        metadata=entity["metadata"],
    )


def expression(filter_: filters.Filter) -> str:
    """Return a filter as Milvus's boolean expression."""
    match filter_:
        case filters.Compound(junction, parts):
            return "(" + f" {junction} ".join(expression(part) for part in parts) + ")"
        case filters.Comparison("eq" | "in", key, values):
            return _contains_any(key, values)
        case filters.Comparison("ne" | "nin", key, values):
            return f"(not {_contains_any(key, values)})"
        case filters.Comparison("gt" | "gte" as operator, key, values):
            return f'(extremes["{terms.greatest(key)}"] {">" if operator == "gt" else ">="} {values[0]!r})'
        case filters.Comparison(operator, key, values):
            return f'(extremes["{terms.least(key)}"] {"<" if operator == "lt" else "<="} {values[0]!r})'


def _contains_any(key: str, values: tuple[filters.Scalar, ...]) -> str:
    return f"array_contains_any(terms, {json.dumps([terms.term(key, value) for value in values])})"
