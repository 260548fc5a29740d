"""The corpus, the chunks and the vectors on a local disk, under writers that die."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pointsman.api.conditions import Reason
from pointsman.core import digests, recipes, rows
from pointsman.errors import Conflict, Retryable
from pointsman.store import objects
from pointsman.store.corpus import Corpus
from pointsman.store.dataset import DatasetStore
from pointsman.store.locks import Exclusive
from pointsman.store.records import EmbeddedSnapshot, Snapshot
from pointsman.store.remembered import Remembered
from pointsman.store.root import Store
from pointsman.store.tables import Table

NOW = datetime(2030, 1, 2, tzinfo=UTC)
NONE = pa.array([], pa.string())
AT_ONCE = timedelta(0)


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetStore:
    return Store(str(tmp_path)).dataset("shop", "papers")


def documents(**fields: str) -> pa.RecordBatch:
    found = [
        {"id": key, "fields": value, "digest": digests.text_digest(value), "sequence": 1}
        for key, value in fields.items()
    ]
    return pa.RecordBatch.from_pylist(found, rows.CORPUS)


def content(corpus: Corpus, version: int) -> dict[str, str]:
    found = [row for batch in corpus.read(version) for row in batch.to_pylist()]
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row["fields"] for row in found}


def chunked(**texts: list[str]) -> pa.RecordBatch:
    found = [
        {
            "point_id": digests.point_id(document, ordinal),
            "document": document,
            "ordinal": ordinal,
            "text": text,
            "content_key": digests.content_key("side", text),
            "text_digest": digests.text_digest("".join(pieces)),
            "cut_digest": digests.cut_digest(pieces),
            "metadata": "{}",
            "metadata_digest": digests.text_digest("{}"),
            "sequence": 1,
        }
        for document, pieces in texts.items()
        for ordinal, text in enumerate(pieces)
    ]
    return pa.RecordBatch.from_pylist(found, rows.CHUNKS)


def embedded(*texts: str, side: str = "side") -> pa.RecordBatch:
    """Return the vectors of texts: each has its length and its first character in them."""
    found = [
        {
            "content_key": digests.content_key(side, text),
            "vector": [float(len(text)), float(ord(text[0]))],
            "space": "space",
            "model": "m",
            "revision": "r",
            "recipe": "recipe",
            "embedded_at": NOW,
            "sequence": 1,
        }
        for text in texts
    ]
    return pa.RecordBatch.from_pylist(found, rows.vectors(2))


def content_keys(*texts: str, side: str = "side") -> pa.Array:
    return digests.content_keys(side, list(texts))


class Killed(Exception):
    """Stands for the death of the writer."""


def dying(*batches: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    yield from batches
    raise Killed


def test_a_corpus_is_written_and_read(dataset: DatasetStore) -> None:
    corpus = dataset.corpus

    first = corpus.write(None, NONE, iter([documents(a="1", b="1"), documents(c="1")]))
    second = corpus.write(first, pa.array(["a"]), iter([documents(b="2", d="1")]))

    assert content(corpus, first) == {"a": "1", "b": "1", "c": "1"}
    assert content(corpus, second) == {"b": "2", "c": "1", "d": "1"}
    assert corpus.keys(second).column_names == ["id", "digest", "sequence"]
    assert sorted(corpus.keys(second)["id"].to_pylist()) == ["b", "c", "d"]


def test_named_documents_are_read_alone(dataset: DatasetStore) -> None:
    corpus = dataset.corpus
    many = {f"d{n:03d}": str(n) for n in range(200)}
    version = corpus.write(None, NONE, iter([documents(**many)]))

    few = [row["id"] for batch in corpus.read(version, ["d007", "nobody", "d003"]) for row in batch.to_pylist()]
    most = [row["id"] for batch in corpus.read(version, sorted(many)[50:]) for row in batch.to_pylist()]

    assert few == ["d003", "d007"]
    assert most == sorted(many)[50:]
    assert [batch for batch in corpus.read(version, []) if batch.num_rows] == []


def test_long_documents_are_taken_a_few_at_a_time(dataset: DatasetStore) -> None:
    corpus = dataset.corpus
    few, many = {f"d{n:03d}": "x" * 2**18 for n in range(80)}, {f"e{n:03d}": "x" for n in range(500)}
    version = corpus.write(None, NONE, iter([documents(**few), documents(**many)]))

    batches = list(corpus.read(version, sorted(few)))

    assert [row for batch in batches for row in batch.column("id").to_pylist()] == sorted(few)
    assert max(batch.num_rows for batch in batches) <= 32


def test_a_write_of_nothing_is_no_version(dataset: DatasetStore) -> None:
    version = dataset.corpus.write(None, NONE, iter([documents(a="1")]))

    assert dataset.corpus.write(version, pa.array(["nobody"]), iter([])) == version


def test_a_corpus_may_lose_every_document(dataset: DatasetStore) -> None:
    first = dataset.corpus.write(None, NONE, iter([documents(a="1")]))

    second = dataset.corpus.write(first, pa.array(["a"]), iter([]))
    third = dataset.corpus.write(second, NONE, iter([documents(b="1")]))

    assert content(dataset.corpus, second) == {}
    assert content(dataset.corpus, third) == {"b": "1"}


def test_what_a_dead_writer_left_is_dropped(dataset: DatasetStore) -> None:
    corpus = dataset.corpus
    first = corpus.write(None, NONE, iter([documents(a="1", b="1")]))
    corpus.write(first, pa.array(["a"]), iter([documents(ghost="1")]))

    second = corpus.write(first, NONE, iter([documents(b="2")]))

    assert content(corpus, second) == {"a": "1", "b": "2"}
    assert content(corpus, first) == {"a": "1", "b": "1"}


def test_a_first_write_after_a_dead_one_starts_from_nothing(dataset: DatasetStore) -> None:
    dataset.corpus.write(None, NONE, iter([documents(ghost="1")]))

    version = dataset.corpus.write(None, NONE, iter([documents(a="1")]))

    assert content(dataset.corpus, version) == {"a": "1"}


def test_the_error_of_whoever_supplies_the_rows_comes_out_as_it_was(dataset: DatasetStore) -> None:
    with pytest.raises(Killed):
        dataset.corpus.write(None, NONE, dying(documents(a="1")))

    version = dataset.corpus.write(None, NONE, iter([documents(b="1")]))
    assert content(dataset.corpus, version) == {"b": "1"}
    with pytest.raises(Killed):
        dataset.corpus.write(version, NONE, dying(documents(a="1")))
    assert content(dataset.corpus, version) == {"b": "1"}


def test_a_version_that_is_not_there_is_said_to_be_gone(dataset: DatasetStore) -> None:
    dataset.corpus.write(None, NONE, iter([documents(a="1")]))

    with pytest.raises(
        Retryable, match=r"version 9 of datasets/shop/papers/corpus\.lance is not in the store"
    ) as failure:
        dataset.corpus.keys(9)
    with pytest.raises(Retryable, match="version 9"):
        dataset.corpus.write(9, NONE, iter([]))
    with pytest.raises(Retryable, match="version 1"):
        dataset.chunks("r1").keys(1)

    assert failure.value.reason is Reason.SNAPSHOT_NOT_FOUND


STEP = st.tuples(
    st.sampled_from(["publish", "publish", "die before publishing", "die while writing", "clean"]),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"), max_size=4),
    st.sets(st.sampled_from("abcdef"), max_size=3),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEP, max_size=8))
def test_whatever_dies_every_published_snapshot_reads_as_it_was(
    tmp_path: Path, steps: list[tuple[str, dict[str, str], set[str]]]
) -> None:
    dataset = Store(str(tmp_path)).dataset("shop", "papers")
    dataset.drop()
    expected: dict[int, dict[str, str]] = {}
    for what, upserts, deleted in steps:
        latest = dataset.latest()
        base, number = (latest.corpus_version, latest.number + 1) if latest else (None, 1)
        gone = pa.array(sorted(deleted), pa.string())
        if what == "clean":
            kept = sorted(expected)[-2:]
            dataset.clean(keep=kept, recipes=[], grace=AT_ONCE)
            expected = {each: expected[each] for each in kept}
        elif what == "die while writing":
            with pytest.raises(Killed):
                dataset.corpus.write(base, gone, dying(documents(**upserts)))
        else:
            version = dataset.corpus.write(base, gone, iter([documents(**upserts)]))
            if what == "publish":
                dataset.publish(snapshot(number, version))
                before = expected.get(number - 1, {})
                expected[number] = {k: v for k, v in before.items() if k not in deleted} | upserts

    found = {each.number: content(dataset.corpus, each.corpus_version) for each in dataset.snapshots()}
    assert found == expected


def test_a_table_written_many_times_stays_in_few_files_and_old_versions_stay_readable(
    dataset: DatasetStore, tmp_path: Path
) -> None:
    corpus = dataset.corpus
    version = corpus.write(None, NONE, iter([documents(**{f"d{n}": "0" for n in range(100)})]))
    versions = [version]
    for n in range(40):
        version = corpus.write(version, NONE, iter([documents(**{f"d{n}": "1"})]))
        versions.append(version)
        dataset.publish(snapshot(n + 1, version))

    assert list(content(corpus, version).values()).count("1") == 40
    assert list(content(corpus, versions[3]).values()).count("1") == 3
    dataset.clean(keep=[40], recipes=[], grace=AT_ONCE)
    assert len(list((tmp_path / "datasets/shop/papers/corpus.lance/data").iterdir())) < 20
    assert list(content(corpus, version).values()).count("1") == 40


def test_a_document_is_one_unit_of_chunks(dataset: DatasetStore) -> None:
    chunks = dataset.chunks("r1")
    first = chunks.write(None, NONE, iter([chunked(a=["x", "y", "z"], b=["x"], c=["x"])]))

    second = chunks.write(first, pa.array(["c"]), iter([chunked(a=["x", "Y"], d=["w"])]))

    found = [(row["document"], row["text"]) for batch in chunks.read(second) for row in batch.to_pylist()]
    assert sorted(found) == [("a", "Y"), ("a", "x"), ("b", "x"), ("d", "w")]
    assert chunks.keys(first).num_rows == 5
    assert set(rows.CHUNKS.names) - set(chunks.keys(second).column_names) == {"text", "metadata"}
    assert chunks.keys(second, ["point_id"]).column_names == ["point_id"]
    few = list(chunks.read(second, documents=["a"], columns=["ordinal"], batch_rows=1))
    assert [batch.to_pylist() for batch in few] == [[{"ordinal": 0}], [{"ordinal": 1}]]


def test_vectors_are_stored_once_and_read_in_any_order(dataset: DatasetStore) -> None:
    vectors = dataset.vectors("side", 2)
    assert vectors.missing(content_keys("a", "bb", "a")).to_pylist() == content_keys("a", "bb").to_pylist()

    vectors.append(embedded("a", "bb", "a"))
    vectors.append(embedded("bb", "ccc"))
    vectors.append(embedded("bb"))

    assert vectors.missing(content_keys("ccc", "dddd", "a")).to_pylist() == content_keys("dddd").to_pylist()
    taken = vectors.reader().take(content_keys("ccc", "a", "ccc", "bb"))
    assert taken.dtype == np.float32
    assert taken.tolist() == [[3.0, 99.0], [1.0, 97.0], [3.0, 99.0], [2.0, 98.0]]
    assert vectors.reader().take(content_keys()).shape == (0, 2)
    assert dataset.vectors("side", 2).missing(content_keys("a", "bb", "ccc")).to_pylist() == []


def test_a_missing_vector_is_said_with_numbers(dataset: DatasetStore) -> None:
    vectors = dataset.vectors("side", 2)
    with pytest.raises(Retryable, match="1 of 1 vectors are not in the store"):
        vectors.reader().take(content_keys("a"))

    vectors.append(embedded("a"))

    with pytest.raises(Retryable, match="2 of 3 vectors are not in the store; wanted all of them"):
        vectors.reader().take(content_keys("a", "b", "c"))


def test_two_tables_of_vectors_in_one_process_see_one_anothers_rows(dataset: DatasetStore) -> None:
    one, other = dataset.vectors("side", 2), dataset.vectors("side", 2)
    one.append(embedded("a"))
    assert len(other.missing(content_keys("a"))) == 0
    one.append(embedded("b"))

    other.append(embedded("b", "c"))

    assert len(one.missing(content_keys("a", "b", "c"))) == 0
    assert one.reader().take(content_keys("b")).tolist() == [[1.0, 98.0]]


def test_vectors_that_no_recipe_uses_go_and_a_reader_says_so(dataset: DatasetStore) -> None:
    vectors = dataset.vectors("side", 2)
    texts = [f"{n}" for n in range(40)]
    for text in texts:
        vectors.append(embedded(text))

    reader = vectors.reader()
    dataset.clean(keep=[], recipes=[], grace=AT_ONCE)

    assert len(dataset.vectors("side", 2).missing(content_keys(*texts))) == 40
    with pytest.raises(Retryable):
        reader.take(content_keys("1"))


@pytest.mark.parametrize("kill_after", [0.3, 0.6])
def test_a_writer_killed_outright_leaves_whole_batches_and_no_lock(tmp_path: Path, kill_after: float) -> None:
    script = textwrap.dedent(f"""
        import sys, pyarrow as pa
        from pointsman.core import digests, rows
        from pointsman.store.root import Store
        dataset = Store({str(tmp_path)!r}).dataset("shop", "papers")
        vectors = dataset.vectors("side", 2)
        vectors.missing(digests.content_keys("side", ["0"]))
        print("ready", flush=True)
        for batch in range(10_000):
            texts = [str(batch * 10 + n) for n in range(10)]
            columns = {{
                "content_key": digests.content_keys("side", texts),
                "vector": pa.array([[1.0, 2.0]] * 10, pa.list_(pa.float32(), 2)),
                "embedded_at": pa.array([0] * 10, pa.timestamp("us", tz="UTC")),
                "sequence": pa.array([1] * 10, pa.int64()),
                **{{name: ["x"] * 10 for name in ("space", "model", "revision", "recipe")}},
            }}
            vectors.append(pa.RecordBatch.from_arrays(
                [pa.array(columns[f.name], f.type) for f in rows.vectors(2)], schema=rows.vectors(2)))
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(kill_after)
        writer.send_signal(signal.SIGKILL)

    dataset = Store(str(tmp_path)).dataset("shop", "papers")
    vectors = dataset.vectors("side", 2)
    texts = [str(n) for n in range(100_000)]
    missing = len(vectors.missing(content_keys(*texts)))
    assert 0 < missing < 100_000
    assert missing % 10 == 0
    vectors.append(embedded(*texts[:50_000]))
    there = vectors.reader().take(content_keys(*texts[:50_000]))
    assert there.shape == (50_000, 2)


