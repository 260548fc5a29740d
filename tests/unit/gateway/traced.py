"""Gateways that trace, in front of a database and a model that fail as they are told, and a collector beside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.servers.collector import Collector, Sent
from tests.servers.openai_server import MODEL, OpenAIServer
from tests.unit.gateway import stage
from tests.unit.gateway.stage import Stage, entry, fill, space

from pointsman import ports
from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.backends.memory import Memory
from pointsman.core import filters
from pointsman.core.recipes import Space
from pointsman.embedders import registry as embedders
from pointsman.gateway import tracing

SMALL, LARGE = space(64), space(128)
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CANARY = "zeppelin"


@contextlib.contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Start a collector that the environment names, and nothing else of it."""
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


class Failing(Memory):
    """A database that fails as it is told."""

    error: Exception | None = None
    healthy = ""
    """The index that it finds all the same."""

    def search(self, name: str, vector: Any, limit: int, where: filters.Filter | None = None) -> list[ports.Hit]:
        if self.error is not None and name != self.healthy:
            raise self.error
        return super().search(name, vector, limit, where)


def failed(collector: Collector, name: str) -> tuple[bool, str, Any, Any]:
    found: Sent = collector.named(name)
    told: Mapping[str, Any] = found.attributes
    return found.is_error, found.status, told.get("error.type"), told.get("pointsman.code")
