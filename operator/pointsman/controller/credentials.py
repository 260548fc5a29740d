"""Which Secret goes where: read by name, and only for hosts that the Secret's own annotation allows."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api.base import SecretKeyReference, SecretReference
from pointsman.api.conditions import Reason
from pointsman.controller.cluster import Cluster, Secret
from pointsman.errors import Terminal

AWS = "s3.amazonaws.com"


def of_source(cluster: Cluster, namespace: str, source: dataset_api.Source, access: Access) -> Mapping[str, str]:
    """Return the credentials of a source; empty where its spec names no Secret."""
    if source.postgres is not None:
        return _all(cluster, namespace, source.postgres.credentials_ref, source.postgres.host, access)
    return of_files(cluster, namespace, source.files, access)


def of_files(
    cluster: Cluster, namespace: str, files: dataset_api.FilesSource | None, access: Access
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
    return secret.values


def of_endpoint(cluster: Cluster, namespace: str, endpoint: dataset_api.Endpoint | None, access: Access) -> str | None:
    """Return the API key of a model's endpoint; None where it names no Secret."""
    if endpoint is None or endpoint.api_key_ref is None:
        return None
    host = urlsplit(endpoint.base_url).hostname or ""
    return _one(cluster, namespace, endpoint.api_key_ref, host, access)


def of_backend(cluster: Cluster, namespace: str, backend: deployment_api.Backend, access: Access) -> Mapping[str, str]:
    """Return the credentials of a database; empty where its spec names no Secret."""
    if backend.qdrant is not None and backend.qdrant.api_key_ref is not None:
        host = urlsplit(backend.qdrant.url).hostname or ""
        return {"apiKey": _one(cluster, namespace, backend.qdrant.api_key_ref, host, access)}
    if backend.milvus is not None and backend.milvus.token_ref is not None:
        host = urlsplit(backend.milvus.uri).hostname or ""
        return {"token": _one(cluster, namespace, backend.milvus.token_ref, host, access)}
    if backend.pgvector is not None:
        return _all(cluster, namespace, backend.pgvector.credentials_ref, backend.pgvector.host, access)
    return {}


def _all(cluster: Cluster, namespace: str, reference: SecretReference, host: str, access: Access) -> Mapping[str, str]:
    secret = _secret(cluster, namespace, reference.name)
    access.check_secret(secret.name, secret.annotations, host)
    return secret.values


def _one(cluster: Cluster, namespace: str, reference: SecretKeyReference, host: str, access: Access) -> str:
    secret = _secret(cluster, namespace, reference.name)
    access.check_secret(secret.name, secret.annotations, host)
    if reference.key not in secret.values:
        has = ", ".join(sorted(secret.values)) or "none"
        message = f"Secret {reference.name} has no key {reference.key}, only {has}"
        raise Terminal(Reason.SECRET_NOT_FOUND, message)
    return secret.values[reference.key].strip()


def _secret(cluster: Cluster, namespace: str, name: str) -> Secret:
    secret = cluster.secret(namespace, name)
    if secret is None:
        raise Terminal(Reason.SECRET_NOT_FOUND, f"Secret {name} is not there")
    return secret
