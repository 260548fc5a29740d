"""What steps does a request take? Told to whoever traces it, and to nobody while traces are off.

Knows no library of traces: `spans` does, which is loaded only where they are on. Without, a step costs a look at one
context variable. What is told are names, numbers, and reasons from closed lists: no text, vector, filter, document,
session or token, and no message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from enum import StrEnum
from typing import Any, Final, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pointsman.api import engines
from pointsman.errors import PointsmanError
from pointsman.gateway import routing
from pointsman.gateway.faults import Fault

Value = str | int
_NAMES: Final = {"pgvector": "postgresql"}
"""Engines that OpenTelemetry calls otherwise."""


class Step(StrEnum):
    """The parts of a request, as their spans are called."""

    ROUTE = "route"
    """The version is chosen by the route."""
    EMBED = "embed"
    """Texts become vectors, by the cache or by the model."""
    MODEL = "model"
    """The model is asked once, for all requests that wait for it."""
    SEARCH = "search"
    """The database looks for what is nearest."""
    FETCH = "fetch"
    """The database returns the vectors of a document that others are to be like."""
    SHADOW = "shadow"
    """The candidate is asked too, after the answer."""


class Told(StrEnum):
    """What is told of a step: by the stable names of OpenTelemetry's conventions where it has one."""

    METHOD = "http.request.method"
    """The request's method."""
    PATH = "http.route"
    """Its path, with the names of its parts instead of what stood there."""
    STATUS = "http.response.status_code"
    """What it was answered with."""
    ERROR = "error.type"
    """The code or reason of what failed; for what nobody foresaw its type."""
    CODE = "pointsman.code"
    """The code of a refusal."""
    NAMESPACE = "pointsman.namespace"
    """The deployment's namespace."""
    DEPLOYMENT = "pointsman.deployment"
    """The deployment, once the request was let in."""
    VERSION = "pointsman.version"
    """The version that was chosen."""
    SPACE = "pointsman.space"
    """Its space."""
    SNAPSHOT = "pointsman.snapshot"
    """The snapshot that it was built from."""
    EPOCH = "pointsman.epoch"
    """Of the route."""
    REVISION = "pointsman.revision"
    """Of the route."""
    WEIGHT = "pointsman.weight"
    """The version's share of the queries, in percent."""
    MODEL = "pointsman.model"
    """The model's name."""
    TEXTS = "pointsman.texts"
    """How many texts were to be embedded."""
    CACHED = "pointsman.cached"
    """How many of them had their vectors in the cache."""
    ENGINE = "db.system.name"
    """The database."""
    OPERATION = "db.operation.name"
    """What it was asked to do."""
    INDEX = "db.collection.name"
    """The collection or table."""
    TOP_K = "pointsman.top_k"
    """How many hits were asked for."""
    HITS = "pointsman.hits"
    """How many came."""


class Span(Protocol):
    """One step, as a library of traces has it."""

    @property
    def is_recorded(self) -> bool:
        """Whether anybody will see it; where not, it only names the trace."""
        ...

    @property
    def traceparent(self) -> str:
        """The header by which somebody else takes part in the trace; empty where there is none."""
        ...

    def step(self, name: str, is_call: bool = False) -> Span:
        """Begin a step of this one."""
        ...

    def beside(self, name: str) -> Span:
        """Begin a trace of its own, with a link to this one and recorded if this one is."""
        ...

    def link(self, other: Span) -> None:
        """Say that it was for another one too."""
        ...

    def tell(self, what: Mapping[Told, Value]) -> None:
        """Add to what is known of it."""
        ...

    def fail(self, why: str) -> None:
        """Say that it failed."""
        ...

    def end(self) -> None:
        """End it."""
        ...


class Tracer(Protocol):
    """Whoever collects spans."""

    def request(self, name: str, traceparent: str) -> Span:
        """Begin with a request, in its caller's trace where a header names one."""
        ...

    def close(self) -> None:
        """Send what waits, for no longer than a few seconds."""
        ...


_CURRENT: Final[ContextVar[Span | None]] = ContextVar("span", default=None)
_UNTRACED: Final = contextlib.nullcontext()


