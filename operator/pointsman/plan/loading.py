"""Which pods load an index that somebody still wants loaded by them?

Pods load what was never complete. A snapshot that they are at, or were when something stopped them, is loaded to its
end, though a newer one is embedded by then: what it lacks is a difference, and small. Nothing here waits for pods to be
gone: whoever writes to the index next sees to it that they do not (`work/loading.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pointsman.api.deployment import Role
from pointsman.plan import actions, indexes, words
from pointsman.plan.facts import Facts
from pointsman.plan.indexes import Target
from pointsman.plan.observed import Deployment, PodJob


def unwanted(seen: Deployment, facts: Facts, target: Target | str) -> list[PodJob]:
    """Return the Jobs that load what nobody wants loaded by pods."""
    return [job for job in indexes.live_jobs(seen) if not is_wanted(seen, facts, target, job)]


def cancelled(seen: Deployment, jobs: Iterable[PodJob]) -> Iterator[actions.CancelWork]:
    """Yield what stops whoever makes such Jobs of an index; before they are deleted, or there would be others."""
    for index in sorted({job.index for job in jobs}):
        work = words.running(seen.work, f"index {index}")
        if work is not None:
            yield actions.CancelWork(seen.key, work.task.subject)


def is_wanted(seen: Deployment, facts: Facts, target: Target | str, job: PodJob) -> bool:
    """Return whether an index is to be loaded with a Job's snapshot, by pods."""
    index = facts.get(job.index)
    if index is None or index.role is not Role.CANDIDATE or not seen.dataset.is_for_pods:
        return False
    record = seen.records.get(index.name)
    if (record is not None and record.cursor is not None) or indexes.at(seen, index.recipe, job.snapshot) is None:
        return False
    # While the target is not known, nothing is given up for it.
    return isinstance(target, str) or indexes.find(seen, facts, target) == index
