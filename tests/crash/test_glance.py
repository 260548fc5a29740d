"""A glance through what was heard may rest where there is nothing to do, and never does anything by itself."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
from tests.crash import stories
from tests.crash.stage import (
    DATASET_KEY,
    DEPLOYMENT_KEY,
    NAMESPACE,
    QUERY_SET_KEY,
    Stage,
    Tripwire,
    settle,
    told,
    world,
)

from pointsman.cluster.mirror import Mirror
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, PLURALS, QUERY_SET, Resource
from pointsman.controller.reconcile import reconcile
from pointsman.controller.world import World
from pointsman.plan.tasks import Key


class Asked:
    """A cluster that writes down what it is asked for."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self._inner, name)


def everything(stage: Stage) -> list[Resource]:
    return [resource for kind in PLURALS for resource in stage.cluster.list(kind, None)]


def heard(stage: Stage) -> Mirror:
    """Return a mirror of the cluster as it is."""
    mirror = Mirror()
    hear(mirror, stage)
    mirror.complete()
    return mirror


def hear(mirror: Mirror, stage: Stage) -> None:
    for kind in PLURALS:
        with mirror.listing(kind, None) as listing:
            for page in stage.cluster.pages(kind, None):
                listing.take(page)


def glancing(stage: Stage, here: World, mirror: Mirror) -> tuple[World, Asked]:
    """Return the same operator with a mirror, and whom it asks."""
    asked = Asked(here.cluster)
    return dataclasses.replace(here, mirror=mirror, cluster=asked), asked


@pytest.mark.parametrize("key", [DATASET_KEY, DEPLOYMENT_KEY, QUERY_SET_KEY], ids=lambda key: key.kind)
def test_of_what_is_at_rest_the_cluster_is_asked_for_no_resource(stage: Stage, key: Key) -> None:
    here, asked = glancing(stage, told(stage, stories.ask("doc-1"), *stories.MIGRATED), heard(stage))
    writes, events = stage.cluster.writes, len(stage.cluster.events)

    again = reconcile(key, here, stage.now())

    assert again is not None and again.total_seconds() > 1
    assert set(asked.calls) <= {"config_map"}
    assert (stage.cluster.writes, len(stage.cluster.events)) == (writes, events)


def test_while_not_everything_was_heard_of_the_cluster_is_asked(stage: Stage) -> None:
    mirror = Mirror()
    here, asked = glancing(stage, told(stage, *stories.MIGRATED), mirror)
    hear(mirror, stage)

    reconcile(DEPLOYMENT_KEY, here, stage.now())

    assert asked.calls["get"] > 0


def test_a_config_map_and_an_index_that_somebody_removed_are_found_missing_at_a_glance(stage: Stage) -> None:
    here, _ = glancing(stage, told(stage, *stories.MIGRATED), heard(stage))
    stage.cluster.delete_config_map(NAMESPACE, "papers-serving")

    settle(stage, Tripwire(), here)

    before = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert before is not None and before["version"] == "v8"

    stories.lose_serving_index(stage)
    settle(stage, Tripwire(), here)
    route = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert route is not None and route["version"] == "v8"
    assert route["collection"] != before["collection"], "it was built again"


def test_what_was_heard_long_ago_writes_no_status_and_says_nothing_twice(stage: Stage) -> None:
    before = told(stage, stories.declare)
    mirror = heard(stage)
    for step in stories.MIGRATED[1:]:
        step(stage)
        settle(stage, Tripwire(), before)
    here, asked = glancing(stage, before, mirror)
    writes, events = stage.cluster.writes, len(stage.cluster.events)

    for key in (DATASET_KEY, DEPLOYMENT_KEY):
        reconcile(key, here, stage.now())

    assert asked.calls["get"] > 0, "the glance found something to do, so the cluster was looked at"
    assert (stage.cluster.writes, len(stage.cluster.events)) == (writes, events)


