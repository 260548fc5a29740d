"""`python -m e2e.cluster up|down|programs`: bring a node up and leave it, end one that was, or build what it takes."""

from __future__ import annotations

import signal
import sys

from e2e.cluster import images, leftovers, node, possible, programs
from e2e.cluster.namespaces import NodeError


def main() -> int:
    """Do what the one argument says."""
    if sys.argv[1:] not in (["up"], ["down"], ["programs"]):
        print(__doc__, file=sys.stderr)
        return 64
    if not possible.is_possible():
        print("a node needs Linux and root: name a cluster with E2E_KUBECONFIG instead", file=sys.stderr)
        return 1
    home = node.home()
    home.mkdir(parents=True, exist_ok=True)
    here = node.Node(home)
    try:
        if sys.argv[1] == "programs":
            return _programs(here)
        with node.alone(home):
            return _up(here) if sys.argv[1] == "up" else _down(here)
    except NodeError as error:
        print(error, file=sys.stderr)
        return 1


def _programs(here: node.Node) -> int:
    # Ended from outside it leaves nothing half built.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if obstacle := possible.obstacle(here.home):
        print(f"nothing is built: {obstacle}", file=sys.stderr)
    else:
        programs.build()
    return 0


def _up(here: node.Node) -> int:
    try:
        here.up(images.Builder(here.home))
        here.stay()
    except BaseException:
        here.down()
        raise
    print(here.kubeconfig)
    return 0


def _down(here: node.Node) -> int:
    here.down()
    left = [path for path in (*leftovers.groups(), here.files.folder) if path.exists()]
    print("\n".join(["left on this machine:", *map(str, left)]) if left else "nothing is left", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
