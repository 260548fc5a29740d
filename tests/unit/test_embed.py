import dataclasses
import hashlib
import itertools
import queue
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pointsman.api.conditions import Reason
from pointsman.api.dataset import Surprises
from pointsman.core import chunking, drift
from pointsman.core.recipes import Chunker, Recipe, Space
from pointsman.errors import PointsmanError, Retryable, Terminal, TextsRefused
from pointsman.ports import Finished, Identity, Spent, Vectors, nobody
from pointsman.sources.memory import MemorySource
from pointsman.store.dataset import DatasetStore
from pointsman.store.records import EmbeddedSnapshot
from pointsman.store.root import Store
from pointsman.work import pipeline, progress
from pointsman.work.embed import embed
from pointsman.work.refresh import refresh

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
DIMENSIONS = 4


class Hashing:
    """A model whose vectors are digests of the texts, and which remembers what it was asked."""

    def __init__(self, salt: str = "") -> None:
        self.salt = salt
        self.asked: Counter[str] = Counter()
        self._spent = Spent()

    def spent(self) -> Spent:
        return self._spent

    def identity(self) -> Identity:
        return Identity("hashing", "r1", DIMENSIONS)

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        self.asked.update(text for text in texts if text not in drift.PROBES)
        letters = sum(map(len, texts))
        self._spent = Spent(self._spent.tokens + letters, self._spent.stated + letters - len(texts))
        raw = [hashlib.blake2b((self.salt + text).encode(), digest_size=4 * DIMENSIONS).digest() for text in texts]
        vectors = np.frombuffer(b"".join(raw), dtype="<u4").reshape(-1, DIMENSIONS) / 2**31 - 1
        unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        finished(0, unit)
        return unit

    def close(self) -> None:
        pass


def recipe(*metadata: str, tokens: int = 8, prefix: str = "", template: str = "{text}") -> Recipe:
    space = Space("openai", "hashing", "r1", DIMENSIONS, document_prefix=prefix)
    return Recipe(space, template, metadata, chunking.chunker(tokens, 0))


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetStore:
    return opened(tmp_path)


def opened(root: Path, name: str = "papers") -> DatasetStore:
    return Store(str(root)).dataset("default", name)


def fill(dataset: DatasetStore, *rows: dict[str, Any]) -> None:
    refresh(dataset, MemorySource(rows), Surprises(deleted_share_above="1"), lambda: AT, progress.nowhere)


def run(
    dataset: DatasetStore, number: int, model: Any = None, of: Recipe | None = None, version: str = "v7"
) -> EmbeddedSnapshot:
    return embed(dataset, version, of or recipe(), number, model or Hashing(), lambda: AT, progress.nowhere)


def rows_of(dataset: DatasetStore, record: EmbeddedSnapshot) -> list[tuple[str, int, str, str, int]]:
    batches = dataset.chunks(record.recipe).read(record.chunks_version)
    found = pa.Table.from_batches(batches).to_pylist()
    return sorted((r["document"], r["ordinal"], r["text"], r["metadata"], r["sequence"]) for r in found)


def changes(record: EmbeddedSnapshot) -> dict[str, int]:
    return {cause: count for cause, count in record.changes.items() if count}


LONG = "one two three four five. six seven eight nine ten eleven."


