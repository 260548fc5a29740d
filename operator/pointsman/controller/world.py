"""All that the loop acts through, built once and passed down."""

from __future__ import annotations

import copy
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pointsman.access import Access
from pointsman.api import engines
from pointsman.cluster import credentials
from pointsman.cluster.batch import Batch
from pointsman.cluster.memory_batch import MemoryBatch
from pointsman.cluster.mirror import Mirror
from pointsman.cluster.resources import DATASET, Cluster, Resource
from pointsman.cluster.sight import Direct, FreshSecrets, RememberedSecrets, Secrets, Sight
from pointsman.controller.gateways import Gateways, Nobody
from pointsman.controller.metrics import Metrics
from pointsman.controller.stores import Home, Stores
from pointsman.controller.stores import Opener as StoreOpener
from pointsman.errors import Retryable, Terminal
from pointsman.plan.tasks import Key
from pointsman.ports import Backend
from pointsman.store.dataset import DatasetStore
from pointsman.store.log import Shelf
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


@dataclass(slots=True)
class _Open:
    """A connection, and who uses it."""

    backend: Backend
    owners: set[Key] = field(default_factory=set)


class Databases:
    """Connections to databases, opened anew when an address or credentials change.

    Deployments of one address and the same credentials share one: of thousands, each with connections of its own, a
    server would let in a hundred. What is known of a database that does not answer is known to all of them.
    """

    def __init__(self, opener: Opener, access: Access, clock: Callable[[], float] = time.monotonic) -> None:
        self._opener, self._access, self._clock = opener, access, clock
        self._lock = threading.Lock()
        self._fingerprints: dict[Key, str] = {}
        self._open: dict[str, _Open] = {}
        self._outages: dict[str, _Outage] = {}
        self._counts: dict[tuple[Key, str], tuple[Backend, int, float]] = {}

    def get(self, owner: Key, spec: engines.Backend, credentials: Credentials) -> Backend:
        """Return the connection of a deployment."""
        told = "\0".join([spec.model_dump_json(), *(f"{k}={v}" for k, v in sorted(credentials.items()))])
        fingerprint = hashlib.blake2b(told.encode()).hexdigest()
        with self._lock:
            found = self._open.get(fingerprint)
            if found is not None and self._fingerprints.get(owner) == fingerprint:
                return found.backend
        made = None if found is not None else self._opener(spec, credentials, self._access)
        with self._lock:
            # Another thread may have opened it, or have given it back, in the meantime.
            there = self._open.get(fingerprint)
            if there is None and made is not None:
                there = self._open[fingerprint] = _Open(made)
            if there is not None:
                left = self._leave(owner)
                self._fingerprints[owner] = fingerprint
                there.owners.add(owner)
        if there is None:
            return self.get(owner, spec, credentials)
        for backend in (left, made):
            if backend is not None and backend is not there.backend:
                backend.close()
        return there.backend

    def opened(self, owner: Key) -> Backend | None:
        """Return the connection of a deployment as it was last opened, or None."""
        with self._lock:
            found = self._open.get(self._fingerprints.get(owner, ""))
        return None if found is None else found.backend

    def probe(self, owner: Key, backend: Backend) -> None:
        """Raise unless the database of a deployment answers.

        Waiting for one that does not holds a thread of the loop, which others need: for a while nobody asks it again,
        unless its address or credentials are edited.
        """
        with self._lock:
            which = self._fingerprints.get(owner, "")
            outage = self._outages.get(which)
        attempts = outage.attempts if outage is not None and outage.backend is backend else 0
        if outage is not None and attempts and self._clock() < outage.until:
            raise Retryable(outage.error.reason, outage.error.message)
        try:
            backend.probe()
        except Retryable as error:
            until = self._clock() + min(LAST_REST, FIRST_REST * 2 ** min(attempts, 10))
            with self._lock:
                self._outages[which] = _Outage(backend, error, attempts + 1, until)
            raise
        with self._lock:
            self._outages.pop(which, None)

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
            left = self._leave(owner)
            for counted in [counted for counted in self._counts if counted[0] == owner]:
                del self._counts[counted]
        if left is not None:
            left.close()

    def close(self) -> None:
        """Give all connections back."""
        with self._lock:
            backends = [found.backend for found in self._open.values()]
            self._open.clear()
            self._fingerprints.clear()
        for backend in backends:
            backend.close()

    def _leave(self, owner: Key) -> Backend | None:
        """Take a deployment off its connection; return that one where nobody else uses it, to be closed."""
        which = self._fingerprints.pop(owner, "")
        found = self._open.get(which)
        if found is None:
            return None
        found.owners.discard(owner)
        if found.owners:
            return None
        del self._open[which]
        self._outages.pop(which, None)
        return found.backend


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
    mirror: Mirror | None = None
    """What was heard of our resources, where anybody listens."""

    sight: Sight = field(init=False)
    """Through what our resources are seen. Whatever is done to them is done to the cluster."""
    secrets: Secrets = field(init=False)
    """Where Secrets are read."""
    remembered: Secrets = field(init=False)
    """The same as they were read in the last seconds."""

    shelves: dict[tuple[str, ...], Shelf] | None = field(init=False, default=None)
    """Records of one moment, by whom they are of; None where each is read when it is wanted."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stores", Stores(self.store, self.open_store, self.access))
        object.__setattr__(self, "sight", Direct(self.cluster))
        fresh = FreshSecrets(self.cluster)
        object.__setattr__(self, "secrets", fresh)
        object.__setattr__(self, "remembered", RememberedSecrets(fresh))

    def at_a_glance(self) -> World | None:
        """Return the same as it was heard of last, to find out whether there is anything to do; never to act through.

        None while not everything was heard of.
        """
        if self.mirror is None or not self.mirror.is_whole:
            return None
        found = copy.copy(self)
        object.__setattr__(found, "sight", self.mirror)
        object.__setattr__(found, "secrets", self.remembered)
        object.__setattr__(found, "shelves", {})
        return found

    def home(self, namespace: str, name: str, resource: Resource | None) -> Home | None:
        """Return the store of a dataset's own, None where it has none; `resource` is None where it is gone."""
        return self.stores.home(Key(DATASET, namespace, name), resource, self.secrets)

    def dataset(self, namespace: str, name: str, resource: Resource | None) -> DatasetStore:
        """Return what is stored of a dataset, wherever that is."""
        found = self.home(namespace, name, resource)
        return (self.store if found is None else found.store).dataset(namespace, name)

    def database(self, owner: Key, spec: engines.Backend, is_deleting: bool) -> Backend:
        """Return the database of a deployment.

        While the deployment is deleted, the connection that is open will do: with a namespace its Secrets go first.
        """
        try:
            secrets = credentials.of_backend(self.secrets, owner.namespace, spec, self.access)
        except Terminal as error:
            opened = self.databases.opened(owner)
            if opened is None or not is_deleting or error.reason not in credentials.UNREADABLE:
                raise
            return opened
        return self.databases.get(owner, spec, secrets)
