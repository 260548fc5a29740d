"""Through what is the cluster looked at? By asking it, or by what was heard of it last.

A look that is to be acted on asks. One that is to find out whether there is anything to do need not.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pointsman.cluster.resources import Cluster, Resource, Secret
from pointsman.plan.tasks import Key

BELIEVED: Final = 10.0
"""Seconds for which a Secret that was read need not be read again to find out that there is nothing to do."""


class Sight(Protocol):
    """Our resources, as they are seen."""

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """Return a resource, or None where none is seen."""
        ...

    def naming(self, kind: str, named: Key) -> Sequence[Resource]:
        """Return the resources of a kind that name another: deployments a dataset, Approvals a deployment."""
        ...


class Secrets(Protocol):
    """Where Secrets are read."""

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret by name, or None."""
        ...


class Direct:
    """Asks the cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """Return a resource as it is now, or None."""
        return self._cluster.get(kind, namespace, name)

    def naming(self, kind: str, named: Key) -> Sequence[Resource]:
        """Return the resources of a kind that name another now."""
        return self._cluster.naming(kind, named)


class FreshSecrets:
    """Reads every Secret anew, and remembers for a glance what was read."""

    def __init__(self, secrets: Secrets, clock: Callable[[], float] = time.monotonic) -> None:
        self._secrets, self._clock = secrets, clock
        self._lock = threading.Lock()
        self._read: OrderedDict[tuple[str, str], tuple[float, Secret]] = OrderedDict()

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret as it is now, or None."""
        found = self._secrets.secret(namespace, name)
        with self._lock:
            self._read.pop((namespace, name), None)
            if found is not None:
                self._read[namespace, name] = (self._clock(), found)
        return found

    def remembered(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret that was read in the last seconds, or None."""
        with self._lock:
            # The oldest come first, and nothing is kept for longer than it is believed.
            while self._read and self._clock() - next(iter(self._read.values()))[0] >= BELIEVED:
                self._read.popitem(last=False)
            found = self._read.get((namespace, name))
        return None if found is None else found[1]


class RememberedSecrets:
    """Secrets as they were read in the last seconds: thousands of deployments may share one."""

    def __init__(self, fresh: FreshSecrets) -> None:
        self._fresh = fresh

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret by name, or None. That there is none is never remembered."""
        return self._fresh.remembered(namespace, name) or self._fresh.secret(namespace, name)
