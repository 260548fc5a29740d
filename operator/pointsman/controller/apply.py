"""Carries out one action. Each may be carried out again, so a crash between an effect and the next look is harmless."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from pointsman import logs
from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api import queryset as queryset_api
from pointsman.api.conditions import Reason
from pointsman.cluster import credentials
from pointsman.cluster.resources import DATASET, DEPLOYMENT, FINALIZER, QUERY_SET, Resource
from pointsman.controller import observe, pods, reading
from pointsman.controller.world import World
from pointsman.core.recipes import Recipe
from pointsman.errors import Conflict, Terminal
from pointsman.plan import actions, facts, measured, tallies
from pointsman.plan.tasks import (
    AnswersTask,
    AskCanaries,
    Build,
    Check,
    Clean,
    Embed,
    Evaluate,
    Follow,
    Key,
    Probe,
    ReadQueries,
    Refresh,
    Repair,
    Task,
)
from pointsman.ports import Backend
from pointsman.work import jobs
from pointsman.work.jobs import Job

log = logs.logger()


def action(todo: actions.Action, resource: Resource, world: World) -> None:
    """Carry out one action that was planned for a resource."""
    world.fence.check()
    match todo:
        case actions.AddFinalizer(owner):
            _set_finalizers(owner, resource, world, add=True)
        case actions.RemoveFinalizer(owner, left):
            if left:
                world.cluster.event(resource, True, Reason.DELETING, left)
                log.warning(logs.Event.DATA_LEFT_BEHIND, resource=f"{owner.kind} {owner}", left=left)
            _set_finalizers(owner, resource, world, add=False)
        case actions.PinRecipe(owner, version, recipe):
            world.stores.remember(owner, resource)
            world.dataset(owner.namespace, owner.name, resource).pin(version, recipe)
        case actions.StartWork(task, generation):
            job = _job(task, resource, world)
            world.fence.check()
            world.runner.start(job, generation)
        case actions.CancelWork(owner, subject):
            world.runner.cancel(owner, subject)
        case actions.DeleteJob(owner, name):
            world.batch.delete(owner.namespace, name)
            log.info(logs.Event.JOB_DELETED, job=f"{owner.namespace}/{name}")
        case actions.RecordFacts(owner, known, after):
            world.store.log(*jobs.facts_log(owner)).write(facts.to_json(known), after=after)
        case actions.RecordStreams(owner, streams, after):
            world.store.log(*jobs.answers_log(owner, "streams")).write(measured.streams_to_json(streams), after=after)
        case actions.RecordScores(owner, scores, after):
            world.store.log(*jobs.answers_log(owner, "scores")).write(tallies.to_json(scores), after=after)
        case actions.PublishRoute(owner, uid, data):
            world.cluster.write_config_map(owner, uid, observe.config_map_name(owner.name), data)
        case actions.WithdrawRoute(owner):
            world.cluster.delete_config_map(owner.namespace, observe.config_map_name(owner.name))
        case actions.PublishAlias(owner, alias, index):
            _backend(owner, resource, world).publish(alias, index)
            world.fence.check()
            world.cluster.event(resource, True, Reason.ALIAS_MOVED, _of_alias(owner, alias, index))
        case actions.WithdrawAlias(owner, alias):
            _backend(owner, resource, world).unpublish(alias, str(owner))
        case actions.DeleteIndex(owner, index):
            _delete_index(owner, index, resource, world)
        case actions.ForgetFacts(owner):
            _forget(owner, world)
        case actions.DropStore(owner):
            world.dataset(owner.namespace, owner.name, resource).drop()
            world.stores.forget(owner)
        case _:
            assert_never(todo)


def _of_alias(owner: Key, alias: str, index: str) -> str:
    return (
        f"alias {alias} has moved to {index}: clients that embed with another version's model are answered wrongly "
        f"from now on and do not notice; let them read ConfigMap {observe.config_map_name(owner.name)} instead"
    )


def _set_finalizers(owner: Key, resource: Resource, world: World, add: bool) -> None:
    meta = resource["metadata"]
    others = [name for name in meta.get("finalizers", ()) if name != FINALIZER]
    wanted = [*others, FINALIZER] if add else others
    # A list is replaced whole by a merge, so the version is tested: a finalizer of somebody else's must not be lost.
    patch = {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}}
    world.fence.check()
    world.cluster.patch(owner.kind, owner.namespace, owner.name, patch)


def _delete_index(owner: Key, index: str, resource: Resource, world: World) -> None:
    """Remove an index after reading again, from the store, that it retires, and from the database, that it is ours."""
    known, _ = reading.facts_of(owner, world)
    found = known.get(index)
    if found is None or found.role is not deployment_api.Role.RETIRING:
        raise Conflict(f"index {index} is not on record as retiring")
    backend = _backend(owner, resource, world)
    marker = backend.find(index)
    if marker is not None and marker.owner != str(owner):
        message = f"index {index} is marked as {marker.owner}'s, wanted {owner}; it is left alone"
        raise Terminal(Reason.COLLECTION_FOREIGN, message)
    world.fence.check()
    backend.drop(index)


def _forget(owner: Key, world: World) -> None:
    """Remove the records of the indexes, then the facts: a crash in between leaves facts that say there is no index."""
    for name in world.store.logs("deployments", owner.namespace, owner.name, "indexes"):
        world.fence.check()
        world.store.log(*jobs.index_log(owner, name)).forget()
    for gate in world.store.logs("deployments", owner.namespace, owner.name, "answers"):
        world.fence.check()
        world.store.log(*jobs.answers_log(owner, gate)).forget()
    world.fence.check()
    world.store.log(*jobs.facts_log(owner)).forget()


def _backend(owner: Key, resource: Resource, world: World) -> Backend:
    spec = deployment_api.Spec(**resource["spec"])
    backend = world.database(owner, spec.backend, reading.deleting_since(resource, world) is not None)
    world.fence.check()
    return backend


def _job(task: Task, resource: Resource, world: World) -> Job:
    """Return a task with the specs and credentials that it needs, and no others."""
    cluster, access, namespace = world.cluster, world.access, task.owner.namespace
    job = Job(task=task, store=world.store_uri, store_options=world.store_options, access=access)
    match task:
        case Refresh():
            dataset = dataset_api.Spec(**resource["spec"])
            secrets = credentials.of_source(cluster, namespace, dataset.source, access)
            return _with(_at_home(job, task.owner.name, resource, world), dataset=dataset, credentials=secrets)
        case Embed():
            dataset = dataset_api.Spec(**resource["spec"])
            recipe = world.dataset(namespace, task.owner.name, resource).pins()[task.version]
            keys = _api_keys(namespace, dataset, {task.version: recipe}, world)
            job = _at_home(job, task.owner.name, resource, world)
            return _with(job, dataset=dataset, api_keys=keys, uid=resource["metadata"]["uid"])
        case Clean():
            return _at_home(job, task.owner.name, resource, world)
        case ReadQueries():
            asked = queryset_api.Spec(**resource["spec"])
            return _with(
                job,
                query_set=asked,
                query_credentials=credentials.of_files(cluster, namespace, asked.queries.files, access),
                judgement_credentials=credentials.of_files(cluster, namespace, asked.judgements.files, access),
            )
        case Build() | Follow() | Check() | Repair():
            deployment = deployment_api.Spec(**resource["spec"])
            secrets = credentials.of_backend(cluster, namespace, deployment.backend, access)
            known = reading.facts_of(Key(DEPLOYMENT, namespace, task.owner.name), world)[0]
            serving, found = known.serving, cluster.get(DATASET, namespace, task.dataset)
            is_other = serving is not None and serving.name != task.index
            by_pods = pods.loaded_as(task, deployment, known, found, world) if isinstance(task, Build) else None
            return _with(
                _at_home(job, task.dataset, found, world),
                dataset=by_pods,
                backend=deployment.backend,
                credentials=secrets,
                uid=resource["metadata"]["uid"],
                serving=serving.name if serving is not None and is_other else "",
            )
        case Probe():
            return _probing(job, task, deployment_api.Spec(**resource["spec"]), world)
        case Evaluate() | AskCanaries():
            return _asking(job, task, deployment_api.Spec(**resource["spec"]), world)
        case _:
            assert_never(task)


def _probing(job: Job, task: Probe, deployment: deployment_api.Spec, world: World) -> Job:
    """Return what it takes to ask one index by its model: the database and the way to the model."""
    namespace = task.owner.namespace
    found = _named(DATASET, namespace, task.dataset, Reason.DATASET_NOT_FOUND, world)
    dataset = dataset_api.Spec(**found["spec"])
    store = world.dataset(namespace, task.dataset, found)
    recipes = {task.side.version: jobs.recipe_of(store, task.side.version, task.side.recipe)}
    return _with(
        _at_home(job, task.dataset, found, world),
        dataset=dataset,
        backend=deployment.backend,
        credentials=credentials.of_backend(world.cluster, namespace, deployment.backend, world.access),
        api_keys=_api_keys(namespace, dataset, recipes, world),
    )


def _asking(job: Job, task: AnswersTask, deployment: deployment_api.Spec, world: World) -> Job:
    """Return what it takes to ask indexes the queries of a set: the database, the models of both sides, the set."""
    cluster, access, namespace = world.cluster, world.access, task.owner.namespace
    found = _named(DATASET, namespace, task.dataset, Reason.DATASET_NOT_FOUND, world)
    dataset = dataset_api.Spec(**found["spec"])
    asked = queryset_api.Spec(**_named(QUERY_SET, namespace, task.query_set, Reason.QUERY_SET_NOT_FOUND, world)["spec"])
    store = world.dataset(namespace, task.dataset, found)
    sides = [task.candidate] if task.serving is None else [task.candidate, task.serving]
    recipes = {side.version: jobs.recipe_of(store, side.version, side.recipe) for side in sides}
    return _with(
        _at_home(job, task.dataset, found, world),
        dataset=dataset,
        backend=deployment.backend,
        query_set=asked,
        credentials=credentials.of_backend(cluster, namespace, deployment.backend, access),
        query_credentials=credentials.of_files(cluster, namespace, asked.queries.files, access),
        judgement_credentials=credentials.of_files(cluster, namespace, asked.judgements.files, access),
        api_keys=_api_keys(namespace, dataset, recipes, world),
    )


def _named(kind: str, namespace: str, name: str, missing: Reason, world: World) -> Resource:
    found = world.cluster.get(kind, namespace, name)
    if found is None:
        raise Terminal(missing, f"{kind} {name} is not in namespace {namespace}; create it, or name another")
    return found


def _api_keys(namespace: str, dataset: dataset_api.Spec, recipes: Mapping[str, Recipe], world: World) -> dict[str, str]:
    """Return the API keys of the endpoints at which the models of recipes, by version, are reached."""
    found = {}
    for version, recipe in recipes.items():
        endpoint = jobs.endpoint_of(dataset, jobs.model_of(dataset, version, recipe.space))
        key = credentials.of_endpoint(world.cluster, namespace, endpoint, world.access)
        if endpoint is not None and key is not None:
            found[endpoint.name] = key
    return found


def _at_home(job: Job, dataset: str, resource: Resource | None, world: World) -> Job:
    """Return a job with the store of the dataset's own, if it has one; `resource` is None where that one is gone."""
    home = world.home(job.task.owner.namespace, dataset, resource)
    return job if home is None else _with(job, home=home.uri, home_options=home.options)


def _with(job: Job, **changes: object) -> Job:
    return Job(**{**{name: getattr(job, name) for name in job.__slots__}, **changes})
