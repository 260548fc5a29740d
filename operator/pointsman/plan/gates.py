"""May queries go to an index? Each gate is the claim that is true when it passes, with what was found.

A gate reads what was measured and decides nothing else: what becomes of a verdict is the rollout's business. No data is
Inconclusive, what could not be measured is an Error, and a number that is none is one too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from pointsman.api import base
from pointsman.api import deployment as api
from pointsman.api.deployment import Verdict
from pointsman.core import drift, evaluation, guards, holes
from pointsman.core.guards import Signal
from pointsman.plan import indexes, measured, querysets, silence, words
from pointsman.plan.facts import Facts, Index
from pointsman.plan.measured import Canaries, Evaluation
from pointsman.plan.observed import Deployment, QueriesView

Measured = TypeVar("Measured", Evaluation, Canaries)
CHANGED = 0.01
"""The share of the documents that may have changed since an evaluation that still stands."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An index that is asked about, and the one that it is compared with."""

    index: Index
    other: Index | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a gate found."""

    gate: str
    verdict: Verdict
    message: str
    value: str = ""
    wanted: str = ""
    interval: str = ""
    samples: int = 0
    measured_at: datetime | None = None
    is_awaited: bool = True
    """Whether queries are kept from an index until this gate has passed; one that only watches acts when it fails."""

    def status(self, version: str) -> api.GateStatus:
        """Return the finding as a status shows it."""
        return api.GateStatus(
            name=self.gate,
            verdict=self.verdict,
            version=version,
            value=self.value,
            wanted=self.wanted,
            interval=self.interval,
            samples=self.samples,
            measured_at=self.measured_at,
            message=self.message,
        )


Gate = Callable[[Deployment, Pair, datetime], Finding | None]
"""None is the answer of a gate that the spec does not ask for."""


def every_document_is_indexed(seen: Deployment, pair: Pair, now: datetime) -> Finding | None:
    """The index was verified by a full scan, and holds what its snapshot holds."""
    record, found = seen.records.get(pair.index.name), seen.physical.get(pair.index.name)
    rows = 0 if record is None else record.rows
    at = None if record is None else record.checked_at or record.verified_at
    if record is None or record.verified_at is None:
        return Finding("parity", Verdict.INCONCLUSIVE, f"{pair.index.version} is not complete yet")
    if found is not None and found.problem is not None:
        return Finding("parity", Verdict.ERROR, found.problem.message, samples=rows, measured_at=at)
    if record.differences:
        message = f"{record.differences:,} of {rows:,} rows differ from the snapshot; they are being repaired"
        return Finding(
            "parity", Verdict.INCONCLUSIVE, message, f"{record.differences:,}", "0", samples=rows, measured_at=at
        )
    if found is not None and indexes.is_miscounted(record, found):
        message = f"{found.rows:,} rows were counted, its snapshot has {rows:,}; they are being compared"
        return Finding("parity", Verdict.INCONCLUSIVE, message, f"{found.rows:,}", f"{rows:,}", measured_at=at)
    return Finding(
        "parity", Verdict.PASSED, f"all {rows:,} rows are there", f"{rows:,}", f"{rows:,}", samples=rows, measured_at=at
    )


def model_is_unchanged(seen: Deployment, pair: Pair, now: datetime) -> Finding | None:
    """The model's vectors of the pinned texts are what they were.

    It is asked before each snapshot, by each evaluation, and where neither comes as often as `check.every` says.
    """
    index, wanted = pair.index, f"{drift.LIMIT:g}"
    embedded, asked = indexes.newest(seen, index.recipe), _asked(seen, index)
    if embedded is None and not asked:
        return Finding("model", Verdict.INCONCLUSIVE, f"{index.version} is not embedded yet")
    failure, last = silence.failure_of(seen, index.name), model_asked_at(seen, index)
    most = 2 * base.parse_duration(seen.spec.check.every)
    if failure is not None and (last is None or now - last > most):
        return Finding("model", Verdict.ERROR, f"it could not be asked: {failure.message}", measured_at=last)
    if embedded is not None and (not asked or (embedded.at is not None and max(asked)[0] < embedded.at)):
        message = f"it was unchanged when snapshot {embedded.snapshot} was embedded"
        return Finding("model", Verdict.PASSED, message, measured_at=embedded.at)
    at, distance = max(asked)
    said = Finding("model", Verdict.PASSED, "", f"{distance:.4f}", wanted, "", len(drift.PROBES), at)
    if not math.isfinite(distance):
        return replace(said, verdict=Verdict.ERROR, message="the distance of the pinned texts is not a number")
    if distance > drift.LIMIT:
        message = f"the model has changed: its pinned texts moved by {distance:.4f}, {wanted} is allowed"
        return replace(said, verdict=Verdict.FAILED, message=message)
    return replace(said, message=f"the pinned texts moved by {distance:.4f}, {wanted} is allowed")


def model_asked_at(seen: Deployment, index: Index) -> datetime | None:
    """Return when the model of an index was last compared with that of the first day, by whomever; None if never."""
    embedded = indexes.newest(seen, index.recipe)
    times = [at for at, _ in _asked(seen, index)]
    times += [embedded.at] if embedded is not None and embedded.at is not None else []
    return max(times, default=None)


def answers_are_no_worse(seen: Deployment, pair: Pair, now: datetime) -> Finding | None:
    """Judged queries are answered no worse than by the other index, with an interval; alone where that is broken."""
    gate = seen.spec.gates.evaluation
    if gate is None or pair.other is None:
        return None
    name, policy = gate.query_set_ref.name, float(gate.not_worse_by)
    missing = _unusable("evaluation", seen, name)
    if missing is not None:
        return missing
    view = seen.query_sets[name]
    found = judged_by(seen, view, pair, now)
    if found is None:
        return _not_measured(
            "evaluation", seen, pair, f"{gate.metric} {querysets.detects(view, policy)}", gate.not_worse_by
        )
    broken = silence.broken(seen, pair.index, pair.other)
    return _judged(found, gate.metric, policy) if found.serving else _judged_alone(found, gate.metric, broken)


def canaries_find_what_they_must(seen: Deployment, pair: Pair, now: datetime) -> Finding | None:
    """Every canary query finds its documents, and inside one space nearly what the other index finds."""
    gate = seen.spec.gates.canaries
    if gate is None:
        return None
    name = gate.query_set_ref.name
    missing = _unusable("canaries", seen, name)
    if missing is not None:
        return missing
    found = canaries_judged_by(seen, seen.query_sets[name], pair)
    if found is None:
        return _not_measured("canaries", seen, pair, "the canaries were not asked yet", "")
    everything, least = f"{found.queries}", gate.min_overlap
    said = Finding("canaries", Verdict.PASSED, "", f"{found.found}", everything, "", found.queries, found.measured_at)
    if found.found < found.queries:
        message = f"{found.found} of {everything} canaries find their documents in the first {found.k}, wanted all"
        return replace(said, verdict=Verdict.FAILED, message=message)
    if found.overlap is not None and not found.overlap >= float(least):
        verdict = Verdict.ERROR if math.isnan(found.overlap) else Verdict.FAILED
        message = f"the first {found.k} documents overlap by {found.overlap:.2f}, {least} is wanted"
        return replace(said, verdict=verdict, message=message, value=f"{found.overlap:.2f}", wanted=least)
    if found.kept is not None and not found.kept >= float(least):
        verdict = Verdict.ERROR if math.isnan(found.kept) else Verdict.FAILED
        since = "" if found.pinned_at is None else f" of {found.pinned_at:%Y-%m-%d %H:%M} UTC"
        message = f"the first {found.k} documents overlap by {found.kept:.2f} with its own{since}, {least} is wanted"
        return replace(said, verdict=verdict, message=message, value=f"{found.kept:.2f}", wanted=least)
    return replace(said, message=f"all {everything} canaries find their documents in the first {found.k}")


def queries_do_not_fail(seen: Deployment, pair: Pair, now: datetime) -> Finding | None:
    """Live queries do not fail in the index or its model more often than in the other."""
    return _watched(Signal.ERRORS, "errors", "of the queries fail", guards.LIMITS[Signal.ERRORS], seen, pair, now)


def queries_find_something(seen: Deployment, pair: Pair, now: datetime) -> Finding | None:
    """Live queries are not answered with nothing more often than by the other index."""
    return _watched(Signal.EMPTY, "empty", "of the queries find nothing", guards.LIMITS[Signal.EMPTY], seen, pair, now)


def answers_come_in_time(seen: Deployment, pair: Pair, now: datetime) -> Finding | None:
    """Live queries are answered about as fast as by the other index."""
    gate = seen.spec.gates.latency
    if gate is None:
        return None
    said = f"of the queries take more than {gate.p95_ratio_at_most} times as long as the other's slowest twentieth"
    return _watched(Signal.LATENCY, "latency", said, guards.LIMITS[Signal.LATENCY], seen, pair, now)


def shadow_queries_speak_for_all(seen: Deployment, pair: Pair, now: datetime) -> Finding | None:
    """So few of the queries that were to go to the index beside were dropped that the others speak for all."""
    shadow = seen.facts.shadow
    if seen.facts.rollout is None or shadow is None or shadow.index != pair.index.name:
        return None
    # One that is not ready may tell of a route that it cannot leave: it is sent no queries.
    ready = [gateway.shadowed for gateway in seen.gateways if gateway.is_ready]
    told = [each for each in ready if each is not None and each.index == shadow.index]
    sent, dropped = sum(each.sent for each in told), sum(each.dropped for each in told)
    said = Finding("shadow", Verdict.PASSED, "", f"{dropped:,}", f"{guards.MOST_DROPPED:.0%} at most", "", sent)
    if not sent + dropped:
        # Where nobody asks there is nothing to wait for.
        return replace(
            said, verdict=Verdict.INCONCLUSIVE, message="no query came while it was shadowed", is_awaited=False
        )
    if not guards.is_whole(sent, dropped):
        message = (
            f"{dropped:,} of {sent + dropped:,} shadow queries were dropped, {guards.MOST_DROPPED:.0%} are allowed"
        )
        return replace(said, verdict=Verdict.INCONCLUSIVE, message=message)
    return replace(said, message=f"{dropped:,} of {sent + dropped:,} shadow queries were dropped")


PROMOTION: tuple[Gate, ...] = (
    every_document_is_indexed,  # Never compare against a partial index.
    model_is_unchanged,  # A swapped model poisons all that follows.
    canaries_find_what_they_must,  # A handful of queries that nobody may lose, before the many.
    answers_are_no_worse,  # Paired, with an interval; too few queries is Inconclusive.
)
"""What is asked before the first query goes to an index, and all the way."""

WATCH: tuple[Gate, ...] = (
    shadow_queries_speak_for_all,  # What was dropped may be just what fails.
    queries_do_not_fail,  # A model or database that refuses is nothing that judged queries show.
    queries_find_something,  # A filter that no point passes any more looks like an answer.
    answers_come_in_time,  # Only what is slower than the other at the same time is slow.
)
"""What is watched once an index answers live queries: what fails acts, what is undecided holds nothing up."""


def findings(seen: Deployment, facts: Facts, pair: Pair, now: datetime) -> tuple[Finding, ...]:
    """Return what the gates say of a pair, in the order of the chain."""
    return tuple(found for gate in (*PROMOTION, *WATCH) if (found := gate(seen, pair, now)) is not None)


def standing(seen: Deployment, metric: str, view: QueriesView, pair: Pair, now: datetime) -> Evaluation | None:
    """Return the evaluation of a pair that still stands: of this set and metric, young, of nearly this content."""
    gate, found = seen.spec.gates.evaluation, _of_pair(seen, seen.evaluation, pair)
    if gate is None or found is None or view.record is None:
        return None
    is_of_this = (found.metric, found.digest) == (metric, view.record.digest)
    is_young = now - found.measured_at <= base.parse_duration(gate.max_age)
    return found if is_of_this and is_young and not _has_changed(seen, pair.index, found) else None


def judged_by(seen: Deployment, view: QueriesView, pair: Pair, now: datetime) -> Evaluation | None:
    """Return the evaluation that a pair is judged by: of both, or of the one alone where the other is broken."""
    gate = seen.spec.gates.evaluation
    found = None if gate is None else standing(seen, gate.metric, view, pair, now)
    if gate is None or not silence.broken(seen, pair.index, pair.other):
        return found
    decided = (Verdict.PASSED, Verdict.FAILED)
    if found is not None and _judged(found, gate.metric, float(gate.not_worse_by)).verdict in decided:
        return found
    return standing(seen, gate.metric, view, Pair(pair.index, None), now)


def canaries_judged_by(seen: Deployment, view: QueriesView, pair: Pair) -> Canaries | None:
    """Return what the canaries found that a pair is judged by: in both, or in the one where the other is broken."""
    found, alone = canaries_standing(seen, view, pair), Pair(pair.index, None)
    return found or (canaries_standing(seen, view, alone) if silence.broken(seen, pair.index, pair.other) else None)


def canaries_standing(seen: Deployment, view: QueriesView, pair: Pair) -> Canaries | None:
    """Return what the canaries found in a pair, where that still stands."""
    gate, found = seen.spec.gates.canaries, _of_pair(seen, seen.canaries, pair)
    if gate is None or found is None or view.record is None:
        return None
    is_of_this = (found.digest, found.k) == (view.record.digest, gate.k)
    return found if is_of_this and not _has_changed(seen, pair.index, found) else None


def _judged(found: Evaluation, metric: str, policy: float) -> Finding:
    """Return the verdict over an evaluation: passed and failed by the bounds, and by nothing in between."""
    difference, low, high = found.difference, found.low, found.high
    told = Finding("evaluation", Verdict.ERROR, f"the difference of {metric} is not a number")
    told = replace(told, wanted=f"-{policy:g} or more", samples=found.groups, measured_at=found.measured_at)
    if difference is None or low is None or high is None or not all(map(math.isfinite, (difference, low, high))):
        return told
    first, last = found.interval or (low, high)
    interval = f"{first:+.3f} to {last:+.3f}"
    told = replace(told, value=f"{difference:+.3f}", interval=interval, verdict=Verdict.INCONCLUSIVE)
    moved = "fell" if difference < 0 else "rose"
    said = f"{metric} {moved} by {abs(difference):.3f} ({interval}) over {found.groups} groups{measured.beside(found)}"
    allowed = f"policy allows a fall of {policy:g}"
    if found.groups < evaluation.MIN_GROUPS:
        return replace(told, message=f"{said}; {evaluation.MIN_GROUPS} groups or more are wanted")
    if low >= -policy:
        return replace(told, verdict=Verdict.PASSED, message=f"{said}; {allowed}")
    if high < -policy and not _holes(found, policy):
        return replace(told, verdict=Verdict.FAILED, message=f"{said}, {allowed}")
    if high < -policy:
        return replace(
            told, message=f"{said}, which unjudged documents may explain: judge what `pointsman judge` lists"
        )
    smallest = 0.0 if found.standard_error is None else evaluation.detectable(found.standard_error, 1)
    message = f"{said}; {allowed}, the set detects {smallest:.3f}: judge more queries, or approve `evaluation`"
    return replace(told, message=message)


def _judged_alone(found: Evaluation, metric: str, broken: str) -> Finding:
    """Return the verdict over an index that is asked alone, since there is nothing to compare it with: it answers."""
    verdict = Verdict.PASSED if found.value > 0 else Verdict.INCONCLUSIVE
    verdict = verdict if math.isfinite(found.value) else Verdict.ERROR
    said = f"{metric} is {found.value:.3f} over {found.groups} groups, with nothing whole to compare with: {broken}"
    return Finding("evaluation", verdict, said, f"{found.value:.3f}", "", "", found.groups, found.measured_at)


def _holes(found: Evaluation, policy: float) -> bool:
    """Return whether a fall may be one of judgements, not of answers (STATISTICS: HolesNotAnswers)."""
    if not found.pooled or found.condensed_high is None or found.judged is None or found.other_judged is None:
        return False
    on_condensed = evaluation.Verdict.FAILED if found.condensed_high < -policy else evaluation.Verdict.INCONCLUSIVE
    return holes.explain_failure(evaluation.Verdict.FAILED, on_condensed, found.judged, found.other_judged)


def _watched(
    signal: Signal, name: str, said: str, limit: float, seen: Deployment, pair: Pair, now: datetime
) -> Finding | None:
    if pair.other is None or not seen.gateways:
        return None
    streams = seen.streams
    is_of_pair = (streams.candidate, streams.control) == (pair.index.name, pair.other.name)
    known = streams.guard(signal) if is_of_pair else None
    wanted = f"at most {limit:.0%}"
    if known is None or not known.count:
        message = "no minute with enough live queries yet"
        return Finding(name, Verdict.INCONCLUSIVE, message, wanted=wanted, is_awaited=False)
    return Finding(
        gate=name,
        verdict=Verdict(known.verdict(int(now.timestamp() // 60))),
        message=f"{known.value:.1%} {said}, over {known.count} minutes; {limit:.0%} is allowed",
        value=f"{known.value:.1%}",
        wanted=wanted,
        samples=known.count,
        is_awaited=False,
    )


def _unusable(gate: str, seen: Deployment, name: str) -> Finding | None:
    view = seen.query_sets.get(name)
    if view is None or not view.exists:
        return Finding(gate, Verdict.ERROR, f"QuerySet {name} is not there; create it, or take the gate away")
    if view.record is None:
        if view.problem:
            return Finding(gate, Verdict.ERROR, f"QuerySet {name}: {view.problem}")
        return Finding(gate, Verdict.INCONCLUSIVE, f"QuerySet {name} is being read")
    return None


def _not_measured(gate: str, seen: Deployment, pair: Pair, message: str, wanted: str) -> Finding:
    failure = words.failure(seen.work, f"{gate} of {seen.key}")
    why = silence.why_incomparable(seen, pair.index, pair.other)
    if failure is not None:
        said = failure.message if not why else why if failure.message in why else f"{failure.message}; {why}"
        return Finding(gate, Verdict.ERROR, said, wanted=wanted)
    return Finding(gate, Verdict.INCONCLUSIVE, f"not measured yet; {why or message}", wanted=wanted)


def _asked(seen: Deployment, index: Index) -> list[tuple[datetime, float]]:
    """Return when the model of an index was asked beside embedding, and how far the pinned texts had moved then."""
    found, probe = seen.evaluation, seen.probes.get(index.name)
    asked = [] if probe is None else [(probe.measured_at, probe.model_distance)]
    if found is not None and found.candidate == index.name and found.model_distance is not None:
        asked.append((found.measured_at, found.model_distance))
    return [(at, distance) for at, distance in asked if not _is_of_earlier_try(seen, index, at)]


def _of_pair(seen: Deployment, found: Measured | None, pair: Pair) -> Measured | None:
    """Return what was found of a pair, unless in an earlier try of a version that was rejected since."""
    other = "" if pair.other is None else pair.other.name
    if found is None or (found.candidate, found.serving) != (pair.index.name, other):
        return None
    return None if _is_of_earlier_try(seen, pair.index, found.measured_at) else found


def _is_of_earlier_try(seen: Deployment, index: Index, at: datetime) -> bool:
    """Return whether something was found before the version was rejected: that speaks against no later try."""
    return any(each.is_of(index.recipe, index.parameters) and at < each.at for each in seen.facts.rejected)


def _has_changed(seen: Deployment, index: Index, found: Evaluation | Canaries) -> bool:
    """Return whether a hundredth of the documents or more changed since something was measured, or nobody can tell."""
    known = seen.dataset.embedded.get(index.recipe, ())
    later = [e for e in known if e.snapshot > found.snapshot]
    if later and not any(e.snapshot == found.snapshot for e in known):
        # Snapshots between the two may be gone as well, and with them what they changed.
        return True
    changed = sum(count for e in later for cause, count in e.changes.items() if cause != "unchanged")
    return bool(later) and changed >= CHANGED * max(1, found.documents)
