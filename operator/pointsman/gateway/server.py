"""The process: two ports, the watches, a look around every second, and an end that lets everybody finish."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import uvicorn
import uvloop
from starlette.types import ASGIApp

from pointsman import logs, settings
from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.cluster.resources import Cluster, Seen
from pointsman.errors import Terminal
from pointsman.gateway import access, admin, arrivals, packets, requests, tracing, watch
from pointsman.gateway.app import Gateway, State
from pointsman.gateway.directory import Directory
from pointsman.gateway.serving import Doors, OpenBackend, OpenEmbedder
from pointsman.gateway.shadow import Shadow

LOOK_SECONDS: Final = 1.0
"""How often files are looked at for having changed."""
THREADS: Final = 64
"""For opening and closing what tenants name, which may be waited for long."""
OWN_THREADS: Final = 16
"""For asking the cluster who may search and for reading files: nothing that a tenant names takes them."""
SWITCH_SECONDS: Final = 0.0005
"""After which a busy thread lets the event loop go on; Python's own 5 ms would be in every slow answer."""

log = logs.logger()
OpenTracer = Callable[[str], tracing.Tracer]
"""Begins to collect spans for a gateway by its id."""


def run(
    chosen: settings.GatewaySettings,
    namespaces: tuple[str, ...],
    cluster: Cluster,
    allowed: Access,
    open_backend: OpenBackend,
    open_embedder: OpenEmbedder,
    open_tracer: OpenTracer | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises Terminal(INVALID_SPEC) for ports and files that cannot be used."""
    sys.setswitchinterval(SWITCH_SECONDS)
    process = _Process(chosen, namespaces, cluster, allowed, open_backend, open_embedder, open_tracer)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(process.serve())


class _Server(uvicorn.Server):
    """Leaves signals to the process, which has two servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Process:
    def __init__(
        self,
        chosen: settings.GatewaySettings,
        namespaces: tuple[str, ...],
        cluster: Cluster,
        allowed: Access,
        open_backend: OpenBackend,
        open_embedder: OpenEmbedder,
        open_tracer: OpenTracer | None,
    ) -> None:
        self._chosen, self._namespaces, self._cluster = chosen, namespaces, cluster
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway")
        self._own = ThreadPoolExecutor(OWN_THREADS, thread_name_prefix="gateway-own")
        self._doors = (cluster, allowed, open_backend, open_embedder, self._executor)
        self._guard = _guard(chosen, cluster, self._own)
        self._state = State(uuid.uuid4().hex, time.time(), namespaces)
        self._certificate = _Certificate(chosen)
        self._tracer = None if open_tracer is None else open_tracer(self._state.gateway)

    async def serve(self) -> None:
        """Serve until told to stop."""
        chosen, loop = self._chosen, asyncio.get_running_loop()
        seconds = chosen.timeout.total_seconds()
        answers = arrivals.Arrivals() if arrivals.IS_KNOWN else None
        directory = Directory(Doors(*self._doors, chosen.threads, seconds, chosen.cache, answers), time.time)
        shadow = Shadow(seconds)
        limits = requests.Limits(chosen.most_body, chosen.most_text, chosen.most_hits, chosen.most_queries)
        gateway = Gateway(
            directory, self._guard, shadow, self._state, limits, chosen.concurrency, seconds, self._tracer
        )
        queries = _listen(chosen.host, chosen.port, "PORT")
        reports = _listen(chosen.admin_host, chosen.admin_port, "ADMIN_PORT")
        public = _server(gateway.app(), self._certificate.paths(), seconds)
        private = _server(admin.application(gateway, directory, self._state), None, seconds)
        self._certificate.of(public)
        shadow.start()
        self._watch(directory, loop)
        told = asyncio.Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, told.set)
        looking = loop.create_task(self._look())
        serving = [loop.create_task(public.serve([queries])), loop.create_task(private.serve([reports]))]
        log.info(
            logs.Event.GATEWAY_STARTED,
            gateway=self._state.gateway,
            port=queries.getsockname()[1],
            admin_port=reports.getsockname()[1],
        )
        # What was made so far stays for good: nobody needs to look through it for garbage in the middle of a query.
        gc.collect()
        gc.freeze()
        await _first(told.wait(), *serving)
        self._state.is_draining = True
        log.info(logs.Event.GATEWAY_DRAINING, seconds=chosen.drain.total_seconds())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*map(asyncio.shield, serving)), chosen.drain.total_seconds())
        public.should_exit = True
        await serving[0]
        # To the last the operator can see that nothing is under way any more.
        private.should_exit = True
        await serving[1]
        looking.cancel()
        shadow.close()
        directory.close()
        await asyncio.sleep(0)
        if answers is not None:
            answers.close()
        if self._tracer is not None:
            # Nobody waits for an answer any more.
            self._tracer.close()
        for executor in (self._executor, self._own):
            executor.shutdown(wait=False, cancel_futures=True)
        log.info(logs.Event.GATEWAY_STOPPED)

    def _watch(self, directory: Directory, loop: asyncio.AbstractEventLoop) -> None:
        for kind in watch.KINDS:
            for namespace in self._namespaces or (None,):
                directory.expect(kind, namespace)

        def take(kind: str, namespace: str | None, seen: Seen) -> None:
            # At the end the loop is gone before the threads are.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(directory.see, kind, namespace, seen)

        watch.start(self._cluster, self._namespaces, take)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await loop.run_in_executor(self._own, self._guard.look_again)
            await loop.run_in_executor(self._own, self._certificate.look_again)


