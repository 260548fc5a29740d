"""Namespaces of the node's own: how are they made, entered, reached from this machine, and left?

One pair of linked interfaces is all that joins them to the machine: no forwarding, no route to anywhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from e2e.cluster import init

LINK = "pointsman-e2e"
"""The interface on this machine's side."""
HOST, NODE = "10.245.0.1", "10.245.0.2"
"""The addresses of the two ends."""
_WITHIN_SECONDS = 20.0
_LOOK_EVERY_SECONDS = 0.05


class NodeError(Exception):
    """The node is not as it must be; the message says what is wrong and what to do."""


class Namespaces:
    """A first process with namespaces of its own; it ends with this process unless it is told to stay."""

    def __init__(self, folder: Path, pid: int, outer: subprocess.Popen[bytes] | None = None) -> None:
        self.folder = folder
        self.pid = pid
        self._outer = outer

    @classmethod
    def make(cls, folder: Path) -> Namespaces:
        """Make namespaces and link them to this machine."""
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        with (folder / "logs" / "init.log").open("wb") as log:
            flags = ["--mount", "--net", "--pid", "--ipc", "--uts", "--propagation=private", "--mount-proc"]
            outer = subprocess.Popen(
                ["unshare", *flags, "--fork", "--kill-child", sys.executable, "-I", "-S", init.__file__, str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is for this process, which ends the node in its own order.
                start_new_session=True,
            )
        deadline = time.monotonic() + _WITHIN_SECONDS
        while not (folder / "init.sock").exists():
            if outer.poll() is not None or time.monotonic() > deadline:
                said = (folder / "logs" / "init.log").read_text().strip()
                raise NodeError(f"no namespaces could be made: {said or outer.poll()}")
            time.sleep(_LOOK_EVERY_SECONDS)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        made = cls(folder, int(children[0]), outer)
        made._link()
        (folder / "init.pid").write_text(str(made.pid))
        return made

    @classmethod
    def found(cls, folder: Path) -> Namespaces | None:
        """Return the namespaces that were told to stay, or None."""
        try:
            pid = int((folder / "init.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        # The number may be another process's by now. Whichever checkout it was started from, there is one in a folder.
        is_ours = Path(init.__file__).name.encode() in command and str(folder).encode() in command
        return cls(folder, pid) if is_ours else None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have the first process do something, and return what it says."""
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(60)
            try:
                caller.connect(str(self.folder / "init.sock"))
                with caller.makefile("rw") as lines:
                    lines.write(json.dumps({"do": do, **arguments}) + "\n")
                    lines.flush()
                    answer: dict[str, Any] = json.loads(lines.readline())
            except (OSError, ValueError) as error:
                raise NodeError(f"the node's first process does not answer: {error}") from error
        return answer

    def start(self, name: str, argv: Sequence[object]) -> None:
        """Start a process that writes to a log of its name."""
        self.ask("start", name=name, argv=[str(part) for part in argv], log=str(self.log(name)))

    def end(self, name: str, number: signal.Signals = signal.SIGTERM, within: float = 20.0) -> None:
        """End a process: ask it by a signal, and kill it if it is there for longer."""
        self.ask("end", name=name, signal=int(number), within=within)

    def check(self) -> None:
        """Raise NodeError with the last lines of its log where a process has ended by itself."""
        for name, status in self.ask("list")["ended"].items():
            if status not in (0, -signal.SIGTERM, -signal.SIGKILL):
                raise NodeError(f"{name} ended with status {status}; its log ends:\n{self.tail(name)}")

    def log(self, name: str) -> Path:
        """Where a process writes to."""
        return self.folder / "logs" / f"{name}.log"

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a log."""
        found = self.log(name).read_text(errors="replace").splitlines() if self.log(name).exists() else []
        return "\n".join(line[:400] for line in found[-lines:])

    def run(self, *command: object, check: bool = True) -> str:
        """Run a command inside and return what it says."""
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--", *map(str, command)]
        done = subprocess.run(inside, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise NodeError(
                f"`{' '.join(map(str, command))}` ended with {done.returncode}: {done.stderr.strip()[-800:]}"
            )
        return done.stdout

    def stay(self) -> None:
        """Let the node outlive this process."""
        self.ask("stay")

    def close(self) -> None:
        """End all that is inside, and wait until the kernel has cleared it away."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        if self._outer is not None:
            self._outer.wait()
        deadline = time.monotonic() + _WITHIN_SECONDS
        while Path(f"/proc/{self.pid}").exists() or Path(f"/sys/class/net/{LINK}").exists():
            if time.monotonic() > deadline:
                raise NodeError(f"process {self.pid} or the interface {LINK} is still there: look at /proc/{self.pid}")
            time.sleep(_LOOK_EVERY_SECONDS)

    def _link(self) -> None:
        _ip("link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        _ip("addr", "add", f"{HOST}/30", "dev", LINK)
        _ip("link", "set", LINK, "up")
        self.run("ip", "addr", "add", f"{NODE}/30", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        # Addresses of Services are rewritten on their way, and only what has a way is.
        self.run("ip", "route", "add", "default", "via", HOST)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NodeError(f"`ip {' '.join(arguments)}` said: {done.stderr.strip()}")
