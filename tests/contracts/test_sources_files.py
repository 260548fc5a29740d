"""What each kind of file may hold, and what every bad row of it is told as."""

import datetime
import decimal
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from pointsman.access import Access
from pointsman.api import dataset
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.sources import registry
from pointsman.sources.files import FilesSource


def read(folder: Path, name: str = "*.jsonl", root: Path | None = None) -> list[dict[str, Any]]:
    spec = dataset.FilesSource(uri=f"file://{folder}/{name}", format=name.rpartition(".")[2])
    source = FilesSource(spec, "id", {}, Access(file_roots=(root or folder,)))
    return [row for batch in source.read() for row in batch.to_pylist()]


def ids(folder: Path, name: str = "*.jsonl") -> list[str]:
    return [row["id"] for row in read(folder, name)]


def refusal(folder: Path, name: str = "*.jsonl", root: Path | None = None) -> PointsmanError:
    with pytest.raises(PointsmanError) as error:
        read(folder, name, root)
    return error.value


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"id":"{name}"}}\n')
    (tmp_path / "other.txt").write_text("x")
    (tmp_path / ".hidden.jsonl").write_text("x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "d.jsonl").write_text("x")
    assert ids(tmp_path) == ["a", "b", "c"]


def test_a_name_without_a_star_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").write_text('{"id":"a"}')
    (tmp_path / "b.jsonl").write_text('{"id":"b"}')
    assert ids(tmp_path, "a[1].jsonl") == ["a"]


def test_no_matching_file_is_an_unreachable_source_and_no_deletion(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert isinstance(error, Retryable)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert error.message == f"no file matches file://{tmp_path}/*.jsonl; the last snapshot stays current"


def test_a_missing_folder_is_an_unreachable_source(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none", root=tmp_path).reason is Reason.SOURCE_UNREACHABLE


def test_a_star_in_a_folders_name_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "*", root=tmp_path).reason is Reason.INVALID_SPEC


def test_a_file_outside_the_allowed_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "secret.jsonl").write_text('{"id":"a"}')
    assert refusal(tmp_path, root=tmp_path / "allowed").reason is Reason.FILE_NOT_ALLOWED


def test_a_link_that_leads_out_of_the_allowed_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "secret.jsonl").write_text('{"id":"a"}')
    (tmp_path / "allowed" / "a.jsonl").symlink_to(tmp_path / "secret.jsonl")
    assert refusal(tmp_path / "allowed").reason is Reason.FILE_NOT_ALLOWED


def test_every_bad_line_is_counted_by_kind_and_placed_and_never_quoted(tmp_path: Path) -> None:
    lines = [
        b'{"id":"good","text":"private"}',
        b'{"text":"private"}',
        b'{"id":"x","text":"private}',
        b'{"id":null}',
        b'["private"]',
        b"",
        b'{"id":"y","text":"private\xff"}',
        b'{"id":true}',
        b'{"id":1.5}',
        b'{"id":7,"text":"private"}',
    ]
    (tmp_path / "papers.jsonl").write_bytes(b"\n".join(lines))
    error = refusal(tmp_path)
    assert isinstance(error, Terminal)
    assert error.message == (
        "7 of 9 rows are not documents: 2 without id (papers.jsonl:2, :4), "
        "2 with an id that is neither text nor an integer (papers.jsonl:8, :9), "
        "1 broken JSON (papers.jsonl:3), 1 no JSON object (papers.jsonl:5), 1 invalid UTF-8 (papers.jsonl:7); "
        "the last snapshot stays current"
    )


def test_integer_ids_are_text_and_marks_of_byte_order_and_line_ends_are_not_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"id":7,"text":"x"}\r\n{"id":"8"}')
    assert read(tmp_path) == [{"id": "7", "fields": '{"text":"x"}'}, {"id": "8", "fields": "{}"}]


def test_integers_of_more_than_64_bits_keep_their_digits_as_text(tmp_path: Path) -> None:
    long = "123456789012345678901234567890"
    (tmp_path / "a.jsonl").write_text(f'{{"id":{long},"a":{long},"b":[-{long},18446744073709551615,0.5]}}\n')
    assert read(tmp_path) == [
        {"id": long, "fields": f'{{"a":"{long}","b":["-{long}",18446744073709551615,0.5]}}'},
    ]


