"""What the operator knows in numbers: kept for as long as their resource, and added up while the process lives.

Told by the loop of what it has seen anyway; asked by whoever writes it down for Prometheus. Safe to use from many
threads.
"""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pointsman.api.conditions import Condition
from pointsman.controller import families, figures
from pointsman.controller.families import Family
from pointsman.controller.figures import Sample
from pointsman.plan import observed
from pointsman.plan.outcomes import Ended
from pointsman.plan.tasks import Key, Work

BUCKETS: Final[Mapping[Family, tuple[float, ...]]] = {
    families.RECONCILE_SECONDS: (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    families.ROLLOUT_SECONDS: (60, 300, 900, 3_600, 14_400, 43_200, 86_400, 259_200, 604_800, 1_209_600),
}
"""Where the counts of a histogram are cut, in seconds."""
Labels = tuple[str, ...]


@dataclass(slots=True)
class Histogram:
    """Counts by size: one for each bucket, and one for what is beyond the last."""

    counts: list[int]
    total: float = 0.0

    def copy(self) -> Histogram:
        """Return one that nobody adds to."""
        return Histogram([*self.counts], self.total)


@dataclass(slots=True)
class _Resource:
    """What is known of one resource."""

    samples: tuple[Sample, ...] = ()
    conditions: tuple[Sample, ...] = ()
    work: tuple[Sample, ...] = ()
    counters: Counter[tuple[Family, Labels]] = field(default_factory=Counter)
    histograms: dict[tuple[Family, Labels], Histogram] = field(default_factory=dict)
    embedded: frozenset[tuple[str, int]] | None = None
    """The embedded snapshots that were there when it was last looked at; None before the first time."""


class Metrics:
    """All numbers of one operator but those that others know better: queue, gateways, requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resources: dict[Key, _Resource] = {}
        self._counters: Counter[tuple[Family, Labels]] = Counter()
        self._histograms: dict[tuple[Family, Labels], Histogram] = {}
        # Of thousands of resources most say the same: each such sample is kept once.
        self._shared: dict[Sample, Sample] = {}

    def saw(self, key: Key, samples: Iterable[Sample], work: Sequence[Work]) -> None:
        """Take what a look at a resource gave, in place of what the last one did."""
        found, tasks = tuple(samples), tuple(figures.work(work))
        with self._lock:
            resource = self._resources.setdefault(key, _Resource())
            resource.samples, resource.work = found, self._once(tasks)

    def said(self, key: Key, found: Sequence[Condition]) -> None:
        """Take the conditions of a resource, in place of those before."""
        samples = tuple(figures.conditions(found))
        with self._lock:
            self._resources.setdefault(key, _Resource()).conditions = self._once(samples)

    def embedded(self, seen: observed.Dataset) -> None:
        """Count the texts of the snapshots that were embedded since the last look; those before the first are not."""
        there = {(recipe, each.snapshot): each for recipe, found in seen.embedded.items() for each in found}
        versions = {recipe.key: name for name, recipe in sorted(seen.pins.items(), reverse=True)}
        with self._lock:
            resource = self._resources.setdefault(seen.key, _Resource())
            known, resource.embedded = resource.embedded, frozenset(there)
            for (recipe, snapshot), each in there.items():
                if known is not None and (recipe, snapshot) not in known and recipe in versions:
                    labels = (versions[recipe],)
                    resource.counters[families.TEXTS_EMBEDDED, labels] += each.embedded
                    resource.counters[families.TEXTS_REUSED, labels] += each.reused
                    if each.tokens:
                        resource.counters[families.TOKENS, (*labels, "stated")] += each.tokens_stated
                        resource.counters[families.TOKENS, (*labels, "estimated")] += each.tokens - each.tokens_stated

    def ended(self, key: Key, found: Ended) -> None:
        """Count a migration that is over."""
        with self._lock:
            histograms = self._resources.setdefault(key, _Resource()).histograms
            _observe(histograms, families.ROLLOUT_SECONDS, (str(found.outcome),), found.took.total_seconds())

    def forget(self, key: Key) -> None:
        """Drop all that is known of a resource that is gone."""
        with self._lock:
            self._resources.pop(key, None)

    def acted(self, action: str) -> None:
        """Count an action that was carried out."""
        with self._lock:
            self._counters[families.ACTIONS, (action,)] += 1

    def failed(self, kind: str, reason: str) -> None:
        """Count a look or an action that failed."""
        with self._lock:
            self._counters[families.RECONCILE_ERRORS, (kind, reason)] += 1

    def took(self, kind: str, seconds: float) -> None:
        """Count a look by how long it took."""
        with self._lock:
            _observe(self._histograms, families.RECONCILE_SECONDS, (kind,), seconds)

    def looks(self) -> int:
        """Return how many looks at resources have ended, however."""
        with self._lock:
            found = [each for (family, _), each in self._histograms.items() if family is families.RECONCILE_SECONDS]
            return sum(sum(each.counts) for each in found)

    def samples(self) -> Iterator[Sample]:
        """Yield all gauges and counters, with the names of their resources in front of their labels.

        One after the other: of thousands of resources, all at once would be a lot of memory.
        """
        with self._lock:
            counters, resources = list(self._counters.items()), list(self._resources.items())
        yield from (Sample(family, labels, count) for (family, labels), count in counters)
        work: Counter[tuple[Family, Labels]] = Counter()
        for key, resource in resources:
            place = (key.namespace, key.name)
            with self._lock:
                counters = list(resource.counters.items())
            for (family, labels), count in counters:
                yield Sample(family, (*place, *labels), count)
            for family, labels, value in resource.samples:
                yield Sample(family, (*place, *labels), value)
            for family, labels, value in resource.conditions:
                yield Sample(family, (key.kind, *place, *labels), value)
            for family, labels, value in resource.work:
                work[family, labels] += int(value)
        yield from (Sample(family, labels, count) for (family, labels), count in work.items())

    def histograms(self) -> Iterator[tuple[Family, Labels, Histogram]]:
        """Yield copies of all histograms, with the names of their resources in front of their labels."""
        with self._lock:
            found = [(key, each.copy()) for key, each in self._histograms.items()]
            for resource, known in self._resources.items():
                place = (resource.namespace, resource.name)
                found += [((family, (*place, *rest)), each.copy()) for (family, rest), each in known.histograms.items()]
        yield from ((family, labels, each) for (family, labels), each in found)

    def _once(self, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(self._shared.setdefault(sample, sample) for sample in samples)


def _observe(into: dict[tuple[Family, Labels], Histogram], family: Family, labels: Labels, seconds: float) -> None:
    edges = BUCKETS[family]
    found = into.setdefault((family, labels), Histogram([0] * (len(edges) + 1)))
    found.counts[bisect.bisect_left(edges, seconds)] += 1
    found.total += seconds
