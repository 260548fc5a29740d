"""Reads query sets: what is in them, and whether they can be used to judge anything.

A query set is small and is read where it is asked for. Its status is all that comes of it: there is nothing to plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import orjson

from pointsman.api import base
from pointsman.api import conditions as conditions_api
from pointsman.api import dataset as dataset_api
from pointsman.api import queryset as api
from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.controller import credentials
from pointsman.controller.world import World
from pointsman.core import judgements
from pointsman.errors import Terminal
from pointsman.plan import words
from pointsman.sources import registry as sources

MOST_ROWS = 200_000
"""Rows of queries or judgements that are read at most."""


def read(spec: api.Spec, namespace: str, world: World) -> judgements.QuerySet:
    """Return a query set; raises what its sources raise, and Terminal(SOURCE_INVALID) for a set that judges nothing."""
    if spec.queries.inline is not None:
        return judgements.inline(spec.queries.inline)
    assert spec.queries.files is not None and spec.judgements.files is not None, "the API's rules ask for both"
    return judgements.load(
        _rows(spec.queries.files, "id", namespace, world), _rows(spec.judgements.files, "query", namespace, world)
    )


def status(
    spec: api.Spec, found: judgements.QuerySet, before: api.QuerySetStatus, generation: int, now: datetime
) -> tuple[api.QuerySetStatus, timedelta]:
    """Return what to say of a set that could be read, and when to read it again."""
    groups = len(set(found.groups.values()))
    message = f"{len(found.queries):,} queries in {groups:,} groups with {found.judged:,} judgements"
    goal = words.goal((ConditionType.READY, Reason.UP_TO_DATE, message), generation, now)
    conditions: list[Condition] = conditions_api.merge(before.conditions, goal)
    said = api.QuerySetStatus(
        observed_generation=generation,
        conditions=conditions,
        effective=api.effective(spec),
        queries=len(found.queries),
        groups=groups,
        judgements=found.judged,
        digest=found.digest,
    )
    return said, base.parse_duration(spec.refresh.every)


def _rows(files: dataset_api.FilesSource, id_field: str, namespace: str, world: World) -> Iterator[dict[str, Any]]:
    source = dataset_api.Source(files=files, id_field=id_field)
    secrets = credentials.of_source(world.cluster, namespace, source, world.access)
    count = 0
    for batch in sources.open_source(source, secrets, world.access).read():
        for row in batch.to_pylist():
            if (count := count + 1) > MOST_ROWS:
                message = f"{files.uri} has more than {MOST_ROWS:,} rows; wanted a set that a person could judge"
                raise Terminal(Reason.SOURCE_INVALID, message)
            yield {id_field: row["id"], **orjson.loads(row["fields"])}
