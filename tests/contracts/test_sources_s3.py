"""Files in an object store: the same rows as from a folder, with credentials of their own."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.servers import s3

from pointsman.access import Access
from pointsman.api import dataset
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.sources import registry


@pytest.fixture
def store() -> Iterator[s3.Server]:
    with s3.start_s3() as started:
        yield started


def batches(
    store: s3.Server, /, uri: str, key: str = s3.ACCESS_KEY, endpoint: str = "", **allowed: Any
) -> Iterator[pa.RecordBatch]:
    keys = {"accessKeyID": key, "secretAccessKey": "a-secret"} if key else {}
    credentials = {**keys, "endpoint": endpoint or store.endpoint, "region": "eu-north-1"}
    spec = dataset.FilesSource(uri=uri, format=uri.rpartition(".")[2])
    access = Access(**({"allow_loopback": True} | allowed))
    yield from registry.open_source(dataset.Source(files=spec, id_field="id"), credentials, access).read()


def ids(store: s3.Server, /, uri: str, **changed: Any) -> list[str]:
    return [row["id"] for batch in batches(store, uri, **changed) for row in batch.to_pylist()]


def named(store: s3.Server) -> str:
    """The endpoint by a name that no resolver but the one of `Access` knows."""
    return f"http://store.example.com:{urlsplit(store.endpoint).port}"


def refusal(store: s3.Server, /, uri: str = "s3://corpus/*.jsonl", **changed: Any) -> PointsmanError:
    with pytest.raises(PointsmanError) as error:
        list(batches(store, uri, **changed))
    return error.value


def test_objects_are_read_in_the_order_of_their_names_within_one_folder(store: s3.Server) -> None:
    store.objects = {
        "corpus/papers/b.jsonl": b'{"id":"b"}\n',
        "corpus/papers/a.jsonl": b'{"id":"a1"}\n{"id":"a2"}\n',
        "corpus/papers/deep/c.jsonl": b"x",
        "corpus/papers.jsonl": b'{"id":"root"}',
    }
    assert ids(store, "s3://corpus/papers/*.jsonl") == ["a1", "a2", "b"]
    assert ids(store, "s3://corpus/*.jsonl") == ["root"]
    assert ids(store, "s3://corpus/papers/b.jsonl") == ["b"]


def test_a_large_object_is_read_in_ranges(store: s3.Server) -> None:
    line = b'{"id":"%07d","text":"' + b"x" * 1000 + b'"}\n'
    store.objects = {"corpus/a.jsonl": b"".join(line % number for number in range(10_000))}
    found = ids(store, "s3://corpus/a.jsonl")
    assert len(found) == 10_000
    assert found == sorted(found)


def test_parquet_is_read_from_an_object(store: s3.Server) -> None:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"id": [str(number) for number in range(5_000)]}), sink)
    store.objects = {"corpus/a.parquet": sink.getvalue().to_pybytes()}
    assert len(ids(store, "s3://corpus/a.parquet")) == 5_000


def test_wrong_credentials_are_unauthorized(store: s3.Server) -> None:
    store.objects = {"corpus/a.jsonl": b'{"id":"a"}'}
    error = refusal(store, key="wrong")
    assert isinstance(error, Terminal)
    assert error.reason is Reason.SOURCE_UNAUTHORIZED
    assert "a-secret" not in error.message


def test_no_object_is_an_unreachable_source_and_no_deletion(store: s3.Server) -> None:
    error = refusal(store)
    assert isinstance(error, Retryable)
    assert error.reason is Reason.SOURCE_UNREACHABLE


def test_an_object_that_changes_before_its_turn_is_read_as_it_is_by_then(store: s3.Server) -> None:
    line = b'{"id":"%07d"}\n'
    store.objects = {f"corpus/{name}.jsonl": b"".join(line % number for number in range(20_000)) for name in "ab"}
    store.objects["corpus/b.jsonl"] = line % 20_000
    reading = batches(store, "s3://corpus/*.jsonl")
    read = len(next(reading))

    store.objects["corpus/b.jsonl"] = line % 30_000

    last = list(reading)[-1]
    assert read > 0 and last["id"].to_pylist()[-1] == "0030000"


def test_an_object_that_changes_while_it_is_read_is_read_again_later(store: s3.Server) -> None:
    line = b'{"id":"%07d"}\n'
    store.objects = {"corpus/a.jsonl": b"".join(line % number for number in range(20_000))}
    reading = batches(store, "s3://corpus/a.jsonl")
    next(reading)
    store.objects["corpus/a.jsonl"] = store.objects["corpus/a.jsonl"].replace(b"0000001", b"9000001")
    with pytest.raises(Retryable) as error:
        list(reading)
    assert error.value.reason is Reason.SOURCE_UNREACHABLE


def test_an_endpoint_that_is_not_allowed_is_never_asked(store: s3.Server) -> None:
    assert refusal(store, allow_loopback=False).reason is Reason.ENDPOINT_NOT_ALLOWED


def test_an_endpoint_that_is_not_there_is_unreachable(store: s3.Server) -> None:
    gone = s3.Server("http://127.0.0.1:1")
    error = refusal(gone)
    assert isinstance(error, Retryable)
    assert error.reason is Reason.SOURCE_UNREACHABLE


def test_an_endpoint_is_reached_at_the_address_that_was_judged_and_not_at_another_answer_of_the_dns(
    store: s3.Server,
) -> None:
    store.objects = {"corpus/a.jsonl": b'{"id":"a"}'}
    assert ids(store, "s3://corpus/a.jsonl", endpoint=named(store), resolve=lambda *_: ["127.0.0.1"]) == ["a"]


@pytest.mark.parametrize("rebound", ["169.254.169.254", "127.0.0.2"])
def test_a_name_that_moves_after_it_was_judged_gets_no_connection(store: s3.Server, rebound: str) -> None:
    answers = iter(["93.184.216.34"])
    error = refusal(store, endpoint=named(store), allow_loopback=False, resolve=lambda *_: [next(answers, rebound)])
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert store.asked == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "store.example.com", "other.example.com"])
def test_a_redirect_to_another_server_is_not_followed(store: s3.Server, host: str) -> None:
    with s3.start_s3() as other:
        store.moved_to = f"http://{host}:{urlsplit(other.endpoint).port}"
        error = refusal(store, resolve=lambda *_: ["127.0.0.1"])
        assert error.reason is Reason.SOURCE_UNREACHABLE
        assert other.asked == 0


def test_proxies_and_endpoints_of_the_environment_are_not_used(
    store: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    store.objects = {"corpus/a.jsonl": b'{"id":"a"}'}
    assert ids(store, "s3://corpus/a.jsonl") == ["a"]


def test_the_identity_of_the_operator_never_goes_to_an_endpoint_that_a_secret_names(store: s3.Server) -> None:
    error = refusal(store, key="", allow_ambient_credentials=True)
    assert error.reason is Reason.CREDENTIALS_REQUIRED
    assert "the operator's own identity goes to Amazon alone: add both keys" in error.message
    assert store.asked == 0


@pytest.mark.parametrize(
    "uri",
    [
        "s3://vectors/search/datasets/*.jsonl",
        "s3://vectors/search/*.jsonl",
        "s3://vectors//search/./a.jsonl",
        "s3://vectors/other/../search/a.jsonl",
        "s3://vectors/other/%2e%2e/search/a.jsonl",
    ],
)
def test_nothing_is_read_from_the_store_of_the_operator(store: s3.Server, uri: str) -> None:
    error = refusal(store, uri, store="s3://vectors/search")
    assert error.reason is Reason.FILE_NOT_ALLOWED
    assert error.message == f"{uri} lies in the operator's own store, which no source may read; move it elsewhere"
    assert store.asked == 0


def test_a_source_beside_the_store_of_the_operator_is_read(store: s3.Server) -> None:
    store.objects = {"vectors/search-corpus/a.jsonl": b'{"id":"a"}'}
    assert ids(store, "s3://vectors/search-corpus/a.jsonl", store="s3://vectors/search") == ["a"]
