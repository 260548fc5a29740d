"""What is seen of the pods that load an index, and which index they may load, in a whole Pointsman."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from tests.crash import stories
from tests.crash.stage import DEPLOYMENT_KEY, NAMESPACE, Stage, Tripwire, settle, told, world

from pointsman.api import deployment as deployment_api
from pointsman.api import engines
from pointsman.api.conditions import Reason
from pointsman.backends.memory import Memory
from pointsman.cluster import job_objects
from pointsman.cluster.batch import Batch
from pointsman.cluster.memory_batch import MemoryBatch
from pointsman.cluster.resources import DATASET, DEPLOYMENT, Resource
from pointsman.controller import observe, pods, reading
from pointsman.controller.world import World
from pointsman.errors import Retryable
from pointsman.plan.tasks import Build, Phase, Work


class Asked(MemoryBatch):
    """Jobs in memory, that count how often they are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def jobs(self, namespace: str, uid: str) -> Any:
        self.times += 1
        return super().jobs(namespace, uid)


def resource(stage: Stage, kind: str) -> Resource:
    found = stage.cluster.get(kind, NAMESPACE, "papers")
    assert found is not None
    return found


def loaded_as(stage: Stage, here: World, index: str, **backend: Any) -> bool:
    """Return whether pods would load an index, were it to be built."""
    facts, _ = reading.facts_of(DEPLOYMENT_KEY, here)
    spec = reading.valid(deployment_api.Spec, resource(stage, DEPLOYMENT))
    if backend:
        spec = spec.model_copy(update={"backend": engines.Backend.model_validate(backend)})
    task = Build(DEPLOYMENT_KEY, "papers", index, "v8", "recipe", 1)
    return pods.loaded_as(task, spec, facts, resource(stage, DATASET), here) is not None


def index(stage: Stage, version: str, here: World) -> str:
    return next(i.name for i in reading.facts_of(DEPLOYMENT_KEY, here)[0].indexes if i.version == version)


def test_jobs_of_a_deployment_are_asked_for_only_while_an_index_was_never_complete(stage: Stage) -> None:
    here = told(stage, stories.load_by_pods)
    batch = Asked()
    at_rest = dataclasses.replace(here, batch=batch)
    assert observe.deployment(resource(stage, DEPLOYMENT), at_rest).jobs == ()
    assert batch.times == 0

    here = told(stage, stories.declare_v8, stories.pods(suspend=True), stories.serve("v8"))
    seen = observe.deployment(resource(stage, DEPLOYMENT), here)
    (job,) = [job for job in seen.jobs if not job.is_ended]
    assert (job.index, job.snapshot) == (index(stage, "v8", here), 1)
    assert seen.dataset.is_for_pods


def test_what_pods_load_is_not_cleaned_up_before_it_is_loaded(stage: Stage) -> None:
    told(stage, *stories.PODS_HELD)
    # Of an operator that has just begun, and has nothing under way yet.
    here = world(stage, Tripwire())
    (job,) = [job for job in stage.batch.all() if not job_objects.is_ended(job)]
    job["metadata"]["name"], job["metadata"]["labels"][job_objects.SNAPSHOT] = "another", "7"
    stage.batch.create(NAMESPACE, job)

    (user,) = observe.dataset(resource(stage, DATASET), here).users

    assert user.snapshots == (1, 7)


