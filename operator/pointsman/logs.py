"""How the operator's log is written: one JSON object a line, its events from a closed list, and nothing secret in it.

Two kinds of records come together here: ours, with a constant event and data in keys, and those of libraries, whose
words are put under `message`. Both pass through the same redaction. What a document, a query or a vector holds is
never logged, and neither is the message of a library's exception, which may quote it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

from pointsman.errors import PointsmanError

REDACTED = "[redacted]"
LONGEST = 2_000
"""Characters of a value that are kept."""


class Event(StrEnum):
    """What can have happened. Data goes into keys, never into the event."""

    OPERATOR_STARTED = "operator_started"
    """The process is up and looks after its namespaces."""
    OPERATOR_STOPPED = "operator_stopped"
    """The process ended in good order."""
    METRICS_SERVED = "metrics_served"
    """Metrics and probes are answered from now on."""
    LEASE_AWAITED = "lease_awaited"
    """Another operator holds the Lease, or it cannot be read; this one stands by."""
    LEASE_TAKEN = "lease_taken"
    """This operator holds the Lease from now on, under a new epoch."""
    LEASE_RENEWAL_FAILED = "lease_renewal_failed"
    """The Lease could not be renewed; it is tried again until the time for it is up."""
    LEASE_LOST = "lease_lost"
    """The Lease is held no longer, so the process ended itself and its workers at once."""
    LEASE_GIVEN_BACK = "lease_given_back"
    """The Lease is free for the next operator, which need not wait."""
    STORE_PROBED = "store_probed"
    """The store refused a second put-if-absent, as it must."""
    ACTION_APPLIED = "action_applied"
    """One action of a plan was carried out."""
    ACTION_FAILED = "action_failed"
    """One action of a plan failed; the rest of the plan was dropped and is made anew."""
    DATA_LEFT_BEHIND = "data_left_behind"
    """A resource was let go at its deadline, and something that it has made is still there."""
    CONDITION_TURNED = "condition_turned"
    """A resource has turned ready, stalled, available or none of these; the words are those of its Event."""
    RECONCILE_FAILED = "reconcile_failed"
    """A reconciliation raised; it is tried again after a back-off."""
    WORK_STARTED = "work_started"
    """A piece of long work was given to a process of its own."""
    WORK_FINISHED = "work_finished"
    """A piece of long work ended with an answer."""
    WORK_FAILED = "work_failed"
    """A piece of long work ended with an error."""
    WORK_CANCELLED = "work_cancelled"
    """A piece of long work was stopped because nobody wants its answer any more."""
    SHARD_STARTED = "shard_started"
    """A pod began, or went on, with its share of a snapshot."""
    SHARD_WAITED = "shard_waited"
    """A pod waits a moment for the store or the database, and tries again."""
    PORTION_FINISHED = "portion_finished"
    """A portion of a snapshot is embedded, or loaded into an index, and on record."""
    SHARD_FAILED = "shard_failed"
    """A pod gave up on its share of a snapshot; the ledger says why."""
    JOB_CREATED = "job_created"
    """A Kubernetes Job was created for a snapshot."""
    JOB_DELETED = "job_deleted"
    """A Kubernetes Job was deleted: it failed, waited too long, or nobody wants what it is for any more."""
    GATEWAY_STARTED = "gateway_started"
    """The gateway listens; it answers once it has seen the cluster's routes."""
    GATEWAY_DRAINING = "gateway_draining"
    """The gateway was told to end, says that it is not ready, and answers what still comes for a while."""
    GATEWAY_STOPPED = "gateway_stopped"
    """The gateway ended in good order."""
    WATCH_FAILED = "watch_failed"
    """Resources could not be watched; the last routes go on, and it is tried again."""
    ROUTE_ADOPTED = "route_adopted"
    """Queries go by another route from now on."""
    ROUTE_REFUSED = "route_refused"
    """A route is older than the one that serves, or cannot be read; the last one goes on."""
    ROUTE_DROPPED = "route_dropped"
    """A deployment was deleted and is not routed any more."""
    INDEX_NOT_OPENED = "index_not_opened"
    """An index or its model could not be opened; it is tried again."""
    TOKENS_READ = "tokens_read"
    """The file of tokens was read."""
    TOKENS_NOT_READ = "tokens_not_read"
    """The file of tokens could not be read; the tokens that it had before hold on."""
    CERTIFICATE_READ = "certificate_read"
    """The certificate was read; new connections are shown it."""
    CERTIFICATE_NOT_READ = "certificate_not_read"
    """The certificate could not be read; the one before is shown on."""
    REQUEST_FAILED = "request_failed"
    """A request failed in a way that nobody foresaw."""
    LIBRARY_SPOKE = "library_spoke"
    """A library logged something; its words are in `message`."""


