"""A dataset with a store of its own: it is there, opened with its own Secret, and found when the resource is gone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pointsman.access import Access
from pointsman.api.conditions import Reason
from pointsman.cluster import credentials
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.resources import DATASET, Secret
from pointsman.controller.stores import Stores
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.plan.tasks import Key
from pointsman.store.root import Store

KEY = Key(DATASET, "search", "papers")
VALUES = {"accessKeyID": "ana", "secretAccessKey": "sesame", "endpoint": "https://s3.example.com", "region": "eu"}
HOSTS = {"pointsman.dev/allowed-hosts": "s3.example.com"}


def resource(uri: str = "s3://vectors/papers", **meta: Any) -> dict[str, Any]:
    return {
        "kind": DATASET,
        "metadata": {"namespace": "search", "name": "papers", **meta},
        "spec": {"store": {"uri": uri, "credentialsRef": {"name": "store"}}},
    }


class Room:
    """Stores whose buckets are folders, and which remember how each was opened."""

    def __init__(self, folder: Path) -> None:
        self.own, self.cluster = Store(str(folder / "own")), MemoryCluster()
        self.opened: list[tuple[str, Mapping[str, str]]] = []
        self.folder = folder
        self.access = Access(
            store="s3://own/store", allowed_hosts=("s3.example.com",), resolve=lambda host, port: ["93.184.216.34"]
        )
        self.stores = self.started()
        self.cluster.put_secret("search", "store", VALUES, HOSTS)

    def started(self) -> Stores:
        """Be an operator that has just started."""
        return Stores(self.own, self.open, self.access)

    def open(self, uri: str, options: Mapping[str, str]) -> Store:
        self.opened.append((uri, options))
        return Store(str(self.folder / uri.removeprefix("s3://")))

    def fails(self, declared: dict[str, Any]) -> PointsmanError:
        with pytest.raises(Terminal) as found:
            self.stores.home(KEY, declared, self.cluster)
        return found.value


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_it_is_opened_with_its_own_secret_once(room: Room) -> None:
    first = room.stores.home(KEY, resource(), room.cluster)
    again = room.stores.home(KEY, resource(), room.cluster)

    assert first is not None and first is again
    assert room.opened == [
        (
            "s3://vectors/papers",
            {
                "aws_access_key_id": "ana",
                "aws_secret_access_key": "sesame",
                "aws_endpoint": "https://s3.example.com",
                "aws_region": "eu",
            },
        )
    ]
    assert "sesame" not in repr(first)


def test_a_secret_that_is_rotated_is_picked_up(room: Room) -> None:
    room.stores.home(KEY, resource(), room.cluster)
    room.cluster.put_secret("search", "store", {**VALUES, "secretAccessKey": "simsim"}, HOSTS)
    room.stores.home(KEY, resource(), room.cluster)

    assert [options["aws_secret_access_key"] for _, options in room.opened] == ["sesame", "simsim"]


def test_a_dataset_without_one_is_in_the_operators_own(room: Room) -> None:
    assert room.stores.home(KEY, {**resource(), "spec": {}}, room.cluster) is None
    assert room.opened == []


def test_a_secret_goes_to_the_hosts_that_it_lists_alone(room: Room) -> None:
    room.cluster.put_secret("search", "store", {**VALUES, "endpoint": "https://evil.example.com"}, HOSTS)

    error = room.fails(resource())

    assert error.reason is Reason.SECRET_NOT_ALLOWED
    assert "does not list evil.example.com" in error.message


@pytest.mark.parametrize(
    ("uri", "values", "reason"),
    [
        ("s3://own/store/datasets", VALUES, Reason.FILE_NOT_ALLOWED),
        ("s3://vectors/papers", {**VALUES, "endpoint": "http://169.254.169.254"}, Reason.ENDPOINT_NOT_ALLOWED),
        ("s3://vectors/papers", {"endpoint": "https://s3.example.com"}, Reason.CREDENTIALS_REQUIRED),
    ],
    ids=["in the operator's own", "at a metadata service", "without keys"],
)
def test_what_a_tenant_may_not_name_is_refused(room: Room, uri: str, values: dict[str, str], reason: Reason) -> None:
    hosts = {"pointsman.dev/allowed-hosts": "s3.example.com,169.254.169.254"}
    room.cluster.put_secret("search", "store", values, hosts)

    assert room.fails(resource(uri)).reason is reason
    assert room.opened == []


@pytest.mark.parametrize("allowed", [(), ("*.example.com",)], ids=["any public host", "others"])
def test_a_store_is_at_a_host_that_the_settings_vouch_for(room: Room, allowed: tuple[str, ...]) -> None:
    room.access = Access(allowed_hosts=allowed, resolve=lambda host, port: ["93.184.216.34"])
    room.stores = room.started()
    room.cluster.put_secret(
        "search",
        "store",
        {**VALUES, "endpoint": "https://evil.example.org"},
        {"pointsman.dev/allowed-hosts": "evil.example.org"},
    )

    error = room.fails(resource())

    assert error.reason is Reason.ENDPOINT_NOT_ALLOWED
    assert "evil.example.org is not among the hosts for stores" in error.message
    assert room.opened == []


def test_a_store_of_amazons_needs_no_word_of_the_settings_but_a_plain_region(room: Room) -> None:
    room.access = Access(resolve=lambda host, port: ["93.184.216.34"])
    room.stores = room.started()
    values = {name: value for name, value in VALUES.items() if name != "endpoint"}
    hosts = {"pointsman.dev/allowed-hosts": "s3.amazonaws.com"}
    room.cluster.put_secret("search", "store", {**values, "region": "evil.example.org/#"}, hosts)
    assert room.fails(resource()).reason is Reason.ENDPOINT_NOT_ALLOWED
    assert room.opened == []

    room.cluster.put_secret("search", "store", values, hosts)
    assert room.stores.home(KEY, resource(), room.cluster) is not None


def test_a_missing_secret_is_named(room: Room) -> None:
    room.cluster.delete_secret("search", "store")

    assert (room.fails(resource()).reason, room.fails(resource()).message) == (
        Reason.SECRET_NOT_FOUND, "Secret store is not there"
    )  # fmt: skip


def test_what_is_kept_there_is_found_when_the_dataset_is_gone(room: Room) -> None:
    room.stores.remember(KEY, resource())
    room.stores.remember(KEY, resource())

    found = room.started().home(KEY, None, room.cluster)

    assert found is not None and found.uri == "s3://vectors/papers"
    room.stores.forget(KEY)
    assert room.started().home(KEY, None, room.cluster) is None


def test_while_a_dataset_goes_its_store_stays_open_though_the_secret_went_first(room: Room) -> None:
    opened = room.stores.home(KEY, resource(), room.cluster)
    room.cluster.delete_secret("search", "store")

    assert room.stores.home(KEY, resource(deletionTimestamp="2026-01-01T00:00:00Z"), room.cluster) is opened
    with pytest.raises(Terminal, match="Secret store is not there"):
        room.stores.home(KEY, resource(), room.cluster)


def test_while_a_dataset_goes_its_store_stays_open_though_the_right_to_the_secret_went_first(room: Room) -> None:
    class Forbidding(MemoryCluster):
        def secret(self, namespace: str, name: str) -> Secret | None:
            refused = OSError()
            refused.status = 403  # type: ignore[attr-defined]
            raise Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API refused us") from refused

    opened = room.stores.home(KEY, resource(), room.cluster)

    assert room.stores.home(KEY, resource(deletionTimestamp="2026-01-01T00:00:00Z"), Forbidding()) is opened
    with pytest.raises(Terminal, match="Secret store may not be read") as failure:
        room.stores.home(KEY, resource(), Forbidding())
    assert failure.value.reason is Reason.SECRET_FORBIDDEN


def test_other_values_of_a_secret_are_passed_over() -> None:
    found = credentials.store_options({"accessKeyID": " ana\n", "password": "sesame", "endpoint": "http://minio:9000"})

    assert found == {"aws_access_key_id": "ana", "aws_endpoint": "http://minio:9000", "allow_http": "true"}
