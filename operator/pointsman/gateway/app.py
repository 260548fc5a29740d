"""The HTTP server of queries: one handler for each path, and around all of them the same limits and the same errors."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from pointsman import logs
from pointsman.errors import PointsmanError, TextsRefused
from pointsman.gateway import access, answers, faults, openapi, requests, routing, searching, tracing
from pointsman.gateway.directory import Deployment, Directory
from pointsman.gateway.faults import Fault
from pointsman.gateway.opening import Adopted
from pointsman.gateway.requests import Embeddings, Limits
from pointsman.gateway.shadow import Shadow

JSON = "application/json"
MOST_NAMESPACE, MOST_NAME = 63, 253
"""Characters of a namespace and a name in a cluster."""
_SEARCH = re.compile("/v1/namespaces/(?P<namespace>[^/]+)/indexes/(?P<name>[^/]+)/search")
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY

log = logs.logger()
Handler = Callable[[Request], Awaitable[dict[str, Any]]]


@dataclass(slots=True)
class State:
    """What is true of the process."""

    gateway: str
    """An id of its own for each start."""
    started: float
    namespaces: tuple[str, ...] = ()
    """What it watches; all where there are none."""
    is_draining: bool = False
    in_flight: int = 0
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By path and status."""


class Gateway:
    """The parts that answer."""

    def __init__(
        self,
        directory: Directory,
        guard: access.Guard,
        shadow: Shadow,
        state: State,
        limits: Limits,
        most_at_once: int,
        seconds: float,
        tracer: tracing.Tracer | None = None,
    ) -> None:
        """A deployment answers `most_at_once` requests at the same time, each within so many seconds."""
        self._directory, self._guard, self._shadow, self._state = directory, guard, shadow, state
        self._limits, self._most, self._seconds, self._tracer = limits, most_at_once, seconds, tracer

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self._directory.is_ready and not self._state.is_draining

    async def search(self, request: Request) -> dict[str, Any]:
        """Search by texts, by a vector or by a document."""
        deployment = await self._let_in(request, request.path_params["namespace"], request.path_params["name"])
        async with self._turn(deployment):
            asked = requests.search(await self._body(request), self._limits)
            found = await searching.search(deployment, asked, self._shadow.put)
        return answers.search(found, asked)

    async def openai_search(self, request: Request) -> dict[str, Any]:
        """Search as OpenAI's clients do."""
        namespace, dot, name = request.path_params["store"].partition(".")
        if not dot:
            raise faults.not_found("a vector store's id is <namespace>.<name> of a deployment here")
        deployment = await self._let_in(request, namespace, name)
        async with self._turn(deployment):
            asked = requests.openai_search(await self._body(request), self._limits)
            found = await searching.search(deployment, asked, self._shadow.put)
        return answers.openai_search(found, asked)

    async def embeddings(self, request: Request) -> dict[str, Any]:
        """Embed texts by the version that serves."""
        deployment = await self._let_in(request, request.path_params["namespace"], request.path_params["name"])
        async with self._turn(deployment):
            return await self._embedded(deployment, requests.embeddings(await self._body(request), self._limits))

    async def _embedded(self, deployment: Deployment, asked: Embeddings) -> dict[str, Any]:
        adopted = _served(deployment)
        with tracing.step(tracing.Step.ROUTE) as span:
            entry = _embedding_entry(deployment, adopted.route, asked)
            tracing.chosen(span, adopted.route, entry)
        adopted.enter()
        try:
            held = await adopted.hold(entry.index)
            try:
                vectors = await held.serving.embed(list(asked.texts), asked.side)
            finally:
                held.close()
        except TextsRefused as error:
            message = f"the model of {entry.version} refuses {len(error.positions)} texts with {error.answer}"
            raise faults.invalid(message, "input") from None
        except PointsmanError as error:
            raise faults.model_failed(entry.version, error) from None
        finally:
            adopted.leave()
        return answers.embeddings(adopted.route, entry, vectors, asked.is_base64)

    async def route(self, request: Request) -> dict[str, Any]:
        """Show the route that is served."""
        deployment = await self._let_in(request, request.path_params["namespace"], request.path_params["name"])
        return answers.route(deployment, _served(deployment))

    async def _let_in(self, request: Request, namespace: str, name: str) -> Deployment:
        if len(namespace) > MOST_NAMESPACE or len(name) > MOST_NAME:
            # Nobody is asked about it, and nobody remembers it.
            raise faults.not_found("no deployment has a name as long as that")
        await self._guard.check(request.headers.get("authorization", ""), namespace, name)
        found = self._directory.find(namespace, name)
        if found is None:
            if not self._directory.is_ready:
                raise faults.not_ready("the gateway has not seen the cluster's routes yet")
            raise faults.not_found(f"there is no deployment {name[:63]} in namespace {namespace[:63]}")
        if (span := tracing.current()) is not None:
            span.tell({tracing.Told.NAMESPACE: namespace, tracing.Told.DEPLOYMENT: name})
        return found

    def _turn(self, deployment: Deployment) -> _Turn:
        if deployment.in_flight >= self._most:
            message = f"{self._most} requests to {'/'.join(deployment.name)} are under way; try again"
            raise Fault(429, "too_many_requests", message, retry_after=1)
        return _Turn(deployment, self._seconds)

    async def _body(self, request: Request) -> bytes:
        most = self._limits.body
        declared = request.headers.get("content-length", "0")
        parts, size = [], int(declared) if declared.isdigit() else 0
        if size > most:
            raise faults.too_large(f"the body has {size} bytes; wanted {most} at most")
        size = 0
        is_whole = False
        while not is_whole:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part, is_whole = message.get("body", b""), not message.get("more_body", False)
            size += len(part)
            if size > most:
                raise faults.too_large(f"the body has more than {most} bytes; wanted {most} at most")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def app(self) -> ASGIApp:
        """Return the application that clients reach."""
        index = "/v1/namespaces/{namespace}/indexes/{name}"
        posts: list[tuple[str, Handler]] = [
            # For `GET` and the like, which are refused here.
            (f"{index}/search", self.search),
            (f"{index}/embeddings", self.embeddings),
            ("/v1/vector_stores/{store}/search", self.openai_search),
        ]
        rest = Starlette(
            routes=[
                *(Path(path, self._endpoint(path, handler), methods=["POST"]) for path, handler in posts),
                Path(f"{index}/route", self._endpoint(f"{index}/route", self.route), methods=["GET"]),
                *self.probes(),
                Path("/openapi.json", _openapi, methods=["GET"]),
                Path("/", _docs, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _http_error},
        )
        return _Front(self._endpoint(f"{index}/search", self.search), rest)

    def probes(self) -> list[Path]:
        """Return the paths that Kubernetes asks."""
        return [Path("/healthz", _healthy, methods=["GET"]), Path("/readyz", self._readyz, methods=["GET"])]

    async def _readyz(self, request: Request) -> Response:
        if self.is_ready:
            return Response("ready\n", media_type="text/plain")
        why = "draining" if self._state.is_draining else "the cluster's routes are not all seen and opened yet"
        return Response(f"not ready: {why}\n", status_code=503, media_type="text/plain")

    def _endpoint(self, path: str, handler: Handler) -> ASGIApp:
        found = _Endpoint(path, handler, self._state, self._seconds)
        return found if self._tracer is None else tracing.Traced(found, path, self._tracer)


class _Front:
    """Knows the one path that nearly all requests take; the framework's way to a handler costs as much as ours on."""

    def __init__(self, search: ASGIApp, rest: ASGIApp) -> None:
        self._search, self._rest = search, rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and (found := _SEARCH.fullmatch(scope["path"])):
            scope["path_params"] = found.groupdict()
            await self._search(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


class _Endpoint:
    """One handler as an application of its own: a function would be wrapped twice more by the framework."""

    def __init__(self, path: str, handler: Handler, state: State, seconds: float) -> None:
        self._path, self._handler, self._state, self._seconds = path, handler, state, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive))
        if self._state.is_draining:
            # Whoever goes on comes by another connection, to somebody else; this one would be cut at the end.
            answer.headers["Connection"] = "close"
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        state = self._state
        state.in_flight += 1
        status = 500
        try:
            content = orjson.dumps(await self._handler(request), option=_JSON_OPTIONS)
            status = 200
            return Response(content, media_type=JSON)
        except Fault as fault:
            status = fault.status
            return _refusal(fault)
        except TimeoutError:
            status = 503
            return _refusal(faults.timed_out(self._seconds))
        except ClientDisconnect:
            # Nobody reads it; the number is what others log for this.
            status = 499
            return Response(status_code=status)
        except Exception as error:
            log.error(logs.Event.REQUEST_FAILED, path=self._path, exc_info=error)
            return _refusal(Fault(500, "internal_error", "the gateway failed; its log says where"))
        finally:
            state.in_flight -= 1
            state.requests[self._path, status] += 1


