"""What to do next for an IndexDeployment.

An index goes one way through its roles, and every switch, forward or back, is the same step:

    (none) ──build──> Candidate ──switch──> Serving ──switch──> Retained ──after──> Retiring ──> (gone)
                          │                    ^                    │
                          └──left behind───────┼────────────────────┼──after──> Retiring
                                               └──────switch────────┘

Facts are worked out first and recorded before anything that follows from them: the route is published from the facts,
and an index is removed only when an earlier plan has recorded that it retires. There is no path for rollbacks: a target
that is retained and current needs one switch, whatever direction people see in it.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api import deployment as api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import Role
from pointsman.plan import actions, indexes, routes, words
from pointsman.plan.deployment_status import State, status
from pointsman.plan.facts import Facts, Index
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment, Plan, Presence
from pointsman.plan.tasks import Build, Follow, Phase


def plan(seen: Deployment, now: datetime) -> Plan[api.DeploymentStatus]:
    """Return what to do for a deployment, what to say of it, and when to look again."""
    if seen.deleting_since is not None:
        return _delete(seen, seen.deleting_since, now)
    if not seen.has_finalizer:
        state = (ConditionType.RECONCILING, Reason.ACCEPTED, "seen for the first time")
        return Plan((actions.AddFinalizer(seen.key),), status(seen, seen.facts, state, now), words.AT_ONCE)
    if seen.problem is not None:
        kind = ConditionType.STALLED if seen.problem.is_terminal else ConditionType.RECONCILING
        state = (kind, seen.problem.reason, seen.problem.message)
        return Plan((), status(seen, seen.facts, state, now), timedelta(seconds=10))

    target = indexes.target(seen)
    facts = _without_lost(seen)
    facts = _switched(seen, facts, target, now)
    facts = _with_candidate(seen, facts, target, now)
    facts = _with_retiring(seen, facts, target, now)

    todo: list[actions.Action] = []
    if facts != seen.facts:
        todo.append(actions.RecordFacts(seen.key, facts, after=seen.revision))
    todo += routes.publish(seen, facts)
    work = indexes.work(seen, facts, target, now)
    todo += _abandoned(seen, facts, target)
    todo += [actions.StartWork(task, seen.generation) for task in work]
    todo += _removal(seen)
    state = _state(seen, facts, target, now)
    return Plan(tuple(todo), status(seen, facts, state, now), _look_again(seen, facts, bool(todo), now))


# The facts, one step after the other.


def _without_lost(seen: Deployment) -> Facts:
    """Forget indexes that are gone from the database. The serving one is kept on the books until another serves."""
    facts = seen.facts
    for index in seen.facts.indexes:
        built = seen.records.get(index.name) is not None
        gone = indexes.presence(seen, index.name) is Presence.ABSENT
        if gone and built and index.role is not Role.SERVING:
            facts = facts.without(index.name)
        if gone and index.role is Role.RETIRING:
            facts = facts.without(index.name)
    return facts


def _switched(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> Facts:
    """Point queries at the target once it may serve; away from a lost index to whatever retained one may."""
    serving = facts.serving
    if isinstance(target, Target):
        wanted = indexes.find(seen, facts, target)
        is_rollback = wanted is not None and wanted.role is Role.RETAINED
        may_move = is_rollback or serving is None or not seen.spec.suspend
        if (
            wanted is not None
            and wanted != serving
            and may_move
            and indexes.may_serve(seen, wanted, target.snapshot)
            and indexes.is_no_step_back(seen, facts, wanted, now)
        ):
            return _settled(seen, facts.switched(wanted, target.snapshot, now))
    if serving is not None and indexes.presence(seen, serving.name) is Presence.ABSENT:
        for index in reversed(facts.indexes):
            cursor = indexes.cursor(seen, index)
            if index.role is Role.RETAINED and cursor and indexes.may_serve(seen, index, cursor.snapshot):
                return _settled(seen, facts.switched(index, cursor.snapshot, now))
    return facts


def _settled(seen: Deployment, facts: Facts) -> Facts:
    """Forget the index that served before, where it was lost: there is nothing to retain."""
    for index in facts.indexes:
        if index.role is Role.RETAINED and indexes.presence(seen, index.name) is Presence.ABSENT:
            facts = facts.without(index.name)
    return facts


def _with_candidate(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> Facts:
    """Put a new candidate on the books where nothing there is what the spec wants."""
    if isinstance(target, str):
        return facts
    wanted = indexes.find(seen, facts, target)
    serving = facts.serving
    is_lost = wanted is not None and wanted == serving and indexes.presence(seen, wanted.name) is Presence.ABSENT
    if (wanted is not None and not is_lost) or (seen.spec.suspend and serving is not None and not is_lost):
        return facts
    candidate = Index(
        name=indexes.name(seen, target, facts.made + 1),
        version=target.version,
        recipe=target.recipe,
        parameters=target.parameters,
        role=Role.CANDIDATE,
        frozen=target.frozen,
        since=now,
    )
    return dataclasses.replace(facts.put(candidate), made=facts.made + 1)


def _with_retiring(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> Facts:
    """Record that indexes retire whose time is over: never the serving one, never the one that the spec wants."""
    if isinstance(target, str):
        return facts
    after = base.parse_duration(seen.spec.retire.after)
    for index in facts.indexes:
        if index.role not in (Role.CANDIDATE, Role.RETAINED) or indexes.matches(index, target):
            continue
        # A candidate that was left behind counts from when it was begun: it has never served.
        if facts.serving is not None and index.since is not None and now - index.since >= after:
            facts = facts.put(dataclasses.replace(index, role=Role.RETIRING, since=now))
    return facts


def _abandoned(seen: Deployment, facts: Facts, target: Target | str) -> list[actions.Action]:
    """Stop work on candidates that the spec wants no more; what they hold is kept and finished if they are again."""
    if isinstance(target, str):
        return []
    wanted = indexes.find(seen, facts, target)
    left = [i for i in facts.indexes if i.role is Role.CANDIDATE and i != wanted]
    return [
        actions.CancelWork(seen.key, work.task.subject)
        for index in left
        if (work := words.running(seen.work, f"index {index.name}")) is not None
    ]


def _removal(seen: Deployment) -> list[actions.Action]:
    """Remove one index that an earlier plan recorded as retiring, unless it is still what clients are told to read."""
    for index in seen.facts.indexes:
        if index.role is Role.RETIRING and indexes.presence(seen, index.name) is Presence.PRESENT:
            if words.running(seen.work, f"index {index.name}") is not None:
                continue
            if seen.published is not None and seen.published.get("collection") == index.name:
                continue
            return [actions.DeleteIndex(seen.key, index.name)]
    return []


# What to say.


def _state(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> State:
    serving = facts.serving
    serves = f"serving {serving.version} normally" if serving is not None else "nothing serves yet"
    if isinstance(target, str):
        reason, message, kind = indexes.why_no_target(seen, target)
        return kind, reason, f"{message}; {serves}"
    wanted = indexes.find(seen, facts, target)
    foreign = [name for name, p in seen.physical.items() if p.presence is Presence.FOREIGN]
    if foreign:
        message = f"collection {foreign[0]} exists and is not ours; remove or rename it; {serves}"
        return ConditionType.STALLED, Reason.COLLECTION_FOREIGN, message
    if serving is not None and indexes.presence(seen, serving.name) is Presence.ABSENT:
        message = f"index {serving.name} is gone from the database; a new one is being built"
        return ConditionType.RECONCILING, Reason.INDEX_LOST, message
    unknown = [name for name, p in seen.physical.items() if p.presence is Presence.UNKNOWN]
    if unknown:
        message = f"the database does not answer for {unknown[0]}; {serves}"
        return ConditionType.RECONCILING, Reason.BACKEND_UNREACHABLE, message
    failure = next((f for i in facts.indexes if (f := words.failure(seen.work, f"index {i.name}")) is not None), None)
    if failure is not None:
        kind = ConditionType.STALLED if failure.is_terminal else ConditionType.RECONCILING
        return kind, failure.reason, f"{failure.message}; {serves}"
    if wanted is not None and wanted == serving:
        record = seen.records.get(serving.name)
        if record is not None and record.differences:
            message = f"{record.differences:,} rows of {serving.name} differ from its snapshot; they are being repaired"
            return ConditionType.RECONCILING, Reason.INDEX_DIFFERS, message
        return ConditionType.READY, Reason.UP_TO_DATE, f"serving {indexes.said(seen, serving)}"
    if seen.spec.suspend and not (wanted is not None and wanted.role is Role.RETAINED):
        return ConditionType.RECONCILING, Reason.SUSPENDED, f"suspended by the spec before {target.version}; {serves}"
    running = words.running(seen.work, f"index {wanted.name}") if wanted is not None else None
    share = f" ({running.done:,} of {running.total:,} rows)" if running is not None and running.total else ""
    if wanted is not None and running is None and not indexes.is_no_step_back(seen, facts, wanted, now):
        lag = words.duration(indexes.lag(seen, wanted, now))
        message = (
            f"{indexes.said(seen, wanted)} is {lag} behind, spec.maxLag is {seen.spec.max_lag}; it catches up as soon "
            f"as its snapshot is embedded; raise spec.maxLag to switch at once; {serves}"
        )
        return ConditionType.RECONCILING, Reason.FOLLOWING, message
    match running.task if running is not None else None:
        case Follow():
            message = f"{target.version} catches up with snapshot {target.snapshot}{share}; {serves}"
            return ConditionType.RECONCILING, Reason.FOLLOWING, message
        case Build() | None:
            message = f"{target.version}@{target.snapshot} is being built{share}; {serves}"
            return ConditionType.RECONCILING, Reason.BUILDING, message
        case _:
            return ConditionType.RECONCILING, Reason.BUILDING, f"{target.version} is being verified; {serves}"


def _look_again(seen: Deployment, facts: Facts, acted: bool, now: datetime) -> timedelta:
    if facts != seen.facts:
        return words.AT_ONCE
    if acted or any(work.phase is Phase.RUNNING for work in seen.work):
        return words.SOON
    waits = [words.AT_REST, *(work.failure.retry_at - now for work in seen.work if work.failure is not None)]
    check = base.parse_duration(seen.spec.check.every)
    after = base.parse_duration(seen.spec.retire.after)
    for index in facts.indexes:
        record = seen.records.get(index.name)
        if record is not None and record.checked_at is not None:
            waits.append(record.checked_at + check - now)
        if index.role is Role.RETAINED and index.since is not None:
            waits.append(index.since + after - now)
    return max(timedelta(milliseconds=100), min(waits))


# How it goes.


def _delete(seen: Deployment, since: datetime, now: datetime) -> Plan[api.DeploymentStatus]:
    """Withdraw the route, then remove index after index; let go when the deadline has passed."""
    if not seen.has_finalizer:
        return Plan((), seen.status, words.AT_REST)
    remaining = since + seen.deadline - now
    stop: tuple[actions.Action, ...] = (actions.CancelWork(seen.key),) if seen.work else ()
    left = [i.name for i in seen.facts.indexes]
    message = f"{len(left)} indexes are being removed" if left else "being removed"
    if seen.problem is not None:
        message = f"{seen.problem.message}; indexes are left behind in {words.duration(remaining)}"
    state = (ConditionType.RECONCILING, Reason.DELETING, message)
    said = status(seen, seen.facts, state, now)

    if seen.published is not None:
        return Plan((*stop, *routes.withdraw(seen)), said, words.AT_ONCE)
    if seen.spec.deletion_policy == "Orphan" or remaining <= timedelta(0):
        return Plan((*stop, actions.RemoveFinalizer(seen.key)), said, words.AT_REST)
    if seen.problem is not None:
        return Plan(stop, said, min(remaining, timedelta(seconds=5)))
    facts = seen.facts
    for index in seen.facts.indexes:
        if indexes.presence(seen, index.name) in (Presence.ABSENT, Presence.FOREIGN):
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
