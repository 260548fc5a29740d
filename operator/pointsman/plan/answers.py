"""Which questions are asked of indexes now, so that the gates have something to judge by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from pointsman.api import base
from pointsman.core import drift
from pointsman.plan import burn_in, gates, indexes, rollout, silence, words
from pointsman.plan.facts import Facts, Index
from pointsman.plan.gates import Pair
from pointsman.plan.measured import Canaries, Evaluation
from pointsman.plan.observed import Deployment, QueriesView
from pointsman.plan.tasks import AnswersTask, AskCanaries, Evaluate, Phase, Probe, Side, Task

LONGEST = timedelta(minutes=10)
"""For how long an index stays behind its dataset while it is asked; `maxLag`, where that is more."""


def probes(seen: Deployment, facts: Facts, now: datetime) -> list[Probe]:
    """Return which indexes and models to ask a few fixed questions: as often as indexes are compared."""
    # What has changed its role just now is asked at the next look.
    if facts != seen.facts or seen.dataset.problem is not None:
        return []
    waits = _unasked(seen, facts, now)
    due = (index for index, wait in waits if wait <= timedelta(0) and indexes.may_answer(seen, index))
    tasks = (Probe(seen.key, _dataset(seen), _side(index)) for index in due)
    return [task for task in tasks if _may_start(seen, task, now)]


def _unasked(seen: Deployment, facts: Facts, now: datetime) -> Iterator[tuple[Index, timedelta]]:
    """Yield the indexes that are asked, with the time after which each is asked next.

    A way back is proven by its answers alone. Of what answers queries only the model is in doubt, and that counts as
    asked by whoever asked it last. Where two cannot be compared, each is asked alone.
    """
    every, retained = base.parse_duration(seen.spec.check.every), rollout.before(facts)
    candidate = None if facts.rollout is None else facts.get(facts.rollout.index)
    if retained is not None:
        proven = seen.probes.get(retained.name)
        yield retained, timedelta(0) if proven is None else proven.measured_at + every - now
    is_doubted = silence.is_doubted(seen, facts)
    for index in (facts.serving, candidate):
        asked = None if index is None else gates.model_asked_at(seen, index)
        if index is not None and is_doubted:
            told = seen.probes.get(index.name)
            yield index, timedelta(0) if told is None else told.measured_at + silence.AGAIN - now
        elif index is not None and asked is not None:
            yield index, asked + every - now


def way_back(seen: Deployment, index: Index) -> str:
    """Return what came of asking the index that a rollback would lead to, as a clause; empty where it answers."""
    failure = silence.failure_of(seen, index.name)
    if failure is not None:
        return failure.message
    found = seen.probes.get(index.name)
    if found is None:
        return ""
    if found.answered < found.asked:
        return f"it answered {found.answered} of {found.asked} fixed queries"
    if not found.model_distance <= drift.LIMIT:
        return (
            f"its model has changed: the pinned texts moved by {found.model_distance:.4f}, {drift.LIMIT:g} is allowed"
        )
    return ""


def work(seen: Deployment, facts: Facts, wanted: Index | None, now: datetime) -> list[AnswersTask]:
    """Return what to ask now: of the pair that the gates are about, or of the one that is about to be it."""
    pair = rollout.pair(facts)
    if facts.rollout is None and wanted is not None and wanted != facts.serving:
        # Asked as soon as the candidate can answer, so that the gates have their numbers when its road begins.
        pair = Pair(wanted, facts.serving)
    # How a query is embedded is in the dataset's store.
    is_away = seen.dataset.problem is not None
    asked = [] if is_away else [*_of_gates(seen, pair, now), *_of_retirement(seen, facts, now)]
    return [task for task in asked if _may_start(seen, task, now)]


def is_asked(seen: Deployment, index: str) -> bool:
    """Return whether an index is being asked the queries of a set: if it moved meanwhile, it would be asked in vain."""
    tasks = [work.task for work in seen.work if work.phase is Phase.RUNNING]
    asking = [task for task in tasks if isinstance(task, Evaluate | AskCanaries)]
    return any(side is not None and side.index == index for task in asking for side in (task.candidate, task.serving))


def _of_gates(seen: Deployment, pair: Pair | None, now: datetime) -> list[AnswersTask]:
    if pair is None:
        return []
    asked = Pair(pair.index, None) if silence.broken(seen, pair.index, pair.other) else pair
    where = _where(seen, asked)
    if where is None:
        return []
    tasks: list[AnswersTask] = []
    canaries, evaluation = seen.spec.gates.canaries, seen.spec.gates.evaluation
    view = None if canaries is None else _readable(seen, canaries.query_set_ref.name)
    if canaries is not None and view is not None:
        stood = gates.canaries_judged_by(seen, view, pair)
        if stood is None or _is_scheduled(view, seen.canaries, pair.index, now):
            name = canaries.query_set_ref.name
            tasks.append(AskCanaries(seen.key, _dataset(seen), name, canaries.k, *_sides(asked), where, _held(view)))
    view = None if evaluation is None else _readable(seen, evaluation.query_set_ref.name)
    if evaluation is not None and view is not None:
        stands = gates.judged_by(seen, view, pair, now)
        last = seen.evaluation
        is_asked = bool(seen.evaluate_token) and (last is None or last.token != seen.evaluate_token)
        is_due = (pair.other is not None and stands is None) or _is_scheduled(view, last, pair.index, now)
        if is_asked or is_due:
            name = evaluation.query_set_ref.name
            tasks.append(
                Evaluate(
                    seen.key,
                    _dataset(seen),
                    "evaluation",
                    name,
                    evaluation.metric,
                    *_sides(asked),
                    where,
                    seen.evaluate_token,
                    _held(view),
                )
            )
    return tasks


def _of_retirement(seen: Deployment, facts: Facts, now: datetime) -> list[AnswersTask]:
    """Ask what serves beside what is retained, as long as `retire.stable` wants to know."""
    stable, serving, retained = seen.spec.retire.stable, facts.serving, rollout.before(facts)
    if stable is None or serving is None or retained is None or facts.rollout is not None:
        return []
    pair, view = Pair(serving, retained), _readable(seen, stable.query_set_ref.name)
    where = _where(seen, pair)
    if view is None or where is None:
        return []
    last = seen.stable
    is_due = last is None or last.candidate != serving.name or now - last.measured_at >= burn_in.period(seen)
    gate = seen.spec.gates.evaluation
    metric = gate.metric if gate is not None else "nDCG@10"
    task = Evaluate(seen.key, _dataset(seen), "stable", stable.query_set_ref.name, metric, *_sides(pair), where)
    return [replace(task, queries=_held(view))] if is_due else []


def _is_scheduled(view: QueriesView, last: Evaluation | Canaries | None, index: Index, now: datetime) -> bool:
    """Return whether the set's own schedule asks for its queries to be asked again, of whatever stands."""
    if not view.every:
        return False
    return last is None or last.candidate != index.name or now - last.measured_at >= base.parse_duration(view.every)


