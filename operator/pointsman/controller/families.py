"""What metrics the operator has: a closed list, which docs/metrics.md repeats for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_DATASET = ("namespace", "dataset")
_DEPLOYMENT = ("namespace", "deployment")
_INDEX = (*_DEPLOYMENT, "index", "version", "role")


class Shape(StrEnum):
    """What can be done with a metric's numbers."""

    GAUGE = "gauge"
    """They go up and down."""
    COUNTER = "counter"
    """They only grow, and begin at 0 with the process."""
    HISTOGRAM = "histogram"
    """They are counts by size."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name as Prometheus has it, what its labels are, and what it says."""

    name: str
    shape: Shape
    labels: tuple[str, ...]
    """Those of a resource begin with its namespace and name, and go with it."""
    says: str


def _gauge(name: str, labels: tuple[str, ...], says: str) -> Family:
    return Family(f"pointsman_{name}", Shape.GAUGE, labels, says)


def _counter(name: str, labels: tuple[str, ...], says: str) -> Family:
    return Family(f"pointsman_{name}", Shape.COUNTER, labels, says)


def _histogram(name: str, labels: tuple[str, ...], says: str) -> Family:
    return Family(f"pointsman_{name}", Shape.HISTOGRAM, labels, says)


# The process.

LEADER = _gauge("leader", (), "Whether this operator holds the Lease and acts; the others stand by.")
EPOCH = _gauge("epoch", (), "Under which epoch it holds the Lease; 0 while it stands by.")
SYNCED = _gauge("synced", (), "Whether it has seen every resource once since it holds the Lease.")
QUEUE_DEPTH = _gauge("queue_depth", (), "Resources that are due to be looked at and wait for a thread.")
QUEUE_BUSY = _gauge("queue_busy", (), "Resources that are being looked at.")
QUEUE_WAIT = _gauge("queue_wait_seconds", (), "For how long the resource that waits longest has been due.")
GATEWAYS = _gauge("gateways", ("state",), "Gateways by what they say: ready, not_ready, or silent.")
RECONCILE_SECONDS = _histogram("reconcile_duration_seconds", ("kind",), "How long looking at a resource took.")
RECONCILE_ERRORS = _counter("reconcile_errors_total", ("kind", "reason"), "Looks and actions that failed.")
ACTIONS = _counter("actions_total", ("action",), "Actions that were carried out.")
API_REQUESTS = _counter(
    "api_requests_total",
    ("method", "status"),
    "Requests to the Kubernetes API, but for those that watch; status 0 where no answer came.",
)
WORK_RUNNING = _gauge("work_running", ("task",), "Pieces of long work under way or queued for a worker.")
WORK_FAILING = _gauge("work_failing", ("task", "reason"), "Pieces of long work whose last attempt failed.")

# Every resource.

CONDITION = _gauge(
    "condition",
    ("kind", "namespace", "name", "type", "status"),
    "1 for the status that a condition has; its other statuses are not there.",
)

# Datasets.

DATASET_REFRESHED = _gauge("dataset_refreshed_timestamp_seconds", _DATASET, "When the source was last read whole.")
DATASET_SNAPSHOT = _gauge("dataset_snapshot", _DATASET, "The number of the newest snapshot.")
DATASET_DOCUMENTS = _gauge("dataset_documents", _DATASET, "Documents of the newest snapshot.")
TEXTS_EMBEDDED = _counter(
    "texts_embedded_total", (*_DATASET, "version"), "Texts sent to the model for snapshots that this operator saw end."
)
TEXTS_REUSED = _counter(
    "texts_reused_total", (*_DATASET, "version"), "Texts of those snapshots whose stored vectors were taken instead."
)
TOKENS = _counter(
    "tokens_total",
    (*_DATASET, "version", "basis"),
    "Tokens of the texts that were sent for those snapshots, by basis: stated by the endpoint, or estimated.",
)

# Deployments.

WEIGHT_DESIRED = _gauge("weight_desired_percent", (*_DEPLOYMENT, "index", "version"), "The share that the route says.")
WEIGHT_ACCEPTED = _gauge(
    "weight_accepted_percent",
    (*_DEPLOYMENT, "index", "version"),
    "The share that every ready gateway serves; absent while they differ.",
)
WEIGHT_MEASURED = _gauge(
    "weight_measured_percent",
    (*_DEPLOYMENT, "index", "version"),
    "The share of the queries that it answered since the route is served; absent before the first.",
)
GATE_VERDICT = _gauge(
    "gate_verdict",
    (*_DEPLOYMENT, "version", "gate", "verdict"),
    "1 for what a gate says of a version: Passed, Failed, Inconclusive or Error.",
)
GATE_VALUE = _gauge(
    "gate_value",
    (*_DEPLOYMENT, "version", "gate"),
    "What a gate has measured, where that is a number; in its own unit.",
)
INDEX_LAG = _gauge("index_lag_seconds", _INDEX, "The age of the oldest snapshot that an index lacks; 0 where none.")
INDEX_LAG_SEQUENCES = _gauge("index_lag_sequences", _INDEX, "Entries of the change log that an index lacks.")
INDEX_PARITY = _gauge("index_parity", _INDEX, "Whether an index holds what its snapshot holds, since it was verified.")
INDEX_ROWS = _gauge("index_rows", _INDEX, "Points that an index should hold.")
ROLLBACK_READY = _gauge(
    "rollback_ready", _DEPLOYMENT, "Whether going back is one switch; absent where nothing is retained."
)
UNGUARDED = _gauge("unguarded", _DEPLOYMENT, "Whether no gate evaluates answers.")
CANARY_OVERLAP = _gauge(
    "canary_overlap",
    (*_DEPLOYMENT, "version", "other"),
    "The mean share of the first hits that a version and the other both found: beside it, or itself when it was first "
    "asked. Absent across spaces.",
)
CANARIES_FOUND = _gauge(
    "canaries_found_ratio", (*_DEPLOYMENT, "version"), "The share of the canaries that found all their documents."
)
INDEX_RECALL = _gauge(
    "index_recall",
    (*_DEPLOYMENT, "index", "version"),
    "The share of what exact search over the stored vectors finds that an index found, at the last evaluation.",
)
JUDGED = _gauge(
    "judged_share",
    (*_DEPLOYMENT, "index", "version"),
    "The share of an index's first k answers that is judged, at the last evaluation; only where judgements are Pooled.",
)
SCORE_SHARE = _gauge(
    "score_share",
    (*_DEPLOYMENT, "version", "share"),
    "The share of best answers below q05, below q50 or above q95 of the baseline, as a moving average of days.",
)
SCORE_SHARE_BASELINE = _gauge("score_share_baseline", (*_DEPLOYMENT, "version", "share"), "The same in the baseline.")
SCORES_SHIFTED = _gauge(
    "scores_shifted", (*_DEPLOYMENT, "version"), "Whether a share has moved; absent where the last day says nothing."
)
ROLLOUT_BEGUN = _gauge(
    "rollout_begun_timestamp_seconds", (*_DEPLOYMENT, "version"), "When the migration under way began."
)
ROLLOUT_SECONDS = _histogram(
    "rollout_duration_seconds",
    (*_DEPLOYMENT, "outcome"),
    "How long migrations took, by outcome: promoted, rejected, rolled_back, failed_in_burn_in, aborted or called_off.",
)

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Family))
