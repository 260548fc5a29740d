"""What is deleted goes: with all that it has made where that can be reached, and at its deadline in any case."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.crash import stories
from tests.crash.stage import DATASET_KEY, DEPLOYMENT_KEY, NAMESPACE, Stage, Tripwire, settle, told

from pointsman.api.conditions import Reason
from pointsman.cluster.batch import Batch
from pointsman.cluster.resources import DEPLOYMENT
from pointsman.controller import observe
from pointsman.controller.reconcile import reconcile
from pointsman.errors import Retryable
from pointsman.plan.tasks import Key


class Away:
    """A store that does not answer."""

    def __getattr__(self, name: str) -> Any:
        raise Retryable(Reason.STORE_UNREACHABLE, "s3://store does not answer")


def is_empty(stage: Stage) -> bool:
    """Return whether nothing is left in the database and in the store."""
    files = [path for path in stage.folder.rglob("*") if path.is_file() and "locks" not in path.parts]
    return stage.database.names("pm_") == [] and files == []


@pytest.mark.parametrize("key", [DATASET_KEY, DEPLOYMENT_KEY], ids=["a dataset", "a deployment"])
def test_what_cannot_be_seen_goes_at_its_deadline_and_what_it_leaves_is_said(stage: Stage, key: Key) -> None:
    here = dataclasses.replace(told(stage, stories.declare), store=Away())  # type: ignore[arg-type]
    stage.cluster.delete(key.kind, NAMESPACE, "papers", stage.now())

    reconcile(key, here, stage.now() + here.deadline / 2)
    assert stage.cluster.get(key.kind, NAMESPACE, "papers") is not None

    reconcile(key, here, stage.now() + here.deadline)
    assert stage.cluster.get(key.kind, NAMESPACE, "papers") is None
    assert stage.cluster.events[-1] == (
        key, True, "Deleting", "s3://store does not answer; let go after 10m, and what it has made is left behind",
    )  # fmt: skip


class Refused:
    """The Jobs of a cluster that lets nobody delete them."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def delete(self, namespace: str, name: str) -> None:
        raise Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API refused us (403 Forbidden)")


def test_pods_that_cannot_be_ended_hold_no_deployment_beyond_its_deadline(stage: Stage) -> None:
    """They go with it: the Job is its own."""
    here = told(stage, *stories.PODS_HELD)
    here = dataclasses.replace(here, batch=Refused(here.batch))
    stories.delete_deployment(stage)

    reconcile(DEPLOYMENT_KEY, here, stage.now() + here.deadline / 2)
    assert stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers") is not None

    reconcile(DEPLOYMENT_KEY, here, stage.now() + here.deadline)
    assert stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers") is None


def test_what_was_deleted_while_no_operator_was_there_is_removed_all_the_same(stage: Stage) -> None:
    here = told(stage, stories.declare)
    stories.delete_dataset(stage)
    stories.delete_deployment(stage)
    stage.time += timedelta(days=1)

    settle(stage, Tripwire(), dataclasses.replace(here, started=stage.now()))

    assert [stage.cluster.get(key.kind, key.namespace, key.name) for key in (DATASET_KEY, DEPLOYMENT_KEY)] == [None] * 2
    assert is_empty(stage)


def test_a_spec_that_cannot_be_read_does_not_hold_its_resource(stage: Stage) -> None:
    here = told(stage, stories.declare)
    stories.edit(stage, DEPLOYMENT, lambda r: r["spec"].update(version={"of": "another release"}))
    stories.delete_deployment(stage)

    reconcile(DEPLOYMENT_KEY, here, stage.now() + here.deadline)

    assert stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers") is None


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
    assert is_empty(stage)


def test_a_secret_that_is_gone_is_said_while_nobody_deletes(stage: Stage) -> None:
    here = told(stage, in_postgres)

    stage.cluster.delete_secret(NAMESPACE, "pg")

    resource = stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
    assert resource is not None
    problem = observe.deployment(resource, here).problem
    assert problem is not None and problem.reason is Reason.SECRET_NOT_FOUND


def test_a_deployment_that_is_deleted_keeps_nothing_of_its_dataset(stage: Stage) -> None:
    here = told(stage, stories.declare)

    stories.delete_deployment(stage)

    resource = here.cluster.get(DATASET_KEY.kind, NAMESPACE, "papers")
    assert resource is not None and observe.dataset(resource, here).users == ()
