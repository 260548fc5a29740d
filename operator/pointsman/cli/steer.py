"""The edits of a spec that steer a migration: another version, suspended or not, a rejected version tried again."""

from __future__ import annotations

from pointsman.api.conditions import Reason
from pointsman.cli import deployments, rollback, writing
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session
from pointsman.cluster.resources import DATASET
from pointsman.errors import Terminal

COMMIT = "what stays is a commit: -o patch prints it"


def promote(current: Session, reference: str, version: str, as_patch: bool) -> int:
    """Edit spec.version to a version that the dataset declares, or print the patch; return the exit code."""
    seen = deployments.read(current, reference)
    if version == seen.spec.version:
        writing.tell(f"{seen.name} wants {version} already")
        return 0
    _check_declared(current, seen, version)
    rollback.check_not_aborted(current, seen, version)
    rejected = next((r for r in reversed(seen.status.rejected) if r.version == version), None)
    if rejected is not None and rejected.retry == seen.spec.retry:
        message = f"{version} was rejected: {rejected.message}"
        raise Terminal(Reason.TARGET_REJECTED, f"{message}; to try it again, first: pointsman retry {seen.name}")
    said = f"{seen.name} wants {version} instead of {seen.spec.version}; {_serves(seen)}"
    said += f"follow it by: pointsman status idx/{seen.name}"
    writing.edit(current, seen, {"version": version}, as_patch, said, COMMIT)
    return 0


def suspend(current: Session, reference: str, wanted: bool, as_patch: bool) -> int:
    """Edit spec.suspend, or print the patch; return the exit code."""
    seen = deployments.read(current, reference)
    if seen.spec.suspend == wanted:
        writing.tell(f"{seen.name} is suspended already" if wanted else f"{seen.name} is not suspended")
        return 0
    if wanted:
        weights = f"; {seen.status.weight} stays as it is" if seen.status.weight else ""
        said = f"paused {seen.name}{weights}; a rollback is possible all the same, and failed gates act"
    else:
        said = f"resumed {seen.name}"
    writing.edit(current, seen, {"suspend": wanted}, as_patch, said, COMMIT)
    return 0


def retry(current: Session, reference: str, value: str | None, as_patch: bool) -> int:
    """Edit spec.retry to a new value, or print the patch; return the exit code."""
    seen = deployments.read(current, reference)
    token = value or current.world.now().strftime("%Y%m%dT%H%M%SZ")
    if len(token) > 63:
        raise Terminal(Reason.INVALID_SPEC, f"a value of spec.retry has 63 characters or fewer, this one {len(token)}")
    rejected = [r for r in seen.status.rejected if r.retry == seen.spec.retry]
    if not rejected:
        raise Terminal(Reason.INVALID_SPEC, f"no version of {seen.name} is rejected; there is nothing to try again")
    if any(token == r.retry for r in seen.status.rejected):
        message = f"spec.retry was {token} when a version was rejected; wanted a value that it has not had"
        raise Terminal(Reason.INVALID_SPEC, message)
    which = ", ".join(dict.fromkeys(r.version for r in rejected))
    said = f"{which} of {seen.name} may be tried again"
    said += ": from the first step" if seen.spec.version in which.split(", ") else f"; it wants {seen.spec.version} now"
    writing.edit(current, seen, {"retry": token}, as_patch, said, COMMIT)
    return 0


def _check_declared(current: Session, seen: Deployment, version: str) -> None:
    name = seen.spec.dataset_ref.name
    source = current.cluster.get(DATASET, seen.namespace, name)
    if source is None:
        raise Terminal(Reason.DATASET_NOT_FOUND, f"dataset {name} of {seen.name} is not there; declare it first")
    declared = [entry["name"] for entry in source["spec"].get("versions", ())]
    if version not in declared and not any(index.version == version for index in seen.status.indexes):
        only = ", ".join(declared) or "none"
        raise Terminal(Reason.VERSION_NOT_FOUND, f"dataset {name} declares no version {version}, only {only}")


def _serves(seen: Deployment) -> str:
    return f"{seen.serving} serves until then; " if seen.serving else ""
