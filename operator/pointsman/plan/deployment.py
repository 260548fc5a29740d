"""What to do next for an IndexDeployment.

An index goes one way through its roles, and every switch, forward or back, is the same step:

    (none) ──build──> Candidate ──switch──> Serving ──switch──> Retained ──after──> Retiring ──> (gone)
                          │                    ^                    │
                          └──left behind───────┼────────────────────┼──after──> Retiring
                                               └──────switch────────┘

A version that has not proven itself comes to its switch by the road of `rollout`; every other index needs one shift.

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
from pointsman.api.deployment import Role, Verdict
from pointsman.plan import (
    actions,
    answers,
    approvals,
    burn_in,
    deployment_state,
    drill,
    gates,
    indexes,
    loading,
    removal,
    retirement,
    rollout,
    routes,
    scores,
    silence,
    streams,
    traffic,
    words,
)
from pointsman.plan.deployment_status import stage, status
from pointsman.plan.facts import Facts, Index
from pointsman.plan.gates import Pair
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment, Plan, Presence, Problem
from pointsman.plan.tasks import Follow, IndexTask, Phase


def plan(seen: Deployment, now: datetime) -> Plan[api.DeploymentStatus]:
    """Return what to do for a deployment, what to say of it, and when to look again."""
    elsewhere = indexes.elsewhere(seen)
    if elsewhere is not None:
        # What was found in another database says nothing of the indexes: none of them counts as lost.
        seen = dataclasses.replace(seen, physical={}, problem=elsewhere)
    if seen.deleting_since is not None:
        return removal.plan(seen, seen.deleting_since, now)
    if not seen.has_finalizer:
        state = (ConditionType.RECONCILING, Reason.ACCEPTED, "seen for the first time")
        return Plan((actions.AddFinalizer(seen.key),), status(seen, seen.facts, state, now), words.AT_ONCE)
    target = indexes.target(seen)
    if seen.problem is not None:
        return _unseen(seen, seen.problem, target, now)
    written, seen = seen.streams, _followed(seen, now)
    facts = _without_lost(seen, _found(seen))
    facts = _moved(seen, silence.followed(seen, facts, now), target, now)
    facts = drill.practised(seen, facts, now)
    facts = _with_candidate(seen, facts, target, now)
    if isinstance(target, Target):
        facts = retirement.marked(seen, facts, target, now)
    facts = _signed(seen, facts)
    known, seen = seen.scores, dataclasses.replace(seen, scores=scores.followed(seen, facts, now))

    todo: list[actions.Action] = []
    if facts != seen.facts:
        todo.append(actions.RecordFacts(seen.key, facts, after=seen.revision))
    if streams.is_worth_writing(written, seen.streams):
        todo.append(actions.RecordStreams(seen.key, seen.streams, after=seen.streams_revision))
    if scores.is_worth_writing(known, seen.scores, now):
        written_down = dataclasses.replace(seen.scores, written_at=now)
        todo.append(actions.RecordScores(seen.key, written_down, after=seen.scores_revision))
    todo += routes.publish(seen, facts)
    wanted = indexes.wanted(seen, facts, target)
    if isinstance(target, Target) and _is_refused(seen, facts, target, now):
        # What nobody may be sent to is not kept current.
        wanted = None
    unwanted = loading.unwanted(seen, facts, target)
    # Nothing begins beside pods that are told to stop just now.
    busy = {job.index for job in unwanted}
    work = [task for task in indexes.work(seen, facts, wanted, now) if task.index not in busy]
    work = [task for task in work if not _stands_still(seen, facts, task, now)]
    cancelled = list(loading.cancelled(seen, unwanted))
    todo += cancelled
    todo += [action for action in _abandoned(seen, facts, target) if action not in cancelled]
    todo += [actions.StartWork(task, seen.edits) for task in work]
    todo += [actions.StartWork(task, seen.edits) for task in answers.work(seen, facts, wanted, now)]
    todo += [actions.StartWork(task, seen.edits) for task in answers.probes(seen, facts, now)]
    # After what others need: a cluster that lets nobody delete Jobs ends the plan here.
    todo += [actions.DeleteJob(seen.key, job.name) for job in unwanted]
    todo += retirement.removal(seen)
    state = deployment_state.state(seen, facts, target, work, now)
    said = status(seen, facts, state, now, stage(seen, facts, target, work, now))
    return Plan(tuple(todo), said, _look_again(seen, facts, bool(todo), now))


def _stands_still(seen: Deployment, facts: Facts, task: IndexTask, now: datetime) -> bool:
    """Return whether an index is to stay at its snapshot while it is asked, and is not too far behind for that.

    Of a source that changes faster than it is evaluated no evaluation came to its end.
    """
    index, most = facts.get(task.index), max(answers.LONGEST, base.parse_duration(seen.spec.max_lag))
    is_asked = isinstance(task, Follow) and answers.is_asked(seen, task.index)
    return is_asked and index is not None and indexes.lag(seen, index, now) <= most


def _unseen(seen: Deployment, problem: Problem, target: Target | str, now: datetime) -> Plan[api.DeploymentStatus]:
    """Return what to do while no index can be looked at: what leads back needs no look, and everything else waits."""
    facts = _signed(seen, _moved(_followed(seen, now), seen.facts, target, now))
    kind = ConditionType.STALLED if problem.is_terminal else ConditionType.RECONCILING
    said = status(seen, facts, (kind, problem.reason, problem.message), now)
    if facts == seen.facts:
        return Plan((), said, timedelta(seconds=10))
    return Plan((actions.RecordFacts(seen.key, facts, after=seen.revision),), said, words.AT_ONCE)


# The facts, one step after the other.


def _followed(seen: Deployment, now: datetime) -> Deployment:
    """Take in what live queries have shown since it was last written down, while somebody has to know."""
    compared = rollout.pair(seen.facts)
    if seen.facts.rollout is None and seen.facts.burn_in is None:
        # Whoever is watched next is watched from the beginning, be it the same pair again.
        return dataclasses.replace(seen, streams=streams.over(seen.streams))
    if compared is None or compared.other is None or not seen.gateways:
        return seen
    return dataclasses.replace(seen, streams=streams.followed(seen, compared.index.name, compared.other.name, now))


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


def _moved(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> Facts:
    """Send queries where they belong: on along the road, back, or away from an index that is lost."""
    before = facts.serving
    facts = _kept_off(seen, _called_off(seen, facts, target, now), now)
    if facts.serving != before:
        return facts
    wanted = indexes.find(seen, facts, target) if isinstance(target, Target) else None
    if before is not None and indexes.is_gone(seen, before):
        facts = _rescued(seen, facts, wanted, now)
    is_aborted = approvals.aborted(seen, seen.spec.version, now) is not None
    if isinstance(target, Target) and wanted not in (None, before) and facts.serving == before and not is_aborted:
        facts = _towards(seen, facts, target, wanted, now)
    return burn_in.watched(seen, facts, now) if facts.serving == before else facts


def _called_off(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> Facts:
    """End the migration under way where its candidate is gone, or is not what the spec wants any more."""
    if facts.rollout is None:
        return facts
    candidate = facts.get(facts.rollout.index)
    if candidate is None or candidate.role is Role.RETIRING:
        return facts.called_off(now)
    if isinstance(target, Target):
        return facts if indexes.matches(candidate, target) else facts.called_off(now)
    is_wanted = (candidate.version, candidate.frozen) == (target, seen.spec.snapshot)
    return facts if is_wanted else facts.called_off(now)


def _towards(seen: Deployment, facts: Facts, target: Target, wanted: Index, now: datetime) -> Facts:
    """Go on to the index that the spec wants: by the road where it has to prove itself, else by one shift."""
    if rollout.is_needed(seen, facts, wanted):
        if facts.is_rejected(target.recipe, target.parameters, seen.spec.retry) is not None:
            return facts.called_off(now)
        return rollout.overdue(seen, rollout.advance(seen, facts, target, wanted, now), now)
    may_move = wanted.role is Role.RETAINED or not indexes.is_suspended(seen, facts)
    lag_is_accepted = approvals.accepts_lag(seen, target.version, now) is not None
    if not may_move or not indexes.may_take_over(seen, facts, wanted, now, lag_is_accepted):
        return facts
    if facts.serving is not None:
        return _to(seen, facts, wanted, now)
    held = gates.canaries_find_what_they_must(seen, Pair(wanted, None), now)
    if held is None or held.verdict is Verdict.PASSED:
        return _to(seen, facts, wanted, now)
    # The one gate that needs no comparison keeps the first index of all from serving, unless a person lets it pass.
    approval = approvals.approved(seen, facts, approvals.plan_hash(seen, facts, target), held.gate, now)
    if approval is None:
        return facts
    return _to(seen, approvals.used(facts, approval), wanted, now)


def _kept_off(seen: Deployment, facts: Facts, now: datetime) -> Facts:
    """Send no query where a person does not want any, whatever the spec says; what serves alone stays."""
    candidate = None if facts.rollout is None else facts.get(facts.rollout.index)
    if candidate is not None and any(approvals.aborted(seen, v, now) for v in (candidate.version, seen.spec.version)):
        facts = facts.called_off(now)
    serving = facts.serving
    if serving is None or approvals.aborted(seen, serving.version, now) is None:
        return facts
    for index in _good_ones(seen, facts, now):
        if indexes.may_take_over(seen, facts, index, now) and not rollout.was_refused(seen, facts, index):
            return _to(seen, facts, index, now)
    return facts


def _rescued(seen: Deployment, facts: Facts, wanted: Index | None, now: datetime) -> Facts:
    """Send queries to the best index that there is, since what serves is gone: any answers more than none."""
    for index in _good_ones(seen, facts, now, *([] if wanted is None else [wanted])):
        if indexes.may_serve(seen, index):
            return _to(seen, facts, index, now)
    return facts


def _good_ones(seen: Deployment, facts: Facts, now: datetime, *wanted: Index) -> list[Index]:
    """Return what could serve, the best first: proven, then not rejected, then what the spec wants, then the youngest.

    What a person keeps queries off is none of them.
    """
    retained = [i for i in reversed(facts.indexes) if i.role is Role.RETAINED and i not in wanted]
    retained.sort(key=lambda i: i.since.timestamp() if i.since else 0.0, reverse=True)
    found = [i for i in (*wanted, *retained) if approvals.aborted(seen, i.version, now) is None]

    return sorted(found, key=lambda index: (index.proven_at is None, rollout.was_refused(seen, facts, index)))


def _to(seen: Deployment, facts: Facts, index: Index, now: datetime) -> Facts:
    """Switch to an index, and forget the one that served before where it was lost: there is nothing to retain.

    The first of all has nothing to prove itself against. Another snapshot of what serves is as proven as that, and
    takes its burn-in along.
    """
    where, before, burning, shadow = indexes.cursor(seen, index), facts.serving, facts.burn_in, facts.shadow
    is_same = before is not None and (before.recipe, before.parameters) == (index.recipe, index.parameters)
    if before is None or is_same:
        index = dataclasses.replace(index, proven_at=index.proven_at or (now if before is None else before.proven_at))
    facts = facts.switched(index, where.snapshot if where is not None else 0, now)
    if is_same and burning is not None and index.proven_at is None:
        told = traffic.answered(seen, index.name) - traffic.answered(seen, burning.index) + burning.queries
        burning = dataclasses.replace(burning, index=index.name, queries=told)
        facts = dataclasses.replace(facts, burn_in=burning, shadow=shadow)
    return facts.without(before.name) if before is not None and indexes.is_gone(seen, before) else facts


def _is_refused(seen: Deployment, facts: Facts, target: Target, now: datetime) -> bool:
    """Return whether the version that the spec wants was rejected, or is kept off by a person."""
    wanted, serving = indexes.find(seen, facts, target), facts.serving
    if approvals.aborted(seen, target.version, now) is not None:
        return True
    if facts.is_rejected(target.recipe, target.parameters, seen.spec.retry) is None or serving is None:
        return False
    return wanted is None or (wanted != serving and rollout.is_needed(seen, facts, wanted))


def _with_candidate(seen: Deployment, facts: Facts, target: Target | str, now: datetime) -> Facts:
    """Put a new candidate on the books where nothing there is what the spec wants."""
    if isinstance(target, str):
        return facts
    wanted = indexes.find(seen, facts, target)
    if (wanted is not None and not indexes.is_lost(seen, wanted)) or indexes.is_suspended(seen, facts):
        return facts
    if _is_refused(seen, facts, target, now) or seen.dataset.problem is not None:
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


def _signed(seen: Deployment, facts: Facts) -> Facts:
    """Put the writer's name under facts that it changes."""
    if facts == seen.facts:
        return facts
    # A route of an older epoch is refused by gateways.
    return dataclasses.replace(facts, epoch=max(seen.epoch, facts.epoch), holder=seen.holder)


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


