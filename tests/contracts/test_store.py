"""The store on a local disk: records, logs, pins and the lock."""

import fcntl
import re
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.servers import s3

from pointsman.api.conditions import Reason
from pointsman.core import recipes, rows
from pointsman.errors import Conflict, PointsmanError, Retryable, Terminal
from pointsman.store import objects, records
from pointsman.store.dataset import DatasetStore
from pointsman.store.log import KEPT, RecordLog
from pointsman.store.records import Snapshot
from pointsman.store.remembered import Remembered
from pointsman.store.root import Store

NOW = datetime(2030, 1, 2, tzinfo=UTC)
SNAPSHOT = Snapshot(
    number=1,
    sequence=1,
    corpus_version=1,
    documents=0,
    digest="00",
    added=0,
    deleted=0,
    edited=0,
    unchanged=0,
    created_at=NOW,
)
RECIPE = recipes.Recipe(
    space=recipes.Space("wordllama", "m", "r", 4),
    template="{text}",
    metadata_fields=("author",),
    chunker=recipes.Chunker("words", "1", 256, 0),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_local_store_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    Store((tmp_path / "new").as_uri()).probe()

    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert not list((tmp_path / "new").rglob("*.json"))


def test_a_store_that_lets_a_second_put_through_is_unsafe(tmp_path: Path) -> None:
    class Careless(objects.Objects):
        def create(self, path: str, content: bytes) -> bool:
            self.delete(path)
            return super().create(path, content)

    with pytest.raises(Terminal, match="second put-if-absent through; wanted it refused") as failure:
        Careless(str(tmp_path)).probe()

    assert failure.value.reason is Reason.STORE_UNSAFE


def test_a_root_that_cannot_be_made_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Retryable) as failure:
        Store(str(tmp_path / "file" / "store"))

    assert failure.value.reason is Reason.STORE_UNREACHABLE
    assert "Not a directory" in failure.value.message


def test_a_store_that_goes_away_is_unreachable_and_comes_back(tmp_path: Path) -> None:
    dataset = Store(str(tmp_path / "store")).dataset("shop", "papers")
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").touch()

    with pytest.raises(Retryable) as failure:
        dataset.pin("v7", RECIPE)

    assert failure.value.reason is Reason.STORE_UNREACHABLE
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
    assert dataset.pin("v7", RECIPE) == RECIPE


@pytest.mark.parametrize("uri", ["gs://bucket/prefix", "http://host/path"])
def test_other_kinds_of_store_are_refused(uri: str) -> None:
    with pytest.raises(Terminal, match="wanted a directory, file:// or s3://"):
        Store(uri)


UNKNOWN = {
    "colour": "wanted those of Amazon S3, such as aws_region, or allow_http",
    "aws_colour": "wanted those of Amazon S3, such as aws_region, or allow_http",
    # On this one the library would end the process.
    "aws_allow_http": "write allow_http",
}


@pytest.mark.parametrize(("option", "mend"), UNKNOWN.items())
def test_an_option_that_no_object_store_knows_is_refused(option: str, mend: str) -> None:
    with pytest.raises(Terminal, match=f"unknown store options {option}; {mend}"):
        Store("s3://bucket/prefix", {option: "true", "allow_http": "true", "aws_region": "us-east-1"})


def test_a_server_of_plain_http_is_refused_unless_that_is_meant() -> None:
    options = {"aws_endpoint": "http://127.0.0.1:1", "aws_region": "us-east-1"}
    with pytest.raises(Terminal, match=r"aws_endpoint of the store is plain http.*allow_http"):
        Store("s3://bucket/prefix", options)

    Store("s3://bucket/prefix", {**options, "allow_http": "true"})


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", ".hidden", "a b"])
def test_a_name_never_leads_elsewhere(store: Store, name: str) -> None:
    with pytest.raises(Terminal, match="cannot name anything in the store"):
        store.dataset("shop", name)
    with pytest.raises(Terminal):
        store.log("deployments", name)


def test_a_pinned_name_means_one_recipe_for_ever(store: Store) -> None:
    dataset = store.dataset("shop", "papers")
    other = replace(RECIPE, template="{title}")

    assert dataset.pins() == {}
    assert dataset.pin("v7", RECIPE) == RECIPE
    assert dataset.pin("v7", other) == RECIPE
    assert store.dataset("shop", "papers").pins() == {"v7": RECIPE}


