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
from pointsman.plan.deployment_status import State, status, step
from pointsman.plan.facts import Facts, Index
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment, Plan, Presence
from pointsman.plan.tasks import Build, Follow, IndexTask, Phase, Work


def plan(seen: Deployment, now: datetime) -> Plan[api.DeploymentStatus]:
    """Return what to do for a deployment, what to say of it, and when to look again."""
    elsewhere = indexes.elsewhere(seen)
    if elsewhere is not None:
        # What was found in another database says nothing of the indexes: none of them counts as lost.
        seen = dataclasses.replace(seen, physical={}, problem=elsewhere)
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
    facts = _without_lost(seen, _found(seen))
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
    state = _state(seen, facts, target, work, now)
    said = status(seen, facts, state, now, step(seen, facts, target, work))
    return Plan(tuple(todo), said, _look_again(seen, facts, bool(todo), now))


# The facts, one step after the other.


def _found(seen: Deployment) -> Facts:
    """Record where the indexes were found, so that another database is not taken for theirs."""
    found = (
        dataclasses.replace(index, address=seen.address)
        if indexes.presence(seen, index.name) is Presence.PRESENT
        else index
        for index in seen.facts.indexes
    )
    return dataclasses.replace(seen.facts, indexes=tuple(found))


def _without_lost(seen: Deployment, facts: Facts) -> Facts:
    """Forget indexes that are gone from the database. The serving one is kept on the books until another serves.

    Where nothing of ours was found, the database itself may be gone, or another for a while: what has served is kept.
    """
    is_ours = any(found.presence is Presence.PRESENT for found in seen.physical.values())
    for index in facts.indexes:
        may_go = index.role is Role.CANDIDATE or (index.role is not Role.SERVING and is_ours)
        if may_go and indexes.is_lost(seen, index):
            facts = facts.without(index.name)
    return facts


