"""How do spans reach a collector? By OpenTelemetry's own library, over HTTP, from a thread and a queue of its own.

Loaded only where traces are on. Where spans go, how many, and under which name is for OpenTelemetry's own environment
variables to say. A collector that is slow or away costs a query nothing: what finds no place in the queue is dropped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util import re

import pointsman
from pointsman.api.conditions import Reason
from pointsman.errors import Terminal
from pointsman.gateway import tracing
from pointsman.gateway.tracing import Told, Value

FLUSH_SECONDS: Final = 5.0
"""For what still waits at the end."""
SERVICE: Final = "pointsman-gateway"
_ALONE: Final = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
}
"""What is spoken here, by the variables that may ask for something else."""
_HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")


def start(environment: Mapping[str, str], instance: str) -> Tracer:
    """Begin to collect, under the gateway's own id; raises Terminal(INVALID_SPEC) for variables that are not usable."""
    for name, spoken in _ALONE.items():
        if environment.get(name, spoken).strip() not in ("", spoken):
            raise Terminal(Reason.INVALID_SPEC, f"{name} is not usable: wanted {spoken}, nothing else is spoken here")
    # It quotes headers that it cannot read, which hold a key.
    logging.getLogger(re.__name__).disabled = True
    for name in _HEADERS:
        given = [part for part in environment.get(name, "").split(",") if part.strip()]
        if len(re.parse_env_headers(",".join(given), liberal=True)) < len(given):
            raise Terminal(Reason.INVALID_SPEC, f"{name} is not usable: wanted name=value, separated by commas")
    try:
        return Tracer(instance)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        # The original quotes the value, which may be a secret that was put into the wrong variable.
        what = f"a variable OTEL_… is not usable ({type(error).__name__}); docs/gateway.md names those that are read"
        raise Terminal(Reason.INVALID_SPEC, what) from None


class Span:
    """A span of OpenTelemetry's. For one event loop."""

    __slots__ = ("_span", "_tracer", "is_recorded")

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer, self._span = tracer, span
        self.is_recorded: bool = span.is_recording()

    @property
    def context(self) -> trace.SpanContext:
        """What names it."""
        return self._span.get_span_context()

    @property
    def traceparent(self) -> str:
        """The W3C's header, version 00."""
        found = self.context
        if not found.is_valid:
            return ""
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    def step(self, name: str, is_call: bool = False) -> Span:
        """Begin a child."""
        kind = trace.SpanKind.CLIENT if is_call else trace.SpanKind.INTERNAL
        above = trace.set_span_in_context(self._span, Context())
        return Span(self._tracer, self._tracer.start_span(name, above, kind))

    def beside(self, name: str) -> Span:
        """Begin a root with a link to this one."""
        links = [trace.Link(self.context)]
        return Span(self._tracer, self._tracer.start_span(name, Context(), links=links))

    def link(self, other: tracing.Span) -> None:
        """Add a link."""
        if isinstance(other, Span):
            self._span.add_link(other.context)

    def tell(self, what: Mapping[Told, Value]) -> None:
        """Set attributes."""
        if self.is_recorded:
            self._span.set_attributes({str(name): value for name, value in what.items()})

    def fail(self, why: str) -> None:
        """Set the status, and the attribute that goes with it."""
        self.tell({Told.ERROR: why})
        self._span.set_status(trace.StatusCode.ERROR, why)

    def end(self) -> None:
        """End it; it waits to be sent from now on."""
        self._span.end()


class Tracer:
    """Collects spans and sends them in batches, as `OTEL_BSP_…` says; 2,048 may wait by default."""

    def __init__(self, instance: str) -> None:
        self._provider = TracerProvider(resource=_resource(instance), shutdown_on_exit=False)
        self._provider.sampler = _AsLinked(self._provider.sampler)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("pointsman", pointsman.__version__)
        self._callers = TraceContextTextMapPropagator()

    def request(self, name: str, traceparent: str) -> Span:
        """Begin a span of a server; a header that cannot be read begins a new trace."""
        caller = self._callers.extract({"traceparent": traceparent}, Context()) if traceparent else Context()
        return Span(self._tracer, self._tracer.start_span(name, caller, trace.SpanKind.SERVER))

    def close(self) -> None:
        """Send what waits; a collector that does not answer is left after `FLUSH_SECONDS`. Blocks."""
        # The library itself waits for half a minute.
        ending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(FLUSH_SECONDS)


class _AsLinked(sampling.Sampler):
    """What is asked beside a request is recorded where the request is: a trace of its own, but no draw of its own."""

    def __init__(self, other: sampling.Sampler) -> None:
        self._other = other

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> sampling.SamplingResult:
        """Decide about one span."""
        chosen = self._other
        if links and not trace.get_current_span(parent_context).get_span_context().is_valid:
            chosen = sampling.ALWAYS_ON if links[0].context.trace_flags.sampled else sampling.ALWAYS_OFF
        return chosen.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Return what it does, in the library's words."""
        return f"AsLinked{{{self._other.get_description()}}}"


def _resource(instance: str) -> Resource:
    """Return what the process is; what the environment says of it wins."""
    ours = {"service.name": SERVICE, "service.version": pointsman.__version__, "service.instance.id": instance}
    # Put last, since what is passed to `create` would win over it.
    return Resource.create(ours).merge(OTELResourceDetector().detect())
