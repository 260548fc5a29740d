"""What to do next for an EmbeddingDataset.

Pins recipes, refreshes the source, embeds every version that is declared or in use, and cleans up what nothing refers
to. Knows nothing of how sources are read or models reached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api import conditions as conditions_api
from pointsman.api import dataset as api
from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.core.recipes import Recipe
from pointsman.plan import actions, embedding, words
from pointsman.plan.observed import Dataset, Embedded, Plan, Problem
from pointsman.plan.tasks import Clean, DatasetTask, Embed, Failure, Phase, Refresh, Work

_PODS = timedelta(seconds=5)
_OF_DOCUMENTS = (Reason.SOURCE_INVALID, Reason.MODEL_REJECTED)
"""What is wrong with documents, which those of another snapshot may not have."""
State = tuple[ConditionType, Reason, str]


def plan(seen: Dataset, now: datetime) -> Plan[api.DatasetStatus]:
    """Return what to do for a dataset, what to say of it, and when to look again."""
    if seen.deleting_since is not None:
        return _delete(seen, seen.deleting_since, now)
    if not seen.has_finalizer:
        state = (ConditionType.RECONCILING, Reason.ACCEPTED, "seen for the first time")
        return Plan((actions.AddFinalizer(seen.key),), _status(seen, state, now), words.AT_ONCE)

    pins = tuple(
        actions.PinRecipe(seen.key, version, recipe)
        for version, recipe in seen.recipes.items()
        if isinstance(recipe, Recipe) and version not in seen.pins
    )
    if pins:
        state = (ConditionType.RECONCILING, Reason.ACCEPTED, "recipes are being pinned")
        return Plan(pins, _status(seen, state, now), words.AT_ONCE)

    stopped = tuple(embedding.stops(seen))
    task = None if stopped else _next_task(seen, now)
    started = () if task is None else (actions.StartWork(task, seen.generation),)
    return Plan((*stopped, *started), _status(seen, _state(seen, now), now), _look_again(seen, task, now))


def _next_task(seen: Dataset, now: datetime) -> DatasetTask | None:
    """Return the task to start now, if nothing runs: what is cheap and asked for first.

    Pods that embed, or wait for a place, for hours keep neither the source from being read nor another version from
    being embedded; a clean-up waits for them. While pods end that nobody wants, nobody embeds beside them.
    """
    running = {work.task.subject for work in seen.work if work.phase is Phase.RUNNING}
    if (running and not embedding.by_pods(seen)) or seen.spec.suspend:
        return None
    is_ending = embedding.is_ending(seen, now)
    may = (task for task in _tasks(seen, now) if not (running and isinstance(task, Clean)))
    busy = embedding.recipes_under_way(seen)
    may = (task for task in may if not (isinstance(task, Embed) and (is_ending or task.recipe in busy)))
    return next((task for task in may if task.subject not in running and _may_start(task, seen, now)), None)


def _tasks(seen: Dataset, now: datetime) -> list[DatasetTask]:
    """Return all that is to be done, whether or not it may start now.

    What the clock asks for comes after embedding: a source that changes faster than its versions are embedded would
    otherwise keep the last of them waiting for ever.
    """
    refreshes = list(_refreshes(seen, now))
    asked = [task for task in refreshes if task.token.endswith("#asked")]
    by_clock = [task for task in refreshes if task not in asked]
    return [*asked, *embedding.embeds(seen), *by_clock, *_cleans(seen, now)]


def _refreshes(seen: Dataset, now: datetime) -> Iterator[Refresh]:
    token = _refresh_due(seen, now)
    if token is not None:
        yield Refresh(seen.key, token)


def _refresh_due(seen: Dataset, now: datetime) -> str | None:
    """Return what asks for a refresh: its first, an edited source, a person, or the clock."""
    # What counts as handled is read from the finished work as well: status is written after the plan is made.
    handled = {seen.status.refresh_handled}
    handled |= {w.task.token for w in seen.work if isinstance(w.task, Refresh) and w.phase is Phase.DONE}
    asked = f"{seen.source_digest}/{seen.refresh_token}"
    if not seen.snapshots or asked not in {token.rpartition("#")[0] for token in handled}:
        return f"{asked}#asked"
    if seen.spec.refresh is not None:
        last = _refreshed_at(seen)
        if last is None or now - last >= base.parse_duration(seen.spec.refresh.every):
            return f"{asked}#{'' if last is None else last.isoformat()}"
    return None


def _refreshed_at(seen: Dataset) -> datetime | None:
    done = [w.finished_at for w in seen.work if isinstance(w.task, Refresh) and w.phase is Phase.DONE]
    times = [time for time in (*done, seen.status.refreshed_at) if time is not None]
    return max(times, default=None)


def _cleans(seen: Dataset, now: datetime) -> Iterator[Clean]:
    """Yield a clean-up once a snapshot is out of retention and nothing refers to it."""
    if not seen.snapshots:
        return
    kept = _kept(seen, now)
    recipes = tuple(
        sorted({recipe.key for _, recipe in embedding.wanted(seen)} | {r for u in seen.users for r in u.recipes})
    )
    expired = {s.number for s in seen.snapshots} - set(kept)
    unused = {key for key, records in seen.embedded.items() if records} - set(recipes)
    if expired or unused:
        yield Clean(seen.key, kept, recipes)


def _kept(seen: Dataset, now: datetime) -> tuple[int, ...]:
    retention = seen.spec.retention
    young = now - base.parse_duration(retention.for_)
    numbers = {s.number for s in seen.snapshots if s.created_at > young}
    numbers |= {s.number for s in seen.snapshots[-retention.snapshots :]}
    numbers |= {number for user in seen.users for number in user.snapshots}
    # The newest embedded snapshot of each recipe is what the next one is made from.
    numbers |= {records[-1].snapshot for records in seen.embedded.values() if records}
    return tuple(sorted(numbers & {s.number for s in seen.snapshots}))


def _may_start(task: DatasetTask, seen: Dataset, now: datetime) -> bool:
    """Return whether the last failure of the same task has been waited out, or somebody has asked anew since."""
    for work in seen.work:
        if work.failure is not None and _alike(work.task, task):
            is_edited = work.generation != seen.generation or _asked(work.task) != _asked(task)
            is_edited |= work.failure.reason in _OF_DOCUMENTS and _number(work.task) != _number(task)
            return is_edited or now >= work.failure.retry_at
    return True


def _number(task: object) -> int:
    """Return the snapshot that an embedding is of; 0 for any other task."""
    return task.snapshot if isinstance(task, Embed) else 0


def _asked(task: object) -> str:
    """Return what a refresh was asked for by; empty for any other task."""
    return task.token.rpartition("#")[0] if isinstance(task, Refresh) else ""


def _alike(one: object, other: object) -> bool:
    """Return whether two tasks are of a kind and about the same version."""
    return type(one) is type(other) and getattr(one, "version", None) == getattr(other, "version", None)


# What to say.


def _state(seen: Dataset, now: datetime) -> State:
    """Return the one of Ready, Reconciling and Stalled that holds, with its reason and sentence."""
    snapshot = f"snapshot {seen.snapshots[-1].number} stays current" if seen.snapshots else "there is no snapshot yet"
    for version, recipe in seen.recipes.items():
        if isinstance(recipe, Problem):
            return _of_problem(recipe)
        if seen.pins.get(version, recipe) != recipe:
            return ConditionType.STALLED, Reason.VERSION_REDEFINED, redefined(version, seen.pins[version], recipe)
    declared = {version.name for version in seen.spec.versions}
    # A name that was never pinned was never here: that is for the deployment to say.
    removed = [(u.name, name) for u in seen.users for name in u.needs if name in seen.pins and name not in declared]
    if removed:
        user, version = removed[0]
        message = f"{version} was removed and is used by {user}; the pinned recipe serves on; declare it again"
        return ConditionType.STALLED, Reason.VERSION_IN_USE, message
    if seen.spec.suspend:
        return ConditionType.RECONCILING, Reason.SUSPENDED, f"suspended by the spec; {snapshot}"
    waits = next((work.wait for work in seen.work if work.phase is Phase.RUNNING and work.wait is not None), None)
    if waits is not None:
        return ConditionType.RECONCILING, waits.reason, f"{waits.message}; {snapshot}"
    failed = _failed(seen, now)
    if failed is not None:
        kind = ConditionType.STALLED if failed.is_terminal else ConditionType.RECONCILING
        message = failed.message if "stays current" in failed.message else f"{failed.message}; {snapshot}"
        return kind, failed.reason, message
    if not seen.snapshots:
        return ConditionType.RECONCILING, Reason.REFRESHING, "the source is being read for the first time"
    behind = [name for name, recipe in _declared(seen) if not seen.embedded.get(recipe.key)]
    if behind:
        return ConditionType.RECONCILING, Reason.EMBEDDING, f"{', '.join(behind)} is being embedded for the first time"
    # Routine refreshes do not take Ready away: a newer snapshot is work, not a fault.
    return ConditionType.READY, Reason.UP_TO_DATE, _ready_message(seen)


def _ready_message(seen: Dataset) -> str:
    newest = seen.snapshots[-1]
    behind = [name for name, recipe in _declared(seen) if not embedding.has(seen, recipe.key, newest.number)]
    what = f"snapshot {newest.number} with {newest.documents:,} documents"
    return f"{what}; {', '.join(behind)} follows" if behind else what


def _declared(seen: Dataset) -> Iterator[tuple[str, Recipe]]:
    for version in seen.spec.versions:
        if version.name in seen.pins:
            yield version.name, seen.pins[version.name]


def redefined(version: str, pinned: Recipe, declared: Recipe) -> str:
    """Return the sentence about a name that was used before for another recipe."""
    before, after = dataclasses.asdict(pinned), dataclasses.asdict(declared)
    differs = [field for field in before if before[field] != after[field]]
    if differs == ["chunker"] and before["chunker"]["version"] != after["chunker"]["version"]:
        what = (
            f"was chunked by {before['chunker']['name']} {before['chunker']['version']} and this release has "
            f"{after['chunker']['version']}"
        )
    else:
        what = f"was pinned to another recipe (its {' and '.join(differs)} differ)"
    return f"{version} {what}; the pinned recipe serves on; declare the new one under a new name"


def _failed(seen: Dataset, now: datetime) -> Failure | None:
    """Return the failure that holds the dataset back: the last attempt's at something that is still to be done."""
    tasks = _tasks(seen, now)
    failures = (w.failure for task in tasks for w in seen.work if w.failure is not None and _alike(w.task, task))
    return next(failures, None)


