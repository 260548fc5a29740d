"""A store that runs full: it is said, what serves goes on, and all goes on by itself once there is room.

Told on a disk of a few megabytes, which takes a mount: so in a namespace of its own, where the system lets us have one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.crash import stories
from tests.crash.stage import NAMESPACE, Stage, Tripwire, settle, told

from pointsman.api.conditions import Reason
from pointsman.cluster.resources import DATASET, DEPLOYMENT
from pointsman.errors import unforeseen
from pointsman.store import objects
from pointsman.store.root import Store

ALONE = ("unshare", "--user", "--map-root-user", "--mount")
MOUNTED = 'mount -t tmpfs -o size=3m tmpfs "$1" && shift && exec "$@"'


def may_mount(folder: Path) -> bool:
    try:
        tried = subprocess.run(
            [*ALONE, "sh", "-c", MOUNTED, "sh", str(folder), "true"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return tried.returncode == 0


def condition(stage: Stage, kind: str, about: str) -> tuple[str, str, str]:
    resource = stage.cluster.get(kind, NAMESPACE, "papers")
    assert resource is not None
    found: dict[str, Any] = next(c for c in resource["status"]["conditions"] if c["type"] == about)
    return found["status"], found["reason"], found["message"]


def served(stage: Stage) -> str:
    route = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert route is not None
    return route["version"]


def fill(folder: Path) -> Path:
    """Leave no room: not for a table, and not for a record either."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def a_store_that_is_full_is_named_and_what_serves_goes_on(folder: Path) -> None:
    (folder / "store").mkdir()
    stage = Stage(folder / "store")
    here = told(stage, stories.declare)
    assert served(stage) == "v7"
    filler = fill(folder)

    stories.change_source(stage)
    stories.declare_v8(stage)
    stories.serve("v8")(stage)
    # It is tried again for ever.
    settle(stage, Tripwire(), here, rounds=40)

    status, reason, message = condition(stage, DATASET, "Reconciling")
    assert (status, reason) == ("True", "StoreFull")
    assert message.startswith("the store is full at ")
    assert "No space left on device; enlarge its volume or bucket, or have less kept (spec.retention)" in message
    assert served(stage) == "v7"
    assert condition(stage, DEPLOYMENT, "Available")[0] == "True"

    filler.unlink()
    stories.later(timedelta(minutes=6))(stage)
    settle(stage, Tripwire(), here)

    assert condition(stage, DATASET, "Ready")[0] == "True"
    assert served(stage) == "v8"


def a_clean_up_makes_room_where_there_is_none(folder: Path) -> None:
    (folder / "store").mkdir()
    stage = Stage(folder / "store")
    told(stage, stories.declare, stories.change_source)
    dataset = Store(str(stage.folder)).dataset(NAMESPACE, "papers")
    recipes = {recipe.key for recipe in dataset.pins().values()}
    before = [snapshot.number for snapshot in dataset.snapshots()]
    fill(folder)

    cleaned = dataset.clean(before[-1:], recipes, grace=timedelta(0))

    assert (before, cleaned.snapshots) == ([1, 2], (1,))
    assert cleaned.bytes > 0
    assert [snapshot.number for snapshot in dataset.snapshots()] == before[-1:]


STORIES: tuple[Callable[[Path], None], ...] = (
    a_store_that_is_full_is_named_and_what_serves_goes_on,
    a_clean_up_makes_room_where_there_is_none,
)


@pytest.mark.parametrize("story", [story.__name__ for story in STORIES])
def test_on_a_disk_without_room(tmp_path: Path, story: str) -> None:
    if not may_mount(tmp_path):
        pytest.skip("this system lets nobody have a mount of their own")

    told = subprocess.run(
        [
            *ALONE,
            "sh",
            "-c",
            MOUNTED,
            "sh",
            str(tmp_path),
            sys.executable,
            "-m",
            "tests.crash.test_full",
            story,
            tmp_path,
        ],
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": "operator:.", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert told.returncode == 0, told.stderr


def no_room() -> OSError:
    """What the system says where there is none: of a device that is always full."""
    with Path("/dev/full").open("wb", buffering=0) as file:
        try:
            file.write(b"x")
        except OSError as error:
            return error
    raise AssertionError("there is room")


def test_a_full_disk_of_the_store_and_any_other_have_reasons_of_their_own() -> None:
    of_store, of_scratch = objects.unreachable("papers/1.json", no_room()), unforeseen(no_room())

    assert (of_store.reason, of_scratch.reason) == (Reason.STORE_FULL, Reason.DISK_FULL)
    assert "papers/1.json: No space left on device" in of_store.message
    assert "such as the scratch folder; make it larger (operator.temporary, or" in of_scratch.message
    assert unforeseen(OSError(5, "Input/output error")).reason is Reason.INTERNAL_ERROR


if __name__ == "__main__":
    {story.__name__: story for story in STORIES}[sys.argv[1]](Path(sys.argv[2]))
