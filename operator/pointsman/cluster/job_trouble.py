"""Why do the pods of a Kubernetes Job not run? Read from the Job and its pods, without a call."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from pointsman.api.conditions import Reason
from pointsman.cluster import job_objects
from pointsman.cluster.resources import Resource
from pointsman.plan.tasks import Wait

SLOW = timedelta(seconds=30)
"""How long it may take until a Job has pods, and until a pod's volumes are there, before it is remarkable."""
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
_NO_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_SHOWN = 200
_INDEX = "batch.kubernetes.io/job-completion-index"
_FAILED = ("batch.kubernetes.io/job-index-failure-count", "batch.kubernetes.io/job-index-ignored-failure-count")
_OVER = ("Succeeded", "Failed")
# What the controller of Jobs waits before it has another pod in place of one that failed: twice as long each time. Six
# minutes at most, by https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-backoff-failure-policy; ten, by
# MaxJobPodFailureBackOff in its job_controller.go.
_AGAIN, _AGAIN_AT_MOST = timedelta(seconds=10), timedelta(minutes=10)
# How the kubelet says that a pod overstepped a limit of its own. A node that is short of something has other words.
_OWN_LIMIT = re.compile(r"exceed(s|ed) (the|its) .*limit")


def trouble(job: Resource, pods: Sequence[Resource], now: datetime, moved_at: datetime) -> Wait | None:
    """Return what keeps a Job's pods from running, if anything does; no deadline is in the message yet.

    `moved_at` is when anything was last seen to move: now, while a pod runs.
    """
    name, since = job["metadata"]["name"], job_objects.created_at(job)
    if job["spec"].get("suspend"):
        queue = job["metadata"].get("labels", {}).get(job_objects.QUEUE)
        if queue:
            message = f"queue {queue} has not admitted Job {name} since {since:%Y-%m-%dT%H:%MZ}"
            return Wait(Reason.JOB_NOT_ADMITTED, message)
        return Wait(Reason.SUSPENDED, f"Job {name} is suspended")
    stuck = (_of_pod(pod, now) for pod in pods if pod.get("status", {}).get("phase") == "Pending")
    found = next((wait for wait in stuck if wait is not None), None)
    if found is not None:
        return found
    evicted = _evicted(pods)
    if evicted is not None:
        return evicted
    if not _wants_none(job, pods) and now - _next_at(pods, moved_at) > SLOW:
        what = "further pod" if pods else "pod"
        message = f"no {what} of Job {name} could be created, as by a quota or a policy; kubectl describe job {name}"
        return Wait(Reason.JOB_REFUSED, f"{message} names it")
    return None


def _wants_none(job: Resource, pods: Sequence[Resource]) -> bool:
    """Return whether a Job wants no pod beside those that it has: there is one, or all is done."""
    is_there = any(pod.get("status", {}).get("phase") not in _OVER for pod in pods)
    succeeded = job.get("status", {}).get("succeeded") or 0
    return is_there or job_objects.is_ended(job) or succeeded >= job["spec"]["completions"]


def _next_at(pods: Sequence[Resource], moved_at: datetime) -> datetime:
    """Return when the next pod of a Job none of whose pods is there any more is created."""
    return max([moved_at, *(at + _back_off(pod) for pod in pods if (at := _ended_at(pod)) is not None)])


def _back_off(pod: Resource) -> timedelta:
    """Return how long the controller of Jobs waits after the end of a pod until it has one in its place."""
    if pod["status"]["phase"] != "Failed":
        return timedelta()
    told = pod["metadata"].get("annotations", {})
    failures = sum(int(told.get(name, 0)) for name in _FAILED)
    return min(_AGAIN * (1 << min(failures, 10)), _AGAIN_AT_MOST)


def idle_since(job: Resource) -> datetime:
    """Return since when a Job could have had pods at work: its creation, or when it was last let go on."""
    started = job.get("status", {}).get("startTime")
    return max(job_objects.created_at(job), _time(started)) if started else job_objects.created_at(job)


