"""EmbeddingDataset: where documents come from, and the versions they are embedded as."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from pointsman.api import base
from pointsman.api.conditions import Condition

FieldName = Annotated[str, Field(min_length=1, max_length=128)]
Prefix = Annotated[str, Field(max_length=512)]
Host = Annotated[str, Field(min_length=1, max_length=253)]


class FilesSource(base.Model):
    """Files that hold one document a row, read through fsspec."""

    uri: Annotated[str, Field(pattern=r"^(file|s3)://.+", min_length=8, max_length=1024)]
    """Where the files are: `file:///…` or `s3://…`; `*` matches within one folder."""
    format: Literal["jsonl", "parquet", "csv"]
    """How the files are written. CSV needs a header line."""
    credentials_ref: base.SecretReference | None = None
    """A Secret with `accessKeyID`, `secretAccessKey` and, where wanted, `endpoint`, `region` and `sessionToken`."""


class PostgresSource(base.Model):
    """A query against PostgreSQL, read with a server-side cursor in one read-only transaction."""

    host: Host
    """The server's host name."""
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    """The server's port."""
    database: Annotated[str, Field(min_length=1, max_length=63)]
    """The database's name."""
    query: Annotated[str, Field(min_length=1, max_length=8192)]
    """A SELECT whose columns are the document's fields."""
    credentials_ref: base.SecretReference
    """A Secret with `username` and `password`."""
    tls: Literal["Require", "VerifyFull", "Disable"] = "VerifyFull"
    """How much of the server's certificate is checked."""


class Source(base.Model):
    """Exactly one kind of source. Its kind and `idField` never change."""

    files: FilesSource | None = None
    """Files of JSON Lines, Parquet or CSV."""
    postgres: PostgresSource | None = None
    """A query against PostgreSQL."""
    id_field: FieldName
    """The field that identifies a document; unique and not empty."""


class Refresh(base.Model):
    """When the source is read again."""

    every: base.Duration
    """The time between two reads; 10 seconds or more."""


class Endpoint(base.Model):
    """How to reach a model. Editable: it is not part of what the model computes."""

    name: base.VersionName
    """What versions call it."""
    base_url: Annotated[str, Field(alias="baseURL", pattern=r"^https?://.+", max_length=1024)]
    """The URL before `/embeddings`, such as `https://api.example.com/v1`."""
    api_key_ref: base.SecretKeyReference | None = None
    """The Secret key that holds the bearer token."""


class WordllamaModel(base.Model):
    """The embedded model: static word vectors, no endpoint, thousands of texts a second."""

    dimensions: Literal[64, 128, 256] = 256
    """How many of the model's dimensions are kept."""


class OpenAIModel(base.Model):
    """A model behind any endpoint that speaks OpenAI's embeddings API."""

    endpoint: base.VersionName
    """The endpoint's name in `spec.endpoints`."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """The model's name as the endpoint knows it."""
    revision: Annotated[str, Field(max_length=128)] = ""
    """The model's revision, where its server states one elsewhere."""
    dimensions: Annotated[int, Field(ge=1, le=16384)]
    """The length of its vectors; an answer of any other length is refused."""
    send_dimensions: bool = False
    """Whether to ask the endpoint for `dimensions`: models that can be cut short need it, others refuse it."""


class ModelChoice(base.Model):
    """Exactly one model, with the prefixes that it wants on either side."""

    wordllama: WordllamaModel | None = None
    """The embedded model."""
    openai: OpenAIModel | None = None
    """A model behind an OpenAI-compatible endpoint."""
    query_prefix: Prefix = ""
    """Put before every query."""
    document_prefix: Prefix = ""
    """Put before every text of a document."""


class Text(base.Model):
    """Which fields become the text, and which travel along."""

    template: Annotated[str, Field(min_length=1, max_length=2048)] = "{text}"
    """The document's text, with `{field}` for a field's value; a missing field is empty."""
    metadata_fields: Annotated[list[FieldName], Field(max_length=32)] = []
    """Fields that are stored beside each vector and can be filtered on."""


