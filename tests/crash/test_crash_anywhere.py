"""Killed before and after every effect of every story, Pointsman ends where it would have ended, safe at each step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.crash import stories
from tests.crash.stage import DEPLOYMENT_KEY, NAMESPACE, SECRET_WORD, HashedWords, Stage, Tripwire, settle, world
from tests.crash.stories import STORIES, Story

from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, QUERY_SET
from pointsman.core import drift
from pointsman.plan.actions import IRREVERSIBLE, Action
from pointsman.store.root import Store
from pointsman.work import jobs

VOLATILE = {
    "lastTransitionTime", "verifiedAt", "checkedAt", "measuredAt", "startedAt", "deadline", "refreshedAt",
    "refreshHandled", "at", "until", "since", "written_at", "embedded", "reused", "readAt", "salt",
}  # fmt: skip


class Settings(dict[str, Stage]):
    """Each story's stage as it is before the story, told once, and not before somebody wants it."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self._factory = factory

    def __missing__(self, name: str) -> Stage:
        self[name] = _set(STORIES[name], self._factory.mktemp("stage") / "store")
        return self[name]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(tmp_path_factory)


def _set(story: Story, folder: Path) -> Stage:
    folder.mkdir()
    stage = Stage(folder)
    for step in story.setting:
        step(stage)
        settle(stage, Tripwire())
    return stage


def _tell(story: Story, stage: Stage, tripwire: Tripwire) -> list[str]:
    actions = []
    for step in story.steps:
        step(stage)
        actions += settle(stage, tripwire)
    return actions


def _state(stage: Stage) -> dict[str, Any]:
    """Return all that a user could see, but for times."""

    database = stage.database
    seen: dict[str, Any] = {"route": stage.cluster.config_map(NAMESPACE, "papers-serving")}
    for kind in (DATASET, DEPLOYMENT, QUERY_SET, APPROVAL):
        for resource in stage.cluster.list(kind, NAMESPACE):
            seen |= dict(_flat(resource.get("status", {}), kind))
    scores = Store(str(stage.folder), {}).log(*jobs.answers_log(DEPLOYMENT_KEY, "scores")).read()
    if scores is not None:
        seen |= dict(_flat(scores.value, "scores"))
    for name in database.names("pm_"):
        seen[name] = sorted(str(row) for batch in database.scan(name) for row in batch.to_pylist())
    return seen


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what a status says, a path each, but for what differs from run to run."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield path, value
    for key, item in items:
        if key not in VOLATILE:
            yield from _flat(item, f"{path}.{key}")


def _is_safe(stage: Stage) -> None:
    """Raise unless what serves is there, whole, and served with its own model."""
    route = stage.cluster.config_map(NAMESPACE, "papers-serving")
    if route is not None:
        assert route["dimensions"] == {"v7": "64", "v8": "256"}[route["version"]]
        resource = stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
        assert resource is not None
    for *_, message in stage.cluster.events:
        assert SECRET_WORD not in message
    for kind in (DATASET, DEPLOYMENT):
        for resource in stage.cluster.list(kind, NAMESPACE):
            assert SECRET_WORD not in json.dumps(resource.get("status", {}))


def _serves_all_the_time(stage: Stage, tripwire: Tripwire, may_be_lost: bool) -> None:
    """Check after every effect that the index on the route exists: serving is never deleted, nor half built."""

    def check() -> None:
        _is_safe(stage)
        route = stage.cluster.config_map(NAMESPACE, "papers-serving")
        if route is not None and not may_be_lost:
            assert stage.database.find(route["collection"]) is not None
            assert stage.database.count(route["collection"]) > 0
        for gateway in stage.gateways:
            assert gateway.route is None or sum(gateway.weights.values()) == 100
            for index in gateway.weights:
                assert may_be_lost or stage.database.find(index) is not None, f"{gateway.name} may search {index}"

    tripwire.observers.append(check)


@pytest.mark.parametrize("name", STORIES)
def test_every_story_ends_the_same_wherever_it_is_killed(name: str, settings: Settings, tmp_path: Path) -> None:
    story, setting = STORIES[name], settings[name]
    wanted = setting.copy(tmp_path / "reference")
    reference = Tripwire()
    _serves_all_the_time(wanted, reference, name == "lose the serving index")
    _tell(story, wanted, reference)
    expected = _state(wanted)

    for at, after in reference.moments():
        stage = setting.copy(tmp_path / f"{at}-{after}")
        tripwire = Tripwire(at, after)
        _serves_all_the_time(stage, tripwire, name == "lose the serving index")
        _tell(story, stage, tripwire)
        where = f"killed {'after' if after else 'before'} effect {at}, {reference.trace[at]}"
        state = _state(stage)
        differs = {k: (expected.get(k), state.get(k)) for k in expected | state if expected.get(k) != state.get(k)}
        assert not differs, where


