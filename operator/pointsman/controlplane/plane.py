"""Starts a control plane on loopback in a temporary folder, and ends it.

Processes are started by the `supervisor`, which ends them when this process is gone. etcd listens on a socket in the
folder, where nobody else can reach it; the API server on a port of 127.0.0.1, with certificates made for it alone.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.controlplane import admin, binaries, credentials, supervisor
from pointsman.controlplane.release import Binary

_LOOK_EVERY_SECONDS = 0.05
_END_WITHIN_SECONDS = 10.0
_PORT_ATTEMPTS = 5
_TAIL_LINES = 15
_PORT_TAKEN = "address already in use"

# What makes namespaces go, owners take their dependents along, and pods and Jobs be admitted and counted. The
# forty others would list and watch things that no test here has.
_CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "clusterrole-aggregation-controller",
    "job-controller",
)


class ControlPlane:
    """A control plane that runs until it is closed, or until this process is gone."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.server = f"https://127.0.0.1:{port}"
        self.kubeconfig = folder / "kubeconfig"
        self._port = port
        self._files = credentials.create(folder)
        credentials.write_kubeconfig(self.kubeconfig, self.server, self._files)
        self._owner = os.getpid()
        self._supervisor = subprocess.Popen(
            # Isolated: neither the user's environment nor the current folder decides what it imports.
            [sys.executable, "-I", "-S", supervisor.__file__, str(folder), str(self._owner)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A Ctrl-C in the terminal is for the parent, which then ends this in its own order.
            start_new_session=True,
        )
        atexit.register(self.close)

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def supervisor_pid(self) -> int:
        """The process that runs all others; its group holds nothing else."""
        return self._supervisor.pid

    @property
    def is_running(self) -> bool:
        """Whether all processes run."""
        return self._supervisor.poll() is None

    def admin(self) -> admin.Admin:
        """Return an administrator of this control plane."""
        return admin.Admin(self.kubeconfig)

    def close(self) -> None:
        """End all processes and remove the folder; a second time does nothing."""
        if os.getpid() != self._owner:
            # A fork of the owner leaves: the control plane is not its to end.
            return
        atexit.unregister(self.close)
        for pipe in (self._supervisor.stdin, self._supervisor.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        try:
            status = self._supervisor.wait(_END_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            status = -1
        if status < 0:
            # The supervisor hangs or was killed: end its group, which bears its process id.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._supervisor.pid, signal.SIGKILL)
            self._supervisor.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def launch(self, programs: binaries.Binaries, within: timedelta) -> None:
        """Start the processes and wait until they work. Raises Terminal with a log's last lines where one ends."""
        deadline = time.monotonic() + within.total_seconds()
        self._run(Binary.ETCD, [str(programs.etcd), *_etcd_flags()])
        self._run(Binary.API_SERVER, [str(programs.api_server), *_api_server_flags(self._port, self._files)])
        administrator = self.admin()
        self._wait(administrator.is_ready, deadline, f"{Binary.API_SERVER} was not ready")
        if programs.controller_manager is not None:
            flags = _controller_manager_flags(self.kubeconfig)
            self._run(Binary.CONTROLLER_MANAGER, [str(programs.controller_manager), *flags])
            # The first thing that its controllers are seen to do.
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            self._wait(lambda: administrator.exists(account), deadline, f"{Binary.CONTROLLER_MANAGER} did nothing yet")

    def check(self) -> None:
        """Raise Terminal with the last lines of its log where a process has ended."""
        if self._supervisor.poll() is None:
            return
        assert self._supervisor.stdout is not None
        said = b"" if self._supervisor.stdout.closed else self._supervisor.stdout.read()
        if not said:
            raise errors.Terminal(Reason.CLUSTER_UNREACHABLE, "the control plane was ended")
        ended = json.loads(said)
        raise _Ended(ended["name"], ended["status"], self._tail(ended["name"]))

    def _run(self, name: Binary, argv: list[str]) -> None:
        assert self._supervisor.stdin is not None
        command = {"name": name, "argv": argv, "log": str(self._log(name))}
        try:
            self._supervisor.stdin.write(json.dumps(command).encode() + b"\n")
            self._supervisor.stdin.flush()
        except BrokenPipeError:
            self._supervisor.wait()
            self.check()

    def _wait(self, is_done: Callable[[], bool], deadline: float, not_yet: str) -> None:
        while not is_done():
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(f"{name}:\n{self._tail(name)}" for name in Binary if self._log(name).exists())
                raise errors.Terminal(Reason.CLUSTER_UNREACHABLE, f"{not_yet} in time; the logs end:\n{logs}")
            time.sleep(_LOOK_EVERY_SECONDS)

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(line[:300] for line in lines[-_TAIL_LINES:])


class _Ended(errors.Terminal):
    """A process of the control plane ended by itself."""

    def __init__(self, name: str, status: int, tail: str) -> None:
        super().__init__(Reason.CLUSTER_UNREACHABLE, f"{name} ended with status {status}; its log ends:\n{tail}")
        self.lost_its_port = name == Binary.API_SERVER and _PORT_TAKEN in tail


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(
    programs: binaries.Binaries | None = None,
    within: timedelta = timedelta(seconds=120),
    choose_port: Callable[[], int] = free_port,
) -> ControlPlane:
    """Start a control plane and return it when it is ready; close it, or use it in a `with` block.

    Raises Terminal where its binaries cannot be had or do not start, with the last lines of their logs.
    """
    programs = programs or binaries.Finder().find()
    attempt = 1
    while True:
        plane = ControlPlane(Path(tempfile.mkdtemp(prefix="pointsman-control-plane-")), choose_port())
        try:
            plane.launch(programs, within)
        except _Ended as error:
            plane.close()
            # Between choosing a port and listening on it somebody else may have taken it.
            if not error.lost_its_port or attempt == _PORT_ATTEMPTS:
                raise
            attempt += 1
        except BaseException:
            plane.close()
            raise
        else:
            return plane


def _etcd_flags() -> list[str]:
    # Sockets in the current folder, which the supervisor makes the control plane's: no port, and no path that is
    # longer than the name of a socket may be. etcd insists on something that looks like a port behind the name.
    clients, peers = "unix://etcd:0", "unix://peers:0"
    return [
        "--name=default",
        "--data-dir=data",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
    ]


def _api_server_flags(port: int, files: credentials.Credentials) -> list[str]:
    return [
        "--etcd-servers=unix://etcd:0",
        "--bind-address=127.0.0.1",
        # The address of an interface would be looked for otherwise, and a machine may have none.
        "--advertise-address=127.0.0.1",
        # A Service may not point to loopback, so the one named kubernetes gets no endpoints.
        "--endpoint-reconciler-type=none",
        f"--secure-port={port}",
        f"--tls-cert-file={files.serving_certificate}",
        f"--tls-private-key-file={files.serving_key}",
        f"--client-ca-file={files.ca}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={files.service_account_public_key}",
        f"--service-account-signing-key-file={files.service_account_key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=Node,RBAC",
        "--profiling=false",
    ]


def _controller_manager_flags(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--controllers={','.join(_CONTROLLERS)}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]