def snapshot(number: int, corpus_version: int) -> Snapshot:
    return Snapshot(
        number=number,
        sequence=number,
        corpus_version=corpus_version,
        documents=1,
        digest="00",
        added=0,
        deleted=0,
        edited=0,
        unchanged=0,
        created_at=NOW,
    )


SPACE = recipes.Space("wordllama", "m", "r", 2)
RECIPE = recipes.Recipe(
    space=SPACE, template="{text}", metadata_fields=(), chunker=recipes.Chunker("words", "1", 256, 0)
)
OTHER = replace(RECIPE, template="{title}")
SIDE = SPACE.document_side


def publish(dataset: DatasetStore, number: int, *texts: str, recipe: recipes.Recipe | None = RECIPE) -> None:
    """Publish a snapshot of one document with one chunk a text, embedded as well unless `recipe` is None."""
    latest = dataset.latest()
    if latest is None or latest.number < number:
        base = latest.corpus_version if latest else None
        dataset.publish(snapshot(number, dataset.corpus.write(base, NONE, iter([documents(doc="".join(texts))]))))
    if recipe is None:
        return
    dataset.pin(f"v-{recipe.key}", recipe)
    dataset.vectors(SIDE, 2).append(embedded(*texts, side=SIDE))
    before = dataset.embedded(recipe.key)
    batch = chunked(doc=list(texts))
    column = batch.schema.get_field_index("content_key")
    batch = batch.set_column(column, rows.CHUNKS.field(column), content_keys(*texts, side=SIDE))
    version = dataset.chunks(recipe.key).write(before[-1].chunks_version if before else None, NONE, iter([batch]))
    dataset.publish_embedded(
        EmbeddedSnapshot(
            version="v7",
            recipe=recipe.key,
            space=SPACE.key,
            snapshot=number,
            sequence=number,
            chunks_version=version,
            documents=1,
            rows=len(texts),
            digest="00",
            changes={"added": 1},
            embedded=1,
            reused=0,
            tokens=1,
            model="m",
            revision="r",
            created_at=NOW,
        )
    )


