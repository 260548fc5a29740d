"""An index that several processes load, killed wherever they may be, is the one that a single process builds."""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.test_indexing import AT, MARKER, NAME, RECIPE, publish

from pointsman.api.conditions import Reason
from pointsman.backends.memory import Memory
from pointsman.core import keys
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.plan.indexes import IN_FLIGHT
from pointsman.plan.observed import Begun
from pointsman.ports import IndexSpec
from pointsman.store.dataset import DatasetStore
from pointsman.store.objects import Objects
from pointsman.store.remembered import Remembered
from pointsman.store.root import Store
from pointsman.store.writers import Writers
from pointsman.work import load, loading, permits, progress
from pointsman.work.indexing import Index, Pace, build, finish
from pointsman.work.patience import PAUSES, Patience


class Killed(BaseException):
    """The process was killed: nothing in the product catches it."""


class Flaky(Memory):
    """The database in memory, that tells of every batch before it takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[int] = []
        self.before: Callable[[], None] = lambda: None

    def load(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        return super().load(name, self._told(batches))

    def _told(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.before()
            self.loaded.append(batch.num_rows)
            yield batch


class Room:
    """An index that is to be loaded, with all that is needed for it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder))
        self.dataset: DatasetStore = self.store.dataset("shop", "papers")
        self.backend, self.now, self.slept = Flaky(), AT, list[float]()
        self.runs: dict[int, str] = {}

    def index(self, name: str = NAME, backend: Memory | None = None) -> Index:
        spec = IndexSpec(name, 4, 16, 128, MARKER)
        log = self.store.log("deployments", "shop", "papers", "indexes", name)
        return Index(spec, backend or self.backend, self.dataset, RECIPE, log, lambda: self.now, progress.nowhere)

    def deal(self, shards: int = 3, snapshot: int = 1) -> int:
        self.runs[snapshot] = loading.begin(self.index(), snapshot, shards).id
        return self.dataset.load(NAME, snapshot).deal(shards).number

    def run(self, attempt: int, shard: int, snapshot: int = 1) -> None:
        target = load.Target(NAME, MARKER, self.backend, Pace(None))
        share = load.Share(snapshot, self.runs[snapshot], attempt, shard, Patience(self.slept.append))
        load.load_shard(self.dataset, RECIPE, target, share)

    def load_all(self, shards: int = 3, snapshot: int = 1) -> None:
        attempt = self.deal(shards, snapshot)
        with ThreadPoolExecutor(shards) as pods:
            list(pods.map(lambda shard: self.run(attempt, shard, snapshot), range(shards)))

    def publish(self, snapshot: int = 1) -> None:
        self.dataset.load(NAME, snapshot).writers.end(lambda: self.now)
        assert loading.settles_at(self.dataset, NAME, self.now) is None
        self.backend.seal(NAME)
        finish(self.index(), snapshot, Pace(None))
        loading.forget(self.dataset, NAME)

    def content(self, name: str = NAME, backend: Memory | None = None) -> list[tuple[Any, ...]]:
        backend = backend or self.backend
        found = [row for batch in backend.scan(name) for row in batch.to_pylist()]
        ids, vectors = backend.fetch(name, [row["point_id"] for row in found])
        by_id = dict(zip(ids, vectors.tolist(), strict=True))
        return sorted((*row.values(), by_id[row["point_id"]]) for row in found)

    def alone(self, snapshot: int = 1) -> list[tuple[Any, ...]]:
        """Return what an index holds that one process has built."""
        other = Memory()
        build(self.index("pm_alone_1", other), snapshot, Pace(None))
        return self.content("pm_alone_1", other)


def texts(count: int) -> dict[str, str]:
    # Every third text stands in two documents, so that a vector is shared.
    return {f"doc-{n}": f"text {n - n % 3 // 2}" for n in range(count)}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    found = Room(tmp_path)
    publish(found.dataset, 1, texts(300))
    return found


def fails(kind: type[PointsmanError], call: Callable[[], object]) -> PointsmanError:
    with pytest.raises(kind) as found:
        call()
    return found.value


