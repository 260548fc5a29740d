"""What a command writes: an edit of a spec, an annotation, an Approval; or what to commit instead.

An edit is sent with the resourceVersion that it was decided from, and again only while the spec is what it was then.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pydantic

from pointsman.api import approval, base
from pointsman.api.conditions import Reason
from pointsman.cli import deployments, gitops, resources, session
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session
from pointsman.cluster.resources import APPROVAL, DEPLOYMENT
from pointsman.errors import Conflict, PointsmanError, Terminal

TRIES = 10
"""How often an edit is sent: the operator writes the status of the same resource, and that is a conflict as well."""


def edit(current: Session, seen: Deployment, spec: Mapping[str, Any], as_patch: bool, said: str, stays: str) -> None:
    """Edit a deployment's spec and say what was done; or print the patch.

    `stays` is what holds where Git undoes the edit, as a clause.
    """
    if as_patch:
        show(DEPLOYMENT, seen.namespace, seen.name, {"spec": spec})
        return
    field = ", ".join(f"spec.{name}" for name in spec)
    for left in range(TRIES - 1, -1, -1):
        meta = resources.metadata(seen.resource)
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": dict(spec)}
        try:
            current.cluster.patch(DEPLOYMENT, seen.namespace, seen.name, patch)
            break
        except Conflict:
            again = deployments.read(current, f"idx/{seen.name}")
            if again.resource["spec"] != seen.resource["spec"] or not left:
                message = f"the spec of {seen.name} was edited in between; look again, then ask again"
                raise Terminal(Reason.CONFLICT, message) from None
            seen = again
    tell(said)
    warn_of_git(seen, field, stays)


def annotate(current: Session, seen: Deployment, annotation: str, token: str, as_patch: bool) -> None:
    """Ask the operator for something by an annotation, which Git does not know and leaves alone; or print the patch."""
    patch = {"metadata": {"annotations": {annotation: token}}}
    if as_patch:
        show(DEPLOYMENT, seen.namespace, seen.name, patch)
        return
    current.cluster.patch(DEPLOYMENT, seen.namespace, seen.name, patch)


def decide(
    current: Session,
    seen: Deployment,
    decision: approval.Decision,
    version: str,
    lasts: str,
    as_patch: bool,
    answers: str | None = None,
    comment: str = "",
) -> str:
    """Create an Approval, or print it; return its name. One that is committed names nobody: Git knows who wrote it."""
    now = current.world.now()
    spec: dict[str, Any] = {
        "target": {"kind": DEPLOYMENT, "name": seen.name},
        "decision": decision,
        "version": version,
        "expiresAt": _time(now + lasting(lasts)),
    }
    if answers is not None:
        spec |= {"answers": answers, "planHash": seen.status.plan_hash}
    if comment:
        spec["comment"] = comment
    if not as_patch and (user := _user(current)):
        spec["approvedBy"] = user
    _check(spec)
    name = _name(seen.name, answers or f"{decision.lower()}-{version}", now)
    if as_patch:
        show(APPROVAL, seen.namespace, name, {"spec": spec})
    else:
        meta = {"namespace": seen.namespace, "name": name}
        current.cluster.create({"kind": APPROVAL, "metadata": meta, "spec": spec})
    return name


def show(kind: str, namespace: str, name: str, content: Mapping[str, Any]) -> None:
    """Print what to commit: whole where it is new, else a patch that kustomize and `kubectl patch` both take."""
    import yaml

    meta = {"name": name, "namespace": namespace, **content.get("metadata", {})}
    told = {"apiVersion": f"{base.GROUP}/{base.API_VERSION}", "kind": kind, "metadata": meta}
    told |= {key: value for key, value in content.items() if key != "metadata"}
    text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, explicit_start=True)
    session.console().print(text, end="", soft_wrap=True)


def tell(text: str) -> None:
    """Print one line of what was done."""
    session.console().print(text, soft_wrap=True)


def warn(text: str) -> None:
    """Print one line of what to mind, apart from what was done."""
    session.console(to_stderr=True).print(f"mind: {text}", soft_wrap=True)


def warn_of_git(seen: Deployment, field: str, stays: str) -> None:
    """Say what Git will do to an edit of the live resource, where it is applied from there."""
    owner = gitops.owner(seen.resource)
    if owner is not None:
        warn(f"{owner.undoes(field)}; {stays}")


def lasting(text: str) -> timedelta:
    """Read how long a decision counts; raises Terminal for what is no duration, or none."""
    seconds = resources.seconds(text)
    if not seconds:
        raise Terminal(Reason.INVALID_SPEC, f"a decision that counts for {text} decides nothing; wanted 1s or more")
    return timedelta(seconds=seconds)


def _user(current: Session) -> str:
    """Return who asks, as the cluster knows them. It is a courtesy: who may not ask that may still decide."""
    try:
        return current.cluster.user()[:253]
    except PointsmanError:
        return ""


def _check(spec: Mapping[str, Any]) -> None:
    try:
        approval.Spec.model_validate(spec)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Terminal(Reason.INVALID_SPEC, f"{place or 'the Approval'} is not allowed: {first['msg']}") from None


def _name(deployment: str, what: str, now: datetime) -> str:
    """Return a name that no Approval before had: a used one stays used."""
    ending = now.strftime("-%Y%m%d-%H%M%S")
    return f"{deployment}-{what}"[: base.MAX_NAME - len(ending)].rstrip("-.") + ending


def _time(at: datetime) -> str:
    return at.replace(microsecond=0).isoformat().replace("+00:00", "Z")
