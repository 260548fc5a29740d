"""What a server's answers by gRPC are told as, and what it is asked, seen from a server of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2
from qdrant_client import grpc as qdrant_grpc
from tests.contracts import backends_points as some
from tests.contracts.backends_engines import milvus_uri
from tests.contracts.test_backends_errors import opened, raised

from pointsman import errors, ports
from pointsman.api import engines
from pointsman.api.conditions import Reason

__all__ = ["milvus_uri"]


class _Refuses(grpc.GenericRpcHandler):
    """A server that answers every call with one code."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def service(self, handler_call_details: Any) -> Any:
        def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(self._code, "no entry for hunter2-secret")
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)


@contextlib.contextmanager
def serving(handler: grpc.GenericRpcHandler) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def at_port(engine: str, port: int) -> engines.Backend:
    if engine == "qdrant":
        return engines.Backend(qdrant=engines.QdrantBackend(url="http://127.0.0.1:1", grpc_port=port))
    return engines.Backend(milvus=engines.MilvusBackend(uri=f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("engine", ["qdrant", "milvus"])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_a_wrong_key_or_token_is_unauthorised(engine: str, code: grpc.StatusCode) -> None:
    with serving(_Refuses(code)) as port, opened(at_port(engine, port)) as backend:
        found = raised(backend.probe)
    assert isinstance(found, errors.Terminal)
    assert found.reason is Reason.BACKEND_UNAUTHORIZED
    assert "check it in the Secret" in found.message


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Retryable, Reason.BACKEND_UNREACHABLE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.Retryable, Reason.BACKEND_UNREACHABLE),
        (grpc.StatusCode.INTERNAL, errors.Retryable, Reason.BACKEND_UNREACHABLE),
        (grpc.StatusCode.NOT_FOUND, errors.Retryable, Reason.INDEX_LOST),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.Terminal, Reason.BACKEND_REJECTED),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_answer_of_qdrant_has_its_reason(code: grpc.StatusCode, kind: type, reason: Reason) -> None:
    with serving(_Refuses(code)) as port, opened(at_port("qdrant", port)) as backend:
        for attempt in (lambda: backend.count("x"), lambda: backend.upsert("x", some.batch(some.directions(1, 4)))):
            found = raised(attempt)
            assert (type(found), found.reason) == (kind, reason)


class _Empty(grpc.GenericRpcHandler):
    """A Qdrant server without a point, that remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]
        kinds = {
            "Scroll": (qdrant_grpc.ScrollPoints, qdrant_grpc.ScrollResponse()),
            "Get": (qdrant_grpc.GetPoints, qdrant_grpc.GetResponse()),
        }

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            kind, answered = kinds[name]
            self.asked[name] = kind.FromString(request).read_consistency.type
            return bytes(answered.SerializeToString())

        return grpc.unary_unary_rpc_method_handler(answer)


def test_what_qdrant_is_verified_by_is_read_from_most_replicas() -> None:
    server, points = _Empty(), some.batch(some.directions(1, 4))
    with serving(server) as port, opened(at_port("qdrant", port)) as backend:
        assert list(backend.scan("x")) == []
        assert backend.differing("x", points) == some.ids(points)
    assert server.asked == {"Scroll": qdrant_grpc.Majority, "Get": qdrant_grpc.Majority}


class _Answers(grpc.GenericRpcHandler):
    """A Milvus server that answers every question about a collection or alias with one code."""

    def __init__(self, collection: int, alias: int) -> None:
        kinds = milvus_pb2.DescribeCollectionResponse, milvus_pb2.DescribeAliasResponse
        self._codes = {"DescribeCollection": (kinds[0], collection), "DescribeAlias": (kinds[1], alias)}

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.rpartition("/")[2]

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            kind, code = self._codes.get(name, (milvus_pb2.ConnectResponse, 0))
            status = common_pb2.Status(code=code, error_code=min(code, 1), reason="hunter2-secret not found")
            return bytes(kind(status=status).SerializeToString())

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.contextmanager
def answering(collection: int, alias: int = 1600) -> Iterator[ports.Backend]:
    with serving(_Answers(collection, alias)) as port, opened(at_port("milvus", port)) as backend:
        yield backend


@pytest.mark.parametrize("code", [500, 600, 901, 1], ids=["channel", "segment", "node", "service"])
def test_what_milvus_does_not_find_within_itself_is_no_lost_index(code: int) -> None:
    with answering(code) as backend:
        found = raised(lambda: backend.find("x"))
    assert isinstance(found, errors.Retryable)
    assert found.reason is Reason.BACKEND_UNREACHABLE


def test_a_database_that_milvus_does_not_have_is_said(milvus_uri: str) -> None:
    lite = engines.Backend(milvus=engines.MilvusBackend(uri=milvus_uri, database="nowhere"))
    with answering(800) as backend:
        said = raised(lambda: backend.find("x"))
    with opened(lite, {}) as backend:
        said_by_lite = [raised(attempt) for attempt in (backend.probe, lambda: backend.find("x"))]
    for found in (said, *said_by_lite):
        assert isinstance(found, errors.Terminal)
        assert found.reason is Reason.BACKEND_REJECTED
    assert said.message.endswith("has no database default; create it")
    assert said_by_lite[0].message.endswith("has no database nowhere; create it")


def test_a_collection_that_milvus_does_not_find_is_absent() -> None:
    with answering(100) as backend:
        assert backend.find("x") is None
