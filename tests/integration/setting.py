"""An operator with a database and a model that remembers what it was sent: what the tests that disturb it share."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from tests.integration.databases import Database
from tests.integration.operator_process import Object, Stage
from tests.servers.openai_server import MODEL

from pointsman.core import digests, drift
from pointsman.embedders.wordllama import Wordllama
from pointsman.errors import Retryable

PREFIX = "passage: "


@dataclass
class Model:
    """A model that remembers the texts that reach it, one call at a time."""

    sent: list[str] = field(default_factory=list)
    texts_per_second: float = float("inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        with self._lock:
            self.sent.extend(texts)
            time.sleep(len(texts) / self.texts_per_second)
            return Wordllama().embed(texts)

    def documents(self) -> list[str]:
        """Return the texts of documents that reached it, prefixes included."""
        probes = {prefix + probe for probe in drift.PROBES for prefix in ("", PREFIX)}
        return [text for text in list(self.sent) if text not in probes]


@dataclass(frozen=True)
class Setting:
    """What the stories happen on."""

    stage: Stage
    database: Database
    model: Model
    url: str

    def version(self, name: str) -> Object:
        """Return v7, or v8, which sends every text with a prefix and so anew."""
        choice: Object = {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 256}}
        prefix = {"documentPrefix": PREFIX} if name == "v8" else {}
        text = {"template": "{title}. {text}", "metadataFields": ["year"]}
        return {"name": name, "model": {**choice, **prefix}, "text": text}

    def declare(self, name: str, rows: list[Object]) -> None:
        """Declare a dataset of v7."""
        endpoints = [{"name": "main", "baseURL": self.url}]
        self.stage.declare(name, self.stage.write(rows, name), self.version("v7"), endpoints=endpoints)

    def stored(self, name: str) -> set[str]:
        """Return the texts that reached the model and whose vectors are stored."""
        while True:
            try:
                return self._stored(name)
            except Retryable:
                # A worker has just gathered the files that were being read.
                continue

    def _stored(self, name: str) -> set[str]:
        found: set[str] = set()
        dataset = self.stage.store().dataset(self.stage.namespace, name)
        for recipe in dataset.pins().values():
            prefix, side = recipe.space.document_prefix, recipe.space.document_side
            # A vector's key is that of the text as it was sent, prefix included.
            texts = {text for text in self.model.documents() if text.startswith(PREFIX) == bool(prefix)}
            keys = {digests.content_key(side, text): text for text in texts}
            missing = dataset.vectors(side, recipe.space.dimensions).missing(digests.content_keys(side, list(texts)))
            found |= {keys[key] for key in keys.keys() - set(missing.to_pylist())}
        return found
