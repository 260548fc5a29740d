"""What a collector is sent of a request: its steps, in its caller's trace, and nothing of what was asked."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.collector import Collector, Sent
from tests.servers.openai_server import MODEL, OpenAIServer
from tests.unit.gateway import stage
from tests.unit.gateway.stage import Stage, entry, fill, space, until
from tests.unit.gateway.test_models import REMOTE, Model

from pointsman import ports
from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api.conditions import Reason
from pointsman.backends.memory import Memory
from pointsman.core import filters
from pointsman.core.recipes import Space
from pointsman.embedders import registry as embedders
from pointsman.embedders import wordllama
from pointsman.errors import Retryable, Terminal
from pointsman.gateway import access, spans, tracing
from pointsman.gateway.models import QueryModel, Side
from pointsman.gateway.tracing import Step, Told

ROOT = Path(__file__).resolve().parents[3]
SMALL, LARGE = space(64), space(128)
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CANARY = "zeppelin"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with Collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        yield found


def caller(flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{CALLER}-{flags}", "tracestate": f"vendor={CANARY}"}


async def serve(found: Stage) -> None:
    fill(found.database, "v7", SMALL)
    found.declare(stage.version("v7", 64))
    found.route(entry("v7", 100, SMALL))
    await found.served()


def test_a_request_is_a_span_in_its_callers_trace_and_each_step_a_span_below_it(collector: Collector) -> None:
    tracer = spans.start(os.environ, "gateway-1")

    async def story() -> None:
        async with stage.running(tracer=tracer) as found:
            await serve(found)
            body = {"query": "steam engines", "topK": 2}
            assert (await found.post(stage.SEARCH, body, **caller())).status_code == 200

    asyncio.run(story())
    tracer.close()

    path = "/v1/namespaces/{namespace}/indexes/{name}/search"
    request = collector.named(f"POST {path}")
    assert (request.trace, request.parent, request.kind) == (TRACE, CALLER, "SERVER")
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": path,
        "http.response.status_code": 200,
        "pointsman.namespace": "search",
        "pointsman.deployment": "papers",
    }
    assert [(span.name, span.kind) for span in collector.spans] == [
        ("route", "INTERNAL"),
        ("embed", "INTERNAL"),
        ("search v7", "CLIENT"),
        (f"POST {path}", "SERVER"),
    ]
    assert {(span.trace, span.parent) for span in collector.spans[:3]} == {(TRACE, request.id)}
    assert collector.named("route").attributes == {
        "pointsman.version": "v7",
        "db.collection.name": "v7",
        "pointsman.space": SMALL.key,
        "pointsman.snapshot": 12,
        "pointsman.epoch": 1,
        "pointsman.revision": 1,
        "pointsman.weight": 100,
    }
    texts = {"pointsman.texts": 1, "pointsman.cached": 0}
    assert collector.named("embed").attributes == {"pointsman.model": wordllama.MODEL, **texts}
    assert collector.named("search").attributes == {
        "db.system.name": "memory",
        "db.operation.name": "search",
        "db.collection.name": "v7",
        "pointsman.top_k": 2,
        "pointsman.hits": 2,
    }
    assert not any(span.is_error or span.status for span in collector.spans)


def test_a_request_without_a_trace_or_with_one_that_cannot_be_read_begins_one(collector: Collector) -> None:
    tracer = spans.start(os.environ, "gateway-1")
    twice = [("traceparent", caller()["traceparent"]), ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")]

    async def story() -> None:
        async with stage.running(tracer=tracer) as found:
            await serve(found)
            await found.search(query="steam")
            assert (await found.post(stage.SEARCH, {"query": "steam"}, traceparent="00-xyz")).status_code == 200
            answer = await found.client.post(stage.SEARCH, json={"query": "steam"}, headers=httpx.Headers(twice))
            assert answer.status_code == 200

    asyncio.run(story())
    tracer.close()

    requests = [span for span in collector.spans if span.kind == "SERVER"]
    assert [span.parent for span in requests] == ["", "", ""]
    assert len({span.trace for span in requests} - {TRACE}) == 3
    # The second and third were known by then.
    assert [s.attributes["pointsman.cached"] for s in collector.spans if s.name == "embed"] == [0, 1, 1]


class Remote:
    """Opens the model of a local server, for a stage whose indexes are of the embedded one."""

    def __init__(self, server: OpenAIServer) -> None:
        self.space = Space("openai", MODEL, "", 64)
        self.endpoint = {"name": "main", "baseURL": server.url}

    def version(self, name: str) -> dict[str, Any]:
        model = {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 64}}
        return {"name": name, "model": model, "text": {"template": "{text}", "metadataFields": ["year"]}}

    def open(
        self,
        where: Space,
        endpoint: dataset_api.Endpoint | None,
        key: str | None,
        allowed: Access,
        model: dataset_api.ModelChoice,
    ) -> ports.Embedder:
        patience = embedders.Patience(attempts=1, seconds=1, read_seconds=10)
        return embedders.open_embedder(where, endpoint, key, allowed, model, patience)


async def ask_remote(server: OpenAIServer, tracer: tracing.Tracer, body: Any, flags: str) -> int:
    """Serve an index whose model is at an endpoint, and ask it once within a trace; return the answer's status."""
    remote = Remote(server)
    async with stage.running(tracer=tracer, embedder=remote.open) as found:
        fill(found.database, "v7", remote.space)
        found.declare(remote.version("v7"), endpoints=[remote.endpoint])
        found.route(entry("v7", 100, remote.space))
        await found.served()
        return (await found.post(stage.SEARCH, body, **caller(flags))).status_code


