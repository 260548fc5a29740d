"""An index and the model that embeds for it, open, as one object that is never taken apart.

Whether the two belong together is checked when they are opened, and again for each answer: an index says by its marker,
in its own database, which space its vectors live in.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import numpy as np

from pointsman import ports
from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api import engines
from pointsman.api.conditions import Reason
from pointsman.backends import documents, registry
from pointsman.cluster import credentials
from pointsman.cluster.resources import Cluster
from pointsman.core import digests, filters
from pointsman.core.recipes import Space
from pointsman.errors import PointsmanError, Retryable, Terminal, TextsRefused, unforeseen
from pointsman.gateway import models, tracing
from pointsman.gateway.arrivals import Arrivals
from pointsman.gateway.models import QueryModel, Side, Vector
from pointsman.gateway.shared import Lent, Shared
from pointsman.gateway.threads import Threads

MOST_ORDINALS: Final = 16
"""Chunks of a document that stand for it in a search for what is like it."""
SHORT: Final = 100
"""Hits that the event loop reads by itself, while all others wait; a fraction of a millisecond."""
CUT_OFF: Final = 0.5
"""Seconds within which a call on a connection that is gone fails."""
T = TypeVar("T")
_UNAUTHORIZED: Final = {Reason.BACKEND_UNAUTHORIZED, Reason.MODEL_UNAUTHORIZED}


@dataclass(frozen=True, slots=True)
class Pairing:
    """What an index and its model are opened from: the same pairing is the same open object."""

    namespace: str
    owner: str
    """`<namespace>/<name>` of the deployment, as the index's marker has it."""
    index: str
    version: str
    space: Space
    backend: engines.Backend
    model: dataset_api.ModelChoice
    endpoint: dataset_api.Endpoint | None


class OpenBackend(Protocol):
    """Opens a database: `backends.registry.open_backend`, or another in tests."""

    def __call__(
        self, spec: engines.Backend, credentials: Mapping[str, str], allowed: Access, *, calls: registry.Calls
    ) -> ports.Backend:
        """Open it; nothing is sent yet."""
        ...


OpenEmbedder = Callable[
    [Space, dataset_api.Endpoint | None, str | None, Access, dataset_api.ModelChoice], ports.Embedder
]


