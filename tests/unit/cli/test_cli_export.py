"""`pointsman export`: one embedded snapshot as a Parquet file."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from tests.unit.cli.bench import V7, Bench


def test_each_row_has_its_text_its_vector_and_where_it_came_from(stored: Bench, tmp_path: Path) -> None:
    to = tmp_path / "papers.parquet"

    answer = stored.run("export", "papers", "v7@2", "--to", str(to))

    assert (answer.code, answer.out) == (0, f"wrote 3 rows of v7@2 to {to}\n")
    rows = {row["document"]: row for row in pq.read_table(to).to_pylist()}
    assert sorted(rows) == ["a", "b", "d"]
    row = rows["b"]
    assert len(row.pop("point_id")) == len(row.pop("content_key")) == 16
    assert row == {
        "document": "b",
        "ordinal": 0,
        "text": "after",
        "metadata": '{"kind":"paper"}',
        "sequence": 2,
        # Five letters: the axis of the bench's embedding.
        "vector": [0.0, 1.0, 0.0, 0.0],
        "version": "v7",
        "snapshot": 2,
        "recipe": V7.key,
        "space": V7.space.key,
        "model": "wordllama-l2",
        "revision": "r1",
    }


def test_a_version_without_a_snapshot_is_its_newest(stored: Bench, tmp_path: Path) -> None:
    answer = stored.run("export", "eds/papers", "v8", "--to", str(tmp_path / "papers.parquet"))

    assert answer.out.startswith("wrote 3 rows of v8@2")


def test_a_file_that_is_there_is_replaced_whole(stored: Bench, tmp_path: Path) -> None:
    to = tmp_path / "papers.parquet"
    to.write_text("old")

    stored.run("export", "papers", "v7@1", "--to", str(to))

    assert pq.read_metadata(to).num_rows == 3
    assert [path.name for path in tmp_path.iterdir()] == ["papers.parquet"]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(stored: Bench, tmp_path: Path) -> None:
    to = tmp_path / "missing" / "papers.parquet"

    answer = stored.run("export", "papers", "v7@1", "--to", str(to))

    assert answer.code == 3
    assert answer.err == f"error: {to} cannot be written: No such file or directory\n"
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_without_a_version_has_no_vectors_to_export(stored: Bench, tmp_path: Path) -> None:
    answer = stored.run("export", "papers", "@2", "--to", str(tmp_path / "papers.parquet"))

    assert answer.code == 3
    assert answer.err == "error: @2 names no version; wanted one such as v7@2\n"
