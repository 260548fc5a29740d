"""Reading a query set: its rows made into a set that judges, and what was found written down in numbers.

A set that judges nothing, or breaks its own rules, is refused with counts and places; then nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson

from pointsman import ports
from pointsman.api import queryset as api
from pointsman.api.conditions import Reason
from pointsman.core import judgements
from pointsman.errors import Terminal
from pointsman.plan import facts
from pointsman.store.log import RecordLog
from pointsman.work.progress import Report

MOST_ROWS = 200_000
"""Rows of queries or judgements that are read at most."""


def read(
    spec: api.Spec,
    sources: tuple[ports.Source, ports.Source] | None,
    log: RecordLog,
    digest: str,
    now: datetime,
    report: Report,
) -> None:
    """Read a set and write its record; raises as `load` does."""
    found = load(spec, sources, report)
    record = facts.QuerySetRecord(
        source=digest,
        queries=len(found.queries),
        groups=len(set(found.groups.values())),
        judgements=found.judged,
        digest=found.digest,
        read_at=now,
    )
    before = log.read()
    log.write(facts.query_set_to_json(record), after=0 if before is None else before.revision)


def load(spec: api.Spec, sources: tuple[ports.Source, ports.Source] | None, report: Report) -> judgements.QuerySet:
    """Return a set, from its two sources or from the spec itself.

    Raises what the sources raise, and Terminal(SOURCE_INVALID) for a set that cannot judge anything.
    """
    if spec.queries.inline is not None:
        return judgements.inline(spec.queries.inline, spec.judgements.kind)
    assert sources is not None, "the API's rules ask for files of both kinds"
    queries, judged = sources
    return judgements.load(
        _rows(queries, "queries", "id", report),
        _rows(judged, "judgements", "query", report),
        spec.judgements.kind,
    )


def _rows(source: ports.Source, what: str, id_field: str, report: Report) -> Iterator[dict[str, Any]]:
    count = 0
    for batch in source.read():
        for row in batch.to_pylist():
            if (count := count + 1) > MOST_ROWS:
                message = f"there are more than {MOST_ROWS:,} rows of {what}; wanted a set that a person could judge"
                raise Terminal(Reason.SOURCE_INVALID, message)
            yield {id_field: row["id"], **orjson.loads(row["fields"])}
        report(count, 0)
