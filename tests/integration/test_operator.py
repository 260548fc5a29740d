"""The main job, as a user does it: a real operator on a real API server, with real databases."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration import databases
from tests.integration.databases import Database
from tests.integration.operator_process import DATASET, DEPLOYMENT, Stage, papers, running, wordllama
from tests.servers.openai_server import MODEL, OpenAIServer

from pointsman.controlplane import plane
from pointsman.embedders.wordllama import Wordllama
from pointsman.plan.tasks import Key
from pointsman.work import jobs

pytestmark = pytest.mark.server

V7, V8 = wordllama("v7", 64), wordllama("v8", 256)
ONE_SWITCH = ["RecordFacts", "PublishRoute"]
MEMORY: dict[str, Any] = {"memory": {}}


@pytest.fixture(scope="module")
def stage(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(control_plane, tmp_path_factory.mktemp("operator") / "stage", resync_seconds="0.5") as stage:
        yield stage


@pytest.fixture(scope="module")
def milvus(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with databases.milvus_lite(tmp_path_factory.mktemp("milvus")) as database:
        yield database


@pytest.fixture(scope="module")
def pgvector(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with databases.pgvector(tmp_path_factory.mktemp("postgres")) as database:
        database.let_in(stage)
        yield database


@pytest.fixture(params=["milvus", "pgvector"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


def serves_whole(stage: Stage, name: str, version: str, database: Database, rows: int = 60) -> Callable[[], bool]:
    """Return a claim that a version serves; each look also proves that what is on the route holds all rows."""

    def claim() -> bool:
        route = stage.route(name)
        assert not route or database.count(route["collection"]) == rows
        return stage.serves(name, version)

    return claim


def migrate(stage: Stage, database: Database, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Declare a dataset and a deployment of v7, change the line to v8, and return both routes."""
    stage.declare(name, stage.write(papers(60), name), V7)
    stage.deploy(name, database.spec)
    stage.wait(serves_whole(stage, name, "v7", database), "v7 to serve")
    seventh = stage.route(name)
    stage.edit(DATASET, name, versions=[V7, V8])
    stage.edit(DEPLOYMENT, name, version="v8")
    stage.wait(serves_whole(stage, name, "v8", database), "v8 to serve")
    return seventh, stage.route(name)


def test_a_migration_is_one_line_and_so_is_the_way_back(stage: Stage, database: Database) -> None:
    name = f"migrated-{database.kind}"

    seventh, eighth = migrate(stage, database, name)

    told = ("version", "snapshot", "dimensions", "provider", "engine", "metric", "routeRevision")
    assert [seventh[key] for key in told] == ["v7", "1", "64", "wordllama", database.kind, "cosine", "1"]
    assert [eighth[key] for key in told] == ["v8", "1", "256", "wordllama", database.kind, "cosine", "2"]
    assert eighth["collection"] != seventh["collection"] and eighth["space"] != seventh["space"]
    text = "Paper 7. Number 7 of the series is about steam locomotives, and what became of them."
    assert database.find(seventh, text) == database.find(eighth, text) == {"paper-7": text}

    # Both indexes are there and current, so each way is one switch.
    embedded, content = stage.embedded(name), database.content(seventh["collection"])
    for version, route, revision in (("v7", seventh, "3"), ("v8", eighth, "4")):
        before = len(stage.operator.lines())
        stage.edit(DEPLOYMENT, name, version=version)
        stage.wait(serves_whole(stage, name, version, database), f"{version} to serve again")
        assert stage.route(name) == {**route, "routeRevision": revision}
        assert made(stage, name, before) == ONE_SWITCH
        assert stage.actions(DATASET, name, before) == []
    assert stage.embedded(name) == embedded
    assert database.content(seventh["collection"]) == content
    history = stage.get(DEPLOYMENT, name)["status"]["history"]
    assert [(entry["version"], entry["snapshot"]) for entry in history] == [("v7", 1), ("v8", 1), ("v7", 1), ("v8", 1)]


