"""Does an index still answer a few chosen queries as it should?

Inside one space the answers of another index, or of another day, are the measure: unchanged documents must come back.
Across spaces scores and orders cannot be compared, and only what a person expects is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

TIE: Final = 1e-4
"""Scores that differ by no more are the same: batches and hardware move them by as much."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document with its score; higher is nearer."""

    document: str
    score: float


def overlap(pinned: Sequence[Hit], now: Sequence[Hit], k: int, changed: Collection[str] = ()) -> float | None:
    """Return the share of the pinned top k that is answered now, inside one space, or something as near.

    Documents in `changed` (edited, added or removed since) are left out of both, so that more than k hits should be
    given where there are such. A pinned document that is missing counts as answered for each document in its place that
    scores as high as the last pinned one, but for a tie. None where no unchanged document was pinned.
    """
    wanted = [hit for hit in pinned if hit.document not in changed][:k]
    if not wanted:
        return None
    found = [hit for hit in now if hit.document not in changed][: len(wanted)]
    names = {hit.document for hit in wanted}
    lowest = min(hit.score for hit in wanted)
    tied = sum(abs(hit.score - lowest) <= TIE for hit in wanted)
    kept = {hit.document for hit in found} & names
    # Only those pinned at the last score may be exchanged: whoever stood above it has no equal outside.
    lost_ties = tied - sum(abs(hit.score - lowest) <= TIE for hit in wanted if hit.document in kept)
    equals = sum(hit.document not in names and abs(hit.score - lowest) <= TIE for hit in found)
    return (len(kept) + min(lost_ties, equals)) / len(wanted)


def mean_overlap(
    pinned: Mapping[str, Sequence[Hit]],
    now: Mapping[str, Sequence[Hit]],
    k: int,
    changed: Collection[str] = (),
) -> float | None:
    """Return the mean overlap over the queries that have one; a query that was not answered now has 0."""
    overlaps = [overlap(hits, now.get(query, ()), k, changed) for query, hits in pinned.items()]
    known = [value for value in overlaps if value is not None]
    return sum(known) / len(known) if known else None


def missing(
    expected: Mapping[str, Collection[str]], rankings: Mapping[str, Sequence[str]], k: int
) -> dict[str, list[str]]:
    """Return, by query, the expected documents that are not among its first k, across spaces; empty where all are."""
    absent = {
        query: [document for document in documents if document not in rankings.get(query, ())[:k]]
        for query, documents in expected.items()
    }
    return {query: documents for query, documents in absent.items() if documents}