def test_probes_are_pinned_once(store: Store) -> None:
    dataset = store.dataset("shop", "papers")
    first, second = np.eye(3, dtype=np.float32), np.ones((3, 3), dtype=np.float32)

    assert dataset.probes("space") is None
    assert np.array_equal(dataset.pin_probes("space", first), first)
    assert np.array_equal(dataset.pin_probes("space", second), first)
    assert np.array_equal(dataset.probes("space"), first)


def test_a_snapshot_is_published_once(store: Store) -> None:
    dataset = store.dataset("shop", "papers")
    assert dataset.latest() is None
    version = dataset.corpus.write(None, pa.array([], pa.string()), iter([]))

    dataset.publish(replace(SNAPSHOT, corpus_version=version))
    dataset.publish(replace(SNAPSHOT, corpus_version=version))

    with pytest.raises(Conflict):
        dataset.publish(replace(SNAPSHOT, corpus_version=version, documents=3))
    assert dataset.snapshots() == [SNAPSHOT]
    assert dataset.latest() == dataset.snapshot(1) == SNAPSHOT
    assert dataset.snapshot(2) is None


def test_a_snapshot_without_its_rows_is_not_published(store: Store) -> None:
    dataset = store.dataset("shop", "papers")
    dataset.corpus.write(None, pa.array([], pa.string()), iter([]))

    with pytest.raises(PointsmanError):
        dataset.publish(replace(SNAPSHOT, corpus_version=9))

    assert dataset.latest() is None


def test_a_record_of_a_later_release_is_refused_and_of_its_later_fields_nothing_is_lost() -> None:
    content = records.encoded(SNAPSHOT)

    assert records.decoded(Snapshot, content, "a.json") == SNAPSHOT
    assert records.decoded(Snapshot, content.replace(b'"format":1', b'"colour":1,"format":1'), "a.json") == SNAPSHOT
    with pytest.raises(Terminal, match=r"a.json in the store has format 2, this release reads 1"):
        records.decoded(Snapshot, content.replace(b'"format":1', b'"format":2'), "a.json")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format":1}', b'{"format":1,"created_at":"soon"}'])
@pytest.mark.parametrize("folder", ["snapshots", "versions/r1"])
def test_a_damaged_record_is_told_with_its_path(tmp_path: Path, folder: str, content: bytes) -> None:
    dataset = Store(str(tmp_path)).dataset("shop", "papers")
    where = tmp_path / "datasets/shop/papers" / folder / "000000000001.json"
    where.parent.mkdir(parents=True)
    where.write_bytes(content)

    with pytest.raises(Terminal) as failure:
        dataset.snapshots() if folder == "snapshots" else dataset.embedded("r1")

    assert failure.value.reason is Reason.STORE_UNREACHABLE
    assert failure.value.message.startswith(f"datasets/shop/papers/{folder}/000000000001.json in the store ")
    where.unlink()
    assert dataset.snapshots() == dataset.embedded("r1") == []


