"""All that the loop acts through, built once and passed down."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pointsman.access import Access
from pointsman.api import engines
from pointsman.api.conditions import Reason
from pointsman.cluster import credentials
from pointsman.cluster.batch import Batch
from pointsman.cluster.memory_batch import MemoryBatch
from pointsman.cluster.resources import DATASET, Cluster, Resource
from pointsman.controller.gateways import Gateways, Nobody
from pointsman.controller.metrics import Metrics
from pointsman.controller.stores import Home, Stores
from pointsman.controller.stores import Opener as StoreOpener
from pointsman.errors import Retryable, Terminal
from pointsman.plan.tasks import Key
from pointsman.ports import Backend
from pointsman.store.dataset import DatasetStore
from pointsman.store.root import Store
from pointsman.work.fence import Fence, Unfenced
from pointsman.work.jobs import Credentials
from pointsman.work.runners import Runner

Opener = Callable[[engines.Backend, Credentials, Access], Backend]


FIRST_REST, LAST_REST = 5.0, 120.0
"""Seconds for which a database that does not answer is left alone."""
COUNTED_ANEW = 10.0
"""Seconds for which the count of an index that is whole is believed: a deployment may be looked at every second."""


@dataclass(frozen=True, slots=True)
class _Outage:
    """A database that did not answer."""

    backend: Backend
    error: Retryable
    attempts: int
    until: float


class Databases:
    """Connections to databases, one for each deployment, opened anew when its address or credentials change."""

    def __init__(self, opener: Opener, access: Access, clock: Callable[[], float] = time.monotonic) -> None:
        self._opener, self._access, self._clock = opener, access, clock
        self._lock = threading.Lock()
        self._open: dict[Key, tuple[str, Backend]] = {}
        self._outages: dict[Key, _Outage] = {}
        self._counts: dict[tuple[Key, str], tuple[Backend, int, float]] = {}

    def get(self, owner: Key, spec: engines.Backend, credentials: Credentials) -> Backend:
        """Return the connection of a deployment."""
        told = "\0".join([spec.model_dump_json(), *(f"{k}={v}" for k, v in sorted(credentials.items()))])
        fingerprint = hashlib.blake2b(told.encode()).hexdigest()
        with self._lock:
            found = self._open.get(owner)
        if found is not None and found[0] == fingerprint:
            return found[1]
        backend = self._opener(spec, credentials, self._access)
        with self._lock:
            self._open[owner] = (fingerprint, backend)
        if found is not None:
            found[1].close()
        return backend

    def opened(self, owner: Key) -> Backend | None:
        """Return the connection of a deployment as it was last opened, or None."""
        with self._lock:
            found = self._open.get(owner)
        return None if found is None else found[1]

    def probe(self, owner: Key, backend: Backend) -> None:
        """Raise unless the database of a deployment answers.

        Waiting for one that does not holds a thread of the loop, which others need: for a while nobody asks it again,
        unless its address or credentials are edited.
        """
        with self._lock:
            outage = self._outages.get(owner)
        attempts = outage.attempts if outage is not None and outage.backend is backend else 0
        if outage is not None and attempts and self._clock() < outage.until:
            raise Retryable(outage.error.reason, outage.error.message)
        try:
            backend.probe()
        except Retryable as error:
            until = self._clock() + min(LAST_REST, FIRST_REST * 2 ** min(attempts, 10))
            with self._lock:
                self._outages[owner] = _Outage(backend, error, attempts + 1, until)
            raise
        with self._lock:
            self._outages.pop(owner, None)

    def count(self, owner: Key, backend: Backend, index: str, expected: int) -> int:
        """Return how many rows an index holds; a count of the last seconds will do where it is the expected one."""
        with self._lock:
            before = self._counts.get((owner, index))
        if before is not None and before[:2] == (backend, expected) and self._clock() - before[2] < COUNTED_ANEW:
            return expected
        rows = backend.count(index)
        with self._lock:
            self._counts[owner, index] = (backend, rows, self._clock())
        return rows

    def forget(self, owner: Key) -> None:
        """Give the connection of a deployment back, if it has one."""
        with self._lock:
            found = self._open.pop(owner, None)
            self._outages.pop(owner, None)
            for counted in [counted for counted in self._counts if counted[0] == owner]:
                del self._counts[counted]
        if found is not None:
            found[1].close()

    def close(self) -> None:
        """Give all connections back."""
        with self._lock:
            backends = [backend for _, backend in self._open.values()]
            self._open.clear()
        for backend in backends:
            backend.close()


@dataclass(frozen=True, slots=True)
class World:
    """The cluster, the store, the workers and the databases."""

    cluster: Cluster
    store: Store
    store_uri: str
    store_options: Credentials = field(repr=False)
    runner: Runner
    databases: Databases
    access: Access
    wake: Callable[[Key], None]
    """Has another resource looked at soon."""
    deadline: timedelta = timedelta(minutes=10)
    """How long a finalizer may wait for what does not answer."""
    started: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    """When this operator began: while none was there, no finalizer has waited for anything."""
    fence: Fence = field(default_factory=Unfenced)
    """Stands before every effect: an operator that another has replaced must have none."""
    holder: str = ""
    """Who this operator is, in the Lease and in every status."""
    epoch: int = 0
    """Grows with every operator that takes the Lease: what carries a smaller one is older."""
    taken_over: datetime | None = None
    """When the Lease was last taken from one that had not given it back, by this operator or one before it. What that
    one's workers had sent to a database may have arrived since. None where it never was."""

    stores: Stores = field(init=False)
    """Those that datasets have of their own."""
    batch: Batch = field(default_factory=MemoryBatch)
    """The Jobs of the cluster."""
    open_store: StoreOpener = Store
    gateways: Gateways | Nobody = field(default_factory=Nobody)
    """What serves the routes."""
    metrics: Metrics = field(default_factory=Metrics)
    """Is told what was seen, done and said."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stores", Stores(self.store, self.open_store, self.access))

    def home(self, namespace: str, name: str, resource: Resource | None) -> Home | None:
        """Return the store of a dataset's own, None where it has none; `resource` is None where it is gone."""
        return self.stores.home(Key(DATASET, namespace, name), resource, self.cluster)

    def dataset(self, namespace: str, name: str, resource: Resource | None) -> DatasetStore:
        """Return what is stored of a dataset, wherever that is."""
        found = self.home(namespace, name, resource)
        return (self.store if found is None else found.store).dataset(namespace, name)

    def database(self, owner: Key, spec: engines.Backend, is_deleting: bool) -> Backend:
        """Return the database of a deployment.

        While the deployment is deleted, the connection that is open will do: with a namespace its Secrets go first.
        """
        try:
            secrets = credentials.of_backend(self.cluster, owner.namespace, spec, self.access)
        except Terminal as error:
            opened = self.databases.opened(owner)
            if opened is None or not is_deleting or error.reason is not Reason.SECRET_NOT_FOUND:
                raise
            return opened
        return self.databases.get(owner, spec, secrets)
