"""Small objects in the store: read, put if absent, listed, removed. The one file that knows obstore."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore import store as stores
from obstore.exceptions import AlreadyExistsError, BaseError

from pointsman.api.conditions import Reason
from pointsman.errors import Retryable, Terminal
from pointsman.store.options import Options

if TYPE_CHECKING:
    from obstore.store import RetryConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# How Rust's libraries write what the system, and what a server, answered.
_NUMBER = re.compile(r"\(os error (\d+)\)")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_OBJECT = frozenset({"NoSuchKey", "NoSuchVersion"})
# Some of these come with 400 or 404.
_OF_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "XAdminUserNotFound"}
)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED, _INSUFFICIENT_STORAGE = (401, 403), 507
# What Lance reads from the same options but obstore wants apart from the credentials.
_CLIENT_OPTIONS = ("allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_url", "timeout")
_AWS_OPTIONS = frozenset(
    f"aws_{name}"
    for name in (
        "access_key_id",
        "checksum_algorithm",
        "conditional_put",
        "container_authorization_token_file",
        "container_credentials_full_uri",
        "container_credentials_relative_uri",
        "default_region",
        "disable_tagging",
        "endpoint",
        "endpoint_url",
        "endpoint_url_sts",
        "imdsv1_fallback",
        "metadata_endpoint",
        "region",
        "request_payer",
        "role_arn",
        "role_session_name",
        "s3_express",
        "secret_access_key",
        "server_side_encryption",
        "session_token",
        "skip_signature",
        "sse_bucket_key_enabled",
        "sse_customer_key_base64",
        "sse_kms_key_id",
        "unsigned_payload",
        "virtual_hosted_style_request",
        "web_identity_token_file",
    )
)
"""What obstore knows of Amazon's; it aborts on some others instead of raising."""


def path(*names: str) -> str:
    """Join names to a path; raises Terminal(INVALID_SPEC) for a name that could lead elsewhere."""
    for name in names:
        if not NAME.fullmatch(name):
            raise Terminal(
                Reason.INVALID_SPEC, f"{name!r} cannot name anything in the store; wanted letters, digits, . _ -"
            )
    return "/".join(names)


class Objects:
    """The objects below one root: a local directory, made where it is missing, or `s3://bucket/prefix`."""

    def __init__(self, uri: str, options: Mapping[str, str] | None = None) -> None:
        self._options = Options(options or {})
        self.local = _local(uri)
        self.uri = uri.rstrip("/") if self.local is None else str(self.local)
        with _mapped(uri):
            if self.local is not None:
                self.local.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._opened = self._open()

    @property
    def options(self) -> Mapping[str, str]:
        """How it is opened, as of now: what of it stands in a file may change."""
        return self._options.now()

    @property
    def _store(self) -> stores.ObjectStore:
        if self.options is not self._opened[0]:
            # Two threads may both open it, which costs a connection.
            self._opened = self._open()
        return self._opened[1]

    def _open(self) -> tuple[Mapping[str, str], stores.ObjectStore]:
        options = self.options
        return options, _remote(self.uri, options) if self.local is None else stores.LocalStore(self.local)

    def at(self, path: str) -> str:
        """Return the URI of a path, for a table."""
        return f"{self.uri}/{path}"

    def get(self, path: str) -> bytes | None:
        """Return an object, or None where there is none."""
        with _mapped(path):
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except FileNotFoundError as error:
                if not is_of_object(error) or _is_of_a_proxy(error):
                    raise
                return None

    def has(self, path: str) -> bool:
        """Return whether there is an object; for small ones."""
        # An answer without a body does not say what is missing.
        return self.get(path) is not None

    def create(self, path: str, content: bytes) -> bool:
        """Put an object if there is none of that path; return whether it was put. Whole, or not at all."""
        with _mapped(path):
            try:
                obstore.put(self._store, path, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def files(self, path: str) -> list[str]:
        """Return the names of the objects directly below a path, ascending."""
        with _mapped(path):
            found = obstore.list_with_delimiter(self._store, path)
            return sorted(meta["path"].rsplit("/", 1)[-1] for meta in found["objects"])

    def marks(self, path: str) -> dict[str, str]:
        """Return what follows the path in the paths of all objects below it, with what differs when an object does."""
        with _mapped(path):
            listed = (meta for page in obstore.list(self._store, f"{path}/") for meta in page)
            return {
                meta["path"].removeprefix(f"{path}/"): meta["e_tag"] or f"{meta['last_modified']} {meta['size']}"
                for meta in listed
            }

    def folders(self, path: str) -> list[str]:
        """Return the names below a path that have objects below themselves, ascending."""
        with _mapped(path):
            found = obstore.list_with_delimiter(self._store, path)["common_prefixes"]
            # A local directory outlives its last file; on an object store there is no such thing.
            return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in found if self._holds_any(prefix))

    def age(self, path: str) -> timedelta | None:
        """Return for how long the oldest of the objects below a path has been there; None where there is none."""
        with _mapped(path):
            put = (meta["last_modified"] for page in obstore.list(self._store, f"{path}/") for meta in page)
            oldest = min(put, default=None)
        return None if oldest is None else datetime.now(UTC) - oldest

    def delete(self, path: str) -> None:
        """Remove an object. A missing one is no error."""
        with _mapped(path):
            try:
                obstore.delete(self._store, path)
            except FileNotFoundError as error:
                if not is_of_object(error):
                    raise

    def delete_tree(self, path: str) -> None:
        """Remove all objects below a path. None is no error."""
        with _mapped(path):
            for page in obstore.list(self._store, f"{path}/", chunk_size=1000):
                paths = [meta["path"] for meta in page]
                try:
                    obstore.delete(self._store, paths)
                except FileNotFoundError:
                    for each in paths:
                        self.delete(each)
            if self.local is not None:
                shutil.rmtree(self.local / path, ignore_errors=True)

    def probe(self) -> None:
        """Raise Terminal(STORE_UNSAFE) if a second put-if-absent gets through: then two writers could both win."""
        where = f"probes/{uuid.uuid4().hex}"
        try:
            first, second = self.create(where, b"first"), self.create(where, b"second")
            kept = self.get(where)
        finally:
            self.delete(where)
        if not first or second or kept != b"first":
            raise Terminal(
                Reason.STORE_UNSAFE,
                "the store let a second put-if-absent through; wanted it refused: use a store that knows If-None-Match",
            )

    def _holds_any(self, prefix: str) -> bool:
        return self.local is None or any(p.is_file() for p in (self.local / prefix).rglob("*"))