def test_shards_load_the_index_that_one_process_builds(room: Room, tmp_path: Path) -> None:
    room.load_all()
    room.publish()

    assert room.content() == room.alone()
    record, _ = room.index().record()
    wanted, _ = room.index("pm_alone_1").record()
    assert dataclasses.replace(record, verified_at=None, checked_at=None) == dataclasses.replace(
        wanted, verified_at=None, checked_at=None
    )
    assert (record.rows, record.digest) == (300, "digest-1")
    assert sum(room.backend.loaded) == 300
    assert [path for path in tmp_path.rglob("loads/**/*") if path.is_file()] == []


def test_shards_that_are_killed_at_random_load_the_same(room: Room) -> None:
    chance = random.Random(5)

    def die() -> None:
        if chance.random() < 0.2:
            raise Killed

    room.backend.before = die
    attempt, kills = room.deal(), 0
    for shard in (0, 1, 2):
        while True:
            try:
                room.run(attempt, shard)
                break
            except Killed:
                kills += 1
    room.now += loading.SETTLES
    room.dataset.load(NAME, 1).writers.end(lambda: room.now - loading.SETTLES)
    room.publish()

    assert kills > 3
    assert room.content() == room.alone()


def test_a_share_that_is_begun_again_passes_over_what_is_finished(room: Room) -> None:
    attempt = room.deal(shards=1)
    room.backend.before = lambda: die_at(3, room.backend)
    with pytest.raises(Killed):
        room.run(attempt, 0)
    finished = room.dataset.load(NAME, 1).finished()
    assert finished
    room.backend.before = lambda: None
    before = sum(room.backend.loaded)
    room.run(attempt, 0)

    assert sum(room.backend.loaded) - before == 300 - sum(portion.rows for portion in finished.values())


def die_at(batches: int, backend: Flaky) -> None:
    if len(backend.loaded) >= batches:
        raise Killed


def test_what_is_left_is_dealt_out_anew_and_a_later_attempt_ends_the_one_before(room: Room) -> None:
    first, ledger = room.deal(shards=2), room.dataset.load(NAME, 1)
    room.run(first, 0)
    ledger.close(first)
    second = ledger.deal(3)

    assert len(second.left) == ledger.run().portions - len(ledger.finished())  # type: ignore[union-attr]
    assert fails(Retryable, lambda: room.run(first, 1)).reason is Reason.WORK_LOST
    for shard in range(second.shards):
        room.run(second.number, shard)
    room.publish()
    assert room.content() == room.alone()


def test_a_pod_writes_nothing_once_its_run_was_ended(room: Room) -> None:
    attempt = room.deal(shards=1)
    room.dataset.load(NAME, 1).writers.end(lambda: room.now)

    assert fails(Retryable, lambda: room.run(attempt, 0)).reason is Reason.WORK_LOST
    assert room.backend.count(NAME) == 0
    assert room.dataset.load(NAME, 1).writers.names() == []


def test_a_pod_of_an_earlier_snapshot_writes_nothing_once_another_is_loaded(room: Room) -> None:
    attempt = room.deal(shards=1)
    publish(room.dataset, 2, {"doc-7": "other", "doc-999": "new"})
    room.load_all(shards=1, snapshot=2)

    assert fails(Retryable, lambda: room.run(attempt, 0)).reason is Reason.WORK_LOST
    assert room.backend.count(NAME) == 2


def test_what_an_earlier_snapshot_has_left_is_taken_away_in_the_end(room: Room) -> None:
    room.run(room.deal(shards=2), 0)
    assert room.backend.count(NAME) > 100
    publish(room.dataset, 2, {"doc-0": "other", "doc-999": "new"})
    room.load_all(shards=1, snapshot=2)
    room.publish(snapshot=2)

    assert room.content() == room.alone(snapshot=2)
    assert room.index().record()[0].rows == 2


