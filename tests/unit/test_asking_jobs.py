"""What a worker gets to ask two indexes with: both models' keys, the database's and the query set's, and no others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.crash.stage import NAMESPACE, Stage, Tripwire, world
from tests.unit.answering import recipe

from pointsman.access import SECRET_ANNOTATION
from pointsman.api.conditions import Reason
from pointsman.controller import apply
from pointsman.errors import Terminal
from pointsman.plan.actions import StartWork
from pointsman.plan.tasks import AskCanaries, Evaluate, Key, Side, Task, Work
from pointsman.work.jobs import Job
from pointsman.work.runners import InlineRunner

OWNER = Key("IndexDeployment", NAMESPACE, "papers")
RECIPES = {"v7": recipe("words"), "v8": recipe("first")}
SIDES = {name: Side(f"pm_papers_{name}", name, found.key) for name, found in RECIPES.items()}
EVALUATE = Evaluate(OWNER, "papers", "evaluation", "questions", "nDCG@10", SIDES["v8"], SIDES["v7"], 1)
ALONE = AskCanaries(OWNER, "papers", "questions", 5, SIDES["v8"], None, 1)


class Noted(InlineRunner):
    """Writes down what it was given."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def start(self, job: Job, generation: int) -> None:
        self.jobs.append(job)

    def work(self, owner: Key) -> tuple[Work, ...]:
        return ()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path)
    hosts = {
        "main": "main.example.com",
        "side": "side.example.com",
        "database": "db.example.com",
        "queries": "s3.amazonaws.com",
        "judgements": "s3.amazonaws.com",
    }
    for name, host in hosts.items():
        values: dict[str, str | bytes] = {"key": f"key of {name}", "username": name, "accessKeyID": name}
        made.cluster.put_secret(NAMESPACE, name, values, {SECRET_ANNOTATION: host})
    made.cluster.apply(_resource("EmbeddingDataset", "papers", _dataset()))
    made.cluster.apply(_resource("QuerySet", "questions", _query_set()))
    pgvector = {"host": "db.example.com", "database": "d", "credentialsRef": {"name": "database"}}
    spec = {"datasetRef": {"name": "papers"}, "version": "v8", "backend": {"pgvector": pgvector}}
    made.cluster.apply(_resource("IndexDeployment", "papers", spec))
    return made


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": NAMESPACE, "name": name}
    return {"apiVersion": "pointsman.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _dataset() -> dict[str, Any]:
    def version(name: str, model: str, endpoint: str) -> dict[str, Any]:
        reached = {"endpoint": endpoint, "model": model, "revision": "r1", "dimensions": 48}
        return {"name": name, "model": {"openai": reached}, "text": {"template": "{text}"}}

    def endpoint(name: str) -> dict[str, Any]:
        reference = {"name": name, "key": "key"}
        return {"name": name, "baseURL": f"https://{name}.example.com/v1", "apiKeyRef": reference}

    return {
        "source": {"files": {"uri": "file:///data/*.jsonl", "format": "jsonl"}, "idField": "id"},
        "endpoints": [endpoint("main"), endpoint("side")],
        "versions": [version("v7", "words", "main"), version("v8", "first", "side")],
    }


def _query_set() -> dict[str, Any]:
    def files(name: str) -> dict[str, Any]:
        return {"uri": f"s3://corpus/{name}.jsonl", "format": "jsonl", "credentialsRef": {"name": name}}

    return {"queries": {"files": files("queries")}, "judgements": {"files": files("judgements")}}


def job_for(stage: Stage, task: Task) -> Job:
    runner = Noted()
    here = dataclasses.replace(world(stage, Tripwire()), runner=runner)
    for version, found in RECIPES.items():
        here.store.dataset(NAMESPACE, "papers").pin(version, found)
    resource = stage.cluster.get("IndexDeployment", NAMESPACE, "papers")
    assert resource is not None
    apply.action(StartWork(task, 1), resource, here)
    (job,) = runner.jobs
    return job


def test_an_evaluation_gets_the_keys_of_both_models(stage: Stage) -> None:
    job = job_for(stage, EVALUATE)
    assert job.task == EVALUATE
    assert job.api_keys == {"main": "key of main", "side": "key of side"}
    assert (job.credentials, job.query_credentials, job.judgement_credentials) == (
        {"username": "database"},
        {"accessKeyID": "queries"},
        {"accessKeyID": "judgements"},
    )
    assert job.backend is not None and job.backend.pgvector is not None
    assert job.dataset is not None and [version.name for version in job.dataset.versions] == ["v7", "v8"]
    assert job.query_set is not None and job.query_set.judgements.kind == "Complete"


def test_secrets_that_were_rotated_since_are_in_the_next_job_of_the_same_operator(stage: Stage) -> None:
    runner = Noted()
    here = dataclasses.replace(world(stage, Tripwire()), runner=runner)
    for version, found in RECIPES.items():
        here.store.dataset(NAMESPACE, "papers").pin(version, found)
    resource = stage.cluster.get("IndexDeployment", NAMESPACE, "papers")
    assert resource is not None
    apply.action(StartWork(EVALUATE, 1), resource, here)
    for name, host in (("main", "main.example.com"), ("database", "db.example.com"), ("queries", "s3.amazonaws.com")):
        values: dict[str, str | bytes] = {"key": "new", "username": "new", "accessKeyID": "new"}
        stage.cluster.put_secret(NAMESPACE, name, values, {SECRET_ANNOTATION: host})

    apply.action(StartWork(EVALUATE, 1), resource, here)

    before, after = runner.jobs
    assert (before.api_keys["main"], before.credentials["username"]) == ("key of main", "database")
    assert after.api_keys == {"main": "new", "side": "key of side"}
    assert (after.credentials, after.query_credentials) == ({"username": "new"}, {"accessKeyID": "new"})


def test_who_is_asked_alone_needs_one_key(stage: Stage) -> None:
    assert job_for(stage, ALONE).api_keys == {"side": "key of side"}


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        pytest.param("EmbeddingDataset", "papers", Reason.DATASET_NOT_FOUND, id="the dataset"),
        pytest.param("QuerySet", "questions", Reason.QUERY_SET_NOT_FOUND, id="the query set"),
    ],
)
def test_what_is_named_and_missing_is_said(stage: Stage, kind: str, name: str, reason: Reason) -> None:
    stage.cluster.delete(kind, NAMESPACE, name, stage.now())
    with pytest.raises(Terminal) as error:
        job_for(stage, EVALUATE)
    assert error.value.reason is reason
    assert error.value.message == f"{kind} {name} is not in namespace {NAMESPACE}; create it, or name another"


def test_a_recipe_that_no_version_has_is_said(stage: Stage) -> None:
    unknown = dataclasses.replace(EVALUATE, serving=Side("pm_papers_1", "v6", "gone"))
    with pytest.raises(Terminal) as error:
        job_for(stage, unknown)
    assert error.value.message == "the recipe of v6 is not pinned in the store"
