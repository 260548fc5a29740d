"""Loading an index in the pods of Kubernetes Jobs: who makes which Job when, who may write, and what comes last."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.kubelet import Killed
from tests.unit.carrying import Carried, Enough, none
from tests.unit.test_indexing import RECIPE, publish
from tests.unit.test_loading import Flaky, texts

from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api import engines
from pointsman.api.conditions import Reason
from pointsman.cli import shard as shard_command
from pointsman.cluster import job_objects
from pointsman.cluster.job_objects import Pods
from pointsman.cluster.jobs import InPods, Means
from pointsman.cluster.resources import DATASET, DEPLOYMENT
from pointsman.core import rows
from pointsman.errors import Retryable, Terminal
from pointsman.plan.facts import record_from_json
from pointsman.plan.tasks import Build, Clean, Key, Wait
from pointsman.store.ledger import Attempt
from pointsman.store.root import Store
from pointsman.work import jobs, loading
from pointsman.work.jobs import Doors, Job, Stage
from pointsman.work.processes import InProcess

OWNER = Key(DEPLOYMENT, "shop", "papers")
NAME = "pm_shop_papers_v7_1"
TASK = Build(OWNER, "papers", NAME, "v7", RECIPE.key, 1)
PGVECTOR = {
    "pgvector": {
        "host": "db.example.com", "database": "vectors", "credentialsRef": {"name": "database"}, "tls": "Require"
    }
}  # fmt: skip


class Room(Carried):
    """A dataset of so many stored vectors, and a database."""

    def __init__(self, folder: Path, count: int = 300, **job: Any) -> None:
        super().__init__(folder, Doors(Store, none, none, self._backend))
        self.database = Flaky()
        self.store = Store(str(folder))
        self.dataset = self.store.dataset("shop", "papers")
        self.dataset.pin("v7", RECIPE)
        publish(self.dataset, 1, texts(count))
        secrets = folder / "secrets" / "database"
        secrets.mkdir(parents=True)
        for name, value in (("username", "ana"), ("password", "sesame ")):
            (secrets / name).write_text(value)
        self.credentials: list[dict[str, str]] = []
        self.backend = PGVECTOR
        self.spec = {
            "source": {"files": {"uri": "file:///corpus", "format": "jsonl"}, "idField": "id"},
            "versions": [{"name": "v7", "model": {"wordllama": {"dimensions": 64}}}],
            "work": {"mode": "Job", "job": {"shards": 3, **job}},
        }
        self.apply()

    def _backend(self, _spec: Any, values: dict[str, str], _access: Any) -> Any:
        self.credentials.append(values)
        return self.database

    def apply(self) -> None:
        self.cluster.apply({"kind": DATASET, "metadata": {"namespace": "shop", "name": "papers"}, "spec": self.spec})

    def job(self, task: Build = TASK, **changes: Any) -> Job:
        spec = dataset_api.Spec.model_validate(self.spec)
        values: dict[str, Any] = {"backend": engines.Backend.model_validate(self.backend), "dataset": spec}
        return Job(task, str(self.folder), **{**values, "uid": "u2", "access": Access(), **changes})

    def cursor(self) -> rows.Cursor | None:
        found = self.store.log(*jobs.index_log(OWNER, NAME)).read()
        return None if found is None else record_from_json(found.value).cursor

    def doubted_at(self) -> datetime | None:
        found = self.store.log(*jobs.index_log(OWNER, NAME)).read()
        return None if found is None else record_from_json(found.value).doubted_at

    def ledgers(self) -> list[str]:
        return [str(path) for path in self.folder.rglob("loads/**/*") if path.is_file()]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_pods_load_and_the_operator_proves_the_whole(room: Room) -> None:
    room.carry_out()

    assert room.cursor() == rows.Cursor(1, 1)
    assert room.doubted_at() is None
    assert room.database.count(NAME) == sum(room.database.loaded) == 300
    assert len(room.batch.created) == 1
    assert room.progress[-1] == (300, 300)
    assert {wait for wait in room.said if wait is not None} == set()
    assert room.ledgers() == []


def test_a_pod_sees_the_database_and_is_told_nothing_secret(room: Room) -> None:
    room.edit(resources={"limits": {"memory": "4Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "1"}})
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    (job,) = room.batch.all()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    # Devices are for models.
    assert container["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    items = [{"key": key, "path": key} for key in ("username", "password")]
    assert volumes["database"]["secret"] == {"secretName": "database", "items": items}
    assert volumes.keys() == {"tmp", "store", "database"}
    assert "sesame" not in json.dumps(container["env"])
    told = json.loads(container["env"][0]["value"])
    assert told["index"] == NAME
    assert (told["access"]["store"], "corpus" in json.dumps(told)) == ("", False)
    owner = job["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"]) == (DEPLOYMENT, "papers", "u2")
    assert job_objects.index_of(job) == NAME
    assert job_objects.of(job) == (RECIPE.key, 1)


@pytest.mark.parametrize(
    ("backend", "secret"),
    [
        (
            {"qdrant": {"url": "https://db", "apiKeyRef": {"name": "db", "key": "token"}}},
            {"secretName": "db", "items": [{"key": "token", "path": "apiKey"}]},
        ),
        ({"qdrant": {"url": "http://db:6333"}}, None),
        (
            {"milvus": {"uri": "https://db", "tokenRef": {"name": "db", "key": "root"}}},
            {"secretName": "db", "items": [{"key": "root", "path": "token"}]},
        ),
    ],
    ids=["qdrant", "qdrant without a key", "milvus"],
)
def test_a_pod_mounts_what_its_database_wants(
    room: Room, backend: dict[str, Any], secret: dict[str, Any] | None
) -> None:
    room.backend = backend
    if secret is None:
        room.kubelet.secrets = Path("/nowhere")
        room.carry_out()
        assert room.credentials[-2] == {}
    else:
        with pytest.raises(Enough):
            room.carry_out(looks=1)
    (job,) = room.batch.all()
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes.get("database", {}).get("secret") == secret


def test_a_pod_opens_the_database_with_what_it_mounts(room: Room) -> None:
    room.carry_out()

    assert {"username": "ana", "password": "sesame "} in room.credentials


@pytest.mark.parametrize("looks", range(1, 4))
def test_an_operator_that_takes_over_finds_the_job_and_makes_no_other(room: Room, looks: int) -> None:
    with contextlib.suppress(Enough):
        room.carry_out(looks=looks)
    room.carry_out()

    assert len(room.batch.created) == 1
    assert room.cursor() == rows.Cursor(1, 1)


def test_a_pod_that_is_killed_is_started_again_and_what_it_sent_is_waited_for(room: Room) -> None:
    deaths = 1

    def die() -> None:
        nonlocal deaths
        if deaths and len(room.database.loaded) > 3:
            deaths -= 1
            raise Killed

    room.database.before = die
    began = room.now
    room.carry_out()

    assert len(room.kubelet.pods) == 4
    assert room.cursor() == rows.Cursor(1, 1)
    assert room.doubted_at() == room.now
    assert room.now - began >= loading.SETTLES
    waits = [wait for wait in room.said if wait is not None]
    assert {wait.reason for wait in waits} == {Reason.JOB_FAILED}
    assert f"what pods that ended without a word have sent to {NAME} may arrive until" in waits[0].message
    assert room.said[-1] is None


def test_whoever_takes_over_while_that_is_waited_for_waits_no_longer(room: Room) -> None:
    def die() -> None:
        room.database.before = lambda: None
        raise Killed

    room.database.before = die
    with pytest.raises(Enough):
        room.carry_out(looks=20)
    began, count = room.now, sum(room.database.loaded)
    assert room.cursor() is None
    room.carry_out()

    assert room.cursor() == rows.Cursor(1, 1)
    assert room.now - began < loading.SETTLES
    assert sum(room.database.loaded) == count
    assert len(room.batch.created) == 1


def test_a_job_that_is_left_over_when_all_is_loaded_is_deleted(room: Room) -> None:
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    ledger = room.dataset.load(NAME, 1)
    (job,) = room.batch.all()
    for shard in range(3):
        # The cluster has not noticed yet that they are done.
        told = json.loads(job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"])
        assert shard_command.run(told, shard, room.kubelet.secrets, room.doors) == 0
    assert len(ledger.finished()) == ledger.run().portions  # type: ignore[union-attr]
    room.each = []
    room.carry_out()

    assert room.batch.all() == []
    assert room.cursor() == rows.Cursor(1, 1)


def test_an_index_that_is_dropped_in_the_middle_fails_the_job_at_once_and_is_loaded_anew(room: Room) -> None:
    def drop() -> None:
        if len(room.database.loaded) == 4:
            room.database.drop(NAME)
            room.database.before = lambda: None

    room.database.before = drop
    error = room.fails(Retryable)

    assert error.reason is Reason.JOB_FAILED
    assert "is not in the database" in error.message or "is gone from the database" in error.message
    assert len(room.kubelet.pods) <= 3
    room.carry_out()
    assert room.cursor() == rows.Cursor(1, 1)
    assert room.database.count(NAME) == 300


def test_what_the_database_refuses_is_told_and_is_not_tried_for_ever(room: Room) -> None:
    def refuse() -> None:
        raise Terminal(Reason.BACKEND_UNAUTHORIZED, "db refused the password; check it in the Secret")

    room.database.before = refuse
    error = room.fails(Terminal)

    assert error.reason is Reason.BACKEND_UNAUTHORIZED
    assert len(room.kubelet.pods) == 1


def test_a_newer_snapshot_ends_the_run_of_the_one_before_and_leaves_nothing_of_it(room: Room) -> None:
    with pytest.raises(Enough):
        room.carry_out(looks=2)
    (old,) = room.batch.all()
    assert 0 < room.database.count(NAME) < 300
    publish(room.dataset, 2, {"doc-0": "other", "doc-999": "new"})
    room.batch.delete("shop", old["metadata"]["name"])

    room.carry_out(room.job(dataclasses.replace(TASK, snapshot=2)))

    assert room.cursor() == rows.Cursor(2, 2)
    assert room.database.count(NAME) == 2
    assert room.ledgers() == []


def test_one_process_that_takes_over_waits_for_pods_that_were_killed(room: Room) -> None:
    def die() -> None:
        room.database.before = lambda: None
        raise Killed

    room.database.before = die
    with pytest.raises(Enough):
        room.carry_out(looks=2)
    alone = room.job(dataset=None)

    error = room.fails(Retryable, alone)
    assert (error.reason, error.retry_after) == (Reason.JOB_FAILED, loading.SETTLES.total_seconds())
    room.now += loading.SETTLES
    room.carry_out(alone)
    assert room.cursor() == rows.Cursor(1, 1)
    assert room.ledgers() == []


class AtTheSeal:
    """A carrier that does something while a graph is built."""

    def __init__(self, inner: InProcess) -> None:
        self.inner, self.meanwhile = inner, list[Callable[[], None]]()

    def carry_out(self, job: Job, *arguments: Any) -> None:
        while job.stage is Stage.SEAL and self.meanwhile:
            self.meanwhile.pop()()
        self.inner.carry_out(job, *arguments)

    def close(self) -> None:
        self.inner.close()


def test_while_a_graph_is_built_other_indexes_are_begun_and_another_graph_waits(room: Room) -> None:
    def pause(_cancelled: threading.Event, _seconds: float) -> None:
        if room.said and room.said[-1] is not None:
            raise Enough
        room.kubelet.step()

    means = Means(room.batch, room.cluster, room.pods, Store, lambda: room.now, pause=pause)
    workers = AtTheSeal(InProcess(room.doors, lambda: room.now))
    carrier = InPods(workers, means, workers=1)

    def load(task: Build) -> None:
        carrier.carry_out(room.job(task), lambda done, total: None, threading.Event(), room.said.append)

    def another() -> None:
        with pytest.raises(Enough):
            load(dataclasses.replace(TASK, index="pm_shop_papers_v7_2"))

    workers.meanwhile.append(another)
    load(TASK)

    assert len(room.batch.created) == 2
    assert room.database.count("pm_shop_papers_v7_2") == 300
    (wait,) = {wait for wait in room.said if wait is not None}
    assert wait.reason is Reason.CONFLICT
    assert wait.message.startswith("all workers (1) have graphs built for other pods; wanted one free")
    assert room.cursor() == rows.Cursor(1, 1)


def test_suspending_stops_the_pods_and_going_on_starts_them(room: Room) -> None:
    room.edit(suspend=True)
    with pytest.raises(Enough):
        room.carry_out(looks=5)
    assert room.kubelet.pods == []
    assert room.said[-1] == Wait(Reason.SUSPENDED, f"Job {room.batch.created[0]} is suspended")
    room.edit(suspend=False)
    room.carry_out()

    assert len(room.batch.created) == 1
    assert room.cursor() == rows.Cursor(1, 1)


def test_a_quota_is_told_of_in_the_words_of_the_cluster(room: Room) -> None:
    room.batch.refusal = "exceeded quota: jobs, requested: count/jobs.batch=1"

    error = room.fails(Retryable)

    assert error.reason is Reason.JOB_REFUSED
    assert "exceeded quota: jobs" in error.message
    room.batch.refusal = ""
    room.carry_out()
    assert room.cursor() == rows.Cursor(1, 1)


def test_a_store_that_pods_cannot_reach_is_refused_with_the_reason(room: Room) -> None:
    room.pods = Pods(image="pointsman:test")

    assert room.fails(Terminal).reason is Reason.STORE_NOT_SHARED
    assert room.batch.created == []


def test_jobs_of_an_embedding_and_of_two_indexes_have_names_of_their_own() -> None:
    names = {job_objects.name_of(dataclasses.replace(TASK, index=index), "u2", 1) for index in (NAME, "pm_2")}

    assert len(names) == 2
    assert all(len(name) <= 63 - len("-999") and name.startswith("papers-v7-") for name in names)


def test_a_clean_up_takes_the_ledgers_of_snapshots_that_go(room: Room) -> None:
    with pytest.raises(Enough):
        room.carry_out(looks=2)
    publish(room.dataset, 2, texts(2))
    owner = Key(DATASET, "shop", "papers")
    InProcess(room.doors, lambda: room.now).carry_out(
        Job(Clean(owner, (2,), (RECIPE.key,)), str(room.folder)), lambda *_: None, threading.Event()
    )

    assert room.ledgers() == []


def test_keys_that_come_into_the_stores_file_later_are_told_to_no_pod(room: Room, tmp_path: Path) -> None:
    """Whoever reads Jobs reads what pods are told; the file is edited while they are at work."""
    file = tmp_path / "options"
    file.write_text('{"aws_region": "eu-north-1"}')
    job = dataclasses.replace(room.job(), store_options={"options_file": str(file)})
    attempt = Attempt(1, 1, (0,))
    assert job_objects.description(job, TASK, RECIPE, attempt, "run")["store_options"] == {"aws_region": "eu-north-1"}

    file.write_text('{"aws_region": "eu-north-1", "aws_secret_access_key": "sesame"}')

    with pytest.raises(Terminal, match="opened with aws_secret_access_key, which may be secret") as failure:
        job_objects.manifest(job, TASK, RECIPE, attempt, room.pods, "run")
    assert failure.value.reason is Reason.STORE_NOT_SHARED
    assert "sesame" not in failure.value.message