def test_the_models_endpoint_takes_part_in_the_trace(collector: Collector) -> None:
    tracer = spans.start(os.environ, "gateway-1")
    with OpenAIServer(embed=wordllama.Wordllama(64).embed) as server:
        assert asyncio.run(ask_remote(server, tracer, {"query": "steam"}, "01")) == 200
        # What was asked to see whether the model is there belongs to nobody's trace.
        opening, asking = server.headers
    tracer.close()

    call, embed = collector.named("model"), collector.named("embed")
    assert (call.kind, call.parent, embed.parent) == ("CLIENT", embed.id, collector.named("POST").id)
    assert call.attributes == {"pointsman.model": MODEL, "pointsman.texts": 1}
    assert asking["traceparent"] == f"00-{TRACE}-{call.id}-01"
    assert "traceparent" not in opening
    assert "tracestate" not in asking


def test_what_the_caller_does_not_record_is_not_recorded_and_passed_on_as_such(collector: Collector) -> None:
    tracer = spans.start(os.environ, "gateway-1")
    with OpenAIServer(embed=wordllama.Wordllama(64).embed) as server:
        assert asyncio.run(ask_remote(server, tracer, {"query": "steam"}, "00")) == 200
        passed_on = server.headers[-1]["traceparent"].split("-")
    tracer.close()

    assert collector.spans == []
    assert (passed_on[1], passed_on[3]) == (TRACE, "00")