def _look_again(seen: Deployment, facts: Facts, acted: bool, now: datetime) -> timedelta:
    if facts != seen.facts:
        return words.AT_ONCE
    if acted or any(work.phase is Phase.RUNNING for work in seen.work):
        return words.SOON
    waits = [work.failure.retry_at - now for work in seen.work if work.failure is not None]
    check = base.parse_duration(seen.spec.check.every)
    for index in facts.indexes:
        record, over = seen.records.get(index.name), retirement.due(seen, index)
        if record is not None and record.checked_at is not None:
            waits.append(record.checked_at + check - now)
        if record is not None and (doubt := indexes.doubt_ends(record)) is not None:
            waits.append(doubt - now)
        if seen.taken_over is not None:
            waits.append(seen.taken_over + indexes.IN_FLIGHT - now)
        if index.role in (Role.RETAINED, Role.CANDIDATE) and over is not None:
            waits.append(over - now)
    waiting, ends = rollout.wait(seen, facts, now), burn_in.ends(seen, facts)
    waits += [] if ends is None else [ends - now]
    waits += [] if waiting is None else rollout.looks(waiting, now)
    if facts.drill is not None and facts.drill.done_at is None:
        waits.append(words.SOON)
    if seen.dataset.problem is not None or seen.unlisted is not None:
        # Nothing tells when a store, or a right, is back.
        waits.append(timedelta(seconds=10))
    waits += [approval.spec.expires_at - now for approval in seen.approvals]
    waits += answers.due(seen, facts, now)
    # What is due and was not started is held back by something else: looking again at once would not help it.
    return min((wait for wait in waits if timedelta(0) < wait < words.AT_REST), default=words.AT_REST)
