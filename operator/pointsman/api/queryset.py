"""QuerySet: queries with judged answers, by which versions are compared."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pointsman.api import base
from pointsman.api.conditions import Condition
from pointsman.api.dataset import FilesSource, Refresh

_ONE_PLACE = "exactly one of files and inline is wanted"
_BOTH_PLACES = "judgements.files is wanted where queries come from files, and nowhere else: inline queries name theirs"

Kind = Literal["Complete", "Pooled", "KnownItem"]
DocumentID = Annotated[str, Field(min_length=1, max_length=512)]


class Query(base.Model):
    """One query of a handful."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    """The query's own id."""
    text: Annotated[str, Field(min_length=1, max_length=4096)]
    """The query's text."""
    group: Annotated[str, Field(max_length=256)] = ""
    """Queries of one group hang together and count as one in the statistics; by default each is its own."""
    relevant: Annotated[list[DocumentID], base.distinct(), Field(min_length=1, max_length=64)]
    """The documents that answer it."""


class Queries(base.Model):
    """Exactly one place where the queries are."""

    model_config = base.rules(base.rule("has(self.files) != has(self.inline)", _ONE_PLACE))

    files: FilesSource | None = None
    """Rows with `id`, `text` and, where wanted, `group`."""
    inline: Annotated[list[Query], base.keyed("id"), Field(min_length=1, max_length=100)] | None = None
    """A handful of queries with their answers."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        base.check_one_of(self, ("files", "inline"), _ONE_PLACE)
        return self


class Judgements(base.Model):
    """Which documents answer which query."""

    files: FilesSource | None = None
    """Rows with `query`, `document` and, where wanted, `grade`; omitted when the queries are inline."""
    kind: Kind = "Complete"
    """What an unjudged document is: not relevant, unknown, or not the one right answer. In a KnownItem set each query
    has one relevant document, of grade 1, or the set is refused."""


class Schedule(base.Model):
    """How often."""

    model_config = base.rules(
        base.rule("duration(self.every) >= duration('1m')", "every must be 1m or more, since each run asks all queries")
    )

    every: base.Duration
    """The time between two times that its queries are asked."""


class Spec(base.Model):
    """What a user declares of a query set."""

    model_config = base.rules(
        base.rule("has(self.queries.files) == (has(self.judgements) && has(self.judgements.files))", _BOTH_PLACES)
    )

    queries: Queries
    """The queries."""
    judgements: Judgements = Judgements()
    """Their answers."""
    refresh: Refresh = Refresh(every="1h")
    """When the files are read again."""
    schedule: Schedule | None = None
    """When the deployments whose gates name this set are asked its queries, to evaluate or as canaries, beside what
    their migrations ask for."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.queries.files is None) != (self.judgements.files is None):
            raise ValueError(_BOTH_PLACES)
        return self


class Effective(base.Fact):
    """What holds where the spec says nothing, beside what it says."""

    kind: Kind
    """What an unjudged document is."""
    refresh: Refresh
    """When the files are read again."""


def effective(spec: Spec) -> Effective:
    """Return the settings of a query set with every default filled in."""
    return Effective(kind=spec.judgements.kind, refresh=spec.refresh)


class QuerySetStatus(base.Fact):
    """What is true of a query set."""

    observed_generation: int = 0
    """The generation of the spec that this status is about."""
    conditions: Annotated[list[Condition], base.keyed("type"), Field(max_length=16)] = []
    """What holds, with reasons."""
    effective: Effective | None = None
    """The settings in force, with every default filled in."""
    queries: int = 0
    """Queries that were read."""
    groups: int = 0
    """Groups of queries that hang together: the samples of the statistics."""
    judgements: int = 0
    """Judgements that were read."""
    read_at: datetime | None = None
    """When the set was read last."""
    digest: str = ""
    """The content of the set, as a digest: a verdict holds for one digest."""
