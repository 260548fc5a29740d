"""What a runner remembers of work, in which lane it runs, and how long it backs off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.waiting import wait_until

from pointsman import errors
from pointsman.api import dataset as dataset_api
from pointsman.api.conditions import Reason
from pointsman.plan.tasks import (
    AskCanaries,
    Build,
    Check,
    Clean,
    Embed,
    Evaluate,
    Failure,
    Follow,
    Key,
    Phase,
    ReadQueries,
    Refresh,
    Side,
    Task,
    Wait,
    Work,
)
from pointsman.work import progress, runners
from pointsman.work.jobs import Job
from pointsman.work.progress import Report, Waits

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DATASET = Key("EmbeddingDataset", "team", "papers")
DEPLOYMENT = Key("IndexDeployment", "team", "papers")
REFRESH = Refresh(DATASET, "now")


def on_index(kind: type[Build | Check | Follow], index: str) -> Task:
    return kind(DEPLOYMENT, "papers", index, "v1", "recipe", 1)


class Scripted:
    """Carries jobs out as told; each waits until it is let go."""

    def __init__(self) -> None:
        self.begun: list[Task] = []
        self.gates: dict[str, threading.Event] = {}
        self.act: Callable[[Job, Report], None] = lambda job, report: None

    def hold(self, subject: str) -> threading.Event:
        return self.gates.setdefault(subject, threading.Event())

    def carry_out(
        self, job: Job, report: Report, is_cancelled: threading.Event, waits: Waits = progress.silently
    ) -> None:
        self.begun.append(job.task)
        self.act(job, report)
        gate = self.gates.get(job.task.subject)
        while gate is not None and not gate.wait(0.01):
            if is_cancelled.is_set():
                raise errors.Retryable(Reason.WORK_LOST, "cancelled")

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()


@pytest.fixture
def carrier() -> Scripted:
    return Scripted()


@pytest.fixture
def woken() -> list[Key]:
    return []


@pytest.fixture
def runner(carrier: Scripted, woken: list[Key]) -> Iterator[runners.PooledRunner]:
    made = runners.PooledRunner(carrier, lambda: NOW, woken.append, workers=1)
    yield made
    made.close()


def test_work_is_seen_running_then_done_and_its_owner_is_woken(
    runner: runners.PooledRunner, carrier: Scripted, woken: list[Key]
) -> None:
    gate = carrier.hold(REFRESH.subject)
    runner.start(Job(REFRESH, ""), generation=3)
    runner.start(Job(REFRESH, ""), generation=3)
    assert runner.work(DATASET) == (Work(REFRESH, 3, Phase.RUNNING),)
    gate.set()
    wait_until(lambda: woken == [DATASET])
    assert runner.work(DATASET) == (Work(REFRESH, 3, Phase.DONE, finished_at=NOW),)
    assert carrier.begun == [REFRESH]


def test_what_failed_is_still_true_while_it_is_tried_again_until_the_spec_is_edited(
    runner: runners.PooledRunner, carrier: Scripted, woken: list[Key]
) -> None:
    def fail(job: Job, report: Report) -> None:
        raise errors.Retryable(Reason.SOURCE_UNREACHABLE, "no answer")

    carrier.act = fail
    runner.start(Job(REFRESH, ""), generation=1)
    wait_until(lambda: woken == [DATASET])
    failure = Failure(Reason.SOURCE_UNREACHABLE, "no answer", False, 1, NOW + timedelta(seconds=2))
    assert runner.work(DATASET) == (Work(REFRESH, 1, Phase.FAILED, failure=failure),)
    carrier.act = lambda job, report: None
    gate = carrier.hold(REFRESH.subject)
    runner.start(Job(REFRESH, ""), generation=1)
    assert runner.work(DATASET)[0].failure == failure
    gate.set()
    wait_until(lambda: runner.work(DATASET)[0].phase is Phase.DONE)
    assert runner.work(DATASET)[0].failure is None


def test_what_nobody_foresaw_is_a_failure_and_not_work_that_runs_for_ever(
    runner: runners.PooledRunner, carrier: Scripted
) -> None:
    def fail(job: Job, report: Report) -> None:
        raise KeyError("a text")

    carrier.act = fail
    runner.start(Job(REFRESH, ""), generation=1)
    wait_until(lambda: runner.work(DATASET)[0].phase is Phase.FAILED)
    failure = runner.work(DATASET)[0].failure
    assert failure is not None
    assert (failure.reason, failure.message) == (Reason.INTERNAL_ERROR, "KeyError in the runner")


def test_cancelled_work_is_forgotten_once_it_has_stopped(
    runner: runners.PooledRunner, carrier: Scripted, woken: list[Key]
) -> None:
    carrier.hold(REFRESH.subject)
    runner.start(Job(REFRESH, ""), generation=1)
    wait_until(lambda: carrier.begun == [REFRESH])
    runner.cancel(DATASET)
    wait_until(lambda: woken == [DATASET])
    assert runner.work(DATASET) == ()


def test_work_that_still_queues_is_over_as_soon_as_it_is_cancelled(
    runner: runners.PooledRunner, carrier: Scripted, woken: list[Key]
) -> None:
    first, second = on_index(Build, "one"), on_index(Build, "two")
    carrier.hold(first.subject)
    runner.start(Job(first, ""), generation=1)
    runner.start(Job(second, ""), generation=1)
    wait_until(lambda: carrier.begun == [first])
    runner.cancel(DEPLOYMENT, second.subject)
    assert [work.task for work in runner.work(DEPLOYMENT)] == [first]
    assert woken == [DEPLOYMENT]
    runner.cancel(DEPLOYMENT)
    wait_until(lambda: runner.work(DEPLOYMENT) == ())
    assert carrier.begun == [first]


def test_no_kind_of_work_waits_for_another(runner: runners.PooledRunner, carrier: Scripted) -> None:
    tasks: list[Task] = [
        Embed(DATASET, "v1", "recipe", 1),
        on_index(Build, "one"),
        on_index(Check, "two"),
        on_index(Follow, "three"),
        on_index(Follow, "four"),
        ReadQueries(Key("QuerySet", "team", "questions"), "digest"),
        Evaluate(DEPLOYMENT, "papers", "evaluation", "questions", "nDCG@10", Side("one", "v1", "recipe"), None, 1),
        AskCanaries(DEPLOYMENT, "papers", "canaries", 5, Side("one", "v1", "recipe"), None, 1),
    ]
    for task in tasks:
        carrier.hold(task.subject)
    waiting: list[Task] = [Clean(DATASET, (), ()), on_index(Build, "five"), on_index(Check, "six")]
    for task in [*tasks, *waiting]:
        runner.start(Job(task, ""), generation=1)
    wait_until(lambda: len(carrier.begun) == len(tasks))
    assert set(carrier.begun) == set(tasks)


def in_pods(namespace: str, name: str) -> Job:
    spec = {
        "source": {"files": {"uri": "file:///corpus", "format": "jsonl"}, "idField": "id"},
        "versions": [{"name": "v1", "model": {"wordllama": {}}}],
        "work": {"mode": "Job"},
    }
    task = Embed(Key("EmbeddingDataset", namespace, name), "v1", "recipe", 1)
    return Job(task, "", dataset=dataset_api.Spec.model_validate(spec))


def test_pods_of_one_namespace_keep_none_of_another_waiting_and_its_own_are_told(
    runner: runners.PooledRunner, carrier: Scripted, woken: list[Key]
) -> None:
    many = [in_pods("team", f"papers-{n}") for n in range(runners.MOST_JOBS)]
    late, other = in_pods("team", "late"), in_pods("else", "papers")
    for job in [*many, late, other]:
        carrier.hold(job.task.subject)
        runner.start(job, generation=1)
    wait_until(lambda: len(carrier.begun) == len(many) + 1)

    assert other.task in carrier.begun and late.task not in carrier.begun
    (work,) = runner.work(late.task.owner)
    assert work.wait == Wait(
        Reason.JOB_NOT_ADMITTED,
        "16 embeddings in pods of team are before it, 16 are looked after at once; it begins when one of them ends or "
        "is removed",
    )
    assert runner.work(other.task.owner)[0].wait is None

    runner.cancel(many[0].task.owner)
    wait_until(lambda: late.task in carrier.begun)
    (work,) = runner.work(late.task.owner)
    assert work.wait is None


def test_progress_is_seen_once_a_second_and_at_the_end(runner: runners.PooledRunner, carrier: Scripted) -> None:
    seen: list[int] = []

    def act(job: Job, report: Report) -> None:
        for done in (10, 20, 30, 100):
            report(done, 100)
            seen.append(runner.work(DATASET)[0].done)

    carrier.act = act
    runner.start(Job(REFRESH, ""), generation=1)
    wait_until(lambda: len(seen) == 4)
    assert seen == [10, 10, 10, 100]


RETRYABLE = errors.Retryable(Reason.MODEL_RATE_LIMITED, "later")
ASKED = errors.Retryable(Reason.MODEL_RATE_LIMITED, "later", 3600)


@pytest.mark.parametrize(
    ("error", "attempts", "took", "wait"),
    [
        pytest.param(RETRYABLE, 0, 0, 2, id="the first retry comes after two seconds"),
        pytest.param(RETRYABLE, 3, 0, 16, id="then it doubles"),
        pytest.param(RETRYABLE, 40, 3600, 300, id="up to five minutes, however long the attempt took"),
        pytest.param(ASKED, 0, 0, 3600, id="no sooner than the other side asked for"),
        pytest.param(errors.Terminal(Reason.INVALID_SPEC, "x"), 0, 1, 30, id="what needs an edit waits half a minute"),
        pytest.param(errors.Terminal(Reason.INVALID_SPEC, "x"), 0, 600, 12_000, id="and costs a twentieth at most"),
    ],
)
def test_back_off(error: errors.PointsmanError, attempts: int, took: int, wait: int) -> None:
    failure = Failure(error.reason, "", False, attempts, NOW)
    before = Work(REFRESH, 1, Phase.FAILED, failure=failure) if attempts else None
    found = runners.failed(error, before, NOW, timedelta(seconds=took))
    assert found.retry_at - NOW == timedelta(seconds=wait)
    assert found.attempts == attempts + 1
