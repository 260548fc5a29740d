"""Which snapshots are to be embedded under which versions, and which pods are at work on what nobody wants any more?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from pointsman.core.recipes import Recipe
from pointsman.plan import actions
from pointsman.plan.observed import Dataset, PodJob
from pointsman.plan.tasks import Embed, Phase, Work

ENDING = timedelta(minutes=10)
"""How long the pods of a deleted Job are waited for."""


def wanted(seen: Dataset) -> Iterator[tuple[str, Recipe]]:
    """Yield the versions to keep embedded, with the recipes they are pinned to: in use first, then as declared.

    A version whose name was used before for another recipe keeps the pinned one.
    """
    names = [version for user in seen.users for version in user.versions]
    names += [version.name for version in seen.spec.versions]
    for name in dict.fromkeys(names):
        if name in seen.pins:
            yield name, seen.pins[name]


def embeds(seen: Dataset) -> Iterator[Embed]:
    """Yield what is to be embedded, the most urgent first."""
    if not seen.snapshots:
        return
    newest = seen.snapshots[-1].number
    # What pods are at is finished first, though the source was read again since.
    for job in seen.jobs:
        if not job.is_ended and job.going_since is None and is_wanted(seen, job):
            name = next(name for name, recipe in wanted(seen) if recipe.key == job.recipe)
            yield Embed(seen.key, name, job.recipe, job.snapshot)
    there = {snapshot.number for snapshot in seen.snapshots}
    for name, recipe in wanted(seen):
        pinned = [number for user in seen.users for key, number in user.pinned if key == recipe.key]
        for number in (*pinned, newest):
            if number in there and not has(seen, recipe.key, number):
                yield Embed(seen.key, name, recipe.key, number)


def recipes_under_way(seen: Dataset) -> set[str]:
    """Return the recipes that are being embedded: versions of one recipe are one embedding, whichever it is for."""
    return {w.task.recipe for w in seen.work if w.phase is Phase.RUNNING and isinstance(w.task, Embed)}


def has(seen: Dataset, recipe: str, number: int) -> bool:
    """Return whether a snapshot is embedded by a recipe."""
    return any(record.snapshot == number for record in seen.embedded.get(recipe, ()))


def stops(seen: Dataset) -> Iterator[actions.Action]:
    """Yield what ends the pods that nobody wants at work: of a recipe that is gone, or since pods are not to embed."""
    for work in seen.work:
        if work.phase is Phase.RUNNING and isinstance(work.task, Embed):
            job = next((job for job in seen.jobs if (job.recipe, job.snapshot) == _run(work.task)), None)
            if job is not None and not is_wanted(seen, job):
                yield actions.CancelWork(seen.key, work.task.subject)
    for job in seen.jobs:
        if not job.is_ended and job.going_since is None and not is_wanted(seen, job):
            yield actions.DeleteJob(seen.key, job.name)


def is_wanted(seen: Dataset, job: PodJob) -> bool:
    """Return whether a Job's snapshot is to be embedded, by pods."""
    is_there = any(snapshot.number == job.snapshot for snapshot in seen.snapshots)
    is_kept = any(recipe.key == job.recipe for _, recipe in wanted(seen))
    return seen.spec.work.mode == "Job" and is_there and is_kept and not has(seen, job.recipe, job.snapshot)


def _run(task: Embed) -> tuple[str, int]:
    return task.recipe, task.snapshot


def by_pods(seen: Dataset) -> bool:
    """Return whether pods embed, beside which a worker may read the source."""
    running = [work.task for work in seen.work if work.phase is Phase.RUNNING]
    return seen.spec.work.mode == "Job" and all(isinstance(task, Embed) for task in running)


def is_ending(seen: Dataset, now: datetime) -> bool:
    """Return whether pods that nobody wants are at work, or ending; not for ever: a node that fell silent ends none."""
    return any(
        not job.is_ended and not is_wanted(seen, job) and (job.going_since is None or now - job.going_since < ENDING)
        for job in seen.jobs
    )


def of(seen: Dataset, recipe: Recipe) -> Work | None:
    """Return the embedding of a recipe that is under way: of several, each has its own progress."""
    found = (work for work in seen.work if work.phase is Phase.RUNNING and isinstance(work.task, Embed))
    return next((work for work in found if isinstance(work.task, Embed) and work.task.recipe == recipe.key), None)


def progress(work: Sequence[Work], version: str, recipe: Recipe | None) -> str:
    """Return how far the embedding of a version has come, also in the name of another of its recipe, as a clause."""
    embeds = ((w, w.task) for w in work if isinstance(w.task, Embed) and w.total)
    found = (w for w, task in embeds if task.version == version or (recipe is not None and task.recipe == recipe.key))
    return next((f"{w.done:,} of {w.total:,} texts" for w in found), "")
