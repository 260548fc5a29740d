"""Why a deployment is where it is: one sentence that says what serves apart from what is under way."""

from __future__ import annotations

from datetime import datetime

from pointsman.api import conditions
from pointsman.api.conditions import ConditionType, Reason, Status
from pointsman.api.deployment import Role, Verdict
from pointsman.plan import approvals, burn_in, gates, indexes, rollout, traffic, words
from pointsman.plan.deployment_status import State
from pointsman.plan.facts import Facts, Index
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment, Presence
from pointsman.plan.tasks import Build, Follow, IndexTask, Work


def state(seen: Deployment, facts: Facts, target: Target | str, work: list[IndexTask], now: datetime) -> State:
    """Return the one of Ready, Reconciling and Stalled that holds, with its reason and its sentence."""
    serving, lost = facts.serving, seen.facts.serving
    is_shared = facts.rollout is not None and facts.rollout.weight > 0
    serves = _weights(facts) if is_shared else _serves(seen, serving)
    if facts.silence is not None and serving is not None and not is_shared:
        serves = f"{serving.version} stays on the route, and does not answer"
    if isinstance(target, str):
        reason, message, kind = indexes.why_no_target(seen, target)
        return kind, reason, f"{message}; {serves}"
    wanted = indexes.find(seen, facts, target)
    refused = _refused(seen, facts, target, wanted, _serves(seen, serving), now)
    if refused is not None:
        return refused
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
    running = words.running(seen.work, f"index {wanted.name}") if wanted is not None else None
    if running is not None and running.wait is not None:
        # More than that the attempt before has failed.
        return ConditionType.RECONCILING, running.wait.reason, f"{running.wait.message}; {serves}"
    if wanted is not None and indexes.is_unlisted(seen, wanted) and seen.unlisted is not None:
        message = f"the Jobs that load {wanted.name} could not be looked at: {seen.unlisted.message}"
        return ConditionType.RECONCILING, seen.unlisted.reason, f"{message}; {serves}"
    if failure is not None:
        kind = ConditionType.STALLED if failure.is_terminal else ConditionType.RECONCILING
        return kind, failure.reason, f"{failure.message}; {serves}"
    if serving is not None and wanted == serving:
        differs = _differs(seen, serving)
        if differs:
            return ConditionType.RECONCILING, Reason.INDEX_DIFFERS, differs
        return _of_serving(seen, facts, serving, now)
    if seen.dataset.problem is not None and (wanted is None or wanted.role is Role.CANDIDATE):
        reason, message, kind = indexes.why_no_target(seen, target.version)
        return kind, reason, f"{message}; {serves}"
    if wanted is not None and facts.rollout is not None and facts.rollout.index == wanted.name:
        return _under_way(seen, facts, wanted, serves, now)
    if wanted is None or (wanted.role is Role.CANDIDATE and indexes.is_suspended(seen, facts)):
        return ConditionType.RECONCILING, Reason.SUSPENDED, f"suspended by the spec before {target.version}; {serves}"
    task = running.task if running is not None else next((t for t in work if t.index == wanted.name), None)
    if task is None and indexes.may_serve(seen, wanted) and (held := _held_back(seen, wanted, now)) is not None:
        return held
    if task is None:
        lag = words.duration(indexes.lag(seen, wanted, now))
        message = (
            f"{indexes.said(seen, wanted)} is {lag} behind, spec.maxLag is {seen.spec.max_lag}; it catches up as soon "
            f"as its snapshot is embedded; an Approval AcceptLag or a higher spec.maxLag switches at once; {serves}"
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


def _refused(
    seen: Deployment, facts: Facts, target: Target, wanted: Index | None, serves: str, now: datetime
) -> State | None:
    """Return the state where no query may go to the version that the spec wants: by its own answers, or by a person."""
    abort = approvals.aborted(seen, target.version, now)
    if abort is not None:
        until = f"{abort.spec.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        if facts.serving is not None and facts.serving.version == target.version:
            serves = f"nothing else could serve, so {facts.serving.version} does"
        message = f"Approval {abort.name} keeps queries off {target.version} until {until}; {serves}"
        return ConditionType.STALLED, Reason.TARGET_ABORTED, message
    rejection = facts.is_rejected(target.recipe, target.parameters, seen.spec.retry)
    if rejection is None or facts.serving is None or wanted == facts.serving:
        return None
    if wanted is not None and not rollout.is_needed(seen, facts, wanted):
        return None
    message = f"{serves}; {target.version} rejected: {rejection.message}; a new spec.retry would try it again"
    return ConditionType.STALLED, Reason.TARGET_REJECTED, message


def _of_serving(seen: Deployment, facts: Facts, serving: Index, now: datetime) -> State:
    """Return the state where what the spec wants serves. The burn-in takes nothing away from that."""
    said = f"serving {indexes.said(seen, serving)}"
    if seen.dataset.problem is not None:
        said += f", while {indexes.why_no_target(seen, serving.version)[1]}"
    unserved = traffic.why_not(seen, facts)
    if unserved and not _was_ready(seen, serving):
        message = f"{indexes.said(seen, serving)} is to serve, but {unserved}"
        return ConditionType.RECONCILING, Reason.ROUTE_NOT_ACCEPTED, message
    if facts.burn_in is None:
        found = burn_in.failing(seen, facts, now)
        if found is None and seen.dataset.problem is not None:
            # Queries miss nothing, but nothing new comes.
            return ConditionType.READY, seen.dataset.problem.reason, said
        if found is None:
            return ConditionType.READY, Reason.UP_TO_DATE, said
        # Past its burn-in nothing goes back by itself: somebody has to be told.
        return ConditionType.READY, Reason.GATE_FAILED, f"{said}, but {found.gate}: {found.message}"
    worse = facts.burn_in
    if worse.failed:
        message = f"{said}, which is worse: {worse.failed}; approve {worse.failed_by}, or change spec.version"
        return ConditionType.READY, Reason.GATE_FAILED, message
    refusal = approvals.rejected(seen, facts, now)
    if refusal is not None and burn_in.way_back(seen, facts, now) is None:
        message = f"{said}, which is {approvals.said(refusal)}, but nothing else may serve; change spec.version"
        return ConditionType.READY, Reason.REJECTED_BY_A_PERSON, message
    left = burn_in.left(seen, facts, now)
    until = f" {left}" if left.startswith(("for ", "until ")) else f"; {left}" if left else ""
    return ConditionType.READY, Reason.BURNING_IN, f"{said}, burning in{until}"


def _was_ready(seen: Deployment, serving: Index) -> bool:
    """Return whether it was said already that an index serves: a gateway that restarts takes nothing away from that."""
    ready = conditions.get(seen.status.conditions, ConditionType.READY)
    return ready is not None and ready.status is Status.TRUE and seen.status.serving_index == serving.name


def _under_way(seen: Deployment, facts: Facts, wanted: Index, serves: str, now: datetime) -> State:
    """Return the state of a migration between its steps."""
    road, found = facts.rollout, rollout.wait(seen, facts, now)
    assert road is not None
    if road.held:
        message = (
            f"{wanted.version} is held: {road.held}; approve {road.held_by or rollout.DEADLINE}, abort it, or change "
            f"spec.version; {serves}"
        )
        return ConditionType.STALLED, Reason.HELD, message
    if road.suspended_at is not None:
        return ConditionType.RECONCILING, Reason.SUSPENDED, f"suspended by the spec before {wanted.version}; {serves}"
    if found is None:
        return ConditionType.RECONCILING, Reason.SHIFTING, f"queries are being shifted to {wanted.version}; {serves}"
    return ConditionType.RECONCILING, found.reason, f"{wanted.version} waits: {found.message}; {serves}"


def _weights(facts: Facts) -> str:
    """Return the shares of the queries as a clause: `v8 10, v7 90`."""
    return "serving " + ", ".join(
        f"{index.version} {weight}" for name, weight in facts.weights.items() if (index := facts.get(name)) is not None
    )


def _held_back(seen: Deployment, first: Index, now: datetime) -> State | None:
    """Return the state where a gate keeps the first index of all from serving."""
    found = gates.canaries_find_what_they_must(seen, gates.Pair(first, None), now)
    if found is None or found.verdict is Verdict.PASSED:
        return None
    way_out = f"; approve {found.gate} to let it pass" if found.verdict is not Verdict.INCONCLUSIVE else ""
    message = f"{first.version} waits: {found.gate}: {found.message}{way_out}; nothing serves yet"
    if found.verdict is Verdict.FAILED:
        return ConditionType.STALLED, Reason.GATE_FAILED, message
    return ConditionType.RECONCILING, Reason.GATES_UNDECIDED, message


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
