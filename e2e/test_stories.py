"""The stories, in the order in which they are told: real pods, live queries through all of them."""

from __future__ import annotations

import json
import signal
import time

import pytest
from e2e import example, stack, stage
from e2e.cluster import programs
from e2e.stage import DATASET, DEPLOYMENT, Stage

SMALL = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "500m", "memory": "2Gi"}}
"""What a pod that embeds gets: the node is small, and queries come first."""
GATEWAY_WAITS = 10
"""Seconds, by the chart's default."""


def test_1_the_chart_is_installed_and_the_example_becomes_ready(live: Stage) -> None:
    status = live.status()

    assert status["servingVersion"] == "v7"
    live.wait(lambda: live.weight("v7") == 100, "every gateway to serve v7")
    assert {pod["status"]["phase"] for pod in live.pods("gateway")} == {"Running"}
    assert len(live.pods("gateway")) == 2
    live.wait(lambda: live.answers().versions.get("v7", 0) >= 40, "queries to be answered")


def test_2_a_better_version_takes_over_by_steps(live: Stage) -> None:
    before = live.serving()
    live.add_version("v8", 256)

    live.serve("v8", example.STEPS)

    live.wait(lambda: live.is_ready("v8"), "v8 to serve")
    live.wait(lambda: live.status().get("step", {}).get("name", "") == "", "v8 to have burnt in")
    versions = live.answers().versions
    assert versions[before] > 0 and versions["v8"] > 0


def test_3_a_worse_version_is_rejected_and_nobody_gets_its_answers(live: Stage) -> None:
    before = live.serving()
    live.add_version("v9", 64, tokens=24)

    live.serve("v9", example.STEPS)

    live.wait(lambda: any(each["version"] == "v9" for each in live.status().get("rejected", ())), "v9 to be rejected")
    rejected = next(each for each in live.status()["rejected"] if each["version"] == "v9")
    assert rejected["reason"] == "GateFailed" and "nDCG@10" in rejected["message"]
    live.serve(before)
    live.wait(lambda: live.is_ready(before), f"{before} to be Ready")
    assert set(live.answers().versions) == {before}


def test_4_a_rollback_in_mid_canary_takes_all_queries_back(live: Stage) -> None:
    before = _half_way(live)
    live.wait(lambda: live.answers().versions.get("v10", 0) >= 20, "v10 to answer")

    edit = json.dumps({"spec": {"version": before}})
    live.kube.run("patch", DEPLOYMENT, stack.NAME, "-n", stack.NAMESPACE, "--type=merge", "-p", edit)

    live.wait(lambda: live.weight("v10") in (-1, 0), "all queries to go back")
    gone = live.answers().until
    live.wait(lambda: live.answers(gone).count >= 40, "more queries")
    assert set(live.answers(gone).versions) == {before}
    live.wait(lambda: live.is_ready(before), f"{before} to be Ready")


def test_5_an_operator_that_is_killed_or_frozen_in_mid_canary_is_followed_by_one_that_goes_on(live: Stage) -> None:
    before = _half_way(live)
    (operator,) = live.pods("operator")
    killed = live.holder()

    live.kube.run("delete", "pod", operator["metadata"]["name"], "-n", stack.NAMESPACE, "--grace-period=0", "--force")

    live.wait(lambda: live.holder() not in ("", killed), "another operator to have the Lease")
    assert live.weight("v10") == 50
    if live.node is not None:
        live.wait(lambda: live.kube.is_available(stack.NAMESPACE, f"{stack.RELEASE}-operator"), "it to be ready")
        (operator,), frozen = live.pods("operator"), live.holder()
        assert live.node.signal_pod(operator["metadata"]["uid"], signal.SIGSTOP) > 0
        # Nobody stands by: the kubelet finds that it does not answer, and starts its container again.
        live.wait(lambda: live.holder() not in ("", frozen), "another operator to have the Lease")
        assert live.weight("v10") == 50
    live.serve(before)
    live.wait(lambda: live.weight("v10") in (-1, 0), "all queries to go back")
    live.wait(lambda: live.is_ready(before), f"{before} to be Ready")


