"""What is planned for a dataset: what is started and when, what is kept, and every sentence."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b

from pointsman.api import dataset as api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.core.recipes import Chunker
from pointsman.plan import actions, dataset
from pointsman.plan.observed import Dataset, Embedded, Problem
from pointsman.plan.tasks import Clean, Failure, Refresh, Task

READY, RECONCILING, STALLED = ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED
MINUTE = timedelta(minutes=1)


def status(**changes: Any) -> api.DatasetStatus:
    return api.DatasetStatus(**{"refreshed_at": b.NOW - b.HOUR, "refresh_handled": "source/#asked", **changes})


def two(**changes: Any) -> Dataset:
    """A dataset of two versions, of which v8 lacks the newest snapshot."""
    values: dict[str, Any] = {
        "spec": b.dataset_spec("v7", "v8"),
        "pins": b.PINS,
        "recipes": b.PINS,
        "embedded": {b.V7.key: b.embedded(11, 12), b.V8.key: b.embedded(11)},
    }
    return b.dataset(**{**values, **changes})


def first(**changes: Any) -> Dataset:
    """A dataset that was never read."""
    return b.dataset(**{"snapshots": (), "embedded": {}, "status": api.DatasetStatus(), **changes})


NO_ENDPOINT = Problem(Reason.ENDPOINT_NOT_FOUND, "endpoint main is not declared, only none", True)
OTHER_TEMPLATE = dataclasses.replace(b.V7, template="{title}")
OTHER_SPACE_TOO = b.recipe(128, template="{title}")

# Each case: what was seen, what is done, and what is said of the goal.
CASES: dict[str, tuple[Dataset, list[str], tuple[ConditionType, Reason, str]]] = {
    "seen for the first time": (
        b.dataset(has_finalizer=False),
        ["AddFinalizer"],
        (RECONCILING, Reason.ACCEPTED, "seen for the first time"),
    ),
    "recipes are pinned before anything else": (
        first(pins={}),
        ["PinRecipe"],
        (RECONCILING, Reason.ACCEPTED, "recipes are being pinned"),
    ),
    "a first read": (
        first(),
        ["StartWork Refresh"],
        (RECONCILING, Reason.REFRESHING, "the source is being read for the first time"),
    ),
    "a first embedding": (
        b.dataset(embedded={}),
        ["StartWork Embed v7@12"],
        (RECONCILING, Reason.EMBEDDING, "v7 is being embedded for the first time"),
    ),
    "at rest": (b.dataset(), [], (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents")),
    "a routine embedding does not take ready away": (
        two(),
        ["StartWork Embed v8@12"],
        (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents; v8 follows"),
    ),
    "one thing at a time": (
        two(work=(b.running(b.refresh()),)),
        [],
        (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents; v8 follows"),
    ),
    "suspended: nothing is read or embedded": (
        two(spec=b.dataset_spec("v7", "v8", suspend=True), refresh_token="now"),
        [],
        (RECONCILING, Reason.SUSPENDED, "suspended by the spec; snapshot 12 stays current"),
    ),
    "suspended before the first read": (
        first(spec=b.dataset_spec("v7", suspend=True)),
        [],
        (RECONCILING, Reason.SUSPENDED, "suspended by the spec; there is no snapshot yet"),
    ),
    "suspended after a failure: nothing is tried, and that is said": (
        b.dataset(spec=b.dataset_spec("v7", suspend=True), refresh_token="now", work=(b.failed(b.refresh()),)),
        [],
        (RECONCILING, Reason.SUSPENDED, "suspended by the spec; snapshot 12 stays current"),
    ),
    "what is in use is embedded before what is declared first": (
        two(embedded={}, users=(b.user(versions=("v8",), needs=("v8",)),)),
        ["StartWork Embed v8@12"],
        (RECONCILING, Reason.EMBEDDING, "v7, v8 is being embedded for the first time"),
    ),
    "a pinned snapshot is embedded, before the newest": (
        b.dataset(
            embedded={},
            users=(b.user(snapshots=(11,), pinned=((b.V7.key, 11),)),),
        ),
        ["StartWork Embed v7@11"],
        (RECONCILING, Reason.EMBEDDING, "v7 is being embedded for the first time"),
    ),
    "a pinned snapshot that is not there is not embedded": (
        b.dataset(users=(b.user(snapshots=(9,), pinned=((b.V7.key, 9), (b.V8.key, 11))),)),
        [],
        (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents"),
    ),
    "a version removed and not in use is cleaned up": (
        two(spec=b.dataset_spec("v7"), recipes={"v7": b.V7}),
        ["StartWork Clean"],
        (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents"),
    ),
    "a version removed while it serves is kept embedded": (
        two(
            spec=b.dataset_spec("v7"),
            recipes={"v7": b.V7},
            users=(b.user(versions=("v8",), needs=("v8",), recipes=(b.V8.key,)),),
        ),
        ["StartWork Embed v8@12"],
        (
            STALLED,
            Reason.VERSION_IN_USE,
            "v8 was removed and is used by papers; the pinned recipe serves on; declare it again",
        ),
    ),
    "of many that use a removed version three are named": (
        two(
            spec=b.dataset_spec("v7"),
            recipes={"v7": b.V7},
            users=tuple(
                b.user(name, versions=("v8",), needs=("v8",), recipes=(b.V8.key,))
                for name in ("zoo", "maps", "films", "books", "papers")
            ),
        ),
        ["StartWork Embed v8@12"],
        (
            STALLED,
            Reason.VERSION_IN_USE,
            "v8 was removed and is used by books, films, maps and 2 more; the pinned recipe serves on; "
            "declare it again",
        ),
    ),
    "all versions that were removed while they serve are named": (
        two(
            spec=b.dataset_spec("v9"),
            recipes={"v9": b.V8},
            pins={**b.PINS, "v9": b.V8},
            users=(
                b.user("books", versions=("v7",), needs=("v7",), recipes=(b.V7.key,)),
                b.user("films", versions=("v8",), needs=("v8",), recipes=(b.V8.key,)),
            ),
        ),
        ["StartWork Embed v8@12"],
        (
            STALLED,
            Reason.VERSION_IN_USE,
            "v7 was removed and is used by books; v8 was removed and is used by films; the pinned recipes serve on; "
            "declare them again",
        ),
    ),
    "of many versions that were removed three are named": (
        two(
            spec=b.dataset_spec("v9"),
            recipes={"v9": b.V8},
            pins={f"v{n}": b.V8 for n in range(5, 10)},
            users=(b.user(versions=("v5",), needs=("v5", "v6", "v7", "v8"), recipes=(b.V8.key,)),),
        ),
        ["StartWork Embed v5@12"],
        (
            STALLED,
            Reason.VERSION_IN_USE,
            "v5 was removed and is used by papers; v6 was removed and is used by papers; v7 was removed and is used by "
            "papers; and 1 more; the pinned recipes serve on; declare them again",
        ),
    ),
    "a version removed and only retained is kept embedded without a word": (
        two(
            spec=b.dataset_spec("v7"),
            recipes={"v7": b.V7},
            users=(b.user(versions=("v7", "v8"), needs=("v7",), recipes=(b.V7.key, b.V8.key)),),
        ),
        ["StartWork Embed v8@12"],
        (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents"),
    ),
    "a version that a deployment mistyped was never here": (
        b.dataset(users=(b.user(versions=("v99",), needs=("v99",), recipes=()),)),
        [],
        (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents"),
    ),
    "a version without a recipe in this release": (
        two(recipes={"v7": b.V7, "v8": NO_ENDPOINT}),
        ["StartWork Embed v8@12"],
        (STALLED, Reason.ENDPOINT_NOT_FOUND, "endpoint main is not declared, only none"),
    ),
    "a version without a recipe is not pinned": (
        b.dataset(spec=b.dataset_spec("v7", "v8"), recipes={"v7": b.V7, "v8": NO_ENDPOINT}),
        [],
        (STALLED, Reason.ENDPOINT_NOT_FOUND, "endpoint main is not declared, only none"),
    ),
    "a name used again for another recipe": (
        b.dataset(recipes={"v7": OTHER_TEMPLATE}),
        [],
        (
            STALLED,
            Reason.VERSION_REDEFINED,
            "v7 was pinned to another recipe (its template differ); the pinned recipe serves on; declare the new one "
            "under a new name",
        ),
    ),
    "a name used again for another recipe that differs in more": (
        b.dataset(recipes={"v7": OTHER_SPACE_TOO}),
        [],
        (
            STALLED,
            Reason.VERSION_REDEFINED,
            "v7 was pinned to another recipe (its space and template differ); the pinned recipe serves on; declare "
            "the new one under a new name",
        ),
    ),
    "a release that cuts otherwise": (
        b.dataset(recipes={"v7": b.recipe(64, chunker="2")}),
        [],
        (
            STALLED,
            Reason.VERSION_REDEFINED,
            "v7 was chunked by pointsman 1 and this release has 2; the pinned recipe serves on; declare the new one "
            "under a new name",
        ),
    ),
    "a chunker of the same version and another size": (
        b.dataset(recipes={"v7": dataclasses.replace(b.V7, chunker=Chunker("pointsman", "1", 64, 0))}),
        [],
        (
            STALLED,
            Reason.VERSION_REDEFINED,
            "v7 was pinned to another recipe (its chunker differ); the pinned recipe serves on; declare the new one "
            "under a new name",
        ),
    ),
    "a read that failed": (
        first(work=(b.failed(b.refresh(), message="s3://corpus does not answer"),)),
        [],
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "s3://corpus does not answer; there is no snapshot yet"),
    ),
    "a read that failed for good": (
        b.dataset(
            refresh_token="now",
            work=(
                b.failed(
                    b.refresh("source/now#asked"),
                    reason=Reason.SOURCE_INVALID,
                    message="2 rows have no id",
                    is_terminal=True,
                ),
            ),
        ),
        [],
        (STALLED, Reason.SOURCE_INVALID, "2 rows have no id; snapshot 12 stays current"),
    ),
    "a surprise that says itself what stays": (
        b.dataset(
            refresh_token="now",
            work=(
                b.failed(
                    b.refresh("source/now#asked"),
                    reason=Reason.SURPRISE_HELD,
                    message="all edited; snapshot 12 stays current",
                    is_terminal=True,
                ),
            ),
        ),
        [],
        (STALLED, Reason.SURPRISE_HELD, "all edited; snapshot 12 stays current"),
    ),
    "an embedding that failed": (
        two(work=(b.failed(b.embed("v8", 12, b.V8), reason=Reason.MODEL_UNREACHABLE, message="no model"),)),
        [],
        (RECONCILING, Reason.MODEL_UNREACHABLE, "no model; snapshot 12 stays current"),
    ),
    "an embedding that failed and is tried again": (
        two(work=(b.running(b.embed("v8", 12, b.V8), failure=b.failure(message="no model")),)),
        [],
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "no model; snapshot 12 stays current"),
    ),
    "an embedding that failed for one version does not stop another, and each backs off by itself": (
        two(embedded={}, work=(b.failed(b.embed("v7")),)),
        ["StartWork Embed v8@12"],
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "qdrant:6334 does not answer; snapshot 12 stays current"),
    ),
    "both back off": (
        two(embedded={}, work=(b.failed(b.embed("v7")), b.failed(b.embed("v8", 12, b.V8)))),
        [],
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "qdrant:6334 does not answer; snapshot 12 stays current"),
    ),
    "an embedding that failed for a version that nobody wants any more": (
        b.dataset(work=(b.failed(b.embed("v8", 12, b.V8), is_terminal=True),)),
        [],
        (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents"),
    ),
    "a clean-up that failed when there is nothing left to clean": (
        b.dataset(work=(b.failed(b.clean((12,), (b.V7.key,)), is_terminal=True),)),
        [],
        (READY, Reason.UP_TO_DATE, "snapshot 12 with 12 documents"),
    ),
    "failed work waits": (
        first(work=(b.failed(b.refresh()),)),
        [],
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "qdrant:6334 does not answer; there is no snapshot yet"),
    ),
    "until its time has come": (
        first(work=(b.failed(b.refresh(), wait=timedelta(0)),)),
        ["StartWork Refresh"],
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "qdrant:6334 does not answer; there is no snapshot yet"),
    ),
    "or the spec was edited": (
        first(work=(b.failed(b.refresh(), generation=0),)),
        ["StartWork Refresh"],
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "qdrant:6334 does not answer; there is no snapshot yet"),
    ),
}


@pytest.mark.parametrize(("seen", "wanted", "said"), CASES.values(), ids=CASES.keys())
def test_case(seen: Dataset, wanted: list[str], said: tuple[ConditionType, Reason, str]) -> None:
    plan = dataset.plan(seen, b.NOW)

    assert (b.kinds(plan.actions), b.goal(plan.status)) == (wanted, said)


# When the source is read.

EVERY = b.dataset_spec("v7", refresh={"every": "15m"})
REFRESHES: dict[str, tuple[Dataset, list[Task]]] = {
    "the first": (first(), [b.refresh("source/#asked")]),
    "the first again after a restart": (
        first(status=status()),
        [b.refresh("source/#asked")],
    ),
    "not again once it was handled": (b.dataset(), []),
    "not again while the status is not yet written": (
        b.dataset(status=api.DatasetStatus(), work=(b.done(b.refresh()),)),
        [],
    ),
    "an edited source": (b.dataset(source_digest="other"), [b.refresh("other/#asked")]),
    "a person": (b.dataset(refresh_token="2026-03-01T12:00:00Z"), [b.refresh("source/2026-03-01T12:00:00Z#asked")]),
    "a person who was answered": (
        b.dataset(refresh_token="now", status=status(refresh_handled="source/now#asked")),
        [],
    ),
    "the clock": (
        b.dataset(spec=EVERY, status=status(refreshed_at=b.NOW - 15 * MINUTE)),
        [b.refresh("source/#2026-03-01T11:45:00+00:00")],
    ),
    "the clock, not a second earlier": (
        b.dataset(spec=EVERY, status=status(refreshed_at=b.NOW - 15 * MINUTE + timedelta(seconds=1))),
        [],
    ),
    "the clock counts from the last read that ended, though the status does not know it yet": (
        b.dataset(spec=EVERY, work=(b.done(b.refresh("source/#earlier"), b.NOW - MINUTE),)),
        [],
    ),
    "the clock, where nobody knows when it was read": (
        b.dataset(spec=EVERY, status=status(refreshed_at=None)),
        [b.refresh("source/#")],
    ),
    "not by the clock without a cadence": (b.dataset(status=status(refreshed_at=b.OLD)), []),
    "a read that was asked for goes before an embedding": (two(refresh_token="now"), [b.refresh("source/now#asked")]),
    "a read by the clock goes after it, or a version would wait for ever": (
        two(spec=b.dataset_spec("v7", "v8", refresh={"every": "15m"})),
        [b.embed("v8", 12, b.V8)],
    ),
    "a read by the clock goes on while an embedding fails": (
        two(spec=b.dataset_spec("v7", "v8", refresh={"every": "15m"}), work=(b.failed(b.embed("v8", 12, b.V8)),)),
        [b.refresh("source/#2026-03-01T11:00:00+00:00")],
    ),
    "a failed read waits": (b.dataset(refresh_token="now", work=(b.failed(b.refresh("source/now#asked")),)), []),
    "a failed read waits no longer once a person asks again": (
        b.dataset(refresh_token="now", work=(b.failed(b.refresh()),)),
        [b.refresh("source/now#asked")],
    ),
    "a failed read does not hold an embedding back": (
        two(refresh_token="now", work=(b.failed(b.refresh("source/now#asked")),)),
        [b.embed("v8", 12, b.V8)],
    ),
}


@pytest.mark.parametrize(("seen", "wanted"), REFRESHES.values(), ids=REFRESHES.keys())
def test_refresh(seen: Dataset, wanted: list[Task]) -> None:
    assert b.started(dataset.plan(seen, b.NOW).actions) == wanted


# What is kept.

TINY = b.dataset_spec("v7", retention={"snapshots": 2, "for": "24h"})


def clean_of(seen: Dataset) -> tuple[int, ...] | None:
    tasks = [task for task in b.started(dataset.plan(seen, b.NOW).actions) if isinstance(task, Clean)]
    return tasks[0].keep if tasks else None


def aged(**changes: Any) -> Dataset:
    """A dataset with snapshots 8 to 12, of which two are kept."""
    values: dict[str, Any] = {
        "spec": TINY,
        "snapshots": b.snapshots(8, 9, 10, 11, 12),
        "embedded": {b.V7.key: b.embedded(8, 9, 10, 11, 12)},
    }
    return b.dataset(**{**values, **changes})


KEPT: dict[str, tuple[Dataset, tuple[int, ...] | None]] = {
    "as many of the newest as the spec says": (aged(), (11, 12)),
    "and the young": (aged(snapshots=b.snapshots(8, 9, 10, 11, 12, at=b.NOW - b.HOUR)), None),
    "and what a deployment refers to": (aged(users=(b.user(snapshots=(9, 12)),)), (9, 11, 12)),
    "and what the next embedding starts from": (
        aged(
            embedded={b.V7.key: b.embedded(11, 12), b.V8.key: b.embedded(10)},
            pins=b.PINS,
            recipes=b.PINS,
            spec=b.dataset_spec("v7", "v8", retention={"snapshots": 1, "for": "0s"}),
            work=(b.failed(b.embed("v8", 12, b.V8)),),
        ),
        (10, 12),
    ),
    "nothing that is not there": (aged(users=(b.user(snapshots=(3,)),)), (11, 12)),
    "no clean-up where all is kept": (b.dataset(), None),
    "no clean-up while nobody can tell what pods load": (
        aged(users=(b.user(), b.user(is_unlisted=True))),
        None,
    ),
    "no clean-up before the first snapshot": (
        first(pins=b.PINS, embedded={b.V8.key: b.embedded(1)}, work=(b.failed(b.refresh()),)),
        None,
    ),
}


@pytest.mark.parametrize(("seen", "keep"), KEPT.values(), ids=KEPT.keys())
def test_retention(seen: Dataset, keep: tuple[int, ...] | None) -> None:
    assert clean_of(seen) == keep


def test_a_clean_up_names_the_recipes_that_stay() -> None:
    users = (b.user(versions=("v7",), recipes=(b.V7.key, b.V9.key)),)
    (task,) = b.started(dataset.plan(aged(users=users), b.NOW).actions)

    assert isinstance(task, Clean)
    assert task.recipes == tuple(sorted((b.V7.key, b.V9.key)))


# What is said beside the goal.


def test_pins_name_every_version_that_has_none() -> None:
    plan = dataset.plan(two(pins={"v7": b.V7}), b.NOW)

    assert plan.actions == (actions.PinRecipe(b.DATASET, "v8", b.V8),)
    assert plan.look_again == timedelta(0)


SOURCE: dict[str, tuple[Dataset, tuple[str, Reason, str]]] = {
    "before the first read": (first(), ("Unknown", Reason.REFRESHING, "not read yet")),
    "after a read": (b.dataset(), ("True", Reason.UP_TO_DATE, "read when last tried")),
    "after a read that failed": (
        b.dataset(
            refresh_token="now", work=(b.failed(b.refresh(), reason=Reason.SOURCE_UNAUTHORIZED, message="refused"),)
        ),
        ("False", Reason.SOURCE_UNAUTHORIZED, "refused"),
    ),
    "while a read that failed is tried again": (
        b.dataset(
            refresh_token="now", work=(b.running(b.refresh(), failure=b.failure(Reason.SOURCE_UNREACHABLE, "no")),)
        ),
        ("False", Reason.SOURCE_UNREACHABLE, "no"),
    ),
    "after an embedding that failed": (
        two(work=(b.failed(b.embed("v8", 12, b.V8), reason=Reason.MODEL_UNREACHABLE),)),
        ("True", Reason.UP_TO_DATE, "read when last tried"),
    ),
}


@pytest.mark.parametrize(("seen", "said"), SOURCE.values(), ids=SOURCE.keys())
def test_source_reachable(seen: Dataset, said: tuple[str, Reason, str]) -> None:
    assert b.said(dataset.plan(seen, b.NOW).status, ConditionType.SOURCE_REACHABLE) == said


def test_a_dataset_is_available_as_long_as_it_has_a_snapshot() -> None:
    assert b.said(dataset.plan(b.dataset(), b.NOW).status, ConditionType.AVAILABLE) == (
        "True", Reason.UP_TO_DATE, "snapshot 12 is current",
    )  # fmt: skip
    assert b.said(dataset.plan(first(), b.NOW).status, ConditionType.AVAILABLE) == (
        "False", Reason.REFRESHING, "there is no snapshot yet",
    )  # fmt: skip


def test_the_status_of_a_dataset_at_rest() -> None:
    newest = Embedded(
        12, 12, 12, 112, "d12", 5, 107, 60, tokens_stated=57, changes={"edited": 2}, model="m", revision="r2"
    )

    found = dataset.plan(b.dataset(embedded={b.V7.key: (newest,)}, generation=4), b.NOW).status

    assert (found.observed_generation, found.phase, found.snapshot, found.documents) == (4, "Ready", 12, 12)
    assert (found.digest, found.refreshed_at) == ("s12", b.NOW - b.HOUR)
    (version,) = found.versions
    assert (version.name, version.snapshot, version.chunks, version.embedded, version.reused) == ("v7", 12, 112, 5, 107)
    assert version.model == api.ModelIdentity(name="m", revision="r2", dimensions=64)
    assert version.changes is not None and version.changes.edited == 2
    assert version.cost == api.Cost(tokens=60, estimated=3)
    assert {c.observed_generation for c in found.conditions} == {4}


def test_a_version_that_is_not_embedded_names_the_model_of_its_recipe() -> None:
    (version,) = dataset.plan(b.dataset(embedded={}), b.NOW).status.versions

    assert version.model == api.ModelIdentity(name="wordllama", revision="r1", dimensions=64)
    assert (version.snapshot, version.changes, version.cost) == (0, None, None)


PHASES = {
    "Refreshing": b.dataset(work=(b.running(b.refresh()),)),
    "Embedding": b.dataset(work=(b.running(b.embed()),)),
    "CleaningUp": b.dataset(work=(b.running(b.clean((12,), ())),)),
    "Ready": b.dataset(),
    "Stalled": b.dataset(recipes={"v7": NO_ENDPOINT}),
    "Pending": first(spec=b.dataset_spec("v7", suspend=True)),
}


@pytest.mark.parametrize(("phase", "seen"), PHASES.items(), ids=PHASES.keys())
def test_phase(phase: str, seen: Dataset) -> None:
    assert dataset.plan(seen, b.NOW).status.phase == phase


def test_the_progress_of_a_read_is_the_datasets() -> None:
    found = dataset.plan(b.dataset(work=(b.running(b.refresh(), done=5, total=9, rate=3.14),)), b.NOW).status

    assert found.progress is not None
    assert (found.progress.done, found.progress.total, found.progress.unit) == (5, 9, "documents")
    assert (found.progress.rate, found.progress.remaining) == ("3.1/s", "1s")
    assert found.versions[0].progress is None


def test_the_progress_of_an_embedding_is_its_versions() -> None:
    running = b.running(b.embed("v8", 12, b.V8), done=9, total=9, rate=30.0)

    found = dataset.plan(two(work=(running,)), b.NOW).status

    assert found.progress is None
    assert [v.progress is not None for v in found.versions] == [False, True]
    progress = found.versions[1].progress
    assert progress is not None and (progress.unit, progress.rate, progress.remaining) == ("texts", "30/s", "")


def test_an_answered_request_is_said() -> None:
    asked = "2026-03-01T12:00:00Z"
    seen = b.dataset(refresh_token=asked, work=(b.done(b.refresh(f"source/{asked}#asked")),))

    found = dataset.plan(seen, b.NOW).status

    assert (found.refresh_handled, found.last_handled_refresh) == (f"source/{asked}#asked", asked)
    assert found.refreshed_at == b.NOW


def test_a_request_whose_reading_was_refused_is_said_until_a_later_one_is() -> None:
    refused = b.failed(b.refresh("source/now#asked"), reason=Reason.SOURCE_INVALID, is_terminal=True)

    found = dataset.plan(b.dataset(refresh_token="now", work=(refused,)), b.NOW).status
    assert (found.last_refused_refresh, found.last_handled_refresh) == ("now", "")
    later = dataset.plan(b.dataset(status=found), b.NOW).status
    assert later.last_refused_refresh == "now"


def test_a_request_may_be_any_text() -> None:
    seen = b.dataset(refresh_token="a/b#c", status=status(refresh_handled="source/a/b#c#asked"))

    plan = dataset.plan(seen, b.NOW)

    assert (plan.actions, plan.status.last_handled_refresh) == ((), "a/b#c")


# When to look again.

LOOK_AGAIN: dict[str, tuple[Dataset, timedelta]] = {
    "at rest": (b.dataset(), timedelta(minutes=5)),
    "where work was started": (two(), timedelta(seconds=1)),
    "where work is under way": (two(work=(b.running(b.refresh()),)), timedelta(seconds=1)),
    "when what failed is due": (first(work=(b.failed(b.refresh()),)), timedelta(seconds=30)),
    "when the source is read again": (
        b.dataset(spec=EVERY, status=status(refreshed_at=b.NOW - 12 * MINUTE)),
        timedelta(minutes=3),
    ),
    "at rest while a suspended source should have been read": (
        b.dataset(spec=b.dataset_spec("v7", refresh={"every": "15m"}, suspend=True)),
        timedelta(minutes=5),
    ),
    "at rest though something failed that nobody wants": (
        b.dataset(work=(b.failed(b.embed("v8", 12, b.V8), wait=-b.HOUR),)),
        timedelta(minutes=5),
    ),
}


@pytest.mark.parametrize(("seen", "again"), LOOK_AGAIN.values(), ids=LOOK_AGAIN.keys())
def test_look_again(seen: Dataset, again: timedelta) -> None:
    assert dataset.plan(seen, b.NOW).look_again == again


# Deletion.


def deleted(ago: timedelta = MINUTE, **changes: Any) -> Dataset:
    return b.dataset(**{"deleting_since": b.NOW - ago, **changes})


USED = (
    "used by books, papers; the pinned recipes serve on; delete the deployments first, or wait 10m after the deletion "
    "for the resource to go and its store to stay"
)
DELETION: dict[str, tuple[Dataset, list[str], tuple[ConditionType, Reason, str], timedelta]] = {
    "in use: it waits for its users": (
        deleted(users=(b.user(), b.user("books"))),
        [],
        (STALLED, Reason.VERSION_IN_USE, USED),
        timedelta(seconds=10),
    ),
    "in use, shortly before the deadline": (
        deleted(timedelta(minutes=9, seconds=57), users=(b.user(), b.user("books"))),
        [],
        (STALLED, Reason.VERSION_IN_USE, USED),
        timedelta(seconds=3),
    ),
    "in use at the deadline: the resource goes, the store stays": (
        deleted(10 * MINUTE, users=(b.user(),)),
        ["RemoveFinalizer"],
        (RECONCILING, Reason.DELETING, "being removed"),
        timedelta(minutes=5),
    ),
    "not in use: the store is dropped": (
        deleted(),
        ["DropStore"],
        (RECONCILING, Reason.DELETING, "being removed"),
        timedelta(0),
    ),
    "work is stopped, and waited for": (
        deleted(work=(b.running(b.embed()),)),
        ["CancelWork"],
        (RECONCILING, Reason.DELETING, "being removed"),
        timedelta(seconds=1),
    ),
    "not for ever, nor for a store that cannot be dropped": (
        deleted(10 * MINUTE, work=(b.running(b.embed()),)),
        ["CancelWork", "RemoveFinalizer"],
        (RECONCILING, Reason.DELETING, "being removed"),
        timedelta(minutes=5),
    ),
    "the resource goes after the store": (
        deleted(snapshots=(), pins={}, embedded={}),
        ["RemoveFinalizer"],
        (RECONCILING, Reason.DELETING, "being removed"),
        timedelta(minutes=5),
    ),
    "an orphaned store stays": (
        deleted(spec=b.dataset_spec("v7", deletionPolicy="Orphan")),
        ["RemoveFinalizer"],
        (RECONCILING, Reason.DELETING, "being removed"),
        timedelta(minutes=5),
    ),
    "a dataset that is let go is let alone": (
        deleted(has_finalizer=False),
        [],
        (RECONCILING, Reason.DELETING, "gone"),
        timedelta(minutes=5),
    ),
}


@pytest.mark.parametrize(("seen", "wanted", "said", "again"), DELETION.values(), ids=DELETION.keys())
def test_deletion(seen: Dataset, wanted: list[str], said: tuple[ConditionType, Reason, str], again: timedelta) -> None:
    plan = dataset.plan(seen, b.NOW)

    assert (b.kinds(plan.actions), b.goal(plan.status), plan.look_again) == (wanted, said, again)


LEFT: dict[str, tuple[Dataset, str]] = {
    "a store that could not be dropped": (
        deleted(10 * MINUTE),
        "let go after 10m, leaving behind its documents and vectors in the store",
    ),
    "a store that is used": (
        deleted(10 * MINUTE, users=(b.user(), b.user("books"))),
        "let go after 10m, leaving behind its documents and vectors in the store, used by books, papers",
    ),
    "a store that is kept by policy is not left behind": (
        deleted(10 * MINUTE, spec=b.dataset_spec("v7", deletionPolicy="Orphan")),
        "",
    ),
    "no store": (deleted(10 * MINUTE, snapshots=(), pins={}, embedded={}), ""),
}


@pytest.mark.parametrize(("seen", "left"), LEFT.values(), ids=LEFT.keys())
def test_what_is_left_behind_at_the_deadline_is_said(seen: Dataset, left: str) -> None:
    assert dataset.plan(seen, b.NOW).actions == (actions.RemoveFinalizer(b.DATASET, left),)


def test_each_part_of_a_dataset_remembers_its_own_failures() -> None:
    tasks = (b.refresh(), b.embed("v7"), b.embed("v8", 12, b.V8), b.clean((), ()))

    assert len({task.subject for task in tasks}) == 4
    assert b.embed("v7", 11).subject == b.embed("v7", 12).subject
    assert isinstance(b.failed(tasks[0]).failure, Failure)
    assert isinstance(tasks[0], Refresh)
