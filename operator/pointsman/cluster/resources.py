"""The Kubernetes API as the controller and the gateway need it: the names of things, and one protocol.

`kube.py` is the real one, `memory.py` behaves alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.errors import Terminal
from pointsman.plan.tasks import Key

DATASET = "EmbeddingDataset"
DEPLOYMENT = "IndexDeployment"
QUERY_SET = "QuerySet"
APPROVAL = "Approval"
PLURALS: Mapping[str, str] = {
    DATASET: "embeddingdatasets",
    DEPLOYMENT: "indexdeployments",
    QUERY_SET: "querysets",
    APPROVAL: "approvals",
}
RELIES_ON: Mapping[str, str] = {DEPLOYMENT: DATASET, APPROVAL: DEPLOYMENT}
"""Which kind the resources of a kind name, each one of them."""
MANAGED_BY: Mapping[str, str] = {"app.kubernetes.io/managed-by": "pointsman"}
"""The label of what we make, by which we know it again."""
FINALIZER = "pointsman.dev/cleanup"
REFRESH_ANNOTATION = "pointsman.dev/refresh"
EVALUATE_ANNOTATION = "pointsman.dev/evaluate"
DRILL_ANNOTATION = "pointsman.dev/drill"

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are to the API server, and where it is: as of now, since tokens are renewed."""

    server: str
    ca_path: str | None
    is_verified: bool
    """Whether the server's certificate is checked."""
    authorization: str | None = field(repr=False)
    """The value of the header; None for a client certificate."""
    certificate_path: str | None
    key_path: str | None
    proxy_url: str | None


@dataclass(frozen=True, slots=True)
class Secret:
    """A Secret's values and annotations."""

    name: str
    values: Mapping[str, str]
    annotations: Mapping[str, str]
    binary: frozenset[str] = frozenset()
    """The keys whose values are no text: nothing of ours wants one, and whoever asks for one is told."""

    @staticmethod
    def of(name: str, values: Mapping[str, bytes], annotations: Mapping[str, str]) -> Secret:
        """Return a Secret from what Kubernetes keeps."""
        texts: dict[str, str] = {}
        for key, value in values.items():
            with contextlib.suppress(UnicodeDecodeError):
                texts[key] = value.decode()
        return Secret(name, texts, annotations, frozenset(values) - frozenset(texts))

    def __repr__(self) -> str:
        return f"Secret(name={self.name!r})"


@dataclass(frozen=True, slots=True)
class Lease:
    """What a Lease says of its holder. Two are equal where they say the same, whatever their versions are."""

    holder: str
    """Empty once it was given back."""
    transitions: int
    """Grows with every change of holder."""
    seconds: int
    """How long it lasts without being renewed."""
    acquired: datetime | None
    renewed: datetime | None
    """By the holder's clock, which nobody compares with their own."""
    version: str = field(default="", compare=False)
    """The resourceVersion that this was read at; empty for one that is not there yet."""


@dataclass(frozen=True, slots=True)
class All:
    """All resources of a kind that there are: what is not among them is gone."""

    resources: Sequence[Resource]


@dataclass(frozen=True, slots=True)
class Changed:
    """A resource as it is now."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class Gone:
    """A resource as it was before it was removed."""

    resource: Resource


Seen = All | Changed | Gone


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a token, as the cluster knows them."""

    name: str
    uid: str
    groups: tuple[str, ...]
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def names(kind: str, namespace: str, spec: Mapping[str, Any]) -> Key | None:
    """Return which other resource one of a kind names: a deployment its dataset, an Approval what it is about."""
    if kind not in RELIES_ON:
        return None
    _, reference, field_ = base.REFERENCES[kind].split(".")
    name = (spec.get(reference) or {}).get(field_)
    return Key(RELIES_ON[kind], namespace, name) if name else None


class Cluster(Protocol):
    """The Kubernetes API. Raises Retryable(CLUSTER_UNREACHABLE), and Conflict where somebody else wrote first."""

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """Return a resource of ours, or None."""
        ...

    def list(self, kind: str, namespace: str | None) -> Sequence[Resource]:
        """Return all resources of a kind, in one namespace or in all."""
        ...

    def pages(self, kind: str, namespace: str | None) -> Iterator[Sequence[Resource]]:
        """Yield the same, some at a time: thousands at once would be a lot of memory."""
        ...

    def naming(self, kind: str, named: Key) -> Sequence[Resource]:
        """Return the resources of a kind that name another: deployments a dataset, Approvals a deployment."""
        ...

    def watch(self, kind: str, namespace: str | None, seconds: float) -> Iterator[Seen]:
        """Yield all resources of a kind, and then each change as it happens, until the time is up.

        It may end earlier, and its end says nothing: whoever wants to know more watches again and begins with all.
        """
        ...

    def caller(self, token: str, audiences: Sequence[str] = ()) -> Caller | None:
        """Return whose token it is, by a TokenReview; None for a token that the cluster does not take.

        With audiences, None also for one that is meant for none of them; without, it has to be meant for the cluster.
        """
        ...

    def may_search(self, caller: Caller, namespace: str, name: str) -> bool:
        """Return whether a caller may create `indexdeployments/search` of a deployment, by a SubjectAccessReview."""
        ...

    def user(self) -> str:
        """Return the name by which the cluster knows us; empty where it does not say."""
        ...

    def create(self, resource: Resource) -> Resource:
        """Create a resource of ours under its own name; raises Conflict where there is one of that name."""
        ...

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete a resource of ours. A missing one is no error."""
        ...

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Resource:
        """Merge a patch into a resource: for annotations and, with a resourceVersion in it, finalizers."""
        ...

    def write_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any], version: str) -> None:
        """Replace a status, if the resource is still at a resourceVersion."""
        ...

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the data of a ConfigMap of ours, or None."""
        ...

    def write_config_map(self, owner: Key, uid: str, name: str, data: Mapping[str, str]) -> None:
        """Create or replace a ConfigMap of ours, owned by one of our resources.

        Ours is what carries our label or belongs to one of our resources, so that one is known again that was restored
        or whose owner was created anew. Raises Terminal(ROUTE_FOREIGN) for any other of that name.
        """
        ...

    def delete_config_map(self, namespace: str, name: str) -> None:
        """Remove a ConfigMap of ours. A missing one is no error, and another's stays."""
        ...

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret by name, or None."""
        ...

    def lease(self, namespace: str, name: str, within: float) -> Lease | None:
        """Return a Lease, or None. Neither connecting nor reading may take more than so many seconds."""
        ...

    def write_lease(self, namespace: str, name: str, lease: Lease, within: float) -> Lease:
        """Replace a Lease if it is still at its version, or create one where there is none; return it as it is now.

        Raises Conflict where there is one at another version.
        """
        ...

    def event(self, about: Resource, is_warning: bool, reason: str, message: str) -> None:
        """Post an Event. Best effort: a lost Event is no error."""
        ...


def foreign(config_map: str) -> Terminal:
    """Return the error for a ConfigMap of a name of ours that somebody else made."""
    label = ", ".join(f"{name}={value}" for name, value in MANAGED_BY.items())
    return Terminal(
        Reason.ROUTE_FOREIGN,
        f"ConfigMap {config_map} is somebody else's, wanted it free or with the label {label}; "
        "remove it, or declare the deployment under another name",
    )