def made(stage: Stage, name: str, since: int) -> list[str]:
    """Return what was done for a deployment after so many lines of the log, but for asking what is retained."""
    assert set(stage.tasks(DEPLOYMENT, name, since)) <= {"Probe"}
    return [action for action in stage.actions(DEPLOYMENT, name, since) if action != "StartWork"]


def test_an_edited_source_reaches_every_index_by_difference(stage: Stage, database: Database) -> None:
    name = f"edited-{database.kind}"
    seventh, eighth = migrate(stage, database, name)
    rows = papers(61)
    rows[3]["text"] = "Another text, about water towers."
    del rows[5]

    stage.write(rows, name)
    stage.refresh(name, "edited")
    stage.wait(lambda: cursors(stage, name) == {"v7": 2, "v8": 2}, "both indexes to follow")

    for version in stage.get(DATASET, name)["status"]["versions"]:
        assert (version["snapshot"], version["embedded"], version["reused"]) == (2, 2, 58)
        causes = {cause: count for cause, count in version["changes"].items() if count}
        assert causes == {"added": 1, "edited": 1, "deleted": 1, "unchanged": 58}
    for route in (seventh, eighth):
        found = database.find(route, "Another text, about water towers.", 100)
        assert found.keys() == {row["id"] for row in rows}
        assert next(iter(found.items())) == ("paper-3", "Paper 3. Another text, about water towers.")
    stage.wait(lambda: stage.route(name) == {**eighth, "snapshot": "2"}, "the ConfigMap to name the snapshot")
    collections = database.collections(stage, stage.get(DEPLOYMENT, name))
    assert sorted(collections) == sorted([seventh["collection"], eighth["collection"]])


def cursors(stage: Stage, name: str) -> dict[str, int]:
    """Return the snapshot that each version's index has reached."""
    indexes = stage.get(DEPLOYMENT, name)["status"]["indexes"]
    return {index["version"]: index["cursor"]["snapshot"] for index in indexes}


def test_a_pinned_snapshot_is_a_rollback_of_content(stage: Stage, database: Database) -> None:
    name = f"pinned-{database.kind}"
    stage.declare(name, stage.write(papers(60), name), V7)
    stage.deploy(name, database.spec)
    stage.wait(lambda: stage.serves(name, "v7"), "v7 to serve")
    stage.write([*papers(55), {"id": "late", "title": "Late", "text": "A late arrival."}], name)
    stage.refresh(name, "edited")
    stage.wait(lambda: stage.route(name)["snapshot"] == "2", "snapshot 2 to serve")
    newest, embedded = stage.route(name), stage.embedded(name)

    stage.edit(DEPLOYMENT, name, snapshot=1)
    stage.wait(lambda: stage.is_ready(DEPLOYMENT, name), "snapshot 1 to serve")
    pinned = stage.route(name)
    assert (pinned["version"], pinned["snapshot"], pinned["routeRevision"]) == ("v7", "1", "2")
    assert database.find(pinned, "A late arrival.", 100).keys() == {row["id"] for row in papers(60)}

    before = len(stage.operator.lines())
    stage.edit(DEPLOYMENT, name, snapshot=None)
    stage.wait(lambda: stage.is_ready(DEPLOYMENT, name), "the newest snapshot to serve")
    assert stage.route(name) == {**newest, "routeRevision": "3"}
    assert made(stage, name, before) == ONE_SWITCH
    assert next(iter(database.find(newest, "A late arrival."))) == "late"
    assert stage.embedded(name) == embedded