def _readable(seen: Deployment, name: str) -> QueriesView | None:
    view = seen.query_sets.get(name)
    return view if view is not None and view.exists and view.record is not None and view.record.queries else None


def _held(view: QueriesView) -> str:
    """Return what a query set reads, and what it held when it was read last."""
    return "" if view.record is None else f"{view.record.source}/{view.record.digest}"


def _where(seen: Deployment, pair: Pair) -> int | None:
    """Return the snapshot that a pair is at, where both are whole, at the same one, and nothing moves either.

    Of a source that changes all the time an index is asked right after it has followed, which leaves the longest time.
    """
    found: set[int] = set()
    for index in (pair.index, pair.other):
        if index is None:
            continue
        cursor = indexes.cursor(seen, index)
        is_busy = words.running(seen.work, f"index {index.name}") is not None
        if cursor is None or is_busy or not indexes.may_answer(seen, index):
            return None
        newest = indexes.newest(seen, index.recipe)
        if index.frozen is None and newest is not None and newest.snapshot > cursor.snapshot:
            # It is about to follow, and would move while it is asked.
            return None
        found.add(cursor.snapshot)
    return found.pop() if len(found) == 1 else None


def _sides(pair: Pair) -> tuple[Side, Side | None]:
    return _side(pair.index), None if pair.other is None else _side(pair.other)


def _side(index: Index) -> Side:
    return Side(index.name, index.version, index.recipe)


def _dataset(seen: Deployment) -> str:
    return seen.spec.dataset_ref.name


def _may_start(seen: Deployment, task: AnswersTask | Probe, now: datetime) -> bool:
    """Return whether nobody asks just now, and a failure was waited out or the spec, or the set of queries, edited."""
    for done in seen.work:
        if done.task.subject != task.subject:
            continue
        if done.phase is Phase.RUNNING:
            return False
        is_edited = done.generation != seen.edits or _questions(done.task) != _questions(task)
        if done.failure is not None and not is_edited and now < done.failure.retry_at:
            return False
    return True


def _questions(task: Task) -> tuple[str, Side | None]:
    """Return what the queries of a task are, and who is asked beside; nothing for one that asks none of a set."""
    return (task.queries, task.serving) if isinstance(task, Evaluate | AskCanaries) else ("", None)


def due(seen: Deployment, facts: Facts, now: datetime) -> list[timedelta]:
    """Return after which times something has to be asked again."""
    waits = [wait for _, wait in _unasked(seen, facts, now)]
    gate, found = seen.spec.gates.evaluation, seen.evaluation
    if gate is not None and found is not None and facts.serving is not None:
        view = seen.query_sets.get(gate.query_set_ref.name)
        spans = [view.every] if view is not None and view.every else []
        spans += [gate.max_age] if facts.rollout is not None or facts.burn_in is not None else []
        waits += [found.measured_at + base.parse_duration(span) - now for span in spans]
    canaries = seen.spec.gates.canaries
    view = None if canaries is None else seen.query_sets.get(canaries.query_set_ref.name)
    if seen.canaries is not None and view is not None and view.every:
        waits.append(seen.canaries.measured_at + base.parse_duration(view.every) - now)
    if seen.spec.retire.stable is not None and seen.stable is not None:
        waits.append(seen.stable.measured_at + burn_in.period(seen) - now)
    return waits
