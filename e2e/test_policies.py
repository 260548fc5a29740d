"""What the chart's NetworkPolicies let through, where something holds to them."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from e2e import reach
from e2e.reach import Reach
from e2e.stage import Stage

WITHIN_SECONDS = 60.0
"""Policies hold a moment after they are there."""


@pytest.fixture
def reaching(live: Stage) -> Iterator[Reach]:
    """Everybody who connects, and everything that may be reached."""
    if live.node is not None and live.node.unenforced:
        pytest.skip(f"NetworkPolicies are not enforced here: {live.node.unenforced}")
    try:
        reach.provide(live)
        yield Reach.of(live)
    finally:
        reach.clear(live)


def test_policies_let_each_role_reach_what_it_needs_and_nothing_else(live: Stage, reaching: Reach) -> None:
    wanted, everything = reaching.wanted(), reaching.everything()
    if live.node is None and reaching.seen() == everything:
        pytest.skip("NetworkPolicies are not enforced here: this cluster has no plug-in that does")
    told = functools.partial(reaching.difference, wanted)

    live.wait(lambda: reaching.seen() == wanted, "each to reach what it needs and no more", WITHIN_SECONDS, told)

    # What was not reached is there: it is the policies that are in between.
    live.install("--set", "networkPolicy.enabled=false")
    told = functools.partial(reaching.difference, everything)
    live.wait(lambda: reaching.seen() == everything, "everything to be reached", WITHIN_SECONDS, told)
    live.install()
    told = functools.partial(reaching.difference, wanted)
    live.wait(lambda: reaching.seen() == wanted, "policies to hold again", WITHIN_SECONDS, told)
