"""What is seen, and what is not touched, when the loop looks at a database and at the resources around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.crash import stories
from tests.crash.stage import (
    DATASET_KEY,
    DEPLOYMENT_KEY,
    NAMESPACE,
    HashedWords,
    Listed,
    OneLookLater,
    Stage,
    Tripwire,
    settle,
    told,
    world,
)

from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.api.dataset import DatasetStatus
from pointsman.backends.memory import Memory
from pointsman.cluster.resources import DATASET, DEPLOYMENT
from pointsman.controller import observe, reading
from pointsman.controller.world import Databases, World
from pointsman.core import drift
from pointsman.errors import Retryable
from pointsman.plan import observed
from pointsman.plan.observed import Presence
from pointsman.plan.tasks import (
    Build,
    Check,
    DatasetTask,
    Embed,
    Failure,
    Follow,
    IndexTask,
    Key,
    Phase,
    Refresh,
    Repair,
    Work,
)
from pointsman.ports import Finished, Marker, Vectors, nobody
from pointsman.store.root import Store
from pointsman.work.jobs import Doors
from pointsman.work.processes import InProcess
from pointsman.work.runners import InlineRunner


class Counting:
    """The database of a stage, that writes down what is counted, and breaks at one index."""

    def __init__(self, inner: Memory, broken: str = "") -> None:
        self._inner, self._broken = inner, broken
        self.counted: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def find(self, name: str) -> Marker | None:
        if name == self._broken:
            raise Retryable(Reason.BACKEND_REJECTED, "the segment is corrupt")
        return self._inner.find(name)

    def count(self, name: str) -> int:
        self.counted.append(name)
        return self._inner.count(name)


def databases(database: Any) -> Databases:
    """Return connections that all lead to one database."""
    return Databases(lambda *_: database, Access())


class Busy(InlineRunner):
    """A runner with work under way."""

    def __init__(self, *work: Work) -> None:
        self._under_way = work

    def work(self, owner: Key) -> tuple[Work, ...]:
        return tuple(work for work in self._under_way if work.task.owner == owner)


def seen(here: World, **changes: Any) -> observed.Deployment:
    resource = here.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
    assert resource is not None
    return observe.deployment(resource, dataclasses.replace(here, **changes))


def names(found: observed.Deployment) -> dict[str, str]:
    return {index.version: index.name for index in found.facts.indexes}


def test_an_edit_of_either_is_told_from_none(stage: Stage) -> None:
    here = told(stage, *stories.MIGRATED)
    at_rest, again = seen(here).edits, seen(here).edits
    stories.edit(stage, DATASET, lambda found: found["spec"].update(refresh={"every": "1h"}))
    of_the_dataset = seen(here).edits
    stories.serve("v7")(stage)

    assert at_rest == again < of_the_dataset < seen(here).edits


@pytest.mark.parametrize(("kind", "is_counted"), [(Build, False), (Follow, False), (Repair, False), (Check, True)])
def test_an_index_that_is_written_is_not_counted(stage: Stage, kind: type[IndexTask], is_counted: bool) -> None:
    here = told(stage, *stories.MIGRATED)
    v7 = names(seen(here))["v7"]
    database = Counting(stage.database)
    task = kind(DEPLOYMENT_KEY, "papers", v7, "v7", "", 1)

    found = seen(
        here,
        runner=Busy(Work(task, 1, Phase.RUNNING)),
        databases=databases(database),
    )

    assert (found.physical[v7].rows is not None) == is_counted
    assert (v7 in database.counted) == is_counted
    assert {physical.presence for physical in found.physical.values()} == {Presence.PRESENT}


@pytest.mark.parametrize(("kind", "is_counted"), [(None, False), (Check, True)])
def test_an_edit_is_acted_on_before_anything_is_counted(
    stage: Stage, kind: type[Check] | None, is_counted: bool
) -> None:
    here = told(stage, *stories.MIGRATED)
    v7 = names(seen(here))["v7"]
    database = Counting(stage.database)
    work = [] if kind is None else [Work(kind(DEPLOYMENT_KEY, "papers", v7, "v7", "", 1), 1, Phase.RUNNING)]
    stories.serve("v7")(stage)

    seen(here, runner=Busy(*work), databases=databases(database))

    assert (v7 in database.counted) == is_counted
    settle(stage, Tripwire(), dataclasses.replace(here, databases=databases(database)))
    assert v7 in database.counted


def test_what_an_index_is_being_built_from_is_kept(stage: Stage) -> None:
    here = told(stage, *stories.MIGRATED)
    task = Build(DEPLOYMENT_KEY, "papers", "pm_new", "v9", "", 7)
    resource = here.cluster.get(DATASET, NAMESPACE, "papers")
    assert resource is not None

    kept = [
        observe.dataset(resource, dataclasses.replace(here, runner=Busy(Work(task, 1, phase)))).users[0].snapshots
        for phase in (Phase.RUNNING, Phase.DONE)
    ]

    assert kept == [(1, 7), (1,)]


def test_a_broken_index_is_a_problem_of_its_own(stage: Stage) -> None:
    here = told(stage, *stories.MIGRATED)
    v7, v8 = (names(seen(here))[version] for version in ("v7", "v8"))

    found = seen(here, databases=databases(Counting(stage.database, broken=v8)))

    assert found.problem is None
    assert found.physical[v7].presence is Presence.PRESENT
    assert found.physical[v8].presence is Presence.UNKNOWN
    assert found.physical[v8].problem == observed.Problem(Reason.BACKEND_REJECTED, "the segment is corrupt", False)


# What a deployment is told of its dataset is about the version that it wants.

NO_ROWS = Failure(
    Reason.SOURCE_INVALID, "2 rows have no id", True, attempts=1, retry_at=datetime(2026, 1, 1, tzinfo=UTC)
)
IN_THE_WAY: dict[str, tuple[DatasetTask, str]] = {
    "an embedding of the same version": (Embed(DATASET_KEY, "v8", "r", 1), "2 rows have no id"),
    "an embedding of another version": (Embed(DATASET_KEY, "v9", "r", 1), ""),
    "a read, where an earlier one is there to be embedded": (Refresh(DATASET_KEY, ""), ""),
}


@pytest.mark.parametrize(("task", "stalled"), IN_THE_WAY.values(), ids=IN_THE_WAY.keys())
def test_only_what_failed_of_its_own_version_stalls_a_target(stage: Stage, task: DatasetTask, stalled: str) -> None:
    here = told(stage, stories.declare)
    stories.serve("v8")(stage)

    found = seen(here, runner=Busy(Work(task, 1, Phase.FAILED, failure=NO_ROWS)))

    assert found.dataset.stalled == stalled


def test_a_source_that_was_never_read_stalls_every_target(stage: Stage) -> None:
    stories.declare(stage)
    work = Work(Refresh(DATASET_KEY, ""), 1, Phase.FAILED, failure=NO_ROWS)

    assert seen(world(stage, Tripwire()), runner=Busy(work)).dataset.stalled == "2 rows have no id"


def test_a_version_that_cannot_be_started_stalls_its_own_target_alone(stage: Stage) -> None:
    here = told(stage, stories.declare)
    model = {"openai": {"endpoint": "main", "model": "m", "dimensions": 8}}
    endpoint = {"name": "main", "baseURL": "https://model/v1", "apiKeyRef": {"name": "key", "key": "token"}}
    added = [{**stories.version(name, 64), "model": model} for name in ("v8",)]
    stories.edit(
        stage, DATASET, lambda r: r["spec"].update(endpoints=[endpoint], versions=r["spec"]["versions"] + added)
    )

    stories.serve("v8")(stage)
    assert seen(here).dataset.stalled == "Secret key is not there"

    stories.serve("v7")(stage)
    assert seen(here).dataset.stalled == ""


def test_how_far_an_embedding_has_come_is_said_of_its_own_version(stage: Stage) -> None:
    here = told(stage, stories.declare)
    running = Work(Embed(DATASET_KEY, "v8", "r", 1), 1, Phase.RUNNING, done=40, total=1112)

    assert seen(here, runner=Busy(running)).dataset.progress == ""
    stories.serve("v8")(stage)
    assert seen(here, runner=Busy(running)).dataset.progress == "40 of 1,112 texts"


@pytest.mark.parametrize(
    "harm",
    [
        lambda status: status["conditions"].append({**status["conditions"][0], "type": "Measured"}),
        lambda status: status["conditions"].append({**status["conditions"][0], "reason": "Measuring"}),
        lambda status: status.update(versions=[{"name": 7}]),
    ],
    ids=["a condition of a later release", "a reason of a later release", "a field that means something else"],
)
def test_what_cannot_be_read_of_a_status_does_not_take_the_rest_with_it(
    stage: Stage, harm: Callable[[dict[str, Any]], None]
) -> None:
    told(stage, stories.declare)
    resource = stage.cluster.get(DATASET, NAMESPACE, "papers")
    assert resource is not None
    before = reading.status(DatasetStatus, resource)
    assert before.refresh_handled and before.refreshed_at

    harm(resource["status"])
    after = reading.status(DatasetStatus, resource)

    assert after.conditions == before.conditions
    assert (after.refresh_handled, after.refreshed_at) == (before.refresh_handled, before.refreshed_at)


class Another(HashedWords):
    """A model that answers under the same name as the one before."""

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        return super().embed([text[::-1] for text in texts], finished)


def test_a_model_that_is_swapped_while_the_source_stands_still_is_found_within_the_time_of_a_check(
    stage: Stage,
) -> None:
    here = told(stage, stories.declare)
    doors = Doors(
        store=Store,
        source=lambda *_: Listed(stage.documents),
        embedder=lambda space, *_: Another(space),
        backend=lambda *_: stage.database,
    )
    here = dataclasses.replace(here, runner=OneLookLater(doors, stage.now, InProcess(doors, stage.now)))
    settle(stage, Tripwire(), here)
    assert ready(stage)[0] is Reason.UP_TO_DATE

    stories.later(timedelta(hours=1))(stage)
    settle(stage, Tripwire(), here)

    reason, message = ready(stage)
    assert reason is Reason.GATE_FAILED
    assert "but model: the model has changed: its pinned texts moved by" in message
    (probe,) = seen(here).probes.values()
    assert probe.model_distance > drift.LIMIT


def ready(stage: Stage) -> tuple[Reason, str]:
    resource = stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
    assert resource is not None
    (found,) = (each for each in resource["status"]["conditions"] if each["type"] == "Ready")
    return Reason(found["reason"]), found["message"]
