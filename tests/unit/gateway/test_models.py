"""A text is embedded once: kept, waited for together, sent together, and failed by itself alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from tests.unit.gateway.stage import until

from pointsman.api.conditions import Reason
from pointsman.core.recipes import Space
from pointsman.errors import Retryable, TextsRefused
from pointsman.gateway import models
from pointsman.gateway.models import QueryModel, Side
from pointsman.ports import Finished, Identity, Vectors, nobody

REMOTE = Space("openai", "m", "", 4, query_prefix="q: ", document_prefix="d: ")


class Model:
    """A model that waits until it is let go on; a text's vector says how long the text is."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None
        self.refused = ""

    def identity(self) -> Identity:
        return Identity("m", "", 4)

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        self.batches.append(list(texts))
        self.go.wait(20)
        if self.error is not None:
            raise self.error
        if positions := [n for n, text in enumerate(texts) if self.refused and self.refused in text]:
            raise TextsRefused(positions, "HTTP 400")
        return np.array([[len(text), 0, 0, 0] for text in texts], np.float32)

    def close(self) -> None:
        pass


def play(story: Callable[[QueryModel, Model], Awaitable[None]], kept: int = 100) -> None:
    async def whole() -> None:
        model = Model()
        asked = QueryModel(REMOTE, model, kept)
        await story(asked, model)
        await asyncio.to_thread(asked.close)

    asyncio.run(whole())


def test_a_text_that_is_kept_is_not_sent_again_and_its_two_sides_are_two_texts() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        first = await asked.embed(["x", "xyz"], Side.QUERY)
        again = await asked.embed(["xyz", "x"], Side.QUERY)
        other = await asked.embed(["x"], Side.DOCUMENT)

        assert [vector[0] for vector in first] == [4, 6]
        assert [vector[0] for vector in again] == [6, 4]
        assert other[0][0] == 4
        assert sorted(text for batch in model.batches for text in batch) == ["d: x", "q: x", "q: xyz"]
        assert (asked.hits, asked.misses) == (2, 3)

    play(story)


def test_no_more_than_the_bound_is_kept_and_the_oldest_goes_first() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        for text in ("a", "b", "a", "c", "a", "b"):
            await asked.embed([text], Side.QUERY)

        assert [batch[0] for batch in model.batches] == ["q: a", "q: b", "q: c", "q: b"]

    play(story, kept=2)


def test_the_same_text_from_many_at_once_is_sent_once() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        model.go.clear()
        waiting = [asyncio.ensure_future(asked.embed(["x"], Side.QUERY)) for _ in range(20)]
        await until(lambda: bool(model.batches))
        model.go.set()

        found = await asyncio.gather(*waiting)

        assert len({id(vectors[0]) for vectors in found}) == 1
        assert model.batches == [["q: x"]]

    play(story)


def test_texts_that_come_while_requests_are_under_way_go_together_in_the_next() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        model.go.clear()
        first = [asyncio.ensure_future(asked.embed([f"first {n}"], Side.QUERY)) for n in range(models.AT_ONCE)]
        await until(lambda: len(model.batches) == models.AT_ONCE)
        rest = [asyncio.ensure_future(asked.embed([f"rest {n}"], Side.QUERY)) for n in range(30)]
        await asyncio.sleep(0)
        model.go.set()

        await asyncio.gather(*first, *rest)

        assert [len(batch) for batch in model.batches] == [*[1] * models.AT_ONCE, 30]

    play(story)


def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        model.go.clear()
        impatient = asyncio.ensure_future(asked.embed(["x"], Side.QUERY))
        patient = asyncio.ensure_future(asked.embed(["x"], Side.QUERY))
        await until(lambda: bool(model.batches))
        impatient.cancel()
        model.go.set()

        assert (await patient)[0][0] == 4
        with pytest.raises(asyncio.CancelledError):
            await impatient

    play(story)


def test_a_text_that_the_model_refuses_fails_by_itself() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        model.go.clear()
        model.refused = "bad"
        first = [asyncio.ensure_future(asked.embed([f"first {n}"], Side.QUERY)) for n in range(models.AT_ONCE)]
        await until(lambda: len(model.batches) == models.AT_ONCE)
        rest = [asyncio.ensure_future(asked.embed([text], Side.QUERY)) for text in ("good", "bad", "better")]
        await asyncio.sleep(0)
        model.go.set()

        found = await asyncio.gather(*first, *rest, return_exceptions=True)

        assert [isinstance(each, TextsRefused) for each in found[models.AT_ONCE :]] == [False, True, False]

    play(story)


def test_an_error_is_told_to_all_who_waited_and_is_not_kept() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        model.error = Retryable(Reason.MODEL_UNREACHABLE, "the endpoint fails with HTTP 500")
        found = await asyncio.gather(
            *(asked.embed(["x"], Side.QUERY) for _ in range(3)),
            asked.embed(["y", "z"], Side.QUERY),
            return_exceptions=True,
        )
        model.error = None
        again = await asked.embed(["x"], Side.QUERY)

        assert {str(each) for each in found} == {"the endpoint fails with HTTP 500"}
        assert again[0][0] == 4

    play(story)


def test_texts_that_nobody_waits_for_any_more_are_not_sent() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        model.go.clear()
        first = [asyncio.ensure_future(asked.embed([f"first {n}"], Side.QUERY)) for n in range(models.AT_ONCE)]
        await until(lambda: len(model.batches) == models.AT_ONCE)
        given_up = asyncio.ensure_future(asked.embed(["given up"], Side.QUERY))
        patient = asyncio.ensure_future(asked.embed(["patient"], Side.QUERY))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        model.go.set()

        await asyncio.gather(*first, patient)
        again = await asked.embed(["given up"], Side.QUERY)

        assert model.batches[models.AT_ONCE :] == [["q: patient"], ["q: given up"]]
        assert again[0][0] == len("q: given up")

    play(story)


def test_a_request_of_many_texts_is_sent_in_batches() -> None:
    async def story(asked: QueryModel, model: Model) -> None:
        await asked.embed([str(n) for n in range(models.MOST_TEXTS + 1)], Side.QUERY)

        assert sorted(len(batch) for batch in model.batches) == [1, models.MOST_TEXTS]

    play(story)


def test_what_the_embedded_model_reads_for_long_is_read_in_a_thread() -> None:
    async def story() -> None:
        threads: list[bool] = []

        class Watched(Model):
            def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
                threads.append(threading.current_thread() is threading.main_thread())
                return super().embed(texts, finished)

        asked = QueryModel(Space("wordllama", "m", "", 4), Watched(), 100)
        await asked.embed(["x"], Side.QUERY)
        await asked.embed(["x" * models.SHORT, "y"], Side.QUERY)
        await asked.embed(["\N{STEAM LOCOMOTIVE}" * (models.SHORT // models.SPELT + 1)], Side.QUERY)
        await asyncio.to_thread(asked.close)

        assert threads == [True, False, False]

    asyncio.run(story())
