"""What do the stories need beside Pointsman? A database, an object store with the texts, who writes and who asks.

All of it in one namespace, where the restricted Pod Security Standard is enforced.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e import writing
from e2e.cluster.kube import Object

NAMESPACE, TENANT = "pointsman-e2e", "tenant"
RELEASE = "pointsman"
NAME = "stdlib"
"""Of the dataset, the deployment and the query set."""
DATABASE, STORE, ASKER, WRITER, MODEL, LEAK = "postgres", "s3", "asker", "writer", "model", "leak"
MANY = ("parts", "whole")
"""Datasets of many documents: one that pods embed, one that the operator does. Deployments of the same names."""
CORPUS_BUCKET, STORE_BUCKET = "corpus", "store"
STANDING, WRITTEN = "documents/standing.jsonl", "documents/changing.jsonl"
"""The objects of the source: one stays as it is, the other is changed all the time."""
S3_PORT, MODEL_PORT = 7070, 8000
_RESOURCES = {"requests": {"cpu": "200m", "memory": "128Mi"}}


@dataclass(frozen=True, slots=True)
class Keys:
    """What nobody may find in a log, made anew for each run."""

    database: str
    access: str
    secret: str
    model: str

    @classmethod
    def make(cls) -> Keys:
        """Return new ones."""
        return cls(secrets.token_hex(12), f"AK{secrets.token_hex(8)}", secrets.token_hex(16), secrets.token_hex(20))


def host(name: str) -> str:
    """Return the name of a Service as every pod of the cluster resolves it."""
    return f"{name}.{NAMESPACE}.svc.cluster.local"


def search(name: str) -> str:
    """Return where the gateway is asked to search a deployment."""
    return f"http://{RELEASE}-gateway.{NAMESPACE}.svc:8080/v1/namespaces/{NAMESPACE}/indexes/{name}/search"


ENDPOINT = f"http://{host(STORE)}:{S3_PORT}"
MODEL_URL = f"http://{host(MODEL)}:{MODEL_PORT}"
COUNTED = "This is copy"
"""What is in every text that the model's server counts."""


def namespace(name: str = NAMESPACE) -> Object:
    """Return a namespace in which only restricted pods are let in."""
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secrets_for(keys: Keys) -> Sequence[Object]:
    """Return the Secrets of the servers, and those that resources refer to."""
    options = {
        "aws_endpoint": ENDPOINT,
        "aws_region": "us-east-1",
        "aws_access_key_id": keys.access,
        "aws_secret_access_key": keys.secret,
        "allow_http": "true",
    }
    return [
        secret("database", {"username": "pointsman", "password": keys.database}, host(DATABASE)),
        secret("corpus", opens(keys), host(STORE)),
        secret("store", {"options": json.dumps(options)}),
        secret("s3-root", opens(keys)),
        secret(MODEL, {"token": keys.model}, host(MODEL)),
    ]


def opens(keys: Keys) -> Mapping[str, str]:
    """Return what a Secret has to say of the object store."""
    pair = {"accessKeyID": keys.access, "secretAccessKey": keys.secret}
    return {**pair, "endpoint": ENDPOINT, "region": "us-east-1"}


def database(image: str) -> Sequence[Object]:
    """Return PostgreSQL with pgvector, on a volume that outlives its pod."""
    environment = [
        {"name": "PGDATA", "value": "/data/pg"},
        {"name": "PGUSER", "value": "pointsman"},
        {"name": "PASSWORD_FILE", "value": "/run/database/password"},
    ]
    probe = {"exec": {"command": ["pg_isready", "-q", "-h", "127.0.0.1"]}, "periodSeconds": 1, "timeoutSeconds": 5}
    container = {
        "name": DATABASE,
        "image": image,
        "env": environment,
        "ports": [{"containerPort": 5432}],
        "readinessProbe": probe,
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "password", "mountPath": "/run/database", "readOnly": True},
            {"name": "shared", "mountPath": "/dev/shm"},
        ],
    }
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": DATABASE}},
        {"name": "password", "secret": {"secretName": "database"}},
        # The 64 MB of a pod are too few to build a graph index in.
        {"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}},
    ]
    return [_claim(DATABASE), _deployment(DATABASE, container, volumes), _service(DATABASE, 5432)]


