"""Work that is worth asking for, as values: what the planner names and a runner carries out.

A task says what, never how: addresses, credentials and specs are put beside it where it is started. Two tasks of one
subject never run at once, and a planner that sees work on one part of a dataset starts none on another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pointsman.api.conditions import Reason


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which resource: its kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Refresh:
    """Read the source of a dataset and publish a snapshot if its content has changed."""

    owner: Key
    token: str
    """What asked for it; a new token is a new request."""

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"source of {self.owner}"


@dataclass(frozen=True, slots=True)
class Embed:
    """Chunk and embed one snapshot of a dataset under one version's recipe."""

    owner: Key
    version: str
    recipe: str
    snapshot: int

    @property
    def subject(self) -> str:
        """What it is done to: the version alone, so that its back-off is not forgotten when another one is tried."""
        return f"version {self.version} of {self.owner}"


@dataclass(frozen=True, slots=True)
class Clean:
    """Remove the snapshots and recipes of a dataset that nothing refers to any more."""

    owner: Key
    keep: tuple[int, ...]
    recipes: tuple[str, ...]

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"store of {self.owner}"


@dataclass(frozen=True, slots=True)
class ReadQueries:
    """Read a query set and write down what is in it, in numbers."""

    owner: Key
    source: str
    """A digest of what the spec reads."""

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"queries of {self.owner}"


@dataclass(frozen=True, slots=True)
class Build:
    """Make an index hold one embedded snapshot, whatever it holds now, and verify it by a full scan."""

    owner: Key
    dataset: str
    index: str
    version: str
    recipe: str
    snapshot: int

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"index {self.index}"


@dataclass(frozen=True, slots=True)
class Follow:
    """Move a verified index from its cursor to another embedded snapshot by the difference of the two."""

    owner: Key
    dataset: str
    index: str
    version: str
    recipe: str
    snapshot: int

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"index {self.index}"


@dataclass(frozen=True, slots=True)
class Check:
    """Compare an index with its snapshot by a full scan and a sample of vectors, and write down what differs."""

    owner: Key
    dataset: str
    index: str
    version: str
    recipe: str
    snapshot: int

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"index {self.index}"


@dataclass(frozen=True, slots=True)
class Repair:
    """Make an index equal its snapshot again, vectors included, and verify it by a full scan."""

    owner: Key
    dataset: str
    index: str
    version: str
    recipe: str
    snapshot: int

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"index {self.index}"


@dataclass(frozen=True, slots=True)
class Side:
    """One index that answers queries, with the model that embeds them for it."""

    index: str
    version: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Ask an index, and where there is one another beside it, all judged queries, and write down how well it answers.

    Both are at one snapshot. Nothing is written where that is no longer so once all queries were asked.
    """

    owner: Key
    dataset: str
    gate: str
    """Which gate asks: `evaluation`, or `stable` for what is retained."""
    query_set: str
    metric: str
    candidate: Side
    serving: Side | None
    snapshot: int
    token: str = ""
    """What a person asked for last; it is written down beside the numbers."""
    queries: str = field(default="", compare=False)
    """What the query set reads and holds, as a digest: what one could not be asked of, its next may."""

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"{self.gate} of {self.owner}"


@dataclass(frozen=True, slots=True)
class AskCanaries:
    """Ask an index, and where there is one another beside it, the canary queries, and write down what it finds."""

    owner: Key
    dataset: str
    query_set: str
    k: int
    candidate: Side
    serving: Side | None
    snapshot: int
    queries: str = field(default="", compare=False)
    """As of an evaluation."""

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"canaries of {self.owner}"


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask an index a few fixed questions, by its own model, and write down whether both answer as they should."""

    owner: Key
    dataset: str
    side: Side

    @property
    def subject(self) -> str:
        """What it is done to."""
        return f"probe of {self.side.index}"


IndexTask = Build | Follow | Check | Repair
AnswersTask = Evaluate | AskCanaries
DatasetTask = Refresh | Embed | Clean
Task = DatasetTask | IndexTask | AnswersTask | ReadQueries | Probe

TASKS: Mapping[str, type[Task]] = {
    kind.__name__: kind
    for kind in (Refresh, Embed, Clean, ReadQueries, Build, Follow, Check, Repair, Evaluate, AskCanaries, Probe)
}
"""Every kind of task by its name."""


class Phase(StrEnum):
    """How a piece of work stands."""

    RUNNING = "Running"
    FAILED = "Failed"
    DONE = "Done"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a piece of work failed, and when to try again."""

    reason: Reason
    message: str
    is_terminal: bool
    attempts: int
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Wait:
    """What a piece of work that is under way waits for, as a clause that names the deadline and the exit."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Work:
    """One piece of work as it stands. Lost with the operator's process, and then simply asked for again."""

    task: Task
    generation: int
    """The generation of the spec, or of the specs together, that it was started under."""
    phase: Phase
    done: int = 0
    total: int = 0
    rate: float = 0.0
    """Units a second."""
    failure: Failure | None = None
    """How it failed; while it runs, how the attempt before did, so that nothing is said to be well until it is."""
    finished_at: datetime | None = None
    wait: Wait | None = None
    """What it waits for; None while it moves."""
