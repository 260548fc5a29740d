"""What a status shows of the evidence: in figures that stand still while they say the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.plan import builders as b
from tests.plan import fleet

from pointsman.api.evidence import ShadowStatus
from pointsman.plan import evidence, measured
from pointsman.plan.facts import BurnIn, Drill, Facts, Rollout, Shadow
from pointsman.plan.observed import Deployment
from pointsman.plan.reported import Gateway, Shadowed

ROAD = Rollout("v8", "plan", begun_at=b.NOW, since=b.NOW, step=1)
SHOWN = ShadowStatus(
    index="v8", version="v8", against="v7", since=b.NOW, percent=50, queries=1_200, overlap="0.60", correlation="0.55"
)


def facts(shadow: Shadow | None = None, rollout: Rollout | None = ROAD) -> Facts:
    return Facts(indexes=(b.serving(), b.candidate()), made=2, route=4, epoch=1, rollout=rollout, shadow=shadow)


CAST = facts(Shadow("v8", 50))


def told(*shadowed: Shadowed, revision: int = 4) -> tuple[Gateway, ...]:
    return tuple(
        Gateway(f"g{number}", True, epoch=1, revision=revision, shadowed=each)
        for number, each in enumerate(shadowed, start=1)
    )


def seen(known: Facts, *gateways: Gateway, before: ShadowStatus | None = None) -> Deployment:
    found = b.deployment(facts=known, gateways=gateways)
    return replace(found, status=found.status.model_copy(update={"shadow": before}))


def shown(known: Facts, *gateways: Gateway, before: ShadowStatus | None = None) -> ShadowStatus | None:
    """Return what is shown where the plan changes nothing."""
    return evidence.shadow(seen(known, *gateways, before=before), known)


def test_what_gateways_compared_is_shown_by_how_much_each_has_seen() -> None:
    gateways = told(Shadowed("v8", 1_000, 0, 1_000, 0.7, 0.6), Shadowed("v8", 240, 0, 234, 0.2, 0.4))

    found = shown(CAST, *gateways)

    # (0.7 * 1000 + 0.2 * 234) / 1234 and (0.6 * 1000 + 0.4 * 234) / 1234
    assert found == SHOWN.model_copy(update={"overlap": "0.61", "correlation": "0.56"})


def test_one_more_query_moves_nothing() -> None:
    one, more = (told(Shadowed("v8", count, 0, count, 0.601, 0.55)) for count in (1_234, 1_235))
    assert shown(CAST, *one) == shown(CAST, *more) == SHOWN


def test_an_index_that_nobody_has_asked_yet_has_no_figures() -> None:
    gateways = told(Shadowed("v8", 0, 0, 0), Shadowed("v9", 10, 0, 10, 0.1, 0.1))

    found = shown(CAST, *gateways)

    assert found is not None
    assert (found.queries, found.overlap, found.correlation) == (0, "", "")


def test_what_a_shadow_has_shown_stays_until_its_migration_is_over() -> None:
    over = SHOWN.model_copy(update={"percent": 0})

    assert shown(facts(), before=SHOWN) == shown(facts(), before=over) == over
    assert shown(facts(rollout=None), before=SHOWN) is None
    # The same index on its next try has shown nothing yet.
    assert shown(facts(rollout=replace(ROAD, begun_at=b.NOW + timedelta(hours=1))), before=SHOWN) is None
    assert shown(facts()) is None


def test_the_plan_that_ends_a_shadow_shows_all_that_it_has_brought() -> None:
    gateways = told(Shadowed("v8", 1_234, 0, 1_234, 0.601, 0.55))
    later = replace(facts(), route=5)
    few = SHOWN.model_copy(update={"queries": 3, "overlap": "1.00"})

    found = evidence.shadow(seen(CAST, *gateways, before=few), later)

    assert found == SHOWN.model_copy(update={"percent": 0})


def test_the_plan_that_begins_a_migration_takes_no_figures_of_what_was_asked_before() -> None:
    gateways = told(Shadowed("v8", 1_234, 0, 1_234, 0.601, 0.55))
    drilled = replace(facts(Shadow("v8", 5), None), drill=Drill("d1", "v8", b.NOW - timedelta(hours=1)))

    found = evidence.shadow(seen(drilled, *gateways), CAST)

    assert found is not None and (found.queries, found.overlap) == (0, "")


def test_a_gateway_of_an_older_route_tells_of_an_earlier_try() -> None:
    gateways = told(Shadowed("v8", 90, 0, 90, 0.1, 0.1), revision=3)

    assert shown(CAST, *gateways, before=SHOWN) == SHOWN


def test_evaluations_show_the_indexes_own_recall_and_how_much_of_pooled_answers_is_judged() -> None:
    shares = {"recall": 0.9931, "other_recall": 0.98, "judged": 0.8, "other_judged": 0.95}
    before = fleet.evaluation(**shares)
    found = measured.with_history(fleet.evaluation(pooled=True, **shares), before)

    complete, pooled = evidence.evaluations(found)

    assert (complete.recall, complete.against_recall) == (pooled.recall, pooled.against_recall) == ("0.993", "0.980")
    assert (complete.judged, complete.against_judged) == ("", "")
    assert (pooled.judged, pooled.against_judged) == ("0.800", "0.950")
    assert (pooled.value, pooled.difference) == ("0.5000", f"{fleet.PASSES[0]:+.4f}")
    assert evidence.evaluations(None) == []


def test_the_control_of_a_burn_in_and_a_drill_are_shown_while_they_are_asked() -> None:
    gateways = told(Shadowed("v7", 10, 0, 10, 1.0, None))
    rest = Facts(indexes=(b.retained(), b.serving("v8", b.V8)), made=2, route=4, epoch=1, shadow=Shadow("v7", 1))
    burning, drilled = BurnIn("v8", since=b.NOW), Drill("d1", "v7", b.NOW)

    for found in (replace(rest, burn_in=burning), replace(rest, drill=drilled)):
        assert shown(found, *gateways) == ShadowStatus(
            index="v7", version="v7", against="v8", since=b.NOW, percent=1, queries=10, overlap="1.00"
        )
        assert shown(replace(found, shadow=None), *gateways) is None
