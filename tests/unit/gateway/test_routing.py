"""Which index answers: the weights are kept, a session moves once, and the shadow's sample has a salt of its own."""

from __future__ import annotations

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.api.routes import RouteEntry, RouteStatus, ShadowStatus
from pointsman.core.recipes import Space
from pointsman.errors import Terminal
from pointsman.gateway import routing

SESSIONS = [f"session-{n}" for n in range(10_000)]


def entry(index: str, weight: int, dimensions: int = 64, **more: object) -> RouteEntry:
    space = Space("wordllama", "l2_supercat", "r1", dimensions)
    fields = {"version": index, "space": space.key, "provider": "wordllama", "model": space.model, "revision": "r1"}
    return RouteEntry.model_validate(
        {"index": index, "weight": weight, "dimensions": dimensions, "snapshot": 12, **fields, **more}
    )


def route(*entries: RouteEntry, salt: str = "s", shadow: ShadowStatus | None = None) -> routing.Route:
    return routing.read(RouteStatus(epoch=1, revision=1, salt=salt, entries=list(entries), shadow=shadow))


@given(st.text(max_size=8), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_each_index_gets_its_weight_within_sampling_error(salt: str, shares: list[int]) -> None:
    total = sum(shares)
    weights = [100 * share // total for share in shares]
    weights[0] += 100 - sum(weights)
    found = route(*(entry(f"i{n}", weight) for n, weight in enumerate(weights)), salt=salt)

    chosen = [found.choose(session).index for session in SESSIONS]

    for n, weight in enumerate(weights):
        # Six standard deviations: once in a thousand million such counts.
        slack = 6 * math.sqrt(len(SESSIONS) * weight / 100 * (1 - weight / 100))
        assert abs(chosen.count(f"i{n}") - len(SESSIONS) * weight / 100) <= slack


@given(st.lists(st.integers(0, 100), min_size=2, max_size=6).map(sorted), st.text(max_size=8))
def test_a_session_moves_at_most_once_while_the_candidates_weight_grows(weights: list[int], salt: str) -> None:
    routes = [route(entry("new", weight), entry("old", 100 - weight), salt=salt) for weight in weights]

    for session in SESSIONS[:200]:
        chosen = [each.choose(session).index for each in routes]
        assert chosen == sorted(chosen, reverse=True)


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_position_is_below_one_and_is_the_published_hash(salt: str, text: str) -> None:
    found = routing.position(salt, text)

    digest = hashlib.blake2b(salt.encode() + b"\0" + text.encode(), digest_size=8).digest()
    assert 0 <= found < 1
    assert found == (int.from_bytes(digest, "big") >> 11) / 2**53


def test_an_index_without_weight_is_never_chosen() -> None:
    found = route(entry("new", 0), entry("old", 100))

    assert {found.choose(session).index for session in SESSIONS} == {"old"}


def test_the_shadows_sample_has_nothing_to_do_with_the_weights() -> None:
    shadow = ShadowStatus(index="shadow", percent=20)
    found = route(entry("new", 50), entry("shadow", 0), entry("old", 50), shadow=shadow)

    sampled = [session for session in SESSIONS if found.shadowed(session) is not None]
    by_new = sum(found.choose(session).index == "new" for session in sampled)

    assert abs(len(sampled) - 2_000) <= 6 * math.sqrt(10_000 * 0.2 * 0.8)
    assert abs(by_new - len(sampled) / 2) <= 6 * math.sqrt(len(sampled) / 4)


def test_a_shadow_of_all_takes_all_and_none_takes_none() -> None:
    everything = route(entry("new", 0), entry("old", 100), shadow=ShadowStatus(index="new", percent=100))
    nothing = route(entry("new", 0), entry("old", 100))

    assert all(everything.shadowed(session) is not None for session in SESSIONS)
    assert not any(nothing.shadowed(session) for session in SESSIONS)


def test_a_space_is_answered_by_the_index_of_most_weight_and_of_two_equal_ones_by_the_older() -> None:
    found = route(entry("a", 0), entry("b", 50), entry("c", 50), entry("d", 0, dimensions=128))
    small, large = (Space("wordllama", "l2_supercat", "r1", n).key for n in (64, 128))

    assert found.of_space(small) == found.entry("c")
    assert found.of_space(large) == found.entry("d")
    assert found.of_space("elsewhere") is None
    assert found.serving() == found.entry("c")


@pytest.mark.parametrize(
    ("entries", "shadow", "message"),
    [
        pytest.param([entry("a", 90)], None, "its weights sum to 90, wanted 100 and none below 0", id="a sum"),
        pytest.param([], None, "its weights sum to 0, wanted 100 and none below 0", id="nothing"),
        pytest.param(
            [entry("a", 110), entry("b", -10)],
            None,
            "its weights sum to 100, wanted 100 and none below 0",
            id="below 0",
        ),
        pytest.param([entry("a", 100)], "b", "its shadow b is not among its entries", id="a shadow elsewhere"),
        pytest.param(
            [entry("a", 100, provider="other")],
            None,
            "a is of provider 'other' and metric 'cosine', unknown here",
            id="a provider of a later release",
        ),
        pytest.param(
            [entry("a", 100, space="feed")],
            None,
            "a is of space feed, its model makes vectors of " + Space("wordllama", "l2_supercat", "r1", 64).key,
            id="a model of another space",
        ),
    ],
)
def test_a_route_that_nobody_can_serve_by_is_refused(
    entries: list[RouteEntry], shadow: str | None, message: str
) -> None:
    status = RouteStatus(entries=entries, shadow=None if shadow is None else ShadowStatus(index=shadow, percent=1))

    with pytest.raises(Terminal) as error:
        routing.read(status)

    assert error.value.message == f"the route cannot be served: {message}"