def stored(dataset: DatasetStore, *texts: str) -> list[str]:
    missing = dataset.vectors(SIDE, 2).missing(content_keys(*texts, side=SIDE)).to_pylist()
    return [text for text in texts if digests.content_key(SIDE, text) not in missing]


def test_embedded_snapshots_are_published_once(dataset: DatasetStore) -> None:
    publish(dataset, 1, "a")
    publish(dataset, 2, "a", "b")

    assert [record.snapshot for record in dataset.embedded(RECIPE.key)] == [1, 2]
    there = dataset.embedded_at(RECIPE.key, 2)
    assert there is not None
    dataset.publish_embedded(there)
    with pytest.raises(Conflict):
        dataset.publish_embedded(replace(there, rows=3))
    assert dataset.embedded_at(RECIPE.key, 3) is None
    assert dataset.embedded("nothing") == []


def test_cleaning_drops_snapshots_that_are_not_kept_and_vectors_that_only_they_had(dataset: DatasetStore) -> None:
    for number, text in enumerate("abcd", start=1):
        publish(dataset, number, text, "common")

    cleaned = dataset.clean(keep=[2], recipes=[RECIPE.key], grace=AT_ONCE)

    assert cleaned.snapshots == (1, 3)
    assert cleaned.vectors == 2
    assert [each.number for each in dataset.snapshots()] == [2, 4]
    assert [each.snapshot for each in dataset.embedded(RECIPE.key)] == [2, 4]
    assert stored(dataset, "a", "b", "c", "d", "common") == ["b", "d", "common"]
    for record in dataset.embedded(RECIPE.key):
        keys = dataset.chunks(RECIPE.key).keys(record.chunks_version)
        assert dataset.vectors(SIDE, 2).reader().take(keys["content_key"]).shape == (2, 2)
    assert dataset.clean(keep=[2], recipes=[RECIPE.key], grace=AT_ONCE).vectors == 0


