"""What is remembered of resources: never more than was heard, whatever a watch has missed or tells late."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.mirror import Mirror
from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, QUERY_SET, Secret
from pointsman.cluster.sight import BELIEVED, Direct, FreshSecrets, RememberedSecrets
from pointsman.plan.tasks import Key

PAPERS = Key(DATASET, "search", "papers")


def resource(kind: str, name: str, namespace: str = "search", uid: str = "1", **spec: Any) -> dict[str, Any]:
    meta = {"namespace": namespace, "name": name, "uid": uid, "managedFields": [{"manager": "kubectl"}]}
    return {"kind": kind, "metadata": meta, "spec": spec}


def deployment(name: str, dataset: str = "papers", **more: Any) -> dict[str, Any]:
    return resource(DEPLOYMENT, name, datasetRef={"name": dataset}, **more)


def approval(name: str, target: str) -> dict[str, Any]:
    return resource(APPROVAL, name, target={"kind": DEPLOYMENT, "name": target})


def uid(mirror: Mirror, name: str = "papers") -> str | None:
    found = mirror.get(DEPLOYMENT, "search", name)
    return None if found is None else found["metadata"]["uid"]


def named(mirror: Mirror, kind: str, key: Key) -> list[str]:
    return [found["metadata"]["name"] for found in mirror.naming(kind, key)]


def test_what_was_seen_is_there_until_it_is_seen_to_be_gone_but_for_who_manages_its_fields() -> None:
    mirror = Mirror()
    mirror.saw(deployment("papers"))

    found = mirror.get(DEPLOYMENT, "search", "papers")
    assert found is not None
    assert found["spec"] == {"datasetRef": {"name": "papers"}}
    assert set(found["metadata"]) == {"namespace", "name", "uid"}
    assert mirror.get(DEPLOYMENT, "other", "papers") is None
    assert mirror.get(DATASET, "search", "papers") is None

    mirror.lost(Key(DEPLOYMENT, "search", "papers"))
    assert uid(mirror) is None
    assert mirror.naming(DEPLOYMENT, PAPERS) == []


def test_what_is_kept_of_a_resource_is_smaller_than_its_json() -> None:
    indexes = [{"name": f"papers-v{n}", "version": f"v{n}", "role": "Retained", "rows": 1000} for n in range(60)]
    seen = [deployment(f"papers-{n}", indexes=indexes) for n in range(100)]
    mirror = Mirror()

    tracemalloc.start()
    for each in seen:
        mirror.saw(each)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < sum(len(json.dumps(each)) for each in seen) / 2


def test_whoever_looks_cannot_change_what_others_see() -> None:
    mirror = Mirror()
    mirror.saw(deployment("papers"))
    found = mirror.get(DEPLOYMENT, "search", "papers")
    assert found is not None
    found["spec"]["datasetRef"]["name"] = "books"

    assert named(mirror, DEPLOYMENT, PAPERS) == ["papers"]
    assert mirror.naming(DEPLOYMENT, PAPERS)[0]["spec"] == {"datasetRef": {"name": "papers"}}


def test_a_name_that_was_given_again_means_the_new_one() -> None:
    mirror = Mirror()
    mirror.saw(deployment("papers", uid="old"))
    mirror.saw(deployment("papers", dataset="books", uid="new"))

    assert uid(mirror) == "new"
    assert named(mirror, DEPLOYMENT, PAPERS) == []
    assert named(mirror, DEPLOYMENT, Key(DATASET, "search", "books")) == ["papers"]


def test_two_names_of_one_uid_are_two_resources() -> None:
    mirror = Mirror()
    for name in ("a", "b"):
        mirror.saw(deployment(name, uid="same"))
    mirror.lost(Key(DEPLOYMENT, "search", "a"))

    assert (uid(mirror, "a"), uid(mirror, "b")) == (None, "same")
    assert named(mirror, DEPLOYMENT, PAPERS) == ["b"]


def test_a_listing_drops_what_it_does_not_name_of_its_kind_and_namespace() -> None:
    mirror = Mirror()
    mirror.saw(deployment("ghost"))
    mirror.saw(deployment("elsewhere") | {"metadata": {"namespace": "other", "name": "elsewhere", "uid": "1"}})
    mirror.saw(resource(QUERY_SET, "ghost"))

    with mirror.listing(DEPLOYMENT, "search") as listing:
        keys = listing.take([deployment("a")]) + listing.take([deployment("b")])

    assert keys == [Key(DEPLOYMENT, "search", "a"), Key(DEPLOYMENT, "search", "b")]
    assert named(mirror, DEPLOYMENT, PAPERS) == ["a", "b"]
    assert mirror.get(DEPLOYMENT, "other", "elsewhere") is not None
    assert mirror.get(QUERY_SET, "search", "ghost") is not None

    with mirror.listing(DEPLOYMENT, None):
        pass
    assert mirror.get(DEPLOYMENT, "other", "elsewhere") is None


def test_a_listing_that_was_cut_short_drops_nothing() -> None:
    mirror = Mirror()
    mirror.saw(deployment("a"))
    with pytest.raises(ConnectionError), mirror.listing(DEPLOYMENT, None) as listing:
        listing.take([deployment("b")])
        raise ConnectionError

    assert named(mirror, DEPLOYMENT, PAPERS) == ["a", "b"]


def test_what_a_watch_tells_while_a_listing_is_under_way_is_believed() -> None:
    mirror = Mirror()
    mirror.saw(deployment("edited", uid="old"))
    mirror.saw(deployment("deleted"))
    with mirror.listing(DEPLOYMENT, None) as listing:
        mirror.saw(deployment("edited", uid="new"))
        mirror.saw(deployment("created"))
        mirror.lost(Key(DEPLOYMENT, "search", "deleted"))
        listing.take([deployment("edited", uid="old"), deployment("deleted")])

    assert uid(mirror, "edited") == "new"
    assert named(mirror, DEPLOYMENT, PAPERS) == ["created", "edited"]

    with mirror.listing(DEPLOYMENT, None) as listing:
        listing.take([deployment("edited", uid="newest")])
    assert uid(mirror, "edited") == "newest"
    assert named(mirror, DEPLOYMENT, PAPERS) == ["edited"]


def test_a_watch_is_believed_over_the_older_of_two_listings_when_the_younger_ends_first() -> None:
    mirror = Mirror()
    with mirror.listing(DEPLOYMENT, None) as older:
        mirror.saw(deployment("papers", uid="told"))
        with mirror.listing(QUERY_SET, None):
            pass
        older.take([deployment("papers", uid="listed")])

    assert uid(mirror) == "told"


def test_whoever_names_a_resource_is_found_alike_through_the_mirror_and_in_the_cluster() -> None:
    cluster, mirror = MemoryCluster(), Mirror()
    declared = [deployment("a"), deployment("b", "books"), deployment("c"), approval("go", "a"), approval("no", "b")]
    for each in declared:
        cluster.apply(each)
        mirror.saw(each)
    of_a = Key(DEPLOYMENT, "search", "a")

    for sight in (mirror, Direct(cluster)):
        assert [found["metadata"]["name"] for found in sight.naming(DEPLOYMENT, PAPERS)] == ["a", "c"]
        assert [found["metadata"]["name"] for found in sight.naming(APPROVAL, of_a)] == ["go"]
        assert sight.naming(APPROVAL, Key(DEPLOYMENT, "other", "a")) == []
    assert mirror.keys_naming(APPROVAL, of_a) == [Key(APPROVAL, "search", "go")]


# Secrets, which are read again and never held for long.


class Vault:
    """Secrets that may change, and how often they were asked for."""

    def __init__(self) -> None:
        self.value: str | None = "one"
        self.asked = 0

    def secret(self, namespace: str, name: str) -> Secret | None:
        self.asked += 1
        return None if self.value is None else Secret(name, {"token": self.value}, {})


def token(found: Secret | None) -> str | None:
    return None if found is None else found.values["token"]


def test_a_secret_is_believed_for_some_seconds_by_a_glance_and_never_by_a_look() -> None:
    now, vault = [0.0], Vault()
    fresh = FreshSecrets(vault, lambda: now[0])
    remembered = RememberedSecrets(fresh)
    assert token(remembered.secret("search", "database")) == "one"
    vault.value = "two"

    now[0] = BELIEVED - 0.1
    assert token(remembered.secret("search", "database")) == "one"
    assert token(remembered.secret("other", "database")) == "two"
    assert vault.asked == 2
    now[0] = BELIEVED
    assert token(remembered.secret("search", "database")) == "two"

    vault.value = "three"
    assert token(fresh.secret("search", "database")) == "three"
    assert token(remembered.secret("search", "database")) == "three", "what a look has read is known to a glance"
    vault.value = None
    assert fresh.secret("search", "database") is None
    assert remembered.secret("search", "database") is None
