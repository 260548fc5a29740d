"""How a deployment gets from one version to the next: steps, gates, burn-in and retirement, as a user declares them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pointsman.api import base

_KINDS = ("weight", "pause", "shadow", "approval")
_NO_END = "a pause needs a time (for), or a name that an Approval answers"
_ONE_KIND = "exactly one of weight, pause, shadow and approval is wanted in a step"
_RISING = "the weights of steps must rise, each above the one before, and the last step must be weight 100"
_NAMES = "the names of approvals and pauses must differ, since an Approval answers one of them"

MOST_STEPS = 32

StepName = Annotated[
    str,
    base.patterned(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "must be lower-case letters, digits and dashes, and begin and end with a letter or digit",
    ),
    Field(min_length=1, max_length=63),
]
"""What an Approval answers."""


Share = Annotated[
    str,
    base.patterned(r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$", "must be a decimal number from 0 to 1, such as 0.02"),
    Field(min_length=1, max_length=8),
]
"""A number from 0 to 1 as people write it: `"0.02"`."""


class Pause(base.Model):
    """A wait: for a time, or until an Approval answers its name."""

    model_config = base.rules(
        base.rule(
            "has(self.__for__) || has(self.name)", "a pause needs a time (for), or a name that an Approval answers"
        )
    )

    for_: Annotated[base.Duration | None, Field(alias="for")] = None
    """How long to wait. An Approval that answers the name ends it sooner."""
    name: StepName | None = None
    """What an Approval answers to end the wait."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.for_ is None and self.name is None:
            raise ValueError(_NO_END)
        return self


class Shadow(base.Model):
    """A share of the real queries also goes to the candidate; its answers are compared and thrown away."""

    percent: Annotated[int, Field(ge=1, le=100)] = 100
    """The share of the queries."""
    for_: Annotated[base.Duration, Field(alias="for")]
    """How long."""


class ApprovalStep(base.Model):
    """A wait for a person."""

    name: StepName
    """What the Approval answers."""
    timeout: base.Duration = "24h"
    """How long to wait for it."""
    on_timeout: Literal["RollBack", "Hold"] = "RollBack"
    """What becomes of the migration then."""


