"""A real gateway process on a real API server, with routes that the test writes as an operator would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.integration.databases import Database
from tests.servers import processes
from tests.unit.gateway import stage

from pointsman.api import engines
from pointsman.backends import registry
from pointsman.controlplane import admin, plane
from pointsman.core.recipes import Space

ROOT = Path(__file__).resolve().parents[2]
GROUP = "/apis/pointsman.dev/v1alpha1"
PATIENCE = 60.0
NAME = stage.NAME
PLAIN = False
"""Nothing is verified where there is no TLS: to read the authorities anew costs more than the whole call."""


@dataclass
class GatewayProcess:
    """`pointsman gateway` as a process of its own."""

    folder: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes]
    number: int

    @property
    def log(self) -> str:
        """Everything that it wrote."""
        return (self.folder / f"gateway-{self.number}.log").read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Return the events that it logged."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def ports(self) -> tuple[int, int]:
        """Return its ports, once it listens."""
        wait(lambda: bool(self._started()) or self.process.poll() is not None, "the gateway listens")
        assert self._started(), self.log
        return self._started()[0]["port"], self._started()[0]["admin_port"]

    def _started(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["event"] == "gateway_started"]

    def url(self, scheme: str = "http") -> str:
        """Return where it answers."""
        return f"{scheme}://127.0.0.1:{self.ports()[0]}"

    def report(self) -> dict[str, Any]:
        """Return what it reports."""
        return dict(httpx.get(f"http://127.0.0.1:{self.ports()[1]}/report", verify=PLAIN).json())

    def stop(self) -> int:
        """End it as Kubernetes does; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)


@dataclass
class Stage:
    """One namespace with an index deployment whose route the test writes, and gateways that serve it."""

    control_plane: plane.ControlPlane
    namespace: str
    folder: Path
    database: Database
    kubeconfig: Path | None = None
    """What gateways reach the cluster by, where it is not the control plane's own."""
    gateways: list[GatewayProcess] = field(default_factory=list)
    epoch: int = 1
    revision: int = 0

    @property
    def admin(self) -> admin.Admin:
        """An administrator of the cluster."""
        return self.control_plane.admin()

    @property
    def owner(self) -> str:
        """The deployment, as markers have it."""
        return f"{self.namespace}/{NAME}"

    def path(self, plural: str, name: str = "") -> str:
        """Return the path of a resource of ours."""
        found = f"{GROUP}/namespaces/{self.namespace}/{plural}"
        return f"{found}/{name}" if name else found

    def declare(self, *versions: dict[str, Any], **more: Any) -> None:
        """Create the dataset and the deployment, and the Secret of the database."""
        for kind, plural in (("dataset", "embeddingdatasets"), ("deployment", "indexdeployments")):
            found = stage.dataset(*versions, **more) if kind == "dataset" else stage.deployment(None)
            found["metadata"] = {"name": NAME}
            found.pop("status", None)
            if kind == "deployment":
                found["spec"]["backend"] = self.database.spec
            self.admin.create(self.path(plural), found)
        if self.database.credentials:
            self.put_secret("database", self.database.credentials)

    def put_secret(self, name: str, values: Mapping[str, str]) -> None:
        """Create a Secret that may go to this machine."""
        meta = {"name": name, "annotations": {"pointsman.dev/allowed-hosts": "127.0.0.1"}}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": dict(values)}
        self.admin.create(f"/api/v1/namespaces/{self.namespace}/secrets", body)

    def fill(self, index: str, where: Space, texts: Mapping[str, str] = stage.TEXTS) -> None:
        """Make an index of the deployment."""
        stage.fill(self.database.engine.backend, index, where, texts, owner=self.owner)

    def route(self, *entries: dict[str, Any], **more: Any) -> float:
        """Write a new revision of the route into the deployment's status; return when it was written."""
        self.revision += 1
        address = registry.address(engines.Backend.model_validate(self.database.spec))
        fields = {"epoch": self.epoch, "revision": self.revision, "salt": "salt", "dataset": NAME, "address": address}
        status = {"route": {**fields, "engine": self.database.kind, "entries": list(entries), **more}}
        patch = {"status": {"observedGeneration": 1, **status}}
        self.patch("indexdeployments", patch, "/status")
        return time.monotonic()

    def patch(self, plural: str, patch: dict[str, Any], part: str = "") -> None:
        """Merge a patch into a resource, or into a part of it."""
        path = f"{self.path(plural, NAME)}{part}"
        self.admin.request("PATCH", path, json.dumps(patch).encode(), "application/merge-patch+json")

    def start(self, **settings: str) -> GatewayProcess:
        """Start a gateway; `settings` are those of the gateway beside the usual ones: `auth="tokens"`."""
        number = len(self.gateways)
        chosen = {"auth": "none", "host": "127.0.0.1", "admin_host": "127.0.0.1", "port": "0", "admin_port": "0"}
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")},
            "KUBECONFIG": str(self.kubeconfig or self.control_plane.kubeconfig),
            "PYTHONPATH": str(ROOT / "operator"),
            "POINTSMAN_NAMESPACES": self.namespace,
            "POINTSMAN_ALLOW_LOOPBACK": "true",
            **{f"POINTSMAN_GATEWAY_{name.upper()}": value for name, value in {**chosen, **settings}.items()},
        }
        with (self.folder / f"gateway-{number}.log").open("wb") as log:
            process = processes.start(
                [sys.executable, "-m", "pointsman.cli.main", "gateway"],
                signal.SIGKILL,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.gateways.append(GatewayProcess(self.folder, environment, process, number))
        return self.gateways[-1]

    def served(self, gateway: GatewayProcess, revision: int | None = None) -> dict[str, Any]:
        """Wait until a gateway serves a revision, the last one by default; return its report of the deployment."""
        wanted = self.revision if revision is None else revision
        found: dict[str, Any] = {}

        def is_served() -> bool:
            found.update(gateway.report()["deployments"].get(self.owner, {}))
            return bool(found.get("revision") == wanted)

        wait(is_served, f"revision {wanted} is served, last found {found}; {gateway.log[-2000:]}")
        return found

    def search(self, gateway: GatewayProcess, **body: Any) -> httpx.Response:
        """Search through a gateway."""
        path = f"/v1/namespaces/{self.namespace}/indexes/{NAME}/search"
        return httpx.post(gateway.url() + path, json=body, verify=PLAIN)


def wait(claim: Callable[[], bool], what: str, within: float = PATIENCE) -> None:
    """Wait until a claim holds."""
    deadline = time.monotonic() + within
    while not claim():
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def staged(control_plane: plane.ControlPlane, namespace: str, folder: Path, database: Database) -> Iterator[Stage]:
    """Put a stage up, with the definitions of our kinds; end its gateways after."""
    admin.apply_crds(control_plane.kubeconfig, ROOT / "crds")
    found = Stage(control_plane, namespace, folder, database)
    try:
        yield found
    finally:
        for gateway in found.gateways:
            if gateway.process.poll() is None:
                gateway.process.kill()
                gateway.process.wait()
