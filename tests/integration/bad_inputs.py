"""Bad input, and the reason and sentence that each gets."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.databases import Database
from tests.integration.operator_process import DATASET, DEPLOYMENT, Object
from tests.servers.openai_server import MODEL

WORD = "xylophone"
"""A word of every document, which must not be told anywhere."""
PASSWORD = "hunter2-is-no-password"
"""A secret, which must not be told anywhere either."""
MEMORY: Object = {"memory": {}}
V7: Object = {"name": "v7", "model": {"wordllama": {"dimensions": 64}}, "text": {"template": "{text}"}}


def documents(count: int) -> list[Object]:
    return [{"id": f"doc-{n}", "text": f"A {WORD} with {n} bars."} for n in range(count)]


def lines(*rows: object) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


ROWS: dict[str, tuple[bytes, str]] = {
    "a row without id": (
        lines({"id": "a", "text": WORD}, {"text": WORD}),
        "1 of 2 rows are not documents: 1 without id (rows.jsonl:2); the last snapshot stays current",
    ),
    "an id that is there twice": (
        lines({"id": WORD, "text": "one"}, {"id": "b", "text": "two"}, {"id": WORD, "text": "three"}),
        "1 of 3 rows are not documents: 1 with the id of an earlier row (row 3); the last snapshot stays current",
    ),
    "an empty text": (
        lines({"id": "a", "text": WORD}, {"id": "b", "text": " "}, {"id": "c"}),
        "2 of 3 rows are not documents: 2 without text (row 2, 3); the last snapshot stays current",
    ),
    "a text that is none": (
        lines({"id": "a", "text": [WORD]}),
        "1 of 1 rows are not documents: 1 with a `text` that is not text (row 1); the last snapshot stays current",
    ),
    "bytes that are not UTF-8": (
        lines({"id": "a", "text": WORD}) + b'{"id": "b", "text": "xylophone \xff"}\n',
        "1 of 2 rows are not documents: 1 invalid UTF-8 (rows.jsonl:2); the last snapshot stays current",
    ),
    "a line that is broken JSON": (
        lines({"id": "a", "text": WORD}) + b'{"id": "b", "text": "xylophone\n',
        "1 of 2 rows are not documents: 1 broken JSON (rows.jsonl:2); the last snapshot stays current",
    ),
    "all at once": (
        lines({"text": WORD}, b"{\n", {"text": 1}, {"id": "a", "text": ""}, {"id": "b", "text": WORD}),
        "3 of 5 rows are not documents: 2 without id (rows.jsonl:1, :3), 1 broken JSON (rows.jsonl:2); "
        "the last snapshot stays current",
    ),
}


# Specs.


def model(url: str, dimensions: int = 256, **more: Any) -> Object:
    """Return a dataset's endpoint and version of a model behind it."""
    choice = {"openai": {"endpoint": "main", "model": MODEL, "dimensions": dimensions}}
    version = {"name": "v7", "model": choice, "text": {"template": "{text}"}}
    return {"endpoints": [{"name": "main", "baseURL": url, **more}], "versions": [version]}


def postgres_source(pgvector: Database, **changes: Any) -> Object:
    """Return a source of three documents in the test's PostgreSQL; `changes` go into it."""
    query = f"SELECT 'doc-' || n AS id, '{WORD} ' || n AS text FROM generate_series(1, 3) n"
    server = {key: pgvector.spec["pgvector"][key] for key in ("host", "port", "database", "credentialsRef", "tls")}
    return {"postgres": {**server, "query": query, **changes}, "idField": "id"}


MISSING: dict[str, tuple[Object, str, str]] = {
    "no-version": (
        {"version": "v9"},
        "VersionNotFound",
        "dataset served declares no version v9, only v7; nothing serves yet",
    ),
    "no-dataset": (
        {"dataset": "nowhere"},
        "DatasetNotFound",
        "dataset nowhere is not there; nothing serves yet",
    ),
    "no-snapshot": (
        {"snapshot": 7},
        "SnapshotNotFound",
        "dataset served has no snapshot 7, only 1; nothing serves yet",
    ),
}


def refused(folder: str, api_server: str, pgvector: Database) -> dict[str, tuple[Object, str, str]]:
    """Return datasets that ask for what the operator may not touch, each with the reason and sentence that it gets.

    `folder` is what may be read; it holds good.jsonl, and link.jsonl, which leads elsewhere.
    """

    def files(uri: str) -> Object:
        return {"source": {"files": {"uri": uri, "format": "jsonl"}, "idField": "id"}, "versions": [V7]}

    def postgres(secret: str) -> Object:
        return {"source": postgres_source(pgvector, credentialsRef={"name": secret}), "versions": [V7]}

    def behind(url: str, **more: Any) -> Object:
        return {**files(f"file://{folder}/good.jsonl"), **model(url, **more)}

    may_not = "is outside the folders that may be read; move it there or have fileRoots extended"
    stingy = "Secret stingy does not list 127.0.0.1; add it to its annotation pointsman.dev/allowed-hosts"
    stingy_key = {"apiKeyRef": {"name": "stingy", "key": "password"}}
    return {
        "outside": (files("file:///etc/*.jsonl"), "FileNotAllowed", f"/etc {may_not}"),
        "dots": (files(f"file://{folder}/../../x.jsonl"), "FileNotAllowed", f"{folder}/../../x.jsonl {may_not}"),
        "linked": (files(f"file://{folder}/link.jsonl"), "FileNotAllowed", f"{folder}/link.jsonl {may_not}"),
        "bucket": (
            files("s3://corpus/*.jsonl"),
            "CredentialsRequired",
            "s3://corpus/*.jsonl needs a credentialsRef beside it, to a Secret with accessKeyID and secretAccessKey",
        ),
        "metadata": (
            behind("http://169.254.169.254/v1"),
            "EndpointNotAllowed",
            "169.254.169.254 has the address of a cloud's metadata service",
        ),
        "private": (
            behind("http://10.1.2.3/v1"),
            "EndpointNotAllowed",
            "10.1.2.3 has a private address; have the host added to allowedHosts",
        ),
        "cluster": (
            behind(f"{api_server}/v1"),
            "EndpointNotAllowed",
            "127.0.0.1 is denied to resources, such as the Kubernetes API",
        ),
        "stingy-model": (behind("http://127.0.0.1:9/v1", **stingy_key), "SecretNotAllowed", stingy),
        "stingy-source": (postgres("stingy"), "SecretNotAllowed", stingy),
        "no-secret": (postgres("nobody"), "SecretNotFound", "Secret nobody is not there"),
    }


INVALID: dict[str, tuple[str, Object, str]] = {
    "two engines": (
        DEPLOYMENT,
        {"datasetRef": {"name": "served"}, "version": "v7", "backend": {"memory": {}, "milvus": {"uri": "http://m"}}},
        "exactly one of qdrant, milvus, pgvector and memory is wanted",
    ),
    "a duration that is none": (
        DEPLOYMENT,
        {"datasetRef": {"name": "served"}, "version": "v7", "backend": MEMORY, "maxLag": "soon"},
        "must be hours, minutes and seconds, such as 15m or 1h30m",
    ),
    "an endpoint that is not declared": (
        DATASET,
        {
            **model("http://m/v1"),
            "endpoints": [],
            "source": {"files": {"uri": "file:///a", "format": "csv"}, "idField": "id"},
        },
        "every endpoint that a version names must stand in spec.endpoints",
    ),
}
