"""What is there? Reads the cluster, the store and the databases into frozen values. Changes nothing.

Work is looked at before records, and records before the databases: what a worker finishes in between is then seen as
done, or not at all, and never as half.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api import queryset as queryset_api
from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role
from pointsman.backends import registry as backends
from pointsman.cluster import credentials
from pointsman.cluster.resources import (
    DATASET,
    DEPLOYMENT,
    DRILL_ANNOTATION,
    EVALUATE_ANNOTATION,
    FINALIZER,
    REFRESH_ANNOTATION,
    Resource,
)
from pointsman.controller import judging, pods, reading
from pointsman.controller.stores import Held
from pointsman.controller.world import World
from pointsman.core import chunking
from pointsman.core.recipes import Recipe, digest
from pointsman.embedders import registry as embedders
from pointsman.errors import PointsmanError, Terminal
from pointsman.plan import embedding, observed, words
from pointsman.plan import facts as plan_facts
from pointsman.plan.facts import Facts, Index, IndexRecord
from pointsman.plan.observed import Physical, Presence, Problem
from pointsman.plan.tasks import Check, Embed, IndexTask, Key, Phase, Refresh, Work
from pointsman.ports import Backend
from pointsman.store.dataset import DatasetStore
from pointsman.store.records import EmbeddedSnapshot
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
        snapshots=tuple(_snapshot(s) for s in snapshots),
        pins=pins,
        recipes={version.name: _recipe(spec, version) for version in spec.versions},
        embedded=_embedded(store, pins),
        users=tuple(_user(other, resource, pins, store, world) for other in users(key, world)),
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
        dataset=_view(key, spec, facts, records, work, world),
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
        probe=judging.probe(key, world),
        streams=streams,
        streams_revision=streams_revision,
        days=world.gateways.days(key),
        scores=scores,
        scores_revision=scores_revision,
        taken_over=world.taken_over,
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
        return {}, _problem(error)
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
        return Physical(Presence.UNKNOWN, problem=_problem(error))


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


def _view(
    deployment: Key,
    spec: deployment_api.Spec,
    facts: Facts,
    records: Mapping[str, IndexRecord],
    under_way: Sequence[Work],
    world: World,
) -> observed.DatasetView:
    """Return what a deployment of a version needs to know of its dataset.

    A store of the dataset's own may be away, for ever even. A way back leads between indexes, which are elsewhere: for
    that, what was known last will do.
    """
    namespace, name, version = deployment.namespace, spec.dataset_ref.name, spec.version
    resource, key = world.sight.get(DATASET, namespace, name), Key(DATASET, namespace, name)
    work = world.runner.work(key)
    problem: Problem | None = None
    begun: Mapping[str, observed.Begun] = {}
    try:
        store = world.dataset(namespace, name, resource)
        begun = pods.begun(resource, store, deployment, facts, under_way, world)
        pins, snapshots = store.pins(), tuple(_snapshot(record) for record in store.snapshots())
        held = Held(pins, snapshots, _embedded(store, pins))
        world.stores.saw(key, held)
    except PointsmanError as error:
        problem = _problem(error)
        held = world.stores.seen(key) or _by_the_books(resource, facts, records)
    declared: tuple[str, ...] = ()
    stalled = ""
    if resource is not None:
        declared = tuple(declared["name"] for declared in resource["spec"].get("versions", ()))
        if problem is None and (version not in held.pins or not held.embedded[held.pins[version].key]):
            stalled = _stalled(resource, version, bool(held.snapshots), work, world)
    return observed.DatasetView(
        exists=resource is not None and reading.deleting_since(resource, world) is None,
        declared=declared,
        pins=held.pins,
        snapshots=held.snapshots,
        embedded=held.embedded,
        progress=embedding.progress(work, version, held.pins.get(version)),
        stalled=stalled,
        problem=problem,
        is_for_pods=pods.load_for(resource),
        begun=begun,
    )


def _by_the_books(resource: Resource | None, facts: Facts, records: Mapping[str, IndexRecord]) -> Held:
    """Return what a deployment's own records say of a dataset whose store this process has never seen.

    A version counts as pinned where the spec still says what its indexes were made by.
    """
    made = {(index.version, index.recipe) for index in facts.indexes}
    pins: dict[str, Recipe] = {}
    if resource is not None:
        with contextlib.suppress(Terminal):
            spec = reading.valid(dataset_api.Spec, resource)
            for version in spec.versions:
                recipe = _recipe(spec, version)
                if isinstance(recipe, Recipe) and (version.name, recipe.key) in made:
                    pins[version.name] = recipe
    snapshots: dict[int, observed.Snapshot] = {}
    embedded: dict[str, dict[int, observed.Embedded]] = {}
    for index in facts.indexes:
        record = records.get(index.name)
        since = None if record is None else record.moved_at or record.verified_at
        if record is None or record.cursor is None or since is None:
            continue
        at, sequence = record.cursor.snapshot, record.cursor.sequence
        # It is no younger than the index that holds it.
        if at not in snapshots or since < snapshots[at].created_at:
            snapshots[at] = observed.Snapshot(at, sequence, 0, "", since)
        embedded.setdefault(index.recipe, {})[at] = observed.Embedded(at, sequence, 0, record.rows, record.digest)
    by_recipe = {key: tuple(found[at] for at in sorted(found)) for key, found in embedded.items()}
    return Held(pins, tuple(snapshots[at] for at in sorted(snapshots)), by_recipe)


def _embeds(work: Work, version: str) -> bool:
    return isinstance(work.task, Embed) and work.task.version == version


def _stalled(resource: Resource, version: str, is_read: bool, work: Sequence[Work], world: World) -> str:
    """Return why a version will not be embedded until somebody edits something; empty where nothing is in its way.

    What is wrong with another version is nothing to it, and what is wrong with the source only before it was ever read.
    """
    for attempt in work:
        concerns = _embeds(attempt, version) or (isinstance(attempt.task, Refresh) and not is_read)
        if concerns and attempt.failure is not None and attempt.failure.is_terminal:
            return attempt.failure.message
    namespace = resource["metadata"]["namespace"]
    try:
        # The same that is asked for before work is started.
        spec = reading.valid(dataset_api.Spec, resource)
        if not is_read:
            credentials.of_source(world.secrets, namespace, spec.source, world.access)
        for declared in (declared for declared in spec.versions if declared.name == version):
            recipe = _recipe(spec, declared)
            if isinstance(recipe, Problem):
                return recipe.message if recipe.is_terminal else ""
            endpoint = jobs.endpoint_of(spec, declared.model)
            credentials.of_endpoint(world.secrets, namespace, endpoint, world.access)
    except Terminal as error:
        return error.message
    return ""


def _user(
    resource: Resource, dataset: Resource, pins: Mapping[str, Recipe], store: DatasetStore, world: World
) -> observed.User:
    key, spec = reading.key_of(resource), resource["spec"]
    facts, _ = reading.facts_of(key, world)
    serving = facts.serving
    needs = [spec.get("version", ""), *([serving.version] if serving else [])]
    versions = [*needs, *(index.version for index in facts.indexes if index.role is Role.RETAINED)]
    recipes = {index.recipe for index in facts.indexes} | {pins[v].key for v in versions if v in pins}
    numbers: set[int] = {index.frozen for index in facts.indexes if index.frozen is not None}
    for index in facts.indexes:
        record = pods.record(key, index.name, world)
        if record is not None and record.cursor is not None:
            numbers |= {record.cursor.snapshot} | ({record.pending} if record.pending is not None else set())
    # What an index is being built from is on no record yet.
    work = world.runner.work(key)
    numbers |= {w.task.snapshot for w in work if w.phase is Phase.RUNNING and isinstance(w.task, IndexTask)}
    found, unlisted = pods.seen_of_deployment(resource, facts, world)
    numbers |= {job.snapshot for job in found}
    numbers |= {begun.snapshot for begun in pods.begun(dataset, store, key, facts, work, world).values()}
    pinned: tuple[tuple[str, int], ...] = ()
    if spec.get("snapshot") is not None:
        numbers.add(spec["snapshot"])
        if needs[0] in pins:
            pinned = ((pins[needs[0]].key, spec["snapshot"]),)
    return observed.User(
        name=key.name,
        versions=tuple(dict.fromkeys(versions)),
        needs=tuple(dict.fromkeys(needs)),
        recipes=tuple(sorted(recipes)),
        snapshots=tuple(sorted(numbers)),
        pinned=pinned,
        is_unlisted=unlisted is not None and pods.load_for(dataset),
    )


def _recipe(spec: dataset_api.Spec, version: dataset_api.Version) -> Recipe | Problem:
    try:
        space = embedders.space_of(version.model)
        jobs.endpoint_of(spec, version.model)
        chunker = chunking.chunker(version.chunking.max_tokens, version.chunking.overlap_tokens)
    except PointsmanError as error:
        return _problem(error)
    return Recipe(
        space=space,
        template=version.text.template,
        metadata_fields=tuple(sorted(set(version.text.metadata_fields))),
        chunker=chunker,
    )


def _embedded(store: DatasetStore, pins: Mapping[str, Recipe]) -> dict[str, tuple[observed.Embedded, ...]]:
    found = store.embedded_by_recipe()
    keys = {recipe.key for recipe in pins.values()}
    return {key: tuple(_embedded_one(record) for record in found.get(key, ())) for key in sorted(keys)}


def _embedded_one(record: EmbeddedSnapshot) -> observed.Embedded:
    return observed.Embedded(
        snapshot=record.snapshot,
        sequence=record.sequence,
        documents=record.documents,
        rows=record.rows,
        digest=record.digest,
        embedded=record.embedded,
        reused=record.reused,
        changes=record.changes,
        model=record.model,
        revision=record.revision,
    )


def _snapshot(record: Any) -> observed.Snapshot:
    return observed.Snapshot(record.number, record.sequence, record.documents, record.digest, record.created_at)


def _problem(error: PointsmanError) -> Problem:
    return Problem(error.reason, error.message, isinstance(error, Terminal))