def _local(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).absolute()
    if "://" not in uri:
        return Path(uri).absolute()
    if parts.scheme != "s3":
        raise Terminal(Reason.INVALID_SPEC, f"a store of scheme {parts.scheme!r}; wanted a directory, file:// or s3://")
    return None


def _remote(uri: str, options: Mapping[str, str]) -> stores.ObjectStore:
    client = {name: value for name, value in options.items() if name in _CLIENT_OPTIONS}
    config = {name: value for name, value in options.items() if name not in _CLIENT_OPTIONS}
    foreign = sorted(name for name in config if name not in _AWS_OPTIONS)
    if foreign:
        meant = sorted(name.removeprefix("aws_") for name in foreign if name.removeprefix("aws_") in _CLIENT_OPTIONS)
        mend = f"write {', '.join(meant)}" if meant else "wanted those of Amazon S3, such as aws_region, or allow_http"
        raise Terminal(Reason.INVALID_SPEC, f"unknown store options {', '.join(foreign)}; {mend}")
    plain = [name for name in ("aws_endpoint", "aws_endpoint_url") if config.get(name, "").startswith("http://")]
    if plain and client.get("allow_http") != "true":
        message = (
            f'{plain[0]} of the store is plain http, which is refused unasked; wanted https, or allow_http: "true"'
        )
        raise Terminal(Reason.INVALID_SPEC, message)
    typed = {name: value == "true" if name.startswith("allow_") else value for name, value in client.items()}
    # A worker that waits backs off by itself; three tries bridge a hiccup.
    retry: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
    return stores.from_url(uri, config=config, client_options=typed, retry_config=retry)  # type: ignore[call-overload, no-any-return]


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise unreachable(what, error) from error


def is_of_object(error: BaseException) -> bool:
    """Return whether an answer that something is missing is about that object, not about the bucket or who asks.

    Servers say 404 of all three (versitygw does), and what is missing is taken for what never was.
    """
    code = _CODE.search(str(error))
    return code is None or code[1] in _NO_OBJECT


def _is_of_a_proxy(error: BaseException) -> bool:
    """Return whether what answered a GET is no object store: those say which code it is, a proxy before them does not.

    An ingress whose server is away for a moment says 404 of everything.
    """
    return _STATUS.search(str(error)) is not None and _CODE.search(str(error)) is None


def unreachable(what: str, error: BaseException) -> Retryable:
    """Return the error for a store that failed. It names the kind of failure, never what a vendor's text may quote.

    Its reason is STORE_FULL or STORE_UNAUTHORIZED where that is what is wrong, otherwise STORE_UNREACHABLE.
    """
    number, status, said = (pattern.search(str(error)) for pattern in (_NUMBER, _STATUS, _CODE))
    code = int(number[1]) if number else error.errno if isinstance(error, OSError) else None
    why = f"HTTP {status[1]}" if status else type(error).__name__ if code is None else os.strerror(code)
    if code in _FULL or (status and int(status[1]) == _INSUFFICIENT_STORAGE):
        message = f"the store is full at {what}: {why}; enlarge its volume or bucket, or have less kept"
        return Retryable(Reason.STORE_FULL, f"{message} (spec.retention); it goes on by itself")
    if (status and int(status[1]) in _REFUSED) or (said and said[1] in _OF_CREDENTIALS):
        message = f"the store refuses us at {what}: {why}; wanted credentials that may list, read, write and delete"
        return Retryable(Reason.STORE_UNAUTHORIZED, f"{message} there; a Secret is read again")
    return Retryable(Reason.STORE_UNREACHABLE, f"the store failed at {what}: {why}; wanted it to answer, trying again")
