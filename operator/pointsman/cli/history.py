"""What was when: which index a deployment served from, and which snapshots a dataset had."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pointsman.api import deployment
from pointsman.api.conditions import Reason
from pointsman.cli import points, resources, session
from pointsman.cli.session import Session
from pointsman.cluster.resources import DATASET, DEPLOYMENT, Resource
from pointsman.errors import Terminal

if TYPE_CHECKING:
    from rich.table import Table


def run(current: Session, reference: str, store: str | None) -> int:
    """Print the history of a deployment from its status, or of a dataset from the store; return the exit code."""
    kind, name = resources.split(reference, (DEPLOYMENT, DATASET))
    if kind is None:
        kind, _ = resources.find(current, reference, (DEPLOYMENT, DATASET))
    if kind == DATASET:
        _dataset(current, name, store)
    else:
        _deployment(resources.find(current, reference, (DEPLOYMENT,))[1])
    return 0


def _deployment(resource: Resource) -> None:
    status = resources.status(resource, deployment.DeploymentStatus)
    out = session.console()
    if not status.history:
        out.print("nothing has served yet")
        return
    table = _table("SINCE", "SERVED", "FOR", "INDEX")
    for at, entry in enumerate(status.history):
        following = status.history[at + 1].at if at + 1 < len(status.history) else None
        lasted = resources.span((following - entry.at).total_seconds()) if following is not None else "now"
        table.add_row(_time(entry.at), f"{entry.version}@{entry.snapshot}", lasted, entry.index)
    out.print(table)


def _dataset(current: Session, name: str, store: str | None) -> None:
    dataset = current.dataset(name, store)
    snapshots = dataset.snapshots()
    if not snapshots:
        raise Terminal(Reason.SNAPSHOT_NOT_FOUND, points.nothing(name))
    versions: dict[int, list[str]] = {}
    for version, recipe in sorted(dataset.pins().items()):
        for record in dataset.embedded(recipe.key):
            versions.setdefault(record.snapshot, []).append(version)
    table = _table("SNAPSHOT", "AT", "DOCUMENTS", "ADDED", "DELETED", "EDITED", "UNCHANGED", "EMBEDDED AS")
    for each in snapshots:
        counts = (each.documents, each.added, each.deleted, each.edited, each.unchanged)
        embedded = ", ".join(versions.get(each.number, [])) or "-"
        table.add_row(str(each.number), _time(each.created_at), *(f"{count:,}" for count in counts), embedded)
    session.console().print(table)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _table(*headers: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, justify="right" if header in _NUMBERS else "left")
    return table


_NUMBERS = {"SNAPSHOT", "DOCUMENTS", "ADDED", "DELETED", "EDITED", "UNCHANGED"}
