"""What a store on a real S3 server holds when an upload is torn and the server is killed in the middle of a commit."""

from __future__ import annotations

import contextlib
import functools
import json
import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from tests.servers import door, versitygw
from tests.servers.door import Door
from tests.servers.versitygw import Server
from tests.unit.test_embed import AT, Hashing, recipe, rows_of
from tests.unit.waiting import wait_until

from pointsman.api.dataset import Surprises
from pointsman.errors import Retryable
from pointsman.sources.memory import MemorySource
from pointsman.store.dataset import DatasetStore
from pointsman.store.root import Store
from pointsman.work import progress
from pointsman.work.embed import embed
from pointsman.work.refresh import refresh

pytestmark = [pytest.mark.server, versitygw.NEEDED]

KEY = "a-key"
FIRST = [{"id": str(number), "text": f"one {number}"} for number in range(200)]
SECOND = [{"id": str(number), "text": f"{'one' if number % 3 else 'two'} {number}"} for number in range(40, 260)]


@dataclass(frozen=True)
class Room:
    """A server, and the door to it."""

    server: Server
    door: Door

    def dataset(self, name: str, is_direct: bool = False) -> DatasetStore:
        """Open a dataset through the door, or past it."""
        options = {
            "aws_endpoint": f"http://127.0.0.1:{self.server.port if is_direct else self.door.port}",
            "aws_region": "us-east-1",
            "aws_access_key_id": KEY,
            "aws_secret_access_key": f"secret of {KEY}",
            "allow_http": "true",
        }
        return Store("s3://vectors/prod", options).dataset("default", name)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    server = Server(tmp_path_factory.mktemp("s3"))
    with door.before("127.0.0.1", server.port) as before:
        yield Room(server, before)


def release(dataset: DatasetStore, rows: list[dict[str, str]]) -> None:
    """Read a source, and embed what changed."""
    done = refresh(
        dataset, MemorySource(rows), Surprises(deleted_share_above="1"), lambda: AT, progress.nowhere, [recipe()]
    )
    embed(dataset, "v7", recipe(), done.snapshot.number, Hashing(), lambda: AT, progress.nowhere)


def held(dataset: DatasetStore) -> str:
    """Return all that a reader finds in all snapshots; fails where one that is listed is not whole."""
    found = []
    for snapshot in dataset.snapshots():
        batches = dataset.corpus.read(snapshot.corpus_version)
        texts = sorted((row["id"], row["fields"]) for batch in batches for row in batch.to_pylist())
        assert len(texts) == snapshot.documents
        found.append([snapshot.number, snapshot.digest, texts])
    for record in dataset.embedded(recipe().key):
        rows = rows_of(dataset, record)
        assert len(rows) == record.rows
        found.append([record.snapshot, record.digest, rows])
    return json.dumps(found)


def is_cut(before: Door, under_way: Future[None]) -> bool:
    return before.left == 0 or under_way.done()


def test_a_torn_upload_and_a_server_that_dies_in_a_commit_leave_no_half_snapshot(room: Room) -> None:
    chance = random.Random("torn")
    with contextlib.ExitStack() as served:
        served.enter_context(room.server.running(KEY))
        release(room.dataset("whole"), FIRST)
        sooner = held(room.dataset("whole", is_direct=True))
        before = room.door.passed
        release(room.dataset("whole"), SECOND)
        sent = room.door.passed - before
        later = held(room.dataset("whole", is_direct=True))

        cut = 0
        for number in range(8):
            name = f"torn-{number}"
            release(room.dataset(name), FIRST)
            room.door.let_through(int(sent * chance.random()))
            with ThreadPoolExecutor(1) as worker:
                under_way = worker.submit(release, room.dataset(name), SECOND)
                wait_until(functools.partial(is_cut, room.door, under_way))
                cut += room.door.left == 0
                served.close()
                served.enter_context(room.server.running(KEY))

                # Whoever reads now finds all of the first, and of the second what is said to be there.
                seen = json.loads(held(room.dataset(name, is_direct=True)))
                assert seen[0] == json.loads(sooner)[0]
                assert all(part in json.loads(later) for part in seen)
                room.door.let_through(None)
                with contextlib.suppress(Retryable):
                    under_way.result()

            release(room.dataset(name), SECOND)
            assert held(room.dataset(name, is_direct=True)) == later
        assert cut > 4
