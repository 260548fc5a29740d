"""Could an index answer queries now, and is its model that of the first day? Both are asked with a few fixed texts.

An index that nobody asks can hold all that it should while the model that embeds for it is gone, and one that everybody
asks can be asked by another model than its vectors are of: only asking tells.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pointsman import ports
from pointsman.core import drift
from pointsman.core.recipes import Recipe
from pointsman.plan import measured
from pointsman.store.dataset import DatasetStore
from pointsman.store.log import RecordLog
from pointsman.work import embed


def probe(
    dataset: DatasetStore,
    version: str,
    recipe: Recipe,
    index: str,
    backend: ports.Backend,
    embedder: ports.Embedder,
    log: RecordLog,
    now: Callable[[], datetime],
) -> None:
    """Embed the fixed texts as queries, search the index for each, and write down how many were answered.

    Raises Terminal(MODEL_CHANGED) where the model says that it is another one, and what model and database raise.
    """
    moved = embed.distance(dataset, recipe, embedder)
    vectors = embedder.embed([recipe.space.query_prefix + text for text in drift.PROBES])
    answered = sum(bool(backend.search(index, vector, 1, None)) for vector in vectors)
    found = log.read()
    record = measured.Probe(index, version, len(drift.PROBES), answered, moved, now())
    log.write(measured.to_json(record), after=0 if found is None else found.revision)