@pytest.mark.parametrize(("variable", "value"), [("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SDK_DISABLED", "true")])
def test_the_librarys_own_variables_say_what_is_recorded(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    tracer = spans.start(os.environ, "gateway-1")

    async def story() -> None:
        async with stage.running(tracer=tracer) as found:
            await serve(found)
            await found.search(query="steam engines")

    asyncio.run(story())
    tracer.close()

    assert collector.raw == []


class Failing(Memory):
    """A database that fails as it is told."""

    error: Exception | None = None

    def search(self, name: str, vector: Any, limit: int, where: filters.Filter | None = None) -> list[ports.Hit]:
        if self.error is not None:
            raise self.error
        return super().search(name, vector, limit, where)


def failed(collector: Collector, name: str) -> tuple[bool, str, Any, Any]:
    found: Sent = collector.named(name)
    told: Mapping[str, Any] = found.attributes
    return found.is_error, found.status, told.get("error.type"), told.get("pointsman.code")


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Retryable(Reason.BACKEND_UNREACHABLE, f"{CANARY} does not answer"), 503, "BackendUnreachable"),
        (Terminal(Reason.BACKEND_UNAUTHORIZED, f"{CANARY} is refused"), 502, "BackendUnauthorized"),
        (ValueError(CANARY), 503, "InternalError"),
    ],
    ids=["away", "refusing", "unforeseen"],
)
def test_a_failure_is_told_by_its_reason_and_not_in_its_words(
    collector: Collector, error: Exception, status: int, reason: str
) -> None:
    tracer, database = spans.start(os.environ, "gateway-1"), Failing()

    async def story() -> None:
        async with stage.running(database, tracer=tracer) as found:
            await serve(found)
            database.error = error
            assert (await found.post(stage.SEARCH, {"query": "steam"})).status_code == status

    asyncio.run(story())
    tracer.close()

    assert failed(collector, "search") == (True, reason, reason, None)
    assert failed(collector, "POST") == (True, "database_failed", "database_failed", "database_failed")
    assert collector.named("POST").attributes["http.response.status_code"] == status
    assert not collector.named("embed").is_error
    assert not any(CANARY.encode() in raw for raw in collector.raw)


def test_a_model_that_fails_fails_its_own_steps(collector: Collector) -> None:
    tracer = spans.start(os.environ, "gateway-1")
    with OpenAIServer(embed=wordllama.Wordllama(64).embed) as server:
        server.switches.answer = 1
        assert asyncio.run(ask_remote(server, tracer, {"query": "steam"}, "01")) == 503
    tracer.close()

    assert failed(collector, "model") == (True, "ModelUnreachable", "ModelUnreachable", None)
    assert failed(collector, "embed") == failed(collector, "model")
    assert failed(collector, "POST")[1:3] == ("model_failed", "model_failed")
    assert [span.name for span in collector.spans if span.name.startswith("search")] == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (stage.SEARCH, {"query": CANARY, CANARY: 1}, 400, "invalid_request"),
        (stage.SEARCH, {"vector": [1.0] * 64, "space": CANARY}, 409, "space_not_live"),
        (stage.SEARCH.replace("papers", CANARY), {"query": "steam"}, 404, "not_found"),
        (stage.EMBEDDINGS, {"input": "steam", "model": CANARY}, 400, "invalid_request"),
        (stage.OPENAI, {"query": CANARY, "rewrite_query": True}, 400, "invalid_request"),
    ],
)
def test_what_the_caller_has_to_mend_has_a_code_and_is_no_failure(
    collector: Collector, path: str, body: Any, status: int, code: str
) -> None:
    tracer = spans.start(os.environ, "gateway-1")

    async def story() -> None:
        async with stage.running(tracer=tracer) as found:
            await serve(found)
            assert (await found.post(path, body)).status_code == status

    asyncio.run(story())
    tracer.close()

    assert failed(collector, "POST") == (False, "", None, code)
    assert not any(CANARY.encode() in raw for raw in collector.raw)


