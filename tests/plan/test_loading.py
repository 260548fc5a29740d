"""What is planned while pods load an index: which are stopped, what begins beside them, what is said of them."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b

from pointsman.api.conditions import ConditionType, Reason
from pointsman.plan import actions, deployment
from pointsman.plan.facts import IndexRecord
from pointsman.plan.observed import Begun, DatasetView, Deployment, PodJob, Problem
from pointsman.plan.tasks import Build, Wait, Work

SECONDS, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def job(index: str = "v8", number: int = 12, **changes: Any) -> PodJob:
    values = {"name": f"load-{index}", "recipe": b.V8.key, "snapshot": number, "is_ended": False, "index": index}
    return PodJob(**{**values, **changes})


def loading(**changes: Any) -> Deployment:
    """v7 serves, and pods load v8, which the spec wants."""
    values: dict[str, Any] = {
        "spec": b.spec("v8"),
        "dataset": b.view(is_for_pods=True),
        "physical": {"v8": b.UNCOUNTED},
        "jobs": (job(),),
        "work": (b.running(b.build()),),
    }
    return b.deployment(b.serving(), b.candidate(), **{**values, **changes})


def done(seen: Deployment) -> list[str]:
    """Return what is done about indexes and pods."""
    told = []
    for action in deployment.plan(seen, b.NOW).actions:
        match action:
            case actions.StartWork(task=Build() as task, generation=_):
                told.append(f"Build {task.version}@{task.snapshot}")
            case actions.CancelWork(subject=subject):
                told.append(f"CancelWork {subject}".strip())
            case actions.DeleteJob(name=name):
                told.append(f"DeleteJob {name}")
            case actions.DeleteIndex(index=index):
                told.append(f"DeleteIndex {index}")
    return told


STOPPED = ["CancelWork index v8", "DeleteJob load-v8"]
NEWER = b.view(
    is_for_pods=True,
    snapshots=b.snapshots(11, 12, 13),
    embedded={b.V7.key: b.embedded(12, 13), b.V8.key: b.embedded(11, 12, 13)},
)


def begun(snapshot: int = 12, fruitless: int = 0) -> DatasetView:
    """The dataset at 13, of which pods have loaded a part of an earlier snapshot into v8."""
    return dataclasses.replace(NEWER, begun={"v8": Begun(snapshot, fruitless)})


def failed(reason: Reason, attempts: int, snapshot: int = 12) -> Work:
    task, failure = b.build(), b.failure(reason, "said why")
    failure = dataclasses.replace(failure, attempts=attempts, retry_at=b.NOW)
    return Work(dataclasses.replace(task, snapshot=snapshot), 3, b.Phase.FAILED, failure=failure)


CASES: dict[str, tuple[Deployment, list[str]]] = {
    "what is to be loaded is begun": (loading(jobs=(), work=()), ["Build v8@12"]),
    "pods at work are left at it": (loading(), []),
    "an operator that takes over goes on with them": (loading(work=()), ["Build v8@12"]),
    "and with the snapshot that they are at, though a newer one is embedded": (
        loading(work=(), dataset=NEWER),
        ["Build v8@12"],
    ),
    "without pods the newest is loaded": (loading(work=(), jobs=(), dataset=NEWER), ["Build v8@13"]),
    "pods that have ended hold nothing to their snapshot where nothing of it is loaded": (
        loading(work=(), jobs=(job(is_ended=True),), dataset=NEWER),
        ["Build v8@13"],
    ),
    "what pods have begun is gone on with, though they have ended and a newer one is embedded": (
        loading(work=(), jobs=(job(is_ended=True),), dataset=begun()),
        ["Build v8@12"],
    ),
    "and though nothing is left of their Job": (loading(work=(), jobs=(), dataset=begun()), ["Build v8@12"]),
    "and though it has failed, for a database that was away, again and again": (
        loading(work=(failed(Reason.BACKEND_UNREACHABLE, 99),), jobs=(), dataset=begun()),
        ["Build v8@12"],
    ),
    "and though its content was refused, a few times": (
        loading(work=(failed(Reason.BACKEND_REJECTED, 5),), jobs=(), dataset=begun()),
        ["Build v8@12"],
    ),
    "what was begun and is refused again and again is left for the newest": (
        loading(work=(failed(Reason.BACKEND_REJECTED, 6),), jobs=(), dataset=begun()),
        ["Build v8@13"],
    ),
    "what another snapshot's content was refused for says nothing of what was begun": (
        loading(work=(failed(Reason.BACKEND_REJECTED, 6, snapshot=11),), jobs=(), dataset=begun()),
        ["Build v8@12"],
    ),
    "what was begun and finishes nothing any more is left for the newest": (
        loading(work=(), jobs=(), dataset=begun(fruitless=6)),
        ["Build v8@13"],
    ),
    "what was begun of a snapshot that is not embedded any more is left for the newest": (
        loading(work=(), jobs=(), dataset=begun(9)),
        ["Build v8@13"],
    ),
    "what was begun in an index that is gone is left for the newest": (
        loading(work=(), jobs=(), dataset=begun(), physical={"v8": b.ABSENT}),
        ["Build v8@13"],
    ),
    "what pods have begun, one process does not go on with": (
        loading(work=(), jobs=(), dataset=dataclasses.replace(begun(), is_for_pods=False)),
        ["Build v8@13"],
    ),
    "pods of a snapshot that is not embedded any more are stopped": (loading(jobs=(job(number=9),)), STOPPED),
    "rolled back in the middle: they are stopped": (loading(spec=b.spec("v7")), STOPPED),
    "rolled back, seen by an operator that has just begun": (
        loading(spec=b.spec("v7"), work=()),
        ["DeleteJob load-v8"],
    ),
    "pods that are ending are not deleted twice": (
        loading(spec=b.spec("v7"), work=(), jobs=(job(going_since=b.NOW),)),
        [],
    ),
    "pods that have ended stay to be looked at": (loading(spec=b.spec("v7"), work=(), jobs=(job(is_ended=True),)), []),
    "another version that is not embedded yet: nothing is given up for it": (
        loading(spec=b.spec("v9"), dataset=b.view(is_for_pods=True, pins={**b.PINS, "v9": b.V9})),
        [],
    ),
    "pods are to load no more: they are stopped, and nobody begins beside them": (
        loading(dataset=b.view(is_for_pods=False)),
        STOPPED,
    ),
    "pods are to load no more, and are ending: one process begins": (
        loading(dataset=b.view(is_for_pods=False), work=(), jobs=(job(going_since=b.NOW),)),
        ["Build v8@12"],
    ),
    "pods of an index that is complete are stopped": (
        loading(records={"v8": b.record()}, physical={"v8": b.present()}, work=()),
        ["DeleteJob load-v8"],
    ),
    "pods of an index that is on no book are stopped": (loading(jobs=(job("v8_0"),)), ["DeleteJob load-v8_0"]),
    "what is suspended goes on where it was begun": (loading(spec=b.spec("v8", suspend=True)), []),
    "what is suspended is not begun": (loading(spec=b.spec("v8", suspend=True), jobs=(), work=()), []),
    "deleted: pods go with the work, and the index after them": (
        loading(deleting_since=b.NOW),
        ["CancelWork", "DeleteJob load-v8"],
    ),
}


@pytest.mark.parametrize(("seen", "wanted"), CASES.values(), ids=CASES.keys())
def test_what_is_done_about_pods_that_load(seen: Deployment, wanted: list[str]) -> None:
    assert done(seen) == wanted


def test_a_rollback_is_held_up_by_no_pods() -> None:
    back = b.deployment(
        b.serving("v8", b.V8),
        b.retained(),
        b.candidate("v9", b.V9),
        spec=b.spec("v7"),
        dataset=b.view(is_for_pods=True, pins={**b.PINS, "v9": b.V9}, embedded={
            b.V7.key: b.embedded(12), b.V8.key: b.embedded(12), b.V9.key: b.embedded(12)}),
        physical={"v9": b.UNCOUNTED},
        jobs=(job("v9"),),
        work=(b.running(b.build("v9", b.V9)),),
    )  # fmt: skip
    plan = deployment.plan(back, b.NOW)

    (recorded,) = [action for action in plan.actions if isinstance(action, actions.RecordFacts)]
    assert recorded.facts.serving is not None and recorded.facts.serving.version == "v7"
    assert [a.name for a in plan.actions if isinstance(a, actions.DeleteJob)] == ["load-v9"]


def test_an_index_that_serves_is_built_beside_pods_of_another() -> None:
    """What pods are told to stop holds up nothing but their own index."""
    seen = loading(
        spec=b.spec("v7"),
        work=(),
        records={"v7": dataclasses.replace(b.record(11), pending=None)},
        physical={"v7": b.present(11), "v8": b.UNCOUNTED},
    )
    kinds = b.kinds(deployment.plan(seen, b.NOW).actions)

    assert "DeleteJob" in kinds
    assert "StartWork Follow v7@12" in kinds


def test_a_job_that_cannot_be_deleted_keeps_no_other_index_from_being_worked_on() -> None:
    seen = loading(
        spec=b.spec("v7"),
        work=(),
        records={"v7": dataclasses.replace(b.record(11), pending=None)},
        physical={"v7": b.present(11), "v8": b.UNCOUNTED},
    )
    kinds = b.kinds(deployment.plan(seen, b.NOW).actions)

    assert kinds.index("StartWork Follow v7@12") < kinds.index("DeleteJob")


def test_what_pods_wait_for_is_said_with_what_serves() -> None:
    wait = Wait(Reason.JOB_REFUSED, "exceeded quota: pods; given up and created anew at one")
    failed = b.failure(Reason.JOB_FAILED, "Job j ended")

    plan = deployment.plan(loading(work=(Work(b.build(), 1, b.Phase.RUNNING, wait=wait, failure=failed),)), b.NOW)

    assert b.goal(plan.status) == (
        ConditionType.RECONCILING,
        Reason.JOB_REFUSED,
        f"{wait.message}; serving v7 normally",
    )


def test_how_far_pods_have_come_is_said() -> None:
    plan = deployment.plan(loading(work=(b.running(b.build(), done=40, total=112, rate=24.0),)), b.NOW)

    assert b.goal(plan.status)[1:] == (
        Reason.BUILDING,
        "v8@12 is being built from stored vectors (40 of 112 rows, 3s left); serving v7 normally",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"jobs": (job("v9"), job("v8"))}, ["load-v8", "load-v9"]),
        ({"jobs": (job(is_ended=True),)}, []),
        ({"jobs": (), "unlisted": Problem(Reason.CLUSTER_UNREACHABLE, "no answer", is_terminal=False)}, ["load-v8"]),
    ],
    ids=["what loads", "what has ended", "what was known while nobody can look"],
)
def test_the_jobs_that_load_are_named(changes: dict[str, Any], said: list[str]) -> None:
    seen = loading(**changes)
    seen = dataclasses.replace(seen, status=seen.status.model_copy(update={"jobs": ["load-v8"]}))

    assert deployment.plan(seen, b.NOW).status.jobs == said


def test_a_record_without_a_cursor_is_of_an_index_that_was_never_complete() -> None:
    assert done(loading(records={"v8": IndexRecord()})) == []


@pytest.mark.parametrize(
    ("doubted", "checked", "wanted"),
    [(3, 3, True), (1, 1, False), (3, 0, False), (60, 59, True)],
    ids=["what may have come has come", "it may be under way", "compared since", "compared too early since"],
)
def test_an_index_that_was_proved_in_doubt_is_compared_once_more(doubted: int, checked: int, wanted: bool) -> None:
    before = {"doubted_at": b.NOW - doubted * MINUTE, "checked_at": b.NOW - checked * MINUTE}
    seen = b.deployment(b.serving(), records={"v7": b.record(verified_at=b.NOW - doubted * MINUTE, **before)})

    plan = deployment.plan(seen, b.NOW)

    assert ("StartWork Check v7@12" in b.kinds(plan.actions)) is wanted
    if checked == 1:
        assert plan.look_again == MINUTE