class Chunking(base.Model):
    """How a text is cut."""

    max_tokens: Annotated[int, Field(ge=8, le=32768)] = 256
    """The most tokens of a chunk, in the chunker's own count of words and marks."""
    overlap_tokens: Annotated[int, Field(ge=0, le=16384)] = 0
    """The tokens that two neighbouring chunks share; less than `maxTokens`."""


class Version(base.Model):
    """A named recipe. Once admitted it is never edited; a new recipe is a new name."""

    name: base.VersionName
    """The version's name, one recipe for ever."""
    model: ModelChoice
    """What embeds it."""
    text: Text = Text()
    """What is embedded."""
    chunking: Chunking = Chunking()
    """How it is cut."""


class Surprises(base.Model):
    """Which changes of the source are held until a person has looked."""

    everything_updated: Literal["Hold", "Allow"] = "Hold"
    """What to do when every document that was there has changed at once."""
    deleted_share_above: Annotated[str, Field(pattern=r"^(0(\.[0-9]{1,4})?|1(\.0{1,4})?)$", max_length=6)] = "0.2"
    """The share of deleted documents above which a snapshot is held; `1` lets all through."""


class Retention(base.Model):
    """Which old snapshots are kept. What a deployment refers to is kept anyway."""

    snapshots: Annotated[int, Field(ge=1, le=1000)] = 10
    """How many of the newest are kept."""
    for_: Annotated[base.Duration, Field(alias="for")] = "336h"
    """How long each is kept at least."""


class Spec(base.Model):
    """What a user declares of a dataset."""

    source: Source
    """Where the documents come from."""
    refresh: Refresh | None = None
    """When the source is read again; without it, only when asked."""
    endpoints: Annotated[list[Endpoint], Field(max_length=16)] = []
    """How models are reached."""
    versions: Annotated[list[Version], Field(min_length=1, max_length=32)]
    """The versions, by name."""
    surprises: Surprises = Surprises()
    """Which changes of the source are held."""
    retention: Retention = Retention()
    """Which old snapshots are kept."""
    suspend: bool = False
    """Whether to stop reading and embedding. What is there stays."""
    deletion_policy: Literal["Delete", "Orphan"] = "Delete"
    """What becomes of the stored corpus and vectors when the dataset is deleted."""


class Cause(StrEnum):
    """Why a document's rows differ between two snapshots or versions."""

    ADDED = "added"
    DELETED = "deleted"
    EDITED = "edited"
    METADATA_ONLY = "metadataOnly"
    RECHUNKED = "rechunked"
    RE_EMBEDDED = "reEmbedded"
    UNCHANGED = "unchanged"


class Changes(base.Model):
    """Documents by the cause of their change; each document counts once, at its strongest cause."""

    added: int = 0
    deleted: int = 0
    edited: int = 0
    metadata_only: int = 0
    rechunked: int = 0
    re_embedded: int = 0
    unchanged: int = 0


class Progress(base.Model):
    """How far a piece of work has come."""

    done: int
    """Units finished."""
    total: int
    """Units in all; 0 while it is not known."""
    unit: Literal["documents", "texts", "rows"]
    """What is counted."""
    rate: Annotated[str, Field(max_length=32)] = ""
    """Units a second, over the last while."""
    remaining: Annotated[str, Field(max_length=32)] = ""
    """The time left at that rate."""


class ModelIdentity(base.Model):
    """Which model really answered."""

    name: str
    revision: str
    dimensions: int


class VersionStatus(base.Model):
    """How far one version has come."""

    name: str
    recipe: str
    space: str
    model: ModelIdentity | None = None
    snapshot: int = 0
    documents: int = 0
    chunks: int = 0
    digest: str = ""
    embedded: int = 0
    reused: int = 0
    changes: Changes | None = None
    progress: Progress | None = None


class DatasetStatus(base.Model):
    """What is true of a dataset."""

    observed_generation: int = 0
    conditions: list[Condition] = []
    phase: str = ""
    snapshot: int = 0
    documents: int = 0
    digest: str = ""
    refreshed_at: datetime | None = None
    refresh_handled: str = ""
    """Which request the last refresh answered: the source's digest, what was asked for, and why."""
    last_handled_refresh: str = ""
    """The refresh annotation that was last answered."""
    progress: Progress | None = None
    versions: list[VersionStatus] = []
