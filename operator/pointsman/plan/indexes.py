"""Which index a deployment wants, which of its indexes may serve, and what work they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import Role
from pointsman.core import names
from pointsman.core.rows import Cursor
from pointsman.plan import words
from pointsman.plan.facts import Facts, Index, IndexRecord
from pointsman.plan.observed import Begun, Deployment, Embedded, Physical, PodJob, Presence, Problem
from pointsman.plan.tasks import Build, Check, Follow, IndexTask, Phase, Repair

IN_FLIGHT = timedelta(minutes=2)
"""How long what was sent to a database may take to arrive."""
TRIES = 6
"""After how many failures in a row, for a reason that lies in what is loaded, pods are to load a newer snapshot."""
_OF_CONTENT = frozenset({Reason.BACKEND_REJECTED, Reason.INTERNAL_ERROR, Reason.SNAPSHOT_NOT_FOUND})


@dataclass(frozen=True, slots=True)
class Target:
    """What the spec wants to serve, with everything resolved."""

    version: str
    recipe: str
    parameters: str
    frozen: int | None
    snapshot: int
    """The snapshot to be at: the pinned one, or the newest that is embedded."""


def target(seen: Deployment) -> Target | str:
    """Return the target, or the name of the version that cannot be one yet; see `why_no_target`."""
    version = seen.spec.version
    recipe = seen.dataset.pins.get(version)
    if recipe is None:
        return version
    embedded = newest(seen, recipe.key)
    if seen.spec.snapshot is not None:
        embedded = at(seen, recipe.key, seen.spec.snapshot)
    if embedded is None:
        return version
    return Target(version, recipe.key, seen.parameters, seen.spec.snapshot, embedded.snapshot)


def why_no_target(seen: Deployment, version: str) -> tuple[Reason, str, ConditionType]:
    """Return why there is no target: a reason, a clause, and whether only an edit can mend it."""
    view, name = seen.dataset, seen.spec.dataset_ref.name
    if view.problem is not None:
        kind = ConditionType.STALLED if view.problem.is_terminal else ConditionType.RECONCILING
        return view.problem.reason, f"dataset {name} cannot be looked at: {view.problem.message}", kind
    if not view.exists and version not in view.pins:
        return Reason.DATASET_NOT_FOUND, f"dataset {name} is not there", ConditionType.STALLED
    if version not in view.pins and version not in view.declared:
        declared = ", ".join(view.declared)
        message = f"dataset {name} declares no version {version}, only {declared}"
        return Reason.VERSION_NOT_FOUND, message, ConditionType.STALLED
    pinned, numbers = seen.spec.snapshot, tuple(s.number for s in view.snapshots)
    if pinned is not None and numbers and pinned not in numbers:
        message = f"dataset {name} has no snapshot {pinned}, only {_ranges(numbers)}"
        return Reason.SNAPSHOT_NOT_FOUND, message, ConditionType.STALLED
    if view.stalled:
        message = f"dataset {name} cannot go on: {view.stalled}"
        return Reason.WAITING_FOR_DATASET, message, ConditionType.STALLED
    what = f"{version}@{pinned}" if pinned is not None else version
    progress = f" ({view.progress})" if view.progress else ""
    return Reason.WAITING_FOR_DATASET, f"{what} is not embedded yet{progress}", ConditionType.RECONCILING


def name(seen: Deployment, wanted: Target, number: int) -> str:
    """Return the physical name of a deployment's next index; the number makes it one that was never used."""
    key, parameters = seen.key, f"{wanted.parameters}/{wanted.frozen}"
    return names.physical_name(key.namespace, key.name, seen.uid, wanted.version, wanted.recipe, parameters, number)


def matches(index: Index, wanted: Target) -> bool:
    """Return whether an index is what the target asks for, wherever it has come."""
    identity = (index.recipe, index.parameters, index.frozen)
    return index.role is not Role.RETIRING and identity == (wanted.recipe, wanted.parameters, wanted.frozen)


def find(seen: Deployment, facts: Facts, wanted: Target) -> Index | None:
    """Return the index that the target asks for: the serving one, a retained one, a candidate; a lost one last."""
    order = (Role.SERVING, Role.RETAINED, Role.CANDIDATE)

    def rank(index: Index) -> tuple[bool, int]:
        return is_lost(seen, index), order.index(index.role)

    return min((i for i in reversed(facts.indexes) if matches(i, wanted)), key=rank, default=None)