def _of_problem(problem: Problem) -> State:
    kind = ConditionType.STALLED if problem.is_terminal else ConditionType.RECONCILING
    return kind, problem.reason, problem.message


def _status(seen: Dataset, state: State, now: datetime) -> api.DatasetStatus:
    newest = seen.snapshots[-1] if seen.snapshots else None
    running = next((work for work in seen.work if work.phase is Phase.RUNNING), None)
    conditions = words.goal(state, seen.generation, now)
    conditions.append(_available(seen, now))
    conditions.append(_source_reachable(seen, now))
    done = max(
        (w for w in seen.work if isinstance(w.task, Refresh) and w.phase is Phase.DONE and w.finished_at),
        key=lambda w: w.finished_at or now,
        default=None,
    )
    handled = seen.status.refresh_handled
    if done is not None and isinstance(done.task, Refresh):
        handled = done.task.token
    return api.DatasetStatus(
        observed_generation=seen.generation,
        conditions=conditions_api.merge(seen.status.conditions, conditions),
        effective=api.effective(seen.spec),
        phase=_phase(state, running),
        snapshot=newest.number if newest else 0,
        documents=newest.documents if newest else 0,
        digest=newest.digest if newest else "",
        refreshed_at=_refreshed_at(seen),
        refresh_handled=handled,
        last_handled_refresh=_annotation(handled),
        last_refused_refresh=next(_refused(seen), seen.status.last_refused_refresh),
        progress=words.progress(running) if running and not isinstance(running.task, Embed) else None,
        jobs=sorted(job.name for job in seen.jobs if not job.is_ended),
        versions=[
            _version(seen, name, recipe, embedding.of(seen, recipe) or running)
            for name, recipe in embedding.wanted(seen)
        ],
    )


