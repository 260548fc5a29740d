"""A whole Kubernetes on this one machine: how does it come up, what is loaded into it, and how does it go again?

Everything runs in `namespaces` of its own, as a child of their first process. What they do not hold, which is control
groups, a folder and a few settings of the kernel, is cleared away by `down`, and `leftovers` proves that nothing is
left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from e2e.cluster import configuration, enforcer, images, leftovers, objects, programs
from e2e.cluster.kube import Kube
from e2e.cluster.namespaces import Namespaces, NodeError

from pointsman.controlplane import admin, binaries, progress

_WITHIN_SECONDS = 180.0
_LOOK_EVERY_SECONDS, _KEEP_EVERY_SECONDS = 0.1, 0.3
_VOLUMES = 6
_API_SERVER = "kube-apiserver"


class Node:
    """The node of this machine: there is one at a time, in a folder below the cache."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.files = configuration.Files(home / "node")
        self._namespaces: Namespaces | None = None
        self.unenforced = ""
        """Why NetworkPolicies are not enforced; empty where they are."""

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.files.admin

    @property
    def namespaces(self) -> Namespaces:
        """Where it runs. Raises NodeError where it does not."""
        if self._namespaces is None:
            self._namespaces = Namespaces.found(self.files.folder)
        if self._namespaces is None:
            raise NodeError("the node is not up: `make e2e KEEP=1` leaves one")
        return self._namespaces

    @property
    def is_up(self) -> bool:
        """Whether there is one that was left up."""
        return Namespaces.found(self.files.folder) is not None

    def up(self, builder: images.Builder) -> None:
        """Bring up control plane, container runtime, kubelet, services, names; clears away what a killed run left."""
        programs.install()
        found = binaries.Finder().find_node()
        self.down()
        self.files.folder.mkdir(parents=True, mode=0o700)
        (self.files.folder / "before.json").write_text(json.dumps(dict(leftovers.settings())))
        leftovers.make_groups()
        with progress.Progress(sys.stderr, "Starting the control plane") as line:
            made = configuration.write(self.files)
            self._namespaces = namespaces = Namespaces.make(self.files.folder)
            control_plane = found.control_plane
            namespaces.start("etcd", [control_plane.etcd, *configuration.etcd(self.files)])
            assert control_plane.controller_manager is not None
            flags = configuration.controller_manager(self.files, made)
            commands = {
                _API_SERVER: [control_plane.api_server, *configuration.api_server(self.files, made)],
                "kube-controller-manager": [control_plane.controller_manager, *flags],
                "kube-scheduler": [found.scheduler, *configuration.scheduler(self.files)],
            }
            self._commands.write_text(json.dumps({name: [*map(str, argv)] for name, argv in commands.items()}))
            self._start_control_plane(line)
        with progress.Progress(sys.stderr, "Starting the container runtime") as line:
            namespaces.start(
                "containerd", [programs.where("containerd"), f"--config={self.files.folder}/containerd.toml"]
            )
            self._wait(self._is_containerd_ready, "containerd", line)
        sandbox = builder.small("sandbox", {"busybox": programs.where("busybox")}, tag=configuration.SANDBOX)
        dns = builder.small("dns", {"coredns": programs.built(programs.COREDNS)})
        self.load(builder, [sandbox, dns])
        with progress.Progress(sys.stderr, "Starting the node") as line:
            (self.files.folder / "kubelet" / "pki").mkdir(parents=True)
            namespaces.start("kubelet", [found.kubelet, *configuration.kubelet(self.files)])
            namespaces.start("kube-proxy", [found.proxy, *configuration.proxy(self.files)])
            kube = Kube(self.kubeconfig)
            self._wait(lambda: kube.is_true("node", configuration.NAME, "Ready"), "the node to be Ready", line)
            for number in range(_VOLUMES):
                folder = self.files.volumes / str(number)
                folder.mkdir(parents=True)
                folder.chmod(0o777)
            kube.apply([*objects.dns(dns), *objects.volumes(self.files.volumes, _VOLUMES)])
            self._wait(lambda: kube.is_available("kube-system", "coredns"), "names to be served", line)
            self._wait(self._is_service_reached, "an address of a Service to answer", line)
            self._enforce(line)
        if self.unenforced:
            print(f"NetworkPolicies are not enforced here: {self.unenforced}", file=sys.stderr)

    def down(self) -> None:
        """End it and clear away all that it had; does nothing where there is none. Safe after any failure."""
        namespaces = self._namespaces or Namespaces.found(self.files.folder)
        if namespaces is not None:
            namespaces.close()
        self._namespaces = None
        leftovers.remove_groups()
        settings = self.files.folder / "before.json"
        if settings.exists():
            leftovers.restore_settings(json.loads(settings.read_text()))
        leftovers.remove_folder(self.files.folder)

    def stay(self) -> None:
        """Let it outlive this process."""
        self.namespaces.stay()

    def load(self, builder: images.Builder, names: Iterable[str]) -> None:
        """Bring images from the builder's store into the container runtime's."""
        for name in names:
            with progress.Progress(sys.stderr, f"Loading {name}") as line:
                archive = builder.archive(name, self.home)
                line.tick()
                self._ctr("image", "import", "--snapshotter=overlayfs", str(archive))
                archive.unlink()

    # Logs.

    @contextlib.contextmanager
    def keeping_logs(self) -> Iterator[None]:
        """Keep what pods log meanwhile, also of those that go: the kubelet removes logs with their pod."""
        is_over = threading.Event()
        keeper = threading.Thread(target=self._keep_logs, args=(is_over,), name="logs", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            is_over.set()
            keeper.join()

    def logs(self) -> Mapping[str, Path]:
        """Return the logs of all containers that were ever seen, by namespace, pod, container and how often it ran."""
        kept = self.files.kept_logs
        return {str(path.relative_to(kept).with_suffix("")): path for path in sorted(kept.rglob("*.log"))}

    def _keep_logs(self, is_over: threading.Event) -> None:
        while True:
            for path in self.files.pod_logs.glob("*/*/*.log"):
                # Named after namespace, pod and its uid.
                namespace, pod, _ = path.parent.parent.name.split("_")
                kept = self.files.kept_logs / namespace / pod / f"{path.parent.name}-{path.stem}.log"
                kept.parent.mkdir(parents=True, exist_ok=True)
                # A second name of the same file: what is written later is there too.
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    os.link(path, kept)
            if is_over.wait(_KEEP_EVERY_SECONDS):
                return

    # Faults.

    def serve_metadata(self) -> None:
        """Have something answer where machines of a cloud are told who they are, and are given keys."""
        folder = self.files.folder / "metadata"
        if not folder.exists():
            folder.mkdir()
            self.namespaces.run("ip", "address", "add", f"{configuration.METADATA}/32", "dev", "lo")
            argv = [programs.where("busybox"), "httpd", "-f", "-p", f"{configuration.METADATA}:80", "-h", folder]
            self.namespaces.start("metadata", argv)

    def stop_api_server(self) -> None:
        """End the API server, as an outage does, and with it what can renew no lease without it.

        Where leaders are elected those end by themselves. One that lived on would judge the node by what it last heard
        of it, for as long as it takes to be heard again, and take the addresses of all pods out of their Services.
        """
        for name in json.loads(self._commands.read_text()):
            self.namespaces.end(name, signal.SIGKILL)

    def start_api_server(self) -> None:
        """Start again what was stopped, with the flags that it had."""
        with progress.Progress(sys.stderr, "Starting the control plane again") as line:
            self._start_control_plane(line)

    def signal_pod(self, uid: str, number: signal.Signals) -> int:
        """Send a signal to all processes of a pod's containers, and return how many."""
        found = {
            int(each)
            for group in leftovers.groups()
            if f"pod{uid}" in str(group)
            for each in (group / "cgroup.procs").read_text().split()
        }
        sandboxes = {pid for pid in found if b"busybox" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        for pid in found - sandboxes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(found - sandboxes)

    @property
    def _commands(self) -> Path:
        return self.files.folder / "control-plane.json"

    def _start_control_plane(self, line: progress.Progress) -> None:
        """Start the API server, and what asks it once it is ready."""
        for name, argv in json.loads(self._commands.read_text()).items():
            self.namespaces.start(name, argv)
            if name == _API_SERVER:
                self._wait(admin.Admin(self.kubeconfig).is_ready, "the API server", line)

    def _enforce(self, line: progress.Progress) -> None:
        """Have NetworkPolicies enforced, as a network plug-in does, or take note of why they cannot be."""
        path = f"PYTHONPATH={images.ROOT / 'operator'}:{images.ROOT}"
        argv = [programs.where("env"), path, sys.executable, "-m", enforcer.__name__, self.files.admin]
        self.namespaces.start("policies", [*argv, configuration.PODS])
        self._wait(lambda: bool(self.namespaces.tail("policies", 1)), "policies to hold", line)
        _, _, self.unenforced = self.namespaces.tail("policies").partition(f"{enforcer.CANNOT}: ")

    def _is_containerd_ready(self) -> bool:
        return self.files.containerd_socket.exists() and bool(self._ctr("version", check=False))

    def _is_service_reached(self) -> bool:
        """Whether addresses are rewritten on their way: a kernel may lack what that needs."""
        look = f"import socket; print(socket.create_connection(({configuration.API!r}, 443), 2) and 'reached')"
        return "reached" in self.namespaces.run(sys.executable, "-I", "-c", look, check=False)

    def _ctr(self, *arguments: str, check: bool = True) -> str:
        command = [programs.where("ctr"), f"--address={self.files.containerd_socket}", "--namespace=k8s.io"]
        return self.namespaces.run(*command, *arguments, check=check)

    def _wait(self, is_done: Callable[[], bool], what: str, line: progress.Progress) -> None:
        deadline = time.monotonic() + _WITHIN_SECONDS
        while not is_done():
            self.namespaces.check()
            if time.monotonic() > deadline:
                logs = sorted((self.files.folder / "logs").glob("*.log"))
                tails = "\n".join(f"{path.stem}:\n{self.namespaces.tail(path.stem, 8)}" for path in logs)
                raise NodeError(f"waited {_WITHIN_SECONDS:.0f} s for {what}; the logs end:\n{tails}")
            line.tick(what)
            time.sleep(_LOOK_EVERY_SECONDS)


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """Have this machine's node to oneself. Raises NodeError where another run has it."""
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NodeError("another run has the node of this machine: wait for its end") from None
        yield


def home() -> Path:
    """Return the folder below which the node, and what is kept for it, are."""
    return binaries.Finder().home().parent / "e2e"
