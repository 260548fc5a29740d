"""The databases that the contract runs on, each with what its vendor's own client can do behind our back."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pymilvus
import pytest
import qdrant_client
from psycopg.types.json import Jsonb
from qdrant_client import models
from tests.servers import milvus as milvus_server
from tests.servers import postgres as postgres_server

from pointsman import ports
from pointsman.access import Access
from pointsman.api import deployment, engines
from pointsman.backends import memory, qdrant, registry

LOCAL = Access(allow_loopback=True, allowed_hosts=("*",))
QDRANT_URL = os.environ.get("QDRANT_URL", "")


@dataclass(frozen=True)
class Engine:
    """One database, open, and its vendor's client at work on it."""

    kind: str
    backend: ports.Backend
    overwrite: Callable[[str, bytes, list[float]], object]
    """Write another vector to a point."""
    edit: Callable[[str, bytes, str, Any], object]
    """Write another value to one field of a point."""
    insert: Callable[[str, list[float]], object]
    """Add a point, with an id of the kind that people would give it."""
    names: Callable[[str], list[str]]
    """List the indexes whose names begin with a prefix."""
    destroy: Callable[[str], object]
    """Remove an index by hand."""
    build_foreign: Callable[[str], object]
    """Make a collection or table of that name that is not ours."""
    close: Callable[[], object]
    """Close the vendor's client."""
    reads_metadata: bool = False
    """Whether filters read the metadata as they are, without fields beside them, and integers of any size are kept.
    Any other engine refuses integers of more than 64 bits."""


def beginning(prefix: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(prefix))


def memory_engine() -> Engine:
    backend = memory.Memory()

    def overwrite(name: str, point_id: bytes, vector: list[float]) -> None:
        index = backend._indexes[name]
        index.vectors[index.slots[point_id]] = vector

    def edit(name: str, point_id: bytes, field: str, value: object) -> None:
        index = backend._indexes[name]
        index.payloads[index.slots[point_id]][field] = value

    def insert(name: str, vector: list[float]) -> None:
        index = backend._indexes[name]
        index.write(b"seven", index.payloads[0], np.array(vector, np.float32))

    def foreign(name: str) -> None:
        pytest.skip("nobody else writes to the operator's own memory")

    destroy = backend._indexes.pop
    return Engine("memory", backend, overwrite, edit, insert, backend.names, destroy, foreign, backend.close, True)


def qdrant_engine(kind: str, client: qdrant_client.QdrantClient, backend: ports.Backend) -> Engine:
    def overwrite(name: str, point_id: bytes, vector: list[float]) -> None:
        found = models.PointVectors(id=str(uuid.UUID(bytes=point_id)), vector=vector)
        client.update_vectors(name, [found])

    def edit(name: str, point_id: bytes, field: str, value: object) -> None:
        client.set_payload(name, {field: value}, points=[str(uuid.UUID(bytes=point_id))])

    def insert(name: str, vector: list[float]) -> None:
        client.upsert(name, [models.PointStruct(id=7, vector=vector, payload={"text": "by hand"})])

    def foreign(name: str) -> None:
        client.create_collection(name, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))

    def names(prefix: str) -> list[str]:
        return beginning(prefix, [found.name for found in client.get_collections().collections])

    return Engine(kind, backend, overwrite, edit, insert, names, client.delete_collection, foreign, client.close)


def qdrant_local_engine() -> Engine:
    client = qdrant_client.QdrantClient(":memory:")
    return qdrant_engine("qdrant-local", client, qdrant.Qdrant(client, "memory", is_local=True))


def qdrant_server_engine(url: str) -> Engine:
    client = qdrant_client.QdrantClient(url=url, check_compatibility=False)
    spec = engines.Backend(qdrant=engines.QdrantBackend(url=url))
    return qdrant_engine("qdrant-server", client, registry.open_backend(spec, {}, LOCAL))


