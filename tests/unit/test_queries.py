"""Reading a query set as a worker does: numbers are written down, and a set that judges nothing is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pointsman.api import queryset as api
from pointsman.api.conditions import Reason
from pointsman.core import rows
from pointsman.errors import Terminal
from pointsman.plan import facts
from pointsman.sources.memory import MemorySource
from pointsman.store.log import RecordLog
from pointsman.store.root import Store
from pointsman.work import queries

NOW = datetime(2026, 3, 1, tzinfo=UTC)
QUERIES = [{"id": "q1", "text": "how to fly", "group": "birds"}, {"id": "q2", "text": "how to swim"}]
JUDGEMENTS = [{"query": "q1", "document": "d1", "grade": 2}, {"query": "q2", "document": "d2"}]


@pytest.fixture
def log(tmp_path: Path) -> RecordLog:
    return Store(str(tmp_path)).log("querysets", "search", "papers")


def spec(kind: str = "Complete") -> api.Spec:
    files = {"uri": "file:///data/a.jsonl", "format": "jsonl"}
    return api.Spec.model_validate({"queries": {"files": files}, "judgements": {"files": files, "kind": kind}})


def read(log: RecordLog, asked: list[dict[str, Any]], judged: list[dict[str, Any]], kind: str = "Complete") -> None:
    sources = (MemorySource(asked), MemorySource(judged, "query"))
    queries.read(spec(kind), sources, log, "source", NOW, lambda done, total: None)


def test_what_was_found_is_written_down_in_numbers(log: RecordLog) -> None:
    read(log, QUERIES, JUDGEMENTS)

    found = log.read()
    assert found is not None
    record = facts.query_set_from_json(found.value)
    assert (record.source, record.queries, record.groups, record.judgements) == ("source", 2, 2, 2)
    assert record.read_at == NOW
    assert "fly" not in str(found.value) and "d1" not in str(found.value)


def test_a_set_that_is_read_again_follows_the_one_before(log: RecordLog) -> None:
    read(log, QUERIES, JUDGEMENTS)
    read(log, QUERIES[:1], JUDGEMENTS[:1])

    found = log.read()
    assert found is not None
    assert (found.revision, facts.query_set_from_json(found.value).queries) == (2, 1)


def test_a_refused_set_leaves_what_was_read_before(log: RecordLog) -> None:
    read(log, QUERIES, JUDGEMENTS)
    with pytest.raises(Terminal) as error:
        read(log, QUERIES, [*JUDGEMENTS, {"query": "gone", "document": "d"}])

    assert error.value.message == "the query set is refused: 1 judgements of a query that is not there (row 3)"
    found = log.read()
    assert found is not None
    assert found.revision == 1


def test_a_known_item_has_one_document_of_grade_1(log: RecordLog) -> None:
    read(
        log,
        QUERIES,
        [{"query": "q1", "document": "d1"}, {"query": "q1", "document": "d9", "grade": 0}, JUDGEMENTS[1]],
        "KnownItem",
    )
    with pytest.raises(Terminal) as error:
        read(log, QUERIES, JUDGEMENTS, "KnownItem")

    what = "queries of a KnownItem set with another answer than one document of grade 1"
    assert error.value.message == f"the query set is refused: 1 {what} (row 1)"


class Endless:
    """A file whose rows never end."""

    def read(self) -> Iterator[pa.RecordBatch]:
        number = 0
        while True:
            ids = [str(number + at) for at in range(10_000)]
            yield pa.RecordBatch.from_pydict({"id": ids, "fields": ['{"text":"t"}'] * len(ids)}, schema=rows.DOCUMENTS)
            number += len(ids)


def test_a_set_that_no_person_could_judge_is_refused_before_it_fills_the_memory(log: RecordLog) -> None:
    with pytest.raises(Terminal) as error:
        queries.read(spec(), (Endless(), MemorySource([])), log, "source", NOW, lambda done, total: None)

    assert error.value.reason is Reason.SOURCE_INVALID
    assert error.value.message == "there are more than 200,000 rows of queries; wanted a set that a person could judge"
