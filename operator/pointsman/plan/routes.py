"""What clients are told: gateways by a route in the status, direct clients by one ConfigMap.

Both name an index together with the model that embeds for it, from the facts alone.
"""

from __future__ import annotations

from pointsman.api import routes as api
from pointsman.api.deployment import Role
from pointsman.core import recipes
from pointsman.core.recipes import Recipe
from pointsman.plan import actions, indexes
from pointsman.plan.facts import Facts, Index
from pointsman.plan.observed import Deployment

MOST_BETWEEN = api.MOST_INDEXES - 2
"""How many indexes without weight a route has room for, the youngest."""


def for_gateways(seen: Deployment, facts: Facts) -> api.RouteStatus | None:
    """Return the route that gateways must serve, or None where nothing serves."""
    serving = facts.serving
    if serving is None:
        return None
    entries = [
        _entry(seen, index, recipe, facts.weights.get(index.name, 0))
        for index in _live(seen, facts, serving)
        if (recipe := _recipe(seen, index)) is not None
    ]
    if sum(entry.weight for entry in entries) != 100:
        # Without its recipe nobody knows an index's model: what was told stays the best that there is.
        return seen.status.route
    shadow = facts.shadow if facts.shadow is not None and any(e.index == facts.shadow.index for e in entries) else None
    return api.RouteStatus(
        epoch=facts.epoch,
        revision=facts.route,
        salt=_salt(facts),
        shadow=None if shadow is None else api.ShadowStatus(index=shadow.index, percent=shadow.percent),
        entries=entries,
        dataset=seen.spec.dataset_ref.name,
        engine=seen.engine,
        address=serving.address or seen.address,
    )


def _entry(seen: Deployment, index: Index, recipe: Recipe, weight: int) -> api.RouteEntry:
    held, space = indexes.held(seen, index), recipe.space
    return api.RouteEntry(
        index=index.name,
        version=index.version,
        weight=weight,
        snapshot=0 if held is None else held.snapshot,
        recipe=index.recipe,
        space=space.key,
        provider=space.provider,
        model=space.model,
        revision=space.revision,
        dimensions=space.dimensions,
        metric=space.metric,
        query_prefix=space.query_prefix,
        document_prefix=space.document_prefix,
    )


def _live(seen: Deployment, facts: Facts, serving: Index) -> list[Index]:
    """Return the indexes that may be searched, in the order in which the weights are cut.

    A candidate comes first and the one that serves last: as the weight grows, a session moves at most once.
    """
    candidate = facts.get(facts.rollout.index) if facts.rollout is not None else None
    ends = [candidate, serving]
    between = [
        i for i in facts.indexes if i not in ends and i.role is not Role.RETIRING and indexes.may_answer(seen, i)
    ]
    return [index for index in (candidate, *between[-MOST_BETWEEN:], serving) if index is not None]


def _salt(facts: Facts) -> str:
    """Return what sessions are hashed with: another for each migration, so that not always the same ones go first.

    A drill has one of its own as well. By it gateways count anew what they ask beside, or the counts of an earlier
    drill, or of the burn-in, would pass for those of this one.
    """
    rollout, drill = facts.rollout, facts.drill
    if rollout is not None:
        return recipes.digest([rollout.index, rollout.begun_at.isoformat()])
    if drill is not None and drill.done_at is None:
        return recipes.digest([drill.index, drill.since.isoformat()])
    return ""


def _recipe(seen: Deployment, index: Index) -> Recipe | None:
    return next((recipe for recipe in seen.dataset.pins.values() if recipe.key == index.recipe), None)


def route(seen: Deployment, facts: Facts) -> dict[str, str] | None:
    """Return what the ConfigMap must say, or None where nothing serves."""
    serving = facts.serving
    recipe = None if serving is None else _recipe(seen, serving)
    if serving is None or recipe is None:
        return None
    # An index that moves is named by the snapshot that it moves from.
    record = seen.records.get(serving.name)
    known = str(record.cursor.snapshot) if record is not None and record.cursor is not None else None
    return {
        "collection": serving.name,
        "version": serving.version,
        "snapshot": known or (seen.published or {}).get("snapshot", "0"),
        "space": recipe.space.key,
        "recipe": serving.recipe,
        "provider": recipe.space.provider,
        "model": recipe.space.model,
        "revision": recipe.space.revision,
        "dimensions": str(recipe.space.dimensions),
        "metric": recipe.space.metric,
        "queryPrefix": recipe.space.query_prefix,
        "engine": seen.engine,
        # A database that the spec has named since is told once the index was found there.
        "address": serving.address or seen.address,
        "alias": seen.spec.publish.alias or "",
        "routeRevision": str(facts.route),
    }


def publish(seen: Deployment, facts: Facts) -> list[actions.Action]:
    """Return what makes the published route equal the facts; the alias moves first, as the ConfigMap vouches for it."""
    wanted = route(seen, facts)
    before = dict(seen.published or {})
    # Weights move without concern to those who read only what serves.
    if wanted is None or wanted | {"routeRevision": ""} == before | {"routeRevision": ""}:
        return []
    # A lost index keeps its route until another serves: there is nothing better to say.
    if facts.serving is not None and indexes.is_gone(seen, facts.serving):
        return []
    todo: list[actions.Action] = []
    alias, old = wanted["alias"], before.get("alias", "")
    if old and old != alias:
        todo.append(actions.WithdrawAlias(seen.key, old))
    if alias and (alias, wanted["collection"]) != (old, before.get("collection")):
        todo.append(actions.PublishAlias(seen.key, alias, wanted["collection"]))
    return [*todo, actions.PublishRoute(seen.key, seen.uid, wanted)]


def withdraw(seen: Deployment) -> list[actions.Action]:
    """Return what takes the route away; the alias first, so that the ConfigMap still knows it after a crash."""
    alias = (seen.published or {}).get("alias", "")
    reachable = seen.problem is None
    todo: list[actions.Action] = [actions.WithdrawAlias(seen.key, alias)] if alias and reachable else []
    return [*todo, actions.WithdrawRoute(seen.key)]
