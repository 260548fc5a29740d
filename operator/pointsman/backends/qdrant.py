"""Qdrant: an index is a collection, its marker part of the collection's metadata (Qdrant 1.16 or later)."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import qdrant_client
from qdrant_client import models
from qdrant_client.common import client_exceptions
from qdrant_client.http import exceptions

from pointsman import errors, ports
from pointsman.api.conditions import Reason
from pointsman.backends import markers, points, qdrant_rows
from pointsman.core import filters, rows

CALL_SECONDS = 30
BUILD_SECONDS = ports.BUILD_SECONDS
"""The longest that building one index may take."""
MOST_DIMENSIONS = 65_536

_LOAD_BYTES = 2 << 20
_LOAD_ROWS = 512
_THREADS = 4
_PAGE = 8192
# Kilobytes of vectors below which a segment is searched without a graph; 0 while loading: no graph at all.
_INDEXING_THRESHOLD = 10_000
_SHOWN = ["document", "ordinal", "text", "metadata"]
# What is read to be verified is what most replicas hold: one that lags would pass for the whole. All of them would
# be asked in vain whenever a node restarts.
_MAJORITY = models.ReadConsistencyType.MAJORITY
_UNAUTHORISED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
_REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.ALREADY_EXISTS,
}


def connect(url: str, grpc_port: int, api_key: str | None, seconds: float = CALL_SECONDS) -> qdrant_client.QdrantClient:
    """Return a client that speaks gRPC to the host of a URL; nothing is sent yet."""
    return qdrant_client.QdrantClient(
        url=url,
        grpc_port=grpc_port,
        prefer_grpc=True,
        # The client takes whole seconds only.
        timeout=math.ceil(seconds),
        # The same header as api_key sets, without its warning of plain http, which is the user's to choose.
        headers={"api-key": api_key} if api_key else None,
        check_compatibility=False,
        # Neither way goes through a proxy that the environment names: the address was checked, not the proxy.
        grpc_options={"grpc.enable_http_proxy": 0},
        trust_env=False,
    )


class Qdrant:
    """The collections of one server, or of one local folder."""

    def __init__(
        self,
        client: qdrant_client.QdrantClient,
        shown: str,
        *,
        is_local: bool = False,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        """`shown` is the address as people know it. A local client takes no indexes over the payload."""
        self._connected, self._shown, self._is_local = client, shown, is_local
        self._call_seconds = call_seconds
        self._lock = threading.Lock()
        # What was seen to have an index, by collection: the extremes that filters may order by.
        self._ordered: dict[str, set[str]] = {}

    def probe(self) -> None:
        """Raise unless the server answers and lets us in."""
        with self._client() as client:
            client.get_collections()

    def find(self, name: str) -> ports.Marker | None:
        """Return the marker of a collection, or None where there is none of that name."""
        if name not in self._collections():
            return None
        marker = self._marker(name)
        if marker is None:
            raise markers.foreign(name)
        return marker

    def create(self, spec: ports.IndexSpec) -> None:
        """Make an empty collection with its marker, that builds no graph yet."""
        if spec.dimensions > MOST_DIMENSIONS:
            raise errors.Terminal(
                Reason.BACKEND_UNSUPPORTED,
                f"Qdrant holds at most {MOST_DIMENSIONS} dimensions, {spec.dimensions} were asked for",
            )
        if not markers.is_free(self, spec):
            return
        with self._client(spec.name) as client:
            client.create_collection(
                spec.name,
                vectors_config=models.VectorParams(size=spec.dimensions, distance=models.Distance.COSINE),
                hnsw_config=models.HnswConfigDiff(m=spec.m, ef_construct=spec.ef_construct),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
                metadata=markers.to_json(spec),
            )
        if self._marker(spec.name) != spec.marker:
            with self._client(spec.name) as client:
                client.delete_collection(spec.name)
            raise errors.Terminal(
                Reason.BACKEND_UNSUPPORTED,
                f"Qdrant at {self._shown} keeps no metadata of collections, wanted version 1.16 or later",
            )
        self._index_payload(spec.name, "terms", models.PayloadSchemaType.KEYWORD)

    def load(self, name: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Upsert batches from four threads."""
        pieces = points.pieces(batches, _LOAD_BYTES, _LOAD_ROWS)
        # A local client is not made for threads: it loses points.
        return points.in_parallel(pieces, lambda piece: self._upsert(name, piece), 1 if self._is_local else _THREADS)

    def seal(self, name: str) -> None:
        """Let the graph be built, and return when the server says that it is."""
        with self._client(name) as client:
            threshold = models.OptimizersConfigDiff(indexing_threshold=_INDEXING_THRESHOLD)
            client.update_collection(name, optimizers_config=threshold)
        deadline = time.monotonic() + BUILD_SECONDS
        while not self.is_built(name):
            if time.monotonic() > deadline:
                raise errors.Retryable(
                    Reason.BACKEND_UNREACHABLE, f"Qdrant at {self._shown} did not index {name} within 12 hours"
                )
            time.sleep(0.5)

    def is_built(self, name: str) -> bool:
        """Return whether the collection is green and all but segments too small for a graph have theirs.

        Green alone is not enough: a collection is green before it has noticed that there is something to do.
        """
        with self._client(name) as client:
            found = client.get_collection(name)
        if self._is_local:
            return True
        threshold = found.config.optimizer_config.indexing_threshold
        vectors = found.config.params.vectors
        if found.status is not models.CollectionStatus.GREEN or found.optimizer_status != "ok":
            return False
        if threshold == 0 or not isinstance(vectors, models.VectorParams):
            return False
        allowed = (threshold or _INDEXING_THRESHOLD) * 1024 * max(1, found.segments_count)
        missing = (found.points_count or 0) - (found.indexed_vectors_count or 0)
        return missing * vectors.size * 4 <= allowed

    def upsert(self, name: str, batch: pa.RecordBatch) -> None:
        """Write one batch."""
        for piece in points.pieces([batch], _LOAD_BYTES, _LOAD_ROWS):
            self._upsert(name, piece)

    def delete(self, name: str, point_ids: Sequence[bytes]) -> None:
        """Delete points by their ids."""
        with self._client(name) as client:
            for start in range(0, len(point_ids), _PAGE):
                selector = models.PointIdsList(points=_uuids(point_ids[start : start + _PAGE]))
                client.delete(name, selector, wait=True)

    def remove_foreign(self, name: str) -> int:
        """Delete points whose ids are numbers."""
        removed = 0
        for page in self._pages(name, []):
            foreign = [record.id for record in page if not qdrant_rows.point_id(record.id)]
            if foreign:
                with self._client(name) as client:
                    client.delete(name, models.PointIdsList(points=foreign), wait=True)
            removed += len(foreign)
        return removed

    def count(self, name: str) -> int:
        """Return the exact number of points, of one replica of each shard: the client can ask for no more."""
        with self._client(name) as client:
            return int(client.count(name, exact=True).count)

    def scan(self, name: str) -> Iterator[pa.RecordBatch]:
        """Yield every point once, in the order of ids."""
        for page in self._pages(name, rows.SCANNED.names[1:]):
            payloads = [record.payload or {} for record in page]
            keys, digests = (
                [points.from_hex(payload.get(key)) for payload in payloads]
                for key in ("content_key", "metadata_digest")
            )
            recipes = [payload.get("recipe") for payload in payloads]
            yield points.scanned([qdrant_rows.point_id(record.id) for record in page], keys, digests, recipes)

    def differing(self, name: str, batch: pa.RecordBatch) -> list[bytes]:
        """Return those points that the collection lacks or holds otherwise."""
        wrong: list[bytes] = []
        for piece in points.pieces([batch], _LOAD_BYTES, _LOAD_ROWS):
            wanted = qdrant_rows.payloads(piece)[0]
            found = self._get(name, [point_id for point_id, _ in wanted], with_payload=True)
            held = {
                qdrant_rows.point_id(record.id): (
                    record.payload or {},
                    record.vector if isinstance(record.vector, list) else [],
                )
                for record in found
            }
            wrong += points.differing(piece, (payload for _, payload in wanted), held)
        return wrong

    def fetch(self, name: str, point_ids: Sequence[bytes]) -> tuple[list[bytes], ports.Vectors]:
        """Return the points found and their vectors."""
        with self._client(name) as client:
            vectors = client.get_collection(name).config.params.vectors
        found = self._get(name, _uuids(point_ids), with_payload=False)
        dimensions = vectors.size if isinstance(vectors, models.VectorParams) else 0
        return [qdrant_rows.point_id(record.id) for record in found], points.unit(
            np.array([record.vector for record in found]), dimensions
        )

    def search(
        self, name: str, vector: npt.NDArray[np.float32], limit: int, where: filters.Filter | None
    ) -> list[ports.Hit]:
        """Return the nearest points that pass; Qdrant decides by the filter's size whether to walk the graph."""
        with self._client(name) as client:
            found = client.query_points(
                name,
                query=np.asarray(vector, np.float32).tolist(),
                query_filter=None
                if where is None
                else models.Filter.model_validate({"must": [qdrant_rows.condition(where)]}),
                limit=limit,
                with_payload=_SHOWN,
                # A local client looks at every point, and warns of parameters that mean nothing to it.
                search_params=None if self._is_local else models.SearchParams(hnsw_ef=max(128, 2 * limit)),
            )
        return [qdrant_rows.hit(point) for point in found.points]

    def publish(self, alias: str, name: str) -> None:
        """Move the alias in one request."""
        wanted = self.find(name)
        if wanted is None:
            raise markers.lost(name)
        if alias in self._collections():
            raise markers.foreign(alias)
        target = self._aliases().get(alias)
        steps: list[Any] = []
        if target is not None:
            markers.check_alias(alias, self._marker(target), wanted.owner)
            steps.append(_forget(alias))
        made = models.CreateAlias(collection_name=name, alias_name=alias)
        steps.append(models.CreateAliasOperation(create_alias=made))
        with self._client(name) as client:
            client.update_collection_aliases(steps)

    def unpublish(self, alias: str, owner: str) -> None:
        """Remove an alias."""
        target = self._aliases().get(alias)
        if target is None:
            return
        markers.check_alias(alias, self._marker(target), owner)
        with self._client(alias) as client:
            client.update_collection_aliases([_forget(alias)])

    def drop(self, name: str) -> None:
        """Remove a collection of ours and its aliases."""
        if self.find(name) is None:
            return
        aliases = [alias for alias, target in self._aliases().items() if target == name]
        with self._client(name) as client:
            if aliases:
                client.update_collection_aliases([_forget(alias) for alias in aliases])
            client.delete_collection(name)
        with self._lock:
            self._ordered.pop(name, None)

    def close(self) -> None:
        """Close the connection."""
        self._connected.close()

    def _get(self, name: str, ids: Sequence[Any], *, with_payload: bool) -> list[models.Record]:
        with self._client(name) as client:
            return client.retrieve(name, ids, with_payload=with_payload, with_vectors=True, consistency=_MAJORITY)

    def _pages(self, name: str, fields: Sequence[str]) -> Iterator[list[models.Record]]:
        offset = None
        while True:
            with self._client(name) as client:
                page, offset = client.scroll(
                    name, limit=_PAGE, offset=offset, with_payload=list(fields), consistency=_MAJORITY
                )
            if page:
                yield page
            if offset is None:
                return

    def _upsert(self, name: str, piece: pa.RecordBatch) -> None:
        payloads, ordered = qdrant_rows.payloads(piece)
        # Validating each number of each vector takes longer than sending it.
        written = [
            models.PointStruct.model_construct(id=point_id, vector=vector, payload=payload)
            for (point_id, payload), vector in zip(payloads, points.vectors(piece).tolist(), strict=True)
        ]
        with self._lock:
            missing = ordered - self._ordered.setdefault(name, set())
        for field in sorted(missing):
            self._index_payload(name, f"extremes.{field}", models.PayloadSchemaType.FLOAT)
        with self._lock:
            self._ordered.setdefault(name, set()).update(missing)
        with self._client(name) as client:
            client.upsert(name, written, wait=True)

    def _index_payload(self, name: str, field: str, kind: models.PayloadSchemaType) -> None:
        if self._is_local:
            return
        with self._client(name) as client:
            client.create_payload_index(name, field, kind, wait=True)

    def _collections(self) -> set[str]:
        with self._client() as client:
            return {collection.name for collection in client.get_collections().collections}

    def _aliases(self) -> dict[str, str]:
        with self._client() as client:
            return {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}

    def _marker(self, name: str) -> ports.Marker | None:
        with self._client(name) as client:
            return markers.from_json(client.get_collection(name).config.metadata)

    @contextlib.contextmanager
    def _client(self, name: str = "the collection") -> Iterator[qdrant_client.QdrantClient]:
        """Lend the client, which many threads may use at once, for calls about `name`."""
        try:
            yield self._connected
        except exceptions.UnexpectedResponse as error:
            raise self._mapped_status(error.status_code or 500, name) from None
        except (exceptions.ResponseHandlingException, client_exceptions.ResourceExhaustedResponse):
            raise self._unreachable() from None
        except grpc.RpcError as error:
            raise self._mapped_code(error.code() if isinstance(error, grpc.Call) else None, name) from None
        except ValueError as error:
            # A local client has no other errors; a remote one has these for what cannot be sent.
            if self._is_local and "not found" in str(error):
                raise markers.lost(name) from None
            raise self._refused("an invalid value") from None

    def _mapped_status(self, status: int, name: str) -> errors.PointsmanError:
        if status in (401, 403):
            return self._unauthorised()
        if status == 404:
            return markers.lost(name)
        is_later = status >= 500 or status in (408, 429)
        return self._unreachable() if is_later else self._refused(f"status {status}")

    def _mapped_code(self, code: Any, name: str) -> errors.PointsmanError:
        if code in _UNAUTHORISED:
            return self._unauthorised()
        if code is grpc.StatusCode.NOT_FOUND:
            return markers.lost(name)
        return self._refused(f"code {code.name}") if code in _REFUSED else self._unreachable()

    def _unauthorised(self) -> errors.Terminal:
        return errors.Terminal(
            Reason.BACKEND_UNAUTHORIZED, f"Qdrant at {self._shown} refused the API key; check it in the Secret"
        )

    def _unreachable(self) -> errors.Retryable:
        return errors.Retryable(
            Reason.BACKEND_UNREACHABLE,
            f"Qdrant at {self._shown} is unreachable or did not answer within {self._call_seconds:g} s",
        )

    def _refused(self, what: str) -> errors.Terminal:
        return errors.Terminal(Reason.BACKEND_REJECTED, f"Qdrant at {self._shown} refused the request with {what}")


def _uuids(point_ids: Sequence[bytes]) -> list[models.ExtendedPointId]:
    return [str(uuid.UUID(bytes=point_id)) for point_id in point_ids]


def _forget(alias: str) -> models.DeleteAliasOperation:
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
