"""Plays the kubelet on a real API server: every pod is a process of its own, which may be killed.

The controller of Jobs is Kubernetes' own. A kubelet is not there, so this runs what each pod says as a process, and
writes into the pod's status what becomes of it. A claim needs no mounting: processes find the operator's folder at the
address at which pods have it mounted.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.operator_process import ROOT, Object, Stage
from tests.servers import processes

from pointsman import errors


@dataclass
class Kubelet:
    """Runs the pods of one namespace as processes: starts what their templates say, and says how they end."""

    stage: Stage
    pods: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    started: list[Object] = field(default_factory=list)
    kills: Callable[[], bool] = lambda: False
    """Whether a pod is to be killed now; asked at every look."""

    def look(self) -> None:
        """See every pod one step further."""
        pods = self.stage.admin.get(self._path())["items"]
        for pod in pods:
            name, phase = pod["metadata"]["name"], pod["status"].get("phase")
            process = self.pods.get(name)
            if process is None and phase == "Pending" and "deletionTimestamp" not in pod["metadata"]:
                self.pods[name] = self._process(pod)
                self.started.append(pod)
                self._report(name, "Running", {"running": {}})
            elif process is not None and process.poll() is not None:
                del self.pods[name]
                code = process.returncode if process.returncode >= 0 else 128 - process.returncode
                self._report(name, "Failed" if code else "Succeeded", {"terminated": {"exitCode": code}})
            elif process is not None and self.kills():
                process.kill()
        there = {pod["metadata"]["name"] for pod in pods}
        for name in self.pods.keys() - there:
            # It was deleted: its process ends as the kubelet would have it end.
            self._end(self.pods.pop(name))

    def stop(self) -> None:
        """End all pods."""
        for process in self.pods.values():
            self._end(process)

    def _process(self, pod: Object) -> subprocess.Popen[bytes]:
        (container,) = pod["spec"]["containers"]
        environment = {each["name"]: each.get("value", "") for each in container["env"]}
        index = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
        mine = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "operator"),
            "POINTSMAN_SHARD_SECRETS": str(self._mounted(pod)),
        }
        with (self.stage.folder / "pods.log").open("ab") as log:
            return processes.start(
                [sys.executable, "-m", "pointsman.cli.main", *container["command"][1:]],
                signal.SIGKILL,
                env={**mine, **environment, "JOB_COMPLETION_INDEX": index},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _mounted(self, pod: Object) -> Path:
        """Lay out the Secrets that a pod mounts, and return the folder."""
        folder = self.stage.folder / "mounts" / str(pod["metadata"]["name"])
        for volume in pod["spec"]["volumes"]:
            if "secret" not in volume:
                continue
            name = volume["secret"]["secretName"]
            data = self.stage.admin.get(f"/api/v1/namespaces/{self.stage.namespace}/secrets/{name}")["data"]
            (folder / volume["name"]).mkdir(parents=True)
            for item in volume["secret"].get("items") or [{"key": key, "path": key} for key in data]:
                (folder / volume["name"] / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))
        return folder

    def _report(self, name: str, phase: str, state: Object) -> None:
        container = {"name": "shard", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        body = json.dumps({"status": {"phase": phase, "containerStatuses": [container]}}).encode()
        # A pod that went meanwhile needs no status.
        with contextlib.suppress(errors.Terminal):
            self.stage.admin.request("PATCH", f"{self._path(name)}/status", body, "application/merge-patch+json")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait()

    def _path(self, name: str = "") -> str:
        path = f"/api/v1/namespaces/{self.stage.namespace}/pods"
        return f"{path}/{name}" if name else path

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Kubelet]:
        """Look five times a second, and end all pods after."""
        is_over = threading.Event()

        def run() -> None:
            while not is_over.wait(0.2):
                self.look()

        thread = threading.Thread(target=run, name="kubelet")
        thread.start()
        try:
            yield self
        finally:
            is_over.set()
            thread.join()
            self.stop()
