"""Where the binaries of a control plane come from: what the user has, the cache, the official release, or a build.

    $KUBEBUILDER_ASSETS  ->  the cache  ->  dl.k8s.io and etcd's releases  ->  the Go modules

The first that has a binary wins, for each binary by itself. What was downloaded or built is kept in the cache, which is
shared by all checkouts and safe to fill from two processes at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.controlplane import build, downloads, progress, release

_LOOK_EVERY_SECONDS = 0.2
_MAKING = ".making-"


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of a control plane, as absolute paths."""

    etcd: Path
    api_server: Path
    controller_manager: Path | None
    """None: namespaces will not finish deleting, and nothing is garbage-collected."""


@dataclass(frozen=True, slots=True)
class NodeBinaries:
    """The programs that run pods, as absolute paths, of one release with a control plane."""

    control_plane: Binaries
    scheduler: Path
    kubelet: Path
    proxy: Path


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Where the official releases are asked for."""

    kubernetes: str = "https://dl.k8s.io/release"
    etcd: str = "https://github.com/etcd-io/etcd/releases/download"


@dataclass(frozen=True)
class Finder:
    """Finds binaries, or makes them. All that it depends on is an argument."""

    wanted: release.Release = field(default_factory=release.Release)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    mirrors: Mirrors = field(default_factory=Mirrors)
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    def find(self) -> Binaries:
        """Return the binaries; the first time on a machine this downloads 100 MB, or builds for five minutes.

        Raises Terminal with what was tried where the API server or etcd can be had in no way. A missing controller
        manager is warned of.
        """
        assets = self.assets()
        if assets is None:
            paths = {binary: self._cached_or_made(binary, self.wanted) for binary in release.Binary}
            return Binaries(
                etcd=paths[release.Binary.ETCD],
                api_server=paths[release.Binary.API_SERVER],
                controller_manager=paths[release.Binary.CONTROLLER_MANAGER],
            )
        return Binaries(
            etcd=assets / release.Binary.ETCD,
            api_server=assets / release.Binary.API_SERVER,
            controller_manager=self._controller_manager_beside(assets),
        )

    def find_node(self) -> NodeBinaries:
        """Return the binaries of a control plane with a node, all of the wanted release, whatever assets there are.

        The first time on a machine this downloads 350 MB, or builds for seven minutes. Raises as `find` does.
        """
        control_plane = {binary: self._cached_or_made(binary, self.wanted) for binary in release.Binary}
        node = {binary: self._cached_or_made(binary, self.wanted) for binary in release.NodeBinary}
        return NodeBinaries(
            control_plane=Binaries(
                etcd=control_plane[release.Binary.ETCD],
                api_server=control_plane[release.Binary.API_SERVER],
                controller_manager=control_plane[release.Binary.CONTROLLER_MANAGER],
            ),
            scheduler=node[release.NodeBinary.SCHEDULER],
            kubelet=node[release.NodeBinary.KUBELET],
            proxy=node[release.NodeBinary.PROXY],
        )

    def missing(self) -> list[release.Binary]:
        """Return what `find` would have to download or build."""
        if self.assets() is not None:
            return []
        return [binary for binary in release.Binary if not self._cached(binary, self.wanted).exists()]

    def assets(self) -> Path | None:
        """Return $KUBEBUILDER_ASSETS where it holds an API server and etcd."""
        folder = Path(self.environment.get("KUBEBUILDER_ASSETS") or "/nonexistent")
        needed = (release.Binary.ETCD, release.Binary.API_SERVER)
        return folder.absolute() if all(os.access(folder / name, os.X_OK) for name in needed) else None

    def home(self) -> Path:
        """Return the folder below which everything about control planes is kept for this user."""
        cache = self.environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "pointsman" / "control-plane"

    def cache(self, of: release.Release) -> Path:
        """Return the folder in which the binaries of a release are kept for this machine."""
        return self.home() / f"{of.kubernetes}-{release.target()}"

    def _controller_manager_beside(self, assets: Path) -> Path | None:
        path = assets / release.Binary.CONTROLLER_MANAGER
        if os.access(path, os.X_OK):
            return path
        # The usual bundle of Kubebuilder has none. One of another version than the API server might misunderstand it.
        answer = subprocess.run(
            [assets / release.Binary.API_SERVER, "--version"], capture_output=True, text=True, check=False
        )
        version = release.parse_version(answer.stdout)
        try:
            if version is None:
                raise errors.Terminal(Reason.CLUSTER_UNREACHABLE, "its kube-apiserver does not tell its version")
            of = release.Release(kubernetes=version, etcd=self.wanted.etcd)
            return self._cached_or_made(release.Binary.CONTROLLER_MANAGER, of)
        except errors.PointsmanError as error:
            self.stream.write(
                f"warning: {assets} has no kube-controller-manager and none could be had ({error.message}): "
                "namespaces will not finish deleting and nothing is garbage-collected\n"
            )
            return None

    def _cached(self, binary: release.Binary | release.NodeBinary, of: release.Release) -> Path:
        return self.cache(of) / binary

    def _cached_or_made(self, binary: release.Binary | release.NodeBinary, of: release.Release) -> Path:
        path = self._cached(binary, of)
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone(path.parent, binary):
            # Somebody else may have made it while this process waited.
            if not path.exists():
                # What a killed process left; nobody else works in this folder while the lock is held.
                for left in path.parent.glob(f"{_MAKING}*"):
                    shutil.rmtree(left, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=_MAKING, dir=path.parent) as folder:
                    self._make(binary, of, Path(folder)).replace(path)
        return path

    def _make(self, binary: release.Binary | release.NodeBinary, of: release.Release, folder: Path) -> Path:
        download = release.download(
            binary, of, release.target(), kubernetes=self.mirrors.kubernetes, etcd=self.mirrors.etcd
        )
        if download is None:
            tried = f"it is not published for {release.target()}"
        elif not downloads.is_reachable(download.url, self.environment):
            tried = f"{download.url} cannot be reached"
        else:
            try:
                with progress.Progress(self.stream, f"Downloading {binary}") as line:
                    return downloads.fetch(download, folder, line)
            except errors.Retryable as error:
                tried = error.message
        if build.go(self.environment.get("PATH")) is None:
            raise errors.Terminal(
                Reason.CLUSTER_UNREACHABLE,
                f"{binary} {of.version(binary)} is not in {self.cache(of)}, {tried}, and Go is not there to build it: "
                "install Go, or let KUBEBUILDER_ASSETS name a folder that has it",
            )
        self.stream.write(f"{tried}: building {binary} from its Go module instead\n")
        workshop = build.Workshop(folder, of, self.environment)
        with progress.Progress(self.stream, f"Preparing to build {binary}") as line:
            workshop.prepare(line)
        with progress.Progress(self.stream, f"Building {binary} {of.version(binary)}, once for this machine") as line:
            return workshop.build(binary, line)

    @contextlib.contextmanager
    def _alone(self, folder: Path, binary: str) -> Iterator[None]:
        """Hold the folder's lock, which the kernel releases however this process ends."""
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with progress.Progress(self.stream, f"Waiting for another process that makes {binary}") as line:
                    while not _locked(file):
                        time.sleep(_LOOK_EVERY_SECONDS)
                        line.tick()
            yield


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