def test_an_index_that_is_gone_is_loaded_from_the_beginning(room: Room) -> None:
    attempt = room.deal(shards=2)
    room.run(attempt, 0)
    room.backend.drop(NAME)
    assert fails(Retryable, lambda: room.run(attempt, 1)).reason is Reason.INDEX_LOST

    before = room.dataset.load(NAME, 1).run()
    room.load_all(shards=2)
    after = room.dataset.load(NAME, 1).run()
    room.publish()

    assert before is not None and after is not None and before.id != after.id
    assert room.content() == room.alone()


def test_an_index_of_somebody_else_is_not_written_to(room: Room) -> None:
    attempt = room.deal(shards=1)
    room.backend.drop(NAME)
    room.backend.create(IndexSpec(NAME, 4, 16, 128, dataclasses.replace(MARKER, owner="shop/another")))

    assert fails(Terminal, lambda: room.run(attempt, 0)).reason is Reason.COLLECTION_FOREIGN
    assert room.backend.count(NAME) == 0


def test_a_database_that_is_restarted_costs_no_pod(room: Room) -> None:
    attempt, failures = room.deal(shards=1), 5

    def restart() -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise Retryable(Reason.BACKEND_UNREACHABLE, "it is being restarted")

    room.backend.before = restart
    room.run(attempt, 0)

    assert room.slept == list(PAUSES[:5])
    assert len(room.dataset.load(NAME, 1).finished()) == room.dataset.load(NAME, 1).run().portions  # type: ignore[union-attr]


def test_a_database_that_stays_away_ends_the_pod_after_two_minutes(room: Room) -> None:
    def away() -> None:
        raise Retryable(Reason.BACKEND_UNREACHABLE, "nobody is there")

    room.backend.before = away
    attempt = room.deal(shards=1)

    assert fails(Retryable, lambda: room.run(attempt, 0)).reason is Reason.BACKEND_UNREACHABLE
    assert room.slept == list(PAUSES)
    assert 100 <= sum(PAUSES) <= 150


def test_what_waiting_does_not_mend_is_not_waited_for(room: Room) -> None:
    def refuse() -> None:
        raise Terminal(Reason.BACKEND_REJECTED, "refused")

    room.backend.before = refuse
    attempt = room.deal(shards=1)

    assert fails(Terminal, lambda: room.run(attempt, 0)).reason is Reason.BACKEND_REJECTED
    assert room.slept == []


# Who may still write.


def test_after_pods_that_ended_in_good_order_nobody_waits(room: Room) -> None:
    room.load_all()
    room.dataset.load(NAME, 1).writers.end(lambda: room.now)

    assert loading.settles_at(room.dataset, NAME, room.now) is None


@pytest.mark.parametrize("ends", [Killed, Retryable], ids=["killed", "a call without an answer"])
def test_after_a_pod_that_ended_in_the_middle_of_a_call_it_is_waited_for_what_it_sent(
    room: Room, ends: type[BaseException]
) -> None:
    def end() -> None:
        raise Killed if ends is Killed else Retryable(Reason.INTERNAL_ERROR, "who knows")

    room.backend.before = end
    attempt, ledger = room.deal(shards=1), room.dataset.load(NAME, 1)
    with pytest.raises(ends):
        room.run(attempt, 0)
    ledger.writers.end(lambda: room.now)

    until = room.now + timedelta(seconds=permits.SECONDS) + IN_FLIGHT
    assert loading.settles_at(room.dataset, NAME, room.now) == until
    assert loading.settles_at(room.dataset, NAME, until - timedelta(seconds=1)) == until
    assert loading.settles_at(room.dataset, NAME, until) is None
    # The moment is that of the first who said so.
    ledger.writers.end(lambda: until)
    assert loading.settles_at(room.dataset, NAME, until) is None


def test_who_looks_while_the_end_is_being_written_is_waited_for_from_when_it_can_be_seen(room: Room) -> None:
    room.deal()
    writers = room.dataset.load(NAME, 1).writers
    writers.enter(1, 0)

    def later() -> datetime:
        # It can be seen by now.
        assert writers.is_over()
        return room.now + timedelta(seconds=30)

    writers.end(later)

    assert loading.settles_at(room.dataset, NAME, room.now) == room.now + timedelta(seconds=30) + loading.SETTLES


