"""A dataset embedded by several versions, each with an index, and judged queries: ready to be asked as workers ask."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from pointsman import ports
from pointsman.api import dataset as dataset_api
from pointsman.api import engines
from pointsman.api import queryset as queryset_api
from pointsman.api.conditions import Reason
from pointsman.api.dataset import Surprises
from pointsman.backends.memory import Memory
from pointsman.core import chunking
from pointsman.core.recipes import Recipe, Space
from pointsman.core.rows import Cursor
from pointsman.errors import Retryable, TextsRefused
from pointsman.plan import facts, measured, unjudged
from pointsman.plan.tasks import AskCanaries, Evaluate, Key, Side
from pointsman.ports import Finished, Identity, IndexSpec, Marker, Vectors, nobody
from pointsman.sources.memory import MemorySource
from pointsman.store.root import Store
from pointsman.work import embed, indexing, jobs, progress, queries, refresh
from pointsman.work.jobs import Doors, Job

AT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNER = Key("IndexDeployment", "shop", "papers")
SET = Key("QuerySet", "shop", "papers-eval")
TOPICS = 60
PLACES = ["north", "south", "east", "west", "above", "below"]


class Words:
    """A model that knows words: each is a direction drawn from its hash, and a text is their sum.

    One of `reach` words reads no further than that; what it was asked and how it fails can be seen and set.
    """

    def __init__(self, space: Space, reach: int = 1_000) -> None:
        self.space, self.reach = space, reach
        self.salt = ""
        self.is_down = False
        self.refuses = ""
        self.asked: list[str] = []

    def identity(self) -> Identity:
        return Identity(self.space.model, self.space.revision, self.space.dimensions)

    def embed(self, texts: Sequence[str], finished: Finished = nobody) -> Vectors:
        if self.is_down:
            raise Retryable(Reason.MODEL_UNREACHABLE, "model.example.com cannot be reached")
        refused = [at for at, text in enumerate(texts) if self.refuses and self.refuses in text]
        if refused:
            raise TextsRefused(refused, "HTTP 400")
        self.asked += texts
        vectors = np.array([sum(map(self._direction, text.split()[: self.reach])) for text in texts], np.float32)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        finished(0, vectors)
        return vectors

    def _direction(self, word: str) -> Vectors:
        seed = int.from_bytes(hashlib.blake2b((self.salt + word.strip(".?")).encode(), digest_size=8).digest())
        return np.random.default_rng(seed).standard_normal(self.space.dimensions).astype(np.float32)

    def close(self) -> None:
        return


class Kept:
    """A database that a job may close: it is another's. It lets somebody in before its first search."""

    def __init__(self, inner: ports.Backend) -> None:
        self._inner = inner
        self.before_search: Callable[[], object] | None = None
        self.searched: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def search(self, name: str, *arguments: Any) -> list[ports.Hit]:
        meddle, self.before_search = self.before_search, None
        if meddle is not None:
            meddle()
        self.searched.append(name)
        return self._inner.search(name, *arguments)

    def close(self) -> None:
        return


def recipe(model: str, tokens: int = 8, query_prefix: str = "", template: str = "{text}") -> Recipe:
    space = Space("openai", model, "r1", 48, query_prefix=query_prefix)
    return Recipe(space, template, (), chunking.chunker(tokens, 0))


RECIPES: Mapping[str, Recipe] = {
    "v7": recipe("words"),
    "again": recipe("words"),
    # Another model, which reads the first word only.
    "worse": recipe("first"),
    # The same space as v7.
    "longer": recipe("words", tokens=12),
    "coarse": recipe("words", template="{place}"),
    "asking": recipe("words", query_prefix="query: "),
}


def document(number: int) -> dict[str, Any]:
    """A document of two chunks or three, whose topic its first words do not tell; no two chunks are equally near."""
    place, topic = PLACES[number % len(PLACES)], f"topic{number % TOPICS}"
    texts = [f"{place} of all things there is number{number}.", f"its {topic} is kind{number % 7} indeed of {number}."]
    texts += [f"more of {topic} for {number}."] * (number % 2)
    return {"id": f"doc-{number}", "text": " ".join(texts), "place": place}


def question(number: int) -> dict[str, Any]:
    return {"id": f"q{number}", "text": f"topic{number} of kind{number % 7}?"}


def answer(number: int) -> list[dict[str, Any]]:
    """Two documents are of each topic; one of them is the better answer."""
    return [
        {"query": f"q{number}", "document": f"doc-{number}", "grade": 2},
        {"query": f"q{number}", "document": f"doc-{number + TOPICS}", "grade": 1},
    ]


