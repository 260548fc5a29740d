"""What is refused, with which status and words; and that none of them repeats a query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from tests.unit.gateway import stage
from tests.unit.gateway.stage import Stage, entry, fill, space, version

from pointsman.gateway import access, requests

SMALL = space(64)
SECRET = "the merger with Acme"
LIMITS = requests.Limits(body=1 << 20, text=2_000, batch=3, hits=2_000)
COMPARISON = {"type": "eq", "key": "year", "value": 1}


async def refused(body: Any, path: str = stage.SEARCH) -> tuple[int, str]:
    async with stage.running(limits=LIMITS) as found:
        await serve(found)
        if isinstance(body, bytes):
            answer = await found.client.post(path, content=body)
            return answer.status_code, answer.json()["error"]["message"]
        return await found.refused(body, path)


async def serve(found: Stage) -> None:
    fill(found.database, "v7", SMALL)
    found.declare(version("v7", 64))
    found.route(entry("v7", 100, SMALL))
    await found.served()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(
            {}, 400, "nothing is given to search by; wanted exactly one of query, vector and like", id="no query"
        ),
        pytest.param({"query": ""}, 400, "query has an empty text; wanted one character at least in each", id="empty"),
        pytest.param({"query": []}, 400, "query is missing; wanted a text or a list of texts", id="no queries"),
        pytest.param({"query": 7}, 400, "query is no text and no list of texts", id="a number"),
        pytest.param(
            {"query": SECRET, "like": "x"},
            400,
            "query and like are given to search by; wanted exactly one of query, vector and like",
            id="two kinds",
        ),
        pytest.param({"query": SECRET, "topK": 0}, 400, "topK is 0; wanted one from 1 to 1000", id="topK 0"),
        pytest.param(
            {"query": SECRET, "topK": 10_000_000},
            400,
            "topK is 10000000; wanted one from 1 to 1000",
            id="topK 10 million",
        ),
        pytest.param({"query": SECRET, "topK": True}, 400, "topK is no integer; wanted one from 1 to 1000", id="true"),
        pytest.param(
            {"query": SECRET * 200}, 413, "query has a text of 4000 characters; wanted 2000 at most", id="a long text"
        ),
        pytest.param({"query": [SECRET] * 4}, 413, "query has 4 texts; wanted 3 at most", id="many queries"),
        pytest.param(
            {"query": SECRET, "filter": {"type": "eq", "key": "author", "value": "ana"}},
            400,
            "the filter asks for the field author; v7 has year",
            id="a field that is not there",
        ),
        pytest.param(
            {"query": [SECRET] * 3, "topK": 1_000},
            413,
            "topK is 1000 for 3 queries; wanted 2000 hits at most",
            id="many hits of many queries",
        ),
        pytest.param(
            {
                "query": SECRET,
                "filter": {"type": "and", "filters": [{"type": "or", "filters": [COMPARISON] * 129}] * 2},
            },
            400,
            "filter compares with more than 256 values",
            id="a filter of many comparisons",
        ),
        pytest.param({"query": SECRET, "filter": 7}, 400, "filter is not an object", id="no filter"),
        pytest.param(
            {"query": SECRET, "includes": []},
            400,
            "there are 1 unknown fields; "
            "wanted some of as, filter, hits, include, like, query, session, space, topK, vector",
            id="an unknown field",
        ),
        pytest.param({"query": SECRET, "as": "x"}, 400, "as is something else; wanted query or document", id="a side"),
        pytest.param(
            {"vector": [1.0]}, 400, "space is missing; wanted the space that the vector was embedded in", id="no space"
        ),
        pytest.param(
            {"query": SECRET, "space": "x"},
            400,
            "space is given without a vector; wanted it with one alone",
            id="space",
        ),
        pytest.param(
            {"vector": [0.0] * 64, "space": SMALL.key},
            400,
            "vector has no direction; wanted finite numbers, not all of them 0",
            id="a zero vector",
        ),
        pytest.param(
            {"vector": [1.0], "space": SMALL.key},
            400,
            "vector has 1 numbers; wanted 64, as its space",
            id="other dimensions",
        ),
        pytest.param(b"{", 400, "the body is no JSON in UTF-8; wanted a JSON object", id="no JSON"),
        pytest.param(
            b'{"query": "\\ud800"}', 400, "the body is no JSON in UTF-8; wanted a JSON object", id="a lone surrogate"
        ),
        pytest.param(b"[]", 400, "the body is no JSON object; wanted one", id="a list"),
        pytest.param(
            b'{"query": "' + b"a" * (1 << 20) + b'"}',
            413,
            "the body has 1048589 bytes; wanted 1048576 at most",
            id="a megabyte",
        ),
    ],
)
def test_a_search_that_cannot_be_answered_is_told_what_was_found_and_wanted(
    body: Any, status: int, message: str
) -> None:
    found = asyncio.run(refused(body))

    assert found == (status, message)
    assert SECRET not in found[1]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param({}, 400, "input is missing; wanted a text or a list of texts", id="nothing"),
        pytest.param({"input": [[1, 2]]}, 400, "input is no text and no list of texts", id="tokens"),
        pytest.param(
            {"input": "x", "model": "gpt"}, 400, "model is none that is live; live are v7 (l2_supercat)", id="a model"
        ),
        pytest.param(
            {"input": "x", "dimensions": 12}, 400, "dimensions is 12; the model of v7 makes 64", id="dimensions"
        ),
        pytest.param(
            {"input": "x", "encoding_format": "hex"},
            400,
            "encoding_format is something else; wanted float or base64",
            id="an encoding",
        ),
    ],
)
def test_embeddings_that_cannot_be_made_are_refused(body: Any, status: int, message: str) -> None:
    assert asyncio.run(refused(body, stage.EMBEDDINGS)) == (status, message)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param({}, 400, "query is missing; wanted a text or a list of texts", id="nothing"),
        pytest.param(
            {"query": "x", "rewrite_query": True},
            400,
            "rewrite_query is true; queries are searched as they are",
            id="rewriting",
        ),
        pytest.param(
            {"query": "x", "filters": {"type": "like"}},
            400,
            "filters.type is none of eq, ne, gt, gte, lt, lte, in, nin, and, or",
            id="a filter",
        ),
        pytest.param(
            {"query": "x", "max_num_results": 0}, 400, "max_num_results is 0; wanted one from 1 to 1000", id="none"
        ),
        pytest.param(
            {"query": "x", "ranking_options": {"score_threshold": "high"}},
            400,
            "ranking_options is something else; wanted an object with a number score_threshold",
            id="a threshold",
        ),
    ],
)
def test_a_search_of_a_vector_store_that_cannot_be_answered_is_refused(body: Any, status: int, message: str) -> None:
    assert asyncio.run(refused(body, stage.OPENAI)) == (status, message)


def test_what_is_not_there_is_not_found_in_the_one_shape_of_all_errors() -> None:
    async def story() -> None:
        async with stage.running() as found:
            await serve(found)

            answer = await found.post("/v1/namespaces/search/indexes/other/search", {"query": "x"})
            store = await found.refused({"query": "x"}, "/v1/vector_stores/vs_123/search")
            path = await found.client.get("/v1/elsewhere")
            method = await found.client.get(stage.SEARCH)

            assert (answer.status_code, answer.json()) == (
                404,
                {
                    "error": {
                        "message": "there is no deployment other in namespace search",
                        "type": "invalid_request_error",
                        "param": None,
                        "code": "not_found",
                    }
                },
            )
            assert store == (404, "a vector store's id is <namespace>.<name> of a deployment here")
            assert (path.status_code, method.status_code) == (404, 405)
            assert path.json()["error"]["message"] == "the path is not one of those that /openapi.json lists"

    asyncio.run(story())


def test_a_body_that_does_not_end_is_given_up_in_time_and_counts_as_under_way() -> None:
    async def story() -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b'{"query": "'
            assert found.deployment.in_flight == 1
            await asyncio.Event().wait()

        async with stage.running(seconds=0.2) as found:
            await serve(found)

            answer = await found.client.post(stage.SEARCH, content=endless())

            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
            assert found.deployment.in_flight == 0

    asyncio.run(story())


def test_of_a_name_that_no_cluster_knows_nobody_is_asked() -> None:
    class Asked(access.Open):
        names: ClassVar[list[str]] = []

        async def check(self, authorization: str, namespace: str, name: str) -> None:
            self.names.append(name)

    async def story() -> None:
        async with stage.running(guard=Asked()) as found:
            paths = [
                f"/v1/namespaces/{'n' * 64}/indexes/papers/search",
                f"/v1/namespaces/search/indexes/{'n' * 254}/search",
                f"/v1/vector_stores/search.{'n' * 254}/search",
            ]
            answers = [await found.post(path, {"query": "x"}) for path in paths]

            assert [answer.status_code for answer in answers] == [404] * 3
            assert Asked.names == []

    asyncio.run(story())


def test_more_requests_than_a_deployment_takes_are_told_to_come_again() -> None:
    async def story() -> None:
        async with stage.running(at_once=1) as found:
            await serve(found)
            found.deployment.in_flight = 1

            answer = await found.post(stage.SEARCH, {"query": "x"})
            found.deployment.in_flight = 0

            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert answer.json()["error"]["code"] == "too_many_requests"
            assert (await found.search(query="x"))["version"] == "v7"

    asyncio.run(story())


def test_the_api_is_described_without_anything_from_elsewhere() -> None:
    async def story() -> None:
        async with stage.running() as found:
            described = (await found.client.get("/openapi.json")).json()
            page = (await found.client.get("/")).text

            assert set(described["paths"]) == {
                "/v1/namespaces/{namespace}/indexes/{name}/search",
                "/v1/namespaces/{namespace}/indexes/{name}/embeddings",
                "/v1/namespaces/{namespace}/indexes/{name}/route",
                "/v1/vector_stores/{store}/search",
            }
            assert "http://" not in page and "https://" not in page and "<script" not in page

    asyncio.run(story())
