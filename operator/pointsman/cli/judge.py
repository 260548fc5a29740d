"""What should people judge next? Queries and documents by their ids, to be filled in; who found them is not told."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable
from typing import Literal

from pointsman.api import queryset
from pointsman.api.conditions import Reason
from pointsman.cli import deployments, resources, session
from pointsman.cli.session import Session
from pointsman.cluster.resources import DEPLOYMENT, QUERY_SET
from pointsman.errors import Terminal

UNKNOWN = "?"
"""The grade that is to be filled in. One that is left is refused where judgements are read; none would count as 1."""
Pair = tuple[str, str]


def run(current: Session, reference: str, most: int, output: Literal["csv", "jsonl"], store: str | None) -> int:
    """Print what is to be judged as judgements without grades, the most telling first; return the exit code."""
    from pointsman.plan import unjudged
    from pointsman.plan.tasks import Key
    from pointsman.work import jobs

    seen = deployments.read(current, reference)
    gate = seen.spec.gates.evaluation
    if gate is None:
        message = f"spec.gates.evaluation of {seen.name} is not there: it names no queries to judge by"
        raise Terminal(Reason.NO_EVALUATION_GATE, message)
    name = gate.query_set_ref.name
    digest = _digest(current, seen.namespace, name)
    log = current.store(store).log(*jobs.answers_log(Key(DEPLOYMENT, seen.namespace, seen.name), jobs.UNJUDGED))
    record = log.read()
    found = None if record is None else unjudged.from_json(record.value)
    if found is None or found.query_set != name:
        message = f"no evaluation of {seen.name} by {name} has listed anything yet; ask for one: pointsman evaluate"
        raise Terminal(Reason.SNAPSHOT_NOT_FOUND, f"{message} {seen.name}")
    shown = found.pairs[:most]
    sys.stdout.write(_csv(shown) if output == "csv" else _lines(shown))
    out, age = session.console(to_stderr=True), resources.ago(found.measured_at, current.world.now())
    out.print(f"{len(shown):,} of {found.total:,} unjudged pairs of {name} by {found.metric}, {age}", soft_wrap=True)
    if digest and digest != found.digest:
        out.print(f"{name} has changed since: pointsman evaluate {seen.name} lists them anew", soft_wrap=True)
    return 0


def _digest(current: Session, namespace: str, name: str) -> str:
    """Return what a query set holds now, as far as is known; raises Terminal for one that has no holes by its kind."""
    resource = current.cluster.get(QUERY_SET, namespace, name)
    if resource is None:
        raise Terminal(Reason.QUERY_SET_NOT_FOUND, f"QuerySet {name} is not there in {namespace}")
    kind = resource["spec"].get("judgements", {}).get("kind", "Complete")
    if kind != "Pooled":
        message = f"judgements of {name} are {kind}: what is unjudged counts as not relevant, and nothing lacks"
        raise Terminal(Reason.INVALID_SPEC, message)
    return resources.status(resource, queryset.QuerySetStatus).digest


def _csv(pairs: Iterable[Pair]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("query", "document", "grade"))
    writer.writerows((query, document, UNKNOWN) for query, document in pairs)
    return text.getvalue()


def _lines(pairs: Iterable[Pair]) -> str:
    rows = ({"query": query, "document": document, "grade": UNKNOWN} for query, document in pairs)
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
