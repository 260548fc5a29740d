"""What to say of a dataset: where it stands, what is in it, and what keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime

from pointsman.api import conditions as conditions_api
from pointsman.api import dataset as api
from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.core.recipes import Recipe
from pointsman.plan import dataset_tasks, embedding, words
from pointsman.plan.observed import Dataset, Embedded, Problem
from pointsman.plan.tasks import Clean, Embed, Phase, Refresh, Work

State = tuple[ConditionType, Reason, str]


def state(seen: Dataset, now: datetime) -> State:
    """Return the one of Ready, Reconciling and Stalled that holds, with its reason and sentence."""
    snapshot = f"snapshot {seen.snapshots[-1].number} stays current" if seen.snapshots else "there is no snapshot yet"
    for version, recipe in seen.recipes.items():
        if isinstance(recipe, Problem):
            return _of_problem(recipe)
        if seen.pins.get(version, recipe) != recipe:
            return ConditionType.STALLED, Reason.VERSION_REDEFINED, _redefined(version, seen.pins[version], recipe)
    declared = {version.name for version in seen.spec.versions}
    # A name that was never pinned was never here: that is for the deployment to say.
    used = [name for user in seen.users for name in user.needs if name in seen.pins and name not in declared]
    removed = tuple(dict.fromkeys(used))
    if removed:
        return ConditionType.STALLED, Reason.VERSION_IN_USE, _in_use(seen, removed)
    if seen.spec.suspend:
        return ConditionType.RECONCILING, Reason.SUSPENDED, f"suspended by the spec; {snapshot}"
    waits = next((work.wait for work in seen.work if work.phase is Phase.RUNNING and work.wait is not None), None)
    if waits is not None:
        return ConditionType.RECONCILING, waits.reason, f"{waits.message}; {snapshot}"
    failed = dataset_tasks.failed(seen, now)
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


def _in_use(seen: Dataset, removed: tuple[str, ...]) -> str:
    """Return the sentence about versions that are gone from the spec and in use."""
    named, more = removed[: words.NAMED], len(removed) - words.NAMED
    users = {name: words.names(user.name for user in seen.users if name in user.needs) for name in named}
    said = [f"{name} was removed and is used by {by}" for name, by in users.items()]
    said += [f"and {more:,} more"] if more > 0 else []
    wanted = "recipe serves on; declare it again" if len(removed) == 1 else "recipes serve on; declare them again"
    return f"{'; '.join(said)}; the pinned {wanted}"


def _ready_message(seen: Dataset) -> str:
    newest = seen.snapshots[-1]
    behind = [name for name, recipe in _declared(seen) if not embedding.has(seen, recipe.key, newest.number)]
    what = f"snapshot {newest.number} with {newest.documents:,} documents"
    return f"{what}; {', '.join(behind)} follows" if behind else what


def _declared(seen: Dataset) -> Iterator[tuple[str, Recipe]]:
    for version in seen.spec.versions:
        if version.name in seen.pins:
            yield version.name, seen.pins[version.name]


def _redefined(version: str, pinned: Recipe, declared: Recipe) -> str:
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


def _of_problem(problem: Problem) -> State:
    kind = ConditionType.STALLED if problem.is_terminal else ConditionType.RECONCILING
    return kind, problem.reason, problem.message


def status(seen: Dataset, state: State, now: datetime) -> api.DatasetStatus:
    """Return the whole status, as of a state of the dataset."""
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
        refreshed_at=dataset_tasks.refreshed_at(seen),
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
        cost=api.Cost(tokens=newest.tokens, estimated=newest.tokens - newest.tokens_stated) if newest.tokens else None,
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


_SOURCE_REASONS = frozenset(
    {
        Reason.SOURCE_UNREACHABLE,
        Reason.SOURCE_UNAUTHORIZED,
        Reason.SOURCE_INVALID,
        Reason.FILE_NOT_ALLOWED,
        Reason.CREDENTIALS_REQUIRED,
    }
)


def _source_reachable(seen: Dataset, now: datetime) -> Condition:
    failed = dataset_tasks.failed(seen, now)
    if failed is not None and failed.reason in _SOURCE_REASONS:
        return words.condition(
            ConditionType.SOURCE_REACHABLE, False, failed.reason, failed.message, seen.generation, now
        )
    if dataset_tasks.refreshed_at(seen) is None:
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
