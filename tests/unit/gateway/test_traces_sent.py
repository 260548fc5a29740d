"""How spans reach a collector: what a slow one costs, what the environment may say, and what is loaded for it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.collector import Collector
from tests.unit.gateway import stage, traced
from tests.unit.gateway.traced import CANARY, serve

from pointsman.errors import Terminal
from pointsman.gateway import spans

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with traced.collecting(monkeypatch) as found:
        yield found


def test_a_collector_that_does_not_answer_costs_spans_and_no_query(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    # Nothing is given up meanwhile.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
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
