"""How fast is an index loaded through us, beside the vendor's own client used well on the same batches?

Run as `python bench/load.py [ROWS] [DIMENSIONS] [ROUNDS] [ENGINE ...]`; engines are milvus, pgvector and, where
QDRANT_URL is set, qdrant. Both ways take turns, the first of a round by turns too, so that what else the machine does
touches both. A rate is rows by seconds from Arrow batches in memory; the ratio is the median over the rounds. The last
column is all that a worker does: it reads the chunks of a snapshot from the store, joins them with their vectors, loads
and indexes them, and verifies the index by a scan.

Used well means: Milvus with rows upserted in batches of 4 MB from two threads; PostgreSQL with COPY BINARY by psycopg
and pgvector's adapters, in batches of 8 MB, JSON passed on as the text that it is; Qdrant with `upload_points` over
gRPC in four processes, indexing deferred. The vendor's rows lack what only our filters need (`terms`, `extremes`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pgvector.psycopg
import psycopg
import pyarrow as pa
import pymilvus
import qdrant_client
from qdrant_client import models

from pointsman.api import engines

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.contracts import backends_points
from tests.servers import milvus as milvus_server
from tests.servers import postgres as postgres_server

from pointsman import ports
from pointsman.access import Access
from pointsman.api import base
from pointsman.backends import memory, points, registry
from pointsman.core import digests, recipes
from pointsman.core import rows as schema
from pointsman.store import records
from pointsman.store import root as store
from pointsman.work import indexing, progress

LOCAL = Access(allow_loopback=True, allowed_hosts=("*",))
MARKER = ports.Marker("bench/load", "uid", "v1", "recipe", "space", "model")
M, EF_CONSTRUCT = 16, 64
LENGTHS = {"document": 65535, "text": 65535, "content_key": 32, "metadata_digest": 32, "recipe": 32}
NOW = datetime(2030, 1, 1, tzinfo=UTC)
Step = Callable[[str], object]


@dataclass(frozen=True)
class Vendor:
    """The vendor's own client: each step is given the name of a collection."""

    create: Step
    load: Callable[[str, list[pa.RecordBatch]], object]
    seal: Step
    drop: Step


def batches(count: int, dimensions: int) -> list[pa.RecordBatch]:
    """Return points as `work` hands them over: texts of about 400 characters, two metadata fields."""
    words = [f"word{i}" for i in range(997)]
    made = []
    for start in range(0, count, 8192):
        size = min(8192, count - start)
        numbers = range(start, start + size)
        texts = [" ".join(words[(i * 31 + j * 17) % 997] for j in range(60)) + f" {i}" for i in numbers]
        made.append(
            backends_points.batch(
                backends_points.directions(size, dimensions, seed=start),
                documents=[f"package.module{i // 3}.function" for i in numbers],
                ordinals=[i % 3 for i in numbers],
                texts=texts,
                metadata=[{"kind": ("class", "function")[i // 3 % 2], "module": f"m{i // 300}"} for i in numbers],
            )
        )
    return made


def rows(piece: pa.RecordBatch) -> Iterator[tuple[object, ...]]:
    return zip(*points.columns(piece), points.vectors(piece), strict=True)


def milvus_vendor(uri: str, dimensions: int) -> Vendor:
    client = pymilvus.MilvusClient(uri)

    def create(name: str) -> None:
        kinds, schema = pymilvus.DataType, pymilvus.MilvusClient.create_schema(auto_id=False)
        schema.add_field("id", kinds.VARCHAR, is_primary=True, max_length=32)
        for field, length in LENGTHS.items():
            schema.add_field(field, kinds.VARCHAR, max_length=length)
        schema.add_field("ordinal", kinds.INT32)
        schema.add_field("sequence", kinds.INT64)
        schema.add_field("metadata", kinds.JSON)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dimensions)
        client.create_collection(name, schema=schema, consistency_level="Strong")

    def send(name: str, piece: pa.RecordBatch) -> None:
        found = []
        for point_id, document, ordinal, text, key, metadata, digest, sequence, recipe, vector in rows(piece):
            found.append(
                {
                    "id": point_id.hex(),
                    "document": document,
                    "ordinal": ordinal,
                    "text": text,
                    "content_key": key.hex(),
                    "metadata": json.loads(metadata),
                    "metadata_digest": digest.hex(),
                    "sequence": sequence,
                    "recipe": recipe,
                    "vector": vector,
                }
            )
        client.upsert(name, found)

    def load(name: str, content: list[pa.RecordBatch]) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda piece: send(name, piece), points.pieces(content, 4 << 20, 2000)))

    def seal(name: str) -> None:
        index = client.prepare_index_params()
        parameters = {"M": M, "efConstruction": EF_CONSTRUCT}
        index.add_index("vector", index_type="HNSW", metric_type="COSINE", params=parameters)
        client.flush(name)
        client.create_index(name, index)
        client.load_collection(name)

    return Vendor(create, load, seal, client.drop_collection)


