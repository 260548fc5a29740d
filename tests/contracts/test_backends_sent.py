"""Searches that are sent by a thread that does not wait: what is found, and what becomes of their connections."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from tests.contracts import backends_points as some
from tests.contracts.backends_engines import LOCAL, pgvector_spec
from tests.contracts.test_backends import spec_named
from tests.servers import postgres as postgres_server
from tests.servers.postgres import Server

from pointsman import errors, ports
from pointsman.api.conditions import Reason
from pointsman.backends import registry
from pointsman.backends.pgvector import Pgvector
from pointsman.core import filters

pytestmark = pytest.mark.server

VECTORS = some.directions(300, 8)
INDEX = "pm_sent"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgres_server.start_postgres(Path(tmp_path_factory.mktemp("postgres"))) as found:
        yield found


@pytest.fixture
def backend(server: Server) -> Iterator[Pgvector]:
    credentials = {"username": server.username, "password": server.password}
    found = registry.open_backend(pgvector_spec(server), credentials, LOCAL)
    assert isinstance(found, Pgvector) and isinstance(found, ports.Sends)
    found.create(spec_named(INDEX))
    metadata = [{"number": number, "large": 2**70} for number in range(300)]
    found.load(INDEX, [some.batch(VECTORS, metadata=metadata, texts=[f"text ü {number}" for number in range(300)])])
    found.seal(INDEX)
    # The connection that this leaves idle looks at as many candidates as the searches that are sent.
    found.search(INDEX, VECTORS[0], 5, None)
    yield found
    found.drop(INDEX)
    found.close()


def answered(sent: ports.Sent | None) -> list[ports.Hit]:
    assert sent is not None
    while (found := sent.answer()) is None:
        assert select.select([sent.fileno()], [], [], 20)[0]
    return found


def connections(server: Server) -> int:
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pointsman'"
    with psycopg.connect(
        host=server.host, port=server.port, dbname=server.database, user=server.username, password=server.password
    ) as other:
        found = other.execute(ours).fetchone()
        assert found is not None
        return int(found[0])


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(None, id="all"),
        pytest.param(filters.parse({"type": "gte", "key": "number", "value": 100}), id="those that pass a filter"),
    ],
)
def test_what_is_sent_finds_what_a_search_finds(backend: Pgvector, where: filters.Filter | None) -> None:
    for vector in VECTORS[:20]:
        found = answered(backend.send_search(INDEX, vector, 5, where))

        assert found == backend.search(INDEX, vector, 5, where)
        assert len(found) == 5
        assert found[0].metadata["large"] == 2**70


def test_one_connection_answers_one_after_the_other(backend: Pgvector, server: Server) -> None:
    before = connections(server)

    for vector in VECTORS[:20]:
        answered(backend.send_search(INDEX, vector, 5, None))

    assert connections(server) == before


def test_without_a_connection_that_is_idle_nothing_is_sent(backend: Pgvector) -> None:
    under_way = backend.send_search(INDEX, VECTORS[0], 5, None)

    second = backend.send_search(INDEX, VECTORS[1], 5, None)

    assert under_way is not None and second is None
    assert len(answered(under_way)) == 5
    assert len(answered(backend.send_search(INDEX, VECTORS[1], 5, None))) == 5


def test_a_connection_that_looks_at_other_candidates_is_not_told_anew_here(backend: Pgvector) -> None:
    assert backend.send_search(INDEX, VECTORS[0], 200, None) is None


def test_a_filter_longer_than_a_connection_takes_at_once_is_not_sent(backend: Pgvector) -> None:
    where = filters.parse({"type": "in", "key": "number", "value": [f"{number:0200}" for number in range(50)]})

    assert backend.send_search(INDEX, VECTORS[0], 5, where) is None


def test_a_table_that_is_gone_is_told_in_our_words_and_the_connection_goes_on(backend: Pgvector) -> None:
    sent = backend.send_search("pm_never", VECTORS[0], 5, None)

    with pytest.raises(errors.Retryable) as raised:
        answered(sent)

    assert raised.value.reason is Reason.INDEX_LOST
    assert len(answered(backend.send_search(INDEX, VECTORS[0], 5, None))) == 5


def test_what_is_given_up_takes_its_connection_with_it(backend: Pgvector) -> None:
    sent = backend.send_search(INDEX, VECTORS[0], 5, None)
    assert sent is not None

    sent.give_up()

    assert backend.send_search(INDEX, VECTORS[0], 5, None) is None
    assert len(backend.search(INDEX, VECTORS[0], 5, None)) == 5


def test_a_connection_that_the_server_ended_is_unreachable_once_and_then_made_anew(
    backend: Pgvector, server: Server
) -> None:
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pointsman'"
    with psycopg.connect(
        host=server.host, port=server.port, dbname=server.database, user=server.username, password=server.password
    ) as other:
        other.execute(ended)

    with pytest.raises(errors.Retryable) as raised:
        answered(backend.send_search(INDEX, VECTORS[0], 5, None))

    assert raised.value.reason is Reason.BACKEND_UNREACHABLE
    assert np.isclose(backend.search(INDEX, VECTORS[0], 5, None)[0].score, 1)