def test_an_end_that_another_machine_wrote_down_is_waited_for_from_when_this_one_knows_of_it(
    room: Room, tmp_path: Path
) -> None:
    room.deal()
    ledger = room.dataset.load(NAME, 1)
    ledger.writers.enter(1, 0)
    (names,) = tmp_path.rglob("loads/**/writers")
    folder = str(names.parent.relative_to(tmp_path))
    # Its clock is three minutes behind ours: by ours, the wait for it is over.
    Writers(Objects(str(tmp_path)), folder, "another").end(lambda: room.now - timedelta(minutes=3))
    assert ledger.writers.is_over()

    error = fails(Retryable, lambda: loading.stop(room.index()))

    assert error.retry_after == loading.SETTLES.total_seconds()
    assert loading.settles_at(room.dataset, NAME, room.now) == room.now + loading.SETTLES
    room.now += loading.SETTLES
    loading.stop(room.index())


def test_an_end_whose_moment_was_never_written_down_is_as_late_as_can_be(room: Room) -> None:
    room.deal()
    writers = room.dataset.load(NAME, 1).writers
    writers.enter(1, 0)

    def killed() -> datetime:
        raise Killed

    with pytest.raises(Killed):
        writers.end(killed)

    later = room.now + timedelta(hours=1)
    assert loading.settles_at(room.dataset, NAME, later) == later + loading.SETTLES
    writers.end(lambda: later)
    assert loading.settles_at(room.dataset, NAME, later + loading.SETTLES) is None


def test_one_process_takes_over_from_pods_once_they_write_no_more(room: Room) -> None:
    attempt = room.deal(shards=1)
    room.backend.before = lambda: die_at(2, room.backend)
    with pytest.raises(Killed):
        room.run(attempt, 0)
    room.backend.before = lambda: None

    error = fails(Retryable, lambda: loading.stop(room.index()))

    assert (error.reason, error.retry_after) == (Reason.JOB_FAILED, loading.SETTLES.total_seconds())
    assert f"have sent to {NAME} may arrive until" in error.message
    assert fails(Retryable, lambda: room.run(attempt, 0)).reason is Reason.WORK_LOST
    room.now += loading.SETTLES
    loading.stop(room.index())
    build(room.index(), 1, Pace(None))
    assert room.content() == room.alone()


def test_pods_that_are_wanted_again_begin_a_run_of_their_own(room: Room) -> None:
    attempt, ledger = room.deal(shards=2), room.dataset.load(NAME, 1)
    room.run(attempt, 0)
    loading.stop(room.index())
    first = ledger.run()

    room.load_all(shards=2)
    room.publish()

    assert first is not None
    assert room.content() == room.alone()


def test_a_run_of_which_all_is_loaded_is_not_begun_anew(room: Room) -> None:
    room.load_all()
    run, ledger = room.dataset.load(NAME, 1).run(), room.dataset.load(NAME, 1)
    ledger.writers.end(lambda: room.now)

    assert loading.begin(room.index(), 1, shards=9) == run
    assert ledger.attempt().number == 1  # type: ignore[union-attr]


def test_a_run_that_stopped_is_gone_on_with_at_its_snapshot(room: Room) -> None:
    assert loading.begun(room.dataset, NAME) is None
    attempt = room.deal(shards=2)
    # Of which nothing is finished, nothing is lost.
    assert loading.begun(room.dataset, NAME) is None
    room.run(attempt, 0)
    publish(room.dataset, 2, {"doc-0": "other"})
    assert loading.begun(room.dataset, NAME) == Begun(1)
    assert loading.begun(room.dataset, "another") is None

    room.run(attempt, 1)
    # All is loaded, and what failed comes after the end.
    room.dataset.load(NAME, 1).writers.end(lambda: room.now)
    assert loading.begun(room.dataset, NAME) == Begun(1)
    room.publish()
    assert loading.begun(room.dataset, NAME) is None