def milvus_engine(uri: str) -> Engine:
    client = pymilvus.MilvusClient(uri)
    spec = engines.Backend(milvus=engines.MilvusBackend(uri=uri))

    def edit(name: str, point_id: bytes, field: str, value: object) -> None:
        found: dict[str, Any] = client.get(name, [point_id.hex()], output_fields=["*"])[0]
        client.upsert(name, [{**found, field: value}])

    def insert(name: str, vector: list[float]) -> None:
        found: dict[str, Any] = client.query(name, "", output_fields=["*"], limit=1)[0]
        # One that looks like ours but for its case, and one with all that an expression may trip over.
        client.insert(name, [{**found, "id": each, "vector": vector} for each in (found["id"].upper(), "a\"'\\")])

    def foreign(name: str) -> None:
        client.create_collection(name, dimension=4)

    backend = registry.open_backend(spec, {}, LOCAL)

    def overwrite(name: str, point_id: bytes, vector: list[float]) -> None:
        edit(name, point_id, "vector", vector)

    def names(prefix: str) -> list[str]:
        return beginning(prefix, client.list_collections())

    return Engine("milvus", backend, overwrite, edit, insert, names, client.drop_collection, foreign, client.close)


def pgvector_spec(server: postgres_server.Server) -> engines.Backend:
    return engines.Backend(
        pgvector=engines.PgvectorBackend(
            host=server.host,
            port=server.port,
            database=server.database,
            credentials_ref=deployment.base.SecretReference(name="database"),
            tls="Disable",
        )
    )


def pgvector_engine(server: postgres_server.Server) -> Engine:
    credentials = {"username": server.username, "password": server.password}
    backend = registry.open_backend(pgvector_spec(server), credentials, LOCAL)
    place = f"host={server.host} port={server.port} dbname={server.database}"
    client = psycopg.connect(f"{place} user={server.username} password={server.password}", autocommit=True)

    def overwrite(name: str, point_id: bytes, vector: list[float]) -> None:
        statement = f'UPDATE "{name}" SET embedding = %s WHERE point_id = %s'
        client.execute(statement, (str(vector), uuid.UUID(bytes=point_id)))

    def edit(name: str, point_id: bytes, field: str, value: object) -> None:
        new = Jsonb(value) if isinstance(value, dict) else value
        client.execute(f'UPDATE "{name}" SET {field} = %s WHERE point_id = %s', (new, uuid.UUID(bytes=point_id)))

    def insert(name: str, vector: list[float]) -> None:
        client.execute(
            f'INSERT INTO "{name}" SELECT gen_random_uuid(), document, ordinal, text, content_key, metadata, '
            f'metadata_digest, sequence, recipe, %s FROM "{name}" LIMIT 1',
            (str(vector),),
        )

    def names(prefix: str) -> list[str]:
        found = client.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return beginning(prefix, [name for (name,) in found])

    return Engine(
        "pgvector",
        backend,
        overwrite,
        edit,
        insert,
        names,
        lambda name: client.execute(f'DROP TABLE "{name}"'),
        lambda name: client.execute(f'CREATE TABLE "{name}" (id int)'),
        client.close,
        reads_metadata=True,
    )


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with milvus_server.start_milvus(Path(tmp_path_factory.mktemp("milvus"))) as uri:
        yield uri


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres_server.Server]:
    with postgres_server.start_postgres(Path(tmp_path_factory.mktemp("postgres"))) as server:
        yield server


@pytest.fixture(
    scope="session",
    params=[
        "memory",
        "qdrant-local",
        *([pytest.param("qdrant-server", marks=pytest.mark.server)] if QDRANT_URL else []),
        pytest.param("milvus", marks=pytest.mark.server),
        pytest.param("pgvector", marks=pytest.mark.server),
    ],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    match request.param:
        case "memory":
            found = memory_engine()
        case "qdrant-local":
            found = qdrant_local_engine()
        case "qdrant-server":
            found = qdrant_server_engine(QDRANT_URL)
        case "milvus":
            found = milvus_engine(request.getfixturevalue("milvus_uri"))
        case "pgvector":
            found = pgvector_engine(request.getfixturevalue("postgres"))
        case other:
            raise AssertionError(f"nothing here starts {other}")
    yield found
    found.backend.close()
    found.close()
