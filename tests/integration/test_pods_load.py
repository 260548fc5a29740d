"""Loading an index in Kubernetes Jobs on a real API server and database, every pod a process that may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
MOST_KILLS = 3


@dataclass
class Room:
    """A PostgreSQL server, and whoever meddles with it."""

    server: postgres.Server
    database: Database
    stage: Stage
    kubelet: Kubelet
    killed: str = ""
    """The index whose pods are killed."""
    kills: list[int] = field(default_factory=list)
    """How many points it had by then, each time."""

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

    def loaders(self, index: str) -> list[Object]:
        """Return the pods that were started for an index."""
        labels = [pod["metadata"]["labels"].get("pointsman.dev/index") for pod in self.kubelet.started]
        return [pod for pod, label in zip(self.kubelet.started, labels, strict=True) if label == index]

    def jobs(self, index: str) -> list[Object]:
        """Return the Jobs that load an index."""
        found = self.stage.admin.get(f"/apis/batch/v1/namespaces/{self.stage.namespace}/jobs")["items"]
        return [job for job in found if job["metadata"]["labels"].get("pointsman.dev/index") == index]

    def is_time(self) -> bool:
        """Kill pods of an index now and then while they load it."""
        if len(self.kills) < MOST_KILLS and (count := self.count(self.killed)) > 300 * (1 + len(self.kills)):
            self.kills.append(count)
            return True
        return False


@pytest.fixture(scope="module")
def room(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("pods")
    with (
        postgres.start_postgres(folder) as server,
        databases.pgvector_at(server) as database,
        running(
            control_plane,
            folder / "stage",
            job_image="pointsman:test",
            job_store_shared="true",
            job_store_claim="store",
        ) as stage,
        Kubelet(stage).at_work() as kubelet,
    ):
        database.let_in(stage)
        found = Room(server, database, stage, kubelet)
        build(found)
        kill(found)
        yield found


def build(room: Room) -> None:
    """Have one process embed, and build v7 of two deployments; whatever comes later is loaded by pods."""
    stage = room.stage
    stage.declare("papers", stage.write(papers(COUNT)), wordllama("v7", 64), wordllama("v8", 128))
    stage.wait(lambda: stage.is_ready(DATASET, "papers"), "all is embedded")
    for name in ("alone", "papers"):
        stage.deploy(name, room.database.spec, dataset="papers")
    for name in ("alone", "papers"):
        stage.wait(lambda n=name: stage.serves(n, "v7"), f"one process has built {name}")
    stage.edit(DATASET, "papers", work=JOB)


def kill(room: Room) -> None:
    """Have pods killed while they load.

    What they have sent is waited out for minutes before anybody believes what is there: the other story is told
    meanwhile.
    """
    stage = room.stage
    stage.deploy("killed", room.database.spec, dataset="papers")
    room.killed = room.slowed("killed", set())
    room.kubelet.kills = room.is_time
    stage.wait(lambda: len(room.kills) == MOST_KILLS, "pods are killed")


def index_of(stage: Stage, name: str, version: str) -> Object:
    """Return what the status says of a version's index."""
    indexes = stage.get(DEPLOYMENT, name)["status"]["indexes"]
    return next(dict(index) for index in indexes if index["version"] == version)


def test_a_rollback_in_the_middle_ends_the_pods_and_what_they_loaded_is_gone_on_from(room: Room) -> None:
    stage, first = room.stage, room.stage.route("papers")["collection"]
    stage.edit(DEPLOYMENT, "papers", version="v8")
    index = room.slowed("papers", {first})
    stage.wait(lambda: room.count(index) > 300, "pods load v8", every=0.05)
    stage.edit(DEPLOYMENT, "papers", version="v7")
    stage.wait(lambda: stage.serves("papers", "v7") and not room.kubelet.pods, "v7 serves, and no pod is left")

    assert stage.route("papers")["collection"] == first
    left, before = room.count(index), len(room.loaders(index))
    assert 0 < left < COUNT
    assert room.jobs(index) == []

    # Wanted again; and the database lets go of all connections meanwhile.
    stage.edit(DEPLOYMENT, "papers", version="v8")
    stage.wait(lambda: room.count(index) > left + 300, "pods go on", every=0.05)
    pods = len(room.loaders(index))
    room.drop_connections()
    stage.wait(lambda: stage.serves("papers", "v8"), "v8 serves", within=LONG)

    assert pods > before
    assert len(room.loaders(index)) == pods
    assert index_of(stage, "papers", "v8")["rows"] == room.count(index) == COUNT
    assert stage.route("papers")["collection"] == index
    assert stage.tasks(DEPLOYMENT, "papers").count("Build") <= 4


def test_pods_that_are_killed_at_random_load_what_one_process_would(room: Room) -> None:
    stage, wanted = room.stage, index_of(room.stage, "alone", "v7")

    stage.wait(lambda: stage.serves("killed", "v7"), "the index serves", within=LONG)

    found = index_of(stage, "killed", "v7")
    assert len(room.kills) == MOST_KILLS and all(0 < count < COUNT for count in room.kills)
    assert len(room.loaders(room.killed)) >= 4
    assert (found["name"], found["rows"], found["digest"]) == (room.killed, COUNT, wanted["digest"])
    assert room.database.content(room.killed) == room.database.content(wanted["name"])
    assert room.database.find(stage.route("killed"), "Paper 17. Number 17 of the series")
    loads = stage.store().dataset(stage.namespace, "papers").loads()
    assert room.killed not in [index for index, _ in loads]
    assert [job["metadata"]["name"] for job in room.jobs(room.killed) if not job["status"].get("completionTime")] == []
