"""What numbers does a look at a resource give? From what was seen and planned alone: no call, no write, no clock."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api.conditions import Condition
from pointsman.api.deployment import IndexStatus, Role
from pointsman.controller import families
from pointsman.controller.families import Family
from pointsman.core.shifts import State
from pointsman.plan import indexes, measured, observed, scores, traffic
from pointsman.plan.tasks import Phase, Work


class Sample(NamedTuple):
    """One number of one resource."""

    family: Family
    labels: tuple[str, ...]
    """Those that follow the names of the resource."""
    value: float


def conditions(found: Sequence[Condition]) -> Iterator[Sample]:
    """Yield the status of each condition."""
    for condition in found:
        yield Sample(families.CONDITION, (str(condition.type), str(condition.status)), 1.0)


def none(seen: object, status: object, now: datetime) -> Iterator[Sample]:
    """Yield nothing: conditions say all that there is to count."""
    return iter(())


def dataset(seen: observed.Dataset, status: dataset_api.DatasetStatus, now: datetime) -> Iterator[Sample]:
    """Yield what is known of a dataset."""
    if status.refreshed_at is not None:
        yield Sample(families.DATASET_REFRESHED, (), status.refreshed_at.timestamp())
    if seen.snapshots:
        yield Sample(families.DATASET_SNAPSHOT, (), float(seen.snapshots[-1].number))
        yield Sample(families.DATASET_DOCUMENTS, (), float(seen.snapshots[-1].documents))


def deployment(seen: observed.Deployment, status: deployment_api.DeploymentStatus, now: datetime) -> Iterator[Sample]:
    """Yield what is known of a deployment, as it is once the plan has been carried out."""
    yield Sample(families.UNGUARDED, (), float(seen.spec.gates.evaluation is None))
    if status.rollback is not None:
        yield Sample(families.ROLLBACK_READY, (), float(status.rollback.ready))
    shares = traffic.measured(seen, seen.facts)
    for index in status.indexes:
        yield from _weights(index, shares.get(index.name))
    for gate in status.gates:
        yield Sample(families.GATE_VERDICT, (gate.version, gate.name, str(gate.verdict)), 1.0)
        value = _number(gate.value)
        if value is not None:
            yield Sample(families.GATE_VALUE, (gate.version, gate.name), value)
    yield from _indexes(seen, now)
    yield from _canaries(seen)
    yield from _evaluation(seen)
    yield from _scores(seen)
    rollout = seen.facts.rollout
    candidate = None if rollout is None else seen.facts.get(rollout.index)
    if rollout is not None and candidate is not None:
        yield Sample(families.ROLLOUT_BEGUN, (candidate.version,), rollout.begun_at.timestamp())


def work(found: Sequence[Work]) -> Iterator[Sample]:
    """Yield the long work for a resource, to be added up over all."""
    for each in found:
        task = type(each.task).__name__
        if each.phase is Phase.RUNNING:
            yield Sample(families.WORK_RUNNING, (task,), 1.0)
        if each.failure is not None:
            yield Sample(families.WORK_FAILING, (task, str(each.failure.reason)), 1.0)


def _weights(index: IndexStatus, measured: int | None) -> Iterator[Sample]:
    labels = (index.name, index.version)
    if index.weight is None:
        return
    yield Sample(families.WEIGHT_DESIRED, labels, float(index.weight.desired))
    if index.weight.accepted is not None:
        yield Sample(families.WEIGHT_ACCEPTED, labels, float(index.weight.accepted))
        if measured is not None:
            yield Sample(families.WEIGHT_MEASURED, labels, float(measured))


def _indexes(seen: observed.Deployment, now: datetime) -> Iterator[Sample]:
    newest = max((snapshot.sequence for snapshot in seen.dataset.snapshots), default=0)
    for index in seen.facts.indexes:
        record, found = seen.records.get(index.name), seen.physical.get(index.name)
        labels = (index.name, index.version, str(index.role))
        if index.frozen is None and index.role is not Role.RETIRING:
            held = 0 if record is None or record.cursor is None else record.cursor.sequence
            yield Sample(families.INDEX_LAG, labels, indexes.lag(seen, index, now).total_seconds())
            yield Sample(families.INDEX_LAG_SEQUENCES, labels, float(max(0, newest - held)))
        if record is not None and record.verified_at is not None:
            differs = record.differences > 0 or (found is not None and indexes.is_miscounted(record, found))
            yield Sample(families.INDEX_PARITY, labels, float(not differs and not indexes.is_gone(seen, index)))
            yield Sample(families.INDEX_ROWS, labels, float(record.rows))


def _canaries(seen: observed.Deployment) -> Iterator[Sample]:
    found = seen.canaries
    if found is None or seen.facts.get(found.candidate) is None:
        return
    if found.queries:
        yield Sample(families.CANARIES_FOUND, (found.version,), found.found / found.queries)
    if found.overlap is not None:
        yield Sample(families.CANARY_OVERLAP, (found.version, "beside"), found.overlap)
    if found.kept is not None:
        yield Sample(families.CANARY_OVERLAP, (found.version, "first"), found.kept)


def _evaluation(seen: observed.Deployment) -> Iterator[Sample]:
    found = seen.evaluation
    if found is None:
        return
    short = measured.in_short(found)
    ours = (short.candidate, short.version, short.recall, short.judged)
    theirs = (short.serving, short.against, short.other_recall, short.other_judged)
    for index, version, recall, judged in (ours, theirs):
        if seen.facts.get(index) is None:
            continue
        if recall is not None:
            yield Sample(families.INDEX_RECALL, (index, version), recall)
        if judged is not None:
            yield Sample(families.JUDGED, (index, version), judged)


def _scores(seen: observed.Deployment) -> Iterator[Sample]:
    serving, watch = seen.facts.serving, scores.watch(seen, seen.facts)
    if serving is None or watch is None:
        return
    for share, (then, now) in watch.shares.items():
        yield Sample(families.SCORE_SHARE, (serving.version, str(share)), now)
        yield Sample(families.SCORE_SHARE_BASELINE, (serving.version, str(share)), then)
    if watch.state is not State.UNKNOWN:
        yield Sample(families.SCORES_SHIFTED, (serving.version,), float(watch.state is State.SHIFTED))


def _number(said: str) -> float | None:
    """Return what a status says as a number; None where it says something else."""
    with contextlib.suppress(ValueError):
        value = float(said.replace(",", ""))
        return value if math.isfinite(value) else None
    return None
