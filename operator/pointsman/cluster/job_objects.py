"""What a Kubernetes Job looks like that embeds a snapshot or loads an index, and how one is read. No client, no call.

A pod has no right at all on the API, no token, and no Secret but those of its own namespace that its resource names.
What it is to do stands in its environment, without anything secret.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

from pointsman.api import base, engines
from pointsman.api.conditions import Reason
from pointsman.api.work import JobWork
from pointsman.backends import registry
from pointsman.cluster.batch import OWNER
from pointsman.cluster.resources import MANAGED_BY, Resource
from pointsman.core import recipes
from pointsman.core.recipes import Recipe
from pointsman.embedders.declared import endpoint_of, model_of
from pointsman.errors import Terminal
from pointsman.plan.tasks import Build, Embed
from pointsman.store import options
from pointsman.store.ledger import Attempt
from pointsman.work import wire
from pointsman.work.jobs import Job, marker_of
from pointsman.work.shard import BROKEN_DOCUMENTS, BROKEN_SETTING, EVICTED

SECRETS = "/var/run/pointsman"
"""Where the Secrets are mounted in a pod."""
SHARD = "POINTSMAN_SHARD"
"""The variable that says what a pod is to do."""
RECIPE, SNAPSHOT, INDEX = "pointsman.dev/recipe", "pointsman.dev/snapshot", "pointsman.dev/index"
SCRATCH = "2Gi"
"""How much a pod may write to its scratch folder where the spec sets nothing aside: the store needs little of it, and a
node's disk is everybody's."""
_DISK = "ephemeral-storage"
QUEUE = "kueue.x-k8s.io/queue-name"
_TOLD = frozenset({"allow_http", "allow_invalid_certificates", "connect_timeout", "timeout"}) | {
    f"aws_{name}"
    for name in (
        "checksum_algorithm", "conditional_put", "default_region", "disable_tagging", "endpoint", "endpoint_url",
        "region", "request_payer", "s3_express", "server_side_encryption", "skip_signature", "sse_bucket_key_enabled",
        "sse_kms_key_id", "unsigned_payload", "virtual_hosted_style_request",
    )
}  # fmt: skip
"""The options of the operator's store that pods are told in their environment, which whoever reads Jobs can read: where
it is and how it is spoken to, nothing that opens it."""


PodTask = Embed | Build
"""What pods carry out."""


@dataclass(frozen=True, slots=True)
class Pods:
    """What the operator's settings say of pods."""

    image: str
    service_account: str = ""
    pull_secrets: tuple[str, ...] = ()
    priority_classes: tuple[str, ...] = ()
    """The PriorityClasses that datasets may name."""
    is_store_shared: bool = False
    """Whether pods reach the operator's own store by its address."""
    store_claim: str = ""
    """The dataset's namespace's PersistentVolumeClaim to the volume of the operator's own store, if it is a folder."""
    store_mount: str = ""
    """Where that claim is mounted, for the store to be at its address; empty for at the address itself."""


def name_of(task: PodTask, uid: str, attempt: int, run: str = "") -> str:
    """Return the name of the Job of an attempt: the same for whoever asks, and no other resource's.

    `run` tells runs that load an index apart, of which each counts its attempts from one.
    """
    what = [task.index, run] if isinstance(task, Build) else []
    run = recipes.digest([uid, task.recipe, task.snapshot, *what], 8)
    # Name and index become the pod's host name: a label of 63 characters, without the dots that a resource's may have.
    owner, version = (text.replace(".", "-").rstrip("-") for text in (task.owner.name[:30], task.version[:12]))
    return f"{owner}-{version}-{run}-{attempt}"


def manifest(job: Job, task: PodTask, recipe: Recipe, attempt: Attempt, pods: Pods, run: str = "") -> dict[str, Any]:
    """Return the Job that carries out an attempt."""
    assert job.dataset is not None, "what pods carry out has its dataset's spec"
    wanted = job.dataset.work.job
    labels = {
        **MANAGED_BY,
        "app.kubernetes.io/component": "shard",
        OWNER: job.uid,
        RECIPE: task.recipe,
        SNAPSHOT: str(task.snapshot),
        **({INDEX: task.index} if isinstance(task, Build) else {}),
    }
    owner = {
        "apiVersion": f"{base.GROUP}/{base.API_VERSION}",
        "kind": task.owner.kind,
        "name": task.owner.name,
        "uid": job.uid,
        "controller": True,
    }
    queue = {QUEUE: wanted.queue_name} if wanted.queue_name else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name_of(task, job.uid, attempt.number, run),
            "namespace": task.owner.namespace,
            "labels": {**labels, **queue},
            "ownerReferences": [owner],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": attempt.shards,
            "parallelism": min(wanted.parallelism or attempt.shards, attempt.shards),
            "backoffLimitPerIndex": wanted.retries_per_shard,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _rules()},
            "activeDeadlineSeconds": _seconds(wanted.deadline),
            "ttlSecondsAfterFinished": _seconds(wanted.ttl),
            # Kueue starts what it admits; nobody else does.
            "suspend": bool(wanted.queue_name) or wanted.suspend or job.dataset.suspend,
            "template": {"metadata": {"labels": labels}, "spec": _pod(job, task, recipe, attempt, pods, run)},
        },
    }


