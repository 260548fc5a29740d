"""Which Secret goes where: read by name, and only for hosts that the Secret's own annotation allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never
from urllib.parse import urlsplit

from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api import engines
from pointsman.api import work as work_api
from pointsman.api.base import SecretKeyReference, SecretReference
from pointsman.api.conditions import Reason
from pointsman.backends import registry
from pointsman.cluster.resources import Secret
from pointsman.cluster.sight import Secrets
from pointsman.errors import Retryable, Terminal

AWS = "s3.amazonaws.com"
FILES_KEYS = ("accessKeyID", "secretAccessKey", "sessionToken", "endpoint", "region")
_OPTIONS: Mapping[str, str] = {
    "accessKeyID": "aws_access_key_id",
    "secretAccessKey": "aws_secret_access_key",
    "sessionToken": "aws_session_token",
    "endpoint": "aws_endpoint",
    "region": "aws_region",
}
POSTGRES_KEYS = ("username", "password", "ca.crt")
FORBIDDEN = 403
UNREADABLE = frozenset({Reason.SECRET_NOT_FOUND, Reason.SECRET_FORBIDDEN})
"""What is said of Secrets of a namespace that is removed: they go first, or the right to read them does."""


def of_source(cluster: Secrets, namespace: str, source: dataset_api.Source, access: Access) -> Mapping[str, str]:
    """Return the credentials of a source; empty where its spec names no Secret."""
    if source.postgres is not None:
        spec = source.postgres
        return _several(cluster, namespace, spec.credentials_ref, spec.host, POSTGRES_KEYS, access)
    return of_files(cluster, namespace, source.files, access)


def of_files(
    cluster: Secrets, namespace: str, files: dataset_api.FilesSource | None, access: Access
) -> Mapping[str, str]:
    """Return the credentials of files; empty where there are none or their spec names no Secret."""
    if files is None:
        return {}
    if files.credentials_ref is None:
        if not files.uri.startswith("file://") and not access.allow_ambient_credentials:
            message = f"{files.uri} needs a credentialsRef beside it, to a Secret with accessKeyID and secretAccessKey"
            raise Terminal(Reason.CREDENTIALS_REQUIRED, message)
        return {}
    secret = _secret(cluster, namespace, files.credentials_ref.name)
    host = urlsplit(secret.values.get("endpoint", "")).hostname or AWS
    access.check_secret(secret.name, secret.annotations, host)
    return _texts(secret, FILES_KEYS)


def of_store(cluster: Secrets, namespace: str, store: work_api.Store, access: Access) -> Mapping[str, str]:
    """Return the options with which a dataset's own store is opened.

    Raises Terminal(FILE_NOT_ALLOWED) for a place in the operator's own store, and what keeps a Secret from being sent.
    """
    access.check_object(store.uri)
    secret = _secret(cluster, namespace, store.credentials_ref.name)
    endpoint = secret.values.get("endpoint", "")
    access.check_secret(secret.name, secret.annotations, urlsplit(endpoint).hostname or AWS)
    values = _texts(secret, FILES_KEYS)
    if not {"accessKeyID", "secretAccessKey"} <= values.keys():
        message = f"Secret {secret.name} lacks accessKeyID or secretAccessKey, which {store.uri} is opened with"
        raise Terminal(Reason.CREDENTIALS_REQUIRED, message)
    return store_options(values)


def store_options(values: Mapping[str, str]) -> Mapping[str, str]:
    """Return the options of an object store from the values of a Secret; other values are passed over."""
    options = {_OPTIONS[key]: values[key].strip() for key in FILES_KEYS if values.get(key, "").strip()}
    if options.get("aws_endpoint", "").startswith("http://"):
        options["allow_http"] = "true"
    return options


def of_endpoint(cluster: Secrets, namespace: str, endpoint: dataset_api.Endpoint | None, access: Access) -> str | None:
    """Return the API key of a model's endpoint; None where it names no Secret."""
    if endpoint is None or endpoint.api_key_ref is None:
        return None
    return _one(cluster, namespace, endpoint.api_key_ref, _host(endpoint.base_url), access)


def of_backend(cluster: Secrets, namespace: str, backend: engines.Backend, access: Access) -> Mapping[str, str]:
    """Return the credentials of a database; empty where its spec names no Secret."""
    match registry.engine(backend):
        case engines.QdrantBackend(url=url, api_key_ref=reference):
            return {} if reference is None else {"apiKey": _one(cluster, namespace, reference, _host(url), access)}
        case engines.MilvusBackend(uri=uri, token_ref=reference):
            return {} if reference is None else {"token": _one(cluster, namespace, reference, _host(uri), access)}
        case engines.PgvectorBackend() as found:
            return _several(cluster, namespace, found.credentials_ref, found.host, POSTGRES_KEYS, access)
        case engines.MemoryBackend():
            return {}
        case never:
            assert_never(never)


def _several(
    cluster: Secrets, namespace: str, reference: SecretReference, host: str, keys: Sequence[str], access: Access
) -> Mapping[str, str]:
    secret = _secret(cluster, namespace, reference.name)
    access.check_secret(secret.name, secret.annotations, host)
    return _texts(secret, keys)


def _one(cluster: Secrets, namespace: str, reference: SecretKeyReference, host: str, access: Access) -> str:
    secret = _secret(cluster, namespace, reference.name)
    access.check_secret(secret.name, secret.annotations, host)
    found = _texts(secret, [reference.key])
    if reference.key not in found:
        has = ", ".join(sorted(secret.values)) or "none"
        message = f"Secret {reference.name} has no key {reference.key}, only {has}"
        raise Terminal(Reason.SECRET_NOT_FOUND, message)
    return found[reference.key].strip()


def is_forbidden(error: Retryable) -> bool:
    """Return whether the cluster answered that we lack a right."""
    return getattr(error.__cause__, "status", None) == FORBIDDEN


def _texts(secret: Secret, keys: Sequence[str]) -> Mapping[str, str]:
    """Return those of the wanted keys that are there: nothing else of a Secret is handed on."""
    for key in keys:
        if key in secret.binary:
            message = f"the value of {key} in Secret {secret.name} is no UTF-8 text; put the text there"
            raise Terminal(Reason.SECRET_NOT_FOUND, message)
    return {key: secret.values[key] for key in keys if key in secret.values}


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _secret(cluster: Secrets, namespace: str, name: str) -> Secret:
    try:
        secret = cluster.secret(namespace, name)
    except Retryable as error:
        if not is_forbidden(error):
            raise
        message = f"Secret {name} may not be read: the cluster forbids it; grant get on it in namespace {namespace}"
        wanted = f"{message} to operator and gateways, as the chart's secrets.names does"
        raise Terminal(Reason.SECRET_FORBIDDEN, wanted) from error
    if secret is None:
        raise Terminal(Reason.SECRET_NOT_FOUND, f"Secret {name} is not there")
    return secret
