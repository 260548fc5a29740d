"""Which database does a deployment name, and how is it reached? One line per engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never
from urllib.parse import urlsplit, urlunsplit

from pointsman import access, hosts, ports
from pointsman.api import engines
from pointsman.backends import memory
from pointsman.core import recipes

# Whoever adds one here is told by the type checker where else it is wanted.
Engine = engines.QdrantBackend | engines.MilvusBackend | engines.PgvectorBackend | engines.MemoryBackend


@dataclass(frozen=True, slots=True)
class Calls:
    """How a database is called: patiently by work, and quickly by whoever has a person waiting."""

    seconds: float = 30.0
    """How long one call may take."""
    at_once: int = 8
    """How many threads call: so many connections are kept open."""
    is_interactive: bool = False
    """Whether a search may miss what was written in the last seconds, where the database would wait for it."""


WORK = Calls()


def engine(spec: engines.Backend) -> Engine:
    """Return the one engine that is named."""
    named: Engine = getattr(spec, spec.engine)
    return named


def open_backend(
    spec: engines.Backend,
    credentials: Mapping[str, str],
    allowed: access.Access,
    shared_memory: memory.Memory | None = None,
    calls: Calls = WORK,
) -> ports.Backend:
    """Open the database of a deployment; nothing is sent to it yet.

    `credentials` are those that `controller.credentials.of_backend` reads. `shared_memory` is the process's in-memory
    database; without it each call opens an empty one. Raises what `access.Access` raises for what may not be reached.
    """
    # Each client is imported when its database is wanted: together they take seconds and much memory.
    match engine(spec):
        case engines.QdrantBackend() as found:
            from pointsman.backends import qdrant

            url = _pinned(found.url, allowed, found.grpc_port)
            client = qdrant.connect(url, found.grpc_port, credentials.get("apiKey"), calls.seconds)
            return qdrant.Qdrant(client, _shown(found.url), call_seconds=calls.seconds)
        case engines.MilvusBackend() as found:
            from pointsman.backends import milvus, milvus_connections

            uri, token = _pinned(found.uri, allowed), credentials.get("token", "")
            connection = milvus_connections.Connection(uri, found.database, token, _shown(found.uri), calls.seconds)
            return milvus.Milvus(connection, waits_for_writes=not calls.is_interactive)
        case engines.PgvectorBackend() as found:
            from pointsman.backends import pgvector, pgvector_connections

            address = pgvector_connections.Address(
                host=found.host,
                pinned=allowed.check_host(found.host, found.port),
                port=found.port,
                database=found.database,
                schema=found.schema_,
                username=credentials.get("username", ""),
                password=credentials.get("password", ""),
                tls=found.tls,
            )
            connections = pgvector_connections.Connections(address, calls.seconds, calls.at_once)
            return pgvector.Pgvector(connections, found.schema_)
        case engines.MemoryBackend():
            allowed.check_memory()
            return memory.Memory() if shared_memory is None else shared_memory
        case never:
            assert_never(never)


def address(spec: engines.Backend) -> str:
    """Return the address that direct clients are told: no secrets."""
    match engine(spec):
        case engines.QdrantBackend(url=url):
            return url
        case engines.MilvusBackend(uri=uri, database=database):
            return uri if database == "default" else f"{uri.rstrip('/')}/{database}"
        case engines.PgvectorBackend() as found:
            return f"postgresql://{found.host}:{found.port}/{found.database}?schema={found.schema_}"
        case engines.MemoryBackend():
            return "memory"
        case never:
            assert_never(never)


def index_parameters(spec: engines.Backend) -> engines.Hnsw:
    """Return the parameters that the graph index is built with."""
    found = engine(spec)
    return engines.Hnsw() if isinstance(found, engines.MemoryBackend) else found.hnsw


def parameters_digest(spec: engines.Backend) -> str:
    """Return a digest of what, beside the recipe, makes two indexes differ: engine and index parameters."""
    kind = type(engine(spec)).__name__
    return recipes.digest([kind, index_parameters(spec).model_dump(mode="json")], 8)


def _pinned(url: str, allowed: access.Access, *more_ports: int) -> str:
    """Return a URL whose host was checked, and for plain http replaced by the address that it was checked at.

    With TLS the name stays, because the certificate is checked against it; an address that it is moved to
    afterwards would have to show that certificate.
    """
    scheme, host, port = hosts.split_url(url)
    pinned = allowed.check_host(host, port)
    for other in more_ports:
        allowed.check_host(host, other)
    if scheme == "https":
        return url
    parts = urlsplit(url)
    literal = f"[{pinned}]" if ":" in pinned else pinned
    return urlunsplit((scheme, f"{literal}:{parts.port}" if parts.port else literal, parts.path, "", ""))


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
