"""What there is: datasets with their versions, deployments with their indexes, and how each is doing, as a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pointsman.api import conditions, dataset, deployment
from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.cli import resources, session
from pointsman.cli.session import Session
from pointsman.cluster.resources import DATASET, DEPLOYMENT, Resource
from pointsman.errors import Retryable, Terminal

if TYPE_CHECKING:
    from rich.table import Table

POLL_SECONDS = 1.0
HEADERS = ("NAME", "SERVING", "TARGET", "STEP", "QUERIES", "PHASE", "DETAIL")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the tree and how deep it stands."""

    depth: int
    name: str
    serving: str = ""
    target: str = ""
    step: str = ""
    queries: str = ""
    """Shares by version, or of an index."""
    phase: str = ""
    detail: str = ""


def run(current: Session, reference: str | None, all_namespaces: bool, watch: bool) -> int:
    """Print the tree, once or until interrupted; return the exit code."""
    namespace = None if all_namespaces else current.namespace
    out = session.console()
    lines = look(current, namespace, reference)
    if not watch:
        out.print(render(lines) if lines else f"there is nothing in {_where(namespace)}")
        return 0
    if not out.is_terminal:
        before: list[Line] = []
        while True:
            if lines != before:
                out.print(render(lines))
            before = lines
            current.world.sleep(POLL_SECONDS)
            lines = _look_again(current, namespace, reference, before)
    from rich.live import Live

    with Live(render(lines), console=out, auto_refresh=False) as live:
        while True:
            current.world.sleep(POLL_SECONDS)
            lines = _look_again(current, namespace, reference, lines)
            live.update(render(lines), refresh=True)


def look(current: Session, namespace: str | None, reference: str | None) -> list[Line]:
    """Read the cluster and return the tree; with a reference, the part of it that has that name."""
    datasets = current.cluster.list(DATASET, namespace)
    deployments = current.cluster.list(DEPLOYMENT, namespace)
    if reference is not None:
        datasets, deployments = _narrow(reference, datasets, deployments)
        if not datasets and not deployments:
            message = f"there is no dataset or deployment {reference} in {_where(namespace)}"
            raise Terminal(Reason.INVALID_SPEC, f"{message}; see pointsman get --all-namespaces")
    return list(tree(datasets, deployments, namespace is None, current.world.now()))


def tree(
    datasets: Sequence[Resource], deployments: Sequence[Resource], with_namespace: bool, now: datetime
) -> Iterator[Line]:
    """Yield the lines: each dataset, its versions, and below it the deployments that serve it."""
    shown = set()
    for resource in sorted(datasets, key=_key):
        yield from _dataset(resource, with_namespace)
        for other in sorted(deployments, key=_key):
            if _dataset_of(other) == _key(resource):
                shown.add(_key(other))
                yield from _deployment(other, 1, False, now)
    for other in sorted(deployments, key=_key):
        if _key(other) not in shown:
            yield from _deployment(other, 0, with_namespace, now)


