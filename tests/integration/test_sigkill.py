"""Killed at random moments, the real processes end where an undisturbed run ends, and pay for no text twice.

The moments come from seeds, which are in the tests' names; `SIGKILL_SEEDS="7 8 9"` tells other stories.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.integration import databases
from tests.integration.operator_process import DATASET, DEPLOYMENT, LEASE, Object, are_gone, papers, running
from tests.integration.setting import Model, Setting
from tests.servers.openai_server import OpenAIServer

from pointsman.controlplane import plane
from pointsman.plan.tasks import Key
from pointsman.work import jobs

pytestmark = pytest.mark.server

Eventually = Callable[..., None]
SEEDS = os.environ.get("SIGKILL_SEEDS", "1").split()


@pytest.fixture(scope="module")
def setting(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    model, folder = Model(), tmp_path_factory.mktemp("operator") / "stage"
    with (
        databases.pgvector(tmp_path_factory.mktemp("postgres")) as database,
        OpenAIServer(embed=model.embed) as server,
        running(control_plane, folder, resync_seconds="1", lease_seconds=LEASE) as stage,
    ):
        database.let_in(stage)
        yield Setting(stage, database, model, server.url)


# The stories: what the user does, and when it is done.


def build(on: Setting, name: str) -> Callable[[], bool]:
    on.declare(name, papers(300))
    on.stage.deploy(name, on.database.spec)
    return lambda: on.stage.serves(name, "v7")


def migrate(on: Setting, name: str) -> Callable[[], bool]:
    on.stage.edit(DATASET, name, versions=[on.version("v7"), on.version("v8")])
    on.stage.edit(DEPLOYMENT, name, version="v8")
    return lambda: on.stage.serves(name, "v8")


def refresh(on: Setting, name: str) -> Callable[[], bool]:
    rows = papers(320)[10:]
    for row in rows[:20]:
        row["text"] += " With an addition."
    on.stage.write(rows, name)
    on.stage.refresh(name, "edited")
    return lambda: on.stage.route(name)["snapshot"] == "2" and _is_settled(on, name)


def roll_back(on: Setting, name: str) -> Callable[[], bool]:
    on.stage.edit(DEPLOYMENT, name, version="v7")
    return lambda: on.stage.serves(name, "v7")


def delete(on: Setting, name: str) -> Callable[[], bool]:
    for kind in (DEPLOYMENT, DATASET):
        on.stage.delete(kind, name)
    return lambda: not on.stage.exists(DEPLOYMENT, name) and not on.stage.exists(DATASET, name)


STORIES = (build, migrate, refresh, roll_back, delete)


def _is_settled(on: Setting, name: str) -> bool:
    """Return whether every index has come as far as the dataset, and all is well."""
    indexes = on.stage.get(DEPLOYMENT, name)["status"]["indexes"]
    cursors = [index.get("cursor", {}).get("snapshot") for index in indexes]
    return set(cursors) == {2} and on.stage.is_ready(DATASET, name) and on.stage.is_ready(DEPLOYMENT, name)


def state(on: Setting, name: str) -> Object:
    """Return what a user could tell two runs apart by, but for names and times."""
    stage, seen = on.stage, {"route": {k: v for k, v in on.stage.route(name).items() if k != "collection"}}
    seen["embedded"] = stage.embedded(name)
    facts = stage.store().log(*jobs.facts_log(Key(DEPLOYMENT, stage.namespace, name))).read()
    found = [] if facts is None else facts.value["indexes"]
    for index in found:
        rows = on.database.content(index["name"])
        seen[f"{index['version']} {index['role']}"] = sorted(row[1:] for row in rows)
    return seen


def tell(on: Setting, name: str, disturb: Callable[[int], None]) -> tuple[list[Object], list[float]]:
    """Tell all stories with a disturbance in each; return the state after each, and the seconds that it took."""
    states, seconds = [], []
    for number, story in enumerate(STORIES):
        began = time.monotonic()
        is_done = story(on, name)
        disturb(number)
        on.stage.wait(is_done, f"the end of the story {story.__name__!r}")
        seconds.append(time.monotonic() - began)
        states.append(state(on, name))
    return states, seconds


@pytest.fixture(scope="module")
def undisturbed(setting: Setting) -> tuple[list[Object], list[float]]:
    """Return how the stories end, and how long each takes, if nobody disturbs them."""
    states, seconds = tell(setting, "undisturbed", lambda number: None)
    assert len(setting.model.documents()) == len(set(setting.model.documents())) == 2 * 340
    assert [set(seen) - {"route", "embedded"} for seen in states] == [
        {"v7 Serving"},
        {"v8 Serving", "v7 Retained"},
        {"v8 Serving", "v7 Retained"},
        {"v7 Serving", "v8 Retained"},
        set(),
    ]
    return states, seconds


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("victim", ["operator", "workers"])
def test_whoever_is_killed_the_end_is_the_same(
    setting: Setting, undisturbed: tuple[list[Object], list[float]], eventually: Eventually, victim: str, seed: str
) -> None:
    name, chance, (states, seconds) = f"{victim}-{seed}", random.Random(f"{victim} {seed}"), undisturbed
    stage, model = setting.stage, setting.model
    model.sent.clear()
    killed: list[str] = []
    paid: list[tuple[int, set[str]]] = []

    def kill(number: int) -> None:
        # A little longer than the story takes, so that its last effects and the rest after it are hit too.
        time.sleep(chance.uniform(0, 1.2 * seconds[number]))
        before = setting.stored(name) if stage.exists(DATASET, name) else set()
        sent = len(model.sent)
        if victim == "operator":
            workers = stage.operator.kill()
            # Those whose operator is gone end by themselves, before they could write beside the next one's.
            eventually(lambda: are_gone(workers), within_seconds=60)
            stage.operator.start()
        else:
            for worker in stage.operator.workers():
                worker.kill()
        killed.append(STORIES[number].__name__)
        paid.append((sent, before))

    ended, _ = tell(setting, name, kill)

    assert killed == [story.__name__ for story in STORIES]
    for story, found, wanted in zip(STORIES, ended, states, strict=True):
        differs = {key for key in found | wanted if found.get(key) != wanted.get(key)}
        assert not differs, f"after the story {story.__name__!r}, seed {seed}"
    for sent, before in paid:
        again = before & set(model.sent[sent:])
        assert not again, f"{len(again)} texts were sent again whose vectors were stored, seed {seed}"


def test_a_worker_killed_in_a_long_embedding_loses_one_unfinished_batch(setting: Setting) -> None:
    stage, model = setting.stage, setting.model
    model.sent.clear()
    # So slow that finished vectors are stored before the last text is sent.
    model.texts_per_second = 150.0
    setting.declare("long", papers(2500))
    stage.wait(lambda: bool(model.documents()), "the embedding to begin")
    stage.wait(lambda: bool(setting.stored("long")), "the first batch to be stored")

    for worker in stage.operator.workers():
        worker.kill()
    model.texts_per_second = float("inf")
    stored = setting.stored("long")
    assert 512 <= len(stored) < 2500
    stage.wait(lambda: stage.is_ready(DATASET, "long"), "the embedding to be finished")

    times: dict[str, Any] = {text: model.documents().count(text) for text in stored}
    assert set(times.values()) == {1}
    assert len(set(model.documents())) == 2500
    assert 0 < len(model.documents()) - 2500 <= 1024
