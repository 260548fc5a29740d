"""What gateways serve, as they report it: set is not accepted, and accepted is not measured."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman.plan.facts import Facts
from pointsman.plan.observed import Deployment
from pointsman.plan.reported import Gateway


def is_accepted(seen: Deployment, facts: Facts, is_to_go_on: bool = False) -> bool:
    """Return whether all gateways that are ready serve the route as the facts have it, by their own counts too.

    Where no gateway is known, nobody has to: direct clients read the ConfigMap. `is_to_go_on` is as of `why_not`.
    """
    return not why_not(seen, facts, is_to_go_on)


def why_not(seen: Deployment, facts: Facts, is_to_go_on: bool = False) -> str:
    """Return what keeps the route from being accepted, as a clause; empty where nothing does.

    Where it is asked to go on with a migration, it is nothing that what serves does not answer: who says so serves the
    route all the same, and what serves must not keep its own fix away.
    """
    but = facts.serving.name if is_to_go_on and facts.serving is not None else ""
    if not seen.gateways:
        return ""
    ready = [gateway for gateway in seen.gateways if gateway.is_ready]
    if not ready:
        silent = next((gateway.problem for gateway in seen.gateways if gateway.problem), "none is ready")
        return f"no gateway serves: {silent}"
    return next((why for gateway in ready if (why := _why_not(gateway, facts, but))), "")


def is_let_go(seen: Deployment, facts: Facts, index: str) -> bool:
    """Return whether no gateway that there is, ready or not, asks an index, by this route or still by an older one."""
    return not any(_why_not(gateway, facts) or index in gateway.held for gateway in seen.gateways)


def why_held(seen: Deployment, facts: Facts) -> str:
    """Return which gateway may be at an older route, as a clause; empty where none is."""
    return next((why for gateway in seen.gateways if (why := _why_not(gateway, facts))), "")


def measured(seen: Deployment, facts: Facts) -> Mapping[str, int]:
    """Return the share of the queries that each index answered under the route, in percent; empty where none came."""
    totals: dict[str, int] = {}
    for gateway in seen.gateways:
        if (gateway.epoch, gateway.revision) == (facts.epoch, facts.route):
            for index, answered in gateway.answered.items():
                totals[index] = totals.get(index, 0) + answered
    everything = sum(totals.values())
    return {index: round(100 * count / everything) for index, count in totals.items()} if everything else {}


def _why_not(gateway: Gateway, facts: Facts, but: str = "") -> str:
    if gateway.problem and gateway.problem != gateway.problems.get(but):
        return f"gateway {gateway.name}: {gateway.problem}"
    if gateway.revision and gateway.epoch != facts.epoch:
        # Of another operator's route the number alone says nothing.
        wanted = f"{facts.route} of epoch {facts.epoch}"
        return f"gateway {gateway.name} serves route {gateway.revision} of epoch {gateway.epoch}, wanted {wanted}"
    if (gateway.epoch, gateway.revision) != (facts.epoch, facts.route):
        return f"gateway {gateway.name} serves route {gateway.revision}, wanted {facts.route}"
    astray = [index for index, count in gateway.answered.items() if count and index not in facts.weights]
    return f"gateway {gateway.name} sends queries to {astray[0]}, which has no weight" if astray else ""


def answered(seen: Deployment, index: str) -> int:
    """Return how many queries an index has answered, by whichever processes of gateways there were."""
    return seen.streams.answered.get(index, 0)
