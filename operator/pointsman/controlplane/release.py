"""Which binaries make a control plane, of which release, for which platform, and where they are published."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from enum import StrEnum

from pointsman import errors
from pointsman.api.conditions import Reason


class Binary(StrEnum):
    """The programs that a control plane is made of."""

    ETCD = "etcd"
    API_SERVER = "kube-apiserver"
    CONTROLLER_MANAGER = "kube-controller-manager"


class NodeBinary(StrEnum):
    """The programs that make a node of it, on which pods run: for the end-to-end tests alone."""

    SCHEDULER = "kube-scheduler"
    KUBELET = "kubelet"
    PROXY = "kube-proxy"


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that the binaries are for, in Go's words."""

    os: str
    arch: str

    def __str__(self) -> str:
        return f"{self.os}-{self.arch}"


@dataclass(frozen=True, slots=True)
class Release:
    """One release of Kubernetes with the etcd that it was tested with."""

    kubernetes: str = "v1.34.4"
    """Such as v1.34.4. From 1.35 on the kubelet refuses cgroup v1, which the end-to-end machines still have."""
    etcd: str = "v3.6.4"

    def version(self, binary: Binary | NodeBinary) -> str:
        """The version of one of the binaries."""
        return self.etcd if binary is Binary.ETCD else self.kubernetes

    @property
    def staging(self) -> str:
        """The version of the modules k8s.io/api, k8s.io/client-go and so on: v0.34.4 for v1.34.4."""
        return "v0." + self.kubernetes.removeprefix("v1.")

    @property
    def minor(self) -> str:
        """The minor version alone: 34."""
        return self.kubernetes.split(".")[1]


@dataclass(frozen=True, slots=True)
class Download:
    """Where one binary is published: itself or an archive that holds it, and the checksum of what is published."""

    url: str
    checksum_url: str
    member: str | None
    """The path inside the archive, or None where the file is the binary."""

    @property
    def file_name(self) -> str:
        """The published name, by which a list of checksums names it."""
        return self.url.rsplit("/", 1)[1]


_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_KUBERNETES = "https://dl.k8s.io/release"
_ETCD = "https://github.com/etcd-io/etcd/releases/download"


def target(system: str | None = None, machine: str | None = None) -> Target:
    """Return the target for this machine, or for the one described in the words of `platform`.

    Raises Terminal where no control plane runs on it.
    """
    system, machine = system or platform.system(), machine or platform.machine()
    arch = _ARCHITECTURES.get(machine.lower())
    if system not in ("Linux", "Darwin") or arch is None:
        raise errors.Terminal(
            Reason.CLUSTER_UNREACHABLE,
            f"a control plane runs on Linux or macOS with amd64 or arm64, this is {system} with {machine}: "
            "point KUBECONFIG at a cluster instead",
        )
    return Target(system.lower(), arch)


def download(
    binary: Binary | NodeBinary, release: Release, on: Target, kubernetes: str = _KUBERNETES, etcd: str = _ETCD
) -> Download | None:
    """Return where a binary is published, or None: the servers of Kubernetes are published for Linux alone."""
    if binary is Binary.ETCD:
        name = f"etcd-{release.etcd}-{on}"
        archive = f"{name}.tar.gz" if on.os == "linux" else f"{name}.zip"
        return Download(
            url=f"{etcd}/{release.etcd}/{archive}",
            checksum_url=f"{etcd}/{release.etcd}/SHA256SUMS",
            member=f"{name}/etcd",
        )
    if on.os != "linux":
        return None
    url = f"{kubernetes}/{release.kubernetes}/bin/{on.os}/{on.arch}/{binary}"
    return Download(url=url, checksum_url=f"{url}.sha256", member=None)


def parse_version(output: str) -> str | None:
    """Return v1.34.4 from the output of `kube-apiserver --version`, or None where it says something else."""
    found = re.search(r"\bv1\.\d+\.\d+", output)
    return found.group() if found else None
