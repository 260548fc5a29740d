"""What can be read by whoever looks after a cluster, and what must not be in it?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypeVar

from e2e import confidential, counting, stack, stage, writing
from e2e.stage import Stage

from pointsman.embedders import wordllama

_LONG = 40
"""Characters that nobody writes by chance."""
_SOME = 200
_TURNS = 400
"""More than there are in one run."""
_SEEN = ("pointsman", "events", "configmaps", "jobs", "pods", "deployments", "leases", "endpointslices")
"""The kinds whose objects are read."""

T = TypeVar("T")


def planted(live: Stage) -> confidential.Planted:
    """Return secrets, texts and vectors that went through here."""
    queries, documents = (
        [json.loads(line) for line in (live.folder / "corpus" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("queries", "documents")
    )
    asked = _some([str(row["text"]) for row in queries if len(str(row["text"])) > _LONG])
    documents = _some(documents)
    held = [max(str(row["text"]).splitlines(), key=len) for row in documents]
    # Of the turns that there were, at a time when most of them are over.
    written = _some([writing.text(number, revision) for number in range(1, _TURNS) for revision in (0, 1)])
    return confidential.Planted(
        {
            "the database's password": [live.keys.database],
            "the object store's keys": [live.keys.secret, live.keys.access],
            "the model's key": [live.keys.model],
            "the token of whoever asks": [live.token()],
            "a query": asked,
            "a document": [*(line for line in held if len(line) > _LONG), *written],
        },
        {
            "the vector of a query": [
                vector for size in (64, 256) for vector in wordllama.Wordllama(size).embed(asked).tolist()
            ],
            "the vector of a document": [
                counting.vector(f"{row['name']}. {stage.copied(row, 1)}") for row in documents
            ],
        },
    )


def _some(all_of_them: list[T]) -> list[T]:
    """Return some from everywhere: each of them looked for in everything would take minutes."""
    return all_of_them[:: max(1, len(all_of_them) // _SOME)]


def said(live: Stage) -> dict[str, str]:
    """Return everything that anybody with a right to look can read, by where: logs, metrics and resources."""
    found = {f"log {name}": text for name, text in _logs(live)}
    for kind in _SEEN:
        for each in live.kube.list(kind, "", everywhere=True):
            name = f"{kind} {each['metadata'].get('namespace', '')}/{each['metadata']['name']}"
            # Where the stories themselves keep the queries for whoever asks them.
            if name != f"configmaps {stack.NAMESPACE}/{stack.ASKER}":
                found[name] = json.dumps(each, ensure_ascii=False)
    for component in ("gateway", "operator"):
        for pod in live.pods(component):
            found[f"metrics {pod['metadata']['name']}"] = live.metrics(pod)
    return found


def _logs(live: Stage) -> Iterator[tuple[str, str]]:
    """Yield what containers logged; on a node of one's own also those of pods that have gone."""
    if live.node is not None:
        yield from ((name, path.read_text(errors="replace")) for name, path in live.node.logs().items())
        return
    for pod in live.kube.list("pods", stack.NAMESPACE):
        name = pod["metadata"]["name"]
        for which in ("--previous=false", "--previous"):
            arguments = ["logs", name, "-n", stack.NAMESPACE, "--all-containers", "--tail=-1", which]
            if text := live.kube.run(*arguments, check=False):
                yield f"{stack.NAMESPACE}/{name} {which}", text
