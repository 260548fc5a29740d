"""Of all operators one acts: who holds the Lease, until when they believe it, and what stands before every effect."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog
from tests.crash import stories
from tests.crash.stage import CLUSTER_EFFECTS, DATASET_KEY, DEPLOYMENT_KEY, QUERY_SET_KEY, Stage, Tripwire, Wired, world

from pointsman.api.conditions import Reason
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.resources import Lease
from pointsman.controller import lease
from pointsman.controller.reconcile import reconcile
from pointsman.controller.world import World
from pointsman.errors import Conflict, Retryable
from pointsman.store.root import Store
from pointsman.work.fence import Deadline, Fenced

PLACE = ("pointsman", "pointsman-operator")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Ended(BaseException):
    """The process has ended itself."""


def lost(why: str) -> NoReturn:
    raise Ended(why)


@dataclass
class Faulty:
    """A cluster that fails, or has somebody act, just before a Lease is written."""

    inner: MemoryCluster
    fails: bool = False
    before: list[Callable[[], object]] = field(default_factory=list)

    def write_lease(self, *arguments: Any, **more: Any) -> Lease:
        for act in self.before:
            act()
        if self.fails:
            raise Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API could not be reached")
        return self.inner.write_lease(*arguments, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@dataclass
class Process:
    """One operator's part in the election."""

    candidate: lease.Candidate
    deadline: Deadline
    fence: Fenced
    cluster: Faulty


