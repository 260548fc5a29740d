"""Asks an API server as the administrator that a kubeconfig of ours names: readiness, namespaces, our CRDs.

Only the standard library, so that the control plane can be used without any client of Kubernetes.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import yaml

from pointsman import errors
from pointsman.api.conditions import Reason

_LOOK_EVERY_SECONDS = 0.1
_REQUEST_WITHIN = timedelta(seconds=10)
# Short, since something else may have taken the port, and never answer.
_READY_WITHIN = timedelta(seconds=2)

Object = dict[str, Any]
"""One object of Kubernetes, as JSON has it."""


class Admin:
    """An administrator of one API server, by the client certificate in a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"]
        context = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
        # The standard library reads a client certificate from a file only.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
            file.flush()
            context.load_cert_chain(file.name)
        # Without the user's proxy: the server is on loopback.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def get(self, path: str) -> Object:
        """Return the object at a path. Raises Terminal for a 4xx answer, Retryable for any other failure."""
        return _object(self.request("GET", path))

    def create(self, path: str, body: Object) -> Object:
        """Create an object in the collection at a path and return it as created."""
        return _object(self.request("POST", path, json.dumps(body).encode(), "application/json"))

    def apply(self, path: str, manifest: bytes) -> Object:
        """Apply a manifest (YAML) on the server's side and return the object as it is then."""
        return _object(
            self.request("PATCH", f"{path}?fieldManager=pointsman&force=true", manifest, "application/apply-patch+yaml")
        )

    def delete(self, path: str) -> None:
        """Delete the object at a path; it may take a while to be gone."""
        self.request("DELETE", path)

    def exists(self, path: str) -> bool:
        """Say whether there is an object at a path."""
        try:
            self.get(path)
        except errors.Terminal:
            return False
        return True

    def is_ready(self) -> bool:
        """Say whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz", within=_READY_WITHIN) == b"ok"
        except errors.PointsmanError:
            return False

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "",
        within: timedelta = _REQUEST_WITHIN,
    ) -> bytes:
        """Return the body of the answer. Raises Terminal for a 4xx answer, Retryable for any other failure."""
        request = urllib.request.Request(self.server + path, data=body, method=method)
        if body is not None:
            request.add_header("Content-Type", content_type)
        try:
            with self._opener.open(request, timeout=within.total_seconds()) as response:
                return cast("bytes", response.read())
        except urllib.error.HTTPError as error:
            with error:
                message = _message(error.read())
            kind = errors.Terminal if error.code < 500 else errors.Retryable
            raise kind(Reason.CLUSTER_UNREACHABLE, f"{method} {path} was answered {error.code}: {message}") from None
        except OSError as error:
            raise errors.Retryable(
                Reason.CLUSTER_UNREACHABLE, f"{method} {path} failed at {self.server}: {type(error).__name__}"
            ) from error


def apply_crds(kubeconfig: Path, folder: Path, within: timedelta = timedelta(seconds=30)) -> Sequence[str]:
    """Apply every CustomResourceDefinition in a folder, wait until they are established, return their names."""
    admin = Admin(kubeconfig)
    collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    names = []
    for path in sorted(folder.glob("*.yaml")):
        for manifest in yaml.safe_load_all(path.read_text()):
            name = manifest["metadata"]["name"]
            admin.apply(f"{collection}/{name}", yaml.safe_dump(manifest).encode())
            names.append(name)
    deadline = time.monotonic() + within.total_seconds()
    for name in names:
        while not _is_established(admin.get(f"{collection}/{name}")):
            if time.monotonic() > deadline:
                raise errors.Retryable(
                    Reason.CLUSTER_UNREACHABLE, f"{name} was not established within {within.total_seconds():.0f} s"
                )
            time.sleep(_LOOK_EVERY_SECONDS)
    return names


def _is_established(definition: Object) -> bool:
    # A definition that was made a moment ago has a list of conditions that is null.
    conditions = definition.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()


def _object(answer: bytes) -> Object:
    return cast("Object", json.loads(answer))


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer).get("message", ""))
    except (ValueError, AttributeError):
        return answer[:200].decode(errors="replace")
