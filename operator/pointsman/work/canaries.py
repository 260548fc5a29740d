"""Does an index find what a few chosen queries must find, and what the serving index finds?"""

from __future__ import annotations

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


def ask(room: Room, k: int, log: RecordLog) -> None:
    """Ask both indexes the canary queries and write a record.

    Raises as `evaluate.evaluate` does, and Terminal(SOURCE_INVALID) for queries that expect more than k documents.
    Inside one space the first k of both are compared as well, documents that the two recipes render or cut differently
    left out.
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
    answers = asking.ask(room, DEPTH * k if changed else k)
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
    )
    room.check_standing()
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


def _changed(room: Room, other: Recipe) -> set[str]:
    """Return the documents whose texts or cuts differ between the two recipes."""
    if other.key == room.candidate.recipe.key:
        return set()
    found = changes.chunks(_chunks(room, other), _chunks(room, room.candidate.recipe), same_space=True)
    return {document for cause in (Cause.EDITED, Cause.RECHUNKED) for document in found.ids(cause).to_pylist()}


def _chunks(room: Room, recipe: Recipe) -> pa.Table:
    """Return what tells the documents of a recipe apart, a row for each."""
    version = Stored(room.dataset, recipe, room.snapshot).embedded.chunks_version
    return room.dataset.chunks(recipe.key).keys(version, changes.CHUNK_COLUMNS)
