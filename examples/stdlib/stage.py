"""What the demo stands on: a control plane, a database, a gateway and the operator, and the edits that a user makes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from examples.stdlib import corpus
from tests.servers import milvus, postgres, processes

from pointsman.access import Access
from pointsman.api import engines
from pointsman.backends import registry
from pointsman.cluster import kube
from pointsman.cluster.resources import DATASET, DEPLOYMENT, QUERY_SET, REFRESH_ANNOTATION
from pointsman.controlplane import admin, plane
from pointsman.ports import Backend
from pointsman.store.root import Store

NAMESPACE = "default"
NAME = "stdlib"
PATIENCE = 600.0
"""Seconds that any one step may take before the demo gives up: far more than it needs, on a busy machine too."""
Say = Callable[[str, str], None]
BUSY = "another"
"""The dataset whose embedding keeps the machine busy."""
COPIES = 16
ROAD: Mapping[str, Any] = {
    "strategy": {
        "steps": [
            {"shadow": {"percent": 100, "for": "10s"}},
            {"weight": 10},
            {"pause": {"for": "5s"}},
            {"weight": 50},
            {"pause": {"for": "10s"}},
            {"weight": 100},
        ]
    },
    "gates": {"evaluation": {"querySetRef": {"name": NAME}, "metric": "nDCG@10", "notWorseBy": "0.02"}},
    "burnIn": {"for": "15s"},
}
"""How a new version comes to all queries."""


@dataclass(frozen=True)
class Gateway:
    """The gateway, as those see it who query it and who run it."""

    url: str
    admin: str
    process: subprocess.Popen[bytes]

    def report(self) -> Mapping[str, Any]:
        """Return what it says of the demo's deployment; empty where it does not serve it."""
        answer = httpx.get(f"{self.admin}/report", timeout=10, trust_env=False)
        found: Mapping[str, Any] = answer.json()["deployments"].get(f"{NAMESPACE}/{NAME}", {})
        return found


