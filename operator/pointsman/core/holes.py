"""What do documents that nobody has judged do to a comparison, and which of them should be judged next?

Judgements that were pooled know the documents that some version has found before. A new version that finds others is
marked down for it: it may have failed for holes in the judgements and not for its answers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pointsman.core.evaluation import Grades, Verdict

Rankings = Mapping[str, Sequence[str]]
"""Query -> distinct documents, best first."""

MOST_FEWER: Final = 0.05
"""By how much less of its answers may be judged than of the other version's before a failure is in doubt."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A pair of query and document that is worth a look, and how much."""

    query: str
    document: str
    change: float
    """By how much its discount differs between two versions: what one grade moves, before it is normalised."""


def judged(rankings: Rankings, judgements: Mapping[str, Grades], k: int) -> float:
    """Return judged@k: the mean share of the first k answers that has a grade, whichever, over the judged queries.

    A query without an answer has no hole, and counts as wholly judged.
    """
    shares = []
    for query, grades in judgements.items():
        found = rankings.get(query, ())[:k]
        shares.append(sum(document in grades for document in found) / len(found) if found else 1.0)
    return sum(shares) / len(shares) if shares else 1.0


def condensed(rankings: Rankings, judgements: Mapping[str, Grades]) -> dict[str, list[str]]:
    """Return the rankings without the documents that have no grade (Sakai, SIGIR 2007).

    Values of such lists are too high, for the version with more holes the more so: they cast doubt on a failure, and
    never prove that a version is good (Fröbe et al., "Bootstrapped nDCG estimation", ECIR 2023).
    """
    return {
        query: [document for document in rankings.get(query, ()) if document in grades]
        for query, grades in judgements.items()
    }


def explain_failure(verdict: Verdict, on_condensed: Verdict, candidate_judged: float, serving_judged: float) -> bool:
    """Return whether holes, not answers, may have failed a candidate: then nothing is known of it."""
    if verdict is not Verdict.FAILED or on_condensed is Verdict.FAILED:
        return False
    # A difference that is 0.05 but for the last bits is 0.05.
    return serving_judged - candidate_judged > MOST_FEWER + 1e-9


def to_judge(candidate: Rankings, serving: Rankings, judgements: Mapping[str, Grades], k: int) -> list[Unjudged]:
    """Return the documents without a grade among the first k of either version, those first that would move most.

    They do not say which version found them, and none that both have at the same place is there. Ties are in the order
    of query and document, so that two runs ask for the same.
    """
    found = [
        Unjudged(query, document, abs(places.get(document, 0.0) - others.get(document, 0.0)))
        for query, grades in judgements.items()
        for places, others in [(_discounts(candidate, query, k), _discounts(serving, query, k))]
        for document in _without_grade(places, others, grades)
    ]
    found = [pair for pair in found if pair.change > 0]
    return sorted(found, key=lambda pair: (-pair.change, pair.query, pair.document))


def _without_grade(one: Mapping[str, float], other: Mapping[str, float], grades: Grades) -> Collection[str]:
    return (one.keys() | other.keys()) - grades.keys()


def _discounts(rankings: Rankings, query: str, k: int) -> dict[str, float]:
    """What each of the first k documents counts at its place; one that is not there counts 0."""
    found = rankings.get(query, ())[:k]
    return {document: 1 / math.log2(place + 1) for place, document in enumerate(found, start=1)}