def _refused(seen: Dataset) -> Iterator[str]:
    """Yield the refresh annotation for which the source was read last, if what it held was refused."""
    for work in seen.work:
        if isinstance(work.task, Refresh) and work.phase is Phase.FAILED and work.failure and work.failure.is_terminal:
            yield _annotation(work.task.token)


def _annotation(token: str) -> str:
    return token.rpartition("#")[0].partition("/")[2]


def _version(seen: Dataset, name: str, recipe: Recipe, running: Work | None) -> api.VersionStatus:
    records = seen.embedded.get(recipe.key, ())
    newest = records[-1] if records else Embedded(snapshot=0, sequence=0, documents=0, rows=0, digest="")
    is_running = running is not None and isinstance(running.task, Embed) and running.task.recipe == recipe.key
    return api.VersionStatus(
        name=name,
        recipe=recipe.key,
        space=recipe.space.key,
        model=api.ModelIdentity(
            name=newest.model or recipe.space.model,
            revision=newest.revision or recipe.space.revision,
            dimensions=recipe.space.dimensions,
        ),
        snapshot=newest.snapshot,
        documents=newest.documents,
        chunks=newest.rows,
        digest=newest.digest,
        embedded=newest.embedded,
        reused=newest.reused,
        changes=api.Changes.model_validate(dict(newest.changes)) if newest.changes else None,
        progress=words.progress(running) if running is not None and is_running else None,
    )


