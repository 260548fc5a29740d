"""What the loop does with what nobody foresaw: it says so where a user looks, and passes it on to be logged."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.crash import stories
from tests.crash.stage import DATASET_KEY, DEPLOYMENT_KEY, QUERY_SET_KEY, Stage, Tripwire, settle, world

from pointsman.controller.reconcile import reconcile
from pointsman.plan.tasks import Key, Work
from pointsman.work.runners import InlineRunner

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Broken(InlineRunner):
    """A runner with a mistake in it."""

    def __init__(self) -> None:
        return

    def work(self, owner: Key) -> tuple[Work, ...]:
        raise ZeroDivisionError("the secret is hunter2")


def conditions(stage: Stage, key: Key) -> dict[str, Any]:
    resource = stage.cluster.get(key.kind, key.namespace, key.name)
    assert resource is not None
    return {condition["type"]: condition for condition in resource["status"]["conditions"]}


@pytest.mark.parametrize("key", [DATASET_KEY, DEPLOYMENT_KEY, QUERY_SET_KEY], ids=lambda key: key.kind)
def test_what_nobody_foresaw_is_said_by_its_type_and_place_until_it_is_over(key: Key, tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stories.declare(stage)
    stories.ask("doc-1")(stage)
    settle(stage, Tripwire())
    working = world(stage, Tripwire())
    broken = dataclasses.replace(working, runner=Broken())

    with pytest.raises(ZeroDivisionError):
        reconcile(key, broken, stage.now())

    found = conditions(stage, key)
    assert found["Ready"]["status"] == "False"
    assert found["Reconciling"]["status"] == "True"
    assert found["Reconciling"]["reason"] == "InternalError"
    message = found["Reconciling"]["message"]
    assert message.startswith("ZeroDivisionError at work:")
    assert message.endswith(", which nobody foresaw; please report it")

    settle(stage, Tripwire(), working)
    assert conditions(stage, key)["Ready"]["status"] == "True"


def test_a_config_map_of_somebody_else_stalls_the_deployment_and_outlives_it(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.cluster.put_config_map("search", "papers-serving")
    stories.declare(stage)

    # It is never at rest: the ConfigMap may go at any time.
    settle(stage, Tripwire(), rounds=40)

    found = conditions(stage, DEPLOYMENT_KEY)
    assert found["Stalled"]["reason"] == "RouteForeign"
    assert found["Stalled"]["message"].startswith("ConfigMap papers-serving is somebody else's")

    writes = stage.cluster.writes
    settle(stage, Tripwire(), rounds=5)
    assert stage.cluster.writes == writes, "what fails again in the same way is not written again"

    stories.delete_deployment(stage)
    settle(stage, Tripwire())
    assert stage.cluster.get("IndexDeployment", "search", "papers") is None
