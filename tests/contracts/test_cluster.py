"""What the loop relies on of a cluster, on the one in memory and on a real API server alike."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import pytest

from pointsman.api.conditions import Reason
from pointsman.cluster.kube import Kube
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.resources import (
    APPROVAL,
    DATASET,
    DEPLOYMENT,
    MANAGED_BY,
    PLURALS,
    QUERY_SET,
    All,
    Changed,
    Cluster,
    Gone,
    Lease,
)
from pointsman.cluster.rest import TIMEOUT, Rest
from pointsman.controlplane import admin, plane
from pointsman.errors import Conflict, Terminal
from pointsman.plan.tasks import Key

CRDS = Path(__file__).parents[2] / "crds"


@dataclass
class Bench:
    """A cluster, and what a user does to it behind its back."""

    cluster: Cluster
    namespace: str
    apply: Callable[[dict[str, Any]], None]
    put_secret: Callable[[str, dict[str, bytes]], None]
    put_config_map: Callable[[str], None]
    delete_lease: Callable[[str], None]
    put_owner: Callable[[str], str]
    """Creates an IndexDeployment and returns its uid: what belongs to nobody that exists is soon collected."""

    def queries(self, name: str) -> None:
        self.apply(
            {
                "apiVersion": "pointsman.dev/v1alpha1",
                "kind": QUERY_SET,
                "metadata": {"namespace": self.namespace, "name": name},
                "spec": {"queries": {"inline": [{"id": "q", "text": "why?", "relevant": ["d"]}]}},
            }
        )

    def version(self, name: str) -> str:
        found = self.cluster.get(QUERY_SET, self.namespace, name)
        assert found is not None
        return str(found["metadata"]["resourceVersion"])

    def status(self, name: str) -> dict[str, Any]:
        found = self.cluster.get(QUERY_SET, self.namespace, name)
        assert found is not None
        return dict(found.get("status", {}))


@pytest.fixture
def memory() -> Bench:
    cluster = MemoryCluster()
    return Bench(
        cluster,
        "search",
        cluster.apply,
        lambda name, values: cluster.put_secret("search", name, values, {}),
        lambda name: cluster.put_config_map("search", name),
        lambda name: cluster.delete_lease("search", name),
        lambda name: f"uid-of-{name}",
    )


@pytest.fixture
def client(control_plane: plane.ControlPlane) -> Iterator[kubernetes.client.ApiClient]:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(control_plane.kubeconfig), client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as client:
        yield client


@pytest.fixture
def real(control_plane: plane.ControlPlane, namespace: str, client: kubernetes.client.ApiClient) -> Bench:
    admin.apply_crds(control_plane.kubeconfig, CRDS)
    administrator = control_plane.admin()
    path = f"/api/v1/namespaces/{namespace}"

    def apply(resource: dict[str, Any]) -> None:
        plural = PLURALS[resource["kind"]]
        administrator.create(f"/apis/pointsman.dev/v1alpha1/namespaces/{namespace}/{plural}", resource)

    def put_secret(name: str, values: dict[str, bytes]) -> None:
        data = {key: base64.b64encode(value).decode() for key, value in values.items()}
        administrator.create(f"{path}/secrets", {"metadata": {"name": name}, "data": data})

    def put_config_map(name: str) -> None:
        administrator.create(f"{path}/configmaps", {"metadata": {"name": name}, "data": {"theirs": "yes"}})

    def delete_lease(name: str) -> None:
        administrator.delete(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}")

    def put_owner(name: str) -> str:
        spec = {"datasetRef": {"name": name}, "version": "v7", "backend": {"memory": {}}}
        body = {"apiVersion": "pointsman.dev/v1alpha1", "kind": DEPLOYMENT, "metadata": {"name": name}, "spec": spec}
        made = administrator.create(f"/apis/pointsman.dev/v1alpha1/namespaces/{namespace}/indexdeployments", body)
        return str(made["metadata"]["uid"])

    cluster = Kube(Rest(client), page_size=2)
    return Bench(cluster, namespace, apply, put_secret, put_config_map, delete_lease, put_owner)


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.controlplane)])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


def test_a_status_is_replaced_whole(bench: Bench) -> None:
    bench.queries("a")

    bench.cluster.write_status(QUERY_SET, bench.namespace, "a", {"queries": 1, "digest": "d"}, bench.version("a"))
    bench.cluster.write_status(QUERY_SET, bench.namespace, "a", {"queries": 2}, bench.version("a"))

    assert bench.status("a") == {"queries": 2}


def test_a_status_that_was_decided_from_an_older_version_is_a_conflict_and_not_a_failure(bench: Bench) -> None:
    bench.queries("a")
    seen = bench.version("a")
    bench.cluster.write_status(QUERY_SET, bench.namespace, "a", {"queries": 1}, seen)

    with pytest.raises(Conflict):
        bench.cluster.write_status(QUERY_SET, bench.namespace, "a", {"queries": 2}, seen)

    assert bench.status("a") == {"queries": 1}


def test_a_status_of_what_is_gone_is_a_conflict(bench: Bench) -> None:
    with pytest.raises(Conflict):
        bench.cluster.write_status(QUERY_SET, bench.namespace, "gone", {"queries": 1}, "1")


def test_a_patch_that_was_decided_from_an_older_version_is_a_conflict(bench: Bench) -> None:
    bench.queries("a")
    seen = bench.version("a")
    bench.cluster.write_status(QUERY_SET, bench.namespace, "a", {"queries": 1}, seen)

    with pytest.raises(Conflict):
        patch = {"metadata": {"finalizers": ["pointsman.dev/cleanup"], "resourceVersion": seen}}
        bench.cluster.patch(QUERY_SET, bench.namespace, "a", patch)


def test_what_is_created_is_there_once_and_removed_as_often_as_one_likes(bench: Bench) -> None:
    resource = {
        "kind": QUERY_SET,
        "metadata": {"namespace": bench.namespace, "name": "new"},
        "spec": {"queries": {"inline": [{"id": "q", "text": "why?", "relevant": ["d"]}]}},
    }

    made = bench.cluster.create(resource)
    with pytest.raises(Conflict):
        bench.cluster.create(resource)

    assert made["metadata"]["name"] == "new"
    assert bench.version("new") == made["metadata"]["resourceVersion"]
    bench.cluster.remove(QUERY_SET, bench.namespace, "new")
    bench.cluster.remove(QUERY_SET, bench.namespace, "new")
    assert bench.cluster.get(QUERY_SET, bench.namespace, "new") is None


def test_a_user_has_a_name(bench: Bench) -> None:
    assert bench.cluster.user()


def test_all_are_listed_however_many_there_are(bench: Bench) -> None:
    for number in range(5):
        bench.queries(f"a{number}")

    assert [r["metadata"]["name"] for r in bench.cluster.list(QUERY_SET, bench.namespace)] == [
        f"a{number}" for number in range(5)
    ]
    everywhere = [r for r in bench.cluster.list(QUERY_SET, None) if r["metadata"]["namespace"] == bench.namespace]
    assert len(everywhere) == 5
    assert bench.cluster.list(DATASET, bench.namespace) == []


def test_all_come_by_pages_as_they_are_listed(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.queries(name)

    pages = list(bench.cluster.pages(QUERY_SET, bench.namespace))

    assert sorted(r["metadata"]["name"] for page in pages for r in page) == ["a", "b", "c"]
    assert {r["kind"] for page in pages for r in page} == {QUERY_SET}


def deployments(bench: Bench, **datasets: str) -> None:
    for name, dataset in datasets.items():
        spec = {"datasetRef": {"name": dataset}, "version": "v7", "backend": {"memory": {}}}
        meta = {"namespace": bench.namespace, "name": name}
        bench.apply({"apiVersion": "pointsman.dev/v1alpha1", "kind": DEPLOYMENT, "metadata": meta, "spec": spec})


def test_those_that_name_a_resource_are_found_among_others(bench: Bench) -> None:
    deployments(bench, a="papers", b="books", c="papers", d="papers")
    papers = Key(DATASET, bench.namespace, "papers")

    assert [r["metadata"]["name"] for r in bench.cluster.naming(DEPLOYMENT, papers)] == ["a", "c", "d"]
    assert bench.cluster.naming(APPROVAL, Key(DEPLOYMENT, bench.namespace, "a")) == []
    assert bench.cluster.naming(DEPLOYMENT, Key(DATASET, "elsewhere", "papers")) == []


class Overheard(Rest):
    """A connection that notes how many resources each list brought, and by which field they were selected."""

    def __init__(self, client: kubernetes.client.ApiClient, knows: bool = True) -> None:
        super().__init__(client)
        self.lists: list[tuple[str, int]] = []
        self._knows = knows

    def ask(self, method: str, path: str, body: Any = None, query: Any = None, within: Any = TIMEOUT) -> Any:
        selector = query.get("fieldSelector", "")
        # An older server answers what this one answers of a field that the definition does not name.
        known = query if self._knows or not selector else {**query, "fieldSelector": "spec.version=v7"}
        answer = super().ask(method, path, body, known, within)
        self.lists.append((selector, len(answer["items"])))
        return answer


@pytest.mark.controlplane
def test_the_api_server_sends_no_others(real: Bench, client: kubernetes.client.ApiClient) -> None:
    deployments(real, a="papers", b="books", c="papers")
    api = Overheard(client)

    found = Kube(api).naming(DEPLOYMENT, Key(DATASET, real.namespace, "books"))

    assert [r["metadata"]["name"] for r in found] == ["b"]
    assert api.lists == [("spec.datasetRef.name=books", 1)]


@pytest.mark.controlplane
def test_an_api_server_that_cannot_select_by_the_field_is_asked_for_all_from_then_on(
    real: Bench, client: kubernetes.client.ApiClient
) -> None:
    deployments(real, a="papers", b="books", c="papers")
    api = Overheard(client, knows=False)
    cluster = Kube(api)

    for name, users in (("papers", ["a", "c"]), ("books", ["b"])):
        found = cluster.naming(DEPLOYMENT, Key(DATASET, real.namespace, name))
        assert [r["metadata"]["name"] for r in found] == users
    assert api.lists == [("", 3), ("", 3)]


def test_a_config_map_of_ours_is_written_again_and_again_and_removed(bench: Bench) -> None:
    owners = {name: bench.put_owner(name) for name in ("papers", "restored")}
    name = "papers-serving"
    assert bench.cluster.config_map(bench.namespace, name) is None

    bench.cluster.write_config_map(
        Key(DEPLOYMENT, bench.namespace, "papers"), owners["papers"], name, {"version": "v7"}
    )
    # A deployment that was restored has another uid, and its route is still ours.
    restored = Key(DEPLOYMENT, bench.namespace, "restored")
    bench.cluster.write_config_map(restored, owners["restored"], name, {"version": "v8"})
    assert bench.cluster.config_map(bench.namespace, name) == {"version": "v8"}

    bench.cluster.delete_config_map(bench.namespace, name)
    bench.cluster.delete_config_map(bench.namespace, name)
    assert bench.cluster.config_map(bench.namespace, name) is None


def test_a_config_map_of_somebody_else_is_neither_read_nor_replaced_nor_removed(bench: Bench) -> None:
    owner, name = Key(DEPLOYMENT, bench.namespace, "papers"), "papers-serving"
    bench.put_config_map(name)

    assert bench.cluster.config_map(bench.namespace, name) is None
    bench.cluster.delete_config_map(bench.namespace, name)
    with pytest.raises(Terminal) as error:
        bench.cluster.write_config_map(owner, "uid-1", name, {"version": "v7"})

    assert error.value.reason is Reason.ROUTE_FOREIGN
    assert error.value.message == (
        "ConfigMap papers-serving is somebody else's, wanted it free or with the label "
        "app.kubernetes.io/managed-by=pointsman; remove it, or declare the deployment under another name"
    )


MOMENT = datetime(2026, 3, 1, 12, 0, 0, 125, tzinfo=UTC)


def test_a_lease_says_what_was_written_and_whether_it_has_moved(bench: Bench) -> None:
    assert bench.cluster.lease(bench.namespace, "operator", 5.0) is None
    first = Lease("one", 1, 15, MOMENT, MOMENT)

    taken = bench.cluster.write_lease(bench.namespace, "operator", first, 5.0)
    assert taken == first == bench.cluster.lease(bench.namespace, "operator", 5.0)

    later = replace(taken, renewed=MOMENT + timedelta(microseconds=1_500_000))
    renewed = bench.cluster.write_lease(bench.namespace, "operator", later, 5.0)
    assert renewed == later != taken
    given_back = bench.cluster.write_lease(bench.namespace, "operator", replace(renewed, holder=""), 5.0)
    assert given_back.holder == ""


def test_of_two_who_want_the_same_lease_one_gets_it(bench: Bench) -> None:
    first, second = Lease("one", 1, 15, MOMENT, MOMENT), Lease("two", 1, 15, MOMENT, MOMENT)

    taken = bench.cluster.write_lease(bench.namespace, "operator", first, 5.0)
    with pytest.raises(Conflict):
        bench.cluster.write_lease(bench.namespace, "operator", second, 5.0)
    renewed = replace(taken, renewed=MOMENT + timedelta(seconds=2))
    bench.cluster.write_lease(bench.namespace, "operator", renewed, 5.0)
    with pytest.raises(Conflict):
        bench.cluster.write_lease(bench.namespace, "operator", replace(second, version=taken.version), 5.0)

    assert bench.cluster.lease(bench.namespace, "operator", 5.0) == renewed


def test_a_lease_that_is_gone_is_created_by_whoever_renews_it_unless_another_was_faster(bench: Bench) -> None:
    taken = bench.cluster.write_lease(bench.namespace, "operator", Lease("one", 1, 15, MOMENT, MOMENT), 5.0)

    bench.delete_lease("operator")
    bench.cluster.write_lease(bench.namespace, "operator", taken, 5.0)
    assert bench.cluster.lease(bench.namespace, "operator", 5.0) == taken

    bench.delete_lease("operator")
    bench.cluster.write_lease(bench.namespace, "operator", Lease("two", 2, 15, MOMENT, MOMENT), 5.0)
    with pytest.raises(Conflict):
        bench.cluster.write_lease(bench.namespace, "operator", taken, 5.0)


def test_a_lease_of_a_whole_second_is_taken_as_well(bench: Bench) -> None:
    second = MOMENT.replace(microsecond=0)

    taken = bench.cluster.write_lease(bench.namespace, "operator", Lease("one", 1, 15, second, second), 5.0)

    assert taken.renewed is not None
    assert abs(taken.renewed - second) <= timedelta(microseconds=1)


def test_a_watch_begins_with_all_and_tells_each_change_until_its_time_is_up(bench: Bench) -> None:
    bench.queries("a")
    bench.queries("b")

    seen = bench.cluster.watch(QUERY_SET, bench.namespace, 2)
    first = next(seen)
    bench.cluster.write_status(QUERY_SET, bench.namespace, "a", {"queries": 1}, bench.version("a"))
    second = next(seen)
    bench.queries("c")
    third = next(seen)

    assert isinstance(first, All)
    assert [resource["metadata"]["name"] for resource in first.resources] == ["a", "b"]
    assert isinstance(second, Changed) and second.resource["status"] == {"queries": 1}
    assert isinstance(third, Changed) and third.resource["metadata"]["name"] == "c"
    assert list(seen) == []


def test_a_watch_of_one_namespace_tells_of_nothing_else(bench: Bench) -> None:
    bench.queries("a")

    assert [type(each) for each in bench.cluster.watch(QUERY_SET, "elsewhere", 1)] == [All]
    assert [type(each) for each in bench.cluster.watch(DATASET, bench.namespace, 1)] == [All]


def test_a_real_watch_tells_of_what_is_removed(real: Bench, control_plane: plane.ControlPlane) -> None:
    real.queries("a")
    seen = real.cluster.watch(QUERY_SET, real.namespace, 30)
    next(seen)

    control_plane.admin().delete(f"/apis/pointsman.dev/v1alpha1/namespaces/{real.namespace}/querysets/a")

    found = next(seen)
    assert isinstance(found, Gone) and found.resource["metadata"]["name"] == "a"


def test_a_real_cluster_says_whose_token_it_is_and_what_they_may(
    real: Bench, control_plane: plane.ControlPlane
) -> None:
    administrator, core = control_plane.admin(), f"/api/v1/namespaces/{real.namespace}/serviceaccounts"
    administrator.create(core, {"metadata": {"name": "searcher"}})
    token = administrator.create(f"{core}/searcher/token", {"spec": {}})["status"]["token"]

    caller = real.cluster.caller(token)

    assert caller is not None
    assert caller.name == f"system:serviceaccount:{real.namespace}:searcher"
    assert not real.cluster.may_search(caller, real.namespace, "papers")
    assert real.cluster.caller("forged") is None
    assert real.cluster.caller(token, ["gateway"]) is None
    spec = {"spec": {"audiences": ["gateway"]}}
    ours = administrator.create(f"{core}/searcher/token", spec)["status"]["token"]
    asked = real.cluster.caller(ours, ["other", "gateway"])
    assert asked is not None and asked.name == caller.name
    assert (real.cluster.caller(ours), real.cluster.caller(ours, ["other"])) == (None, None)

    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{real.namespace}"
    rule = {"apiGroups": ["pointsman.dev"], "resources": ["indexdeployments/search"], "verbs": ["create"]}
    administrator.create(
        f"{rbac}/roles", {"metadata": {"name": "search"}, "rules": [{**rule, "resourceNames": ["papers"]}]}
    )
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "search"}
    subject = {"kind": "ServiceAccount", "name": "searcher", "namespace": real.namespace}
    binding = {"metadata": {"name": "search"}, "roleRef": role, "subjects": [subject]}
    administrator.create(f"{rbac}/rolebindings", binding)
    deadline = time.monotonic() + 30
    # The server's own caches learn of it a moment later.
    while not real.cluster.may_search(caller, real.namespace, "papers"):
        assert time.monotonic() < deadline
    assert not real.cluster.may_search(caller, real.namespace, "others")


def test_a_secret_with_a_binary_value_keeps_its_texts(bench: Bench) -> None:
    bench.put_secret("keys", {"token": b"t0ken", "keystore": b"\xff\xfe"})

    found = bench.cluster.secret(bench.namespace, "keys")

    assert found is not None
    assert (found.values, found.binary) == ({"token": "t0ken"}, {"keystore"})
    assert bench.cluster.secret(bench.namespace, "gone") is None


def test_a_real_config_map_of_ours_is_known_by_its_label_or_its_owner(
    real: Bench, control_plane: plane.ControlPlane
) -> None:
    administrator, path = control_plane.admin(), f"/api/v1/namespaces/{real.namespace}/configmaps"
    owners = {name: real.put_owner(name) for name in ("a", "b", "before")}
    old = owners["before"]
    reference = {"apiVersion": "pointsman.dev/v1alpha1", "kind": DEPLOYMENT, "name": "before", "uid": old}
    metas = [{"name": "a-serving", "labels": dict(MANAGED_BY)}, {"name": "b-serving", "ownerReferences": [reference]}]
    for meta in metas:
        administrator.create(path, {"metadata": meta, "data": {"version": "v7"}})

    for name in ("a", "b"):
        assert real.cluster.config_map(real.namespace, f"{name}-serving") == {"version": "v7"}
        real.cluster.write_config_map(
            Key(DEPLOYMENT, real.namespace, name), owners[name], f"{name}-serving", {"version": "v8"}
        )
        found = administrator.get(f"{path}/{name}-serving")
        assert found["metadata"]["ownerReferences"][0]["uid"] == owners[name]
        assert found["data"] == {"version": "v8"}


def test_a_real_cluster_with_our_definitions_knows_all_our_kinds(real: Bench) -> None:
    assert isinstance(real.cluster, Kube)
    real.cluster.check_definitions()
