"""Starting a server that ends when we do."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1


def start(command: Sequence[object], ends_by: signal.Signals, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process that is sent a signal should we be killed; `options` are those of `subprocess.Popen`."""

    def end_with_parent() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ends_by)

    with warnings.catch_warnings():
        # Between fork and exec nothing of Lance is touched.
        warnings.filterwarnings("ignore", "lance is not fork-safe")
        preparation = end_with_parent if sys.platform == "linux" else None
        return subprocess.Popen([str(part) for part in command], preexec_fn=preparation, **options)
