"""What the operator makes of its worker processes, played by small real ones that speak the protocol."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psutil
import pytest
from tests.unit.waiting import wait_until

from pointsman import errors, ports
from pointsman.api.conditions import Reason
from pointsman.backends import milvus, pgvector, qdrant
from pointsman.backends.memory import Memory
from pointsman.plan.tasks import Clean, Key
from pointsman.work import processes, wire
from pointsman.work.fence import Deadline, clock
from pointsman.work.jobs import Doors, Job, Stage

JOB = Job(Clean(Key("EmbeddingDataset", "team", "papers"), (), ()), "/nowhere")
HOUR = timedelta(hours=1)
ANSWERS = """
import json, os, sys, time
for line in sys.stdin:
    {body}
"""


def pool(body: str, longest: timedelta = HOUR, idle: float = 60.0) -> processes.Processes:
    return processes.Processes(longest, (sys.executable, "-c", ANSWERS.format(body=body)), idle)


def carried_out(workers: processes.Processes, is_cancelled: threading.Event | None = None) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    workers.carry_out(JOB, lambda done, total: seen.append((done, total)), is_cancelled or threading.Event())
    return seen


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def test_progress_comes_through_and_a_worker_is_used_again() -> None:
    workers = pool(
        """print(json.dumps({"done": 3, "total": os.getpid()}), flush=True); print('{"ended": true}', flush=True)"""
    )
    first, second = carried_out(workers), carried_out(workers)
    assert first[0][0] == 3
    assert first == second
    workers.close()


@pytest.mark.parametrize(
    ("is_terminal", "kind"), [(True, errors.Terminal), (False, errors.Retryable)], ids=["terminal", "retryable"]
)
def test_an_answered_error_is_raised_as_it_was_and_the_worker_lives(
    is_terminal: bool, kind: type[errors.PointsmanError]
) -> None:
    answer = {"reason": "ModelRateLimited", "message": "later", "terminal": is_terminal, "retry_after": 40.0}
    workers = pool(f"print({orjson.dumps(answer).decode()!r}, flush=True)")
    with pytest.raises(kind) as found:
        carried_out(workers)
    assert (found.value.reason, found.value.message) == (Reason.MODEL_RATE_LIMITED, "later")
    assert found.value.retry_after == (None if is_terminal else 40.0)
    before = children()
    with pytest.raises(kind):
        carried_out(workers)
    assert children() == before
    workers.close()


def test_a_worker_that_dies_is_named_and_the_next_job_has_another() -> None:
    workers = pool("sys.exit(7)")
    for _ in range(2):
        with pytest.raises(errors.Retryable, match=r"without an answer \(exit code 7\)"):
            carried_out(workers)
    workers.close()


def test_a_job_that_takes_too_long_is_stopped_with_its_worker() -> None:
    workers = pool("time.sleep(600)", longest=timedelta(seconds=0.3))
    with pytest.raises(errors.Retryable, match="POINTSMAN_WORK_TIMEOUT"):
        carried_out(workers)
    workers.close()


def test_a_graph_is_given_longer_than_the_database_gives_itself_to_build_it() -> None:
    # Three times as long as any other work may take here.
    workers = pool("""time.sleep(0.9); print('{"ended": true}', flush=True)""", longest=timedelta(seconds=0.3))
    sealed = dataclasses.replace(JOB, stage=Stage.SEAL)
    workers.carry_out(sealed, lambda done, total: None, threading.Event())
    workers.close()

    assert processes.LONGEST_SEAL.total_seconds() > ports.BUILD_SECONDS
    assert {qdrant.BUILD_SECONDS, milvus.BUILD_SECONDS, pgvector.BUILD_SECONDS} == {ports.BUILD_SECONDS}


def test_a_cancelled_job_ends_its_worker_though_it_goes_on_reporting() -> None:
    workers = pool("""[print('{"done": 1, "total": 2}', flush=True) or time.sleep(0.01) for _ in range(100_000)]""")
    is_cancelled = threading.Event()
    threading.Timer(0.3, is_cancelled.set).start()
    with pytest.raises(errors.Retryable, match="cancelled"):
        carried_out(workers, is_cancelled)
    workers.close()


def test_a_worker_that_talks_nonsense_is_ended() -> None:
    workers = pool("print('libraries print things', flush=True); time.sleep(600)")
    with pytest.raises(errors.Retryable, match="not of the protocol"):
        carried_out(workers)
    workers.close()


def test_an_idle_worker_is_ended_though_no_other_job_comes() -> None:
    before = children()
    workers = pool("""print('{"ended": true}', flush=True)""", idle=0.1)
    carried_out(workers)
    wait_until(lambda: children() <= before)


def test_nothing_is_started_once_the_operator_stops() -> None:
    workers = pool("""print('{"ended": true}', flush=True)""")
    workers.close()
    with pytest.raises(errors.Retryable, match="stopping"):
        carried_out(workers)


@contextlib.contextmanager
def worker(deadline: Deadline) -> Iterator[subprocess.Popen[bytes]]:
    """Start the real program as a frozen operator leaves it behind: its input stays open and says nothing."""
    command = [sys.executable, "-m", "pointsman.cli.main", "worker", f"--deadline={deadline.descriptor}"]
    inherited = [deadline.descriptor]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=inherited) as process:
        yield process
        process.kill()


def test_a_worker_ends_by_itself_when_the_deadline_of_its_operator_passes() -> None:
    deadline = Deadline()
    deadline.move(clock() + 1.0)
    with worker(deadline) as process:
        assert process.wait(30) == processes.ORPHANED


def test_a_worker_that_was_frozen_too_begins_nothing_after_the_deadline() -> None:
    deadline = Deadline()
    deadline.move(clock() + 600.0)
    with worker(deadline) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"{}\n")
        process.stdin.flush()
        assert b"KeyError" in process.stdout.readline(), "it began what it could not read"

        deadline.move(clock() - 1.0)
        process.stdin.write(b"{}\n")
        process.stdin.flush()

        assert process.wait(30) == processes.ORPHANED
        assert process.stdout.read() == b""


def test_a_worker_sees_the_deadline_of_its_operator() -> None:
    deadline = Deadline()
    deadline.move(12345.5)
    body = """
    import mmap, struct
    seen = mmap.mmap(int(sys.argv[1].partition("=")[2]), 8, access=mmap.ACCESS_READ)
    print(json.dumps({"done": struct.unpack_from("d", seen)[0], "total": 1}), flush=True)
    print('{"ended": true}', flush=True)
