"""Where the work of a dataset is done: beside the operator, or in pods of Kubernetes Jobs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pointsman.api import base

Label = Annotated[str, Field(min_length=1, max_length=317)]
Quantity = Annotated[
    str,
    base.patterned(
        r"^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", "must be a quantity, such as 500m, 2 or 4Gi, in quotes"
    ),
    Field(min_length=1, max_length=32),
]


class Toleration(base.Model):
    """A taint of nodes that pods put up with, as a pod's spec says it."""

    key: Annotated[str, Field(max_length=317)] = ""
    """The taint's key; empty for all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: Annotated[str, Field(max_length=63)] = ""
    """The taint's value."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Which effect is put up with; empty for all."""


class Resources(base.Model):
    """What a pod asks for and may use, as a container's spec says it."""

    requests: Annotated[dict[Label, Quantity], Field(max_length=16)] = {}
    """What is set aside for a pod."""
    limits: Annotated[dict[Label, Quantity], Field(max_length=16)] = {}
    """What a pod may use at most; GPUs are asked for here, such as `nvidia.com/gpu: "1"`."""


class JobWork(base.Model):
    """How pods embed, and load indexes. An edit takes effect with the next Job; `suspend` at once."""

    model_config = base.rules(
        base.rule("!has(self.deadline) || duration(self.deadline) >= duration('1m')", "deadline must be 1m or more"),
        base.rule(
            "!has(self.startDeadline) || duration(self.startDeadline) >= duration('1m')",
            "startDeadline must be 1m or more",
        ),
    )

    shards: Annotated[int, Field(ge=1, le=1000)] = 4
    """Into how many pods' shares a snapshot is divided, where it is large enough."""
    parallelism: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many pods run at once; where it is left out, all."""
    resources: Resources = Resources()
    """What each pod asks for. Pods that load an index ask for no devices: for nothing with a domain in its name."""
    node_selector: Annotated[dict[Label, Annotated[str, Field(max_length=63)]], Field(max_length=16)] = {}
    """The labels of the nodes that will do."""
    tolerations: Annotated[list[Toleration], base.atomic(), Field(max_length=16)] = []
    """The taints of nodes that pods put up with."""
    queue_name: Annotated[str, Field(max_length=63)] = ""
    """The Kueue LocalQueue that admits the Job; where it is left out, nobody is asked."""
    priority_class_name: Annotated[str, Field(max_length=253)] = ""
    """The PriorityClass of the pods: one of those that the operator's settings allow."""
    suspend: bool = False
    """Whether pods are stopped. What is finished stays finished."""
    retries_per_shard: Annotated[int, Field(ge=0, le=100)] = 6
    """How often a pod's share is tried again in one Job; evictions do not count."""
    deadline: base.Duration = "24h"
    """How long one Job may run before what is left is dealt out anew."""
    start_deadline: base.Duration = "1h"
    """How long a Job may wait for its queue, a quota, a node or an image before it is given up and created anew."""
    ttl: base.Duration = "1h"
    """How long an ended Job stays to be looked at."""


class Work(base.Model):
    """Where embedding is done, and new indexes are loaded."""

    mode: Literal["InProcess", "Job"] = "InProcess"
    """In processes beside the operator, or in the pods of Kubernetes Jobs in this namespace."""
    job: JobWork = JobWork()
    """How pods do it, for mode `Job`."""


class Store(base.Model):
    """An object store of the dataset's own."""

    model_config = base.rules(
        base.rule(
            "self.uri == oldSelf.uri",
            "the store cannot be moved, since its content would be left behind; declare another EmbeddingDataset",
        )
    )

    uri: Annotated[
        str,
        base.patterned(
            r"^s3://[a-z0-9][a-z0-9.-]*[a-z0-9](/[-_=a-zA-Z0-9]+([.][-_=a-zA-Z0-9]+)*)*$",
            "must be s3://bucket/prefix, of letters, digits, - _ = and single dots between them",
        ),
        Field(min_length=8, max_length=512),
    ]
    """Where: `s3://bucket/prefix`. It never changes."""
    credentials_ref: base.SecretReference
    """A Secret with `accessKeyID`, `secretAccessKey` and, where wanted, `endpoint`, `region` and `sessionToken`."""
