"""What a store is opened with may stand in a file, which is read again when it changes: keys are rotated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest
from tests.servers import s3

from pointsman import settings
from pointsman.api.conditions import Reason
from pointsman.cli import reach
from pointsman.errors import Retryable
from pointsman.store import options
from pointsman.store.locks import Exclusive
from pointsman.store.objects import Objects
from pointsman.store.options import Options
from pointsman.store.tables import Table


@pytest.fixture
def server() -> Iterator[s3.Server]:
    with s3.start_s3() as started:
        yield started


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "options"


def put(file: Path, content: str) -> None:
    """Put another file in its place, as the kubelet does."""
    new = file.with_name("new")
    new.write_text(content)
    new.replace(file)


def keys(key: str) -> str:
    return json.dumps({"aws_access_key_id": key, "aws_secret_access_key": "a-secret"})


def opened(server: s3.Server, file: Path) -> Objects:
    told = {"aws_endpoint": server.endpoint, "allow_http": "true", "aws_region": "eu-north-1"}
    return Objects("s3://vectors/prod", {**told, options.FILE: str(file)})


def table(store: Objects) -> Table:
    return Table(store, "rows.lance", pa.schema([("id", pa.string())]), Exclusive(None, "rows"))


def test_rotated_keys_open_objects_and_tables_of_a_store_that_is_open(server: s3.Server, file: Path) -> None:
    server.objects["vectors/prod/a"] = b"first"
    put(file, keys(s3.ACCESS_KEY))
    store = opened(server, file)
    rows = table(store)
    assert store.get("a") == b"first"
    assert rows.newest() is None

    server.access_key = "b-key"
    for refused in (lambda: store.get("a"), lambda: store.files("b"), rows.newest):
        with pytest.raises(Retryable, match=r"the store refuses us at .*: HTTP 403; wanted credentials") as failure:
            refused()
        assert failure.value.reason is Reason.STORE_UNAUTHORIZED

    put(file, keys("b-key"))

    assert store.get("a") == b"first"
    assert rows.newest() is None


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        pytest.param(403, "AccessDenied", Reason.STORE_UNAUTHORIZED, id="no right"),
        pytest.param(400, "ExpiredToken", Reason.STORE_UNAUTHORIZED, id="keys of yesterday"),
        pytest.param(404, "XAdminUserNotFound", Reason.STORE_UNAUTHORIZED, id="keys that nobody knows, as not found"),
        pytest.param(404, "NoSuchBucket", Reason.STORE_UNREACHABLE, id="no bucket"),
        pytest.param(404, "", Reason.STORE_UNREACHABLE, id="a proxy, which knows of no codes"),
        pytest.param(507, "XMinioStorageFull", Reason.STORE_FULL, id="no room"),
    ],
)
def test_what_is_refused_is_never_taken_for_what_never_was(
    server: s3.Server, file: Path, status: int, code: str, reason: Reason
) -> None:
    put(file, keys("another"))
    store = opened(server, file)
    server.refusal = status, code

    for asked in (lambda: store.get("a"), lambda: store.has("a"), lambda: store.files("a"), table(store).newest):
        with pytest.raises(Retryable) as failure:
            asked()
        assert failure.value.reason is reason
        assert f"HTTP {status}" in failure.value.message


def test_an_object_that_is_not_there_is_not(server: s3.Server, file: Path) -> None:
    put(file, keys(s3.ACCESS_KEY))
    server.objects["vectors/prod/a"] = b"first"
    store = opened(server, file)

    assert (store.has("a"), store.has("b"), store.get("b"), table(store).newest()) == (True, False, None, None)


@pytest.mark.parametrize("content", ["sesame", '["sesame"]', '{"aws_access_key_id": {"sesame": 1}}'])
def test_a_file_of_something_else_is_named_without_what_is_in_it_and_read_again(file: Path, content: str) -> None:
    put(file, keys("a-key"))
    found = Options({options.FILE: str(file)})
    first = found.now()

    put(file, content)
    with pytest.raises(Retryable) as failure:
        found.now()
    assert failure.value.reason is Reason.STORE_UNREACHABLE
    assert failure.value.message.startswith(f"{file} is not a JSON object of strings")
    assert "sesame" not in failure.value.message

    put(file, keys("b-key"))
    assert first["aws_access_key_id"] == "a-key"
    assert found.now()["aws_access_key_id"] == "b-key"


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(Retryable, match=r"No such file or directory\); wanted the Secret mounted there") as failure:
        Options({options.FILE: str(file)}).now()

    assert str(file) in failure.value.message


def test_options_of_the_file_go_before_those_that_stand_beside_it(file: Path) -> None:
    put(file, keys("a-key"))

    found = Options({"aws_region": "eu-north-1", "aws_access_key_id": "old", options.FILE: str(file)})

    assert found.now() == {**json.loads(keys("a-key")), "aws_region": "eu-north-1"}
    assert found.now() is found.now()


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        pytest.param({}, {}, id="neither"),
        pytest.param({"STORE_OPTIONS": '{"aws_region": "a"}'}, {"aws_region": "a"}, id="options alone"),
        pytest.param(
            {"STORE_OPTIONS": '{"aws_region": "a"}', "STORE_OPTIONS_FILE": "/run/options"},
            {"aws_region": "a", "options_file": "/run/options"},
            id="both",
        ),
    ],
)
def test_the_settings_name_the_file(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"POINTSMAN_{name}", value)

    assert reach.store_options(settings.load()) == wanted
