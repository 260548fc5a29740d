"""What is asked of the Kubernetes API: no more than the README's rules allow, and what comes of its answers."""

from __future__ import annotations

import json
import re
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest
import yaml

from pointsman.access import Access
from pointsman.api import engines
from pointsman.api.conditions import Reason
from pointsman.cluster import credentials
from pointsman.cluster.kube import Kube
from pointsman.cluster.kube_batch import KubeBatch
from pointsman.cluster.resources import DATASET, DEPLOYMENT, MANAGED_BY, PLURALS, Lease
from pointsman.cluster.rest import Rest
from pointsman.errors import PointsmanError, Retryable, Terminal
from pointsman.plan.tasks import Key

README = Path(__file__).parents[2] / "README.md"
OURS = "/apis/pointsman.dev/v1alpha1"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Api:
    """An API server that answers what it is told to, or else with what it was sent, and keeps what it was asked."""

    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def kube(api: Api) -> Iterator[Kube]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path, _, query = self.path.partition("?")
            api.queries.append(query)
            api.asked.append((self.command, path))
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = api.answers.get(path, (200, json.loads(sent) if sent else {"items": [], "metadata": {}}))
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    configuration = kubernetes.client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    configuration.retries = False
    with kubernetes.client.ApiClient(configuration) as client:
        yield Kube(Rest(client))
    server.shutdown()
    server.server_close()
    thread.join()


def right(method: str, path: str) -> tuple[str, str, str]:
    """Return the group, the resource and the verb that a request needs."""
    found = re.fullmatch(r"/(?:api|apis/([^/]+))/[^/]+(?:/namespaces/[^/]+)?/([^/]+)(/[^/]+)?(/[^/]+)?", path)
    assert found is not None, path
    group, resource, name, part = found.groups()
    verb = VERBS.get(method, "get" if name else "list")
    return group or "", f"{resource}{part or ''}", verb


def granted() -> set[tuple[str, str, str]]:
    """Return the rights that the README lists."""
    block = next(b for b in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.S) if "kind: ClusterRole" in b)
    return {
        (group, resource, verb)
        for document in yaml.safe_load_all(block)
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_rules_in_the_readme_are_all_that_is_used_and_no_more(api: Api, kube: Kube) -> None:
    core, name = "/api/v1/namespaces/search", "papers"
    meta = {"name": name, "namespace": "search", "uid": "u", "resourceVersion": "1", "labels": dict(MANAGED_BY)}
    api.answers[f"{core}/configmaps/papers"] = (200, {"metadata": meta, "data": {}})
    api.answers[f"{core}/configmaps/new"] = (404, {})
    leases = "/apis/coordination.k8s.io/v1/namespaces/pointsman/leases"
    for path in (leases, f"{leases}/pointsman-operator"):
        api.answers[path] = (200, {"metadata": {"resourceVersion": "1"}, "spec": {}})
    api.answers[f"{core}/secrets/papers"] = (200, {"metadata": meta, "data": {}})

    for kind in PLURALS:
        about = {"apiVersion": "pointsman.dev/v1alpha1", "kind": kind, "metadata": meta}
        kube.get(kind, "search", name)
        kube.list(kind, None)
        kube.list(kind, "search")
        if kind in (DATASET, DEPLOYMENT):
            # Finalizers: of what leaves something behind. What a person has decided is nobody's to change.
            kube.patch(kind, "search", name, {"metadata": {"annotations": {}}})
        kube.write_status(kind, "search", name, {}, "1")
        kube.event(about, False, "UpToDate", "is")
    kube.config_map("search", name)
    kube.write_config_map(Key("IndexDeployment", "search", name), "u", name, {})
    kube.write_config_map(Key("IndexDeployment", "search", "new"), "u", "new", {})
    kube.delete_config_map("search", name)
    kube.secret("search", name)
    kube.endpoints()
    lease = Lease("operator-1", 1, 15, None, None)
    kube.lease("pointsman", "pointsman-operator", within=5.0)
    kube.write_lease("pointsman", "pointsman-operator", lease, within=5.0)
    kube.write_lease("pointsman", "pointsman-operator", replace(lease, version="1"), within=5.0)
    jobs = "/apis/batch/v1/namespaces/search/jobs"
    api.answers |= {jobs: (200, {"items": []}), f"{jobs}/papers": (200, {}), f"{jobs}/new": (404, {})}
    batch = KubeBatch(kube.call)
    batch.jobs("search", "u")
    batch.create("search", {"metadata": {"name": "new"}})
    batch.suspend("search", name, True)
    batch.delete("search", name)
    batch.pods("search", name)
    watched = {("pointsman.dev", plural, "watch") for plural in PLURALS.values()}

    assert {right(*asked) for asked in api.asked} | watched == granted()


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        pytest.param(
            403,
            Reason.SECRET_FORBIDDEN,
            "Secret keys may not be read: the cluster forbids it; grant get on it in namespace search to operator and "
            "gateways, as the chart's secrets.names does",
            id="no right to it",
        ),
        pytest.param(404, Reason.SECRET_NOT_FOUND, "Secret keys is not there", id="not there"),
        pytest.param(
            401,
            Reason.CLUSTER_UNREACHABLE,
            "the Kubernetes API refused us (401 Unauthorized); check the role of whoever asks",
            id="not who we were",
        ),
    ],
)
def test_a_secret_that_may_not_be_read_is_told_from_one_that_is_not_there_and_from_an_api_that_is_away(
    api: Api, kube: Kube, status: int, reason: Reason, message: str
) -> None:
    api.answers["/api/v1/namespaces/search/secrets/keys"] = (status, {"message": "hunter2"})
    spec = engines.Backend.model_validate(
        {"qdrant": {"url": "http://db:6333", "apiKeyRef": {"name": "keys", "key": "k"}}}
    )

    with pytest.raises(PointsmanError) as error:
        credentials.of_backend(kube, "search", spec, Access())

    assert (error.value.reason, error.value.message) == (reason, message)


