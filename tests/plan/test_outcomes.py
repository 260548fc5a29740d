"""How a migration ended, as the facts before and after tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.plan import builders as b
from tests.plan import fleet

from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role
from pointsman.plan import outcomes
from pointsman.plan.facts import BurnIn, Facts, Rejection, Rollout
from pointsman.plan.outcomes import Ended, Outcome

ROAD = Rollout("v8", "plan", begun_at=b.NOW - b.HOUR, since=b.NOW, weight=10)
BEFORE = Facts((b.serving(), b.candidate()), made=2, route=3, rollout=ROAD)
REFUSED = Rejection("v8", b.V8.key, Reason.GATE_FAILED, "it is worse", b.NOW)


def promoted() -> Facts:
    return BEFORE.switched(b.candidate(), 12, b.NOW)


ENDS: dict[str, tuple[Facts, Facts, Outcome | None]] = {
    "it goes on": (BEFORE, replace(BEFORE, rollout=replace(ROAD, step=2, weight=50)), None),
    "there is none": (Facts((b.serving(),)), Facts((b.serving(),)), None),
    "one begins": (replace(BEFORE, rollout=None), BEFORE, None),
    "all queries go to it": (BEFORE, promoted(), Outcome.PROMOTED),
    "a gate fails it": (BEFORE, BEFORE.refused(REFUSED), Outcome.ROLLED_BACK),
    "a gate fails it in the shadow": (
        replace(BEFORE, rollout=replace(ROAD, weight=0)),
        replace(BEFORE, rollout=replace(ROAD, weight=0)).refused(REFUSED),
        Outcome.REJECTED,
    ),
    "the spec changes": (BEFORE, BEFORE.called_off(b.NOW), Outcome.CALLED_OFF),
    "another takes its place at once": (
        BEFORE,
        replace(BEFORE, rollout=replace(ROAD, index="v9", begun_at=b.NOW)),
        Outcome.CALLED_OFF,
    ),
    "it was refused once before": (
        replace(BEFORE, rejected=(REFUSED,)),
        replace(BEFORE, rejected=(REFUSED,)).called_off(b.NOW),
        Outcome.CALLED_OFF,
    ),
    "its index is gone": (BEFORE, BEFORE.without("v8").called_off(b.NOW), Outcome.CALLED_OFF),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_migration_ends_as_the_facts_tell(name: str) -> None:
    before, after, outcome = ENDS[name]

    found = outcomes.ended(b.deployment(facts=before, spec=b.spec("v8")), after, b.NOW)

    assert found == (None if outcome is None else Ended(outcome, b.HOUR))


def test_an_abort_is_told_apart_from_an_edit() -> None:
    seen = b.deployment(facts=BEFORE, spec=b.spec("v8"), approvals=(fleet.approval("Abort"),))

    assert outcomes.ended(seen, BEFORE.called_off(b.NOW), b.NOW) == Ended(Outcome.ABORTED, b.HOUR)


def test_a_burn_in_that_fails_is_counted_from_the_promotion() -> None:
    burning = replace(promoted(), burn_in=BurnIn("v8", since=b.NOW - timedelta(minutes=5)))
    back = burning.switched(b.serving(), 12, b.NOW).refused(REFUSED)
    seen = b.deployment(facts=burning, spec=b.spec("v8"))

    assert outcomes.ended(seen, back, b.NOW) == Ended(Outcome.FAILED_IN_BURN_IN, timedelta(minutes=5))
    passed = replace(burning, burn_in=None)
    assert outcomes.ended(seen, passed, b.NOW) is None
    edited = burning.switched(b.index("v7", Role.RETAINED), 12, b.NOW)
    assert outcomes.ended(seen, edited, b.NOW) is None