def test_an_integer_that_nobody_could_write_is_broken_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id":"a","n":' + "1" * 10_000 + "}\n")
    assert "1 broken JSON (a.jsonl:1)" in refusal(tmp_path).message


def test_a_huge_line_is_refused_with_its_position_in_bounded_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as stream:
        stream.write(b'{"id":"a"}\n{"id":"b","text":"')
        for _ in range(100):
            stream.write(b"x" * 2**20)
        stream.write(b'"}\n{"id":"c"}\n')
    tracemalloc.start()
    error = refusal(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.message.startswith("1 of 3 rows are not documents: 1 longer than 16 MiB (a.jsonl:2);")
    assert peak < 60 * 2**20


def test_a_file_that_changes_before_its_turn_is_read_as_it_is_by_then(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"id":"{name}{n}"}}\n' for n in range(10_000)))
    spec = dataset.FilesSource(uri=f"file://{tmp_path}/*.jsonl", format="jsonl")
    batches = FilesSource(spec, "id", {}, Access(file_roots=(tmp_path,))).read()
    read = next(batches)["id"].to_pylist()

    (tmp_path / "b.jsonl").write_text('{"id":"late"}\n')

    read += [identity for batch in batches for identity in batch["id"].to_pylist()]
    assert len(read) == 10_001 and read[-1] == "late"


def test_a_file_that_changes_while_it_is_read_is_read_again_later(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"id":"{name}{n}"}}\n' for n in range(10_000)))
    spec = dataset.FilesSource(uri=f"file://{tmp_path}/*.jsonl", format="jsonl")
    batches = FilesSource(spec, "id", {}, Access(file_roots=(tmp_path,))).read()
    next(batches)
    with (tmp_path / "a.jsonl").open("a") as stream:
        stream.write('{"id":"late"}\n')
    with pytest.raises(Retryable) as error:
        list(batches)
    assert error.value.message == "a.jsonl changed while it was read; it will be read again from the start"


def test_csv_rows_take_their_names_from_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"two\nlines"\n\n2,ü\n')
    assert read(tmp_path, "*.csv") == [
        {"id": "1", "fields": '{"text":"two\\nlines"}'},
        {"id": "2", "fields": '{"text":"ü"}'},
    ]


def test_bad_csv_rows_are_counted_and_placed_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,"two\nlines"\n2\n3,a,b\n,x\n4,\xff\n\xff,y\n5,"open\n6,x\n')
    assert refusal(tmp_path, "*.csv").message == (
        "6 of 7 rows are not documents: 2 with the wrong number of columns (a.csv:4, :5), "
        "2 invalid UTF-8 (a.csv:7, :8), 1 without id (a.csv:6), "
        "1 broken CSV, after which the file cannot be read (a.csv:10); the last snapshot stays current"
    )


def test_a_csv_row_that_is_too_long_is_refused_and_those_after_it_are_still_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,x\n2," + b"x" * 17 * 2**20 + b"\n3\n4,x\n")
    assert refusal(tmp_path, "*.csv").message == (
        "2 of 4 rows are not documents: 1 longer than 16 MiB (a.csv:3), "
        "1 with the wrong number of columns (a.csv:4); the last snapshot stays current"
    )


