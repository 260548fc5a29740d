"""A control plane that stays after the command that started it, one for each user and cache.

Who holds the lock of the state file is the daemon; so a process id in that file is never mistaken for another process
that got the same number later. The kernel releases the lock however the daemon ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.controlplane import plane

_LOOK_EVERY_SECONDS = 0.1
_END_WITHIN_SECONDS = 20.0
_LOCK_WITHIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class State:
    """What there is to know about a control plane that runs in the background."""

    pid: int
    server: str
    kubeconfig: Path


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of the daemon's files."""

    folder: Path

    @property
    def lock(self) -> Path:
        """Held by the daemon for as long as it lives."""
        return self.folder / "daemon.lock"

    @property
    def state(self) -> Path:
        """Written when the control plane is ready; means nothing while nobody holds the lock."""
        return self.folder / "daemon.json"

    @property
    def log(self) -> Path:
        """What the daemon said."""
        return self.folder / "daemon.log"


def running(place: Place) -> State | None:
    """Return the control plane that runs in the background, or None."""
    try:
        with place.lock.open("r+") as lock:
            if _try_lock(lock):
                # Nobody holds it, so whatever a killed daemon left there is about nobody.
                place.state.unlink(missing_ok=True)
                return None
    except FileNotFoundError:
        return None
    try:
        said = json.loads(place.state.read_text())
    except (OSError, ValueError):
        return None
    return State(pid=said["pid"], server=said["server"], kubeconfig=Path(said["kubeconfig"]))


def up(place: Place, within: timedelta = timedelta(minutes=3)) -> State:
    """Start a control plane in the background, or return the one that runs.

    Its binaries should be there already (`binaries.Finder.find`): the daemon's progress is seen by nobody. Raises
    Terminal with what the daemon said where it ends instead.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    if (found := running(place)) is not None:
        return found
    pid = _spawn(place)
    deadline = time.monotonic() + within.total_seconds()
    while (found := running(place)) is None:
        has_ended = _has_ended(pid)
        if has_ended or time.monotonic() > deadline:
            if not has_ended:
                os.kill(pid, signal.SIGTERM)
            raise errors.Terminal(
                Reason.CLUSTER_UNREACHABLE,
                f"the control plane did not start: {place.log.read_text(errors='replace').strip()}",
            )
        time.sleep(_LOOK_EVERY_SECONDS)
    return found


def down(place: Place) -> State | None:
    """End the control plane in the background and return what it was, or None where there was none."""
    found = running(place)
    if found is None:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + _END_WITHIN_SECONDS
    while running(place) is not None:
        if time.monotonic() > deadline:
            raise errors.Terminal(
                Reason.CLUSTER_UNREACHABLE,
                f"process {found.pid} did not end within {_END_WITHIN_SECONDS:.0f} s: kill it by hand",
            )
        time.sleep(_LOOK_EVERY_SECONDS)
    _has_ended(found.pid)
    return found


def serve(place: Place) -> int:
    """Be the daemon: hold the lock, run a control plane, end it on SIGTERM. Returns the exit status."""
    with place.lock.open("w") as lock:
        # Whoever asks whether there is a daemon holds the lock for a moment.
        deadline = time.monotonic() + _LOCK_WITHIN_SECONDS
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                print("another process runs a control plane here", file=sys.stderr)
                return 1
            time.sleep(_LOOK_EVERY_SECONDS)
        place.state.unlink(missing_ok=True)
        try:
            return _serve(place)
        except errors.PointsmanError as error:
            print(error.message, file=sys.stderr)
            return 1


def _serve(place: Place) -> int:
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with plane.start() as cluster:
        state = {"pid": os.getpid(), "server": cluster.server, "kubeconfig": str(cluster.kubeconfig)}
        written = place.state.with_suffix(".tmp")
        written.write_text(json.dumps(state))
        written.replace(place.state)
        while not ending.wait(1.0):
            cluster.check()
    place.state.unlink(missing_ok=True)
    return 0


def _spawn(place: Place) -> int:
    """Start the daemon and return its process id. It is not waited for: it outlives whoever starts it."""
    command = [sys.executable, "-m", __name__, str(place.folder)]
    creating = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(place.log), creating, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=actions)


def _has_ended(pid: int) -> bool:
    """Say whether a daemon that this very process started has ended, and let the kernel forget it if so."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return False


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    # Out of the terminal's session: its Ctrl-C and its closing are not for the daemon.
    os.setsid()
    sys.exit(serve(Place(Path(sys.argv[1]))))
