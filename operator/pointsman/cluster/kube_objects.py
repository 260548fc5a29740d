"""What the Kubernetes API is told and tells, as plain objects: no client here, and no call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pointsman.api import base
from pointsman.cluster.resources import DEPLOYMENT, MANAGED_BY, PLURALS, Caller, Lease, Resource
from pointsman.plan.tasks import Key


def config_map(owner: Key, uid: str, name: str, data: Mapping[str, str]) -> dict[str, Any]:
    """Return a ConfigMap of ours, owned by one of our resources."""
    reference = {
        "apiVersion": f"{base.GROUP}/{base.API_VERSION}",
        "kind": owner.kind,
        "name": owner.name,
        "uid": uid,
        "controller": True,
    }
    meta = {"name": name, "labels": dict(MANAGED_BY), "ownerReferences": [reference]}
    return {"metadata": meta, "data": dict(data)}


def is_ours(meta: Any) -> bool:
    """Return whether metadata, as the client has them, are of something that we made."""
    labels = meta.labels or {}
    is_labelled = all(labels.get(name) == value for name, value in MANAGED_BY.items())
    return is_labelled or any(ref.api_version.startswith(f"{base.GROUP}/") for ref in meta.owner_references or ())


def endpoints(slices: Iterable[Any]) -> list[tuple[str, int]]:
    """Return the addresses and ports that EndpointSlices, as the client has them, name."""
    return [(address, port.port) for port, endpoint in _places(slices) for address in endpoint.addresses]


def gateways(slices: Iterable[Any]) -> list[tuple[str, bool]]:
    """Return the URL of the port `admin` of every pod that EndpointSlices name, and whether queries are sent to it."""
    return [
        (
            f"http://[{address}]:{port.port}" if ":" in address else f"http://{address}:{port.port}",
            endpoint.conditions is None or endpoint.conditions.ready is not False,
        )
        for port, endpoint in _places(slices)
        if port.name == "admin"
        # They are interchangeable, and a pod of two families would be two gateways, one of which may be silent.
        for address in endpoint.addresses[:1]
    ]


def _places(slices: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each port of EndpointSlices with each endpoint behind it."""
    for each in slices:
        for port in each.ports or ():
            for endpoint in each.endpoints or ():
                yield port, endpoint


def token_review(token: str, audiences: Sequence[str]) -> dict[str, Any]:
    """Return the question whose token it is, where it is meant for one of the audiences; without any, for the cluster.

    https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
    """
    spec: dict[str, Any] = {"token": token}
    if audiences:
        spec["audiences"] = list(audiences)
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def access_review(caller: Caller, namespace: str, name: str) -> dict[str, Any]:
    """Return the question whether a caller may create `indexdeployments/search` of a deployment."""
    attributes = {
        "group": base.GROUP,
        "resource": PLURALS[DEPLOYMENT],
        "subresource": "search",
        "verb": "create",
        "namespace": namespace,
        "name": name,
    }
    spec = {
        "user": caller.name,
        "uid": caller.uid,
        "groups": list(caller.groups),
        "extra": {key: list(values) for key, values in caller.extra},
        "resourceAttributes": attributes,
    }
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def lease_body(name: str, held: Lease) -> dict[str, Any]:
    """Return a Lease as the API server takes it, without a version."""
    spec = {
        "holderIdentity": held.holder,
        "leaseTransitions": held.transitions,
        "leaseDurationSeconds": held.seconds,
        "acquireTime": _with_fraction(held.acquired),
        "renewTime": _with_fraction(held.renewed),
    }
    return {"metadata": {"name": name, "labels": dict(MANAGED_BY)}, "spec": spec}


def lease(found: Any) -> Lease:
    """Return a Lease from what the client has read."""
    spec = found.spec
    return Lease(
        holder=spec.holder_identity or "",
        transitions=spec.lease_transitions or 0,
        seconds=spec.lease_duration_seconds or 0,
        acquired=spec.acquire_time,
        renewed=spec.renew_time,
        version=found.metadata.resource_version,
    )


def event(about: Resource, is_warning: bool, reason: str, message: str, at: datetime) -> dict[str, Any]:
    """Return an Event about a resource."""
    meta, now = about["metadata"], at.isoformat()
    return {
        "metadata": {"generateName": f"{meta['name'][:200]}."},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": "Warning" if is_warning else "Normal",
        "reason": reason,
        "message": message[:1024],
        "source": {"component": "pointsman"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def said(body: Any) -> str:
    """Return the message of the Status that the API server answers with; empty where it is none."""
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return ""
    return str(found.get("message", "")) if isinstance(found, dict) else ""


def lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut a stream at its line ends; a last line without one was cut off and is dropped."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line)


def _with_fraction(time: datetime | None) -> datetime | None:
    """Return a time with a fraction of a second: the client drops one of 0, without which the API server refuses it."""
    return None if time is None else time.replace(microsecond=time.microsecond or 1)
