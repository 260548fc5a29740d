"""The rows that travel between source, store and database, as Arrow schemas, and the cursor of an index."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

KEY = pa.binary(16)
"""A 16-byte blake2b digest."""

DOCUMENTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        # All fields of the source's row but the id, as canonical JSON (sorted keys, UTF-8, no spaces).
        pa.field("fields", pa.string(), nullable=False),
    ]
)
"""What a source yields."""

CORPUS = pa.schema(
    [
        *DOCUMENTS,
        # blake2b-16 of `fields`.
        pa.field("digest", KEY, nullable=False),
        # The entry of the change log that last wrote the document.
        pa.field("sequence", pa.int64(), nullable=False),
    ]
)
"""What the corpus keeps of each document."""

CHUNKS = pa.schema(
    [
        # Deterministic, from the document's id and the ordinal.
        pa.field("point_id", KEY, nullable=False),
        pa.field("document", pa.string(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        # blake2b-16 of the document side of the space and the exact text sent.
        pa.field("content_key", KEY, nullable=False),
        # blake2b-16 of the document's whole rendered text; equal on all chunks of a document.
        pa.field("text_digest", KEY, nullable=False),
        # blake2b-16 over the texts of all the document's chunks; equal on all chunks of a document.
        pa.field("cut_digest", KEY, nullable=False),
        # The metadata fields as a canonical JSON object, and its blake2b-16.
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("metadata_digest", KEY, nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
    ]
)
"""The rows of one recipe: what an index holds, but for the vectors."""


def vectors(dimensions: int) -> pa.Schema:
    """Return the schema of a table of vectors: one row per text ever embedded in a space, with its provenance."""
    return pa.schema(
        [
            pa.field("content_key", KEY, nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
            pa.field("space", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("revision", pa.string(), nullable=False),
            pa.field("recipe", pa.string(), nullable=False),
            pa.field("embedded_at", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("sequence", pa.int64(), nullable=False),
        ]
    )


def points(dimensions: int) -> pa.Schema:
    """Return the schema of the points that are written to an index: chunks joined with their vectors."""
    return pa.schema(
        [
            *(CHUNKS.field(name) for name in POINT_COLUMNS),
            RECIPE,
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
        ]
    )


POINT_COLUMNS = (
    "point_id",
    "document",
    "ordinal",
    "text",
    "content_key",
    "metadata",
    "metadata_digest",
    "sequence",
)
"""What a point has of its chunk."""

RECIPE = pa.field("recipe", pa.string(), nullable=False)
"""The key of the recipe that a point was made by: a chunk has none, as each recipe has a table of its own."""

PRESENCE = pa.schema([CHUNKS.field(name) for name in ("point_id", "content_key", "metadata_digest")])
"""The keys of a point, over which snapshots are digested."""

SCANNED = pa.schema([PRESENCE.field("point_id").with_nullable(True), *list(PRESENCE)[1:], RECIPE])
"""What a scan of an index returns of each point, and what parity is decided from.

The id is null where it is none of ours: only somebody else writes such a point.
"""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """How far an index has come: the snapshot it was loaded from or moved to, and the change log's sequence there."""

    snapshot: int
    sequence: int
