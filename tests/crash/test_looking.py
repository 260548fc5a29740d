"""What is seen, and what is not touched, when the loop looks at a database and at the resources around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.crash import stories
from tests.crash.stage import DATASET_KEY, DEPLOYMENT_KEY, NAMESPACE, Stage, Tripwire, settle, world

from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.backends.memory import Memory
from pointsman.controller import observe
from pointsman.controller.cluster import DEPLOYMENT
from pointsman.controller.world import Databases, World
from pointsman.errors import Retryable
from pointsman.plan import observed
from pointsman.plan.observed import Presence
from pointsman.plan.tasks import Build, Check, Follow, IndexTask, Key, Phase, Repair, Work
from pointsman.ports import Marker
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


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    (tmp_path / "store").mkdir()
    return Stage(tmp_path / "store")


def told(stage: Stage, *steps: Callable[[Stage], None]) -> World:
    """Tell a story and return the world in which it was told."""
    here = world(stage, Tripwire())
    for step in steps:
        step(stage)
        settle(stage, Tripwire(), here)
    return here


def seen(here: World, **changes: Any) -> observed.Deployment:
    resource = here.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
    assert resource is not None
    return observe.deployment(resource, dataclasses.replace(here, **changes))


def names(found: observed.Deployment) -> dict[str, str]:
    return {index.version: index.name for index in found.facts.indexes}


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


def test_a_broken_index_is_a_problem_of_its_own(stage: Stage) -> None:
    here = told(stage, *stories.MIGRATED)
    v7, v8 = (names(seen(here))[version] for version in ("v7", "v8"))

    found = seen(here, databases=databases(Counting(stage.database, broken=v8)))

    assert found.problem is None
    assert found.physical[v7].presence is Presence.PRESENT
    assert found.physical[v8].presence is Presence.UNKNOWN
    assert found.physical[v8].problem == observed.Problem(Reason.BACKEND_REJECTED, "the segment is corrupt", False)


# When a namespace goes, its Secrets go first.


def in_postgres(stage: Stage) -> None:
    """Declare the deployment on a database with a Secret; behind it stands the stage's own."""
    stories.declare(stage)
    stage.cluster.put_secret(NAMESPACE, "pg", {"username": "u", "password": "p"}, {"pointsman.dev/allowed-hosts": "db"})
    backend = {"pgvector": {"host": "db", "database": "vectors", "credentialsRef": {"name": "pg"}}}
    stories.edit(stage, DEPLOYMENT, lambda r: r["spec"].update(backend=backend))


def delete_namespace(stage: Stage) -> None:
    stage.cluster.delete_secret(NAMESPACE, "pg")
    stories.delete_dataset(stage)
    stories.delete_deployment(stage)


def test_a_namespace_goes_with_all_that_is_in_it_though_its_secrets_go_first(stage: Stage) -> None:
    here = told(stage, in_postgres)
    before = stage.now()
    assert stage.database.names("pm_") != []

    delete_namespace(stage)
    settle(stage, Tripwire(), here)

    assert (stage.now() - before) < here.deadline
    assert [stage.cluster.get(key.kind, key.namespace, key.name) for key in (DATASET_KEY, DEPLOYMENT_KEY)] == [None] * 2
    assert stage.database.names("pm_") == []
    assert [path for path in stage.folder.rglob("*") if path.is_file() and "locks" not in path.parts] == []


def test_a_secret_that_is_gone_is_said_while_nobody_deletes(stage: Stage) -> None:
    here = told(stage, in_postgres)

    stage.cluster.delete_secret(NAMESPACE, "pg")

    problem = seen(here).problem
    assert problem is not None and problem.reason is Reason.SECRET_NOT_FOUND


def test_a_deployment_that_is_deleted_keeps_nothing_of_its_dataset(stage: Stage) -> None:
    here = told(stage, stories.declare)

    stories.delete_deployment(stage)

    resource = here.cluster.get(DATASET_KEY.kind, NAMESPACE, "papers")
    assert resource is not None and observe.dataset(resource, here).users == ()
