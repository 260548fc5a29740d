"""How well does an index answer judged queries, and how does it compare with the one that serves?

Everything is measured first and written last, in one record: whatever goes wrong before leaves what was known. What
people should judge next is another one, written right before it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pointsman.api.conditions import Reason
from pointsman.api.queryset import Kind
from pointsman.core import canaries, evaluation, holes
from pointsman.core.evaluation import Comparison, Metric
from pointsman.core.holes import Rankings
from pointsman.errors import Terminal
from pointsman.plan import measured
from pointsman.plan import unjudged as unjudged_pairs
from pointsman.plan.measured import Evaluation
from pointsman.store.log import RecordLog
from pointsman.work import asking, embed
from pointsman.work.asking import Answers, Room
from pointsman.work.exact import Stored

CONDENSED_DEPTH = 5
"""Where judgements have holes, so many times k documents are asked for: mostly enough for k judged ones."""


@dataclass(frozen=True, slots=True)
class Side:
    """What was measured of one index."""

    values: Mapping[str, float]
    """The metric of each query."""
    condensed: Mapping[str, float]
    """The same where documents without a grade are passed over."""
    judged: float
    recall: float | None
    ranking: Rankings
    """The first k documents of each query."""
    moved: float
    """How far its model's vectors of the pinned texts are from those of the first day."""


def evaluate(
    room: Room, metric: str, kind: Kind, log: RecordLog, token: str = "", unjudged: RecordLog | None = None
) -> None:
    """Measure the candidate, and where there is one the serving index beside it, and write a record.

    Before it, where judgements are Pooled, what should be judged next is written to `unjudged`.

    Raises Conflict, which is retryable, where an index has left the snapshot or the set has changed meanwhile;
    Terminal(SOURCE_INVALID) for a set that was judged for other documents or is too small to compare versions by; and
    what models, database and store raise. Then nothing is written.
    """
    found = log.read()
    before = None if found is None else measured.evaluation_from_json(found.value)
    room.check_standing()
    stored = _stored(room)
    room.check_judged(stored[0])
    groups = len(set(room.queries.groups.values()))
    if room.serving is not None and groups < 2:
        message = f"query set {room.name} has {groups} group of queries, wanted 2 or more to compare versions by"
        raise Terminal(Reason.SOURCE_INVALID, f"{message}; below {evaluation.MIN_GROUPS} nothing is decided")
    sample = min((each.sample(list(room.queries.queries), room.queries.digest) for each in stored), key=len)
    sides = _measured(room, Metric.parse(metric), kind, stored, sample)
    ours = sides[0]
    record = Evaluation(
        query_set=room.name,
        digest=room.queries.digest,
        metric=metric,
        candidate=room.candidate.index,
        version=room.candidate.version,
        serving="" if room.serving is None else room.serving.index,
        against="" if room.serving is None else room.serving.version,
        snapshot=room.snapshot,
        documents=stored[0].embedded.documents,
        queries=len(ours.values),
        groups=groups,
        value=_mean(ours.values, room.queries.groups),
        measured_at=room.now(),
        judged=ours.judged,
        recall=ours.recall,
        recall_queries=len(sample),
        model_distance=ours.moved,
        pooled=kind == "Pooled",
        token=token,
    )
    if room.serving is not None:
        record = _compared(record, ours, sides[1], room.queries.groups, before)
    room.check_standing()
    if unjudged is not None and kind == "Pooled":
        _list(unjudged, room, record, sides)
    log.write(measured.to_json(measured.with_history(record, before)), after=0 if found is None else found.revision)


def _measured(room: Room, metric: Metric, kind: Kind, stored: Sequence[Stored], sample: Sequence[str]) -> list[Side]:
    judgements, k = room.queries.judgements, metric.k
    # Before the queries: a model that cannot be reached is found out for sixteen texts.
    models = {side.recipe.space.document_side: side for side in room.sides}
    moved = {key: embed.distance(room.dataset, side.recipe, side.embedder) for key, side in models.items()}
    answers = asking.ask(room, k * CONDENSED_DEPTH if kind == "Pooled" else k, frozenset(sample))
    recalls = _recalls(room, stored, answers, sample, k)
    rankings = [answered.rankings for answered in answers]
    if kind == "KnownItem":
        rankings = _with_twins(rankings, judgements, stored)
    return [
        Side(
            values=metric.by_query(ranking, judgements),
            condensed=metric.by_query(holes.condensed(ranking, judgements), judgements),
            judged=holes.judged(ranking, judgements, k),
            recall=recall,
            ranking={query: found[:k] for query, found in ranking.items()},
            moved=moved[side.recipe.space.document_side],
        )
        for side, ranking, recall in zip(room.sides, rankings, recalls, strict=True)
    ]


