"""Real gateway processes: a real API server tells them routes, a real database answers, real clients ask."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import math
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.integration import databases, gateway_process
from tests.integration.databases import Database
from tests.integration.gateway_process import NAME, Stage, wait
from tests.servers import door
from tests.servers.openai_server import MODEL, OpenAIServer
from tests.unit.gateway.stage import TEXTS, entry, space, version

from pointsman.controlplane import plane
from pointsman.core.recipes import Space
from pointsman.embedders.wordllama import Wordllama

pytestmark = pytest.mark.server

SMALL, LARGE = space(64), space(128)
SECRET = "zeppelin merger"
"""A query that nobody else may ever read."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with databases.pgvector(Path(tmp_path_factory.mktemp("pgvector"))) as found:
        yield found


@pytest.fixture
def stage(control_plane: plane.ControlPlane, namespace: str, tmp_path: Path, database: Database) -> Iterator[Stage]:
    with gateway_process.staged(control_plane, namespace, tmp_path, database) as found:
        yield found


def names(stage: Stage) -> tuple[str, str]:
    """Return names for two indexes that no other test of this database has."""
    return f"{stage.namespace}_v7", f"{stage.namespace}_v8"


def serve_both(stage: Stage) -> tuple[str, str]:
    """Make v7 and v8, and serve v7."""
    old, new = names(stage)
    stage.fill(old, SMALL)
    stage.fill(new, LARGE)
    stage.declare(version("v7", 64), version("v8", 128))
    stage.route(entry(new, 0, LARGE, "v8"), entry(old, 100, SMALL, "v7"))
    return old, new


def test_the_official_client_searches_and_embeds_unchanged(stage: Stage) -> None:
    old, _ = serve_both(stage)
    gateway = stage.start()
    stage.served(gateway)

    client = openai.OpenAI(base_url=f"{gateway.url()}/v1", api_key="none", max_retries=0)
    page = client.vector_stores.search(
        f"{stage.namespace}.{NAME}",
        query=f"steam locomotives {SECRET}",
        max_num_results=2,
        filters={"type": "lt", "key": "year", "value": 1940},
        ranking_options={"score_threshold": 0.01},
    )
    hits = list(page)
    embedder = openai.OpenAI(
        base_url=f"{gateway.url()}/v1/namespaces/{stage.namespace}/indexes/{NAME}", api_key="none", max_retries=0
    )
    embedded = embedder.embeddings.create(input=["steam"], model=NAME)
    with pytest.raises(openai.BadRequestError) as refused:
        client.vector_stores.search(f"{stage.namespace}.{NAME}", query="x", max_num_results=0)
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.search("vs_elsewhere", query="x")

    assert hits[0].file_id == "engines"
    assert hits[0].content[0].text == TEXTS["engines"]
    assert (hits[0].attributes, hits[0].filename) == ({"year": 1925}, "engines")
    assert {hit.file_id for hit in hits} <= {"engines", "signals"}
    np.testing.assert_allclose(embedded.data[0].embedding, Wordllama(64).embed(["steam"])[0], atol=1e-6)
    assert (embedded.model, embedded.model_extra["space"]) == ("l2_supercat", SMALL.key)
    assert refused.value.body["message"] == "max_num_results is 0; wanted one from 1 to 1000"
    assert stage.served(gateway)["answered"] == {old: 1}
    assert SECRET not in gateway.log


def test_the_measured_weights_are_the_set_ones_and_a_session_stays_where_it_is(stage: Stage) -> None:
    old, new = serve_both(stage)
    gateways = [stage.start(), stage.start()]
    for gateway in gateways:
        stage.served(gateway)
    stage.route(entry(new, 30, LARGE, "v8"), entry(old, 70, SMALL, "v7"))
    for gateway in gateways:
        stage.served(gateway)
    seen: dict[str, set[str]] = {}

    with httpx.Client() as client:
        for number in range(600):
            for gateway in gateways:
                path = f"{gateway.url()}/v1/namespaces/{stage.namespace}/indexes/{NAME}/search"
                body = {"query": "steam", "session": str(number), "topK": 1}
                seen.setdefault(str(number), set()).add(client.post(path, json=body).json()["index"])

    reports = [stage.served(gateway) for gateway in gateways]
    assert all(len(indexes) == 1 for indexes in seen.values())
    by_new = sum(indexes == {new} for indexes in seen.values())
    # Four standard deviations: once in fifteen thousand such runs, and the salt is always the same.
    assert abs(by_new - 180) <= 4 * math.sqrt(600 * 0.3 * 0.7)
    assert [report["answered"] for report in reports] == [{new: by_new, old: 600 - by_new}] * 2
    assert [report["sessions"] for report in reports] == [600, 600]
    assert [report["mispaired"] for report in reports] == [0, 0]