def _rules() -> list[dict[str, Any]]:
    def code(action: str, value: int) -> dict[str, Any]:
        return {"action": action, "onExitCodes": {"containerName": "shard", "operator": "In", "values": [value]}}

    return [
        # A node that is drained, or taken back, is nobody's fault.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        code("Ignore", EVICTED),
        code("FailIndex", BROKEN_DOCUMENTS),
        code("FailJob", BROKEN_SETTING),
    ]


def _pod(job: Job, task: PodTask, recipe: Recipe, attempt: Attempt, pods: Pods, run: str) -> dict[str, Any]:
    assert job.dataset is not None
    wanted = job.dataset.work.job
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": _scratch(wanted)}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    if job.dataset.store is not None:
        volumes.append({"name": "store", "secret": {"secretName": job.dataset.store.credentials_ref.name}})
        mounts.append({"name": "store", "mountPath": f"{SECRETS}/store", "readOnly": True})
    elif is_folder(job.store):
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": pods.store_claim}})
        mounts.append({"name": "store", "mountPath": pods.store_mount or job.store.removeprefix("file://")})
    for name, secret in _mounted(job, task, recipe).items():
        volumes.append({"name": name, "secret": secret})
        mounts.append({"name": name, "mountPath": f"{SECRETS}/{name}", "readOnly": True})
    container = {
        "name": "shard",
        "image": pods.image,
        "command": ["pointsman", "shard"],
        "env": [
            {"name": SHARD, "value": json.dumps(description(job, task, recipe, attempt, run), sort_keys=True)},
            {"name": "HOME", "value": "/tmp"},
        ],
        "resources": _resources(task, wanted),
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
        **({"serviceAccountName": pods.service_account} if pods.service_account else {}),
        **({"imagePullSecrets": [{"name": name} for name in pods.pull_secrets]} if pods.pull_secrets else {}),
        **({"nodeSelector": dict(wanted.node_selector)} if wanted.node_selector else {}),
        **({"tolerations": [_toleration(each.dump()) for each in wanted.tolerations]} if wanted.tolerations else {}),
        **({"priorityClassName": wanted.priority_class_name} if wanted.priority_class_name else {}),
    }


def is_folder(store: str) -> bool:
    """Return whether a store is a folder: pods reach it by a volume that they mount, and never by its address alone."""
    return not store.startswith("s3://")


def _scratch(wanted: JobWork) -> str:
    """Return how much a pod may write to its scratch folder: what the spec says of the node's disk, if it does."""
    limits, requests = wanted.resources.limits, wanted.resources.requests
    return limits.get(_DISK) or requests.get(_DISK) or SCRATCH


def _resources(task: PodTask, wanted: JobWork) -> dict[str, Any]:
    """Return what a pod asks for. Loading takes no device: those of a domain, such as GPUs, are for the model."""
    found: dict[str, Any] = wanted.resources.dump()
    if isinstance(task, Embed):
        return found
    return {kind: {name: each for name, each in of.items() if "/" not in name} for kind, of in found.items()}


