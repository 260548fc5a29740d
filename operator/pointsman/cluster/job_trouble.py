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
# How the kubelet says that a pod overstepped a limit of its own. A node that is short of something has other words.
_OWN_LIMIT = re.compile(r"exceed(s|ed) (the|its) .*limit")


def trouble(job: Resource, pods: Sequence[Resource], now: datetime) -> Wait | None:
    """Return what keeps a Job's pods from running, if anything does; no deadline is in the message yet."""
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
    started = job.get("status", {}).get("startTime")
    if not pods and not job_objects.is_ended(job) and now - _time(started or since.isoformat()) > SLOW:
        message = f"no pod of Job {name} could be created, as by a quota or a policy; kubectl describe job {name}"
        return Wait(Reason.JOB_REFUSED, f"{message} names it")
    return None


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
    containers = (each for pod in pods for each in pod.get("status", {}).get("containerStatuses") or ())
    ends = ((each.get("state") or {}).get("terminated") or {} for each in containers)
    return max((_time(end["finishedAt"]) for end in ends if end.get("finishedAt")), default=None)


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
    return None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