class _Under:
    """A span as what is going on, ended on the way out."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Span:
        self._token = _CURRENT.set(self._span)
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)
        end(self._span, error)


class Together:
    """What is done for several at once: a step of the first whom anybody will see, and linked to the others."""

    __slots__ = ("_first", "span")

    def __init__(self, span: Span, first: Span) -> None:
        self.span, self._first = span, first

    def end(self, waiting: Iterable[Span], error: BaseException | None) -> None:
        """End it for all who wait by now: some came when it had begun."""
        for each in waiting:
            if each is not self._first and each.is_recorded:
                self.span.link(each)
        end(self.span, error)


def current() -> Span | None:
    """Return the step that is being taken; None outside of a request that is traced."""
    return _CURRENT.get()


def step(name: Step, target: str = "", is_call: bool = False) -> contextlib.AbstractContextManager[Span | None]:
    """Take a step of a request, on something where a target is named; None is yielded where nobody records it."""
    above = _CURRENT.get()
    if above is None or not above.is_recorded:
        return _UNTRACED
    return _Under(above.step(f"{name} {target}" if target else name, is_call))


def beside(request: Span | None) -> contextlib.AbstractContextManager[Span | None]:
    """Ask something beside a request, which may have ended."""
    return _UNTRACED if request is None else _Under(request.beside(Step.SHADOW))


def together(waiting: Sequence[Span], is_call: bool) -> Together | None:
    """Begin to ask a model for all who wait; None where none of them is traced."""
    if not waiting:
        return None
    first = next((each for each in waiting if each.is_recorded), waiting[0])
    return Together(first.step(Step.MODEL, is_call), first)


def end(span: Span, error: BaseException | None = None) -> None:
    """End a span; an error is told by its reason."""
    if isinstance(error, Fault):
        _refuse(span, error)
    elif error is not None:
        span.fail(_why(error))
    span.end()


def failed(error: BaseException) -> None:
    """Say that the step that is being taken failed, though nothing is raised."""
    if (span := _CURRENT.get()) is not None:
        span.fail(_why(error))


def refused(fault: Fault) -> None:
    """Say how the request that is being answered is refused."""
    if (span := _CURRENT.get()) is not None:
        _refuse(span, fault)


def _why(error: BaseException) -> str:
    """Return a reason of ours, or the type alone: what an error says may quote anything."""
    return error.reason if isinstance(error, PointsmanError) else type(error).__name__


def _refuse(span: Span, fault: Fault) -> None:
    span.tell({Told.CODE: fault.code})
    # What the caller has to mend is no failure of ours.
    if fault.status >= 500:
        span.fail(fault.code)


def chosen(span: Span | None, route: routing.Route, entry: routing.Entry) -> None:
    """Tell which version answers."""
    if span is None:
        return
    span.tell(
        {
            Told.VERSION: entry.version,
            Told.INDEX: entry.index,
            Told.SPACE: entry.space,
            Told.SNAPSHOT: entry.snapshot,
            Told.EPOCH: route.epoch,
            Told.REVISION: route.revision,
            Told.WEIGHT: entry.weight,
        }
    )


def asked(span: Span | None, database: engines.Backend, operation: Step, index: str) -> None:
    """Tell what a database is asked."""
    if span is not None:
        engine = _NAMES.get(database.engine, database.engine)
        span.tell({Told.ENGINE: engine, Told.OPERATION: operation, Told.INDEX: index})


class Traced:
    """An endpoint whose every request is a span."""

    def __init__(self, inner: ASGIApp, path: str, tracer: Tracer) -> None:
        self._inner, self._path, self._tracer = inner, path, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request in its caller's trace, or in a new one."""
        given = [value for name, value in scope["headers"] if name == b"traceparent"]
        # Of two nobody knows which one is meant; what else a caller says of the trace is not passed on.
        traceparent = given[0].decode("latin-1") if len(given) == 1 else ""
        span = self._tracer.request(f"{scope['method']} {self._path}", traceparent)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.tell({Told.STATUS: message["status"]})
            await send(message)

        with _Under(span):
            span.tell({Told.METHOD: scope["method"], Told.PATH: self._path})
            await self._inner(scope, receive, sent)
