"""The records that make a snapshot: small, immutable, written last."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import orjson

from pointsman.api.conditions import Reason
from pointsman.errors import Terminal

FORMAT = 1
"""The format of the records that this release writes. It reads its own and, once there is one, the one before."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A numbered, immutable state of a dataset's documents."""

    number: int
    sequence: int
    """The last entry of the change log that is folded in."""
    corpus_version: int
    """The version of the corpus table."""
    documents: int
    digest: str
    """Hexadecimal, over ids and digests of the documents."""
    added: int
    deleted: int
    edited: int
    unchanged: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EmbeddedSnapshot:
    """A snapshot as one recipe's rows, every one with its vector: `v8@12`."""

    version: str
    """The name that it was first made for; other names of the same recipe share it."""
    recipe: str
    space: str
    snapshot: int
    sequence: int
    chunks_version: int
    """The version of the recipe's table of chunks."""
    documents: int
    rows: int
    digest: str
    """Hexadecimal, over the points and the recipe."""
    changes: Mapping[str, int]
    """Documents by cause, since the snapshot before of the same recipe; the keys are those of `Cause`."""
    embedded: int
    """Texts that were embedded for it."""
    reused: int
    """Texts whose vectors were there."""
    tokens: int
    """Of the texts that were embedded for it, where the model is paid by the token."""
    model: str
    revision: str
    created_at: datetime
    tokens_stated: int = 0
    """How many of the tokens the endpoint itself has stated; the others are estimated."""


R = TypeVar("R", Snapshot, EmbeddedSnapshot)


def encoded(record: Snapshot | EmbeddedSnapshot) -> bytes:
    """Return a record as the store keeps it."""
    return orjson.dumps({"format": FORMAT, **dataclasses.asdict(record)}, option=orjson.OPT_SORT_KEYS)


def decoded(kind: type[R], content: bytes, where: str) -> R:
    """Read the record of a path back.

    Raises Terminal(STORE_UNREACHABLE) for a format that this release does not know, and for what is no record.
    """
    with reading(where):
        value: dict[str, Any] = orjson.loads(content)
        require_format(value, where)
        known = {field.name for field in dataclasses.fields(kind)}
        value = {name: part for name, part in value.items() if name in known}
        value["created_at"] = datetime.fromisoformat(value["created_at"])
        return kind(**value)


def require_format(value: Mapping[str, Any], where: str) -> None:
    """Raise Terminal(STORE_UNREACHABLE) for a record of a format that this release does not know."""
    found = value.get("format")
    if found != FORMAT:
        raise Terminal(
            Reason.STORE_UNREACHABLE,
            f"{where} in the store has format {found}, this release reads {FORMAT}; install the release that wrote it",
        )


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Raise Terminal(STORE_UNREACHABLE) where what a path holds cannot be made sense of."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # A machine that loses power may leave an empty file behind.
        raise Terminal(
            Reason.STORE_UNREACHABLE,
            f"{where} in the store is damaged or of a later release; restore it, or delete it to have it made again",
        ) from error
