"""What was last seen of our resources, without asking again? For looking only: whoever acts on it reads it anew.

Told by watches and by listings. A watch may miss that something was deleted, or be behind; a listing drops whatever it
does not name, but for what a watch has told of since the listing began, which may be newer. Resources are kept as
compressed JSON without `managedFields`: of thousands, a deployment is 2 KB here and some 20 as Python's objects.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence

import orjson

from pointsman.cluster.resources import Resource, names
from pointsman.plan.tasks import Key


class Mirror:
    """The resources as they were seen last. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, tuple[bytes, Key | None]] = {}
        self._naming: dict[Key, set[Key]] = {}
        self._clock = 0
        # When a watch told of a resource, for as long as a listing is under way that may be older.
        self._told: dict[Key, int] = {}
        self._listings: set[int] = set()
        self._is_whole = False

    @property
    def is_whole(self) -> bool:
        """Whether everything was listed once: before, what is not here may be there."""
        with self._lock:
            return self._is_whole

    def complete(self) -> None:
        """Note that every kind has been listed once."""
        with self._lock:
            self._is_whole = True

    def saw(self, resource: Resource) -> None:
        """Take what a watch has shown."""
        key, kept = _key(resource), _kept(resource)
        with self._lock:
            self._tell(key)
            self._put(key, *kept)

    def lost(self, key: Key) -> None:
        """Take it that a watch has shown a resource to be gone."""
        with self._lock:
            self._tell(key)
            self._drop(key)

    def listing(self, kind: str, namespace: str | None) -> Listing:
        """Return what takes a listing of a kind, in one namespace or in all, that is about to begin."""
        with self._lock:
            self._clock += 1
            self._listings.add(self._clock)
            return Listing(self, kind, namespace, self._clock)

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """Return a resource as it was seen last; None for one that was not seen, which may be there all the same."""
        with self._lock:
            found = self._known.get(Key(kind, namespace, name))
        return None if found is None else _read(found[0])

    def naming(self, kind: str, named: Key) -> list[Resource]:
        """Return the resources of a kind that name another: deployments a dataset, Approvals a deployment."""
        with self._lock:
            found = [self._known[key][0] for key in self._keys_naming(kind, named)]
        return [_read(content) for content in found]

    def keys_naming(self, kind: str, named: Key) -> list[Key]:
        """Return the keys of those."""
        with self._lock:
            return self._keys_naming(kind, named)

    def _keys_naming(self, kind: str, named: Key) -> list[Key]:
        return sorted(key for key in self._naming.get(named, ()) if key.kind == kind)

    def _take(self, began: int, page: Sequence[tuple[Key, tuple[bytes, Key | None]]]) -> None:
        with self._lock:
            for key, kept in page:
                if self._told.get(key, 0) < began:
                    self._put(key, *kept)

    def _end(self, began: int, kind: str, namespace: str | None, there: set[Key] | None) -> None:
        """End a listing; `there` is what it named, None where it was cut short."""
        with self._lock:
            if there is not None:
                for key in [key for key in self._known if key.kind == kind and namespace in (None, key.namespace)]:
                    if key not in there and self._told.get(key, 0) < began:
                        self._drop(key)
            self._listings.discard(began)
            oldest = min(self._listings, default=self._clock + 1)
            self._told = {key: at for key, at in self._told.items() if at >= oldest}

    def _tell(self, key: Key) -> None:
        if self._listings:
            self._clock += 1
            self._told[key] = self._clock

    def _put(self, key: Key, content: bytes, names: Key | None) -> None:
        self._drop(key)
        self._known[key] = (content, names)
        if names is not None:
            self._naming.setdefault(names, set()).add(key)

    def _drop(self, key: Key) -> None:
        _, names = self._known.pop(key, (b"", None))
        if names is not None:
            there = self._naming[names]
            there.discard(key)
            if not there:
                del self._naming[names]


class Listing:
    """A listing under way: takes its pages, and drops at its end what none of them named. Cut short, it drops nothing.

    For a `with` block.
    """

    def __init__(self, mirror: Mirror, kind: str, namespace: str | None, began: int) -> None:
        self._mirror, self._kind, self._namespace, self._began = mirror, kind, namespace, began
        self._there: set[Key] = set()

    def take(self, page: Sequence[Resource]) -> list[Key]:
        """Take a page, and return its keys."""
        kept = [(_key(resource), _kept(resource)) for resource in page]
        self._there |= {key for key, _ in kept}
        self._mirror._take(self._began, kept)
        return [key for key, _ in kept]

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._mirror._end(self._began, self._kind, self._namespace, self._there if kind is None else None)


def _key(resource: Resource) -> Key:
    return Key(resource["kind"], resource["metadata"]["namespace"], resource["metadata"]["name"])


def _kept(resource: Resource) -> tuple[bytes, Key | None]:
    meta = {name: value for name, value in resource["metadata"].items() if name != "managedFields"}
    named = names(resource["kind"], meta["namespace"], resource.get("spec") or {})
    # Not only for its size: what orjson returns keeps all that it was written into, up to four times as much.
    return zlib.compress(orjson.dumps({**resource, "metadata": meta}), 1), named


def _read(content: bytes) -> Resource:
    return dict(orjson.loads(zlib.decompress(content)))
