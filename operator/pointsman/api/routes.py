"""What gateways are told: which indexes are live, which model embeds for each, and which share of queries each gets."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pointsman.api import base

MOST_INDEXES = 64
"""How many indexes a status lists."""


class RouteEntry(base.Fact):
    """An index that gateways may search, with the model that embeds for it: one object, never taken apart."""

    index: str
    """The collection or table."""
    version: str
    """Its version."""
    weight: int = 0
    """Its share of the queries, in percent."""
    snapshot: int = 0
    """The snapshot that it holds."""
    recipe: str = ""
    """The recipe of its content."""
    space: str = ""
    """The space of its vectors."""
    provider: str = ""
    """How the model is reached: wordllama or openai."""
    model: str = ""
    """The model's name."""
    revision: str = ""
    """The model's revision."""
    dimensions: int = 0
    """Of the vectors."""
    metric: str = "cosine"
    """How vectors are compared."""
    query_prefix: str = ""
    """What the model is given before a query."""
    document_prefix: str = ""
    """What the model is given before a document."""


class ShadowStatus(base.Fact):
    """Which index is asked beside, off the queries' path."""

    index: str
    """The collection or table."""
    percent: int
    """The share of the queries."""


class RouteStatus(base.Fact):
    """What gateways serve."""

    epoch: int = 0
    """Of the operator that wrote it; a gateway refuses a route of an older one."""
    revision: int = 0
    """Counts the changes; it only grows."""
    salt: str = ""
    """Part of what a session is hashed with."""
    shadow: ShadowStatus | None = None
    """Which index is asked beside."""
    entries: Annotated[list[RouteEntry], base.keyed("index"), Field(max_length=MOST_INDEXES)] = []
    """The live indexes; the weights are cut in this order and sum to 100."""
    dataset: str = ""
    """The dataset whose endpoints reach the models."""
    engine: str = ""
    """The database's engine."""
    address: str = ""
    """Where the indexes are."""
