"""The vector databases that a deployment may name, each with how it is reached and how its indexes are built."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pointsman.api import base

_ENGINES = ("qdrant", "milvus", "pgvector", "memory")
_ONE_ENGINE = "exactly one of qdrant, milvus, pgvector and memory is wanted"


class Hnsw(base.Model):
    """Parameters of the graph index. Editing one builds a new index beside the old."""

    m: Annotated[int, Field(ge=4, le=128)] = 16
    """Links of a node."""
    ef_construct: Annotated[int, Field(ge=8, le=2048)] = 128
    """Candidates looked at while building."""


class QdrantBackend(base.Model):
    """A Qdrant server."""

    url: base.URL
    """The REST address, such as `http://qdrant:6333`."""
    grpc_port: base.Port = 6334
    """The gRPC port of the same host, used for bulk loads."""
    api_key_ref: base.SecretKeyReference | None = None
    """The Secret key that holds the API key."""
    hnsw: Hnsw = Hnsw()
    """Parameters of the graph index."""


class MilvusBackend(base.Model):
    """A Milvus server, or a Milvus Lite one."""

    uri: base.URL
    """The address, such as `http://milvus:19530`."""
    database: Annotated[
        str,
        base.patterned(
            r"^[a-zA-Z_][a-zA-Z0-9_]*$", "must be letters, digits and underscores, and not begin with a digit"
        ),
        Field(min_length=1, max_length=64),
    ] = "default"
    """The database on that server."""
    token_ref: base.SecretKeyReference | None = None
    """The Secret key that holds the token."""
    hnsw: Hnsw = Hnsw()
    """Parameters of the graph index."""


class PgvectorBackend(base.Model):
    """A PostgreSQL server with the pgvector extension."""

    model_config = base.rules(
        base.rule(
            "!has(self.hnsw) || ((has(self.hnsw.m) ? self.hnsw.m : 16) <= 100 "
            "&& (has(self.hnsw.efConstruct) ? self.hnsw.efConstruct : 128) <= 1000 "
            "&& (has(self.hnsw.efConstruct) ? self.hnsw.efConstruct : 128) "
            ">= 2 * (has(self.hnsw.m) ? self.hnsw.m : 16))",
            "pgvector takes m up to 100, and efConstruct up to 1000 and at least twice m",
        )
    )

    host: base.Host
    """The server's host name."""
    port: base.Port = 5432
    """The server's port."""
    database: base.DatabaseName
    """The database's name."""
    schema_: Annotated[
        str,
        base.patterned(
            r"^[a-z_][a-z0-9_]*$", "must be lower-case letters, digits and underscores, and not begin with a digit"
        ),
        Field(alias="schema", min_length=1, max_length=63),
    ] = "public"
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

    model_config = base.rules(
        base.rule(" + ".join(f"(has(self.{engine}) ? 1 : 0)" for engine in _ENGINES) + " == 1", _ONE_ENGINE),
        base.rule(
            " && ".join(f"has(self.{engine}) == has(oldSelf.{engine})" for engine in _ENGINES),
            "the engine cannot be changed, since no rollback could lead back; "
            "declare another IndexDeployment of the dataset instead",
        ),
    )

    qdrant: QdrantBackend | None = None
    """A Qdrant server."""
    milvus: MilvusBackend | None = None
    """A Milvus server."""
    pgvector: PgvectorBackend | None = None
    """A PostgreSQL server with pgvector."""
    memory: MemoryBackend | None = None
    """The operator's own memory."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        base.check_one_of(self, _ENGINES, _ONE_ENGINE)
        return self

    @property
    def engine(self) -> str:
        """The name of the engine, which is the name of its field."""
        return next(engine for engine in _ENGINES if getattr(self, engine) is not None)