def ran_last(job: Resource, pods: Sequence[Resource], now: datetime) -> datetime | None:
    """Return when a pod of a Job ran last, as far as the cluster tells whoever has just come to look.

    None where none has run. A pod that was drained is gone, and the one in its place came just after. Where there is
    neither, it may have been just now.
    """
    status = job.get("status", {})
    if not any(status.get(count) for count in ("ready", "succeeded", "failed")):
        return None
    came = [_time(at) for pod in pods if (at := pod["metadata"].get("creationTimestamp"))]
    ended = ended_at(pods)
    return max([*came, *([] if ended is None else [ended])], default=now)


def is_any_running(pods: Sequence[Resource]) -> bool:
    """Return whether some pod runs now."""
    return any(pod.get("status", {}).get("phase") == "Running" for pod in pods)


def ended_at(pods: Sequence[Resource]) -> datetime | None:
    """Return when the last of the pods that came to their end did; None where none has."""
    return max((end for pod in pods if (end := _ended_at(pod)) is not None), default=None)


def _ended_at(pod: Resource) -> datetime | None:
    """Return when a pod came to its end; None where it has not, or nobody says when."""
    status = pod.get("status", {})
    states = (each.get("state") or {} for each in status.get("containerStatuses") or ())
    ends = [end["finishedAt"] for state in states if (end := state.get("terminated") or {}).get("finishedAt")]
    if not ends and status.get("phase") in _OVER:
        # Where the kubelet put a pod out before its containers had begun, or is gone with its node.
        turned = (each.get("lastTransitionTime") for each in status.get("conditions") or ())
        ends = [at for at in (*turned, pod["metadata"].get("creationTimestamp")) if at]
    return max(map(_time, ends), default=None)


def _evicted(pods: Sequence[Resource]) -> Wait | None:
    """Return that a pod wrote more than it may, unless its share is done by now: it begins again, to no other end."""
    done = {_index(pod) for pod in pods if pod.get("status", {}).get("phase") == "Succeeded"}
    for pod in reversed(pods):
        status = pod.get("status", {})
        said = str(status.get("message", "")).strip()
        if status.get("reason") == "Evicted" and _OWN_LIMIT.search(said) and _index(pod) not in done:
            message = f"pod {pod['metadata']['name']} was evicted: {said[:_SHOWN].rstrip('. ')}"
            return Wait(Reason.DISK_FULL, f"{message}; set more ephemeral-storage in spec.work.job.resources")
    return None


def _index(pod: Resource) -> str:
    return str(pod["metadata"].get("annotations", {}).get(_INDEX, ""))


def _of_pod(pod: Resource, now: datetime) -> Wait | None:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _NO_IMAGE:
            return Wait(Reason.JOB_CANNOT_START, f"pod {name} cannot pull image {container['image']} ({reason})")
        if reason in _NO_CONTAINER:
            said = f": {waiting['message'][:_SHOWN]}" if waiting.get("message") else ""
            return Wait(Reason.JOB_CANNOT_START, f"pod {name} cannot start ({reason}){said}")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = condition.get("message", "")[:_SHOWN] or condition.get("reason", "")
            return Wait(Reason.JOB_UNSCHEDULABLE, f"no node takes pod {name}: {said}")
    started = status.get("startTime")
    if started and now - _time(started) > SLOW:
        message = (
            f"pod {name} waits for its volumes, as where a Secret is missing; kubectl describe pod {name} names it"
        )
        return Wait(Reason.JOB_CANNOT_START, message)
    return None if started else _unbegun(pod, now)


def _unbegun(pod: Resource, now: datetime) -> Wait | None:
    """Return what keeps a pod that nobody complains of from being begun, once that is remarkable."""
    name, conditions = pod["metadata"]["name"], pod.get("status", {}).get("conditions") or ()
    given_at = next((c.get("lastTransitionTime") for c in conditions if c["type"] == "PodScheduled"), None)
    since = given_at or pod["metadata"].get("creationTimestamp")
    if since is None or now - _time(since) <= SLOW:
        return None
    if given_at is None:
        return Wait(Reason.JOB_UNSCHEDULABLE, f"no node takes pod {name}: no scheduler has looked at it")
    return Wait(Reason.JOB_CANNOT_START, f"pod {name} has a node that has not begun it; kubectl describe pod {name}")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
