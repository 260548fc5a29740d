"""Letting an index take over that lacks the newest documents, with what would be missed."""

from __future__ import annotations

from pointsman.api import dataset
from pointsman.api.conditions import Reason
from pointsman.api.deployment import IndexStatus, Role
from pointsman.cli import deployments, resources, writing
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session
from pointsman.cluster.resources import DATASET
from pointsman.errors import Terminal


def run(current: Session, reference: str, version: str | None, expires: str, comment: str, as_patch: bool) -> int:
    """Create the Approval that accepts what an index lacks, or print it; return the exit code."""
    writing.lasting(expires)
    seen = deployments.read(current, reference)
    chosen = version or seen.spec.version
    lacking = _lacking(current, seen, chosen)
    made = writing.decide(current, seen, "AcceptLag", chosen, expires, as_patch, comment=comment)
    (writing.warn if as_patch else writing.tell)(lacking)
    if not as_patch:
        writing.tell(f"accepted for {expires}: Approval {made}")
        if chosen != seen.spec.version:
            writing.warn(f"spec.version is {seen.spec.version}: {chosen} takes over once it is {chosen}")
    return 0


def _lacking(current: Session, seen: Deployment, version: str) -> str:
    """Return what a switch to a version would miss, as a clause; raises Terminal where there is nothing to accept."""
    if version == seen.serving:
        raise Terminal(Reason.INVALID_SPEC, f"{version} of {seen.name} serves already; there is no lag to accept")
    index = seen.index(version, Role.RETAINED, Role.CANDIDATE)
    if index is None:
        there = (
            ", ".join(dict.fromkeys(i.version for i in seen.status.indexes if i.role is not Role.RETIRING)) or "none"
        )
        message = f"there is no index of {version} of {seen.name} that could take over, only of {there}"
        raise Terminal(Reason.INVALID_SPEC, message)
    if index.cursor is None or index.verified_at is None:
        message = f"the index of {version} was never complete: what it lacks cannot be said; wait until it is verified"
        raise Terminal(Reason.INVALID_SPEC, message)
    has, newest = index.cursor.snapshot, _newest(current, seen)
    if has >= newest:
        message = f"{version}@{has} of {seen.name} lacks nothing: snapshot {newest} is the newest"
        raise Terminal(Reason.INVALID_SPEC, message)
    which = f"snapshot {newest}" if newest == has + 1 else f"snapshots {has + 1} to {newest}"
    counted = f"pointsman diff {seen.spec.dataset_ref.name} @{has} @{newest}"
    return f"{version}@{has} lacks what {which} brought, until it has caught up; counted by: {counted}"


def _newest(current: Session, seen: Deployment) -> int:
    """Return the newest snapshot that anything here knows of."""
    known = [index.cursor.snapshot for index in _with_cursor(seen) if index.cursor is not None]
    source = current.cluster.get(DATASET, seen.namespace, seen.spec.dataset_ref.name)
    if source is not None and (snapshot := resources.status(source, dataset.DatasetStatus).snapshot):
        known.append(snapshot)
    return max(known, default=0)


def _with_cursor(seen: Deployment) -> list[IndexStatus]:
    return [index for index in seen.status.indexes if index.cursor is not None]
