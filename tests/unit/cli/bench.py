"""A command line whose cluster is in memory, whose clock moves only when it is waited on, and whose store is real."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pointsman.cli import main
from pointsman.cli.session import World
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.resources import Resource
from pointsman.core import digests, rows
from pointsman.core.recipes import Chunker, Recipe, Space
from pointsman.store.dataset import DatasetStore
from pointsman.store.records import EmbeddedSnapshot, Snapshot
from pointsman.store.root import Store

NOON = datetime(2031, 5, 1, 12, tzinfo=UTC)


@dataclass
class Clock:
    """Time that passes only while somebody sleeps; what is planned for a second happens when it comes."""

    seconds: float = 0.0
    planned: dict[int, Callable[[], None]] = field(default_factory=dict)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for second in [second for second in self.planned if second <= self.seconds]:
            self.planned.pop(second)()

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Answer:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.out.splitlines()]


class Wire:
    """The way to the cluster, which may break."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self.failure: Exception | None = None

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        self._check()
        return self._cluster.get(kind, namespace, name)

    def patch(self, kind: str, namespace: str, name: str, patch: Resource) -> Resource:
        self._check()
        return self._cluster.patch(kind, namespace, name, patch)

    def list(self, kind: str, namespace: str | None) -> Sequence[Resource]:
        self._check()
        return self._cluster.list(kind, namespace)

    def create(self, resource: Resource) -> Resource:
        self._check()
        return self._cluster.create(resource)

    def remove(self, kind: str, namespace: str, name: str) -> None:
        self._check()
        self._cluster.remove(kind, namespace, name)

    def user(self) -> str:
        self._check()
        return "ana"

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class Bench:
    """Runs command lines against a cluster and a clock that tests move."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.cluster = MemoryCluster()
        self.wire = Wire(self.cluster)
        self.clock = Clock()
        self.connected: list[tuple[str | None, str | None]] = []
        self._capsys = capsys

    def run(self, *arguments: str) -> Answer:
        def connect(kubeconfig: str | None, context: str | None) -> Any:
            self.connected.append((kubeconfig, context))
            return self.wire

        clock = self.clock
        world = World(connect, Store, clock.now, lambda: clock.seconds, clock.sleep)
        code = main.run(arguments, world)
        written = self._capsys.readouterr()
        return Answer(code, written.out, written.err)

    def apply(self, resource: dict[str, Any], status: dict[str, Any] | None = None) -> None:
        self.cluster.apply(resource)
        if status is not None:
            self.report(resource, status)

    def report(self, resource: dict[str, Any], status: dict[str, Any]) -> None:
        """Write a status as the operator would."""
        meta = resource["metadata"]
        found = self.cluster.get(resource["kind"], meta["namespace"], meta["name"])
        assert found is not None
        version = found["metadata"]["resourceVersion"]
        self.cluster.write_status(resource["kind"], meta["namespace"], meta["name"], status, version)


def dataset(name: str = "papers", namespace: str = "default") -> dict[str, Any]:
    return {"kind": "EmbeddingDataset", "metadata": {"namespace": namespace, "name": name}, "spec": {"versions": []}}


def deployment(
    name: str = "papers", of: str = "papers", version: str = "v8", namespace: str = "default"
) -> dict[str, Any]:
    spec = {"datasetRef": {"name": of}, "version": version}
    return {"kind": "IndexDeployment", "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def condition(kind: str, holds: str, reason: str, message: str, generation: int = 1) -> dict[str, Any]:
    return {
        "type": kind,
        "status": holds,
        "observedGeneration": generation,
        "lastTransitionTime": "2031-05-01T11:00:00Z",
        "reason": reason,
        "message": message,
    }


def goal(holds: str, reason: str, message: str, generation: int = 1) -> list[dict[str, Any]]:
    """Return kstatus's three conditions of which one holds."""
    kinds = ("Ready", "Reconciling", "Stalled")
    return [condition(kind, str(kind == holds), reason, message, generation) for kind in kinds]


V7 = Recipe(Space("wordllama", "wordllama-l2", "r1", 4), "{text}", ("kind",), Chunker("words", "1", 8, 0))
V8 = Recipe(Space("wordllama", "wordllama-l2", "r1", 8), "{text}", ("kind",), Chunker("words", "1", 8, 0))


