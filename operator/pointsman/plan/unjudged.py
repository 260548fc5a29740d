"""Which pairs of query and document should people judge next? Ids alone, and nothing of which version found them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pointsman.core import holes
from pointsman.plan import facts

MOST = 2_000
"""Pairs that are kept, those first that would move a comparison most."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """What an evaluation by Pooled judgements has found and nobody has judged, the most telling first."""

    query_set: str
    digest: str
    """The content of the query set: with other judgements the list is another one."""
    metric: str
    measured_at: datetime
    total: int
    """How many pairs there are, beside those that are kept."""
    pairs: tuple[tuple[str, str], ...]
    """Query and document."""


def of(query_set: str, digest: str, metric: str, measured_at: datetime, found: Sequence[holes.Unjudged]) -> Unjudged:
    """Return what is kept of the pairs of an evaluation."""
    pairs = tuple((pair.query, pair.document) for pair in found[:MOST])
    return Unjudged(query_set, digest, metric, measured_at, len(found), pairs)


def to_json(found: Unjudged) -> dict[str, Any]:
    """Return the pairs as the value that the store keeps."""
    return facts.plain(found)


def from_json(value: dict[str, Any]) -> Unjudged:
    """Read them back; raises as `facts.from_json` does."""
    known = facts.known(Unjudged, value)
    return Unjudged(**known | {"pairs": tuple((query, document) for query, document in known["pairs"])})
