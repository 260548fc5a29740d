"""What does an answer of an OpenAI-compatible endpoint say? Reads it, trusts none of it, and shows none of
it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from pointsman.api.conditions import Reason
from pointsman.embedders import vectors
from pointsman.errors import Terminal
from pointsman.ports import Vectors

_LONGEST_NAME: Final = 256
_MOST_TOKENS: Final = 10**9
"""Of one answer: whoever states more does not count tokens."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What a good answer says."""

    vectors: Vectors
    """In the order of the texts, of unit length."""
    model: str | None
    """The model's name, where it is stated."""
    tokens: int | None
    """How many tokens the texts have, where that is stated."""


def most_bytes(texts: int, dimensions: int) -> int:
    """Return the size that no honest answer exceeds: float lists are the longest, at up to 26 characters a
    number."""
    return 65_536 + texts * (1_024 + 26 * dimensions)


def read(body: bytes, texts: int, dimensions: int) -> Embeddings:
    """Return an answer's vectors, with the model's name and the count of tokens if they are stated.

    Takes base64 and lists of numbers alike, as some servers ignore the wanted encoding. Raises
    Terminal(MODEL_INVALID), saying what was found and what was wanted.
    """
    answer = _json(body)
    items = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _invalid("no list of embeddings", "OpenAI's format; check that baseURL leads to its embeddings API")
    if len(items) != texts:
        raise _invalid(f"{len(items)} embeddings", f"{texts}, one for each text")
    found = np.empty((texts, dimensions), dtype=np.float32)
    for row, item in zip(_order(items), items, strict=True):
        found[row] = _vector(item.get("embedding"), dimensions)
    return Embeddings(vectors.unit(found), _name(answer.get("model")), _tokens(answer.get("usage")))


def error_code(body: bytes) -> str:
    """Return the code of an error in OpenAI's shape, to be compared with known ones, or an empty string."""
    try:
        answer = _json(body)
    except Terminal:
        return ""
    error = answer.get("error") if isinstance(answer, dict) else None
    code = error.get("code") or error.get("type") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""


def _json(body: bytes) -> Any:

    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _invalid("no JSON", "OpenAI's format; check that baseURL leads to its embeddings API") from None


def _order(items: list[dict[str, Any]]) -> list[int]:
    indexes = [item.get("index") for item in items]
    if all(index is None for index in indexes):
        # Some servers leave the index out and keep the order.
        return list(range(len(items)))
    known = [index for index in indexes if type(index) is int]
    if sorted(known) != list(range(len(items))):
        raise _invalid("indexes that are missing or doubled", f"each of 0 to {len(items) - 1} once")
    return known


def _vector(value: Any, dimensions: int) -> Any:
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value)
        except (binascii.Error, ValueError):
            raise _invalid("embeddings that are no base64", "32-bit floats in base64") from None
        if len(raw) % 4:
            raise _invalid(f"embeddings of {len(raw)} bytes", f"{4 * dimensions}: 32-bit floats in base64")
        vector = np.frombuffer(raw, dtype="<f4")
    elif isinstance(value, list):
        try:
            vector = np.array(value, dtype=np.float32)
        except (TypeError, ValueError, OverflowError):
            raise _invalid("embeddings that are no lists of numbers", "numbers only") from None
    else:
        raise _invalid("embeddings that are neither base64 nor lists", "one of the two")
    if vector.shape != (dimensions,):
        raise _invalid(
            f"vectors of {vector.shape[0] if vector.ndim == 1 else 'nested'} dimensions",
            f"{dimensions} as declared; correct dimensions, or set sendDimensions",
        )
    return vector


def _name(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_NAME or not value.isprintable():
        raise _invalid("a model whose name cannot be shown", f"at most {_LONGEST_NAME} printable characters")
    return value


def _tokens(usage: Any) -> int | None:
    """Return the stated count; none is as good as a wrong one, since vectors are what was asked for."""
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int and 0 < count <= _MOST_TOKENS else None


def _invalid(found: str, wanted: str) -> Terminal:
    return Terminal(Reason.MODEL_INVALID, f"the endpoint answers with {found}, wanted {wanted}")
