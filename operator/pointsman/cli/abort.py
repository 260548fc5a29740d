"""Keeping queries off a version whatever the spec says, by an object that no Git knows; and taking that back."""

from __future__ import annotations

from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role
from pointsman.cli import deployments, writing
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session
from pointsman.cluster.resources import APPROVAL
from pointsman.errors import Terminal


def run(current: Session, reference: str, version: str | None, lasts: str, comment: str, as_patch: bool) -> int:
    """Create the Approval that aborts a version, or print it; return the exit code."""
    lasting = writing.lasting(lasts)
    seen = deployments.read(current, reference)
    chosen = version or seen.spec.version
    if chosen not in (seen.spec.version, seen.serving):
        message = f"{chosen} is neither what {seen.name} wants, {seen.spec.version}, nor what serves"
        raise Terminal(Reason.INVALID_SPEC, f"{message}{_serves(seen)}; there is nothing to abort")
    now = current.world.now()
    there = deployments.aborted(deployments.decisions_seen(current, seen), chosen, now)
    if there is not None and there.spec.expires_at >= now.replace(microsecond=0) + lasting:
        until = f"{there.spec.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        writing.tell(f"Approval {there.name} keeps queries off {chosen} until {until} already")
        return 0
    made = writing.decide(current, seen, "Abort", chosen, lasts, as_patch, comment=comment)
    if as_patch:
        return 0
    writing.tell(f"aborted {chosen} of {seen.name} for {lasts}: Approval {made}; {where(seen, chosen)}")
    if chosen == seen.spec.version:
        ends = f"pointsman abort {seen.name} {chosen} --withdraw, or change spec.version"
        writing.tell(f"nothing that Git applies takes that back; to end it: {ends}")
    return 0


def withdraw(current: Session, reference: str, version: str | None, as_patch: bool) -> int:
    """Delete the Approvals that abort a version, or print them; return the exit code."""
    seen = deployments.read(current, reference)
    chosen = version or seen.spec.version
    found = [d for d in deployments.decisions(current, seen) if d.spec.decision == "Abort"]
    ours = [decision for decision in found if decision.spec.version == chosen]
    if not ours:
        others = ", ".join(sorted({decision.spec.version for decision in found}))
        message = f"{chosen} of {seen.name} is not aborted{f', only {others} is' if others else ''}"
        raise Terminal(Reason.INVALID_SPEC, f"{message}; there is nothing to take back")
    for decision in ours:
        if as_patch:
            writing.show(APPROVAL, seen.namespace, decision.name, {})
        else:
            current.cluster.remove(APPROVAL, seen.namespace, decision.name)
    if as_patch:
        writing.warn("these are the objects to remove: kubectl delete -f, or out of Git where they are kept there")
        return 0
    names = ", ".join(decision.name for decision in ours)
    follows = f"{chosen} is what the spec wants: it goes on its way again" if chosen == seen.spec.version else ""
    writing.tell(f"withdrew {names}{'; ' if follows else ''}{follows}")
    return 0


def where(seen: Deployment, version: str) -> str:
    """Return where the queries of an aborted version go, as a clause."""
    serving, rollback = seen.serving, seen.status.rollback
    if not serving:
        return "nothing serves yet, and nothing will until there is another version to serve"
    if serving != version:
        return f"all queries go to {serving}"
    if seen.spec.version != version:
        return f"{version} answers until {seen.spec.version} takes over"
    if rollback is not None and rollback.to != version and rollback.ready:
        return f"all queries go to {rollback.to}, by one switch"
    others = [index for index in seen.status.indexes if index.role is Role.RETAINED and index.version != version]
    if others:
        takes = f", in about {rollback.estimate}" if rollback is not None and rollback.estimate else ""
        return f"queries go to {others[0].version} once it has caught up{takes}; {version} answers until then"
    return f"{version} goes on answering, as there is no other index to send queries to"


def _serves(seen: Deployment) -> str:
    return f", {seen.serving}" if seen.serving else " (nothing does yet)"
