"""IndexDeployment: which version of a dataset must serve, and on which vector database."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from pointsman.api import base, engines
from pointsman.api.conditions import Condition
from pointsman.api.dataset import Progress

MOST_INDEXES = 64
"""How many indexes a status lists."""


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


class Retire(base.Model):
    """What becomes of an index that no longer serves."""

    after: base.Duration = "336h"
    """How long it is kept complete and current after it last served."""


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


class Step(StrEnum):
    """The steps on the road to the version that must serve."""

    EMBED = "Embed"
    """The version is being embedded."""
    BUILD = "Build"
    """An index is being loaded."""
    VERIFY = "Verify"
    """An index is being compared with its snapshot, and repaired."""
    FOLLOW = "Follow"
    """An index is catching up."""
    RETIRE = "Retire"
    """An index whose time is over is being removed."""


class Effective(base.Fact):
    """What holds where the spec says nothing, beside what it says."""

    hnsw: engines.Hnsw | None = None
    """Parameters of the graph index, where the engine has one."""
    retire: Retire
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


class RouteStatus(base.Fact):
    """What the ConfigMap of direct clients says."""

    revision: int = 0
    """Counts the switches; it only grows."""
    index: str = ""
    """The collection or table that answers."""
    weight: int = 0
    """Its share of the queries, in percent."""


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
    target_version: str = ""
    """The version that must serve."""
    step: str = ""
    """The step under way to the target: Embed, Build, Verify, Follow or Retire; empty at rest."""
    weight: str = ""
    """The share of the queries by version."""
    rollback: RollbackStatus | None = None
    """Where a rollback would lead."""
    route: RouteStatus | None = None
    """What direct clients are told."""
    indexes: Annotated[list[IndexStatus], base.keyed("name"), Field(max_length=MOST_INDEXES)] = []
    """The indexes, by name: the serving one, what is retained, what is built, what is removed. At most the first 64."""
    history: Annotated[list[Promotion], Field(max_length=64)] = []
    """The switches that happened, the last ones."""
