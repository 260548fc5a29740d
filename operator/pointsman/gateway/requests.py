"""What does a request ask for? Bodies read and checked by hand, since each query pays for it.

What is wrong is told as what was found and what was wanted, by the field's name. Nothing that was sent is repeated but
the names of fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from pointsman.core import filters
from pointsman.errors import Terminal
from pointsman.gateway import faults
from pointsman.gateway.models import Side, Vector

DEFAULT_TOP_K: Final = 10
MOST_WORDS: Final = 512
"""Characters of a session, a document's id or a name."""
MOST_DIMENSIONS: Final = 65_536

_SEARCH: Final = frozenset({"query", "vector", "space", "like", "as", "topK", "filter", "session", "hits", "include"})
_INCLUDED: Final = ("text", "metadata")


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a request may be."""

    body: int = 4 << 20
    """Bytes."""
    text: int = 32_768
    """Characters of one text."""
    top_k: int = 1_000
    batch: int = 64
    """Queries of one search."""
    hits: int = 10_000
    """Hits of all queries of one search, or `top_k` where that is more."""
    inputs: int = 2_048
    """Texts of one request for embeddings."""


@dataclass(frozen=True, slots=True)
class Search:
    """One search as it was asked for: by texts, by a vector, or by a document."""

    top_k: int
    queries: tuple[str, ...] = ()
    is_list: bool = False
    """Whether the queries came as a list, and the answers go as one."""
    side: Side = Side.QUERY
    vector: Vector | None = None
    space: str = ""
    """Of the vector."""
    like: str = ""
    where: filters.Filter | None = None
    fields: frozenset[str] = frozenset()
    """What the filter looks at."""
    session: str = ""
    of_documents: bool = False
    """Whether a hit is the best chunk of its document, each document once."""
    with_text: bool = False
    with_metadata: bool = False
    least_score: float = -2.0

    @property
    def sticks_to(self) -> str:
        """What chooses the version: the session, or else what is asked."""
        return self.session or "\0".join(self.queries) or self.like


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Texts that are to be embedded."""

    texts: tuple[str, ...]
    side: Side
    model: str
    """A live version or its model; empty for the one that serves."""
    dimensions: int | None
    is_base64: bool


def body(raw: bytes) -> Mapping[str, Any]:
    """Read a JSON object; raises Fault 400."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise faults.invalid("the body is no JSON in UTF-8; wanted a JSON object") from None
    if not isinstance(found, dict):
        raise faults.invalid("the body is no JSON object; wanted one")
    return found


def search(raw: bytes, limits: Limits) -> Search:
    """Read the body of a search."""
    found = body(raw)
    if unknown := found.keys() - _SEARCH:
        raise faults.invalid(f"there are {len(unknown)} unknown fields; wanted some of {', '.join(sorted(_SEARCH))}")
    given = [name for name in ("query", "vector", "like") if found.get(name) is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} are" if given else "nothing is"
        raise faults.invalid(f"{what} given to search by; wanted exactly one of query, vector and like", "query")
    queries, is_list = ((), False) if given != ["query"] else texts(found["query"], "query", limits, limits.batch)
    vector, space = (None, "") if given != ["vector"] else (_vector(found["vector"]), _word(found, "space"))
    if given == ["vector"] and not space:
        raise faults.invalid("space is missing; wanted the space that the vector was embedded in", "space")
    if given != ["vector"] and found.get("space") is not None:
        raise faults.invalid("space is given without a vector; wanted it with one alone", "space")
    where = found.get("filter")
    parsed = None if where is None else parse_filter(where, "filter")
    most = _affordable(top_k(found.get("topK"), "topK", limits.top_k), "topK", queries, limits)
    included = found.get("include") or []
    if not isinstance(included, list) or any(each not in _INCLUDED for each in included):
        raise faults.invalid(f"include has something else; wanted a list of {' and '.join(_INCLUDED)}", "include")
    return Search(
        top_k=most,
        queries=queries,
        is_list=is_list,
        side=side(found.get("as")),
        vector=vector,
        space=space,
        like="" if given != ["like"] else _required(found, "like"),
        where=parsed,
        fields=frozenset() if parsed is None else frozenset(_keys(parsed)),
        session=_word(found, "session"),
        of_documents=_one_of(found.get("hits"), "hits", ("chunks", "documents")) == "documents",
        with_text="text" in included,
        with_metadata="metadata" in included,
    )


def openai_search(raw: bytes, limits: Limits) -> Search:
    """Read the body of a search of a vector store, as OpenAI's clients send it."""
    found = body(raw)
    queries, is_list = texts(found.get("query"), "query", limits, limits.batch)
    if found.get("rewrite_query"):
        raise faults.invalid("rewrite_query is true; queries are searched as they are", "rewrite_query")
    most = top_k(found.get("max_num_results"), "max_num_results", limits.top_k)
    where = found.get("filters")
    parsed = None if where is None else parse_filter(where, "filters")
    ranking = found.get("ranking_options") or {}
    threshold = ranking.get("score_threshold") if isinstance(ranking, dict) else False
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | None):
        raise faults.invalid(
            "ranking_options is something else; wanted an object with a number score_threshold", "ranking_options"
        )
    return Search(
        top_k=_affordable(most, "max_num_results", queries, limits),
        queries=queries,
        is_list=is_list,
        where=parsed,
        fields=frozenset() if parsed is None else frozenset(_keys(parsed)),
        # Not a field of OpenAI's: `extra_body` carries it.
        session=_word(found, "session"),
        with_text=True,
        with_metadata=True,
        least_score=-2.0 if threshold is None else float(threshold),
    )