class Machine:
    """What the operators share: a cluster, a store, and time as it passes; not what their wall clocks say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cluster, self.seconds = folder, MemoryCluster(), 1000.0

    def start(self, holder: str, skew: timedelta = timedelta(0), seconds: int = 15) -> Process:
        """Start an operator whose wall clock is wrong by `skew`."""
        cluster, deadline = Faulty(self.cluster), Deadline(clock=lambda: self.seconds)
        candidate = lease.Candidate(
            cluster,  # type: ignore[arg-type]
            Store(str(self.folder)).log(*lease.EPOCHS),
            PLACE,
            holder,
            seconds,
            deadline,
            lambda: self.seconds,
            lambda: NOON + timedelta(seconds=self.seconds) + skew,
        )
        return Process(candidate, deadline, Fenced(deadline, lost), cluster)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def held(self) -> Lease:
        found = self.cluster.lease(*PLACE, within=1.0)
        assert found is not None
        return found

    def waits(self, process: Process, others: Callable[[], object] = lambda: None) -> tuple[lease.Term, float]:
        """Have a process stand by, second by second; return its term and for how long it stood."""
        began = self.seconds

        def sleep(_: float) -> None:
            others()
            self.seconds += 1.0

        return process.candidate.acquire(sleep), self.seconds - began


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_whoever_is_alone_starts_at_once(machine: Machine) -> None:
    one = machine.start("one")

    with structlog.testing.capture_logs() as logs:
        term, waited = machine.waits(one)

    assert (term, waited) == (lease.Term(1, "one", None), 0)
    assert (machine.held().holder, machine.held().transitions, machine.held().seconds) == ("one", 1, 15)
    assert [entry["event"] for entry in logs] == ["lease_taken"]
    one.fence.check()


@pytest.mark.parametrize("skew", [timedelta(0), timedelta(days=-400), timedelta(days=400)], ids=str)
def test_whoever_stands_by_takes_over_once_nothing_has_moved_for_as_long_as_the_lease_lasts(
    machine: Machine, skew: timedelta
) -> None:
    one, two = machine.start("one"), machine.start("two", skew)
    machine.waits(one)
    looked: list[float] = []

    def renewed_for_a_minute() -> None:
        looked.append(machine.seconds)
        if machine.seconds < 1060.0:
            one.candidate.renew(lost)

    with structlog.testing.capture_logs() as logs:
        term, waited = machine.waits(two, renewed_for_a_minute)

    assert (term.epoch, term.holder) == (2, "two")
    assert 60.0 + 15.0 <= waited <= 60.0 + 15.0 + 2.0
    assert term.taken_over == NOON + timedelta(seconds=machine.seconds) + skew
    assert [(entry["event"], entry["holder"]) for entry in logs] == [("lease_awaited", "one"), ("lease_taken", "two")]


def test_a_frozen_operator_is_shut_out_before_another_takes_over_and_ends_without_a_write_once_thawed(
    machine: Machine,
) -> None:
    one, two = machine.start("one"), machine.start("two")
    machine.waits(one)
    left: list[float] = []

    machine.waits(two, lambda: left.append(one.deadline.left))

    assert left[-1] <= 0, "two act at once"
    with pytest.raises(Ended, match="not renewed in time"):
        one.fence.check()
    taken = machine.held()
    with pytest.raises(Ended, match=r"not renewed within 10\.0 s"):
        one.candidate.renew(lost)
    one.candidate.release()
    assert machine.held().version == taken.version
    two.fence.check()


def test_a_frozen_operator_that_is_not_missed_ends_all_the_same(machine: Machine) -> None:
    one = machine.start("one")
    machine.waits(one)
    taken = machine.held()
    machine.seconds += 10.0

    with pytest.raises(Ended):
        one.fence.check()
    with pytest.raises(Ended):
        one.candidate.renew(lost)
    one.candidate.release()
    assert machine.held().version == taken.version


def test_a_lease_that_was_given_back_is_taken_at_once_and_nothing_is_in_flight(machine: Machine) -> None:
    one, two = machine.start("one"), machine.start("two")
    machine.waits(one)
    assert two.candidate.attempt() is None

    one.candidate.release()

    with pytest.raises(Ended):
        one.fence.check()
    assert machine.waits(two) == (lease.Term(2, "two", None), 0)


def test_when_something_was_in_flight_is_remembered_by_those_who_take_over_in_good_order(machine: Machine) -> None:
    one, two, three = (machine.start(name) for name in ("one", "two", "three"))
    machine.waits(one)
    killed = machine.waits(two)[0].taken_over
    assert killed is not None
    two.candidate.release()

    term, waited = machine.waits(three)

    assert (term, waited) == (lease.Term(3, "three", killed), 0)


def test_a_removed_lease_is_put_back_by_its_holder_before_another_dares_to_take_it(machine: Machine) -> None:
    one, two = machine.start("one"), machine.start("two")
    machine.waits(one)
    two.candidate.attempt()
    machine.cluster.delete_lease(*PLACE)
    assert two.candidate.attempt() is None
    assert machine.start("three").candidate.attempt() is None

    machine.seconds += 2.0
    one.candidate.renew(lost)

    assert (machine.held().holder, machine.held().transitions) == ("one", 1)
    assert two.candidate.attempt() is None
    one.fence.check()


def test_a_removed_lease_that_nobody_puts_back_is_taken_under_a_higher_epoch(machine: Machine) -> None:
    for name in ("one", "two"):
        machine.waits(machine.start(name))
    machine.cluster.delete_lease(*PLACE)

    with structlog.testing.capture_logs() as logs:
        term, waited = machine.waits(machine.start("three"))

    assert (term.epoch, waited) == (3, 15.0)
    assert term.taken_over is not None
    assert logs[0]["event"] == "lease_awaited"


@pytest.mark.parametrize("holder", ["", "one"], ids=["free then", "held then"])
def test_a_lease_of_a_restored_cluster_neither_lowers_the_epoch_nor_lets_two_act(machine: Machine, holder: str) -> None:
    one, two, three = (machine.start(name) for name in ("one", "two", "three"))
    machine.waits(one)
    old = machine.held()
    machine.waits(two)
    left: list[float] = []

    machine.cluster.write_lease(*PLACE, dataclasses.replace(old, holder=holder, version=machine.held().version), 1.0)
    term, waited = machine.waits(three, lambda: left.append(two.deadline.left))

    assert (term.epoch, waited) == (3, 15.0)
    assert left[-1] <= 0, "two act at once"
    with pytest.raises(Ended):
        two.fence.check()


def test_the_holder_of_a_lease_that_a_restored_cluster_knows_nothing_of_ends(machine: Machine) -> None:
    one, two = machine.start("one"), machine.start("two")
    machine.waits(one)
    old = machine.held()
    machine.waits(two)
    machine.cluster.write_lease(*PLACE, dataclasses.replace(old, version=machine.held().version), 1.0)

    with pytest.raises(Ended, match="one holds it by now"):
        two.candidate.renew(lost)


def test_a_new_store_goes_on_from_the_epoch_of_the_lease(machine: Machine, tmp_path: Path) -> None:
    machine.waits(machine.start("one"))
    two = machine.start("two")
    machine.waits(two)
    two.candidate.release()
    machine.folder = tmp_path / "new"

    term, waited = machine.waits(machine.start("three"))

    assert (term.epoch, waited) == (3, 0)


def test_an_api_server_that_is_away_for_less_than_the_deadline_is_ridden_out(machine: Machine) -> None:
    one = machine.start("one")
    machine.waits(one)
    one.cluster.fails = True
    for _ in range(4):
        machine.seconds += 2.0
        one.candidate.renew(lost)
        one.fence.check()
    one.cluster.fails = False
    machine.seconds += 1.0
    one.candidate.renew(lost)
    assert one.deadline.left == 10.0

    one.cluster.fails = True
    for _ in range(4):
        machine.seconds += 2.0
        one.candidate.renew(lost)
    machine.seconds += 2.0
    with pytest.raises(Ended, match="not renewed within"):
        one.candidate.renew(lost)


def test_an_answer_that_comes_late_counts_from_when_it_was_asked_for(machine: Machine) -> None:
    one = machine.start("one")
    one.cluster.before.append(lambda: machine.sleep(4.0))
    machine.waits(one)
    assert one.deadline.left == 6.0

    one.candidate.renew(lost)
    assert one.deadline.left == 6.0


def test_a_lease_that_somebody_has_edited_is_renewed_as_it_is_now(machine: Machine) -> None:
    one = machine.start("one")
    machine.waits(one)
    machine.cluster.write_lease(*PLACE, dataclasses.replace(machine.held(), seconds=600), 1.0)

    one.candidate.renew(lost)
    machine.seconds += 2.0
    one.candidate.renew(lost)

    assert one.deadline.left == 10.0
    assert machine.held().seconds == 15


def test_of_two_who_take_it_at_the_same_moment_one_gets_it(machine: Machine) -> None:
    one, two = machine.start("one"), machine.start("two")
    one.cluster.before.append(lambda: two.candidate.attempt())

    assert one.candidate.attempt() is None

    assert machine.held().holder == "two"
    two.fence.check()
    with pytest.raises(Ended):
        one.fence.check()


class Torn:
    """A store that goes away when an epoch is to be written."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read(self) -> None:
        return None

    def write(self, value: object, after: int) -> int:
        raise self._error


