"""What is there to do for a dataset, and what of it may start now?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.plan import embedding
from pointsman.plan.observed import Dataset
from pointsman.plan.tasks import Clean, DatasetTask, Embed, Failure, Phase, Refresh, Work


def starting(seen: Dataset, now: datetime) -> DatasetTask | None:
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
        last = refreshed_at(seen)
        if last is None or now - last >= base.parse_duration(seen.spec.refresh.every):
            return f"{asked}#{'' if last is None else last.isoformat()}"
    return None


def refreshed_at(seen: Dataset) -> datetime | None:
    """Return when the source was last read to its end, whether or not anything was new; None where it never was."""
    done = [w.finished_at for w in seen.work if isinstance(w.task, Refresh) and w.phase is Phase.DONE]
    times = [time for time in (*done, seen.status.refreshed_at) if time is not None]
    return max(times, default=None)


def _cleans(seen: Dataset, now: datetime) -> Iterator[Clean]:
    """Yield a clean-up once a snapshot is out of retention and nothing refers to it, as far as anybody can tell."""
    if not seen.snapshots or any(user.is_unlisted for user in seen.users):
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
            is_edited |= _is_of_documents(work) and _number(work.task) != _number(task)
            return is_edited or now >= work.failure.retry_at
    return True


def _is_of_documents(work: Work) -> bool:
    """Return whether what failed is wrong with documents, which those of another snapshot may not have.

    A model is given the pinned texts first: one that refuses these has come to no document.
    """
    reason = None if work.failure is None else work.failure.reason
    return reason is Reason.SOURCE_INVALID or (reason is Reason.MODEL_REJECTED and work.total > 0)


def _number(task: object) -> int:
    """Return the snapshot that an embedding is of; 0 for any other task."""
    return task.snapshot if isinstance(task, Embed) else 0


def _asked(task: object) -> str:
    """Return what a refresh was asked for by; empty for any other task."""
    return task.token.rpartition("#")[0] if isinstance(task, Refresh) else ""


def _alike(one: object, other: object) -> bool:
    """Return whether two tasks are of a kind and about the same version."""
    return type(one) is type(other) and getattr(one, "version", None) == getattr(other, "version", None)


def failed(seen: Dataset, now: datetime) -> Failure | None:
    """Return the failure that holds the dataset back: the last attempt's at something that is still to be done."""
    tasks = _tasks(seen, now)
    failures = (w.failure for task in tasks for w in seen.work if w.failure is not None and _alike(w.task, task))
    return next(failures, None)
