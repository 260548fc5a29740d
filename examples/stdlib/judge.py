"""How well does the live index answer? Asks the judged queries as a direct client would, from the ConfigMap alone."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass

from examples.stdlib import stage

from pointsman.backends import documents
from pointsman.core import evaluation, judgements
from pointsman.embedders import wordllama

K = 10
DEPTH = 2 * K
"""Hits asked for: enough that ten are left once edited documents are set aside."""


@dataclass(frozen=True)
class Answers:
    """What a version answered."""

    hits: list[list[str]]
    ndcg: dict[str, float]
    """The nDCG@10 of each query."""
    rows: int

    @property
    def mean(self) -> float:
        """The mean nDCG@10."""
        return statistics.fmean(self.ndcg.values())

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
        rows = [
            [json.loads(line) for line in (here.corpus / f"{name}.jsonl").read_text().splitlines()]
            for name in ("queries", "judgements")
        ]
        self.set = judgements.load(*rows)

    def ask(self, version: str) -> Answers:
        """Ask all queries of the index that the ConfigMap names, with the model that it names."""
        route = self._here.route()
        assert route is not None and route["version"] == version, route
        model = wordllama.Wordllama(int(route["dimensions"]))
        vectors = model.embed([route["queryPrefix"] + text for text in self.set.queries.values()])
        backend = self._here.open_backend()
        try:
            hits = [
                [hit.document for hit in documents.top_documents(backend, route["collection"], vector, DEPTH)]
                for vector in vectors
            ]
            rows = backend.count(route["collection"])
        finally:
            backend.close()
        rankings = dict(zip(self.set.queries, (found[:K] for found in hits), strict=True))
        metric = evaluation.Metric.parse(f"nDCG@{K}")
        return Answers(hits, metric.by_query(rankings, self.set.judgements), rows)
