"""Builds the binaries of a control plane from their Go modules, for machines that cannot download them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.controlplane import progress, release

_PACKAGES: dict[release.Binary | release.NodeBinary, str] = {
    release.Binary.ETCD: "go.etcd.io/etcd/server/v3",
    release.Binary.API_SERVER: "k8s.io/kubernetes/cmd/kube-apiserver",
    release.Binary.CONTROLLER_MANAGER: "k8s.io/kubernetes/cmd/kube-controller-manager",
    release.NodeBinary.SCHEDULER: "k8s.io/kubernetes/cmd/kube-scheduler",
    release.NodeBinary.KUBELET: "k8s.io/kubernetes/cmd/kubelet",
    release.NodeBinary.PROXY: "k8s.io/kubernetes/cmd/kube-proxy",
}
_STAGED = re.compile(r"^\s*(?:replace\s+)?(k8s\.io/[a-z0-9-]+)\s+=>\s+\./staging/", re.MULTILINE)
_LOOK_EVERY_SECONDS = 0.2
_TAIL_LINES = 15


def go(path: str | None = None) -> str | None:
    """Return where the Go command is, or None."""
    return shutil.which("go", path=path)


class Workshop:
    """A folder with a Go module that requires Kubernetes, in which its commands can be built."""

    def __init__(self, folder: Path, kubernetes: release.Release, environment: Mapping[str, str] = os.environ) -> None:
        self._folder = folder
        self._release = kubernetes
        self._environment = {
            **environment,
            "CGO_ENABLED": "0",
            # The user's own flags and workspace are for the user's own modules.
            "GOFLAGS": "-mod=mod -buildvcs=false",
            "GOWORK": "off",
        }

    def prepare(self, line: progress.Progress) -> None:
        """Write the module and resolve what it needs.

        `go install` refuses k8s.io/kubernetes, because it replaces its staging modules by folders of its own
        repository. They are published under k8s.io as well, so a module of ours replaces them by those.
        """
        module = f"k8s.io/kubernetes@{self._release.kubernetes}"
        answer = self._run(["mod", "download", "-json", module], line)
        staged = _STAGED.findall(Path(json.loads(answer)["GoMod"]).read_text())
        replaced = "".join(f"\t{name} => {name} {self._release.staging}\n" for name in sorted(set(staged)))
        self._run(["mod", "init", "controlplane"], line)
        with (self._folder / "go.mod").open("a") as file:
            file.write(f"\nrequire k8s.io/kubernetes {self._release.kubernetes}\n\nreplace (\n{replaced})\n")
        imports = "".join(f'\t_ "{package}"\n' for package in sorted(_PACKAGES.values()))
        (self._folder / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports})\n")
        self._run(["mod", "tidy"], line, counted="modules downloaded")

    def build(self, binary: release.Binary | release.NodeBinary, line: progress.Progress) -> Path:
        """Return the path of a binary built from its module. Raises Terminal with the compiler's last lines."""
        flags = ["-s", "-w"]
        if binary is not release.Binary.ETCD:
            # Without it clients print v0.0.0-master, and some refuse to talk to that.
            version = {"gitVersion": self._release.kubernetes, "gitMajor": "1", "gitMinor": self._release.minor}
            flags += [f"-X k8s.io/component-base/version.{name}={value}" for name, value in version.items()]
        output = self._folder / "bin" / binary
        self._run(
            ["build", "-v", "-trimpath", "-ldflags", " ".join(flags), "-o", str(output), _PACKAGES[binary]],
            line,
            counted="packages compiled",
        )
        return output

    def _run(self, arguments: Sequence[str], line: progress.Progress, counted: str | None = None) -> str:
        """Run Go and return its standard output; count the lines that it writes beside it meanwhile."""
        command = go(self._environment.get("PATH"))
        if command is None:
            raise errors.Terminal(Reason.CLUSTER_UNREACHABLE, "the Go command is not installed")
        answer, log = self._folder / "answer", self._folder / "log"
        with answer.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(
                [command, *arguments],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
            try:
                while process.poll() is None:
                    time.sleep(_LOOK_EVERY_SECONDS)
                    line.tick(f"{_lines(log)} {counted}" if counted else "")
            finally:
                # On an interrupt; Go ends the compilers that it started.
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if process.returncode != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
            raise errors.Terminal(
                Reason.CLUSTER_UNREACHABLE, f"`go {' '.join(arguments[:2])}` ended with {process.returncode}:\n{tail}"
            )
        return answer.read_text()


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")
