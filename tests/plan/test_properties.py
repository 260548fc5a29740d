"""What holds of every plan, whatever was seen, and of every world that plans are carried out on, whatever happens."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.plan import builders as b
from tests.plan.model import Model

from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import Role
from pointsman.core import names
from pointsman.plan import actions, dataset, deployment, words
from pointsman.plan.facts import Facts
from pointsman.plan.observed import Dataset, Deployment, Physical, Plan, Presence, Problem
from pointsman.plan.tasks import Work

quick = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))

# Whatever was seen.

RECIPES = {"v7": b.V7, "v8": b.V8}
AGES = st.sampled_from([timedelta(0), b.HOUR, 15 * b.DAY])
FAILURES = st.builds(
    b.failure,
    reason=st.sampled_from([Reason.BACKEND_UNREACHABLE, Reason.BACKEND_REJECTED]),
    is_terminal=st.booleans(),
    wait=st.sampled_from([-b.HOUR, timedelta(0), timedelta(seconds=30)]),
)
PROBLEMS = st.one_of(
    st.none(),
    st.just(Problem(Reason.BACKEND_UNREACHABLE, "no answer", False)),
    st.just(NO_SECRET := Problem(Reason.SECRET_NOT_FOUND, "no Secret", True)),
)


def works(tasks: list[Any]) -> st.SearchStrategy[tuple[Work, ...]]:
    """At most one piece of work on each subject."""
    one = st.one_of(
        *(
            st.one_of(
                st.just(b.running(task)),
                st.just(b.done(task)),
                st.builds(
                    lambda f, g, t=task: dataclasses.replace(b.failed(t, generation=g), failure=f),
                    FAILURES,
                    st.sampled_from([1, 3]),
                ),
            )
            for task in tasks
        )
    )
    return st.lists(one, max_size=3, unique_by=lambda work: work.task.subject).map(tuple)


@st.composite
def deployments(draw: st.DrawFn) -> Deployment:
    names_ = draw(st.lists(st.sampled_from(["v7", "v7_2", "v8", "v8_2"]), unique=True))
    roles = [draw(st.sampled_from([Role.CANDIDATE, Role.RETAINED, Role.RETIRING])) for _ in names_]
    if names_ and draw(st.booleans()):
        roles[draw(st.integers(0, len(names_) - 1))] = Role.SERVING
    found = [
        b.index(
            name, role, RECIPES[name[:2]],
            since=draw(st.one_of(st.none(), AGES.map(lambda age: b.NOW - age))),
            frozen=draw(st.sampled_from([None, None, 11])),
            parameters=draw(st.sampled_from(["p1", "p1", "p2"])),
            address=draw(st.sampled_from(["memory:", "memory:", "", "other:"])),
        )
        for name, role in zip(names_, roles, strict=True)
    ]  # fmt: skip
    snapshot = st.sampled_from([10, 11, 12])
    record = st.builds(
        lambda at, differences, pending, checked: b.record(
            at, differences=differences, pending=pending, checked_at=b.NOW - checked
        ),
        snapshot, st.sampled_from([0, 0, 3]), st.sampled_from([None, None, 12]), AGES,
    )  # fmt: skip
    physical = st.one_of(
        snapshot.map(b.present),
        snapshot.map(b.present),
        st.sampled_from([b.ABSENT, b.FOREIGN, b.UNKNOWN, b.UNCOUNTED, Physical(Presence.PRESENT, 7)]),
    )
    records = {name: draw(record) for name in names_ if draw(st.integers(0, 3))}
    serving = next((i for i in found if i.role is Role.SERVING), None)
    numbers = draw(st.sampled_from([(), (12,), (11, 12), (10, 11, 12)]))
    problem = draw(PROBLEMS) if draw(st.integers(0, 4)) == 0 else None
    return b.deployment(
        fresh=True,
        spec=b.spec(
            draw(st.sampled_from(["v7", "v8", "v9"])),
            suspend=draw(st.booleans()),
            snapshot=draw(st.sampled_from([None, None, 11])),
            retire={"after": draw(st.sampled_from(["0s", "24h", "336h"]))},
            publish={"alias": draw(st.sampled_from([None, "papers"]))},
            maxLag=draw(st.sampled_from(["5s", "1000h"])),
            deletionPolicy=draw(st.sampled_from(["Delete", "Orphan"])),
        ),
        has_finalizer=draw(st.integers(0, 9)) > 0,
        deleting_since=draw(st.sampled_from([None, None, None, b.NOW, b.NOW - b.HOUR])),
        dataset=b.view(
            exists=draw(st.booleans()),
            embedded={r.key: b.embedded(*draw(st.sampled_from([numbers, numbers[:1]]))) for r in (b.V7, b.V8)},
            snapshots=b.snapshots(*numbers),
            stalled=draw(st.sampled_from(["", "no"])),
        ),
        facts=Facts(tuple(found), made=len(found), route=1),
        revision=draw(st.integers(1, 5)) if found else 0,
        records=records,
        physical={name: draw(physical) for name in names_} if problem is None else {},
        published=b.route(serving.name, RECIPES[serving.name[:2]]) if serving and draw(st.booleans()) else None,
        work=draw(works([b.build(n, RECIPES[n[:2]]) for n in names_])) if names_ else (),
        problem=problem,
    )  # fmt: skip


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    declared = draw(st.sampled_from([("v7",), ("v7", "v8"), ("v8",)]))
    numbers = draw(st.sampled_from([(), (11,), (11, 12), (9, 10, 11, 12)]))
    tasks = [b.refresh(), b.embed("v7"), b.embed("v8", 12, b.V8), b.clean((12,), (b.V7.key,))]
    users = st.lists(
        st.sampled_from([b.user(), b.user("books", versions=("v8",), needs=("v8", "v99"), recipes=(b.V8.key,))]),
        unique_by=lambda u: u.name,
    )
    return b.dataset(
        spec=b.dataset_spec(
            *declared,
            suspend=draw(st.booleans()),
            refresh=draw(st.sampled_from([None, {"every": "15m"}])),
            retention={"snapshots": draw(st.integers(1, 3)), "for": draw(st.sampled_from(["0s", "336h"]))},
            deletionPolicy=draw(st.sampled_from(["Delete", "Orphan"])),
        ),
        recipes={name: draw(st.sampled_from([RECIPES[name], NO_SECRET, b.V9])) for name in declared},
        pins=draw(st.sampled_from([{}, {"v7": b.V7}, RECIPES])),
        status=draw(st.sampled_from([dataset_api.DatasetStatus(), b.dataset().status])),
        has_finalizer=draw(st.integers(0, 9)) > 0,
        deleting_since=draw(st.sampled_from([None, None, None, b.NOW, b.NOW - b.HOUR])),
        snapshots=b.snapshots(*numbers),
        embedded={r.key: b.embedded(*draw(st.sampled_from([numbers, numbers[:1], ()]))) for r in (b.V7, b.V8)},
        users=tuple(draw(users)),
        work=draw(works(tasks)),
    )  # fmt: skip


def is_well_formed(plan: Plan[Any], generation: int) -> None:
    """What holds of every plan, of either kind."""
    irreversible = [action for action in plan.actions if isinstance(action, actions.IRREVERSIBLE)]
    assert irreversible == [] or irreversible == [plan.actions[-1]]
    subjects = [task.subject for task in b.started(plan.actions)]
    assert len(subjects) == len(set(subjects))
    kind, reason, message = b.goal(plan.status)
    assert message and (reason is Reason.UP_TO_DATE) == (kind is ConditionType.READY)
    assert plan.status.observed_generation == generation
    assert {c.observed_generation for c in plan.status.conditions} == {generation}
    assert all(c.message and not c.message.endswith(".") for c in plan.status.conditions)
    # Looking again at once is for plans that did something; at rest the loop is quiet.
    assert plan.look_again >= timedelta(0) if plan.actions else plan.look_again >= timedelta(seconds=1)
    assert plan.look_again <= timedelta(minutes=5)


@quick
@given(datasets())
def test_every_plan_for_a_dataset_is_well_formed(seen: Dataset) -> None:
    plan = dataset.plan(seen, b.NOW)

    if not (seen.deleting_since is not None and not seen.has_finalizer):
        is_well_formed(plan, 1)
    assert len(b.started(plan.actions)) <= 1
    if any(isinstance(action, actions.DropStore) for action in plan.actions):
        assert seen.deleting_since is not None and not seen.users and seen.spec.deletion_policy == "Delete"
    assert dataset.plan(seen, b.NOW) == plan


@quick
@given(deployments())
def test_every_plan_for_a_deployment_is_well_formed(seen: Deployment) -> None:
    plan = deployment.plan(seen, b.NOW)

    if seen.deleting_since is None or seen.has_finalizer:
        is_well_formed(plan, 3)
    assert deployment.plan(seen, b.NOW) == plan


@quick
@given(deployments())
def test_only_what_was_recorded_as_retiring_is_deleted(seen: Deployment) -> None:
    for action in deployment.plan(seen, b.NOW).actions:
        if isinstance(action, actions.DeleteIndex):
            found = seen.facts.get(action.index)
            assert found is not None and found.role is Role.RETIRING
            assert seen.physical[action.index].presence is Presence.PRESENT
            assert (seen.published or {}).get("collection") != action.index


@quick
@given(deployments())
def test_what_serves_stays_and_nothing_retires_inside_its_retention(seen: Deployment) -> None:
    plan = deployment.plan(seen, b.NOW)

    for action in plan.actions:
        if not isinstance(action, actions.RecordFacts) or seen.deleting_since is not None:
            continue
        before, after = seen.facts.serving, action.facts.serving
        if before is not None:
            found = action.facts.get(before.name)
            is_gone = seen.physical[before.name].presence in (Presence.ABSENT, Presence.FOREIGN)
            assert after is not None
            assert is_gone or (found is not None and found.role in (Role.SERVING, Role.RETAINED, Role.RETIRING))
            if found is not None and found.role is Role.RETIRING:
                # It served until this plan: only a spec that keeps nothing retires it at once.
                assert after != before and seen.spec.retire.after == "0s"
        for index in action.facts.indexes:
            old = seen.facts.get(index.name)
            left = [i for i in action.facts.indexes if i.role is Role.CANDIDATE]
            if index.role is Role.RETIRING and old is not None and old.role is Role.CANDIDATE and left:
                # Candidates have never served: no more than the wanted one and the last that was left are kept.
                assert len(left) <= 2
            elif index.role is Role.RETIRING and old is not None and old.role in (Role.RETAINED, Role.CANDIDATE):
                limit = {"0s": timedelta(0), "24h": b.DAY, "336h": 14 * b.DAY}[seen.spec.retire.after]
                assert old.since is not None and b.NOW - old.since >= limit


@quick
@given(deployments())
def test_a_database_where_nothing_of_ours_is_makes_nobody_forget_what_has_served(seen: Deployment) -> None:
    seen = dataclasses.replace(seen, deleting_since=None, physical={i.name: b.ABSENT for i in seen.facts.indexes})

    for action in deployment.plan(seen, b.NOW).actions:
        if isinstance(action, actions.RecordFacts):
            served = [i for i in seen.facts.indexes if i.role is not Role.CANDIDATE]
            assert [action.facts.get(i.name) for i in served] == served


@quick
@given(deployments())
def test_queries_move_only_to_an_index_that_is_ours_whole_and_verified(seen: Deployment) -> None:
    for action in deployment.plan(seen, b.NOW).actions:
        if not isinstance(action, actions.RecordFacts) or action.facts.serving is None:
            continue
        after = action.facts.serving
        if after.name != (seen.facts.serving.name if seen.facts.serving else None):
            record, physical = seen.records[after.name], seen.physical[after.name]
            # Not counted in this look where nothing works on it: the look before found it whole.
            is_idle = words.running(seen.work, f"index {after.name}") is None
            assert physical == Physical(Presence.PRESENT, record.rows) or (physical == b.UNCOUNTED and is_idle)
            assert (record.differences, record.pending) == (0, None) and record.verified_at is not None
        assert sum(index.role is Role.SERVING for index in action.facts.indexes) == 1


@quick
@given(deployments())
def test_ready_is_said_only_of_what_the_spec_wants(seen: Deployment) -> None:
    plan = deployment.plan(seen, b.NOW)

    if seen.deleting_since is None and b.goal(plan.status)[0] is ConditionType.READY:
        known = next((a.facts for a in plan.actions if isinstance(a, actions.RecordFacts)), seen.facts)
        serving = known.serving
        assert serving is not None and seen.physical[serving.name].presence is Presence.PRESENT
        wanted = (RECIPES[seen.spec.version].key, "p1", seen.spec.snapshot)
        assert (serving.recipe, serving.parameters, serving.frozen) == wanted


# Whatever happens in a world.

Step = tuple[str, Any]
EDITS = st.one_of(
    st.tuples(st.just("version"), st.sampled_from(["v7", "v8", "v9"])),
    st.tuples(st.just("snapshot"), st.sampled_from([None, None, 1, 2])),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("parameters"), st.sampled_from(["p1", "p2"])),
    st.tuples(st.just("retire"), st.sampled_from(["0s", "1h", "336h"])),
)
LIFE = st.one_of(
    st.tuples(st.just("source"), st.none()),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("settle"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([timedelta(minutes=1), 2 * b.HOUR, 15 * b.DAY])),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("wipe"), st.none()),
)
HARM = st.one_of(
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("steal"), st.integers(0, 3)),
    st.tuples(st.just("tamper"), st.integers(0, 3)),
)


def take(model: Model, step: Step) -> None:
    """Let one thing happen."""
    name, value = step
    match name:
        case "version" | "parameters" | "suspend":
            model.edit(**{name: value})
        case "snapshot":
            model.edit(snapshot=value if value is None or value <= len(model.snapshots) else None)
        case "retire":
            model.edit(retire={"after": value})
        case "source":
            model.change_source()
        case "turn":
            model.turn_dataset()
            model.turn()
        case "finish":
            model.finish()
        case "settle":
            model.settle()
        case "wait":
            model.wait(value)
        case "restart":
            model.work.clear()
        case "wipe":
            model.status, model.dataset_status = deployment_api.DeploymentStatus(), dataset_api.DatasetStatus()
        case "lose" | "steal" | "tamper":
            _harm(model, name, value)


def _harm(model: Model, kind: str, number: int) -> None:
    there = sorted(model.database)
    if number >= len(there):
        return
    if kind == "lose":
        model.lose(there[number])
    elif kind == "steal":
        model.database[there[number]].is_ours = False
    else:
        model.database[there[number]].missing += 3


def rest(model: Model) -> None:
    """Wait out every back-off and let the world come to rest."""
    for _ in range(3):
        model.settle()
        model.wait(timedelta(minutes=6))
    model.settle()


def ends(model: Model) -> tuple[str, str, int | None, int]:
    found = model.facts.serving
    assert found is not None
    cursor = model.records[found.name].cursor
    assert cursor is not None
    return found.recipe, found.parameters, found.frozen, cursor.snapshot


def is_served(model: Model) -> None:
    """What clients are told to read is there, whole, and of the facts' own choice."""
    if model.published is None:
        return
    found = model.database.get(model.published["collection"])
    assert found is not None and found.is_ours and found.missing == 0
    recipe = next(r for r in model.pins.values() if r.key == model.published["recipe"])
    assert model.published["space"] == recipe.space.key
    assert model.published["dimensions"] == str(recipe.space.dimensions)


