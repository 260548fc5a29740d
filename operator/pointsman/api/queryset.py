"""QuerySet: queries with judged answers, by which versions are compared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pointsman.api import base
from pointsman.api.conditions import Condition
from pointsman.api.dataset import FilesSource

DocumentID = Annotated[str, Field(min_length=1, max_length=512)]


class Query(base.Model):
    """One query of a handful."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    """The query's own id."""
    text: Annotated[str, Field(min_length=1, max_length=4096)]
    """The query's text."""
    group: Annotated[str, Field(max_length=256)] = ""
    """Queries of one group hang together and count as one in the statistics; by default each is its own."""
    relevant: Annotated[list[DocumentID], Field(min_length=1, max_length=64)]
    """The documents that answer it."""


class Queries(base.Model):
    """Exactly one place where the queries are."""

    files: FilesSource | None = None
    """Rows with `id`, `text` and, where wanted, `group`."""
    inline: Annotated[list[Query], Field(max_length=100)] | None = None
    """A handful of queries with their answers."""


class Judgements(base.Model):
    """Which documents answer which query."""

    files: FilesSource | None = None
    """Rows with `query`, `document` and, where wanted, `grade`; omitted when the queries are inline."""
    kind: Literal["Complete", "Pooled", "KnownItem"] = "Complete"
    """What an unjudged document is: not relevant, unknown, or not the one right answer."""


class Spec(base.Model):
    """What a user declares of a query set."""

    queries: Queries
    """The queries."""
    judgements: Judgements = Judgements()
    """Their answers."""
    refresh: Annotated[base.Duration, Field()] = "1h"
    """How often the files are read again."""


class QuerySetStatus(base.Model):
    """What is true of a query set."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    queries: int = 0
    groups: int = 0
    judgements: int = 0
    digest: str = ""
