"""The real Kubernetes API: which request is each call."""

from __future__ import annotations

import base64
import builtins
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson

from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.cluster import kube_objects, rest
from pointsman.cluster.counting import Requests
from pointsman.cluster.resources import (
    PLURALS,
    All,
    Caller,
    Changed,
    Gone,
    Identity,
    Lease,
    Resource,
    Secret,
    Seen,
    foreign,
    names,
)
from pointsman.cluster.rest import Refusal, Rest
from pointsman.errors import Retryable, Terminal
from pointsman.plan.tasks import Key

PAGE = 100
"""How many resources are listed by one call: 50 KB of memory each while they are read, for each thread that lists."""
SILENCE = 15.0
"""Seconds after which a watch that should have ended is given up: what is between us and the server has died."""
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the name of its namespace."""


def connect(kubeconfig: str | None = None, context: str | None = None) -> Kube:
    """Connect as a kubeconfig says; without one, as the pod's service account or the user's default says.

    Raises Terminal(CLUSTER_UNREACHABLE) where there is no usable configuration.
    """
    return Kube(rest.connect(kubeconfig, context))


def own_namespace() -> str:
    """Return the namespace of the pod that this process runs in, or `default` outside of a cluster."""
    with contextlib.suppress(OSError):
        return OWN_NAMESPACE.read_text().strip() or "default"
    return "default"


class Kube:
    """The API of one cluster. One connection for all threads; every call has a deadline."""

    def __init__(self, api: Rest, page_size: int = PAGE) -> None:
        self._api, self._page_size = api, page_size
        self._is_selecting = True
        self.call = api.find
        """One request: for whoever speaks of other objects."""

    @property
    def requests(self) -> Requests:
        """How often the API server was asked."""
        return self._api.requests

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of the API server."""
        return self._api.address

    def identity(self) -> Identity:
        """Return who we are, with a token that holds now: it may have to be fetched or read again."""
        return self._api.identity()

    def endpoints(self) -> Sequence[tuple[str, int]]:
        """Return the addresses and ports behind the API server's Service; none where we may not look."""
        with contextlib.suppress(Retryable):
            found = self._api.find("GET", _slices("default"), query=_of_service("kubernetes"))
            return [] if found is None else kube_objects.endpoints(found["items"])
        return []

    def gateways(self, namespace: str, service: str) -> Sequence[tuple[str, bool]]:
        """Return the URL of the port `admin` of every pod behind a Service, and whether queries are sent to it."""
        found = self._api.ask("GET", _slices(namespace), query=_of_service(service))
        return kube_objects.gateways(found["items"])

    def check_definitions(self) -> None:
        """Raise Terminal(CLUSTER_UNREACHABLE) unless the cluster knows all our kinds."""
        found = self._api.find("GET", rest.path("apis", base.GROUP, base.API_VERSION))
        known = set() if found is None else {resource["name"] for resource in found["resources"]}
        missing = sorted(set(PLURALS.values()) - known)
        if missing:
            names = ", ".join(f"{plural}.{base.GROUP}" for plural in missing)
            message = f"the cluster does not know {names}; apply the folder crds and start again"
            raise Terminal(Reason.CLUSTER_UNREACHABLE, message)

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """Return a resource of ours, or None."""
        found: Resource | None = self._api.find("GET", _ours(kind, namespace, name))
        return found

    def list(self, kind: str, namespace: str | None) -> Sequence[Resource]:
        """Return all resources of a kind, in one namespace or in all."""
        return self._listed(kind, namespace)[0]

    def pages(self, kind: str, namespace: str | None) -> Iterator[Sequence[Resource]]:
        """Yield all resources of a kind, in one namespace or in all, as they are listed."""
        for resources, _ in self._paged(kind, namespace):
            yield resources

    def naming(self, kind: str, named: Key) -> Sequence[Resource]:
        """Return the resources of a kind that name another, selected by the API server where it can.

        One before 1.31 cannot, nor one whose definitions are of an earlier release: then all are listed, a page at a
        time, as of thousands only few are kept.
        """
        selector = {"fieldSelector": f"{base.REFERENCES[kind]}={named.name}"}
        if self._is_selecting:
            try:
                return self._named(kind, named, selector)
            except Retryable as error:
                if not isinstance(error.__cause__, Refusal) or error.__cause__.status != HTTPStatus.BAD_REQUEST:
                    raise
                self._is_selecting = False
        return self._named(kind, named, {})

    def _named(self, kind: str, named: Key, selector: Mapping[str, str]) -> Sequence[Resource]:
        return [
            resource
            for resources, _ in self._paged(kind, named.namespace, selector)
            for resource in resources
            if names(kind, named.namespace, resource.get("spec") or {}) == named
        ]

    def watch(self, kind: str, namespace: str | None, seconds: float) -> Iterator[Seen]:
        """Yield all resources of a kind, and then each change as it happens, until the time is up."""
        resources, version = self._listed(kind, namespace)
        yield All(resources)
        asked = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(max(1, int(seconds)))}
        limits = (rest.TIMEOUT[0], seconds + SILENCE)
        for line in kube_objects.lines(self._api.stream(_ours(kind, namespace), asked, limits)):
            event = orjson.loads(line)
            match event["type"]:
                case "ADDED" | "MODIFIED":
                    yield Changed(event["object"])
                case "DELETED":
                    yield Gone(event["object"])
                case "ERROR":
                    # Of whatever kind: whoever watches begins anew with all, as after a 410.
                    return

    def _listed(self, kind: str, namespace: str | None) -> tuple[builtins.list[Resource], str]:
        """Return all resources of a kind, and the version from which to watch."""
        found: builtins.list[Resource] = []
        version = ""
        for resources, at in self._paged(kind, namespace):
            found, version = found + resources, at
        return found, version

    def _paged(
        self, kind: str, namespace: str | None, selector: Mapping[str, str] | None = None
    ) -> Iterator[tuple[builtins.list[Resource], str]]:
        asked = {"limit": str(self._page_size), **(selector or {})}
        while asked.get("continue") != "":
            page = self._api.ask("GET", _ours(kind, namespace), query=asked)
            asked["continue"] = page["metadata"].get("continue", "")
            yield page["items"], page["metadata"].get("resourceVersion", "")

    def caller(self, token: str, audiences: Sequence[str] = ()) -> Caller | None:
        """Return whose token it is, by a TokenReview; None for one that the cluster does not take, or not for us."""
        asked = kube_objects.token_review(token, audiences)
        found = self._api.ask("POST", rest.path("apis", "authentication.k8s.io", "v1", "tokenreviews"), asked)
        return kube_objects.caller(found.get("status") or {}, audiences)

    def may_search(self, caller: Caller, namespace: str, name: str) -> bool:
        """Return whether a caller may create `indexdeployments/search` of a deployment, by a SubjectAccessReview."""
        asked = kube_objects.access_review(caller, namespace, name)
        found = self._api.ask("POST", rest.path("apis", "authorization.k8s.io", "v1", "subjectaccessreviews"), asked)
        return bool((found.get("status") or {}).get("allowed"))

    def user(self) -> str:
        """Return the name by which the cluster knows us, by a SelfSubjectReview; empty where it does not say."""
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        found = self._api.find("POST", rest.path("apis", "authentication.k8s.io", "v1", "selfsubjectreviews"), asked)
        told = ((found or {}).get("status") or {}).get("userInfo") or {}
        return str(told.get("username", ""))

    def create(self, resource: Resource) -> Resource:
        """Create a resource of ours under its own name."""
        body = {"apiVersion": f"{base.GROUP}/{base.API_VERSION}", **resource}
        return dict(self._api.ask("POST", _ours(resource["kind"], resource["metadata"]["namespace"]), body))

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete a resource of ours. A missing one is no error."""
        self._api.find("DELETE", _ours(kind, namespace, name))

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Resource:
        """Merge a patch into a resource."""
        return dict(self._api.ask("PATCH", _ours(kind, namespace, name), dict(patch)))

    def write_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any], version: str) -> None:
        """Replace a status, if the resource is still at a resourceVersion."""
        # A put, because a merge would leave what the new status no longer says, and because of a JSON patch whose
        # test fails the server says no more than that it is invalid.
        body = {
            "apiVersion": f"{base.GROUP}/{base.API_VERSION}",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": version},
            "status": dict(status),
        }
        self._api.ask("PUT", _ours(kind, namespace, name, "status"), body)

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the data of a ConfigMap of ours, or None."""
        found = self._api.find("GET", _core(namespace, "configmaps", name))
        return dict(found.get("data") or {}) if found is not None and kube_objects.is_ours(found) else None

    def write_config_map(self, owner: Key, uid: str, name: str, data: Mapping[str, str]) -> None:
        """Create or replace a ConfigMap of ours; raises Terminal(ROUTE_FOREIGN) for somebody else's of that name."""
        body = kube_objects.config_map(owner, uid, name, data)
        there = self._api.find("GET", _core(owner.namespace, "configmaps", name))
        if there is None:
            self._api.ask("POST", _core(owner.namespace, "configmaps"), body)
            return
        if not kube_objects.is_ours(there):
            raise foreign(name)
        # What was judged is what is replaced: another may have put theirs there since.
        body["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
        self._api.ask("PUT", _core(owner.namespace, "configmaps", name), body)

    def delete_config_map(self, namespace: str, name: str) -> None:
        """Remove a ConfigMap of ours. A missing one is no error, and another's stays."""
        where = _core(namespace, "configmaps", name)
        there = self._api.find("GET", where)
        if there is None or not kube_objects.is_ours(there):
            return
        judged = {field: there["metadata"][field] for field in ("uid", "resourceVersion")}
        self._api.find("DELETE", where, {"preconditions": judged})

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret by name, or None."""
        found = self._api.find("GET", _core(namespace, "secrets", name))
        if found is None:
            return None
        values = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        return Secret.of(name, values, found["metadata"].get("annotations") or {})

    def lease(self, namespace: str, name: str, within: float) -> Lease | None:
        """Return a Lease, or None."""
        found = self._api.find("GET", _leases(namespace, name), within=(within, within))
        return None if found is None else kube_objects.lease(found)

    def write_lease(self, namespace: str, name: str, lease: Lease, within: float) -> Lease:
        """Create a Lease, or replace it if it is still at its version."""
        body, limits = kube_objects.lease_body(name, lease), (within, within)
        if not lease.version:
            return kube_objects.lease(self._api.ask("POST", _leases(namespace), body, within=limits))
        body["metadata"]["resourceVersion"] = lease.version
        # The API server creates what is put, if it is gone by now: for Leases alone of all that we write.
        return kube_objects.lease(self._api.ask("PUT", _leases(namespace, name), body, within=limits))

    def event(self, about: Resource, is_warning: bool, reason: str, message: str) -> None:
        """Post an Event. Best effort: a lost Event is no error."""
        body = kube_objects.event(about, is_warning, reason, message, datetime.now(UTC))
        with contextlib.suppress(Retryable, Terminal):
            self._api.ask("POST", _core(about["metadata"]["namespace"], "events"), body)


def _ours(kind: str, namespace: str | None, *rest_of: str) -> str:
    """Return where our resources of a kind are, in one namespace or in all, or one of them."""
    place = () if namespace is None else ("namespaces", namespace)
    return rest.path("apis", base.GROUP, base.API_VERSION, *place, PLURALS[kind], *rest_of)


def _core(namespace: str, plural: str, *name: str) -> str:
    return rest.path("api", "v1", "namespaces", namespace, plural, *name)


def _leases(namespace: str, *name: str) -> str:
    return rest.path("apis", "coordination.k8s.io", "v1", "namespaces", namespace, "leases", *name)


def _slices(namespace: str) -> str:
    return rest.path("apis", "discovery.k8s.io", "v1", "namespaces", namespace, "endpointslices")


def _of_service(name: str) -> Mapping[str, str]:
    return {"labelSelector": f"kubernetes.io/service-name={name}"}
