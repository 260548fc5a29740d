import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pointsman.api.conditions import Reason
from pointsman.api.dataset import Surprises
from pointsman.core import chunking
from pointsman.core.recipes import Recipe, Space
from pointsman.errors import Terminal
from pointsman.sources.memory import MemorySource
from pointsman.store.dataset import DatasetStore
from pointsman.store.records import Snapshot
from pointsman.store.root import Store
from pointsman.work import progress
from pointsman.work.refresh import Refreshed, refresh

RECIPE = Recipe(Space("wordllama", "m", "r", 4), "{text}", ("kind",), chunking.chunker(8, 0))
AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetStore:
    return Store(str(tmp_path)).dataset("default", "papers")


def documents(*numbers: int, text: str = "x") -> list[dict[str, Any]]:
    return [{"id": str(number), "text": f"{text} {number}"} for number in numbers]


def run(dataset: DatasetStore, rows: list[dict[str, Any]], **surprises: Any) -> Refreshed:
    return refresh(dataset, MemorySource(rows), Surprises(**surprises), lambda: AT, progress.nowhere, recipes=[RECIPE])


def held(dataset: DatasetStore, rows: list[dict[str, Any]], **surprises: Any) -> str:
    with pytest.raises(Terminal) as error:
        run(dataset, rows, **surprises)
    assert error.value.reason is Reason.SURPRISE_HELD
    return error.value.message


def content(dataset: DatasetStore) -> dict[str, tuple[str, int]]:
    latest = dataset.latest()
    assert latest is not None
    found = (row for batch in dataset.corpus.read(latest.corpus_version) for row in batch.to_pylist())
    return {row["id"]: (row["fields"], row["sequence"]) for row in found}


def test_the_first_refresh_makes_snapshot_one(dataset: DatasetStore) -> None:
    done = run(dataset, documents(1, 2))
    assert done.is_new
    assert dataclasses.replace(done.snapshot, digest="", corpus_version=0) == Snapshot(
        number=1,
        sequence=1,
        corpus_version=0,
        documents=2,
        digest="",
        added=2,
        deleted=0,
        edited=0,
        unchanged=0,
        created_at=AT,
    )
    assert content(dataset) == {"1": ('{"text":"x 1"}', 1), "2": ('{"text":"x 2"}', 1)}


def test_unchanged_content_writes_nothing(dataset: DatasetStore, tmp_path: Path) -> None:
    run(dataset, documents(1, 2, 3))
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())
    done = run(dataset, documents(3, 1, 2))
    assert not done.is_new
    assert done.snapshot.number == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_change_is_counted_by_kind_and_touches_only_what_changed(dataset: DatasetStore) -> None:
    run(dataset, documents(*range(10)))
    done = run(dataset, [*documents(*range(1, 9)), *documents(9, text="y"), *documents(10)])
    snapshot = done.snapshot
    assert (snapshot.number, snapshot.sequence, snapshot.documents) == (2, 2, 10)
    assert (snapshot.added, snapshot.deleted, snapshot.edited, snapshot.unchanged) == (1, 1, 1, 8)
    assert content(dataset) == {
        **{str(n): (f'{{"text":"x {n}"}}', 1) for n in range(1, 9)},
        "9": ('{"text":"y 9"}', 2),
        "10": ('{"text":"x 10"}', 2),
    }


def test_the_digest_depends_on_the_content_alone(dataset: DatasetStore, tmp_path: Path) -> None:
    run(dataset, documents(1, 2, 3, 4, 5))
    run(dataset, [*documents(2, 3, 4, 5), *documents(1, text="y")])
    direct = Store(str(tmp_path)).dataset("default", "other")
    done = run(direct, [*documents(5, 4, 3, 2), *documents(1, text="y")])
    latest = dataset.latest()
    assert latest is not None
    assert latest.digest == done.snapshot.digest


def test_duplicate_ids_refuse_the_snapshot_with_counts_and_positions(dataset: DatasetStore) -> None:
    run(dataset, documents(1, 2))
    with pytest.raises(Terminal) as error:
        run(dataset, documents(1, 2, 7, 1, 7))
    assert error.value.reason is Reason.SOURCE_INVALID
    assert error.value.message == (
        "2 of 5 rows are not documents: 2 with the id of an earlier row (row 4, 5); the last snapshot stays current"
    )
    assert [snapshot.number for snapshot in dataset.snapshots()] == [1]


def test_a_row_that_a_version_cannot_render_refuses_the_snapshot(dataset: DatasetStore) -> None:
    rows = [*documents(1), {"id": "2", "text": " "}, {"id": "3", "text": ["private"]}, {"id": "4"}]
    with pytest.raises(Terminal) as error:
        run(dataset, rows)
    assert error.value.message == (
        "3 of 4 rows are not documents: 2 without text (row 2, 4), 1 with a `text` that is not text (row 3); "
        "the last snapshot stays current"
    )
    assert dataset.latest() is None