def render(lines: Sequence[Line]) -> Table:
    """Return the lines as a table whose first column is drawn as a tree."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in HEADERS:
        table.add_column(header, no_wrap=header != "DETAIL", overflow="fold")
    for line, guide in zip(lines, guides([line.depth for line in lines]), strict=True):
        name = Text.assemble((guide, "dim"), (line.name, "bold" if line.phase else ""))
        phase = Text(line.phase, style=_STYLES.get(line.phase, ""))
        table.add_row(name, line.serving, line.target, line.step, line.queries, phase, line.detail)
    return table


def guides(depths: Sequence[int]) -> list[str]:
    """Return what is drawn before each line of a tree, from the depths of the lines."""
    drawn = []
    for at, depth in enumerate(depths):
        text = ""
        for level in range(1, depth + 1):
            later = next((d for d in depths[at + 1 :] if d <= level), 0)
            follows = later == level
            text += ("├─ " if follows else "└─ ") if level == depth else ("│  " if follows else "   ")
        drawn.append(text)
    return drawn


_STYLES = {"Ready": "green", "Serving": "green", "Stalled": "red", "Passed": "green", "Failed": "red"}
_MARKS = {conditions.Status.TRUE: "✓", conditions.Status.FALSE: "✗", conditions.Status.UNKNOWN: "?"}
# Shown apart from the goal; the others of kstatus's three say the same from the other side.
_ASIDE = (ConditionType.AVAILABLE, ConditionType.ROLLBACK_READY, ConditionType.SOURCE_REACHABLE)
# Shown where they want somebody's attention, and only there.
_WARNINGS = {
    ConditionType.AWAITING_APPROVAL: conditions.Status.TRUE,
    ConditionType.TRAFFIC_VERIFIED: conditions.Status.FALSE,
    ConditionType.UNGUARDED: conditions.Status.TRUE,
}


def _dataset(resource: Resource, with_namespace: bool) -> Iterator[Line]:
    status = resources.status(resource, dataset.DatasetStatus)
    detail = f"snapshot {status.snapshot}, {status.documents:,} documents" if status.snapshot else "no snapshot yet"
    if status.progress is not None:
        detail += f", {_progress(status.progress)}"
    phase = _phase(resource, status.phase)
    yield Line(0, _name(resource, "dataset", with_namespace), phase=phase, detail=detail)
    yield from _conditions(resource, status.conditions, 1)
    for version in status.versions:
        where = f"{version.name}@{version.snapshot}" if version.snapshot else version.name
        detail = f"recipe {version.recipe}, {version.documents:,} documents, {version.chunks:,} chunks"
        if version.progress is not None:
            detail += f", {_progress(version.progress)}"
        yield Line(1, f"version {where}", detail=detail)


def _deployment(resource: Resource, depth: int, with_namespace: bool, now: datetime) -> Iterator[Line]:
    status = resources.status(resource, deployment.DeploymentStatus)
    step = status.step
    yield Line(
        depth,
        _name(resource, "deployment", with_namespace),
        serving=status.serving_version or "-",
        target=resource["spec"]["version"],
        step="" if step is None else step.name if step.index is None else f"{step.index}/{step.of} {step.name}",
        queries=status.weight,
        phase=_phase(resource, status.phase),
    )
    yield from _conditions(resource, status.conditions, depth + 1)
    yield from _road(status, depth + 1, now)
    for index in status.indexes:
        where = f"{index.version}@{index.cursor.snapshot}" if index.cursor else index.version
        parts = [f"{index.rows:,} rows", index.name]
        if index.frozen:
            parts.insert(0, "frozen")
        if index.progress is not None:
            parts.insert(1, _progress(index.progress))
        parts.append(f"verified {resources.ago(index.verified_at, now)}" if index.verified_at else "not verified")
        yield Line(depth + 1, f"{index.role.lower()} {where}", queries=_share(index), detail=", ".join(parts))


def _road(status: deployment.DeploymentStatus, depth: int, now: datetime) -> Iterator[Line]:
    """Yield the step under way, until when going back is possible, what the gates said, and what was rejected."""
    step, rollback, goal = status.step, status.rollback, resources.goal(status.conditions)
    if step is not None:
        # Mostly the line of the goal says it already.
        is_said = goal is not None and step.waiting_for in goal.message
        parts = [] if is_said else [step.waiting_for]
        parts += [f"over {_when(step.until, now)}"] if step.until is not None else []
        parts += [f"given up {_when(step.deadline, now)}"] if step.deadline is not None else []
        if parts:
            yield Line(depth, f"step {step.name}", detail=", ".join(parts))
    if rollback is not None and rollback.until is not None:
        yield Line(depth, f"rollback {rollback.to}", detail=f"{_kept(rollback.until, now)}")
    for gate in status.gates:
        yield Line(depth, f"gate {gate.name}", phase=gate.verdict, detail=gate.message)
    for each in status.rejected:
        yield Line(depth, f"rejected {each.version}", detail=f"{each.message}, {resources.ago(each.at, now)}")


def _share(index: deployment.IndexStatus) -> str:
    """Return an index's share of the queries; what gateways take it for and what they measured, where that differs."""
    weight = index.weight
    if weight is None:
        return ""
    told = f"{weight.desired} %"
    if weight.accepted is not None and weight.accepted != weight.desired:
        told += f", {weight.accepted} % accepted"
    return told if weight.measured is None else f"{told}, {weight.measured} % measured"


