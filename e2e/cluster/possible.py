"""Can this machine be a node? Tried and not guessed: each thing that a node needs is done once, and undone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from e2e.cluster import configuration, leftovers

_DISK, _MEMORY = 12 << 30, 5 << 30
"""Bytes: images, their layers and those of the cluster; and what all pods and the control plane take together."""
_WITHIN_SECONDS = 60.0

# In namespaces of its own a node mounts layers upon each other, links interfaces, and rewrites addresses.
_NODE = """
set -e
cd "$1"
mkdir lower upper work merged
mount --make-rprivate /
mount -t tmpfs none work
mkdir work/upper work/work
mount -t overlay none -o lowerdir=lower,upperdir=work/upper,workdir=work/work merged
ip link set lo up
ip link add here type veth peer name there
ip link add pods type bridge
"""


class NotPossible(Exception):
    """This machine cannot be a node, which is no fault of what is tried on it."""


def is_possible() -> bool:
    """Whether a node can be thought of on this machine."""
    return sys.platform == "linux" and os.geteuid() == 0


def obstacle(home: Path) -> str:
    """Return why this machine cannot be a node; empty where nothing speaks against it."""
    if not is_possible():
        return "a node needs Linux and root"
    for program in ("kubectl", "ip", "unshare", "nsenter", "mount"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            return f"{program} is not installed"
    free = shutil.disk_usage(home).free
    if free < _DISK:
        return f"{home} has {free >> 30} GB free, a node needs {_DISK >> 30}"
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory < _MEMORY:
        return f"this machine has {memory >> 30} GB of memory, a node needs {_MEMORY >> 30}"
    return _no_groups() or _no_namespaces(home)


def _no_groups() -> str:
    # Under a name of its own: a node that is up has the other.
    tried = [hierarchy / f"{configuration.NAME}-tried" for hierarchy in leftovers.hierarchies()]
    if not tried:
        return "there are no control groups"
    try:
        for group in tried:
            group.mkdir(exist_ok=True)
            group.rmdir()
    except OSError as error:
        return f"no control group can be made: {error}"
    return ""


def _no_namespaces(home: Path) -> str:
    folder = home / "tried"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    flags = ["--mount", "--net", "--pid", "--ipc", "--uts", "--propagation=private", "--mount-proc", "--fork"]
    try:
        command = ["unshare", *flags, "--kill-child", "sh", "-c", _NODE, "sh", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        return "namespaces take longer than a minute"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "" if done.returncode == 0 else f"namespaces, mounts or interfaces are refused: {done.stderr.strip()[-300:]}"
