"""The operator's numbers, as Prometheus reads them: made when they are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pointsman.cluster.counting import Requests
from pointsman.controller import families
from pointsman.controller.families import Family, Shape
from pointsman.controller.gateways import Gateways
from pointsman.controller.health import Health
from pointsman.controller.metrics import BUCKETS, Histogram, Labels, Metrics
from pointsman.controller.queue import Queue

CONTENT_TYPE: Final = exposition.CONTENT_TYPE_LATEST


@dataclass(slots=True)
class Parts:
    """Whom to ask for what the loop does not know; None for what is not there while another operator acts."""

    metrics: Metrics
    health: Health
    requests: Requests
    queue: Queue | None = None
    gateways: Gateways | None = None


class _Everything(Collector):
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that there is, those without a number too."""
        numbers, histograms = self._parts.metrics.numbers(), self._parts.metrics.histograms()
        numbers |= _of_process(self._parts)
        for family in families.ALL:
            # One after the other: of thousands of resources, all at once would be a lot of memory.
            if family.shape is Shape.HISTOGRAM:
                yield _histogram(family, histograms.pop(family, {}))
            else:
                yield _numbers(family, numbers.pop(family, {}))


def registry(parts: Parts) -> CollectorRegistry:
    """Return a registry of its own for one operator, with what is known of its process."""
    found = CollectorRegistry(auto_describe=False)
    found.register(_Everything(parts))
    ProcessCollector(registry=found)
    return found


def text(known: CollectorRegistry) -> bytes:
    """Return all metrics in Prometheus's text format."""
    return exposition.generate_latest(known)


def _of_process(parts: Parts) -> dict[Family, dict[Labels, float]]:
    epoch = parts.health.epoch
    found: dict[Family, dict[Labels, float]] = {
        families.LEADER: {(): float(epoch > 0)},
        families.EPOCH: {(): float(epoch)},
        families.SYNCED: {(): float(parts.health.is_synced)},
        families.API_REQUESTS: {labels: float(count) for labels, count in parts.requests.counts.items()},
    }
    if parts.queue is not None:
        load = parts.queue.load()
        found[families.QUEUE_DEPTH] = {(): float(load.due)}
        found[families.QUEUE_BUSY] = {(): float(load.busy)}
        found[families.QUEUE_WAIT] = {(): load.waited}
    if parts.gateways is not None:
        states = [
            "silent" if report.problem else "ready" if report.is_ready else "not_ready"
            for report in parts.gateways.reports()
        ]
        found[families.GATEWAYS] = {(state,): float(states.count(state)) for state in ("ready", "not_ready", "silent")}
    return found


def _numbers(family: Family, found: Mapping[Labels, float]) -> Metric:
    make = CounterMetricFamily if family.shape is Shape.COUNTER else GaugeMetricFamily
    metric = make(family.name, family.says, labels=family.labels)
    for labels, value in found.items():
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Family, found: Mapping[Labels, Histogram]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.says, labels=family.labels)
    edges = [*(f"{edge:g}" if edge < 1_000_000 else f"{edge:.0f}" for edge in BUCKETS[family]), "+Inf"]
    for labels, each in found.items():
        counts = map(float, itertools.accumulate(each.counts))
        metric.add_metric(labels, list(zip(edges, counts, strict=True)), each.total)
    return metric