def test_cleaning_keeps_what_an_embedding_on_the_way_needs(dataset: DatasetStore) -> None:
    publish(dataset, 1, "a")
    publish(dataset, 2, "b")
    publish(dataset, 3, "c", recipe=None)
    dataset.vectors(SIDE, 2).append(embedded("paid for", side=SIDE))

    cleaned = dataset.clean(keep=[], recipes=[RECIPE.key], grace=AT_ONCE)

    assert cleaned.snapshots == (1,)
    assert [each.number for each in dataset.snapshots()] == [2, 3]
    assert stored(dataset, "a", "b", "paid for") == ["a", "b", "paid for"]
    publish(dataset, 3, "paid for")
    assert dataset.clean(keep=[], recipes=[RECIPE.key], grace=AT_ONCE).vectors == 2
    assert stored(dataset, "a", "b", "paid for") == ["paid for"]


def test_cleaning_drops_a_recipe_but_not_the_vectors_that_another_shares(dataset: DatasetStore) -> None:
    publish(dataset, 1, "a", recipe=RECIPE)
    publish(dataset, 1, "a", "b", recipe=OTHER)

    cleaned = dataset.clean(keep=[1], recipes=[RECIPE.key], grace=AT_ONCE)

    assert cleaned.recipes == (OTHER.key,)
    assert dataset.embedded(OTHER.key) == []
    assert stored(dataset, "a", "b") == ["a"]
    assert dataset.pins().keys() == {f"v-{RECIPE.key}", f"v-{OTHER.key}"}
    dataset.clean(keep=[1], recipes=[], grace=AT_ONCE)
    assert stored(dataset, "a", "b") == []


