"""Going back: the edit of `spec.version` to what served before, and how long that takes."""

from __future__ import annotations

from pointsman.api.conditions import Reason
from pointsman.api.deployment import IndexStatus, Role
from pointsman.cli import deployments, writing
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session
from pointsman.errors import Terminal


def run(current: Session, reference: str, to: str | None, as_patch: bool) -> int:
    """Edit spec.version to a version that can serve again, or print the patch; return the exit code."""
    seen = deployments.read(current, reference)
    target = to or _before(seen)
    if target == seen.spec.version:
        message = f"{seen.name} wants {target} already"
        writing.tell(message if target == seen.serving else f"{message}; see pointsman why {seen.name}")
        return 0
    index = seen.index(target, Role.SERVING, Role.RETAINED)
    if index is None:
        there = [i.version for i in seen.status.indexes if i.role in (Role.SERVING, Role.RETAINED)]
        kept = ", ".join(v for v in dict.fromkeys(there) if v != seen.spec.version) or "nothing"
        message = f"{target} of {seen.name} is not retained, only {kept} is"
        raise Terminal(Reason.INVALID_SPEC, f"{message}; to build it anew: pointsman promote {seen.name} {target}")
    check_not_aborted(current, seen, target)
    how = _how(seen, index)
    said = f"{seen.name} goes back from {seen.spec.version} to {target}: {how}"
    stays = f"what stays is a commit (-o patch), or: pointsman abort {seen.name} {seen.spec.version}"
    if as_patch:
        writing.warn(how)
    writing.edit(current, seen, {"version": target}, as_patch, said, stays)
    return 0


def _before(seen: Deployment) -> str:
    """Return where a rollback leads: from a migration to what serves, and at rest to what served before."""
    serving, rollback = seen.serving, seen.status.rollback
    if serving and seen.spec.version != serving:
        return serving
    if rollback is not None and rollback.to:
        return rollback.to
    what = f"only {serving} has an index" if serving else "nothing has served yet"
    raise Terminal(Reason.INVALID_SPEC, f"{seen.name} has no earlier version to go back to: {what}")


def _how(seen: Deployment, index: IndexStatus) -> str:
    """Return how the queries get to an index and how long that takes, as a clause."""
    rollback, version, pinned = seen.status.rollback, index.version, seen.spec.snapshot
    if index.frozen != (pinned is not None):
        if pinned is None:
            return f"the index of {version} is frozen and spec.snapshot pins nothing: one that follows is built first"
        return f"spec.snapshot pins {pinned} and the index of {version} follows: a frozen one is built first"
    if index.role is Role.SERVING:
        return f"{version} serves and takes all queries in one shift"
    if rollback is not None and rollback.to == version and rollback.ready:
        return f"one switch: {version} is complete and current"
    # Of the other retained indexes status does not say whether they are ready: their cursors do.
    serving = seen.index(seen.serving, Role.SERVING)
    here, there = index.cursor, None if serving is None else serving.cursor
    is_current = here is not None and (there is None or here.snapshot >= there.snapshot)
    if (rollback is None or rollback.to != version) and is_current and index.verified_at is not None:
        return f"one switch: {version} was verified and is at snapshot {'' if here is None else here.snapshot}"
    takes = (
        f", about {rollback.estimate}" if rollback is not None and rollback.to == version and rollback.estimate else ""
    )
    return f"{version} has to catch up first{takes}; at once, without it: pointsman accept-lag {seen.name} {version}"


def check_not_aborted(current: Session, seen: Deployment, version: str) -> None:
    """Raise Terminal where a person keeps queries off a version: wanting it would lead nowhere."""
    found = deployments.aborted(deployments.decisions_seen(current, seen), version, current.world.now())
    if found is not None:
        until = f"{found.spec.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        message = f"Approval {found.name} keeps queries off {version} until {until}"
        raise Terminal(Reason.TARGET_ABORTED, f"{message}; first: pointsman abort {seen.name} {version} --withdraw")
