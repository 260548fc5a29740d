"""What was seen, as frozen values: the whole input of a plan but the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from pointsman.api import approval as approval_api
from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api import queryset as queryset_api
from pointsman.api.conditions import Reason
from pointsman.core.recipes import Recipe
from pointsman.plan import measured
from pointsman.plan.actions import Action
from pointsman.plan.facts import Facts, IndexRecord, QuerySetRecord
from pointsman.plan.reported import Day, Gateway
from pointsman.plan.tallies import Scores
from pointsman.plan.tasks import Key, Work


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that observing itself ran into: a clause for people, and whether only an edit can mend it."""

    reason: Reason
    message: str
    is_terminal: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the corpus."""

    number: int
    sequence: int
    documents: int
    digest: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Embedded:
    """An embedded snapshot: `v8@12`."""

    snapshot: int
    sequence: int
    documents: int
    rows: int
    digest: str
    embedded: int = 0
    reused: int = 0
    tokens: int = 0
    tokens_stated: int = 0
    """How many of the tokens the endpoint itself has stated; the others are estimated."""
    changes: Mapping[str, int] = field(default_factory=dict)
    model: str = ""
    revision: str = ""
    at: datetime | None = None
    """When it was embedded, and its model found to be that of the first day."""


@dataclass(frozen=True, slots=True)
class User:
    """A deployment that relies on a dataset: the recipes and snapshots that must stay."""

    name: str
    versions: tuple[str, ...]
    """Versions to keep embedded, the most urgent first: the target's, the serving one's, the retained ones'."""
    needs: tuple[str, ...]
    """Those of them that serve or must serve."""
    recipes: tuple[str, ...]
    snapshots: tuple[int, ...]
    pinned: tuple[tuple[str, int], ...] = ()
    """(recipe, snapshot) pairs that a pinned deployment wants embedded."""
    is_unlisted: bool = False
    """Whether its Jobs could not be looked at, and may be loading a snapshot that is not among these."""


@dataclass(frozen=True, slots=True)
class PodJob:
    """A Kubernetes Job that embeds a snapshot, or loads it into an index."""

    name: str
    recipe: str
    snapshot: int
    is_ended: bool
    going_since: datetime | None = None
    """Since when it is being deleted; None where it is not."""
    index: str = ""
    """The index that it loads; empty for one that embeds."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """All that is known of an EmbeddingDataset."""

    key: Key
    uid: str
    generation: int
    spec: dataset_api.Spec
    status: dataset_api.DatasetStatus
    has_finalizer: bool
    deleting_since: datetime | None
    refresh_token: str
    """What `pointsman refresh` last asked for."""
    source_digest: str
    """A digest of `spec.source`, so that an edit of it is a reason to read again."""
    snapshots: tuple[Snapshot, ...]
    pins: Mapping[str, Recipe]
    recipes: Mapping[str, Recipe | Problem]
    """What each declared version means to this release."""
    embedded: Mapping[str, tuple[Embedded, ...]]
    """By recipe, ascending."""
    users: tuple[User, ...]
    work: tuple[Work, ...]
    deadline: timedelta
    """How long a finalizer may wait."""
    jobs: tuple[PodJob, ...] = ()
    """The Kubernetes Jobs that were made for it and are there."""


class Presence(StrEnum):
    """Whether an index was found in its database."""

    PRESENT = "Present"
    ABSENT = "Absent"
    FOREIGN = "Foreign"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Physical:
    """What probing an index found in this run."""

    presence: Presence
    rows: int | None = None
    """None where they were not counted: while the index is being written, and where an edit is acted on."""
    problem: Problem | None = None
    """What kept it from being looked at."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A loading by pods that has come somewhere, and may be gone on with: at one snapshot, for ever."""

    snapshot: int
    fruitless: int = 0
    """How many attempts in a row finished nothing, for reasons that lie in what is loaded."""


@dataclass(frozen=True, slots=True)
class DatasetView:
    """What a deployment needs to know of its dataset; it comes from the store, so it outlives the resource."""

    exists: bool
    """Whether the EmbeddingDataset is there and not being deleted."""
    declared: tuple[str, ...]
    pins: Mapping[str, Recipe]
    snapshots: tuple[Snapshot, ...]
    embedded: Mapping[str, tuple[Embedded, ...]]
    progress: str = ""
    """What the dataset is doing, as a clause for people."""
    stalled: str = ""
    """Why the dataset cannot go on, as a clause for people."""
    problem: Problem | None = None
    """What keeps its store from being looked at: pins, snapshots and what is embedded are then as last known."""
    is_for_pods: bool = False
    """Whether pods are to load its new indexes."""
    generation: int = 0
    """The generation of its spec; 0 where it is gone."""
    begun: Mapping[str, Begun] = field(default_factory=dict)
    """What the pods' ledger says of indexes that were never complete, by their names."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's decision about a deployment."""

    name: str
    uid: str
    spec: approval_api.Spec
    created_at: datetime


