"""The real Kubernetes API, through the official client. The only file that imports it."""

from __future__ import annotations

import base64
import builtins
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes.client
import kubernetes.config
import urllib3

from pointsman.api import base
from pointsman.api.conditions import Reason
from pointsman.cluster import kube_objects
from pointsman.cluster.counting import Requests
from pointsman.cluster.kube_batch import Api
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
)
from pointsman.errors import Conflict, Retryable, Terminal
from pointsman.plan.tasks import Key

TIMEOUT = (5, 30)
"""Seconds to connect and to read."""
CONNECTIONS = 32
"""How many are kept open: one for each thread of the loop, and a renewal of the Lease waits for no handshake."""
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
    configuration.connection_pool_maxsize = CONNECTIONS
    client, requests = kubernetes.client.ApiClient(configuration), Requests()
    client.call_api = requests.counted(client.call_api)  # type: ignore[method-assign]
    return Kube(client, requests=requests)


def own_namespace() -> str:
    """Return the namespace of the pod that this process runs in, or `default` outside of a cluster."""
    with contextlib.suppress(OSError):
        return OWN_NAMESPACE.read_text().strip() or "default"
    return "default"


class Kube:
    """The API of one cluster. One client for all threads; every call has a deadline."""

    def __init__(
        self, client: kubernetes.client.ApiClient, page_size: int = PAGE, requests: Requests | None = None
    ) -> None:
        self._client, self._page_size, self.requests = client, page_size, requests or Requests()
        # Any: plain dicts go in and come out; the client's own types cover too little of what it accepts.
        self._objects: Any = kubernetes.client.CustomObjectsApi(client)
        self._core: Any = kubernetes.client.CoreV1Api(client)
        self._apis: Mapping[Api, Any] = {"batch": kubernetes.client.BatchV1Api(client), "core": self._core}
        self._coordination: Any = kubernetes.client.CoordinationV1Api(client)
        self._discovery: Any = kubernetes.client.DiscoveryV1Api(client)
        self._authentication: Any = kubernetes.client.AuthenticationV1Api(client)
        self._authorization: Any = kubernetes.client.AuthorizationV1Api(client)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of the API server."""
        parts = urlsplit(self._client.configuration.host)
        return parts.hostname or "", parts.port or 443

    def endpoints(self) -> Sequence[tuple[str, int]]:
        """Return the addresses and ports behind the API server's Service; none where we may not look."""
        with contextlib.suppress(Retryable):
            found = _found(
                lambda: self._discovery.list_namespaced_endpoint_slice(
                    "default", label_selector="kubernetes.io/service-name=kubernetes", _request_timeout=TIMEOUT
                )
            )
            return [] if found is None else kube_objects.endpoints(found.items)
        return []

    def gateways(self, namespace: str, service: str) -> Sequence[tuple[str, bool]]:
        """Return the URL of the port `admin` of every pod behind a Service, and whether queries are sent to it."""
        label = f"kubernetes.io/service-name={service}"
        with _mapped():
            slices = self._discovery.list_namespaced_endpoint_slice(
                namespace, label_selector=label, _request_timeout=TIMEOUT
            ).items
        return kube_objects.gateways(slices)

    def identity(self) -> Identity:
        """Return who we are, with a token that holds now: it may have to be fetched or read again."""
        found = self._client.configuration
        token = found.auth_settings().get("BearerToken")
        return Identity(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            is_verified=found.verify_ssl,
            authorization=None if token is None else token["value"],
            certificate_path=found.cert_file,
            key_path=found.key_file,
            proxy_url=found.proxy,
        )

    def check_definitions(self) -> None:
        """Raise Terminal(CLUSTER_UNREACHABLE) unless the cluster knows all our kinds."""
        found = _found(lambda: self._objects.get_api_resources(base.GROUP, base.API_VERSION, _request_timeout=TIMEOUT))
        known = set() if found is None else {resource.name for resource in found.resources}
        missing = sorted(set(PLURALS.values()) - known)
        if missing:
            names = ", ".join(f"{plural}.{base.GROUP}" for plural in missing)
            message = f"the cluster does not know {names}; apply the folder crds and start again"
            raise Terminal(Reason.CLUSTER_UNREACHABLE, message)

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
        return self._listed(kind, namespace)[0]

    def pages(self, kind: str, namespace: str | None) -> Iterator[Sequence[Resource]]:
        """Yield all resources of a kind, in one namespace or in all, as they are listed."""
        for resources, _ in self._paged(kind, namespace):
            yield resources

    def watch(self, kind: str, namespace: str | None, seconds: float) -> Iterator[Seen]:
        """Yield all resources of a kind, and then each change as it happens, until the time is up."""
        resources, version = self._listed(kind, namespace)
        yield All(resources)
        limits = {"timeout_seconds": max(1, int(seconds)), "_request_timeout": (TIMEOUT[0], seconds + SILENCE)}
        with _mapped():
            answer = self._list(kind, namespace, watch=True, resource_version=version, _preload_content=False, **limits)
            try:
                for line in kube_objects.lines(answer.stream(amt=None, decode_content=False)):
                    event = json.loads(line)
                    match event["type"]:
                        case "ADDED" | "MODIFIED":
                            yield Changed(event["object"])
                        case "DELETED":
                            yield Gone(event["object"])
                        case "ERROR":
                            # Of whatever kind: whoever watches begins anew with all, as after a 410.
                            return
            finally:
                answer.close()
                answer.release_conn()

    def _listed(self, kind: str, namespace: str | None) -> tuple[builtins.list[Resource], str]:
        """Return all resources of a kind, and the version from which to watch."""
        found: builtins.list[Resource] = []
        version = ""
        for resources, at in self._paged(kind, namespace):
            found, version = found + resources, at
        return found, version

    def _paged(self, kind: str, namespace: str | None) -> Iterator[tuple[builtins.list[Resource], str]]:
        token: str | None = None
        while token != "":
            with _mapped():
                page = self._list(kind, namespace, limit=self._page_size, _continue=token, _request_timeout=TIMEOUT)
            token = page["metadata"].get("continue", "")
            yield page["items"], page["metadata"].get("resourceVersion", "")

    def _list(self, kind: str, namespace: str | None, **more: Any) -> Any:
        plural = PLURALS[kind]
        if namespace is None:
            return self._objects.list_cluster_custom_object(base.GROUP, base.API_VERSION, plural, **more)
        return self._objects.list_namespaced_custom_object(base.GROUP, base.API_VERSION, namespace, plural, **more)

    def caller(self, token: str, audiences: Sequence[str] = ()) -> Caller | None:
        """Return whose token it is, by a TokenReview; None for one that the cluster does not take, or not for us."""
        with _mapped():
            body = kube_objects.token_review(token, audiences)
            found = self._authentication.create_token_review(body, _request_timeout=TIMEOUT).status
        if not found.authenticated or found.user is None:
            return None
        # An authenticator that knows no audiences passes over them, and names none in its answer.
        if audiences and not set(audiences) & set(found.audiences or ()):
            return None
        extra = tuple((key, tuple(values)) for key, values in sorted((found.user.extra or {}).items()))
        return Caller(found.user.username or "", found.user.uid or "", tuple(found.user.groups or ()), extra)

    def may_search(self, caller: Caller, namespace: str, name: str) -> bool:
        """Return whether a caller may create `indexdeployments/search` of a deployment, by a SubjectAccessReview."""
        body = kube_objects.access_review(caller, namespace, name)
        with _mapped():
            found = self._authorization.create_subject_access_review(body, _request_timeout=TIMEOUT)
        return bool(found.status.allowed)

    def user(self) -> str:
        """Return the name by which the cluster knows us, by a SelfSubjectReview; empty where it does not say."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        found = _found(lambda: self._authentication.create_self_subject_review(body, _request_timeout=TIMEOUT))
        info = None if found is None else found.status.user_info
        return "" if info is None else info.username or ""

    def create(self, resource: Resource) -> Resource:
        """Create a resource of ours under its own name."""
        body = {"apiVersion": f"{base.GROUP}/{base.API_VERSION}", **resource}
        namespace, plural = resource["metadata"]["namespace"], PLURALS[resource["kind"]]
        with _mapped():
            return dict(
                self._objects.create_namespaced_custom_object(
                    base.GROUP, base.API_VERSION, namespace, plural, body, _request_timeout=TIMEOUT
                )
            )

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete a resource of ours. A missing one is no error."""
        _found(
            lambda: self._objects.delete_namespaced_custom_object(
                base.GROUP, base.API_VERSION, namespace, PLURALS[kind], name, _request_timeout=TIMEOUT
            )
        )

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
        # A put, because a merge would leave what the new status no longer says, and because of a JSON patch whose
        # test fails the server says no more than that it is invalid.
        body = {
            "apiVersion": f"{base.GROUP}/{base.API_VERSION}",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": version},
            "status": dict(status),
        }
        with _mapped():
            self._objects.replace_namespaced_custom_object_status(
                base.GROUP, base.API_VERSION, namespace, PLURALS[kind], name, body, _request_timeout=TIMEOUT
            )

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the data of a ConfigMap of ours, or None."""
        found = self._config_map(namespace, name)
        return dict(found.data or {}) if found is not None and kube_objects.is_ours(found.metadata) else None

    def write_config_map(self, owner: Key, uid: str, name: str, data: Mapping[str, str]) -> None:
        """Create or replace a ConfigMap of ours; raises Terminal(ROUTE_FOREIGN) for somebody else's of that name."""
        body = kube_objects.config_map(owner, uid, name, data)
        there = self._config_map(owner.namespace, name)
        with _mapped():
            if there is None:
                self._core.create_namespaced_config_map(owner.namespace, body, _request_timeout=TIMEOUT)
                return
            if not kube_objects.is_ours(there.metadata):
                raise foreign(name)
            # What was judged is what is replaced: another may have put theirs there since.
            body["metadata"]["resourceVersion"] = there.metadata.resource_version
            self._core.replace_namespaced_config_map(name, owner.namespace, body, _request_timeout=TIMEOUT)

    def delete_config_map(self, namespace: str, name: str) -> None:
        """Remove a ConfigMap of ours. A missing one is no error, and another's stays."""
        there = self._config_map(namespace, name)
        if there is None or not kube_objects.is_ours(there.metadata):
            return
        judged = {"preconditions": {"uid": there.metadata.uid, "resourceVersion": there.metadata.resource_version}}
        _found(lambda: self._core.delete_namespaced_config_map(name, namespace, body=judged, _request_timeout=TIMEOUT))

    def _config_map(self, namespace: str, name: str) -> Any:
        return _found(lambda: self._core.read_namespaced_config_map(name, namespace, _request_timeout=TIMEOUT))

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret by name, or None."""
        found = _found(lambda: self._core.read_namespaced_secret(name, namespace, _request_timeout=TIMEOUT))
        if found is None:
            return None
        values = {key: base64.b64decode(value) for key, value in (found.data or {}).items()}
        return Secret.of(name, values, found.metadata.annotations or {})

    def lease(self, namespace: str, name: str, within: float) -> Lease | None:
        """Return a Lease, or None."""
        limits = (within, within)
        found = _found(lambda: self._coordination.read_namespaced_lease(name, namespace, _request_timeout=limits))
        return None if found is None else kube_objects.lease(found)

    def write_lease(self, namespace: str, name: str, lease: Lease, within: float) -> Lease:
        """Create a Lease, or replace it if it is still at its version."""
        body, limits = kube_objects.lease_body(name, lease), (within, within)
        with _mapped():
            if not lease.version:
                return kube_objects.lease(
                    self._coordination.create_namespaced_lease(namespace, body, _request_timeout=limits)
                )
            body["metadata"]["resourceVersion"] = lease.version
            # The API server creates what is put, if it is gone by now: for Leases alone of all that we write.
            return kube_objects.lease(
                self._coordination.replace_namespaced_lease(name, namespace, body, _request_timeout=limits)
            )

    def call(self, api: Api, verb: str, *arguments: Any, **options: Any) -> Any:
        """Return what the client's method answers, as a plain object; None for what is not there."""
        plain: Any = self._client
        found = _found(lambda: getattr(self._apis[api], verb)(*arguments, _request_timeout=TIMEOUT, **options))
        return None if found is None else plain.sanitize_for_serialization(found)

    def event(self, about: Resource, is_warning: bool, reason: str, message: str) -> None:
        """Post an Event. Best effort: a lost Event is no error."""
        body = kube_objects.event(about, is_warning, reason, message, datetime.now(UTC))
        with contextlib.suppress(Retryable, Terminal), _mapped():
            self._core.create_namespaced_event(about["metadata"]["namespace"], body, _request_timeout=TIMEOUT)


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
        if error.status == 409:
            raise Conflict("the resource was changed in between") from error
        if error.status in (401, 403):
            message = f"the Kubernetes API refused us ({error.status} {error.reason}); check the role of whoever asks"
            raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
        if error.status == 404:
            raise Conflict("the resource is gone") from error
        message = f"the Kubernetes API answered {error.status} {error.reason}"
        raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        message = f"the Kubernetes API could not be reached ({type(error).__name__})"
        raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
