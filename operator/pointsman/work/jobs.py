"""A task with all that a worker needs to carry it out, and the carrying out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from pointsman import ports
from pointsman.access import Access
from pointsman.api import dataset as dataset_api
from pointsman.api import engines
from pointsman.api import queryset as queryset_api
from pointsman.api.conditions import Reason
from pointsman.backends import registry as backends
from pointsman.core.recipes import Recipe, Space
from pointsman.embedders.declared import endpoint_of as endpoint_of
from pointsman.embedders.declared import model_of as model_of
from pointsman.errors import PointsmanError, Terminal
from pointsman.plan.tasks import (
    AnswersTask,
    AskCanaries,
    Build,
    Check,
    Clean,
    Embed,
    Evaluate,
    Follow,
    IndexTask,
    Key,
    Probe,
    ReadQueries,
    Refresh,
    Repair,
    Side,
    Task,
)
from pointsman.store.dataset import DatasetStore
from pointsman.store.root import Store
from pointsman.work import asking, canaries, embed, evaluate, indexing, loading, probe, queries, refresh, sharding
from pointsman.work.progress import Report, nowhere

Credentials = Mapping[str, str]
T = TypeVar("T")
CANARIES = "canaries"
"""The gate under which the answers of canaries are kept."""
UNJUDGED = "unjudged"
"""What people should judge next, beside the answers of gates."""


@dataclass(frozen=True, slots=True)
class Doors:
    """How the outside world is opened: the registries in production, others in tests."""

    store: Callable[[str, Mapping[str, str]], Store]
    source: Callable[[dataset_api.Source, Credentials, Access], ports.Source]
    embedder: Callable[
        [Space, dataset_api.Endpoint | None, str | None, Access, dataset_api.ModelChoice], ports.Embedder
    ]
    backend: Callable[[engines.Backend, Credentials, Access], ports.Backend]


class Stage(StrEnum):
    """Which part of an embedding, or of the loading of an index, a job is."""

    WHOLE = "Whole"
    """All of it, in this process."""
    DIVIDE = "Divide"
    """What comes before the pods: dividing the snapshot, and making the index."""
    SEAL = "Seal"
    """What comes after pods that load: having the database build what it searches by."""
    PUBLISH = "Publish"
    """What comes last: the one commit, or the full scan; and the record."""


@dataclass(frozen=True, slots=True)
class Job:
    """A task with what it needs."""

    task: Task
    store: str
    store_options: Credentials = field(default_factory=dict, repr=False)
    access: Access = field(default_factory=Access)
    dataset: dataset_api.Spec | None = None
    """The dataset's spec, for tasks that read its source, reach its models, or are carried out by pods as it says."""
    backend: engines.Backend | None = None
    """The database, for tasks on an index and those that ask it."""
    query_set: queryset_api.Spec | None = None
    """The query set, for tasks that read it."""
    uid: str = ""
    """The UID of the owner: for an index's marker, and for what is made in the cluster."""
    home: str = ""
    """Where the dataset is kept, if it has a store of its own."""
    home_options: Credentials = field(default_factory=dict, repr=False)
    stage: Stage = Stage.WHOLE
    """Which part of an embedding, or of a loading, it is."""
    shards: int = 1
    """Into how many shares a snapshot is divided."""
    serving: str = ""
    """The index whose queries a bulk load must not slow down."""
    credentials: Credentials = field(default_factory=dict, repr=False)
    """Of the source or of the database."""
    query_credentials: Credentials = field(default_factory=dict, repr=False)
    """Of the queries."""
    judgement_credentials: Credentials = field(default_factory=dict, repr=False)
    """Of the judgements, which may lie elsewhere than the queries."""
    api_keys: Credentials = field(default_factory=dict, repr=False)
    """Of the models' endpoints, by their names; an endpoint that wants none has none."""


def carry_out(job: Job, doors: Doors, now: Callable[[], datetime], report: Report) -> None:
    """Carry a job out, from wherever an earlier attempt was cut short."""
    store = doors.store(job.store, job.store_options)
    home = doors.store(job.home, job.home_options) if job.home else store
    match job.task:
        case Refresh():
            spec = _required(job.dataset)
            dataset = home.dataset(job.task.owner.namespace, job.task.owner.name)
            source = doors.source(spec.source, job.credentials, job.access)
            declared = {version.name for version in spec.versions}
            recipes = [recipe for version, recipe in dataset.pins().items() if version in declared]
            with dataset.exclusive():
                refresh.refresh(dataset, source, spec.surprises, now, report, recipes)
        case Embed():
            dataset = home.dataset(job.task.owner.namespace, job.task.owner.name)
            with dataset.exclusive():
                _embed(job, job.task, dataset, doors, now, report)
        case Clean():
            dataset = home.dataset(job.task.owner.namespace, job.task.owner.name)
            with dataset.exclusive():
                sharding.clean(dataset, job.task.recipes)
                loading.clean(dataset, job.task.keep, now)
                dataset.clean(job.task.keep, job.task.recipes)
        case ReadQueries():
            log = store.log(*query_set_log(job.task.owner))
            queries.read(_required(job.query_set), _query_sources(job, doors), log, job.task.source, now(), report)
        case Build() | Follow() | Check() | Repair():
            _on_index(job, job.task, store, home, doors, now, report)
        case Evaluate() | AskCanaries():
            _on_answers(job, job.task, store, home, doors, now, report)
        case Probe():
            _probe(job, job.task, store, home, doors, now)
        case _:
            assert_never(job.task)