@dataclass
class Stage:
    """All that lasts, and how to ask."""

    folder: Path
    backend: Kept = field(default_factory=lambda: Kept(Memory()))
    prefix: str = "pm_papers"
    documents: list[dict[str, Any]] = field(default_factory=lambda: [document(n) for n in range(2 * TOPICS)])
    queries: list[dict[str, Any]] = field(default_factory=lambda: [question(n) for n in range(TOPICS)])
    judgements: list[dict[str, Any]] = field(
        default_factory=lambda: [row for number in range(TOPICS) for row in answer(number)]
    )
    kind: queryset_api.Kind = "Complete"
    snapshot: int = 0
    models: dict[str, Words] = field(default_factory=dict)
    reports: list[tuple[int, int]] = field(default_factory=list)
    opened: list[tuple[str, str, str | None]] = field(default_factory=list)
    """The models that were opened: name, endpoint and key."""

    def __post_init__(self) -> None:
        self.store = Store(str(self.folder))
        self.dataset = self.store.dataset("shop", "papers")
        for name, reach in (("words", 1_000), ("first", 1)):
            self.models[name] = Words(recipe(name).space, reach)

    def index(self, version: str) -> str:
        return f"{self.prefix}_{version}"

    def side(self, version: str) -> Side:
        return Side(self.index(version), version, RECIPES[version].key)

    def publish(self, *versions: str) -> None:
        """Read the documents as they are now and bring every version's index to them."""
        source = MemorySource(self.documents)
        refresh.refresh(
            self.dataset,
            source,
            Surprises(everything_updated="Allow", deleted_share_above="1"),
            lambda: AT,
            progress.nowhere,
        )
        latest = self.dataset.latest()
        assert latest is not None
        self.snapshot = latest.number
        for version in versions:
            found = RECIPES[version]
            self.dataset.pin(version, found)
            model = self.models[found.space.model]
            embed.embed(self.dataset, version, found, self.snapshot, model, lambda: AT, progress.nowhere)
            marker = Marker(str(OWNER), "uid", version, found.key, found.space.key, found.space.model)
            index = indexing.Index(
                spec=IndexSpec(self.index(version), found.space.dimensions, 16, 64, marker),
                backend=cast(ports.Backend, self.backend),
                dataset=self.dataset,
                recipe=found,
                log=self.store.log(*jobs.index_log(OWNER, self.index(version))),
                now=lambda: AT,
                report=progress.nowhere,
            )
            indexing.build(index, self.snapshot, indexing.Pace(None))
        self.read_queries()
        self.models["words"].asked.clear()

    def read_queries(self) -> None:
        """Write down what is in the query set now, as its own job does."""
        log = self.store.log(*jobs.query_set_log(SET))
        queries.read(self.query_set(), self._sources(), log, "source", AT, progress.nowhere)

    def move(self, version: str, **changes: Any) -> None:
        """Change an index's record behind everybody's back."""
        log = self.store.log(*jobs.index_log(OWNER, self.index(version)))
        found = log.read()
        assert found is not None
        log.write({**found.value, **changes}, after=found.revision)

    def away(self, version: str) -> None:
        """Move an index to another snapshot, as far as its record says."""
        at = Cursor(self.snapshot + 1, self.snapshot + 1)
        self.move(version, cursor={"snapshot": at.snapshot, "sequence": at.sequence})

    def query_set(self) -> queryset_api.Spec:
        files = {"uri": "file:///data/a.jsonl", "format": "jsonl"}
        judgements = {"files": files, "kind": self.kind}
        return queryset_api.Spec.model_validate({"queries": {"files": files}, "judgements": judgements})

    def _sources(self) -> tuple[ports.Source, ports.Source]:
        return MemorySource(self.queries), MemorySource(self.judgements, "query")

    def evaluate(self, candidate: str, serving: str | None = None, metric: str = "nDCG@10") -> None:
        other = None if serving is None else self.side(serving)
        task = Evaluate(
            OWNER, "papers", "evaluation", "papers-eval", metric, self.side(candidate), other, self.snapshot
        )
        self._carry_out(task)

    def ask_canaries(self, candidate: str, serving: str | None = None, k: int = 5) -> None:
        other = None if serving is None else self.side(serving)
        self._carry_out(AskCanaries(OWNER, "papers", "papers-eval", k, self.side(candidate), other, self.snapshot))

    def evaluation(self) -> measured.Evaluation | None:
        found = self.store.log(*jobs.answers_log(OWNER, "evaluation")).read()
        return None if found is None else measured.evaluation_from_json(found.value)

    def unjudged(self) -> unjudged.Unjudged | None:
        found = self.store.log(*jobs.answers_log(OWNER, "unjudged")).read()
        return None if found is None else unjudged.from_json(found.value)

    def canaries(self) -> measured.Canaries | None:
        found = self.store.log(*jobs.answers_log(OWNER, "canaries")).read()
        return None if found is None else measured.canaries_from_json(found.value)

    def read_set(self) -> facts.QuerySetRecord:
        found = self.store.log(*jobs.query_set_log(SET)).read()
        assert found is not None
        return facts.query_set_from_json(found.value)

    def _carry_out(self, task: Evaluate | AskCanaries) -> None:
        job = Job(
            task=task,
            store=str(self.folder),
            dataset=_dataset(),
            backend=engines.Backend(memory=engines.MemoryBackend()),
            query_set=self.query_set(),
            api_keys={"main": "key of main", "side": "key of side"},
        )
        self.reports.clear()
        jobs.carry_out(job, self.doors(), lambda: AT, lambda done, total: self.reports.append((done, total)))

    def doors(self) -> Doors:
        def source(spec: dataset_api.Source, *_: Any) -> ports.Source:
            return self._sources()[0 if spec.id_field == "id" else 1]

        def embedder(space: Space, endpoint: dataset_api.Endpoint | None, key: str | None, *_: Any) -> ports.Embedder:
            self.opened.append((space.model, "" if endpoint is None else endpoint.name, key))
            return self.models[space.model]

        return Doors(
            store=lambda *_: self.store,
            source=source,
            embedder=embedder,
            backend=lambda *_: cast(ports.Backend, self.backend),
        )


def _dataset() -> dataset_api.Spec:
    def version(name: str, model: str, endpoint: str) -> dict[str, Any]:
        reached = {"openai": {"endpoint": endpoint, "model": model, "revision": "r1", "dimensions": 48}}
        return {"name": name, "model": reached, "text": {"template": "{text}"}}

    return dataset_api.Spec.model_validate(
        {
            "source": {"files": {"uri": "file:///data/*.jsonl", "format": "jsonl"}, "idField": "id"},
            "endpoints": [
                {"name": "main", "baseURL": "https://main.example.com/v1"},
                {"name": "side", "baseURL": "https://side.example.com/v1"},
            ],
            "versions": [version("v7", "words", "main"), version("worse", "first", "side")],
        }
    )