@settings(quick, max_examples=30)
@given(st.lists(st.one_of(EDITS, LIFE), max_size=14))
def test_spec_edits_end_where_a_direct_apply_of_the_last_ends(steps: list[Step]) -> None:
    model = Model()
    for step in steps:
        take(model, step)
        is_served(model)
    model.edit(suspend=False)
    rest(model)
    # What was promoted proves itself.
    model.wait(timedelta(hours=25))
    rest(model)
    direct = Model(spec=dict(model.spec), parameters=model.parameters, now=model.now)
    direct.snapshots, direct.read, direct.source = list(model.snapshots), model.read, model.source
    rest(direct)

    assert ends(model) == ends(direct)
    assert b.goal(model.status) == b.goal(direct.status)
    assert b.goal(model.status)[0] is ConditionType.READY


@settings(quick, max_examples=30)
@given(st.lists(st.one_of(EDITS, LIFE, HARM), max_size=14))
def test_every_world_comes_to_rest_and_heals(steps: list[Step]) -> None:
    model = Model()
    model.settle()
    for step in steps:
        take(model, step)
    model.edit(suspend=False, check={"every": "1m"})
    rest(model)

    kind, _, message = b.goal(model.status)
    foreign = [i.name for i in model.facts.indexes if i.name in model.database and not model.database[i.name].is_ours]
    # A name that another took before we ever used it is for a person to free.
    assert kind is ConditionType.READY or (foreign and "is not ours" in message)
    if kind is ConditionType.READY:
        is_served(model)


