"""Which images run on the cluster, and how are they built without any registry?

Each is a folder with a Dockerfile (`e2e/images/`) and what it copies; buildah builds them in a store of its own, as
layers, so that what did not change is not built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import programs
from e2e.cluster.namespaces import NodeError

from pointsman.controlplane import progress

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = ROOT / "e2e" / "images"
SUITE = "bookworm"
TAG = "e2e"
# In a mount namespace of its own, whatever is mounted meanwhile is gone with the program, killed or not.
_APART = ("unshare", "--mount", "--propagation=private") if os.geteuid() == 0 else ()


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds images into a folder that is kept from run to run."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def base(self) -> str:
        """Return the name of an image with Python and little else: $E2E_BASE, or Debian put together here, once."""
        if wanted := self.environment.get("E2E_BASE"):
            return wanted
        name = f"localhost/pointsman-e2e-base:{SUITE}"
        if not self._is_there(name):
            with (
                tempfile.TemporaryDirectory(prefix="debian-", dir=self.home) as folder,
                _said("Putting Debian together") as line,
            ):
                packages = "--include=python3,ca-certificates"
                programs.run([*_APART, "debootstrap", "--variant=minbase", packages, SUITE, f"{folder}/root"], line)
                for left in (
                    "var/cache/apt",
                    "var/lib/apt/lists",
                    "usr/share/doc",
                    "usr/share/man",
                    "usr/share/locale",
                ):
                    shutil.rmtree(f"{folder}/root/{left}", ignore_errors=True)
                self._build(name, _FOLDER / "base.Dockerfile", Path(folder), {}, line)
        return name

    def builder(self) -> str:
        """Return the name of the base with pip and venv."""
        if wanted := self.environment.get("E2E_BASE"):
            return wanted
        name = f"localhost/pointsman-e2e-builder:{SUITE}"
        if not self._is_there(name):
            with self.copied({}) as folder, _said("Adding pip to it") as line:
                self._build(name, _FOLDER / "builder.Dockerfile", folder, {"BASE": self.base()}, line)
        return name

    def packages(self) -> str:
        """Have the packages that the product's image needs, which come from outside; its build finds them here."""
        return self._product(ROOT, TAG, "packages")

    def pointsman(self, tree: Path = ROOT, tag: str = TAG) -> str:
        """Build the product's own image from a tree, and return its name."""
        return self._product(tree, tag)

    def small(
        self, kind: str, files: Mapping[str, Path], arguments: Mapping[str, str] | None = None, tag: str = ""
    ) -> str:
        """Build one of the images of `e2e/images` from the files and folders that it copies, and return its name."""
        name = tag or f"localhost/pointsman-e2e-{kind}:{TAG}"
        with self.copied(files) as folder, _said(f"Building {name}") as line:
            self._build(name, _FOLDER / f"{kind}.Dockerfile", folder, arguments or {}, line)
        return name

    def digest(self, name: str) -> str:
        """Return what tells an image from any other."""
        return self._buildah("inspect", "--type", "image", "--format", "{{.FromImageID}}", name).strip()

    def archive(self, name: str, folder: Path) -> Path:
        """Write an image as a file that a container runtime can load."""
        path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}.tar"
        path.unlink(missing_ok=True)
        self._buildah("push", "--quiet", name, f"docker-archive:{path}:{name}")
        return path

    @contextlib.contextmanager
    def copied(self, files: Mapping[str, Path]) -> Iterator[Path]:
        """Make a folder with copies of files and folders under the names that a Dockerfile has for them."""
        with tempfile.TemporaryDirectory(prefix="context-", dir=self.home) as folder:
            for name, path in files.items():
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    shutil.copytree(path, target, symlinks=True)
                else:
                    shutil.copy2(path, target)
            yield Path(folder)

    def _product(self, tree: Path, tag: str, stage: str = "") -> str:
        name = f"localhost/pointsman{stage and '-'}{stage}:{tag}"
        arguments = {"BASE": self.base(), "BUILDER": self.builder(), "VERSION": tag}
        with _said(f"Building {name}") as line:
            self._build(name, tree / "Dockerfile", tree, arguments, line, with_network=True, stage=stage)
        return name

    def _build(
        self,
        name: str,
        recipe: Path,
        context: Path,
        arguments: Mapping[str, str],
        line: progress.Progress,
        with_network: bool = False,
        stage: str = "",
    ) -> None:
        flags = ["--isolation=chroot", "--layers", f"--tag={name}", f"--file={recipe}", "--quiet"]
        flags += [f"--build-arg={key}={value}" for key, value in arguments.items()]
        if with_network:
            flags += self._ways_out()
        if stage:
            flags.append(f"--target={stage}")
        programs.run([*self._command(), "bud", *flags, str(context)], line)

    def _ways_out(self) -> Iterator[str]:
        """Let pip find its index as it does on this machine."""
        for name in ("PIP_INDEX_URL", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
            if value := self.environment.get(name):
                yield f"--build-arg={name}={value}"
        if authorities := self.environment.get("PIP_CERT"):
            yield f"--volume={authorities}:/etc/ssl/certs/ca-certificates.crt:ro"
            yield "--env=PIP_CERT=/etc/ssl/certs/ca-certificates.crt"

    def _is_there(self, name: str) -> bool:
        command = [*self._command(), "inspect", "--type", "image", name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _buildah(self, *arguments: str) -> str:
        done = subprocess.run([*self._command(), *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NodeError(f"`buildah {arguments[0]}` ended with {done.returncode}: {done.stderr.strip()[-800:]}")
        return done.stdout

    def _command(self) -> list[str]:
        return [*_APART, "buildah", f"--root={self.home / 'images'}", f"--runroot={self.home / 'images-run'}"]


@contextlib.contextmanager
def _said(what: str) -> Iterator[progress.Progress]:
    with progress.Progress(sys.stderr, what) as line:
        yield line
