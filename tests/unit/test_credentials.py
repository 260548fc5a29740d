"""Which values of a Secret are read for whom: those that are wanted, for the hosts that its annotation lists."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.access import SECRET_ANNOTATION, Access
from pointsman.api import dataset, engines
from pointsman.api.conditions import Reason
from pointsman.cluster import credentials
from pointsman.cluster.memory import MemoryCluster
from pointsman.errors import Terminal

SECRET: dict[str, str | bytes] = {
    "token": "t0ken\n", "username": "me", "password": "hunter2", "accessKeyID": "id", "secretAccessKey": "key",
    "another": "none of theirs", "keystore": b"\xff",
}  # fmt: skip
REFERENCE = {"name": "keys", "key": "token"}
POSTGRES = {"host": "db.example.com", "database": "d", "credentialsRef": {"name": "keys"}}
BACKENDS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "qdrant": ({"url": "http://db.example.com:6333", "apiKeyRef": REFERENCE}, {"apiKey": "t0ken"}),
    "milvus": ({"uri": "http://db.example.com", "tokenRef": REFERENCE}, {"token": "t0ken"}),
    "pgvector": (POSTGRES, {"username": "me", "password": "hunter2"}),
    "memory": ({}, {}),
}


def cluster(hosts: str = "db.example.com, s3.amazonaws.com", **changes: str | bytes) -> MemoryCluster:
    found = MemoryCluster()
    found.put_secret("search", "keys", {**SECRET, **changes}, {SECRET_ANNOTATION: hosts})
    return found


def of_backend(engine: str, where: MemoryCluster) -> Any:
    spec = engines.Backend.model_validate({engine: BACKENDS[engine][0]})
    return credentials.of_backend(where, "search", spec, Access())


def refusal(engine: str, where: MemoryCluster) -> Terminal:
    with pytest.raises(Terminal) as error:
        of_backend(engine, where)
    return error.value


@pytest.mark.parametrize("engine", BACKENDS)
def test_a_database_gets_the_values_that_it_wants_and_no_others(engine: str) -> None:
    assert of_backend(engine, cluster()) == BACKENDS[engine][1]


@pytest.mark.parametrize("engine", ["qdrant", "milvus", "pgvector"])
def test_a_secret_that_does_not_list_the_host_stays_where_it_is(engine: str) -> None:
    assert refusal(engine, cluster(hosts="elsewhere.example.com")).reason is Reason.SECRET_NOT_ALLOWED


@pytest.mark.parametrize(("engine", "key"), [("qdrant", "token"), ("milvus", "token"), ("pgvector", "password")])
def test_a_value_that_is_no_text_is_refused_where_it_is_wanted(engine: str, key: str) -> None:
    error = refusal(engine, cluster(**{key: b"\xff"}))

    assert error.message == f"the value of {key} in Secret keys is no UTF-8 text; put the text there"


def test_a_key_that_is_not_there_is_named_with_those_that_are() -> None:
    empty = MemoryCluster()
    empty.put_secret("search", "keys", {"a": "1", "b": "2"}, {SECRET_ANNOTATION: "db.example.com"})

    assert refusal("qdrant", empty).message == "Secret keys has no key token, only a, b"
    assert refusal("qdrant", MemoryCluster()).message == "Secret keys is not there"


def test_files_get_their_keys_and_ask_for_them() -> None:
    files = dataset.FilesSource.model_validate(
        {"uri": "s3://corpus/*.jsonl", "format": "jsonl", "credentialsRef": {"name": "keys"}}
    )
    bare = files.model_copy(update={"credentials_ref": None})

    assert credentials.of_files(cluster(), "search", files, Access()) == {"accessKeyID": "id", "secretAccessKey": "key"}
    assert credentials.of_files(cluster(), "search", None, Access()) == {}
    assert credentials.of_files(cluster(), "search", bare, Access(allow_ambient_credentials=True)) == {}
    with pytest.raises(Terminal) as error:
        credentials.of_files(cluster(), "search", bare, Access())
    assert error.value.message == (
        "s3://corpus/*.jsonl needs a credentialsRef beside it, to a Secret with accessKeyID and secretAccessKey"
    )
