"""Starting a server that ends when we do, on a port that nobody has."""

from __future__ import annotations

import contextlib
import pwd
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_BECOME = """
import ctypes, os, sys
ends_by, user, group, *command = sys.argv[1:]
if user:
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(user))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(ends_by))  # PR_SET_PDEATHSIG, which a change of the user would take back.
os.execvp(command[0], command)
"""
_PORTS = range(10_000, 32_768)
"""Below those that connections are given, of which there are thousands while tests run side by side."""


def start(
    command: Sequence[object], ends_by: signal.Signals, user: pwd.struct_passwd | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a process that is sent a signal should we be killed; `options` are those of `subprocess.Popen`."""
    return subprocess.Popen(become(command, ends_by, user), **options)


def become(command: Sequence[object], ends_by: signal.Signals, user: pwd.struct_passwd | None = None) -> list[str]:
    """Return a command that becomes another, as a user if one is given, and ends when its parent does.

    Nothing of that is done between fork and exec: a library that has threads starts them again in every fork, where
    their files are closed, and aborts what is being started. Where nothing comes in between nobody hears of the fork.
    """
    identity = ("", "") if user is None else (str(user.pw_uid), str(user.pw_gid))
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(int(ends_by)), *identity, *map(str, command)]


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that nobody is given by chance before we do."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
