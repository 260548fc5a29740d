"""The databases that the operator is run on, each with what a direct client and the vendor's own client do there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contracts import backends_engines
from tests.contracts.backends_engines import Engine
from tests.integration.operator_process import Object, Stage
from tests.servers import milvus, postgres

from pointsman.core import names
from pointsman.embedders.wordllama import Wordllama

SECRET = "database"


@dataclass(frozen=True)
class Database:
    """A real server of one engine."""

    kind: str
    spec: dict[str, Any]
    engine: Engine = field(repr=False)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    def let_in(self, stage: Stage) -> None:
        """Create the Secret that the spec names, where it names one."""
        if self.credentials:
            stage.put_secret(SECRET, self.credentials, "127.0.0.1")

    def find(self, route: Mapping[str, str], query: str, limit: int = 1) -> dict[str, str]:
        """Return the best documents with their texts, as a direct client finds them who is told a route."""
        vector = Wordllama(int(route["dimensions"])).embed([route["queryPrefix"] + query])[0]
        hits = self.engine.backend.search(route["collection"], vector, limit, None)
        return {hit.document: hit.text for hit in hits}

    def count(self, collection: str) -> int:
        """Return how many points a collection holds."""
        return self.engine.backend.count(collection)

    def content(self, collection: str) -> list[tuple[bytes, ...]]:
        """Return point, content and metadata of all that a collection holds."""
        scanned = self.engine.backend.scan(collection)
        return sorted(tuple(row.values()) for batch in scanned for row in batch.to_pylist())

    def collections(self, stage: Stage, deployment: Object) -> list[str]:
        """Return the collections of a deployment, whether the operator knows of them or not."""
        meta = deployment["metadata"]
        return self.engine.names(names.physical_prefix(stage.namespace, meta["name"], meta["uid"]))


@contextlib.contextmanager
def milvus_lite(folder: Path) -> Iterator[Database]:
    """Start a Milvus Lite server."""
    with milvus.start_milvus(folder) as uri:
        engine = backends_engines.milvus_engine(uri)
        yield Database("milvus", {"milvus": {"uri": uri}}, engine)
        engine.backend.close()
        engine.close()


@contextlib.contextmanager
def pgvector(folder: Path) -> Iterator[Database]:
    """Start a PostgreSQL server with pgvector."""
    with postgres.start_postgres(folder) as server, pgvector_at(server) as found:
        yield found


@contextlib.contextmanager
def pgvector_at(server: postgres.Server) -> Iterator[Database]:
    """Open a PostgreSQL server that runs."""
    engine = backends_engines.pgvector_engine(server)
    secret = {"username": server.username, "password": server.password}
    yield Database("pgvector", pgvector_spec(server), engine, secret)
    engine.backend.close()
    engine.close()


def pgvector_spec(server: postgres.Server, **changes: Any) -> dict[str, Any]:
    """Return how a deployment names a server; `changes` go into its spec."""
    spec = backends_engines.pgvector_spec(server)
    return {"pgvector": {**spec.dump()["pgvector"], "credentialsRef": {"name": SECRET}, **changes}}
