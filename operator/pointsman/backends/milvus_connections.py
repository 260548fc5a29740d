"""How is a Milvus server reached? The connection, what its errors mean, and the one place that knows its client.

Errors are told apart by code and said in words of our own: the server's messages quote what they were sent.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import grpc
import pymilvus
from pymilvus.client import types

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.backends import markers, milvus_rows, terms
from pointsman.core import rows

CALL_SECONDS = 30.0
Client = pymilvus.MilvusClient
LOADED = types.LoadState.Loaded

# The client's own ten seconds are more than a server of gRPC's defaults puts up with: it ends such a connection.
_CHANNEL = {
    "grpc.keepalive_time_ms": 300_000,
    "grpc.keepalive_permit_without_calls": False,
    # A proxy of the environment would go where nobody has looked.
    "grpc.enable_http_proxy": 0,
}
# milvus-io/milvus, pkg/util/merr/errors.go.
_NOT_FOUND, _NOT_LOADED, _INDEX_NOT_FOUND = {100, 1600}, {101, 103, 106}, 700
_NO_DATABASE = 800
_UNAUTHORISED = range(1400, 1500)
# Besides limits and time-outs: nodes, channels, segments and replicas that the server's own parts do not find.
_LATER = {1, 3, 4, 5, 7, 8, 9, 11, 12, *range(400, 700), *range(900, 1100), 10000, 10001}
_UNAVAILABLE = 2
_GRPC_UNAUTHORISED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


class Connection:
    """One connection to one database of one server, made when it is first needed."""

    def __init__(self, uri: str, database: str, token: str, shown: str, timeout: float = CALL_SECONDS) -> None:
        """`shown` is the address as people know it; `uri` may have a pinned one in its place."""
        self._uri, self._database, self._token = uri, database, token
        self.shown, self.timeout = shown, timeout
        self._lock = threading.Lock()
        self._connected: pymilvus.MilvusClient | None = None
        # Collections that were seen indexed and loaded.
        self._readable: set[str] = set()
        # Its log has the server's messages, which quote what they were sent.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)

    def is_readable(self, name: str) -> bool:
        """Return whether a collection was seen indexed and loaded, and nothing has been heard to the contrary."""
        with self._lock:
            return name in self._readable

    def set_readable(self, name: str) -> None:
        """Remember that a collection was seen indexed and loaded."""
        with self._lock:
            self._readable.add(name)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            client, self._connected = self._connected, None
        if client is not None:
            client.close()

    @contextlib.contextmanager
    def client(self, name: str = "the collection") -> Iterator[pymilvus.MilvusClient]:
        """Lend the connection for calls about `name`; it may be used by many threads at once."""
        try:
            with self._lock:
                if self._connected is None:
                    self._connected = pymilvus.MilvusClient(
                        self._uri,
                        token=self._token,
                        db_name=self._database,
                        timeout=self.timeout,
                        grpc_options=_CHANNEL,
                    )
                client = self._connected
            yield client
        except pymilvus.MilvusException as error:
            raise self._mapped(error, name) from None
        except grpc.RpcError as error:
            raise self._mapped_call(error) from None

    def _mapped(self, error: pymilvus.MilvusException, name: str) -> errors.PointsmanError:
        code = error.code
        if isinstance(error, pymilvus.exceptions.DataNotMatchException | pymilvus.exceptions.ParamError):
            return self._refused("what the client would not send")
        if isinstance(error.__cause__, grpc.RpcError):
            return self._mapped_call(error.__cause__)
        if isinstance(code, grpc.StatusCode) or code == _UNAVAILABLE:
            return self._unreachable()
        # By its code alone: a database, a node or a channel that is "not found" says nothing of the collection.
        if code in _NOT_FOUND:
            return markers.lost(name)
        if code == _NO_DATABASE or _is_no_database_of_lite(error):
            return errors.Terminal(
                Reason.BACKEND_REJECTED, f"Milvus at {self.shown} has no database {self._database}; create it"
            )
        if code in _NOT_LOADED or code == _INDEX_NOT_FOUND:
            with self._lock:
                self._readable.discard(name)
            return errors.Retryable(Reason.BACKEND_UNREACHABLE, f"{name} was released and is to be loaded again")
        if code in _UNAUTHORISED:
            return self._unauthorised()
        if code in _LATER:
            return errors.Retryable(Reason.BACKEND_UNREACHABLE, f"Milvus at {self.shown} answered with code {code}")
        return self._refused(f"code {code}")

    def _mapped_call(self, error: grpc.RpcError) -> errors.PointsmanError:
        code = error.code() if isinstance(error, grpc.Call) else None
        return self._unauthorised() if code in _GRPC_UNAUTHORISED else self._unreachable()

    def _refused(self, what: str) -> errors.Terminal:
        return errors.Terminal(Reason.BACKEND_REJECTED, f"Milvus at {self.shown} refused the request with {what}")

    def _unreachable(self) -> errors.Retryable:
        return errors.Retryable(
            Reason.BACKEND_UNREACHABLE,
            f"Milvus at {self.shown} is unreachable or did not answer within {self.timeout:g} s",
        )

    def _unauthorised(self) -> errors.Terminal:
        return errors.Terminal(
            Reason.BACKEND_UNAUTHORIZED, f"Milvus at {self.shown} refused the token; check it in the Secret"
        )


def _is_no_database_of_lite(error: pymilvus.MilvusException) -> bool:
    """Return whether Milvus Lite lacks the database, which it says with the code of all that it has no code for."""
    return bool(error.code == 1 and error.message.startswith("database '") and error.message.endswith("not exist"))


def schema(dimensions: int, description: str) -> pymilvus.CollectionSchema:
    """Return the fields of a collection."""
    kinds = pymilvus.DataType
    made = pymilvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=description)
    hexadecimal = 2 * rows.KEY.byte_width
    made.add_field("id", kinds.VARCHAR, is_primary=True, max_length=hexadecimal)
    made.add_field("document", kinds.VARCHAR, max_length=milvus_rows.LONGEST_TEXT)
    made.add_field("ordinal", kinds.INT32)
    made.add_field("text", kinds.VARCHAR, max_length=milvus_rows.LONGEST_TEXT)
    made.add_field("content_key", kinds.VARCHAR, max_length=hexadecimal)
    made.add_field("metadata", kinds.JSON)
    made.add_field("metadata_digest", kinds.VARCHAR, max_length=hexadecimal)
    made.add_field("sequence", kinds.INT64)
    made.add_field("recipe", kinds.VARCHAR, max_length=hexadecimal)
    made.add_field(
        "terms",
        kinds.ARRAY,
        element_type=kinds.VARCHAR,
        max_capacity=milvus_rows.MOST_TERMS,
        max_length=terms.LENGTH,
    )
    made.add_field("extremes", kinds.JSON)
    made.add_field("vector", kinds.FLOAT_VECTOR, dim=dimensions)
    return made


def graph(m: int, ef_construct: int) -> pymilvus.milvus_client.IndexParams:
    """Return the index of the vectors."""
    made = pymilvus.MilvusClient.prepare_index_params()
    parameters = {"M": m, "efConstruction": ef_construct}
    made.add_index("vector", index_type="HNSW", metric_type="COSINE", params=parameters)
    return made


def inverted() -> pymilvus.milvus_client.IndexParams:
    """Return the index of the terms that filters ask for."""
    made = pymilvus.MilvusClient.prepare_index_params()
    made.add_index("terms", index_type="INVERTED")
    return made