def test_a_retired_version_comes_back_from_stored_vectors(stage: Stage, pgvector: Database) -> None:
    sent: list[str] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        sent.extend(texts)
        return Wordllama().embed(texts)

    with OpenAIServer(embed=embed) as server:
        model = {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 256}}
        seventh = {**V7, "model": model}
        uri = stage.write(papers(60), "retired")
        stage.declare("retired", uri, seventh, V8, endpoints=[{"name": "main", "baseURL": server.url}])
        stage.deploy("retired", pgvector.spec, retire={"after": "1s"})
        stage.wait(lambda: stage.serves("retired", "v7"), "v7 to serve")
        first = stage.route("retired")
        stage.edit(DEPLOYMENT, "retired", version="v8")
        stage.wait(lambda: stage.serves("retired", "v8"), "v8 to serve")
        stage.wait(lambda: len(stage.get(DEPLOYMENT, "retired")["status"]["indexes"]) == 1, "v7 to retire")
        assert pgvector.collections(stage, stage.get(DEPLOYMENT, "retired")) == [stage.route("retired")["collection"]]
        assert stage.condition(DEPLOYMENT, "retired", "RollbackReady")["reason"] == "NothingRetained"
        sent.clear()

        before = stage.get(DEPLOYMENT, "retired")
        stage.edit(DEPLOYMENT, "retired", version="v7")
        stage.wait(lambda: stage.serves("retired", "v7"), "v7 to serve again")

        again = stage.route("retired")
        assert again["collection"] != first["collection"]
        assert {**again, "collection": "", "routeRevision": ""} == {**first, "collection": "", "routeRevision": ""}
        assert pgvector.count(again["collection"]) == 60
        assert sent == []
        found = [c for state in stage.past(DEPLOYMENT, before) for c in state["status"]["conditions"]]
        built = "v7@1 is being built from stored vectors"
        assert any(c["type"] == "Reconciling" and c["message"].startswith(built) for c in found)


def test_what_is_deleted_goes_and_what_is_orphaned_stays(stage: Stage, database: Database) -> None:
    fates = {f"{policy.lower()}-{database.kind}": policy for policy in ("Delete", "Orphan")}
    for name, policy in fates.items():
        stage.declare(name, stage.write(papers(60), name), V7, deletionPolicy=policy)
        stage.deploy(name, database.spec, deletionPolicy=policy)
    left = {}
    for name, policy in fates.items():
        stage.wait(lambda name=name: stage.serves(name, "v7"), f"{name} to serve")
        collection = stage.route(name)["collection"]

        # The dataset goes first and waits for the deployment, whose ConfigMap goes with it.
        stage.delete(DATASET, name)
        stage.wait(lambda name=name: "used by" in stage.said(DATASET, name)[1], "the dataset to be held")
        assert stage.serves(name, "v7")
        stage.delete(DEPLOYMENT, name)
        stage.wait(lambda name=name: not stage.exists(DEPLOYMENT, name), "the deployment to go")
        stage.wait(lambda name=name: not stage.exists(DATASET, name), "the dataset to go")

        facts = stage.store().log(*jobs.facts_log(Key(DEPLOYMENT, stage.namespace, name))).read()
        is_there = database.engine.backend.find(collection) is not None
        left[policy] = (stage.route(name), is_there, facts is not None, len(stage.embedded(name)))

    assert left == {"Delete": ({}, False, False, 0), "Orphan": ({}, True, True, 1)}


def test_a_user_sees_what_is_going_on_from_the_first_write_on(stage: Stage) -> None:
    created = {
        DATASET: stage.declare("seen", stage.write(papers(60), "seen"), V7),
        DEPLOYMENT: stage.deploy("seen", MEMORY),
    }
    stage.wait(lambda: stage.serves("seen", "v7"), "v7 to serve")

    assert stage.table(DEPLOYMENT, "seen") == {
        "Name": "seen",
        "Serving": "v7",
        "Target": "v7",
        "Phase": "Serving",
        "Step": None,
        "Weight": "v7 100",
        "Ready": "True",
        "Rollback": "False",
    }
    for kind, resource in created.items():
        statuses = [state["status"] for state in stage.past(kind, resource) if "status" in state]
        assert statuses
        for status in statuses:
            assert status["observedGeneration"] == 1
            goal = {c["type"]: c["status"] for c in status["conditions"] if c["observedGeneration"] == 1}
            assert sorted(goal[of] for of in ("Ready", "Reconciling", "Stalled")) == ["False", "False", "True"]
        assert all(one != other for one, other in itertools.pairwise(statuses))
    assert stage.said(DATASET, "seen") == ("UpToDate", "snapshot 1 with 60 documents")
    assert stage.said(DEPLOYMENT, "seen") == ("UpToDate", "serving v7@1")
    assert sorted(event for event in stage.events("seen") if event[1] == "UpToDate") == [
        (DATASET, "UpToDate", "read when last tried"),
        (DATASET, "UpToDate", "snapshot 1 is current"),
        (DATASET, "UpToDate", "snapshot 1 with 60 documents"),
        (DEPLOYMENT, "UpToDate", "serving v7@1"),
    ]
    done = stage.run("status", "idx/seen")
    assert (done.returncode, done.stdout) == (0, "    0s  deployment seen  Ready (UpToDate): serving v7@1\n")

    # What is in the operator's own memory would be built anew after a restart.
    stage.delete(DEPLOYMENT, "seen")
    stage.wait(lambda: not stage.exists(DEPLOYMENT, "seen"), "the deployment to go")


