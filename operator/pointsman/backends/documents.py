"""Which documents answer a query? An index finds points; people ask for documents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pointsman import ports
from pointsman.core import filters

OVER_FETCH = 3
"""The first search asks for so many points per document wanted."""
MOST_POINTS = 16_384
"""The most points that one search may ask for: Milvus's limit."""


def top_documents(
    backend: ports.Backend,
    name: str,
    vector: npt.NDArray[np.float32],
    k: int,
    where: filters.Filter | None = None,
) -> list[ports.Hit]:
    """Return the best point of each of the `k` nearest documents, best first.

    Asks for more points until `k` documents are among them or all points were seen, which only documents of very
    many chunks make slow; fewer than `k` come back where the index has no more, or none among the 16,384 nearest.
    """
    limit = min(MOST_POINTS, OVER_FETCH * k)
    while True:
        hits = backend.search(name, vector, limit, where)
        best: dict[str, ports.Hit] = {}
        for hit in hits:
            best.setdefault(hit.document, hit)
        if len(best) >= k or len(hits) < limit or limit == MOST_POINTS:
            return list(best.values())[:k]
        limit = min(MOST_POINTS, 4 * limit)