def test_a_snapshot_becomes_rows_and_vectors_and_a_record(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": LONG, "kind": "x"}, {"id": "b", "text": "short"})
    model = Hashing()
    record = run(dataset, 1, model, recipe("kind"))
    assert rows_of(dataset, record) == [
        ("a", 0, "one two three four five.", '{"kind":"x"}', 1),
        ("a", 1, "six seven eight nine ten eleven.", '{"kind":"x"}', 1),
        ("b", 0, "short", "{}", 1),
    ]
    assert (record.version, record.snapshot, record.sequence, record.documents, record.rows) == ("v7", 1, 1, 2, 3)
    assert (record.embedded, record.reused) == (3, 0)
    # Of these texts, and not of the pinned ones.
    assert (record.tokens, record.tokens_stated) == (24 + 32 + 5, 61 - 3)
    assert (record.model, record.revision, record.created_at) == ("hashing", "r1", AT)
    assert changes(record) == {"added": 2}
    keys = dataset.chunks(record.recipe).keys(record.chunks_version)
    texts = [row["text"] for row in pa.Table.from_batches(dataset.chunks(record.recipe).read(1)).to_pylist()]
    stored = dataset.vectors(recipe().space.document_side, DIMENSIONS).reader().take(keys["content_key"])
    np.testing.assert_allclose(stored, model.embed(texts), atol=1e-6)


def test_each_distinct_text_is_embedded_once(dataset: DatasetStore) -> None:
    fill(dataset, *({"id": str(n), "text": "same"} for n in range(5)), {"id": "x", "text": "other"})
    model = Hashing()
    record = run(dataset, 1, model)
    assert model.asked == {"same": 1, "other": 1}
    assert (record.embedded, record.reused) == (2, 4)


def test_the_next_snapshot_embeds_only_what_is_new(dataset: DatasetStore) -> None:
    fill(dataset, *({"id": str(n), "text": f"text {n}"} for n in range(10)))
    run(dataset, 1)
    fill(dataset, *({"id": str(n), "text": f"text {n}"} for n in range(1, 9)), {"id": "9", "text": "edited"})
    model = Hashing()
    record = run(dataset, 2, model)
    assert model.asked == {"edited": 1}
    assert changes(record) == {"edited": 1, "deleted": 1, "unchanged": 8}
    assert [row[:3] for row in rows_of(dataset, record)] == [
        *((str(n), 0, f"text {n}") for n in range(1, 9)),
        ("9", 0, "edited"),
    ]
    assert (record.embedded, record.reused) == (1, 8)


def test_an_edit_of_metadata_rewrites_rows_and_embeds_nothing(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": "x", "kind": "old"}, {"id": "b", "text": "y", "kind": "old"})
    of = recipe("kind")
    run(dataset, 1, of=of)
    fill(dataset, {"id": "a", "text": "x", "kind": "new"}, {"id": "b", "text": "y", "kind": "old"})
    model = Hashing()
    record = run(dataset, 2, model, of)
    assert model.asked == {}
    assert changes(record) == {"metadataOnly": 1, "unchanged": 1}
    assert rows_of(dataset, record) == [("a", 0, "x", '{"kind":"new"}', 2), ("b", 0, "y", '{"kind":"old"}', 1)]


def test_an_edit_that_shortens_a_document_leaves_none_of_its_old_chunks(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": LONG})
    run(dataset, 1)
    fill(dataset, {"id": "a", "text": "short"})
    assert [row[:3] for row in rows_of(dataset, run(dataset, 2))] == [("a", 0, "short")]


def test_another_way_of_cutting_embeds_only_what_is_cut_differently(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": LONG}, {"id": "b", "text": "short"})
    run(dataset, 1)
    model = Hashing()
    record = run(dataset, 1, model, recipe(tokens=16), "v8")
    assert model.asked == {LONG: 1}
    assert (record.embedded, record.reused) == (1, 1)


def test_a_skipped_snapshot_is_bridged_from_the_nearest_earlier_one(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": "x"})
    run(dataset, 1)
    for number in range(3):
        fill(dataset, {"id": "a", "text": "x"}, {"id": f"b{number}", "text": f"y{number}"})
    model = Hashing()
    record = run(dataset, 4, model)
    assert model.asked == {"y2": 1}
    assert record.digest == run(dataset, 4).digest
    assert run(dataset, 3, model).documents == 2


@pytest.mark.parametrize("prefix", ["", "passage: "])
def test_the_model_gets_the_prefix_and_the_rows_do_not(dataset: DatasetStore, prefix: str) -> None:
    fill(dataset, {"id": "a", "text": "x"})
    model = Hashing()
    record = run(dataset, 1, model, recipe(prefix=prefix))
    assert model.asked[f"{prefix}x"] == 1
    assert rows_of(dataset, record)[0][2] == "x"


def test_the_digest_is_that_of_a_build_from_nothing(dataset: DatasetStore, tmp_path: Path) -> None:
    first = [{"id": str(n), "text": f"text {n}"} for n in range(6)]
    second = [{"id": str(n), "text": f"text {n}"} for n in range(2, 6)] + [{"id": "1", "text": LONG}]
    fill(dataset, *first)
    run(dataset, 1)
    fill(dataset, *second)
    direct = opened(tmp_path, "direct")
    fill(direct, *reversed(second))
    assert run(dataset, 2).digest == run(direct, 1).digest


def test_a_snapshot_that_is_embedded_already_asks_nobody(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": "x"})
    record = run(dataset, 1)
    assert run(dataset, 1, object()) == record


def test_an_empty_snapshot_has_an_empty_record(dataset: DatasetStore) -> None:
    fill(dataset)
    record = run(dataset, 1)
    assert (record.documents, record.rows, record.embedded) == (0, 0, 0)


def test_documents_that_a_later_version_cannot_render_refuse_it_with_counts(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": "x", "other": "y"}, {"id": "b", "text": "x"})
    with pytest.raises(Terminal) as error:
        run(dataset, 1, of=recipe(template="{other}"))
    assert error.value.reason is Reason.SOURCE_INVALID
    assert error.value.message == (
        "1 of 2 documents of the snapshot cannot be rendered by this version: 1 without text; "
        "mend them in the source, or declare a version with another template"
    )
    assert dataset.embedded(recipe(template="{other}").key) == []


def test_a_missing_snapshot_is_said(dataset: DatasetStore) -> None:
    with pytest.raises(Terminal) as error:
        run(dataset, 3)
    assert error.value.reason is Reason.SNAPSHOT_NOT_FOUND


def test_a_chunker_of_another_release_stops_before_anything_is_asked(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": "x"})
    other = Recipe(recipe().space, "{text}", (), Chunker("breaks", "99", 8, 0))
    with pytest.raises(Terminal) as error:
        run(dataset, 1, object(), other)
    assert error.value.reason is Reason.INVALID_SPEC


def test_a_model_whose_vectors_moved_stops_the_line_with_the_distance(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": "x"})
    run(dataset, 1)
    fill(dataset, {"id": "a", "text": "x"}, {"id": "b", "text": "y"})
    swapped = Hashing(salt="another model")
    with pytest.raises(Terminal) as error:
        run(dataset, 2, swapped)
    assert error.value.reason is Reason.MODEL_CHANGED
    assert "moved the pinned texts by a cosine distance of 1." in error.value.message
    assert swapped.asked == {}


def test_a_swapped_model_is_noticed_by_a_version_that_differs_in_its_query_prefix_alone(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "a", "text": "x"})
    run(dataset, 1)
    of = recipe()
    of = dataclasses.replace(of, space=dataclasses.replace(of.space, query_prefix="query: "))
    with pytest.raises(Terminal) as error:
        run(dataset, 1, Hashing(salt="another model"), of, "v8")
    assert error.value.reason is Reason.MODEL_CHANGED


def test_a_model_of_another_revision_stops_the_line(dataset: DatasetStore) -> None:
    class Newer(Hashing):
        def identity(self) -> Identity:
            return Identity("hashing", "r2", DIMENSIONS)

    fill(dataset, {"id": "a", "text": "x"})
    with pytest.raises(Terminal) as error:
        run(dataset, 1, Newer())
    assert error.value.message == ("hashing answers as revision r2, the recipe wants r1; declare a new version for it")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.ones((1, 7), np.float32), "wanted 4 dimensions"),
        (np.zeros((1, 4), np.float32), "are zero"),
        (np.full((1, 4), np.nan, np.float32), "are not finite"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused(dataset: DatasetStore, answer: Vectors, words: str) -> None:
    class Broken(Hashing):
        def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
            if len(texts) > 1:
                return super().embed(texts, finished)
            finished(0, answer)
            return answer

    fill(dataset, {"id": "a", "text": "x"})
    with pytest.raises(Terminal) as error:
        run(dataset, 1, Broken())
    assert error.value.reason is Reason.MODEL_INVALID
    assert words in error.value.message


def test_what_was_embedded_before_the_model_failed_is_kept(
    dataset: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_FIRST_TEXTS", 8)
    monkeypatch.setattr(pipeline, "_MOST_TEXTS", 8)

    class Failing(Hashing):
        def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
            if self.asked.total() >= 24:
                raise Retryable(Reason.MODEL_UNREACHABLE, "down")
            return super().embed(texts, finished)

    fill(dataset, *({"id": str(n), "text": f"text {n}"} for n in range(100)))
    failing, working = Failing(), Hashing()
    with pytest.raises(PointsmanError):
        run(dataset, 1, failing)
    run(dataset, 1, working)
    assert len(failing.asked) == 24
    assert len(working.asked) == 76
    assert not failing.asked.keys() & working.asked.keys()


class Partial(Hashing):
    """A model that answers ten texts at a time, and refuses some."""

    def __init__(self, refused: Collection[str] = (), fails_after: int = 1_000_000) -> None:
        super().__init__()
        self.refused, self.fails_after = refused, fails_after

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        refused = [position for position, text in enumerate(texts) if text in self.refused]
        parts: list[Vectors] = []
        for start in range(0, len(texts), 10):
            if self.asked.total() >= self.fails_after:
                raise Retryable(Reason.MODEL_UNREACHABLE, "down")
            edges = [start - 1, *(at for at in refused if start <= at < start + 10), min(start + 10, len(texts))]
            for before, after in itertools.pairwise(edges):
                if after > before + 1:
                    parts.append(super().embed(texts[before + 1 : after]))
                    finished(before + 1, parts[-1])
        if refused:
            raise TextsRefused(refused, "HTTP 400")
        return np.concatenate(parts)


def test_what_was_answered_in_a_call_that_failed_is_kept(dataset: DatasetStore) -> None:
    fill(dataset, *({"id": str(n), "text": f"text {n}"} for n in range(100)))
    failing, working = Partial(fails_after=30), Hashing()
    with pytest.raises(Retryable):
        run(dataset, 1, failing)
    run(dataset, 1, working)
    assert (len(failing.asked), len(working.asked)) == (30, 70)
    assert not failing.asked.keys() & working.asked.keys()


def test_texts_that_the_model_refuses_are_told_by_document_and_all_others_are_kept(dataset: DatasetStore) -> None:
    fill(dataset, {"id": "long", "text": LONG}, *({"id": f"d{n}", "text": f"text {n}"} for n in range(50)))
    refusing, working = Partial(["text 7", "six seven eight nine ten eleven."]), Hashing()
    with pytest.raises(Terminal) as error:
        run(dataset, 1, refusing)
    assert error.value.reason is Reason.MODEL_REJECTED
    assert error.value.message == (
        "the model refuses 2 texts with HTTP 400: of document long (ordinal 1), d7 (ordinal 0); "
        "mend them in the source, or declare a version with a smaller chunking.maxTokens"
    )
    assert dataset.embedded(recipe().key) == []
    assert run(dataset, 1, working).documents == 51
    assert working.asked == {"text 7": 1, "six seven eight nine ten eleven.": 1}


def test_a_model_that_refuses_many_texts_is_not_asked_for_the_rest(
    dataset: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FIRST_TEXTS", "_MOST_TEXTS"):
        monkeypatch.setattr(pipeline, name, 50)
    fill(dataset, *({"id": str(n), "text": f"text {n}"} for n in range(1000)))
    model = Partial([f"text {n}" for n in range(1000)])
    with pytest.raises(Terminal) as error:
        run(dataset, 1, model)
    assert error.value.message.startswith("the model refuses 50 texts with HTTP 400: of document 0 (ordinal 0), ")


def test_what_is_finished_is_stored_soon_though_no_more_comes() -> None:
    stored: queue.Queue[list[bytes]] = queue.Queue()
    storing = pipeline.Storing(lambda keys, vectors: stored.put(keys), seconds=0.01)
    storing.put([b"a"], np.zeros((1, 4), np.float32))
    assert stored.get(timeout=30) == [b"a"]
    storing.put([b"b"], np.zeros((1, 4), np.float32))
    storing.finish()
    assert stored.get_nowait() == [b"b"]


def test_what_is_finished_waits_for_a_full_batch_in_between() -> None:
    batches: list[int] = []
    storing = pipeline.Storing(lambda keys, vectors: batches.append(len(keys)), seconds=60)
    for _ in range(40):
        storing.put([b"k"] * 1_000, np.zeros((1_000, 4), np.float32))
    storing.finish()
    assert batches == [17_000, 17_000, 6_000]


def test_a_store_that_fails_is_told_to_whoever_brings_more() -> None:
    def write(keys: list[bytes], vectors: Vectors) -> None:
        raise Retryable(Reason.STORE_UNREACHABLE, "full")

    storing = pipeline.Storing(write, seconds=0)
    with pytest.raises(Retryable):
        for _ in range(40):
            storing.put([b"k"] * 1_000, np.zeros((1_000, 4), np.float32))
    with pytest.raises(Retryable):
        storing.finish()


def test_progress_ends_at_all_texts(dataset: DatasetStore) -> None:
    fill(dataset, *({"id": str(n), "text": LONG} for n in range(3000)))
    told: list[tuple[int, int]] = []
    embed(dataset, "v7", recipe(), 1, Hashing(), lambda: AT, lambda done, total: told.append((done, total)))
    assert told[-1] == (6000, 6000)
    assert all(done <= total for done, total in told)


def test_old_versions_of_the_vectors_go_with_the_next_embedding(
    dataset: DatasetStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointsman.work.embed.GRACE", timedelta(0))
    for number in range(1, 4):
        fill(dataset, *({"id": str(n), "text": f"text {n}"} for n in range(number)))
        run(dataset, number)
    versions = tmp_path.glob("datasets/default/papers/vectors/*.lance/_versions/*.manifest")
    assert len(list(versions)) == 1
    assert run(opened(tmp_path), 3).rows == 3
    assert _stored_texts(dataset, recipe().space, [{"text": f"text {n}"} for n in range(3)]) == {
        "text 0",
        "text 1",
        "text 2",
    }


class Interrupted(BaseException):
    pass


class Torn:
    """A dataset, or a part of one, whose store dies before or after the n-th call that writes."""

    WRITES = frozenset({"write", "append", "publish_embedded", "pin_probes"})
    PARTS = frozenset({"chunks", "vectors"})

    def __init__(self, inner: Any, counter: "itertools.count[int]", at: int, after: bool) -> None:
        self._inner, self._counter, self._at, self._after = inner, counter, at, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in self.PARTS:
            return lambda *arguments: Torn(found(*arguments), self._counter, self._at, self._after)
        if name not in self.WRITES:
            return found

        def torn(*arguments: Any) -> Any:
            turn = next(self._counter)
            if turn == self._at and not self._after:
                raise Interrupted
            result = found(*arguments)
            if turn == self._at:
                raise Interrupted
            return result

        return torn


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 7))
def test_killed_at_any_write_and_run_again_ends_the_same_and_embeds_no_finished_batch_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    # Batches of 500 texts, each stored at once: pins, three appends, chunks and the record make six writes.
    for name in ("_FIRST_TEXTS", "_MOST_TEXTS", "STORE_ROWS"):
        monkeypatch.setattr(pipeline, name, 500)
    content = [{"id": str(n), "text": f"text {n}"} for n in range(1500)]
    whole, torn = opened(tmp_path, "whole"), opened(tmp_path, "torn")
    fill(whole, *content)
    fill(torn, *content)
    model = Hashing()
    with pytest.raises(Interrupted):
        run(Torn(torn, itertools.count(1), at, after), 1, model)  # type: ignore[arg-type]
    again = opened(tmp_path, "torn")
    space = recipe().space
    keys_before = set(model.asked)
    stored = _stored_texts(again, space, content)
    resumed = Hashing()
    record = run(again, 1, resumed)
    assert not resumed.asked.keys() & stored
    assert resumed.asked.keys() | stored == {row["text"] for row in content}
    assert stored <= keys_before
    expected = run(whole, 1)
    assert (record.digest, record.rows, changes(record)) == (expected.digest, 1500, {"added": 1500})
    assert rows_of(again, record) == rows_of(whole, expected)


def _stored_texts(dataset: DatasetStore, space: Space, content: list[dict[str, Any]]) -> set[str]:
    from pointsman.core import digests, rows

    texts = [row["text"] for row in content]
    keys = [digests.content_key(space.document_side, text) for text in texts]
    missing = set(dataset.vectors(space.document_side, DIMENSIONS).missing(pa.array(keys, rows.KEY)).to_pylist())
    return {text for text, key in zip(texts, keys, strict=True) if key not in missing}