"""
    workers = processes.Processes(HOUR, (sys.executable, "-c", ANSWERS.format(body=body)), deadline=deadline)
    assert carried_out(workers) == [(12345.5, 1)]
    deadline.move(23456.5)
    assert carried_out(workers) == [(23456.5, 1)]
    workers.close()


def test_all_workers_are_killed_where_they_stand() -> None:
    workers, before = pool("time.sleep(600)"), children()

    def carry_out() -> None:
        with pytest.raises(errors.Retryable, match="without an answer"):
            carried_out(workers)

    lost = threading.Thread(target=carry_out)
    lost.start()
    wait_until(lambda: children() > before)
    workers.kill()
    lost.join()
    assert children() == before


class Ended(BaseException):
    """The process has ended itself."""


class Shut:
    """A fence that lets some through."""

    def __init__(self, open_for: int) -> None:
        self.open_for = open_for

    def check(self) -> None:
        self.open_for -= 1
        if self.open_for < 0:
            raise Ended


def test_nothing_is_asked_of_a_database_but_through_the_fence() -> None:
    memory = Memory()
    guarded = processes.Guarded.of(memory, Shut(open_for=1))
    assert guarded.names("pm_") == []
    with pytest.raises(Ended):
        guarded.names("pm_")


def served(store: Callable[..., Any]) -> list[dict[str, Any]]:
    doors = Doors(store=store, source=_unused, embedder=_unused, backend=_unused)
    stdin, stdout = io.BytesIO(orjson.dumps(wire.to_json(JOB)) + b"\n"), io.BytesIO()
    # The input stays open until the job is done, as the operator's does.
    feed = _Feed(stdin, stdout)
    processes.serve(feed, stdout, doors, lambda: datetime.now(UTC))
    return [orjson.loads(line) for line in stdout.getvalue().splitlines()]


def test_what_nobody_foresaw_is_answered_by_type_and_place_without_its_words() -> None:
    def store(*_: Any) -> Any:
        raise KeyError("the text of a document")

    (answer,) = served(store)
    assert answer["reason"] == "InternalError"
    assert answer["message"].startswith("KeyError at store:")
    assert "document" not in answer["message"]


def test_an_error_of_ours_is_answered_whole() -> None:
    def store(*_: Any) -> Any:
        raise errors.Retryable(Reason.STORE_UNREACHABLE, "the store is away", 12.0)

    expected = {"reason": "StoreUnreachable", "message": "the store is away", "terminal": False, "retry_after": 12.0}
    assert served(store) == [expected]


class _Feed(io.RawIOBase):
    """Gives a line, then waits for an answer before it ends."""

    def __init__(self, lines: io.BytesIO, answers: io.BytesIO) -> None:
        super().__init__()
        self._lines, self._answers = lines, answers

    def __iter__(self) -> Iterator[bytes]:  # type: ignore[override]
        yield from self._lines
        wait_until(lambda: b"\n" in self._answers.getvalue())


def _unused(*_: Any) -> Any:
    raise AssertionError("not needed")
