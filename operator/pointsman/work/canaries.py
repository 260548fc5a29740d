"""Does an index find what a few chosen queries must find, what the serving index finds, and what it found at first?

Its first answers are pinned in the store, documents and scores: whatever changes beneath it without an edit of ours,
such as a model or a database's release, shows as another answer about documents that have not changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from pointsman.api.conditions import Reason
from pointsman.api.dataset import Cause
from pointsman.core import canaries, changes
from pointsman.core.canaries import Hit
from pointsman.core.recipes import Recipe
from pointsman.errors import Terminal
from pointsman.plan import measured
from pointsman.plan.measured import Canaries
from pointsman.store.log import RecordLog
from pointsman.work import asking
from pointsman.work.asking import Answering, Answers, Room
from pointsman.work.exact import Stored

DEPTH = 5
"""Where two recipes cut some documents differently, so many times k are asked for: enough for k that are the same."""


@dataclass(frozen=True, slots=True)
class Pins:
    """The first answers of one index."""

    snapshot: int
    digest: str
    """The content of the query set."""
    k: int
    pinned_at: datetime
    answers: Answers

    def to_json(self) -> dict[str, Any]:
        """Return them as the value that the store keeps."""
        hits = {query: [[hit.document, hit.score] for hit in found] for query, found in self.answers.hits.items()}
        told = {"snapshot": self.snapshot, "digest": self.digest, "k": self.k, "pinned_at": self.pinned_at.isoformat()}
        return {**told, "hits": hits}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Pins:
        """Read them back."""
        hits = {query: [Hit(*hit) for hit in found] for query, found in value["hits"].items()}
        at = datetime.fromisoformat(value["pinned_at"])
        return Pins(value["snapshot"], value["digest"], value["k"], at, Answers(hits))


def ask(room: Room, k: int, log: RecordLog, pin_log: RecordLog) -> None:
    """Ask both indexes the canary queries and write a record.

    Raises as `evaluate.evaluate` does, and Terminal(SOURCE_INVALID) for queries that expect more than k documents.
    Inside one space the first k of both are compared as well, documents that the two recipes render or cut differently
    left out; and those of the candidate with the ones that were pinned when it was first asked, documents that have
    changed since left out. They are pinned anew for other queries, and once their snapshot is cleaned up.
    """
    found = log.read()
    before = None if found is None else measured.canaries_from_json(found.value)
    room.check_standing()
    stored = Stored(room.dataset, room.candidate.recipe, room.snapshot)
    room.check_judged(stored)
    expected = {
        query: [document for document, grade in grades.items() if grade > 0]
        for query, grades in room.queries.judgements.items()
    }
    many = sum(len(documents) > k for documents in expected.values())
    if many:
        message = f"{many:,} of {len(expected):,} queries of {room.name} expect more than {k} documents"
        raise Terminal(Reason.SOURCE_INVALID, f"{message}, wanted {k} or fewer each; raise k, or name fewer")
    other = _comparable(room)
    changed = set() if other is None else _changed(room, other.recipe)
    pinned = pin_log.read()
    pins = None if pinned is None else _standing(room, Pins.from_json(pinned.value), k)
    moved = set() if pins is None else _moved(room, pins.snapshot)
    answers = asking.ask(room, DEPTH * k if changed or moved else k)
    overlap = None if other is None else canaries.mean_overlap(*_alike(answers[1], answers[0], changed), k)
    record = Canaries(
        query_set=room.name,
        digest=room.queries.digest,
        k=k,
        candidate=room.candidate.index,
        version=room.candidate.version,
        serving="" if room.serving is None else room.serving.index,
        against="" if room.serving is None else room.serving.version,
        snapshot=room.snapshot,
        documents=stored.embedded.documents,
        queries=len(expected),
        found=len(expected) - len(canaries.missing(expected, answers[0].rankings, k)),
        measured_at=room.now(),
        overlap=overlap,
        kept=None if pins is None else canaries.mean_overlap(*_alike(pins.answers, answers[0], moved), k),
        pinned_at=None if pins is None else pins.pinned_at,
    )
    room.check_standing()
    if pins is None:
        first = Answers({query: hits[:k] for query, hits in answers[0].hits.items()})
        pins = Pins(room.snapshot, room.queries.digest, k, record.measured_at, first)
        pin_log.write(pins.to_json(), after=0 if pinned is None else pinned.revision)
    value = measured.to_json(measured.canaries_with_history(record, before))
    log.write(value, after=0 if found is None else found.revision)


def _comparable(room: Room) -> Answering | None:
    """Return the serving index where its scores and orders can be compared with the candidate's."""
    if room.serving is None or room.serving.recipe.space.key != room.candidate.recipe.space.key:
        return None
    return room.serving


def _alike(pinned: Answers, now: Answers, changed: set[str]) -> tuple[dict[str, list[Hit]], dict[str, list[Hit]]]:
    """Return the answers of both without the changed documents, no more of the pinned ones than there are now.

    Changed documents that have come to stand before others push them out of sight: those are not lost.
    """
    if not changed:
        return pinned.hits, now.hits
    ours, theirs = (
        {query: [hit for hit in hits if hit.document not in changed] for query, hits in answers.hits.items()}
        for answers in (pinned, now)
    )
    return {query: hits[: len(theirs[query])] for query, hits in ours.items()}, theirs


def _standing(room: Room, pins: Pins, k: int) -> Pins | None:
    """Return pinned answers if what is asked now can be compared with them."""
    is_of_this = (pins.digest, pins.k) == (room.queries.digest, k)
    recipe, snapshot = room.candidate.recipe, pins.snapshot
    return pins if is_of_this and room.dataset.embedded_at(recipe.key, snapshot) is not None else None


def _moved(room: Room, since: int) -> set[str]:
    """Return the documents of the candidate that are other ones, or new, or gone, since a snapshot."""
    if since == room.snapshot:
        return set()
    recipe = room.candidate.recipe
    found = changes.chunks(_chunks(room, recipe, since), _chunks(room, recipe, room.snapshot), same_space=True)
    causes = (Cause.ADDED, Cause.DELETED, Cause.EDITED, Cause.RECHUNKED)
    return {document for cause in causes for document in found.ids(cause).to_pylist()}


def _changed(room: Room, other: Recipe) -> set[str]:
    """Return the documents whose texts or cuts differ between the two recipes."""
    if other.key == room.candidate.recipe.key:
        return set()
    theirs, ours = (_chunks(room, recipe, room.snapshot) for recipe in (other, room.candidate.recipe))
    found = changes.chunks(theirs, ours, same_space=True)
    return {document for cause in (Cause.EDITED, Cause.RECHUNKED) for document in found.ids(cause).to_pylist()}


def _chunks(room: Room, recipe: Recipe, snapshot: int) -> pa.Table:
    """Return what tells the documents of a recipe apart, a row for each."""
    version = Stored(room.dataset, recipe, snapshot).embedded.chunks_version
    return room.dataset.chunks(recipe.key).keys(version, changes.CHUNK_COLUMNS)