def test_a_crash_between_the_lease_and_the_store_leaves_no_epoch_that_is_used_twice(machine: Machine) -> None:
    one = machine.start("one")
    one.candidate._epochs = Torn(Ended())  # type: ignore[assignment]
    with pytest.raises(Ended):
        one.candidate.attempt()
    assert one.deadline.left <= 0

    term, _ = machine.waits(machine.start("two"))

    assert term.epoch == 2
    assert term.taken_over is not None


@pytest.mark.parametrize("error", [Conflict("another"), Retryable(Reason.STORE_UNREACHABLE, "away")], ids=str)
def test_a_store_that_does_not_take_the_epoch_is_asked_again(machine: Machine, error: Exception) -> None:
    one = machine.start("one")
    epochs = one.candidate._epochs
    one.candidate._epochs = Torn(error)  # type: ignore[assignment]

    def mended() -> None:
        one.candidate._epochs = epochs

    term, waited = machine.waits(one, mended)

    assert (term, waited) == (lease.Term(2, "one", None), 1.0)
    one.fence.check()


def test_a_cluster_that_is_away_is_waited_for_and_said_once(machine: Machine) -> None:
    one = machine.start("one")
    one.cluster.fails = True
    looks: list[int] = []

    def back_at_the_third() -> None:
        looks.append(1)
        one.cluster.fails = len(looks) < 3

    with structlog.testing.capture_logs() as logs:
        machine.waits(one, back_at_the_third)

    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("lease_awaited", "warning"),
        ("lease_taken", "info"),
    ]


class Waits(threading.Event):
    """Lets the machine's time pass instead of waiting, and is set after some waits."""

    def __init__(self, machine: Machine, count: int) -> None:
        super().__init__()
        self.machine, self.left, self.waited = machine, count, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited.append(timeout)
        self.machine.seconds += timeout
        self.left -= 1
        return self.left < 0


def test_a_held_lease_is_renewed_every_two_seconds_until_it_is_no_longer_needed(machine: Machine) -> None:
    one, two = machine.start("one"), machine.start("two")
    machine.waits(one)
    stop = Waits(machine, 20)
    one.cluster.before.append(lambda: two.candidate.attempt())

    one.candidate.keep(stop, lost)

    assert stop.waited == [2.0] * 21
    assert machine.held().renewed == NOON + timedelta(seconds=1000.0 + 20 * 2.0)
    assert machine.held().transitions == 1


def test_where_it_cannot_be_renewed_the_process_ends_at_the_deadline_and_not_a_try_later(machine: Machine) -> None:
    one = machine.start("one", seconds=20)
    machine.waits(one)
    one.cluster.fails = True

    with pytest.raises(Ended):
        one.candidate.keep(Waits(machine, 20), lost)

    assert machine.seconds == pytest.approx(1000.0 + 20 * 2 / 3)


