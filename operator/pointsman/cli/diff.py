"""What differs between two states of a dataset, counted by cause, read from the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pointsman.api.conditions import Reason
from pointsman.api.dataset import Cause
from pointsman.cli import points, resources, session
from pointsman.cli.points import Point
from pointsman.cli.session import Session
from pointsman.cluster.resources import DATASET
from pointsman.errors import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from pointsman.store.dataset import DatasetStore


@dataclass(frozen=True, slots=True)
class Difference:
    """Documents by cause, and how to get the ids of one cause."""

    old: str
    new: str
    counts: dict[Cause, int]
    ids: Callable[[Cause], pa.Array]


def run(current: Session, reference: str, old: str, new: str, ids: str | None, as_json: bool, store: str | None) -> int:
    """Print the counts, or the ids of one cause; return the exit code."""
    name = resources.name_of(reference, DATASET)
    cause = None if ids is None else _cause(ids)
    dataset = current.dataset(name, store)
    one, other = points.parse(old), points.parse(new)
    if (one.version is None) != (other.version is None):
        raise Terminal(Reason.INVALID_SPEC, f"{old} and {new} cannot be compared; wanted two versions or two snapshots")
    found = _contents(dataset, name, one, other) if one.version is None else _versions(dataset, name, one, other)
    out = session.console()
    if as_json:
        told: dict[str, Any] = {"dataset": name, "from": found.old, "to": found.new, "changes": found.counts}
        if cause is not None:
            told["ids"] = {cause: found.ids(cause).to_pylist()}
        out.print(json.dumps(told, ensure_ascii=False), soft_wrap=True)
    elif cause is not None:
        for document in found.ids(cause):
            out.print(document.as_py(), soft_wrap=True)
    else:
        _print(found)
    return 0


def _versions(dataset: DatasetStore, name: str, one: Point, other: Point) -> Difference:
    from pointsman.core import changes

    recipe_a, a = points.embedded(dataset, name, one)
    recipe_b, b = points.embedded(dataset, name, other)
    before = dataset.chunks(recipe_a.key).keys(a.chunks_version, changes.CHUNK_COLUMNS)
    after = dataset.chunks(recipe_b.key).keys(b.chunks_version, changes.CHUNK_COLUMNS)
    # A query prefix changes no document's vector: only the document side decides whether documents were re-embedded.
    same_space = recipe_a.space.document_side == recipe_b.space.document_side
    found = changes.chunks(before, after, same_space)
    return Difference(f"{one.version}@{a.snapshot}", f"{other.version}@{b.snapshot}", found.counts, found.ids)


def _contents(dataset: DatasetStore, name: str, one: Point, other: Point) -> Difference:
    from pointsman.core import changes

    a = points.snapshot(dataset, name, one.snapshot or 0)
    b = points.snapshot(dataset, name, other.snapshot or 0)
    found = changes.documents(dataset.corpus.keys(a.corpus_version), dataset.corpus.keys(b.corpus_version))
    listed = {Cause.ADDED: found.added, Cause.DELETED: found.deleted, Cause.EDITED: found.edited}

    def ids(cause: Cause) -> pa.Array:
        if cause not in listed:
            wanted = "added, deleted or edited"
            raise Terminal(Reason.INVALID_SPEC, f"two snapshots are compared without {cause}; wanted {wanted}")
        return listed[cause]

    counts = {cause: len(found_ids) for cause, found_ids in listed.items()} | {Cause.UNCHANGED: found.unchanged}
    return Difference(f"@{a.number}", f"@{b.number}", counts, ids)


def _cause(text: str) -> Cause:
    """Read a cause without minding case and dashes: `re-embedded` is `reEmbedded`."""
    found = next((cause for cause in Cause if cause.lower() == text.lower().replace("-", "")), None)
    if found is None:
        raise Terminal(Reason.INVALID_SPEC, f"{text} is no cause of a change; wanted {', '.join(Cause)}")
    return found


def _print(found: Difference) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(f"{found.old} -> {found.new}")
    table.add_column("DOCUMENTS", justify="right")
    for cause, count in found.counts.items():
        table.add_row(cause, f"{count:,}")
    session.console().print(table)