@dataclass(frozen=True, slots=True)
class QueriesView:
    """What a deployment needs to know of a query set that its gates name."""

    exists: bool
    record: QuerySetRecord | None = None
    problem: str = ""
    """Why it is not usable, as a clause."""
    every: str = ""
    """How often its schedule asks for its queries to be asked; empty where it does not."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """All that is known of an IndexDeployment."""

    key: Key
    uid: str
    generation: int
    spec: deployment_api.Spec
    status: deployment_api.DeploymentStatus
    has_finalizer: bool
    deleting_since: datetime | None
    dataset: DatasetView
    facts: Facts
    revision: int
    """The revision of the facts; 0 where there are none."""
    records: Mapping[str, IndexRecord]
    physical: Mapping[str, Physical]
    engine: str
    address: str
    parameters: str
    """A digest of the index parameters that the spec asks for."""
    published: Mapping[str, str] | None
    """The ConfigMap that direct clients read."""
    work: tuple[Work, ...]
    deadline: timedelta
    jobs: tuple[PodJob, ...] = ()
    """The Kubernetes Jobs that were made for it and are there; unknown, and none, where no index is being loaded."""
    unlisted: Problem | None = None
    """What kept those Jobs from being looked at: none is known then, and there may be some."""
    problem: Problem | None = None
    """What kept every index from being looked at."""
    approvals: tuple[Approval, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    """Every gateway that there is, whether or not it answers."""
    drill_token: str = ""
    """What `pointsman drill` last asked for."""
    evaluate_token: str = ""
    """What `pointsman evaluate` last asked for."""
    query_sets: Mapping[str, QueriesView] = field(default_factory=dict)
    """Those that the gates name."""
    evaluation: measured.Evaluation | None = None
    stable: measured.Evaluation | None = None
    canaries: measured.Canaries | None = None
    probes: Mapping[str, measured.Probe] = field(default_factory=dict)
    """What came of asking an index and its model a few fixed questions, by index."""
    streams: measured.Streams = field(default_factory=measured.Streams)
    """What live queries have shown, as of the last minute that was written down."""
    streams_revision: int = 0
    """The revision of that; 0 where there is none."""
    days: Mapping[str, tuple[Day, ...]] = field(default_factory=dict)
    """What each process of a gateway tells, or told before it ended, of the scores of its last days."""
    scores: Scores = field(default_factory=Scores)
    """What was written down of the scores."""
    scores_revision: int = 0
    """The revision of that; 0 where there is none."""
    taken_over: datetime | None = None
    """When the Lease was last taken from an operator that had not given it back; None where it never was."""
    made_at: datetime | None = None
    """When it was created."""
    started: datetime | None = None
    """When the operator that looks began to: before, nobody looked."""
    epoch: int = 0
    """Of the operator that looks."""
    holder: str = ""
    """Its name."""

    @property
    def edits(self) -> int:
        """Counts the edits of it and of its dataset, as work is done by both: after one no failure is waited out."""
        return self.generation + self.dataset.generation


@dataclass(frozen=True, slots=True)
class QuerySet:
    """All that is known of a QuerySet."""

    key: Key
    generation: int
    spec: queryset_api.Spec
    status: queryset_api.QuerySetStatus
    source_digest: str
    """A digest of what the spec reads, so that an edit of it is a reason to read again."""
    record: QuerySetRecord | None
    """What was found when it was read last."""
    work: tuple[Work, ...]


@dataclass(frozen=True, slots=True)
class Lag:
    """What the index of a version lacks of what its dataset holds; nothing where `has` is `newest`."""

    has: int
    """The snapshot that it holds whole."""
    newest: int
    """The newest snapshot that there is."""
    changes: Mapping[str, int] = field(default_factory=dict)
    """Documents that the missing snapshots changed, by cause; one that changed twice counts twice."""
    counted: int = 0
    """Up to which snapshot that is counted: what is not embedded by any version is not counted yet."""


@dataclass(frozen=True, slots=True)
class Decision:
    """All that is known of an Approval."""

    key: Key
    uid: str
    generation: int
    spec: approval_api.Spec
    status: approval_api.ApprovalStatus
    deployment: deployment_api.Spec | None
    """The deployment that it is about; None where there is none."""
    plan: str
    """That one's plan, as its status says it."""
    used: tuple[str, ...]
    """The UIDs of the Approvals that have let something of it pass."""
    created_at: datetime
    asked_since: datetime | None = None
    """Since when the deployment asks what it asks; None where there is none."""
    lag: Lag | None = None
    """Of an AcceptLag: what its version lacks; None where that has no index that could take over, or nobody knows."""


Status = TypeVar(
    "Status",
    dataset_api.DatasetStatus,
    deployment_api.DeploymentStatus,
    queryset_api.QuerySetStatus,
    approval_api.ApprovalStatus,
)


@dataclass(frozen=True, slots=True)
class Plan(Generic[Status]):
    """What to do, what to say, and when to look again."""

    actions: tuple[Action, ...]
    status: Status
    look_again: timedelta
