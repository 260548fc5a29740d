"""What a plan can ask for: imperative, frozen, and carrying all that it needs.

The union `Action` is closed: whatever carries actions out, or crashes at them in a test, derives its cases from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pointsman.core.recipes import Recipe
from pointsman.plan.facts import Facts
from pointsman.plan.measured import Streams
from pointsman.plan.tallies import Scores
from pointsman.plan.tasks import Key, Task


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Keep the resource from vanishing before it was cleaned up."""

    owner: Key


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the resource go."""

    owner: Key
    left: str = ""
    """What of ours is left behind, as a clause for people; empty where nothing is, or was meant to be."""


@dataclass(frozen=True, slots=True)
class PinRecipe:
    """Bind a version's name to a recipe, for ever."""

    owner: Key
    version: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class StartWork:
    """Start a task, unless its subject is being worked on."""

    task: Task
    generation: int


@dataclass(frozen=True, slots=True)
class CancelWork:
    """Stop the work on one subject, or all work for a resource."""

    owner: Key
    subject: str = ""


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete a Kubernetes Job that nobody wants any more. What it has finished is on the store's ledger."""

    owner: Key
    name: str


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """Write a deployment's facts, if nobody has written after the revision they were derived from."""

    owner: Key
    facts: Facts
    after: int


@dataclass(frozen=True, slots=True)
class RecordStreams:
    """Write down what live queries have shown, if nobody has written after the revision it was derived from."""

    owner: Key
    streams: Streams
    after: int


@dataclass(frozen=True, slots=True)
class RecordScores:
    """Write down how the best answers score, if nobody has written after the revision it was derived from."""

    owner: Key
    scores: Scores
    after: int


@dataclass(frozen=True, slots=True)
class PublishRoute:
    """Tell direct clients which index serves and which model embeds for it, in one object."""

    owner: Key
    uid: str
    data: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WithdrawRoute:
    """Tell direct clients that nothing serves any more."""

    owner: Key


@dataclass(frozen=True, slots=True)
class PublishAlias:
    """Point the opt-in alias at the serving index."""

    owner: Key
    alias: str
    index: str


@dataclass(frozen=True, slots=True)
class WithdrawAlias:
    """Remove an alias of ours."""

    owner: Key
    alias: str


@dataclass(frozen=True, slots=True)
class DeleteIndex:
    """Remove an index for good. Irreversible."""

    owner: Key
    index: str


@dataclass(frozen=True, slots=True)
class ForgetFacts:
    """Remove a deployment's facts after its last index is gone. Irreversible."""

    owner: Key


@dataclass(frozen=True, slots=True)
class DropStore:
    """Remove a dataset's corpus, vectors, snapshots and pins. Irreversible."""

    owner: Key


Action = (
    AddFinalizer
    | RemoveFinalizer
    | PinRecipe
    | StartWork
    | CancelWork
    | DeleteJob
    | RecordFacts
    | RecordStreams
    | RecordScores
    | PublishRoute
    | WithdrawRoute
    | PublishAlias
    | WithdrawAlias
    | DeleteIndex
    | ForgetFacts
    | DropStore
)

IRREVERSIBLE = (DeleteIndex, ForgetFacts, DropStore)
"""At most one of these is in a plan, and it comes last."""
