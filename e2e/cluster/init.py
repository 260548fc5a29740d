"""The first process of the node: what does it run, and how does it end?

It is process 1 of process, mount and network namespaces of its own. Whatever the node starts, mounts, links or filters
is in them, so all of it is gone with this process, however that ends: the kernel sees to it. It ends when whoever
started it is gone (its standard input ends), unless it was told to stay, or on SIGTERM.

It is asked by one JSON object a line over the socket `init.sock` in the folder named on the command line, and answers
each by one. This file is run by its path, in isolation, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_LOOK_EVERY_SECONDS = 0.1
# Where programs of a node write whatever they are told: sockets, locks, caches of networks, links to logs.
_OWN_FOLDERS = ("/run", "/var/lib", "/var/log")


class Init:
    """The processes of the node by name."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def reap(self) -> None:
        """Take note of what has ended, orphans included, which nobody else would."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                for name in [name for name, pid in self._running.items() if pid == found[0]]:
                    del self._running[name]
                    self._ended[name] = os.waitstatus_to_exitcode(found[1])

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked and say how things are then."""
        match asked["do"]:
            case "start":
                self._start(asked["name"], asked["argv"], asked["log"])
            case "end":
                self._end(asked["name"], asked["signal"], asked["within"])
            case "signal" if asked["name"] in self._running:
                os.kill(self._running[asked["name"]], asked["signal"])
            case _:
                pass
        return {"running": self._running, "ended": self._ended}

    def _start(self, name: str, argv: list[str], log: str) -> None:
        self._ended.pop(name, None)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        try:
            self._running[name] = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsid=True)
        except OSError as error:
            Path(log).write_text(f"{argv[0]}: {error.strerror}\n")
            self._ended[name] = 127

    def _end(self, name: str, number: int, within: float) -> None:
        deadline = time.monotonic() + within
        while name in self._running:
            os.kill(self._running[name], number if time.monotonic() < deadline else signal.SIGKILL)
            time.sleep(_LOOK_EVERY_SECONDS)
            self.reap()


def _prepare(folder: Path) -> None:
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    for name in _OWN_FOLDERS:
        if not folder.is_relative_to(name):
            subprocess.run(["mount", "-t", "tmpfs", "none", name], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def main() -> int:
    """Be process 1 until there is nobody left to be it for. Arguments: the folder."""
    folder = Path(sys.argv[1])

    def leave(signum: int, frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prepare(folder)
    init = Init()
    looked_at: list[int] = [0]
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(folder / "init.sock"))
        door.listen()
        while True:
            init.reap()
            readable, _, _ = select.select([door.fileno(), *looked_at], [], [], _LOOK_EVERY_SECONDS)
            if 0 in readable and not os.read(0, 4096):
                return 0
            if door.fileno() in readable:
                with door.accept()[0] as caller, caller.makefile("rw") as lines:
                    asked = json.loads(lines.readline())
                    if asked["do"] == "stay":
                        looked_at = []
                    lines.write(json.dumps(init.answer(asked)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
