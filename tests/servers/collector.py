"""A local collector of OpenTelemetry's spans: what it is sent by OTLP over HTTP, decoded, and as it came."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2


@dataclass(frozen=True)
class Sent:
    """One span; ids are in hexadecimal."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace and id of each."""
    is_error: bool
    status: str
    resource: Mapping[str, Any]


class Collector:
    """The server as a context manager; it answers only while `go` is set."""

    def __init__(self) -> None:
        self.spans: list[Sent] = []
        self.raw: list[bytes] = []
        self.go = threading.Event()
        self.go.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, body: bytes) -> None:
        self.raw.append(body)
        found = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
        for process in found.resource_spans:
            resource = _attributes(process.resource.attributes)
            for scope in process.scope_spans:
                self.spans += [_sent(span, resource) for span in scope.spans]

    def named(self, name: str) -> Sent:
        """Return the one span whose name begins so."""
        (found,) = [span for span in self.spans if span.name.startswith(name)]
        return found


def _sent(span: Any, resource: Mapping[str, Any]) -> Sent:
    return Sent(
        name=span.name,
        kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=_attributes(span.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        is_error=span.status.code == span.status.STATUS_CODE_ERROR,
        status=span.status.message,
        resource=resource,
    )


def _attributes(found: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in found}


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_known = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            collector.go.wait(30)
            if is_known:
                collector.take(body)
            try:
                self.send_response(200 if is_known else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:
                # Whoever sent it has not waited.
                self.close_connection = True

    return Handler