def object_store(image: str) -> Sequence[Object]:
    """Return an S3 server over a volume."""
    container = {
        "name": STORE,
        "image": image,
        "args": [
            "--port",
            f":{S3_PORT}",
            "--health",
            "/health",
            "posix",
            "--sidecar",
            "/data/sidecar",
            "/data/buckets",
        ],
        "env": [
            _from_secret(name, "s3-root", key)
            for name, key in (("ROOT_ACCESS_KEY_ID", "accessKeyID"), ("ROOT_SECRET_ACCESS_KEY", "secretAccessKey"))
        ],
        "ports": [{"containerPort": S3_PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": S3_PORT}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "data", "mountPath": "/data/buckets", "subPath": "buckets"},
            {"name": "data", "mountPath": "/data/sidecar", "subPath": "sidecar"},
        ],
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": STORE}}]
    return [_claim(STORE), _deployment(STORE, container, volumes), _service(STORE, S3_PORT)]


def asker(image: str, queries: Path, rate: float) -> Sequence[Object]:
    """Return a pod that asks the judged queries of the gateway, as often as said, from now on.

    It has a token of its own, and the right to search this deployment and those of MANY.
    """
    script = Path(__file__).resolve().parents[1] / "examples" / "stdlib" / "traffic.py"
    files = {"traffic.py": script.read_text(), "queries.jsonl": queries.read_text()}
    container = {
        "name": ASKER,
        "image": image,
        "command": ["python", "/asker/traffic.py", search(NAME), "/asker/queries.jsonl", "/tmp/answers.jsonl"],
        "args": ["--rate", str(rate), "--token-file", "/run/token/token", "--retries", "4"],
        "readinessProbe": {"exec": {"command": ["test", "-s", "/tmp/answers.jsonl"]}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "files", "mountPath": "/asker"},
            {"name": "answers", "mountPath": "/tmp"},
            {"name": "token", "mountPath": "/run/token"},
        ],
    }
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    volumes = [
        {"name": "files", "configMap": {"name": ASKER}},
        {"name": "answers", "emptyDir": {}},
        {"name": "token", "projected": {"sources": [token]}},
    ]
    account = {"kind": "ServiceAccount", "name": ASKER, "namespace": NAMESPACE}
    rule = {
        "apiGroups": ["pointsman.dev"],
        "resources": ["indexdeployments/search"],
        "resourceNames": [NAME, *MANY],
        "verbs": ["create"],
    }
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named(ASKER)},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": _named(ASKER), "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": _named(ASKER),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ASKER},
            "subjects": [account],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(ASKER), "data": files},
        _deployment(ASKER, container, volumes, account=ASKER),
    ]


def writer(image: str, seconds: float) -> Sequence[Object]:
    """Return a pod that changes the source every so many seconds, from now on."""
    names = (("ACCESS_KEY_ID", "accessKeyID"), ("SECRET_ACCESS_KEY", "secretAccessKey"), ("ENDPOINT", "endpoint"))
    container = {
        "name": WRITER,
        "image": image,
        "command": ["python", "/writer/writing.py", CORPUS_BUCKET, WRITTEN, str(seconds)],
        "env": [_from_secret(name, "corpus", key) for name, key in names],
        "readinessProbe": {"exec": {"command": ["test", "-s", str(writing.TURN)]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "files", "mountPath": "/writer"}, {"name": "turn", "mountPath": "/tmp"}],
    }
    files = {"writing.py": Path(writing.__file__).read_text()}
    volumes = [{"name": "files", "configMap": {"name": WRITER}}, {"name": "turn", "emptyDir": {}}]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(WRITER), "data": files},
        _deployment(WRITER, container, volumes),
    ]


