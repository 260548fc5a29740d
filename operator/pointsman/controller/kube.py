"""The real Kubernetes API, through the official client. The only file that imports it."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import kubernetes.client
import kubernetes.config
import urllib3

from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.controller.cluster import PLURALS, Resource, Secret
from pointsman.errors import Conflict, Retryable, Terminal
from pointsman.plan.tasks import Key

TIMEOUT = (5, 30)
"""Seconds to connect and to read."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "pointsman"}


def connect(kubeconfig: str | None = None, context: str | None = None) -> Kube:
    """Connect as a kubeconfig says; without one, as the pod's service account or the user's default says.

    Raises Terminal(CLUSTER_UNREACHABLE) where there is no usable configuration.
    """
    configuration = kubernetes.client.Configuration()
    load: Any = kubernetes.config
    try:
        if kubeconfig is None and context is None:
            try:
                load.load_incluster_config(client_configuration=configuration)
            except kubernetes.config.ConfigException:
                load.load_kube_config(client_configuration=configuration)
        else:
            load.load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
    except (kubernetes.config.ConfigException, OSError) as error:
        where = kubeconfig or "the default kubeconfig"
        message = f"no cluster to talk to: {where} is missing or not usable; set KUBECONFIG or --kubeconfig"
        raise Terminal(Reason.CLUSTER_UNREACHABLE, message) from error
    # One attempt each: the loop backs off by itself, and a write that is sent twice hides a conflict.
    configuration.retries = False
    return Kube(kubernetes.client.ApiClient(configuration))


class Kube:
    """The API of one cluster. One client for all threads; every call has a deadline."""

    def __init__(self, client: kubernetes.client.ApiClient) -> None:
        self._client = client
        # Any: plain dicts go in and come out; the client's own types cover too little of what it accepts.
        self._objects: Any = kubernetes.client.CustomObjectsApi(client)
        self._core: Any = kubernetes.client.CoreV1Api(client)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of the API server."""
        parts = urlsplit(self._client.configuration.host)
        return parts.hostname or "", parts.port or 443

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """Return a resource of ours, or None."""
        found: Resource | None = _found(
            lambda: self._objects.get_namespaced_custom_object(
                base.GROUP, base.API_VERSION, namespace, PLURALS[kind], name, _request_timeout=TIMEOUT
            )
        )
        return found

    def list(self, kind: str, namespace: str | None) -> Sequence[Resource]:
        """Return all resources of a kind, in one namespace or in all."""
        with _mapped():
            group, version, plural = base.GROUP, base.API_VERSION, PLURALS[kind]
            if namespace is None:
                found = self._objects.list_cluster_custom_object(group, version, plural, _request_timeout=TIMEOUT)
            else:
                found = self._objects.list_namespaced_custom_object(
                    group, version, namespace, plural, _request_timeout=TIMEOUT
                )
        return list(found["items"])

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Resource:
        """Merge a patch into a resource."""
        with _mapped():
            return dict(
                self._objects.patch_namespaced_custom_object(
                    base.GROUP,
                    base.API_VERSION,
                    namespace,
                    PLURALS[kind],
                    name,
                    dict(patch),
                    _content_type="application/merge-patch+json",
                    _request_timeout=TIMEOUT,
                )
            )

    def write_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any], version: str) -> None:
        """Replace a status, if the resource is still at a resourceVersion."""
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/status", "value": dict(status)},
        ]
        with _mapped():
            self._objects.patch_namespaced_custom_object_status(
                base.GROUP,
                base.API_VERSION,
                namespace,
                PLURALS[kind],
                name,
                patch,
                _content_type="application/json-patch+json",
                _request_timeout=TIMEOUT,
            )

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the data of a ConfigMap, or None."""
        found = _found(lambda: self._core.read_namespaced_config_map(name, namespace, _request_timeout=TIMEOUT))
        return None if found is None else dict(found.data or {})

    def write_config_map(self, owner: Key, uid: str, name: str, data: Mapping[str, str]) -> None:
        """Create or replace a ConfigMap that is owned by one of our resources."""
        reference = {
            "apiVersion": f"{base.GROUP}/{base.API_VERSION}",
            "kind": owner.kind,
            "name": owner.name,
            "uid": uid,
            "controller": True,
        }
        body = {
            "metadata": {"name": name, "labels": MANAGED_BY, "ownerReferences": [reference]},
            "data": dict(data),
        }
        with _mapped():
            try:
                self._core.replace_namespaced_config_map(name, owner.namespace, body, _request_timeout=TIMEOUT)
            except kubernetes.client.ApiException as error:
                if error.status != 404:
                    raise
                self._core.create_namespaced_config_map(owner.namespace, body, _request_timeout=TIMEOUT)

    def delete_config_map(self, namespace: str, name: str) -> None:
        """Remove a ConfigMap. A missing one is no error."""
        _found(lambda: self._core.delete_namespaced_config_map(name, namespace, _request_timeout=TIMEOUT))

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret by name, or None."""
        found = _found(lambda: self._core.read_namespaced_secret(name, namespace, _request_timeout=TIMEOUT))
        if found is None:
            return None
        values = {key: base64.b64decode(value).decode() for key, value in (found.data or {}).items()}
        return Secret(name, values, found.metadata.annotations or {})

    def event(self, about: Resource, is_warning: bool, reason: str, message: str) -> None:
        """Post an Event. Best effort: a lost Event is no error."""
        meta, now = about["metadata"], datetime.now(UTC).isoformat()
        body = {
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
        with contextlib.suppress(Retryable, Terminal), _mapped():
            self._core.create_namespaced_event(meta["namespace"], body, _request_timeout=TIMEOUT)


def _found(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or None where there is no such object."""
    with _mapped():
        try:
            return call()
        except kubernetes.client.ApiException as error:
            if error.status == 404:
                return None
            raise


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Map the client's errors. Response bodies stay out of messages: they may repeat what was sent."""
    try:
        yield
    except kubernetes.client.ApiException as error:
        if (error.status in (409, 422) and "resourceVersion" in str(error.body)) or error.status == 409:
            raise Conflict("the resource was changed in between") from error
        if error.status in (401, 403):
            message = f"the Kubernetes API refused us ({error.status} {error.reason}); check the operator's role"
            raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
        if error.status == 404:
            raise Conflict("the resource is gone") from error
        message = f"the Kubernetes API answered {error.status} {error.reason}"
        raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        message = f"the Kubernetes API could not be reached ({type(error).__name__})"
        raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
