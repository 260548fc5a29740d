"""What does an index lack of what its dataset holds? Told to whoever lets it take over all the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pointsman.api import approval as api
from pointsman.api.deployment import Role
from pointsman.plan.facts import Facts, IndexRecord
from pointsman.plan.observed import Decision, Embedded, Lag, Snapshot

_ROLES = (Role.RETAINED, Role.CANDIDATE, Role.SERVING)


def of(
    version: str,
    facts: Facts,
    records: Mapping[str, IndexRecord],
    snapshots: Sequence[Snapshot],
    embedded: Mapping[str, Sequence[Embedded]],
) -> Lag | None:
    """Return what the index of a version lacks that could take over, or has; None where none was ever whole.

    `records` are by the names of indexes, `embedded` by recipe and ascending. What changed is counted by a version
    that was embedded of the snapshot which the index holds, so that its later ones tell of the difference alone.
    """
    found = [
        (index, cursor.snapshot)
        for index in facts.indexes
        if index.version == version and index.role in _ROLES
        if (record := records.get(index.name)) is not None and record.verified_at is not None
        if (cursor := record.cursor) is not None
    ]
    if not found:
        return None
    index, has = min(found, key=lambda pair: _ROLES.index(pair[0].role))
    cursors = [record.cursor.snapshot for record in records.values() if record.cursor is not None]
    newest = max([has, *cursors, *(snapshot.number for snapshot in snapshots)])
    ways = {recipe: each for recipe, each in embedded.items() if any(one.snapshot == has for one in each)}
    # Its own recipe counts what matters to it, and another one what that has not come to.
    best = max(ways, key=lambda recipe: (ways[recipe][-1].snapshot, recipe == index.recipe), default="")
    later = [each for each in ways.get(best, ()) if has < each.snapshot <= newest]
    return Lag(has, newest, _sum(later), max((each.snapshot for each in later), default=has))


def said(seen: Decision) -> str:
    """Return what the version of an AcceptLag misses that takes over now, as a clause."""
    version, lag = seen.spec.version, seen.lag
    if lag is None:
        return f"{version} has no index that was ever whole, and what one would lack is not known"
    if lag.has >= lag.newest:
        return f"{version}@{lag.has} lacks nothing"
    which = f"snapshot {lag.newest}" if lag.newest == lag.has + 1 else f"snapshots {lag.has + 1} to {lag.newest}"
    causes = ", ".join(f"{count:,} {cause}" for cause, count in lag.changes.items())
    if lag.counted < lag.newest:
        counted = f"{causes} by snapshot {lag.counted}, the rest not counted yet" if causes else "not counted yet"
    else:
        counted = causes or "none that its index would show"
    return f"{version}@{lag.has} lacks what {which} changed: {counted}"


def missed(seen: Decision) -> api.Missed | None:
    """Return the same in numbers; once it has caught up, what it lacked last."""
    lag = seen.lag
    if lag is None or lag.has >= lag.newest:
        return seen.status.missed
    return api.Missed(snapshot=lag.has, newest=lag.newest, documents=sum(lag.changes.values()), counted=lag.counted)


def _sum(found: Iterable[Embedded]) -> dict[str, int]:
    changes: dict[str, int] = {}
    for each in found:
        for cause, count in each.changes.items():
            if cause != "unchanged" and count:
                changes[cause] = changes.get(cause, 0) + count
    return dict(sorted(changes.items(), key=lambda pair: (-pair[1], pair[0])))
