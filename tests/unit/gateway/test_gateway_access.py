"""Who is let in: by a file that may change, or by a cluster that may be away."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pointsman.api.conditions import Reason
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.resources import Caller
from pointsman.errors import Retryable, Terminal
from pointsman.gateway import access
from pointsman.gateway.access import Guard, Kubernetes, Tokens
from pointsman.gateway.faults import Fault


async def status(guard: Guard, authorization: str, namespace: str = "search") -> int:
    try:
        await guard.check(authorization, namespace, "papers")
    except Fault as fault:
        return fault.status
    return 200


def asked(guard: Guard, authorization: str, namespace: str = "search") -> int:
    return asyncio.run(status(guard, authorization, namespace))


def test_a_token_lets_in_everywhere_or_where_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    hashed = hashlib.sha256(b"hidden").hexdigest()
    path.write_text(f"\n# comment\nwide\nnarrow search,other\nsha256:{hashed} search\n")
    guard = Tokens(path)

    assert asked(guard, "Bearer wide", "anywhere") == 200
    assert [asked(guard, "Bearer narrow", namespace) for namespace in ("search", "other", "third")] == [200, 200, 403]
    assert [asked(guard, "bearer hidden"), asked(guard, f"Bearer sha256:{hashed}")] == [200, 401]
    assert [asked(guard, header) for header in ("", "Bearer ", "Bearer wid", "Basic wide", "wide")] == [401] * 5


def test_a_file_that_changed_is_read_and_one_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("old\n")
    guard = Tokens(path)

    path.write_text("newer\n")
    guard.look_again()
    newer = [asked(guard, "Bearer old"), asked(guard, "Bearer newer")]
    path.unlink()
    guard.look_again()
    gone = asked(guard, "Bearer newer")
    path.write_text("a b c d\n")
    guard.look_again()

    assert newer == [401, 200]
    assert (gone, asked(guard, "Bearer newer")) == (200, 200)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "tokens holds no token; wanted one a line", id="empty"),
        pytest.param(
            "good\ns3cret to many words\n",
            "line 2 of tokens has 4 words, wanted a token and namespaces a,b",
            id="words",
        ),
        pytest.param(
            "s3cret ,\n",
            "line 1 of tokens names no namespace between its commas, wanted a,b, or none at all",
            id="commas alone",
        ),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_without_quoting_it(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokens").write_text(content)

    with pytest.raises(Terminal) as error:
        Tokens(tmp_path / "tokens")

    assert error.value.message == message


class Away(MemoryCluster):
    """A cluster that may be away, and counts what it was asked."""

    is_away = False
    asked = 0

    def caller(self, token: str, audiences: Sequence[str] = ()) -> Caller | None:
        self.asked += 1
        if self.is_away:
            raise Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API could not be reached")
        return super().caller(token, audiences)


def test_the_cluster_is_asked_once_for_each_token_and_deployment() -> None:
    async def story() -> None:
        cluster = Away()
        cluster.let_in("t0ken", "ana", "search")
        with ThreadPoolExecutor(2) as executor:
            guard = Kubernetes(cluster, executor)

            at_once = await asyncio.gather(*(status(guard, "Bearer t0ken") for _ in range(10)))
            elsewhere = await status(guard, "Bearer t0ken", "other")
            unknown = await status(guard, "Bearer forged")

            assert (at_once, elsewhere, unknown) == ([200] * 10, 403, 401)
            assert cluster.asked == 3

    asyncio.run(story())


def test_while_the_cluster_is_away_nobody_new_is_let_in_and_nobody_is_taken_for_refused() -> None:
    async def story() -> None:
        cluster = Away()
        cluster.let_in("t0ken", "ana", "search")
        with ThreadPoolExecutor(2) as executor:
            guard = Kubernetes(cluster, executor)
            cluster.is_away = True
            away = await status(guard, "Bearer t0ken")
            cluster.is_away = False

            assert (away, await status(guard, "Bearer t0ken")) == (503, 200)

    asyncio.run(story())


def test_a_yes_holds_while_the_cluster_is_away_and_not_for_ever() -> None:
    async def story() -> None:
        cluster, now = Away(), [1_000.0]
        cluster.let_in("t0ken", "ana", "search")
        with ThreadPoolExecutor(2) as executor:
            guard = Kubernetes(cluster, executor, lambda: now[0])
            before = [await status(guard, "Bearer t0ken"), await status(guard, "Bearer forged")]
            cluster.is_away = True
            now[0] += 60
            later = [await status(guard, "Bearer t0ken"), await status(guard, "Bearer forged")]
            now[0] += 600
            much_later = await status(guard, "Bearer t0ken")

            assert (before, later, much_later) == ([200, 401], [200, 503], 503)

    asyncio.run(story())


def test_while_the_cluster_is_away_not_every_query_waits_for_it() -> None:
    async def story() -> None:
        cluster, now = Away(), [1_000.0]
        cluster.let_in("t0ken", "ana", "search")
        with ThreadPoolExecutor(2) as executor:
            guard = Kubernetes(cluster, executor, lambda: now[0])
            await status(guard, "Bearer t0ken")
            cluster.is_away, cluster.asked = True, 0
            now[0] += 60

            answers = [await status(guard, "Bearer t0ken") for _ in range(10)]
            in_between = cluster.asked
            now[0] += access.RETRY_SECONDS
            answers.append(await status(guard, "Bearer t0ken"))

            assert (set(answers), in_between, cluster.asked) == ({200}, 1, 2)

    asyncio.run(story())


def test_what_is_remembered_is_bounded_and_refusals_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(access, "MOST_KEPT", 20)
        cluster = Away()
        cluster.let_in("t0ken", "ana", "search")
        with ThreadPoolExecutor(2) as executor:
            guard = Kubernetes(cluster, executor)
            await status(guard, "Bearer t0ken")
            for number in range(100):
                await status(guard, f"Bearer forged{number}")
            asked = cluster.asked

            assert (await status(guard, "Bearer t0ken"), cluster.asked) == (200, asked)
            assert len(guard._answers) <= 20
            # A yes for each of many names pushes out older ones, and leaves room for new ones.
            for number in range(100):
                await guard.check("Bearer t0ken", "search", f"name{number}")
            asked = cluster.asked
            await guard.check("Bearer t0ken", "search", "name99")

            assert (cluster.asked, len(guard._answers) <= 20) == (asked, True)

    asyncio.run(story())


def test_what_is_remembered_is_left_to_the_event_loop_by_the_look_around() -> None:
    guard = Kubernetes(MemoryCluster(), ThreadPoolExecutor(1))
    kept = guard._answers

    guard.look_again()

    assert guard._answers is kept


def test_a_token_has_to_be_meant_for_one_of_the_audiences_that_were_chosen() -> None:
    async def story() -> None:
        cluster = MemoryCluster()
        cluster.let_in("f0r-us", "ana", "search", audience="gateway")
        cluster.let_in("f0r-others", "ana", "search", audience="billing")
        cluster.let_in("f0r-the-cluster", "ana", "search")
        tokens = ("Bearer f0r-us", "Bearer f0r-others", "Bearer f0r-the-cluster")
        with ThreadPoolExecutor(2) as executor:
            chosen = Kubernetes(cluster, executor, audiences=("gateway", "search"))
            anybody = Kubernetes(cluster, executor)

            assert [await status(chosen, token) for token in tokens] == [200, 401, 401]
            assert [await status(anybody, token) for token in tokens] == [401, 401, 200]

    asyncio.run(story())
