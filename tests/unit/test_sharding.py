"""A snapshot that several processes embed, killed wherever it may be, is the one that a single process makes."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from pointsman.api.conditions import Reason
from pointsman.api.dataset import Surprises
from pointsman.core import chunking, digests, drift
from pointsman.core.recipes import Recipe, Space
from pointsman.errors import Retryable, Terminal, TextsRefused
from pointsman.ports import Finished, Identity, Spent, Vectors, nobody
from pointsman.sources.memory import MemorySource
from pointsman.store.dataset import DatasetStore
from pointsman.store.ledger import Attempt
from pointsman.store.objects import Objects
from pointsman.store.records import EmbeddedSnapshot
from pointsman.store.root import Store
from pointsman.store.vectors import VectorTable
from pointsman.work import progress, shard, sharding
from pointsman.work.embed import embed
from pointsman.work.refresh import refresh

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
DIMENSIONS = 4
SPACE = Space("openai", "hashing", "r1", DIMENSIONS)
RECIPE = Recipe(SPACE, "{text}", (), chunking.chunker(8, 0))


class Killed(BaseException):
    """The process was killed: nothing in the product catches it."""


class Hashing:
    """A model whose vectors are digests of the texts, which answers a few at a time and may kill whoever asks it."""

    def __init__(self, kills_at: int = -1, refuses: str = "") -> None:
        self.asked: Counter[str] = Counter()
        self.kills_at, self.refuses, self.answers = kills_at, refuses, 0
        self.dies: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def identity(self) -> Identity:
        return Identity("hashing", "r1", DIMENSIONS)

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        found = np.concatenate([self._part(texts[n : n + 5], n, finished) for n in range(0, len(texts), 5)])
        if self.refuses and self.refuses in texts:
            raise TextsRefused([list(texts).index(self.refuses)], "HTTP 400")
        return found

    def _part(self, texts: Sequence[str], start: int, finished: Finished) -> Vectors:
        with self._lock:
            self.answers += 1
            is_last = self.answers == self.kills_at
            self.asked.update(text for text in texts if text not in drift.PROBES)
        raw = [hashlib.blake2b(text.encode(), digest_size=4 * DIMENSIONS).digest() for text in texts]
        vectors = np.frombuffer(b"".join(raw), dtype="<u4").reshape(-1, DIMENSIONS) / 2**31 - 1
        unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        finished(start, unit)
        if is_last:
            self.dies()
            raise Killed
        return unit

    def close(self) -> None:
        return


def opened(root: Path, name: str = "papers") -> DatasetStore:
    return Store(str(root)).dataset("default", name)


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetStore:
    found = opened(tmp_path)
    found.pin("v7", RECIPE)
    return found


def fill(dataset: DatasetStore, *rows: dict[str, Any]) -> None:
    refresh(dataset, MemorySource(rows), Surprises(deleted_share_above="1"), lambda: AT, progress.nowhere)


def papers(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": str(n), "text": f"{n} two three four five. six seven eight nine ten {n}."}
        for n in range(first, first + count)
    ]


def run_shard(dataset: DatasetStore, attempt: Attempt, number: int, model: Any, snapshot: int = 1) -> None:
    shard.embed_shard(dataset, RECIPE, snapshot, attempt.number, number, model, lambda: AT)


def deal(dataset: DatasetStore, shards: int, snapshot: int = 1) -> Attempt:
    sharding.begin(dataset, RECIPE, snapshot, shards)
    return dataset.ledger(RECIPE.key, snapshot).deal(shards)


def sharded(dataset: DatasetStore, model: Any, shards: int = 3, snapshot: int = 1) -> EmbeddedSnapshot:
    attempt = deal(dataset, shards, snapshot)
    with ThreadPoolExecutor(attempt.shards) as pods:
        list(pods.map(lambda n: run_shard(dataset, attempt, n, model, snapshot), range(attempt.shards)))
    return sharding.finish(dataset, "v7", RECIPE, snapshot, lambda: AT)


def alone(dataset: DatasetStore, model: Any, snapshot: int = 1) -> EmbeddedSnapshot:
    return embed(dataset, "v7", RECIPE, snapshot, model, lambda: AT, progress.nowhere)


def texts(dataset: DatasetStore, record: EmbeddedSnapshot) -> list[tuple[str, int, str]]:
    found = pa.Table.from_batches(dataset.chunks(record.recipe).read(record.chunks_version)).to_pylist()
    return sorted((row["document"], row["ordinal"], row["text"]) for row in found)


def folders(root: Path) -> set[str]:
    """Return what lies in the folder of runs."""
    return {str(path.relative_to(root)) for path in root.glob("datasets/default/*/runs/**/*") if path.is_file()}


class Metered(Hashing):
    """One that is paid by the letter, and states all but the first of each text."""

    def __init__(self) -> None:
        super().__init__()
        self._spent = Spent()

    def spent(self) -> Spent:
        return self._spent

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        letters = sum(map(len, texts))
        self._spent = Spent(self._spent.tokens + letters, self._spent.stated + letters - len(texts))
        return super().embed(texts, finished)


def test_shards_spend_what_one_process_spends(dataset: DatasetStore, tmp_path: Path) -> None:
    fill(dataset, *papers(100))
    other = opened(tmp_path, "alone")
    fill(other, *papers(100))
    attempt = deal(dataset, 3)

    for number in range(attempt.shards):
        # Each has a process of its own, and asks for the pinned texts anew.
        run_shard(dataset, attempt, number, Metered())
    record, wanted = sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT), alone(other, Metered())

    assert (record.tokens, record.tokens_stated) == (wanted.tokens, wanted.tokens_stated)
    assert record.tokens - record.tokens_stated == record.embedded == 200


def test_shards_make_the_snapshot_that_one_process_makes(dataset: DatasetStore, tmp_path: Path) -> None:
    fill(dataset, *papers(100))
    other = opened(tmp_path, "alone")
    fill(other, *papers(100))
    model, single = Hashing(), Hashing()

    record, wanted = sharded(dataset, model), alone(other, single)

    assert (record.digest, record.rows, record.documents) == (wanted.digest, wanted.rows, wanted.documents)
    assert (record.embedded, record.reused) == (wanted.embedded, wanted.reused)
    assert texts(dataset, record) == texts(other, wanted)
    assert model.asked == single.asked
    assert folders(tmp_path) == set()


def test_what_changed_is_dealt_out_and_nothing_else(dataset: DatasetStore) -> None:
    fill(dataset, *papers(100))
    first = sharded(dataset, Hashing())
    edited = [{"id": str(n), "text": f"edited {n}"} for n in range(40, 80)]
    fill(dataset, *papers(30), *papers(10, 30), *edited, *papers(60, 100))
    model = Hashing()

    record = sharded(dataset, model, snapshot=2)

    assert {text for text in model.asked if text.startswith("edited")} == {f"edited {n}" for n in range(40, 80)}
    assert record.documents == 140
    assert {k: v for k, v in record.changes.items() if v} == {
        "added": 60, "deleted": 20, "edited": 40, "unchanged": 40
    }  # fmt: skip
    assert record.digest != first.digest
    assert max(model.asked.values()) == 1


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_batch_nothing_that_was_kept_is_embedded_twice(
    dataset: DatasetStore, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    fill(dataset, *papers(150))
    other = opened(tmp_path, "alone")
    fill(other, *papers(150))
    wanted = alone(other, Hashing())
    kept: Counter[str] = Counter()
    attempt = deal(dataset, chance.randint(1, 4))

    for _ in range(200):
        model = Hashing(kills_at=chance.randint(1, 30))
        number = chance.randrange(attempt.shards)
        stored = _stored(dataset)
        try:
            run_shard(dataset, attempt, number, model)
        except Killed:
            # A Job may be given up at any time, and what is left be dealt out to more shards or fewer.
            if chance.random() < 0.3:
                attempt = dataset.ledger(RECIPE.key, 1).deal(chance.randint(1, 5))
        assert stored.isdisjoint(model.asked), "what was kept was embedded again"
        kept.update(model.asked)
        if not attempt.left or len(dataset.ledger(RECIPE.key, 1).finished()) == 10:
            break
    for number in range(attempt.shards):
        run_shard(dataset, attempt, number, model := Hashing())
        kept.update(model.asked)
    record = sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT)

    assert record.digest == wanted.digest
    assert len(kept) == record.embedded == wanted.embedded
    assert folders(tmp_path) == set()


def _stored(dataset: DatasetStore) -> set[str]:
    """Return the texts whose vectors the ledger has."""
    ledger = dataset.ledger(RECIPE.key, 1)
    found = {key for number in ledger.finished() for key in ledger.keys(number).to_pylist()}
    for number in ledger.spilled():
        found |= {key for batch in ledger.spills(number) for key in batch.column("content_key").to_pylist()}
    return {text for text in _all_texts() if _key(text) in found}


def _all_texts() -> list[str]:
    return [piece for paper in papers(150) for piece in chunking.cut(paper["text"], RECIPE.chunker)]


def _key(text: str) -> bytes:
    return digests.content_key(SPACE.document_side, text)


def test_an_eviction_keeps_all_that_was_answered(dataset: DatasetStore) -> None:
    fill(dataset, *papers(150))
    attempt = deal(dataset, 1)
    model = Hashing(kills_at=7)

    class Evicted(Exception):
        pass

    def leave() -> None:
        raise Evicted

    model.dies = leave
    with pytest.raises(Evicted):
        run_shard(dataset, attempt, 0, model)
    answered, again = set(model.asked), Hashing()
    run_shard(dataset, attempt, 0, again)

    assert answered.isdisjoint(again.asked)


def test_a_text_of_several_portions_is_embedded_once_by_a_shard(dataset: DatasetStore) -> None:
    fill(dataset, *({"id": str(n), "text": "the same"} for n in range(100)))
    model = Hashing()

    record = sharded(dataset, model, shards=1)

    assert model.asked == {"the same": 1}
    assert (record.embedded, record.reused) == (1, 99)


def test_a_text_that_several_shards_embed_has_one_vector_in_the_end(dataset: DatasetStore) -> None:
    fill(dataset, *({"id": str(n), "text": "the same"} for n in range(100)))

    record = sharded(dataset, Hashing(), shards=4)

    assert dataset.vectors(SPACE.document_side, DIMENSIONS).rows() == 1
    assert record.rows == 100


def test_a_broken_document_fails_its_shard_and_no_other_text(dataset: DatasetStore) -> None:
    fill(dataset, *({"id": str(n), "text": f"text {n}"} for n in range(100)))
    attempt = deal(dataset, 2)
    model = Hashing(refuses="text 3")

    with pytest.raises(Terminal) as refused:
        run_shard(dataset, attempt, 0, model)
    run_shard(dataset, attempt, 1, model)

    assert refused.value.reason is Reason.MODEL_REJECTED
    assert "document 3 (ordinal 0)" in refused.value.message
    assert len(model.asked) == 100
    ledger = dataset.ledger(RECIPE.key, 1)
    assert len(ledger.finished()) == len(attempt.left) - 1


def test_an_abandoned_run_keeps_its_vectors_and_leaves_no_files(dataset: DatasetStore, tmp_path: Path) -> None:
    fill(dataset, *papers(100))
    attempt = deal(dataset, 2)
    run_shard(dataset, attempt, 0, first := Hashing())
    with pytest.raises(Killed):
        run_shard(dataset, attempt, 1, second := Hashing(kills_at=6))
    fill(dataset, *papers(100), {"id": "new", "text": "new"})
    kept = _stored(dataset)

    record = sharded(dataset, third := Hashing(), snapshot=2)

    assert kept.isdisjoint(third.asked)
    assert set(first.asked) | set(second.asked) | set(third.asked) == {*_all_texts()[:200], "new"}
    assert record.documents == 101
    assert folders(tmp_path) == set()
    # What a process had begun to write when it was killed, no record names: that goes with the next clean-up.
    dataset.clean([2], [RECIPE.key], timedelta(0))
    table = tmp_path / "datasets" / "default" / "papers" / "chunks" / f"{RECIPE.key}.lance"
    used = lance.dataset(table, version=record.chunks_version).get_fragments()
    assert {path.name for path in (table / "data").iterdir()} == {
        file.path for fragment in used for file in fragment.data_files()
    }


def test_one_process_goes_on_from_what_shards_have_embedded(dataset: DatasetStore, tmp_path: Path) -> None:
    fill(dataset, *papers(100))
    attempt = deal(dataset, 2)
    run_shard(dataset, attempt, 0, first := Hashing())
    model = Hashing()

    sharding.abandon(dataset, RECIPE)
    alone(dataset, model)

    assert set(model.asked).isdisjoint(first.asked)
    assert folders(tmp_path) == set()


def test_nothing_is_published_before_all_portions_are_finished(dataset: DatasetStore) -> None:
    fill(dataset, *papers(100))
    attempt = deal(dataset, 2)
    run_shard(dataset, attempt, 0, Hashing())

    with pytest.raises(Retryable, match="portions are finished"):
        sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT)

    assert dataset.embedded_at(RECIPE.key, 1) is None


def test_a_portion_whose_files_are_gone_is_made_again(dataset: DatasetStore, tmp_path: Path) -> None:
    fill(dataset, *papers(100))
    attempt = deal(dataset, 2)
    for number in range(2):
        run_shard(dataset, attempt, number, Hashing())
    ledger = dataset.ledger(RECIPE.key, 1)
    lost = ledger.finished()[2]
    dataset.chunks(RECIPE.key).discard(lost.chunks)

    with pytest.raises(Retryable, match="the files of 1 portions are not in the store"):
        sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT)
    model = Hashing()
    record = sharded(dataset, model)

    assert model.asked == {}
    assert record.documents == 100


def test_vectors_that_were_cleaned_up_meanwhile_are_embedded_again(dataset: DatasetStore) -> None:
    fill(dataset, *papers(100))
    alone(dataset, Hashing())
    other = Recipe(SPACE, "{text}", ("kind",), chunking.chunker(8, 0))
    dataset.pin("v8", other)
    sharding.begin(dataset, other, 1, 2)
    attempt = dataset.ledger(other.key, 1).deal(2)
    for number in range(attempt.shards):
        shard.embed_shard(dataset, other, 1, attempt.number, number, Hashing(), lambda: AT)
    table = dataset._layout.vectors(SPACE.document_side, DIMENSIONS)
    table.keep("content_key", lambda found: np.arange(len(found)) >= 3)

    with pytest.raises(Retryable, match="lacks 3 vectors"):
        sharding.finish(dataset, "v8", other, 1, lambda: AT)
    sharding.begin(dataset, other, 1, 2)
    attempt, model = dataset.ledger(other.key, 1).deal(2), Hashing()
    for number in range(attempt.shards):
        shard.embed_shard(dataset, other, 1, attempt.number, number, model, lambda: AT)
    record = sharding.finish(dataset, "v8", other, 1, lambda: AT)

    assert len(model.asked) == 3
    assert record.documents == 100


def test_a_process_that_nobody_reached_harms_no_run_that_was_begun_anew(dataset: DatasetStore) -> None:
    fill(dataset, *papers(100))
    sharding.begin(dataset, RECIPE, 1, 4)
    attempt = dataset.ledger(RECIPE.key, 1).deal(1)
    anew: list[Attempt] = []

    class Silent(Hashing):
        def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
            if not anew and list(texts) != list(drift.PROBES):
                sharding.abandon(dataset, RECIPE)
                anew.append(deal(dataset, 1))
            return super().embed(texts, finished)

    run_shard(dataset, attempt, 0, silent := Silent())

    assert (len(attempt.left), len(anew[0].left)) == (7, 4)
    assert silent.asked
    with pytest.raises(Retryable, match="0 portions are finished, wanted 4"):
        sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT)
    run_shard(dataset, anew[0], 0, Hashing())
    record = sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT)
    assert (record.documents, record.rows) == (100, 200)
    assert dataset.runs() == []


def test_a_snapshot_that_was_embedded_meanwhile_is_not_what_the_rows_follow(dataset: DatasetStore) -> None:
    fill(dataset, *papers(100))
    alone(dataset, Hashing())
    fill(dataset, *papers(90, 10))
    fill(dataset, *papers(91, 10))
    attempt = deal(dataset, 1, snapshot=3)
    run_shard(dataset, attempt, 0, Hashing(), snapshot=3)
    alone(dataset, Hashing(), snapshot=2)

    record = sharding.finish(dataset, "v7", RECIPE, 3, lambda: AT)

    assert record.documents == 91
    assert {document for document, _, _ in texts(dataset, record)} == {str(n) for n in range(10, 101)}


def test_a_shard_whose_answers_are_lost_keeps_what_it_has_made(
    dataset: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(dataset, *papers(100))
    attempt, create = deal(dataset, 1), Objects.create
    with monkeypatch.context() as patched:
        patched.setattr(Objects, "create", lambda *a: create(*a) and False)
        run_shard(dataset, attempt, 0, Hashing())

    record = sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT)

    assert record.documents == 100


def test_killed_before_doubles_are_dropped_they_are_dropped_by_the_next(
    dataset: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(dataset, *({"id": str(n), "text": "the same"} for n in range(100)))
    attempt = deal(dataset, 4)
    for number in range(attempt.shards):
        run_shard(dataset, attempt, number, Hashing())

    def killed(_: Any) -> int:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(VectorTable, "keep_first", killed)
        sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT)
    vectors = dataset.vectors(SPACE.document_side, DIMENSIONS)
    assert vectors.rows() > 1

    sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT)

    assert vectors.rows() == 1


def test_a_snapshot_without_documents_needs_no_shard(dataset: DatasetStore) -> None:
    fill(dataset)
    assert deal(dataset, 3).left == ()
    assert sharding.finish(dataset, "v7", RECIPE, 1, lambda: AT).rows == 0


def test_cleaning_up_ends_the_runs_of_recipes_that_nobody_wants(dataset: DatasetStore, tmp_path: Path) -> None:
    fill(dataset, *papers(100))
    run_shard(dataset, deal(dataset, 2), 0, Hashing())

    sharding.clean(dataset, [RECIPE.key])
    assert dataset.runs() == [(RECIPE.key, 1)]
    sharding.clean(dataset, [])

    assert dataset.runs() == []
    assert folders(tmp_path) == set()


def test_files_that_no_version_knows_are_left_alone_while_a_run_is_under_way(dataset: DatasetStore) -> None:
    fill(dataset, *papers(100))
    attempt = deal(dataset, 2)
    run_shard(dataset, attempt, 0, Hashing())
    vectors = dataset.vectors(SPACE.document_side, DIMENSIONS)
    before = vectors.files()

    vectors.clean(timedelta(0))

    assert before
    assert vectors.files() == before


def test_a_run_is_as_old_as_what_was_first_put_for_it(dataset: DatasetStore, tmp_path: Path) -> None:
    store = Objects(str(tmp_path))
    assert store.age("datasets/default/papers/runs") is None
    fill(dataset, *papers(100))
    run_shard(dataset, deal(dataset, 2), 0, Hashing())
    (run,) = tmp_path.rglob("runs/*/run.json")
    then = (datetime.now(UTC) - timedelta(days=6, hours=1)).timestamp()
    os.utime(run, (then, then))

    age = store.age("datasets/default/papers/runs")

    assert age is not None and timedelta(days=6) < age < timedelta(days=6, hours=2)
