"""What is there? Reads the cluster, the store and the databases into frozen values. Changes nothing.

Work is looked at before records, and records before the databases: what a worker finishes in between is then seen as
done, or not at all, and never as half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api import queryset as queryset_api
from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role
from pointsman.backends import registry as backends
from pointsman.cluster.resources import (
    DEPLOYMENT,
    DRILL_ANNOTATION,
    EVALUATE_ANNOTATION,
    FINALIZER,
    REFRESH_ANNOTATION,
    Resource,
)
from pointsman.controller import datasets, judging, pods, reading
from pointsman.controller.world import World
from pointsman.core.recipes import digest
from pointsman.errors import PointsmanError
from pointsman.plan import facts as plan_facts
from pointsman.plan import observed, words
from pointsman.plan.facts import Facts, Index, IndexRecord
from pointsman.plan.observed import Physical, Presence, Problem
from pointsman.plan.tasks import Check, Key, Work
from pointsman.ports import Backend
from pointsman.work import jobs


def dataset(resource: Resource, world: World) -> observed.Dataset:
    """Return all that is known of a dataset."""
    meta, key = resource["metadata"], reading.key_of(resource)
    spec = reading.valid(dataset_api.Spec, resource)
    work = world.runner.work(key)
    # Jobs after work, as work is what makes them: one that is seen alone is nobody's.
    status, found = reading.status(dataset_api.DatasetStatus, resource), pods.of_dataset(resource, spec, world)
    store = world.dataset(key.namespace, key.name, resource)
    pins, snapshots = store.pins(), store.snapshots()
    return observed.Dataset(
        key=key,
        uid=meta["uid"],
        generation=meta["generation"],
        spec=spec,
        status=status,
        jobs=found,
        has_finalizer=FINALIZER in meta.get("finalizers", ()),
        deleting_since=reading.deleting_since(resource, world),
        refresh_token=meta.get("annotations", {}).get(REFRESH_ANNOTATION, ""),
        source_digest=digest(spec.source.model_dump(mode="json")),
        snapshots=tuple(datasets.snapshot_of(s) for s in snapshots),
        pins=pins,
        recipes={version.name: datasets.recipe_of(spec, version) for version in spec.versions},
        embedded=datasets.embedded(store, pins),
        users=tuple(datasets.user(other, resource, pins, store, world) for other in users(key, world)),
        work=work,
        deadline=world.deadline,
    )


def deployment(resource: Resource, world: World) -> observed.Deployment:
    """Return all that is known of a deployment."""
    meta, key = resource["metadata"], reading.key_of(resource)
    spec = reading.valid(deployment_api.Spec, resource)
    work = world.runner.work(key)
    facts, revision = reading.facts_of(key, world)
    # Jobs after work, as work is what makes them: one that is seen alone is nobody's.
    found, unlisted = pods.seen_of_deployment(resource, facts, world)
    records = {index.name: record for index in facts.indexes if (record := pods.record(key, index.name, world))}
    published = world.cluster.config_map(key.namespace, config_map_name(key.name))
    physical, problem = _probe(resource, spec, facts, records, work, world)
    streams, streams_revision = judging.streams(key, world)
    scores, scores_revision = judging.scores(key, world)
    return observed.Deployment(
        key=key,
        uid=meta["uid"],
        generation=meta["generation"],
        spec=spec,
        status=reading.status(deployment_api.DeploymentStatus, resource),
        has_finalizer=FINALIZER in meta.get("finalizers", ()),
        deleting_since=reading.deleting_since(resource, world),
        dataset=datasets.view(key, spec, facts, records, work, world),
        facts=facts,
        revision=revision,
        records=records,
        physical=physical,
        engine=spec.backend.engine,
        address=backends.address(spec.backend),
        parameters=backends.parameters_digest(spec.backend),
        published=published,
        work=work,
        jobs=found,
        unlisted=unlisted,
        deadline=world.deadline,
        problem=problem,
        approvals=judging.approvals(key, world),
        gateways=world.gateways.of(key),
        drill_token=meta.get("annotations", {}).get(DRILL_ANNOTATION, ""),
        evaluate_token=meta.get("annotations", {}).get(EVALUATE_ANNOTATION, ""),
        query_sets={name: judging.queries(key.namespace, name, world) for name in judging.named(spec)},
        evaluation=judging.evaluation(key, "evaluation", world),
        stable=judging.evaluation(key, "stable", world) if spec.retire.stable is not None else None,
        canaries=judging.canaries(key, world) if spec.gates.canaries is not None else None,
        probes=judging.probes(key, facts, world),
        streams=streams,
        streams_revision=streams_revision,
        days=world.gateways.days(key),
        scores=scores,
        scores_revision=scores_revision,
        taken_over=world.taken_over,
        made_at=reading.time(meta.get("creationTimestamp")),
        started=world.started,
        epoch=world.epoch,
        holder=world.holder,
    )


def query_set(resource: Resource, world: World) -> observed.QuerySet:
    """Return all that is known of a query set."""
    key, spec = reading.key_of(resource), reading.valid(queryset_api.Spec, resource)
    work = world.runner.work(key)
    found = reading.record(jobs.query_set_log(key), world)
    return observed.QuerySet(
        key=key,
        generation=resource["metadata"]["generation"],
        spec=spec,
        status=reading.status(queryset_api.QuerySetStatus, resource),
        source_digest=judging.source_digest(spec),
        record=None if found is None else plan_facts.query_set_from_json(found.value),
        work=work,
    )


def config_map_name(deployment: str) -> str:
    """Return the name of the ConfigMap that direct clients read."""
    return f"{deployment}-serving"


def users(dataset: Key, world: World) -> list[Resource]:
    """Return the deployments that rely on a dataset: those that are deleted need nothing of it any more."""
    named = world.sight.naming(DEPLOYMENT, dataset)
    return [deployment for deployment in named if reading.deleting_since(deployment, world) is None]


def _probe(
    resource: Resource,
    spec: deployment_api.Spec,
    facts: Facts,
    records: Mapping[str, IndexRecord],
    work: Sequence[Work],
    world: World,
) -> tuple[Mapping[str, Physical], Problem | None]:
    """Look at every index on the books. What goes wrong before the first is looked at is the problem of them all."""
    key = reading.key_of(resource)
    try:
        backend = world.database(key, spec.backend, reading.deleting_since(resource, world) is not None)
        world.databases.probe(key, backend)
    except PointsmanError as error:
        return {}, reading.problem(error)
    is_edited = resource.get("status", {}).get("observedGeneration") != resource["metadata"]["generation"]
    found = {}
    for index in facts.indexes:
        rows = _counted(index, records.get(index.name), work, is_edited)
        found[index.name] = _physical(key, index.name, rows, backend, world)
    return found, None


def _physical(key: Key, name: str, rows: int | None, backend: Backend, world: World) -> Physical:
    """Look at one index, and count it where it should hold so many rows.

    What goes wrong is its own problem: a broken index must not block a way to a healthy one.
    """
    try:
        marker = backend.find(name)
        if marker is None:
            return Physical(Presence.ABSENT)
        if marker.owner != str(key):
            return Physical(Presence.FOREIGN)
        return Physical(
            Presence.PRESENT, None if rows is None else world.databases.count(key, backend, name, expected=rows)
        )
    except PointsmanError as error:
        if error.reason is Reason.COLLECTION_FOREIGN:
            return Physical(Presence.FOREIGN)
        return Physical(Presence.UNKNOWN, problem=reading.problem(error))


def _counted(index: Index, record: IndexRecord | None, work: Sequence[Work], is_edited: bool) -> int | None:
    """Return how many rows an index should be found to hold; None where it is not to be counted.

    It is counted once it is verified, while nothing writes to it. An edit is acted on at once and counted after, as
    some databases count for as long as an index is large; but not while a check is under way, which may have begun
    because rows were missing.
    """
    if record is None or record.verified_at is None or index.role is Role.RETIRING:
        return None
    running = words.running(work, f"index {index.name}")
    is_counted = not is_edited if running is None else isinstance(running.task, Check)
    return record.rows if is_counted else None