class Database:
    """One open database and the threads that call it: one that hangs takes nobody else's.

    What can be sent without waiting needs no thread: the event loop sees when the answer comes.
    """

    def __init__(self, backend: ports.Backend, at_once: int, arrivals: Arrivals | None = None) -> None:
        """So many calls may be under way, whoever waits for them; without arrivals all of them wait in threads."""
        self.backend = backend
        self._threads = Threads(at_once, "search")
        self._turns = asyncio.Semaphore(at_once)
        self.aside = asyncio.Semaphore(max(1, at_once // 2))
        """Half of the calls, for whoever searches beside the queries that people wait for."""
        self._sends = backend if arrivals is not None and isinstance(backend, ports.Sends) else None
        self._arrivals = arrivals

    async def call(self, work: Callable[[], T]) -> T:
        """Ask in a thread, and once more where that failed at once for want of a connection.

        A database that was started anew has ended all that were open, and whoever asks next need not pay for it.
        """
        began = time.monotonic()
        try:
            return await self._once(work)
        except Retryable as error:
            if not _is_cut_off(error, began):
                raise
        return await self._once(work)

    async def search(self, name: str, vector: Vector, limit: int, where: filters.Filter | None) -> list[ports.Hit]:
        """Return the nearest chunks."""
        if self._sends is not None and self._arrivals is not None and limit <= SHORT:
            began = time.monotonic()
            try:
                async with self._turns:
                    sent = self._sends.send_search(name, vector, limit, where)
                    found = None if sent is None else await self._arrivals.answer(sent)
            except Retryable as error:
                if not _is_cut_off(error, began):
                    raise
                found = None
            if found is not None and len(found) == limit:
                return found
        return await self.call(lambda: self.backend.search(name, vector, limit, where))

    async def _once(self, work: Callable[[], T]) -> T:
        async with self._turns:
            return await self._threads.call(work)

    def close(self) -> None:
        """Close it after the calls under way."""
        self._threads.close()
        self.backend.close()


def _is_cut_off(error: Retryable, began: float) -> bool:
    """Return whether a call failed as one does whose connection is gone, and not one that was waited for."""
    return error.reason is Reason.BACKEND_UNREACHABLE and time.monotonic() - began < CUT_OFF


@dataclass(slots=True)
class Doors:
    """How databases and models are opened, and what of them is open. For one event loop."""

    cluster: Cluster
    access: Access
    open_backend: OpenBackend
    open_embedder: OpenEmbedder
    executor: Executor
    """For opening and closing."""
    threads: int
    """For the calls of each database."""
    call_seconds: float
    kept: int
    """Vectors that each model remembers."""
    arrivals: Arrivals | None = None
    """Where the event loop waits for answers by itself; None where databases are called in threads alone."""
    databases: Shared[tuple[str, engines.Backend], Database] = field(init=False)
    models: Shared[tuple[str, Space, dataset_api.Endpoint | None, dataset_api.ModelChoice], QueryModel] = field(
        init=False
    )

    def __post_init__(self) -> None:
        self.databases, self.models = Shared(self.executor), Shared(self.executor)

    def database(self, namespace: str, spec: engines.Backend) -> Database:
        """Open a database with the credentials that its spec names. Blocks."""
        found = credentials.of_backend(self.cluster, namespace, spec, self.access)
        calls = registry.Calls(self.call_seconds, self.threads, is_interactive=True)
        return Database(self.open_backend(spec, found, self.access, calls=calls), self.threads, self.arrivals)

    def model(self, pairing: Pairing) -> QueryModel:
        """Open a model with the key that its endpoint names. Blocks."""
        key = credentials.of_endpoint(self.cluster, pairing.namespace, pairing.endpoint, self.access)
        embedder = self.open_embedder(pairing.space, pairing.endpoint, key, self.access, pairing.model)
        return QueryModel(pairing.space, embedder, self.kept)


class Serving:
    """One index that can be searched by texts, and how it fared last."""

    def __init__(self, pairing: Pairing, database: Database, model: QueryModel, marker: ports.Marker) -> None:
        self.pairing, self.database, self.model, self.marker = pairing, database, model, marker
        self.database_error: PointsmanError | None = None
        """What its database said last; None after an answer."""
        self.model_error: PointsmanError | None = None
        """What its model said last; None after an answer."""
        self.refused = asyncio.Event()
        """Set once credentials were refused: their Secret may hold others by now."""

    @property
    def index(self) -> str:
        """The collection or table."""
        return self.pairing.index

    def is_paired(self, space: str) -> bool:
        """Return whether vectors of a space may be compared with those of the index."""
        return space == self.marker.space

    async def embed(self, texts: list[str], side: Side) -> list[Vector]:
        """Embed texts by the model of this index; remembers how that went."""
        try:
            found = await self.model.embed(texts, side)
        except TextsRefused:
            # That is about the texts, and an answer of the model.
            self.model_error = None
            raise
        except PointsmanError as error:
            self.model_error = error
            self._note(error)
            raise
        self.model_error = None
        return found

    async def search(
        self, vector: Vector, limit: int, where: filters.Filter | None, of_documents: bool
    ) -> list[ports.Hit]:
        """Return the nearest chunks, or the best chunk of each of the nearest documents; remembers how that went."""
        database, name = self.database, self.index
        with tracing.step(tracing.Step.SEARCH, name, is_call=True) as span:
            tracing.asked(span, self.pairing.backend, tracing.Step.SEARCH, name)
            if of_documents:
                call = functools.partial(documents.top_documents, database.backend, name, vector, limit, where)
                found = await self._noted(database.call(call))
            else:
                found = await self._noted(database.search(name, vector, limit, where))
            if span is not None:
                span.tell({tracing.Told.TOP_K: limit, tracing.Told.HITS: len(found)})
        return found

    async def vector_of(self, document: str) -> Vector | None:
        """Return the mean direction of a document's first chunks, of unit length; None where it has none."""
        ids = [digests.point_id(document, ordinal) for ordinal in range(MOST_ORDINALS)]
        fetch = functools.partial(self.database.backend.fetch, self.index, ids)
        with tracing.step(tracing.Step.FETCH, self.index, is_call=True) as span:
            tracing.asked(span, self.pairing.backend, tracing.Step.FETCH, self.index)
            _, vectors = await self._noted(self.database.call(fetch))
        mean = vectors.sum(axis=0, dtype=np.float64) if len(vectors) else np.zeros(1)
        length = float(np.linalg.norm(mean))
        return np.asarray(mean / length, np.float32) if length else None

    async def look(self) -> None:
        """Read the marker again, and ask a model again that failed; remembers what is wrong, and raises nothing of it.

        Without queries nobody else would find out that the model is well again.
        """
        if self.model_error is not None:
            try:
                await self.model.probe()
                self.model_error = None
            except PointsmanError as error:
                self.model_error = error
                self._note(error)
        try:
            find = functools.partial(self.database.backend.find, self.index)
            marker = await self._noted(self.database.call(find))
            if marker is None:
                raise _lost(self.index)
        except PointsmanError as error:
            self.database_error = error
            return
        # From now on each answer is checked against it.
        self.marker = marker

    def problem(self) -> str:
        """Return what keeps it from answering, as a clause; empty where nothing does."""
        if not self.is_paired(self.model.key):
            return f"{self.index} holds vectors of space {self.marker.space}, its model makes those of {self.model.key}"
        error = self.database_error or self.model_error
        return "" if error is None else f"{self.index}: {error.message}"

    def _note(self, error: PointsmanError) -> None:
        if error.reason in _UNAUTHORIZED:
            self.refused.set()

    async def _noted(self, call: Awaitable[T]) -> T:
        try:
            found = await call
        except PointsmanError as error:
            self.database_error = error
            self._note(error)
            raise
        except Exception as error:
            self.database_error = unforeseen(error)
            raise self.database_error from error
        self.database_error = None
        return found


class Opened:
    """A pairing that is open, until it was closed and nobody uses it any more."""

    def __init__(self, doors: Doors, serving: Serving, database: Lent[Database], model: Lent[QueryModel]) -> None:
        self.serving = serving
        self._doors, self._database, self._model = doors, database, model
        self._users = 1

    def enter(self) -> None:
        """Keep it open until `close`: whoever began with it ends with it, though it is opened anew meanwhile."""
        self._users += 1

    def forget(self) -> None:
        """Have the next one open database and model anew, with the credentials of then."""
        database, model = _keys(self.serving.pairing)
        self._doors.databases.forget(database, self._database)
        self._doors.models.forget(model, self._model)

    def close(self) -> None:
        """Say that one user is done; give database and model back after the last."""
        self._users -= 1
        if self._users:
            return
        database, model = _keys(self.serving.pairing)
        self._doors.databases.give_back(database, self._database)
        self._doors.models.give_back(model, self._model)


async def opened(pairing: Pairing, doors: Doors) -> Opened:
    """Open an index and its model, and see that the one is there and the other answers.

    Raises PointsmanError; Terminal(COLLECTION_FOREIGN) where the index is another's or of another space.
    """
    database_key, model_key = _keys(pairing)
    database = await doors.databases.borrow(database_key, lambda: doors.database(pairing.namespace, pairing.backend))
    try:
        backend = database.thing.backend
        marker = await database.thing.call(lambda: backend.find(pairing.index))
        _check(pairing, marker)
        assert marker is not None, "checked above"
        model = await doors.models.borrow(model_key, lambda: doors.model(pairing))
        try:
            await model.thing.embed([models.PROBE], Side.QUERY)
        except BaseException:
            # A key that was refused is not asked with again.
            doors.models.forget(model_key, model)
            doors.models.give_back(model_key, model)
            raise
    except BaseException as error:
        if database.users == 1 or (isinstance(error, PointsmanError) and error.reason in _UNAUTHORIZED):
            doors.databases.forget(database_key, database)
        doors.databases.give_back(database_key, database)
        raise
    return Opened(doors, Serving(pairing, database.thing, model.thing, marker), database, model)


def _check(pairing: Pairing, marker: ports.Marker | None) -> None:
    if marker is None:
        raise _lost(pairing.index)
    if marker.owner != pairing.owner:
        raise Terminal(
            Reason.COLLECTION_FOREIGN, f"{pairing.index} belongs to another deployment; it is not served here"
        )
    if marker.space != pairing.space.key:
        raise Terminal(
            Reason.COLLECTION_FOREIGN,
            f"{pairing.index} holds vectors of space {marker.space}, the route says {pairing.space.key}; "
            "it is not served",
        )


def _lost(index: str) -> Terminal:
    return Terminal(Reason.INDEX_LOST, f"{index} is not in the database")


def _keys(
    pairing: Pairing,
) -> tuple[tuple[str, engines.Backend], tuple[str, Space, dataset_api.Endpoint | None, dataset_api.ModelChoice]]:
    return (
        (pairing.namespace, pairing.backend),
        (pairing.namespace, pairing.space, pairing.endpoint, pairing.model),
    )
