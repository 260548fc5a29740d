"""How the connections of deployments are kept, and databases that do not answer left alone."""

from __future__ import annotations

import pytest

from pointsman.access import Access
from pointsman.api import engines
from pointsman.api.conditions import Reason
from pointsman.backends.memory import Memory
from pointsman.controller.world import Databases
from pointsman.errors import Retryable
from pointsman.plan.tasks import Key

OWNER, OTHER = Key("IndexDeployment", "team", "papers"), Key("IndexDeployment", "team", "books")
SPEC = engines.Backend(milvus=engines.MilvusBackend(uri="http://db.example.com:19530"))
ELSEWHERE = engines.Backend(milvus=engines.MilvusBackend(uri="http://other.example.com:19530"))


class Away(Memory):
    """A database that does not answer until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away, self.asked, self.is_closed = True, 0, False

    def probe(self) -> None:
        self.asked += 1
        if self.is_away:
            raise Retryable(Reason.BACKEND_UNREACHABLE, "no answer")

    def close(self) -> None:
        self.is_closed = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_database_that_does_not_answer_is_asked_ever_less_often_until_it_does() -> None:
    clock, asked = Clock(), []
    databases = Databases(lambda *_: Away(), Access(), clock)
    database = databases.get(OWNER, SPEC, {})
    assert isinstance(database, Away)
    for second in range(400):
        clock.now = float(second)
        before = database.asked
        with pytest.raises(Retryable, match="no answer"):
            databases.probe(OWNER, database)
        if database.asked > before:
            asked.append(second)
    assert asked == [0, 5, 15, 35, 75, 155, 275, 395]

    database.is_away = False
    clock.now = 600.0
    databases.probe(OWNER, database)
    database.is_away = True
    with pytest.raises(Retryable):
        databases.probe(OWNER, database)
    clock.now = 606.0
    database.is_away = False
    databases.probe(OWNER, database)


def test_another_address_is_asked_at_once() -> None:
    databases = Databases(lambda *_: Away(), Access(), Clock())
    for spec in (SPEC, ELSEWHERE):
        database = databases.get(OWNER, spec, {})
        with pytest.raises(Retryable):
            databases.probe(OWNER, database)
        assert isinstance(database, Away)
        assert database.asked == 1


def test_a_connection_is_kept_until_the_address_or_the_credentials_change_or_its_owner_goes() -> None:
    databases = Databases(lambda *_: Away(), Access(), Clock())
    first = databases.get(OWNER, SPEC, {"token": "one"})
    assert databases.get(OWNER, SPEC, {"token": "one"}) is first
    second = databases.get(OWNER, SPEC, {"token": "two"})
    assert second is not first
    databases.forget(OWNER)
    assert databases.opened(OWNER) is None
    assert isinstance(first, Away)
    assert isinstance(second, Away)
    assert first.is_closed
    assert second.is_closed


def test_an_index_that_is_whole_is_counted_again_after_a_while_and_one_that_is_not_at_once() -> None:
    class Counted(Memory):
        rows, asked = 50, 0

        def count(self, name: str) -> int:
            self.asked += 1
            return self.rows

    clock, database = Clock(), Counted()
    databases = Databases(lambda *_: database, Access(), clock)

    def counted(second: float, expected: int, owner: Key = OWNER) -> tuple[int, int]:
        clock.now = second
        return databases.count(owner, database, "pm_x", expected), database.asked

    assert counted(0, 50) == (50, 1)
    assert counted(9, 50) == (50, 1)
    assert counted(9, 50, OTHER) == (50, 2)
    assert counted(9, 51) == (50, 3)
    assert counted(9, 51) == (50, 4)
    database.rows = 40
    assert counted(18, 50) == (50, 4)
    assert counted(20, 50) == (40, 5)
    assert counted(20, 50) == (40, 6)
    databases.forget(OWNER)
    assert counted(20, 40) == (40, 7)


def test_deployments_of_one_address_and_the_same_credentials_share_a_connection_until_the_last_goes() -> None:
    databases = Databases(lambda *_: Away(), Access(), Clock())
    first = databases.get(OWNER, SPEC, {"token": "one"})
    assert databases.get(OTHER, SPEC, {"token": "one"}) is first
    assert databases.get(Key("IndexDeployment", "team", "third"), SPEC, {"token": "two"}) is not first
    assert isinstance(first, Away)

    second = databases.get(OWNER, SPEC, {"token": "two"})
    assert (first.is_closed, databases.opened(OTHER), databases.opened(OWNER)) == (False, first, second)
    databases.forget(OTHER)
    assert first.is_closed
    assert databases.get(OTHER, SPEC, {"token": "one"}) is not first


def test_whoever_shares_a_database_that_does_not_answer_leaves_it_alone_too() -> None:
    databases = Databases(lambda *_: Away(), Access(), Clock())
    for owner in (OWNER, OTHER):
        database = databases.get(owner, SPEC, {})
        with pytest.raises(Retryable, match="no answer"):
            databases.probe(owner, database)
    assert isinstance(database, Away)
    assert database.asked == 1
