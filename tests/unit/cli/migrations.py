"""Deployments in the midst of things, as an operator would report them, for the commands that steer and explain."""

from __future__ import annotations

from typing import Any

from tests.unit.cli.bench import Bench, condition, deployment, goal

STEPS: list[dict[str, Any]] = [
    {"shadow": {"percent": 100, "for": "2m"}},
    {"weight": 50},
    {"pause": {"for": "10m", "name": "settle"}},
    {"approval": {"name": "go-wide", "timeout": "24h"}},
    {"weight": 100},
]
GATES = {"evaluation": {"querySetRef": {"name": "papers-eval"}}}
PLAN = "3f2a9c"
PASSED = {
    "name": "evaluation",
    "verdict": "Passed",
    "version": "v8",
    "value": "+0.010",
    "wanted": "-0.02 or more",
    "interval": "-0.003 to +0.023",
    "samples": 120,
    "measuredAt": "2031-05-01T11:55:00Z",
    "message": "nDCG@10 rose by 0.010 (-0.003 to +0.023) over 120 groups; policy allows a fall of 0.02",
}
PARITY = {
    "name": "parity",
    "verdict": "Passed",
    "version": "v8",
    "samples": 7101,
    "message": "all 7,101 rows are there",
}
UNDECIDED = {
    "name": "evaluation",
    "verdict": "Inconclusive",
    "version": "v8",
    "wanted": "0.02",
    "message": "not measured yet; nDCG@10 needs 50 groups of judged queries or more, the set has 12",
}
REJECTED = {
    "version": "v8",
    "reason": "GateFailed",
    "message": "nDCG@10 fell by 0.041 (-0.060 to -0.022) over 120 groups, policy allows a fall of 0.02",
    "at": "2031-05-01T11:50:00Z",
}


def index(version: str, role: str, snapshot: int = 12, **more: Any) -> dict[str, Any]:
    return {
        "name": f"pm_papers_{version}",
        "version": version,
        "recipe": f"recipe-{version}",
        "role": role,
        "cursor": {"snapshot": snapshot, "sequence": snapshot},
        "rows": 7101,
        "verifiedAt": "2031-05-01T11:00:00Z",
        **more,
    }


def put(
    bench: Bench,
    status: dict[str, Any],
    spec: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
    version: str = "v8",
) -> None:
    """Put a deployment `papers` with steps and an evaluation gate, and what the operator says of it."""
    resource = deployment(version=version)
    resource["spec"] |= {"strategy": {"steps": STEPS}, "gates": GATES, **(spec or {})}
    resource["metadata"] |= meta or {}
    bench.apply(resource, {"observedGeneration": 1, "planHash": PLAN, **status})


def between(number: int, name: str, reason: str, message: str, **more: Any) -> dict[str, Any]:
    """Return the status of a migration from v7 to v8 in a step."""
    step = {"name": name, "index": number, "of": 5, "startedAt": "2031-05-01T11:50:00Z", "waitingFor": message}
    weight = 0 if number < 2 else 50
    waiting = reason in ("APersonIsAsked", "Held")
    conditions = goal("Stalled" if reason == "Held" else "Reconciling", reason, f"v8 waits: {message}")
    conditions.append(condition("AwaitingApproval", str(waiting), reason if waiting else "NobodyIsAsked", message))
    return {
        "servingVersion": "v7",
        "targetVersion": "v8",
        "weight": f"v8 {weight}, v7 {100 - weight}",
        "step": step | more.pop("step", {}),
        "conditions": conditions,
        "gates": [PARITY, PASSED],
        "indexes": [
            index("v7", "Serving", weight={"desired": 100 - weight, "accepted": 100 - weight, "measured": 50}),
            index("v8", "Candidate", weight={"desired": weight, "accepted": weight, "measured": 50}),
        ],
        **more,
    }


def asking(**more: Any) -> dict[str, Any]:
    """Return the status of a migration that asks a person to let it go wide."""
    message = "an Approval that answers go-wide is awaited for 24h"
    return between(4, "Approval", "APersonIsAsked", message, step={"deadline": "2031-05-02T11:50:00Z"}, **more)


def endless(**step: Any) -> dict[str, Any]:
    """Return the status of a migration in a pause that a person has to end."""
    message = "paused until an Approval answers settle"
    status = between(3, "Pause", "Paused", message, step=step)
    status["conditions"][-1] = condition("AwaitingApproval", "True", "APersonIsAsked", message)
    return status


def undecided(**more: Any) -> dict[str, Any]:
    """Return the status of a migration that a gate keeps from its first weight."""
    message = f"evaluation: {UNDECIDED['message']}"
    gates = [PARITY, UNDECIDED]
    return between(1, "Shadow", "GatesUndecided", message, gates=gates, **more)


def promoted(**more: Any) -> dict[str, Any]:
    """Return the status of a deployment at rest, with a retained index that is ready."""
    return {
        "servingVersion": "v8",
        "targetVersion": "v8",
        "weight": "v8 100",
        "conditions": goal("Ready", "UpToDate", "serving v8@12"),
        "gates": [PARITY, PASSED],
        "indexes": [index("v8", "Serving", weight={"desired": 100}), index("v7", "Retained")],
        "rollback": {"ready": True, "to": "v7", "estimate": "1s", "until": "2031-05-15T12:00:00Z"},
        **more,
    }


def approvals(bench: Bench) -> dict[str, dict[str, Any]]:
    """Return the specs of the Approvals that there are, by name."""
    return {each["metadata"]["name"]: each["spec"] for each in bench.cluster.list("Approval", "default")}


def decide(bench: Bench, name: str, made: str = "2031-05-01T11:55:00Z", **spec: Any) -> None:
    """Put an Approval about `papers`, as somebody made it earlier."""
    whole = {
        "target": {"kind": "IndexDeployment", "name": "papers"},
        "version": "v8",
        "expiresAt": "2031-05-02T12:00:00Z",
        **spec,
    }
    meta = {"namespace": "default", "name": name, "creationTimestamp": made}
    bench.apply({"kind": "Approval", "metadata": meta, "spec": whole})


def spec(bench: Bench) -> dict[str, Any]:
    """Return the deployment's spec as it is now."""
    found = bench.cluster.get("IndexDeployment", "default", "papers")
    assert found is not None
    return dict(found["spec"])