def test_a_dataset_is_not_dropped_while_a_deployment_relies_on_it_that_was_not_heard_of(stage: Stage) -> None:
    here = told(stage, stories.declare)
    stage.cluster.delete(DATASET, NAMESPACE, "papers", stage.now())
    mirror = heard(stage)
    mirror.lost(DEPLOYMENT_KEY)
    here, _ = glancing(stage, here, mirror)

    reconcile(DATASET_KEY, here, stage.now())

    assert stage.cluster.get(DATASET, NAMESPACE, "papers") is not None
    assert here.store.dataset(NAMESPACE, "papers").pins()


def test_a_deployment_that_is_gone_is_forgotten_once_a_listing_does_not_name_it(stage: Stage) -> None:
    here, mirror = told(stage, stories.declare), heard(stage)
    stories.delete_deployment(stage)
    settle(stage, Tripwire(), here)
    here, _ = glancing(stage, here, mirror)
    ghost = mirror.get(DEPLOYMENT, NAMESPACE, "papers")
    assert ghost is not None

    reconcile(DEPLOYMENT_KEY, here, stage.now())
    assert stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers") is None
    assert stage.database.names("pm_") == [], "what a ghost lacks is not built again"

    hear(mirror, stage)
    assert reconcile(DEPLOYMENT_KEY, here, stage.now()) is None


class Late(Mirror):
    """A mirror that hears of every effect one effect late."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self._next = everything(stage)
        self.complete()

    def hear(self) -> None:
        """Take what was so before the last effect, and note what is so after it."""
        told, self._next = self._next, everything(self._stage)
        for kind in PLURALS:
            with self.listing(kind, None) as listing:
                listing.take([resource for resource in told if resource["kind"] == kind])


STORIES = {
    "a migration and back": (*stories.MIGRATED, stories.serve("v7")),
    "a migration that a person approves": (*stories.AT_A_TENTH,),
    "a deployment that is deleted": (stories.declare, stories.delete_deployment),
    "an edited source": (stories.declare, stories.change_source),
    "a status that was lost": (*stories.MIGRATED, stories.wipe_status),
}


@pytest.mark.parametrize("steps", STORIES.values(), ids=STORIES.keys())
def test_a_story_that_is_heard_late_ends_as_one_that_is_seen(steps: Any, tmp_path: Any) -> None:
    ends = []
    for is_late in (False, True):
        folder = tmp_path / str(is_late)
        folder.mkdir()
        stage, tripwire = Stage(folder), Tripwire()
        here = world(stage, tripwire)
        if is_late:
            mirror = Late(stage)
            tripwire.observers.append(mirror.hear)
            here = dataclasses.replace(here, mirror=mirror)
        for step in steps:
            step(stage)
            while True:
                if is_late:
                    # In the end everything is heard of.
                    mirror.hear()
                    mirror.hear()
                effects = len(tripwire.trace)
                settle(stage, tripwire, here)
                if len(tripwire.trace) == effects:
                    break
        ends.append(_end(stage))
    assert ends[0] == ends[1]


def _end(stage: Stage) -> dict[str, Any]:
    route = stage.cluster.config_map(NAMESPACE, "papers-serving") or {}
    said = {
        f"{resource['kind']} {condition['type']}": (condition["status"], condition["reason"])
        for resource in everything(stage)
        for condition in resource.get("status", {}).get("conditions", ())
    }
    kinds = Counter(resource["kind"] for resource in everything(stage))
    events = Counter((about, reason) for about, _, reason, _ in stage.cluster.events if about.kind != APPROVAL)
    indexes = sorted(name.split("_")[4] for name in stage.database.names("pm_"))
    known = {kind: kinds[kind] for kind in (DATASET, DEPLOYMENT, QUERY_SET, APPROVAL)}
    return {"route": route.get("version"), "said": said, "kinds": known, "events": events, "indexes": indexes}
