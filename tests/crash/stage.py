"""A whole Pointsman in one process, on a real store and an in-memory cluster and database, that can be killed anywhere.

Every effect, on the cluster, the store or the database, passes a tripwire. The tripwire counts effects, and raises
`Crash` before or after the one it was set to. `Crash` is no Exception: nothing in the product catches it, as nothing
catches SIGKILL.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import pyarrow as pa
import structlog
from tests.kubelet import Kubelet
from tests.plan.fleet import FakeGateway

from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.api.routes import RouteStatus
from pointsman.backends.memory import Memory
from pointsman.cluster.job_objects import Pods
from pointsman.cluster.jobs import InPods, Means
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.memory_batch import MemoryBatch
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, QUERY_SET
from pointsman.controller.reconcile import reconcile
from pointsman.controller.world import Databases, World
from pointsman.core import rows
from pointsman.core.recipes import Space
from pointsman.errors import Retryable
from pointsman.plan.reported import Day, Gateway
from pointsman.plan.tasks import Key, Phase, Work
from pointsman.ports import Finished, Identity, Vectors, nobody
from pointsman.store.root import Store
from pointsman.work.jobs import Doors, Job
from pointsman.work.processes import InProcess
from pointsman.work.runners import Carrier, InlineRunner

T = TypeVar("T")

NAMESPACE = "search"
DATASET_KEY = Key(DATASET, NAMESPACE, "papers")
DEPLOYMENT_KEY = Key(DEPLOYMENT, NAMESPACE, "papers")
QUERY_SET_KEY = Key(QUERY_SET, NAMESPACE, "questions")
SECRET_WORD = "xylophone"
"""A word of every document, that must not be seen outside the store and the database."""


class Crash(BaseException):
    """The process was killed."""


@dataclass
class Tripwire:
    """Counts effects and crashes at one."""

    at: int | None = None
    after: bool = False
    trace: list[str] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    """In which look of the loop each effect was."""
    look: int = 0
    observers: list[Callable[[], None]] = field(default_factory=list)

    def run(self, name: str, effect: Callable[[], Any]) -> Any:
        number = len(self.trace)
        self.trace.append(name)
        self.looks.append(self.look)
        if number == self.at and not self.after:
            raise Crash(f"before {name}")
        result = effect()
        for observer in self.observers:
            observer()
        if number == self.at and self.after:
            raise Crash(f"after {name}")
        return result

    def moments(self) -> Iterator[tuple[int, bool]]:
        """Yield each moment to be killed at: before each effect, and after each that is the last of its look.

        Within a look nothing lasts but effects, so that killed after one is killed before the next.
        """
        for number, look in enumerate(self.looks):
            yield number, False
            if self.looks[number + 1 : number + 2] != [look]:
                yield number, True


class Wired:
    """An object whose effects pass the tripwire, and whose parts do too."""

    def __init__(
        self, inner: Any, tripwire: Tripwire, effects: Sequence[str], parts: Mapping[str, Sequence[str]]
    ) -> None:
        self._inner, self._tripwire, self._effects, self._parts = inner, tripwire, effects, parts

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name in self._effects:
            kind = type(self._inner).__name__
            return lambda *a, **k: self._tripwire.run(f"{kind}.{name}", lambda: value(*a, **k))
        if name in self._parts:
            if callable(value):
                return lambda *a, **k: Wired(value(*a, **k), self._tripwire, self._parts[name], PARTS)
            return Wired(value, self._tripwire, self._parts[name], PARTS)
        return value


STORE_EFFECTS: Mapping[str, Sequence[str]] = {
    "dataset": ("pin", "publish", "publish_embedded", "pin_probes", "clean", "drop"),
    "log": ("write", "forget"),
    "corpus": ("write",),
    "chunks": ("write", "write_by"),
    "vectors": ("append", "take_in"),
    "ledger": ("begin", "deal", "close", "void", "forget"),
    "load": ("begin", "deal", "close", "give_up", "forget"),
    "writers": ("end",),
}
PARTS = STORE_EFFECTS
CLUSTER_EFFECTS = ("patch", "write_status", "write_config_map", "delete_config_map")
BATCH_EFFECTS = ("create", "suspend", "delete")
BACKEND_EFFECTS = ("create", "load", "seal", "upsert", "delete", "remove_foreign", "publish", "unpublish", "drop")


class HashedWords:
    """A model that is deterministic, fast and of any size: each word is a direction drawn from its hash."""

    calls: ClassVar[list[str]] = []

    def __init__(self, space: Space) -> None:
        self._space = space

    def identity(self) -> Identity:
        # It stands in for the model that the recipe names.
        return Identity(self._space.model, self._space.revision, self._space.dimensions)

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        HashedWords.calls.extend(texts)
        vectors = np.zeros((len(texts), self._space.dimensions), np.float32)
        for row, text in enumerate(texts):
            for word in text.split() or [""]:
                seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
                vectors[row] += np.random.default_rng(seed).standard_normal(self._space.dimensions).astype(np.float32)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        finished(0, vectors)
        return vectors

    def close(self) -> None:
        return


class OneLookLater(InlineRunner):
    """Carries a job out when its owner has seen it running once, so that a plan may change its mind in between."""

    def __init__(self, doors: Doors, now: Callable[[], datetime], carrier: Carrier) -> None:
        super().__init__(doors, now, carrier)
        self._waiting: dict[tuple[Key, str], tuple[Job, int, bool]] = {}

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def start(self, job: Job, generation: int) -> None:
        self._waiting[job.task.owner, job.task.subject] = (job, generation, False)

    def before_look(self, owner: Key) -> None:
        """Carry out what its owner, who is about to look again, has seen running."""
        for key, (job, generation, was_seen) in list(self._waiting.items()):
            if key[0] == owner and was_seen:
                del self._waiting[key]
                super().start(job, generation)
            elif key[0] == owner:
                self._waiting[key] = (job, generation, True)

    def work(self, owner: Key) -> tuple[Work, ...]:
        running = [
            Work(job.task, generation, Phase.RUNNING)
            for key, (job, generation, _) in self._waiting.items()
            if key[0] == owner
        ]
        busy = {work.task.subject for work in running}
        return (*(work for work in super().work(owner) if work.task.subject not in busy), *running)

    def cancel(self, owner: Key, subject: str = "") -> None:
        super().cancel(owner, subject)
        for key in [key for key in self._waiting if key[0] == owner and subject in ("", key[1])]:
            del self._waiting[key]


class Listed:
    """A source that yields what a list holds."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        self._documents = documents

    def read(self) -> Iterator[pa.RecordBatch]:
        ids = list(self._documents)
        yield pa.RecordBatch.from_pydict(
            {"id": ids, "fields": [self._documents[i] for i in ids]}, schema=rows.DOCUMENTS
        )


