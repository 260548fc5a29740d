"""What names a point, a text and the content of a whole index: blake2b, and sums that can be kept up to date.

Two indexes hold the same exactly when the digests over their points agree, whatever order they were written in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pointsman.core import keys, rows

BUCKETS = 256
_SIZE = 16
# Domains keep a digest made for one purpose from ever equalling one made for another.
_POINT = b"point"
_TEXT = b"text"
_CUT = b"cut"


def point_id(document: str, ordinal: int) -> bytes:
    """Return the 16-byte id of a document's chunk; the same on every database and in every release."""
    name = ordinal.to_bytes(4, "little") + document.encode()
    return hashlib.blake2b(name, digest_size=_SIZE, person=_POINT).digest()


def content_key(document_side: str, text: str) -> bytes:
    """Return the 16-byte key of a text's vector, from the document side of its space and the exact text sent."""
    return _content(document_side, text.encode())


def text_digest(text: str) -> bytes:
    """Return the 16-byte digest of a text."""
    return hashlib.blake2b(text.encode(), digest_size=_SIZE, person=_TEXT).digest()


def cut_digest(texts: Iterable[str]) -> bytes:
    """Return the 16-byte digest of the texts that a document was cut into, in order."""
    whole = hashlib.blake2b(digest_size=_SIZE, person=_CUT)
    for text in texts:
        encoded = text.encode()
        # The length keeps ("ab", "c") from ("a", "bc").
        whole.update(len(encoded).to_bytes(8, "little"))
        whole.update(encoded)
    return whole.digest()


def point_ids(documents: pa.Array | Sequence[str], ordinals: pa.Array | Sequence[int]) -> pa.FixedSizeBinaryArray:
    """Return `point_id` of each pair, as `rows.KEY`."""
    pairs = zip(_values(documents), _values(ordinals), strict=True)
    return pa.array([point_id(document, ordinal) for document, ordinal in pairs], rows.KEY)


def content_keys(document_side: str, texts: pa.Array | Sequence[str]) -> pa.FixedSizeBinaryArray:
    """Return `content_key` of each text, as `rows.KEY`."""
    return pa.array([_content(document_side, text.encode()) for text in _values(texts)], rows.KEY)


def text_digests(texts: pa.Array | Sequence[str]) -> pa.FixedSizeBinaryArray:
    """Return `text_digest` of each text, as `rows.KEY`."""
    return pa.array([text_digest(text) for text in _values(texts)], rows.KEY)


class Digest:
    """A digest of a set of rows that does not depend on their order and can be added to and taken from.

    Each row falls into one of 256 buckets by its first key, and each bucket is the sum, modulo 2^64, of a hash of
    its rows: so the digest of a snapshot is that of the one before, plus what came, less what went. It finds
    accidents and edits by hand; it does not withstand someone who can choose digests.
    """

    __slots__ = ("_sums",)

    def __init__(self, sums: npt.NDArray[np.uint64] | None = None) -> None:
        self._sums = np.zeros(BUCKETS, dtype=np.uint64) if sums is None else sums

    @classmethod
    def of(cls, presence: pa.RecordBatch | pa.Table) -> Digest:
        """Return the digest of points: rows with the columns of `rows.PRESENCE`, and any others."""
        return cls._of_columns([presence.column(name) for name in rows.PRESENCE.names])

    @classmethod
    def of_documents(cls, documents: pa.RecordBatch | pa.Table) -> Digest:
        """Return the digest of documents: rows with the columns `id` and `digest` of `rows.CORPUS`."""
        ids = text_digests(documents.column("id"))
        return cls._of_columns([ids, documents.column("digest")])

    @classmethod
    def _of_columns(cls, columns: Sequence[pa.Array | pa.ChunkedArray]) -> Digest:
        first = keys.words(columns[0])
        hashes = np.zeros(len(first), dtype=np.uint64)
        for column in columns:
            # Each word is folded in and scrambled before the next, so that no swap of words between columns or
            # rows leaves the sum as it was.
            for word in keys.words(column).T:
                hashes = _scrambled(hashes ^ word)
        sums = np.zeros(BUCKETS, dtype=np.uint64)
        np.add.at(sums, (first[:, 0] & np.uint64(BUCKETS - 1)).astype(np.intp), hashes)
        return cls(sums)

    def __add__(self, other: Digest) -> Digest:
        return Digest(self._sums + other._sums)

    def __sub__(self, other: Digest) -> Digest:
        return Digest(self._sums - other._sums)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Digest) and bool((self._sums == other._sums).all())

    __hash__ = None  # type: ignore[assignment]

    def hex(self, recipe: str = "") -> str:
        """Return 32 hexadecimal characters over all buckets and, where one is given, the recipe's key."""
        whole = hashlib.blake2b(self._sums.astype("<u8").tobytes(), digest_size=_SIZE)
        whole.update(recipe.encode())
        return whole.hexdigest()


def _content(document_side: str, text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_SIZE, key=document_side.encode()).digest()


def _values(column: pa.Array | pa.ChunkedArray | Sequence[Any]) -> Sequence[Any]:
    if isinstance(column, pa.Array | pa.ChunkedArray):
        values: list[Any] = column.to_pylist()
        return values
    return column


def _scrambled(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the splitmix64 finaliser of each value (Steele, Lea and Flood, OOPSLA 2014, figure 19)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