def test_a_run_that_somebody_ended_is_not_gone_on_with(room: Room) -> None:
    room.run(room.deal(shards=2), 0)
    loading.stop(room.index())

    assert loading.begun(room.dataset, NAME) is None


def test_a_run_that_another_took_the_place_of_is_not_gone_on_with(room: Room) -> None:
    room.load_all()
    publish(room.dataset, 2, {"doc-0": "other"})
    assert loading.begun(room.dataset, NAME) == Begun(1)
    room.deal(snapshot=2)

    assert loading.begun(room.dataset, NAME) is None


def test_attempts_that_finish_nothing_are_counted_where_it_lies_in_what_is_loaded(room: Room) -> None:
    attempt, ledger = room.deal(shards=2), room.dataset.load(NAME, 1)
    room.run(attempt, 0)

    def fail(*reasons: Reason) -> int:
        number = ledger.deal(2).number
        for reason in reasons:
            ledger.fail(number, 0, Retryable(reason, "said why"))
        found = loading.begun(room.dataset, NAME)
        assert found is not None
        return found.fruitless

    refused, away = Reason.BACKEND_REJECTED, Reason.BACKEND_UNREACHABLE
    assert [fail(refused), fail(refused, away), fail(away), fail(refused)] == [1, 2, 0, 1]
    assert [fail(refused) for _ in range(6)][-2:] == [6, 6]
    room.run(ledger.deal(20).number, 0)
    assert fail() == 0


@pytest.mark.parametrize(("points", "shards", "portions"), [(1, 4, 1), (300, 3, 12), (300, 1000, 19)])
def test_how_an_index_is_divided(tmp_path: Path, points: int, shards: int, portions: int) -> None:
    room = Room(tmp_path)
    publish(room.dataset, 1, texts(points))

    run = loading.begin(room.index(), 1, shards)

    assert (run.documents, run.portions, run.is_whole) == (points, portions, True)


# Permits.


class Hand:
    """A clock that is moved by hand, and a ledger that says what it is told to."""

    def __init__(self) -> None:
        self.time, self.is_on, self.is_away, self.lost = 0.0, True, False, list[str]()
        self.looks = 0
        self.permit = permits.Permit(self.look, lambda: self.time, self.lost.append)

    def look(self) -> bool:
        self.looks += 1
        if self.is_away:
            raise Retryable(Reason.STORE_UNREACHABLE, "away")
        return self.is_on


def test_a_permit_holds_for_a_while_after_a_look_and_is_asked_for_anew_before_its_end() -> None:
    hand = Hand()
    for moment in (0.0, 10.0, 29.0):
        hand.time = moment
        hand.permit.check()
    assert hand.looks == 1
    hand.time = 31.0
    hand.permit.check()
    assert hand.looks == 2
    hand.is_on, hand.time = False, 65.0
    assert fails(Retryable, hand.permit.check).reason is Reason.WORK_LOST


def test_a_ledger_that_does_not_answer_gives_no_permit() -> None:
    hand = Hand()
    hand.permit.check()
    hand.is_away, hand.time = True, 25.0
    hand.permit.check()
    hand.time = 35.0
    assert fails(Retryable, hand.permit.check).reason is Reason.STORE_UNREACHABLE


def test_a_process_that_sleeps_past_its_permit_while_it_sends_is_ended() -> None:
    hand = Hand()
    with hand.permit.sending():
        hand.time = permits.SECONDS - 0.1
        hand.permit.watch()
        assert hand.lost == []
        hand.time = permits.SECONDS
        hand.permit.watch()
    assert len(hand.lost) == 1
    # While nothing is sent there is nothing to be late for.
    hand.permit.watch()
    assert len(hand.lost) == 1


def test_a_run_that_is_over_is_noticed_by_whoever_watches_beside() -> None:
    hand = Hand()
    hand.permit.check()
    hand.is_on = False
    hand.permit.renew()
    assert fails(Retryable, hand.permit.check).reason is Reason.WORK_LOST


