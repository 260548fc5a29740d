"""A real S3 server, versitygw, where it is there: on the path, or built by `make e2e`."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import processes

from pointsman.controlplane import binaries

PATIENCE = 30.0


def program() -> Path | None:
    """Return where the server is: on the path, or where `make e2e` keeps what it builds."""
    found = shutil.which("versitygw")
    built = sorted((binaries.Finder().home().parent / "programs").glob("versitygw-v*"))
    return Path(found) if found is not None else next(reversed(built), None)


NEEDED = pytest.mark.skipif(program() is None, reason="versitygw is not there; `make e2e` builds it")


class Server:
    """An S3 server with one pair of keys, on a folder whose folders are buckets."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, processes.free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        (folder / "vectors").mkdir(parents=True)

    @contextlib.contextmanager
    def running(self, key: str) -> Iterator[None]:
        """Serve whoever has a key, and nobody else."""
        keys, address = ("--access", key, "--secret", f"secret of {key}"), f"127.0.0.1:{self.port}"
        process = processes.start(
            [program(), *keys, "--port", address, "posix", self._folder],
            signal.SIGKILL,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    break
                assert process.poll() is None and time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()
