"""Kubernetes Jobs on the real API, as plain objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pointsman.api.conditions import Reason
from pointsman.cluster import kube_objects, rest
from pointsman.cluster.batch import OWNER
from pointsman.cluster.resources import Resource
from pointsman.errors import Retryable

_SHOWN = 300
"""Characters of what the cluster answers: it names quotas, policies and fields, and a Job holds nothing secret."""


class Call(Protocol):
    """One request to the API server."""

    def __call__(self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None) -> Any:
        """Return what it answers, None for what is not there; 409 raises Conflict."""
        ...


class KubeBatch:
    """The Jobs of one cluster."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def job(self, namespace: str, name: str) -> Resource | None:
        """Return a Job, or None."""
        found: Resource | None = self._call("GET", _jobs(namespace, name))
        return found

    def jobs(self, namespace: str, uid: str) -> Sequence[Resource]:
        """Return the Jobs that were made for the dataset of a UID."""
        return list(self._call("GET", _jobs(namespace), query={"labelSelector": f"{OWNER}={uid}"})["items"])

    def create(self, namespace: str, job: Mapping[str, Any]) -> None:
        """Create a Job, unless there is one of its name."""
        name = job["metadata"]["name"]
        if self.job(namespace, name) is not None:
            return
        try:
            self._call("POST", _jobs(namespace), dict(job))
        except Retryable as error:
            refusal = error.__cause__
            if not isinstance(refusal, rest.Refusal) or refusal.status not in (403, 422):
                raise
            said = kube_objects.said(refusal.body)[:_SHOWN]
            message = f"the cluster refuses Job {name}: {said}; it is tried again"
            raise Retryable(Reason.JOB_REFUSED, message) from error

    def suspend(self, namespace: str, name: str, is_suspended: bool) -> None:
        """Have the pods of a Job stopped, or started again."""
        self._call("PATCH", _jobs(namespace, name), {"spec": {"suspend": is_suspended}})

    def delete(self, namespace: str, name: str) -> None:
        """Delete a Job: it goes once its pods are gone."""
        self._call("DELETE", _jobs(namespace, name), query={"propagationPolicy": "Foreground"})

    def pods(self, namespace: str, name: str) -> Sequence[Resource]:
        """Return the pods of a Job."""
        selector = {"labelSelector": f"batch.kubernetes.io/job-name={name}"}
        return list(self._call("GET", rest.path("api", "v1", "namespaces", namespace, "pods"), query=selector)["items"])


def _jobs(namespace: str, *name: str) -> str:
    return rest.path("apis", "batch", "v1", "namespaces", namespace, "jobs", *name)
