"""What is planned while pods embed: what goes on beside them, which are stopped, what is said of those that wait."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b

from pointsman.api import dataset as api
from pointsman.api.conditions import ConditionType, Reason, get
from pointsman.plan import actions, dataset, embedding
from pointsman.plan.observed import Dataset, PodJob
from pointsman.plan.tasks import Clean, Failure, Phase, Wait, Work

JOB = {"mode": "Job"}
SECONDS = timedelta(seconds=1)


def job(recipe: str = b.V8.key, number: int = 12, **changes: Any) -> PodJob:
    return PodJob(**{"name": "j", "recipe": recipe, "snapshot": number, "is_ended": False, **changes})


def two(**changes: Any) -> Dataset:
    """A dataset of two versions that pods embed; v8 lacks the newest snapshot."""
    values: dict[str, Any] = {
        "spec": b.dataset_spec("v7", "v8", work=JOB),
        "pins": b.PINS,
        "recipes": b.PINS,
        "embedded": {b.V7.key: b.embedded(11, 12), b.V8.key: b.embedded(11)},
    }
    return b.dataset(**{**values, **changes})


def under_way(number: int = 12, wait: Wait | None = None) -> Work:
    return Work(b.embed("v8", number, b.V8), 1, Phase.RUNNING, wait=wait)


def refused(number: int, reason: Reason = Reason.MODEL_REJECTED, total: int = 12) -> Work:
    failure = Failure(reason, "no", True, attempts=1, retry_at=b.NOW + b.HOUR)
    return Work(b.embed("v8", number, b.V8), 1, Phase.FAILED, done=total // 2, total=total, failure=failure)


def done(seen: Dataset) -> list[str]:
    told = []
    for action in dataset.plan(seen, b.NOW).actions:
        match action:
            case actions.StartWork(task, _):
                snapshot = getattr(task, "snapshot", "")
                told.append(f"{type(task).__name__} {getattr(task, 'version', '')}@{snapshot}".removesuffix(" @"))
            case _:
                told.append(type(action).__name__)
    return told


PODS_AT_WORK = {"jobs": (job(),), "work": (under_way(),)}
OTHER = Work(b.embed("v7", 13), 1, Phase.RUNNING)

CASES: dict[str, tuple[Dataset, list[str]]] = {
    "pods are given what is to be embedded": (two(), ["Embed v8@12"]),
    "pods at work: nothing is to be done": (two(**PODS_AT_WORK), []),
    "the source is read beside them": (two(**PODS_AT_WORK, refresh_token="now"), ["Refresh"]),
    "another version is embedded beside them": (
        two(**PODS_AT_WORK, embedded={b.V7.key: b.embedded(11), b.V8.key: b.embedded(11)}),
        ["Embed v7@12"],
    ),
    "of two versions of one recipe one is embedded": (
        two(
            **PODS_AT_WORK,
            spec=b.dataset_spec("v7", "v8", "v9", work=JOB),
            pins={**b.PINS, "v9": b.V8},
            recipes={**b.PINS, "v9": b.V8},
        ),
        [],
    ),
    "of two versions of one recipe the other is tried where one has failed": (
        two(
            work=(refused(12),),
            spec=b.dataset_spec("v7", "v8", "v9", work=JOB),
            pins={**b.PINS, "v9": b.V8},
            recipes={**b.PINS, "v9": b.V8},
        ),
        ["Embed v9@12"],
    ),
    "while the source is read nothing else begins": (
        two(jobs=(job(),), work=(under_way(), b.running(b.refresh()))),
        [],
    ),
    "a clean-up waits for them": (
        two(**PODS_AT_WORK, spec=b.dataset_spec("v7", "v8", work=JOB, retention={"snapshots": 1, "for": "0s"})),
        [],
    ),
    "what pods are at is finished, though the source was read again": (
        two(jobs=(job(),), snapshots=b.snapshots(11, 12, 13), embedded={b.V7.key: b.embedded(13), b.V8.key: ()}),
        ["Embed v8@12"],
    ),
    "pods of a version that is gone are stopped": (
        two(**PODS_AT_WORK, spec=b.dataset_spec("v7", work=JOB), recipes={"v7": b.V7}),
        ["CancelWork", "DeleteJob"],
    ),
    "pods of an earlier operator, of a version that is gone": (
        two(jobs=(job(),), spec=b.dataset_spec("v7", work=JOB), recipes={"v7": b.V7}),
        ["DeleteJob"],
    ),
    "pods of a version that is gone while it is in use go on": (
        two(
            **PODS_AT_WORK,
            spec=b.dataset_spec("v7", work=JOB),
            recipes={"v7": b.V7},
            users=(b.user(versions=("v8",), needs=("v8",), recipes=(b.V8.key,)),),
        ),
        [],
    ),
    "pods are stopped where none are to embed any more": (
        two(**PODS_AT_WORK, spec=b.dataset_spec("v7", "v8")),
        ["CancelWork", "DeleteJob"],
    ),
    "nobody embeds beside pods that are ending": (
        two(jobs=(job(going_since=b.NOW),), spec=b.dataset_spec("v7", "v8")),
        [],
    ),
    "pods that have not ended for long are waited for no more": (
        two(jobs=(job(going_since=b.NOW - b.HOUR),), spec=b.dataset_spec("v7", "v8")),
        ["Embed v8@12"],
    ),
    "pods that have ended are in nobody's way": (
        two(jobs=(job(is_ended=True),), spec=b.dataset_spec("v7", "v8")),
        ["Embed v8@12"],
    ),
    "pods of a snapshot that was published meanwhile are stopped": (
        two(jobs=(job(number=11),), embedded={b.V7.key: b.embedded(12), b.V8.key: b.embedded(11, 12)}),
        ["DeleteJob"],
    ),
    "what was wrong with documents is tried at once with others": (
        two(work=(refused(11),), embedded={b.V7.key: b.embedded(12), b.V8.key: ()}),
        ["Embed v8@12"],
    ),
    "what was wrong with documents waits while they are the same": (
        two(work=(refused(12),), embedded={b.V7.key: b.embedded(12), b.V8.key: ()}),
        [],
    ),
    "a model that refuses the pinned texts too is given its time, whatever the snapshot": (
        two(work=(refused(11, total=0),), embedded={b.V7.key: b.embedded(12), b.V8.key: ()}),
        [],
    ),
    "documents that cannot be rendered are of their snapshot alone": (
        two(work=(refused(11, Reason.SOURCE_INVALID, total=0),), embedded={b.V7.key: b.embedded(12), b.V8.key: ()}),
        ["Embed v8@12"],
    ),
    "what was wrong with the model waits, whatever the documents are": (
        two(work=(refused(11, Reason.MODEL_UNAUTHORIZED),), embedded={b.V7.key: b.embedded(12), b.V8.key: ()}),
        [],
    ),
    "suspended: pods are not begun": (two(spec=b.dataset_spec("v7", "v8", work=JOB, suspend=True)), []),
    "deleted: pods go before what is stored": (
        two(jobs=(job(),), deleting_since=b.NOW),
        ["DeleteJob"],
    ),
    "deleted, and the pods are ending": (two(jobs=(job(going_since=b.NOW),), deleting_since=b.NOW), []),
    "deleted, and the pods are gone": (two(deleting_since=b.NOW), ["DropStore"]),
}


@pytest.mark.parametrize(("seen", "wanted"), CASES.values(), ids=CASES.keys())
def test_what_is_done_about_pods(seen: Dataset, wanted: list[str]) -> None:
    assert done(seen) == wanted


def test_what_pods_wait_for_is_said_with_what_stays_current() -> None:
    wait = Wait(Reason.JOB_NOT_ADMITTED, "queue gpus has not admitted Job j since noon; given up at one")

    plan = dataset.plan(two(jobs=(job(),), work=(under_way(wait=wait),)), b.NOW)

    found = get(plan.status.conditions, ConditionType.RECONCILING)
    assert found is not None and found.reason is Reason.JOB_NOT_ADMITTED
    assert found.message == f"{wait.message}; snapshot 12 stays current"
    assert plan.status.jobs == ["j"]


def test_each_version_shows_its_own_progress() -> None:
    eight = dataclasses.replace(under_way(), done=5, total=10)
    seven = dataclasses.replace(OTHER, done=1, total=9)

    plan = dataset.plan(two(jobs=(job(),), work=(eight, seven)), b.NOW)

    progress = {version.name: version.progress for version in plan.status.versions}
    assert {name: found and (found.done, found.total) for name, found in progress.items()} == {
        "v7": (1, 9),
        "v8": (5, 10),
    }


def test_pods_at_work_are_looked_at_less_often_than_workers() -> None:
    assert dataset.plan(two(**PODS_AT_WORK), b.NOW).look_again == 5 * SECONDS
    assert dataset.plan(two(jobs=(job(),), spec=b.dataset_spec("v7", "v8")), b.NOW).look_again == SECONDS


def test_the_settings_of_pods_are_shown_with_their_defaults_where_there_are_pods() -> None:
    shown = dataset.plan(two(), b.NOW).status.effective
    assert shown is not None and shown.work is not None
    assert (shown.work.job.shards, shown.work.job.start_deadline) == (4, "1h")
    assert dataset.plan(b.dataset(), b.NOW).status.effective == api.effective(b.dataset_spec("v7"))
    assert api.effective(b.dataset_spec("v7")).work is None


def test_a_clean_up_begins_once_no_pod_is_at_work() -> None:
    seen = two(
        embedded={b.V7.key: b.embedded(12), b.V8.key: b.embedded(12)},
        spec=b.dataset_spec("v7", "v8", work=JOB, retention={"snapshots": 1, "for": "0s"}),
    )
    (action,) = dataset.plan(seen, b.NOW).actions
    assert isinstance(action, actions.StartWork) and isinstance(action.task, Clean)


def test_the_progress_of_a_recipe_is_that_of_all_its_versions() -> None:
    work = (b.running(b.embed("v8", 12, b.V8), done=3, total=4000),)

    assert embedding.progress(work, "v8", None) == "3 of 4,000 texts"
    assert embedding.progress(work, "v9", b.V8) == "3 of 4,000 texts"
    assert embedding.progress(work, "v7", b.V7) == ""
    assert embedding.progress(work, "v9", None) == ""
