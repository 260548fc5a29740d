"""Spaces and recipes: what makes two vectors comparable and two indexes the same.

A recipe is all that decides an index's content. Its key is a digest of its canonical form, so that two versions of
different names and one recipe share everything, and a name that is used again for another recipe is found out.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal


def digest(value: Any, length: int = 12) -> str:
    """Return a hexadecimal digest of `length` characters over the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class Space:
    """What makes vectors comparable. Two vectors may be compared only inside one space."""

    provider: Literal["wordllama", "openai"]
    model: str
    revision: str
    dimensions: int
    query_prefix: str = ""
    document_prefix: str = ""
    metric: Literal["cosine"] = "cosine"

    @property
    def key(self) -> str:
        """The space's name: 12 hexadecimal characters."""
        return digest(dataclasses.asdict(self))

    @property
    def document_side(self) -> str:
        """What decides the vector of a document's text: all but the query prefix. Vectors are stored under it."""
        return digest({k: v for k, v in dataclasses.asdict(self).items() if k != "query_prefix"})


@dataclass(frozen=True, slots=True)
class Chunker:
    """How texts are cut; the version is that of the cutting code, so that an upgrade is a new recipe."""

    name: str
    version: str
    max_tokens: int
    overlap_tokens: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides an index's content."""

    space: Space
    template: str
    metadata_fields: tuple[str, ...]
    chunker: Chunker

    @property
    def key(self) -> str:
        """The recipe's name: 12 hexadecimal characters."""
        return _key(self)


# Every look asks for the keys of the same few recipes, many times over.
@functools.lru_cache(maxsize=4096)
def _key(recipe: Recipe) -> str:
    return digest(dataclasses.asdict(recipe))


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as the value that the store keeps."""
    return dataclasses.asdict(recipe)


def from_json(value: dict[str, Any]) -> Recipe:
    """Read a recipe back; a field of a later release is an error, never dropped."""
    return Recipe(
        space=Space(**value["space"]),
        template=value["template"],
        metadata_fields=tuple(value["metadata_fields"]),
        chunker=Chunker(**value["chunker"]),
    )
