"""What changed between two snapshots, or between two versions: by document and cause, and by point.

Decided from our own key columns, never from a table format's change feed. A document is known by the id of its first
chunk, so documents are compared as 16-byte keys and only one row of each is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pointsman.api.dataset import Cause
from pointsman.core import keys

DOCUMENT_COLUMNS = ("id", "digest")
"""What `documents` reads of the corpus."""
CHUNK_COLUMNS = ("point_id", "document", "ordinal", "text_digest", "cut_digest", "metadata_digest")
"""What `chunks` reads of the chunks; `document` only for the ids."""
POINT_COLUMNS = ("point_id", "document", "content_key", "metadata_digest")
"""What `points` reads of the chunks; `document` only for `PointChanges.documents`."""


@dataclass(frozen=True, slots=True)
class DocumentChanges:
    """How the corpus of one snapshot differs from that of another. Ids stand in the order of their snapshot."""

    added: pa.Array
    deleted: pa.Array
    edited: pa.Array
    unchanged: int


def documents(old: pa.Table | None, new: pa.Table) -> DocumentChanges:
    """Compare two corpora by their columns `id`, unique in each, and `digest`; `old` is None before the first."""
    ids = _whole(new["id"])
    if old is None:
        nothing = ids.slice(0, 0)
        return DocumentChanges(added=ids, deleted=nothing, edited=nothing, unchanged=0)
    old_ids = _whole(old["id"])
    before = pc.fill_null(pc.index_in(ids, value_set=old_ids), -1).to_numpy(zero_copy_only=False)
    is_known = before >= 0
    is_kept = np.zeros(len(old_ids), dtype=bool)
    is_kept[before[is_known]] = True
    differs = _differs(old["digest"], new["digest"], before)
    return DocumentChanges(
        added=ids.filter(pa.array(~is_known)),
        deleted=old_ids.filter(pa.array(~is_kept)),
        edited=ids.filter(pa.array(differs)),
        unchanged=int(np.count_nonzero(is_known & ~differs)),
    )


class Changes:
    """Documents by the cause of their change, each once, at its strongest cause.

    From strong to weak: added or deleted; edited (the rendered text differs); rechunked (the same text, cut
    otherwise); re-embedded (the same chunks in another space); metadata only; unchanged.
    """

    def __init__(self, old: pa.Table | None, new: pa.Table, of_new: dict[Cause, keys.Mask], deleted: keys.Mask) -> None:
        self._old = old
        self._new = new
        self._of_new = of_new
        self._deleted = deleted

    @cached_property
    def counts(self) -> dict[Cause, int]:
        """How many documents changed for each cause; every cause is there."""
        counts = {cause: int(np.count_nonzero(mask)) for cause, mask in self._of_new.items()}
        return {cause: counts.get(cause, int(np.count_nonzero(self._deleted))) for cause in Cause}

    def ids(self, cause: Cause) -> pa.Array:
        """Return the ids of the documents that changed for a cause, in the order of their snapshot."""
        if cause is Cause.DELETED:
            return pa.array([], pa.string()) if self._old is None else _ids(self._old, self._deleted)
        return _ids(self._new, self._of_new[cause])


def chunks(old: pa.Table | None, new: pa.Table, same_space: bool) -> Changes:
    """Compare two tables of chunks by document.

    The tables hold `CHUNK_COLUMNS`, of all chunks or only those of ordinal 0. `old` is None before the first. With
    `same_space` False every document that is the same otherwise counts as re-embedded.
    """
    old, new = None if old is None else _first_chunks(old), _first_chunks(new)
    nobody = np.zeros(new.num_rows, dtype=bool)
    if old is None:
        nothing: dict[Cause, keys.Mask] = {cause: nobody for cause in Cause if cause is not Cause.DELETED}
        return Changes(None, new, nothing | {Cause.ADDED: ~nobody}, np.zeros(0, dtype=bool))
    before = keys.KeyIndex(old["point_id"]).positions(new["point_id"])
    rest = before >= 0
    of_new: dict[Cause, keys.Mask] = {Cause.ADDED: ~rest}
    is_kept = np.zeros(old.num_rows, dtype=bool)
    is_kept[before[rest]] = True
    for cause, column in (
        (Cause.EDITED, "text_digest"),
        (Cause.RECHUNKED, "cut_digest"),
        (Cause.RE_EMBEDDED, None),
        (Cause.METADATA_ONLY, "metadata_digest"),
    ):
        if column is not None:
            of_new[cause] = rest & _differs(old[column], new[column], before)
        else:
            of_new[cause] = nobody if same_space else rest
        rest = rest & ~of_new[cause]
    return Changes(old, new, of_new | {Cause.UNCHANGED: rest}, ~is_kept)


@dataclass(frozen=True, slots=True)
class PointChanges:
    """What to write to an index and what to remove from it, to move it from one snapshot to another."""

    upserts: pa.Array
    """Ids of points that are new or whose content key or metadata differ, in the order of the new snapshot."""
    deletes: pa.Array
    """Ids of points that the new snapshot has not, in the order of the old one."""
    documents: pa.Array
    """The documents that `upserts` belong to, each once; empty where the new table has no column `document`."""


def points(old: pa.Table | None, new: pa.Table) -> PointChanges:
    """Compare two tables of chunks by point: `POINT_COLUMNS`, of all chunks; `old` is None for an empty index."""
    ids = keys.array(new["point_id"])
    if old is None:
        return PointChanges(upserts=ids, deletes=ids.slice(0, 0), documents=_documents(new, None))
    old_ids = keys.array(old["point_id"])
    before = keys.KeyIndex(old_ids).positions(ids)
    is_known = before >= 0
    is_kept = np.zeros(len(old_ids), dtype=bool)
    is_kept[before[is_known]] = True
    differs = ~is_known
    for column in ("content_key", "metadata_digest"):
        differs |= _differs(old[column], new[column], before)
    return PointChanges(
        upserts=ids.filter(pa.array(differs)),
        deletes=old_ids.filter(pa.array(~is_kept)),
        documents=_documents(new, differs),
    )


@dataclass(frozen=True, slots=True)
class Parity:
    """How an index differs from the snapshot that it should hold, as far as a scan shows."""

    upserts: pa.Array
    """Ids of points that are missing, there twice, or of another content key, metadata or recipe."""
    deletes: pa.Array
    """Ids of points that the snapshot has not."""
    foreign: int
    """How many points have no id of ours."""


def parity(scanned: pa.Table, wanted: pa.Table, recipe: str) -> Parity:
    """Compare what a scan found, of `rows.SCANNED`, with a table of chunks: `POINT_COLUMNS`, of all chunks."""
    foreign = scanned["point_id"].null_count
    ours = scanned.filter(pc.is_valid(scanned["point_id"])) if foreign else scanned
    found = points(ours, wanted)
    others = ours.filter(pc.not_equal(ours["recipe"], recipe))["point_id"]
    # Milvus may hold an id twice: one of the two was compared, and the other passed for one to delete.
    differ = keys.KeyIndex(pa.concat_arrays([found.upserts, found.deletes, keys.array(others)]))
    ids = keys.array(wanted["point_id"])
    upserts = ids.filter(pa.array(differ.contains(ids)))
    deletes = found.deletes.filter(pa.array(~keys.KeyIndex(upserts).contains(found.deletes)))
    return Parity(upserts, deletes, foreign)


def _differs(old: pa.ChunkedArray, new: pa.ChunkedArray, before: keys.Positions) -> keys.Mask:
    """Return where a key of `new` differs from the one that stood at `before` in `old`; False where none did."""
    is_known = before >= 0
    if len(old) == 0:
        return np.zeros(len(before), dtype=bool)
    found: keys.Mask = (keys.words(old)[np.where(is_known, before, 0)] != keys.words(new)).any(axis=1)
    return found & is_known


def _first_chunks(table: pa.Table) -> pa.Table:
    is_first = pc.equal(table["ordinal"], 0)
    return table if pc.all(is_first).as_py() in (True, None) else table.filter(is_first)


def _ids(table: pa.Table, mask: keys.Mask) -> pa.Array:
    return _whole(table["document"].filter(pa.array(mask)))


def _documents(table: pa.Table, mask: keys.Mask | None) -> pa.Array:
    if "document" not in table.column_names:
        return pa.array([], pa.string())
    column = table["document"] if mask is None else table["document"].filter(pa.array(mask))
    return pc.unique(column)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