def _switched(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> Facts:
    """Point queries at the target once it may serve; away from a lost index to whatever retained one may."""
    serving = facts.serving
    if isinstance(target, Target):
        wanted = indexes.find(seen, facts, target)
        if wanted is not None and wanted != serving:
            may_move = wanted.role is Role.RETAINED or not indexes.is_suspended(seen, facts)
            if may_move and indexes.may_take_over(seen, facts, wanted, now):
                return _to(seen, facts, wanted, now)
    if serving is not None and indexes.is_gone(seen, serving):
        for index in reversed(facts.indexes):
            if index.role is Role.RETAINED and indexes.may_serve(seen, index):
                return _to(seen, facts, index, now)
    return facts


def _to(seen: Deployment, facts: Facts, index: Index, now: datetime) -> Facts:
    """Switch to an index, and forget the one that served before where it was lost: there is nothing to retain."""
    where, before = indexes.cursor(seen, index), facts.serving
    facts = facts.switched(index, where.snapshot if where is not None else 0, now)
    return facts.without(before.name) if before is not None and indexes.is_gone(seen, before) else facts


def _with_candidate(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> Facts:
    """Put a new candidate on the books where nothing there is what the spec wants."""
    if isinstance(target, str):
        return facts
    wanted = indexes.find(seen, facts, target)
    if (wanted is not None and not indexes.is_lost(seen, wanted)) or indexes.is_suspended(seen, facts):
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
    """Record that indexes retire whose time is over: never the serving one, never the one that the spec wants.

    None retires by time while what serves was not found in this run: it may be needed.
    """
    if isinstance(target, str):
        return facts
    left = [i for i in facts.indexes if i.role is Role.CANDIDATE and not indexes.matches(i, target)]
    # Of the candidates left behind the last one is kept, for whoever comes back to it. The others have never served,
    # and every edit of the index parameters leaves one.
    for index in left[:-1]:
        facts = facts.put(dataclasses.replace(index, role=Role.RETIRING, since=now))
    serving = facts.serving
    if serving is None or indexes.presence(seen, serving.name) is not Presence.PRESENT:
        return facts
    after = base.parse_duration(seen.spec.retire.after)
    for index in facts.indexes:
        if index.role not in (Role.CANDIDATE, Role.RETAINED) or indexes.matches(index, target):
            continue
        # A candidate that was left behind counts from when it was begun: it has never served.
        if index.since is not None and now - index.since >= after:
            facts = facts.put(dataclasses.replace(index, role=Role.RETIRING, since=now))
    return facts


def _abandoned(seen: Deployment, facts: Facts, target: Target | str) -> list[actions.Action]:
    """Stop work on candidates that the spec wants no more, and on what retires.

    What a candidate holds is kept, and finished if it is wanted again.
    """
    if isinstance(target, str):
        return []
    wanted = indexes.find(seen, facts, target)
    left = [i for i in facts.indexes if i.role in (Role.CANDIDATE, Role.RETIRING) and i != wanted]
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


def _state(seen: Deployment, facts: Facts, target: Target | str, work: list[IndexTask], now: datetime) -> State:
    serving, lost = facts.serving, seen.facts.serving
    serves = _serves(seen, serving)
    if isinstance(target, str):
        reason, message, kind = indexes.why_no_target(seen, target)
        return kind, reason, f"{message}; {serves}"
    wanted = indexes.find(seen, facts, target)
    if wanted is not None and wanted != serving and indexes.presence(seen, wanted.name) is Presence.FOREIGN:
        message = f"collection {wanted.name} exists and is not ours; remove or rename it; {serves}"
        return ConditionType.STALLED, Reason.COLLECTION_FOREIGN, message
    failure = words.failure(seen.work, f"index {wanted.name}") if wanted is not None else None
    if lost is not None and indexes.is_gone(seen, lost):
        instead = serves if serving != lost else "a new one is being built" if failure is None else failure.message
        kind = ConditionType.STALLED if failure is not None and failure.is_terminal else ConditionType.RECONCILING
        return kind, Reason.INDEX_LOST, f"index {lost.name} is gone from the database; {instead}"
    problem = indexes.unseen(seen, wanted) if wanted is not None else None
    if wanted is not None and problem is not None:
        kind = ConditionType.STALLED if problem.is_terminal else ConditionType.RECONCILING
        return kind, problem.reason, f"index {wanted.name} could not be looked at: {problem.message}; {serves}"
    if failure is not None:
        kind = ConditionType.STALLED if failure.is_terminal else ConditionType.RECONCILING
        return kind, failure.reason, f"{failure.message}; {serves}"
    if serving is not None and wanted == serving:
        differs = _differs(seen, serving)
        if differs:
            return ConditionType.RECONCILING, Reason.INDEX_DIFFERS, differs
        return ConditionType.READY, Reason.UP_TO_DATE, f"serving {indexes.said(seen, serving)}"
    if wanted is None or (wanted.role is Role.CANDIDATE and indexes.is_suspended(seen, facts)):
        return ConditionType.RECONCILING, Reason.SUSPENDED, f"suspended by the spec before {target.version}; {serves}"
    running = words.running(seen.work, f"index {wanted.name}")
    task = running.task if running is not None else next((t for t in work if t.index == wanted.name), None)
    if task is None:
        lag = words.duration(indexes.lag(seen, wanted, now))
        message = (
            f"{indexes.said(seen, wanted)} is {lag} behind, spec.maxLag is {seen.spec.max_lag}; it catches up as soon "
            f"as its snapshot is embedded; raise spec.maxLag to switch at once; {serves}"
        )
        return ConditionType.RECONCILING, Reason.FOLLOWING, message
    share = _share(running)
    match task:
        case Follow():
            message = f"{target.version} catches up with snapshot {task.snapshot}{share}; {serves}"
            return ConditionType.RECONCILING, Reason.FOLLOWING, message
        case Build():
            message = f"{target.version}@{task.snapshot} is being built from stored vectors{share}; {serves}"
            return ConditionType.RECONCILING, Reason.BUILDING, message
        case _:
            return ConditionType.RECONCILING, Reason.BUILDING, f"{target.version} is being verified; {serves}"


def _serves(seen: Deployment, serving: Index | None) -> str:
    """Return the clause about what answers queries meanwhile: `normally` is said where that is known."""
    if serving is None:
        return "nothing serves yet"
    if indexes.is_gone(seen, serving):
        return f"nothing answers, as index {serving.name} is gone from the database"
    if indexes.unseen(seen, serving) is not None:
        return f"{serving.version} stays on the route"
    failure = words.failure(seen.work, f"index {serving.name}")
    if failure is not None or _differs(seen, serving):
        return f"serving {indexes.said(seen, serving)}"
    return f"serving {serving.version} normally"


def _differs(seen: Deployment, index: Index) -> str:
    """Return what is wrong with the content of an index that is there, as a clause; empty where nothing is."""
    record, found = seen.records.get(index.name), seen.physical[index.name]
    if record is None or record.pending is not None:
        return ""
    if record.differences:
        return f"{record.differences:,} rows of {index.name} differ from its snapshot; they are being repaired"
    if indexes.is_miscounted(record, found):
        return f"{index.name} holds {found.rows:,} rows, its snapshot {record.rows:,}; it is being compared"
    return ""


def _share(running: Work | None) -> str:
    """Return how far work has come, for people: ` (40 of 112 rows, 3s left)`."""
    if running is None or not running.total:
        return ""
    remaining = words.progress(running).remaining
    left = f", {remaining} left" if remaining else ""
    return f" ({running.done:,} of {running.total:,} rows{left})"


def _look_again(seen: Deployment, facts: Facts, acted: bool, now: datetime) -> timedelta:
    if facts != seen.facts:
        return words.AT_ONCE
    if acted or any(work.phase is Phase.RUNNING for work in seen.work):
        return words.SOON
    waits = [work.failure.retry_at - now for work in seen.work if work.failure is not None]
    check = base.parse_duration(seen.spec.check.every)
    after = base.parse_duration(seen.spec.retire.after)
    for index in facts.indexes:
        record = seen.records.get(index.name)
        if record is not None and record.checked_at is not None:
            waits.append(record.checked_at + check - now)
        if index.role in (Role.RETAINED, Role.CANDIDATE) and index.since is not None:
            waits.append(index.since + after - now)
    # What is due and was not started is held back by something else: looking again at once would not help it.
    return min((wait for wait in waits if timedelta(0) < wait < words.AT_REST), default=words.AT_REST)


# How it goes.


def _delete(seen: Deployment, since: datetime, now: datetime) -> Plan[api.DeploymentStatus]:
    """Withdraw the route, then remove index after index; let go when the deadline has passed."""
    if not seen.has_finalizer:
        return Plan((), seen.status, words.AT_REST)
    remaining = since + seen.deadline - now
    stop: tuple[actions.Action, ...] = (actions.CancelWork(seen.key),) if seen.work else ()
    state = (ConditionType.RECONCILING, Reason.DELETING, _removing(seen, remaining))
    said = status(seen, seen.facts, state, now)

    # Whatever keeps failing below, it fails until then and no longer.
    if remaining <= timedelta(0):
        return Plan((*stop, actions.RemoveFinalizer(seen.key, _left(seen))), said, words.AT_REST)
    if seen.published is not None:
        return Plan((*stop, *routes.withdraw(seen)), said, words.AT_ONCE)
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
