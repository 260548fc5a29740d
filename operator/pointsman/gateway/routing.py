"""Which live index answers a query? The route as one immutable object, and the choices that are made by it. Pure.

A session, or where there is none the query's own text, is hashed with the route's salt to a position in [0, 1). The
weights cut that interval in the order of the entries, the candidate first: while only its weight grows, a session
moves once, from the serving index to the candidate, and stays there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from pointsman.api.conditions import Reason
from pointsman.api.routes import RouteEntry, RouteStatus
from pointsman.core.recipes import Space
from pointsman.errors import Terminal

WHOLE = 100
"""What the weights of a route sum to."""
_PROVIDERS: tuple[str, ...] = get_args(get_type_hints(Space)["provider"])
_METRICS: tuple[str, ...] = get_args(get_type_hints(Space)["metric"])


@dataclass(frozen=True, slots=True)
class Entry:
    """A live index and the model that embeds for it: one object, never taken apart."""

    index: str
    version: str
    weight: int
    snapshot: int
    recipe: str
    space: str
    """The key of `embedding`."""
    embedding: Space


@dataclass(frozen=True, slots=True)
class Route:
    """What the operator wants to be served, whole."""

    epoch: int
    revision: int
    salt: str
    entries: tuple[Entry, ...]
    shadow: str
    """The index that is asked beside; empty for none."""
    shadow_percent: int
    dataset: str
    address: str

    @property
    def age(self) -> tuple[int, int]:
        """Epoch and revision: of two routes the smaller is the older."""
        return self.epoch, self.revision

    def choose(self, text: str) -> Entry:
        """Return the index for a session, or for the text of a query without one."""
        place, upper = position(self.salt, text) * WHOLE, 0
        for entry in self.entries:
            upper += entry.weight
            if place < upper:
                return entry
        raise AssertionError("the weights of a route sum to 100")

    def shadowed(self, text: str) -> Entry | None:
        """Return the index that is to be asked beside, where this session or text is in the sample."""
        if not self.shadow or position(f"{self.salt}/shadow", text) * WHOLE >= self.shadow_percent:
            return None
        return self.entry(self.shadow)

    def of_space(self, space: str) -> Entry | None:
        """Return the live index whose vectors live in a space, the one of most weight first; None where there is none.

        Of two that weigh the same it is the later one, which served before.
        """
        found = [entry for entry in self.entries if entry.space == space]
        return max(reversed(found), key=lambda entry: entry.weight, default=None)

    def serving(self) -> Entry:
        """Return the index of most weight; of two that weigh the same the later one, which served before."""
        return max(reversed(self.entries), key=lambda entry: entry.weight)

    def entry(self, index: str) -> Entry | None:
        """Return the entry of an index, or None."""
        return next((entry for entry in self.entries if entry.index == index), None)


def position(salt: str, text: str) -> float:
    """Return where in [0, 1) a session or query stands: 53 bits of blake2b over salt, NUL and text."""
    found = hashlib.blake2b(f"{salt}\0{text}".encode(), digest_size=8).digest()
    return (int.from_bytes(found, "big") >> 11) / 2**53


def read(status: RouteStatus) -> Route:
    """Return the route that a status tells; raises Terminal(INVALID_SPEC) for one that nobody can serve by."""
    entries = tuple(_entry(each) for each in status.entries)
    total = sum(entry.weight for entry in entries)
    if total != WHOLE or any(entry.weight < 0 for entry in entries):
        raise _invalid(f"its weights sum to {total}, wanted {WHOLE} and none below 0")
    shadow = status.shadow
    if shadow is not None and all(entry.index != shadow.index for entry in entries):
        raise _invalid(f"its shadow {shadow.index} is not among its entries")
    return Route(
        epoch=status.epoch,
        revision=status.revision,
        salt=status.salt,
        entries=entries,
        shadow="" if shadow is None else shadow.index,
        shadow_percent=0 if shadow is None else shadow.percent,
        dataset=status.dataset,
        address=status.address,
    )


def _entry(status: RouteEntry) -> Entry:
    if status.provider not in _PROVIDERS or status.metric not in _METRICS:
        raise _invalid(f"{status.index} is of provider {status.provider!r} and metric {status.metric!r}, unknown here")
    # Any: what the two closed lists let through is what the types want.
    provider: Any = status.provider
    metric: Any = status.metric
    embedding = Space(
        provider=provider,
        model=status.model,
        revision=status.revision,
        dimensions=status.dimensions,
        query_prefix=status.query_prefix,
        document_prefix=status.document_prefix,
        metric=metric,
    )
    # The one place where a mis-paired route could come in.
    if embedding.key != status.space:
        raise _invalid(f"{status.index} is of space {status.space}, its model makes vectors of {embedding.key}")
    return Entry(
        index=status.index,
        version=status.version,
        weight=status.weight,
        snapshot=status.snapshot,
        recipe=status.recipe,
        space=status.space,
        embedding=embedding,
    )


def _invalid(what: str) -> Terminal:
    return Terminal(Reason.INVALID_SPEC, f"the route cannot be served: {what}")
