"""The protocols behind which sources, models and databases stand.

Each is implemented once in memory or embedded, and once per vendor, and one contract suite runs on all of them.
Implementations raise only the errors of `pointsman.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman.core import filters

Vectors = npt.NDArray[np.float32]
"""An array of shape (n, dimensions), rows of unit length."""


BUILD_SECONDS = 12 * 3600.0
"""The longest that a database is given to build what it searches an index by."""

Finished = Callable[[int, Vectors], None]
"""Takes the position of a part's first text, and the vectors of the part. Any thread may call it."""


def nobody(start: int, vectors: Vectors) -> None:
    """Take a finished part and do nothing: its vectors come again with all others."""


class Source(Protocol):
    """Where documents come from."""

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield all documents once, as batches of `rows.DOCUMENTS`, in bounded memory.

        Raises Terminal(SOURCE_INVALID) with counts and the first positions, never contents, once all rows were looked
        at; Retryable(SOURCE_UNREACHABLE) or Terminal(SOURCE_UNAUTHORIZED) where the source cannot be read. Duplicate
        ids are the caller's to find.
        """
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Which model really answers."""

    name: str
    revision: str
    dimensions: int


class Embedder(Protocol):
    """One model, however it is reached. Prefixes are the caller's to add."""

    def identity(self) -> Identity:
        """Return which model answers; for an endpoint, as its last answer said."""
        ...

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        """Embed texts, in order, as unit vectors of shape (len(texts), dimensions).

        Every part goes to `finished` as soon as it is there, each once, so that nothing is lost of a call that fails
        or is killed later. Raises TextsRefused where the model embeds all texts but some.
        """
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of the texts that a model has answered."""

    tokens: int = 0
    stated: int = 0
    """How many of them the endpoint itself has stated; the others are estimated."""

    def since(self, before: Spent) -> Spent:
        """Return what came after another time."""
        return Spent(self.tokens - before.tokens, self.stated - before.stated)


@runtime_checkable
class Metered(Protocol):
    """What an embedder may be beside: one that is paid by the token."""

    def spent(self) -> Spent:
        """Return what was spent since it was opened."""
        ...


def spent(embedder: Embedder) -> Spent:
    """Return what was spent on an embedder since it was opened; nothing where it has no price."""
    return embedder.spent() if isinstance(embedder, Metered) else Spent()


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose an index is; written into the database beside the index, and read back before anything is done to it."""

    owner: str
    """`<namespace>/<name>` of the deployment."""
    uid: str = field(compare=False)
    """Of the resource that made the index; a resource restored from Git has another one, and the index is still its."""
    version: str
    recipe: str
    space: str
    model: str


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """What an index is made from."""

    name: str
    dimensions: int
    m: int
    ef_construct: int
    marker: Marker


@dataclass(frozen=True, slots=True)
class Hit:
    """One point that a search found. The score is the cosine."""

    point_id: bytes
    document: str
    ordinal: int
    score: float
    text: str
    metadata: Mapping[str, Any]


class Backend(Protocol):
    """One vector database. All calls may be repeated: each is idempotent."""

    def probe(self) -> None:
        """Raise unless the database can be reached and lets us in."""
        ...

    def find(self, name: str) -> Marker | None:
        """Return the marker of an index, or None where there is none of that name.

        Raises Terminal(COLLECTION_FOREIGN) where one exists without a marker of ours.
        """
        ...

    def create(self, spec: IndexSpec) -> None:
        """Make an empty index; nothing where it exists with the same marker, COLLECTION_FOREIGN where it is another's.

        Raises Terminal(BACKEND_UNSUPPORTED) where the database cannot hold such vectors.
        """
        ...

    def load(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Write batches of `rows.points` by the bulk path, indexing deferred; return how many rows were written."""
        ...

    def seal(self, name: str) -> None:
        """Build the index over what was loaded, and return when the database says that it is built.

        The building is the database's own: how much it takes from its queries is set there, not by how we load.
        """
        ...

    def is_built(self, name: str) -> bool:
        """Return whether the database says that the index covers all that was written."""
        ...

    def upsert(self, name: str, batch: pa.RecordBatch) -> None:
        """Write one batch of `rows.points`, acknowledged and visible to what is read next."""
        ...

    def delete(self, name: str, point_ids: Sequence[bytes]) -> None:
        """Delete points, acknowledged and visible to what is read next. Missing ones are no error."""
        ...

    def remove_foreign(self, name: str) -> int:
        """Delete the points whose ids are none of ours, so that `delete` cannot name them; return how many."""
        ...

    def count(self, name: str) -> int:
        """Return how many points the index holds, exactly."""
        ...

    def scan(self, name: str) -> Iterator[pa.RecordBatch]:
        """Yield every point once, as batches of `rows.SCANNED`, in bounded memory and no particular order."""
        ...

    def differing(self, name: str, batch: pa.RecordBatch) -> list[bytes]:
        """Return those ids of a batch of `rows.points` that the index lacks or holds with another payload or vector.

        All that a point is written with is compared, terms and extremes too. What else somebody keeps beside it is
        passed over.
        """
        ...

    def fetch(self, name: str, point_ids: Sequence[bytes]) -> tuple[list[bytes], Vectors]:
        """Return the points found among the asked ones, and their vectors in the same order, scaled to unit length."""
        ...

    def search(self, name: str, vector: npt.NDArray[np.float32], limit: int, where: filters.Filter | None) -> list[Hit]:
        """Return the `limit` nearest points that pass the filter, best first; all of them where fewer pass."""
        ...

    def publish(self, alias: str, name: str) -> None:
        """Point an alias at an index, atomically where the database can."""
        ...

    def unpublish(self, alias: str, owner: str) -> None:
        """Remove an alias of a deployment. A missing one is no error; COLLECTION_FOREIGN where it is another's."""
        ...

    def drop(self, name: str) -> None:
        """Remove an index of ours. A missing one is no error; COLLECTION_FOREIGN where it is not ours."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class Sent(Protocol):
    """A search that was sent and is not answered yet. Used by one thread, which waits for many."""

    def fileno(self) -> int:
        """Return what becomes readable when more of the answer has come; only until `answer` or `give_up`."""
        ...

    def answer(self) -> list[Hit] | None:
        """Read what has come, without waiting; return what was found once that is whole, None before.

        Fewer than the limit say nothing: `search` may find more.
        """
        ...

    def give_up(self) -> None:
        """Wait for no answer any more."""
        ...


@runtime_checkable
class Sends(Protocol):
    """What a backend may be beside: one that is sent searches by a thread that does not wait for their answers."""

    def send_search(
        self, name: str, vector: npt.NDArray[np.float32], limit: int, where: filters.Filter | None
    ) -> Sent | None:
        """Send what `search` would, at once; None, and nothing was sent, where that cannot be. Ask `search` then."""
        ...
