"""The embedded model: static word vectors from the wheel of wordllama, without an endpoint and without a
download.

A text's vector is the sum of its tokens' vectors, scaled to unit length; of the 256 dimensions the first 64
or 128 may be kept. The tokenizer spells what it does not know in bytes, each of which has a vector, so that
emoji, rare scripts and control characters all have a direction: only the empty text has none.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from pointsman.api.conditions import Reason
from pointsman.embedders import vectors
from pointsman.errors import Retryable
from pointsman.ports import Finished, Identity, Vectors, nobody

MODEL: Final = "l2_supercat"
FULL_DIMENSIONS: Final = 256
_PIECE: Final = 1 << 20
_BATCH: Final = 1024
"""Texts that are tokenized in one call: enough for the tokenizer's threads, and no more tokens in memory than
that."""


@functools.cache
def revision() -> str:
    """Return a digest of the model's weights and tokenizer in the installed wheel: 16 hexadecimal characters.

    Read once per process, without loading the model.
    """
    digest = hashlib.sha256()
    for name in (f"weights/{MODEL}_{FULL_DIMENSIONS}.safetensors", f"tokenizers/{MODEL}_tokenizer_config.json"):
        # A piece at a time: every thread of the operator asks for it first at the same moment.
        with (_folder() / name).open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()[:16]


class Wordllama:
    """An embedder of `dimensions` 64, 128 or 256. Safe to use from many threads."""

    def __init__(self, dimensions: int = FULL_DIMENSIONS) -> None:
        model = _model()
        self._tokenizer = model.tokenizer
        self._table = np.ascontiguousarray(model.embedding[:, :dimensions], dtype=np.float32)
        self._identity = Identity(MODEL, revision(), dimensions)
        self._is_closed = False

    def identity(self) -> Identity:
        """Return the model's name and the digest of its files."""
        return self._identity

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        """Embed texts, in order, as unit vectors of shape (len(texts), dimensions); all of them are one part.

        A text's vector does not depend on what it is embedded with. Raises Terminal(MODEL_INVALID) for empty
        texts.
        """
        if self._is_closed:
            raise Retryable(Reason.MODEL_UNREACHABLE, "the model was closed; open it again")
        vectors.check_texts(texts)
        sums = np.empty((len(texts), self._identity.dimensions), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            # Our own pooling, not the library's: that pads each batch to its longest text, which costs up to
            # four times the time and, with one very long document, gigabytes.
            for row, tokens in enumerate(self._tokenizer.encode_batch_fast(batch, add_special_tokens=False), start):
                self._table.take(tokens.ids, axis=0).sum(axis=0, out=sums[row])
        found = vectors.unit(sums)
        finished(0, found)
        return found

    def close(self) -> None:
        """Refuse further work."""
        self._is_closed = True


def _folder() -> Path:
    # Found without importing the package, which takes most of a second.
    found = importlib.util.find_spec("wordllama")
    assert found is not None and found.origin is not None, "wordllama is a dependency of this package"
    return Path(found.origin).parent


@functools.cache
def _model() -> Any:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    import wordllama

    # The library configures the root logger when it is imported; how we log is not its to decide.
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
    root.setLevel(level)
    model = wordllama.WordLlama.load(config=MODEL, dim=FULL_DIMENSIONS, cache_dir=_folder(), disable_download=True)
    model.tokenizer.no_padding()
    return model
