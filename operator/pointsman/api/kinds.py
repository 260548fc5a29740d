"""The kinds of resources: what each is called, what it consists of, and which columns a list of them shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pointsman.api import approval, base, dataset, deployment, queryset


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "date"] = "string"
    is_wide: bool = False
    """Whether only `-o wide` shows it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of resource."""

    name: str
    singular: str
    plural: str
    short: str
    description: str
    spec: type[base.Model]
    status: type[base.Model]
    columns: tuple[Column, ...]
    reference: str = ""
    """The field that names the resource of ours that it relies on: a cluster can list by it. Empty for one that relies
    on none."""

    @property
    def crd(self) -> str:
        """The name of the CustomResourceDefinition."""
        return f"{self.plural}.{base.GROUP}"


def _condition(name: str, kind: str, field: str, description: str, is_wide: bool = False) -> Column:
    return Column(name, f'.status.conditions[?(@.type=="{kind}")].{field}', description, is_wide=is_wide)


_READY = _condition("Ready", "Ready", "status", "Whether the declared state is reached.")
_MESSAGE = _condition("Message", "Ready", "message", "Why it is, or is not.", is_wide=True)
_AGE = Column("Age", ".metadata.creationTimestamp", "When it was made.", "date")

EMBEDDING_DATASET = Kind(
    name="EmbeddingDataset",
    singular="embeddingdataset",
    plural="embeddingdatasets",
    short="eds",
    description="Where documents come from, and the versions that they are embedded as.",
    spec=dataset.Spec,
    status=dataset.DatasetStatus,
    columns=(
        Column("Snapshot", ".status.snapshot", "The newest snapshot.", "integer"),
        Column("Documents", ".status.documents", "Documents of that snapshot.", "integer"),
        Column("Phase", ".status.phase", "What is going on."),
        _READY,
        Column("Refreshed", ".status.refreshedAt", "When the source was last read to its end.", "date"),
        _AGE,
        _condition("Source", "SourceReachable", "status", "Whether the source could be read.", is_wide=True),
        _MESSAGE,
    ),
)

INDEX_DEPLOYMENT = Kind(
    name="IndexDeployment",
    singular="indexdeployment",
    plural="indexdeployments",
    short="idx",
    description="Which version of a dataset must serve, on which vector database, and how to get there.",
    spec=deployment.Spec,
    status=deployment.DeploymentStatus,
    columns=(
        Column("Serving", ".status.servingVersion", "The version that answers."),
        Column("Target", ".spec.version", "The version that must serve."),
        Column("Phase", ".status.phase", "What is going on."),
        Column("Step", ".status.step.name", "The stage under way; empty at rest."),
        Column("Weight", ".status.weight", "The share of the queries by version."),
        _READY,
        _condition("Rollback", "RollbackReady", "status", "Whether going back is one switch."),
        _AGE,
        Column("Dataset", ".spec.datasetRef.name", "The dataset.", is_wide=True),
        Column("Index", ".status.servingIndex", "The collection or table that answers.", is_wide=True),
        _MESSAGE,
    ),
    reference=base.REFERENCES["IndexDeployment"],
)

QUERY_SET = Kind(
    name="QuerySet",
    singular="queryset",
    plural="querysets",
    short="qs",
    description="Queries with judged answers, by which versions are compared.",
    spec=queryset.Spec,
    status=queryset.QuerySetStatus,
    columns=(
        Column("Queries", ".status.queries", "Queries that were read.", "integer"),
        Column("Groups", ".status.groups", "Groups of queries that hang together.", "integer"),
        Column("Judgements", ".status.judgements", "Judgements that were read.", "integer"),
        Column("Kind", ".status.effective.kind", "What an unjudged document is."),
        _READY,
        _AGE,
        _MESSAGE,
    ),
)

APPROVAL = Kind(
    name="Approval",
    singular="approval",
    plural="approvals",
    short="apv",
    description="A person's decision about a deployment: lets a step pass, refuses or aborts a version, accepts a lag.",
    spec=approval.Spec,
    status=approval.ApprovalStatus,
    columns=(
        Column("Target", ".spec.target.name", "The deployment."),
        Column("Decision", ".spec.decision", "What was decided."),
        Column("Answers", ".spec.answers", "The step or gate that is answered."),
        Column("Version", ".spec.version", "The version that it is about."),
        Column("By", ".spec.approvedBy", "Who decided."),
        _condition("Counts", "Ready", "status", "Whether it counts."),
        Column("Expires", ".spec.expiresAt", "When it stops counting.", "date"),
        _AGE,
        _MESSAGE,
    ),
    reference=base.REFERENCES["Approval"],
)

KINDS = (EMBEDDING_DATASET, INDEX_DEPLOYMENT, QUERY_SET, APPROVAL)
"""All kinds, in the order of the reference."""