def _list(log: RecordLog, room: Room, record: Evaluation, sides: Sequence[Side]) -> None:
    """Write down which pairs that either side found nobody has judged, those first that would move most."""
    k = Metric.parse(record.metric).k
    rankings = [side.ranking for side in sides]
    found = holes.to_judge(rankings[0], rankings[1] if len(rankings) > 1 else {}, room.queries.judgements, k)
    kept = unjudged_pairs.of(room.name, record.digest, record.metric, record.measured_at, found)
    before = log.read()
    log.write(unjudged_pairs.to_json(kept), after=0 if before is None else before.revision)


def _with_twins(
    rankings: Sequence[Rankings], judgements: Mapping[str, evaluation.Grades], stored: Sequence[Stored]
) -> list[Rankings]:
    """Return the rankings with the known item in the place of the first document of its text.

    Texts are the same where every version renders them alike: a version whose template leaves out what tells two
    documents apart gains nothing by it.
    """
    known = {query: document for query, grades in judgements.items() for document, grade in grades.items() if grade > 0}
    seen = {document for ranking in rankings for documents in ranking.values() for document in documents}
    texts = [each.texts(seen | set(known.values())) for each in stored]

    def of(document: str) -> tuple[bytes | None, ...]:
        return tuple(by_document.get(document) for by_document in texts)

    def replaced(query: str, ranking: Sequence[str]) -> list[str]:
        item = known[query]
        return list(dict.fromkeys(item if of(document) == of(item) else document for document in ranking))

    return [{query: replaced(query, found) for query, found in ranking.items()} for ranking in rankings]


def _stored(room: Room) -> list[Stored]:
    """Return what is stored for each side; the same object for both where they are of one recipe."""
    recipes = {side.recipe.key: side.recipe for side in room.sides}
    by_recipe = {key: Stored(room.dataset, recipe, room.snapshot) for key, recipe in recipes.items()}
    return [by_recipe[side.recipe.key] for side in room.sides]


def _recalls(
    room: Room, stored: Sequence[Stored], answers: Sequence[Answers], sample: Sequence[str], k: int
) -> list[float | None]:
    """Return for each side the share of the k nearest stored documents that its index found, ties being equal."""
    nearest: dict[str, Mapping[str, list[canaries.Hit]]] = {}
    for side, each, answered in zip(room.sides, stored, answers, strict=True):
        if side.recipe.key not in nearest:
            found = each.nearest(asking.stacked(answered, sample), k)
            nearest[side.recipe.key] = dict(zip(sample, found, strict=True))
    return [
        canaries.mean_overlap(nearest[side.recipe.key], answered.hits, k)
        for side, answered in zip(room.sides, answers, strict=True)
    ]


def _compared(
    record: Evaluation, ours: Side, theirs: Side, groups: Mapping[str, str], before: Evaluation | None
) -> Evaluation:
    comparison = evaluation.compare(ours.values, theirs.values, groups)
    look = _look(record, comparison, before)
    level = evaluation.level_of(look)
    condensed = evaluation.compare(ours.condensed, theirs.condensed, groups) if record.pooled else None
    return dataclasses.replace(
        record,
        other=_mean(theirs.values, groups),
        difference=comparison.difference,
        standard_error=comparison.standard_error,
        low=comparison.low,
        high=comparison.bounds(level)[1],
        interval=comparison.interval,
        nonzero=comparison.nonzero,
        losing=comparison.losing,
        winning=comparison.winning,
        spread=comparison.standard_error * math.sqrt(comparison.groups),
        look=look,
        other_judged=theirs.judged,
        condensed_high=None if condensed is None else condensed.bounds(level)[1],
        other_recall=theirs.recall,
        other_model_distance=theirs.moved,
    )


def _look(record: Evaluation, comparison: Comparison, before: Evaluation | None) -> int:
    """Return the how manieth comparison of these two indexes on this set it is.

    The same answers at the same snapshot, as after a crash, are no other look: they cannot fail by another chance.
    """
    if before is None:
        return 1
    pair = (record.candidate, record.serving, record.digest)
    known = (*before.history, measured.in_short(before))
    looks = [each.look for each in known if (each.candidate, each.serving, each.digest) == pair]
    if not looks:
        return 1
    is_same = (before.candidate, before.serving, before.digest) == pair and (
        (before.snapshot, before.metric, before.difference, before.standard_error)
        == (record.snapshot, record.metric, comparison.difference, comparison.standard_error)
    )
    return before.look if is_same else max(looks) + 1


def _mean(values: Mapping[str, float], groups: Mapping[str, str]) -> float:
    """Return the mean of the groups' means."""
    by_group: dict[str, list[float]] = {}
    for query, value in values.items():
        by_group.setdefault(groups[query], []).append(value)
    return math.fsum(math.fsum(found) / len(found) for found in by_group.values()) / len(by_group)