@dataclass
class Stage:
    """A running Pointsman and what a user does to it."""

    folder: Path
    corpus: Path
    backend: str
    documents: int
    spec: dict[str, Any]
    secrets: Mapping[str, str]
    cluster: kube.Kube
    admin: admin.Admin
    operator: subprocess.Popen[bytes]
    gateway: Gateway

    # What the user does.

    def declare(self, road: Mapping[str, Any] = ROAD) -> None:
        """Create the Secret, the dataset with v7, the query set and the deployment, whose versions come by a road."""
        if self.secrets:
            self._create_secret()
        for kind, spec in (
            (DATASET, self._dataset()),
            (QUERY_SET, self._query_set()),
            (DEPLOYMENT, {"datasetRef": {"name": NAME}, "version": "v7", "backend": self.spec, **road}),
        ):
            plural = {DATASET: "embeddingdatasets", DEPLOYMENT: "indexdeployments", QUERY_SET: "querysets"}[kind]
            body = {"apiVersion": "pointsman.dev/v1alpha1", "kind": kind, "metadata": {"name": NAME}, "spec": spec}
            self.admin.create(f"/apis/pointsman.dev/v1alpha1/namespaces/{NAMESPACE}/{plural}", body)

    def add_version(self, name: str, dimensions: int, template: str = "{name}. {text}", tokens: int = 4096) -> None:
        """Add a version to the dataset: the same model at so many dimensions, another template, another chunking."""
        dataset = self._get(DATASET)
        versions = [*dataset["spec"]["versions"], _version(name, dimensions, template, tokens)]
        self.cluster.patch(DATASET, NAMESPACE, NAME, {"spec": {"versions": versions}})

    def declare_another(self) -> None:
        """Declare another dataset, of the same documents many times over."""
        rows = (self.corpus / "documents.jsonl").read_text().splitlines()
        with (self.corpus / "many.jsonl").open("w") as file:
            for copy in range(COPIES):
                for line in rows:
                    row = json.loads(line)
                    file.write(json.dumps({**row, "id": f"{row['id']}-{copy}", "text": f"{copy} {row['text']}"}) + "\n")
        files = {"uri": f"file://{self.corpus}/many.jsonl", "format": "jsonl"}
        spec = {"source": {"files": files, "idField": "id"}, "versions": [_version("b1", 64)]}
        body = {"apiVersion": "pointsman.dev/v1alpha1", "kind": DATASET, "metadata": {"name": BUSY}, "spec": spec}
        self.admin.create(f"/apis/pointsman.dev/v1alpha1/namespaces/{NAMESPACE}/embeddingdatasets", body)

    def embed_another(self) -> None:
        """Add a version to the other dataset, whose embedding keeps the machine busy."""
        versions = [_version("b1", 64), _version("b2", 256)]
        self.cluster.patch(DATASET, NAMESPACE, BUSY, {"spec": {"versions": versions}})

    def is_busy(self) -> bool:
        """Return whether the other dataset is being embedded."""
        found = self.cluster.get(DATASET, NAMESPACE, BUSY) or {}
        return found.get("status", {}).get("phase") == "Embedding"

    def is_other_ready(self) -> bool:
        """Return whether the other dataset is Ready with its first version."""
        found = self.cluster.get(DATASET, NAMESPACE, BUSY) or {}
        conditions = found.get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def leave_alone(self) -> None:
        """Delete the other dataset."""
        self.admin.delete(f"/apis/pointsman.dev/v1alpha1/namespaces/{NAMESPACE}/embeddingdatasets/{BUSY}")
        self.wait(lambda: self.cluster.get(DATASET, NAMESPACE, BUSY) is None, "the other dataset to go")

    def serve(self, version: str) -> float:
        """Edit the one line; return when the API server had accepted the edit."""
        self.cluster.patch(DEPLOYMENT, NAMESPACE, NAME, {"spec": {"version": version}})
        return time.monotonic()

    def edit_documents(self, edited: int, added: int, deleted: int) -> set[str]:
        """Change the source; return the ids of the documents that it touched."""
        path = self.corpus / "documents.jsonl"
        rows = [json.loads(line) for line in path.open()]
        step = len(rows) // (edited + deleted)
        chosen = rows[::step][: edited + deleted]
        gone = {row["id"] for row in chosen[:deleted]}
        for row in chosen[deleted:]:
            row["text"] += " This sentence was added by the demo."
        new = [
            {**rows[0], "id": f"demo.added.{n}", "text": f"Document {n} was added by the demo, about railway points."}
            for n in range(added)
        ]
        kept = [row for row in rows if row["id"] not in gone]
        # Replaced at once: a source that is half written is half read.
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in [*kept, *new]))
        partial.replace(path)
        return {row["id"] for row in [*chosen, *new]}

    def refresh(self) -> None:
        """Ask for the source to be read again."""
        token = datetime.now(UTC).isoformat()
        self.cluster.patch(DATASET, NAMESPACE, NAME, {"metadata": {"annotations": {REFRESH_ANNOTATION: token}}})

    def delete(self) -> None:
        """Delete all resources and wait until they are gone."""
        for kind, plural in (
            (DEPLOYMENT, "indexdeployments"),
            (QUERY_SET, "querysets"),
            (DATASET, "embeddingdatasets"),
        ):
            self.admin.delete(f"/apis/pointsman.dev/v1alpha1/namespaces/{NAMESPACE}/{plural}/{NAME}")
            self.wait(lambda k=kind: self.cluster.get(k, NAMESPACE, NAME) is None, f"the {kind} to go")

    # What the user sees.

    def route(self) -> Mapping[str, str] | None:
        """Return the ConfigMap that direct clients read."""
        return self.cluster.config_map(NAMESPACE, f"{NAME}-serving")

    def is_ready(self, version: str) -> bool:
        """Return whether the deployment says Ready of this version at its newest generation."""
        deployment = self._get(DEPLOYMENT)
        status = deployment.get("status", {})
        is_current = status.get("observedGeneration") == deployment["metadata"]["generation"]
        return is_current and status.get("servingVersion") == version and self.condition("Ready") == "True"

    def condition(self, kind: str) -> str:
        """Return the status of one of the deployment's conditions."""
        conditions = self._get(DEPLOYMENT).get("status", {}).get("conditions", [])
        return next((c["status"] for c in conditions if c["type"] == kind), "Unknown")

    def status(self) -> dict[str, Any]:
        """Return all that the deployment says of itself."""
        found: dict[str, Any] = self._get(DEPLOYMENT).get("status", {})
        return found

    def step(self) -> str:
        """Return the stage under way; empty at rest."""
        return str(self.status().get("step", {}).get("name", ""))

    def accepted_weights(self) -> set[tuple[str, int]]:
        """Return the versions with the shares of the queries that every gateway serves."""
        indexes = [index for index in self.status().get("indexes", ()) if "weight" in index]
        return {(index["version"], index["weight"].get("accepted", -1)) for index in indexes}

    def answers_alone(self, version: str) -> bool:
        """Return whether the gateway serves the route of the status, and a version alone has answered by it."""
        route, report = self.status().get("route", {}), self.gateway.report()
        is_served = (report["epoch"], report["revision"]) == (route.get("epoch"), route.get("revision"))
        names = {entry["index"] for entry in route.get("entries", ()) if entry["version"] == version}
        return is_served and bool(report["answered"]) and {i for i, n in report["answered"].items() if n} <= names

    def answers_nowhere(self, version: str) -> bool:
        """Return whether a version has no weight, and the gateway serves that."""
        found = self.status()
        route, report = found.get("route", {}), self.gateway.report()
        weights = {entry["version"]: entry["weight"] for entry in route.get("entries", ())}
        is_served = (report["epoch"], report["revision"]) == (route.get("epoch"), route.get("revision"))
        return is_served and not weights.get(version)

    def sentence(self) -> str:
        """Return what the deployment says of itself."""
        conditions = self._get(DEPLOYMENT).get("status", {}).get("conditions", [])
        return next((c["message"] for c in conditions if c["type"] == "Ready"), "")

    def has_followed(self, version: str, snapshot: int) -> bool:
        """Return whether an index of a version has reached a snapshot."""
        indexes = self._get(DEPLOYMENT)["status"]["indexes"]
        return any(i["version"] == version and i["cursor"]["snapshot"] == snapshot for i in indexes if "cursor" in i)

    def version_status(self, name: str) -> Mapping[str, Any]:
        """Return what the dataset says of a version."""
        return next(v for v in self._get(DATASET)["status"]["versions"] if v["name"] == name)

    def snapshots(self) -> list[dict[str, Any]]:
        """Return what the store recorded of each embedded snapshot."""
        dataset = Store(str(self.folder / "store")).dataset(NAMESPACE, NAME)
        return [
            {
                "version": record.version,
                "snapshot": record.snapshot,
                "documents": record.documents,
                "rows": record.rows,
                "embedded_rows": record.embedded,
                "reused_rows": record.reused,
            }
            for recipe in dataset.pins().values()
            for record in dataset.embedded(recipe.key)
        ]

    def embedded_rows(self) -> int:
        """Return how many rows were embedded so far."""
        return sum(entry["embedded_rows"] for entry in self.snapshots())

    def open_backend(self) -> Backend:
        """Open the database as a direct client would."""
        spec = engines.Backend.model_validate(self.spec)
        return registry.open_backend(spec, self.secrets, Access(allow_loopback=True))

    def wait(self, is_done: Callable[[], bool], what: str) -> None:
        """Wait until something is so; raises SystemExit where it takes too long or the operator has ended."""
        deadline = time.monotonic() + PATIENCE
        while not is_done():
            if self.operator.poll() is not None:
                raise SystemExit(f"the operator has ended with code {self.operator.returncode}")
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {PATIENCE:.0f} s for {what}; it said: {self.sentence()}")
            time.sleep(0.05)

    def _get(self, kind: str) -> dict[str, Any]:
        found = self.cluster.get(kind, NAMESPACE, NAME)
        assert found is not None, f"{kind} {NAME} is gone"
        return found

    def _create_secret(self) -> None:
        host = self.spec["pgvector"]["host"]
        metadata = {"name": "database", "annotations": {"pointsman.dev/allowed-hosts": host}}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(self.secrets)}
        self.admin.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", body)

    def _dataset(self) -> dict[str, Any]:
        files = {"uri": f"file://{self.corpus}/documents.jsonl", "format": "jsonl"}
        return {"source": {"files": files, "idField": "id"}, "versions": [_version("v7", 64)]}

    def _query_set(self) -> dict[str, Any]:
        def files(name: str) -> dict[str, str]:
            return {"uri": f"file://{self.corpus}/{name}.jsonl", "format": "jsonl"}

        return {
            "queries": {"files": files("queries")},
            "judgements": {"files": files("judgements"), "kind": "Complete"},
        }


