"""Stories, told in YAML: what people and the world do, what the plans answer, and what is then said.

Each step does something and says what comes of it. `plans` are the actions of the deployment's plans until all is at
rest, each plan on a line of its own; with `turns`, only that many rounds pass and work that was started goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.fleet import FakeGateway
from tests.plan.model import Model

from pointsman.api import base
from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import DeploymentStatus
from pointsman.plan.observed import Plan

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))
DOES = (
    "edit", "dataset", "snapshot", "judged", "breaks", "decide", "withdraw", "late", "in time", "pass", "lives", "lose",
    "fails", "heals", "restarts", "delete",
)  # fmt: skip
SEES = (
    "plans", "serving", "weights", "indexes", "ready", "message", "reason", "route", "rollback", "step", "gates",
    "dataset is", "look again",
)  # fmt: skip
VERDICTS = {"no worse": fleet.PASSES, "worse": fleet.FAILS, "not known": fleet.UNDECIDED}


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_story(file: Path) -> None:
    story = yaml.safe_load(file.read_text())
    assert set(story) == {"story", "given", "steps"}
    given = story["given"]
    model = Model(
        versions=tuple(given["versions"]),
        spec={"version": given["version"], **given.get("spec", {})},
        gateways=[FakeGateway(name) for name in given.get("gateways", ())],
    )
    if story["given"].get("serves", True):
        model.settle()
    for number, step in enumerate(story["steps"], 1):
        where = f"step {number} of {file.name}: {step['when']}"
        assert set(step) <= {"when", "turns", *DOES, *SEES}, where
        _do(model, step)
        plans = [_turn(model) for _ in range(step["turns"])] if "turns" in step else _until_rest(model)
        found = _seen(model, plans)
        assert {name: found[name] for name in SEES if name in step} == {n: step[n] for n in SEES if n in step}, where


def _do(model: Model, step: dict[str, Any]) -> None:
    for name in DOES:
        if name not in step:
            continue
        value = step[name]
        match name:
            case "edit":
                model.edit(**value)
            case "dataset":
                model.versions = tuple(value)
                model.generation += 1
            case "snapshot":
                for _ in range(value):
                    model.change_source()
                    model.turn_dataset()
                    model.finish()
            case "pass":
                model.wait(base.parse_duration(value))
            case "lose":
                model.lose(_name(model, value))
            case "fails":
                model.failing = {value["work"]: b.failure(Reason(value["reason"]), value["says"], value["for good"])}
            case "heals":
                model.failing = {}
            case "restarts":
                model.work.clear()
            case "lives":
                model.live(base.parse_duration(value))
            case "judged":
                model.verdicts = {version: VERDICTS[verdict] for version, verdict in value.items()}
                model.evaluation = None
            case "breaks":
                model.errors = dict(value)
            case "decide":
                model.decide(**value)
            case "withdraw":
                model.approvals.clear()
            case "late" | "in time":
                for gateway in model.gateways:
                    gateway.is_late = name == "late" if gateway.name in value else gateway.is_late
            case "delete":
                model.deleting = {key: model.now for key in (b.DEPLOYMENT, b.DATASET) if key.kind in value}


def _turn(model: Model) -> Plan[DeploymentStatus]:
    model.turn_dataset()
    return model.turn()


def _until_rest(model: Model) -> list[Plan[DeploymentStatus]]:
    plans = []
    for _ in range(40):
        acted = model.turn_dataset().actions
        plans.append(model.turn())
        if not model.finish() and not acted and not plans[-1].actions and not model.is_adopting:
            return plans
    raise AssertionError(f"no rest; the last plans were {[b.kinds(plan.actions) for plan in plans[-4:]]}")


def _name(model: Model, version: str) -> str:
    """Return the collection of a version, the one that was made last where there are several."""
    return [index.name for index in model.facts.indexes if index.version == version][-1]


def _seen(model: Model, plans: list[Plan[DeploymentStatus]]) -> dict[str, Any]:
    kind, reason, message = b.goal(model.status)
    rollback = model.status.rollback
    published = model.published
    return {
        "plans": [", ".join(did) for plan in plans if (did := b.kinds(a for a in plan.actions if not b.is_probe(a)))],
        "serving": model.serving,
        "indexes": sorted(model.roles()),
        "ready": kind is ConditionType.READY,
        "reason": str(reason),
        "message": message,
        "weights": ", ".join(f"{version} {weight}" for version, weight in model.weights.items()),
        "step": ""
        if model.status.step is None
        else f"{model.status.step.name} {model.status.step.index or ''}".strip(),
        "gates": {gate.name: str(gate.verdict) for gate in model.status.gates},
        "route": f"{published['version']}@{published['snapshot']}" if published is not None else "",
        "rollback": "" if rollback is None else f"to {rollback.to}, {'ready' if rollback.ready else 'not ready'}",
        "dataset is": b.goal(model.dataset_status)[2],
        "look again": str(plans[-1].look_again),
    }
