"""A gateway with all its parts in this process: cluster and databases in memory, and the embedded model."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pyarrow as pa

from pointsman import ports
from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api import engines
from pointsman.backends import registry
from pointsman.backends.memory import Memory
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.resources import DATASET, DEPLOYMENT, All, Resource
from pointsman.core import digests, rows
from pointsman.core.recipes import Space
from pointsman.embedders import registry as embedders
from pointsman.embedders import wordllama
from pointsman.gateway import access, admin, requests, tracing
from pointsman.gateway.app import Gateway, State
from pointsman.gateway.directory import Deployment, Directory
from pointsman.gateway.serving import Doors, OpenEmbedder
from pointsman.gateway.shadow import Shadow

NAMESPACE, NAME = "search", "papers"
SEARCH = f"/v1/namespaces/{NAMESPACE}/indexes/{NAME}/search"
EMBEDDINGS = f"/v1/namespaces/{NAMESPACE}/indexes/{NAME}/embeddings"
OPENAI = f"/v1/vector_stores/{NAMESPACE}.{NAME}/search"
ROUTE = f"/v1/namespaces/{NAMESPACE}/indexes/{NAME}/route"

TEXTS = {
    "signals": "Signal boxes and how points are set from them",
    "engines": "Steam locomotives of the narrow gauge",
    "sleepers": "Night trains across the Alps",
}
YEARS = {"signals": 1901, "engines": 1925, "sleepers": 1950}


def space(dimensions: int, **more: str) -> Space:
    """Return a space of the embedded model."""
    return Space("wordllama", wordllama.MODEL, wordllama.revision(), dimensions, **more)


def entry(index: str, weight: int, where: Space, version: str = "", **more: Any) -> dict[str, Any]:
    """Return an entry of a route as status has it."""
    return {
        "index": index,
        "version": version or index,
        "weight": weight,
        "snapshot": 12,
        "recipe": f"recipe-{index}",
        "space": where.key,
        "provider": where.provider,
        "model": where.model,
        "revision": where.revision,
        "dimensions": where.dimensions,
        "metric": where.metric,
        "queryPrefix": where.query_prefix,
        "documentPrefix": where.document_prefix,
        **more,
    }


def points(where: Space, texts: Mapping[str, str]) -> pa.RecordBatch:
    """Return the points of documents of one chunk each."""
    names = list(texts)
    vectors = wordllama.Wordllama(where.dimensions).embed([where.document_prefix + texts[name] for name in names])
    metadata = [f'{{"year":{YEARS.get(name, 2000)}}}' for name in names]
    columns = [
        pa.array([digests.point_id(name, 0) for name in names], rows.KEY),
        pa.array(names, pa.string()),
        pa.array([0] * len(names), pa.int32()),
        pa.array([texts[name] for name in names], pa.string()),
        pa.array([digests.point_id(name, 1) for name in names], rows.KEY),
        pa.array(metadata, pa.string()),
        pa.array([digests.point_id(name, 2) for name in names], rows.KEY),
        pa.array([3] * len(names), pa.int64()),
        pa.array(["recipe"] * len(names), pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), where.dimensions),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=rows.points(where.dimensions))


def fill(backend: ports.Backend, index: str, where: Space, texts: Mapping[str, str] = TEXTS, **marker: str) -> None:
    """Make an index of ours in a database."""
    owner = f"{NAMESPACE}/{NAME}"
    fields = {"owner": owner, "uid": "u", "version": index, "recipe": f"recipe-{index}", "space": where.key}
    found = ports.Marker(**{**fields, "model": where.model, **marker})
    backend.create(ports.IndexSpec(index, where.dimensions, 16, 64, found))
    backend.load(index, [points(where, texts)])
    backend.seal(index)


def deployment(entries: list[dict[str, Any]] | None, **route: Any) -> Resource:
    """Return a deployment; with entries, with a route in its status."""
    status: dict[str, Any] = {}
    if entries is not None:
        fields = {"epoch": 1, "revision": 1, "salt": "salt", "dataset": NAME, "engine": "memory", "address": "memory"}
        status = {"route": {**fields, "entries": entries, **route}}
    return {
        "apiVersion": "pointsman.dev/v1alpha1",
        "kind": DEPLOYMENT,
        "metadata": {"namespace": NAMESPACE, "name": NAME},
        "spec": {"datasetRef": {"name": NAME}, "version": "v7", "backend": {"memory": {}}},
        "status": status,
    }


def version(name: str, dimensions: int) -> dict[str, Any]:
    """Return a version of the embedded model."""
    text = {"template": "{text}", "metadataFields": ["year"]}
    return {"name": name, "model": {"wordllama": {"dimensions": dimensions}}, "text": text}


def dataset(*versions: dict[str, Any], **more: Any) -> Resource:
    """Return a dataset."""
    files = {"uri": "file:///corpus/papers.jsonl", "format": "jsonl"}
    return {
        "apiVersion": "pointsman.dev/v1alpha1",
        "kind": DATASET,
        "metadata": {"namespace": NAMESPACE, "name": NAME},
        "spec": {"source": {"files": files, "idField": "id"}, "versions": list(versions), **more},
    }


@dataclass
class Stage:
    """One gateway and its client, in one event loop."""

    cluster: MemoryCluster
    database: ports.Backend
    directory: Directory
    shadow: Shadow
    state: State
    gateway: Gateway
    client: httpx.AsyncClient
    admin: httpx.AsyncClient
    resource: Resource = field(default_factory=dict)

    def declare(self, *versions: dict[str, Any], **more: Any) -> None:
        """Declare the dataset."""
        self.cluster.apply(dataset(*versions, **more))
        self.look(DATASET)

    def route(self, *entries: dict[str, Any], **more: Any) -> None:
        """Write a route, as the operator does."""
        self.cluster.apply(deployment(list(entries), **more))
        self.look(DEPLOYMENT)

    def look(self, kind: str) -> None:
        """Have the gateway see all of a kind."""
        self.directory.see(kind, None, All(self.cluster.list(kind, None)))

    @property
    def deployment(self) -> Deployment:
        """The deployment as the gateway knows it."""
        found = self.directory.find(NAMESPACE, NAME)
        assert found is not None
        return found

    async def served(self, revision: int = 1) -> None:
        """Wait until a revision is served."""
        await until(lambda: self.deployment.adopted is not None and self.deployment.adopted.route.revision == revision)

    async def opened(self, *indexes: str) -> None:
        """Wait until indexes of the served route are open."""
        assert self.deployment.adopted is not None
        for index in indexes:
            (await self.deployment.adopted.hold(index)).close()

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Send a body and return the answer."""
        return await self.client.post(path, json=body, headers=headers)

    async def search(self, **body: Any) -> dict[str, Any]:
        """Search and return the answer, which has to be one."""
        answer = await self.post(SEARCH, body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refused(self, body: Any, path: str = SEARCH) -> tuple[int, str]:
        """Send what is to be refused; return status and message."""
        answer = await self.post(path, body)
        return answer.status_code, answer.json()["error"]["message"]

    async def report(self) -> dict[str, Any]:
        """Return what the gateway reports of the deployment."""
        answer = await self.admin.get("/report")
        return dict(answer.json()["deployments"][f"{NAMESPACE}/{NAME}"])


async def until(claim: Any, within: float = 20.0) -> None:
    """Wait until a claim holds."""
    async with asyncio.timeout(within):
        while not claim():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(
    database: ports.Backend | None = None,
    guard: access.Guard | None = None,
    limits: requests.Limits | None = None,
    cluster: MemoryCluster | None = None,
    embedder: OpenEmbedder | None = None,
    *,
    at_once: int = 64,
    seconds: float = 10.0,
    waiting: int = 100,
    tracer: tracing.Tracer | None = None,
) -> AsyncIterator[Stage]:
    """Start a gateway that has seen an empty cluster, or the one that is given once it is looked at."""
    cluster, database = cluster or MemoryCluster(), database or Memory()

    def opened(
        spec: engines.Backend, credentials: Mapping[str, str], allowed: Access, *, calls: registry.Calls
    ) -> ports.Backend:
        return database

    def embedded(
        where: Space,
        endpoint: dataset_api.Endpoint | None,
        key: str | None,
        allowed: Access,
        model: dataset_api.ModelChoice,
    ) -> ports.Embedder:
        patience = embedders.Patience(attempts=1, seconds=1, read_seconds=seconds)
        return embedders.open_embedder(where, endpoint, key, allowed, model, patience)

    executor = ThreadPoolExecutor(8)
    allowed = Access(allow_loopback=True, allow_memory_backend=True)
    doors = Doors(cluster, allowed, opened, embedder or embedded, executor, 8, seconds, 100)
    directory, state = Directory(doors, time.time), State("gateway-1", time.time())
    shadow = Shadow(seconds, waiting)
    guard, limits = guard or access.Open(), limits or requests.Limits()
    gateway = Gateway(directory, guard, shadow, state, limits, at_once, seconds, tracer)
    public = httpx.ASGITransport(gateway.app())
    private = httpx.ASGITransport(admin.application(gateway, directory, state))
    shadow.start()
    async with (
        httpx.AsyncClient(transport=public, base_url="http://gateway") as client,
        httpx.AsyncClient(transport=private, base_url="http://gateway") as reports,
    ):
        try:
            yield Stage(cluster, database, directory, shadow, state, gateway, client, reports)
        finally:
            shadow.close()
            directory.close()
            await asyncio.sleep(0)
            executor.shutdown()