def _version(name: str, dimensions: int, template: str = "{name}. {text}", tokens: int = 4096) -> dict[str, Any]:
    return {
        "name": name,
        "model": {"wordllama": {"dimensions": dimensions}},
        "text": {"template": template, "metadataFields": ["module", "kind"]},
        "chunking": {"maxTokens": tokens},
    }


def up(folder: Path, backend: str, say: Callable[..., None], stack: contextlib.ExitStack) -> Stage:
    """Start everything below a folder; whatever was started ends with the stack."""
    shutil.rmtree(folder, ignore_errors=True)
    texts = folder / "corpus"
    texts.mkdir(parents=True)
    documents = corpus.write(texts)
    say(f"{documents:,} documents written", f"the standard library of Python {corpus.PYTHON}")
    control_plane = stack.enter_context(plane.start())
    root = Path(__file__).resolve().parents[2]
    admin.apply_crds(control_plane.kubeconfig, root / "crds")
    say("the control plane is up", control_plane.server)
    spec, secrets = _database(backend, folder, stack)
    say(f"{backend} is up")
    gateway = _gateway(folder, control_plane.kubeconfig, stack)
    say("the gateway is up", gateway.url)
    operator = _operator(folder, texts, control_plane.kubeconfig, gateway, stack)
    say("the operator is up", f"process {operator.pid}")
    return Stage(
        folder,
        texts,
        backend,
        documents,
        spec,
        secrets,
        kube.connect(str(control_plane.kubeconfig)),
        control_plane.admin(),
        operator,
        gateway,
    )


