"""When it is said that no pod of a Job could be created: not before the next one should have come."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pointsman.api.conditions import Reason
from pointsman.cluster import job_trouble
from pointsman.plan.tasks import Wait

CREATED = datetime(2026, 1, 1, 8, tzinfo=UTC)
AT = datetime(2026, 1, 1, 10, tzinfo=UTC)
"""When a pod came to its end."""


def job(**status: Any) -> dict[str, Any]:
    meta = {"name": "papers-1", "creationTimestamp": CREATED.isoformat()}
    return {"metadata": meta, "spec": {"completions": 3}, "status": status}


def pod(phase: str, failures: int = 0, ignored: int = 0) -> dict[str, Any]:
    name = "batch.kubernetes.io/job-index"
    told = {f"{name}-failure-count": str(failures), f"{name}-ignored-failure-count": str(ignored)}
    over = {"terminated": {"exitCode": 1, "finishedAt": AT.isoformat()}}
    state = over if phase in ("Failed", "Succeeded") else {"running": {}}
    status = {"phase": phase, "containerStatuses": [{"state": state}]}
    return {"metadata": {"name": "p", "annotations": told}, "status": status}


def said(pods: list[dict[str, Any]], after: timedelta, **status: Any) -> Wait | None:
    """Return what is said so long after a pod came to its end, of pods none of which has been seen since."""
    moved_at = job_trouble.ended_at(pods) or AT
    return job_trouble.trouble(job(**status), pods, AT + after, moved_at)


@pytest.mark.parametrize(
    ("pods", "seconds"),
    [
        pytest.param([], 30, id="after all have gone"),
        pytest.param([pod("Succeeded")], 30, id="after one that is done"),
        pytest.param([pod("Failed")], 40, id="after one that failed"),
        pytest.param([pod("Failed", 3)], 110, id="after the fourth that failed"),
        pytest.param([pod("Failed", 2, ignored=1)], 110, id="after the fourth, of which one was evicted"),
        pytest.param([pod("Succeeded"), pod("Failed", 1), pod("Failed")], 50, id="after the last of several"),
        pytest.param([pod("Failed", 60)], 630, id="after so many that the wait grows no more"),
    ],
)
def test_that_pods_are_refused_is_said_once_the_next_should_have_come(pods: list[dict[str, Any]], seconds: int) -> None:
    assert said(pods, timedelta(seconds=seconds)) is None

    what = "further pod" if pods else "pod"
    assert said(pods, timedelta(seconds=seconds + 1)) == Wait(
        Reason.JOB_REFUSED,
        f"no {what} of Job papers-1 could be created, as by a quota or a policy; kubectl describe job papers-1 names "
        "it",
    )


@pytest.mark.parametrize(
    ("pods", "status"),
    [
        pytest.param([pod("Failed"), pod("Running")], {}, id="another runs"),
        pytest.param([pod("Failed"), pod("Unknown")], {}, id="nobody knows of another"),
        pytest.param([pod("Succeeded")] * 3, {"succeeded": 3}, id="all are done"),
        pytest.param([pod("Failed")], {"conditions": [{"type": "Failed", "status": "True"}]}, id="the Job has ended"),
    ],
)
def test_no_pod_is_missed_where_none_is_wanted(pods: list[dict[str, Any]], status: dict[str, Any]) -> None:
    assert said(pods, timedelta(hours=2), **status) is None


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        pytest.param(
            [],
            Wait(Reason.JOB_UNSCHEDULABLE, "no node takes pod p: no scheduler has looked at it"),
            id="nobody has seen it",
        ),
        pytest.param(
            [{"type": "PodScheduled", "status": "True", "lastTransitionTime": AT.isoformat()}],
            Wait(Reason.JOB_CANNOT_START, "pod p has a node that has not begun it; kubectl describe pod p"),
            id="its node is silent",
        ),
    ],
)
def test_of_a_pod_that_nobody_begins_that_is_said(conditions: list[dict[str, Any]], wanted: Wait) -> None:
    meta = {"name": "p", "creationTimestamp": AT.isoformat()}
    pending: dict[str, Any] = {"metadata": meta, "status": {"phase": "Pending", "conditions": conditions}}

    assert said([pending], timedelta(seconds=30)) is None
    assert said([pending], timedelta(seconds=31)) == wanted
    begun = {**pending, "status": {**pending["status"], "startTime": AT.isoformat()}}
    assert said([begun], timedelta(seconds=30)) is None


@pytest.mark.parametrize(
    ("status", "meta"),
    [
        pytest.param({"conditions": [{"type": "Ready", "lastTransitionTime": "AT"}]}, {}, id="by its conditions"),
        pytest.param({"containerStatuses": [{"state": {"waiting": {}}}]}, {"creationTimestamp": "AT"}, id="by none"),
    ],
)
def test_a_pod_whose_containers_never_began_came_to_its_end_when_it_last_turned(
    status: dict[str, Any], meta: dict[str, Any]
) -> None:
    status, meta = json.loads(json.dumps([status, meta]).replace("AT", AT.isoformat()))

    assert job_trouble.ended_at([{"metadata": meta, "status": {**status, "phase": "Failed"}}]) == AT
    assert job_trouble.ended_at([{"metadata": meta, "status": {**status, "phase": "Running"}}]) is None
