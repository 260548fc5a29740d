"""Where the documents of a dataset come from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pointsman.api import base

FieldName = Annotated[str, Field(min_length=1, max_length=128)]
Host = base.Host

_ONE_SOURCE = "exactly one of files and postgres is wanted"


class FilesSource(base.Model):
    """Files that hold one document a row, read through fsspec."""

    uri: Annotated[
        str,
        base.patterned(r"^(file:///|s3://[^/]).*$", "must begin with file:/// or with s3:// and a bucket"),
        Field(min_length=6, max_length=1024),
    ]
    """Where the files are: `file:///…` or `s3://…`; `*` matches within one folder."""
    format: Literal["jsonl", "parquet", "csv"]
    """How the files are written. CSV needs a header line."""
    credentials_ref: base.SecretReference | None = None
    """A Secret with `accessKeyID`, `secretAccessKey` and, where wanted, `endpoint`, `region` and `sessionToken`."""


class PostgresSource(base.Model):
    """A query against PostgreSQL, read with a server-side cursor in one read-only transaction."""

    host: Host
    """The server's host name."""
    port: base.Port = 5432
    """The server's port."""
    database: base.DatabaseName
    """The database's name."""
    query: Annotated[str, Field(min_length=1, max_length=8192)]
    """A SELECT whose columns are the document's fields."""
    credentials_ref: base.SecretReference
    """A Secret with `username` and `password`."""
    tls: Literal["Require", "VerifyFull", "Disable"] = "VerifyFull"
    """How much of the server's certificate is checked."""


class Source(base.Model):
    """Exactly one kind of source. Its kind and `idField` never change."""

    model_config = base.rules(
        base.rule("has(self.files) != has(self.postgres)", _ONE_SOURCE),
        base.rule(
            "has(self.files) == has(oldSelf.files)",
            "the kind of a source cannot be changed, since ids of two sources do not mean the same documents; "
            "declare another EmbeddingDataset instead",
        ),
        base.rule(
            "self.idField == oldSelf.idField",
            "idField cannot be changed, since every document would become another one; "
            "declare another EmbeddingDataset instead",
        ),
    )

    files: FilesSource | None = None
    """Files of JSON Lines, Parquet or CSV."""
    postgres: PostgresSource | None = None
    """A query against PostgreSQL."""
    id_field: FieldName
    """The field that identifies a document; unique and not empty."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        base.check_one_of(self, ("files", "postgres"), _ONE_SOURCE)
        return self
