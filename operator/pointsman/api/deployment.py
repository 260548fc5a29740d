"""IndexDeployment: which version of a dataset must serve, and on which vector database."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from pointsman.api import base
from pointsman.api.conditions import Condition
from pointsman.api.dataset import Host, Progress


class Hnsw(base.Model):
    """Parameters of the graph index. Editing one builds a new index beside the old."""

    m: Annotated[int, Field(ge=4, le=128)] = 16
    """Links of a node."""
    ef_construct: Annotated[int, Field(ge=8, le=2048)] = 128
    """Candidates looked at while building."""


class QdrantBackend(base.Model):
    """A Qdrant server."""

    url: Annotated[str, Field(pattern=r"^https?://.+", max_length=1024)]
    """The REST address, such as `http://qdrant:6333`."""
    grpc_port: Annotated[int, Field(ge=1, le=65535)] = 6334
    """The gRPC port of the same host, used for bulk loads."""
    api_key_ref: base.SecretKeyReference | None = None
    """The Secret key that holds the API key."""
    hnsw: Hnsw = Hnsw()
    """Parameters of the graph index."""


class MilvusBackend(base.Model):
    """A Milvus server, or a Milvus Lite one."""

    uri: Annotated[str, Field(pattern=r"^https?://.+", max_length=1024)]
    """The address, such as `http://milvus:19530`."""
    database: Annotated[str, Field(max_length=64)] = "default"
    """The database on that server."""
    token_ref: base.SecretKeyReference | None = None
    """The Secret key that holds the token."""
    hnsw: Hnsw = Hnsw()
    """Parameters of the graph index."""


class PgvectorBackend(base.Model):
    """A PostgreSQL server with the pgvector extension."""

    host: Host
    """The server's host name."""
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    """The server's port."""
    database: Annotated[str, Field(min_length=1, max_length=63)]
    """The database's name."""
    schema_: Annotated[str, Field(alias="schema", pattern=r"^[a-z_][a-z0-9_]*$", min_length=1, max_length=63)] = "public"
    """The schema that the tables are made in."""
    credentials_ref: base.SecretReference
    """A Secret with `username` and `password`."""
    tls: Literal["Require", "VerifyFull", "Disable"] = "VerifyFull"
    """How much of the server's certificate is checked."""
    hnsw: Hnsw = Hnsw()
    """Parameters of the graph index."""


class MemoryBackend(base.Model):
    """The in-memory database of the operator's own process, for tests and a first look; lost at every restart."""


class Backend(base.Model):
    """Exactly one vector database. The engine never changes."""

    qdrant: QdrantBackend | None = None
    """A Qdrant server."""
    milvus: MilvusBackend | None = None
    """A Milvus server."""
    pgvector: PgvectorBackend | None = None
    """A PostgreSQL server with pgvector."""
    memory: MemoryBackend | None = None
    """The operator's own memory."""


class Publish(base.Model):
    """How clients that search the database themselves find the serving index."""

    alias: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$", min_length=1, max_length=63)] | None = None
    """A bare alias that moves with every switch. A client that embeds with the old model would not notice: prefer the
    ConfigMap, which names collection and model together."""


class Retire(base.Model):
    """What becomes of an index that no longer serves."""

    after: base.Duration = "336h"
    """How long it is kept complete and current after it last served."""


class Check(base.Model):
    """How often the serving index is compared with its snapshot."""

    every: base.Duration = "1h"
    """The time between two comparisons."""


class Spec(base.Model):
    """What a user declares of a deployment."""

    dataset_ref: base.Reference
    """The dataset. Never changes."""
    version: base.VersionName
    """The version that must serve: the one line that a promotion or a rollback changes."""
    snapshot: Annotated[int, Field(ge=1)] | None = None
    """Pins the content to a snapshot; without it the index follows new snapshots."""
    backend: Backend
    """The vector database."""
    publish: Publish = Publish()
    """How direct clients find the serving index."""
    retire: Retire = Retire()
    """What becomes of an index that no longer serves."""
    check: Check = Check()
    """How often the serving index is compared with its snapshot."""
    max_lag: base.Duration = "5s"
    """How far behind the dataset an index may be and still take over from a more current one."""
    suspend: bool = False
    """Whether to freeze forward motion. Never freezes a rollback."""
    deletion_policy: Literal["Delete", "Orphan"] = "Delete"
    """What becomes of the indexes when the deployment is deleted."""


class Role(StrEnum):
    """What an index is to its deployment."""

    CANDIDATE = "Candidate"
    """Being built; has never served."""
    SERVING = "Serving"
    """Answers the queries."""
    RETAINED = "Retained"
    """Served before, is kept complete and current, and can serve again at once."""
    RETIRING = "Retiring"
    """Is being removed, for good."""


class CursorStatus(base.Model):
    """How far an index has come."""

    snapshot: int
    sequence: int


class IndexStatus(base.Model):
    """One index of a deployment."""

    name: str
    version: str
    recipe: str
    role: Role
    frozen: bool = False
    cursor: CursorStatus | None = None
    rows: int = 0
    digest: str = ""
    verified_at: datetime | None = None
    checked_at: datetime | None = None
    progress: Progress | None = None


class RollbackStatus(base.Model):
    """Where a rollback would lead and when it would be there."""

    ready: bool
    to: str = ""
    estimate: str = ""
    until: datetime | None = None


class RouteStatus(base.Model):
    """What the ConfigMap of direct clients says."""

    revision: int = 0
    index: str = ""
    weight: int = 0


class Promotion(base.Model):
    """One switch that happened."""

    version: str
    index: str
    snapshot: int
    at: datetime


class DeploymentStatus(base.Model):
    """What is true of a deployment."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    phase: str = ""
    serving_version: str = ""
    target_version: str = ""
    step: str = ""
    weight: str = ""
    rollback: RollbackStatus | None = None
    route: RouteStatus | None = None
    indexes: list[IndexStatus] = []
    history: list[Promotion] = []
