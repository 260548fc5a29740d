"""What direct clients are told: one ConfigMap that names the collection together with the model that embeds for it."""

from __future__ import annotations

from pointsman.plan import actions, indexes
from pointsman.plan.facts import Facts
from pointsman.plan.observed import Deployment


def route(seen: Deployment, facts: Facts) -> dict[str, str] | None:
    """Return what the ConfigMap must say, or None where nothing serves."""
    serving = facts.serving
    recipe = next((r for r in seen.dataset.pins.values() if serving and r.key == serving.recipe), None)
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
    if wanted is None or wanted == before:
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