def model(image: str, seconds: float = 0.2) -> Sequence[Object]:
    """Return a model's server that counts the texts that it is asked for, and takes so many seconds for a request.

    It answers whoever has the key alone.
    """
    container = {
        "name": MODEL,
        "image": image,
        "command": ["python", "/model/counting.py", str(MODEL_PORT), COUNTED, str(seconds)],
        "env": [_from_secret("KEY", MODEL, "token")],
        "ports": [{"containerPort": MODEL_PORT}],
        "readinessProbe": {"httpGet": {"path": "/asked", "port": MODEL_PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "files", "mountPath": "/model"}],
    }
    files = {"counting.py": (Path(__file__).parent / "counting.py").read_text()}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(MODEL), "data": files},
        _deployment(MODEL, container, [{"name": "files", "configMap": {"name": MODEL}}]),
        _service(MODEL, MODEL_PORT),
    ]


def leak(name: str, image: str, text: str) -> Sequence[Object]:
    """Return a pod that logs a text and ends, and a ConfigMap with it: what may never be, to see that it is found."""
    container = {"name": LEAK, "image": image, "command": ["python", "-c", "import os; print(os.environ['TEXT'])"]}
    environment = [{"name": "TEXT", "valueFrom": {"configMapKeyRef": {"name": name, "key": "text"}}}]
    deployment = _deployment(name, {**container, "env": environment}, [])
    pod = {**deployment["spec"]["template"]["spec"], "restartPolicy": "Never"}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(name), "data": {"text": text}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": _named(name), "spec": pod},
    ]


def chart_values(image: str, api_server: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values with which a platform team would install the chart here, whose API server is where it is."""
    repository, _, tag = image.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "store": {"s3": {"uri": f"s3://{STORE_BUCKET}/e2e", "existingSecret": "store"}},
        "access": {"allowedHosts": [host(DATABASE), host(STORE), host(MODEL)]},
        "jobs": {"enabled": True},
        "operator": {"resyncSeconds": 20, "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}}},
        "gateway": {"resources": {"requests": {"cpu": "250m", "memory": "256Mi"}}},
        "networkPolicy": {
            "apiServer": api_server,
            "queriesFrom": [_pods(ASKER)],
            "databases": [_to(DATABASE, 5432)],
            "models": [_to(MODEL, MODEL_PORT)],
            "sources": [_to(STORE, S3_PORT)],
            "store": [_to(STORE, S3_PORT)],
        },
    }


def _to(name: str, port: int) -> Mapping[str, Any]:
    return {"to": [_pods(name)], "ports": [{"port": port, "protocol": "TCP"}]}


def _pods(name: str) -> Mapping[str, Any]:
    # With the namespace, since pods that embed are in that of their dataset.
    here = {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
    return {"namespaceSelector": here, "podSelector": {"matchLabels": {"app": name}}}


def _named(name: str) -> Mapping[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}


def secret(name: str, content: Mapping[str, str], allowed: str = "", namespace: str = NAMESPACE) -> Object:
    """Return a Secret that may be sent to one host, or to none."""
    annotations = {"pointsman.dev/allowed-hosts": allowed} if allowed else {}
    metadata = {**_named(name), "namespace": namespace, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(content)}


def _from_secret(variable: str, name: str, key: str) -> Mapping[str, Any]:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _claim(name: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _named(name), "spec": spec}


def _service(name: str, port: int) -> Object:
    spec = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _named(name), "spec": spec}


def _deployment(
    name: str, container: Mapping[str, Any], volumes: Sequence[Mapping[str, Any]], account: str = "default"
) -> Object:
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    pod = {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # Whoever asks for nothing gets next to nothing while others compute, and would measure that.
        "containers": [
            {"resources": _RESOURCES, **container, "imagePullPolicy": "IfNotPresent", "securityContext": security}
        ],
        "volumes": list(volumes),
    }
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _named(name), "spec": spec}