@settings(quick, max_examples=20)
@given(st.lists(st.one_of(EDITS, LIFE, HARM), max_size=12))
def test_at_rest_reconciling_again_does_nothing_and_is_in_no_hurry(steps: list[Step]) -> None:
    model = Model()
    for step in steps:
        take(model, step)
    rest(model)

    for _ in range(2):
        status, dataset_status = model.status, model.dataset_status
        plan, dataset_plan = model.turn(), model.turn_dataset()
        assert (plan.actions, dataset_plan.actions) == ((), ())
        assert (plan.status, dataset_plan.status) == (status, dataset_status)
        assert min(plan.look_again, dataset_plan.look_again) >= timedelta(seconds=1)


@settings(quick, max_examples=20)
@given(
    st.permutations(["v7", "v8", "v9"]),
    st.lists(st.sampled_from(["source", "settle", "restart", "wipe", "short"]), max_size=6),
    st.booleans(),
)
def test_a_rollback_to_a_retained_current_index_is_one_plan(
    versions: list[str], life: list[str], suspend: bool
) -> None:
    model = Model()
    for version in versions[:2]:
        model.edit(version=version)
        model.settle()
    for name in life:
        take(model, ("wait", 2 * b.HOUR) if name == "short" else (name, None))
        model.settle()
    model.settle()

    model.edit(version=versions[0], suspend=suspend)
    plan = model.turn()

    assert b.kinds(plan.actions)[:2] == ["RecordFacts", "PublishRoute"]
    assert not any("Build" in kind or "Embed" in kind for kind in b.kinds(plan.actions))
    assert model.published is not None and model.published["version"] == versions[0]