def test_without_the_api_server_the_last_routes_go_on_and_the_next_one_is_found_when_it_is_back(
    control_plane: plane.ControlPlane, stage: Stage
) -> None:
    old, new = serve_both(stage)
    with door.before("127.0.0.1", int(control_plane.server.rpartition(":")[2])) as way:
        written = control_plane.kubeconfig.read_text().replace(control_plane.server, f"https://127.0.0.1:{way.port}")
        stage.kubeconfig = stage.folder / "kubeconfig"
        stage.kubeconfig.write_text(written)
        gateway = stage.start()
        stage.served(gateway)

        way.shut()
        wait(lambda: any(line["event"] == "watch_failed" for line in gateway.lines()), "the gateway misses the server")
        alone = stage.search(gateway, query="steam")
        ready = httpx.get(f"{gateway.url()}/readyz").status_code
        blind = stage.start()
        unready = httpx.get(f"{blind.url()}/readyz").status_code
        unseen = stage.search(blind, query="steam")
        stage.route(entry(new, 100, LARGE, "v8"), entry(old, 0, SMALL, "v7"))
        way.open()
        stage.served(gateway)
        stage.served(blind)

    assert (alone.status_code, alone.json()["version"], ready) == (200, "v7", 200)
    assert (unready, unseen.status_code) == (503, 503)
    assert unseen.json()["error"]["message"] == "the gateway has not seen the cluster's routes yet"
    assert stage.search(gateway, query="steam").json()["version"] == "v8"


def test_a_route_of_an_older_operator_is_refused(stage: Stage) -> None:
    old, new = serve_both(stage)
    gateway = stage.start()
    stage.epoch = 5
    stage.route(entry(new, 100, LARGE, "v8"), entry(old, 0, SMALL, "v7"))
    stage.served(gateway)

    stage.epoch = 4
    stage.route(entry(new, 0, LARGE, "v8"), entry(old, 100, SMALL, "v7"))
    wait(lambda: stage.served(gateway, 2)["refused"] is not None, "the older route is refused")

    report = stage.served(gateway, 2)
    assert report["refused"] == {"epoch": 4, "revision": 3, "why": "older than epoch 5, revision 2"}
    assert stage.search(gateway, query="steam").json()["version"] == "v8"


def test_a_database_that_is_gone_is_said_to_be_and_found_again(stage: Stage, database: Database) -> None:
    at = database.spec["pgvector"]
    with door.before(at["host"], at["port"]) as way:
        spec = {"pgvector": {**at, "port": way.port}}
        stage.database = dataclasses.replace(database, spec=spec)
        serve_both(stage)
        gateway = stage.start()
        stage.served(gateway)
        before = stage.search(gateway, query="steam")

        way.shut()
        down = stage.search(gateway, query=SECRET)
        problem = stage.served(gateway)["problem"]
        way.open()
        wait(lambda: stage.search(gateway, query="steam").status_code == 200, "the database is found again")

    assert before.status_code == 200
    assert (down.status_code, down.json()["error"]["code"]) == (503, "database_failed")
    assert f"127.0.0.1:{way.port} cannot be reached" in down.json()["error"]["message"]
    assert problem
    assert SECRET not in gateway.log + problem
    assert database.credentials["password"] not in gateway.log