@dataclass
class Stage:
    """The lasting parts: what survives a crash."""

    folder: Path
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    database: Memory = field(default_factory=Memory)
    batch: MemoryBatch = field(default_factory=MemoryBatch)
    documents: dict[str, str] = field(default_factory=dict)
    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    gateways: list[FakeGateway] = field(default_factory=list)
    """They are no part of the operator: what they serve outlives it."""

    def copy(self, folder: Path) -> Stage:
        shutil.copytree(self.folder, folder, symlinks=True)
        gateways = copy.deepcopy(self.gateways)
        return Stage(
            folder,
            _twin(self.cluster),
            _twin(self.database),
            _twin(self.batch),
            dict(self.documents),
            self.time,
            gateways,
        )

    def now(self) -> datetime:
        return self.time


@dataclass(frozen=True)
class Asked:
    """The gateways of a stage, as an operator asks them: each serves what was written last, as the cluster has it."""

    stage: Stage

    def of(self, deployment: Key) -> tuple[Gateway, ...]:
        """Return what every gateway says of one deployment, after it has looked at what is written."""
        self.look()
        return tuple(gateway.seen() for gateway in self.stage.gateways)

    def days(self, deployment: Key) -> Mapping[str, tuple[Day, ...]]:
        """Return what every gateway tells of its last days."""
        said = (gateway.seen() for gateway in self.stage.gateways)
        return {gateway.process: gateway.days for gateway in said if gateway.days}

    def look(self) -> None:
        """Let every gateway look at the cluster."""
        resource = self.stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
        for gateway in self.stage.gateways:
            if resource is None:
                gateway.look("", None, is_deleted=True)
                continue
            meta, route = resource["metadata"], resource.get("status", {}).get("route")
            written = None if route is None else RouteStatus.model_validate(route)
            gateway.look(meta["uid"], written, is_deleted="deletionTimestamp" in meta)

    def hurry(self) -> None:
        """They are asked at every look anyway."""


def _twin(original: T) -> T:
    """Return a deep copy that shares nothing but the lock, which cannot be copied and is not held."""
    lock = vars(original)["_lock"]
    return copy.deepcopy(original, {id(lock): lock})