class _Turn:
    """One request under way to a deployment, from its body on, for no longer than its time."""

    def __init__(self, deployment: Deployment, seconds: float) -> None:
        self._deployment, self._timeout = deployment, asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        self._deployment.in_flight += 1
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        self._deployment.in_flight -= 1
        await self._timeout.__aexit__(*raised)


def _served(deployment: Deployment) -> Adopted:
    if deployment.adopted is None:
        raise faults.not_ready(f"{'/'.join(deployment.name)} is not served: {deployment.why_not()}")
    return deployment.adopted


def _embedding_entry(deployment: Deployment, route: routing.Route, asked: Embeddings) -> routing.Entry:
    """Return the index whose model is to embed: by version or by model's name, or else the one that serves."""
    entry = route.serving()
    if asked.model and asked.model not in (deployment.name[1], ".".join(deployment.name)):
        named = [each for each in route.entries if asked.model in (each.version, each.embedding.model)]
        if not named:
            live = ", ".join(f"{each.version} ({each.embedding.model})" for each in route.entries)
            raise faults.invalid(f"model is none that is live; live are {live}", "model")
        entry = max(reversed(named), key=lambda each: each.weight)
    if asked.dimensions not in (None, entry.embedding.dimensions):
        raise faults.invalid(
            f"dimensions is {asked.dimensions}; the model of {entry.version} makes {entry.embedding.dimensions}",
            "dimensions",
        )
    return entry


def _refusal(fault: Fault) -> Response:
    tracing.refused(fault)
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(fault.retry_after)))
    if fault.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(fault.body()), fault.status, headers, JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for these alone"
    what = "the path" if error.status_code == 404 else "the method"
    fault = Fault(error.status_code, "not_found", f"{what} is not one of those that /openapi.json lists")
    return _refusal(fault)


async def _healthy(request: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


async def _openapi(request: Request) -> Response:
    return Response(orjson.dumps(openapi.document()), media_type=JSON)


async def _docs(request: Request) -> Response:
    return HTMLResponse(openapi.page())
