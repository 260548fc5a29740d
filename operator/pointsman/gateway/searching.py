"""One search, from the choice of the version to its hits: embedded and searched by one pair, checked, and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from pointsman import ports
from pointsman.errors import PointsmanError, TextsRefused
from pointsman.gateway import days, faults, routing, tracing
from pointsman.gateway.directory import Deployment
from pointsman.gateway.faults import Fault
from pointsman.gateway.models import Vector
from pointsman.gateway.opening import Adopted
from pointsman.gateway.requests import Search
from pointsman.gateway.serving import MOST_ORDINALS, Serving

COMPARED: Final = 10
"""Documents of an answer that are compared with the shadow's."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and by which index of which route."""

    route: routing.Route
    entry: routing.Entry
    hits: list[list[ports.Hit]]
    """One list for each query."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A query that is to go to the shadow index too, with the documents that were answered."""

    deployment: Deployment
    adopted: Adopted
    """Entered: leave it after use."""
    entry: routing.Entry
    text: str
    search: Search
    answered: tuple[str, ...]
    request: tracing.Span | None = None
    """The query as whoever traces it has it."""


Beside = Callable[[Sample], None]
"""Takes a sample without waiting."""


async def search(deployment: Deployment, asked: Search, beside: Beside) -> Found:
    """Answer a search by the route that is served now, to its end; raises Fault."""
    adopted = deployment.adopted
    if adopted is None:
        raise faults.not_ready(f"{'/'.join(deployment.name)} is not served: {deployment.why_not()}")
    adopted.enter()
    try:
        with tracing.step(tracing.Step.ROUTE) as span:
            entry = choose(adopted.route, asked)
            tracing.chosen(span, adopted.route, entry)
            _check_fields(adopted, entry, asked)
        asker = days.asker(asked.sticks_to)
        if asked.session:
            deployment.ledger.meet(asker)
        hits = await _answered(deployment, adopted, entry, asked, asker)
        if asked.queries and adopted.route.shadow not in ("", entry.index):
            _sample(deployment, adopted, asked, hits, beside)
        return Found(adopted.route, entry, hits)
    finally:
        adopted.leave()


def choose(route: routing.Route, asked: Search) -> routing.Entry:
    """Return the index that is to answer; raises Fault 409 for a vector of a space that no live index has."""
    if asked.vector is None:
        return route.choose(asked.sticks_to)
    found = route.of_space(asked.space)
    if found is None:
        live = ", ".join(f"{entry.space} ({entry.version})" for entry in route.entries)
        raise Fault(409, "space_not_live", f"no live index is of that space; live are {live}", param="space")
    if len(asked.vector) != found.embedding.dimensions:
        dimensions = found.embedding.dimensions
        raise faults.invalid(f"vector has {len(asked.vector)} numbers; wanted {dimensions}, as its space", "vector")
    return found


def _check_fields(adopted: Adopted, entry: routing.Entry, asked: Search) -> None:
    known = adopted.metadata_fields.get(entry.version)
    if known is None or asked.fields <= known:
        return
    unknown, there = sorted(asked.fields - known)[0], ", ".join(sorted(known)) or "none"
    raise faults.invalid(f"the filter asks for the field {unknown}; {entry.version} has {there}", "filter")


async def _answered(
    deployment: Deployment, adopted: Adopted, entry: routing.Entry, asked: Search, asker: bytes
) -> list[list[ports.Hit]]:
    """Search for each query, and count each."""
    ledger, began = deployment.ledger, time.perf_counter()
    count = max(1, len(asked.queries))
    try:
        held = await adopted.hold(entry.index)
        try:
            serving = held.serving
            space, vectors = await _vectors(serving, entry, asked)
            # The one check that no answer goes around: what it was embedded for is what is searched.
            if not serving.is_paired(space):
                ledger.mispaired += count
                raise faults.mispaired(entry.index)
            if len(vectors) == 1:
                found = [await _hits(serving, vectors[0], asked)]
            else:
                found = await _all([_hits(serving, vector, asked) for vector in vectors])
        finally:
            held.close()
    except Fault as fault:
        if fault.status >= 500:
            _count_failed(deployment, entry, count)
        raise
    except PointsmanError as error:
        _count_failed(deployment, entry, count)
        raise faults.not_open(entry.index, error) from None
    except asyncio.CancelledError:
        # Out of time.
        _count_failed(deployment, entry, count)
        raise
    seconds = time.perf_counter() - began
    for hits in found:
        top = hits[0].score if hits and asked.queries else None
        # What began under an older route and ends now proves nothing of this one.
        is_proof = asked.vector is None and deployment.adopted is adopted
        ledger.answer(entry.index, seconds, not hits, top, is_proof=is_proof, asker=asker)
    return found


def _count_failed(deployment: Deployment, entry: routing.Entry, count: int) -> None:
    for _ in range(count):
        deployment.ledger.fail(entry.index)


async def _vectors(serving: Serving, entry: routing.Entry, asked: Search) -> tuple[str, list[Vector]]:
    """Return the vectors to search with, and the space that they live in."""
    if asked.vector is not None:
        return asked.space, [asked.vector]
    if asked.like:
        return serving.marker.space, [await _like(serving, asked.like)]
    return serving.model.key, await embed(serving, entry, list(asked.queries), asked)


async def embed(serving: Serving, entry: routing.Entry, texts: list[str], asked: Search) -> list[Vector]:
    """Embed texts by the model of an index; raises Fault 400 for a text that the model refuses, and 502 or 503."""
    try:
        return await serving.embed(texts, asked.side)
    except TextsRefused as error:
        raise faults.invalid(f"the model of {entry.version} refuses the text with {error.answer}", "query") from None
    except PointsmanError as error:
        raise faults.model_failed(entry.version, error) from None


async def _like(serving: Serving, document: str) -> Vector:
    try:
        found = await serving.vector_of(document)
    except PointsmanError as error:
        raise faults.database_failed(serving.index, error) from None
    if found is None:
        raise faults.not_found(f"the document is not in {serving.index}")
    return found


async def _hits(serving: Serving, vector: Vector, asked: Search) -> list[ports.Hit]:
    # A document is always most like itself.
    limit = asked.top_k + (MOST_ORDINALS if asked.like else 0)
    try:
        found = await serving.search(vector, limit, asked.where, asked.of_documents)
    except PointsmanError as error:
        raise faults.database_failed(serving.index, error) from None
    if asked.like:
        found = [hit for hit in found if hit.document != asked.like]
    if asked.least_score > -1:
        found = [hit for hit in found if hit.score >= asked.least_score]
    return found[: asked.top_k]


async def _all(calls: list[Awaitable[list[ports.Hit]]]) -> list[list[ports.Hit]]:
    found = await asyncio.gather(*calls, return_exceptions=True)
    answers = []
    for each in found:
        if isinstance(each, BaseException):
            raise each
        answers.append(each)
    return answers


def _sample(
    deployment: Deployment, adopted: Adopted, asked: Search, hits: list[list[ports.Hit]], beside: Beside
) -> None:
    """Have the queries of the sample asked of the shadow index too, once the answer is on its way."""
    route = adopted.route
    for text, found in zip(asked.queries, hits, strict=True):
        entry = route.shadowed(asked.session or text)
        if entry is None:
            continue
        answered = tuple(dict.fromkeys(hit.document for hit in found))[:COMPARED]
        single = replace(asked, queries=(text,))
        adopted.enter()
        beside(Sample(deployment, adopted, entry, text, single, answered, tracing.current()))
