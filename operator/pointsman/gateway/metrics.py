"""The counts, as Prometheus reads them: made when they are asked for, so that no query pays for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from pointsman.core import latencies
from pointsman.gateway.app import State
from pointsman.gateway.directory import Deployment, Directory

CONTENT_TYPE: Final = exposition.CONTENT_TYPE_LATEST
PREFIX: Final = "pointsman_gateway"
_PLACE: Final = ("namespace", "deployment")
# Each the end of one of the finer buckets that are counted: their counts add up exactly.
_BUCKETS: Final = {edge: f"{latencies.upper(edge):.6g}" for edge in range(0, 130, 6)}


class _Counts(Collector):
    """Everything that is counted, as it is now."""

    def __init__(self, directory: Directory, state: State) -> None:
        self._directory, self._state = directory, state

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield GaugeMetricFamily(f"{PREFIX}_ready", "Whether requests should come here.", float(self._is_ready()))
        yield GaugeMetricFamily(f"{PREFIX}_requests_in_flight", "Requests under way.", float(self._state.in_flight))
        requests = CounterMetricFamily(f"{PREFIX}_requests", "HTTP requests.", labels=("path", "status"))
        for (path, status), count in self._state.requests.items():
            requests.add_metric((path, str(status)), count)
        yield requests
        deployments = list(self._directory.deployments.values())
        yield from _queries(deployments)
        yield from _routes(deployments)
        yield from _shadows(deployments)

    def _is_ready(self) -> bool:
        return self._directory.is_ready and not self._state.is_draining


class _Collected(Collector):
    """Metrics that were collected before."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


def registry(directory: Directory, state: State) -> CollectorRegistry:
    """Return a registry of its own for one gateway."""
    found = CollectorRegistry(auto_describe=False)
    found.register(_Counts(directory, state))
    return found


def text(families: Iterable[Metric]) -> bytes:
    """Return metrics in Prometheus's text format."""
    found = CollectorRegistry(auto_describe=False)
    found.register(_Collected(families))
    return exposition.generate_latest(found)


def _queries(deployments: Iterable[Deployment]) -> Iterator[Metric]:
    labels = (*_PLACE, "index")
    queries = CounterMetricFamily(f"{PREFIX}_queries", "Queries by the index that they went to.", labels=labels)
    errors = CounterMetricFamily(f"{PREFIX}_query_errors", "Queries that a model or database failed.", labels=labels)
    empty = CounterMetricFamily(f"{PREFIX}_empty_answers", "Queries answered without a hit.", labels=labels)
    duration = HistogramMetricFamily(
        f"{PREFIX}_query_duration_seconds", "Time of embedding and searching.", labels=labels
    )
    mispaired = CounterMetricFamily(
        f"{PREFIX}_mispaired_queries", "Queries embedded for another space than the index's; none.", labels=_PLACE
    )
    for deployment in deployments:
        mispaired.add_metric(deployment.name, deployment.ledger.mispaired)
        for index, totals in deployment.ledger.totals.items():
            place = (*deployment.name, index)
            queries.add_metric(place, totals.queries)
            errors.add_metric(place, totals.errors)
            empty.add_metric(place, totals.empty)
        for index, histogram in deployment.ledger.latency.items():
            duration.add_metric((*deployment.name, index), *_histogram(histogram))
    yield from (queries, errors, empty, duration, mispaired)


def _histogram(counts: latencies.Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return cumulative counts and the sum of durations, each taken to be as long as its bucket allows."""
    waiting, total, buckets = sorted(counts.items(), reverse=True), 0, []
    for edge, name in _BUCKETS.items():
        while waiting and waiting[-1][0] <= edge:
            total += waiting.pop()[1]
        buckets.append((name, float(total)))
    total += sum(count for _, count in waiting)
    return [*buckets, ("+Inf", float(total))], sum(latencies.upper(bucket) * count for bucket, count in counts.items())


def _routes(deployments: Iterable[Deployment]) -> Iterator[Metric]:
    epoch = GaugeMetricFamily(f"{PREFIX}_route_epoch", "Epoch of the route that is served.", labels=_PLACE)
    revision = GaugeMetricFamily(f"{PREFIX}_route_revision", "Revision of the route that is served.", labels=_PLACE)
    weight = GaugeMetricFamily(
        f"{PREFIX}_route_weight", "Share of the queries, in percent.", labels=(*_PLACE, "index", "version")
    )
    problem = GaugeMetricFamily(f"{PREFIX}_route_problem", "Whether something cannot be served.", labels=_PLACE)
    sessions = GaugeMetricFamily(f"{PREFIX}_sessions_today", "Sessions that were told apart today.", labels=_PLACE)
    for deployment in deployments:
        problem.add_metric(deployment.name, float(bool(deployment.problem())))
        sessions.add_metric(deployment.name, deployment.ledger.sessions)
        if deployment.adopted is None:
            continue
        route = deployment.adopted.route
        epoch.add_metric(deployment.name, route.epoch)
        revision.add_metric(deployment.name, route.revision)
        for entry in route.entries:
            weight.add_metric((*deployment.name, entry.index, entry.version), entry.weight)
    yield from (epoch, revision, weight, problem, sessions)


def _shadows(deployments: Iterable[Deployment]) -> Iterator[Metric]:
    labels = (*_PLACE, "index")
    found = CounterMetricFamily(
        f"{PREFIX}_shadow_queries", "Queries sent beside, by what became of them.", labels=(*labels, "outcome")
    )
    overlap = SummaryMetricFamily(
        f"{PREFIX}_shadow_overlap",
        "The share of the documents that both answers have, of what was compared.",
        labels=labels,
    )
    correlation = SummaryMetricFamily(
        f"{PREFIX}_shadow_correlation", "How alike both answers are in order, as rank-biased overlap.", labels=labels
    )
    for deployment in deployments:
        for index, counts in deployment.ledger.shadowed.items():
            place = (*deployment.name, index)
            for outcome in ("sent", "dropped", "compared"):
                found.add_metric((*place, outcome), getattr(counts, outcome))
            overlap.add_metric(place, counts.compared, counts.overlap)
            correlation.add_metric(place, counts.correlated, counts.correlation)
    yield from (found, overlap, correlation)
