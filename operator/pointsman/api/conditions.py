"""Conditions and the closed vocabulary of their types and reasons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from pointsman.api import base


class ConditionType(StrEnum):
    """What a condition claims. Good when True, except kstatus's Reconciling and Stalled."""

    READY = "Ready"
    """The declared state is reached."""
    RECONCILING = "Reconciling"
    """The operator is on the way to the declared state."""
    STALLED = "Stalled"
    """The declared state cannot be reached without an edit."""
    AVAILABLE = "Available"
    """Something serves: an index of ours, or for a dataset a snapshot."""
    ROLLBACK_READY = "RollbackReady"
    """A retained index is complete and current, and answered when it was asked: going back is one switch."""
    AWAITING_APPROVAL = "AwaitingApproval"
    """A person is waited for. Neither good nor bad."""
    TRAFFIC_VERIFIED = "TrafficVerified"
    """Every gateway that is ready serves the route, by its own counts too."""
    UNGUARDED = "Unguarded"
    """No gate evaluates answers: a worse version would go through. Bad when True."""
    SCORES_STEADY = "ScoresSteady"
    """The best answers score as they did in the first fortnight of the version that serves."""
    SOURCE_REACHABLE = "SourceReachable"
    """The dataset's source could be read when it was last tried."""


class Status(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    """It does."""
    FALSE = "False"
    """It does not."""
    UNKNOWN = "Unknown"
    """It could not be found out."""


class Reason(StrEnum):
    """Why a condition is as it is."""

    # Progress.
    ACCEPTED = "Accepted"
    """The resource was seen for the first time."""
    UP_TO_DATE = "UpToDate"
    """What is declared is what is."""
    REFRESHING = "Refreshing"
    """The source is being read."""
    EMBEDDING = "Embedding"
    """Texts are being embedded."""
    BUILDING = "Building"
    """A candidate index is being loaded."""
    FOLLOWING = "Following"
    """An index is catching up with a newer snapshot."""
    WAITING_FOR_DATASET = "WaitingForDataset"
    """The dataset has no snapshot of the version yet."""
    GATES_UNDECIDED = "GatesUndecided"
    """A gate has neither passed nor failed."""
    SHADOWING = "Shadowing"
    """Queries also go to the candidate, whose answers are thrown away."""
    SHIFTING = "Shifting"
    """Queries are being shifted to the candidate."""
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"
    """A gateway does not serve the route."""
    ROUTE_ACCEPTED = "RouteAccepted"
    """All gateways that are ready serve the route."""
    NO_GATEWAY = "NoGateway"
    """No gateway is known to the operator."""
    PAUSED = "Paused"
    """A pause that the steps ask for."""
    A_PERSON_IS_ASKED = "APersonIsAsked"
    """An Approval is waited for."""
    NOBODY_IS_ASKED = "NobodyIsAsked"
    """No person is waited for."""
    BURNING_IN = "BurningIn"
    """A promoted version is being watched."""
    EVALUATION_GATE = "EvaluationGate"
    """A gate evaluates answers."""
    NO_EVALUATION_GATE = "NoEvaluationGate"
    """The spec names no gate that evaluates answers."""
    COUNTS = "Counts"
    """An Approval is as it must be to count."""
    DELETING = "Deleting"
    """The resource is being removed."""
    SERVING = "Serving"
    """An index of ours answers."""
    NOTHING_SERVES = "NothingServes"
    """No index of ours answers yet."""
    RETAINED_INDEX_IS_CURRENT = "RetainedIndexIsCurrent"
    """The retained index has all that the serving one has."""
    RETAINED_INDEX_IS_BEHIND = "RetainedIndexIsBehind"
    """The retained index has to catch up before it could serve."""
    RETAINED_INDEX_DOES_NOT_ANSWER = "RetainedIndexDoesNotAnswer"
    """The retained index, or the model that embeds for it, fails those who ask it."""
    NOTHING_RETAINED = "NothingRetained"
    """There is no earlier index to go back to."""
    SUSPENDED = "Suspended"
    """Forward motion is frozen by the spec."""
    LEARNING_SCORES = "LearningScores"
    """The days that others are compared with are not whole yet."""
    TOO_FEW_SESSIONS = "TooFewSessions"
    """A day had too few sessions to say anything."""
    SCORES_AS_USUAL = "ScoresAsUsual"
    """The best answers score as in the baseline."""

    # The spec asks for what is not there or not allowed.
    INVALID_SPEC = "InvalidSpec"
    """The spec cannot be carried out as written."""
    DATASET_NOT_FOUND = "DatasetNotFound"
    """The named dataset does not exist in this namespace."""
    VERSION_NOT_FOUND = "VersionNotFound"
    """The dataset declares no such version."""
    SNAPSHOT_NOT_FOUND = "SnapshotNotFound"
    """The pinned snapshot does not exist or was cleaned up."""
    VERSION_REDEFINED = "VersionRedefined"
    """A version's name was used before for another recipe."""
    VERSION_IN_USE = "VersionInUse"
    """A removed version still serves somewhere."""
    ENDPOINT_NOT_FOUND = "EndpointNotFound"
    """A version names an endpoint that the dataset does not declare."""
    ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
    """The operator's settings do not allow this host."""
    FILE_NOT_ALLOWED = "FileNotAllowed"
    """The operator's settings do not allow this path."""
    CREDENTIALS_REQUIRED = "CredentialsRequired"
    """An object store or database is only opened with credentials of the tenant's own."""
    SECRET_NOT_FOUND = "SecretNotFound"
    """The named Secret or key does not exist in this namespace."""
    SECRET_FORBIDDEN = "SecretForbidden"
    """The cluster does not let us read the named Secret."""
    SECRET_NOT_ALLOWED = "SecretNotAllowed"
    """The Secret's annotation does not allow this host."""
    HOST_NOT_FOUND = "HostNotFound"
    """A host's name does not resolve."""
    QUERY_SET_NOT_FOUND = "QuerySetNotFound"
    """The named query set does not exist in this namespace."""

    # Migrations.
    GATE_FAILED = "GateFailed"
    """A gate found the candidate worse than it may be."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """A step took longer than it may."""
    REJECTED_BY_A_PERSON = "RejectedByAPerson"
    """An Approval refuses the version."""
    TARGET_REJECTED = "TargetRejected"
    """The version that the spec wants was tried and refused."""
    TARGET_ABORTED = "TargetAborted"
    """An Approval keeps queries off the version that the spec wants."""
    SCORES_SHIFTED = "ScoresShifted"
    """The best answers score otherwise than in the baseline."""
    HELD = "Held"
    """A migration stands still after a failure, as the spec wants."""
    ROUTE_OVERDUE = "RouteOverdue"
    """A gateway has not served the route for minutes, which takes a second."""
    RETAINED_INDEX_STAYS_BEHIND = "RetainedIndexStaysBehind"
    """The retained index has not caught up for a quarter of an hour."""
    DOES_NOT_COUNT = "DoesNotCount"
    """An Approval is not as it must be to count."""

    # Sources.
    SOURCE_UNREACHABLE = "SourceUnreachable"
    """The source could not be reached or read."""
    SOURCE_UNAUTHORIZED = "SourceUnauthorized"
    """The source refused the credentials."""
    SOURCE_INVALID = "SourceInvalid"
    """Rows of the source are not documents."""
    SURPRISE_HELD = "SurpriseHeld"
    """The change of the source is larger than the spec lets through unasked."""

    # Models.
    MODEL_UNREACHABLE = "ModelUnreachable"
    """The model's endpoint could not be reached."""
    MODEL_UNAUTHORIZED = "ModelUnauthorized"
    """The model's endpoint refused the credentials."""
    MODEL_RATE_LIMITED = "ModelRateLimited"
    """The model's endpoint asked for patience longer than one batch may wait."""
    MODEL_REJECTED = "ModelRejected"
    """The model's endpoint refused the request for good."""
    MODEL_INVALID = "ModelInvalid"
    """The model answered with vectors that cannot be used."""
    MODEL_CHANGED = "ModelChanged"
    """The model's vectors of the pinned strings have moved."""

    # Databases.
    BACKEND_UNREACHABLE = "BackendUnreachable"
    """The vector database could not be reached."""
    BACKEND_UNAUTHORIZED = "BackendUnauthorized"
    """The vector database refused the credentials."""
    BACKEND_REJECTED = "BackendRejected"
    """The vector database refused the request for good."""
    BACKEND_UNSUPPORTED = "BackendUnsupported"
    """The vector database cannot hold such an index."""
    COLLECTION_FOREIGN = "CollectionForeign"
    """A collection of the wanted name exists and does not carry our marker."""
    ALIAS_MOVED = "AliasMoved"
    """The alias that a deployment publishes has moved to another index. Only in Events."""
    ROUTE_FOREIGN = "RouteForeign"
    """A ConfigMap of the wanted name exists and is not ours."""
    INDEX_LOST = "IndexLost"
    """An index that should exist does not."""
    INDEX_ELSEWHERE = "IndexElsewhere"
    """The spec names another database than the one that holds the serving index."""
    INDEX_DIFFERS = "IndexDiffers"
    """An index does not hold what its snapshot holds."""

    # The operator itself.
    STORE_UNREACHABLE = "StoreUnreachable"
    """The store could not be reached, read or written."""
    STORE_UNAUTHORIZED = "StoreUnauthorized"
    """The store refused the credentials."""
    STORE_FULL = "StoreFull"
    """The store has no room left."""
    STORE_UNSAFE = "StoreUnsafe"
    """The store let a second put-if-absent through."""
    STORE_NOT_SHARED = "StoreNotShared"
    """Pods cannot reach the store that the dataset is in."""
    JOB_NOT_ADMITTED = "JobNotAdmitted"
    """The queue has not admitted a Kubernetes Job yet."""
    JOB_REFUSED = "JobRefused"
    """The cluster lets no Kubernetes Job or none of its pods be created, as by a quota or a policy."""
    JOB_UNSCHEDULABLE = "JobUnschedulable"
    """No node takes the pods of a Kubernetes Job."""
    JOB_CANNOT_START = "JobCannotStart"
    """The containers of a Kubernetes Job cannot start: an image or a Secret is missing, or refused."""
    JOB_FAILED = "JobFailed"
    """A Kubernetes Job ended before all was embedded or loaded, or a pod that loads an index ended without a word."""
    CLUSTER_UNREACHABLE = "ClusterUnreachable"
    """The Kubernetes API could not be reached."""
    CONFLICT = "Conflict"
    """Somebody else wrote first."""
    DISK_FULL = "DiskFull"
    """A disk of the operator or of a worker, such as its scratch folder, has no room left."""
    WORK_LOST = "WorkLost"
    """A worker ended without an answer."""
    INTERNAL_ERROR = "InternalError"
    """An error that nobody foresaw; the operator's log has it."""


ROUTINE = frozenset(
    {
        Reason.ACCEPTED,
        Reason.UP_TO_DATE,
        Reason.REFRESHING,
        Reason.EMBEDDING,
        Reason.BUILDING,
        Reason.FOLLOWING,
        Reason.WAITING_FOR_DATASET,
        Reason.DELETING,
        Reason.SERVING,
        Reason.NOTHING_SERVES,
        Reason.RETAINED_INDEX_IS_CURRENT,
        Reason.RETAINED_INDEX_IS_BEHIND,
        Reason.NOTHING_RETAINED,
        Reason.SUSPENDED,
        Reason.GATES_UNDECIDED,
        Reason.SHADOWING,
        Reason.SHIFTING,
        Reason.ROUTE_NOT_ACCEPTED,
        Reason.ROUTE_ACCEPTED,
        Reason.NO_GATEWAY,
        Reason.PAUSED,
        Reason.A_PERSON_IS_ASKED,
        Reason.NOBODY_IS_ASKED,
        Reason.BURNING_IN,
        Reason.EVALUATION_GATE,
        Reason.NO_EVALUATION_GATE,
        Reason.COUNTS,
        Reason.LEARNING_SCORES,
        Reason.TOO_FEW_SESSIONS,
        Reason.SCORES_AS_USUAL,
    }
)
"""The reasons that tell of progress or rest; every other one is a fault."""


class Condition(base.Fact):
    """One claim about a resource, as Kubernetes writes it."""

    type: ConditionType
    """What is claimed."""
    status: Status
    """Whether it holds."""
    observed_generation: int
    """The generation of the spec that it is about."""
    last_transition_time: datetime
    """When the status last moved."""
    reason: Reason
    """Why it is so, in a word for machines."""
    message: str
    """Why it is so, in a clause for people."""


def get(conditions: Iterable[Condition], kind: ConditionType) -> Condition | None:
    """Return the condition of a type, or None."""
    return next((c for c in conditions if c.type is kind), None)


def merge(old: Sequence[Condition], new: Sequence[Condition]) -> list[Condition]:
    """Return `new` with the transition time of `old` wherever the status has not moved."""
    merged = []
    for condition in new:
        before = get(old, condition.type)
        if before is not None and before.status is condition.status:
            condition = condition.model_copy(update={"last_transition_time": before.last_transition_time})
        merged.append(condition)
    return merged