def test_a_restart_rebuilds_nothing_and_writes_nothing(stage: Stage, pgvector: Database, milvus: Database) -> None:
    for database in (pgvector, milvus):
        migrate(stage, database, f"rested-{database.kind}")
    # What is still being watched rests as well.
    stage.deploy("watched", pgvector.spec, dataset="rested-pgvector", burnIn={"for": "24h"})
    stage.wait(lambda: stage.serves("watched", "v7"), "v7 to serve")
    stage.edit(DEPLOYMENT, "watched", version="v8")
    stage.wait(lambda: stage.said(DEPLOYMENT, "watched")[0] == "BurningIn", "v8 to be watched")
    wait_for_rest(stage)
    before, collections = stage.resource_versions(), [stage.route(f"rested-{d.kind}") for d in (pgvector, milvus)]

    code = stage.operator.stop()
    lines = stage.operator.lines()
    asked = stage.writes()
    stage.operator.start()
    stage.wait_for_resyncs(4)

    assert stage.writes() - asked == 0
    assert (code, lines[-1]["event"]) == (0, "operator_stopped")
    after = stage.resource_versions()
    written = {path for path in before | after if before.get(path) != after.get(path)}
    assert written == set()
    assert [line for line in stage.operator.lines()[len(lines) :] if "action" in line] == []
    assert collections == [stage.route(f"rested-{d.kind}") for d in (pgvector, milvus)]


def wait_for_rest(stage: Stage) -> None:
    """Wait until the operator has looked at everything twice and written nothing."""
    versions: list[dict[str, str]] = []

    def is_at_rest() -> bool:
        versions.append(stage.resource_versions())
        stage.wait_for_resyncs(2)
        return stage.resource_versions() == versions[-1]

    stage.wait(is_at_rest, "the operator to rest")


def test_no_step_of_the_road_waits_for_the_resync(control_plane: plane.ControlPlane, tmp_path: Path) -> None:
    # Everything is looked at again once an hour only: whatever has to go on was woken by what went before.
    with running(control_plane, tmp_path / "stage", resync_seconds="3600") as stage:
        stage.deploy("woken", MEMORY)
        stage.wait(lambda: stage.said(DEPLOYMENT, "woken")[0] == "DatasetNotFound", "the dataset to be missed")
        stage.declare("woken", stage.write(papers(60), "woken"), V7)
        stage.wait(lambda: stage.serves("woken", "v7"), "v7 to serve")
        stage.edit(DEPLOYMENT, "woken", version="v8")
        stage.wait(lambda: stage.said(DEPLOYMENT, "woken")[0] == "VersionNotFound", "v8 to be missed")
        stage.edit(DATASET, "woken", versions=[V7, V8])
        stage.wait(lambda: stage.serves("woken", "v8"), "v8 to serve")
        stage.write(papers(61), "woken")
        stage.refresh("woken", "edited")
        stage.wait(lambda: cursors(stage, "woken") == {"v7": 2, "v8": 2}, "both indexes to follow")
        stage.edit(DEPLOYMENT, "woken", version="v7")
        stage.wait(lambda: stage.serves("woken", "v7"), "v7 to serve again")
        stage.delete(DATASET, "woken")
        stage.delete(DEPLOYMENT, "woken")
        stage.wait(lambda: not stage.exists(DATASET, "woken"), "the dataset to go")
