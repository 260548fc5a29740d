"""Facts outlive the release that wrote them: fields are only added, and what cannot be read is not guessed at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role
from pointsman.core.rows import Cursor
from pointsman.errors import Terminal
from pointsman.plan import facts
from pointsman.plan.facts import Facts, Index, IndexRecord, Promotion, QuerySetRecord

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KNOWN = Facts(
    indexes=(Index("pm_1", "v7", "abc", "p", Role.SERVING, frozen=3, since=NOW),),
    made=1,
    route=1,
    history=(Promotion("v7", "pm_1", 12, NOW),),
)
RECORD = IndexRecord(
    cursor=Cursor(12, 12), rows=3, digest="d", verified_at=NOW, checked_at=NOW, pending=13, doubted_at=NOW
)
QUERIES = QuerySetRecord("s", 1, 1, 2, "d", NOW)

CASES: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], Any], Any]] = {
    "of a deployment": (facts.to_json(KNOWN), facts.from_json, KNOWN),
    "of an index": (facts.record_to_json(RECORD), facts.record_from_json, RECORD),
    "of a query set": (facts.query_set_to_json(QUERIES), facts.query_set_from_json, QUERIES),
}


def with_more(value: Any) -> Any:
    """Return a value as a later release would write it, with a field more in every object."""
    if isinstance(value, dict):
        return {**{name: with_more(part) for name, part in value.items()}, "later": [1]}
    return [with_more(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES)
def test_facts_are_read_as_they_were_written_and_fields_of_a_later_release_are_passed_over(case: str) -> None:
    written, read, wanted = CASES[case]

    assert read(written) == wanted
    assert read(with_more(written)) == wanted


@pytest.mark.parametrize("case", CASES)
def test_facts_of_a_later_format_stop_this_release(case: str) -> None:
    written, read, _ = CASES[case]

    with pytest.raises(Terminal) as error:
        read({**written, "format": 2})

    assert error.value.reason is Reason.STORE_UNREACHABLE
    wanted = "a record of the store has format 2, this release reads 1; install the release that wrote it"
    assert error.value.message == wanted
