"""What does the store of a dataset hold, and what do its deployments and it need to know of each other?"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api.deployment import Role
from pointsman.cluster import credentials
from pointsman.cluster.resources import DATASET, Resource
from pointsman.controller import pods, reading
from pointsman.controller.stores import Held
from pointsman.controller.world import World
from pointsman.core import chunking
from pointsman.core.recipes import Recipe
from pointsman.embedders import registry as embedders
from pointsman.errors import PointsmanError, Terminal
from pointsman.plan import embedding, observed
from pointsman.plan.facts import Facts, IndexRecord
from pointsman.plan.observed import Problem
from pointsman.plan.tasks import Embed, IndexTask, Key, Phase, Refresh, Work
from pointsman.store.dataset import DatasetStore
from pointsman.store.records import EmbeddedSnapshot, Snapshot
from pointsman.work import jobs


def view(
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
        pins, snapshots = store.pins(), tuple(snapshot_of(record) for record in store.snapshots())
        held = Held(pins, snapshots, embedded(store, pins))
        world.stores.saw(key, held)
    except PointsmanError as error:
        problem = reading.problem(error)
        held = world.stores.seen(key) or _by_the_books(resource, facts, records)
    declared: tuple[str, ...] = ()
    stalled = ""
    if resource is not None:
        declared = tuple(declared["name"] for declared in resource["spec"].get("versions", ()))
        if problem is None and (version not in held.pins or not held.embedded[held.pins[version].key]):
            stalled = _stalled(resource, version, bool(held.snapshots), work, world)
    return observed.DatasetView(
        generation=0 if resource is None else resource["metadata"]["generation"],
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
                recipe = recipe_of(spec, version)
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
            recipe = recipe_of(spec, declared)
            if isinstance(recipe, Problem):
                return recipe.message if recipe.is_terminal else ""
            endpoint = jobs.endpoint_of(spec, declared.model)
            credentials.of_endpoint(world.secrets, namespace, endpoint, world.access)
    except Terminal as error:
        return error.message
    return ""


def user(
    resource: Resource, dataset: Resource, pins: Mapping[str, Recipe], store: DatasetStore, world: World
) -> observed.User:
    """Return what a deployment needs of its dataset."""
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


def recipe_of(spec: dataset_api.Spec, version: dataset_api.Version) -> Recipe | Problem:
    """Return what a declared version means to this release, or why it means nothing."""
    try:
        space = embedders.space_of(version.model)
        jobs.endpoint_of(spec, version.model)
        chunker = chunking.chunker(version.chunking.max_tokens, version.chunking.overlap_tokens)
    except PointsmanError as error:
        return reading.problem(error)
    return Recipe(
        space=space,
        template=version.text.template,
        metadata_fields=tuple(sorted(set(version.text.metadata_fields))),
        chunker=chunker,
    )


def embedded(store: DatasetStore, pins: Mapping[str, Recipe]) -> dict[str, tuple[observed.Embedded, ...]]:
    """Return the snapshots that are embedded by each recipe of a version, ascending."""
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
        tokens=record.tokens,
        tokens_stated=record.tokens_stated,
        changes=record.changes,
        model=record.model,
        revision=record.revision,
        at=record.created_at,
    )


def snapshot_of(record: Snapshot) -> observed.Snapshot:
    """Return a snapshot of the corpus as a plan sees it."""
    return observed.Snapshot(record.number, record.sequence, record.documents, record.digest, record.created_at)
