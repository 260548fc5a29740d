"""Which Kubernetes Jobs were made for a resource, and what of its work is for pods?"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api.deployment import Role
from pointsman.cluster import job_objects
from pointsman.cluster.resources import Resource
from pointsman.controller import reading
from pointsman.controller.world import World
from pointsman.errors import Retryable, Terminal
from pointsman.plan import facts as plan_facts
from pointsman.plan import words
from pointsman.plan.facts import Facts, IndexRecord
from pointsman.plan.observed import Begun, PodJob, Problem
from pointsman.plan.tasks import Build, Key, Work
from pointsman.store.dataset import DatasetStore
from pointsman.work import jobs, loading


def of_dataset(resource: Resource, spec: dataset_api.Spec, world: World) -> tuple[PodJob, ...]:
    """Return the Jobs of a dataset; nobody is asked where none was ever wanted."""
    if spec.work.mode != "Job" and not resource.get("status", {}).get("jobs"):
        return ()
    return _found(resource, world)


def of_deployment(resource: Resource, facts: Facts, world: World) -> tuple[PodJob, ...]:
    """Return the Jobs of a deployment; nobody is asked where every index was complete once, as no pod writes to it."""
    key = reading.key_of(resource)
    are_complete = all(is_complete(record(key, index.name, world)) for index in facts.indexes)
    return () if are_complete else _found(resource, world)


def seen_of_deployment(resource: Resource, facts: Facts, world: World) -> tuple[tuple[PodJob, ...], Problem | None]:
    """Return the Jobs of a deployment, and what keeps them from being looked at: a way back waits for neither."""
    try:
        return of_deployment(resource, facts, world), None
    except Retryable as error:
        return (), Problem(error.reason, error.message, is_terminal=False)


def load_for(dataset: Resource | None) -> bool:
    """Return whether pods load the new indexes of a dataset; `dataset` is None where it is gone."""
    return dataset is not None and dataset["spec"].get("work", {}).get("mode") == "Job"


def begun(
    dataset: Resource | None, store: DatasetStore, deployment: Key, facts: Facts, work: Sequence[Work], world: World
) -> dict[str, Begun]:
    """Return what pods have begun to load for a deployment, by index.

    The store is read only where an index was never complete, pods are to load it, and nobody is at that: who is tells
    which snapshot it is.
    """
    if not load_for(dataset):
        return {}
    candidates = (index.name for index in facts.indexes if index.role is Role.CANDIDATE)
    idle = [name for name in candidates if words.running(work, f"index {name}") is None]
    names = [name for name in idle if not is_complete(record(deployment, name, world))]
    return {name: found for name in names if (found := loading.begun(store, name)) is not None}


def record(deployment: Key, index: str, world: World) -> IndexRecord | None:
    """Return what workers wrote down of an index; None where they have not."""
    found = reading.record(jobs.index_log(deployment, index), world)
    return None if found is None else plan_facts.record_from_json(found.value)


def is_complete(record: IndexRecord | None) -> bool:
    """Return whether an index was complete once."""
    return record is not None and record.cursor is not None


def loaded_as(
    task: Build, spec: deployment_api.Spec, facts: Facts, found: Resource | None, world: World
) -> dataset_api.Spec | None:
    """Return the spec of the dataset by which pods load an index; None where one process does.

    Pods load what is new. What was complete once may answer queries, and then only one that applies changes may write
    to it; and no pod sees the operator's own memory.
    """
    if found is None or spec.backend.memory is not None:
        return None
    index = facts.get(task.index)
    if index is None or index.role is not Role.CANDIDATE or is_complete(record(task.owner, task.index, world)):
        return None
    with contextlib.suppress(Terminal):
        dataset: dataset_api.Spec = reading.valid(dataset_api.Spec, found)
        return dataset if dataset.work.mode == "Job" else None
    return None


def _found(resource: Resource, world: World) -> tuple[PodJob, ...]:
    found = world.batch.jobs(resource["metadata"]["namespace"], resource["metadata"]["uid"])
    return tuple(
        PodJob(
            job["metadata"]["name"],
            *job_objects.of(job),
            job_objects.is_ended(job),
            job_objects.going_since(job),
            job_objects.index_of(job),
        )
        for job in found
    )
