"""What a pod does: it reads its share from the environment and its Secrets from files, and ends by a telling code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.servers import processes
from tests.servers.openai_server import MODEL, OpenAIServer, Switches
from tests.unit.test_sharding import AT, RECIPE, Hashing, deal, fill, opened, papers, sharding
from tests.unit.waiting import wait_until

from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.api.dataset import Endpoint, ModelChoice, OpenAIModel
from pointsman.cli import shard
from pointsman.cluster import job_objects
from pointsman.core import chunking, recipes
from pointsman.core.recipes import Recipe, Space
from pointsman.embedders.wordllama import Wordllama
from pointsman.errors import Retryable, Terminal
from pointsman.store.root import Store
from pointsman.work import shard as shards
from pointsman.work import wire
from pointsman.work.jobs import Doors
from pointsman.work.patience import PAUSES, Patience

ROOT = Path(__file__).parents[3]


def told(folder: Path, attempt: int = 1, **more: Any) -> dict[str, Any]:
    model = ModelChoice(openai=OpenAIModel(endpoint="main", model="hashing", dimensions=4))
    return {
        "namespace": "default", "dataset": "papers", "recipe": recipes.to_json(RECIPE), "snapshot": 1,
        "attempt": attempt, "store": str(folder), "store_options": {}, "has_own_store": False, "model": model.dump(),
        "endpoint": None, "has_key": False, "access": wire.access_to_json(Access()), **more,
    }  # fmt: skip


class Opened:
    """Doors that remember how they were opened."""

    def __init__(self, folder: Path, model: Any) -> None:
        self.folder, self.model = folder, model
        self.stores: list[tuple[str, Mapping[str, str]]] = []
        self.keys: list[str | None] = []

    @property
    def doors(self) -> Doors:
        def nothing(*_: Any) -> Any:
            raise AssertionError("a pod opens neither source nor database")

        return Doors(self._store, nothing, self._embedder, nothing)

    def _store(self, uri: str, options: Mapping[str, str]) -> Store:
        self.stores.append((uri, options))
        return Store(str(self.folder))

    def _embedder(self, _space: Any, _endpoint: Any, key: str | None, *_: Any) -> Any:
        self.keys.append(key)
        if isinstance(self.model, Exception):
            raise self.model
        return self.model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dataset = opened(tmp_path / "store")
    dataset.pin("v7", RECIPE)
    fill(dataset, *papers(40))
    deal(dataset, 1)
    return tmp_path / "store"


def run(folder: Path, model: Any, **more: Any) -> int:
    return shard.run(told(folder, **more), 0, folder.parent, Opened(folder, model).doors)


def test_a_share_that_is_done_ends_well(folder: Path) -> None:
    assert run(folder, Hashing()) == 0
    assert sharding.finish(opened(folder), "v7", RECIPE, 1, lambda: AT).documents == 40


def test_a_store_of_its_own_is_opened_with_the_mounted_secret(folder: Path) -> None:
    mounted = folder.parent / "store-secret" / "store"
    mounted.mkdir(parents=True)
    (mounted / "accessKeyID").write_text("ana\n")
    (mounted / "secretAccessKey").write_text("sesame")
    (mounted / "else").write_text("passed over")
    # How a kubelet lays a Secret out.
    (mounted / "..data").mkdir()
    found = Opened(folder, Hashing())

    said = told(folder, store="s3://vectors/papers", has_own_store=True)
    assert shard.run(said, 0, mounted.parent, found.doors) == 0

    assert found.stores == [("s3://vectors/papers", {"aws_access_key_id": "ana", "aws_secret_access_key": "sesame"})]


def test_the_models_key_is_read_from_its_file(folder: Path) -> None:
    (folder.parent / "endpoint").mkdir()
    (folder.parent / "endpoint" / "key").write_text("sesame\n")
    found = Opened(folder, Hashing())

    assert shard.run(told(folder, has_key=True), 0, folder.parent, found.doors) == 0
    assert found.keys == ["sesame"]


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (Hashing(refuses="3 two three four five."), 20),
        (Hashing(refuses="railway"), 21),
        (Terminal(Reason.ENDPOINT_NOT_ALLOWED, "the model is not to be reached"), 21),
        (Retryable(Reason.MODEL_UNREACHABLE, "the model is away"), 1),
        (ZeroDivisionError("sesame"), 1),
    ],
    ids=["some documents", "the pinned texts", "nothing goes", "the world may mend itself", "nobody foresaw it"],
)
def test_the_exit_code_says_whether_trying_again_helps_and_the_ledger_why(folder: Path, model: Any, code: int) -> None:
    assert run(folder, model) == code

    (said,) = opened(folder).ledger(RECIPE.key, 1).failures(1)
    assert isinstance(said, Terminal) == (code in (20, 21))
    assert "two three" not in said.message and "sesame" not in said.message


def test_a_run_that_was_given_up_meanwhile_is_left_alone(folder: Path) -> None:
    dataset = opened(folder)
    dataset.ledger(RECIPE.key, 1).forget()

    assert run(folder, Hashing()) == 1


def test_told_to_end_it_keeps_what_was_answered_and_ends_at_once(tmp_path: Path) -> None:
    space = Space("openai", MODEL, "", 256)
    recipe = Recipe(space, "{text}", (), chunking.chunker(8, 0))
    dataset = opened(tmp_path / "store")
    dataset.pin("v7", recipe)
    fill(dataset, *papers(300))
    sharding.begin(dataset, recipe, 1, 1)
    ledger = dataset.ledger(recipe.key, 1)
    ledger.deal(1)
    answers = threading.Event()

    def embed(texts: Sequence[str]) -> np.ndarray:
        # Some are answered, and then one is under way for longer than a pod is waited for.
        if len(server.batches) > 3:
            answers.wait(60)
        return Wordllama().embed(texts)

    with OpenAIServer(Switches(most_inputs=16), embed=embed) as server:
        model = ModelChoice(openai=OpenAIModel(endpoint="main", model=MODEL, dimensions=256))
        said = told(
            tmp_path / "store", recipe=recipes.to_json(recipe), model=model.dump(),
            endpoint=Endpoint(name="main", base_url=server.url).dump(),
            access=wire.access_to_json(Access(allow_loopback=True)),
        )  # fmt: skip
        pod = processes.start(
            [sys.executable, "-m", "pointsman.cli.main", "shard"],
            signal.SIGKILL,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT / "operator"),
                job_objects.SHARD: json.dumps(said),
                "JOB_COMPLETION_INDEX": "0",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: bool(ledger.spilled() or ledger.finished()))
        pod.send_signal(signal.SIGTERM)
        _, logged = pod.communicate(timeout=25)
        answers.set()

    assert pod.returncode == 143
    assert b"two three" not in logged
    assert ledger.failures(1) == []
    assert ledger.spilled() or ledger.finished()


class Away:
    """A table that cannot be written the first times."""

    def __init__(self, inner: Any, times: int) -> None:
        self._inner, self.times = inner, times

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name != "write_apart":
            return value

        def asked(*arguments: Any) -> Any:
            self.times -= 1
            if self.times >= 0:
                raise Retryable(Reason.STORE_UNREACHABLE, "the store is away")
            return value(*arguments)

        return asked


class Flaky:
    """A dataset whose vectors, once embedded, cannot be written to their table the first times."""

    def __init__(self, inner: Any, times: int) -> None:
        self._inner, self.times = inner, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def vectors(self, side: str, dimensions: int) -> Any:
        return Away(self._inner.vectors(side, dimensions), self.times)


@pytest.mark.parametrize(("times", "is_done"), [(3, True), (len(PAUSES) + 1, False)], ids=["a moment", "for good"])
def test_a_store_that_is_away_is_waited_for_and_what_was_answered_is_not_asked_for_again(
    folder: Path, times: int, is_done: bool
) -> None:
    model, slept = Hashing(), list[float]()

    def embed() -> None:
        dataset: Any = Flaky(opened(folder), times)
        shards.embed_shard(dataset, RECIPE, 1, 1, 0, model, lambda: AT, Patience(slept.append))

    if is_done:
        embed()
        assert sharding.finish(opened(folder), "v7", RECIPE, 1, lambda: AT).documents == 40
        assert slept == list(PAUSES[:times])
    else:
        with pytest.raises(Retryable) as found:
            embed()
        assert found.value.reason is Reason.STORE_UNREACHABLE
        assert slept == list(PAUSES)
    assert max(model.asked.values()) == 1


def test_what_the_model_says_is_not_waited_for_by_the_pod(folder: Path) -> None:
    class Silent(Hashing):
        def embed(self, texts: Sequence[str], finished: Any = None) -> Any:
            raise Retryable(Reason.MODEL_UNREACHABLE, "the model is away")

    slept: list[float] = []
    with pytest.raises(Retryable):
        shards.embed_shard(opened(folder), RECIPE, 1, 1, 0, Silent(), lambda: AT, Patience(slept.append))
    assert slept == []