def _probe(job: Job, task: Probe, store: Store, home: Store, doors: Doors, now: Callable[[], datetime]) -> None:
    dataset = home.dataset(task.owner.namespace, task.dataset)
    recipe = recipe_of(dataset, task.side.version, task.side.recipe)
    log = store.log(*probe_log(task.owner, task.side.index))
    with ExitStack() as opened:
        backend = doors.backend(_required(job.backend), job.credentials, job.access)
        opened.callback(backend.close)
        embedder = _embedder(job, task.side.version, recipe.space, doors)
        opened.callback(embedder.close)
        probe.probe(dataset, task.side.version, recipe, task.side.index, backend, embedder, log, now)


def _embed(
    job: Job, task: Embed, dataset: DatasetStore, doors: Doors, now: Callable[[], datetime], report: Report
) -> None:
    recipe = recipe_of(dataset, task.version, task.recipe)
    match job.stage:
        case Stage.DIVIDE:
            sharding.begin(dataset, recipe, task.snapshot, job.shards)
            return
        case Stage.PUBLISH:
            sharding.finish(dataset, task.version, recipe, task.snapshot, now)
            return
        case Stage.SEAL:
            return
        case Stage.WHOLE:
            # What pods have finished before somebody changed their mind is not embedded again.
            sharding.abandon(dataset, recipe)
        case _:
            assert_never(job.stage)
    embedder = _embedder(job, task.version, recipe.space, doors)
    try:
        embed.embed(dataset, task.version, recipe, task.snapshot, embedder, now, report)
    finally:
        embedder.close()


def _on_answers(
    job: Job, task: AnswersTask, store: Store, home: Store, doors: Doors, now: Callable[[], datetime], report: Report
) -> None:
    spec, namespace = _required(job.query_set), task.owner.namespace
    found = queries.load(spec, _query_sources(job, doors), nowhere)
    dataset = home.dataset(namespace, task.dataset)
    with ExitStack() as opened:
        backend = doors.backend(_required(job.backend), job.credentials, job.access)
        opened.callback(backend.close)
        embedders: dict[str, ports.Embedder] = {}

        def answering(side: Side) -> asking.Answering:
            recipe = recipe_of(dataset, side.version, side.recipe)
            if recipe.space.key not in embedders:
                embedders[recipe.space.key] = _embedder(job, side.version, recipe.space, doors)
                opened.callback(embedders[recipe.space.key].close)
            log = store.log(*index_log(task.owner, side.index))
            return asking.Answering(side.index, side.version, recipe, embedders[recipe.space.key], log)

        room = asking.Room(
            dataset=dataset,
            corpus=task.dataset,
            snapshot=task.snapshot,
            backend=backend,
            candidate=answering(task.candidate),
            serving=None if task.serving is None else answering(task.serving),
            name=task.query_set,
            queries=found,
            set_log=store.log(*query_set_log(Key("QuerySet", namespace, task.query_set))),
            now=now,
            report=report,
        )
        match task:
            case Evaluate():
                log = store.log(*answers_log(task.owner, task.gate))
                # What `stable` asks is of the same kind, but nobody migrates by it.
                is_gate = task.gate == "evaluation"
                listed = store.log(*answers_log(task.owner, UNJUDGED)) if is_gate else None
                evaluate.evaluate(room, task.metric, spec.judgements.kind, log, task.token, listed)
            case AskCanaries():
                pin_log = store.log(*answers_log(task.owner, f"pins-{task.candidate.index}"))
                canaries.ask(room, task.k, store.log(*answers_log(task.owner, CANARIES)), pin_log)
            case _:
                assert_never(task)


def _embedder(job: Job, version: str, space: Space, doors: Doors) -> ports.Embedder:
    """Open the model of a space as a version, or any other one, says that it is reached."""
    spec = _required(job.dataset)
    model = model_of(spec, version, space)
    endpoint = endpoint_of(spec, model)
    key = None if endpoint is None else job.api_keys.get(endpoint.name)
    return doors.embedder(space, endpoint, key, job.access, model)


def _query_sources(job: Job, doors: Doors) -> tuple[ports.Source, ports.Source] | None:
    """Return the sources of queries and judgements; None where the spec holds them itself."""
    spec = _required(job.query_set)
    if spec.queries.files is None or spec.judgements.files is None:
        return None
    asked = dataset_api.Source(files=spec.queries.files, id_field="id")
    answers = dataset_api.Source(files=spec.judgements.files, id_field="query")
    return (
        doors.source(asked, job.query_credentials, job.access),
        doors.source(answers, job.judgement_credentials, job.access),
    )


