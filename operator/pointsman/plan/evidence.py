"""What speaks for and against a version, said in figures: what judged queries, shadow queries and people brought."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pointsman.api import evidence as api
from pointsman.plan import drill as drills
from pointsman.plan import measured, words
from pointsman.plan.facts import Facts, Rejection
from pointsman.plan.measured import Canaries, Evaluation
from pointsman.plan.observed import Deployment
from pointsman.plan.reported import Shadowed


def rejected(rejection: Rejection) -> api.RejectedStatus:
    """Return why a version was refused."""
    return api.RejectedStatus(
        version=rejection.version,
        recipe=rejection.recipe,
        reason=rejection.reason,
        message=rejection.message,
        at=rejection.at,
        retry=rejection.retry,
    )


def evaluations(found: Evaluation | None) -> list[api.EvaluationStatus]:
    """Return the last measurements, the newest last."""
    looks = () if found is None else (*found.history, measured.in_short(found))
    return [
        api.EvaluationStatus(
            at=look.measured_at,
            version=look.version,
            value=f"{look.value:.4f}",
            against=look.against,
            difference="" if look.difference is None else f"{look.difference:+.4f}",
            interval="" if look.low is None or look.high is None else f"{look.low:+.4f} to {look.high:+.4f}",
            judged=_share(look.judged),
            against_judged=_share(look.other_judged),
            recall=_share(look.recall),
            against_recall=_share(look.other_recall),
        )
        for look in looks[-10:]
    ]


def canaries(found: Canaries | None) -> list[api.CanariesStatus]:
    """Return what the canaries found the last times, the newest last."""
    looks = () if found is None else (*found.history, measured.canaries_in_short(found))
    return [
        api.CanariesStatus(
            at=look.measured_at,
            version=look.version,
            found=_share(look.value),
            against=look.against,
            overlap=_share(look.overlap),
            kept=_share(look.kept),
        )
        for look in looks[-10:]
    ]


def drill(seen: Deployment, facts: Facts) -> api.DrillStatus | None:
    """Return what came of the last practice of going back; None where there never was one."""
    found = facts.drill
    if found is None:
        return None
    index = facts.get(found.index)
    return api.DrillStatus(
        token=found.token,
        version="" if index is None else index.version,
        at=found.since,
        done_at=found.done_at,
        queries=found.queries,
        failed=found.failed,
        overlap="" if found.overlap is None else f"{found.overlap:.2f}",
        message=drills.why_not(seen, facts),
    )


def shadow(seen: Deployment, facts: Facts) -> api.ShadowStatus | None:
    """Return how the answers of an index that is asked beside compare.

    What a migration has shown stays until that is over: gateways tell of no index that is asked no more.
    """
    cast, road, since, known = facts.shadow, facts.rollout, _since(facts), seen.status.shadow
    # What gateways tell is of the route that is on record, which this plan may be about to end.
    told = seen.facts.shadow if since == _since(seen.facts) else None
    name = cast.index if cast is not None else road.index if road is not None else ""
    index = facts.get(name)
    if index is None or since is None:
        return None
    percent = 0 if cast is None else cast.percent
    found = _compared(seen, name) if told is not None and told.index == name else []
    if not found and known is not None and (known.since, known.index) == (since, name):
        return known.model_copy(update={"percent": percent})
    if not found and cast is None:
        return None
    return api.ShadowStatus(
        index=name,
        version=index.version,
        against="" if facts.serving is None else facts.serving.version,
        since=since,
        percent=percent,
        queries=words.two_digits(sum(each.compared for each in found)),
        overlap=_mean([(each.overlap, each.compared) for each in found]),
        correlation=_mean([(each.correlation, each.compared) for each in found]),
    )


def _compared(seen: Deployment, index: str) -> list[Shadowed]:
    """Return what gateways have compared of an index, each that serves the route on record."""
    route = (seen.facts.epoch, seen.facts.route)
    told = [gateway.shadowed for gateway in seen.gateways if (gateway.epoch, gateway.revision) == route]
    return [each for each in told if each is not None and each.index == index and each.compared]


def _since(facts: Facts) -> datetime | None:
    """Return when that began for which an index is asked beside."""
    if facts.rollout is not None:
        return facts.rollout.begun_at
    if facts.drill is not None and facts.drill.done_at is None:
        return facts.drill.since
    return None if facts.burn_in is None else facts.burn_in.since


def _share(found: float | None) -> str:
    return "" if found is None else f"{found:.3f}"


def _mean(found: Sequence[tuple[float | None, int]]) -> str:
    """Return the mean of what several gateways have seen, by how much each has."""
    known = [(value, count) for value, count in found if value is not None]
    return f"{sum(value * count for value, count in known) / sum(count for _, count in known):.2f}" if known else ""
