"""How a deployment goes: its route first, then index after index, and all of it within a deadline."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

from pointsman.api import deployment as api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import Role
from pointsman.plan import actions, indexes, routes, words
from pointsman.plan.deployment_status import status
from pointsman.plan.observed import Deployment, Plan, Presence
from pointsman.plan.tasks import Phase


def plan(seen: Deployment, since: datetime, now: datetime) -> Plan[api.DeploymentStatus]:
    """Withdraw the route, then remove index after index; let go when the deadline has passed."""
    if not seen.has_finalizer:
        return Plan((), seen.status, words.AT_REST)
    remaining = since + seen.deadline - now
    stop: tuple[actions.Action, ...] = (actions.CancelWork(seen.key),) if seen.work else ()
    state = (ConditionType.RECONCILING, Reason.DELETING, _removing(seen, remaining))
    # Gateways are told first: what has no route is not routed.
    said = status(seen, seen.facts, state, now).model_copy(update={"route": None})

    # Whatever keeps failing below, it fails until then and no longer.
    if remaining <= timedelta(0):
        return Plan((*stop, actions.RemoveFinalizer(seen.key, _left(seen))), said, words.AT_REST)
    stop += tuple(actions.DeleteJob(seen.key, job.name) for job in indexes.live_jobs(seen))
    if seen.published is not None:
        return Plan((*stop, *routes.withdraw(seen)), said, words.AT_ONCE)
    if any(gateway.revision for gateway in seen.gateways):
        return Plan(stop, said, min(remaining, words.SOON))
    if seen.spec.deletion_policy == "Orphan":
        return Plan((*stop, actions.RemoveFinalizer(seen.key)), said, words.AT_REST)
    if any(work.phase is Phase.RUNNING for work in seen.work):
        # What is still at work could make again what is removed beside it.
        return Plan(stop, said, min(remaining, words.SOON))
    facts = seen.facts
    for index in seen.facts.indexes:
        if indexes.is_gone(seen, index):
            facts = facts.without(index.name)
        elif index.role is not Role.RETIRING:
            facts = facts.put(dataclasses.replace(index, role=Role.RETIRING, since=now))
    if facts != seen.facts:
        return Plan((*stop, actions.RecordFacts(seen.key, facts, after=seen.revision)), said, words.AT_ONCE)
    for index in seen.facts.indexes:
        if indexes.presence(seen, index.name) is Presence.PRESENT:
            return Plan((*stop, actions.DeleteIndex(seen.key, index.name)), said, words.AT_ONCE)
    if seen.facts.indexes:
        return Plan(stop, said, min(remaining, timedelta(seconds=5)))
    if seen.revision:
        return Plan((*stop, actions.ForgetFacts(seen.key)), said, words.AT_ONCE)
    return Plan((*stop, actions.RemoveFinalizer(seen.key)), said, words.AT_REST)


def _removing(seen: Deployment, remaining: timedelta) -> str:
    """Return how the removal stands, as a clause: what holds it up, and for how long that is put up with."""
    left = len(seen.facts.indexes)
    problem = next((p for index in seen.facts.indexes if (p := indexes.unseen(seen, index)) is not None), None)
    if problem is not None:
        return f"{problem.message}; indexes are left behind in {words.duration(remaining)}"
    return f"{left} {'index is' if left == 1 else 'indexes are'} being removed" if left else "being removed"


def _left(seen: Deployment) -> str:
    """Return what is left behind at the deadline, as a clause."""
    alias = (seen.published or {}).get("alias", "")
    parts = [f"the alias {alias}"] if alias else []
    if seen.spec.deletion_policy == "Delete":
        parts += [f"{index.name} at {index.address or seen.address}" for index in seen.facts.indexes]
    return f"let go after {words.duration(seen.deadline)}, leaving behind {', '.join(parts)}" if parts else ""
