"""What is planned for a deployment: the table of spec transitions, every failure, and every sentence."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from tests.plan import builders as b
from tests.plan import fleet

from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import Role, Stage, Verdict
from pointsman.plan import actions, deployment, facts
from pointsman.plan.facts import Facts
from pointsman.plan.observed import Deployment, Physical, Presence, Problem
from pointsman.plan.tasks import Probe, Side

READY, RECONCILING, STALLED = ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED


def plan_of(seen: Deployment) -> tuple[list[str], tuple[ConditionType, Reason, str]]:
    plan = deployment.plan(seen, b.NOW)
    return b.kinds(plan.actions), b.goal(plan.status)


def recorded(seen: Deployment) -> Facts:
    """Return the facts as they are after a plan."""
    plan = deployment.plan(seen, b.NOW)
    return next((a.facts for a in plan.actions if isinstance(a, actions.RecordFacts)), seen.facts)


def roles(known: Facts) -> list[tuple[str, str]]:
    return [(index.name, str(index.role)) for index in known.indexes]


def migrating(*indexes: facts.Index, **changes: Any) -> Deployment:
    """A deployment that serves v7 and wants v8."""
    return b.deployment(*(indexes or (b.serving(), b.candidate())), **{"spec": b.spec("v8"), **changes})


def complete(name: str = "v8", snapshot: int = 12) -> dict[str, Any]:
    """An index that is there and whole, as two of the fields of a deployment."""
    return {"records": {name: b.record(snapshot)}, "physical": {name: b.present(snapshot)}}


ELSEWHERE = (
    "spec.backend names empty:, which does not hold index v8, last found at memory:; change it back, or declare "
    "another IndexDeployment for empty:; v8 stays on the route"
)

# Each case: what was seen, the plan's actions, and what is said of the goal.
TRANSITIONS: dict[str, tuple[Deployment, list[str], tuple[ConditionType, Reason, str]]] = {
    "a deployment seen for the first time gets its finalizer": (
        b.deployment(fresh=True, has_finalizer=False),
        ["AddFinalizer"],
        (RECONCILING, Reason.ACCEPTED, "seen for the first time"),
    ),
    "a first deployment puts a candidate on the books and builds it": (
        b.deployment(fresh=True),
        ["RecordFacts", "StartWork Build v7@12"],
        (RECONCILING, Reason.BUILDING, "v7@12 is being built from stored vectors; nothing serves yet"),
    ),
    "a first index serves as soon as it is verified": (
        b.deployment(b.index("v7", Role.CANDIDATE), **complete("v7")),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "a first index serves at once though a newer snapshot is there, and follows to it": (
        b.deployment(b.index("v7", Role.CANDIDATE), **complete("v7", 11)),
        ["RecordFacts", "PublishRoute", "StartWork Follow v7@12"],
        (READY, Reason.UP_TO_DATE, "serving v7@11"),
    ),
    "the target serves and nothing is in flight": (
        b.deployment(),
        [],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "a lost status changes nothing, as roles come from the facts": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8")),
        [],
        (READY, Reason.UP_TO_DATE, "serving v8@12"),
    ),
    "a new target is put beside what serves": (
        b.deployment(spec=b.spec("v8")),
        ["RecordFacts", "StartWork Build v8@12"],
        (RECONCILING, Reason.BUILDING, "v8@12 is being built from stored vectors; serving v7 normally"),
    ),
    "a build says how far it has come": (
        migrating(work=(b.running(b.build(), done=40, total=112, rate=12.0),)),
        [],
        (
            RECONCILING,
            Reason.BUILDING,
            "v8@12 is being built from stored vectors (40 of 112 rows, 6s left); serving v7 normally",
        ),
    ),
    "a build that does not know its rate says no time": (
        migrating(work=(b.running(b.build(), done=0, total=112),)),
        [],
        (RECONCILING, Reason.BUILDING, "v8@12 is being built from stored vectors (0 of 112 rows); serving v7 normally"),
    ),
    "a verified candidate takes over in one switch": (
        migrating(**complete()),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.BURNING_IN, "serving v8@12, burning in for 24h"),
    ),
    "A to B to A before B is built: the work on B stops, B stays on the books": (
        b.deployment(b.serving(), b.candidate(), work=(b.running(b.build()),)),
        ["CancelWork"],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "A to B to A to B: the index left behind is finished, not made again": (
        migrating(),
        ["StartWork Build v8@12"],
        (RECONCILING, Reason.BUILDING, "v8@12 is being built from stored vectors; serving v7 normally"),
    ),
    "A to B to C while B is built: B stops and C is begun": (
        migrating(
            spec=b.spec("v9"),
            dataset=b.view(pins={**b.PINS, "v9": b.V9}, embedded={r.key: b.embedded(12) for r in (b.V7, b.V8, b.V9)}),
            work=(b.running(b.build()),),
        ),
        ["RecordFacts", "CancelWork", "StartWork Build v9@12"],
        (RECONCILING, Reason.BUILDING, "v9@12 is being built from stored vectors; serving v7 normally"),
    ),
    "a rollback to a retained, current index is one switch": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v7")),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "a rollback passes a suspended spec": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v7", suspend=True)),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "a rollback does not wait for a snapshot that what serves does not have either": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7"),
            records={n: b.record(11) for n in ("v7", "v8")},
            physical={n: b.present(11) for n in ("v7", "v8")},
        ),
        ["RecordFacts", "PublishRoute", "StartWork Follow v8@12", "StartWork Follow v7@12"],
        (READY, Reason.UP_TO_DATE, "serving v7@11"),
    ),
    "a rollback does not wait for what serves to end its move": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7"),
            records={"v7": b.record(11), "v8": b.record(11, pending=12)},
            physical={"v7": b.present(11)},
            work=(b.running(b.follow("v8", b.V8)),),
        ),
        ["RecordFacts", "PublishRoute", "StartWork Follow v7@12"],
        (READY, Reason.UP_TO_DATE, "serving v7@11"),
    ),
    "a rollback to an index that is behind catches up first": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), **complete("v7", 11)),
        ["StartWork Follow v7@12"],
        (RECONCILING, Reason.FOLLOWING, "v7 catches up with snapshot 12; serving v8 normally"),
    ),
    "a rollback passes what serves and is broken": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), physical={"v8": b.UNKNOWN}),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "a fix passes what serves and is broken": (
        migrating(**{**complete(), "physical": {"v8": b.present(), "v7": b.UNKNOWN}}),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.BURNING_IN, "serving v8@12, burning in for 24h"),
    ),
    "a candidate is not counted while it is loaded, and does not take over": (
        migrating(physical={"v8": b.UNCOUNTED}, work=(b.running(b.build()),)),
        [],
        (RECONCILING, Reason.BUILDING, "v8@12 is being built from stored vectors; serving v7 normally"),
    ),
    "an index that is being repaired is not counted, and does not take over": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7"),
            physical={"v7": b.UNCOUNTED},
            work=(b.running(b.repair()),),
        ),
        [],
        (RECONCILING, Reason.BUILDING, "v7 is being verified; serving v8 normally"),
    ),
    "and is not cheated by a move of what serves": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7"),
            dataset=b.view(
                snapshots=b.snapshots(10, 11, 12), embedded={r.key: b.embedded(10, 11, 12) for r in (b.V7, b.V8)}
            ),
            records={"v7": b.record(10), "v8": b.record(11, pending=12)},
            physical={"v7": b.present(10)},
            published=b.route("v8", b.V8, snapshot="11"),
            work=(b.running(b.follow("v8", b.V8)), b.running(b.follow(snapshot=12), done=3, total=9, rate=3.0)),
        ),
        [],
        (RECONCILING, Reason.FOLLOWING, "v7 catches up with snapshot 12 (3 of 9 rows, 2s left); serving v8 normally"),
    ),
    "an index that cannot catch up yet says how long and what would help": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7"),
            **complete("v7", 11),
            dataset=b.view(
                snapshots=b.snapshots(11, 12, at=b.NOW - timedelta(minutes=10, seconds=1)),
                embedded={b.V7.key: b.embedded(11), b.V8.key: b.embedded(11, 12)},
            ),
        ),
        [],
        (
            RECONCILING,
            Reason.FOLLOWING,
            "v7@11 is 10m behind, spec.maxLag is 5s; it catches up as soon as its snapshot is embedded; an "
            "Approval AcceptLag or a higher spec.maxLag switches at once; serving v8 normally",
        ),
    ),
    "an index within maxLag takes over as it is": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7", maxLag="1h"),
            **complete("v7", 11),
            dataset=b.view(snapshots=b.snapshots(11, 12, at=b.NOW - timedelta(minutes=10))),
        ),
        ["RecordFacts", "PublishRoute", "StartWork Follow v7@12"],
        (READY, Reason.UP_TO_DATE, "serving v7@11"),
    ),
    "a rollback to an index whose last move failed goes on where maxLag allows it": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7", maxLag="1000h"),
            **complete("v7", 11),
            work=(b.failed(b.follow(), generation=3, is_terminal=True),),
        ),
        ["RecordFacts", "PublishRoute"],
        (STALLED, Reason.BACKEND_UNREACHABLE, "qdrant:6334 does not answer; serving v7@11"),
    ),
    "a version that was retired is built again beside": (
        b.deployment(b.serving("v8", b.V8), b.retiring(), spec=b.spec("v7")),
        ["RecordFacts", "StartWork Build v7@12", "DeleteIndex"],
        (RECONCILING, Reason.BUILDING, "v7@12 is being built from stored vectors; serving v8 normally"),
    ),
    "index parameters edited: a new index of the same version beside": (
        b.deployment(parameters="p2"),
        ["RecordFacts", "StartWork Build v7@12"],
        (RECONCILING, Reason.BUILDING, "v7@12 is being built from stored vectors; serving v7 normally"),
    ),
    "a snapshot pinned: a frozen index is built beside": (
        b.deployment(spec=b.spec(snapshot=11)),
        ["RecordFacts", "StartWork Build v7@11"],
        (RECONCILING, Reason.BUILDING, "v7@11 is being built from stored vectors; serving v7 normally"),
    ),
    "a frozen index takes over, which is a wanted step back": (
        b.deployment(
            b.serving(), b.candidate("v7_2", b.V7, frozen=11), spec=b.spec(snapshot=11), **complete("v7_2", 11)
        ),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.UP_TO_DATE, "serving v7@11"),
    ),
    "a snapshot unpinned: the index that followed takes over in one switch": (
        b.deployment(
            b.serving("v7_2", frozen=11), b.retained(), **complete("v7_2", 11), published=b.route("v7_2", snapshot="11")
        ),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "a frozen index follows nothing": (
        b.deployment(
            b.serving(frozen=11), spec=b.spec(snapshot=11), **complete("v7", 11), published=b.route(snapshot="11")
        ),
        [],
        (READY, Reason.UP_TO_DATE, "serving v7@11"),
    ),
    "serving lost, one retained and healthy: shift to it at once, then rebuild": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), physical={"v8": b.ABSENT}),
        ["RecordFacts", "PublishRoute", "StartWork Build v8@12"],
        (RECONCILING, Reason.INDEX_LOST, "index v8 is gone from the database; serving v7 normally"),
    ),
    "serving lost, nothing retained: a new index is built beside the name that is gone": (
        b.deployment(physical={"v7": b.ABSENT}),
        ["RecordFacts", "StartWork Build v7@12"],
        (RECONCILING, Reason.INDEX_LOST, "index v7 is gone from the database; a new one is being built"),
    ),
    "serving lost under a suspended spec: it is built again all the same": (
        b.deployment(spec=b.spec(suspend=True), physical={"v7": b.ABSENT}),
        ["RecordFacts", "StartWork Build v7@12"],
        (RECONCILING, Reason.INDEX_LOST, "index v7 is gone from the database; a new one is being built"),
    ),
    "and takes over under a suspended spec": (
        b.deployment(
            b.serving(),
            b.candidate("v7_2", b.V7),
            spec=b.spec(suspend=True),
            records={"v7_2": b.record()},
            physical={"v7": b.ABSENT, "v7_2": b.present()},
        ),
        ["RecordFacts", "PublishRoute"],
        (RECONCILING, Reason.INDEX_LOST, "index v7 is gone from the database; serving v7 normally"),
    ),
    "serving lost and what is built instead fails": (
        b.deployment(
            b.serving(),
            b.candidate("v7_2", b.V7),
            physical={"v7": b.ABSENT},
            work=(b.failed(b.build("v7_2", b.V7), generation=3, is_terminal=True),),
        ),
        [],
        (STALLED, Reason.INDEX_LOST, "index v7 is gone from the database; qdrant:6334 does not answer"),
    ),
    "serving lost while a target is not embedded: nothing answers, and that is said": (
        b.deployment(spec=b.spec("v8"), physical={"v7": b.ABSENT}, dataset=b.view(embedded={b.V7.key: b.embedded(12)})),
        [],
        (
            RECONCILING,
            Reason.WAITING_FOR_DATASET,
            "v8 is not embedded yet; nothing answers, as index v7 is gone from the database",
        ),
    ),
    "serving lost with a retained one that is not whole: the retained one is not used": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v8"),
            physical={"v8": b.ABSENT},
            records={"v7": b.record(differences=3)},
        ),
        ["RecordFacts", "StartWork Repair v7@12", "StartWork Build v8@12"],
        (RECONCILING, Reason.INDEX_LOST, "index v8 is gone from the database; a new one is being built"),
    ),
    "another's collection in the place of what serves counts as lost": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), physical={"v8": b.FOREIGN}),
        ["RecordFacts", "PublishRoute", "StartWork Build v8@12"],
        (RECONCILING, Reason.INDEX_LOST, "index v8 is gone from the database; serving v7 normally"),
    ),
    "a retained index that is gone is forgotten": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), physical={"v7": b.ABSENT}),
        ["RecordFacts"],
        (READY, Reason.UP_TO_DATE, "serving v8@12"),
    ),
    "a candidate that was built and is gone is begun again under another name": (
        migrating(records={"v8": b.record()}, physical={"v8": b.ABSENT}),
        ["RecordFacts", "StartWork Build v8@12"],
        (RECONCILING, Reason.BUILDING, "v8@12 is being built from stored vectors; serving v7 normally"),
    ),
    "another's collection under the candidate's name stops it with a sentence": (
        migrating(physical={"v8": b.FOREIGN}),
        [],
        (
            STALLED,
            Reason.COLLECTION_FOREIGN,
            "collection v8 exists and is not ours; remove or rename it; serving v7 normally",
        ),
    ),
    "which is nobody's business once the candidate is not wanted": (
        b.deployment(b.serving(), b.candidate(), physical={"v8": b.FOREIGN}),
        [],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "nothing of ours is there any more: what serves is built again, what is retained is not forgotten yet": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), physical={"v7": b.ABSENT, "v8": b.ABSENT}),
        ["RecordFacts", "StartWork Build v8@12"],
        (RECONCILING, Reason.INDEX_LOST, "index v8 is gone from the database; a new one is being built"),
    ),
    "a database that was moved: the address is recorded, and told, once what serves is found there": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), address="new:"),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.UP_TO_DATE, "serving v8@12"),
    ),
    "a database that was moved without what is retained": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), address="new:", physical={"v7": b.ABSENT}),
        ["RecordFacts", "PublishRoute"],
        (READY, Reason.UP_TO_DATE, "serving v8@12"),
    ),
    "an address where nothing of ours is: nothing is forgotten, nothing is built, and the route stays": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7"),
            address="empty:",
            physical={"v7": b.ABSENT, "v8": b.ABSENT},
        ),
        [],
        (STALLED, Reason.INDEX_ELSEWHERE, ELSEWHERE),
    ),
    "an address where another's collection is in the place of what serves": (
        b.deployment(b.serving("v8", b.V8), spec=b.spec("v8"), address="empty:", physical={"v8": b.FOREIGN}),
        [],
        (STALLED, Reason.INDEX_ELSEWHERE, ELSEWHERE),
    ),
    "an address that does not answer for what serves yet": (
        b.deployment(address="new:", physical={"v7": b.UNKNOWN}),
        [],
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "index v7 could not be looked at: no answer; v7 stays on the route"),
    ),
    "an address edited before anything serves: the candidate is built there": (
        b.deployment(b.index("v7", Role.CANDIDATE), address="new:"),
        ["StartWork Build v7@12"],
        (RECONCILING, Reason.BUILDING, "v7@12 is being built from stored vectors; nothing serves yet"),
    ),
    "indexes of an earlier release, whose address nobody wrote down: it is, where they are found": (
        b.deployment(b.serving(address="")),
        ["RecordFacts"],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "a version removed from the dataset serves on, and a removed target is still one": (
        b.deployment(dataset=b.view(declared=("v8",))),
        [],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "a dataset that is gone lets the pinned recipe serve on": (
        b.deployment(dataset=b.view(exists=False, declared=())),
        [],
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "suspended before a new target": (
        b.deployment(spec=b.spec("v8", suspend=True)),
        [],
        (RECONCILING, Reason.SUSPENDED, "suspended by the spec before v8; serving v7 normally"),
    ),
    "suspended before anything serves": (
        b.deployment(fresh=True, spec=b.spec(suspend=True)),
        [],
        (RECONCILING, Reason.SUSPENDED, "suspended by the spec before v7; nothing serves yet"),
    ),
    "suspended while a candidate is built: it may not be built on, nor take over": (
        migrating(spec=b.spec("v8", suspend=True)),
        [],
        (RECONCILING, Reason.SUSPENDED, "suspended by the spec before v8; serving v7 normally"),
    ),
    "suspended with a candidate that is complete": (
        migrating(spec=b.spec("v8", suspend=True), **complete()),
        [],
        (RECONCILING, Reason.SUSPENDED, "suspended by the spec before v8; serving v7 normally"),
    ),
    "suspended at rest is ready, and follows": (
        b.deployment(spec=b.spec(suspend=True), **complete("v7", 11), published=b.route(snapshot="11")),
        ["StartWork Follow v7@12"],
        (READY, Reason.UP_TO_DATE, "serving v7@11"),
    ),
}


@pytest.mark.parametrize(("seen", "wanted", "said"), TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_transition(seen: Deployment, wanted: list[str], said: tuple[ConditionType, Reason, str]) -> None:
    assert plan_of(seen) == (wanted, said)


NO_TARGET: dict[str, tuple[Deployment, tuple[ConditionType, Reason, str]]] = {
    "the dataset is not there": (
        b.deployment(fresh=True, dataset=b.view(exists=False, pins={}, declared=(), snapshots=(), embedded={})),
        (STALLED, Reason.DATASET_NOT_FOUND, "dataset papers is not there; nothing serves yet"),
    ),
    "the version is not declared": (
        b.deployment(spec=b.spec("v99")),
        (
            STALLED,
            Reason.VERSION_NOT_FOUND,
            "dataset papers declares no version v99, only v7, v8; serving v7 normally",
        ),
    ),
    "the version is declared and not pinned yet": (
        b.deployment(spec=b.spec("v9"), dataset=b.view(declared=("v7", "v9"))),
        (RECONCILING, Reason.WAITING_FOR_DATASET, "v9 is not embedded yet; serving v7 normally"),
    ),
    "the version is being embedded": (
        b.deployment(
            spec=b.spec("v8"), dataset=b.view(embedded={b.V7.key: b.embedded(12)}, progress="40 of 112 texts")
        ),
        (RECONCILING, Reason.WAITING_FOR_DATASET, "v8 is not embedded yet (40 of 112 texts); serving v7 normally"),
    ),
    "the dataset is stalled": (
        b.deployment(spec=b.spec("v8"), dataset=b.view(embedded={}, stalled="2 rows have no id")),
        (STALLED, Reason.WAITING_FOR_DATASET, "dataset papers cannot go on: 2 rows have no id; serving v7 normally"),
    ),
    "the pinned snapshot is not there": (
        b.deployment(spec=b.spec(snapshot=9), dataset=b.view(snapshots=b.snapshots(3, 4, 5, 7, 11, 12))),
        (
            STALLED,
            Reason.SNAPSHOT_NOT_FOUND,
            "dataset papers has no snapshot 9, only 3 to 5, 7, 11 to 12; serving v7 normally",
        ),
    ),
    "the pinned snapshot is there and not embedded": (
        b.deployment(spec=b.spec("v8", snapshot=11), dataset=b.view(embedded={b.V8.key: b.embedded(12)})),
        (RECONCILING, Reason.WAITING_FOR_DATASET, "v8@11 is not embedded yet; serving v7 normally"),
    ),
    "a snapshot is pinned before there is any": (
        b.deployment(fresh=True, spec=b.spec(snapshot=1), dataset=b.view(snapshots=(), embedded={})),
        (RECONCILING, Reason.WAITING_FOR_DATASET, "v7@1 is not embedded yet; nothing serves yet"),
    ),
}


@pytest.mark.parametrize(("seen", "said"), NO_TARGET.values(), ids=NO_TARGET.keys())
def test_without_a_target_nothing_moves_and_the_reason_is_said(
    seen: Deployment, said: tuple[ConditionType, Reason, str]
) -> None:
    assert plan_of(seen) == ([], said)


WORK: dict[str, tuple[Deployment, list[str]]] = {
    "an index behind moves by difference": (
        b.deployment(**complete("v7", 11), published=b.route(snapshot="11")),
        ["StartWork Follow v7@12"],
    ),
    "an index whose snapshot was cleaned up is compared instead": (
        b.deployment(
            **complete("v7", 11), published=b.route(snapshot="11"), dataset=b.view(embedded={b.V7.key: b.embedded(12)})
        ),
        ["StartWork Build v7@12"],
    ),
    "so is one that differs from a snapshot that was cleaned up": (
        b.deployment(
            records={"v7": b.record(11, differences=2)},
            published=b.route(snapshot="11"),
            dataset=b.view(embedded={b.V7.key: b.embedded(12)}),
        ),
        ["StartWork Build v7@12"],
    ),
    "so is one whose move was cut short on the way from a snapshot that was cleaned up": (
        b.deployment(
            records={"v7": b.record(11, pending=12)},
            published=b.route(snapshot="11"),
            dataset=b.view(embedded={b.V7.key: b.embedded(12)}),
        ),
        ["StartWork Build v7@12"],
    ),
    "a move that was cut short is finished to where it went": (
        b.deployment(
            records={"v7": b.record(10, pending=11)},
            published=b.route(snapshot="10"),
            dataset=b.view(embedded={b.V7.key: b.embedded(10, 11, 12)}),
        ),
        ["StartWork Follow v7@11"],
    ),
    "a move to a snapshot that is gone is mended by comparison": (
        b.deployment(
            records={"v7": b.record(10, pending=11)},
            published=b.route(snapshot="10"),
            dataset=b.view(embedded={b.V7.key: b.embedded(10, 12)}),
        ),
        ["StartWork Build v7@12"],
    ),
    "rows that differ are repaired before anything else": (
        b.deployment(records={"v7": b.record(11, differences=2)}, published=b.route(snapshot="11")),
        ["StartWork Repair v7@11"],
    ),
    "a count that differs is a reason to compare": (
        b.deployment(physical={"v7": Physical(Presence.PRESENT, 111)}),
        ["StartWork Check v7@12"],
    ),
    "a check is due an hour after the last": (
        b.deployment(records={"v7": b.record(checked_at=b.NOW - b.HOUR)}),
        ["StartWork Check v7@12"],
    ),
    "a check is due an hour after the index was verified": (
        b.deployment(records={"v7": b.record(checked_at=None, verified_at=b.NOW - b.HOUR)}),
        ["StartWork Check v7@12"],
    ),
    "a check is not due before": (
        b.deployment(records={"v7": b.record(checked_at=b.NOW - b.HOUR + timedelta(seconds=1))}),
        [],
    ),
    "a retained index is checked too": (
        b.deployment(
            b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), records={"v7": b.record(checked_at=b.OLD)}
        ),
        ["StartWork Check v7@12"],
    ),
    "a candidate left behind is not checked": (
        b.deployment(
            b.serving(), b.candidate(), records={"v8": b.record(checked_at=b.OLD)}, physical={"v8": b.present()}
        ),
        [],
    ),
    "a candidate left behind does not follow": (
        b.deployment(b.serving(), b.candidate(), **complete("v8", 11)),
        [],
    ),
    "a retained index follows": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), **complete("v7", 11)),
        ["StartWork Follow v7@12"],
    ),
    "nothing is started on an index that is worked on": (
        b.deployment(**complete("v7", 11), published=b.route(snapshot="11"), work=(b.running(b.follow()),)),
        [],
    ),
    "nothing is started on an index that could not be looked at": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v8"),
            **{**complete("v7", 11), "physical": {"v7": b.UNKNOWN}},
        ),
        [],
    ),
    "what has served and lost its record is verified where it is": (
        b.deployment(records={"v7": None}),
        ["StartWork Build v7@12"],
    ),
    "what has served and lost its record is not made again under its name": (
        b.deployment(records={"v7": None}, physical={"v7": b.ABSENT}),
        ["RecordFacts", "StartWork Build v7@12"],
    ),
    "a retained index of a version without any snapshot is left as it is": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v8"),
            dataset=b.view(embedded={b.V8.key: b.embedded(11, 12)}),
            **complete("v7", 11),
        ),
        [],
    ),
    "what failed is not tried again before its time": (
        b.deployment(
            **complete("v7", 11), published=b.route(snapshot="11"), work=(b.failed(b.follow(), generation=3),)
        ),
        [],
    ),
    "what failed is tried again when its time has come": (
        b.deployment(
            **complete("v7", 11),
            published=b.route(snapshot="11"),
            work=(b.failed(b.follow(), generation=3, wait=timedelta(0)),),
        ),
        ["StartWork Follow v7@12"],
    ),
    "what failed is tried again when the spec was edited": (
        b.deployment(
            **complete("v7", 11), published=b.route(snapshot="11"), work=(b.failed(b.follow(), generation=2),)
        ),
        ["StartWork Follow v7@12"],
    ),
    "what failed is tried again when its dataset was edited": (
        b.deployment(
            **complete("v7", 11),
            dataset=b.view(generation=1),
            published=b.route(snapshot="11"),
            work=(b.failed(b.follow(), generation=3),),
        ),
        ["StartWork Follow v7@12"],
    ),
    "what ended well is no reason to wait": (
        b.deployment(**complete("v7", 11), published=b.route(snapshot="11"), work=(b.done(b.follow(snapshot=11)),)),
        ["StartWork Follow v7@12"],
    ),
}


@pytest.mark.parametrize(("seen", "wanted"), WORK.values(), ids=WORK.keys())
def test_work(seen: Deployment, wanted: list[str]) -> None:
    assert plan_of(seen)[0] == wanted


@pytest.mark.parametrize("is_terminal", [False, True], ids=["that passes", "that only an edit can mend"])
@pytest.mark.parametrize(
    "reason", [Reason.BACKEND_REJECTED, Reason.BACKEND_UNSUPPORTED, Reason.INDEX_DIFFERS, Reason.WORK_LOST]
)
def test_a_failed_build_says_why_and_what_serves(reason: Reason, is_terminal: bool) -> None:
    failed = b.failed(b.build(), generation=3, reason=reason, message="the disk is full", is_terminal=is_terminal)

    wanted, said = plan_of(migrating(work=(failed,)))

    assert wanted == []
    assert said == (STALLED if is_terminal else RECONCILING, reason, "the disk is full; serving v7 normally")


def test_a_failure_is_said_on_while_it_is_tried_again() -> None:
    again = b.running(b.build(), failure=b.failure(message="the disk is full"))

    assert plan_of(migrating(work=(again,)))[1][2] == "the disk is full; serving v7 normally"


BROKEN = Physical(Presence.UNKNOWN, problem=Problem(Reason.BACKEND_REJECTED, "the segment is corrupt", True))
SAID: dict[str, tuple[Deployment, tuple[ConditionType, Reason, str]]] = {
    "what failed of what serves takes ready away": (
        b.deployment(**complete("v7", 11), work=(b.failed(b.follow(), generation=3),)),
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "qdrant:6334 does not answer; serving v7@11"),
    ),
    "what failed of a candidate that is not wanted does not": (
        b.deployment(b.serving(), b.candidate(), work=(b.failed(b.build(), is_terminal=True),)),
        (READY, Reason.UP_TO_DATE, "serving v7@12"),
    ),
    "what failed of a retained index does not": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v8"),
            **complete("v7", 11),
            work=(b.failed(b.follow(), generation=3, is_terminal=True),),
        ),
        (READY, Reason.UP_TO_DATE, "serving v8@12"),
    ),
    "what failed of what serves does not stop the next version, and is not called normal": (
        migrating(work=(b.failed(b.check(), generation=3, is_terminal=True), b.running(b.build()))),
        (RECONCILING, Reason.BUILDING, "v8@12 is being built from stored vectors; serving v7@12"),
    ),
    "rows that differ": (
        b.deployment(records={"v7": b.record(differences=1234)}),
        (RECONCILING, Reason.INDEX_DIFFERS, "1,234 rows of v7 differ from its snapshot; they are being repaired"),
    ),
    "a count that differs": (
        b.deployment(physical={"v7": Physical(Presence.PRESENT, 111)}),
        (RECONCILING, Reason.INDEX_DIFFERS, "v7 holds 111 rows, its snapshot 112; it is being compared"),
    ),
    "a count that differs while it is compared": (
        b.deployment(physical={"v7": Physical(Presence.PRESENT, 111)}, work=(b.running(b.check()),)),
        (RECONCILING, Reason.INDEX_DIFFERS, "v7 holds 111 rows, its snapshot 112; it is being compared"),
    ),
    "what serves is broken while another version is built: the way out goes on": (
        migrating(physical={"v7": BROKEN}, work=(b.running(b.build()),)),
        (RECONCILING, Reason.BUILDING, "v8@12 is being built from stored vectors; v7 stays on the route"),
    ),
    "a target that is broken": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), physical={"v7": BROKEN}),
        (
            STALLED,
            Reason.BACKEND_REJECTED,
            "index v7 could not be looked at: the segment is corrupt; serving v8 normally",
        ),
    ),
    "a count that differs because the index moves": (
        b.deployment(
            records={"v7": b.record(11, pending=12)},
            physical={"v7": Physical(Presence.PRESENT, 111)},
            work=(b.running(b.follow()),),
        ),
        (READY, Reason.UP_TO_DATE, "serving v7"),
    ),
    "a retained index that is verified before it takes over": (
        b.deployment(
            b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), physical={"v7": Physical(Presence.PRESENT, 111)}
        ),
        (RECONCILING, Reason.BUILDING, "v7 is being verified; serving v8 normally"),
    ),
    "a target that the database does not answer for": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), physical={"v7": b.UNKNOWN}),
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "index v7 could not be looked at: no answer; serving v8 normally"),
    ),
    "what serves and the database does not answer for": (
        b.deployment(physical={"v7": b.UNKNOWN}),
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "index v7 could not be looked at: no answer; v7 stays on the route"),
    ),
    "a problem that passes": (
        b.deployment(physical={"v7": None}, problem=Problem(Reason.BACKEND_UNREACHABLE, "no answer", False)),
        (RECONCILING, Reason.BACKEND_UNREACHABLE, "no answer"),
    ),
    "a problem that only an edit can mend": (
        b.deployment(physical={"v7": None}, problem=Problem(Reason.SECRET_NOT_FOUND, "no Secret pg", True)),
        (STALLED, Reason.SECRET_NOT_FOUND, "no Secret pg"),
    ),
}


@pytest.mark.parametrize(("seen", "said"), SAID.values(), ids=SAID.keys())
def test_what_is_said(seen: Deployment, said: tuple[ConditionType, Reason, str]) -> None:
    assert plan_of(seen)[1] == said


# Conditions beside the goal.

AVAILABLE: dict[str, tuple[Deployment, tuple[str, Reason, str]]] = {
    "nothing serves": (b.deployment(fresh=True), ("False", Reason.NOTHING_SERVES, "no index serves yet")),
    "an index serves": (b.deployment(), ("True", Reason.SERVING, "serving v7 from v7")),
    "what serves is gone": (
        b.deployment(physical={"v7": b.ABSENT}),
        ("False", Reason.INDEX_LOST, "index v7 is gone from the database"),
    ),
    "what serves is another's": (
        b.deployment(physical={"v7": b.FOREIGN}),
        ("False", Reason.INDEX_LOST, "index v7 is gone from the database"),
    ),
    "the database does not answer": (
        b.deployment(physical={"v7": b.UNKNOWN}),
        ("Unknown", Reason.BACKEND_UNREACHABLE, "index v7 could not be looked at"),
    ),
    "the database's Secret is gone": (
        b.deployment(physical={"v7": None}, problem=Problem(Reason.SECRET_NOT_FOUND, "no Secret pg", True)),
        ("Unknown", Reason.SECRET_NOT_FOUND, "index v7 could not be looked at"),
    ),
}


@pytest.mark.parametrize(("seen", "said"), AVAILABLE.values(), ids=AVAILABLE.keys())
def test_available(seen: Deployment, said: tuple[str, Reason, str]) -> None:
    assert b.said(deployment.plan(seen, b.NOW).status, ConditionType.AVAILABLE) == said


def rolled(**changes: Any) -> Deployment:
    return b.deployment(b.serving("v8", b.V8), b.retained(), **{"spec": b.spec("v8"), **changes})


PROBE = Probe(b.DEPLOYMENT, "papers", Side("v7", "v7", b.V7.key))
MOVING: dict[str, Any] = {
    "records": {"v7": b.record(11, pending=12)},
    "physical": {"v7": b.UNCOUNTED},
    "work": (b.running(b.follow()),),
}
ROLLBACK: dict[str, tuple[Deployment, tuple[str, Reason, str], tuple[bool, str, str] | None]] = {
    "nothing is retained": (
        b.deployment(),
        ("False", Reason.NOTHING_RETAINED, "there is no earlier index to go back to"),
        None,
    ),
    "a retained index is current": (
        rolled(),
        ("True", Reason.RETAINED_INDEX_IS_CURRENT, "v7@12 is complete and current; going back is one switch"),
        (True, "v7", "1s"),
    ),
    "a retained index is behind what serves": (
        rolled(**complete("v7", 11)),
        ("False", Reason.RETAINED_INDEX_IS_BEHIND, "v7@11 has to catch up before it could serve"),
        (False, "v7", ""),
    ),
    "a retained index is behind though it has all that its version has": (
        rolled(**complete("v7", 11), dataset=b.view(embedded={b.V7.key: b.embedded(11), b.V8.key: b.embedded(12)})),
        ("False", Reason.RETAINED_INDEX_IS_BEHIND, "v7@11 has to catch up before it could serve"),
        (False, "v7", ""),
    ),
    "a retained index whose move failed": (
        rolled(**complete("v7", 11), work=(b.failed(b.follow(), generation=3),)),
        (
            "False",
            Reason.RETAINED_INDEX_IS_BEHIND,
            "v7@11 has to catch up before it could serve; qdrant:6334 does not answer",
        ),
        (False, "v7", ""),
    ),
    "a retained index moves on, within maxLag: that is no news": (
        rolled(**MOVING, dataset=b.view(snapshots=b.snapshots(11, 12, at=b.NOW - timedelta(seconds=6)))),
        ("True", Reason.RETAINED_INDEX_IS_CURRENT, "v7@11 is complete and current; going back is one switch"),
        (True, "v7", "1s"),
    ),
    "a retained index moves on beside what serves: that is no news either": (
        rolled(
            records={"v7": b.record(11, pending=12), "v8": b.record(11, pending=12)},
            physical={"v7": b.UNCOUNTED, "v8": b.UNCOUNTED},
            work=(b.running(b.follow()), b.running(b.follow("v8", b.V8))),
        ),
        ("True", Reason.RETAINED_INDEX_IS_CURRENT, "v7@11 is complete and current; going back is one switch"),
        (True, "v7", "1s"),
    ),
    "a retained index moves on for longer than maxLag": (
        rolled(**MOVING, dataset=b.view(snapshots=b.snapshots(11, 12, at=b.NOW - timedelta(seconds=7)))),
        ("False", Reason.RETAINED_INDEX_IS_BEHIND, "v7@11 has to catch up before it could serve"),
        (False, "v7", ""),
    ),
    "a retained index differs": (
        rolled(records={"v7": b.record(differences=3)}),
        ("False", Reason.INDEX_DIFFERS, "v7@12 differs from its snapshot; it is repaired before it could serve"),
        (False, "v7", ""),
    ),
    "a retained index holds another number of rows": (
        rolled(physical={"v7": Physical(Presence.PRESENT, 111)}),
        ("False", Reason.INDEX_DIFFERS, "v7@12 differs from its snapshot; it is repaired before it could serve"),
        (False, "v7", ""),
    ),
    "a retained index could not be looked at": (
        rolled(physical={"v7": b.UNKNOWN}),
        ("Unknown", Reason.BACKEND_UNREACHABLE, "v7@12 could not be looked at"),
        (False, "v7", ""),
    ),
    "the database could not be reached": (
        rolled(physical={"v7": None, "v8": None}, problem=Problem(Reason.SECRET_NOT_FOUND, "no Secret pg", True)),
        ("Unknown", Reason.SECRET_NOT_FOUND, "v7@12 could not be looked at"),
        (False, "v7", ""),
    ),
    "a retained index is gone with all the others": (
        rolled(physical={"v7": b.ABSENT, "v8": b.ABSENT}),
        ("False", Reason.INDEX_LOST, "index v7 is gone from the database"),
        (False, "v7", ""),
    ),
    "a retained index was asked and does not answer": (
        rolled(probes={"v7": b.probe(answered=15)}),
        (
            "False",
            Reason.RETAINED_INDEX_DOES_NOT_ANSWER,
            "v7@12 is kept, but was asked and does not answer: it answered 15 of 16 fixed queries",
        ),
        (False, "v7", ""),
    ),
    "the model of a retained index has changed": (
        rolled(probes={"v7": b.probe(model_distance=0.2)}),
        (
            "False",
            Reason.RETAINED_INDEX_DOES_NOT_ANSWER,
            "v7@12 is kept, but was asked and does not answer: its model has changed: the pinned texts moved by "
            "0.2000, 0.01 is allowed",
        ),
        (False, "v7", ""),
    ),
    "how far the model of a retained index has moved is not a number": (
        rolled(probes={"v7": b.probe(model_distance=float("nan"))}),
        (
            "False",
            Reason.RETAINED_INDEX_DOES_NOT_ANSWER,
            "v7@12 is kept, but was asked and does not answer: its model has changed: the pinned texts moved by nan, "
            "0.01 is allowed",
        ),
        (False, "v7", ""),
    ),
    "the model of a retained index cannot be reached": (
        rolled(work=(b.failed(PROBE),)),
        (
            "False",
            Reason.RETAINED_INDEX_DOES_NOT_ANSWER,
            "v7@12 is kept, but was asked and does not answer: " + b.failure().message,
        ),
        (False, "v7", ""),
    ),
    "what another index answered says nothing": (
        rolled(probes={"v9": b.probe("v9", answered=0)}, work=(b.running(PROBE),)),
        ("True", Reason.RETAINED_INDEX_IS_CURRENT, "v7@12 is complete and current; going back is one switch"),
        (True, "v7", "1s"),
    ),
    "a retained index says when it will have caught up": (
        rolled(**complete("v7", 11), work=(b.running(b.follow(), done=10, total=40, rate=10.0),)),
        ("False", Reason.RETAINED_INDEX_IS_BEHIND, "v7@11 has to catch up before it could serve"),
        (False, "v7", "3s"),
    ),
}


@pytest.mark.parametrize(("seen", "said", "rollback"), ROLLBACK.values(), ids=ROLLBACK.keys())
def test_rollback_ready(
    seen: Deployment, said: tuple[str, Reason, str], rollback: tuple[bool, str, str] | None
) -> None:
    status = deployment.plan(seen, b.NOW).status

    assert b.said(status, ConditionType.ROLLBACK_READY) == said
    found = status.rollback
    assert (None if found is None else (found.ready, found.to, found.estimate)) == rollback


UNASKED: dict[str, Any] = {
    "dataset": b.view(embedded={b.V7.key: b.embedded(12), b.V8.key: (b.embedded_at(1),)}),
}
PROBED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "never asked": ({"probes": {}}, ["StartWork Probe"]),
    "asked lately": ({}, []),
    "asked an hour ago": ({"probes": {"v7": b.probe(measured_at=b.NOW - b.HOUR)}}, ["StartWork Probe"]),
    "another index was asked": ({"probes": {"v9": b.probe("v9")}}, ["StartWork Probe"]),
    "it is being asked": ({"probes": {}, "work": (b.running(PROBE),)}, []),
    "it failed just now": ({"probes": {}, "work": (b.failed(PROBE, generation=3),)}, []),
    "it failed, and the dataset was edited": (
        {"probes": {}, "dataset": b.view(generation=1), "work": (b.failed(PROBE, generation=3),)},
        ["StartWork Probe"],
    ),
    "it is not there": ({"probes": {}, "physical": {"v7": b.UNKNOWN}}, []),
    "the model of what serves was asked an hour ago, when it was embedded": (UNASKED, ["StartWork Probe"]),
    "the model of what serves was asked lately": (UNASKED | {"probes": {n: b.probe(n) for n in ("v7", "v8")}}, []),
    "the model of what serves is asked again after an hour": (
        UNASKED | {"probes": {"v7": b.probe(), "v8": b.probe("v8", measured_at=b.NOW - b.HOUR)}},
        ["StartWork Probe"],
    ),
    "an evaluation has asked the model of what serves": (
        UNASKED | {"evaluation": fleet.evaluation(model_distance=0.0)},
        [],
    ),
    "whatever was found at what is kept, what serves is asked by itself": (
        UNASKED | {"work": (b.failed(PROBE, generation=3),)},
        ["StartWork Probe"],
    ),
    "what serves is not there": (UNASKED | {"physical": {"v8": b.UNKNOWN}}, []),
}


@pytest.mark.parametrize(("changes", "wanted"), PROBED.values(), ids=PROBED.keys())
def test_the_index_that_a_rollback_leads_to_is_asked_as_often_as_it_is_compared(
    changes: dict[str, Any], wanted: list[str]
) -> None:
    assert b.kinds(deployment.plan(rolled(**changes), b.NOW).actions) == wanted


def test_what_serves_is_asked_though_nothing_is_kept_beside_it() -> None:
    seen = b.deployment(dataset=b.view(embedded={b.V7.key: (b.embedded_at(1),)}))

    (asked,) = deployment.plan(seen, b.NOW).actions

    assert isinstance(asked, actions.StartWork) and asked.task == PROBE


def test_a_deployment_without_an_evaluation_says_that_the_model_of_what_serves_has_changed() -> None:
    seen = b.deployment(probes={"v7": b.probe(model_distance=0.4, measured_at=b.NOW - timedelta(minutes=5))})

    status = deployment.plan(seen, b.NOW).status

    assert b.said(status, ConditionType.READY) == (
        "True",
        Reason.GATE_FAILED,
        "serving v7@12, but model: the model has changed: its pinned texts moved by 0.4000, 0.01 is allowed",
    )
    assert [(g.verdict, g.measured_at) for g in status.gates if g.name == "model"] == [
        (Verdict.FAILED, b.NOW - timedelta(minutes=5))
    ]


def test_a_rollback_leads_to_what_served_last_and_says_until_when() -> None:
    seen = rolled(
        facts=Facts(
            (
                b.retained("v9", b.V9, since=b.NOW - 2 * b.DAY),
                b.serving("v8", b.V8),
                b.retained(since=b.NOW - b.HOUR),
                b.retained("v7_0", since=None),
            ),
            made=4,
            route=3,
        )
    )

    found = deployment.plan(seen, b.NOW).status.rollback

    assert found is not None
    assert (found.to, found.until) == ("v7", b.NOW - b.HOUR + timedelta(hours=336))


def test_a_rollback_without_a_time_has_no_end() -> None:
    seen = b.deployment(b.serving("v8", b.V8), b.retained(since=None), spec=b.spec("v8"))

    found = deployment.plan(seen, b.NOW).status.rollback

    assert found is not None and found.until is None


def test_the_status_of_a_deployment_at_rest() -> None:
    seen = b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"))

    status = deployment.plan(seen, b.NOW).status

    assert (status.observed_generation, status.phase) == (3, "Serving")
    assert (status.serving_version, status.target_version, status.weight) == ("v8", "v8", "v8 100")
    assert status.route is not None and status.route.revision == 1
    assert [(entry.index, entry.weight) for entry in status.route.entries] == [("v7", 0), ("v8", 100)]
    assert [(i.name, i.role, i.rows, i.digest) for i in status.indexes] == [
        ("v8", Role.SERVING, 112, "d12"),
        ("v7", Role.RETAINED, 112, "d12"),
    ]
    assert {c.observed_generation for c in status.conditions} == {3}


def test_a_status_lists_no_more_indexes_than_it_has_room_for_the_most_important_ones() -> None:
    old = [b.retained(f"v7_{n}", since=b.NOW - b.HOUR - n * timedelta(seconds=1)) for n in range(70)]
    seen = b.deployment(b.retiring("v9", b.V9), b.candidate(), *old, b.serving(), spec=b.spec(maxLag="1h"))

    listed = deployment.plan(seen, b.NOW).status.indexes

    assert [i.name for i in listed] == ["v7", *(f"v7_{n}" for n in range(63))]


STEPS: dict[str, tuple[Deployment, str]] = {
    "at rest": (b.deployment(), ""),
    "the target is not embedded yet": (b.deployment(spec=b.spec("v8"), dataset=b.view(embedded={})), "Embed"),
    "the target was never declared": (b.deployment(spec=b.spec("v99")), ""),
    "a build begins": (b.deployment(spec=b.spec("v8")), "Build"),
    "a build is under way": (migrating(work=(b.running(b.build()),)), "Build"),
    "a build failed": (migrating(work=(b.failed(b.build(), generation=3),)), "Build"),
    "the spec is suspended": (migrating(spec=b.spec("v8", suspend=True)), ""),
    "a retained index catches up": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), **complete("v7", 11)),
        "Follow",
    ),
    "a retained index waits for its snapshot": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v7"),
            **complete("v7", 11),
            dataset=b.view(embedded={b.V7.key: b.embedded(11), b.V8.key: b.embedded(11, 12)}),
        ),
        "Follow",
    ),
    "a retained index is compared": (
        b.deployment(
            b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), physical={"v7": Physical(Presence.PRESENT, 111)}
        ),
        "Verify",
    ),
    "a retained index is repaired": (
        b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), records={"v7": b.record(differences=3)}),
        "Verify",
    ),
    "the switch is over when it is said": (migrating(**complete()), "BurnIn"),
    "an index is removed": (b.deployment(b.serving("v8", b.V8), b.retiring(), spec=b.spec("v8")), "Retire"),
    "what serves follows, which is routine": (
        b.deployment(**complete("v7", 11), published=b.route(snapshot="11"), work=(b.running(b.follow()),)),
        "",
    ),
}


@pytest.mark.parametrize(("seen", "step"), STEPS.values(), ids=STEPS.keys())
def test_the_step_is_the_one_under_way(seen: Deployment, step: str) -> None:
    found = deployment.plan(seen, b.NOW).status.step

    assert ("" if found is None else found.name) == step


def test_every_step_there_is_can_be_said() -> None:
    assert {step for _, step in STEPS.values()} - {""} <= {str(stage) for stage in Stage}


def test_the_phase_is_a_word_for_people() -> None:
    assert deployment.plan(migrating(), b.NOW).status.phase == "Building"
    assert deployment.plan(b.deployment(spec=b.spec("v99")), b.NOW).status.phase == "Stalled"


def test_the_status_shows_how_far_a_build_has_come() -> None:
    seen = migrating(work=(b.running(b.build(), done=40, total=112, rate=1234.0),))

    (index,) = [i for i in deployment.plan(seen, b.NOW).status.indexes if i.name == "v8"]

    assert index.cursor is None and index.progress is not None
    assert (index.progress.done, index.progress.total, index.progress.unit) == (40, 112, "rows")
    assert (index.progress.rate, index.progress.remaining) == ("1,200/s", "0s")


def test_a_switch_is_written_down() -> None:
    known = recorded(migrating(**complete()))

    assert roles(known) == [("v7", "Retained"), ("v8", "Serving")]
    assert (known.route, known.history) == (2, (facts.Promotion("v8", "v8", 12, b.NOW),))
    assert {index.since for index in known.indexes} == {b.NOW}


def test_a_lost_index_is_not_retained() -> None:
    seen = b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), physical={"v8": b.ABSENT})

    assert [(i.version, i.role) for i in recorded(seen).indexes] == [("v7", Role.SERVING), ("v8", Role.CANDIDATE)]


def test_where_an_index_was_found_is_written_down() -> None:
    seen = b.deployment(b.serving("v8", b.V8), b.retained(), spec=b.spec("v8"), address="new:")

    assert {index.address for index in recorded(seen).indexes} == {"new:"}
    assert recorded(dataclasses.replace(seen, physical={"v8": b.present()})).get("v7") == b.retained()


def test_what_is_retained_is_not_forgotten_at_one_look_at_an_empty_database() -> None:
    seen = b.deployment(
        b.serving("v8", b.V8), b.retained(), spec=b.spec("v7"), physical={"v7": b.ABSENT, "v8": b.ABSENT}
    )

    assert roles(recorded(seen))[:2] == [("v8", "Serving"), ("v7", "Retained")]
    assert [(i.version, i.role) for i in recorded(seen).indexes][2:] == [("v7", Role.CANDIDATE)]


def test_of_several_retained_ones_the_last_takes_over_for_a_lost_one() -> None:
    seen = b.deployment(
        b.retained("v9", b.V9), b.retained(), b.serving("v8", b.V8), spec=b.spec("v8"), physical={"v8": b.ABSENT}
    )

    assert [(i.version, i.role) for i in recorded(seen).indexes][0:2] == [("v9", Role.RETAINED), ("v7", Role.SERVING)]


def test_names_are_never_used_again() -> None:
    seen = b.deployment(physical={"v7": b.ABSENT})

    known = recorded(seen)

    assert (known.made, len({index.name for index in known.indexes})) == (2, 2)


def test_facts_are_recorded_after_the_revision_that_was_seen_and_before_what_follows() -> None:
    plan = deployment.plan(migrating(**complete()), b.NOW)

    first, second = plan.actions
    assert isinstance(first, actions.RecordFacts) and first.after == 5
    assert isinstance(second, actions.PublishRoute)
    assert dict(second.data) == b.route("v8", b.V8, routeRevision="2")


# Retirement.

LONG_AGO = b.NOW - timedelta(hours=336)
RETIREMENT: dict[str, tuple[Deployment, list[str], list[tuple[str, str]]]] = {
    "an index is recorded as retiring when its retention has passed, and not yet deleted": (
        b.deployment(b.serving("v8", b.V8), b.retained(since=LONG_AGO), spec=b.spec("v8")),
        ["RecordFacts"],
        [("v8", "Serving"), ("v7", "Retiring")],
    ),
    "not a second earlier": (
        b.deployment(b.serving("v8", b.V8), b.retained(since=LONG_AGO + timedelta(seconds=1)), spec=b.spec("v8")),
        [],
        [("v8", "Serving"), ("v7", "Retained")],
    ),
    "what is recorded as retiring is deleted": (
        b.deployment(b.serving("v8", b.V8), b.retiring(), spec=b.spec("v8")),
        ["DeleteIndex"],
        [("v8", "Serving"), ("v7", "Retiring")],
    ),
    "one at a time": (
        b.deployment(b.serving("v8", b.V8), b.retiring(), b.retiring("v9", b.V9), spec=b.spec("v8")),
        ["DeleteIndex"],
        [("v8", "Serving"), ("v7", "Retiring"), ("v9", "Retiring")],
    ),
    "what was deleted is forgotten": (
        b.deployment(b.serving("v8", b.V8), b.retiring(), spec=b.spec("v8"), physical={"v7": b.ABSENT}),
        ["RecordFacts"],
        [("v8", "Serving")],
    ),
    "what was replaced by another's is forgotten, not deleted": (
        b.deployment(b.serving("v8", b.V8), b.retiring(), spec=b.spec("v8"), physical={"v7": b.FOREIGN}),
        ["RecordFacts"],
        [("v8", "Serving")],
    ),
    "what clients are still told to read is not deleted": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retiring(),
            spec=b.spec("v8"),
            dataset=b.view(pins={"v7": b.V7}),
            published=b.route(),
        ),
        [],
        [("v8", "Serving"), ("v7", "Retiring")],
    ),
    "what is worked on is stopped first, and not deleted": (
        b.deployment(b.serving("v8", b.V8), b.retiring(), spec=b.spec("v8"), work=(b.running(b.follow()),)),
        ["CancelWork"],
        [("v8", "Serving"), ("v7", "Retiring")],
    ),
    "the serving one never retires, however long ago it took over": (
        b.deployment(b.serving(since=b.OLD), spec=b.spec(retire={"after": "0s"})),
        [],
        [("v7", "Serving")],
    ),
    "nor does the one that the spec wants": (
        b.deployment(b.serving("v8", b.V8), b.retained(since=b.OLD), spec=b.spec("v7"), **complete("v7", 11)),
        ["StartWork Follow v7@12"],
        [("v8", "Serving"), ("v7", "Retained")],
    ),
    "nor any while what serves was not found": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(since=b.OLD),
            spec=b.spec("v8"),
            physical={"v8": b.UNKNOWN},
        ),
        [],
        [("v8", "Serving"), ("v7", "Retained")],
    ),
    "nor any while there is no target": (
        b.deployment(b.serving("v8", b.V8), b.retained(since=b.OLD), spec=b.spec("v99")),
        [],
        [("v8", "Serving"), ("v7", "Retained")],
    ),
    "nor one that nobody knows the age of": (
        b.deployment(b.serving("v8", b.V8), b.retained(since=None), spec=b.spec("v8")),
        [],
        [("v8", "Serving"), ("v7", "Retained")],
    ),
    "of the candidates left behind all but the last retire at once": (
        b.deployment(b.serving(), b.candidate(parameters="p2"), b.candidate("v8_2"), b.candidate("v9", b.V9)),
        ["RecordFacts"],
        [("v7", "Serving"), ("v9", "Candidate"), ("v8", "Retiring"), ("v8_2", "Retiring")],
    ),
    "which waits for nothing that serves": (
        b.deployment(
            b.index("v7", Role.CANDIDATE),
            b.candidate("v8", parameters="p2"),
            b.candidate("v8_2"),
            physical={"v8": b.UNCOUNTED},
            records={"v7": None},
        ),
        ["RecordFacts", "StartWork Build v7@12"],
        [("v7", "Candidate"), ("v8_2", "Candidate"), ("v8", "Retiring")],
    ),
    "a candidate left behind retires when its time has passed": (
        b.deployment(b.serving(), b.candidate(since=LONG_AGO)),
        ["RecordFacts"],
        [("v7", "Serving"), ("v8", "Retiring")],
    ),
}


@pytest.mark.parametrize(("seen", "wanted", "known"), RETIREMENT.values(), ids=RETIREMENT.keys())
def test_retirement(seen: Deployment, wanted: list[str], known: list[tuple[str, str]]) -> None:
    assert plan_of(seen)[0] == wanted
    assert roles(recorded(seen)) == known


# Routes and aliases.

ROUTES: dict[str, tuple[Deployment, list[actions.Action]]] = {
    "a route that was deleted is published again": (
        b.deployment(published=None),
        [actions.PublishRoute(b.DEPLOYMENT, "u2", b.route())],
    ),
    "a route deleted while the index moves names the snapshot that it moves from": (
        b.deployment(published=None, records={"v7": b.record(11, pending=12)}, work=(b.running(b.follow()),)),
        [actions.PublishRoute(b.DEPLOYMENT, "u2", b.route(snapshot="11"))],
    ),
    "a route keeps its snapshot while the index has no record": (
        b.deployment(records={"v7": None}, work=(b.running(b.build("v7", b.V7)),)),
        [],
    ),
    "a route of an index without a record names no snapshot": (
        b.deployment(records={"v7": None}, published=None, work=(b.running(b.build("v7", b.V7)),)),
        [actions.PublishRoute(b.DEPLOYMENT, "u2", b.route(snapshot="0"))],
    ),
    "a route that was edited by hand is mended": (
        b.deployment(published=b.route(model="other")),
        [actions.PublishRoute(b.DEPLOYMENT, "u2", b.route())],
    ),
    "a route says which snapshot it has come to": (
        b.deployment(published=b.route(snapshot="11")),
        [actions.PublishRoute(b.DEPLOYMENT, "u2", b.route())],
    ),
    "a lost index keeps its route": (
        b.deployment(published=b.route(snapshot="11"), physical={"v7": b.ABSENT}, spec=b.spec("v99")),
        [],
    ),
    "a recipe that is not pinned any more leaves the route as it is": (
        b.deployment(published=b.route(snapshot="11"), dataset=b.view(pins={})),
        [],
    ),
    "an alias is pointed before the route vouches for it": (
        b.deployment(spec=b.spec(publish={"alias": "papers"})),
        [
            actions.PublishAlias(b.DEPLOYMENT, "papers", "v7"),
            actions.PublishRoute(b.DEPLOYMENT, "u2", b.route(alias="papers")),
        ],
    ),
    "an alias of another name takes the old one's place": (
        b.deployment(spec=b.spec(publish={"alias": "books"}), published=b.route(alias="papers")),
        [
            actions.WithdrawAlias(b.DEPLOYMENT, "papers"),
            actions.PublishAlias(b.DEPLOYMENT, "books", "v7"),
            actions.PublishRoute(b.DEPLOYMENT, "u2", b.route(alias="books")),
        ],
    ),
    "an alias that is not wanted any more goes": (
        b.deployment(published=b.route(alias="papers")),
        [
            actions.WithdrawAlias(b.DEPLOYMENT, "papers"),
            actions.PublishRoute(b.DEPLOYMENT, "u2", b.route()),
        ],
    ),
    "an alias stays where it is while nothing moves": (
        b.deployment(spec=b.spec(publish={"alias": "papers"}), published=b.route(alias="papers")),
        [],
    ),
    "an alias moves with every switch": (
        b.deployment(
            b.serving("v8", b.V8),
            b.retained(),
            spec=b.spec("v8", publish={"alias": "papers"}),
            published=b.route(alias="papers"),
        ),
        [
            actions.PublishAlias(b.DEPLOYMENT, "papers", "v8"),
            actions.PublishRoute(b.DEPLOYMENT, "u2", b.route("v8", b.V8, alias="papers")),
        ],
    ),
}


@pytest.mark.parametrize(("seen", "wanted"), ROUTES.values(), ids=ROUTES.keys())
def test_route(seen: Deployment, wanted: list[actions.Action]) -> None:
    assert list(deployment.plan(seen, b.NOW).actions) == wanted


# Deletion.


def deleted(*indexes: facts.Index, ago: timedelta = timedelta(minutes=1), **changes: Any) -> Deployment:
    return b.deployment(*indexes, **{"deleting_since": b.NOW - ago, "published": None, **changes})


DELETION: dict[str, tuple[Deployment, list[str], str, timedelta]] = {
    "the route is withdrawn first": (
        deleted(published=b.route()),
        ["WithdrawRoute"],
        "1 index is being removed",
        timedelta(0),
    ),
    "the alias before it": (
        deleted(published=b.route(alias="papers")),
        ["WithdrawAlias", "WithdrawRoute"],
        "1 index is being removed",
        timedelta(0),
    ),
    "the alias is left where the database does not answer": (
        deleted(published=b.route(alias="papers"), problem=b.NO_ANSWER, physical={"v7": None}),
        ["WithdrawRoute"],
        "no answer; indexes are left behind in 9m",
        timedelta(0),
    ),
    "work is stopped with it": (
        deleted(published=b.route(), work=(b.running(b.follow()),)),
        ["CancelWork", "WithdrawRoute"],
        "1 index is being removed",
        timedelta(0),
    ),
    "nothing is removed while something is at work": (
        deleted(work=(b.running(b.follow()),)),
        ["CancelWork"],
        "1 index is being removed",
        timedelta(seconds=1),
    ),
    "all indexes are recorded as retiring": (
        deleted(b.serving("v8", b.V8), b.retained()),
        ["RecordFacts"],
        "2 indexes are being removed",
        timedelta(0),
    ),
    "then deleted, one at a time": (
        deleted(b.retiring("v8", b.V8), b.retiring()),
        ["DeleteIndex"],
        "2 indexes are being removed",
        timedelta(0),
    ),
    "one that is gone is forgotten": (
        deleted(b.retiring(), physical={"v7": b.ABSENT}),
        ["RecordFacts"],
        "1 index is being removed",
        timedelta(0),
    ),
    "one that is another's is forgotten": (
        deleted(b.retiring(), physical={"v7": b.FOREIGN}),
        ["RecordFacts"],
        "1 index is being removed",
        timedelta(0),
    ),
    "one that could not be looked at is waited for": (
        deleted(b.retiring(), physical={"v7": b.UNKNOWN}),
        [],
        "no answer; indexes are left behind in 9m",
        timedelta(seconds=5),
    ),
    "and does not keep another from being deleted": (
        deleted(b.retiring(), b.retiring("v8", b.V8), physical={"v7": b.UNKNOWN}),
        ["DeleteIndex"],
        "no answer; indexes are left behind in 9m",
        timedelta(0),
    ),
    "a database that does not answer is waited for": (
        deleted(b.retiring(), problem=b.NO_ANSWER, physical={"v7": None}),
        [],
        "no answer; indexes are left behind in 9m",
        timedelta(seconds=5),
    ),
    "a database that does not hold the indexes is waited for": (
        deleted(b.retiring(), address="empty:", physical={"v7": b.ABSENT}),
        [],
        "spec.backend names empty:, which does not hold index v7, last found at memory:; change it back, or declare "
        "another IndexDeployment for empty:; indexes are left behind in 9m",
        timedelta(seconds=5),
    ),
    "until the deadline": (
        deleted(b.retiring(), problem=b.NO_ANSWER, physical={"v7": None}, ago=timedelta(minutes=10)),
        ["RemoveFinalizer"],
        "no answer; indexes are left behind in 0s",
        timedelta(minutes=5),
    ),
    "which holds for an alias that cannot be withdrawn, too": (
        deleted(published=b.route(alias="papers"), ago=timedelta(minutes=10)),
        ["RemoveFinalizer"],
        "1 index is being removed",
        timedelta(minutes=5),
    ),
    "the facts go after the last index": (
        deleted(fresh=True, revision=9),
        ["ForgetFacts"],
        "being removed",
        timedelta(0),
    ),
    "then the resource": (
        deleted(fresh=True),
        ["RemoveFinalizer"],
        "being removed",
        timedelta(minutes=5),
    ),
    "orphaned indexes and their facts stay": (
        deleted(spec=b.spec(deletionPolicy="Orphan")),
        ["RemoveFinalizer"],
        "1 index is being removed",
        timedelta(minutes=5),
    ),
}


@pytest.mark.parametrize(("seen", "wanted", "message", "again"), DELETION.values(), ids=DELETION.keys())
def test_deletion(seen: Deployment, wanted: list[str], message: str, again: timedelta) -> None:
    plan = deployment.plan(seen, b.NOW)

    assert b.kinds(plan.actions) == wanted
    assert b.goal(plan.status) == (RECONCILING, Reason.DELETING, message)
    assert plan.look_again == again


LEFT: dict[str, tuple[Deployment, str]] = {
    "indexes": (
        deleted(b.retiring(), b.retiring("v8", b.V8), ago=timedelta(minutes=10)),
        "let go after 10m, leaving behind v7 at memory:, v8 at memory:",
    ),
    "indexes and an alias": (
        deleted(published=b.route(alias="papers"), ago=timedelta(minutes=10)),
        "let go after 10m, leaving behind the alias papers, v7 at memory:",
    ),
    "indexes in another database than the spec names": (
        deleted(b.retiring(), address="empty:", physical={"v7": b.ABSENT}, ago=timedelta(minutes=10)),
        "let go after 10m, leaving behind v7 at memory:",
    ),
    "indexes that are kept by policy are not left behind": (
        deleted(spec=b.spec(deletionPolicy="Orphan"), ago=timedelta(minutes=10)),
        "",
    ),
    "no index": (deleted(fresh=True, ago=timedelta(minutes=10)), ""),
}


@pytest.mark.parametrize(("seen", "left"), LEFT.values(), ids=LEFT.keys())
def test_what_is_left_behind_at_the_deadline_is_said(seen: Deployment, left: str) -> None:
    assert deployment.plan(seen, b.NOW).actions == (actions.RemoveFinalizer(b.DEPLOYMENT, left),)


def test_a_deployment_that_is_let_go_is_let_alone() -> None:
    seen = deleted(has_finalizer=False)

    plan = deployment.plan(seen, b.NOW)

    assert (plan.actions, plan.status) == ((), seen.status)


# When to look again.

LOOK_AGAIN: dict[str, tuple[Deployment, timedelta]] = {
    "at rest": (b.deployment(records={"v7": b.record(checked_at=b.NOW)}), timedelta(minutes=5)),
    "when the next check is due": (
        b.deployment(records={"v7": b.record(checked_at=b.NOW - b.HOUR + timedelta(minutes=2))}),
        timedelta(minutes=2),
    ),
    "when an index retires": (
        b.deployment(b.serving("v8", b.V8), b.retained(since=LONG_AGO + timedelta(minutes=3)), spec=b.spec("v8")),
        timedelta(minutes=3),
    ),
    "when a candidate left behind retires": (
        b.deployment(b.serving(), b.candidate(since=LONG_AGO + timedelta(minutes=3))),
        timedelta(minutes=3),
    ),
    "when what failed is due": (
        migrating(work=(b.failed(b.build(), generation=3),)),
        timedelta(seconds=30),
    ),
    "soon where work is under way": (migrating(work=(b.running(b.build()),)), timedelta(seconds=1)),
    "soon where work was started": (migrating(), timedelta(seconds=1)),
    "at once where facts were recorded": (migrating(**complete()), timedelta(0)),
    "soon where there is a problem": (
        b.deployment(physical={"v7": None}, problem=b.NO_ANSWER),
        timedelta(seconds=10),
    ),
    "at rest though a candidate left behind was never checked since": (
        b.deployment(
            b.serving(), b.candidate(), records={"v8": b.record(checked_at=b.OLD)}, physical={"v8": b.present()}
        ),
        timedelta(minutes=5),
    ),
    "at rest though something failed that nobody wants": (
        b.deployment(b.serving(), b.candidate(), work=(b.failed(b.build(), wait=-b.HOUR),)),
        timedelta(minutes=5),
    ),
    "at rest though an index should have retired, while there is no target": (
        b.deployment(b.serving("v8", b.V8), b.retained(since=b.OLD), spec=b.spec("v99")),
        timedelta(minutes=5),
    ),
}


@pytest.mark.parametrize(("seen", "again"), LOOK_AGAIN.values(), ids=LOOK_AGAIN.keys())
def test_look_again(seen: Deployment, again: timedelta) -> None:
    assert deployment.plan(seen, b.NOW).look_again == again


def test_a_retained_index_that_does_not_catch_up_is_said_to_stay_behind() -> None:
    seen = rolled(**complete("v7", 11))
    status = deployment.plan(seen, b.NOW).status

    def at(minutes: int) -> Reason:
        later = deployment.plan(dataclasses.replace(seen, status=status), b.NOW + timedelta(minutes=minutes)).status
        return b.said(later, ConditionType.ROLLBACK_READY)[1]

    assert [at(0), at(14)] == [Reason.RETAINED_INDEX_IS_BEHIND] * 2
    assert at(15) is Reason.RETAINED_INDEX_STAYS_BEHIND


def test_a_condition_keeps_the_time_at_which_it_turned() -> None:
    before = deployment.plan(b.deployment(), b.NOW).status
    seen = dataclasses.replace(migrating(), status=before)

    later = deployment.plan(seen, b.NOW + b.HOUR).status

    turned = {c.type: c.last_transition_time for c in later.conditions}
    assert turned[ConditionType.AVAILABLE] == b.NOW
    assert turned[ConditionType.READY] == b.NOW + b.HOUR


# Facts outlive the process.


def test_facts_are_read_back_as_they_were_written() -> None:
    known = Facts(
        (b.serving(frozen=11), b.retained("v8", b.V8, since=None)), 7, 3, (facts.Promotion("v7", "v7", 11, b.NOW),)
    )

    assert facts.from_json(facts.to_json(known)) == known


def test_facts_of_a_release_that_knew_no_addresses_are_read() -> None:
    written = facts.to_json(Facts((b.serving(),), 1, 1))
    del written["indexes"][0]["address"]

    assert facts.from_json(written).indexes == (b.serving(address=""),)


def test_records_are_read_back_as_they_were_written() -> None:
    for record in (b.record(11, pending=12, differences=3), facts.IndexRecord()):
        assert facts.record_from_json(facts.record_to_json(record)) == record


# While the dataset's own store is away.

AWAY = Problem(Reason.SECRET_NOT_FOUND, "Secret store is not there", True)


def test_a_way_back_is_gone_while_the_store_of_the_dataset_is_away() -> None:
    away = b.view(problem=AWAY)
    seen = b.deployment(b.retained("v7"), b.serving("v8", b.V8), spec=b.spec("v7"), dataset=away)

    planned = deployment.plan(seen, b.NOW)

    facts = next(action.facts for action in planned.actions if isinstance(action, actions.RecordFacts))
    assert facts.serving is not None
    assert facts.serving.name == "v7"
    assert b.started(planned.actions) == []


def test_nothing_is_built_or_moved_while_the_store_of_the_dataset_is_away() -> None:
    lagging = {"v7": b.record(11)}
    seen = b.deployment(b.serving("v7"), spec=b.spec("v8"), records=lagging, dataset=b.view(problem=AWAY))

    planned = deployment.plan(seen, b.NOW)

    assert b.started(planned.actions) == []
    assert not any(isinstance(action, actions.RecordFacts) for action in planned.actions)
    stalled = next(c for c in planned.status.conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "SecretNotFound")
    assert stalled.message.startswith("dataset papers cannot be looked at: Secret store is not there; serving v7@11")
