"""How well a version answers judged queries, and whether another answers no worse.

Metrics are those of trec_eval, over documents: a ranking is a list of distinct document ids, best first. Two versions
are compared query by query on the same queries, by group, with a bound rather than a point.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import special

LEVEL = 0.05
"""The one-sided error of every bound, and the two-sided one of every interval."""
POWER = 0.8
"""How sure a difference that a set can detect is to be detected."""
MIN_GROUPS = 50
"""Fewer groups decide nothing."""
MIN_NONZERO = 10
"""With fewer groups that differ at all, the mean is no normal matter and the groups are counted instead."""
DOUBT = 0.2
"""How much of a group that was wholly lost, or won, the bounds assume beside those that were seen."""
LATER_LEVEL = 0.03
"""What all later looks at a set share: the k-th of them takes 0.03/k², 0.0494 together."""
USUAL_SPREAD = 0.2
"""The standard deviation of per-query differences, where nothing better is known."""

Floats = npt.NDArray[np.float64]
Grades = Mapping[str, float]
"""Document id -> grade. A document is relevant when its grade is above 0, and one without a grade has 0."""


class Gain(StrEnum):
    """What a document of a grade is worth."""

    LINEAR = "linear"
    """Its grade."""
    EXPONENTIAL = "exponential"
    """2^grade - 1, which weighs high grades more."""


class Measure(StrEnum):
    """What is measured over the first k documents."""

    NDCG = "nDCG"
    """Discounted gain as a share of the best possible."""
    NDCG_EXPONENTIAL = "nDCG-exp"
    """The same with exponential gains."""
    RECALL = "recall"
    """The share of the relevant documents that is found."""
    PRECISION = "precision"
    """The share of the k places that a relevant document holds."""
    RECIPROCAL_RANK = "RR"
    """One over the rank of the first relevant document."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure with its k, written `nDCG@10`."""

    measure: Measure
    k: int

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read a metric as people write it; raises ValueError for anything else."""
        name, _, k = text.partition("@")
        if name not in list(Measure) or not re.fullmatch(r"[1-9][0-9]{0,3}", k):
            known = ", ".join(f"{measure}@k" for measure in Measure)
            raise ValueError(f"{text!r} is not a metric; wanted one of {known}, with k from 1 to 9999")
        return cls(Measure(name), int(k))

    def __str__(self) -> str:
        return f"{self.measure}@{self.k}"

    def of(self, ranking: Sequence[str], grades: Grades) -> float:
        """Return the value of one ranking, as the function of that name does."""
        match self.measure:
            case Measure.NDCG:
                return ndcg(ranking, grades, self.k)
            case Measure.NDCG_EXPONENTIAL:
                return ndcg(ranking, grades, self.k, Gain.EXPONENTIAL)
            case Measure.RECALL:
                return recall(ranking, grades, self.k)
            case Measure.PRECISION:
                return precision(ranking, grades, self.k)
            case Measure.RECIPROCAL_RANK:
                return reciprocal_rank(ranking, grades, self.k)

    def by_query(self, rankings: Mapping[str, Sequence[str]], judgements: Mapping[str, Grades]) -> dict[str, float]:
        """Return the value of each judged query; one that was not answered has an empty ranking, so 0."""
        return {query: self.of(rankings.get(query, ()), grades) for query, grades in judgements.items()}


def ndcg(ranking: Sequence[str], grades: Grades, k: int, gain: Gain = Gain.LINEAR) -> float:
    """Return the discounted gain of the first k documents, as a share of the best possible.

    trec_eval's `ndcg_cut` for linear gains. Ties are whoever made the ranking's to break: the given order counts. Here
    as in all measures the value is between 0 and 1, it is 0 where no document is relevant, and a ranking in which a
    document stands twice raises ValueError, since it would count twice.
    """
    found = _gains(ranking, grades, k)
    best = np.array(sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k])
    if not found.any():
        return 0.0
    if gain is Gain.EXPONENTIAL:
        found, best = np.exp2(found) - 1, np.exp2(best) - 1
    return _discounted(found) / _discounted(best)


def recall(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """Return the share of the relevant documents that stands among the first k: trec_eval's `recall`."""
    relevant = sum(grade > 0 for grade in grades.values())
    return np.count_nonzero(_gains(ranking, grades, k)) / relevant if relevant else 0.0