def _database(backend: str, folder: Path, stack: contextlib.ExitStack) -> tuple[dict[str, Any], dict[str, str]]:
    match backend:
        case "milvus":
            return {"milvus": {"uri": stack.enter_context(milvus.start_milvus(folder))}}, {}
        case "pgvector":
            server = stack.enter_context(postgres.start_postgres(folder))
            reference = {"credentialsRef": {"name": "database"}, "tls": "Disable"}
            spec = {"host": server.host, "port": server.port, "database": server.database, **reference}
            return {"pgvector": spec}, {"username": server.username, "password": server.password}
        case _:
            url = os.environ.get("QDRANT_URL")
            if not url:
                raise SystemExit("BACKEND=qdrant needs QDRANT_URL, such as http://127.0.0.1:6333")
            return {"qdrant": {"url": url}}, {}


def _operator(
    folder: Path, texts: Path, kubeconfig: Path, gateway: Gateway, stack: contextlib.ExitStack
) -> subprocess.Popen[bytes]:
    return _started(
        [sys.executable, "-m", "pointsman.cli.main", "operator"],
        folder / "operator.log",
        {
            "KUBECONFIG": str(kubeconfig),
            "POINTSMAN_STORE": str(folder / "store"),
            "POINTSMAN_FILE_ROOTS": str(texts),
            "POINTSMAN_ALLOW_LOOPBACK": "true",
            "POINTSMAN_NAMESPACES": NAMESPACE,
            "POINTSMAN_GATEWAYS": gateway.admin,
        },
        stack,
    )


def _gateway(folder: Path, kubeconfig: Path, stack: contextlib.ExitStack) -> Gateway:
    port, admin_port = _free_ports(2)
    process = _started(
        [sys.executable, "-m", "pointsman.cli.main", "gateway"],
        folder / "gateway.log",
        {
            "KUBECONFIG": str(kubeconfig),
            "POINTSMAN_ALLOW_LOOPBACK": "true",
            "POINTSMAN_NAMESPACES": NAMESPACE,
            "POINTSMAN_GATEWAY_AUTH": "none",
            "POINTSMAN_GATEWAY_HOST": "127.0.0.1",
            "POINTSMAN_GATEWAY_PORT": str(port),
            "POINTSMAN_GATEWAY_ADMIN_HOST": "127.0.0.1",
            "POINTSMAN_GATEWAY_ADMIN_PORT": str(admin_port),
            "POINTSMAN_GATEWAY_DRAIN": "0s",
        },
        stack,
    )
    gateway = Gateway(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}", process)
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{gateway.admin}/readyz", timeout=5, trust_env=False).status_code == 200:
                return gateway
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the gateway does not answer; its log is {folder / 'gateway.log'}")
        time.sleep(0.05)


@contextlib.contextmanager
def live_queries(here: Stage, log: Path, rate: float) -> Iterator[subprocess.Popen[bytes]]:
    """Send the judged queries to the gateway at a steady rate until left."""
    url = f"{here.gateway.url}/v1/namespaces/{NAMESPACE}/indexes/{NAME}/search"
    script = Path(__file__).with_name("traffic.py")
    command = [sys.executable, str(script), url, str(here.corpus / "queries.jsonl"), str(log), "--rate", str(rate)]
    with contextlib.ExitStack() as stack:
        process = _started(command, here.folder / "traffic.log", {}, stack)
        yield process


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _started(
    command: list[str], log_path: Path, settings: Mapping[str, str], stack: contextlib.ExitStack
) -> subprocess.Popen[bytes]:
    """Start a process of its own, which ends with the stack."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "operator"), **settings}
    log = stack.enter_context(log_path.open("wb"))
    options = {"env": environment, "stdout": log, "stderr": log, "start_new_session": True}
    process = processes.start(command, signal.SIGTERM, **options)

    def end() -> None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    stack.callback(end)
    return process