def test_the_addresses_behind_the_api_server_are_those_of_its_slices(api: Api, kube: Kube) -> None:
    ports = [{"name": "https", "port": 6443}]
    slices = [
        {"addressType": "IPv4", "metadata": {}, "endpoints": [{"addresses": ["10.1.2.3", "10.1.2.4"]}], "ports": ports}
    ]
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    api.answers[path] = (200, {"items": slices, "metadata": {}})
    assert kube.endpoints() == [("10.1.2.3", 6443), ("10.1.2.4", 6443)]

    api.answers[path] = (403, {})
    assert kube.endpoints() == []


def endpoint(address: str, pod: str = "", ready: bool | None = True) -> dict[str, Any]:
    conditions = {} if ready is None else {"ready": ready, "serving": ready, "terminating": False}
    about = {"targetRef": {"kind": "Pod", "name": pod, "uid": pod}} if pod else {}
    return {"addresses": [address], "conditions": conditions, **about}


def slice_of(*endpoints: dict[str, Any], family: str = "IPv4", port: str = "admin") -> dict[str, Any]:
    ports = [{"name": "metrics", "port": 9090}, {"name": port, "port": 8081}]
    return {"addressType": family, "metadata": {}, "endpoints": list(endpoints), "ports": ports}


@pytest.mark.parametrize(
    ("slices", "found"),
    [
        pytest.param(
            [slice_of(endpoint("10.1.2.3", "a"), endpoint("10.1.2.4", "b", ready=False))],
            [("http://10.1.2.3:8081", True), ("http://10.1.2.4:8081", False)],
            id="one that no query is sent to is one all the same",
        ),
        pytest.param([slice_of(endpoint("10.1.2.3", "a", ready=None))], [("http://10.1.2.3:8081", True)], id="unsaid"),
        pytest.param(
            [slice_of(endpoint("fd00::7", "a"), family="IPv6")], [("http://[fd00::7]:8081", True)], id="IPv6 alone"
        ),
        pytest.param(
            [
                slice_of(endpoint("fd00::7", "a"), endpoint("fd00::8", "b"), family="IPv6"),
                slice_of(endpoint("10.1.2.3", "a"), endpoint("10.1.2.4", "b")),
            ],
            [("http://10.1.2.3:8081", True), ("http://10.1.2.4:8081", True)],
            id="a pod of two families is one gateway",
        ),
        pytest.param(
            [slice_of(endpoint("10.1.2.3", "a", ready=False)), slice_of(endpoint("10.1.2.3", "a"))],
            [("http://10.1.2.3:8081", True)],
            id="in two slices while they are divided anew",
        ),
        pytest.param(
            [slice_of(endpoint("10.1.2.3")), slice_of(endpoint("10.1.2.3"), endpoint("10.1.2.4"))],
            [("http://10.1.2.3:8081", True), ("http://10.1.2.4:8081", True)],
            id="nobody says whose they are",
        ),
        pytest.param([slice_of(endpoint("10.1.2.3", "a"), port="http")], [], id="no port admin"),
        pytest.param(
            [{**slice_of(endpoint("10.1.2.3", "a")), "ports": [{"name": "admin", "port": None}]}], [], id="no number"
        ),
        pytest.param(
            [{**slice_of(), "endpoints": None}, {**slice_of(endpoint("10.1.2.3", "a")), "ports": None}],
            [],
            id="nothing behind it",
        ),
    ],
)
def test_gateways_are_the_pods_behind_their_service(
    api: Api, kube: Kube, slices: list[dict[str, Any]], found: list[tuple[str, bool]]
) -> None:
    path = "/apis/discovery.k8s.io/v1/namespaces/pointsman/endpointslices"
    api.answers[path] = (200, {"items": slices, "metadata": {}})

    assert kube.gateways("pointsman", "gateway-admin") == found
    assert api.queries == ["labelSelector=kubernetes.io%2Fservice-name%3Dgateway-admin"]


