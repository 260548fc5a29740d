"""`python -m e2e.cluster up|down`: bring the node of this machine up and leave it there, or end one that was left."""

from __future__ import annotations

import sys

from e2e.cluster import images, leftovers, node, possible
from e2e.cluster.namespaces import NodeError


def main() -> int:
    """Do what the one argument says."""
    if sys.argv[1:] not in (["up"], ["down"]):
        print(__doc__, file=sys.stderr)
        return 64
    if not possible.is_possible():
        print("a node needs Linux and root: name a cluster with E2E_KUBECONFIG instead", file=sys.stderr)
        return 1
    home = node.home()
    home.mkdir(parents=True, exist_ok=True)
    here = node.Node(home)
    try:
        with node.alone(home):
            return _up(here) if sys.argv[1] == "up" else _down(here)
    except NodeError as error:
        print(error, file=sys.stderr)
        return 1


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
