"""EmbeddingDataset: where documents come from, and the versions they are embedded as."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pointsman.api import base
from pointsman.api import work as work_api
from pointsman.api.conditions import Condition
from pointsman.api.source import FieldName as FieldName
from pointsman.api.source import FilesSource as FilesSource
from pointsman.api.source import PostgresSource as PostgresSource
from pointsman.api.source import Source as Source

Prefix = Annotated[str, Field(max_length=512)]

_ONE_MODEL = "exactly one of wordllama and openai is wanted"
_OVERLAP = "overlapTokens must be at most half of maxTokens"


class Refresh(base.Model):
    """When a source is read again."""

    model_config = base.rules(
        base.rule("duration(self.every) >= duration('10s')", "every must be 10s or more; to read at once, ask for it")
    )

    every: base.Duration
    """The time between two reads; 10 seconds or more."""


class Endpoint(base.Model):
    """How to reach a model. Editable: it is not part of what the model computes."""

    name: base.VersionName
    """What versions call it."""
    base_url: Annotated[base.URL, Field(alias="baseURL")]
    """The URL before `/embeddings`, such as `https://api.example.com/v1`."""
    api_key_ref: base.SecretKeyReference | None = None
    """The Secret key that holds the bearer token."""


class WordllamaModel(base.Model):
    """The embedded model: static word vectors, no endpoint to reach."""

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

    model_config = base.rules(base.rule("has(self.wordllama) != has(self.openai)", _ONE_MODEL))

    wordllama: WordllamaModel | None = None
    """The embedded model."""
    openai: OpenAIModel | None = None
    """A model behind an OpenAI-compatible endpoint."""
    query_prefix: Prefix = ""
    """Put before every query."""
    document_prefix: Prefix = ""
    """Put before every text of a document."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        base.check_one_of(self, ("wordllama", "openai"), _ONE_MODEL)
        return self


class Text(base.Model):
    """Which fields become the text, and which travel along."""

    template: Annotated[str, Field(min_length=1, max_length=2048)] = "{text}"
    """The document's text, with `{field}` for a field's value; a missing field is empty."""
    metadata_fields: Annotated[list[FieldName], base.distinct(), Field(max_length=32)] = []
    """Fields that are stored beside each vector and can be filtered on."""


class Chunking(base.Model):
    """How a text is cut."""

    model_config = base.rules(
        base.rule(
            "!has(self.overlapTokens) || 2 * self.overlapTokens <= (has(self.maxTokens) ? self.maxTokens : 256)",
            _OVERLAP,
        )
    )

    max_tokens: Annotated[int, Field(ge=8, le=32768)] = 256
    """The most tokens of a chunk, in the chunker's own count of words and marks."""
    overlap_tokens: Annotated[int, Field(ge=0, le=16384)] = 0
    """The tokens that two neighbouring chunks share; at most half of `maxTokens`."""

    @model_validator(mode="after")
    def _overlaps_by_half_at_most(self) -> Self:
        if 2 * self.overlap_tokens > self.max_tokens:
            raise ValueError(_OVERLAP)
        return self


class Version(base.Model):
    """A named recipe. Once admitted it is never edited; a new recipe is a new name."""

    model_config = base.rules(
        base.rule(
            "self == oldSelf",
            "a version cannot be changed, since its name means one recipe for ever; "
            "add a version under another name instead",
        )
    )

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
    deleted_share_above: Annotated[
        str,
        base.patterned(r"^(0([.][0-9]{1,4})?|1([.]0{1,4})?)$", 'must be a share between "0" and "1", such as "0.2"'),
        Field(min_length=1, max_length=6),
    ] = "0.2"
    """The share of deleted documents above which a snapshot is held; `1` lets all through."""


class Retention(base.Model):
    """Which old snapshots are kept. What a deployment refers to is kept anyway."""

    snapshots: Annotated[int, Field(ge=1, le=1000)] = 10
    """How many of the newest are kept."""
    for_: Annotated[base.Duration, Field(alias="for")] = "336h"
    """How long each is kept at least."""


class Spec(base.Model):
    """What a user declares of a dataset."""

    model_config = base.rules(
        base.rule(
            "self.versions.all(v, !has(v.model.openai) || (has(self.endpoints) && "
            "self.endpoints.exists(e, e.name == v.model.openai.endpoint)))",
            "every endpoint that a version names must stand in spec.endpoints",
        ),
        base.rule(
            "has(self.store) == has(oldSelf.store)",
            "a store cannot be added or taken away, since its content would be left behind; "
            "declare another EmbeddingDataset",
        ),
    )

    source: Source
    """Where the documents come from."""
    refresh: Refresh | None = None
    """When the source is read again; without it, only when asked."""
    endpoints: Annotated[list[Endpoint], base.keyed("name"), Field(max_length=16)] = []
    """How models are reached."""
    versions: Annotated[list[Version], base.keyed("name"), Field(min_length=1, max_length=32)]
    """The versions, by name."""
    surprises: Surprises = Surprises()
    """Which changes of the source are held."""
    retention: Retention = Retention()
    """Which old snapshots are kept."""
    store: work_api.Store | None = None
    """Where documents and vectors are kept; without it, in the operator's own store."""
    work: work_api.Work = work_api.Work()
    """Where embedding is done."""
    suspend: bool = False
    """Whether to stop reading and embedding. What is there stays."""
    deletion_policy: Literal["Delete", "Orphan"] = "Delete"
    """What becomes of the stored corpus and vectors when the dataset is deleted."""