class Step(base.Model):
    """One step of a migration."""

    model_config = base.rules(
        base.rule(" + ".join(f"(has(self.{kind}) ? 1 : 0)" for kind in _KINDS) + " == 1", _ONE_KIND)
    )

    weight: Annotated[int, Field(ge=1, le=100)] | None = None
    """The candidate's share of the queries from here on, in percent."""
    pause: Pause | None = None
    """A wait."""
    shadow: Shadow | None = None
    """Queries go to the candidate beside."""
    approval: ApprovalStep | None = None
    """A wait for a person."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        base.check_one_of(self, _KINDS, _ONE_KIND)
        return self


class Strategy(base.Model):
    """How queries move to a new version. Without steps they move at once, after the gates."""

    model_config = base.rules(
        base.rule(
            "!has(self.steps) || self.steps.size() == 0 || (has(self.steps[self.steps.size() - 1].weight) "
            "&& self.steps[self.steps.size() - 1].weight == 100 && self.steps.filter(s, has(s.weight)).all(s, "
            "self.steps.filter(t, has(t.weight) && t.weight == s.weight).size() == 1) "
            "&& self.steps.filter(s, has(s.weight)).map(s, s.weight).isSorted())",
            _RISING,
        ),
        base.rule(
            "!has(self.steps) || self.steps.filter(s, has(s.approval)).map(s, s.approval.name).all(n, "
            "self.steps.filter(s, (has(s.approval) && s.approval.name == n) "
            "|| (has(s.pause) && has(s.pause.name) && s.pause.name == n)).size() == 1) "
            "&& self.steps.filter(s, has(s.pause) && has(s.pause.name)).map(s, s.pause.name).all(n, "
            "self.steps.filter(s, has(s.pause) && has(s.pause.name) && s.pause.name == n).size() == 1)",
            _NAMES,
        ),
    )

    steps: Annotated[list[Step], base.atomic(), Field(max_length=MOST_STEPS)] = []
    """The steps, in order. A first deployment skips them, as does going back to an index that finished its burn-in."""
    progress_deadline: base.Duration = "2h"
    """How long one step may take to come about; waits that a step asks for, and waits for people, do not count."""
    on_failure: Literal["RollBack", "Hold"] = "RollBack"
    """What a failed gate does: all queries go back and the version is rejected, or the weights stay as they are."""

    @field_validator("steps")
    @classmethod
    def _rises(cls, steps: list[Step]) -> list[Step]:
        weights = [step.weight for step in steps if step.weight is not None]
        if steps and (weights != sorted(set(weights)) or steps[-1].weight != 100):
            raise ValueError(_RISING)
        names = [step.approval.name for step in steps if step.approval is not None]
        names += [step.pause.name for step in steps if step.pause is not None and step.pause.name is not None]
        if len(names) != len(set(names)):
            raise ValueError(_NAMES)
        return steps


class EvaluationGate(base.Model):
    """The candidate answers judged queries no worse than what serves."""

    query_set_ref: base.Reference
    """The judged queries."""
    metric: Annotated[
        str,
        base.patterned(
            r"^(nDCG|nDCG-exp|recall|precision|RR)@[1-9][0-9]{0,2}$",
            "must be nDCG, nDCG-exp, recall, precision or RR, and @k with k up to 999, such as nDCG@10",
        ),
        Field(max_length=16),
    ] = "nDCG@10"
    """What is measured over the first k documents."""
    not_worse_by: Share = "0.02"
    """How much worse the candidate may be, in points of the metric."""
    max_age: base.Duration = "24h"
    """How old a verdict may be; an index that changes by 1 % is evaluated anew sooner."""


class CanariesGate(base.Model):
    """A handful of queries still find what they must."""

    query_set_ref: base.Reference
    """The queries with the documents that each must find."""
    k: Annotated[int, Field(ge=1, le=100)] = 5
    """How many documents are looked at."""
    min_overlap: Share = "0.8"
    """Between versions of one space, the share of the first k that must be the same."""


class LatencyGate(base.Model):
    """The candidate answers as fast as what serves."""

    p95_ratio_at_most: Annotated[
        str,
        base.patterned(r"^[1-9][0-9]?(\.[0-9]{1,3})?$", "must be a decimal number from 1 to 99, such as 1.5"),
        Field(max_length=8),
    ] = "1.5"
    """The candidate's 95th percentile, over that of what serves, at most."""


class Gates(base.Model):
    """What must hold all the way. That all documents are indexed, that the model is unchanged and that queries do not
    fail is always asked."""

    evaluation: EvaluationGate | None = None
    """Judged queries."""
    canaries: CanariesGate | None = None
    """Queries that must find what they found."""
    latency: LatencyGate | None = None
    """Response times at the gateways."""


class BurnIn(base.Model):
    """How long a promoted version is watched before it is taken as proven."""

    for_: Annotated[base.Duration, Field(alias="for")] = "24h"
    """At least so long."""
    min_queries: Annotated[int, Field(ge=0, le=10**9)] = 0
    """And until it has answered so many queries through the gateways."""


class Stable(base.Model):
    """What must be evaluated, without a break, before an index is retired."""

    query_set_ref: base.Reference
    """The judged queries."""
    for_: Annotated[base.Duration, Field(alias="for")] = "336h"
    """For how long no evaluation may have failed."""


class Retire(base.Model):
    """What becomes of an index that no longer serves."""

    after: base.Duration = "336h"
    """How long it is kept complete and current after it last served; never less than its successor's burn-in."""
    mode: Literal["Automatic", "Supervised"] = "Automatic"
    """Whether it then goes by itself, or when an Approval answers `retire`."""
    stable: Stable | None = None
    """What must have held before."""
