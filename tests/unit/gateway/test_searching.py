"""A search through the gateway: by text, by vector, by document, by the pair that the route says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from tests.unit.gateway import stage
from tests.unit.gateway.stage import Stage, entry, fill, space, version

from pointsman.embedders.wordllama import Wordllama

SMALL, LARGE = space(64), space(128)
Story = Callable[[Stage], Awaitable[None]]


def play(story: Story) -> None:
    """Play a story on a gateway that serves v7 alone, with v8 live beside it."""

    async def whole() -> None:
        async with stage.running() as found:
            fill(found.database, "v7", SMALL)
            fill(found.database, "v8", LARGE)
            found.declare(version("v7", 64), version("v8", 128))
            found.route(entry("v8", 0, LARGE), entry("v7", 100, SMALL))
            await found.served()
            await story(found)

    asyncio.run(whole())


def test_a_text_finds_documents_and_is_told_what_answered() -> None:
    async def story(found: Stage) -> None:
        answer = await found.search(query="steam engines", topK=2, include=["text", "metadata"])

        assert {key: value for key, value in answer.items() if key != "results"} == {
            "version": "v7",
            "snapshot": 12,
            "space": SMALL.key,
            "model": "l2_supercat",
            "index": "v7",
            "route": {"epoch": 1, "revision": 1},
        }
        first, second = answer["results"]
        assert first["document"] == "engines"
        assert (first["text"], first["metadata"], first["chunk"]) == (stage.TEXTS["engines"], {"year": 1925}, 0)
        assert first["score"] > second["score"]

    play(story)


def test_several_queries_are_answered_by_one_version_each_with_its_own_list() -> None:
    async def story(found: Stage) -> None:
        answer = await found.search(query=["steam engines", "sleeping cars at night"], topK=1)

        assert [[hit["document"] for hit in hits] for hits in answer["results"]] == [["engines"], ["sleepers"]]
        assert (await found.report())["answered"] == {"v7": 2}

    play(story)


def test_a_vector_is_answered_by_the_index_of_its_space_whatever_its_weight() -> None:
    async def story(found: Stage) -> None:
        vector = 3 * Wordllama(128).embed(["steam engines"])[0]

        answer = await found.search(vector=vector.tolist(), space=LARGE.key, topK=1)

        assert (answer["version"], answer["space"], answer["results"][0]["document"]) == ("v8", LARGE.key, "engines")

    play(story)


def test_a_vector_of_a_space_that_is_not_live_is_a_conflict_that_names_those_that_are() -> None:
    async def story(found: Stage) -> None:
        status, message = await found.refused({"vector": [1.0], "space": "elsewhere"})

        assert status == 409
        assert message == f"no live index is of that space; live are {LARGE.key} (v8), {SMALL.key} (v7)"

    play(story)


def test_a_document_finds_what_is_like_it_and_not_itself() -> None:
    async def story(found: Stage) -> None:
        answer = await found.search(like="engines", topK=5)

        assert {hit["document"] for hit in answer["results"]} == {"signals", "sleepers"}
        assert await found.refused({"like": "nowhere"}) == (404, "the document is not in v7")

    play(story)


def test_a_filter_keeps_what_passes() -> None:
    async def story(found: Stage) -> None:
        answer = await found.search(query="trains", filter={"type": "lt", "key": "year", "value": 1930})

        assert {hit["document"] for hit in answer["results"]} == {"signals", "engines"}

    play(story)


def test_the_side_of_the_prefix_is_chosen() -> None:
    async def whole() -> None:
        async with stage.running() as found:
            prefixed = space(64, query_prefix="query: ", document_prefix="passage: ")
            fill(found.database, "v7", prefixed)
            found.route(entry("v7", 100, prefixed))
            await found.served()

            as_document = await found.search(query=stage.TEXTS["engines"], topK=1, **{"as": "document"})
            as_query = await found.search(query=stage.TEXTS["engines"], topK=1)

            assert as_document["results"][0]["score"] == pytest.approx(1, abs=1e-5)
            assert as_query["results"][0]["score"] < 0.999

    asyncio.run(whole())


def test_each_document_comes_once_where_documents_are_asked_for() -> None:
    async def story(found: Stage) -> None:
        answer = await found.search(query="trains", hits="documents", topK=2)

        assert len({hit["document"] for hit in answer["results"]}) == 2

    play(story)


def test_embeddings_are_those_of_the_serving_version_or_of_the_one_that_is_named() -> None:
    async def story(found: Stage) -> None:
        served = (await found.post(stage.EMBEDDINGS, {"input": "steam", "model": "papers"})).json()
        named = (await found.post(stage.EMBEDDINGS, {"input": ["steam"], "model": "v8"})).json()

        assert (served["version"], served["space"], served["model"]) == ("v7", SMALL.key, "l2_supercat")
        np.testing.assert_allclose(served["data"][0]["embedding"], Wordllama(64).embed(["steam"])[0], atol=1e-6)
        assert (named["version"], len(named["data"][0]["embedding"])) == ("v8", 128)

    play(story)


def test_the_route_is_shown_with_what_a_client_needs_to_embed_for_itself() -> None:
    async def story(found: Stage) -> None:
        answer = (await found.client.get(stage.ROUTE)).json()

        assert (answer["epoch"], answer["revision"], answer["problem"]) == (1, 1, "")
        assert [(each["version"], each["weight"], each["queryPrefix"]) for each in answer["entries"]] == [
            ("v8", 0, ""),
            ("v7", 100, ""),
        ]

    play(story)