class Cause(StrEnum):
    """Why a document's rows differ between two snapshots or versions."""

    ADDED = "added"
    """The document was not there before."""
    DELETED = "deleted"
    """The document is there no more."""
    EDITED = "edited"
    """Its text is another one."""
    METADATA_ONLY = "metadataOnly"
    """Its text is the same, its metadata are not."""
    RECHUNKED = "rechunked"
    """Its text is the same and cut differently."""
    RE_EMBEDDED = "reEmbedded"
    """Its chunks are the same and embedded in another space."""
    UNCHANGED = "unchanged"
    """Nothing differs."""


class Changes(base.Fact):
    """Documents by the cause of their change; each document counts once, at its strongest cause."""

    added: int = 0
    """Documents that were not there before."""
    deleted: int = 0
    """Documents that are there no more."""
    edited: int = 0
    """Documents whose text is another one."""
    metadata_only: int = 0
    """Documents of which nothing but the metadata differ."""
    rechunked: int = 0
    """Documents of the same text, cut differently."""
    re_embedded: int = 0
    """Documents of the same chunks, embedded in another space."""
    unchanged: int = 0
    """Documents of which nothing differs."""


class Effective(base.Fact):
    """What holds where the spec says nothing, beside what it says."""

    surprises: Surprises
    """Which changes of the source are held."""
    retention: Retention
    """Which old snapshots are kept."""
    deletion_policy: str
    """What becomes of the stored corpus and vectors when the dataset is deleted."""
    work: work_api.Work | None = None
    """How pods embed; nothing where no pods do."""


def effective(spec: Spec) -> Effective:
    """Return the settings of a dataset with every default filled in."""
    return Effective(
        surprises=spec.surprises,
        retention=spec.retention,
        deletion_policy=spec.deletion_policy,
        work=spec.work if spec.work.mode == "Job" else None,
    )


class Progress(base.Fact):
    """How far a piece of work has come."""

    done: int
    """Units finished."""
    total: int
    """Units in all; 0 while it is not known."""
    unit: Literal["documents", "texts", "rows", "queries"]
    """What is counted."""
    rate: Annotated[str, Field(max_length=32)] = ""
    """Units a second, over the last while."""
    remaining: Annotated[str, Field(max_length=32)] = ""
    """The time left at that rate."""


class ModelIdentity(base.Fact):
    """Which model really answered."""

    name: str
    """The model as its provider calls it."""
    revision: str
    """Its revision, or a digest of its weights."""
    dimensions: int
    """The length of its vectors."""


class Cost(base.Fact):
    """What a snapshot has cost where the model is paid by the token."""

    tokens: int
    """Tokens of the texts that were sent to the model for it."""
    estimated: int = 0
    """How many of them the endpoint has not stated: a third of a text's bytes stands for them, which is rather many."""


class VersionStatus(base.Fact):
    """How far one version has come."""

    name: str
    """The version's name."""
    recipe: str
    """The recipe that the name is pinned to, as a digest."""
    space: str
    """The space of its vectors, as a digest: only inside one space may scores be compared."""
    model: ModelIdentity | None = None
    """Which model really answered."""
    snapshot: int = 0
    """The newest snapshot that is embedded; 0 before the first."""
    documents: int = 0
    """Documents of that snapshot."""
    chunks: int = 0
    """Chunks of that snapshot: the rows of an index."""
    digest: str = ""
    """What an index of that snapshot must hold, as a digest."""
    embedded: int = 0
    """Texts that were embedded for that snapshot."""
    reused: int = 0
    """Chunks whose vectors were stored already."""
    cost: Cost | None = None
    """What that snapshot has cost; none where the model has no price, or was not needed."""
    changes: Changes | None = None
    """Documents by what changed since the embedded snapshot before."""
    progress: Progress | None = None
    """How far the embedding under way has come."""


class DatasetStatus(base.Fact):
    """What is true of a dataset."""

    observed_generation: int = 0
    """The generation of the spec that this status is about."""
    conditions: Annotated[list[Condition], base.keyed("type"), Field(max_length=16)] = []
    """What holds, with reasons."""
    phase: str = ""
    """What is going on, in a word for people; nothing is decided by it."""
    effective: Effective | None = None
    """The settings in force, with every default filled in."""
    snapshot: int = 0
    """The newest snapshot; 0 before the first."""
    documents: int = 0
    """Documents of that snapshot."""
    digest: str = ""
    """The content of that snapshot, as a digest."""
    refreshed_at: datetime | None = None
    """When the source was last read to its end."""
    refresh_handled: str = ""
    """Which request the last refresh answered: the source's digest, what was asked for, and why."""
    last_handled_refresh: str = ""
    """The refresh annotation that was last answered."""
    last_refused_refresh: str = ""
    """The refresh annotation for which the source was last read and refused."""
    progress: Progress | None = None
    """How far the reading under way has come."""
    jobs: Annotated[list[str], base.distinct(), Field(max_length=64)] = []
    """The Kubernetes Jobs that embed now."""
    versions: Annotated[list[VersionStatus], base.keyed("name"), Field(max_length=64)] = []
    """The versions, by name."""
