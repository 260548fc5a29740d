"""What can be asked of the gateway, for machines and on one page for people. Nothing on it comes from elsewhere."""

from __future__ import annotations

import html
import json
from typing import Any

import pointsman

_ERROR = {"$ref": "#/components/schemas/Error"}
_REFUSALS = {
    "400": "The request is not as it should be; the message names the field, what was found and what is wanted.",
    "401": "No bearer token that is known here.",
    "403": "The token does not allow this deployment.",
    "404": "There is no such deployment, or no such document.",
    "413": "The body, a text or a batch is larger than the settings allow.",
    "429": "Too many requests to this deployment are under way; see Retry-After.",
    "502": "The model or the database of the version refuses; the message says which, and somebody has to mend it.",
    "503": "Not ready, not answered in time, or its model or database does not answer; see Retry-After.",
}
_PROVENANCE: dict[str, Any] = {
    "version": {"type": "string", "description": "The version that answered."},
    "snapshot": {"type": "integer", "description": "The snapshot that its index holds."},
    "space": {"type": "string", "description": "Scores and vectors may be compared inside one space only."},
    "model": {"type": "string"},
    "index": {"type": "string", "description": "The collection or table."},
    "route": {
        "type": "object",
        "properties": {"epoch": {"type": "integer"}, "revision": {"type": "integer"}},
    },
}
_TEXTS = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_FILTER = {
    "type": "object",
    "description": "A comparison {type: eq|ne|gt|gte|lt|lte|in|nin, key, value} or {type: and|or, filters: [...]}.",
}
_HIT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The point's id, 32 hexadecimal characters."},
        "document": {"type": "string"},
        "chunk": {"type": "integer", "description": "Which chunk of the document, from 0."},
        "score": {"type": "number", "description": "The cosine."},
        "text": {"type": "string"},
        "metadata": {"type": "object"},
    },
}
_SEARCH = {
    "type": "object",
    "description": "Exactly one of query, vector and like.",
    "properties": {
        "query": _TEXTS,
        "vector": {"type": "array", "items": {"type": "number"}},
        "space": {"type": "string", "description": "The space that the vector was embedded in; wanted with one."},
        "like": {"type": "string", "description": "A document's id: searches with its stored vectors."},
        "as": {"enum": ["query", "document"], "default": "query", "description": "The side of the prefix."},
        "topK": {"type": "integer", "minimum": 1, "default": 10},
        "filter": _FILTER,
        "session": {"type": "string", "description": "Who asks: a session stays with one version."},
        "hits": {"enum": ["chunks", "documents"], "default": "chunks"},
        "include": {"type": "array", "items": {"enum": ["text", "metadata"]}},
    },
}
_OPENAI_SEARCH = {
    "type": "object",
    "required": ["query"],
    "properties": {
        "query": _TEXTS,
        "max_num_results": {"type": "integer", "minimum": 1, "default": 10},
        "filters": _FILTER,
        "ranking_options": {"type": "object", "properties": {"score_threshold": {"type": "number"}}},
        "session": {"type": "string", "description": "Ours; send it by extra_body."},
    },
}
_EMBEDDINGS = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "input": _TEXTS,
        "model": {"type": "string", "description": "A live version or its model; the serving one by default."},
        "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        "as": {"enum": ["query", "document"], "default": "query", "description": "Ours; the side of the prefix."},
    },
}


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    index = "/v1/namespaces/{namespace}/indexes/{name}"
    place = [_parameter("namespace"), _parameter("name")]
    results = {
        "type": "array",
        "items": _HIT,
        "description": "One list of hits; a list of lists for a list of queries.",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pointsman gateway",
            "version": pointsman.__version__,
            "description": "Searches by the version that is served, and says which it was.",
        },
        "security": [{"bearer": []}],
        "paths": {
            f"{index}/search": {
                "post": _operation(
                    "Search by texts, a vector or a document", place, _SEARCH, {**_PROVENANCE, "results": results}
                )
            },
            f"{index}/embeddings": {
                "post": _operation("Embed texts, as OpenAI's API does", place, _EMBEDDINGS, _PROVENANCE)
            },
            "/v1/vector_stores/{store}/search": {
                "post": _operation(
                    "Search as in a vector store of OpenAI's; its id is <namespace>.<name>",
                    [_parameter("store")],
                    _OPENAI_SEARCH,
                    {"data": {"type": "array"}, "has_more": {"type": "boolean"}},
                )
            },
            f"{index}/route": {"get": _operation("Show the route that is served", place, None, {})},
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {
                        "error": {
                            "type": "object",
                            "properties": {
                                "message": {"type": "string"},
                                "type": {"enum": ["invalid_request_error", "server_error"]},
                                "param": {"type": ["string", "null"]},
                                "code": {"type": "string"},
                            },
                        }
                    },
                }
            },
        },
    }


def page() -> str:
    """Return the same as one page of HTML."""
    found = document()
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Pointsman gateway</title>",
        "<style>body{font:16px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}"
        "pre{background:#f4f4f4;padding:1em;overflow:auto}code{font-size:14px}</style>",
        f"<h1>{html.escape(found['info']['title'])} {html.escape(found['info']['version'])}</h1>",
        f"<p>{html.escape(found['info']['description'])} The same for machines: <a href=openapi.json>openapi.json</a>.",
    ]
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(operation['summary'])}.")
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                parts.append(f"<pre><code>{html.escape(json.dumps(schema, indent=2))}</code></pre>")
    parts.append("<h2>Refusals</h2><ul>")
    parts += [f"<li><b>{status}</b> {html.escape(what)}" for status, what in _REFUSALS.items()]
    return "\n".join([*parts, "</ul></html>\n"])


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _operation(
    summary: str, parameters: list[dict[str, Any]], asked: dict[str, Any] | None, answered: dict[str, Any]
) -> dict[str, Any]:
    answer = {"type": "object", "properties": answered}
    found: dict[str, Any] = {
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
            **{
                status: {"description": what, "content": {"application/json": {"schema": _ERROR}}}
                for status, what in _REFUSALS.items()
            },
        },
    }
    if asked is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": asked}}}
        if "vector" in asked["properties"]:
            conflict = {"description": "No live index is of the vector's space.", "content": {}}
            found["responses"]["409"] = conflict
    return found