@dataclass
class Looks:
    """How long an operator looks at pods in one go: each look lets the cluster move, and one is the last."""

    kubelet: Kubelet
    left: int = 8

    def pause(self, _cancelled: threading.Event, _seconds: float) -> None:
        self.kubelet.step()
        self.left -= 1
        if self.left <= 0:
            self.left = 8
            raise Retryable(Reason.WORK_LOST, "the pods were looked at for long enough")


def world(stage: Stage, tripwire: Tripwire) -> World:
    """Return a freshly started operator on a stage: nothing of an earlier process is left in it."""
    access = Access()

    def wired_store(uri: str, options: Mapping[str, str]) -> Any:
        # Buckets are folders beside what the operator keeps, so that a copy of a stage has them too.
        where = str(stage.folder / "buckets" / uri.removeprefix("s3://")) if uri.startswith("s3://") else uri
        return Wired(Store(where, options), tripwire, (), PARTS)

    def wired_backend(*_: Any) -> Any:
        return Wired(stage.database, tripwire, BACKEND_EFFECTS, {})

    doors = Doors(
        store=wired_store,
        source=lambda *_: Listed(stage.documents),
        embedder=lambda space, *_: HashedWords(space),
        backend=wired_backend,
    )
    batch = Wired(stage.batch, tripwire, BATCH_EFFECTS, {})
    # Pods are processes of their own: what they do is no effect of the operator's. A Job of a stage that this one is a
    # copy of names that one's folder.
    pods = dataclasses.replace(
        doors, store=lambda _, options: Store(str(stage.folder), options), backend=lambda *_: stage.database
    )
    means = Means(
        batch=batch,  # type: ignore[arg-type]
        cluster=stage.cluster,
        pods=Pods(image="pointsman:test", is_store_shared=True, store_claim="store"),
        store=wired_store,
        now=stage.now,
        pause=Looks(Kubelet(stage.batch, pods)).pause,
    )
    return World(
        cluster=Wired(stage.cluster, tripwire, CLUSTER_EFFECTS, {}),  # type: ignore[arg-type]
        store=wired_store(str(stage.folder), {}),
        store_uri=str(stage.folder),
        store_options={},
        runner=OneLookLater(doors, stage.now, InPods(InProcess(doors, stage.now), means)),
        batch=batch,  # type: ignore[arg-type]
        open_store=wired_store,
        databases=Databases(wired_backend, access),
        access=access,
        wake=lambda key: None,
        gateways=Asked(stage),  # type: ignore[arg-type]
    )


def settle(stage: Stage, tripwire: Tripwire, here: World | None = None, rounds: int = 150) -> list[str]:
    """Reconcile until a whole round has no effect; after a crash, start a new operator and go on.

    Returns the names of the actions that were applied.
    """
    here = here or world(stage, tripwire)
    with structlog.testing.capture_logs() as logs:
        for _ in range(rounds):
            before = (len(tripwire.trace), len(logs), [gateway.route for gateway in stage.gateways])
            approvals = [
                Key(APPROVAL, NAMESPACE, a["metadata"]["name"]) for a in stage.cluster.list(APPROVAL, NAMESPACE)
            ]
            for key in (DATASET_KEY, QUERY_SET_KEY, DEPLOYMENT_KEY, *approvals):
                try:
                    tripwire.look += 1
                    cast(OneLookLater, here.runner).before_look(key)
                    tripwire.look += 1
                    reconcile(key, here, stage.now())
                except Crash:
                    here = world(stage, tripwire)
            stage.time += timedelta(seconds=1)
            # An action without an effect, such as work that finds nothing to write, is worth another look as well, and
            # so is a gateway that serves another route than before.
            Asked(stage).look()
            is_waiting = cast(OneLookLater, here.runner).is_waiting
            after = (len(tripwire.trace), len(logs), [gateway.route for gateway in stage.gateways])
            if not is_waiting and after == before:
                break
        else:
            assert rounds < 150, f"no rest after 150 rounds; the last effects were {tripwire.trace[-20:]}"
    return [entry["action"] for entry in logs if entry["event"] == "action_applied"]


def told(stage: Stage, *steps: Callable[[Stage], None]) -> World:
    """Tell a story and return the world in which it was told."""
    here = world(stage, Tripwire())
    for step in steps:
        step(stage)
        settle(stage, Tripwire(), here)
    return here