def test_a_model_that_fails_is_said_to_and_is_asked_again_by_the_next_query(stage: Stage) -> None:
    with OpenAIServer(embed=Wordllama(64).embed) as model:
        model.switches.api_key = "sk-hunter2hunter2hunter2"
        where = Space("openai", MODEL, "", 64, query_prefix="query: ")
        index = names(stage)[0]
        stage.fill(index, dataclasses.replace(where, provider="openai"))
        stage.put_secret("openai", {"token": model.switches.api_key})
        choice = {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 64}, "queryPrefix": "query: "}
        endpoints = [{"name": "main", "baseURL": model.url, "apiKeyRef": {"name": "openai", "key": "token"}}]
        stage.declare({"name": "v7", "model": choice}, endpoints=endpoints)
        stage.route(entry(index, 100, where, "v7"))
        gateway = stage.start()
        stage.served(gateway)

        good = stage.search(gateway, query="steam engines")
        model.switches.refuse, model.switches.refuse_status = 1, 500
        failed = stage.search(gateway, query=SECRET)
        problem = stage.served(gateway)["problem"]
        cached = stage.search(gateway, query="steam engines")
        again = stage.search(gateway, query=SECRET)

    assert good.json()["results"][0]["document"] == "engines"
    assert (failed.status_code, failed.json()["error"]["message"]) == (
        503,
        "the model of v7 failed: the endpoint fails with HTTP 500",
    )
    assert problem == f"{index}: the endpoint fails with HTTP 500"
    assert (cached.status_code, again.status_code) == (200, 200)
    report = stage.served(gateway)
    assert report["totals"] == {index: {"queries": 4, "errors": 1, "empty": 0}}
    assert SECRET not in gateway.log and "hunter2" not in gateway.log
    assert SECRET not in json.dumps(report)


