"""`pointsman judge`: what people should judge next, to be filled in, without a word of which version found it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli import migrations
from tests.unit.cli.bench import NOON, Bench

from pointsman.core import judgements
from pointsman.core.holes import Unjudged
from pointsman.errors import Terminal
from pointsman.plan import unjudged
from pointsman.plan.tasks import Key
from pointsman.store.root import Store
from pointsman.work import jobs

FOUND = [("q2", "doc, 9"), ("q1", "doc-4"), ("q2", "doc-1")]


def query_set(bench: Bench, kind: str = "Pooled", digest: str = "d1") -> None:
    files = {"uri": "file:///data/judged.jsonl", "format": "jsonl"}
    spec = {"queries": {"files": files}, "judgements": {"files": files, "kind": kind}}
    meta = {"namespace": "default", "name": "papers-eval"}
    bench.apply({"kind": "QuerySet", "metadata": meta, "spec": spec}, {"digest": digest})


@pytest.fixture
def store(bench: Bench, tmp_path: Path) -> str:
    """A store in which an evaluation has listed what lacks; the deployment and its query set are there."""
    migrations.put(bench, migrations.undecided())
    query_set(bench)
    pairs = [Unjudged(query, document, 1.0) for query, document in FOUND]
    listed = unjudged.of("papers-eval", "d1", "nDCG@10", NOON - timedelta(minutes=5), pairs)
    log = Store(str(tmp_path)).log(*jobs.answers_log(Key("IndexDeployment", "default", "papers"), "unjudged"))
    log.write(unjudged.to_json(listed), after=0)
    return str(tmp_path)


def test_pairs_are_listed_in_the_form_in_which_judgements_are_read(bench: Bench, store: str) -> None:
    answer = bench.run("judge", "papers", "--store", store)

    assert answer.code == 0
    assert answer.out == 'query,document,grade\nq2,"doc, 9",?\nq1,doc-4,?\nq2,doc-1,?\n'
    assert answer.err == "3 of 3 unjudged pairs of papers-eval by nDCG@10, 5m0s ago\n"


def test_as_many_as_are_asked_for_as_json_lines(bench: Bench, store: str) -> None:
    answer = bench.run("judge", "papers", "--most", "2", "-o", "jsonl", "--store", store)

    assert [json.loads(line) for line in answer.lines] == [
        {"query": "q2", "document": "doc, 9", "grade": "?"},
        {"query": "q1", "document": "doc-4", "grade": "?"},
    ]
    assert answer.err.startswith("2 of 3 unjudged pairs")


def test_a_grade_that_was_left_open_is_refused_and_no_answer_to_anything(bench: Bench, store: str) -> None:
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in bench.run("judge", "papers", "-o", "jsonl", "--store", store).lines
    ]
    queries = [{"id": "q1", "text": "one"}, {"id": "q2", "text": "two"}]
    with pytest.raises(Terminal, match="3 judgements with a grade that is no number"):
        judgements.load(queries, rows, "Pooled")

    filled = [{**row, "grade": grade} for row, grade in zip(rows, (1, 2, 0), strict=True)]
    assert judgements.load(queries, filled, "Pooled").judged == 3


def test_a_set_that_has_changed_since_is_said_to_have(bench: Bench, store: str) -> None:
    query_set(bench, digest="d2")

    answer = bench.run("judge", "papers", "--store", store)

    assert (answer.code, len(answer.lines)) == (0, 4)
    assert answer.err.endswith("papers-eval has changed since: pointsman evaluate papers lists them anew\n")


def test_what_has_no_holes_has_nothing_to_judge(bench: Bench, store: str) -> None:
    query_set(bench, kind="Complete")

    answer = bench.run("judge", "papers", "--store", store)

    assert (answer.code, answer.out) == (3, "")
    assert answer.err == (
        "error: judgements of papers-eval are Complete: what is unjudged counts as not relevant, and nothing lacks\n"
    )


def test_before_the_first_evaluation_nothing_is_known(bench: Bench, tmp_path: Path) -> None:
    migrations.put(bench, migrations.undecided())
    query_set(bench)

    answer = bench.run("judge", "papers", "--store", str(tmp_path))

    assert answer.code == 3
    said = "no evaluation of papers by papers-eval has listed anything yet; ask for one: pointsman evaluate papers"
    assert answer.err == f"error: {said}\n"


def test_without_a_gate_or_a_set_there_is_nothing_to_judge_by(bench: Bench, tmp_path: Path) -> None:
    migrations.put(bench, migrations.undecided())
    missing = bench.run("judge", "papers", "--store", str(tmp_path))
    migrations.put(bench, migrations.undecided(), {"gates": {}})
    ungated = bench.run("judge", "papers", "--store", str(tmp_path))

    assert (missing.code, missing.err) == (3, "error: QuerySet papers-eval is not there in default\n")
    assert ungated.code == 3
    assert ungated.err == "error: spec.gates.evaluation of papers is not there: it names no queries to judge by\n"


def test_no_more_is_kept_than_people_would_judge() -> None:
    many = [Unjudged("q1", f"doc-{n}", 1.0) for n in range(unjudged.MOST + 1)]

    kept = unjudged.of("papers-eval", "d1", "nDCG@10", NOON, many)

    assert (len(kept.pairs), kept.total) == (unjudged.MOST, unjudged.MOST + 1)
    assert unjudged.from_json(unjudged.to_json(kept)) == kept
