"""The port of whoever runs the operator: numbers, and whether it is well. It belongs inside the cluster."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from pointsman import logs, settings
from pointsman.api.conditions import Reason
from pointsman.controller import exposition
from pointsman.controller.exposition import Parts
from pointsman.errors import Terminal

PATIENCE: Final = 5.0
"""Seconds that somebody who has connected has to ask, and to take the answer."""
PLAIN: Final = "text/plain; charset=utf-8"

log = logs.logger()


class Page(NamedTuple):
    """An answer."""

    status: HTTPStatus
    kind: str
    body: Sequence[bytes | bytearray]


class Listener:
    """An HTTP server with threads of its own, so that it answers however busy the loop is."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]) -> None:
        """Bind the port, 0 for a free one; raises Terminal(INVALID_SPEC) where it cannot be."""
        try:
            self._server = _Server((host, port), _handler(pages))
        except OSError as error:
            raise Terminal(
                Reason.INVALID_SPEC,
                f"{settings.PREFIX}METRICS_PORT is not usable: {host}:{port} cannot be listened on "
                f"({error.strerror}); choose another",
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()
        log.info(logs.Event.METRICS_SERVED, port=self.port)

    def stop(self) -> None:
        """Answer no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def pages(parts: Parts) -> Mapping[str, Callable[[], Page]]:
    """Return what is answered where."""
    return {
        "/metrics": lambda: Page(HTTPStatus.OK, exposition.CONTENT_TYPE, exposition.text(parts)),
        "/healthz": lambda: _probe(parts.health.problem(parts.metrics.looks())),
        "/readyz": lambda: _probe(parts.health.waits()),
    }


def _probe(problem: str) -> Page:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
    return Page(status, PLAIN, [(problem or "ok").encode()])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, handler)

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, as the parent does."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what nobody foresaw; whoever went away before the answer is nobody's concern."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error(logs.Event.REQUEST_FAILED, exc_info=error)


def _handler(known: Mapping[str, Callable[[], Page]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE
        server_version, sys_version = "pointsman", ""

        def do_GET(self) -> None:
            """Answer with the page of a path."""
            page = known.get(self.path.partition("?")[0])
            found = Page(HTTPStatus.NOT_FOUND, PLAIN, [b"not found"]) if page is None else page()
            self.send_response(found.status)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(sum(map(len, found.body))))
            self.end_headers()
            self.wfile.writelines(found.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log no line for a probe."""

    return Handler
