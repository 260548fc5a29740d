"""A deployment as the commands that steer it see it: what it wants, what is true of it, what people have decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pydantic

from pointsman.api import approval, base, conditions, deployment, steps
from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.cli import resources
from pointsman.cli.session import Session
from pointsman.cluster.resources import APPROVAL, DEPLOYMENT, Resource
from pointsman.errors import Retryable, Terminal


class Wanted(base.Model):
    """What a command reads of a spec. Fields that it has no use for are passed over."""

    dataset_ref: base.Reference
    version: str
    snapshot: int | None = None
    strategy: steps.Strategy = steps.Strategy()
    gates: steps.Gates = steps.Gates()
    burn_in: steps.BurnIn = steps.BurnIn()
    retire: steps.Retire = steps.Retire()
    suspend: bool = False
    retry: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """An Approval, and what the operator says of it."""

    name: str
    spec: approval.Spec
    made_at: datetime | None
    """None where the API server does not say."""
    counts: bool
    """Whether the operator takes it, as far as it has looked."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as it was read."""

    resource: Resource
    spec: Wanted
    status: deployment.DeploymentStatus

    @property
    def name(self) -> str:
        """Its name."""
        return str(resources.metadata(self.resource)["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(resources.metadata(self.resource)["namespace"])

    @property
    def serving(self) -> str:
        """The version that answers; empty where none does yet."""
        return self.status.serving_version

    @property
    def goal(self) -> Condition | None:
        """The one of Ready, Stalled and Reconciling that holds."""
        return resources.goal(self.status.conditions)

    @property
    def is_observed(self) -> bool:
        """Whether the status is about the spec as it is now."""
        return self.status.observed_generation >= int(resources.metadata(self.resource).get("generation", 0))

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return a condition where it holds."""
        found = conditions.get(self.status.conditions, kind)
        return found if found is not None and found.status is conditions.Status.TRUE else None

    def index(self, version: str, *roles: deployment.Role) -> deployment.IndexStatus | None:
        """Return the index of a version in one of some roles."""
        return next((i for i in self.status.indexes if i.version == version and i.role in roles), None)

    def check_observed(self) -> None:
        """Raise Terminal where the operator has not seen the spec as it is now: what status says is of another one."""
        if not self.is_observed:
            wanted = resources.metadata(self.resource)["generation"]
            message = f"the operator has seen generation {self.status.observed_generation} of {self.name}, not {wanted}"
            raise Terminal(Reason.INVALID_SPEC, f"{message} yet; see that it runs, and ask again")


def read(current: Session, reference: str) -> Deployment:
    """Return a deployment by `NAME` or `idx/NAME`; raises Terminal where there is none."""
    return of(resources.find(current, reference, (DEPLOYMENT,))[1])


def of(resource: Resource) -> Deployment:
    """Return a deployment as a resource holds it; raises Terminal for one of another release."""
    try:
        spec = Wanted.model_validate(resource["spec"], extra="ignore")
    except pydantic.ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        name = resources.metadata(resource)["name"]
        message = f"spec.{place} of {name} is not as this release knows it; use the operator's own pointsman"
        raise Terminal(Reason.INVALID_SPEC, message) from None
    return Deployment(resource, spec, resources.status(resource, deployment.DeploymentStatus))


def decisions(current: Session, about: Deployment) -> Sequence[Decision]:
    """Return the Approvals about a deployment; those that are being deleted, or cannot be read, count for nothing."""
    found = []
    for resource in current.cluster.list(APPROVAL, about.namespace):
        meta = resources.metadata(resource)
        try:
            spec = approval.Spec.model_validate(resource["spec"], extra="ignore")
        except pydantic.ValidationError:
            continue
        if spec.target.name != about.name or meta.get("deletionTimestamp"):
            continue
        stalled = conditions.get(resources.conditions_of(resource), ConditionType.STALLED)
        counts = stalled is None or stalled.status is not conditions.Status.TRUE
        made = meta.get("creationTimestamp")
        made_at = None if made is None else datetime.fromisoformat(made)
        found.append(Decision(meta["name"], spec, made_at, counts))
    return found


def decisions_seen(current: Session, about: Deployment) -> Sequence[Decision]:
    """Return the Approvals about a deployment, or none where they may not be looked at: no way back hangs on that."""
    try:
        return decisions(current, about)
    except Retryable:
        return ()


def aborted(found: Sequence[Decision], version: str, now: datetime) -> Decision | None:
    """Return the Approval that keeps queries off a version for longest, if there is one."""
    live = (d for d in found if (d.spec.decision, d.spec.version) == ("Abort", version) and now < d.spec.expires_at)
    return max(live, key=lambda d: d.spec.expires_at, default=None)
