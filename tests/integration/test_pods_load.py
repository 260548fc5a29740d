"""Loading an index in Kubernetes Jobs on a real API server and database, every pod a process that may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration import databases
from tests.integration.databases import Database
from tests.integration.kubelet import Kubelet
from tests.integration.operator_process import DATASET, DEPLOYMENT, Object, Stage, papers, running, wordllama
from tests.servers import postgres

from pointsman.controlplane import plane
from pointsman.work import loading

pytestmark = pytest.mark.server

COUNT = 3_000
LONG = 180 + loading.SETTLES.total_seconds()
"""Seconds that it may take where a pod was killed, beside all else."""
JOB = {"mode": "Job", "job": {"shards": 3}}


@dataclass
class Room:
    """A PostgreSQL server, and whoever meddles with it."""

    server: postgres.Server
    database: Database
    stage: Stage

    def connect(self) -> psycopg.Connection[Any]:
        host, port, name, username, password = self.server
        return psycopg.connect(host=host, port=port, dbname=name, user=username, password=password, autocommit=True)

    def slowed(self, deployment: str, others: set[str]) -> str:
        """Wait for a deployment's next index, have it take its time over each batch, and return its name."""
        found: list[str] = []

        def is_there() -> bool:
            resource = self.stage.get(DEPLOYMENT, deployment)
            found[:] = [name for name in self.database.collections(self.stage, resource) if name not in others]
            return bool(found)

        self.stage.wait(is_there, "the index is there", every=0.05)
        with self.connect() as client:
            client.execute(
                "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END $$"
            )
            client.execute(
                f"CREATE TRIGGER slow BEFORE INSERT ON {found[0]} FOR EACH STATEMENT EXECUTE FUNCTION slow()"
            )
        return found[0]

    def drop_connections(self) -> None:
        """Have the server end all connections, as one that is restarted does."""
        with self.connect() as client:
            client.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def count(self, index: str) -> int:
        with self.connect() as client:
            return int(client.execute(f"SELECT count(*) FROM {index}").fetchall()[0][0])


@pytest.fixture
def room(control_plane: plane.ControlPlane, tmp_path: Path) -> Iterator[Room]:
    with (
        postgres.start_postgres(tmp_path) as server,
        databases.pgvector_at(server) as database,
        running(
            control_plane, tmp_path / "stage", job_image="pointsman:test", job_store_shared="true", job_store_claim="store"
        ) as stage,
    ):
        database.let_in(stage)
        yield Room(server, database, stage)


@pytest.fixture
def kubelet(room: Room) -> Iterator[Kubelet]:
    with Kubelet(room.stage).at_work() as found:
        yield found


def embedded(stage: Stage, name: str, **more: Any) -> None:
    versions = (wordllama("v7", 64), wordllama("v8", 128))
    stage.declare(name, stage.write(papers(COUNT), name), *versions, **more)
    stage.wait(lambda: stage.is_ready(DATASET, name), f"{name} is embedded")


def index_of(stage: Stage, name: str, version: str) -> Object:
    """Return what the status says of a version's index."""
    indexes = stage.get(DEPLOYMENT, name)["status"]["indexes"]
    return next(dict(index) for index in indexes if index["version"] == version)


def jobs(stage: Stage) -> list[Object]:
    """Return the Jobs that load an index."""
    found = stage.admin.get(f"/apis/batch/v1/namespaces/{stage.namespace}/jobs")["items"]
    return [job for job in found if "pointsman.dev/index" in job["metadata"]["labels"]]


def loaders(kubelet: Kubelet) -> list[Object]:
    return [pod for pod in kubelet.started if "pointsman.dev/index" in pod["metadata"]["labels"]]


def test_pods_that_are_killed_at_random_load_what_one_process_would(room: Room, kubelet: Kubelet) -> None:
    stage, kills = room.stage, list[int]()
    embedded(stage, "alone")
    stage.deploy("alone", room.database.spec)
    stage.wait(lambda: stage.serves("alone", "v7"), "one process has built it")
    wanted = index_of(stage, "alone", "v7")
    embedded(stage, "papers", work=JOB)
    stage.deploy("papers", room.database.spec)
    index = room.slowed("papers", set())

    def is_time() -> bool:
        if len(kills) < 3 and room.count(index) > 300 * (1 + len(kills)):
            kills.append(room.count(index))
            return True
        return False

    kubelet.kills = is_time
    stage.wait(lambda: stage.serves("papers", "v7"), "the index serves", within=LONG)

    found = index_of(stage, "papers", "v7")
    assert len(kills) == 3 and all(0 < count < COUNT for count in kills)
    assert len(loaders(kubelet)) >= 4
    assert (found["name"], found["rows"], found["digest"]) == (index, COUNT, wanted["digest"])
    assert room.database.content(index) == room.database.content(wanted["name"])
    assert room.database.find(stage.route("papers"), "Paper 17. Number 17 of the series")
    dataset = stage.store().dataset(stage.namespace, "papers")
    assert dataset.loads() == []
    assert [job["metadata"]["name"] for job in jobs(stage) if not job["status"].get("completionTime")] == []


def test_a_rollback_in_the_middle_ends_the_pods_and_what_they_loaded_is_gone_on_from(
    room: Room, kubelet: Kubelet
) -> None:
    stage = room.stage
    embedded(stage, "papers", work=JOB)
    stage.deploy("papers", room.database.spec)
    stage.wait(lambda: stage.serves("papers", "v7"), "v7 serves")
    first = stage.route("papers")["collection"]
    before = len(loaders(kubelet))
    stage.edit(DEPLOYMENT, "papers", version="v8")
    index = room.slowed("papers", {first})
    stage.wait(lambda: room.count(index) > 300, "pods load v8", every=0.05)
    stage.edit(DEPLOYMENT, "papers", version="v7")
    stage.wait(lambda: stage.serves("papers", "v7") and not kubelet.pods, "v7 serves, and no pod is left")

    assert stage.route("papers")["collection"] == first
    left = room.count(index)
    assert 0 < left < COUNT
    assert [job for job in jobs(stage) if job["metadata"]["labels"]["pointsman.dev/index"] == index] == []

    # Wanted again; and the database lets go of all connections meanwhile.
    stage.edit(DEPLOYMENT, "papers", version="v8")
    stage.wait(lambda: room.count(index) > left + 300, "pods go on", every=0.05)
    pods = len(loaders(kubelet))
    room.drop_connections()
    stage.wait(lambda: stage.serves("papers", "v8"), "v8 serves", within=LONG)

    assert pods > before
    assert len(loaders(kubelet)) == pods
    assert index_of(stage, "papers", "v8")["rows"] == room.count(index) == COUNT
    assert stage.route("papers")["collection"] == index
    assert stage.tasks(DEPLOYMENT, "papers").count("Build") <= 4
