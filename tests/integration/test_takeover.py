"""Two real operators at once: one acts, the other stands by, and a frozen one that has been replaced is harmless."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration import databases
from tests.integration.databases import Database
from tests.integration.operator_process import (
    DATASET,
    DEPLOYMENT,
    LEASE,
    PATIENCE,
    Object,
    Operator,
    Stage,
    are_gone,
    papers,
    running,
    wordllama,
)
from tests.integration.setting import Model, Setting
from tests.servers.openai_server import OpenAIServer

from pointsman.cli.operator import LOST
from pointsman.controlplane import plane

pytestmark = pytest.mark.server

Eventually = Callable[..., None]
V7, V8 = wordllama("v7", 64), wordllama("v8", 256)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with databases.pgvector(tmp_path_factory.mktemp("postgres")) as database:
        yield database


@pytest.fixture
def setting(control_plane: plane.ControlPlane, database: Database, tmp_path: Path) -> Iterator[Setting]:
    model = Model()
    with (
        OpenAIServer(embed=model.embed) as server,
        running(control_plane, tmp_path / "stage", resync_seconds="1", lease_seconds=LEASE) as stage,
    ):
        database.let_in(stage)
        yield Setting(stage, database, model, server.url)


@contextlib.contextmanager
def second(stage: Stage) -> Iterator[tuple[Operator, Operator]]:
    """Start another operator of the same settings beside the first; yield both. Who is not the stage's is killed."""
    stage.wait(lambda: bool(events(stage.operator, "lease_taken")), "the first to begin")
    folder = Path(tempfile.mkdtemp(prefix="second-", dir=stage.folder))
    operators = stage.operator, Operator(folder, stage.operator.environment)
    operators[1].start()
    try:
        yield operators
    finally:
        for operator in operators:
            if operator is not stage.operator and operator.is_running():
                operator.kill()


def events(operator: Operator, event: str) -> list[Object]:
    """Return what an operator logged of one event."""
    return [line for line in operator.lines() if line["event"] == event]


def stored_files(stage: Stage) -> dict[str, tuple[int, int]]:
    """Return every file of the store with what changes when it is written; probes and locks aside."""
    files = [path for path in (stage.folder / "store").rglob("*") if path.is_file()]
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in files
        if not {"probes", "locks"} & set(path.parts)
    }


def wait_for_rest(stage: Stage, settled: Callable[[], bool]) -> None:
    """Wait until the operator has looked at everything twice and written nothing."""

    def is_at_rest() -> bool:
        before = stage.writes()
        stage.wait_for_resyncs(2)
        return settled() and stage.writes() == before

    stage.wait(is_at_rest, "the operator to rest")


def test_of_two_operators_one_acts_until_it_is_gone_and_the_other_goes_on(setting: Setting) -> None:
    stage, database = setting.stage, setting.database
    with second(stage) as (one, two):
        stage.wait(lambda: bool(events(two, "lease_awaited")), "the second to stand by")
        (taken,) = events(one, "lease_taken")
        assert [line["holder"] for line in events(two, "lease_awaited")] == [taken["holder"]]
        stage.declare("shared", stage.write(papers(60), "shared"), V7)
        stage.deploy("shared", database.spec)
        stage.wait(lambda: stage.serves("shared", "v7"), "v7 to serve")
        assert events(two, "action_applied") == []

        one.kill()
        stage.operator = two
        stage.edit(DATASET, "shared", versions=[V7, V8])
        stage.edit(DEPLOYMENT, "shared", version="v8")
        stage.wait(lambda: stage.serves("shared", "v8"), "v8 to serve")

        assert [line["epoch"] for line in events(two, "lease_taken")] == [taken["epoch"] + 1]
        assert two.stop() == 0
        assert events(two, "lease_given_back")


def test_an_operator_that_stands_by_is_told_to_stop_like_any_other(setting: Setting) -> None:
    with second(setting.stage) as (one, two):
        setting.stage.wait(lambda: bool(events(two, "lease_awaited")), "the second to stand by")

        assert two.stop() == 0

        assert two.lines()[-1]["event"] == "operator_stopped"
        assert one.is_running()


