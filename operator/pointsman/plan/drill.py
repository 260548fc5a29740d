"""Could we go back now? A sliver of the real queries also goes to the retained index, and what came of it is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from pointsman.plan import rollout
from pointsman.plan.facts import Drill, Facts, Shadow
from pointsman.plan.observed import Deployment
from pointsman.plan.reported import Gateway

PERCENT = 5
"""The share of the queries that goes to the retained index."""
ENOUGH = 100
"""Queries after which a drill is over."""
LONGEST = timedelta(minutes=2)
"""After which it is over whatever came."""


def practised(seen: Deployment, facts: Facts, now: datetime) -> Facts:
    """Return the facts with a drill begun that was asked for, or over."""
    found, token = facts.drill, seen.drill_token
    if found is not None and found.done_at is None:
        return _over(seen, facts, found, now)
    if not token or (found is not None and found.token == token):
        return facts
    retained = rollout.before(facts)
    if retained is None or facts.rollout is not None or not seen.gateways:
        # Said at once, so that nobody waits for it.
        return replace(facts, drill=Drill(token, "" if retained is None else retained.name, now, done_at=now))
    before = facts.shadow
    begun = Drill(token, retained.name, now, before=0 if before is None else before.percent)
    return replace(facts, drill=begun, shadow=Shadow(retained.name, PERCENT), route=facts.route + 1)


def why_not(seen: Deployment, facts: Facts) -> str:
    """Return why the last drill asked nobody, as a clause; empty where it did."""
    found = facts.drill
    if found is None or found.queries:
        return ""
    if not found.index:
        return "there is no retained index to go back to"
    if not seen.gateways:
        return "the operator knows no gateway that could ask it"
    if facts.get(found.index) is None:
        return "the retained index is gone"
    return "no query came" if found.done_at is not None else "queries are awaited"


def _over(seen: Deployment, facts: Facts, found: Drill, now: datetime) -> Facts:
    told = [gateway for gateway in seen.gateways if _tells(gateway, facts, found)]
    shadows = [gateway.shadowed for gateway in told if gateway.shadowed is not None]
    compared = sum(shadow.compared for shadow in shadows)
    arms = [m.arm for g in told for m in g.minutes if m.index == found.index and m.at >= found.since.replace(second=0)]
    found = replace(
        found,
        queries=sum(shadow.sent for shadow in shadows),
        failed=sum(arm.errors for arm in arms),
        overlap=sum((s.overlap or 0.0) * s.compared for s in shadows) / compared if compared else None,
    )
    is_called_off = facts.shadow is None or facts.shadow.index != found.index
    if not is_called_off and compared < ENOUGH and now - found.since < LONGEST:
        return facts
    over = replace(facts, drill=replace(found, done_at=now))
    if is_called_off:
        return over
    # During a burn-in the retained index stays the control.
    shadow = Shadow(found.index, found.before) if found.before and facts.burn_in is not None else None
    return replace(over, shadow=shadow, route=facts.route + 1)


def _tells(gateway: Gateway, facts: Facts, found: Drill) -> bool:
    is_current = (gateway.epoch, gateway.revision) == (facts.epoch, facts.route)
    return is_current and gateway.shadowed is not None and gateway.shadowed.index == found.index