def test_cleaning_leaves_vectors_alone_while_a_recipe_is_unknown(dataset: DatasetStore) -> None:
    publish(dataset, 1, "a")
    publish(dataset, 2, "b")

    dataset.clean(keep=[], recipes=[RECIPE.key, "unheard-of"], grace=AT_ONCE)

    assert stored(dataset, "a", "b") == ["a", "b"]


def test_cleaning_an_empty_dataset_does_nothing(dataset: DatasetStore) -> None:
    assert dataset.clean(keep=[3], recipes=["r"]).snapshots == ()


def test_a_version_stays_for_its_readers_until_its_grace_is_over(dataset: DatasetStore) -> None:
    publish(dataset, 1, "a")
    publish(dataset, 2, "b")
    first = dataset.snapshot(1)
    assert first is not None

    dataset.clean(keep=[], recipes=[RECIPE.key], grace=timedelta(hours=1))

    assert dataset.snapshot(1) is None
    assert content(dataset.corpus, first.corpus_version) == {"doc": "a"}
    dataset.clean(keep=[], recipes=[RECIPE.key], grace=AT_ONCE)
    with pytest.raises(Retryable, match="is not in the store"):
        dataset.corpus.keys(first.corpus_version)


def test_what_a_run_has_written_outlives_any_clean_up_however_long_the_run_waits(tmp_path: Path) -> None:
    since: timedelta | None = timedelta(days=5_000)
    schema = pa.schema([("id", pa.string())])
    store = objects.Objects(str(tmp_path))
    table = Table(store, "rows.lance", schema, Exclusive(tmp_path / "lock", "rows"), lambda: since)
    for row in ("a", "b"):
        table.append(pa.record_batch([pa.array([row])], schema=schema))
    parts = table.write_apart(iter([pa.record_batch([pa.array(["c"])], schema=schema)]), "id")
    weeks_ago = (NOW - timedelta(days=5_000)).timestamp()
    for path in (tmp_path / "rows.lance").rglob("*"):
        os.utime(path, (weeks_ago, weeks_ago))

    assert table.clean(set(), AT_ONCE) == 0

    table.take_in(parts)
    view = table.newest()
    assert view is not None and view.columns(["id"])["id"].to_pylist() == ["a", "b", "c"]
    since = None
    assert table.clean(set(), AT_ONCE) > 0


