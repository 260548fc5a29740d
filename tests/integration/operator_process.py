"""A real operator process on a real API server, and what a user does and sees beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from kubernetes import config
from tests.servers import processes

from pointsman import errors
from pointsman.controlplane import admin, plane
from pointsman.store.root import Store

ROOT = Path(__file__).resolve().parents[2]
GROUP = "pointsman.dev/v1alpha1"
PATIENCE = 180.0
"""Seconds that anything may take: far more than it needs, as the machine may be busy with something else."""
LEASE = "8"
"""Seconds that a killed operator's Lease lasts, where operators are killed. Its holder ends itself after two thirds."""
PLURALS = {
    "EmbeddingDataset": "embeddingdatasets",
    "IndexDeployment": "indexdeployments",
    "QuerySet": "querysets",
    "Approval": "approvals",
}
DATASET, DEPLOYMENT, QUERY_SET, APPROVAL = PLURALS
Object = dict[str, Any]


@dataclass
class Operator:
    """`pointsman operator` as a process of its own. It may be killed and started again on the same store."""

    folder: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything that it and its workers wrote, earlier processes included."""
        path = self.folder / "operator.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def lines(self) -> list[Object]:
        """Return the events that it logged."""
        found = []
        for line in self.log.splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [line for line in found if isinstance(line, dict)]

    def start(self) -> None:
        """Start it; it is not waited for."""
        with (self.folder / "operator.log").open("ab") as log:
            self.process = processes.start(
                [sys.executable, "-m", "pointsman.cli.main", "operator"],
                signal.SIGKILL,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def kill(self) -> list[psutil.Process]:
        """End it by SIGKILL; return the workers that it had."""
        assert self.process is not None
        workers = self.workers()
        self.process.kill()
        self.process.wait()
        return workers

    def freeze(self, with_workers: bool = False) -> list[psutil.Process]:
        """Stop it by SIGSTOP, which it cannot notice, and its workers too if asked to; return those."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        workers = self.workers()
        if with_workers:
            for worker in workers:
                worker.suspend()
        return workers

    def thaw(self, workers: Collection[psutil.Process] = ()) -> None:
        """Let it, and workers of its, go on by SIGCONT."""
        assert self.process is not None
        for worker in workers:
            worker.resume()
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """End it as Kubernetes does; return its exit code. A process that does not listen is killed after a while."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the operator did not end within {PATIENCE:.0f} s of SIGTERM") from None

    def is_running(self) -> bool:
        """Return whether it runs."""
        return self.process is not None and self.process.poll() is None


def are_gone(workers: list[psutil.Process]) -> bool:
    """Return whether no worker is left that could write; one that the operator has yet to bury cannot."""
    gone = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return not any(worker.is_running() and worker.status() not in gone for worker in workers)


@dataclass
class Stage:
    """One namespace with an operator that looks after it alone, and a user of it."""

    namespace: str
    folder: Path
    control_plane: plane.ControlPlane
    operator: Operator
    admin: admin.Admin = field(repr=False)

    # What the user does.

    def write(self, rows: list[Object] | str | bytes, name: str = "papers") -> str:
        """Write a source, rows as JSON Lines and anything else as it is, whole at once, and return its URI."""
        path = self.folder / "corpus" / f"{name}.jsonl"
        if isinstance(rows, list):
            rows = "".join(json.dumps(row) + "\n" for row in rows)
        partial = path.with_suffix(".partial")
        partial.write_bytes(rows.encode() if isinstance(rows, str) else rows)
        partial.replace(path)
        return f"file://{path}"

    def create(self, kind: str, name: str, spec: Object) -> Object:
        """Create a resource."""
        body = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": spec}
        return self.admin.create(self._path(kind), body)

    def declare(self, name: str, uri: str, *versions: Object, **more: Any) -> Object:
        """Create a dataset of JSON Lines; `more` goes into its spec."""
        source = {"files": {"uri": uri, "format": "jsonl"}, "idField": "id"}
        return self.create(DATASET, name, {"source": source, "versions": list(versions), **more})

    def deploy(self, name: str, backend: Object, version: str = "v7", **more: Any) -> Object:
        """Create a deployment of the dataset of the same name, without a burn-in; `more` goes into its spec."""
        spec = {"datasetRef": {"name": more.pop("dataset", name)}, "version": version, "backend": backend}
        return self.create(DEPLOYMENT, name, {**spec, "burnIn": {"for": "0s"}, **more})

    def edit(self, kind: str, name: str, **spec: Any) -> int:
        """Merge fields into a spec; return the generation."""
        return int(self.patch(kind, name, {"spec": spec})["metadata"]["generation"])

    def patch(self, kind: str, name: str, patch: Object, status: bool = False) -> Object:
        """Merge a patch into a resource, or into its status."""
        path = self._path(kind, name) + ("/status" if status else "")
        answer = self.admin.request("PATCH", path, json.dumps(patch).encode(), "application/merge-patch+json")
        return dict(json.loads(answer))

    def refresh(self, name: str, token: str) -> None:
        """Ask for a dataset's source to be read again, as `pointsman refresh` does."""
        self.patch(DATASET, name, {"metadata": {"annotations": {"pointsman.dev/refresh": token}}})

    def delete(self, kind: str, name: str) -> None:
        """Delete a resource; it may take a while to be gone."""
        self.admin.delete(self._path(kind, name))

    def put_secret(self, name: str, values: Mapping[str, str], hosts: str) -> None:
        """Create or replace a Secret that may go to some hosts."""
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        metadata = {"name": name, "annotations": {"pointsman.dev/allowed-hosts": hosts}}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values)}
        if self.admin.exists(f"{path}/{name}"):
            self.admin.request("PUT", f"{path}/{name}", json.dumps(body).encode(), "application/json")
        else:
            self.admin.create(path, body)

    # What the user sees.

    def get(self, kind: str, name: str) -> Object:
        """Return a resource; fails where it is not there."""
        return self.admin.get(self._path(kind, name))

    def exists(self, kind: str, name: str) -> bool:
        """Return whether a resource is there."""
        return self.admin.exists(self._path(kind, name))

    def condition(self, kind: str, name: str, of: str) -> Object:
        """Return a condition of a resource, if it speaks of the newest generation; an empty one otherwise."""
        resource = self.get(kind, name)
        conditions = resource.get("status", {}).get("conditions", [])
        found: Object = next((c for c in conditions if c["type"] == of), {})
        return found if found.get("observedGeneration") == resource["metadata"]["generation"] else {}

    def said(self, kind: str, name: str, of: str = "Ready") -> tuple[str, str]:
        """Return reason and message of a condition, if it speaks of the newest generation; empty ones otherwise."""
        found = self.condition(kind, name, of)
        return found.get("reason", ""), found.get("message", "")

    def is_ready(self, kind: str, name: str) -> bool:
        """Return whether a resource says Ready of its newest generation."""
        return self.condition(kind, name, "Ready").get("status") == "True"

    def serves(self, name: str, version: str) -> bool:
        """Return whether a deployment says Ready with nothing under way, and the ConfigMap names a version."""
        is_at_rest = "step" not in self.get(DEPLOYMENT, name).get("status", {})
        return is_at_rest and self.is_ready(DEPLOYMENT, name) and self.route(name).get("version") == version

    def route(self, name: str) -> dict[str, str]:
        """Return the ConfigMap that direct clients read; empty where there is none."""
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{name}-serving"
        with contextlib.suppress(errors.Terminal):
            return dict(self.admin.get(path).get("data", {}))
        return {}

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """Return kind, reason and message of the Events about resources of a name, in order."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        found = [e for e in self.admin.get(path)["items"] if e["involvedObject"]["name"] == name]
        found.sort(key=lambda e: int(e["metadata"]["resourceVersion"]))
        return [(e["involvedObject"]["kind"], e["reason"], e["message"]) for e in found]

    def actions(self, kind: str, name: str, since: int = 0) -> list[str]:
        """Return the actions that the operator took for a resource, after so many lines of its log."""
        said = f"{kind} {self.namespace}/{name}"
        taken = [line for line in self.operator.lines()[since:] if line.get("resource") == said]
        return [line["action"] for line in taken if line["event"] == "action_applied"]

    def tasks(self, kind: str, name: str, since: int = 0) -> list[str]:
        """Return which kinds of work were begun for a resource, after so many lines of the operator's log."""
        said = f"{kind} {self.namespace}/{name}"
        begun = [line for line in self.operator.lines()[since:] if line["event"] == "work_started"]
        return [line["task"] for line in begun if line["owner"] == said]

    def table(self, kind: str, name: str) -> dict[str, Any]:
        """Return what `kubectl get` shows of a resource, but for its age."""
        with config.new_client_from_config(str(self.control_plane.kubeconfig)) as client:
            accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
            url = client.configuration.host + self._path(kind, name)
            table = json.loads(client.call_api("GET", url, header_params=accept).read())
        columns = [(number, c["name"]) for number, c in enumerate(table["columnDefinitions"]) if c["priority"] == 0]
        return {name: table["rows"][0]["cells"][number] for number, name in columns if name != "Age"}

    def past(self, kind: str, resource: Object) -> list[Object]:
        """Return every state of a resource since it was in the given one, as a watch would have shown them."""
        version, name = resource["metadata"]["resourceVersion"], resource["metadata"]["name"]
        query = f"watch=true&resourceVersion={version}&timeoutSeconds=1"
        answer = self.admin.request("GET", f"{self._path(kind)}?{query}")
        states = [json.loads(line)["object"] for line in answer.splitlines()]
        return [state for state in states if state["metadata"]["name"] == name]

    def resource_versions(self) -> dict[str, str]:
        """Return the version of every object in the namespace that the operator could write, but for its Lease."""
        core, ours = f"/api/v1/namespaces/{self.namespace}", f"/apis/{GROUP}/namespaces/{self.namespace}"
        lists = [f"{core}/{plural}" for plural in ("configmaps", "events", "secrets")]
        lists += [f"{ours}/{plural}" for plural in PLURALS.values()]
        return {
            f"{path}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for path in lists
            for item in self.admin.get(path)["items"]
        }

    def wait_for_resyncs(self, count: int) -> None:
        """Wait until the operator has looked at everything so many times more."""
        # Nothing but a resync lists query sets.
        wanted = self._requests(("LIST",), (PLURALS[QUERY_SET],)) + count
        # All metrics of an API server are megabytes.
        self.wait(lambda: self._requests(("LIST",), (PLURALS[QUERY_SET],)) >= wanted, f"{count} resyncs", every=0.5)

    def writes(self) -> int:
        """Return how often anybody asked the API server to write what the operator may write, changed by it or not."""
        return self._requests(("POST", "PUT", "PATCH", "APPLY"), (*PLURALS.values(), "configmaps", "events"))

    def _requests(self, verbs: Collection[str], resources: Collection[str]) -> int:
        pattern = re.compile(r'apiserver_request_total\{.*,resource="([^"]*)".*verb="([^"]*)".*\} (.*)')
        found = map(pattern.fullmatch, self.admin.request("GET", "/metrics").decode().splitlines())
        return sum(int(float(f[3])) for f in found if f is not None and f[1] in resources and f[2] in verbs)

    def store(self) -> Store:
        """Return the operator's store."""
        return Store(str(self.folder / "store"))

    def embedded(self, name: str) -> list[tuple[str, int, int, str]]:
        """Return version, snapshot, rows and digest of all that is embedded of a dataset."""
        dataset = self.store().dataset(self.namespace, name)
        records = [r for recipe in dataset.pins().values() for r in dataset.embedded(recipe.key)]
        return sorted((r.version, r.snapshot, r.rows, r.digest) for r in records)

    def run(self, *arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run the command line against this namespace."""
        where = ["--kubeconfig", str(self.control_plane.kubeconfig), "-n", self.namespace]
        command = [sys.executable, "-m", "pointsman.cli.main", *arguments, *where]
        return subprocess.run(
            command, env=dict(self.operator.environment), capture_output=True, text=True, timeout=timeout, check=False
        )

    def wait(self, claim: Callable[[], bool], what: str, within: float = PATIENCE, every: float = 0.1) -> None:
        """Wait until a claim holds, looking every so many seconds; fail with all that is known where it does not."""
        deadline = time.monotonic() + within
        while not claim():
            if not self.operator.is_running():
                raise AssertionError(f"the operator ended while {what} was waited for:\n{self.operator.log[-3000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within:.0f} s: {what}\n{self._told()}\n{self.operator.log[-3000:]}")
            time.sleep(every)

    def _told(self) -> str:
        told = []
        for kind, plural in PLURALS.items():
            for item in self.admin.get(f"/apis/{GROUP}/namespaces/{self.namespace}/{plural}")["items"]:
                holds = [
                    f"{c['type']}={c['status']} {c['reason']}: {c['message']}"
                    for c in item.get("status", {}).get("conditions", [])
                ]
                told.append(f"{kind} {item['metadata']['name']}: {holds}")
        return "\n".join(told)

    def _path(self, kind: str, name: str = "") -> str:
        path = f"/apis/{GROUP}/namespaces/{self.namespace}/{PLURALS[kind]}"
        return f"{path}/{name}" if name else path


@contextlib.contextmanager
def running(control_plane: plane.ControlPlane, folder: Path, **settings: str) -> Iterator[Stage]:
    """Start an operator for a namespace of its own, with a store and a corpus folder below `folder`; end it after.

    `settings` are settings of the operator beside those: `workers="4"`.
    """
    admin.apply_crds(control_plane.kubeconfig, ROOT / "crds")
    administrator = control_plane.admin()
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "operator-"}}
    namespace = administrator.create("/api/v1/namespaces", body)["metadata"]["name"]
    (folder / "corpus").mkdir(parents=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")},
        "KUBECONFIG": str(control_plane.kubeconfig),
        "PYTHONPATH": str(ROOT / "operator"),
        "POINTSMAN_STORE": str(folder / "store"),
        "POINTSMAN_FILE_ROOTS": str(folder / "corpus"),
        "POINTSMAN_NAMESPACES": namespace,
        "POINTSMAN_ALLOW_LOOPBACK": "true",
        "POINTSMAN_ALLOW_MEMORY_BACKEND": "true",
        # What only the resync notices is a lost wake-up.
        "POINTSMAN_RESYNC_SECONDS": "3600",
        "POINTSMAN_LEASE_NAMESPACE": namespace,
        # A busy machine is no reason to lose it. Whoever is started after a killed one waits so long: see LEASE.
        "POINTSMAN_LEASE_SECONDS": "120",
        **{f"POINTSMAN_{name.upper()}": value for name, value in settings.items()},
    }
    stage = Stage(namespace, folder, control_plane, Operator(folder, environment), administrator)
    stage.operator.start()
    try:
        yield stage
    finally:
        if stage.operator.is_running():
            stage.operator.stop()


def wordllama(name: str, dimensions: int, **more: Any) -> Object:
    """Return a version of the embedded model; `more` goes into it."""
    return {
        "name": name,
        "model": {"wordllama": {"dimensions": dimensions}},
        "text": {"template": "{title}. {text}", "metadataFields": ["year"]},
        **more,
    }


def papers(count: int) -> list[Object]:
    """Return documents."""
    kinds = ("signal boxes", "points and crossings", "steam locomotives", "night trains", "narrow gauge lines")
    return [
        {
            "id": f"paper-{n}",
            "title": f"Paper {n}",
            "text": f"Number {n} of the series is about {kinds[n % 5]}, and what became of them.",
            "year": 1900 + n % 100,
        }
        for n in range(count)
    ]