class Broken(Memory):
    """The database in memory, that counts what it is told to load, and cannot be sealed at first."""

    def __init__(self) -> None:
        super().__init__()
        self.is_broken, self.loaded = False, 0

    def seal(self, name: str) -> None:
        if self.is_broken:
            raise Retryable(Reason.BACKEND_UNREACHABLE, "away")
        super().seal(name)

    def load(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        written = super().load(name, batches)
        self.loaded += written
        return written


def test_what_is_loaded_is_loaded_once_though_it_fails_after_and_a_newer_snapshot_comes(stage: Stage) -> None:
    stage.database = database = Broken()
    told(stage, stories.load_by_pods, stories.declare_v8)
    database.is_broken, database.loaded = True, 0
    stories.serve("v8")(stage)
    here = world(stage, Tripwire())
    settle(stage, Tripwire(), here)
    loaded, name = database.loaded, index(stage, "v8", here)
    assert loaded == database.count(name) > 0

    # The pods are gone, and so is the operator that had them load.
    for job in stage.batch.all():
        stage.batch.delete(NAMESPACE, job["metadata"]["name"])
    stories.keep_one_snapshot(stage)
    stories.change_source(stage)
    settle(stage, Tripwire())
    (user,) = observe.dataset(resource(stage, DATASET), world(stage, Tripwire())).users
    assert user.snapshots == (1, 2)
    stage.time += timedelta(hours=1)
    database.is_broken = False
    settle(stage, Tripwire())

    facts, _ = reading.facts_of(DEPLOYMENT_KEY, here)
    record = pods.record(DEPLOYMENT_KEY, name, here)
    assert facts.serving is not None and facts.serving.name == name
    assert record is not None and record.cursor is not None and record.cursor.snapshot == 2
    assert database.loaded == loaded


class Closed:
    """A dataset's store that nobody is to look into."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was looked at")


def test_ledgers_are_read_only_where_what_they_say_is_not_known(stage: Stage) -> None:
    closed: Any = Closed()
    here = told(stage, *stories.PODS_HELD)
    dataset, (facts, _) = resource(stage, DATASET), reading.facts_of(DEPLOYMENT_KEY, here)
    task = Build(DEPLOYMENT_KEY, "papers", index(stage, "v8", here), "v8", "recipe", 1)
    at_work = (Work(task, 1, Phase.RUNNING),)
    complete = dataclasses.replace(facts, indexes=tuple(i for i in facts.indexes if i.version == "v7"))

    with pytest.raises(AssertionError, match="loads was looked at"):
        pods.begun(dataset, closed, DEPLOYMENT_KEY, facts, (), here)
    assert pods.begun(dataset, closed, DEPLOYMENT_KEY, facts, at_work, here) == {}
    assert pods.begun(dataset, closed, DEPLOYMENT_KEY, complete, (), here) == {}
    stories.without_pods(stage)
    assert pods.begun(resource(stage, DATASET), closed, DEPLOYMENT_KEY, facts, (), here) == {}


class Hidden:
    """The Jobs of a cluster that lets nobody list them, or not those of one owner."""

    def __init__(self, batch: Batch, owner: str = "") -> None:
        self._batch, self._owner = batch, owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def jobs(self, namespace: str, uid: str) -> Any:
        if self._owner not in ("", uid):
            return self._batch.jobs(namespace, uid)
        raise Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API refused us (403 Forbidden)")


def test_a_way_back_waits_for_no_jobs_that_cannot_be_listed(stage: Stage) -> None:
    told(stage, stories.load_by_pods, stories.declare_v8, stories.serve("v8"))
    here, there = told(stage, stories.pods(suspend=True)), {"url": "http://qdrant:6333"}
    # Another index of v8, which pods are to load.
    stories.edit(stage, DEPLOYMENT, lambda r: r["spec"].update(backend={"qdrant": {**there, "hnsw": {"m": 32}}}))
    settle(stage, Tripwire(), here)
    away, begun = dataclasses.replace(here, batch=Hidden(here.batch)), len(stage.batch.created)

    settle(stage, Tripwire(), away)
    (said,) = [c for c in resource(stage, DEPLOYMENT)["status"]["conditions"] if c["type"] == "Reconciling"]
    assert said["reason"] == "ClusterUnreachable"
    assert len(stage.batch.created) == begun

    stories.edit(stage, DEPLOYMENT, lambda r: r["spec"].update(version="v7", backend={"qdrant": there}))
    settle(stage, Tripwire(), away)
    serving = reading.facts_of(DEPLOYMENT_KEY, away)[0].serving
    assert serving is not None
    assert serving.version == "v7"


def test_a_source_is_read_though_nobody_may_list_jobs_and_an_index_is_not_complete(stage: Stage) -> None:
    stage.database = database = Broken()
    here = told(stage, stories.declare, stories.declare_v8)
    database.is_broken = True
    away = dataclasses.replace(here, batch=Hidden(here.batch))
    for step in (stories.serve("v8"), stories.change_source):
        step(stage)
        settle(stage, Tripwire(), away)

    seen = observe.dataset(resource(stage, DATASET), away)
    assert [snapshot.number for snapshot in seen.snapshots] == [1, 2]
    # No pod loads anything here, so a clean-up has nothing to wait for.
    assert [user.is_unlisted for user in seen.users] == [False]


def test_who_may_be_loading_what_nobody_can_tell_is_told_to_the_clean_up(stage: Stage) -> None:
    here = told(stage, *stories.PODS_HELD)
    owner = resource(stage, DEPLOYMENT)["metadata"]["uid"]
    away = dataclasses.replace(here, batch=Hidden(here.batch, owner))

    assert [user.is_unlisted for user in observe.dataset(resource(stage, DATASET), here).users] == [False]
    assert [user.is_unlisted for user in observe.dataset(resource(stage, DATASET), away).users] == [True]


def test_pods_load_what_is_new_and_nothing_that_may_answer(stage: Stage) -> None:
    here = told(stage, *stories.PODS_HELD)
    new, serving = index(stage, "v8", here), index(stage, "v7", here)

    assert loaded_as(stage, here, new)
    assert not loaded_as(stage, here, serving)
    assert not loaded_as(stage, here, "pm_of_nobody")
    assert not loaded_as(stage, here, new, memory={})
    stories.without_pods(stage)
    assert not loaded_as(stage, here, new)


class Watched(Memory):
    """The database in memory, that remembers into what it was told to load what."""

    def __init__(self) -> None:
        super().__init__()
        self.is_complete: Callable[[str], bool] = lambda name: False
        self.written: list[tuple[str, bool]] = []

    def load(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        self.written.append((name, self.is_complete(name)))
        return super().load(name, batches)


def test_no_pod_writes_to_an_index_that_was_complete_once(stage: Stage) -> None:
    stage.database = database = Watched()
    here = told(stage, stories.load_by_pods)
    database.is_complete = lambda name: pods.is_complete(pods.record(DEPLOYMENT_KEY, name, here))
    for step in (stories.declare_v8, stories.serve("v8"), stories.change_source, stories.serve("v7")):
        step(stage)
        settle(stage, Tripwire(), here)

    assert set(database.written) == {(index(stage, version, here), False) for version in ("v7", "v8")}
