"""IndexDeployment: which version of a dataset must serve, and on which vector database."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from pointsman.api import base, engines, evidence, routes, steps
from pointsman.api.conditions import Condition
from pointsman.api.dataset import Progress


class Publish(base.Model):
    """How clients that search the database themselves find the serving index."""

    alias: (
        Annotated[
            str,
            base.patterned(
                r"^[a-zA-Z_][a-zA-Z0-9_]*$", "must be letters, digits and underscores, and not begin with a digit"
            ),
            Field(min_length=1, max_length=63),
        ]
        | None
    ) = None
    """A bare alias that moves with every switch. A client that embeds with the old model would not notice: prefer the
    ConfigMap, which names collection and model together."""


class Check(base.Model):
    """How often the serving index is compared with its snapshot."""

    model_config = base.rules(
        base.rule("duration(self.every) >= duration('1m')", "every must be 1m or more, since a comparison reads it all")
    )

    every: base.Duration = "1h"
    """The time between two comparisons."""


class Spec(base.Model):
    """What a user declares of a deployment."""

    dataset_ref: Annotated[
        base.Reference,
        base.ruled(
            base.rule(
                "self == oldSelf",
                "datasetRef cannot be changed, since no rollback could lead back; "
                "declare another IndexDeployment for the other dataset instead",
            )
        ),
    ]
    """The dataset. Never changes."""
    version: base.VersionName
    """The version that must serve: the one line that a promotion or a rollback changes."""
    snapshot: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Pins the content to a snapshot; without it the index follows new snapshots."""
    backend: engines.Backend
    """The vector database."""
    publish: Publish = Publish()
    """How direct clients find the serving index."""
    strategy: steps.Strategy = steps.Strategy()
    """How queries move to a new version."""
    gates: steps.Gates = steps.Gates()
    """What must hold all the way."""
    burn_in: steps.BurnIn = steps.BurnIn()
    """How long a promoted version is watched."""
    retire: steps.Retire = steps.Retire()
    """What becomes of an index that no longer serves."""
    check: Check = Check()
    """How often the serving index is compared with its snapshot."""
    max_lag: base.Duration = "5s"
    """How far behind the dataset an index may be and still take over from a more current one."""
    suspend: bool = False
    """Whether to freeze forward motion. Never freezes a rollback."""
    retry: Annotated[str, Field(max_length=63)] = ""
    """A new value tries a rejected version again."""
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


class Stage(StrEnum):
    """The stages on the road to the version that must serve."""

    EMBED = "Embed"
    """The version is being embedded."""
    BUILD = "Build"
    """An index is being loaded."""
    VERIFY = "Verify"
    """An index is being compared with its snapshot, and repaired."""
    FOLLOW = "Follow"
    """An index is catching up."""
    GATES = "Gates"
    """Nothing is shifted before the gates have passed."""
    SHADOW = "Shadow"
    """Queries also go to the candidate, whose answers are thrown away."""
    WEIGHT = "Weight"
    """Queries are being shifted."""
    PAUSE = "Pause"
    """A wait that the steps ask for."""
    APPROVAL = "Approval"
    """A wait for a person."""
    BURN_IN = "BurnIn"
    """The promoted version is being watched."""
    RETIRE = "Retire"
    """An index whose time is over is being removed."""


class Verdict(StrEnum):
    """What a gate says."""

    PASSED = "Passed"
    """What it claims is true."""
    FAILED = "Failed"
    """What it claims is false."""
    INCONCLUSIVE = "Inconclusive"
    """It cannot tell: too little was seen."""
    ERROR = "Error"
    """It could not be measured."""


class Effective(base.Fact):
    """What holds where the spec says nothing, beside what it says."""

    hnsw: engines.Hnsw | None = None
    """Parameters of the graph index, where the engine has one."""
    strategy: steps.Strategy
    """How queries move to a new version."""
    burn_in: steps.BurnIn
    """How long a promoted version is watched."""
    retire: steps.Retire
    """What becomes of an index that no longer serves."""
    check: Check
    """How often the serving index is compared with its snapshot."""
    max_lag: str
    """How far behind an index may be and still take over."""
    deletion_policy: str
    """What becomes of the indexes when the deployment is deleted."""


def effective(spec: Spec) -> Effective:
    """Return the settings of a deployment with every default filled in."""
    database = getattr(spec.backend, spec.backend.engine)
    return Effective(
        hnsw=getattr(database, "hnsw", None),
        strategy=spec.strategy,
        burn_in=spec.burn_in,
        retire=spec.retire,
        check=spec.check,
        max_lag=spec.max_lag,
        deletion_policy=spec.deletion_policy,
    )


class CursorStatus(base.Fact):
    """How far an index has come."""

    snapshot: int
    """The last snapshot that it holds whole."""
    sequence: int
    """The last entry of the change log that it holds."""


class Weight(base.Fact):
    """A share of the queries, in percent: what is wanted, what every gateway serves, what was answered."""

    desired: int = 0
    """What the route says."""
    accepted: int | None = None
    """What all gateways that are ready serve; None where they serve different routes, or none is known."""
    measured: int | None = None
    """The share of the queries that it answered since the gateways serve the route; None where there were none."""


