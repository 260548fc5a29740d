"""What a user declares in the stories, and what a tenant tries: resources, and nothing that applies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2e import counting, stack
from e2e.cluster.kube import Object

STEPS: Sequence[Mapping[str, Any]] = (
    {"shadow": {"percent": 100, "for": "5s"}},
    {"weight": 10},
    {"pause": {"for": "3s"}},
    {"weight": 50},
    {"pause": {"for": "3s"}},
    {"weight": 100},
)
HALF_WAY: Sequence[Mapping[str, Any]] = ({"weight": 50}, {"pause": {"for": "30m"}}, {"weight": 100})
"""Half of the queries go to the candidate, and stay there until somebody edits something."""
_CREDENTIALS = {"credentialsRef": {"name": "corpus"}}


def resources() -> Sequence[Object]:
    """Return the example: a dataset, a query set, and a deployment that serves its first version."""
    dataset = {
        "source": {"files": _files("documents/*"), "idField": "id"},
        "refresh": {"every": "15s"},
        "versions": [version("v7", 64)],
    }
    judgements = {"files": _files("judgements"), "kind": "Complete"}
    gate = {"querySetRef": {"name": stack.NAME}, "metric": "nDCG@10", "notWorseBy": "0.02"}
    deployment = {
        "datasetRef": {"name": stack.NAME},
        "version": "v7",
        "backend": _backend("database"),
        "strategy": {"steps": STEPS},
        "gates": {"evaluation": gate},
        "check": {"every": "1m"},
        "burnIn": {"for": "5s"},
    }
    return [
        _resource("EmbeddingDataset", stack.NAME, dataset),
        _resource("QuerySet", stack.NAME, {"queries": {"files": _files("queries")}, "judgements": judgements}),
        _resource("IndexDeployment", stack.NAME, deployment),
    ]


def many(name: str, work: Mapping[str, Any]) -> Object:
    """Return a dataset of many documents, with a store of its own and the model that counts, which wants a key."""
    model = {"openai": {"endpoint": "main", "model": counting.MODEL, "dimensions": counting.DIMENSIONS}}
    spec = {
        "source": {"files": _files("many"), "idField": "id"},
        "endpoints": [
            {"name": "main", "baseURL": f"{stack.MODEL_URL}/v1", "apiKeyRef": {"name": stack.MODEL, "key": "token"}}
        ],
        "versions": [{**version("v1", 64), "model": model}],
        "store": {"uri": f"s3://{stack.STORE_BUCKET}/{name}", **_CREDENTIALS},
        "work": dict(work),
    }
    return _resource("EmbeddingDataset", name, spec)


def serving_many(name: str) -> Object:
    """Return a deployment of a dataset of many documents, of the same name."""
    return _resource(
        "IndexDeployment", name, {"datasetRef": {"name": name}, "version": "v1", "backend": _backend("database")}
    )


def attempts(keys: stack.Keys) -> Sequence[Object]:
    """Return what a tenant of a namespace of its own might try, to get at what is in the other one."""
    host_of_api = "kubernetes.default.svc.cluster.local"
    pair = {"accessKeyID": "a", "secretAccessKey": "b", "endpoint": f"https://{host_of_api}"}
    own = stack.secret("own", pair, host_of_api, stack.TENANT)
    # The database is shared, and what this tenant is given of it is good.
    user = {"username": "pointsman", "password": keys.database}
    key = stack.secret("key", user, stack.host(stack.DATABASE), stack.TENANT)
    few = stack.secret("few", stack.opens(keys), stack.host(stack.STORE), stack.TENANT)

    def dataset(name: str, **reference: Any) -> Object:
        files = {"uri": f"s3://{stack.CORPUS_BUCKET}/few.jsonl", "format": "jsonl", **reference}
        version = {"name": "v1", "model": {"wordllama": {"dimensions": 64}}, "text": {"template": "{text}"}}
        spec = {"source": {"files": files, "idField": "id"}, "versions": [version]}
        return _resource("EmbeddingDataset", name, spec, stack.TENANT)

    def deployment(name: str, of: str, version: str, secret: str, **more: Any) -> Object:
        spec = {"datasetRef": {"name": of}, "version": version, "backend": _backend(secret), **more}
        return _resource("IndexDeployment", name, spec, stack.TENANT)

    canaries = {"canaries": {"querySetRef": {"name": stack.NAME}}}
    return [
        own,
        key,
        few,
        dataset("with-anothers-secret", credentialsRef={"name": "corpus"}),
        dataset("with-none"),
        dataset("by-the-api-server", credentialsRef={"name": "own"}),
        deployment("with-anothers-database", stack.NAME, "v8", "database"),
        deployment("with-anothers-dataset", stack.NAME, "v8", "key"),
        dataset("of-its-own", credentialsRef={"name": "few"}),
        deployment("with-anothers-queries", "of-its-own", "v1", "key", gates=canaries),
    ]


def version(name: str, dimensions: int, template: str = "{name}. {text}", tokens: int = 4096) -> dict[str, Any]:
    """Return a version of the example's dataset."""
    return {
        "name": name,
        "model": {"wordllama": {"dimensions": dimensions}},
        "text": {"template": template, "metadataFields": ["module", "kind"]},
        "chunking": {"maxTokens": tokens},
    }


def _files(name: str) -> Mapping[str, Any]:
    return {"uri": f"s3://{stack.CORPUS_BUCKET}/{name}.jsonl", "format": "jsonl", **_CREDENTIALS}


def _backend(secret: str) -> Mapping[str, Any]:
    database = {"host": stack.host(stack.DATABASE), "database": "postgres", "tls": "Disable"}
    return {"pgvector": {**database, "credentialsRef": {"name": secret}}}


def _resource(kind: str, name: str, spec: Mapping[str, Any], namespace: str = stack.NAMESPACE) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "pointsman.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}