def test_what_was_sent_without_an_answer_leaves_a_permit_unclean_for_ever() -> None:
    hand = Hand()
    with hand.permit.sending():
        assert not hand.permit.is_clean
    assert hand.permit.is_clean
    with pytest.raises(Killed), hand.permit.sending():
        raise Killed
    with hand.permit.sending():
        pass
    assert not hand.permit.is_clean


def test_threads_beside_end_with_what_they_watch_over() -> None:
    hand, before = Hand(), threading.active_count()
    with hand.permit.kept():
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


# What a share reads.


def test_a_reader_of_some_keys_finds_what_a_reader_of_all_finds(room: Room) -> None:
    table, space = room.dataset.chunks(RECIPE.key), RECIPE.space
    version = room.dataset.embedded_at(RECIPE.key, 1).chunks_version  # type: ignore[union-attr]
    wanted = keys.array(table.keys(version, ["content_key"])["content_key"]).slice(40, 25)
    vectors = room.dataset.vectors(space.document_side, space.dimensions)

    found = vectors.reader(keys.KeyIndex(wanted)).take(wanted)

    assert found.tolist() == vectors.reader().take(wanted).tolist()
    other = pa.array([bytes(16)], wanted.type)
    assert fails(Retryable, lambda: vectors.reader(keys.KeyIndex(other)).take(other)).reason is Reason.STORE_UNREACHABLE
    assert fails(Retryable, lambda: vectors.reader(keys.KeyIndex(wanted)).take(other)).message.startswith("1 of 1")


def test_an_index_that_a_pod_may_still_write_to_is_verified_in_doubt(room: Room) -> None:
    room.load_all()
    room.publish()
    assert room.index().record()[0].doubted_at is None
    assert not loading.is_doubted(room.dataset, NAME)

    room.deal()
    room.dataset.load(NAME, 1).writers.enter(1, 0)
    assert loading.is_doubted(room.dataset, NAME)
    finish(room.index(), 1, Pace(None), is_doubted=True)
    assert room.index().record()[0].doubted_at == room.now


def test_a_run_that_is_being_forgotten_is_under_way_at_no_moment(room: Room, tmp_path: Path) -> None:
    """A pod that wakes in the middle would write to an index that serves by now."""
    attempt, ledger, seen = room.deal(), room.dataset.load(NAME, 1), list[bool]()
    ledger.writers.end(lambda: room.now)

    class Telling(Objects):
        def delete_tree(self, path: str) -> None:
            super().delete_tree(path)
            seen.append(ledger.is_under_way(room.runs[1], attempt))

    told = Telling(str(tmp_path))
    loading.forget(DatasetStore(told, Remembered(told), "shop", "papers"), NAME)

    assert seen
    assert not any(seen)


def test_a_clean_up_forgets_nobody_who_is_waited_for(room: Room) -> None:
    room.deal()
    room.dataset.load(NAME, 1).writers.enter(1, 0)

    loading.clean(room.dataset, (2,), lambda: room.now)
    assert loading.settles_at(room.dataset, NAME, room.now) == room.now + loading.SETTLES

    loading.clean(room.dataset, (2,), lambda: room.now + loading.SETTLES)
    assert room.dataset.loads() == []


def test_a_look_that_took_long_takes_nothing_from_a_later_one() -> None:
    now, is_slow, lost = 0.0, False, list[str]()

    def look() -> bool:
        nonlocal now, is_slow
        if is_slow:
            is_slow, now = False, now + 35.0
            # Another thread looks meanwhile.
            permit.renew()
        return True

    permit = permits.Permit(look, lambda: now, lost.append)  # type: ignore[arg-type]
    with permit.sending():
        is_slow = True
        permit.renew()
        now = 60.0
        permit.watch()

    assert lost == []


def test_a_name_that_does_not_resolve_for_a_moment_costs_no_pod() -> None:
    slept, answers = list[float](), [Retryable(Reason.HOST_NOT_FOUND, "db.example.com does not resolve"), None]

    def opened() -> str:
        if (error := answers.pop(0)) is not None:
            raise error
        return "opened"

    assert Patience(slept.append).through(opened) == "opened"
    assert slept == [PAUSES[0]]
