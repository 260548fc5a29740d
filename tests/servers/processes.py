"""Starting a server that ends when we do, on a port that nobody has."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import Any

# Threads that talk gRPC would go on polling between fork and exec, where their files are closed, and abort what is
# started before it is one.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

_PR_SET_PDEATHSIG = 1
_PORTS = range(10_000, 32_768)
"""Below those that connections are given, of which there are thousands while tests run side by side."""


def start(command: Sequence[object], ends_by: signal.Signals, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that is sent a signal should we be killed; `options` are those of `subprocess.Popen`."""

    def end_with_parent() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ends_by)

    with warnings.catch_warnings():
        # Between fork and exec nothing of Lance is touched.
        warnings.filterwarnings("ignore", "lance is not fork-safe")
        preparation = end_with_parent if sys.platform == "linux" else None
        return subprocess.Popen([str(part) for part in command], preexec_fn=preparation, **options)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that nobody is given by chance before we do."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
