"""Practising a rollback: what a drill is told is its own, whatever gateways were asked to count before."""

from __future__ import annotations

from datetime import timedelta

from tests.plan.fleet import FakeGateway
from tests.plan.model import Model

MINUTE = timedelta(minutes=1)


def test_gateways_count_anew_for_each_drill_as_they_do_where_the_salt_is_another() -> None:
    model = Model(gateways=[FakeGateway("g1")], spec={"version": "v7", "burnIn": {"for": "0s"}})
    model.settle()
    model.edit(version="v8")
    model.settle()
    at_rest = salt(model)

    salts = []
    for token in ("d1", "d2"):
        model.drill_token = token
        model.settle()
        assert model.status.drill is not None and model.status.drill.done_at is None
        salts.append(salt(model))
        model.wait(2 * MINUTE)
        model.settle()
        assert model.status.drill.done_at is not None
        assert salt(model) == at_rest

    assert len({at_rest, *salts}) == 3


def salt(model: Model) -> str:
    """Return what gateways are told to hash sessions with, and to count by."""
    assert model.status.route is not None
    return model.status.route.salt
