"""A job on its way to another process, as JSON.

It carries credentials: it is for the worker's standard input, and never an argument, an environment variable or a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api import engines
from pointsman.api import queryset as queryset_api
from pointsman.plan.tasks import TASKS, Key, Side
from pointsman.work.jobs import Job, Stage


def to_json(job: Job) -> dict[str, Any]:
    """Return a job as JSON. It carries credentials: for the worker's standard input only."""
    return {
        "kind": type(job.task).__name__,
        "task": dataclasses.asdict(job.task),
        "store": job.store,
        "store_options": dict(job.store_options),
        "access": access_to_json(job.access),
        "dataset": None if job.dataset is None else job.dataset.model_dump(mode="json", by_alias=True),
        "backend": None if job.backend is None else job.backend.model_dump(mode="json", by_alias=True),
        "query_set": None if job.query_set is None else job.query_set.model_dump(mode="json", by_alias=True),
        "uid": job.uid,
        "stage": job.stage,
        "shards": job.shards,
        "home": job.home,
        "home_options": dict(job.home_options),
        "serving": job.serving,
        "credentials": dict(job.credentials),
        "query_credentials": dict(job.query_credentials),
        "judgement_credentials": dict(job.judgement_credentials),
        "api_keys": dict(job.api_keys),
    }


def from_json(value: Mapping[str, Any]) -> Job:
    """Read a job back."""
    task = dict(value["task"])
    task["owner"] = Key(**task["owner"])
    for name in ("keep", "recipes"):
        if name in task:
            task[name] = tuple(task[name])
    for name in ("candidate", "serving", "side"):
        if task.get(name) is not None:
            task[name] = Side(**task[name])
    dataset, backend, query_set = value["dataset"], value["backend"], value["query_set"]
    return Job(
        task=TASKS[value["kind"]](**task),
        store=value["store"],
        store_options=value["store_options"],
        access=access_from_json(value["access"]),
        dataset=None if dataset is None else dataset_api.Spec.model_validate(dataset),
        backend=None if backend is None else engines.Backend.model_validate(backend),
        query_set=None if query_set is None else queryset_api.Spec.model_validate(query_set),
        uid=value["uid"],
        stage=Stage(value["stage"]),
        shards=value["shards"],
        home=value["home"],
        home_options=value["home_options"],
        serving=value["serving"],
        credentials=value["credentials"],
        query_credentials=value["query_credentials"],
        judgement_credentials=value["judgement_credentials"],
        api_keys=value["api_keys"],
    )


def access_to_json(access: Access) -> dict[str, Any]:
    """Return what may be reached as JSON; nothing of it is secret."""
    return {
        "file_roots": [str(root) for root in access.file_roots],
        "allowed_hosts": list(access.allowed_hosts),
        "allow_loopback": access.allow_loopback,
        "allow_ambient_credentials": access.allow_ambient_credentials,
        "allow_memory_backend": access.allow_memory_backend,
        "store": access.store,
        "denied_hosts": list(access.denied_hosts),
    }


def access_from_json(value: Mapping[str, Any]) -> Access:
    """Read back what may be reached."""
    return Access(
        file_roots=tuple(Path(root) for root in value["file_roots"]),
        allowed_hosts=tuple(value["allowed_hosts"]),
        allow_loopback=value["allow_loopback"],
        allow_ambient_credentials=value["allow_ambient_credentials"],
        allow_memory_backend=value["allow_memory_backend"],
        store=value["store"],
        denied_hosts=tuple(value["denied_hosts"]),
    )