@settings(quick, max_examples=15)
@given(st.lists(st.one_of(EDITS, LIFE, HARM), max_size=10), st.sampled_from(["Delete", "Orphan"]))
def test_what_is_deleted_goes_and_leaves_nothing_but_what_the_policy_keeps(steps: list[Step], policy: str) -> None:
    model = Model(dataset_spec={"deletionPolicy": policy})
    for step in steps:
        take(model, step)
    there = {name for name, found in model.database.items() if found.is_ours}
    model.edit(deletionPolicy=policy)
    model.deleting = {b.DATASET: model.now, b.DEPLOYMENT: model.now}
    model.settle()

    assert model.finalizers == set()
    assert model.published is None
    left = {name for name, found in model.database.items() if found.is_ours}
    assert left == (there if policy == "Orphan" else set()) or not there
    if policy == "Delete":
        assert (model.facts, model.snapshots, model.pins) == (Facts(), [], {})


def test_whatever_is_edited_how_often_the_books_stay_short() -> None:
    model = Model()
    model.settle()
    for number in range(80):
        model.edit(parameters=f"q{number}")
        for _ in range(3):
            model.turn()

    assert len(model.facts.indexes) <= 4
    assert len(model.database) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_name_says_whose_it_is(number: int) -> None:
    plan = deployment.plan(b.deployment(fresh=True, facts=Facts(made=number)), b.NOW)

    (record,) = [a for a in plan.actions if isinstance(a, actions.RecordFacts)]
    (index,) = record.facts.indexes
    assert index.name.startswith(names.physical_prefix("search", "papers", "u2"))
    assert record.facts.made == number + 1
