"""A real Milvus Lite server, for as long as a test wants it."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import processes

START_SECONDS = 60
"""The first import of its libraries takes seconds on a busy machine."""


@contextlib.contextmanager
def start_milvus(folder: Path) -> Iterator[str]:
    """Start a server on a free loopback port, its data and log in `folder`, and yield its URI; end it after."""
    assert importlib.util.find_spec("milvus_lite") is not None, "milvus-lite is not installed"
    port = processes.free_port()
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "milvus")]
    with (folder / "milvus.log").open("wb") as log:
        # Unless it is told otherwise it listens on all interfaces.
        server = processes.start(
            [*command, "--host", "127.0.0.1", "--port", port], signal.SIGTERM, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(port, server, folder / "milvus.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(server)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