@pytest.mark.parametrize("before", [b'id,text\n1,"x\n', b""], ids=["in a quote", "in the header"])
def test_a_line_that_is_too_long_breaks_a_csv_file_where_no_row_begins_after_it(tmp_path: Path, before: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(before + b"x" * 17 * 2**20 + b'\n"\n4,x\n')
    line = before.count(b"\n") + 1
    assert refusal(tmp_path, "*.csv").message == (
        f"1 of 1 rows are not documents: 1 broken CSV, after which the file cannot be read (a.csv:{line}); "
        "the last snapshot stays current"
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("text\n", "a.csv has no column `id`, which source.idField names; the last snapshot stays current"),
        ("id,text,text\n", "a.csv has two columns of one name; the last snapshot stays current"),
    ],
)
def test_a_header_that_names_no_document_is_refused(tmp_path: Path, header: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(header)
    assert refusal(tmp_path, "*.csv").message == message


def test_parquet_types_become_json(tmp_path: Path) -> None:
    instant = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456)
    columns = {
        "id": pa.array([1], pa.int64()),
        "bool": pa.array([True]),
        "day": pa.array([datetime.date(2024, 5, 6)]),
        "decimal": pa.array([decimal.Decimal("1.50")]),
        "float": pa.array([0.5]),
        "list": pa.array([["a", None]]),
        "local": pa.array([instant], pa.timestamp("ns")),
        "nan": pa.array([float("nan")]),
        "nothing": pa.array([None], pa.string()),
        "struct": pa.array([{"a": decimal.Decimal("2.5"), "b": instant}]),
        "utc": pa.array([instant], pa.timestamp("ns", "Europe/Berlin")),
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    (row,) = read(tmp_path, "*.parquet")
    assert row["id"] == "1"
    assert json.loads(row["fields"]) == {
        "bool": True,
        "day": "2024-05-06",
        "decimal": "1.50",
        "float": 0.5,
        "list": ["a", None],
        "local": "2024-05-06T07:08:09.123456",
        "nan": None,
        "nothing": None,
        "struct": {"a": "2.5", "b": "2024-05-06T07:08:09.123456"},
        "utc": "2024-05-06T07:08:09.123456+00:00",
    }


def test_long_rows_of_a_parquet_file_are_read_in_bounded_memory(tmp_path: Path) -> None:
    table = pa.table({"id": [str(n) for n in range(300)], "text": ["x" * 2**18] * 300})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    source = FilesSource(
        dataset.FilesSource(uri=f"file://{tmp_path}/*.parquet", format="parquet"),
        "id",
        {},
        Access(file_roots=(tmp_path,)),
    )
    tracemalloc.start()
    rows = sum(batch.num_rows for batch in source.read())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 300
    assert peak < 40 * 2**20


def test_a_binary_column_is_refused_by_name(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"id": ["a"], "image": [b"x"]}), tmp_path / "a.parquet")
    assert refusal(tmp_path, "*.parquet").message == (
        "a.parquet has the binary column `image`; leave it out, documents hold text and numbers"
    )


def test_text_of_a_parquet_file_that_is_not_utf8_is_placed_by_row(tmp_path: Path) -> None:
    text = pa.array([b"good", b"\xff", b"good"]).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"id": ["a", "b", "c"], "text": text}), tmp_path / "a.parquet")
    assert refusal(tmp_path, "*.parquet").message.startswith(
        "1 of 3 rows are not documents: 1 invalid UTF-8 (a.parquet:2);"
    )


def test_broken_parquet_files_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not parquet at all")
    pyarrow.parquet.write_table(pa.table({"id": ["a"] * 5000, "text": ["x" * 10] * 5000}), tmp_path / "b.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path, "*.parquet").message == (
        "2 of 5,002 rows are not documents: 2 broken Parquet (a.parquet, c.parquet); the last snapshot stays current"
    )


def test_a_damaged_page_of_a_parquet_file_is_found(tmp_path: Path) -> None:
    table = pa.table({"id": [str(n) for n in range(5000)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    damaged = bytearray((tmp_path / "a.parquet").read_bytes())
    damaged[200:1200] = b"\0" * 1000
    (tmp_path / "a.parquet").write_bytes(damaged)
    error = refusal(tmp_path, "*.parquet")
    assert error.reason is Reason.SOURCE_INVALID
    assert "1 broken Parquet (a.parquet)" in error.message


def test_an_object_store_without_credentials_is_refused() -> None:
    spec = dataset.Source(files=dataset.FilesSource(uri="s3://corpus/a.jsonl", format="jsonl"), id_field="id")
    with pytest.raises(Terminal) as error:
        registry.open_source(spec, {}, Access())
    assert error.value.reason is Reason.CREDENTIALS_REQUIRED
