"""Which programs does the node need besides Kubernetes' own, and where do they come from?

Some are packages of the system: the tests say which are missing and install them, as root with apt, or tell the user
to. Others are built from their Go module, once, and kept under their version in the cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.namespaces import NodeError

from pointsman.controlplane import binaries, progress, release

_LOOK_EVERY_SECONDS = 0.2
_TAIL = 2000

# The program by which a package of Debian is known to be there.
_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "buildah": "buildah",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "debootstrap": "debootstrap",
    "busybox-static": "busybox",
    "iproute2": "ip",
    "util-linux": "nsenter",
}


@dataclass(frozen=True, slots=True)
class Module:
    """A program that its Go module builds."""

    name: str
    package: str
    version: str
    source: Path | None = None
    """A program of our own that takes less of the module than its own does."""
    replaces: bool = False
    """Whether it names others in the place of modules that it needs, which `go install` refuses."""
    tags: str = ""
    """What is left out, in the module's own words."""


HELM = Module("helm", "helm.sh/helm/v3/cmd/helm", "v3.22.0")
_DNS = Path(__file__).resolve().parents[1] / "images" / "dns.go"
COREDNS = Module("coredns", "github.com/coredns/coredns", "v1.15.0", _DNS)
VERSITYGW = Module("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0")
# Of Prometheus 3.13, without what finds targets in every cloud.
PROMTOOL = Module(
    "promtool", "github.com/prometheus/prometheus/cmd/promtool", "v0.313.5", replaces=True, tags="remove_all_sd"
)
_MONITORING = "github.com/prometheus-operator/prometheus-operator@v0.85.0"


def where(program: str) -> Path:
    """Return the path of a system's program. Raises NodeError where it is not there."""
    found = _which(program)
    if found is None:
        raise NodeError(f"{program} is not installed")
    return Path(found)


def missing() -> list[str]:
    """Return the packages whose programs are not on this machine."""
    return [package for package, program in _PACKAGES.items() if _which(program) is None]


def install() -> None:
    """Have the system's packages. Raises NodeError with the command where they cannot be installed from here."""
    if not (wanted := missing()):
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *wanted]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NodeError(f"the node needs {', '.join(wanted)}: install them, such as with `{' '.join(command)}`")
    with progress.Progress(sys.stderr, f"Installing {', '.join(wanted)}") as line:
        for each in (["apt-get", "update", "--quiet"], command):
            run(each, line, {"DEBIAN_FRONTEND": "noninteractive"})


def helm() -> Path:
    """Return where helm is: what the user has, or a build of it."""
    found = _which("helm")
    return built(HELM) if found is None else Path(found)


def build() -> None:
    """Have all that the stories take besides Kubernetes and packages of the system. Raises NodeError."""
    helm()
    for module in (COREDNS, VERSITYGW):
        built(module)


def promtool() -> Path:
    """Return where promtool is: what the user has, or a build of it."""
    found = _which("promtool")
    return built(PROMTOOL) if found is None else Path(found)


def monitoring_definitions() -> list[Path]:
    """Return the Prometheus operator's own definitions, which Go fetches with its module. Raises NodeError."""
    go = shutil.which("go")
    if go is None:
        raise NodeError(f"{_MONITORING} is a Go module: install Go")
    command = [go, "mod", "download", "-json", _MONITORING]
    found = subprocess.run(command, env={**os.environ, "GOFLAGS": ""}, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise NodeError(f"{_MONITORING} cannot be fetched: {found.stderr.strip()[-_TAIL:] or found.stdout[-_TAIL:]}")
    folder = Path(json.loads(found.stdout)["Dir"])
    return sorted((folder / "example" / "prometheus-operator-crd").glob("*.yaml"))


def built(module: Module) -> Path:
    """Return the path of a program, which the first time is built from its module."""
    target = release.target()
    path = binaries.Finder().home().parent / "programs" / f"{module.name}-{module.version}-{target}"
    if path.exists():
        return path
    go = shutil.which("go")
    if go is None:
        raise NodeError(f"{module.name} {module.version} is built from its Go module: install Go")
    making = path.parent / f".making-{os.getpid()}"
    making.mkdir(parents=True)
    settings = {"GOBIN": str(making), "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}
    flags = ["-trimpath", "-ldflags", "-s -w", *(["-tags", module.tags] if module.tags else [])]
    wanted = f"{module.package}@{module.version}"
    with progress.Progress(sys.stderr, f"Building {module.name} {module.version}, once for this machine") as line:
        try:
            if module.source is None and not module.replaces:
                commands = [["install", *flags, wanted]]
            elif module.source is None:
                commands = [["mod", "init", module.name], ["get", wanted], ["build", *flags, "-o", ".", module.package]]
            else:
                shutil.copy(module.source, making / "main.go")
                commands = [["mod", "init", module.name], ["get", wanted], ["mod", "tidy"], ["build", *flags]]
            for arguments in commands:
                run([go, *arguments], line, settings, making)
            (making / module.name).replace(path)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return path


def _which(program: str) -> str | None:
    # What only root uses is not on everybody's path.
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def run(
    command: Sequence[str],
    line: progress.Progress,
    settings: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> None:
    """Run a program that takes long. Raises NodeError with its last words where it fails."""
    with tempfile.TemporaryFile() as said:
        environment = {**os.environ, **(settings or {})}
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            while process.poll() is None:
                time.sleep(_LOOK_EVERY_SECONDS)
                line.tick()
        finally:
            # On an interrupt.
            if process.poll() is None:
                process.terminate()
                process.wait()
        length = said.seek(0, os.SEEK_END)
        said.seek(max(0, length - _TAIL))
        tail = said.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise NodeError(f"`{' '.join(command[:3])}` ended with {process.returncode}:\n{tail}")