class _Certificate:
    """The certificate that clients are shown, read again when its files change."""

    def __init__(self, chosen: settings.GatewaySettings) -> None:
        self._certificate, self._key = chosen.certificate, chosen.key
        self._stamp = self._stamped()
        self._context: ssl.SSLContext | None = None

    def paths(self) -> tuple[Path, Path] | None:
        """Return the files of certificate and key; None for plain HTTP."""
        return (self._certificate, self._key) if self._certificate and self._key else None

    def of(self, server: uvicorn.Server) -> None:
        """Look after the certificate of a server."""
        self._context = server.config.ssl

    def look_again(self) -> None:
        """Show new connections the new certificate, where there is another one by now."""
        stamp, paths = self._stamped(), self.paths()
        if stamp == self._stamp or paths is None or self._context is None:
            return
        self._stamp = stamp
        try:
            self._context.load_cert_chain(*paths)
        except OSError:
            # Half of the pair may be the old one still; the other half changes the stamp.
            log.error(logs.Event.CERTIFICATE_NOT_READ, path=str(paths[0]))
        else:
            log.info(logs.Event.CERTIFICATE_READ, path=str(paths[0]))

    def _stamped(self) -> list[tuple[int, int]]:
        found = []
        for path in self.paths() or ():
            with contextlib.suppress(OSError):
                found.append((path.stat().st_ino, path.stat().st_mtime_ns))
        return found


def _guard(chosen: settings.GatewaySettings, cluster: Cluster, executor: ThreadPoolExecutor) -> access.Guard:
    match chosen.auth:
        case "none":
            return access.Open()
        case "tokens":
            if chosen.tokens_file is None:
                raise _unusable("TOKENS_FILE", "auth is tokens and no file is named; name one")
            return access.Tokens(chosen.tokens_file)
        case "kubernetes":
            return access.Kubernetes(cluster, executor, audiences=chosen.audiences)
        case _:
            raise _unusable("AUTH", "nobody said who may search; set it to none, tokens or kubernetes")


def _listen(host: str, port: int, name: str) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        # From here on nobody who comes is turned away, and who comes early waits.
        found.listen(2_048)
    except OSError as error:
        raise _unusable(name, f"{host}:{port} cannot be listened on ({error.strerror}); choose another") from None
    return found


def _server(application: ASGIApp, certificate: tuple[Path, Path] | None, seconds: float) -> _Server:
    config = uvicorn.Config(
        application,
        http=packets.Protocol,
        ws="none",
        lifespan="off",
        # Paths name deployments, and nobody has asked for a line a query.
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(seconds) + 1,
        ssl_certfile=None if certificate is None else str(certificate[0]),
        ssl_keyfile=None if certificate is None else str(certificate[1]),
    )
    try:
        config.load()
    except OSError:
        raise _unusable(
            "CERTIFICATE", "certificate and key cannot be read as a pair in PEM; check both files"
        ) from None
    return _Server(config)


async def _first(*awaited: object) -> None:
    tasks = [asyncio.ensure_future(each) for each in awaited]  # type: ignore[call-overload]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


def _unusable(name: str, what: str) -> Terminal:
    return Terminal(Reason.INVALID_SPEC, f"{settings.GATEWAY_PREFIX}{name} is not usable: {what}")
