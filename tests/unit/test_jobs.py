"""A job arrives at a worker as it was sent: with all that it carries, and with no more rights than the operator has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import orjson
import pytest

from pointsman.access import Access
from pointsman.api import queryset
from pointsman.plan.tasks import AskCanaries, Evaluate, Key, ReadQueries, Refresh, Side, Task
from pointsman.work import wire
from pointsman.work.jobs import Job

ACCESS = Access(
    file_roots=(Path("/data"),),
    allowed_hosts=("db.example.com",),
    allow_loopback=True,
    allow_ambient_credentials=True,
    allow_memory_backend=True,
    store="s3://vectors/search",
    denied_hosts=("[fd00::1]:443",),
)


def crossed(job: Job) -> Job:
    return wire.from_json(orjson.loads(orjson.dumps(wire.to_json(job))))


def test_every_setting_of_access_reaches_the_worker() -> None:
    default = Access()
    same = [
        f.name for f in dataclasses.fields(Access) if f.compare and getattr(ACCESS, f.name) == getattr(default, f.name)
    ]
    assert same == [], "the test itself must set every field to something else than its default"

    found = crossed(Job(Refresh(Key("EmbeddingDataset", "search", "papers"), "t"), "/store", access=ACCESS))

    assert found.access == ACCESS


def test_queries_and_judgements_each_arrive_with_their_own_credentials() -> None:
    files = {"uri": "s3://corpus/a.jsonl", "format": "jsonl"}
    sent = Job(
        ReadQueries(Key("QuerySet", "search", "papers-eval"), "digest"),
        "/store",
        query_set=queryset.Spec.model_validate({"queries": {"files": files}, "judgements": {"files": files}}),
        query_credentials={"accessKeyID": "of the queries"},
        judgement_credentials={"accessKeyID": "of the judgements"},
    )

    assert crossed(sent) == sent
    assert "of the" not in repr(sent)


CANDIDATE, SERVING = Side("pm_papers_2", "v8", "recipe-8"), Side("pm_papers_1", "v7", "recipe-7")
DEPLOYMENT = Key("IndexDeployment", "search", "papers")


@pytest.mark.parametrize("serving", [SERVING, None], ids=["beside another", "alone"])
@pytest.mark.parametrize("kind", [Evaluate, AskCanaries])
def test_whoever_asks_two_indexes_arrives_with_the_keys_of_both_models(
    kind: type[Evaluate | AskCanaries], serving: Side | None
) -> None:
    task: Task = AskCanaries(DEPLOYMENT, "papers", "papers-eval", 5, CANDIDATE, serving, 12)
    if kind is Evaluate:
        task = Evaluate(DEPLOYMENT, "papers", "stable", "papers-eval", "nDCG@10", CANDIDATE, serving, 12)
    sent = Job(task, "/store", api_keys={"main": "of main", "side": "of side"})

    assert crossed(sent) == sent
    assert "of main" not in repr(sent)