@pytest.mark.parametrize("error", [ZeroDivisionError(), Conflict("odd")], ids=["unforeseen", "of ours"])
def test_an_operator_that_cannot_renew_ends_whatever_the_reason(machine: Machine, error: Exception) -> None:
    one = machine.start("one")
    machine.waits(one)

    def fail() -> NoReturn:
        raise error

    one.cluster.before.append(fail)

    with pytest.raises(Ended):
        one.candidate.keep(Waits(machine, 20), lost)


def test_a_deadline_is_seen_by_whoever_inherits_it_and_moved_by_its_owner_alone() -> None:
    owner = Deadline(clock=lambda: 100.0)
    heir = Deadline(owner.descriptor, clock=lambda: 103.0)
    assert heir.left <= 0

    owner.move(110.0)
    assert (owner.left, heir.left) == (10.0, 7.0)
    with pytest.raises(TypeError):
        heir.move(200.0)


def test_a_watched_deadline_ends_the_process_when_it_has_passed_and_not_before(machine: Machine) -> None:
    deadline, moments = Deadline(clock=lambda: machine.seconds), [1025.0, 1017.0]
    deadline.move(1010.0)

    def sleep(seconds: float) -> None:
        machine.seconds += seconds
        if moments:
            deadline.move(moments.pop())

    with pytest.raises(Ended):
        Fenced(deadline, lost).watch(sleep)

    assert machine.seconds == 1025.0


# What stands before every effect.


@dataclass
class Watched:
    """A fence that leaves a mark among the effects, and shuts at one of them."""

    tripwire: Tripwire
    shuts_at: int | None = None

    def check(self) -> None:
        if self.shuts_at is not None and len(self.tripwire.trace) >= self.shuts_at:
            raise Ended
        self.tripwire.trace.append("check")


def watched(stage: Stage) -> tuple[World, Tripwire, Watched]:
    tripwire = Tripwire()
    fence = Watched(tripwire)
    cluster = Wired(stage.cluster, tripwire, (*CLUSTER_EFFECTS, "event"), {})
    return dataclasses.replace(world(stage, tripwire), fence=fence, cluster=cluster), tripwire, fence  # type: ignore[arg-type]


def rounds(stage: Stage, here: World, tripwire: Tripwire, count: int = 12) -> list[list[str]]:
    """Reconcile everything some times; return what each look did, checks included, without its workers' doings."""
    found = []
    for _ in range(count):
        for key in (DATASET_KEY, DEPLOYMENT_KEY, QUERY_SET_KEY):
            here.runner.before_look(key)  # type: ignore[attr-defined]
            start = len(tripwire.trace)
            reconcile(key, here, stage.now())
            found.append(tripwire.trace[start:])
        stage.time += timedelta(seconds=1)
    return found


STORY = (
    stories.declare,
    stories.ask("doc-1"),
    stories.declare_v8,
    stories.serve("v8"),
    stories.change_source,
    stories.retire_at_once,
    stories.drop_alias,
    stories.delete_queries,
    stories.delete_deployment,
    stories.delete_dataset,
)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_right_before_every_effect_of_the_loop_the_fence_is_asked(stage: Stage) -> None:
    here, tripwire, _ = watched(stage)
    looks = []
    for step in STORY:
        step(stage)
        looks += rounds(stage, here, tripwire)

    effects = [name for look in looks for name in look if name != "check"]
    assert {"MemoryCluster.write_status", "MemoryCluster.event", "MemoryCluster.patch", "Memory.drop"} <= set(effects)
    unasked = [
        (before, name)
        for look in looks
        for before, name in zip(["", *look], look, strict=False)
        if name != "check" and before != "check"
    ]
    assert unasked == []


def test_behind_a_shut_fence_nothing_happens_any_more(stage: Stage) -> None:
    here, tripwire, fence = watched(stage)
    stories.declare(stage)
    rounds(stage, here, tripwire, count=2)
    stories.declare_v8(stage)
    stories.serve("v8")(stage)
    fence.shuts_at = len(tripwire.trace)

    for key in (DATASET_KEY, DEPLOYMENT_KEY):
        with pytest.raises(Ended):
            reconcile(key, here, stage.now())

    assert len(tripwire.trace) == fence.shuts_at
    assert not here.runner.is_waiting  # type: ignore[attr-defined]
