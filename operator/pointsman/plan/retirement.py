"""When an index goes for good: a plan of its own, each of whose conditions can be named.

Retiring is recorded first and takes an index off the route. It is removed once every gateway that there is, ready or
not, serves a route without it.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api.deployment import Role
from pointsman.plan import actions, approvals, burn_in, indexes, traffic, words
from pointsman.plan.facts import Facts, Index
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment, Presence

APPROVAL = "retire.mode is Supervised: an Approval that answers retire is awaited"


def marked(seen: Deployment, facts: Facts, target: Target, now: datetime) -> Facts:
    """Record which indexes retire: never the one that serves, never one on the route, never the one that is wanted.

    None retires by time while what serves was not found in this run: it may be needed. None retires while the spec
    suspends the deployment: nothing is further forward than that.
    """
    if seen.spec.suspend:
        return facts
    left = [i for i in facts.indexes if i.role is Role.CANDIDATE and not indexes.matches(i, target)]
    # Of the candidates left behind the last one is kept, for whoever comes back to it. The others have never served,
    # and every edit of the index parameters leaves one.
    for index in left[:-1]:
        facts = _retiring(facts, index, now)
    serving = facts.serving
    if serving is None or indexes.presence(seen, serving.name) is not Presence.PRESENT:
        return facts
    for index in facts.indexes:
        if index.role not in (Role.CANDIDATE, Role.RETAINED) or indexes.matches(index, target):
            continue
        if index.name in facts.weights or not _is_over(seen, index, now) or why_kept(seen, facts, target, index, now):
            continue
        plan = approvals.plan_hash(seen, facts, target)
        if index.role is Role.RETAINED and seen.spec.retire.mode == "Supervised":
            approval = approvals.approved(seen, facts, plan, approvals.RETIRE, now)
            if approval is None:
                continue
            facts = approvals.used(facts, approval)
        facts = _retiring(facts, index, now)
    return facts


def asks(seen: Deployment, facts: Facts, now: datetime) -> bool:
    """Return whether an index would retire, were it not for a person who has to let it."""
    target = indexes.target(seen)
    if isinstance(target, str) or seen.spec.suspend or seen.spec.retire.mode != "Supervised" or facts.serving is None:
        return False
    if indexes.presence(seen, facts.serving.name) is not Presence.PRESENT:
        return False
    kept = [i for i in facts.indexes if i.role is Role.RETAINED and not indexes.matches(i, target)]
    return any(_is_over(seen, i, now) and not why_kept(seen, facts, target, i, now) for i in kept)


def why_kept(seen: Deployment, facts: Facts, target: Target, index: Index, now: datetime) -> str:
    """Return why a retained index whose time is over is kept, as a clause; empty where nothing keeps it."""
    serving = facts.serving
    if index.role is not Role.RETAINED or serving is None:
        return ""
    if facts.burn_in is not None or serving.proven_at is None:
        return f"the burn-in of {serving.version} is not over"
    if facts.rollout is not None:
        return f"{target.version} is on its way"
    record, found = seen.records.get(serving.name), seen.physical.get(serving.name)
    if record is None or record.verified_at is None or record.differences:
        return f"{serving.name} was not found equal to its snapshot"
    if found is not None and indexes.is_miscounted(record, found):
        return f"{serving.name} does not hold the rows of its snapshot"
    if (unstable := burn_in.is_stable(seen, facts, now)) != "":
        return unstable
    return traffic.why_held(seen, facts)


def due(seen: Deployment, index: Index) -> datetime | None:
    """Return when the time of an index is over. A candidate that was left behind counts from when it was begun."""
    return None if index.since is None else index.since + base.parse_duration(seen.spec.retire.after)


def removal(seen: Deployment) -> list[actions.Action]:
    """Remove one index that an earlier plan recorded as retiring, unless somebody may still be told to read it."""
    for index in seen.facts.indexes:
        if index.role is Role.RETIRING and indexes.presence(seen, index.name) is Presence.PRESENT:
            if words.running(seen.work, f"index {index.name}") is not None:
                continue
            if seen.published is not None and seen.published.get("collection") == index.name:
                continue
            if not traffic.is_let_go(seen, seen.facts, index.name):
                continue
            return [actions.DeleteIndex(seen.key, index.name)]
    return []


def _retiring(facts: Facts, index: Index, now: datetime) -> Facts:
    facts = facts.put(dataclasses.replace(index, role=Role.RETIRING, since=now))
    # Gateways prove that they have let it go by serving a later route.
    return dataclasses.replace(facts, route=facts.route + 1)


def _is_over(seen: Deployment, index: Index, now: datetime) -> bool:
    over = due(seen, index)
    return over is not None and now - over >= timedelta(0)
