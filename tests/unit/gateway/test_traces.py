"""What a collector is sent of a request: its steps, in its caller's trace, and which belong together."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers.collector import Collector
from tests.servers.openai_server import MODEL, OpenAIServer
from tests.unit.gateway import stage, traced
from tests.unit.gateway.stage import entry, fill, until
from tests.unit.gateway.test_models import REMOTE, Model
from tests.unit.gateway.traced import CALLER, LARGE, SMALL, TRACE, ask_remote, caller, serve

from pointsman.access import Access
from pointsman.embedders import connection, wordllama
from pointsman.embedders.openai import OpenAI
from pointsman.gateway import spans, tracing
from pointsman.gateway.models import QueryModel, Side
from pointsman.gateway.tracing import Step, Told

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with traced.collecting(monkeypatch) as found:
        yield found


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


def test_every_request_of_a_call_is_in_its_trace_though_other_threads_send_it() -> None:
    allowed = Access(allow_loopback=True)
    with OpenAIServer(embed=wordllama.Wordllama(64).embed) as server:
        model = OpenAI(server.url, MODEL, 64, allowed, concurrency=4)
        with connection.passing_on(caller()):
            model.embed([f"text {number}" for number in range(2_000)])
        model.embed(["another"])
        model.close()

    given = [headers.get("traceparent") for headers in server.headers]
    assert len(given) > 2
    assert given == [caller()["traceparent"]] * (len(given) - 1) + [None]


def test_the_page_tells_every_step_and_every_attribute_and_no_other() -> None:
    page = (ROOT / "docs" / "gateway.md").read_text().partition("## Traces")[2].partition("\n## ")[0]
    told = re.findall(r"`((?:pointsman|db|http|error)\.[a-z._]+)`", page)
    steps = re.findall(r"^\| `([a-z]+)[^|]*\|", page, re.MULTILINE)

    assert set(told) == {str(each) for each in Told}
    assert set(steps) == {str(each) for each in Step}
