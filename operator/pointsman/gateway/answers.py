"""How is what was found written? As our own JSON, and in the shapes that OpenAI's clients read."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from pointsman import ports
from pointsman.gateway import routing, telemetry
from pointsman.gateway.directory import Deployment
from pointsman.gateway.models import Vector
from pointsman.gateway.opening import Adopted
from pointsman.gateway.requests import Search
from pointsman.gateway.searching import Found


def provenance(route: routing.Route, entry: routing.Entry) -> dict[str, Any]:
    """Return what answered: everything that is needed to tell whether two answers may be compared."""
    return {
        "version": entry.version,
        "snapshot": entry.snapshot,
        "space": entry.space,
        "model": entry.embedding.model,
        "index": entry.index,
        "route": {"epoch": route.epoch, "revision": route.revision},
    }


def search(found: Found, asked: Search) -> dict[str, Any]:
    """Return the answer to a search."""
    results = [[_hit(hit, asked) for hit in hits] for hits in found.hits]
    return {**provenance(found.route, found.entry), "results": results if asked.is_list else results[0]}


def openai_search(found: Found, asked: Search) -> dict[str, Any]:
    """Return the page of results of a vector store; those of several queries one behind the other, best first."""
    hits = [hit for each in found.hits for hit in each]
    if len(found.hits) > 1:
        hits = _merged(hits, asked.top_k)
    return {
        "object": "vector_store.search_results.page",
        "search_query": list(asked.queries),
        "data": [
            {
                "file_id": hit.document,
                "filename": _filename(hit),
                "score": hit.score,
                "attributes": {name: _attribute(value) for name, value in hit.metadata.items()},
                "content": [{"type": "text", "text": hit.text}],
            }
            for hit in hits
        ],
        "has_more": False,
        "next_page": None,
        "pointsman": provenance(found.route, found.entry),
    }


def embeddings(
    route: routing.Route, entry: routing.Entry, vectors: Sequence[Vector], is_base64: bool
) -> dict[str, Any]:
    """Return vectors as OpenAI's clients read them."""
    data = [
        {"object": "embedding", "index": number, "embedding": _base64(vector) if is_base64 else vector}
        for number, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "usage": usage, **provenance(route, entry)}


def route(deployment: Deployment, adopted: Adopted) -> dict[str, Any]:
    """Return the route that is served."""
    found = adopted.route
    return {
        "namespace": deployment.name[0],
        "name": deployment.name[1],
        "epoch": found.epoch,
        "revision": found.revision,
        "adoptedAt": telemetry.iso(adopted.at),
        "dataset": found.dataset,
        "address": found.address,
        "shadow": {"index": found.shadow, "percent": found.shadow_percent} if found.shadow else None,
        "entries": [
            {
                "index": entry.index,
                "version": entry.version,
                "weight": entry.weight,
                "snapshot": entry.snapshot,
                "recipe": entry.recipe,
                "space": entry.space,
                "provider": entry.embedding.provider,
                "model": entry.embedding.model,
                "revision": entry.embedding.revision,
                "dimensions": entry.embedding.dimensions,
                "metric": entry.embedding.metric,
                "queryPrefix": entry.embedding.query_prefix,
                "documentPrefix": entry.embedding.document_prefix,
            }
            for entry in found.entries
        ],
        "problem": deployment.problem(),
    }


def _hit(hit: ports.Hit, asked: Search) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": hit.point_id.hex(),
        "document": hit.document,
        "chunk": hit.ordinal,
        "score": hit.score,
    }
    if asked.with_text:
        found["text"] = hit.text
    if asked.with_metadata:
        found["metadata"] = hit.metadata
    return found


def _merged(hits: Sequence[ports.Hit], top_k: int) -> list[ports.Hit]:
    """Return the best hits of several queries, each chunk once."""
    best: dict[bytes, ports.Hit] = {}
    for hit in sorted(hits, key=lambda hit: -hit.score):
        best.setdefault(hit.point_id, hit)
    return list(best.values())[:top_k]


def _filename(hit: ports.Hit) -> str:
    found = hit.metadata.get("filename")
    return found if isinstance(found, str) else hit.document


def _attribute(value: Any) -> str | float | bool:
    """Return a value as OpenAI's attributes have it, which know no lists."""
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    scalar: str | float | bool = value
    return scalar


def _base64(vector: Vector) -> str:
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()