def test_a_query_without_a_token_is_a_span_that_names_no_deployment(collector: Collector, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{CANARY}-token\n")
    tracer = spans.start(os.environ, "gateway-1")

    async def story() -> None:
        async with stage.running(guard=access.Tokens(tokens), tracer=tracer) as found:
            await serve(found)
            assert (await found.post(stage.SEARCH, {"query": "steam"}, authorization="Bearer x")).status_code == 401
            answer = await found.post(stage.SEARCH, {"query": "steam"}, authorization=f"Bearer {CANARY}-token")
            assert answer.status_code == 200

    asyncio.run(story())
    tracer.close()

    stranger, known = [span for span in collector.spans if span.kind == "SERVER"]
    assert stranger.attributes["pointsman.code"] == "unauthorized"
    assert "pointsman.deployment" not in stranger.attributes
    assert known.attributes["pointsman.deployment"] == "papers"
    assert not any(CANARY.encode() in raw for raw in collector.raw)


def test_nothing_of_what_is_asked_answered_or_shown_is_told(collector: Collector) -> None:
    tracer = spans.start(os.environ, "gateway-1")
    texts = {**stage.TEXTS, f"{CANARY}-document": f"the {CANARY} over the lake"}
    bodies: list[dict[str, Any]] = [
        {"query": CANARY, "session": CANARY, "include": ["text", "metadata"]},
        {"query": [CANARY, "steam"], "filter": {"type": "eq", "key": "year", "value": CANARY}},
        {"like": f"{CANARY}-document"},
        {"query": CANARY, "hits": "documents"},
    ]

    async def story() -> None:
        async with stage.running(tracer=tracer) as found:
            fill(found.database, "v7", SMALL, texts)
            fill(found.database, "v8", LARGE, texts)
            found.declare(stage.version("v7", 64), stage.version("v8", 128))
            shadow = {"index": "v8", "percent": 100}
            found.route(entry("v8", 0, LARGE), entry("v7", 100, SMALL), shadow=shadow)
            await found.served()
            for body in bodies:
                answer = await found.post(f"{stage.SEARCH}?{CANARY}", body, **caller(), cookie=CANARY, baggage=CANARY)
                assert answer.status_code == 200, answer.text
            assert (await found.post(stage.EMBEDDINGS, {"input": CANARY})).status_code == 200
            assert (await found.post(stage.OPENAI, {"query": CANARY})).status_code == 200
            await found.shadow.idle()

    asyncio.run(story())
    tracer.close()

    names = {span.name for span in collector.spans}
    assert {"route", "embed", "search v7", "search v8", "fetch v7", "shadow"} <= names
    assert not any(CANARY.encode() in raw for raw in collector.raw)
    # And nothing has slipped in since: every attribute is one of the list, and numbers and names only.
    assert {name for span in collector.spans for name in span.attributes} <= {str(told) for told in Told}
    assert all(isinstance(value, str | int) for span in collector.spans for value in span.attributes.values())


def test_what_is_asked_beside_is_a_trace_of_its_own_with_a_link_recorded_as_its_request_is(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No trace that begins here is recorded, but those that the caller records are.
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    tracer = spans.start(os.environ, "gateway-1")

    async def story() -> None:
        async with stage.running(tracer=tracer) as found:
            fill(found.database, "v7", SMALL)
            fill(found.database, "v8", LARGE)
            found.route(entry("v8", 0, LARGE), entry("v7", 100, SMALL), shadow={"index": "v8", "percent": 100})
            await found.served()
            await found.opened("v8")
            for headers in (caller(), {}):
                assert (await found.post(stage.SEARCH, {"query": "steam"}, **headers)).status_code == 200
            await found.shadow.idle()
            assert (await found.report())["shadow"]["compared"] == 2

    asyncio.run(story())
    tracer.close()

    request, shadow, asked = collector.named("POST"), collector.named("shadow"), collector.named("search v8")
    assert shadow.links == ((TRACE, request.id),)
    assert (shadow.parent, shadow.attributes["pointsman.version"]) == ("", "v8")
    assert shadow.trace != TRACE
    assert (asked.trace, asked.parent) == (shadow.trace, shadow.id)


def test_a_call_of_a_model_for_several_requests_is_a_step_of_one_and_linked_to_the_others(
    collector: Collector,
) -> None:
    tracer = spans.start(os.environ, "gateway-1")

    async def embed(asked: QueryModel, request: str) -> None:
        async def inner(scope: Any, receive: Any, send: Any) -> None:
            await asked.embed(["x"], Side.QUERY)

        scope: dict[str, Any] = {"method": "POST", "headers": []}
        await tracing.Traced(inner, request, tracer)(scope, None, None)  # type: ignore[arg-type]

    async def story() -> None:
        model = Model()
        model.go.clear()
        asked = QueryModel(REMOTE, model, 10)
        tasks = [asyncio.create_task(embed(asked, request)) for request in ("a", "b")]
        # The first waits for a thread by now, the second for the first.
        await until(lambda: model.batches)
        model.go.set()
        await asyncio.gather(*tasks)
        await asyncio.to_thread(asked.close)

    asyncio.run(story())
    tracer.close()

    first, second = [
        next(span for span in collector.spans if span.parent == request.id)
        for request in (collector.named("POST a"), collector.named("POST b"))
    ]
    call = collector.named("model")
    assert (call.trace, call.parent, call.links) == (first.trace, first.id, ((second.trace, second.id),))


def test_a_collector_that_does_not_answer_costs_spans_and_no_query(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    collector.go.clear()
    tracer = spans.start(os.environ, "gateway-1")

    async def story() -> None:
        async with stage.running(tracer=tracer) as found:
            await serve(found)
            for _ in range(20):
                await found.search(query="steam engines")

    asyncio.run(story())
    collector.go.set()
    tracer.close()

    # A batch on its way and a full queue, of 80.
    assert 8 <= len(collector.spans) <= 12


def test_a_collector_that_is_not_there_is_no_querys_trouble(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        # Nobody listens on it.
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        tracer = spans.start(os.environ, "gateway-1")

        async def story() -> None:
            async with stage.running(tracer=tracer) as found:
                await serve(found)
                await found.search(query=CANARY)

        asyncio.run(story())
        tracer.close()

    assert collector.raw == []
    assert "Failed to export spans batch" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [({}, "pointsman-gateway"), ({"OTEL_SERVICE_NAME": "searching"}, "searching")],
    ids=["by default", "as the environment says"],
)
def test_spans_say_which_gateway_they_are_of(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracer = spans.start(os.environ, "gateway-1")
    tracer.request("GET /", "").end()
    tracer.close()

    resource = collector.named("GET").resource
    assert (resource["service.name"], resource["service.instance.id"]) == (wanted, "gateway-1")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "is not usable: wanted http/protobuf, nothing else is spoken here"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "is not usable: wanted otlp, nothing else is spoken here"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"x-team {CANARY}", "is not usable: wanted name=value, separated by commas"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_shown(
    collector: Collector, caplog: pytest.LogCaptureFixture, variable: str, value: str, message: str
) -> None:
    with pytest.raises(Terminal) as error:
        spans.start({variable: value}, "gateway-1")

    assert error.value.message == f"{variable} {message}"
    assert CANARY not in caplog.text


OFF = """
import asyncio, sys
from tests.unit.gateway import stage, test_shadow
import pointsman.cli.main, pointsman.cli.gateway

async def story():
    async with stage.running() as found:
        await test_shadow.serve(found)
        await found.search(query="steam engines")
        await found.shadow.idle()

asyncio.run(story())
print(sorted({name.partition(".")[0] for name in sys.modules if name.startswith("opentelemetry")}))
"""
ON = """
import sys
from pointsman.cli import gateway
gateway.open_tracer("g").close()
print("opentelemetry" in sys.modules)
"""
AWAY = """
import sys
from pointsman.cli import gateway
sys.modules["opentelemetry"] = None
try:
    gateway.open_tracer("g")
except Exception as error:
    print(type(error).__name__, error.message)
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (OFF, "[]"),
        (ON, "True"),
        (
            AWAY,
            "Terminal POINTSMAN_GATEWAY_TRACES is true and OpenTelemetry is not installed; install pointsman[traces]",
        ),
    ],
    ids=["off", "on", "not installed"],
)
def test_the_library_is_loaded_where_traces_are_on_and_nowhere_else(program: str, said: str) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )

    assert found.stdout.splitlines()[-1:] == [said], found.stderr


def test_the_page_tells_every_step_and_every_attribute_and_no_other() -> None:
    page = (ROOT / "docs" / "gateway.md").read_text().partition("## Traces")[2].partition("\n## ")[0]
    told = re.findall(r"`((?:pointsman|db|http|error)\.[a-z._]+)`", page)
    steps = re.findall(r"^\| `([a-z]+)[^|]*\|", page, re.MULTILINE)

    assert set(told) == {str(each) for each in Told}
    assert set(steps) == {str(each) for each in Step}