def presence(seen: Deployment, index: str) -> Presence:
    """Return whether an index was found in this run."""
    found = seen.physical.get(index)
    return Presence.UNKNOWN if found is None else found.presence


def unseen(seen: Deployment, index: Index) -> Problem | None:
    """Return what kept an index from being looked at in this run, if anything did."""
    found = seen.physical.get(index.name)
    return seen.problem if found is None else found.problem


def is_gone(seen: Deployment, index: Index) -> bool:
    """Return whether an index that was ours is not: it is missing, or another's stands in its place."""
    return presence(seen, index.name) in (Presence.ABSENT, Presence.FOREIGN)


def is_lost(seen: Deployment, index: Index) -> bool:
    """Return whether an index that was made is gone. A candidate without a record is only about to be made."""
    return is_gone(seen, index) and (index.role is not Role.CANDIDATE or index.name in seen.records)


def elsewhere(seen: Deployment) -> Problem | None:
    """Return what is wrong where the spec names a database that lacks the indexes which were made in another.

    A database may move: then the index that serves, or while all is removed one that retires, is found where it moved.
    """
    anchors = (index for role in (Role.SERVING, Role.RETIRING) for index in seen.facts.indexes if index.role is role)
    anchor = next(anchors, None)
    if anchor is None or anchor.address in ("", seen.address) or not is_gone(seen, anchor):
        return None
    message = (
        f"spec.backend names {seen.address}, which does not hold index {anchor.name}, last found at {anchor.address}; "
        f"change it back, or declare another IndexDeployment for {seen.address}"
    )
    if anchor.role is Role.SERVING:
        message += f"; {anchor.version} stays on the route"
    return Problem(Reason.INDEX_ELSEWHERE, message, is_terminal=True)


def cursor(seen: Deployment, index: Index) -> Cursor | None:
    """Return how far an index has come; None for one that was never complete, or is between two snapshots."""
    record = seen.records.get(index.name)
    return None if record is None or record.pending is not None else record.cursor


def is_miscounted(record: IndexRecord, found: Physical) -> bool:
    """Return whether an index was counted, while nothing moves it, and does not hold the rows that it should."""
    return record.pending is None and found.rows not in (None, record.rows)


def may_serve(seen: Deployment, index: Index) -> bool:
    """Return whether queries may go to an index: verified by a full scan once, at a snapshot, ours, complete now."""
    record, physical = seen.records.get(index.name), seen.physical.get(index.name)
    if record is None or physical is None or record.verified_at is None or record.differences:
        return False
    # Where nothing works on it and it was not counted, an edit is looked at, and the look before it found it whole.
    is_idle = words.running(seen.work, f"index {index.name}") is None
    is_whole = physical.rows == record.rows or (physical.rows is None and is_idle)
    return physical.presence is Presence.PRESENT and is_whole and cursor(seen, index) is not None


def may_answer(seen: Deployment, index: Index) -> bool:
    """Return whether an index holds something worth asking: it was whole once, and is there."""
    record = seen.records.get(index.name)
    is_whole = record is not None and record.verified_at is not None and not record.differences
    return is_whole and presence(seen, index.name) is Presence.PRESENT


def may_take_over(seen: Deployment, facts: Facts, index: Index, now: datetime, lag_is_accepted: bool = False) -> bool:
    """Return whether a switch to an index would be safe: it may serve, and nothing that serves now is lost by it.

    It need not be at the newest snapshot: a rollback does not wait for content that nobody has seen yet.
    """
    return may_serve(seen, index) and (lag_is_accepted or is_no_step_back(seen, facts, index, now))


def held(seen: Deployment, index: Index) -> Cursor | None:
    """Return where an index was last whole: it holds at least that while it moves on."""
    record = seen.records.get(index.name)
    return None if record is None else record.cursor