def test_room_is_made_beside_a_run_whose_files_lance_leaves_alone_so_far(tmp_path: Path) -> None:
    schema, five_days = pa.schema([("id", pa.string())]), timedelta(days=5)
    store = objects.Objects(str(tmp_path))
    table = Table(store, "rows.lance", schema, Exclusive(tmp_path / "lock", "rows"), lambda: five_days)
    parts = table.write_apart(iter([pa.record_batch([pa.array(["c"])], schema=schema)]), "id")
    for row in ("a", "b"):
        table.append(pa.record_batch([pa.array([row])], schema=schema))
    then = (datetime.now(UTC) - five_days).timestamp()
    for path in (tmp_path / "rows.lance").rglob("*"):
        os.utime(path, (then, then))

    assert table.clean(set(), AT_ONCE) > 0

    table.take_in(parts)
    view = table.newest()
    assert view is not None and view.columns(["id"])["id"].to_pylist() == ["a", "b", "c"]


def test_a_reader_of_vectors_outlives_their_compaction(dataset: DatasetStore) -> None:
    texts = [f"{n}" for n in range(40)]
    for text in texts:
        dataset.vectors(SIDE, 2).append(embedded(text, side=SIDE))
    publish(dataset, 1, *texts)
    reader = dataset.vectors(SIDE, 2).reader()

    freed = dataset.clean(keep=[1], recipes=[RECIPE.key], grace=AT_ONCE).bytes

    assert freed > 0
    assert reader.take(content_keys("7", side=SIDE)).tolist() == [[1.0, 55.0]]


