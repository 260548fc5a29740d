"""How do points and filters read in Qdrant? Payloads and conditions as plain JSON; no client here."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pyarrow as pa

from pointsman import errors, ports
from pointsman.api.conditions import Reason
from pointsman.backends import points, terms
from pointsman.core import filters


def payloads(piece: pa.RecordBatch) -> tuple[list[tuple[str, dict[str, Any]]], set[str]]:
    """Return id and payload of each point of `rows.points`, and the names of all extremes among them.

    Raises BACKEND_UNSUPPORTED for what Qdrant cannot hold.
    """
    made: dict[str, dict[str, Any]] = {}
    found, too_large = [], 0
    for point in zip(*points.columns(piece), strict=True):
        point_id, document, ordinal, text, key, metadata, digest, sequence, recipe = point
        if metadata not in made:
            # The chunks of a document share its metadata, and so do many documents.
            value = json.loads(metadata)
            too_large += not terms.is_in_64_bits(value)
            made[metadata] = {
                "metadata": value,
                "metadata_digest": digest.hex(),
                "terms": terms.terms(value),
                "extremes": terms.extremes(value),
            }
        payload = {
            "document": document,
            "ordinal": ordinal,
            "text": text,
            "content_key": key.hex(),
            "sequence": sequence,
            "recipe": recipe,
            **made[metadata],
        }
        found.append((str(uuid.UUID(bytes=point_id)), payload))
    if too_large:
        raise errors.Terminal(
            Reason.BACKEND_UNSUPPORTED,
            f"the metadata of {too_large} documents has integers of more than 64 bits, which Qdrant cannot hold; "
            "write them as texts",
        )
    return found, {field for value in made.values() for field in value["extremes"]}


def condition(filter_: filters.Filter) -> dict[str, Any]:
    """Return a filter as a condition of Qdrant."""
    match filter_:
        case filters.Compound("and", parts):
            return {"must": [condition(part) for part in parts]}
        case filters.Compound(_, parts):
            return {"should": [condition(part) for part in parts]}
        case filters.Comparison("eq" | "in", key, values):
            return _any_of(key, values)
        case filters.Comparison("ne" | "nin", key, values):
            return {"must_not": [_any_of(key, values)]}
        case filters.Comparison("gt" | "gte" as operator, key, values):
            return {"key": f"extremes.{terms.greatest(key)}", "range": {operator: values[0]}}
        case filters.Comparison(operator, key, values):
            return {"key": f"extremes.{terms.least(key)}", "range": {operator: values[0]}}


def _any_of(key: str, values: tuple[filters.Scalar, ...]) -> dict[str, Any]:
    return {"key": "terms", "match": {"any": [terms.term(key, value) for value in values]}}


def point_id(value: object) -> bytes:
    """Return a point's id as 16 bytes; none of a number, which only somebody else gives."""
    return uuid.UUID(value).bytes if isinstance(value, str) else b""


def hit(point: Any) -> ports.Hit:
    """Return a scored point, as the client has it, as a hit."""
    payload = point.payload or {}
    return ports.Hit(
        point_id=point_id(point.id),
        document=str(payload.get("document", "")),
        ordinal=int(payload.get("ordinal", 0)),
        score=float(point.score),
        text=str(payload.get("text", "")),
        metadata=payload.get("metadata") or {},
    )