def lag(seen: Deployment, index: Index, now: datetime) -> timedelta:
    """Return how far behind the dataset an index is: the age of the oldest snapshot that it lacks."""
    where = held(seen, index)
    lacking = [s.created_at for s in seen.dataset.snapshots if where is None or s.number > where.snapshot]
    return max(timedelta(0), now - min(lacking)) if lacking else timedelta(0)


def is_no_step_back(seen: Deployment, facts: Facts, index: Index, now: datetime) -> bool:
    """Return whether a switch would lose no content that serves now, or no more than the spec lets pass as current.

    A frozen index is a wanted step back, and a lost index has nothing to lose.
    """
    serving = facts.serving
    if index.frozen is not None or serving is None or is_gone(seen, serving):
        return True
    here, there = held(seen, index), held(seen, serving)
    if there is None or (here is not None and here.snapshot >= there.snapshot):
        return True
    return lag(seen, index, now) <= base.parse_duration(seen.spec.max_lag)


def is_suspended(seen: Deployment, facts: Facts) -> bool:
    """Return whether forward motion is: by the spec, and not while what serves is gone and there is nothing to keep."""
    return seen.spec.suspend and (facts.serving is None or not is_gone(seen, facts.serving))


def wanted(seen: Deployment, facts: Facts, asked: Target | str) -> Index | None:
    """Return the index that the spec asks for; None where it asks for none that could be there."""
    return find(seen, facts, asked) if isinstance(asked, Target) else None


def work(seen: Deployment, facts: Facts, chosen: Index | None, now: datetime) -> list[IndexTask]:
    """Return the tasks to start now: at most one for each index, none on an index that is being worked on.

    All of them read the dataset: while its store is away none could do anything but fail.
    """
    tasks: list[IndexTask] = []
    if seen.dataset.problem is not None:
        return tasks
    for index in facts.indexes:
        if presence(seen, index.name) is Presence.FOREIGN or words.running(seen.work, f"index {index.name}"):
            continue
        task = _next(seen, facts, index, index == chosen, now)
        if task is not None and _may_start(seen, task, now):
            tasks.append(task)
    return tasks


def _next(seen: Deployment, facts: Facts, index: Index, is_wanted: bool, now: datetime) -> IndexTask | None:
    if index.role is Role.RETIRING or (index.role is Role.CANDIDATE and not is_wanted):
        return None
    goal = at(seen, index.recipe, index.frozen) if index.frozen is not None else newest(seen, index.recipe)
    if goal is None:
        return None
    record = seen.records.get(index.name)
    is_there = presence(seen, index.name) is Presence.PRESENT
    if record is None or record.cursor is None or record.verified_at is None:
        # A candidate is made; what has served and is gone is not made again under its name.
        is_due = not is_suspended(seen, facts) if index.role is Role.CANDIDATE else is_there
        is_due = is_due and not is_unlisted(seen, index)
        return _task(Build, seen, index, _under_way(seen, index) or goal.snapshot) if is_due else None
    if not is_there:
        return None
    if at(seen, index.recipe, record.cursor.snapshot) is None:
        # There is nothing left to take a difference from, so what is there is compared with what should be.
        return _task(Build, seen, index, goal.snapshot)
    if record.pending is not None:
        # A move was cut short. It is finished to where it went, or, where that snapshot is gone, mended by comparison.
        there = at(seen, index.recipe, record.pending) is not None
        return _task(Follow, seen, index, record.pending) if there else _task(Build, seen, index, goal.snapshot)
    if record.differences:
        return _task(Repair, seen, index, record.cursor.snapshot)
    if is_miscounted(record, seen.physical[index.name]):
        return _task(Check, seen, index, record.cursor.snapshot)
    if record.cursor.snapshot < goal.snapshot:
        return _task(Follow, seen, index, goal.snapshot)
    last = record.checked_at or record.verified_at
    is_due = index.role is not Role.CANDIDATE and now - last >= base.parse_duration(seen.spec.check.every)
    return _task(Check, seen, index, record.cursor.snapshot) if is_due or is_in_doubt(seen, index, now) else None


def live_jobs(seen: Deployment) -> list[PodJob]:
    """Return the Jobs whose pods are at work, or wait to be, and not about to be gone."""
    return [job for job in seen.jobs if job.index and not job.is_ended and job.going_since is None]


