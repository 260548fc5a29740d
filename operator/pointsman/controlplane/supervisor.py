"""Runs the processes of a control plane and ends them with the process that asked for them, however that one dies.

The parent holds the other end of this process's standard input and writes one JSON object a line:
`{"name": ..., "argv": [...], "log": ...}` starts a process in the folder named on the command line. When the input
ends (the parent closed it, exited, or was killed), when the parent is gone although somebody else holds the input
open, or on SIGTERM, all are killed and the folder is removed. When one of them ends by itself the others are killed
too, and its name and exit status are printed as JSON; then the folder stays for the parent, which wants the logs.

This file is run by its path, in isolation, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_LOOK_EVERY_SECONDS = 0.25
_PR_SET_PDEATHSIG = 1


def _die_with_me() -> None:
    # Linux alone offers this second net, for the case that the supervisor itself is killed.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(command: dict[str, object], folder: Path) -> subprocess.Popen[bytes]:
    argv, log = command["argv"], command["log"]
    assert isinstance(argv, list)
    with Path(str(log)).open("ab") as output:
        return subprocess.Popen(
            argv,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Safe here: this process has one thread, and the C library is already loaded.
            preexec_fn=_die_with_me if sys.platform == "linux" else None,
        )


def _supervise(folder: Path, parent: int, running: dict[str, subprocess.Popen[bytes]]) -> tuple[str, int] | None:
    """Start what is asked for until the parent is gone (None) or a process has ended (its name and status)."""
    pending = b""
    while os.getppid() == parent:
        for name, process in running.items():
            if process.poll() is not None:
                return name, process.returncode
        readable, _, _ = select.select([0], [], [], _LOOK_EVERY_SECONDS)
        if not readable:
            continue
        received = os.read(0, 65536)
        if not received:
            return None
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            command = json.loads(line)
            try:
                running[command["name"]] = _start(command, folder)
            except OSError as error:
                Path(command["log"]).write_text(f"{command['argv'][0]}: {error.strerror}\n")
                return command["name"], 127
    return None


def main() -> int:
    """Supervise until the end. Arguments: the folder, and the parent's process id."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    running: dict[str, subprocess.Popen[bytes]] = {}
    ended: tuple[str, int] | None = None

    def stop(signum: int, frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        ended = _supervise(folder, parent, running)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Nothing they hold outlives the control plane, so they are killed and not asked.
        for process in running.values():
            process.kill()
        for process in running.values():
            process.wait()
        if ended is None or os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)
    if ended is not None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"name": ended[0], "status": ended[1]}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
