"""What the gates said last, with their numbers; who answers which queries; what was rejected, and on what evidence."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pointsman.api.deployment import Verdict
from pointsman.cli import deployments, resources, session, why
from pointsman.cli.deployments import Deployment
from pointsman.cli.session import Session

if TYPE_CHECKING:
    from rich.table import Table

_TOLD = (
    "servingVersion",
    "targetVersion",
    "planHash",
    "weight",
    "step",
    "gates",
    "evaluations",
    "canaries",
    "shadow",
    "rejected",
    "rollback",
    "drill",
    "conditions",
)
"""The fields of a status that explain it."""
_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "red", Verdict.INCONCLUSIVE: "yellow", Verdict.ERROR: "red"}


def run(current: Session, reference: str, output: Literal["text", "json", "yaml"]) -> int:
    """Print the evidence; return the exit code."""
    seen = deployments.read(current, reference)
    if output == "json":
        session.console().print(json.dumps(told(seen), ensure_ascii=False), soft_wrap=True)
    elif output == "yaml":
        import yaml

        text = yaml.safe_dump(told(seen), sort_keys=False, allow_unicode=True)
        session.console().print(text, end="", soft_wrap=True)
    else:
        _print(seen, current.world.now())
    return 0


def told(seen: Deployment) -> dict[str, Any]:
    """Return the evidence as data, as the status has it."""
    status = seen.resource.get("status") or {}
    indexes = [
        {key: index[key] for key in ("name", "version", "role", "cursor", "weight") if key in index}
        for index in status.get("indexes", ())
    ]
    route = {key: value for key, value in (status.get("route") or {}).items() if key in ("epoch", "revision", "shadow")}
    about = {"namespace": seen.namespace, "name": seen.name}
    return about | {key: status[key] for key in _TOLD if key in status} | {"indexes": indexes, "route": route}


def _print(seen: Deployment, now: datetime) -> None:
    out, status = session.console(), seen.status
    place = f", step {why.place(seen)}" if why.place(seen) else ""
    out.print(f"{seen.name}: {seen.serving or 'nothing'} serves, {seen.spec.version} is wanted{place}", soft_wrap=True)
    if not seen.is_observed:
        generation = resources.metadata(seen.resource).get("generation", 0)
        text = f"the operator has not seen generation {generation} yet: this is about {status.observed_generation}"
        out.print(text, soft_wrap=True)
    for title, table in (
        ("what the gates said", gates(seen, now)),
        ("evaluations", _evaluations(seen, now)),
        ("canaries", _canaries(seen, now)),
        ("who was asked beside", _shadow(seen)),
        ("who answers", _weights(seen)),
        ("what was rejected", _rejected(seen, now)),
    ):
        if table is not None:
            out.print(f"\n{title}")
            out.print(table)
    if not status.gates:
        out.print("\nno gate has said anything yet")


def gates(seen: Deployment, now: datetime) -> Table | None:
    """Return what the gates said, one a line; None where nothing was said."""
    from rich.text import Text

    if not seen.status.gates:
        return None
    table = _table("GATE", "VERSION", "VERDICT", "VALUE", "WANTED", "INTERVAL", "SAMPLES", "WHEN", "")
    for gate in seen.status.gates:
        table.add_row(
            gate.name,
            gate.version,
            Text(gate.verdict, style=_STYLES[gate.verdict]),
            gate.value or "-",
            gate.wanted or "-",
            gate.interval or "-",
            f"{gate.samples:,}" if gate.samples else "-",
            resources.ago(gate.measured_at, now),
            gate.message,
        )
    return table


def _evaluations(seen: Deployment, now: datetime) -> Table | None:
    if not seen.status.evaluations:
        return None
    is_pooled = any(each.judged for each in seen.status.evaluations)
    names = (
        "WHEN",
        "VERSION",
        "VALUE",
        "AGAINST",
        "DIFFERENCE",
        "BOUNDS",
        "RECALL",
        *(("JUDGED",) if is_pooled else ()),
    )
    table = _table(*names)
    for each in seen.status.evaluations:
        compared = (each.against or "-", each.difference or "-", each.interval or "-")
        beside = [_beside(each.recall, each.against_recall), *([_beside(each.judged, each.against_judged)] * is_pooled)]
        table.add_row(resources.ago(each.at, now), each.version, each.value, *compared, *beside)
    return table


def _beside(ours: str, theirs: str) -> str:
    """Return a share of a version, and that of the one which it was compared with."""
    return f"{ours} / {theirs}" if ours and theirs else ours or "-"


def _shadow(seen: Deployment) -> Table | None:
    found = seen.status.shadow
    if found is None:
        return None
    table = _table("VERSION", "BESIDE", "SHARE", "COMPARED", "OVERLAP", "CORRELATION")
    share = f"{found.percent} %" if found.percent else "over"
    figures = (f"{found.queries:,}", found.overlap or "-", found.correlation or "-")
    table.add_row(found.version, found.against or "-", share, *figures)
    return table


def _canaries(seen: Deployment, now: datetime) -> Table | None:
    if not seen.status.canaries:
        return None
    table = _table("WHEN", "VERSION", "FOUND", "AGAINST", "OVERLAP", "KEPT")
    for each in seen.status.canaries:
        compared = (each.against or "-", each.overlap or "-", each.kept or "-")
        table.add_row(resources.ago(each.at, now), each.version, each.found, *compared)
    return table


def _weights(seen: Deployment) -> Table | None:
    found = [index for index in seen.status.indexes if index.weight is not None]
    if not found:
        return None
    table = _table("VERSION", "INDEX", "ROLE", "DESIRED", "ACCEPTED", "MEASURED")
    for index in found:
        weight = index.weight
        assert weight is not None
        shares = ("-" if each is None else f"{each}" for each in (weight.desired, weight.accepted, weight.measured))
        table.add_row(index.version, index.name, index.role, *shares)
    return table


def _rejected(seen: Deployment, now: datetime) -> Table | None:
    if not seen.status.rejected:
        return None
    table = _table("VERSION", "WHEN", "REASON", "RETRY", "")
    for each in seen.status.rejected:
        again = "asked for" if each.retry != seen.spec.retry else "-"
        table.add_row(each.version, resources.ago(each.at, now), each.reason, again, each.message)
    return table


def _table(*headers: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(
            header,
            justify="right" if header in _NUMBERS else "left",
            no_wrap=bool(header),
            overflow="fold",
        )
    return table


_NUMBERS = {
    "VALUE",
    "SAMPLES",
    "DESIRED",
    "ACCEPTED",
    "MEASURED",
    "DIFFERENCE",
    "FOUND",
    "KEPT",
    "COMPARED",
    "OVERLAP",
    "CORRELATION",
}