def _kept(until: datetime, now: datetime) -> str:
    return f"retained for {resources.span((until - now).total_seconds())}" if until > now else "may be removed now"


def _when(moment: datetime, now: datetime) -> str:
    left = (moment - now).total_seconds()
    return f"in {resources.span(left)}" if left > 0 else resources.ago(moment, now)


def _conditions(resource: Resource, found: Sequence[Condition], depth: int) -> Iterator[Line]:
    generation = int(resources.metadata(resource).get("generation", 0))
    goal = resources.goal(list(found))
    if goal is None or goal.observed_generation < generation:
        yield Line(depth, "…", detail=f"the operator has not seen generation {generation} yet")
    if goal is not None:
        yield Line(depth, f"{'✗' if goal.type is ConditionType.STALLED else '✓'} {goal.type}", detail=goal.message)
    for kind in _ASIDE:
        condition = conditions.get(found, kind)
        if condition is not None:
            yield Line(depth, f"{_MARKS[condition.status]} {kind}", detail=condition.message)
    for kind, wanted in _WARNINGS.items():
        condition = conditions.get(found, kind)
        if condition is not None and condition.status is wanted:
            yield Line(depth, f"! {kind}", detail=condition.message)


def _phase(resource: Resource, phase: str) -> str:
    return "Deleting" if resources.metadata(resource).get("deletionTimestamp") else phase or "Unseen"


def _progress(progress: dataset.Progress) -> str:
    if not progress.total:
        return f"{progress.done:,} {progress.unit}"
    text = f"{100 * progress.done // progress.total} % of {progress.total:,} {progress.unit}"
    if progress.rate:
        text += f" at {progress.rate}"
    return f"{text}, {progress.remaining} left" if progress.remaining else text


def _narrow(
    reference: str, datasets: Sequence[Resource], deployments: Sequence[Resource]
) -> tuple[list[Resource], list[Resource]]:
    """Keep what has the name, and the deployments of a dataset that has it."""
    kind, name = resources.split(reference, (DATASET, DEPLOYMENT))
    kept = [r for r in datasets if kind in (None, DATASET) and resources.metadata(r)["name"] == name]
    keys = {_key(resource) for resource in kept}
    below = [
        r
        for r in deployments
        if _dataset_of(r) in keys or (kind in (None, DEPLOYMENT) and resources.metadata(r)["name"] == name)
    ]
    return kept, below


def _look_again(current: Session, namespace: str | None, reference: str | None, before: list[Line]) -> list[Line]:
    """Look once more; while the API server is away, what was seen last stays, with a line that says so."""
    try:
        return look(current, namespace, reference)
    except Retryable as error:
        notice = Line(0, "…", detail=error.message)
        return before if before and before[-1] == notice else [*before, notice]


def _name(resource: Resource, word: str, with_namespace: bool) -> str:
    namespace, name = _key(resource)
    return f"{word} {namespace}/{name}" if with_namespace else f"{word} {name}"


def _key(resource: Resource) -> tuple[str, str]:
    meta = resources.metadata(resource)
    return meta["namespace"], meta["name"]


def _dataset_of(resource: Resource) -> tuple[str, str]:
    return resources.metadata(resource)["namespace"], resource["spec"]["datasetRef"]["name"]


def _where(namespace: str | None) -> str:
    return "any namespace" if namespace is None else f"namespace {namespace}"