def test_a_damaged_pin_and_a_damaged_fact_are_told_with_their_paths(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for where in ("datasets/shop/papers/pins/v7.json", "facts/000000000001.json"):
        (tmp_path / where).parent.mkdir(parents=True)
        (tmp_path / where).touch()

    with pytest.raises(Terminal, match=r"datasets/shop/papers/pins/v7.json in the store is damaged"):
        store.dataset("shop", "papers").pins()
    with pytest.raises(
        Terminal, match=r"facts/000000000001.json in the store is damaged or of a later release; restore"
    ):
        store.log("facts").read()


def test_files_that_are_no_records_are_passed_over(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    dataset = store.dataset("shop", "papers")
    version = dataset.corpus.write(None, pa.array([], pa.string()), iter([]))
    dataset.publish(replace(SNAPSHOT, corpus_version=version))
    dataset.pin("v7", RECIPE)
    store.log("facts").write({"serving": "v7"}, after=0)
    for folder in ("datasets/shop/papers/snapshots", "datasets/shop/papers/pins", "facts"):
        for name in (".DS_Store", "000000000001.json~", "notes.txt"):
            (tmp_path / folder / name).write_text("stray")
    (tmp_path / "datasets/shop/papers/snapshots/2.json").write_text("stray")
    (tmp_path / "facts/latest.json").write_text("stray")

    assert dataset.snapshots() == [SNAPSHOT]
    assert dataset.latest() == SNAPSHOT
    assert dataset.pins() == {"v7": RECIPE}
    newest = store.log("facts").read()
    assert newest is not None
    assert newest.value == {"serving": "v7"}


class Counted(objects.Objects):
    """Counts what is read."""

    reads = 0

    def get(self, path: str) -> bytes | None:
        self.reads += 1
        return super().get(path)


def numbers(remembered: Remembered) -> dict[str, int]:
    return remembered.below("n", re.compile(r"[0-9]\.json"), lambda where, content: int(content))


def test_a_record_is_read_once_while_its_object_is_there(tmp_path: Path) -> None:
    store = Counted(str(tmp_path))
    remembered = Remembered(store)
    for number in range(3):
        store.create(f"n/{number}.json", b"%d" % number)

    assert numbers(remembered) == numbers(remembered) == {"0.json": 0, "1.json": 1, "2.json": 2}
    assert store.reads == 3
    store.create("n/3.json", b"3")
    store.delete("n/0.json")
    assert numbers(remembered) == {"1.json": 1, "2.json": 2, "3.json": 3}
    assert store.reads == 4


def test_a_look_that_finds_nothing_new_asks_an_object_store_once() -> None:
    with s3.start_s3() as server:
        server.objects |= {f"bucket/prefix/n/{number}.json": b"%d" % number for number in range(9)}
        options = {
            "aws_access_key_id": s3.ACCESS_KEY,
            "aws_secret_access_key": "a-secret",
            "aws_endpoint": server.endpoint,
            "aws_region": "eu-north-1",
            "allow_http": "true",
        }
        store = objects.Objects("s3://bucket/prefix", options)
        remembered = Remembered(store)
        first = numbers(remembered)
        asked = server.asked

        assert numbers(remembered) == first == {f"{number}.json": number for number in range(9)}
        assert server.asked == asked + 1


def test_a_second_shelf_asks_an_object_store_for_the_listing_alone_and_for_what_is_new() -> None:
    with s3.start_s3() as server:
        options = {
            "aws_access_key_id": s3.ACCESS_KEY,
            "aws_secret_access_key": "a-secret",
            "aws_endpoint": server.endpoint,
            "aws_region": "eu-north-1",
            "allow_http": "true",
        }
        below = "bucket/prefix/deployments/shop/papers"
        server.objects |= {f"{below}/{name}/000000000001.json": b'{"n": 1}' for name in ("facts", "answers")}
        store = Store("s3://bucket/prefix", options)

        def read() -> tuple[list[int], int]:
            before = server.asked
            shelf = store.shelf("deployments", "shop", "papers")
            found = [shelf.read(name) for name in ("facts", "answers")]
            return [each.value["n"] for each in found if each is not None], server.asked - before

        assert read() == ([1, 1], 3)
        assert read() == ([1, 1], 1)
        server.objects[f"{below}/facts/000000000002.json"] = b'{"n": 2}'
        assert read() == ([2, 1], 2)


def test_a_record_that_was_removed_and_made_again_is_read_again(tmp_path: Path) -> None:
    store = Counted(str(tmp_path))
    remembered = Remembered(store)
    store.create("n/1.json", b"1")
    numbers(remembered)
    another = objects.Objects(str(tmp_path))
    another.delete("n/1.json")
    another.create("n/1.json", b"7")

    assert numbers(remembered) == {"1.json": 7}


def test_no_more_records_are_remembered_than_agreed(tmp_path: Path) -> None:
    store = Counted(str(tmp_path))
    remembered = Remembered(store, most=2)
    for number in range(4):
        store.create(f"n/{number}.json", b"%d" % number)

    for _ in range(2):
        assert len(numbers(remembered)) == 4

    assert store.reads == 6


def test_many_threads_share_what_is_remembered(tmp_path: Path) -> None:
    store = Counted(str(tmp_path))
    remembered = Remembered(store, most=5)
    for number in range(10):
        store.create(f"n/{number}.json", b"%d" % number)
    found: list[dict[str, int]] = []

    threads = [threading.Thread(target=lambda: found.append(numbers(remembered))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [{f"{number}.json": number for number in range(10)}] * 8


def test_a_log_is_read_written_and_forgotten(store: Store) -> None:
    log = store.log("deployments", "shop", "papers", "facts")

    assert log.read() is None
    assert log.write({"serving": "v7"}, after=0) == 1
    assert log.write({"serving": "v8"}, after=1) == 2

    newest = log.read()
    assert newest is not None
    assert (newest.revision, newest.value) == (2, {"serving": "v8"})
    assert store.logs("deployments") == ["shop"]
    assert store.logs("deployments", "shop") == ["papers"]
    log.forget()
    log.forget()
    assert log.read() is None
    assert store.logs("deployments", "shop") == []


def test_a_shelf_has_the_newest_record_of_every_log_below_a_path_as_of_one_moment(store: Store) -> None:
    for serving in range(25):
        store.log("deployments", "shop", "papers", "facts").write({"serving": serving}, after=serving)
    store.log("deployments", "shop", "papers", "indexes", "pm_1").write({"rows": 3}, after=0)
    store.log("deployments", "shop", "papers-of-another", "facts").write({"serving": "else"}, after=0)
    store.log("querysets", "shop", "asked").write({"queries": 2}, after=0)

    shelf = store.shelf("deployments", "shop", "papers")
    store.log("deployments", "shop", "papers", "indexes", "pm_2").write({"rows": 4}, after=0)

    facts, index, asked = (
        shelf.read("facts"),
        shelf.read("indexes/pm_1"),
        store.shelf("querysets", "shop", "asked").read(""),
    )
    assert facts is not None and (facts.revision, facts.value) == (25, {"serving": 24})
    assert facts == store.log("deployments", "shop", "papers", "facts").read()
    assert index is not None and (index.revision, index.value) == (1, {"rows": 3})
    assert asked is not None and asked.value == {"queries": 2}
    assert shelf.read("indexes/pm_2") is None, "it was written after the shelf was looked at"
    assert shelf.read("answers/canaries") is None


def test_a_record_that_has_gone_since_a_shelf_was_looked_at_is_no_absence(store: Store) -> None:
    log = store.log("deployments", "shop", "papers", "facts")
    log.write({"serving": "v7"}, after=0)
    shelf = store.shelf("deployments", "shop", "papers")
    log.forget()

    with pytest.raises(Conflict, match="has gone since it was listed"):
        shelf.read("facts")


def test_the_second_writer_of_a_revision_loses(store: Store) -> None:
    log = store.log("facts")
    log.write({"serving": "v7"}, after=0)

    with pytest.raises(Conflict, match="revision 1 of facts was written by another"):
        log.write({"serving": "v8"}, after=0)

    assert log.write({"serving": "v7"}, after=0) == 1
    with pytest.raises(Conflict):
        log.write({"serving": "v7"}, after=5)


def test_a_log_keeps_its_newest_records(store: Store, tmp_path: Path) -> None:
    log = store.log("facts")

    for revision in range(25):
        log.write({"n": revision}, after=revision)

    names = sorted(file.name for file in (tmp_path / "store" / "facts").iterdir())
    assert names == [f"{revision:012d}.json" for revision in range(6, 26)]


def test_a_writer_that_slept_does_not_win_a_revision_that_was_pruned(tmp_path: Path) -> None:
    class Sleepy(objects.Objects):
        is_asleep = True

        def create(self, path: str, content: bytes) -> bool:
            if self.is_asleep:
                self.is_asleep = False
                others = RecordLog(self, "facts")
                for revision in range(1, KEPT + 5):
                    others.write({"n": revision}, after=revision)
            return super().create(path, content)

    RecordLog(objects.Objects(str(tmp_path)), "facts").write({"n": 0}, after=0)
    log = RecordLog(Sleepy(str(tmp_path)), "facts")

    with pytest.raises(Conflict):
        log.write({"n": "late"}, after=1)

    newest = log.read()
    assert newest is not None
    assert newest.value == {"n": KEPT + 4}
    assert all(b"late" not in file.read_bytes() for file in (tmp_path / "facts").iterdir())


def test_many_writers_at_once_lose_no_write(tmp_path: Path) -> None:
    def add_ten() -> None:
        log = Store(str(tmp_path)).log("facts")
        done = 0
        while done < 10:
            newest = log.read()
            value, revision = (newest.value["n"], newest.revision) if newest else (0, 0)
            try:
                # The writer's name keeps two equal counts from being one another's retry.
                log.write({"n": value + 1, "by": threading.get_ident(), "turn": done}, after=revision)
                done += 1
            except Conflict:
                continue

    writers = [threading.Thread(target=add_ten) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    newest = Store(str(tmp_path)).log("facts").read()
    assert newest is not None
    assert (newest.revision, newest.value["n"]) == (40, 40)


def test_only_one_holds_a_dataset(store: Store) -> None:
    mine, other = store.dataset("shop", "papers"), store.dataset("shop", "papers")

    with mine.exclusive(), mine.exclusive():
        with pytest.raises(Conflict, match="another process is writing dataset shop/papers"), other.exclusive():
            pass
        with pytest.raises(Conflict):
            other.corpus.write(None, pa.array([], pa.string()), iter([]))
        with store.dataset("shop", "other").exclusive():
            pass

    with other.exclusive():
        pass


def test_another_threads_write_counts_as_the_holders(store: Store) -> None:
    dataset = store.dataset("shop", "papers")
    versions: list[int] = []

    with dataset.exclusive():
        thread = threading.Thread(
            target=lambda: versions.append(dataset.corpus.write(None, pa.array([], pa.string()), iter([])))
        )
        thread.start()
        thread.join()

    assert versions == [1]


def test_the_lock_is_one_that_other_processes_see(store: Store, tmp_path: Path) -> None:
    with (
        store.dataset("shop", "papers").exclusive(),
        (tmp_path / "store/locks/shop/papers").open("ab") as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_dropped_dataset_leaves_nothing_but_its_lock(store: Store, tmp_path: Path) -> None:
    dataset = store.dataset("shop", "papers")
    version = dataset.corpus.write(None, pa.array([], pa.string()), iter([]))
    dataset.publish(replace(SNAPSHOT, corpus_version=version))
    dataset.pin("v7", RECIPE)

    dataset.drop()
    dataset.drop()

    assert dataset.snapshots() == []
    assert [
        str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store").rglob("*") if path.is_file()
    ] == ["locks/shop/papers"]
    assert dataset.corpus.write(None, pa.array([], pa.string()), iter([])) == 1


@pytest.mark.parametrize("number", range(5))
def test_a_drop_that_is_killed_anywhere_leaves_a_pin_while_it_leaves_anything(tmp_path: Path, number: int) -> None:
    class Killed(objects.Objects):
        calls = 0

        def delete_tree(self, path: str) -> None:
            self.calls += 1
            if self.calls > number:
                raise KeyboardInterrupt
            super().delete_tree(path)

    root = str(tmp_path / "store")
    killed = Killed(root)
    dataset = Store(root).dataset("shop", "papers")
    dataset.pin("v7", RECIPE)
    dataset.pin_probes("side", np.ones((1, 4), np.float32))
    version = dataset.corpus.write(None, pa.array([], pa.string()), iter([]))
    dataset.publish(replace(SNAPSHOT, corpus_version=version))

    with pytest.raises(KeyboardInterrupt):
        DatasetStore(killed, Remembered(killed), "shop", "papers").drop()

    assert list(dataset.pins()) == ["v7"]
    dataset.drop()
    assert dataset.pins() == {} and Store(root).logs("datasets") == []


def test_rows_have_the_schema_that_they_were_written_with(store: Store) -> None:
    dataset = store.dataset("shop", "papers")
    batch = pa.RecordBatch.from_pylist([{"id": "a", "fields": "{}", "digest": bytes(16), "sequence": 1}], rows.CORPUS)
    version = dataset.corpus.write(None, pa.array([], pa.string()), iter([batch]))

    assert [found.schema for found in dataset.corpus.read(version)] == [rows.CORPUS]
    assert [found.schema for found in dataset.corpus.read(version, ["a"])] == [rows.CORPUS]
