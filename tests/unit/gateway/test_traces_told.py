"""How spans tell what went wrong, and that they tell nothing of what was asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.collector import Collector
from tests.servers.openai_server import OpenAIServer
from tests.unit.gateway import stage, test_shadow, traced
from tests.unit.gateway.stage import entry, fill
from tests.unit.gateway.traced import CANARY, LARGE, SMALL, Failing, ask_remote, caller, failed, serve

from pointsman.api.conditions import Reason
from pointsman.embedders import wordllama
from pointsman.errors import Retryable, Terminal
from pointsman.gateway import access, spans
from pointsman.gateway.tracing import Told


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with traced.collecting(monkeypatch) as found:
        yield found


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


def test_a_shadow_that_fails_is_seen_to_have_failed_beside_a_request_that_has_not(collector: Collector) -> None:
    tracer, database = spans.start(os.environ, "gateway-1"), Failing()
    database.error, database.healthy = Retryable(Reason.BACKEND_UNREACHABLE, CANARY), "v7"

    async def story() -> None:
        async with stage.running(database, tracer=tracer) as found:
            await test_shadow.serve(found)
            await found.search(query="steam engines")
            await found.shadow.idle()

    asyncio.run(story())
    tracer.close()

    assert failed(collector, "shadow") == (True, "BackendUnreachable", "BackendUnreachable", None)
    assert failed(collector, "search v8")[0]
    assert not failed(collector, "POST")[0]


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
