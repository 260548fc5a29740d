"""What do gates judge by, and what have people decided? Read for the deployments that ask. Changes nothing."""

from __future__ import annotations

import contextlib

from pointsman.api import approval as approval_api
from pointsman.api import deployment as deployment_api
from pointsman.api import queryset as queryset_api
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, QUERY_SET, Resource
from pointsman.controller import datasets, pods, reading
from pointsman.controller.world import World
from pointsman.core.recipes import digest
from pointsman.errors import PointsmanError, Terminal
from pointsman.plan import approvals as approvals_plan
from pointsman.plan import facts as plan_facts
from pointsman.plan import lag, measured, observed, tallies
from pointsman.plan.tasks import Key
from pointsman.work import jobs


def approval(resource: Resource, world: World) -> observed.Decision:
    """Return all that is known of an Approval."""
    meta, key = resource["metadata"], reading.key_of(resource)
    spec = reading.valid(approval_api.Spec, resource)
    deployment = world.sight.get(DEPLOYMENT, key.namespace, spec.target.name)
    about = Key(DEPLOYMENT, key.namespace, spec.target.name)
    facts, _ = reading.facts_of(about, world)
    lacking = None
    if spec.decision == "AcceptLag" and deployment is not None:
        lacking = _lag(about, deployment["spec"]["datasetRef"]["name"], spec.version, facts, world)
    made_at = None if deployment is None else reading.time(deployment["metadata"].get("creationTimestamp"))
    return observed.Decision(
        key=key,
        uid=meta["uid"],
        generation=meta["generation"],
        spec=spec,
        status=reading.status(approval_api.ApprovalStatus, resource),
        deployment=None if deployment is None else reading.valid(deployment_api.Spec, deployment),
        plan=(deployment or {}).get("status", {}).get("planHash", ""),
        used=facts.used,
        created_at=reading.time(meta.get("creationTimestamp")) or world.started,
        asked_since=approvals_plan.asked_since(made_at, facts),
        lag=lacking,
    )


def _lag(deployment: Key, dataset: str, version: str, facts: plan_facts.Facts, world: World) -> observed.Lag | None:
    """Return what the index of a version lacks; None too where the dataset's store is away."""
    records = {index.name: found for index in facts.indexes if (found := pods.record(deployment, index.name, world))}
    namespace = deployment.namespace
    try:
        store = world.dataset(namespace, dataset, world.sight.get(DATASET, namespace, dataset))
        snapshots = [datasets.snapshot_of(each) for each in store.snapshots()]
        return lag.of(version, facts, records, snapshots, datasets.embedded(store, store.pins()))
    except PointsmanError:
        return None


def approvals(deployment: Key, world: World) -> tuple[observed.Approval, ...]:
    """Return the decisions about a deployment that can be read; the others say of themselves that they cannot."""
    found = []
    for resource in world.sight.naming(APPROVAL, deployment):
        meta = resource["metadata"]
        if "deletionTimestamp" in meta:
            continue
        with contextlib.suppress(Terminal):
            made = reading.time(meta.get("creationTimestamp")) or world.started
            found.append(observed.Approval(meta["name"], meta["uid"], reading.valid(approval_api.Spec, resource), made))
    return tuple(found)


def askers(query_set: Key, world: World) -> list[Key]:
    """Return the deployments whose gates name a query set."""
    found = []
    for resource in world.cluster.list(DEPLOYMENT, query_set.namespace):
        with contextlib.suppress(Terminal):
            if query_set.name in named(reading.valid(deployment_api.Spec, resource)):
                found.append(reading.key_of(resource))
    return found


def named(spec: deployment_api.Spec) -> tuple[str, ...]:
    """Return the query sets that a deployment's gates name."""
    gates, stable = spec.gates, spec.retire.stable
    refs = [gate.query_set_ref for gate in (gates.evaluation, gates.canaries, stable) if gate is not None]
    return tuple(dict.fromkeys(ref.name for ref in refs))


def queries(namespace: str, name: str, world: World) -> observed.QueriesView:
    """Return what a deployment needs to know of a query set."""
    key = Key(QUERY_SET, namespace, name)
    resource = world.sight.get(QUERY_SET, namespace, name)
    found = reading.record(jobs.query_set_log(key), world)
    if resource is None:
        return observed.QueriesView(exists=False)
    try:
        spec = reading.valid(queryset_api.Spec, resource)
    except Terminal as error:
        return observed.QueriesView(exists=True, problem=error.message)
    record = None if found is None else plan_facts.query_set_from_json(found.value)
    failure = next((work.failure for work in world.runner.work(key) if work.failure is not None), None)
    return observed.QueriesView(
        exists=True,
        record=record if record is not None and record.source == source_digest(spec) else None,
        problem="" if failure is None else failure.message,
        every="" if spec.schedule is None else spec.schedule.every,
    )


def source_digest(spec: queryset_api.Spec) -> str:
    """Return what a query set reads, as a digest: an edit of it is a reason to read again."""
    return digest([part.model_dump(mode="json") for part in (spec.queries, spec.judgements)])


def evaluation(deployment: Key, gate: str, world: World) -> measured.Evaluation | None:
    """Return what was measured last for a gate, if it ever was."""
    found = reading.record(jobs.answers_log(deployment, gate), world)
    return None if found is None else measured.evaluation_from_json(found.value)


def streams(deployment: Key, world: World) -> tuple[measured.Streams, int]:
    """Return what live queries have shown, and the revision of that; nothing and 0 where it was never written down."""
    found = reading.record(jobs.answers_log(deployment, "streams"), world)
    return (measured.Streams(), 0) if found is None else (measured.streams_from_json(found.value), found.revision)


def scores(deployment: Key, world: World) -> tuple[tallies.Scores, int]:
    """Return how the best answers score, and the revision of that; nothing and 0 where it was never written down."""
    found = reading.record(jobs.answers_log(deployment, "scores"), world)
    return (tallies.Scores(), 0) if found is None else (tallies.from_json(found.value), found.revision)


def probes(deployment: Key, facts: plan_facts.Facts, world: World) -> dict[str, measured.Probe]:
    """Return what came of asking the indexes on the books a few fixed questions, where they were ever asked."""
    names = [index.name for index in facts.indexes if index.role is not deployment_api.Role.RETIRING]
    found = {name: reading.record(jobs.probe_log(deployment, name), world) for name in names}
    return {name: measured.probe_from_json(each.value) for name, each in found.items() if each is not None}


def canaries(deployment: Key, world: World) -> measured.Canaries | None:
    """Return what the canaries found last, if they were ever asked."""
    found = reading.record(jobs.answers_log(deployment, "canaries"), world)
    return None if found is None else measured.canaries_from_json(found.value)
