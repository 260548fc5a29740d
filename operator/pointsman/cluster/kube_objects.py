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


def is_ours(found: Resource) -> bool:
    """Return whether we made an object."""
    meta = found["metadata"]
    labels = meta.get("labels") or {}
    is_labelled = all(labels.get(name) == value for name, value in MANAGED_BY.items())
    owners = meta.get("ownerReferences") or ()
    return is_labelled or any(owner["apiVersion"].startswith(f"{base.GROUP}/") for owner in owners)


def endpoints(slices: Iterable[Resource]) -> list[tuple[str, int]]:
    """Return the addresses and ports that EndpointSlices name."""
    return [(address, port["port"]) for port, endpoint in _places(slices) for address in endpoint["addresses"]]


def gateways(slices: Iterable[Resource]) -> list[tuple[str, bool]]:
    """Return the URL of the port `admin` of every pod that EndpointSlices name, and whether queries are sent to it.

    A pod is one gateway, however many slices it is in: each family has its own, and while they are divided anew it is
    in two. https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
    """
    found: dict[str, tuple[str, bool]] = {}
    for port, endpoint in _places(sorted(slices, key=lambda each: str(each.get("addressType")))):
        # All addresses of an endpoint are interchangeable.
        address, number = next(iter(endpoint.get("addresses") or ()), None), port.get("port")
        if port.get("name") != "admin" or address is None or number is None:
            continue
        url = f"http://[{address}]:{number}" if ":" in address else f"http://{address}:{number}"
        is_ready = (endpoint.get("conditions") or {}).get("ready") is not False
        pod = (endpoint.get("targetRef") or {}).get("uid") or url
        known = found.get(pod, (url, False))
        found[pod] = (known[0], known[1] or is_ready)
    return list(found.values())


def _places(slices: Iterable[Resource]) -> Iterator[tuple[Resource, Resource]]:
    """Yield each port of EndpointSlices with each endpoint behind it."""
    for each in slices:
        for port in each.get("ports") or ():
            for endpoint in each.get("endpoints") or ():
                yield port, endpoint


def token_review(token: str, audiences: Sequence[str]) -> dict[str, Any]:
    """Return the question whose token it is, where it is meant for one of the audiences; without any, for the cluster.

    https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
    """
    spec: dict[str, Any] = {"token": token}
    if audiences:
        spec["audiences"] = list(audiences)
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}


def caller(status: Mapping[str, Any], audiences: Sequence[str]) -> Caller | None:
    """Return whose token it is by the status of a TokenReview; None where it is nobody's, or meant for others."""
    user = status.get("user")
    if not status.get("authenticated") or user is None:
        return None
    # An authenticator that knows no audiences passes over them, and names none in its answer.
    if audiences and not set(audiences) & set(status.get("audiences") or ()):
        return None
    extra = tuple((key, tuple(values)) for key, values in sorted((user.get("extra") or {}).items()))
    return Caller(user.get("username", ""), user.get("uid", ""), tuple(user.get("groups") or ()), extra)


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
        "acquireTime": _micro(held.acquired),
        "renewTime": _micro(held.renewed),
    }
    return {"metadata": {"name": name, "labels": dict(MANAGED_BY)}, "spec": spec}


def lease(found: Resource) -> Lease:
    """Return a Lease from what was read."""
    spec = found["spec"]
    return Lease(
        holder=spec.get("holderIdentity") or "",
        transitions=spec.get("leaseTransitions") or 0,
        seconds=spec.get("leaseDurationSeconds") or 0,
        acquired=_time(spec.get("acquireTime")),
        renewed=_time(spec.get("renewTime")),
        version=found["metadata"]["resourceVersion"],
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


def _micro(time: datetime | None) -> str | None:
    """Return a time with its microseconds, 0 too: without them the API server refuses it."""
    return None if time is None else time.isoformat(timespec="microseconds")


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
