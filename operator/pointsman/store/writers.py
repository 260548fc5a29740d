"""Which processes may still write to an index for a run, and since when is none of them to?

Each writes its name down before it begins and takes it away when nothing of what it sent can be under way any more. One
that is killed leaves its name behind: then only time tells, and each machine goes by its own clock: what another wrote
down by one that is minutes behind would have it wait too short.
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import orjson

from pointsman.store import records
from pointsman.store.objects import Objects


class Writers:
    """Those of one run."""

    def __init__(self, objects: Objects, folder: str, machine: str | None = None) -> None:
        """`machine` is whose clock counts: this one's, where none is said."""
        self._objects, self._names = objects, f"{folder}/writers"
        self._over, self._ended = f"{folder}/over.json", f"{folder}/ended/{machine or _machine()}.json"

    def enter(self, attempt: int, shard: int) -> str:
        """Write down that a process is about to write, and return the name that it does so by."""
        name = f"{attempt:06d}-{shard:06d}-{uuid.uuid4().hex}"
        self._objects.create(f"{self._names}/{name}", b"{}")
        return name

    def leave(self, name: str) -> None:
        """Take a name away: nothing that its process has sent is under way."""
        self._objects.delete(f"{self._names}/{name}")

    def names(self) -> Sequence[str]:
        """Return who has written and did not leave."""
        return self._objects.files(self._names)

    def end(self, now: Callable[[], datetime]) -> None:
        """Write down, once, that nobody is to begin or go on any more, and then when this machine first knew that."""
        self._objects.create(self._over, orjson.dumps({"format": records.FORMAT}))
        # However long it took until it was there: who looked before it was goes on from then.
        self._objects.create(self._ended, orjson.dumps({"format": records.FORMAT, "at": now().isoformat()}))

    def is_over(self) -> bool:
        """Return whether nobody is to begin or go on."""
        return self._objects.has(self._over)

    def ended_at(self) -> datetime | None:
        """Return when this machine first knew that nobody is to go on; None where it has not said so by `end`."""
        content = self._objects.get(self._ended)
        if content is None:
            return None
        with records.reading(self._ended):
            return datetime.fromisoformat(orjson.loads(content)["at"])


def _machine() -> str:
    """Return what tells this machine, since it was started, from every other: all on it share one clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return uuid.uuid5(uuid.NAMESPACE_DNS, platform.node()).hex
