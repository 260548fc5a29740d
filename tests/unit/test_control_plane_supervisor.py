"""The supervisor, with processes that only sleep: what ends when, and by whose death."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pointsman.controlplane import supervisor

WITHIN_SECONDS = 10.0
# A parent that starts a supervisor with one sleeping process, tells their ids, and sleeps.
PARENT = """
import json, os, subprocess, sys, time
folder = sys.argv[1]
child = subprocess.Popen([sys.executable, "-I", "-S", sys.argv[2], folder, str(os.getpid())],
                         stdin=subprocess.PIPE, start_new_session=True)
for name in ("one", "two"):
    command = {"name": name, "argv": ["sleep", "600"], "log": folder + "/" + name + ".log"}
    child.stdin.write(json.dumps(command).encode() + b"\\n")
child.stdin.flush()
print(child.pid, flush=True)
if os.fork() == 0:
    # Holds the other end of the pipe open beyond the parent's death, as any forked worker would.
    os.close(1)
    time.sleep(float(sys.argv[3]))
    os._exit(0)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "plane"
    path.mkdir()
    return path


@pytest.fixture
def supervised(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", supervisor.__file__, str(folder), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        yield process
        process.terminate()


def ask(process: subprocess.Popen[bytes], folder: Path, name: str, *argv: str) -> None:
    assert process.stdin is not None
    command = {"name": name, "argv": argv, "log": str(folder / f"{name}.log")}
    process.stdin.write(json.dumps(command).encode() + b"\n")
    process.stdin.flush()


def children(pid: int, count: int) -> list[psutil.Process]:
    """Wait until a process has that many children and return them."""
    process = psutil.Process(pid)
    while len(found := [c for c in process.children() if c.name() == "sleep"]) < count:
        assert process.is_running()
    return found


def test_when_the_parent_closes_its_end_all_ends_and_the_folder_goes(
    supervised: subprocess.Popen[bytes], folder: Path
) -> None:
    ask(supervised, folder, "one", "sleep", "600")
    sleeping = children(supervised.pid, 1)

    assert supervised.stdin is not None
    supervised.stdin.close()

    assert supervised.wait(WITHIN_SECONDS) == 0
    assert psutil.wait_procs(sleeping, WITHIN_SECONDS)[1] == []
    assert not folder.exists()


def test_when_one_process_ends_the_others_are_ended_and_it_is_named(
    supervised: subprocess.Popen[bytes], folder: Path
) -> None:
    ask(supervised, folder, "one", "sleep", "600")
    sleeping = children(supervised.pid, 1)

    ask(supervised, folder, "two", "sh", "-c", "echo no such flag; exit 3")

    assert supervised.wait(WITHIN_SECONDS) == 1
    assert supervised.stdout is not None
    assert json.loads(supervised.stdout.read()) == {"name": "two", "status": 3}
    assert psutil.wait_procs(sleeping, WITHIN_SECONDS)[1] == []
    assert (folder / "two.log").read_text() == "no such flag\n"


def test_a_program_that_cannot_be_started_is_named_as_one_that_ended(
    supervised: subprocess.Popen[bytes], folder: Path
) -> None:
    ask(supervised, folder, "one", str(folder / "absent"))

    assert supervised.wait(WITHIN_SECONDS) == 1
    assert supervised.stdout is not None
    assert json.loads(supervised.stdout.read()) == {"name": "one", "status": 127}
    assert "No such file or directory" in (folder / "one.log").read_text()


@pytest.mark.parametrize("outlived_by_seconds", [pytest.param(0, id="alone"), pytest.param(600, id="with a fork")])
def test_when_the_parent_is_killed_all_ends_and_the_folder_goes(folder: Path, outlived_by_seconds: int) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), supervisor.__file__, str(outlived_by_seconds)],
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        processes = [psutil.Process(pid), *children(pid, 2)]
        forks = [c for c in psutil.Process(parent.pid).children() if c.pid != pid]
        try:
            parent.send_signal(signal.SIGKILL)

            assert psutil.wait_procs(processes, WITHIN_SECONDS)[1] == []
            assert not folder.exists()
        finally:
            for fork in forks:
                with contextlib.suppress(psutil.NoSuchProcess):
                    fork.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_when_the_supervisor_itself_is_killed_its_processes_end(
    supervised: subprocess.Popen[bytes], folder: Path
) -> None:
    ask(supervised, folder, "one", "sleep", "600")
    sleeping = children(supervised.pid, 1)

    supervised.send_signal(signal.SIGKILL)

    assert psutil.wait_procs(sleeping, WITHIN_SECONDS)[1] == []
