"""Queries with their judged answers: rows made into a set that can be evaluated, or refused with counts and places."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.api import queryset as api
from pointsman.api.conditions import Reason
from pointsman.core import evaluation, recipes
from pointsman.errors import Terminal

Row = Mapping[str, Any]

_SHOWN = 3
_DIGEST_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Judged queries; all mappings are keyed by the query's id, in the order of the rows."""

    queries: Mapping[str, str]
    """The text of each."""
    groups: Mapping[str, str]
    """The group of each: queries of one group hang together and count as one sample."""
    judgements: Mapping[str, Mapping[str, float]]
    """The grade of each judged document; at least one is above 0."""
    digest: str
    """The content as a digest, whatever the order of the rows."""

    @property
    def judged(self) -> int:
        """How many judgements there are."""
        return sum(len(grades) for grades in self.judgements.values())


def load(queries: Iterable[Row], judgements: Iterable[Row], kind: api.Kind = "Complete") -> QuerySet:
    """Make a set from rows of `id`, `text` and perhaps `group`, and of `query`, `document` and perhaps `grade`.

    A query without a group is one of its own, but queries of one text always share theirs. A judgement without a grade
    has 1. A known item is the one right answer: in such a set each query has one judgement above 0, of grade 1. Raises
    Terminal(SOURCE_INVALID) with every kind of mistake, how often it occurs and where first, never with contents;
    places are rows counted from 1.
    """
    refused = _Refused()
    texts, groups, places = _queries(queries, refused)
    grades = _judgements(judgements, places, refused)
    refused.check()
    for query, place in places.items():
        if not any(grade > 0 for grade in grades[query].values()):
            refused.add("queries", "without a relevant document", place)
        elif kind == "KnownItem" and [grade for grade in grades[query].values() if grade != 0] != [1.0]:
            refused.add("queries", "of a KnownItem set with another answer than one document of grade 1", place)
    refused.check()
    if not texts:
        raise Terminal(Reason.SOURCE_INVALID, "the query set is empty; wanted at least one query")
    groups = _joined(texts, groups)
    content = {query: [text, groups[query], sorted(grades[query].items())] for query, text in texts.items()}
    return QuerySet(texts, groups, grades, recipes.digest(content, _DIGEST_CHARACTERS))


def inline(queries: Sequence[api.Query], kind: api.Kind = "Complete") -> QuerySet:
    """Make a set from the queries that stand in a resource itself."""
    return load(
        ({"id": query.id, "text": query.text, "group": query.group} for query in queries),
        ({"query": query.id, "document": document} for query in queries for document in query.relevant),
        kind,
    )


@dataclass(slots=True)
class _Refused:
    """Mistakes by kind, each with the rows where it occurs."""

    rows: dict[str, list[int]] = field(default_factory=dict)

    def add(self, where: str, what: str, row: int) -> None:
        self.rows.setdefault(f"{where} {what}", []).append(row)

    def check(self) -> None:
        if self.rows:
            clauses = (f"{len(rows)} {what} ({_places(rows)})" for what, rows in self.rows.items())
            raise Terminal(Reason.SOURCE_INVALID, f"the query set is refused: {'; '.join(clauses)}")


def _places(rows: list[int]) -> str:
    shown = ", ".join(str(row) for row in rows[:_SHOWN])
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{', …' if len(rows) > _SHOWN else ''}"


def _queries(rows: Iterable[Row], refused: _Refused) -> tuple[dict[str, str], dict[str, str], dict[str, int]]:
    texts: dict[str, str] = {}
    groups: dict[str, str] = {}
    places: dict[str, int] = {}
    for place, row in enumerate(rows, start=1):
        query, text, group = _identifier(row.get("id")), row.get("text"), row.get("group")
        if not query:
            refused.add("queries", "without an id", place)
            continue
        if query in places:
            refused.add("queries", "with the id of another", place)
            continue
        places[query] = place
        if not isinstance(text, str) or not text.strip():
            refused.add("queries", "without a text", place)
        elif group not in (None, "") and not _identifier(group):
            refused.add("queries", "with a group that is no text", place)
        else:
            texts[query], groups[query] = text, _identifier(group) or evaluation.own_group(query)
    return texts, groups, places


def _judgements(rows: Iterable[Row], queries: Iterable[str], refused: _Refused) -> dict[str, dict[str, float]]:
    grades: dict[str, dict[str, float]] = {query: {} for query in queries}
    for place, row in enumerate(rows, start=1):
        query, document = _identifier(row.get("query")), _identifier(row.get("document"))
        grade = _grade(row.get("grade"))
        if not query or not document:
            refused.add("judgements", "without a query or a document", place)
        elif query not in grades:
            refused.add("judgements", "of a query that is not there", place)
        elif document in grades[query]:
            refused.add("judgements", "of a pair that was judged before", place)
        elif grade is None:
            refused.add("judgements", "with a grade that is no number", place)
        else:
            grades[query][document] = grade
    return grades


def _grade(value: Any) -> float | None:
    """A grade as a number; CSV has it as text. None where it is none."""
    if value is None or value == "":
        return 1.0
    try:
        grade = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return grade if math.isfinite(grade) else None


def _identifier(value: Any) -> str:
    """An id as text; files of numbers have numeric ids. Empty where it is none."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _joined(texts: Mapping[str, str], groups: Mapping[str, str]) -> dict[str, str]:
    """Let queries of one text share a group, and with them all queries of their groups."""
    leader: dict[str, str] = {}

    def lead(group: str) -> str:
        while leader.get(group, group) != group:
            group = leader[group]
        return group

    first: dict[str, str] = {}
    for query, text in texts.items():
        one, other = sorted((lead(groups[query]), lead(first.setdefault(text.strip(), groups[query]))))
        leader[other] = one
    return {query: lead(group) for query, group in groups.items()}