def test_6_a_gateway_is_killed_and_then_all_are_replaced_by_others(live: Stage) -> None:
    victim, _ = live.pods("gateway")

    live.kube.run("delete", "pod", victim["metadata"]["name"], "-n", stack.NAMESPACE, "--grace-period=0", "--force")

    gateways = f"{stack.RELEASE}-gateway"
    live.wait(lambda: live.kube.is_available(stack.NAMESPACE, gateways), "another gateway")
    before = {pod["metadata"]["uid"] for pod in live.pods("gateway")}
    assert victim["metadata"]["uid"] not in before
    live.kube.run("rollout", "restart", f"deployment/{gateways}", "-n", stack.NAMESPACE)
    live.wait(lambda: live.kube.is_available(stack.NAMESPACE, gateways), "new gateways")
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in live.pods("gateway"))


def test_7_while_the_database_restarts_queries_get_a_clear_answer_and_afterwards_hits(watched: Stage) -> None:
    watched.kube.run("delete", "pod", "-l", f"app={stack.DATABASE}", "-n", stack.NAMESPACE, "--wait=false")

    watched.wait(lambda: not watched.kube.is_available(stack.NAMESPACE, stack.DATABASE), "the database to go")
    watched.wait(lambda: watched.kube.is_available(stack.NAMESPACE, stack.DATABASE), "the database to be back")
    # A query may take as long as a gateway waits: what was asked meanwhile is answered by then.
    back = watched.answers().until
    watched.wait(lambda: watched.answers(back).count >= stage.RATE * GATEWAY_WAITS, "what was asked meanwhile")
    settled = watched.answers()
    watched.wait(lambda: watched.answers(settled.until).count >= 100, "more queries")
    assert not watched.answers(settled.until).failed
    # Nothing else fails in this story: an outage of the database is said as one.
    assert all(failed.startswith("503 ") and "database" in failed for failed in settled.failed), settled.failed
    watched.wait(lambda: watched.is_ready(watched.serving()), "it to be Ready")