def pgvector_vendor(server: postgres_server.Server, dimensions: int) -> Vendor:
    place = f"host={server.host} port={server.port} dbname={server.database}"
    client = psycopg.connect(f"{place} user={server.username} password={server.password}", autocommit=True)
    client.execute("CREATE EXTENSION IF NOT EXISTS vector")
    pgvector.psycopg.register_vector(client)

    def create(name: str) -> None:
        client.execute(
            f"CREATE TABLE {name} (point_id uuid PRIMARY KEY, document text, ordinal int, text text, "
            "content_key bytea, metadata jsonb, metadata_digest bytea, sequence bigint, recipe text, "
            f"embedding vector({dimensions}))"
        )

    def load(name: str, content: list[pa.RecordBatch]) -> None:
        kinds = ["uuid", "text", "int4", "text", "bytea", "jsonb", "bytea", "int8", "text", "vector"]
        for piece in points.pieces(content, 8 << 20, 65536):
            with client.cursor().copy(f"COPY {name} FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(kinds)
                for row in rows(piece):
                    # It is JSON already: parsing it and writing it again would be work that nobody asked for.
                    metadata = psycopg.types.json.Jsonb(row[5], str)
                    copy.write_row((uuid.UUID(bytes=row[0]), *row[1:5], metadata, *row[6:]))

    def seal(name: str) -> None:
        with client.transaction():
            client.execute("SET LOCAL maintenance_work_mem = '1GB'")
            client.execute(f"CREATE INDEX ON {name} USING gin (metadata jsonb_path_ops)")
            options = f"WITH (m = {M}, ef_construction = {EF_CONSTRUCT})"
            client.execute(f"CREATE INDEX ON {name} USING hnsw (embedding vector_cosine_ops) {options}")
            client.execute(f"ANALYZE {name}")

    return Vendor(create, load, seal, lambda name: client.execute(f"DROP TABLE {name}"))


def qdrant_vendor(url: str, dimensions: int) -> Vendor:
    client = qdrant_client.QdrantClient(url=url, prefer_grpc=True, check_compatibility=False, timeout=60)

    def create(name: str) -> None:
        client.create_collection(
            name,
            vectors_config=models.VectorParams(size=dimensions, distance=models.Distance.COSINE),
            hnsw_config=models.HnswConfigDiff(m=M, ef_construct=EF_CONSTRUCT),
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
        )
        client.create_payload_index(name, "metadata.kind", models.PayloadSchemaType.KEYWORD, wait=True)

    def load(name: str, content: list[pa.RecordBatch]) -> None:
        def found() -> Iterator[models.PointStruct]:
            for piece in content:
                for point_id, document, ordinal, text, key, metadata, digest, sequence, recipe, vector in rows(piece):
                    payload = {"document": document, "ordinal": ordinal, "text": text, "content_key": key.hex()}
                    payload |= {"metadata": json.loads(metadata), "metadata_digest": digest.hex()}
                    payload |= {"sequence": sequence, "recipe": recipe}
                    yield models.PointStruct.model_construct(
                        id=str(uuid.UUID(bytes=point_id)), vector=vector.tolist(), payload=payload
                    )

        client.upload_points(name, found(), batch_size=512, parallel=4, wait=True)

    def seal(name: str) -> None:
        client.update_collection(name, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=10_000))
        while True:
            seen = client.get_collection(name)
            if seen.status == models.CollectionStatus.GREEN and seen.indexed_vectors_count:
                return
            time.sleep(0.5)

    return Vendor(create, load, seal, client.delete_collection)


@contextlib.contextmanager
def opened(kind: str, dimensions: int) -> Iterator[tuple[ports.Backend, Vendor]]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if kind == "milvus":
            uri = stack.enter_context(milvus_server.start_milvus(folder))
            spec = engines.Backend(milvus=engines.MilvusBackend(uri=uri))
            yield registry.open_backend(spec, {}, LOCAL), milvus_vendor(uri, dimensions)
        elif kind == "pgvector":
            server = stack.enter_context(postgres_server.start_postgres(folder))
            found = engines.PgvectorBackend(
                host=server.host,
                port=server.port,
                database=server.database,
                credentials_ref=base.SecretReference(name="database"),
                tls="Disable",
            )
            credentials = {"username": server.username, "password": server.password}
            backend = registry.open_backend(engines.Backend(pgvector=found), credentials, LOCAL)
            yield backend, pgvector_vendor(server, dimensions)
        else:
            url = os.environ["QDRANT_URL"]
            spec = engines.Backend(qdrant=engines.QdrantBackend(url=url))
            yield registry.open_backend(spec, {}, LOCAL), qdrant_vendor(url, dimensions)


def ours(backend: ports.Backend, dimensions: int) -> Vendor:
    """Return our own way as the same steps."""
    return Vendor(
        lambda name: backend.create(ports.IndexSpec(name, dimensions, M, EF_CONSTRUCT, MARKER)),
        backend.load,
        backend.seal,
        backend.drop,
    )