def test_a_refusal_of_the_source_leaves_nothing_behind(dataset: DatasetStore) -> None:
    run(dataset, documents(1))
    with pytest.raises(Terminal):
        run(dataset, [*documents(1, 2), {"text": "x"}])
    assert [snapshot.number for snapshot in dataset.snapshots()] == [1]


def test_more_deletions_than_allowed_are_held_with_the_numbers(dataset: DatasetStore) -> None:
    run(dataset, documents(*range(10)))
    assert held(dataset, documents(0, 1)) == (
        "8 of 10 documents would be deleted (80 %), surprises.deletedShareAbove is 0.2; snapshot 1 stays current; "
        "raise the limit to let it through"
    )
    assert [snapshot.number for snapshot in dataset.snapshots()] == [1]
    assert run(dataset, documents(0, 1), deleted_share_above="0.8").snapshot.deleted == 8


def test_an_empty_source_is_a_deletion_of_everything(dataset: DatasetStore) -> None:
    run(dataset, documents(1, 2))
    assert held(dataset, []).startswith("2 of 2 documents would be deleted (100 %)")
    assert run(dataset, [], deleted_share_above="1").snapshot.documents == 0


def test_an_empty_source_may_begin_and_fill_up(dataset: DatasetStore) -> None:
    assert run(dataset, []).snapshot.documents == 0
    assert run(dataset, documents(1)).snapshot.added == 1


def test_everything_updated_at_once_is_held(dataset: DatasetStore) -> None:
    run(dataset, documents(*range(12)))
    edited = [*documents(*range(10), text="y"), *documents(100, 101, 102)]
    assert held(dataset, edited) == (
        "all 10 documents that were there have changed at once, surprises.everythingUpdated is Hold; "
        "snapshot 1 stays current; set it to Allow to let it through"
    )
    assert run(dataset, edited, everything_updated="Allow").snapshot.edited == 10


@pytest.mark.parametrize("kept", [1, 9])
def test_few_documents_or_all_but_one_may_change_at_once(dataset: DatasetStore, kept: int) -> None:
    # Nine documents are too few to surprise; of more, one that stays as it was is enough.
    run(dataset, documents(*range(10)) if kept == 1 else documents(*range(9)))
    edited = [*documents(*range(9), text="y"), *(documents(9) if kept == 1 else [])]
    assert run(dataset, edited).snapshot.edited == 9


def test_progress_is_told_against_the_last_snapshots_size(dataset: DatasetStore) -> None:
    run(dataset, documents(1, 2, 3))
    told: list[tuple[int, int]] = []
    source = MemorySource(documents(1, 2, 3, 4))
    refresh(dataset, source, Surprises(), lambda: AT, lambda done, total: told.append((done, total)))
    assert told == [(4, 3)]


class Interrupted(BaseException):
    pass


class Torn:
    """A dataset whose store dies before or after the n-th call that writes."""

    def __init__(self, dataset: DatasetStore, at: int, after: bool) -> None:
        self._dataset, self._left, self._after = dataset, at, after

    def __getattr__(self, name: str) -> Any:
        if name == "corpus":
            return _TornPart(self._dataset.corpus, self)
        return self.watched(name, getattr(self._dataset, name))

    def watched(self, name: str, call: Any) -> Any:
        if name not in {"write", "publish"}:
            return call

        def torn(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Interrupted
            result = call(*arguments)
            if self._left == 0:
                raise Interrupted
            return result

        return torn


class _TornPart:
    def __init__(self, part: Any, whole: Torn) -> None:
        self._part, self._whole = part, whole

    def __getattr__(self, name: str) -> Any:
        return self._whole.watched(name, getattr(self._part, name))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2])
def test_a_refresh_that_dies_anywhere_ends_the_same_when_repeated(tmp_path: Path, at: int, after: bool) -> None:
    def opened(name: str) -> DatasetStore:
        return Store(str(tmp_path)).dataset("default", name)

    rows = [*documents(2, 3, 4, 5, 6), *documents(1, text="y")]
    for name in ("whole", "torn"):
        run(opened(name), documents(1, 2, 3, 4, 5))
    with pytest.raises(Interrupted):
        run(Torn(opened("torn"), at, after), rows)  # type: ignore[arg-type]
    run(opened("torn"), rows)
    run(opened("whole"), rows)
    torn, whole = opened("torn").latest(), opened("whole").latest()
    assert torn is not None
    assert whole is not None
    assert (torn.number, torn.sequence, torn.digest, torn.added, torn.edited) == (
        whole.number,
        whole.sequence,
        whole.digest,
        whole.added,
        whole.edited,
    )
    assert content(opened("torn")) == content(opened("whole"))


def test_a_source_that_fails_halfway_publishes_nothing(dataset: DatasetStore) -> None:
    class Failing(MemorySource):
        def read(self) -> Iterator[Any]:
            yield from super().read()
            raise Interrupted

    with pytest.raises(Interrupted):
        refresh(dataset, Failing(documents(1)), Surprises(), lambda: AT, progress.nowhere)
    assert dataset.latest() is None