def embeddings(raw: bytes, limits: Limits) -> Embeddings:
    """Read the body of a request for embeddings, as OpenAI's clients send it."""
    found = body(raw)
    given, _ = texts(found.get("input"), "input", limits, limits.inputs)
    dimensions = found.get("dimensions")
    if dimensions is not None and (isinstance(dimensions, bool) or not isinstance(dimensions, int)):
        raise faults.invalid("dimensions is no integer; leave it out", "dimensions")
    form = _one_of(found.get("encoding_format"), "encoding_format", ("float", "base64"))
    return Embeddings(given, side(found.get("as")), _word(found, "model"), dimensions, form == "base64")


def texts(value: Any, name: str, limits: Limits, most: int) -> tuple[tuple[str, ...], bool]:
    """Return texts, and whether they came as a list; raises Fault 400 or 413."""
    is_list = isinstance(value, list)
    found = value if is_list else [value]
    if value is None or not found:
        raise faults.invalid(f"{name} is missing; wanted a text or a list of texts", name)
    if len(found) > most:
        raise faults.too_large(f"{name} has {len(found)} texts; wanted {most} at most", name)
    for text in found:
        if not isinstance(text, str):
            raise faults.invalid(f"{name} is no text and no list of texts", name)
        if not text or text.isspace():
            raise faults.invalid(f"{name} has an empty text; wanted one character at least in each", name)
        if len(text) > limits.text:
            raise faults.too_large(f"{name} has a text of {len(text)} characters; wanted {limits.text} at most", name)
    return tuple(found), is_list


def top_k(value: Any, name: str, most: int) -> int:
    """Return how many hits are wanted; raises Fault 400."""
    if value is None:
        return DEFAULT_TOP_K
    if isinstance(value, bool) or not isinstance(value, int):
        raise faults.invalid(f"{name} is no integer; wanted one from 1 to {most}", name)
    if not 1 <= value <= most:
        raise faults.invalid(f"{name} is {value}; wanted one from 1 to {most}", name)
    return value


def _affordable(most: int, name: str, queries: tuple[str, ...], limits: Limits) -> int:
    """Return how many hits are wanted of each query; raises Fault 413 where all together are too many."""
    allowed = max(limits.hits, limits.top_k)
    if most * len(queries) > allowed:
        raise faults.too_large(f"{name} is {most} for {len(queries)} queries; wanted {allowed} hits at most", name)
    return most


def side(value: Any) -> Side:
    """Return which prefix a text is to get; raises Fault 400."""
    return Side.QUERY if value is None else Side(_one_of(value, "as", tuple(Side)))


def parse_filter(value: Any, name: str) -> filters.Filter:
    """Return a filter; raises Fault 400."""
    _check_size(value, name)
    try:
        return filters.parse(value)
    except Terminal as error:
        raise faults.invalid(error.message.replace("filter", name, 1), name) from None


def _check_size(value: Any, name: str) -> None:
    """Raise Fault 400 for more comparisons than a filter may have, before any of them is read."""
    waiting, comparisons = [value], 0
    while waiting:
        part = waiting.pop()
        parts = part.get("filters") if isinstance(part, dict) else None
        if isinstance(parts, list) and parts:
            waiting += parts[: filters.MOST_VALUES + 1]
            continue
        comparisons += 1
        if comparisons > filters.MOST_VALUES:
            raise faults.invalid(f"{name} compares with more than {filters.MOST_VALUES} values", name)


def _keys(where: filters.Filter) -> set[str]:
    if isinstance(where, filters.Compound):
        return {key for part in where.parts for key in _keys(part)}
    return {where.key}


def _vector(value: Any) -> Vector:
    if not isinstance(value, list) or not value:
        raise faults.invalid("vector is no list of numbers; wanted one", "vector")
    if len(value) > MOST_DIMENSIONS:
        raise faults.too_large(f"vector has {len(value)} numbers; wanted {MOST_DIMENSIONS} at most", "vector")
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in value):
        raise faults.invalid("vector has something else than numbers; wanted numbers only", "vector")
    try:
        found = np.array(value, np.float64)
    except OverflowError:
        raise faults.invalid("vector has an integer beyond all floats; wanted floats", "vector") from None
    length = float(np.linalg.norm(found))
    if not np.isfinite(length) or length == 0:
        raise faults.invalid("vector has no direction; wanted finite numbers, not all of them 0", "vector")
    return np.asarray(found / length, np.float32)


def _one_of(value: Any, name: str, known: tuple[str, ...]) -> str:
    if value is None:
        return known[0]
    if value not in known:
        raise faults.invalid(f"{name} is something else; wanted {' or '.join(known)}", name)
    return str(value)


def _word(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MOST_WORDS:
        raise faults.invalid(f"{name} is no text of at most {MOST_WORDS} characters; wanted one", name)
    return value


def _required(found: Mapping[str, Any], name: str) -> str:
    value = found[name]
    # As long as a document's id may be.
    if not isinstance(value, str) or not 0 < len(value) <= 65_535:
        raise faults.invalid(f"{name} is no document's id; wanted a text", name)
    return value
