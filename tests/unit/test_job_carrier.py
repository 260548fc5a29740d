"""Embedding in the pods of Kubernetes Jobs: who makes which Job when, and what is said while none of them moves."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.kubelet import Killed
from tests.unit.carrying import Carried, Enough, none
from tests.unit.test_sharding import RECIPE, Hashing, fill, opened, papers

from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api.conditions import Reason
from pointsman.cluster import job_objects
from pointsman.cluster.job_objects import Pods
from pointsman.cluster.jobs import InPods, Means
from pointsman.cluster.resources import DATASET
from pointsman.errors import Conflict, Retryable, Terminal
from pointsman.plan.tasks import Embed, Key, Wait
from pointsman.store.root import Store
from pointsman.work.jobs import Doors, Job
from pointsman.work.processes import InProcess

OWNER = Key(DATASET, "default", "papers")
TASK = Embed(OWNER, "v7", RECIPE.key, 1)
ENDPOINT = {"name": "main", "baseURL": "https://model/v1", "apiKeyRef": {"name": "model", "key": "token"}}


class Room(Carried):
    """A dataset of so many documents, and a model."""

    def __init__(self, folder: Path, count: int = 100, **job: Any) -> None:
        super().__init__(folder, Doors(Store, none, self._embedder, none))
        self.model = Hashing()
        self.dataset = opened(folder)
        self.dataset.pin("v7", RECIPE)
        fill(self.dataset, *papers(count))
        (folder / "secrets" / "endpoint").mkdir(parents=True)
        (folder / "secrets" / "endpoint" / "key").write_text("sesame")
        self.keys: list[str | None] = []
        self.spec = {
            "source": {"files": {"uri": "file:///corpus", "format": "jsonl"}, "idField": "id"},
            "endpoints": [ENDPOINT],
            "versions": [
                {
                    "name": "v7",
                    "model": {"openai": {"endpoint": "main", "model": "hashing", "dimensions": 4}},
                    "chunking": {"maxTokens": 8},
                }
            ],
            "work": {"mode": "Job", "job": {"shards": 3, **job}},
        }
        self.apply()

    def _embedder(self, _space: Any, _endpoint: Any, key: str | None, *_: Any) -> Hashing:
        self.keys.append(key)
        return self.model

    def apply(self) -> None:
        self.cluster.apply({"kind": DATASET, "metadata": {"namespace": "default", "name": "papers"}, "spec": self.spec})

    def job(self) -> Job:
        found = self.cluster.get(DATASET, "default", "papers")
        assert found is not None
        spec = dataset_api.Spec.model_validate(self.spec)
        return Job(TASK, str(self.folder), dataset=spec, uid=found["metadata"]["uid"], access=Access())

    def published(self) -> bool:
        return self.dataset.embedded_at(RECIPE.key, 1) is not None


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_pods_embed_and_the_operator_publishes(room: Room) -> None:
    room.carry_out()

    record = room.dataset.embedded_at(RECIPE.key, 1)
    assert record is not None
    assert (record.documents, record.embedded) == (100, 200)
    assert max(room.model.asked.values()) == 1
    assert room.keys == ["sesame"] * 3
    assert len(room.batch.created) == 1
    assert room.progress[-1][0] > 0
    assert [wait for wait in room.said if wait is not None] == []


def test_a_pod_may_use_nothing_and_is_told_nothing_secret(room: Room) -> None:
    room.edit(
        resources={"limits": {"nvidia.com/gpu": "1"}}, nodeSelector={"pool": "gpu"}, priorityClassName="low",
        tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], parallelism=2, deadline="2h",
    )  # fmt: skip
    room.pods = dataclasses.replace(
        room.pods, service_account="embedder", pull_secrets=("registry",), priority_classes=("low",)
    )
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    (job,) = room.batch.all()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert container["resources"] == {"requests": {}, "limits": {"nvidia.com/gpu": "1"}}
    assert (pod["nodeSelector"], pod["priorityClassName"]) == ({"pool": "gpu"}, "low")
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert (pod["serviceAccountName"], pod["imagePullSecrets"]) == ("embedder", [{"name": "registry"}])
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 2)
    assert job["spec"]["activeDeadlineSeconds"] == 7200
    assert job["metadata"]["ownerReferences"][0]["uid"] == room.job().uid
    told = json.dumps(container["env"])
    assert "sesame" not in told
    assert "corpus" not in told
    mounted = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounted["tmp"]["emptyDir"] == {"sizeLimit": "2Gi"}
    assert mounted["endpoint"]["secret"] == {"secretName": "model", "items": [{"key": "token", "path": "key"}]}


@pytest.mark.parametrize(
    ("resources", "limit"),
    [
        ({"requests": {"ephemeral-storage": "4Gi"}}, "4Gi"),
        ({"requests": {"ephemeral-storage": "4Gi"}, "limits": {"ephemeral-storage": "8Gi"}}, "8Gi"),
        ({"limits": {"memory": "8Gi"}}, "2Gi"),
    ],
    ids=["what is set aside", "what may be used", "nothing said"],
)
def test_a_pod_fills_no_more_of_a_nodes_disk_than_it_says(
    tmp_path: Path, resources: dict[str, Any], limit: str
) -> None:
    room = Room(tmp_path, resources=resources)
    with pytest.raises(Enough):
        room.carry_out(looks=1)

    (job,) = room.batch.all()
    assert job["spec"]["template"]["spec"]["volumes"][0] == {"name": "tmp", "emptyDir": {"sizeLimit": limit}}


def test_a_priority_that_nobody_has_allowed_is_given_to_no_pod(tmp_path: Path) -> None:
    room = Room(tmp_path, priorityClassName="system-cluster-critical")
    for allowed, said in (((), "none"), (("low", "batch"), "low, batch")):
        room.pods = dataclasses.replace(room.pods, priority_classes=allowed)
        error = room.fails(Terminal)
        assert error.reason is Reason.INVALID_SPEC
        assert error.message == (
            f"work.job.priorityClassName system-cluster-critical is not for datasets to name, allowed: {said}; "
            "leave it out, or have POINTSMAN_JOB_PRIORITY_CLASSES list it"
        )
    assert room.batch.created == []


def test_what_a_job_makes_of_a_failure_depends_on_whose_fault_it_is(room: Room) -> None:
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    (job,) = room.batch.all()

    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Ignore", "FailIndex", "FailJob"]
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert [rule["onExitCodes"]["values"] for rule in rules[1:]] == [[143], [20], [21]]
    assert job["spec"]["backoffLimitPerIndex"] == 6


@pytest.mark.parametrize("looks", range(1, 6))
def test_an_operator_that_takes_over_finds_the_job_and_makes_no_other(room: Room, looks: int) -> None:
    with contextlib.suppress(Enough):
        room.carry_out(looks=looks)
    room.carry_out()

    assert len(room.batch.created) == 1
    assert room.published()
    assert max(room.model.asked.values()) == 1


def test_a_pod_that_is_killed_is_started_again_and_goes_on(room: Room) -> None:
    room.model.kills_at = 4

    def die() -> None:
        room.model.kills_at = -1
        raise Killed

    room.model.dies = die
    room.carry_out()

    assert len(room.kubelet.pods) == 4
    assert room.published()


def test_a_job_that_is_deleted_is_dealt_out_anew_to_as_many_shards_as_are_wanted_by_then(room: Room) -> None:
    with pytest.raises(Enough):
        room.carry_out(looks=2)
    room.batch.delete("default", room.batch.created[0])
    room.edit(shards=2)

    room.carry_out()

    assert len(room.batch.created) == 2
    assert max(room.model.asked.values()) == 1
    ledger_is_gone = room.dataset.runs() == []
    assert ledger_is_gone and room.published()


def test_a_job_that_somebody_deletes_is_told_of_and_what_its_pods_said_with_it(room: Room) -> None:
    def delete() -> None:
        room.batch.delete("default", room.batch.created[-1])

    room.each = [room.kubelet.step, delete]
    error = room.fails(Retryable)
    assert error.reason is Reason.JOB_FAILED
    assert error.message == (
        f"Job {room.batch.created[0]} was deleted with 4 of 7 portions left; what is left is dealt out anew"
    )
    room.model.refuses = "17 two three four five."
    assert room.fails(Terminal).reason is Reason.MODEL_REJECTED


def test_a_job_that_runs_out_of_time_is_dealt_out_anew(room: Room) -> None:
    late = {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}
    room.each = [room.kubelet.step, lambda: room.batch.report("default", room.batch.created[-1], late)]

    error = room.fails(Retryable)

    assert error.reason is Reason.JOB_FAILED
    assert "ended (DeadlineExceeded) with 4 of 7 portions left" in error.message
    room.each = [room.kubelet.step]
    room.carry_out()
    assert room.published()
    assert max(room.model.asked.values()) == 1


def test_a_broken_document_is_named_and_is_not_tried_for_ever(room: Room) -> None:
    room.model.refuses = "17 two three four five."

    error = room.fails(Terminal)

    assert error.reason is Reason.MODEL_REJECTED
    assert "of document 17 (ordinal 0)" in error.message
    assert "two three" not in error.message
    assert len(room.kubelet.pods) == 3
    # The next attempt is dealt what is left alone.
    room.model.refuses, before = "", len(room.model.asked)
    room.carry_out()
    assert room.published()
    assert len(room.batch.created) == 2
    assert len(room.model.asked) == before


def test_a_queue_that_does_not_admit_is_named_with_when_it_is_given_up(tmp_path: Path) -> None:
    room = Room(tmp_path, queueName="gpus", startDeadline="1m")

    error = room.fails(Retryable)

    (job,) = room.batch.created
    waits = {wait.message for wait in room.said if wait is not None and wait.reason is Reason.JOB_NOT_ADMITTED}
    assert all(f"queue gpus has not admitted Job {job} since " in said for said in waits)
    assert all("; given up and created anew at " in said for said in waits)
    assert error.reason is Reason.JOB_NOT_ADMITTED
    assert room.batch.all() == []
    assert room.kubelet.pods == []


def test_what_a_queue_admits_later_goes_on(tmp_path: Path) -> None:
    room = Room(tmp_path, queueName="gpus")
    assert not room.batch.created

    def admit() -> None:
        room.batch.suspend("default", room.batch.created[-1], False)

    room.each = [room.kubelet.step, admit]
    room.carry_out()

    assert room.published()
    assert room.said[-1] is None


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"image": "pointsman:test", "state": state}]}


UNSCHEDULED = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ],
}


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (waiting("ErrImagePull"), Reason.JOB_CANNOT_START, "cannot pull image pointsman:test (ErrImagePull)"),
        (
            waiting("CreateContainerConfigError", "image will run as root"),
            Reason.JOB_CANNOT_START,
            "cannot start (CreateContainerConfigError): image will run as root",
        ),
        (UNSCHEDULED, Reason.JOB_UNSCHEDULABLE, "no node takes pod p: 0/3 nodes are available"),
        (
            {"phase": "Pending", "startTime": "2020-01-01T00:00:00Z"},
            Reason.JOB_CANNOT_START,
            "pod p waits for its volumes, as where a Secret is missing",
        ),
    ],
    ids=["no image", "no container", "no node", "no volume"],
)
def test_pods_that_cannot_run_are_told_of_and_given_up_in_the_end(
    tmp_path: Path, status: dict[str, Any], reason: Reason, said: str
) -> None:
    room = Room(tmp_path, startDeadline="1m")
    room.cluster.put_secret("default", "model", {"token": "sesame"}, {})
    room.kubelet.holds = lambda job: [{"metadata": {"name": "p"}, "status": status}]

    error = room.fails(Retryable)

    waits = {wait.message for wait in room.said if wait is not None and wait.reason is reason}
    assert waits and all(said in message and "given up and created anew at" in message for message in waits)
    assert error.reason is reason
    assert error.message.endswith("it was given up after 1m")
    assert room.batch.all() == []
    # The next look begins anew, and nothing of what was done is lost.
    room.kubelet.holds = lambda job: None
    room.carry_out()
    assert room.published()


def test_pods_that_never_end_are_waited_for_and_then_left_to_themselves(tmp_path: Path) -> None:
    room = Room(tmp_path, startDeadline="1m", queueName="gpus")
    room.batch.lingers = True

    with pytest.raises(Retryable) as found:
        room.carry_out(looks=400)

    assert found.value.reason is Reason.JOB_NOT_ADMITTED
    (job,) = room.batch.created
    assert any(f"the pods of Job {job} are ending, at the latest " in wait.message for wait in room.said if wait)
    # Ten minutes and one: so long was waited for what never came.
    assert room.now - job_objects.created_at(room.batch.all()[0]) < timedelta(minutes=12)


def test_whoever_takes_over_gives_pods_that_have_run_their_time_anew(tmp_path: Path) -> None:
    room = Room(tmp_path, startDeadline="1m")
    pending = [{"metadata": {"name": "p"}, "status": UNSCHEDULED}]
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    room.now += timedelta(hours=3)
    # A third of the pods was there, and all are evicted just now.
    room.batch.report("default", room.batch.created[0], {"succeeded": 1}, pending)
    room.each = []
    with pytest.raises(Enough):
        room.carry_out(looks=5)

    assert len(room.batch.all()) == 1
    wait = room.said[-1]
    assert wait is not None and wait.reason is Reason.JOB_UNSCHEDULABLE


@pytest.mark.parametrize("takeovers", [1, 4])
def test_whoever_takes_over_counts_from_when_the_pods_came_however_often_it_happens(
    tmp_path: Path, takeovers: int
) -> None:
    room = Room(tmp_path, startDeadline="1m")
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    room.now += timedelta(hours=3)
    # The pods were drained; those in their place came just after, and no node takes them.
    came = room.now
    pending = [{"metadata": {"name": "p", "creationTimestamp": came.isoformat()}, "status": UNSCHEDULED}]
    room.batch.report("default", room.batch.created[0], {"succeeded": 1}, pending)
    room.each = []
    for _ in range(takeovers):
        room.now += timedelta(seconds=12)
        with pytest.raises(Enough):
            room.carry_out(looks=1)

    wait = room.said[-1]
    assert wait is not None and wait.reason is Reason.JOB_UNSCHEDULABLE
    assert f"given up and created anew at {came + timedelta(minutes=1):%Y-%m-%dT%H:%MZ}" in wait.message
    room.now = came + timedelta(seconds=61)
    with pytest.raises(Retryable, match="it was given up after 1m"):
        room.carry_out(looks=1)


def evicted(message: str, index: str = "3") -> dict[str, Any]:
    return {
        "metadata": {"name": "e", "annotations": {"batch.kubernetes.io/job-completion-index": index}},
        "status": {"phase": "Failed", "reason": "Evicted", "message": message},
    }


OVER = 'Usage of EmptyDir volume "tmp" exceeds the limit "2Gi". '


@pytest.mark.parametrize(
    "message",
    [
        OVER,
        "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. ",
        'Container shard exceeded its local ephemeral storage limit "1Gi". ',
    ],
)
def test_a_pod_that_writes_more_than_it_may_is_named(tmp_path: Path, message: str) -> None:
    room = Room(tmp_path)
    room.kubelet.holds = lambda job: [evicted(message), RUNNING]

    with pytest.raises(Enough):
        room.carry_out(looks=3)

    (wait,) = {wait for wait in room.said if wait is not None}
    assert wait.reason is Reason.DISK_FULL
    wanted = (
        f"pod e was evicted: {message.rstrip('. ')}; set more ephemeral-storage in spec.work.job.resources; others run"
    )
    assert wait.message.startswith(wanted)


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param([evicted("The node was low on resource: memory. Threshold quantity: 100Mi")], id="a node's fault"),
        pytest.param([evicted(OVER), {**evicted(""), "status": {"phase": "Succeeded"}}], id="done since by another"),
    ],
)
def test_nothing_is_said_of_a_pod_that_was_evicted_and_whose_share_goes_on(
    tmp_path: Path, pods: list[dict[str, Any]]
) -> None:
    room = Room(tmp_path)
    room.kubelet.holds = lambda job: [*pods, RUNNING]

    with pytest.raises(Enough):
        room.carry_out(looks=3)

    assert {wait for wait in room.said if wait is not None} == set()


RUNNING = {"metadata": {"name": "r"}, "status": {"phase": "Running"}}
PENDING = {"metadata": {"name": "p"}, "status": UNSCHEDULED}


def ended(at: datetime) -> dict[str, Any]:
    state = {"terminated": {"exitCode": 0, "finishedAt": at.isoformat()}}
    return {"metadata": {"name": "d"}, "status": {"phase": "Succeeded", "containerStatuses": [{"state": state}]}}


def test_a_pod_that_is_done_keeps_no_other_waiting_for_ever(tmp_path: Path) -> None:
    room = Room(tmp_path, startDeadline="1m")
    done = ended(room.now)
    room.kubelet.holds = lambda job: [done, PENDING]

    error = room.fails(Retryable)

    assert error.reason is Reason.JOB_UNSCHEDULABLE
    assert error.message.endswith("it was given up after 1m")
    assert room.batch.all() == []


def test_a_pod_that_came_to_its_end_between_two_looks_gives_the_others_their_time_anew(tmp_path: Path) -> None:
    room = Room(tmp_path, startDeadline="1m")
    began = room.now
    room.kubelet.holds = lambda job: [ended(began + timedelta(seconds=50)), PENDING]

    room.fails(Retryable)

    assert timedelta(seconds=110) <= room.now - began < timedelta(seconds=120)


def test_while_a_pod_runs_the_same_is_said_of_those_that_do_not(tmp_path: Path) -> None:
    room = Room(tmp_path, startDeadline="1m")
    room.kubelet.holds = lambda job: [RUNNING, PENDING]
    with pytest.raises(Enough):
        room.carry_out(looks=1_200)

    assert {wait for wait in room.said if wait is not None} == {
        Wait(
            Reason.JOB_UNSCHEDULABLE,
            "no node takes pod p: 0/3 nodes are available; others run, "
            "and what they leave is dealt out anew after 24h at the latest",
        )
    }
    assert len(room.batch.created) == 1


def test_a_secret_that_is_missing_is_named(tmp_path: Path) -> None:
    room = Room(tmp_path, startDeadline="1m")
    stuck = {"phase": "Pending", "startTime": "2020-01-01T00:00:00Z"}
    room.kubelet.holds = lambda job: [{"metadata": {"name": "p"}, "status": stuck}]

    error = room.fails(Retryable)

    assert error.reason is Reason.SECRET_NOT_FOUND
    assert "Secret model is not there, which the pods mount" in error.message


REFUSED = "could be created, as by a quota or a policy; kubectl describe job"


def test_a_quota_on_pods_is_told_of(tmp_path: Path) -> None:
    room = Room(tmp_path, startDeadline="1m")
    room.kubelet.holds = lambda job: []

    error = room.fails(Retryable)

    (job,) = room.batch.created
    assert error.reason is Reason.JOB_REFUSED
    assert error.message == f"no pod of Job {job} {REFUSED} {job} names it; it was given up after 1m"


def test_a_quota_that_refuses_the_next_pod_is_told_of_and_the_job_given_up_in_the_end(tmp_path: Path) -> None:
    room = Room(tmp_path, startDeadline="1m")
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    over = room.now = room.now + timedelta(hours=2)
    (job,) = room.batch.created
    room.batch.report("default", job, {"succeeded": 1}, [ended(over)])
    room.each = []

    error = room.fails(Retryable)

    until = over + timedelta(minutes=1)
    said = f"no further pod of Job {job} {REFUSED} {job} names it"
    wait = Wait(Reason.JOB_REFUSED, f"{said}; given up and created anew at {until:%Y-%m-%dT%H:%MZ}")
    assert {each for each in room.said if each is not None} == {wait}
    assert (error.reason, error.message) == (Reason.JOB_REFUSED, f"{said}; it was given up after 1m")
    assert room.batch.all() == []


def test_a_quota_on_jobs_is_told_of_in_the_words_of_the_cluster(room: Room) -> None:
    room.batch.refusal = "exceeded quota: jobs, requested: count/jobs.batch=1"

    error = room.fails(Retryable)

    assert error.reason is Reason.JOB_REFUSED
    assert "exceeded quota: jobs" in error.message


def test_suspending_stops_the_pods_and_going_on_starts_them(room: Room) -> None:
    room.edit(suspend=True)
    with pytest.raises(Enough):
        room.carry_out(looks=5)
    assert room.kubelet.pods == []
    assert room.said[-1] == Wait(Reason.SUSPENDED, f"Job {room.batch.created[0]} is suspended")

    room.edit(suspend=False)
    room.carry_out()

    assert len(room.batch.created) == 1
    assert room.published()


def test_what_a_queue_has_admitted_is_deleted_to_suspend_it(tmp_path: Path) -> None:
    room = Room(tmp_path, queueName="gpus")

    def admit_and_suspend() -> None:
        if room.batch.all():
            room.batch.suspend("default", room.batch.created[-1], False)
            room.edit(suspend=True)

    room.each = [admit_and_suspend]
    with pytest.raises(Enough):
        room.carry_out(looks=6)

    assert room.batch.all() == []
    assert room.said[-1] == Wait(Reason.SUSPENDED, "suspended by the spec; what is finished stays finished")


def test_nobody_deletes_a_job_because_the_operator_stops(room: Room) -> None:
    def pause(cancelled: threading.Event, _seconds: float) -> None:
        cancelled.set()

    means = Means(room.batch, room.cluster, room.pods, Store, lambda: room.now, pause=pause)
    carrier = InPods(InProcess(room.doors, lambda: room.now), means)
    with pytest.raises(Retryable, match="cancelled"):
        carrier.carry_out(room.job(), lambda done, total: None, threading.Event())

    assert len(room.batch.all()) == 1


def test_a_local_store_that_pods_cannot_reach_is_refused_with_the_reason(room: Room) -> None:
    room.pods = Pods(image="pointsman:test")

    error = room.fails(Terminal)

    assert error.reason is Reason.STORE_NOT_SHARED
    assert "spec.store" in error.message and "POINTSMAN_JOB_STORE_SHARED" in error.message
    assert room.batch.created == []


def test_a_folder_of_which_pods_mount_nothing_is_refused_although_it_is_said_to_be_shared(room: Room) -> None:
    room.pods = Pods(image="pointsman:test", is_store_shared=True)

    error = room.fails(Terminal)

    assert error.reason is Reason.STORE_NOT_SHARED
    assert error.message == (
        "the operator's store is a folder, of which pods find nothing where they mount no claim to its volume; "
        "declare it with spec.store, or name the claim in POINTSMAN_JOB_STORE_CLAIM"
    )
    assert room.batch.created == []


@pytest.mark.parametrize("mount", ["", "/var/lib/pointsman"], ids=["at the store", "at the volume"])
def test_pods_find_a_shared_folder_where_the_operator_has_it(room: Room, mount: str) -> None:
    room.pods = dataclasses.replace(room.pods, store_claim="shared", store_mount=mount)
    with pytest.raises(Enough):
        room.carry_out(looks=1)

    (job,) = room.batch.all()
    pod = job["spec"]["template"]["spec"]
    assert pod["volumes"][1] == {"name": "store", "persistentVolumeClaim": {"claimName": "shared"}}
    assert pod["containers"][0]["volumeMounts"][1] == {"name": "store", "mountPath": mount or str(room.folder)}


def test_of_a_bucket_pods_mount_nothing() -> None:
    assert not job_objects.is_folder("s3://vectors/papers")
    assert job_objects.is_folder("/var/lib/pointsman/store") and job_objects.is_folder("file:///store")


def test_the_operators_own_credentials_are_given_to_no_pod(room: Room) -> None:
    job = dataclasses.replace(room.job(), store_options={"aws_secret_access_key": "sesame"})

    with pytest.raises(Terminal) as found:
        room.carry_out(job)

    assert found.value.reason is Reason.STORE_NOT_SHARED
    assert "sesame" not in found.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aws_sse_customer_key_base64", "sesame"),
        ("aws_session_token", "sesame"),
        ("aws_access_key_id", "sesame"),
        ("aws_container_authorization_token_file", "/var/sesame"),
        ("aws_role_arn", "sesame"),
        ("proxy_url", "http://ana:sesame@proxy"),
        ("aws_endpoint", "http://ana:sesame@store"),
        ("aws_never_heard_of", "sesame"),
    ],
)
def test_pods_are_told_no_option_of_the_store_that_may_open_it(room: Room, name: str, value: str) -> None:
    job = dataclasses.replace(room.job(), store_options={"aws_region": "eu-central-1", name: value})

    with pytest.raises(Terminal) as found:
        room.carry_out(job)

    assert found.value.reason is Reason.STORE_NOT_SHARED
    assert f"opened with {name}, which may be secret" in found.value.message
    assert "sesame" not in found.value.message
    assert room.batch.created == []


def test_pods_are_told_where_the_store_is(room: Room) -> None:
    options = {
        "aws_region": "eu-central-1", "aws_endpoint": "https://store", "allow_http": "true",
        "aws_virtual_hosted_style_request": "false",
    }  # fmt: skip
    with pytest.raises(Enough):
        room.carry_out(dataclasses.replace(room.job(), store_options=options), looks=1)

    (job,) = room.batch.all()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert json.loads(container["env"][0]["value"])["store_options"] == options


def test_a_job_that_the_cluster_refuses_again_and_again_is_one_attempt(room: Room) -> None:
    room.batch.refusal = "exceeded quota: jobs"
    for _ in range(3):
        room.fails(Retryable)
    ledger = room.dataset.ledger(RECIPE.key, 1)
    found = ledger.attempt()
    assert found is not None and (found.number, found.shards) == (1, 3)

    # The spec says another number of shards by now: what was dealt is no longer wanted.
    room.edit(shards=2)
    room.fails(Retryable)
    found = ledger.attempt()
    assert found is not None and (found.number, found.shards) == (2, 2)
    assert ledger.is_closed(1)

    room.batch.refusal = ""
    room.carry_out()
    assert room.published()


def test_what_pods_said_of_a_job_that_went_unseen_is_not_taken_for_the_next_ones(room: Room) -> None:
    with pytest.raises(Enough):
        room.carry_out(looks=1)
    ledger = room.dataset.ledger(RECIPE.key, 1)
    ledger.fail(1, 0, Terminal(Reason.MODEL_UNAUTHORIZED, "the key was refused"))
    room.batch.delete("default", room.batch.created[0])

    room.carry_out()

    assert [name.rpartition("-")[2] for name in room.batch.created] == ["1", "2"]
    assert room.published()


class Turned:
    """A carrier that does something first."""

    def __init__(self, inner: InProcess, first: Callable[[], None]) -> None:
        self.inner, self.first = inner, first

    def carry_out(self, *arguments: Any) -> None:
        self.first()
        self.inner.carry_out(*arguments)

    def close(self) -> None:
        self.inner.close()


def test_while_another_writes_the_dataset_that_is_said(room: Room) -> None:
    left = 3

    def refuse() -> None:
        nonlocal left
        left -= 1
        if left > 0:
            raise Conflict("another process is writing papers; wanted it alone, trying again")

    means = Means(
        room.batch, room.cluster, room.pods, Store, lambda: room.now, pause=lambda cancelled, _: room.kubelet.step()
    )
    carrier = InPods(Turned(InProcess(room.doors, lambda: room.now), refuse), means)
    carrier.carry_out(room.job(), lambda done, total: None, threading.Event(), room.said.append)

    said = Wait(
        Reason.CONFLICT,
        "another process is writing papers; wanted it alone, trying again; "
        "who is at it is stopped after POINTSMAN_WORK_TIMEOUT",
    )
    assert room.said[:3] == [said, said, None]
    assert room.published()


def test_while_all_workers_are_at_other_datasets_that_is_said(room: Room) -> None:
    def pause(_cancelled: threading.Event, _seconds: float) -> None:
        raise Enough

    def another() -> None:
        carrier.carry_out(room.job(), lambda done, total: None, threading.Event(), room.said.append)

    means = Means(room.batch, room.cluster, room.pods, Store, lambda: room.now, pause=pause)
    carrier = InPods(Turned(InProcess(room.doors, lambda: room.now), another), means, workers=1)
    with pytest.raises(Enough):
        carrier.carry_out(room.job(), lambda done, total: None, threading.Event())

    (wait,) = room.said
    assert wait is not None
    assert wait.message.startswith("all workers (1) divide or publish for other pods; wanted one free")


def test_without_an_image_nothing_is_begun(room: Room) -> None:
    room.pods = Pods(image="")

    assert "POINTSMAN_JOB_IMAGE" in room.fails(Terminal).message


def test_an_api_server_that_is_silent_stops_nobody(room: Room) -> None:
    class Silent:
        """Jobs of which nobody hears for some time."""

        left = 3

        def __getattr__(self, name: str) -> Callable[..., Any]:
            found: Callable[..., Any] = getattr(room.batch, name)

            def call(*arguments: Any) -> Any:
                if name in ("job", "pods") and room.batch.created and Silent.left:
                    Silent.left -= 1
                    raise Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API could not be reached")
                return found(*arguments)

            return call

    means = Means(
        Silent(), room.cluster, room.pods, Store, lambda: room.now, pause=lambda cancelled, _: room.kubelet.step()
    )
    carrier = InPods(InProcess(room.doors, lambda: room.now), means)
    carrier.carry_out(room.job(), lambda done, total: None, threading.Event())

    assert Silent.left == 0
    assert room.published()


def test_two_attempts_have_two_names_and_a_name_fits_into_a_label() -> None:
    long = Embed(Key(DATASET, "default", "a" * 63), "v" * 40, "recipe", 1)

    names = {job_objects.name_of(long, uid, attempt) for uid in ("u1", "u2") for attempt in (1, 999999)}

    assert len(names) == 4
    assert max(map(len, names)) <= 63
