"""A Kubernetes API in memory: what the crash tests and a newcomer's first experiments run on."""

from __future__ import annotations

import copy
import dataclasses
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pointsman.cluster.resources import All, Caller, Changed, Gone, Lease, Resource, Secret, Seen, foreign, names
from pointsman.errors import Conflict
from pointsman.plan.tasks import Key


class MemoryCluster:
    """A cluster in memory: generations, resource versions, status as a subresource, finalizers and owners."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._watchers: list[list[Changed | Gone]] = []
        self._version = 0
        self._resources: dict[Key, Resource] = {}
        self._config_maps: dict[tuple[str, str], dict[str, str]] = {}
        self._foreign_maps: set[tuple[str, str]] = set()
        self._owners: dict[tuple[str, str], Key] = {}
        self._secrets: dict[tuple[str, str], Secret] = {}
        self._callers: dict[str, tuple[Caller, str]] = {}
        self._searchers: set[tuple[str, str]] = set()
        self._leases: dict[tuple[str, str], Lease] = {}
        self.events: list[tuple[Key, bool, str, str]] = []
        self.writes = 0

    def apply(self, resource: Resource) -> None:
        """Create or update a resource as a user would: the spec's change makes a new generation."""
        with self._lock:
            key = _key(resource)
            old = self._resources.get(key)
            new = copy.deepcopy(resource)
            meta = new.setdefault("metadata", {})
            if old is None:
                meta |= {"uid": f"uid-{self._next()}", "generation": 1}
            else:
                meta = new["metadata"] = {**old["metadata"], **meta}
                new.setdefault("status", old.get("status", {}))
                meta["generation"] = old["metadata"]["generation"] + (old["spec"] != new["spec"])
            meta["resourceVersion"] = self._next()
            self._resources[key] = new
            self._tell(Changed(new))

    def delete(self, kind: str, namespace: str, name: str, now: datetime) -> None:
        """Delete a resource as a user would: it stays while it has finalizers."""
        with self._lock:
            key = Key(kind, namespace, name)
            resource = self._resources[key]
            resource["metadata"].setdefault("deletionTimestamp", now.isoformat())
            resource["metadata"]["resourceVersion"] = self._next()
            self._tell(Changed(resource))
            self._collect(key)

    def put_secret(
        self, namespace: str, name: str, values: Mapping[str, str | bytes], annotations: Mapping[str, str]
    ) -> None:
        """Create or replace a Secret."""
        raw = {key: value.encode() if isinstance(value, str) else value for key, value in values.items()}
        self._secrets[namespace, name] = Secret.of(name, raw, annotations)

    def put_config_map(self, namespace: str, name: str) -> None:
        """Create a ConfigMap as a user would, who knows nothing of us."""
        self._foreign_maps.add((namespace, name))

    def delete_secret(self, namespace: str, name: str) -> None:
        """Remove a Secret, which has no finalizers of ours."""
        del self._secrets[namespace, name]

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """Return a copy of a resource, or None."""
        with self._lock:
            return copy.deepcopy(self._resources.get(Key(kind, namespace, name)))

    def list(self, kind: str, namespace: str | None) -> Sequence[Resource]:
        """Return copies of all resources of a kind."""
        with self._lock:
            found = (r for key, r in self._resources.items() if key.kind == kind and namespace in (None, key.namespace))
            return [copy.deepcopy(resource) for resource in found]

    def pages(self, kind: str, namespace: str | None) -> Iterator[Sequence[Resource]]:
        """Yield them, all at once: they are in memory."""
        yield self.list(kind, namespace)

    def naming(self, kind: str, named: Key) -> Sequence[Resource]:
        """Return copies of the resources of a kind that name another."""
        found = self.list(kind, named.namespace)
        return [each for each in found if names(kind, named.namespace, each.get("spec") or {}) == named]

    def watch(self, kind: str, namespace: str | None, seconds: float) -> Iterator[Seen]:
        """Yield all resources of a kind, and then each change as it happens, until the time is up."""
        news: list[Changed | Gone] = []
        with self._lock:
            everything = All(self.list(kind, namespace))
            self._watchers.append(news)
        try:
            yield everything
            deadline = time.monotonic() + seconds
            while True:
                with self._changed:
                    if not self._changed.wait_for(lambda: news, deadline - time.monotonic()):
                        return
                    found, news[:] = list(news), []
                for each in found:
                    key = _key(each.resource)
                    if key.kind == kind and namespace in (None, key.namespace):
                        yield each
        finally:
            with self._lock:
                self._watchers = [each for each in self._watchers if each is not news]

    def caller(self, token: str, audiences: Sequence[str] = ()) -> Caller | None:
        """Return whose token it is: that of whom `let_in` was told, of a token for one of these audiences."""
        caller, audience = self._callers.get(token, (None, ""))
        return caller if (audience in audiences if audiences else not audience) else None

    def may_search(self, caller: Caller, namespace: str, name: str) -> bool:
        """Return whether `let_in` was told of the caller and the namespace."""
        return (caller.name, namespace) in self._searchers

    def let_in(self, token: str, caller: str, *namespaces: str, audience: str = "") -> None:
        """Make a token somebody's, who may search in namespaces; it is for an audience, or for the cluster."""
        self._callers[token] = Caller(caller, "", ()), audience
        self._searchers |= {(caller, namespace) for namespace in namespaces}

    def user(self) -> str:
        """Return the name of whoever uses it, as the cluster in memory knows them."""
        return "somebody"

    def create(self, resource: Resource) -> Resource:
        """Create a resource under its own name."""
        with self._lock:
            key = _key(resource)
            if key in self._resources:
                raise Conflict(f"{key.namespace}/{key.name} is there already")
            self.apply(resource)
            self.writes += 1
            return copy.deepcopy(self._resources[key])

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete a resource. A missing one is no error."""
        with self._lock:
            if Key(kind, namespace, name) in self._resources:
                self.delete(kind, namespace, name, datetime.now(UTC))
                self.writes += 1

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> Resource:
        """Merge a patch into a resource."""
        with self._lock:
            key = Key(kind, namespace, name)
            resource = self._resources.get(key)
            wanted = patch.get("metadata", {}).get("resourceVersion")
            if resource is None or wanted not in (None, resource["metadata"]["resourceVersion"]):
                raise Conflict(f"{namespace}/{name} was changed in between")
            spec = copy.deepcopy(resource.get("spec"))
            _merge(resource, patch)
            resource["metadata"]["generation"] += spec != resource.get("spec")
            resource["metadata"]["resourceVersion"] = self._next()
            self.writes += 1
            changed = copy.deepcopy(resource)
            self._tell(Changed(resource))
            self._collect(key)
            return changed

    def write_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any], version: str) -> None:
        """Replace a status, if the resource is still at a resourceVersion."""
        with self._lock:
            resource = self._resources.get(Key(kind, namespace, name))
            if resource is None or resource["metadata"]["resourceVersion"] != version:
                raise Conflict(f"{namespace}/{name} was changed in between")
            resource["status"] = copy.deepcopy(dict(status))
            resource["metadata"]["resourceVersion"] = self._next()
            self.writes += 1
            self._tell(Changed(resource))

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the data of a ConfigMap of ours, or None."""
        found = self._config_maps.get((namespace, name))
        return None if found is None else dict(found)

    def write_config_map(self, owner: Key, uid: str, name: str, data: Mapping[str, str]) -> None:
        """Create or replace a ConfigMap of ours."""
        if (owner.namespace, name) in self._foreign_maps:
            raise foreign(name)
        self._config_maps[owner.namespace, name] = dict(data)
        self._owners[owner.namespace, name] = owner
        self.writes += 1

    def delete_config_map(self, namespace: str, name: str) -> None:
        """Remove a ConfigMap of ours."""
        self._config_maps.pop((namespace, name), None)
        self.writes += 1

    def secret(self, namespace: str, name: str) -> Secret | None:
        """Return a Secret by name, or None."""
        return self._secrets.get((namespace, name))

    def lease(self, namespace: str, name: str, within: float) -> Lease | None:
        """Return a Lease, or None."""
        return self._leases.get((namespace, name))

    def write_lease(self, namespace: str, name: str, lease: Lease, within: float) -> Lease:
        """Create a Lease, or replace it if it is still at its version."""
        with self._lock:
            there = self._leases.get((namespace, name))
            if there is not None and lease.version != there.version:
                raise Conflict(f"Lease {namespace}/{name} was changed in between")
            if there == lease:
                return there
            written = self._leases[namespace, name] = dataclasses.replace(lease, version=self._next())
            return written

    def delete_lease(self, namespace: str, name: str) -> None:
        """Remove a Lease as a user would."""
        del self._leases[namespace, name]

    def event(self, about: Resource, is_warning: bool, reason: str, message: str) -> None:
        """Remember an Event."""
        self.events.append((_key(about), is_warning, reason, message))

    def _next(self) -> str:
        self._version += 1
        return str(self._version)

    def _tell(self, change: Changed | Gone) -> None:
        with self._changed:
            for news in self._watchers:
                news.append(copy.deepcopy(change))
            self._changed.notify_all()

    def _collect(self, key: Key) -> None:
        """Remove a deleted resource without finalizers, and what it owns."""
        meta = self._resources[key]["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self._tell(Gone(self._resources.pop(key)))
            for name in [name for name, owner in self._owners.items() if owner == key]:
                self._config_maps.pop(name, None)


def _key(resource: Resource) -> Key:
    return Key(resource["kind"], resource["metadata"]["namespace"], resource["metadata"]["name"])


def _merge(into: Resource, patch: Mapping[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, Mapping):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = copy.deepcopy(value)