def stored(folder: str, content: list[pa.RecordBatch], dimensions: int) -> indexing.Index:
    """Put the points into a store as a snapshot; return an index of it that has no database yet."""
    space = recipes.Space("openai", "model", "r1", dimensions)
    recipe = recipes.Recipe(space, "{text}", ("kind", "module"), recipes.Chunker("words", "1", 256, 0))
    root = store.Store(folder)
    dataset = root.dataset("bench", "load")
    texts = ("text_digest", "cut_digest")
    chunks = [_with(batch, schema.CHUNKS, **dict.fromkeys(texts, batch["content_key"])) for batch in content]
    version = dataset.chunks(recipe.key).write(None, pa.array([], pa.string()), iter(chunks))
    for batch in content:
        names = {"space": space.key, "model": space.model, "revision": space.revision, "recipe": recipe.key}
        columns = {name: pa.repeat(value, batch.num_rows) for name, value in names.items()}
        columns["embedded_at"] = pa.repeat(pa.scalar(NOW, pa.timestamp("us", tz="UTC")), batch.num_rows)
        dataset.vectors(space.document_side, dimensions).append(_with(batch, schema.vectors(dimensions), **columns))
    count = sum(batch.num_rows for batch in content)
    dataset.publish_embedded(
        records.EmbeddedSnapshot(
            version="v1",
            recipe=recipe.key,
            space=space.key,
            snapshot=1,
            sequence=1,
            chunks_version=version,
            documents=count,
            rows=count,
            digest=sum(map(digests.Digest.of, content), digests.Digest()).hex(recipe.key),
            changes={},
            embedded=count,
            reused=0,
            tokens=0,
            model=space.model,
            revision=space.revision,
            created_at=NOW,
        )
    )
    spec = ports.IndexSpec("", dimensions, M, EF_CONSTRUCT, MARKER)
    nothing = memory.Memory()
    return indexing.Index(spec, nothing, dataset, recipe, root.log("bench"), lambda: NOW, progress.nowhere)


def _with(batch: pa.RecordBatch, form: pa.Schema, **columns: pa.Array) -> pa.RecordBatch:
    """Return a batch of another schema, of which columns that are not given are those of the same name."""
    names = [field.name for field in form]
    return pa.RecordBatch.from_arrays([columns[n] if n in columns else batch[n] for n in names], schema=form)


def built(whole: indexing.Index, backend: ports.Backend, name: str) -> float:
    """Return the seconds of a whole build from the store, verification included."""
    spec = dataclasses.replace(whole.spec, name=name)
    began = time.perf_counter()
    indexing.build(dataclasses.replace(whole, spec=spec, backend=backend), 1, indexing.Pace(None))
    taken = time.perf_counter() - began
    backend.drop(name)
    return taken


def timed(way: Vendor, name: str, content: list[pa.RecordBatch]) -> tuple[float, float]:
    """Return the seconds of loading, and of loading and indexing."""
    way.create(name)
    began = time.perf_counter()
    way.load(name, content)
    loaded = time.perf_counter() - began
    way.seal(name)
    sealed = time.perf_counter() - began
    way.drop(name)
    return loaded, sealed


def measure(kind: str, content: list[pa.RecordBatch], dimensions: int, rounds: int, whole: indexing.Index) -> str:
    count = sum(batch.num_rows for batch in content)
    taken: dict[str, list[tuple[float, float]]] = {"ours": [], "vendor": []}
    builds: list[float] = []
    with opened(kind, dimensions) as (backend, vendor):
        ways = {"ours": ours(backend, dimensions), "vendor": vendor}
        for each, way in ways.items():
            timed(way, f"warm_{each}", [content[0].slice(0, 1_000)])
        for turn in range(rounds):
            for each in sorted(ways, reverse=bool(turn % 2)):
                taken[each].append(timed(ways[each], f"bench_{each}_{turn}", content))
            builds.append(built(whole, backend, f"bench_build_{turn}"))
        backend.close()
    found = [f"| {kind} | {count:,} x {dimensions} "]
    for part in (0, 1):
        mine, theirs = ([run[part] for run in taken[each]] for each in ("ours", "vendor"))
        ratio = statistics.median(their / my for my, their in zip(mine, theirs, strict=True))
        rates = [count / statistics.median(seconds) for seconds in (mine, theirs)]
        found.append(f"| {rates[0]:,.0f} | {rates[1]:,.0f} | {ratio:.2f} ")
    return "".join(found) + f"| {count / statistics.median(builds):,.0f} |"


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    count, dimensions, rounds = [*numbers, *(8_000, 256, 3)[len(numbers) :]]
    kinds = [argument for argument in sys.argv[1:] if not argument.isdigit()] or ["milvus", "pgvector"]
    if os.environ.get("QDRANT_URL") and "qdrant" not in kinds and not sys.argv[len(numbers) + 1 :]:
        kinds.append("qdrant")
    content = batches(count, dimensions)
    assert np.isfinite(points.vectors(content[0])).all()
    columns = (
        "load, rows/s | vendor | ratio | load and index, rows/s | vendor | ratio | from the store, verified, rows/s"
    )
    print(f"| engine | rows | {columns} |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        whole = stored(folder, content, dimensions)
        for kind in kinds:
            print(measure(kind, content, dimensions, rounds, whole), flush=True)


if __name__ == "__main__":
    main()
