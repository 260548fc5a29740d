"""Kubernetes Jobs on the real API, as plain objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pointsman.api.conditions import Reason
from pointsman.cluster import kube_objects
from pointsman.cluster.batch import OWNER
from pointsman.cluster.resources import Resource
from pointsman.errors import Retryable

_MERGE = "application/merge-patch+json"
_SHOWN = 300
"""Characters of what the cluster answers: it names quotas, policies and fields, and a Job holds nothing secret."""


Api = Literal["batch", "core"]


class Call(Protocol):
    """One call of the client's."""

    def __call__(self, api: Api, verb: str, *arguments: Any, **options: Any) -> Any:
        """Return what the API server answers as a plain object, None for what is not there; 409 raises Conflict."""
        ...


class KubeBatch:
    """The Jobs of one cluster."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def job(self, namespace: str, name: str) -> Resource | None:
        """Return a Job, or None."""
        found: Resource | None = self._call("batch", "read_namespaced_job", name, namespace)
        return found

    def jobs(self, namespace: str, uid: str) -> Sequence[Resource]:
        """Return the Jobs that were made for the dataset of a UID."""
        found = self._call("batch", "list_namespaced_job", namespace, label_selector=f"{OWNER}={uid}")
        return list(found["items"])

    def create(self, namespace: str, job: Mapping[str, Any]) -> None:
        """Create a Job, unless there is one of its name."""
        name = job["metadata"]["name"]
        if self.job(namespace, name) is not None:
            return
        try:
            self._call("batch", "create_namespaced_job", namespace, dict(job))
        except Retryable as error:
            if getattr(error.__cause__, "status", None) not in (403, 422):
                raise
            said = kube_objects.said(getattr(error.__cause__, "body", None))[:_SHOWN]
            message = f"the cluster refuses Job {name}: {said}; it is tried again"
            raise Retryable(Reason.JOB_REFUSED, message) from error

    def suspend(self, namespace: str, name: str, is_suspended: bool) -> None:
        """Have the pods of a Job stopped, or started again."""
        patch = {"spec": {"suspend": is_suspended}}
        self._call("batch", "patch_namespaced_job", name, namespace, patch, _content_type=_MERGE)

    def delete(self, namespace: str, name: str) -> None:
        """Delete a Job: it goes once its pods are gone."""
        self._call("batch", "delete_namespaced_job", name, namespace, propagation_policy="Foreground")

    def pods(self, namespace: str, name: str) -> Sequence[Resource]:
        """Return the pods of a Job."""
        selector = f"batch.kubernetes.io/job-name={name}"
        return list(self._call("core", "list_namespaced_pod", namespace, label_selector=selector)["items"])
