"""An index is built, moved, compared and mended, on the in-memory database."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pointsman.api.conditions import Reason
from pointsman.backends.memory import Memory
from pointsman.core import digests, rows
from pointsman.core.recipes import Chunker, Recipe, Space
from pointsman.errors import Conflict, Retryable, Terminal
from pointsman.ports import IndexSpec, Marker, Vectors
from pointsman.store.dataset import DatasetStore
from pointsman.store.records import EmbeddedSnapshot
from pointsman.store.root import Store
from pointsman.work import progress
from pointsman.work.indexing import Index, Pace, build, check, follow, repair

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
RECIPE = Recipe(Space("openai", "hashing", "r1", 4), "{text}", ("n",), Chunker("words", "1", 8, 0))
MARKER = Marker("shop/papers", "uid", "v7", RECIPE.key, RECIPE.space.key, "hashing")
NAME = "pm_papers_1"
AXIS = np.array([0, 0, 0, 1], np.float32)
Texts = Mapping[str, str]


def directions(texts: Sequence[str]) -> Vectors:
    raw = b"".join(digests.text_digest(text) for text in texts)
    found = np.frombuffer(raw, "<u4").reshape(-1, 4) / 2**31 - 1
    unit: Vectors = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return unit


def publish(dataset: DatasetStore, number: int, texts: Texts, has_digest: bool = False) -> None:
    """Make an embedded snapshot of documents of one chunk each, instead of all that there were."""
    side = RECIPE.space.document_side
    metadata = [json.dumps({"n": i}, separators=(",", ":")) for i in range(len(texts))]
    columns: dict[str, Any] = {
        "point_id": digests.point_ids(list(texts), [0] * len(texts)),
        "document": list(texts),
        "ordinal": [0] * len(texts),
        "text": list(texts.values()),
        "content_key": digests.content_keys(side, list(texts.values())),
        "text_digest": digests.text_digests(list(texts.values())),
        "cut_digest": digests.text_digests(list(texts.values())),
        "metadata": metadata,
        "metadata_digest": digests.text_digests(metadata),
        "sequence": [number] * len(texts),
    }
    chunks = pa.RecordBatch.from_pydict(columns, schema=rows.CHUNKS)
    known = dataset.embedded_at(RECIPE.key, number - 1)
    before = None if known is None else known.chunks_version
    table = dataset.chunks(RECIPE.key)
    old = None if before is None else table.keys(before, ["document"])["document"].combine_chunks()
    version = table.write(before, pa.array([], pa.string()) if old is None else old, iter([chunks]))
    vectors = directions(list(texts.values())).reshape(-1)
    stored: dict[str, Any] = {
        "content_key": columns["content_key"],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors), 4),
        "space": [RECIPE.space.key] * len(texts),
        "model": ["hashing"] * len(texts),
        "revision": ["r1"] * len(texts),
        "recipe": [RECIPE.key] * len(texts),
        "embedded_at": [AT] * len(texts),
        "sequence": [number] * len(texts),
    }
    dataset.vectors(side, 4).append(pa.RecordBatch.from_pydict(stored, schema=rows.vectors(4)))
    count = len(texts)
    dataset.publish_embedded(
        EmbeddedSnapshot(
            version="v7",
            recipe=RECIPE.key,
            space=RECIPE.space.key,
            snapshot=number,
            sequence=number,
            chunks_version=version,
            documents=count,
            rows=count,
            digest=digests.Digest.of(chunks).hex(RECIPE.key) if has_digest else f"digest-{number}",
            changes={},
            embedded=count,
            reused=0,
            tokens=0,
            model="hashing",
            revision="r1",
            created_at=AT,
        )
    )


class Watched(Memory):
    """The database in memory, that lets somebody in before its first scan, and may lose what it acknowledges."""

    def __init__(self) -> None:
        super().__init__()
        self.before_scan: Callable[[], object] | None = None
        self.is_losing = False
        self.upserts: list[int] = []

    def scan(self, name: str) -> Iterator[pa.RecordBatch]:
        meddle, self.before_scan = self.before_scan, None
        if meddle is not None:
            meddle()
        return super().scan(name)

    def upsert(self, name: str, batch: pa.RecordBatch) -> None:
        self.upserts.append(batch.num_rows)
        super().upsert(name, batch.slice(1) if self.is_losing else batch)


@pytest.fixture
def database() -> Watched:
    return Watched()


@pytest.fixture
def index(tmp_path: Path, database: Watched) -> Index:
    store = Store(str(tmp_path))
    return Index(
        spec=IndexSpec(NAME, 4, 16, 64, MARKER),
        backend=database,
        dataset=store.dataset("shop", "papers"),
        recipe=RECIPE,
        log=store.log("deployments", "shop", "papers", "indexes", NAME),
        now=lambda: AT,
        report=progress.nowhere,
    )


def numbered(count: int, first: int = 0) -> dict[str, str]:
    return {f"doc-{n}": f"text {n}" for n in range(first, first + count)}


def built(index: Index, count: int = 20) -> None:
    publish(index.dataset, 1, numbered(count))
    build(index, 1, Pace(None))


def ids(documents: Sequence[str]) -> list[bytes]:
    found: list[bytes] = digests.point_ids(documents, [0] * len(documents)).to_pylist()
    return found


def held(database: Memory) -> dict[str, str]:
    return {payload["document"]: payload["text"] for payload in database._indexes[NAME].payloads}


def edit(database: Memory, document: str, field: str, value: object) -> None:
    there = database._indexes[NAME]
    there.payloads[there.slots[ids([document])[0]]][field] = value


def overwrite(database: Memory, document: str) -> None:
    there = database._indexes[NAME]
    there.vectors[there.slots[ids([document])[0]]] = AXIS


def add_by_hand(database: Memory, point_id: bytes = b"seven") -> None:
    there = database._indexes[NAME]
    there.write(point_id, dict(there.payloads[0]), AXIS)


def differences(index: Index) -> int:
    return index.record()[0].differences


# Building.


def test_a_built_index_holds_its_snapshot_and_its_record_says_so(index: Index, database: Watched) -> None:
    built(index)
    record, revision = index.record()
    assert held(database) == numbered(20)
    assert (record.cursor, record.rows, record.digest) == (rows.Cursor(1, 1), 20, "digest-1")
    assert (record.verified_at, record.checked_at, record.differences, record.pending) == (AT, AT, 0, None)
    assert revision == 1


def test_every_point_says_which_recipe_made_it(index: Index, database: Watched) -> None:
    built(index)
    assert {payload["recipe"] for payload in database._indexes[NAME].payloads} == {RECIPE.key}


def test_a_build_that_was_cut_short_goes_on_whatever_it_finds(index: Index, database: Watched) -> None:
    built(index)
    database.delete(NAME, ids(["doc-1", "doc-2"]))
    add_by_hand(database)
    add_by_hand(database, bytes(16))
    edit(database, "doc-3", "recipe", "another")
    edit(database, "doc-4", "text", "by hand")
    overwrite(database, "doc-5")
    build(index, 1, Pace(None))
    assert held(database) == numbered(20)
    assert {payload["recipe"] for payload in database._indexes[NAME].payloads} == {RECIPE.key}


def test_an_index_that_lost_what_it_was_given_is_not_verified(index: Index, database: Watched) -> None:
    publish(index.dataset, 1, numbered(20))
    database.is_losing = True
    with pytest.raises(Retryable) as found:
        build(index, 1, Pace(None))
    assert found.value.reason is Reason.INDEX_DIFFERS
    assert found.value.message == (
        "pm_papers_1 holds 19 rows, 20 wanted; 1 are missing or other, 0 are not in the snapshot, "
        "1 of 20 looked at whole differ from the store"
    )
    assert index.record()[1] == 0


def test_a_snapshot_that_was_cleaned_up_cannot_be_built(index: Index) -> None:
    with pytest.raises(Retryable, match="v7@3 is not in the store any more"):
        build(index, 3, Pace(None))


# Following.


def test_an_index_is_moved_by_what_differs(index: Index, database: Watched) -> None:
    built(index)
    publish(index.dataset, 2, {**numbered(18), "doc-4": "edited", "doc-20": "new"})
    database.upserts.clear()
    follow(index, 2)
    record, _ = index.record()
    assert held(database) == {**numbered(18), "doc-4": "edited", "doc-20": "new"}
    assert sum(database.upserts) == 2
    assert (record.cursor, record.rows, record.pending, record.differences) == (rows.Cursor(2, 2), 19, None, 0)
    assert record.verified_at == AT


def test_a_move_reads_back_what_it_wrote(index: Index, database: Watched) -> None:
    built(index)
    publish(index.dataset, 2, {**numbered(20), "doc-4": "edited"})
    database.is_losing = True
    follow(index, 2)
    assert differences(index) == 1


def test_an_index_that_was_never_complete_is_not_moved(index: Index, database: Watched) -> None:
    publish(index.dataset, 1, numbered(3))
    database.create(index.spec)
    with pytest.raises(Retryable, match="was never complete; it is built first"):
        follow(index, 1)


def test_an_index_that_is_gone_or_another_deployments_is_not_touched(index: Index, database: Watched) -> None:
    built(index)
    other = dataclasses.replace(
        index, spec=dataclasses.replace(index.spec, marker=dataclasses.replace(MARKER, owner="x/y"))
    )
    for attempt in (lambda: check(other, 1), lambda: follow(other, 1), lambda: repair(other, 1, Pace(None))):
        with pytest.raises(Terminal) as foreign:
            attempt()
        assert foreign.value.reason is Reason.COLLECTION_FOREIGN
    database.drop(NAME)
    with pytest.raises(Retryable) as lost:
        check(index, 1)
    assert lost.value.reason is Reason.INDEX_LOST


# Checking.


def test_nothing_differs_in_an_index_that_nobody_touched(index: Index) -> None:
    built(index)
    check(index, 1)
    assert differences(index) == 0


@pytest.mark.parametrize(
    ("meddle", "found"),
    [
        (lambda database: database.delete(NAME, ids([f"doc-{n}" for n in range(10)])), 10),
        (lambda database: add_by_hand(database), 1),
        (lambda database: add_by_hand(database, bytes(16)), 1),
        (lambda database: edit(database, "doc-1", "text", "by hand"), 1),
        (lambda database: edit(database, "doc-1", "metadata", {"n": 7}), 1),
        (lambda database: edit(database, "doc-1", "content_key", bytes(16)), 1),
        (lambda database: edit(database, "doc-1", "recipe", "another"), 1),
        (lambda database: overwrite(database, "doc-1"), 1),
        (lambda database: (overwrite(database, "doc-1"), edit(database, "doc-1", "text", "by hand")), 1),
        (lambda database: (database.delete(NAME, ids(["doc-1"])), add_by_hand(database)), 2),
    ],
    ids=[
        "ten points deleted",
        "a point with an id of somebody else's",
        "a point with an id like ours",
        "a text edited",
        "metadata edited",
        "a content key edited",
        "another recipe",
        "a vector overwritten",
        "a text and its vector",
        "one deleted and one added",
    ],
)
def test_each_point_that_differs_is_counted_once_and_mended(
    index: Index, database: Watched, meddle: Callable[[Memory], object], found: int
) -> None:
    built(index)
    meddle(database)
    check(index, 1)
    assert differences(index) == found
    repair(index, 1, Pace(None))
    assert (differences(index), held(database)) == (0, numbered(20))
    check(index, 1)
    assert differences(index) == 0


def test_a_check_that_overlapped_a_move_is_done_again(index: Index, database: Watched) -> None:
    built(index)
    publish(index.dataset, 2, {**numbered(20), "doc-4": "edited"})
    database.before_scan = lambda: follow(index, 2)
    with pytest.raises(Conflict):
        check(index, 1)
    record, _ = index.record()
    assert (record.cursor, record.pending, record.differences) == (rows.Cursor(2, 2), None, 0)
    check(index, 2)
    assert index.record()[0].cursor == rows.Cursor(2, 2)


def test_a_move_that_was_overtaken_writes_nothing(index: Index, database: Watched) -> None:
    built(index)
    publish(index.dataset, 2, {**numbered(20), "doc-4": "edited"})
    record, revision = index.record()
    index.write(dataclasses.replace(record, differences=3), revision)
    with pytest.raises(Conflict):
        index.write(dataclasses.replace(record, pending=2), revision)
    assert differences(index) == 3


# Repairing.


class Counting:
    """A dataset's store that counts how often its vectors are opened."""

    def __init__(self, dataset: DatasetStore) -> None:
        self._dataset, self.opened = dataset, 0

    def __getattr__(self, name: str) -> Any:
        self.opened += name == "vectors"
        return getattr(self._dataset, name)


