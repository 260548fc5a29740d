"""The operator's numbers, as Prometheus reads them: made when they are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import ProcessCollector, exposition

from pointsman.cluster.counting import Requests
from pointsman.controller import families
from pointsman.controller.families import Family
from pointsman.controller.figures import Sample
from pointsman.controller.gateways import Gateways
from pointsman.controller.health import Health
from pointsman.controller.metrics import BUCKETS, Histogram, Labels, Metrics
from pointsman.controller.queue import Queue

CONTENT_TYPE: Final = exposition.CONTENT_TYPE_LATEST
_ESCAPED: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass(slots=True)
class Parts:
    """Whom to ask for what the loop does not know; None for what is not there while another operator acts."""

    metrics: Metrics
    health: Health
    requests: Requests
    queue: Queue | None = None
    gateways: Gateways | None = None


def text(parts: Parts) -> Sequence[bytes | bytearray]:
    """Return all metrics in Prometheus's text format, with what is known of the process, and those without a number.

    In pieces and written by hand: thousands of resources are a hundred thousand lines, each of which would be several
    objects, and all of them twenty megabytes.
    """
    pages = {family: _Page(family) for family in families.ALL}
    for family, labels, value in itertools.chain(parts.metrics.samples(), _of_process(parts)):
        pages[family].add(labels, value)
    for family, labels, each in parts.metrics.histograms():
        pages[family].add_histogram(labels, each)
    process = exposition.generate_latest(ProcessCollector(registry=None))
    return [*(page.lines for page in pages.values()), process]


class _Page:
    """The lines of one metric: https://prometheus.io/docs/instrumenting/exposition_formats/."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.lines = bytearray(f"# HELP {family.name} {family.says}\n# TYPE {family.name} {family.shape}\n".encode())

    def add(self, labels: Labels, value: float) -> None:
        """Write one number."""
        self._write("", zip(self._family.labels, labels, strict=True), value)

    def add_histogram(self, labels: Labels, each: Histogram) -> None:
        """Write the counts up to each edge, how many there are, and their sum."""
        named = list(zip(self._family.labels, labels, strict=True))
        edges = [*(f"{edge:g}" if edge < 1_000_000 else f"{edge:.0f}" for edge in BUCKETS[self._family]), "+Inf"]
        for edge, count in zip(edges, itertools.accumulate(each.counts), strict=True):
            self._write("_bucket", [*named, ("le", edge)], count)
        self._write("_count", named, sum(each.counts))
        self._write("_sum", named, each.total)

    def _write(self, suffix: str, labels: Iterable[tuple[str, str]], value: float) -> None:
        told = ",".join(f'{name}="{label.translate(_ESCAPED)}"' for name, label in sorted(labels))
        which = f"{{{told}}}" if told else ""
        self.lines += f"{self._family.name}{suffix}{which} {float(value)!r}\n".encode()


def _of_process(parts: Parts) -> Iterator[Sample]:
    epoch = parts.health.epoch
    yield Sample(families.LEADER, (), float(epoch > 0))
    yield Sample(families.EPOCH, (), float(epoch))
    yield Sample(families.SYNCED, (), float(parts.health.is_synced))
    for labels, count in parts.requests.counts.items():
        yield Sample(families.API_REQUESTS, labels, float(count))
    if parts.queue is not None:
        load = parts.queue.load()
        yield Sample(families.QUEUE_DEPTH, (), float(load.due))
        yield Sample(families.QUEUE_BUSY, (), float(load.busy))
        yield Sample(families.QUEUE_WAIT, (), load.waited)
    if parts.gateways is not None:
        states = [
            "silent" if report.problem else "ready" if report.is_ready else "not_ready"
            for report in parts.gateways.reports()
        ]
        for state in ("ready", "not_ready", "silent"):
            yield Sample(families.GATEWAYS, (state,), float(states.count(state)))