def test_a_token_of_the_file_lets_in_to_its_namespaces_alone(stage: Stage) -> None:
    serve_both(stage)
    tokens = stage.folder / "tokens"
    tokens.write_text(f"# who may search\nt0ken-here {stage.namespace}\nt0ken-there elsewhere\n")
    gateway = stage.start(auth="tokens", tokens_file=str(tokens))
    stage.served(gateway)
    path = f"{gateway.url()}/v1/namespaces/{stage.namespace}/indexes/{NAME}/search"

    def status(token: str | None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.post(path, json={"query": "steam"}, headers=headers).status_code

    found = [status(token) for token in (None, "t0ken-wrong", "t0ken-there", "t0ken-here")]
    tokens.write_text("t0ken-new\n")
    wait(lambda: status("t0ken-new") == 200, "the new token is read")

    assert found == [401, 401, 403, 200]
    assert status("t0ken-here") == 401
    assert "t0ken" not in gateway.log


def test_the_cluster_says_whose_token_it_is_and_what_they_may(stage: Stage) -> None:
    serve_both(stage)
    core = f"/api/v1/namespaces/{stage.namespace}/serviceaccounts"
    for name in ("searcher", "stranger"):
        stage.admin.create(core, {"metadata": {"name": name}})
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}"
    rule = {"apiGroups": ["pointsman.dev"], "resources": ["indexdeployments/search"], "verbs": ["create"]}
    stage.admin.create(f"{rbac}/roles", {"metadata": {"name": "search"}, "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "search"}
    subject = {"kind": "ServiceAccount", "name": "searcher", "namespace": stage.namespace}
    stage.admin.create(f"{rbac}/rolebindings", {"metadata": {"name": "search"}, "roleRef": role, "subjects": [subject]})
    tokens = {
        name: stage.admin.create(f"{core}/{name}/token", {"spec": {}})["status"]["token"]
        for name in ("searcher", "stranger")
    }
    gateway = stage.start(auth="kubernetes")
    stage.served(gateway)
    path = f"{gateway.url()}/v1/namespaces/{stage.namespace}/indexes/{NAME}/search"

    def status(token: str) -> int:
        return httpx.post(path, json={"query": "x"}, headers={"Authorization": f"Bearer {token}"}).status_code

    assert [status(tokens["searcher"]), status(tokens["stranger"]), status("forged")] == [200, 403, 401]
    assert tokens["searcher"] not in gateway.log


def test_it_says_that_it_drains_answers_on_and_ends(stage: Stage) -> None:
    serve_both(stage)
    gateway = stage.start(drain="2s")
    stage.served(gateway)

    gateway.process.terminate()
    wait(lambda: gateway.report()["draining"], "it drains")
    ready = httpx.get(f"{gateway.url()}/readyz")
    answer = stage.search(gateway, query="steam")

    assert (ready.status_code, answer.status_code) == (503, 200)
    assert gateway.process.wait(30) == 0
    assert [line["event"] for line in gateway.lines()][-1] == "gateway_stopped"


def test_a_renewed_certificate_is_shown_to_new_connections(stage: Stage) -> None:
    serve_both(stage)
    certificate, key = stage.folder / "tls.crt", stage.folder / "tls.key"
    first = write_certificate(certificate, key)
    gateway = stage.start(certificate=str(certificate), key=str(key))
    stage.served(gateway)

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", gateway.ports()[0])).strip()

    path = f"{gateway.url('https')}/v1/namespaces/{stage.namespace}/indexes/{NAME}/search"
    answer = httpx.post(path, json={"query": "x"}, verify=ssl.create_default_context(cafile=str(certificate)))
    before = shown()
    second = write_certificate(certificate, key)
    wait(lambda: shown() == second, "the new certificate is shown")

    assert (answer.status_code, before) == (200, first)


REFUSED: list[tuple[dict[str, object], int, str]] = [
    ({}, 400, "nothing is given to search by; wanted exactly one of query, vector and like"),
    ({"query": "a" * (1 << 20)}, 413, "query has a text of 1048576 characters; wanted 32768 at most"),
    ({"query": "a" * (8 << 20)}, 413, "the body has 8388620 bytes; wanted 4194304 at most"),
    ({"query": "steam", "topK": 0}, 400, "topK is 0; wanted one from 1 to 1000"),
    ({"query": "steam", "topK": 10_000_000}, 400, "topK is 10000000; wanted one from 1 to 1000"),
    (
        {"query": "steam", "filter": {"type": "eq", "key": "author", "value": "ana"}},
        400,
        "the filter asks for the field author; v7 has year",
    ),
]


def test_a_search_that_cannot_be_meant_is_refused_and_the_next_one_is_answered(stage: Stage) -> None:
    serve_both(stage)
    gateway = stage.start()
    stage.served(gateway)

    for body, status, message in REFUSED:
        refused, answer = stage.search(gateway, **body), stage.search(gateway, query="steam")
        assert (refused.status_code, refused.json()["error"]["message"], answer.status_code) == (status, message, 200)


def test_a_deleted_deployment_is_not_routed_any_more(stage: Stage) -> None:
    serve_both(stage)
    gateway = stage.start()
    stage.served(gateway)

    stage.admin.delete(stage.path("indexdeployments", NAME))
    wait(lambda: stage.owner not in gateway.report()["deployments"], "the deployment is dropped")

    assert stage.search(gateway, query="steam").status_code == 404


def test_a_gateway_that_is_not_told_who_may_search_does_not_start(stage: Stage) -> None:
    gateway = stage.start(auth="")

    assert gateway.process.wait(60) == 3
    assert gateway.log.splitlines()[-1] == (
        "error: POINTSMAN_GATEWAY_AUTH is not usable: nobody said who may search; set it to none, tokens or kubernetes"
    )


def test_an_index_in_milvus_is_searched_alike(
    control_plane: plane.ControlPlane, namespace: str, tmp_path: Path
) -> None:
    folder = tmp_path / "milvus"
    folder.mkdir()
    with (
        databases.milvus_lite(folder) as database,
        gateway_process.staged(control_plane, namespace, tmp_path, database) as stage,
    ):
        stage.fill("papers_v7", SMALL)
        stage.declare(version("v7", 64))
        stage.route(entry("papers_v7", 100, SMALL, "v7"))
        gateway = stage.start()
        stage.served(gateway)

        answer = stage.search(gateway, query="steam engines", topK=2, include=["metadata"])
        alike = stage.search(gateway, like="engines", filter={"type": "eq", "key": "year", "value": 1950})

        assert [answer.json()["results"][0][field] for field in ("document", "metadata")] == ["engines", {"year": 1925}]
        assert [hit["document"] for hit in alike.json()["results"]] == ["sleepers"]


def write_certificate(certificate: Path, key: Path) -> str:
    """Write a new pair for 127.0.0.1; return the certificate."""
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(alternative, critical=False)
        .sign(private, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    key.write_bytes(private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    certificate.write_bytes(made.public_bytes(encoding))
    return made.public_bytes(encoding).decode().strip()
