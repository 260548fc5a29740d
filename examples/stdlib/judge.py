"""How well does the live index answer? Asks the judged queries as a direct client would, from the ConfigMap alone."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from examples.stdlib import stage

from pointsman.backends import documents
from pointsman.core import evaluation
from pointsman.embedders import wordllama

K = 10
DEPTH = 2 * K
"""Hits asked for: enough that ten are left once edited documents are set aside."""


@dataclass(frozen=True)
class Answers:
    """What a version answered."""

    hits: list[list[str]]
    ndcg: npt.NDArray[np.float64]
    rows: int

    @property
    def mean(self) -> float:
        """The mean nDCG@10."""
        return float(self.ndcg.mean())

    def same_answers(self, other: Answers, aside: set[str]) -> tuple[int, int]:
        """Return how many queries have the same ten answers in both, of how many, documents of `aside` left out."""
        pairs = [
            ([d for d in mine if d not in aside][:K], [d for d in theirs if d not in aside][:K])
            for mine, theirs in zip(self.hits, other.hits, strict=True)
        ]
        return sum(mine == theirs for mine, theirs in pairs), len(pairs)


class Judge:
    """The judged queries, and a client that asks them."""

    def __init__(self, here: stage.Stage) -> None:
        self._here = here
        self._queries = [json.loads(line) for line in (here.corpus / "queries.jsonl").open()]
        self._relevant: dict[str, dict[str, float]] = {}
        for line in (here.corpus / "judgements.jsonl").open():
            row = json.loads(line)
            self._relevant.setdefault(row["query"], {})[row["document"]] = float(row.get("grade", 1))

    @property
    def size(self) -> int:
        """How many queries there are."""
        return len(self._queries)

    @property
    def groups(self) -> list[str]:
        """The group of each query."""
        return [query["group"] for query in self._queries]

    def ask(self, version: str) -> Answers:
        """Ask all queries of the index that the ConfigMap names, with the model that it names."""
        route = self._here.route()
        assert route is not None and route["version"] == version, route
        model = wordllama.Wordllama(int(route["dimensions"]))
        vectors = model.embed([route["queryPrefix"] + query["text"] for query in self._queries])
        backend = self._here.open_backend()
        try:
            hits = [
                [hit.document for hit in documents.top_documents(backend, route["collection"], vector, DEPTH)]
                for vector in vectors
            ]
            rows = backend.count(route["collection"])
        finally:
            backend.close()
        ndcg = [
            evaluation.ndcg(found[:K], self._relevant[query["id"]], K)
            for found, query in zip(hits, self._queries, strict=True)
        ]
        return Answers(hits, np.array(ndcg), rows)
