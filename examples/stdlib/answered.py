"""What became of the live queries? Read from the log of whoever sent them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BUCKET = 2.0
"""Seconds over which shares are taken."""


@dataclass(frozen=True)
class Edit:
    """One edit of the version."""

    at: float
    """When it was accepted."""
    version: str
    revision: int
    """Of the route that was served beforehand."""


@dataclass(frozen=True)
class Answer:
    """One query's."""

    session: str
    sent: float
    done: float
    is_answered: bool
    version: str
    route: tuple[int, int]
    """The epoch and revision by which it was answered."""


def read(log: Path) -> list[Answer]:
    """Return all answers, in the order in which the queries were sent."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    found = [
        Answer(
            row["session"],
            row["sent"],
            row["done"],
            row["status"] == 200,
            row.get("version", ""),
            (row["route"]["epoch"], row["route"]["revision"]) if row["status"] == 200 else (0, 0),
        )
        for row in rows
    ]
    return sorted(found, key=lambda answer: answer.sent)


def by_version(answers: Sequence[Answer]) -> Mapping[str, int]:
    """Return how many queries each version answered."""
    return Counter(answer.version for answer in answers if answer.is_answered)


def shares(answers: Sequence[Answer]) -> list[dict[str, float]]:
    """Return the share of the queries by version over time, in percent, where it changed."""
    begun = answers[0].sent
    buckets: dict[int, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        if answer.is_answered:
            buckets[int((answer.sent - begun) // BUCKET)][answer.version] += 1
    told: list[dict[str, float]] = []
    for bucket, counts in sorted(buckets.items()):
        found = {version: round(100 * count / counts.total(), 1) for version, count in sorted(counts.items())}
        if not told or found != {name: share for name, share in told[-1].items() if name != "seconds"}:
            told.append({"seconds": bucket * BUCKET, **found})
    return told


def flaps(answers: Sequence[Answer], edits: Sequence[Edit]) -> int:
    """Return how often a session moved more than once under one edit, or had two versions under one route."""
    sessions: dict[str, dict[tuple[int, int], list[Answer]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        if answer.is_answered:
            sessions[answer.session][answer.route].append(answer)
    found = 0
    for routes in sessions.values():
        last, moved_in = "", -1
        for _, same in sorted(routes.items()):
            versions = {answer.version for answer in same}
            found += len(versions) - 1
            version = same[0].version
            if last and version != last:
                direction = sum(edit.revision < same[0].route[1] for edit in edits)
                found += direction == moved_in
                moved_in = direction
            last = version
    return found


def seconds_until_gone(answers: Sequence[Answer], version: str, edited: float) -> float:
    """Return how long after an edit the last answer of a version came; 0 where none came after it."""
    later = [answer.done - edited for answer in answers if answer.version == version and answer.done > edited]
    return max(later, default=0.0)