def _mounted(job: Job, task: PodTask, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the Secret that a pod mounts beside the store's, as a volume has it, by the volume's name."""
    if isinstance(task, Build):
        assert job.backend is not None, "an index has its database's spec"
        found = _of_database(job.backend)
        return {} if found is None else {"database": {"secretName": found[0], "items": found[1]}}
    assert job.dataset is not None
    endpoint = endpoint_of(job.dataset, model_of(job.dataset, task.version, recipe.space))
    if endpoint is None or endpoint.api_key_ref is None:
        return {}
    item = {"key": endpoint.api_key_ref.key, "path": "key"}
    return {"endpoint": {"secretName": endpoint.api_key_ref.name, "items": [item]}}


def _of_database(backend: engines.Backend) -> tuple[str, list[dict[str, str]]] | None:
    """Return the name of a database's Secret, and which of its keys a pod sees under which name; None for none."""
    match registry.engine(backend):
        case engines.QdrantBackend(api_key_ref=reference):
            return None if reference is None else (reference.name, [{"key": reference.key, "path": "apiKey"}])
        case engines.MilvusBackend(token_ref=reference):
            return None if reference is None else (reference.name, [{"key": reference.key, "path": "token"}])
        case engines.PgvectorBackend(credentials_ref=named):
            return named.name, [{"key": key, "path": key} for key in ("username", "password")]
        case engines.MemoryBackend():
            return None
        case never:
            assert_never(never)


def secrets(job: Job, task: PodTask, recipe: Recipe) -> list[str]:
    """Return the names of the Secrets that a pod mounts."""
    assert job.dataset is not None
    store = job.dataset.store
    mounted = [str(secret["secretName"]) for secret in _mounted(job, task, recipe).values()]
    return [*([] if store is None else [store.credentials_ref.name]), *mounted]


def description(job: Job, task: PodTask, recipe: Recipe, attempt: Attempt, run: str) -> dict[str, Any]:
    """Return what a pod is told of its work. Nothing of it is secret, nor of the source."""
    told = {
        "namespace": task.owner.namespace,
        "recipe": recipes.to_json(recipe),
        "snapshot": task.snapshot,
        "attempt": attempt.number,
        "store": job.home or job.store,
        "store_options": {} if job.home else told_options(job),
        "has_own_store": bool(job.home),
        # What pods may reach is what the operator may; where its own store is, is nothing to them.
        "access": wire.access_to_json(dataclasses.replace(job.access, store="")),
    }
    if isinstance(task, Build):
        assert job.backend is not None
        return told | {
            "dataset": task.dataset,
            "index": task.index,
            "run": run,
            "marker": dataclasses.asdict(marker_of(job, task, recipe)),
            "backend": job.backend.dump(),
            "has_credentials": _of_database(job.backend) is not None,
            "serving": job.serving,
            "shards": attempt.shards,
        }
    assert job.dataset is not None
    model = model_of(job.dataset, task.version, recipe.space)
    endpoint = endpoint_of(job.dataset, model)
    reached = None if endpoint is None else endpoint.model_copy(update={"api_key_ref": None})
    return told | {
        "dataset": task.owner.name,
        "model": model.dump(),
        "endpoint": None if reached is None else reached.dump(),
        "has_key": endpoint is not None and endpoint.api_key_ref is not None,
    }


def told_options(job: Job) -> dict[str, str]:
    """Return how the operator's store is opened now: what stands in its file changes while pods are at work.

    Raises Terminal(STORE_NOT_SHARED) where any of it may be secret, as whoever reads Jobs could read it.
    """
    opened = dict(options.current(job.store_options))
    kept = sorted(name for name, value in opened.items() if name not in _TOLD or "@" in value)
    if kept:
        raise Terminal(
            Reason.STORE_NOT_SHARED,
            f"the operator's store is opened with {', '.join(kept)}, which may be secret and is given to no pod; "
            "declare the dataset with spec.store",
        )
    return opened


def is_ended(job: Resource, kind: str = "") -> bool:
    """Return whether a Job has ended, or ended as `Complete` or `Failed`."""
    kinds = (kind,) if kind else ("Complete", "Failed")
    found = job.get("status", {}).get("conditions") or ()
    return any(condition["type"] in kinds and condition["status"] == "True" for condition in found)


def going_since(job: Resource) -> datetime | None:
    """Return since when a Job is being deleted; None where it is not."""
    found = job["metadata"].get("deletionTimestamp")
    return None if found is None else datetime.fromisoformat(found)


def why_failed(job: Resource) -> str:
    """Return the reason that a failed Job gives, in a word; empty where it gives none."""
    found = job.get("status", {}).get("conditions") or ()
    return next((str(c.get("reason", "")) for c in found if c["type"] == "Failed" and c["status"] == "True"), "")


def created_at(job: Resource) -> datetime:
    """Return when a Job was created."""
    return datetime.fromisoformat(job["metadata"]["creationTimestamp"])


def index_of(job: Resource) -> str:
    """Return the index that a Job of ours loads; empty for one that embeds."""
    return str(job["metadata"].get("labels", {}).get(INDEX, ""))


def of(job: Resource) -> tuple[str, int]:
    """Return recipe and snapshot of a Job of ours."""
    labels: Mapping[str, str] = job["metadata"].get("labels", {})
    number = labels.get(SNAPSHOT, "")
    return labels.get(RECIPE, ""), int(number) if number.isdigit() else 0


def _toleration(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in value.items() if part != ""}


def _seconds(duration: str) -> int:
    return int(base.parse_duration(duration).total_seconds())