def fill(folder: Path) -> None:
    """Make a store with two snapshots of `papers`, both embedded as v7 and the second as v8 too.

    From snapshot 1 to 2, `a` stays, `b` is edited, `c` is deleted, `d` is added.
    """
    papers = Store(str(folder)).dataset("default", "papers")
    papers.pin("v7", V7)
    papers.pin("v8", V8)
    before = {"a": "the same", "b": "before", "c": "going"}
    after = {"a": "the same", "b": "after", "d": "coming"}
    first = papers.corpus.write(None, pa.array([], pa.string()), iter([_corpus(before, 1)]))
    second = papers.corpus.write(first, pa.array(["c"]), iter([_corpus({"b": "after", "d": "coming"}, 2)]))
    papers.publish(Snapshot(1, 1, first, 3, "d1", 3, 0, 0, 0, NOON))
    papers.publish(Snapshot(2, 2, second, 3, "d2", 1, 1, 1, 1, NOON + timedelta(minutes=5)))
    base = _embed(papers, "v7", V7, 1, before, None)
    _embed(papers, "v7", V7, 2, after, base)
    _embed(papers, "v8", V8, 2, after, None)


def _corpus(texts: dict[str, str], sequence: int) -> pa.RecordBatch:
    fields = [f'{{"text":"{text}"}}' for text in texts.values()]
    columns = [list(texts), fields, digests.text_digests(fields), [sequence] * len(texts)]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, form.type) for column, form in zip(columns, rows.CORPUS, strict=True)], schema=rows.CORPUS
    )


def _chunks(recipe: Recipe, texts: dict[str, str], sequence: int) -> pa.RecordBatch:
    kind = '{"kind":"paper"}'
    records = [
        {
            "point_id": digests.point_id(document, 0),
            "document": document,
            "ordinal": 0,
            "text": text,
            "content_key": digests.content_key(recipe.space.document_side, text),
            "text_digest": digests.text_digest(text),
            "cut_digest": digests.cut_digest([text]),
            "metadata": kind,
            "metadata_digest": digests.text_digest(kind),
            "sequence": sequence,
        }
        for document, text in texts.items()
    ]
    return pa.RecordBatch.from_pylist(records, schema=rows.CHUNKS)


def _embed(
    papers: DatasetStore,
    version: str,
    recipe: Recipe,
    number: int,
    texts: dict[str, str],
    base: EmbeddedSnapshot | None,
) -> EmbeddedSnapshot:
    batch = _chunks(recipe, texts, number)
    dimensions = recipe.space.dimensions
    table = papers.vectors(recipe.space.document_side, dimensions)
    new = batch.filter(pc.is_in(batch["content_key"], value_set=table.missing(batch["content_key"])))
    table.append(_vectors(recipe, new, number))
    replaced = pa.array([] if base is None else ["a", "b", "c"], pa.string())
    written = papers.chunks(recipe.key).write(None if base is None else base.chunks_version, replaced, iter([batch]))
    record = EmbeddedSnapshot(
        version=version,
        recipe=recipe.key,
        space=recipe.space.key,
        snapshot=number,
        sequence=number,
        chunks_version=written,
        documents=len(texts),
        rows=len(texts),
        digest="00",
        changes={},
        embedded=len(new),
        reused=len(texts) - len(new),
        tokens=0,
        model="wordllama-l2",
        revision="r1",
        created_at=NOON,
    )
    papers.publish_embedded(record)
    return record


def _vectors(recipe: Recipe, batch: pa.RecordBatch, number: int) -> pa.RecordBatch:
    form = rows.vectors(recipe.space.dimensions)
    # The first axis, so that a reader sees at once which text a vector belongs to.
    vectors = np.zeros((len(batch), recipe.space.dimensions), dtype=np.float32)
    for row, text in enumerate(batch["text"].to_pylist()):
        vectors[row, len(text) % recipe.space.dimensions] = 1.0
    columns = {
        "content_key": batch["content_key"],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), recipe.space.dimensions),
        "space": pa.repeat(recipe.space.key, len(batch)),
        "model": pa.repeat("wordllama-l2", len(batch)),
        "revision": pa.repeat("r1", len(batch)),
        "recipe": pa.repeat(recipe.key, len(batch)),
        "embedded_at": pa.array([NOON] * len(batch), form.field("embedded_at").type),
        "sequence": pa.array([number] * len(batch), pa.int64()),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in form.names], schema=form)