def test_a_repair_looks_at_every_point_and_opens_the_vectors_once(index: Index, database: Watched) -> None:
    built(index, 17_000)
    for number in (5, 9_000, 16_999):
        edit(database, f"doc-{number}", "text", "by hand")
        overwrite(database, f"doc-{number + 1 if number < 16_999 else 0}")
    database.upserts.clear()
    store = Counting(index.dataset)
    repair(dataclasses.replace(index, dataset=store), 1, Pace(None))  # type: ignore[arg-type]
    assert store.opened == 1
    assert sum(database.upserts) == 6
    assert held(database) == numbered(17_000)
    assert differences(index) == 0


class Paced(Pace):
    """A pace that counts the batches that pass it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.passed = 0

    def over(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in super().over(batches):
            self.passed += 1
            yield batch


def test_builds_and_repairs_read_at_the_pace_of_the_index_that_serves(index: Index) -> None:
    publish(index.dataset, 1, numbered(20))
    for work in (build, repair):
        pace = Paced()
        work(index, 1, pace)
        assert pace.passed == 1


class Scans(Memory):
    """The database in memory, that counts its scans."""

    def __init__(self) -> None:
        super().__init__()
        self.scans = 0

    def scan(self, name: str) -> Iterator[pa.RecordBatch]:
        self.scans += 1
        return super().scan(name)


@pytest.mark.parametrize(
    ("harm", "differences", "scans"),
    [
        (lambda database, ids: None, 0, 1),
        (lambda database, ids: database.delete(NAME, ids[:2]), 2, 2),
        (lambda database, ids: add_by_hand(database), 1, 2),
        (lambda database, ids: edit(database, "doc-3", "recipe", "another"), 1, 2),
        (lambda database, ids: overwrite(database, "doc-3"), 1, 1),
    ],
    ids=["nothing", "two are gone", "one is not ours", "one is of another recipe", "a vector is another"],
)
def test_a_digest_tells_that_all_is_there_and_only_what_differs_is_looked_for_by_keys(
    index: Index, harm: Callable[[Any, list[bytes]], None], differences: int, scans: int
) -> None:
    database = Scans()
    index = dataclasses.replace(index, backend=database)
    texts = {f"doc-{n}": f"text {n}" for n in range(40)}
    publish(index.dataset, 1, texts, has_digest=True)
    build(index, 1, Pace(None))
    assert database.scans == 1
    harm(database, digests.point_ids(list(texts), [0] * 40).to_pylist())
    database.scans = 0
    check(index, 1)

    assert index.record()[0].differences == differences
    assert database.scans == scans