def test_the_next_operator_need_not_wait_for_one_that_was_stopped_in_good_order(setting: Setting) -> None:
    with second(setting.stage) as (one, two):
        setting.stage.wait(lambda: bool(events(two, "lease_awaited")), "the second to stand by")

        assert one.stop() == 0
        setting.stage.operator = two
        setting.stage.wait(lambda: bool(events(two, "lease_taken")), "the second to take over")

        assert "nobody" not in [line["holder"] for line in events(two, "lease_awaited")]


def test_an_operator_whose_lease_is_somebody_elses_by_now_ends_and_waits_for_its_turn(setting: Setting) -> None:
    stage = setting.stage
    stage.wait(lambda: bool(events(stage.operator, "lease_taken")), "the operator to begin")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{stage.namespace}/leases/pointsman-operator"

    theirs = json.dumps({"spec": {"holderIdentity": "somebody"}}).encode()
    stage.admin.request("PATCH", path, theirs, "application/merge-patch+json")

    assert stage.operator.process is not None
    assert stage.operator.process.wait(PATIENCE) == LOST
    assert [line["why"] for line in events(stage.operator, "lease_lost")] == ["somebody holds it by now"]
    stage.operator.start()
    stage.wait(lambda: len(events(stage.operator, "lease_taken")) == 2, "the operator to take its turn")
    assert [line["holder"] for line in events(stage.operator, "lease_awaited")] == ["somebody"]
    assert [line["epoch"] for line in events(stage.operator, "lease_taken")] == [1, 2]


@pytest.mark.parametrize("with_workers", [False, True], ids=["alone", "with its workers"])
def test_a_frozen_operator_is_replaced_where_it_was_and_has_no_effect_once_thawed(
    setting: Setting, eventually: Eventually, with_workers: bool
) -> None:
    stage, model, rows = setting.stage, setting.model, papers(2500)
    # So slow that finished vectors are stored long before the last text is sent.
    model.texts_per_second = 300.0
    setting.declare("frozen", rows)
    stage.deploy("frozen", setting.database.spec)
    freeze(setting, eventually, with_workers, "v7")
    assert len(setting.database.content(stage.route("frozen")["collection"])) == len(rows)

    # The one that took over is replaced as well, in the middle of a migration.
    model.texts_per_second = 300.0
    stage.edit(DATASET, "frozen", versions=[setting.version("v7"), setting.version("v8")])
    stage.edit(DEPLOYMENT, "frozen", version="v8")
    freeze(setting, eventually, with_workers, "v8")
    assert len(setting.database.content(stage.route("frozen")["collection"])) == len(rows)


def freeze(setting: Setting, eventually: Eventually, with_workers: bool, version: str) -> None:
    """Freeze the operator while a version is being embedded; let another take over and finish, and thaw the first."""
    stage, model = setting.stage, setting.model
    with second(stage) as (one, two):
        before = setting.stored("frozen")
        stage.wait(lambda: len(setting.stored("frozen")) > len(before), "a batch to be stored")

        workers = one.freeze(with_workers)
        assert workers
        stage.operator = two
        stage.wait(lambda: bool(events(two, "lease_taken")), "the second to take over")
        if with_workers:
            one.thaw(workers)
        # Nobody has told them to end: their operator is frozen, or was when its time was up.
        eventually(lambda: are_gone(workers), within_seconds=60)
        stored, sent = setting.stored("frozen"), len(model.sent)
        model.texts_per_second = float("inf")
        stage.wait(lambda: stage.serves("frozen", version), f"{version} to serve")
        again = stored & set(model.sent[sent:])
        assert len(stored) > len(before)
        assert not again, f"{len(again)} texts were sent again whose vectors were stored"
        wait_for_rest(stage, lambda: stage.is_ready(DATASET, "frozen"))
        versions, files, writes = stage.resource_versions(), stored_files(stage), stage.writes()
        content = setting.database.content(stage.route("frozen")["collection"])

        assert one.process is not None
        if not with_workers:
            assert one.is_running()
            one.thaw()
        assert one.process.wait(PATIENCE) == LOST

        stage.wait_for_resyncs(2)
        assert (stage.resource_versions(), stored_files(stage), stage.writes()) == (versions, files, writes)
        assert setting.database.content(stage.route("frozen")["collection"]) == content
        assert len(events(one, "lease_lost")) == 1
        taken = events(two, "lease_taken")[0]
        late = [line for line in events(one, "action_applied") if line["timestamp"] > taken["timestamp"]]
        assert late == []