@pytest.mark.parametrize("name", STORIES)
def test_reconciling_at_rest_has_no_effect(name: str, settings: Settings, tmp_path: Path) -> None:
    stage = settings[name].copy(tmp_path / "stage")
    _tell(STORIES[name], stage, Tripwire())
    again = Tripwire()
    writes, events = stage.cluster.writes, len(stage.cluster.events)

    settle(stage, again)

    assert again.trace == []
    assert (stage.cluster.writes, len(stage.cluster.events)) == (writes, events)


def test_the_stories_take_every_action_there_is(settings: Settings, tmp_path: Path) -> None:
    taken: set[str] = set()
    for number, (name, story) in enumerate(STORIES.items()):
        stage = settings[name].copy(tmp_path / str(number))
        taken.update(_tell(story, stage, Tripwire()))
    taken.update(_change_one_mind(settings["migrate"].copy(tmp_path / "mind")))

    assert taken == {kind.__name__ for kind in get_args(Action)}
    assert {kind.__name__ for kind in IRREVERSIBLE} < taken


def _change_one_mind(stage: Stage) -> list[str]:
    """Ask for v8, and for v7 again as soon as v8 is being built."""
    tripwire = Tripwire()
    here = world(stage, tripwire)
    stories.declare_v8(stage)
    settle(stage, tripwire, here)
    stories.serve("v8")(stage)
    actions = settle(stage, tripwire, here, rounds=1)
    stories.serve("v7")(stage)
    return actions + settle(stage, tripwire, here)


def test_a_candidate_that_is_wanted_no_more_is_not_built_on(settings: Settings, tmp_path: Path) -> None:
    stage = settings["migrate"].copy(tmp_path / "stage")

    actions = _change_one_mind(stage)

    assert "CancelWork" in actions
    route = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert route is not None and route["version"] == "v7" and route["routeRevision"] == "1"


def test_a_rollback_embeds_nothing_and_builds_nothing(settings: Settings, tmp_path: Path) -> None:
    stage = settings["roll back"].copy(tmp_path / "stage")
    HashedWords.calls.clear()
    tripwire = Tripwire()

    _tell(STORIES["roll back"], stage, tripwire)

    # What is kept from then on is asked whether it answers; no text of ours is embedded for it.
    assert set(HashedWords.calls) <= set(drift.PROBES)
    assert Counter(tripwire.trace)["Memory.load"] == 0
    route = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert route is not None and route["version"] == "v7"


def test_a_restored_resource_takes_up_where_it_left_off(settings: Settings, tmp_path: Path) -> None:
    stage = settings["restored"].copy(tmp_path / "stage")
    before = stage.database.names("pm_")
    HashedWords.calls.clear()
    tripwire = Tripwire()

    _tell(STORIES["restored"], stage, tripwire)

    # Its two indexes follow, each by the two documents that the source has changed, and none is built.
    assert len([text for text in HashedWords.calls if SECRET_WORD in text]) == 4
    assert Counter(tripwire.trace)["Memory.load"] == 0
    assert stage.database.names("pm_") == before
    status = stage.cluster.list(DEPLOYMENT, NAMESPACE)[0]["status"]
    route = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert route is not None and (route["version"], route["snapshot"]) == ("v7", "2")
    assert {i["version"]: (i["role"], i["cursor"]["snapshot"]) for i in status["indexes"]} == {
        "v8": ("Retained", 2), "v7": ("Serving", 2),
    }  # fmt: skip


def test_nothing_is_embedded_twice_by_pods_wherever_the_operator_is_killed(settings: Settings, tmp_path: Path) -> None:
    story, setting = STORIES["build by pods"], settings["build by pods"]
    reference = Tripwire()
    _tell(story, setting.copy(tmp_path / "reference"), reference)
    assert {"MemoryBatch.create", "Ledger.deal", "VectorTable.take_in"} <= set(reference.trace)

    for at, after in reference.moments():
        stage = setting.copy(tmp_path / f"{at}-{after}")
        HashedWords.calls.clear()
        _tell(story, stage, Tripwire(at, after))
        documents = Counter(text for text in HashedWords.calls if SECRET_WORD in text)
        assert max(documents.values()) == 1, f"killed at effect {at}, {reference.trace[at]}"
        assert len(stage.batch.created) == 1


def test_no_finished_batch_is_embedded_twice(settings: Settings, tmp_path: Path) -> None:
    story, setting = STORIES["migrate"], settings["migrate"]
    reference = Tripwire()
    _tell(story, setting.copy(tmp_path / "reference"), reference)
    finished = reference.trace.index("VectorTable.append")

    for at in range(finished, len(reference.trace)):
        stage = setting.copy(tmp_path / str(at))
        HashedWords.calls.clear()
        _tell(story, stage, Tripwire(at, after=True))
        documents = Counter(text for text in HashedWords.calls if SECRET_WORD in text)
        assert max(documents.values()) == 1, f"killed after effect {at}, {reference.trace[at]}"
