"""Approval: a person's decision about one deployment, as an object."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pointsman.api import base
from pointsman.api.conditions import Condition

_ANSWERS = "answers must name a step or a gate where the decision is Approve or Reject, and nothing else may have it"
_PLANNED = "planHash is wanted where the decision is Approve: it counts for the plan that it names; see status.planHash"

Decision = Literal["Approve", "Reject", "Abort", "AcceptLag"]


class Target(base.Model):
    """The deployment that the decision is about."""

    kind: Annotated[Literal["IndexDeployment"], Field(json_schema_extra={"enum": ["IndexDeployment"]})] = (
        "IndexDeployment"
    )
    """Its kind."""
    name: base.ResourceName
    """Its name, in the same namespace."""


class Spec(base.Model):
    """What a person decides."""

    model_config = base.rules(
        base.rule("self == oldSelf", "an Approval cannot be edited; delete it, or create another one"),
        base.rule("has(self.answers) == (self.decision in ['Approve', 'Reject'])", _ANSWERS),
        base.rule("self.decision != 'Approve' || has(self.planHash)", _PLANNED),
    )

    target: Target
    """What it is about."""
    decision: Decision
    """Approve lets a step or an undecided gate pass, once. Reject refuses the version. Abort keeps queries off the
    version whatever the spec says, until this object is deleted or expires. AcceptLag lets an index take over that
    lacks the newest documents."""
    answers: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The step or gate that is answered: a name from spec.strategy.steps, a gate of status.gates, or `retire`."""
    version: base.VersionName
    """The version that it is about."""
    plan_hash: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The plan that is approved, from status.planHash: a plan that has changed needs a new Approval."""
    expires_at: Annotated[datetime, Field(json_schema_extra={"maxLength": 64})]
    """When it stops counting."""
    approved_by: Annotated[str, Field(max_length=253)] = ""
    """Who decided."""
    comment: Annotated[str, Field(max_length=1024)] = ""
    """Why."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.answers is not None) != (self.decision in ("Approve", "Reject")):
            raise ValueError(_ANSWERS)
        if self.decision == "Approve" and self.plan_hash is None:
            raise ValueError(_PLANNED)
        return self


class Missed(base.Fact):
    """What a version lacks that an AcceptLag lets take over."""

    snapshot: int
    """The snapshot that its index holds whole."""
    newest: int
    """The newest snapshot that there is."""
    documents: int
    """How many documents the snapshots after its own added, deleted or changed; one that changed twice counts twice."""
    counted: int
    """The snapshot up to which they are counted: what no version has embedded is not counted yet."""


class ApprovalStatus(base.Fact):
    """What becomes of a decision."""

    observed_generation: int = 0
    """The generation of the spec that this status is about."""
    conditions: Annotated[list[Condition], base.keyed("type"), Field(max_length=16)] = []
    """Whether it counts, with reasons."""
    missed: Missed | None = None
    """Of an AcceptLag: what the version lacks, and what it lacked last once it has caught up."""
