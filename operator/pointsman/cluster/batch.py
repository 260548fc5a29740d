"""Kubernetes Jobs and their pods as the operator needs them: one protocol, with plain objects in and out.

`kube_batch.py` is the real one, `memory_batch.py` behaves alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pointsman.cluster.resources import Resource

OWNER = "pointsman.dev/dataset-uid"
"""The label by which the Jobs of a resource are found. It is older than the Jobs of deployments: those of the release
before have it."""


class Batch(Protocol):
    """The API of Jobs. Raises Retryable(CLUSTER_UNREACHABLE)."""

    def job(self, namespace: str, name: str) -> Resource | None:
        """Return a Job, or None."""
        ...

    def jobs(self, namespace: str, uid: str) -> Sequence[Resource]:
        """Return the Jobs that were made for the resource of a UID."""
        ...

    def create(self, namespace: str, job: Mapping[str, Any]) -> None:
        """Create a Job, unless there is one of its name; raises Retryable(JOB_REFUSED) where the cluster refuses it."""
        ...

    def suspend(self, namespace: str, name: str, is_suspended: bool) -> None:
        """Have the pods of a Job stopped, or started again."""
        ...

    def delete(self, namespace: str, name: str) -> None:
        """Delete a Job: it goes once its pods are gone. A missing one is no error."""
        ...

    def pods(self, namespace: str, name: str) -> Sequence[Resource]:
        """Return the pods of a Job."""
        ...