def precision(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """Return the share of the first k places that a relevant document holds, empty ones included: trec_eval's `P`."""
    return np.count_nonzero(_gains(ranking, grades, k)) / k


def reciprocal_rank(ranking: Sequence[str], grades: Grades, k: int) -> float:
    """Return one over the rank of the first relevant document among the first k: trec_eval's `recip_rank`, cut at k."""
    (places,) = np.nonzero(_gains(ranking, grades, k))
    return 1.0 / (int(places[0]) + 1) if len(places) else 0.0


def best_chunks(documents: Iterable[str], k: int) -> list[str]:
    """Return the first k distinct documents of hits that come best first: each document at its best chunk."""
    found: dict[str, None] = {}
    for document in documents:
        found.setdefault(document)
        if len(found) == k:
            break
    return list(found)


class Verdict(StrEnum):
    """What a comparison says."""

    PASSED = "Passed"
    """The candidate is no worse than allowed."""
    FAILED = "Failed"
    """The candidate is worse than allowed."""
    INCONCLUSIVE = "Inconclusive"
    """The set cannot tell."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus serving, in metric points, over groups of queries: enough to take any bound, later too."""

    difference: float
    """The mean of the group means."""
    standard_error: float
    queries: int
    groups: int
    losing: int
    """Groups in which the candidate is worse."""
    winning: int

    @property
    def nonzero(self) -> int:
        """Groups that differ at all."""
        return self.losing + self.winning

    @property
    def is_counted(self) -> bool:
        """Whether so few groups differ that the bounds come from counting them rather than from their spread."""
        return self.nonzero < MIN_NONZERO

    @property
    def low(self) -> float:
        """The one-sided lower bound: the candidate is at least this much better, 95 times of 100."""
        return self.bounds(LEVEL)[0]

    @property
    def high(self) -> float:
        """The one-sided upper bound."""
        return self.bounds(LEVEL)[1]

    @property
    def interval(self) -> tuple[float, float]:
        """The two-sided interval at 95 %: a difference is there when it excludes 0."""
        return self.bounds(LEVEL / 2)

    def bounds(self, level: float) -> tuple[float, float]:
        """Return the lower and the upper bound, each of which is wrong with a probability of `level`.

        They are those of the t-test on the group means, which holds up for such metrics (Urbano, Lima and Hanjalic,
        SIGIR 2019) but where most groups agree and the few others lose: what was not seen is worse than what was. So a
        fifth of a group is assumed that lost 1, for the upper bound won 1. Without it a version that is exactly as bad
        as allowed passes up to 9 times of 100, with it about 5 (docs/operating-characteristics.md).

        Where fewer than 10 groups differ, no mean can be trusted: then at most the Clopper-Pearson bound of the share
        of losing groups has lost, and a group loses 1 at most.
        """
        if self.is_counted:
            losing, winning = (_upper_share(count, self.groups, level) for count in (self.losing, self.winning))
            return -losing, winning
        return self._t_bound(level, -1.0), self._t_bound(level, 1.0)

    def _t_bound(self, level: float, unseen: float) -> float:
        """The bound of the t-test with a part of an unseen group beside the seen ones."""
        groups = self.groups + DOUBT
        mean = (self.groups * self.difference + DOUBT * unseen) / groups
        squares = self.standard_error**2 * self.groups * (self.groups - 1)
        squares += (unseen - self.difference) ** 2 * self.groups * DOUBT / groups
        reach = float(special.stdtrit(self.groups - 1, 1 - level)) * math.sqrt(squares / (self.groups - 1) / groups)
        return mean + math.copysign(reach, unseen)

    @property
    def detectable(self) -> float:
        """The smallest true difference that a set like this detects with 80 % power."""
        if self.is_counted:
            # The spread of a few groups promises too much: what the bound leaves open cannot be detected.
            return self.difference - self.low
        return detectable(self.standard_error * math.sqrt(self.groups), self.groups)

    def needed(self, not_worse_by: float) -> int:
        """Return how many groups like these decide on a policy with 80 % power.

        Where they are counted: how many do if none of them loses.
        """
        if self.is_counted and 0 < not_worse_by < 1:
            return max(MIN_GROUPS, math.ceil(math.log(LEVEL) / math.log(1 - not_worse_by)))
        return groups_needed(not_worse_by, self.standard_error * math.sqrt(self.groups))

    def verdict(self, not_worse_by: float, look: int = 1) -> Verdict:
        """Return whether the candidate is worse by no more than a policy allows, in metric points, 0 or more.

        `look` counts the times at which the same set judged the same version, from 1: looking again and again must not
        wear a version down. It is failed for nothing with a probability of 0.05 at the first look, and of 0.05 at all
        later ones together.
        """
        if self.groups < MIN_GROUPS:
            return Verdict.INCONCLUSIVE
        if self.low >= -not_worse_by:
            return Verdict.PASSED
        _, high = self.bounds(level_of(look))
        return Verdict.FAILED if high < -not_worse_by else Verdict.INCONCLUSIVE


def level_of(look: int) -> float:
    """Return the one-sided level at which a look may fail a version: 0.05, 0.03, 0.0075, and on as 0.03/k²."""
    return LEVEL if look <= 1 else LATER_LEVEL / (look - 1) ** 2


def compare(
    candidate: Mapping[str, float], serving: Mapping[str, float], groups: Mapping[str, str] | None = None
) -> Comparison:
    """Compare two versions by their values per query, paired, each group of queries counting once.

    A query that `groups` does not name is a group of its own. Raises ValueError unless both versions answered the same
    queries, of two groups or more.
    """
    if candidate.keys() != serving.keys():
        apart = len(candidate.keys() ^ serving.keys())
        raise ValueError(f"{apart} queries were answered by one version alone; wanted the same queries from both")
    by_group: dict[str, list[float]] = {}
    for query, value in candidate.items():
        group = (groups or {}).get(query, own_group(query))
        by_group.setdefault(group, []).append(value - serving[query])
    means = np.array([np.mean(differences) for differences in by_group.values()])
    if len(means) < 2:
        raise ValueError(f"{len(means)} groups of queries cannot be compared; wanted 2 or more")
    # Sums in another order differ in the last bits.
    means[np.abs(means) < 1e-12] = 0.0
    return Comparison(
        difference=float(means.mean()),
        standard_error=float(np.std(means, ddof=1)) / math.sqrt(len(means)),
        queries=len(candidate),
        groups=len(means),
        losing=int(np.count_nonzero(means < 0)),
        winning=int(np.count_nonzero(means > 0)),
    )


def own_group(query: str) -> str:
    """Return the group of a query that has none; no group that merely bears the query's id is the same."""
    return f"query {query}"


def detectable(spread: float, groups: int) -> float:
    """Return the smallest difference that so many groups detect: 2.49 standard errors, for 80 % power."""
    return _both_errors() * spread / math.sqrt(groups)


def groups_needed(not_worse_by: float, spread: float = USUAL_SPREAD) -> int:
    """Return how many groups a policy needs: 6.18 s²/δ², for 80 % power; raises ValueError for a policy of 0.

    For s = 0.2 and δ = 0.02 that is 619.
    """
    if not_worse_by <= 0:
        raise ValueError("no number of queries proves a difference of 0; allow a small one, such as 0.01")
    return max(MIN_GROUPS, math.ceil((_both_errors() * spread / not_worse_by) ** 2))


def _both_errors() -> float:
    return float(special.ndtri(1 - LEVEL) + special.ndtri(POWER))


def _upper_share(count: int, total: int, level: float) -> float:
    """The Clopper-Pearson upper bound (Biometrika 26, 1934) of a share of which `count` of `total` were seen."""
    return 1.0 if count == total else float(special.betaincinv(count + 1, total - count, 1 - level))


def _gains(ranking: Sequence[str], grades: Grades, k: int) -> Floats:
    """The grades of the first k documents; a negative one, which some judges give to spam, is no gain."""
    found = ranking[:k]
    if len(set(found)) != len(found):
        raise ValueError("a document stands twice in a ranking; keep each at its best chunk")
    return np.array([max(0.0, grades.get(document, 0.0)) for document in found])


def _discounted(gains: Floats) -> float:
    """Gains discounted by log2(rank + 1) (Järvelin and Kekäläinen, TOIS 2002, as trec_eval has it)."""
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())
