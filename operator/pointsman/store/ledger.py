"""What is finished of a snapshot that several processes embed, each on its own and killed at any time?

A run is divided into portions of documents, once and for ever. Whatever is finished is put only if absent: vectors as
they come, as spills; then, for each portion, one record that names the files with its rows and its vectors. No table
knows of these files until one commit takes in all of them, so the ledger is all that keeps them from being lost, or
from lying about for ever.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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

_PORTION = re.compile(r"([0-9]{6})\.json")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """How a run is divided: what every process that works on it has to see alike."""

    snapshot: int
    sequence: int
    corpus_version: int
    base: int | None
    """The snapshot that the rows follow; None where they begin from nothing."""
    documents: int
    """How many documents are to be embedded: all, or those that changed since the base."""
    per_portion: int
    is_whole: bool
    """Whether those are all documents; where they are not, the positions of each portion's are beside this record."""

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
    """One finished portion."""

    documents: int
    rows: int
    embedded: int
    """Texts that were sent to the model."""
    tokens: int
    chunks: tuple[Part, ...]
    vectors: tuple[Part, ...]
    model: str
    revision: str


class Ledger:
    """The ledger of one run."""

    def __init__(self, objects: Objects, remembered: Remembered, root: str) -> None:
        self._objects, self._remembered, self._root = objects, remembered, root

    def run(self) -> Run | None:
        """Return how the run is divided, or None where it has not begun."""
        value = self._read("run.json")
        return None if value is None else self._made(Run, "run.json", value)

    def begin(self, run: Run, offsets: Offsets | None) -> Run:
        """Divide the run unless it is divided, and return how it is.

        `offsets` are the positions of its documents in the corpus, ascending; None where it has all of them.
        """
        for portion in range(0 if offsets is None else run.portions):
            # Each apart: no shard has to read those of all others.
            part = offsets[portion * run.per_portion :][: run.per_portion] if offsets is not None else None
            self._objects.create(f"{self._root}/offsets/{portion:06d}", np.asarray(part, dtype="<i8").tobytes())
        self._put("run.json", dataclasses.asdict(run))
        return self.run() or run

    def offsets(self, run: Run, portion: int) -> Offsets:
        """Return the positions in the corpus of a portion's documents, ascending."""
        first = portion * run.per_portion
        if run.is_whole:
            return np.arange(first, min(first + run.per_portion, run.documents), dtype=np.int64)
        content = self._objects.get(f"{self._root}/offsets/{portion:06d}")
        if content is None:
            raise self._forgotten()
        return np.frombuffer(content, dtype="<i8").astype(np.int64)

    def attempt(self, number: int | None = None) -> Attempt | None:
        """Return an attempt, or the newest one; None where there is none."""
        if number is None:
            names = self._objects.files(f"{self._root}/attempts")
            number = max((int(name.removesuffix(".json")) for name in names), default=0)
        value = self._read(f"attempts/{number:06d}.json") if number else None
        return None if value is None else self._made(Attempt, f"attempts/{number:06d}.json", value)

    def deal(self, shards: int) -> Attempt:
        """Deal out what is left to at most so many shards, as the attempt that follows the newest, and return it."""
        run, before = self.run(), self.attempt()
        if run is None:
            raise self._forgotten()
        left = sorted(set(range(run.portions)) - self.finished().keys())
        number = 1 if before is None else before.number + 1
        attempt = Attempt(number, max(1, min(shards, len(left))), tuple(left))
        self._put(f"attempts/{number:06d}.json", dataclasses.asdict(attempt))
        return self.attempt(number) or attempt

    def close(self, number: int) -> None:
        """Write down that an attempt is over: what it has left is for the next."""
        self._put(f"closed/{number:06d}.json", {})

    def is_closed(self, number: int) -> bool:
        """Return whether an attempt is over."""
        return self._objects.has(f"{self._root}/closed/{number:06d}.json")

    def finished(self) -> Mapping[int, Portion]:
        """Return the finished portions, by number."""

        def decode(where: str, content: bytes) -> Portion:
            with records.reading(where):
                return self._made(Portion, where, orjson.loads(content))

        found = self._remembered.below(f"{self._root}/portions", _PORTION, decode)
        return {int(name.removesuffix(".json")): portion for name, portion in found.items()}

    def is_finished(self, number: int) -> bool:
        """Return whether a portion is finished."""
        return self._objects.has(f"{self._root}/portions/{number:06d}.json")

    def finish(self, number: int, portion: Portion, content_keys: pa.Array) -> bool:
        """Finish a portion that has embedded these keys; return whether nobody else had."""
        # The keys first: a record has all that it stands for.
        self._objects.create(f"{self._root}/keys/{number:06d}", keys.words(content_keys).tobytes())
        if not self._put(f"portions/{number:06d}.json", dataclasses.asdict(portion)):
            return False
        self._objects.delete_tree(f"{self._root}/spills/{number:06d}")
        return True

    def void(self, number: int) -> None:
        """Take back that a portion is finished: what its record names is gone."""
        self._objects.delete(f"{self._root}/portions/{number:06d}.json")
        self._objects.delete(f"{self._root}/keys/{number:06d}")

    def keys(self, number: int) -> pa.Array:
        """Return the keys that a finished portion has embedded."""
        content = self._objects.get(f"{self._root}/keys/{number:06d}") or b""
        return pa.FixedSizeBinaryArray.from_buffers(rows.KEY, len(content) // 16, [None, pa.py_buffer(content)])

    def spill(self, number: int, batch: pa.RecordBatch) -> None:
        """Keep finished vectors of a portion, as `rows.vectors`, until it is finished."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self._objects.create(f"{self._root}/spills/{number:06d}/{uuid.uuid4().hex}", sink.getvalue().to_pybytes())

    def spills(self, number: int) -> Iterator[pa.RecordBatch]:
        """Yield what is kept of a portion that is not finished."""
        for name in self._objects.files(f"{self._root}/spills/{number:06d}"):
            content = self._objects.get(f"{self._root}/spills/{number:06d}/{name}")
            if content is not None:
                yield from pa.ipc.open_stream(content)

    def spilled(self) -> list[int]:
        """Return the portions of which vectors are kept."""
        return [int(name) for name in self._objects.folders(f"{self._root}/spills")]

    def fail(self, attempt: int, shard: int, error: PointsmanError) -> None:
        """Say why a shard gave up."""
        value = {"reason": error.reason, "message": error.message, "terminal": isinstance(error, Terminal)}
        self._put(f"failures/{attempt:06d}/{shard:06d}-{uuid.uuid4().hex}.json", value)

    def failures(self, attempt: int) -> Sequence[PointsmanError]:
        """Return why shards of an attempt gave up: first what only an edit can mend."""
        found: list[PointsmanError] = []
        for name in self._objects.files(f"{self._root}/failures/{attempt:06d}"):
            value = self._read(f"failures/{attempt:06d}/{name}")
            if value is not None:
                kind = Terminal if value["terminal"] else Retryable
                found.append(kind(Reason(value["reason"]), str(value["message"])))
        return sorted(found, key=lambda error: not isinstance(error, Terminal))

    def forget(self) -> None:
        """Remove the ledger: how the run is divided last, so that one who is interrupted is sent again."""
        for part in ("offsets", "spills", "keys", "failures", "closed", "attempts", "portions"):
            self._objects.delete_tree(f"{self._root}/{part}")
        self._objects.delete(f"{self._root}/run.json")
        self._objects.delete_tree(self._root)

    def _read(self, name: str) -> dict[str, Any] | None:
        content = self._objects.get(f"{self._root}/{name}")
        if content is None:
            return None
        with records.reading(f"{self._root}/{name}"):
            return dict(orjson.loads(content))

    def _put(self, name: str, value: Mapping[str, Any]) -> bool:
        content = orjson.dumps({"format": records.FORMAT, **value}, option=orjson.OPT_SORT_KEYS)
        return self._objects.create(f"{self._root}/{name}", content)

    def _made(self, kind: type[T], where: str, value: Mapping[str, Any]) -> T:
        records.require_format(value, where)
        known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        with records.reading(where):
            return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in value.items() if name in known})

    def _forgotten(self) -> Retryable:
        return Retryable(Reason.WORK_LOST, "the run was given up meanwhile; wanted it under way, looking again")