def _on_index(
    job: Job, task: IndexTask, store: Store, home: Store, doors: Doors, now: Callable[[], datetime], report: Report
) -> None:
    spec = _required(job.backend)
    dataset = home.dataset(task.owner.namespace, task.dataset)
    recipe = recipe_of(dataset, task.version, task.recipe)
    hnsw = backends.index_parameters(spec)
    made_by = marker_of(job, task, recipe)
    backend = doors.backend(spec, job.credentials, job.access)
    try:
        index = indexing.Index(
            spec=ports.IndexSpec(task.index, recipe.space.dimensions, hnsw.m, hnsw.ef_construct, made_by),
            backend=backend,
            dataset=dataset,
            recipe=recipe,
            log=store.log(*index_log(task.owner, task.index)),
            now=now,
            report=report,
        )
        match task:
            case Build():
                _build(job, task, index)
            case Follow():
                indexing.follow(index, task.snapshot)
            case Check():
                indexing.check(index, task.snapshot)
            case Repair():
                indexing.repair(index, task.snapshot, pace(job.serving, backend))
            case _:
                assert_never(task)
    finally:
        backend.close()


def _build(job: Job, task: Build, index: indexing.Index) -> None:
    match job.stage:
        case Stage.DIVIDE:
            loading.begin(index, task.snapshot, job.shards)
        case Stage.SEAL:
            index.backend.seal(index.name)
        case Stage.PUBLISH:
            is_doubted = loading.is_doubted(index.dataset, index.name)
            indexing.finish(index, task.snapshot, pace(job.serving, index.backend), is_doubted)
            loading.forget(index.dataset, index.name)
        case Stage.WHOLE:
            # Pods that were at it before somebody changed their mind write no more.
            loading.stop(index)
            is_doubted = loading.is_doubted(index.dataset, index.name)
            indexing.build(index, task.snapshot, pace(job.serving, index.backend), is_doubted)
            loading.forget(index.dataset, index.name)
        case _:
            assert_never(job.stage)


def marker_of(job: Job, task: IndexTask, recipe: Recipe) -> ports.Marker:
    """Return what says whose an index is."""
    return ports.Marker(
        owner=str(task.owner),
        uid=job.uid,
        version=task.version,
        recipe=task.recipe,
        space=recipe.space.key,
        model=recipe.space.model,
    )


def pace(serving: str, backend: ports.Backend, processes: int = 1) -> indexing.Pace:
    """Return the pace that yields to the serving index, whatever state that is in, by so many that load at once."""
    try:
        vector = _any_vector(serving, backend)
    except PointsmanError:
        vector = None
    asked = None if vector is None else partial(backend.search, serving, vector, 10, None)
    return indexing.Pace(asked, every=float(processes))


def _any_vector(serving: str, backend: ports.Backend) -> npt.NDArray[np.float32] | None:
    """Return one of the index's own vectors to ask it with, as only it knows its dimensions."""
    if not serving or backend.find(serving) is None:
        return None
    batch = next(iter(backend.scan(serving)), None)
    # A point that somebody added has no id by which it can be fetched.
    ids = [] if batch is None else batch["point_id"].drop_null()[:1].to_pylist()
    _, vectors = backend.fetch(serving, ids)
    return np.ascontiguousarray(vectors[0]) if len(vectors) else None


def is_for_pods(job: Job) -> bool:
    """Return whether a job is carried out by the pods of a Kubernetes Job.

    The building of an index has its dataset's spec only where pods may load it.
    """
    return isinstance(job.task, Embed | Build) and job.dataset is not None and job.dataset.work.mode == "Job"


def index_log(owner: Key, index: str) -> tuple[str, ...]:
    """Return where the records of an index are in the store."""
    return "deployments", owner.namespace, owner.name, "indexes", index


def facts_log(owner: Key) -> tuple[str, ...]:
    """Return where the facts of a deployment are in the store."""
    return "deployments", owner.namespace, owner.name, "facts"


def answers_log(owner: Key, gate: str) -> tuple[str, ...]:
    """Return where what was measured for a gate of a deployment is in the store."""
    return "deployments", owner.namespace, owner.name, "answers", gate


def probe_log(owner: Key, index: str) -> tuple[str, ...]:
    """Return where what came of asking an index of a deployment a few fixed questions is in the store."""
    return answers_log(owner, f"probe-{index}")


def query_set_log(owner: Key) -> tuple[str, ...]:
    """Return where the record of a query set is in the store."""
    return "querysets", owner.namespace, owner.name


def recipe_of(dataset: DatasetStore, version: str, key: str) -> Recipe:
    """Return a recipe by its key; raises Terminal(VERSION_NOT_FOUND) where no version is pinned to it."""
    found = next((recipe for recipe in dataset.pins().values() if recipe.key == key), None)
    if found is None:
        raise Terminal(Reason.VERSION_NOT_FOUND, f"the recipe of {version} is not pinned in the store")
    return found


def _required(value: T | None) -> T:
    assert value is not None, "the job lacks the spec that its task needs"
    return value