class IndexStatus(base.Fact):
    """One index of a deployment."""

    name: str
    """The collection or table."""
    version: str
    """The version that it was built for."""
    recipe: str
    """The recipe of its content, as a digest."""
    role: Role
    """What it is to the deployment."""
    frozen: bool = False
    """Whether it follows nothing, because the spec pins a snapshot."""
    cursor: CursorStatus | None = None
    """How far it has come."""
    rows: int = 0
    """Points that it should hold."""
    digest: str = ""
    """What it should hold, as a digest."""
    verified_at: datetime | None = None
    """When a full scan first proved that it holds that."""
    checked_at: datetime | None = None
    """When a scan last proved it."""
    progress: Progress | None = None
    """How far the loading under way has come."""
    weight: Weight | None = None
    """Its share of the queries; None for an index that is not on the route."""


class RollbackStatus(base.Fact):
    """Where a rollback would lead and when it would be there."""

    ready: bool
    """Whether one switch would do."""
    to: str = ""
    """The version that it would lead to."""
    estimate: str = ""
    """How long it would take."""
    until: datetime | None = None
    """When the index is retired."""


class StepStatus(base.Fact):
    """The stage under way, on the road to the target."""

    name: str
    """Embed, Build, Verify, Follow, Gates, Shadow, Weight, Pause, Approval, BurnIn or Retire."""
    index: int | None = None
    """Which of the spec's steps, counted from 1."""
    of: int | None = None
    """How many steps the spec has."""
    hash: str = ""
    """The steps, as a digest."""
    started_at: datetime | None = None
    """When it began."""
    deadline: datetime | None = None
    """When it is given up."""
    until: datetime | None = None
    """When it is over by itself."""
    waiting_for: str = ""
    """What it waits for, as a clause."""
    estimate: str = ""
    """How long the way to all queries takes at least, as a sum."""


class GateStatus(base.Fact):
    """What a gate said last."""

    name: str
    """The gate, as an Approval answers it: parity, model, evaluation, canaries, shadow, errors, empty or latency."""
    verdict: Verdict
    """What it says."""
    version: str = ""
    """The version that it is about."""
    value: str = ""
    """What was measured."""
    wanted: str = ""
    """What was wanted."""
    interval: str = ""
    """Between what and what the true value is, 95 times of 100."""
    samples: int = 0
    """Over how many queries, groups or rows."""
    measured_at: datetime | None = None
    """When."""
    message: str = ""
    """All of it, as a clause."""


class WriterStatus(base.Fact):
    """Which operator wrote this."""

    holder: str = ""
    """Its name in the lease."""
    epoch: int = 0
    """Counts the operators; it only grows."""


class Promotion(base.Fact):
    """One switch that happened."""

    version: str
    """The version that serves since."""
    index: str
    """Its collection or table."""
    snapshot: int
    """The snapshot that it held then."""
    at: datetime
    """When it happened."""


class DeploymentStatus(base.Fact):
    """What is true of a deployment."""

    observed_generation: int = 0
    """The generation of the spec that this status is about."""
    conditions: Annotated[list[Condition], base.keyed("type"), Field(max_length=16)] = []
    """What holds, with reasons."""
    phase: str = ""
    """What is going on, in a word for people; nothing is decided by it."""
    effective: Effective | None = None
    """The settings in force, with every default filled in."""
    serving_version: str = ""
    """The version that answers."""
    serving_index: str = ""
    """Its collection or table."""
    target_version: str = ""
    """The version that must serve."""
    step: StepStatus | None = None
    """The stage under way to the target; none at rest."""
    weight: str = ""
    """The share of the queries by version."""
    rollback: RollbackStatus | None = None
    """Where a rollback would lead."""
    route: routes.RouteStatus | None = None
    """What gateways serve."""
    gates: Annotated[list[GateStatus], base.keyed("name"), Field(max_length=16)] = []
    """What the gates said last."""
    rejected: Annotated[list[evidence.RejectedStatus], base.atomic(), Field(max_length=16)] = []
    """The versions that were tried and refused, the last ones."""
    evaluations: Annotated[list[evidence.EvaluationStatus], base.atomic(), Field(max_length=10)] = []
    """The last evaluations, the newest last."""
    canaries: Annotated[list[evidence.CanariesStatus], base.atomic(), Field(max_length=10)] = []
    """What the canaries found the last times, the newest last."""
    evaluation_handled: str = ""
    """The last request of `pointsman evaluate` that was answered."""
    shadow: evidence.ShadowStatus | None = None
    """How the answers of an index that is asked beside compare, of a migration until it is over."""
    drill: evidence.DrillStatus | None = None
    """The last practice of going back."""
    plan_hash: str = ""
    """What an Approval must name: from where, to what, by which steps and gates."""
    writer: WriterStatus | None = None
    """Which operator wrote this."""
    jobs: Annotated[list[str], base.distinct(), Field(max_length=64)] = []
    """The Kubernetes Jobs that load its indexes now."""
    indexes: Annotated[list[IndexStatus], base.keyed("name"), Field(max_length=routes.MOST_INDEXES)] = []
    """The indexes, by name: the serving one, what is retained, what is built, what is removed. At most the first 64."""
    history: Annotated[list[Promotion], Field(max_length=64)] = []
    """The switches that happened, the last ones."""