def _available(seen: Dataset, now: datetime) -> Condition:
    if seen.snapshots:
        newest = seen.snapshots[-1]
        message = f"snapshot {newest.number} is current"
        return words.condition(ConditionType.AVAILABLE, True, Reason.UP_TO_DATE, message, seen.generation, now)
    return words.condition(
        ConditionType.AVAILABLE, False, Reason.REFRESHING, "there is no snapshot yet", seen.generation, now
    )


SOURCE_REASONS = frozenset(
    {
        Reason.SOURCE_UNREACHABLE,
        Reason.SOURCE_UNAUTHORIZED,
        Reason.SOURCE_INVALID,
        Reason.FILE_NOT_ALLOWED,
        Reason.CREDENTIALS_REQUIRED,
    }
)


def _source_reachable(seen: Dataset, now: datetime) -> Condition:
    failed = _failed(seen, now)
    if failed is not None and failed.reason in SOURCE_REASONS:
        return words.condition(
            ConditionType.SOURCE_REACHABLE, False, failed.reason, failed.message, seen.generation, now
        )
    if _refreshed_at(seen) is None:
        return words.condition(
            ConditionType.SOURCE_REACHABLE, None, Reason.REFRESHING, "not read yet", seen.generation, now
        )
    return words.condition(
        ConditionType.SOURCE_REACHABLE, True, Reason.UP_TO_DATE, "read when last tried", seen.generation, now
    )


def _phase(state: State, running: Work | None) -> str:
    match running.task if running is not None else None:
        case Refresh():
            return "Refreshing"
        case Embed():
            return "Embedding"
        case Clean():
            return "CleaningUp"
    return {ConditionType.READY: "Ready", ConditionType.STALLED: "Stalled"}.get(state[0], "Pending")


def _look_again(seen: Dataset, starting: DatasetTask | None, now: datetime) -> timedelta:
    if starting is None and embedding.by_pods(seen) and any(not job.is_ended for job in seen.jobs):
        # Whoever looks at the pods wakes us where there is news.
        return _PODS
    if starting is not None or embedding.is_ending(seen, now) or any(work.phase is Phase.RUNNING for work in seen.work):
        return words.SOON
    waits = [work.failure.retry_at - now for work in seen.work if work.failure is not None]
    last = _refreshed_at(seen)
    if seen.spec.refresh is not None and last is not None:
        waits.append(last + base.parse_duration(seen.spec.refresh.every) - now)
    # What is due and was not started is held back by something else: looking again at once would not help it.
    return min((wait for wait in waits if timedelta(0) < wait < words.AT_REST), default=words.AT_REST)


# How it goes.


def _delete(seen: Dataset, since: datetime, now: datetime) -> Plan[api.DatasetStatus]:
    """Drop the store when nothing relies on it any more; keep it, and let go, when the deadline has passed."""
    if not seen.has_finalizer:
        state = (ConditionType.RECONCILING, Reason.DELETING, "gone")
        return Plan((), _status(seen, state, now), words.AT_REST)
    remaining = since + seen.deadline - now
    stop = (actions.CancelWork(seen.key),) if seen.work else ()
    status = _status(seen, (ConditionType.RECONCILING, Reason.DELETING, "being removed"), now)
    has_store = bool(seen.pins or seen.snapshots) and seen.spec.deletion_policy == "Delete"
    users = ", ".join(sorted(user.name for user in seen.users))
    # Whatever keeps failing below, it fails until then and no longer.
    if remaining <= timedelta(0):
        left = f"let go after {words.duration(seen.deadline)}, leaving behind its documents and vectors in the store"
        left += f", used by {users}" if users else ""
        return Plan((*stop, actions.RemoveFinalizer(seen.key, left if has_store else "")), status, words.AT_REST)
    if seen.users:
        state = (
            ConditionType.STALLED,
            Reason.VERSION_IN_USE,
            f"used by {users}; the pinned recipes serve on; delete the deployments first, or wait "
            f"{words.duration(seen.deadline)} after the deletion for the resource to go and its store to stay",
        )
        return Plan((), _status(seen, state, now), min(remaining, timedelta(seconds=10)))
    pods = [job for job in seen.jobs if not job.is_ended]
    stop = (*stop, *(actions.DeleteJob(seen.key, job.name) for job in pods if job.going_since is None))
    if pods or any(work.phase is Phase.RUNNING for work in seen.work):
        # What is still at work could write beside what is removed.
        return Plan(stop, status, min(remaining, words.SOON))
    if has_store:
        return Plan((*stop, actions.DropStore(seen.key)), status, words.AT_ONCE)
    return Plan((*stop, actions.RemoveFinalizer(seen.key)), status, words.AT_REST)
