"""Is the model that answers today the one that answered when its vectors were first stored?

A provider that changes a model under the same name changes nothing that can be seen from outside: every
request still succeeds, and every comparison between old and new vectors is wrong. So a few fixed texts are
embedded again before each snapshot and compared with their vectors of the first day. This module knows the
texts and the comparison; who embeds them and where the first vectors are kept is not its business.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

LIMIT: Final = 0.01
"""The largest cosine distance that is still the same model. Batch sizes and hardware move vectors by about
1e-4 at 16-bit precision; retrained and replaced models by 0.05 and far more."""

WORST: Final = 2.0
"""The largest cosine distance there is; what cannot be compared at all counts as this far."""

# Vectors of these texts are pinned in every store for as long as it lives: an edit here would look like a
# changed model everywhere at once. They differ in length, language, script and kind, because a swapped
# tokenizer, a lost prefix or a lower precision shows on some kinds of text only.
PROBES: Final[tuple[str, ...]] = (
    "railway",
    "The signalman set the points before the night train arrived.",
    "How do I reset my password?",
    "not good",
    "Total due: 1,249.50 EUR by 31/12, invoice no. 2024-00731",
    "def add(a: int, b: int) -> int:\n    return a + b",
    '{"id": 17, "name": "valve", "tags": ["steel", "DN50"], "stock": null}',
    "SELECT city, count(*) FROM orders WHERE total > 100 GROUP BY city",
    "Der Weichensteller stellt die Weiche, bevor der Nachtzug eintrifft.",
    "L'aiguilleur manœuvre l'aiguillage avant l'arrivée du train de nuit.",
    "El guardagujas mueve las agujas antes de que llegue el tren nocturno.",
    "夜行列車が到着する前に、転轍手は線路を切り替えた。",
    "Стрелочник перевёл стрелку до прибытия ночного поезда.",
    "حوّل عامل السكة المفتاح قبل وصول قطار الليل.",
    "ALL CAPITALS, odd   spacing , and an emoji 🚂 !!!",
    "Vectors made by two different models cannot be compared with one another, although nothing fails "
    "when they are: each request is answered, each result looks plausible, and only the share of relevant "
    "documents among the results falls. For that reason a search engine that replaces its model has to "
    "build its index again from the first document to the last, keep the old index until the new one has "
    "proved itself on real questions, and remember for every stored vector which model, in which revision "
    "and with which prefix, has computed it.",
)
"""The sixteen texts, in the order in which their vectors are pinned."""


def distance(pinned: npt.NDArray[np.float32], now: npt.NDArray[np.float32]) -> float:
    """Return the largest cosine distance between the rows of two arrays of shape (texts, dimensions): 0 to 2.

    Rows need not be of unit length. Arrays of different shapes, and rows that are zero or not finite, are as
    far apart as can be: a comparison that could not be made must never read as "nothing has moved".
    """
    if pinned.shape != now.shape or pinned.ndim != 2 or not pinned.size:
        return WORST
    ours, theirs = pinned.astype(np.float64), now.astype(np.float64)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        return WORST
    cosines = np.einsum("ij,ij->i", ours, theirs) / norms
    return float(np.clip(1.0 - cosines.min(), 0.0, WORST))
