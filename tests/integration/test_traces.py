"""A real gateway process that traces: what waits is sent when it ends, and no collector is in anybody's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.integration import databases, gateway_process
from tests.integration.databases import Database
from tests.integration.gateway_process import NAME, PLAIN, Stage
from tests.servers.collector import Collector
from tests.unit.gateway.stage import entry, space, version

from pointsman.controlplane import plane

pytestmark = pytest.mark.server

SMALL = space(64)
SECRET = "zeppelin merger"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with databases.pgvector(Path(tmp_path_factory.mktemp("pgvector"))) as found:
        yield found


@pytest.fixture
def stage(control_plane: plane.ControlPlane, namespace: str, tmp_path: Path, database: Database) -> Iterator[Stage]:
    with gateway_process.staged(control_plane, namespace, tmp_path, database) as found:
        yield found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        # Nothing goes before the end.
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        yield found


def serve(stage: Stage) -> gateway_process.GatewayProcess:
    """Serve an index by a gateway that traces."""
    index = f"{stage.namespace}_v7"
    stage.fill(index, SMALL)
    stage.declare(version("v7", 64))
    stage.route(entry(index, 100, SMALL, "v7"))
    gateway = stage.start(traces="true", drain="1s")
    stage.served(gateway)
    return gateway


def test_a_query_is_traced_from_its_caller_to_postgres_and_sent_at_the_latest_when_the_gateway_ends(
    stage: Stage, collector: Collector
) -> None:
    gateway = serve(stage)
    path = f"/v1/namespaces/{stage.namespace}/indexes/{NAME}/search"
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}

    answer = httpx.post(gateway.url() + path, json={"query": SECRET, "topK": 2}, headers=headers, verify=PLAIN)

    assert answer.status_code == 200
    assert collector.raw == []
    instance = gateway.report()["gateway"]
    assert gateway.stop() == 0
    request, search = collector.named("POST"), collector.named("search")
    assert (request.trace, request.parent) == (TRACE, CALLER)
    assert request.resource["service.instance.id"] == instance
    assert (search.trace, search.parent) == (TRACE, request.id)
    assert search.attributes == {
        "db.system.name": "postgresql",
        "db.operation.name": "search",
        "db.collection.name": f"{stage.namespace}_v7",
        "pointsman.top_k": 2,
        "pointsman.hits": 2,
    }
    assert not any(word.encode() in raw for raw in collector.raw for word in SECRET.split())


def test_a_gateway_answers_and_ends_though_its_collector_hangs(stage: Stage, collector: Collector) -> None:
    collector.go.clear()
    gateway = serve(stage)

    assert stage.search(gateway, query=SECRET).status_code == 200

    # Within the time that a pod has after it was drained.
    assert gateway.stop() == 0
    assert collector.raw == []
    assert SECRET.split()[0] not in gateway.log


def test_a_variable_that_cannot_be_used_keeps_the_gateway_from_starting(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    gateway = stage.start(traces="true")

    assert gateway.process.wait(60) != 0
    assert "OTEL_EXPORTER_OTLP_PROTOCOL is not usable: wanted http/protobuf" in gateway.log