class Mortal(objects.Objects):
    """A store whose process dies before an effect."""

    def __init__(self, uri: str, effects: int) -> None:
        super().__init__(uri)
        self._effects = effects

    def create(self, path: str, content: bytes) -> bool:
        self._live()
        return super().create(path, content)

    def delete(self, path: str) -> None:
        self._live()
        super().delete(path)

    def delete_tree(self, path: str) -> None:
        self._live()
        super().delete_tree(path)

    def _live(self) -> None:
        if self._effects == 0:
            raise Killed
        self._effects -= 1


def dying_after(effects: int, root: Path) -> DatasetStore:
    store = Mortal(str(root), effects)
    return DatasetStore(store, Remembered(store), "shop", "papers")


@pytest.mark.parametrize("effects", range(24))
def test_a_clean_up_that_dies_loses_nothing_and_the_next_one_finishes_it(tmp_path: Path, effects: int) -> None:
    dataset = Store(str(tmp_path)).dataset("shop", "papers")
    publish(dataset, 1, "a", recipe=OTHER)
    publish(dataset, 1, "a")
    publish(dataset, 2, "b")
    publish(dataset, 3, "c")

    with contextlib.suppress(Killed):
        dying_after(effects, tmp_path).clean([], [RECIPE.key], AT_ONCE)
    for each in dataset.snapshots():
        assert len(content(dataset.corpus, each.corpus_version)) == 1
    for record in [*dataset.embedded(RECIPE.key), *dataset.embedded(OTHER.key)]:
        keys = dataset.chunks(record.recipe).keys(record.chunks_version)
        assert dataset.vectors(SIDE, 2).reader().take(keys["content_key"]).shape == (1, 2)
    dataset.clean([], [RECIPE.key], AT_ONCE)

    assert [each.number for each in dataset.snapshots()] == [3]
    assert [each.snapshot for each in dataset.embedded(RECIPE.key)] == [3]
    assert stored(dataset, "a", "b", "c") == ["c"]
    assert not (tmp_path / f"datasets/shop/papers/chunks/{OTHER.key}.lance").exists()
    assert not (tmp_path / "datasets/shop/papers/cleaning.json").exists()


@pytest.mark.parametrize("effects", range(3))
def test_a_publication_that_dies_is_done_again(tmp_path: Path, effects: int) -> None:
    with contextlib.suppress(Killed):
        publish(dying_after(effects, tmp_path), 1, "a")
    dataset = Store(str(tmp_path)).dataset("shop", "papers")

    publish(dataset, 1, "a")

    assert [each.number for each in dataset.snapshots()] == [1]
    assert dataset.embedded(RECIPE.key)[0].rows == 1
