"""What the ledger of a run remembers, and what only the first of two may put there."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.api.conditions import Reason
from pointsman.core import keys, rows
from pointsman.errors import Retryable, Terminal
from pointsman.store.ledger import Attempt, Ledger, Portion, Run
from pointsman.store.objects import Objects
from pointsman.store.root import Store

RUN = Run(snapshot=3, sequence=7, corpus_version=2, base=None, documents=25, per_portion=10, is_whole=True)
DONE = Portion(10, 12, 11, 40, ({"files": [{"path": "a.lance"}]},), (), "model", "r1")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Store(str(tmp_path)).dataset("search", "papers").ledger("recipe", 3)


def some(*names: str) -> pa.Array:
    return pa.array([name.encode().ljust(16, b".") for name in names], rows.KEY)


def batch(*names: str) -> pa.RecordBatch:
    count = len(names)
    columns = {
        "content_key": some(*names),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2 * count, np.float32)), 2),
        "embedded_at": pa.array([datetime(2030, 1, 1, tzinfo=UTC)] * count, pa.timestamp("us", tz="UTC")),
        "sequence": pa.array([1] * count, pa.int64()),
    }
    columns |= {name: pa.array([name] * count) for name in ("space", "model", "revision", "recipe")}
    schema = rows.vectors(2)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def test_a_run_is_divided_once_and_for_ever(ledger: Ledger) -> None:
    assert ledger.run() is None
    assert ledger.begin(RUN, None) == RUN
    assert ledger.begin(Run(3, 7, 2, None, 25, 5, True), None) == RUN
    assert RUN.portions == 3
    assert [ledger.offsets(RUN, n).tolist()[::9] for n in range(3)] == [[0, 9], [10, 19], [20]]


def test_a_part_of_the_corpus_is_divided_by_positions(ledger: Ledger) -> None:
    positions = np.array([2, 3, 5, 7, 11, 13, 17], dtype=np.int64)
    run = ledger.begin(Run(3, 7, 2, 1, 7, 3, False), positions)

    assert [ledger.offsets(run, n).tolist() for n in range(run.portions)] == [[2, 3, 5], [7, 11, 13], [17]]


@given(st.integers(1, 40), st.sets(st.integers(0, 200)))
def test_each_portion_that_is_left_has_one_shard(shards: int, left: set[int]) -> None:
    attempt = Attempt(1, shards, tuple(sorted(left)))

    dealt = [number for shard in range(shards) for number in attempt.of(shard)]
    assert sorted(dealt) == sorted(left)
    sizes = [len(attempt.of(shard)) for shard in range(shards)]
    assert max(sizes) - min(sizes) <= 1


def test_what_is_finished_is_not_dealt_again(ledger: Ledger) -> None:
    ledger.begin(RUN, None)
    assert ledger.deal(8) == Attempt(1, 3, (0, 1, 2))
    assert ledger.finish(1, DONE, some("a", "b"))

    assert ledger.deal(8) == Attempt(2, 2, (0, 2))
    assert ledger.attempt() == Attempt(2, 2, (0, 2))
    assert ledger.attempt(1) == Attempt(1, 3, (0, 1, 2))
    assert (ledger.is_finished(1), ledger.is_finished(2)) == (True, False)
    assert ledger.finished() == {1: DONE}


def test_of_two_that_finish_a_portion_the_first_stands(ledger: Ledger) -> None:
    other = Portion(10, 12, 0, 0, (), (), "model", "r2")

    assert ledger.finish(1, DONE, some("a"))
    assert not ledger.finish(1, other, some("b"))
    assert ledger.finished() == {1: DONE}
    assert ledger.keys(1).equals(some("a"))
    ledger.void(1)
    assert ledger.finished() == {}
    assert len(ledger.keys(1)) == 0


def test_what_a_run_has_finished_is_nothing_to_the_next(ledger: Ledger, tmp_path: Path) -> None:
    first, second = (dataclasses.replace(RUN, id=name) for name in ("a", "b"))
    silent = Store(str(tmp_path)).dataset("search", "papers").ledger("recipe", 3)
    ledger.begin(first, None)
    assert silent.run() == first

    ledger.forget()
    ledger.begin(second, None)
    assert silent.finish(2, DONE, some("a"))

    assert ledger.finished() == {}
    assert ledger.deal(1).left == (0, 1, 2)
    assert [each.finished() for each in ledger.runs()] == [{}, {2: DONE}, {}]


def test_whose_answer_was_lost_has_finished_its_portion_all_the_same(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Objects.create
    # The first try was carried out and answered 500, so the second finds its own object in its way.
    monkeypatch.setattr(Objects, "create", lambda *a: create(*a) and False)

    assert ledger.finish(1, DONE, some("a"))

    assert ledger.finished() == {1: DONE}
    assert ledger.keys(1).equals(some("a"))


def test_spills_are_kept_until_their_portion_is_finished(ledger: Ledger) -> None:
    ledger.spill(0, batch("a", "b"))
    ledger.spill(0, batch("c"))
    ledger.spill(2, batch("d"))

    found = [key for each in ledger.spills(0) for key in each.column("content_key").to_pylist()]
    assert sorted(found) == sorted(some("a", "b", "c").to_pylist())
    assert sorted(ledger.spilled()) == [0, 2]
    ledger.finish(0, DONE, some("a", "b", "c"))
    assert ledger.spilled() == [2]
    assert list(ledger.spills(0)) == []


def test_of_several_failures_what_only_an_edit_can_mend_comes_first(ledger: Ledger) -> None:
    ledger.fail(1, 0, Retryable(Reason.STORE_UNREACHABLE, "away"))
    ledger.fail(1, 0, Terminal(Reason.MODEL_CHANGED, "moved"))
    ledger.fail(2, 0, Retryable(Reason.WORK_LOST, "of another attempt"))

    found = ledger.failures(1)
    assert [(type(e), e.reason, e.message) for e in found] == [
        (Terminal, Reason.MODEL_CHANGED, "moved"),
        (Retryable, Reason.STORE_UNREACHABLE, "away"),
    ]


def test_an_attempt_that_is_over_is_told_from_one_under_way(ledger: Ledger) -> None:
    assert not ledger.is_closed(1)
    ledger.close(1)
    ledger.close(1)
    assert ledger.is_closed(1)


def test_nothing_is_left_of_a_run_that_is_forgotten(ledger: Ledger, tmp_path: Path) -> None:
    ledger.begin(Run(3, 7, 2, 1, 7, 3, False), np.arange(7, dtype=np.int64))
    ledger.deal(2)
    ledger.spill(0, batch("a"))
    ledger.finish(1, DONE, some("b"))
    ledger.fail(1, 0, Retryable(Reason.WORK_LOST, "lost"))
    ledger.close(1)

    ledger.forget()

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    with pytest.raises(Retryable, match="the run was given up"):
        ledger.deal(2)


def test_a_run_of_another_release_is_left_to_it(ledger: Ledger, tmp_path: Path) -> None:
    ledger.begin(RUN, None)
    (record,) = tmp_path.rglob("run.json")
    record.write_bytes(record.read_bytes().replace(b'"format":1', b'"format":9'))

    with pytest.raises(Terminal, match="has format 9, this release reads 1; install the release that wrote it"):
        ledger.run()


def test_a_damaged_record_is_named(ledger: Ledger, tmp_path: Path) -> None:
    ledger.begin(RUN, None)
    (record,) = tmp_path.rglob("run.json")
    record.write_bytes(b"")

    with pytest.raises(Terminal, match=r"run\.json in the store is damaged or of a later release"):
        ledger.run()


def test_runs_are_listed_by_recipe_and_snapshot(tmp_path: Path) -> None:
    dataset = Store(str(tmp_path)).dataset("search", "papers")
    assert dataset.runs() == []
    dataset.ledger("recipe", 3).begin(RUN, None)
    dataset.ledger("other", 12).begin(RUN, None)

    assert sorted(dataset.runs()) == [("other", 12), ("recipe", 3)]


KEYS = st.lists(st.binary(min_size=16, max_size=16) | st.sampled_from([b"a" * 16, b"a" * 8 + b"b" * 8]), max_size=60)


@given(st.lists(KEYS, max_size=6))
def test_a_set_of_keys_that_grows_knows_what_was_added(parts: list[list[bytes]]) -> None:
    found, known = keys.KeySet(), set[bytes]()
    for part in parts:
        asked = pa.array(part, rows.KEY)
        assert found.contains(asked).tolist() == [key in known for key in part]
        assert found.missing(asked).to_pylist() == [key for key in dict.fromkeys(part) if key not in known]
        found.add(asked)
        known |= set(part)


@given(st.lists(KEYS, max_size=4))
def test_a_key_that_comes_again_is_found_within_and_between_parts(parts: list[list[bytes]]) -> None:
    whole = [key for part in parts for key in part]

    assert keys.any_repeated([pa.array(part, rows.KEY) for part in parts]) == (len(set(whole)) < len(whole))
    again = [key in whole[:n] for n, key in enumerate(whole)]
    assert keys.repeated(pa.array(whole, rows.KEY)).tolist() == again
