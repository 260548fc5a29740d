"""What to do next for an EmbeddingDataset.

Pins recipes, refreshes the source, embeds every version that is declared or in use, and cleans up what nothing refers
to. Knows nothing of how sources are read or models reached.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.api import dataset as api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.core.recipes import Recipe
from pointsman.plan import actions, dataset_status, dataset_tasks, embedding, words
from pointsman.plan.observed import Dataset, Plan
from pointsman.plan.tasks import DatasetTask, Phase

_PODS = timedelta(seconds=5)


def plan(seen: Dataset, now: datetime) -> Plan[api.DatasetStatus]:
    """Return what to do for a dataset, what to say of it, and when to look again."""
    if seen.deleting_since is not None:
        return _delete(seen, seen.deleting_since, now)
    if not seen.has_finalizer:
        state = (ConditionType.RECONCILING, Reason.ACCEPTED, "seen for the first time")
        return Plan((actions.AddFinalizer(seen.key),), dataset_status.status(seen, state, now), words.AT_ONCE)

    pins = tuple(
        actions.PinRecipe(seen.key, version, recipe)
        for version, recipe in seen.recipes.items()
        if isinstance(recipe, Recipe) and version not in seen.pins
    )
    if pins:
        state = (ConditionType.RECONCILING, Reason.ACCEPTED, "recipes are being pinned")
        return Plan(pins, dataset_status.status(seen, state, now), words.AT_ONCE)

    stopped = tuple(embedding.stops(seen))
    task = None if stopped else dataset_tasks.starting(seen, now)
    started = () if task is None else (actions.StartWork(task, seen.generation),)
    status = dataset_status.status(seen, dataset_status.state(seen, now), now)
    return Plan((*stopped, *started), status, _look_again(seen, task, now))


def _look_again(seen: Dataset, starting: DatasetTask | None, now: datetime) -> timedelta:
    if starting is None and embedding.by_pods(seen) and any(not job.is_ended for job in seen.jobs):
        # Whoever looks at the pods wakes us where there is news.
        return _PODS
    if starting is not None or embedding.is_ending(seen, now) or any(work.phase is Phase.RUNNING for work in seen.work):
        return words.SOON
    waits = [work.failure.retry_at - now for work in seen.work if work.failure is not None]
    last = dataset_tasks.refreshed_at(seen)
    if seen.spec.refresh is not None and last is not None:
        waits.append(last + base.parse_duration(seen.spec.refresh.every) - now)
    # What is due and was not started is held back by something else: looking again at once would not help it.
    return min((wait for wait in waits if timedelta(0) < wait < words.AT_REST), default=words.AT_REST)


def _delete(seen: Dataset, since: datetime, now: datetime) -> Plan[api.DatasetStatus]:
    """Drop the store when nothing relies on it any more; keep it, and let go, when the deadline has passed."""
    if not seen.has_finalizer:
        state = (ConditionType.RECONCILING, Reason.DELETING, "gone")
        return Plan((), dataset_status.status(seen, state, now), words.AT_REST)
    remaining = since + seen.deadline - now
    stop = (actions.CancelWork(seen.key),) if seen.work else ()
    status = dataset_status.status(seen, (ConditionType.RECONCILING, Reason.DELETING, "being removed"), now)
    has_store = bool(seen.pins or seen.snapshots) and seen.spec.deletion_policy == "Delete"
    users = words.names(user.name for user in seen.users)
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
        return Plan((), dataset_status.status(seen, state, now), min(remaining, timedelta(seconds=10)))
    pods = [job for job in seen.jobs if not job.is_ended]
    stop = (*stop, *(actions.DeleteJob(seen.key, job.name) for job in pods if job.going_since is None))
    if pods or any(work.phase is Phase.RUNNING for work in seen.work):
        # What is still at work could write beside what is removed.
        return Plan(stop, status, min(remaining, words.SOON))
    if has_store:
        return Plan((*stop, actions.DropStore(seen.key)), status, words.AT_ONCE)
    return Plan((*stop, actions.RemoveFinalizer(seen.key)), status, words.AT_REST)