@pytest.mark.parametrize("status", [403, 503])
def test_gateways_that_nobody_may_look_for_are_not_taken_for_none(api: Api, kube: Kube, status: int) -> None:
    api.answers["/apis/discovery.k8s.io/v1/namespaces/pointsman/endpointslices"] = (status, {})

    with pytest.raises(Retryable) as error:
        kube.gateways("pointsman", "gateway-admin")

    assert error.value.reason is Reason.CLUSTER_UNREACHABLE


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        pytest.param((404, {}), "approvals, embeddingdatasets, indexdeployments, querysets", id="none is there"),
        pytest.param((200, ["approvals", "embeddingdatasets", "indexdeployments"]), "querysets", id="one is missing"),
    ],
)
def test_a_cluster_without_our_kinds_is_told_apart_before_anything_is_watched(
    api: Api, kube: Kube, answer: tuple[int, Any], missing: str
) -> None:
    status, names = answer
    known = [{"name": n, "kind": n, "namespaced": True, "singularName": "", "verbs": []} for n in names]
    api.answers[OURS] = (status, {"groupVersion": "pointsman.dev/v1alpha1", "resources": known})

    with pytest.raises(Terminal) as error:
        kube.check_definitions()

    wanted = ", ".join(f"{plural}.pointsman.dev" for plural in missing.split(", "))
    assert error.value.message == f"the cluster does not know {wanted}; apply the folder crds and start again"


def test_what_the_api_answers_is_named_by_its_number_and_never_by_its_words(api: Api, kube: Kube) -> None:
    api.answers[f"{OURS}/namespaces/search/querysets/papers"] = (422, {"message": "hunter2"})

    with pytest.raises(Retryable) as error:
        kube.get("QuerySet", "search", "papers")

    assert "422" in error.value.message
    assert "hunter2" not in error.value.message


def test_an_answer_that_is_not_json_is_one_that_did_not_come(api: Api, kube: Kube) -> None:
    api.answers[f"{OURS}/namespaces/search/querysets/papers"] = (200, b"<html>hunter2</html>")

    with pytest.raises(Retryable) as error:
        kube.get("QuerySet", "search", "papers")

    assert error.value.message == "the Kubernetes API answered something else than JSON"
    assert "hunter2" not in "".join(traceback.format_exception(error.value))


def test_what_is_refused_is_in_no_trace_of_it(api: Api, kube: Kube) -> None:
    api.answers["/api/v1/namespaces/search/secrets/keys"] = (500, {"message": "hunter2"})

    with pytest.raises(Retryable) as error:
        kube.secret("search", "keys")

    told = "".join(traceback.format_exception(error.value))
    assert "500" in told
    assert "hunter2" not in told


def test_a_name_stays_one_whatever_is_in_it(api: Api, kube: Kube) -> None:
    kube.get("QuerySet", "search", "a/../b?c")

    assert api.asked == [("GET", f"{OURS}/namespaces/search/querysets/a%2F..%2Fb%3Fc")]
