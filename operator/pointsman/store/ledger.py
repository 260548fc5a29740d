"""What is finished of a snapshot that several processes embed, or load, each on its own and killed at any time?

A run is divided into portions, of documents or of an index's points, once and for ever. A snapshot may come to be
divided anew, as another run, while a process that nobody reaches still works on the one before: so whatever is of a run
lies in a folder of its own, and nothing that is finished of one run is taken for a portion of another. Whatever is
finished is put only if absent: vectors as they come, as spills; then, for each portion, one record that names the files
with its rows and its vectors.
No table knows of these files until one commit takes in all of them, so the ledger is all that keeps them from being
lost, or from lying about for ever.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa

from pointsman.api.conditions import Reason
from pointsman.core import keys, rows
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.store import records
from pointsman.store.objects import Objects
from pointsman.store.remembered import Remembered
from pointsman.store.tables import Offsets, Part
from pointsman.store.writers import Writers

_PORTION = re.compile(r"([0-9]{6})\.json")

_FOLDER = "run-"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """How a run is divided: what every process that works on it has to see alike."""

    snapshot: int
    sequence: int
    corpus_version: int
    """The version of the table whose rows are divided: of the corpus, or of the chunks where an index is loaded."""
    base: int | None
    """The snapshot that the rows follow; None where they begin from nothing."""
    documents: int
    """How many documents are to be embedded: all, or those that changed since the base. Of an index its points."""
    per_portion: int
    is_whole: bool
    """Whether those are all rows; where they are not, the positions of each portion's are beside this record."""
    id: str = ""
    """Tells it from every other run of the snapshot; empty in a ledger of a release whose runs had none."""

    @property
    def portions(self) -> int:
        """How many portions there are."""
        return -(-self.documents // self.per_portion)


@dataclass(frozen=True, slots=True)
class Attempt:
    """How the portions that were left are dealt out to so many shards."""

    number: int
    shards: int
    left: tuple[int, ...]

    def of(self, shard: int) -> tuple[int, ...]:
        """Return the portions of a shard: every so-manyth, as neighbours are often alike in length."""
        return self.left[shard :: self.shards]


@dataclass(frozen=True, slots=True)
class Portion:
    """One finished portion; of an index, only how many points it has."""

    documents: int
    rows: int
    embedded: int = 0
    """Texts that were sent to the model."""
    tokens: int = 0
    tokens_stated: int = 0
    chunks: tuple[Part, ...] = ()
    vectors: tuple[Part, ...] = ()
    model: str = ""
    revision: str = ""
    keys: str = field(default="", compare=False)
    """The name of the object with the keys that were embedded: each process that finishes it has one of its own."""


class Ledger:
    """The ledger of one snapshot: of the run that was under way when it was last asked for one."""

    def __init__(self, objects: Objects, remembered: Remembered, root: str, run: str | None = None) -> None:
        self._objects, self._remembered, self._root, self._id = objects, remembered, root, run

    @property
    def _own(self) -> str:
        """The folder of the run."""
        if self._id is None:
            self.run()
        return f"{self._root}/{_FOLDER}{self._id}" if self._id else self._root

    def run(self) -> Run | None:
        """Return how the run is divided, or None where it has not begun. All that is asked after is of this run."""
        content = self._objects.get(f"{self._root}/run.json")
        if content is None:
            self._id = None
            return None
        with records.reading(f"{self._root}/run.json"):
            value = dict(orjson.loads(content))
        run = self._made(Run, "run.json", value)
        self._id = run.id
        return run

    def runs(self) -> list[Ledger]:
        """Return the ledgers of all runs of which anything is there: one that was given up may have gone on."""
        found = [name for name in self._objects.folders(self._root) if name.startswith(_FOLDER)]
        ids = ["", *(name.removeprefix(_FOLDER) for name in found)]
        return [Ledger(self._objects, self._remembered, self._root, name) for name in ids]

    def begin(self, run: Run, offsets: Offsets | None) -> Run:
        """Divide the run unless it is divided, and return how it is.

        `offsets` are the positions of its documents in the corpus, ascending; None where it has all of them.
        """
        self._id = run.id
        for portion in range(0 if offsets is None else run.portions):
            # Each apart: no shard has to read those of all others.
            part = offsets[portion * run.per_portion :][: run.per_portion] if offsets is not None else None
            self._objects.create(f"{self._own}/offsets/{portion:06d}", np.asarray(part, dtype="<i8").tobytes())
        content = orjson.dumps({"format": records.FORMAT, **dataclasses.asdict(run)}, option=orjson.OPT_SORT_KEYS)
        self._objects.create(f"{self._root}/run.json", content)
        return self.run() or run

    def offsets(self, run: Run, portion: int) -> Offsets:
        """Return the positions in the corpus of a portion's documents, ascending."""
        first = portion * run.per_portion
        if run.is_whole:
            return np.arange(first, min(first + run.per_portion, run.documents), dtype=np.int64)
        content = self._objects.get(f"{self._own}/offsets/{portion:06d}")
        if content is None:
            raise self._forgotten()
        return np.frombuffer(content, dtype="<i8").astype(np.int64)

    def attempt(self, number: int | None = None) -> Attempt | None:
        """Return an attempt, or the newest one; None where there is none."""
        if number is None:
            names = self._objects.files(f"{self._own}/attempts")
            number = max((int(name.removesuffix(".json")) for name in names), default=0)
        value = self._read(f"attempts/{number:06d}.json") if number else None
        return None if value is None else self._made(Attempt, f"attempts/{number:06d}.json", value)

    def deal(self, shards: int) -> Attempt:
        """Deal out what is left to at most so many shards, as the attempt that follows the newest, and return it."""
        run, before = self.run(), self.attempt()
        if run is None:
            raise self._forgotten()
        left = self.left(run)
        number = 1 if before is None else before.number + 1
        attempt = Attempt(number, max(1, min(shards, len(left))), left)
        self._put(f"attempts/{number:06d}.json", dataclasses.asdict(attempt))
        return self.attempt(number) or attempt

    def close(self, number: int) -> None:
        """Write down that an attempt is over: what it has left is for the next."""
        self._put(f"closed/{number:06d}.json", {})

    def is_closed(self, number: int) -> bool:
        """Return whether an attempt is over."""
        return self._objects.has(f"{self._own}/closed/{number:06d}.json")

    def finished(self) -> Mapping[int, Portion]:
        """Return the finished portions, by number."""

        def decode(where: str, content: bytes) -> Portion:
            with records.reading(where):
                return self._made(Portion, where, orjson.loads(content))

        found = self._remembered.below(f"{self._own}/portions", _PORTION, decode)
        return {int(name.removesuffix(".json")): portion for name, portion in found.items()}

    def left(self, run: Run) -> tuple[int, ...]:
        """Return the portions that are not finished, ascending."""
        return tuple(sorted(set(range(run.portions)) - self.finished().keys()))

    def is_finished(self, number: int) -> bool:
        """Return whether a portion is finished."""
        return self._objects.has(f"{self._own}/portions/{number:06d}.json")

    def load(self, number: int, points: int) -> None:
        """Finish a portion of so many points, which are in the index; whoever else did so has written the same."""
        self._put(f"portions/{number:06d}.json", dataclasses.asdict(Portion(documents=points, rows=points)))

    def finish(self, number: int, portion: Portion, content_keys: pa.Array) -> bool:
        """Finish a portion that has embedded these keys; return whether nobody else had."""
        # The keys first: a record has all that it stands for.
        own = f"{number:06d}-{uuid.uuid4().hex}"
        self._objects.create(f"{self._own}/keys/{own}", keys.words(content_keys).tobytes())
        if not self._put(f"portions/{number:06d}.json", dataclasses.asdict(dataclasses.replace(portion, keys=own))):
            there = self._portion(number)
            # Where the answer was lost, it is one's own record that stands in the way when it is put again.
            if there is None or there.keys != own:
                self._objects.delete(f"{self._own}/keys/{own}")
                return False
        self._objects.delete_tree(f"{self._own}/spills/{number:06d}")
        return True

    def void(self, number: int) -> None:
        """Take back that a portion is finished: what its record names is gone."""
        portion = self._portion(number)
        self._objects.delete(f"{self._own}/portions/{number:06d}.json")
        if portion is not None:
            self._objects.delete(f"{self._own}/keys/{portion.keys or f'{number:06d}'}")

    def keys(self, number: int, portion: Portion | None = None) -> pa.Array:
        """Return the keys that a finished portion has embedded; its record, where it is at hand, is not read again."""
        portion = portion or self._portion(number)
        named = "" if portion is None else portion.keys or f"{number:06d}"
        content = (self._objects.get(f"{self._own}/keys/{named}") if named else None) or b""
        return pa.FixedSizeBinaryArray.from_buffers(rows.KEY, len(content) // 16, [None, pa.py_buffer(content)])

    def doubt(self) -> None:
        """Write down that vectors which are about to be taken in may be in the table twice."""
        self._put("doubt.json", {})

    def is_in_doubt(self) -> bool:
        """Return whether vectors may be in the table twice."""
        return self._objects.has(f"{self._own}/doubt.json")

    def settle(self) -> None:
        """Write down that each vector is in the table once."""
        self._objects.delete(f"{self._own}/doubt.json")

    def spill(self, number: int, batch: pa.RecordBatch) -> None:
        """Keep finished vectors of a portion, as `rows.vectors`, until it is finished."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self._objects.create(f"{self._own}/spills/{number:06d}/{uuid.uuid4().hex}", sink.getvalue().to_pybytes())

    def spills(self, number: int) -> Iterator[pa.RecordBatch]:
        """Yield what is kept of a portion that is not finished."""
        for name in self._objects.files(f"{self._own}/spills/{number:06d}"):
            content = self._objects.get(f"{self._own}/spills/{number:06d}/{name}")
            if content is not None:
                yield from pa.ipc.open_stream(content)

    def spilled(self) -> list[int]:
        """Return the portions of which vectors are kept."""
        return [int(name) for name in self._objects.folders(f"{self._own}/spills")]

    def fail(self, attempt: int, shard: int, error: PointsmanError) -> None:
        """Say why a shard gave up."""
        value = {"reason": error.reason, "message": error.message, "terminal": isinstance(error, Terminal)}
        self._put(f"failures/{attempt:06d}/{shard:06d}-{uuid.uuid4().hex}.json", value)

    def failures(self, attempt: int) -> Sequence[PointsmanError]:
        """Return why shards of an attempt gave up: first what only an edit can mend."""
        found: list[PointsmanError] = []
        for name in self._objects.files(f"{self._own}/failures/{attempt:06d}"):
            value = self._read(f"failures/{attempt:06d}/{name}")
            if value is not None:
                kind = Terminal if value["terminal"] else Retryable
                found.append(kind(Reason(value["reason"]), str(value["message"])))
        return sorted(found, key=lambda error: not isinstance(error, Terminal))

    @property
    def writers(self) -> Writers:
        """Who may write to an index for the run."""
        return Writers(self._objects, self._own)

    def is_under_way(self, run: str, attempt: int) -> bool:
        """Return whether a run is the one under way, nobody has ended it, and an attempt at it is not over."""
        newest = Ledger(self._objects, self._remembered, self._root)
        found = newest.run()
        if found is None or found.id != run:
            return False
        return not newest.writers.is_over() and not newest.is_closed(attempt)

    def give_up(self) -> None:
        """Have the snapshot divided anew by whoever begins next; what is of the run stays."""
        self._objects.delete(f"{self._root}/run.json")
        self._id = None

    def forget(self) -> None:
        """Remove the ledger: how the run is divided last, so that one who is interrupted is sent again."""
        for part in self._objects.folders(self._root):
            self._objects.delete_tree(f"{self._root}/{part}")
        self._objects.delete(f"{self._root}/run.json")
        self._objects.delete_tree(self._root)

    def _read(self, name: str) -> dict[str, Any] | None:
        content = self._objects.get(f"{self._own}/{name}")
        if content is None:
            return None
        with records.reading(f"{self._own}/{name}"):
            return dict(orjson.loads(content))

    def _put(self, name: str, value: Mapping[str, Any]) -> bool:
        content = orjson.dumps({"format": records.FORMAT, **value}, option=orjson.OPT_SORT_KEYS)
        return self._objects.create(f"{self._own}/{name}", content)

    def _portion(self, number: int) -> Portion | None:
        name = f"portions/{number:06d}.json"
        value = self._read(name)
        return None if value is None else self._made(Portion, name, value)

    def _made(self, kind: type[T], where: str, value: Mapping[str, Any]) -> T:
        records.require_format(value, where)
        known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        with records.reading(where):
            return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in value.items() if name in known})

    def _forgotten(self) -> Retryable:
        return Retryable(Reason.WORK_LOST, "the run was given up meanwhile; wanted it under way, looking again")