class Logger(Protocol):
    """A logger that takes events of the list alone."""

    def bind(self, **data: Any) -> Self:
        """Return a logger that adds data to every record."""
        ...

    def debug(self, event: Event, **data: Any) -> Any:
        """Log what only a developer wants."""
        ...

    def info(self, event: Event, **data: Any) -> Any:
        """Log what happened."""
        ...

    def warning(self, event: Event, **data: Any) -> Any:
        """Log what will be tried again."""
        ...

    def error(self, event: Event, **data: Any) -> Any:
        """Log what needs a person. Pass `exc_info=True` inside an except block."""
        ...


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Write all logs of this process to a stream, standard error by default. Calling it again replaces the former."""
    target = sys.stderr if stream is None else stream
    severity = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _render_exception,
        redact,
    ]
    to_json = structlog.processors.JSONRenderer(sort_keys=False, default=_described, ensure_ascii=False)
    structlog.configure(
        processors=[*shared, to_json],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _as_event],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, to_json],
        )
    )
    root = logging.getLogger()
    root.handlers = [*(each for each in root.handlers if not isinstance(each, _Handler)), handler]
    # At DEBUG the Kubernetes client logs whole answers, Secrets included, and HTTP clients their headers.
    root.setLevel(max(severity, logging.INFO))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def logger(**data: Any) -> Logger:
    """Return a logger that adds data to every record. It writes where `configure` has said."""
    return cast(Logger, structlog.get_logger(**data))


def redact(_logger: Any, _method: str, record: EventDict) -> EventDict:
    """Replace what must not be logged: by the name of its key, by what it looks like, and by its size."""
    return {key: value if key in _OURS else _redacted(key, value) for key, value in record.items()}


class _Handler(logging.StreamHandler[TextIO]):
    """Marks the handler as ours, so that it can be replaced."""


_TALKATIVE = (
    # A line for every event that woke the loop.
    "kopf.objects",
    "kubernetes",
    "urllib3",
    "httpx",
    "httpcore",
    "aiohttp",
    "botocore",
    "s3fs",
    "grpc",
    "asyncio",
    "pymilvus",
    "uvicorn",
)
_OURS = frozenset({"event", "level", "timestamp", "logger"})

# Compared without case, dashes and underscores; numbers under such keys (a count of tokens) are let through.
_SECRET_KEYS = re.compile(
    r"password|passwd|token|apikey|secretkey|accesskey|clientsecret|authorization|credential|cookie|privatekey|storeoptions"
)
_CONTENT_KEYS = frozenset(
    {
        "text",
        "texts",
        "query",
        "queries",
        "vector",
        "vectors",
        "embedding",
        "embeddings",
        "fields",
        "metadata",
        "body",
        "data",
    }
)
_SECRET_TEXTS = (
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{REDACTED}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(?i)\b(?!SecretNot\w+:)([\w-]*(?:password|passwd|api[-_]?key|secret[-_\w]*|token|signature))(\"?'?\s*[=:]\s*\"?'?)[^\s&,;\"']+"),
     rf"\1\2{REDACTED}"),
    (re.compile(r"\bsk-[\w-]{16,}"), REDACTED),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), REDACTED),
    (re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"), REDACTED),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), REDACTED),
)  # fmt: skip


def _redacted(key: str, value: Any) -> Any:
    name = key.lower().replace("-", "").replace("_", "")
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_KEYS.search(name) or name in _CONTENT_KEYS:
        return REDACTED
    match value:
        case str():
            return scrub(value)
        case Mapping():
            return {str(inner): _redacted(str(inner), item) for inner, item in value.items()}
        case bytes() | bytearray() | memoryview():
            return f"[{len(value)} bytes]"
        case Sequence() | set() | frozenset():
            items = list(value)
            if len(items) > 16:
                return f"[{len(items)} items]"
            return [_redacted(key, item) for item in items]
        case _:
            return _described(value)


def scrub(text: str) -> str:
    """Return a text without what looks like a credential, and not longer than `LONGEST`."""
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def _described(value: Any) -> str:
    """Return what may be said of a value whose text is not known to be harmless."""
    if isinstance(value, PointsmanError):
        return scrub(f"{value.reason}: {value.message}")
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"[{kind}]" if shape is None else f"[{kind} of shape {tuple(shape)}]"


def _as_event(_logger: Any, _method: str, record: EventDict) -> EventDict:
    record["message"] = str(record["event"])
    record["event"] = Event.LIBRARY_SPOKE
    return record


def _render_exception(_logger: Any, _method: str, record: EventDict) -> EventDict:
    info = record.pop("exc_info", None)
    error: BaseException | None = None
    match info:
        case BaseException():
            error = info
        case (_, BaseException() as raised, _):
            error = raised
        case True:
            error = sys.exc_info()[1]
        case _:
            pass
    if error is not None:
        record["exception"] = told(error)
    return record


def told(error: BaseException) -> list[str]:
    """Return an exception and its causes, newest first: types and places; the message only of our own errors."""
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(lines) < 12:
        seen.add(id(current))
        said = f": {current.message}" if isinstance(current, PointsmanError) else ""
        lines.append(f"{type(current).__name__}{said} at {' < '.join(_places(current.__traceback__)) or 'nowhere'}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return lines


def _places(trace: TracebackType | None) -> list[str]:
    places: list[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return places[::-1][:12]
