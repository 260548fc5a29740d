"""What a watch tells is remembered before anybody is woken by it, and wakes whoever depends on it."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.cluster.mirror import Mirror
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, QUERY_SET
from pointsman.controller import handlers
from pointsman.plan.tasks import Key

SPECS: dict[str, dict[str, Any]] = {
    DATASET: {},
    DEPLOYMENT: {"datasetRef": {"name": "books"}},
    QUERY_SET: {},
    APPROVAL: {"target": {"kind": DEPLOYMENT, "name": "shop"}},
}


def event(kind: str, happened: str | None, name: str = "papers") -> Any:
    meta = {"namespace": "search", "name": name, "uid": "1"}
    return {"type": happened, "object": {"metadata": meta, "spec": SPECS[kind]}}


class Told:
    """Who was handed over, and whether what was told was known by then."""

    def __init__(self, is_whole: bool = True) -> None:
        self.mirror = Mirror()
        self.woken: list[str] = []
        self.looked: list[str] = []
        self.known: list[bool] = []
        if is_whole:
            self.mirror.complete()

    def tell(self, kind: str, happened: str | None, name: str = "papers") -> None:
        def into(found: list[str]) -> handlers.Wake:
            def take(key: Key) -> None:
                found.append(f"{key.kind} {key}")
                self.known.append(self.mirror.get(kind, "search", name) is not None)

            return take

        handlers.told(kind, event(kind, happened, name), self.mirror, into(self.woken), into(self.looked))


WOKEN = {
    DATASET: ["EmbeddingDataset search/papers"],
    DEPLOYMENT: ["IndexDeployment search/papers", "EmbeddingDataset search/books"],
    QUERY_SET: ["QuerySet search/papers"],
    APPROVAL: ["Approval search/papers", "IndexDeployment search/shop"],
}


@pytest.mark.parametrize("kind", WOKEN)
@pytest.mark.parametrize("happened", ["ADDED", "MODIFIED"])
def test_a_change_is_known_before_it_wakes_whoever_depends_on_it(kind: str, happened: str) -> None:
    told = Told()
    told.tell(kind, happened)

    assert told.woken == WOKEN[kind]
    assert all(told.known)
    assert told.looked == []


@pytest.mark.parametrize("kind", WOKEN)
def test_a_removal_is_known_before_it_wakes_whoever_depends_on_it(kind: str) -> None:
    told = Told()
    told.tell(kind, "ADDED")
    told.woken.clear()
    told.known.clear()
    told.tell(kind, "DELETED")

    assert told.woken == WOKEN[kind]
    assert not any(told.known)


def test_a_deployment_wakes_the_decisions_about_it() -> None:
    told = Told()
    told.tell(APPROVAL, "ADDED")
    told.woken.clear()
    told.tell(DEPLOYMENT, "MODIFIED", "shop")

    assert told.woken == ["IndexDeployment search/shop", "EmbeddingDataset search/books", "Approval search/papers"]


def test_what_a_watch_begins_with_is_looked_at_without_haste() -> None:
    told = Told()
    told.tell(DEPLOYMENT, None)

    assert told.looked == WOKEN[DEPLOYMENT]
    assert told.woken == []


def test_until_everything_was_heard_of_what_a_watch_begins_with_is_only_remembered() -> None:
    told = Told(is_whole=False)
    told.tell(DEPLOYMENT, None)
    assert (told.looked, told.woken) == ([], [])
    assert told.mirror.get(DEPLOYMENT, "search", "papers") is not None

    told.tell(DEPLOYMENT, "MODIFIED")
    assert told.woken == WOKEN[DEPLOYMENT], "what happens is acted on at once"
