"""Where is a dataset kept? In the operator's own store, or in one that its spec names.

The latter is remembered in the operator's own, since whoever relies on a dataset goes on after the resource is gone.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.api.work import Store as Declared
from pointsman.cluster import credentials
from pointsman.cluster.resources import Resource
from pointsman.cluster.sight import Secrets
from pointsman.core.recipes import Recipe
from pointsman.errors import Retryable, Terminal
from pointsman.plan import observed
from pointsman.plan.tasks import Key
from pointsman.store.root import Store

Opener = Callable[[str, Mapping[str, str]], Store]


@dataclass(frozen=True, slots=True)
class Home:
    """A store of a dataset's own, and how it is opened."""

    uri: str
    options: Mapping[str, str] = field(repr=False)
    store: Store


@dataclass(frozen=True, slots=True)
class Held:
    """What a deployment has to know of what a dataset's store holds."""

    pins: Mapping[str, Recipe]
    snapshots: tuple[observed.Snapshot, ...]
    embedded: Mapping[str, tuple[observed.Embedded, ...]]


class Stores:
    """The stores of datasets, opened anew when their credentials change."""

    def __init__(self, own: Store, opener: Opener, access: Access) -> None:
        self._own, self._opener, self._access = own, opener, access
        self._lock = threading.Lock()
        self._open: dict[Key, tuple[str, Home]] = {}
        self._held: dict[Key, Held] = {}

    def home(self, key: Key, resource: Resource | None, secrets: Secrets) -> Home | None:
        """Return the store of a dataset's own, None where it has none; `resource` is None where it is gone.

        Raises what keeps its Secret from being sent, Terminal(ENDPOINT_NOT_ALLOWED, STORE_UNSAFE), and Retryable.
        """
        declared = self._declared(key, resource)
        if declared is None:
            return None
        with self._lock:
            found = self._open.get(key)
        try:
            options = credentials.of_store(secrets, key.namespace, declared, self._access)
        except Terminal as error:
            is_going = resource is None or bool(resource["metadata"].get("deletionTimestamp"))
            if found is None or not is_going or error.reason not in credentials.UNREADABLE:
                raise
            # With a namespace its Secrets go first.
            return found[1]
        told = "\0".join([declared.uri, *(f"{name}={value}" for name, value in sorted(options.items()))])
        mark = hashlib.blake2b(told.encode()).hexdigest()
        if found is not None and found[0] == mark:
            return found[1]
        self._access.check_store(options)
        home = Home(declared.uri, options, self._opener(declared.uri, options))
        home.store.probe()
        with self._lock:
            self._open[key] = (mark, home)
        return home

    def remember(self, key: Key, resource: Resource) -> None:
        """Write down where a dataset is kept, before anything is."""
        declared = self._declared(key, resource)
        if declared is not None:
            log = self._own.log(*_log(key))
            known, value = log.read(), declared.dump()
            if known is None or known.value != value:
                log.write(value, after=0 if known is None else known.revision)

    def forget(self, key: Key) -> None:
        """Forget where a dataset was kept, once nothing is."""
        if self._own.log(*_log(key)).read() is not None:
            self._own.log(*_log(key)).forget()
        with self._lock:
            self._open.pop(key, None)
            self._held.pop(key, None)

    def saw(self, key: Key, held: Held) -> None:
        """Remember what a store of a dataset's own holds: of the operator's nothing is, as it is away with all else."""
        with self._lock:
            if key in self._open:
                self._held[key] = held

    def seen(self, key: Key) -> Held | None:
        """Return what a store of a dataset's own held when it last answered in this process, if it ever did."""
        with self._lock:
            return self._held.get(key)

    def _declared(self, key: Key, resource: Resource | None) -> Declared | None:
        value: Any
        if resource is not None:
            value = resource["spec"].get("store")
        else:
            known = self._own.log(*_log(key)).read()
            value = None if known is None else known.value
        try:
            return None if value is None else Declared.model_validate(value)
        except ValidationError:
            raise Retryable(Reason.INVALID_SPEC, "spec.store is of another release; install that one") from None


def _log(key: Key) -> tuple[str, ...]:
    return "homes", key.namespace, key.name