def is_unlisted(seen: Deployment, index: Index) -> bool:
    """Return whether pods may be loading an index, and nobody knows: begun now, all would be loaded anew."""
    is_for_pods = index.role is Role.CANDIDATE and held(seen, index) is None and seen.dataset.is_for_pods
    return is_for_pods and seen.unlisted is not None


def _under_way(seen: Deployment, index: Index) -> int | None:
    """Return the snapshot that pods are loading into an index, or have begun to; None where that is not gone on with.

    What has taken hours is not thrown away for a newer snapshot, whatever stopped it: the rest is a difference, later.
    """
    if not seen.dataset.is_for_pods:
        return None
    found = [job.snapshot for job in live_jobs(seen) if job.index == index.name]
    begun = seen.dataset.begun.get(index.name)
    is_there = presence(seen, index.name) is Presence.PRESENT
    if begun is not None and is_there and not _is_hopeless(seen, index, begun):
        found.append(begun.snapshot)
    return next((number for number in found if at(seen, index.recipe, number) is not None), None)


def _is_hopeless(seen: Deployment, index: Index, begun: Begun) -> bool:
    """Return whether what was begun fails again and again for what another snapshot may mend."""
    if begun.fruitless >= TRIES:
        return True
    for done in seen.work:
        if done.task.subject == f"index {index.name}" and isinstance(done.task, Build) and done.failure is not None:
            is_of_it = done.task.snapshot == begun.snapshot and done.failure.reason in _OF_CONTENT
            return is_of_it and done.failure.attempts >= TRIES
    return False


def is_in_doubt(seen: Deployment, index: Index, now: datetime) -> bool:
    """Return whether what others had sent may have arrived since an index was last compared.

    Of another operator's workers: only what was written to within a while before the Lease was taken can be in doubt;
    what was compared long before it rests. Of pods that loaded it, and ended without a word.
    """
    record = seen.records.get(index.name)
    if record is None:
        return False
    last = record.checked_at or record.verified_at
    due = doubt_ends(record)
    if due is not None and last is not None and last < due <= now:
        return True
    if seen.taken_over is None or now < seen.taken_over + IN_FLIGHT:
        return False
    moved = record.moved_at or record.verified_at
    was_written = moved is not None and moved >= seen.taken_over - IN_FLIGHT
    return last is not None and last < seen.taken_over + IN_FLIGHT and was_written


def doubt_ends(record: IndexRecord) -> datetime | None:
    """Return when an index that was verified in doubt is to be compared once more; None where it was not."""
    return None if record.doubted_at is None else record.doubted_at + IN_FLIGHT


def _task(kind: type[IndexTask], seen: Deployment, index: Index, snapshot: int) -> IndexTask:
    return kind(seen.key, seen.spec.dataset_ref.name, index.name, index.version, index.recipe, snapshot)


def _may_start(seen: Deployment, task: IndexTask, now: datetime) -> bool:
    for done in seen.work:
        if done.task.subject == task.subject and done.phase is Phase.FAILED and done.failure is not None:
            return done.generation != seen.edits or now >= done.failure.retry_at
    return True


def newest(seen: Deployment, recipe: str) -> Embedded | None:
    """Return the newest embedded snapshot of a recipe."""
    records = seen.dataset.embedded.get(recipe, ())
    return records[-1] if records else None


def at(seen: Deployment, recipe: str, snapshot: int) -> Embedded | None:
    """Return the embedded snapshot of a recipe with a number."""
    return next((e for e in seen.dataset.embedded.get(recipe, ()) if e.snapshot == snapshot), None)


def said(seen: Deployment, index: Index) -> str:
    """Return an index as people name it: `v8@12`."""
    where = cursor(seen, index)
    return f"{index.version}@{where.snapshot}" if where is not None else index.version


def _ranges(numbers: tuple[int, ...]) -> str:
    """Return numbers as people list them: `3 to 7, 12`."""
    return ", ".join(f"{a} to {b}" if a != b else str(a) for a, b in _runs(numbers))


def _runs(numbers: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    start = last = None
    for number in sorted(numbers):
        if last is not None and number == last + 1:
            last = number
            continue
        if start is not None and last is not None:
            yield start, last
        start = last = number
    if start is not None and last is not None:
        yield start, last
