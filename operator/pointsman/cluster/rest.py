"""Requests to the Kubernetes API over the official client's connection. The only file that imports it.

Plain objects go in and come out. The client's own methods and types are not used: those of core objects alone are
20 MiB of memory in every process that loads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import kubernetes.client
import kubernetes.config
import orjson
import urllib3

from pointsman.api.conditions import Reason
from pointsman.cluster.counting import Requests
from pointsman.cluster.resources import Identity
from pointsman.errors import Conflict, Retryable, Terminal

TIMEOUT = (5.0, 30.0)
"""Seconds to connect and to read."""
CONNECTIONS = 32
"""How many are kept open: one for each thread of the loop, and a renewal of the Lease waits for no handshake."""
MERGE = "application/merge-patch+json"
"""The content type of a patch, unless another is named: fields that it does not name stay as they are."""


def connect(kubeconfig: str | None = None, context: str | None = None) -> Rest:
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
    return Rest(kubernetes.client.ApiClient(configuration))


class Refusal(Exception):
    """An answer that is no success. What it says stays out of messages and logs: it may repeat what was sent."""

    def __init__(self, status: int, reason: str, body: bytes) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason, self.body = status, reason, body


def path(*parts: str) -> str:
    """Return the path of an API or of an object of it; parts are quoted, so that a name stays one."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Rest:
    """The connection to one API server, for all threads; every request has a deadline."""

    def __init__(self, client: kubernetes.client.ApiClient) -> None:
        # Any: plain objects go in and come out.
        self._client: Any = client
        self.requests = Requests()
        self._call = self.requests.counted(self._client.call_api)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of the API server."""
        parts = urlsplit(self._client.configuration.host)
        return parts.hostname or "", parts.port or 443

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

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        within: tuple[float, float] = TIMEOUT,
    ) -> Any:
        """Return what the API server answers.

        Raises Conflict where it is gone or was changed in between, and Retryable(CLUSTER_UNREACHABLE); the cause of
        either is the Refusal, where there was an answer.
        """
        with _mapped():
            return orjson.loads(self._answer(method, path, body, query, within).read())

    def find(
        self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None, **more: Any
    ) -> Any:
        """Return what the API server answers, or None where there is no such object."""
        try:
            return self.ask(method, path, body, query, **more)
        except Conflict as error:
            if isinstance(error.__cause__, Refusal) and error.__cause__.status == 404:
                return None
            raise

    def stream(self, path: str, query: Mapping[str, str], within: tuple[float, float]) -> Iterator[bytes]:
        """Yield the pieces of an answer that does not end soon, as they come."""
        with _mapped():
            answer = self._answer("GET", path, None, query, within).response
            try:
                yield from answer.stream(amt=None, decode_content=False)
            finally:
                answer.close()
                answer.release_conn()

    def _answer(
        self, method: str, path: str, body: Any, query: Mapping[str, str] | None, within: tuple[float, float]
    ) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = MERGE if method == "PATCH" else "application/json"
        signed = self._client.param_serialize(
            method,
            f"{path}?{urlencode(query)}" if query else path,
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        _, url, headers, *_ = signed
        answer = self._call(method, url, headers, body, _request_timeout=within)
        if not 200 <= answer.status <= 299:
            raise Refusal(answer.status, answer.reason or "", answer.read())
        return answer


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Map what went wrong."""
    try:
        yield
    except Refusal as error:
        if error.status == 409:
            raise Conflict("the resource was changed in between") from error
        if error.status in (401, 403):
            message = f"the Kubernetes API refused us ({error.status} {error.reason}); check the role of whoever asks"
            raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
        if error.status == 404:
            raise Conflict("the resource is gone") from error
        message = f"the Kubernetes API answered {error.status} {error.reason}"
        raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
    except orjson.JSONDecodeError:
        # Not the cause: it would keep what was answered.
        raise Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API answered something else than JSON") from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        message = f"the Kubernetes API could not be reached ({type(error).__name__})"
        raise Retryable(Reason.CLUSTER_UNREACHABLE, message) from error