def test_8_pods_that_embed_are_killed_and_evicted_and_the_digest_is_that_of_a_run_in_the_operator(live: Stage) -> None:
    live.multiply(10)
    live.embed_many("parts", {"mode": "Job", "job": {"shards": 3, "parallelism": 2, "resources": SMALL}})
    killed = live.wait(lambda: live.pod_of_jobs("parts"), "a pod that embeds")

    live.kube.run("delete", "pod", killed, "-n", stack.NAMESPACE, "--grace-period=0", "--force")

    evicted = live.wait(lambda: live.pod_of_jobs("parts", but=killed), "another pod that embeds")
    metadata = {"name": evicted, "namespace": stack.NAMESPACE}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{stack.NAMESPACE}/pods/{evicted}/eviction"
    live.kube.run("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    parts = live.wait(lambda: _embedded(live, "parts"), "the pods' snapshot")
    live.embed_many("whole", {"mode": "InProcess"})
    whole = live.wait(lambda: _embedded(live, "whole"), "the operator's snapshot")
    # As many texts too: what was embedded before the end of a pod was not embedded again.
    assert parts == whole and parts[1] > 0


def test_9_queries_are_answered_while_the_api_server_is_down_and_the_operator_goes_on_afterwards(live: Stage) -> None:
    if live.node is None:
        pytest.skip("only the API server of a node of one's own can be stopped")
    live.node.stop_api_server()
    time.sleep(60)
    live.node.start_api_server()
    live.wait(lambda: live.kube.run("get", "--raw", "/readyz", check=False) == "ok", "the API server to be back")

    live.wait(lambda: live.answers().count >= 60 * stage.RATE * 0.9, "what was asked meanwhile")
    live.add_version("v11", 256, template="{name} {text}")
    live.serve("v11", example.STEPS)
    live.wait(lambda: live.is_ready("v11"), "v11 to serve")


def test_nobody_reads_a_secret_or_a_text_in_what_was_logged_or_said(served: Stage) -> None:
    said = {
        "operator": served.logs("operator"),
        "gateways": served.logs("gateway"),
        "events": served.kube.run("get", "events", "-n", stack.NAMESPACE, "-o", "yaml"),
        "resources": served.kube.run("get", "pointsman", "-n", stack.NAMESPACE, "-o", "yaml"),
    }
    texts = [json.loads(line)["text"] for line in (served.folder / "corpus" / "queries.jsonl").read_text().splitlines()]
    planted = {
        "the database's password": [served.keys.database],
        "the object store's keys": [served.keys.secret, served.keys.access],
        "a query": [text for text in texts if len(text) > 30],
    }

    found = [
        f"{what} in {where}"
        for where, text in said.items()
        for what, each in planted.items()
        for one in each
        if one in text
    ]

    assert all(said.values())
    assert not found


def test_12_a_tenant_neither_reads_nor_names_nor_reaches_what_is_anothers(live: Stage) -> None:
    live.admit(stack.TENANT)
    live.kube.apply(example.attempts())
    wanted = {
        "with-anothers-secret": (DATASET, "SecretNotFound"),
        "with-none": (DATASET, "CredentialsRequired"),
        "by-the-api-server": (DATASET, "EndpointNotAllowed"),
        "with-anothers-database": (DEPLOYMENT, "SecretNotFound"),
    }

    def said() -> dict[str, tuple[str, str]]:
        return {name: (kind, live.reason(kind, name, stack.TENANT)) for name, (kind, _) in wanted.items()}

    live.wait(lambda: said() == wanted, f"{wanted} to be said", 120, lambda: f"said is {said()}")
    token = live.kube.run("create", "token", "default", "-n", stack.TENANT).strip()
    assert live.search_as(token) == 403
    assert live.search_as("not-a-token") == 401


def test_11_a_namespace_is_deleted_after_the_operator_and_the_documented_way_out_works(served: Stage) -> None:
    helm = [str(programs.helm()), "uninstall", stack.RELEASE, "-n", stack.NAMESPACE, "--wait"]
    served.kube.run("delete", "deployment", stack.ASKER, "-n", stack.NAMESPACE)
    served.kube.command(helm)
    served.kube.run("delete", "namespace", stack.NAMESPACE, "--wait=false")
    condition = "NamespaceFinalizersRemaining"
    served.wait(lambda: served.kube.is_true("namespace", stack.NAMESPACE, condition), "the namespace to wait for them")

    # As docs/install.md has it.
    for kind in (DEPLOYMENT, DATASET):
        for name in served.kube.run("get", kind, "-n", stack.NAMESPACE, "-o", "name").split():
            patch = '{"metadata": {"finalizers": null}}'
            served.kube.run("patch", name, "-n", stack.NAMESPACE, "--type=merge", "-p", patch)

    served.wait(lambda: not served.kube.get("namespace", stack.NAMESPACE), "the namespace to go")


def _half_way(live: Stage) -> str:
    """Give half of the queries to another version, and return the one that serves."""
    before = live.serving()
    live.add_version("v10", 256, template="{name}: {text}")
    live.serve("v10", example.HALF_WAY)
    live.wait(lambda: live.weight("v10") == 50, "v10 to get half of the queries")
    return before


def _embedded(live: Stage, name: str) -> tuple[str, int] | None:
    """Return the digest of a dataset's one version, and how many texts were embedded for it; None until it is there."""
    found = next((each for each in live.dataset(name).get("versions", ()) if each.get("digest")), None)
    return found and (found["digest"], found["embedded"])
