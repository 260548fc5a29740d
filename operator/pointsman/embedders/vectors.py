"""Are these vectors fit to be compared? One check for every embedder, so that none lets through what another
refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pointsman.api.conditions import Reason
from pointsman.errors import Terminal
from pointsman.ports import Vectors

MOST_REFUSED: Final = 20
"""Texts that a model may refuse before it is held to refuse all of them."""


def check_texts(texts: Sequence[str]) -> None:
    """Refuse empty texts, for which no model has a vector; raises Terminal(MODEL_INVALID)."""
    empty = sum(not text for text in texts)
    if empty:
        raise Terminal(
            Reason.MODEL_INVALID, f"{empty} of {len(texts)} texts are empty, wanted one character at least in each"
        )


def unit(vectors: npt.NDArray[np.floating[Any]]) -> Vectors:
    """Return vectors of shape (n, dimensions) scaled to unit length, as float32.

    Raises Terminal(MODEL_INVALID), saying how many rows are zero or not finite: such a row is at no distance
    from anything, and one of them in an index is found by no query and noticed by nobody.
    """
    # In double precision the squares of any float32 neither overflow nor vanish.
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    if not np.isfinite(lengths).all():
        found = int((~np.isfinite(lengths)).sum())
        raise Terminal(
            Reason.MODEL_INVALID,
            f"{found} of {len(vectors)} vectors are not finite, wanted numbers only; ask the model's owner",
        )
    if not lengths.all():
        found = int((lengths == 0).sum())
        raise Terminal(
            Reason.MODEL_INVALID,
            f"{found} of {len(vectors)} vectors are zero, wanted a direction in each; ask the model's owner",
        )
    return np.asarray(vectors / lengths[:, np.newaxis], dtype=np.float32)
