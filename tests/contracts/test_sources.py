"""One contract for every source: the same rows come out of all of them, and bad ones are refused with counts."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.servers import postgres

from pointsman import ports
from pointsman.access import Access
from pointsman.api import dataset
from pointsman.api.conditions import Reason
from pointsman.core import rows
from pointsman.errors import Terminal
from pointsman.sources import registry
from pointsman.sources.memory import MemorySource

Make = Callable[[list[dict[str, Any]]], ports.Source]


def files(folder: Path, kind: str, name: str) -> ports.Source:
    spec = dataset.Source(files=dataset.FilesSource(uri=f"file://{folder}/{name}", format=kind), id_field="id")
    return registry.open_source(spec, {}, Access(file_roots=(folder,)))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgres.start_postgres(tmp_path_factory.mktemp("postgres")) as started:
        yield started


@pytest.fixture(params=["memory", "jsonl", "csv", "parquet", pytest.param("postgres", marks=pytest.mark.server)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def jsonl(content: list[dict[str, Any]]) -> ports.Source:
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
        return files(tmp_path, "jsonl", "*.jsonl")

    def comma(content: list[dict[str, Any]]) -> ports.Source:
        with (tmp_path / "a.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["id", "text"])
            writer.writeheader()
            writer.writerows(content)
        return files(tmp_path, "csv", "*.csv")

    def parquet(content: list[dict[str, Any]]) -> ports.Source:
        schema = pa.schema([("id", pa.string()), ("text", pa.string())])
        pyarrow.parquet.write_table(pa.Table.from_pylist(content, schema), tmp_path / "a.parquet")
        return files(tmp_path, "parquet", "*.parquet")

    def table(content: list[dict[str, Any]]) -> ports.Source:
        server = request.getfixturevalue("server")
        connect = {"host": server.host, "port": server.port, "dbname": server.database}
        with psycopg.connect(**connect, user=server.username, password=server.password) as connection:
            connection.execute("DROP TABLE IF EXISTS docs")
            connection.execute("CREATE TABLE docs (n serial, id text, text text)")
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO docs (id, text) VALUES (%(id)s, %(text)s)", content)
        spec = dataset.PostgresSource(
            host=server.host,
            port=server.port,
            database=server.database,
            query="SELECT id, text FROM docs ORDER BY n;",
            credentials_ref={"name": "any"},
            tls="Disable",
        )
        return registry.open_source(
            dataset.Source(postgres=spec, id_field="id"),
            {"username": server.username, "password": server.password},
            Access(allow_loopback=True),
        )

    kinds: dict[str, Make] = {
        "memory": MemorySource,
        "jsonl": jsonl,
        "csv": comma,
        "parquet": parquet,
        "postgres": table,
    }
    return kinds[request.param]


def test_all_rows_come_once_in_order_with_fields_as_canonical_json(make: Make) -> None:
    source = make([{"id": "b", "text": "Zwölf — 漢字"}, {"id": "a", "text": 'x,"y"\nz'}])
    batches = list(source.read())
    assert all(batch.schema.equals(rows.DOCUMENTS) for batch in batches)
    assert pa.Table.from_batches(batches).to_pylist() == [
        {"id": "b", "fields": '{"text":"Zwölf — 漢字"}'},
        {"id": "a", "fields": '{"text":"x,\\"y\\"\\nz"}'},
    ]


def test_a_source_can_be_read_again(make: Make) -> None:
    source = make([{"id": "a", "text": "x"}])
    assert [batch.to_pylist() for batch in source.read()] == [batch.to_pylist() for batch in source.read()]


def test_many_rows_come_in_batches_of_bounded_size(make: Make) -> None:
    source = make([{"id": str(number), "text": "x" * 100} for number in range(20_000)])
    sizes = [batch.num_rows for batch in source.read()]
    assert sum(sizes) == 20_000
    assert max(sizes) <= 8_192


def test_large_rows_come_in_batches_of_bounded_bytes(make: Make) -> None:
    source = make([{"id": str(number), "text": "x" * 2**20} for number in range(20)])
    assert max(batch.num_rows for batch in source.read()) <= 8


def test_a_row_of_any_source_that_is_too_long_is_refused_and_the_others_are_looked_at(make: Make) -> None:
    source = make([{"id": "a", "text": "x" * 17 * 2**20}, {"id": "b", "text": "x"}, {"id": "", "text": "x"}])
    with pytest.raises(Terminal) as error:
        list(source.read())
    assert error.value.message.startswith("2 of 3 rows are not documents: 1 longer than 16 MiB (")


def test_no_rows_are_no_documents_and_no_error(make: Make) -> None:
    assert list(make([]).read()) == []


def test_rows_without_id_are_counted_and_refuse_the_whole(make: Make) -> None:
    source = make([{"id": "a", "text": "private"}, {"id": "", "text": "private"}, {"id": "", "text": "private"}])
    with pytest.raises(Terminal) as error:
        list(source.read())
    assert error.value.reason is Reason.SOURCE_INVALID
    assert error.value.message.startswith("2 of 3 rows are not documents: 2 without id (")
    assert error.value.message.endswith("; the last snapshot stays current")
    assert "private" not in error.value.message


def test_duplicate_ids_are_the_callers_to_find(make: Make) -> None:
    source = make([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}])
    assert pa.Table.from_batches(source.read()).num_rows == 2
