"""What did the node leave on this machine? Looked at before it comes and after it went; nothing may differ."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from e2e.cluster import configuration

_GROUPS = Path("/sys/fs/cgroup")
_WITHIN_SECONDS = 20.0
_WEIGHTS = {"cpu.shares": 1024, "cpu.weight": 100}
"""What one process weighs where others are busy too, in either version of control groups."""
_PROCESSES = 4
"""As many busy processes the whole cluster weighs."""
# What a kubelet sets for the whole machine; everything about networks is in namespaces of the node's own.
_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be left behind, each as lines that say what it is."""

    mounts: frozenset[str]
    interfaces: frozenset[str]
    filters: frozenset[str]
    """Rules and chains of iptables, without counters."""
    namespaces: frozenset[str]
    groups: frozenset[str]
    """Control groups of the node."""
    processes: frozenset[str]
    """Processes that name the node's folder, or are in its control groups."""
    settings: frozenset[str]
    folders: frozenset[str]


def look(folder: Path) -> Machine:
    """Return how this machine is now; `folder` is the node's."""
    return Machine(
        mounts=frozenset(line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        interfaces=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
        filters=frozenset(_filters()),
        namespaces=frozenset(f"{path}" for path in Path("/run/netns").glob("*")),
        groups=frozenset(map(str, groups())),
        processes=frozenset(_processes(folder)),
        settings=frozenset(f"{name} = {value}" for name, value in settings().items()),
        folders=frozenset(
            str(path)
            for path in (folder, Path("/var/lib/kubelet"), Path("/var/lib/cni"), Path("/var/log/pods"))
            if path.exists()
        ),
    )


def new(before: Machine, after: Machine) -> list[str]:
    """Return what there is now and was not, in one line each."""
    return [
        f"{field.name}: {line}"
        for field in fields(Machine)
        for line in sorted(getattr(after, field.name) - getattr(before, field.name))
    ]


def groups() -> list[Path]:
    """Return the control groups of the node, the innermost first."""
    there = (_GROUPS, *_GROUPS.iterdir()) if _GROUPS.is_dir() else ()
    tops = [path for path in there if (path / configuration.NAME).is_dir()]
    found = [top / configuration.NAME for top in tops]
    inner = [path for top in found for path in top.rglob("*") if path.is_dir()]
    return sorted({*found, *inner}, key=lambda path: -len(path.parts))


def hierarchies() -> list[Path]:
    """Return the hierarchies of control groups: one, or one for each controller."""
    if (_GROUPS / "cgroup.controllers").exists():
        return [_GROUPS]
    return [path for path in _GROUPS.iterdir() if (path / "cgroup.procs").exists()] if _GROUPS.is_dir() else []


def make_groups() -> None:
    """Make the control group below which all pods are, in every hierarchy."""
    for hierarchy in hierarchies():
        group = hierarchy / configuration.NAME
        group.mkdir(exist_ok=True)
        # A new group of cpuset has no processors, so nothing could run in it.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / name).exists() and (group / name).exists():
                (group / name).write_text((hierarchy / name).read_text())
        # As a group of its own a whole cluster would get no more than one busy program beside it.
        for name, each in _WEIGHTS.items():
            if (group / name).exists():
                (group / name).write_text(str(each * _PROCESSES))


def remove_groups() -> None:
    """Remove the node's control groups, and end what is still in them."""
    deadline = time.monotonic() + _WITHIN_SECONDS
    while found := groups():
        for group in found:
            for number in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)
            # Whatever has just ended is in it for a moment longer.
            with contextlib.suppress(OSError):
                group.rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def settings() -> Mapping[str, str]:
    """Return what the kubelet may change for the whole machine."""
    paths = {name: Path("/proc/sys") / name for name in _SETTINGS}
    return {name: path.read_text().strip() for name, path in paths.items() if path.exists()}


def restore_settings(wanted: Mapping[str, str]) -> None:
    """Set them as they were."""
    for name, value in wanted.items():
        path = Path("/proc/sys") / name
        if path.read_text().strip() != value:
            path.write_text(value)


def remove_folder(folder: Path) -> None:
    """Remove the node's folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _filters() -> Iterator[str]:
    for program in ("iptables-save", "ip6tables-save"):
        command = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if command is not None:
            said = subprocess.run([command], capture_output=True, text=True, check=False).stdout
            # Rules, and chains other than those that every table has.
            yield from (
                f"{program}: {line.split(' [')[0]}"
                for line in said.splitlines()
                if line.startswith("-A") or (line.startswith(":") and " - " in line)
            )


def _processes(folder: Path) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            # Whoever looks names the folder too.
            names_it = str(folder) in command and int(path.name) != os.getpid()
            if names_it or f"/{configuration.NAME}/" in (path / "cgroup").read_text():
                yield f"{path.name} {command[:120]}"
