"""The stories, in the order in which they are told: real pods, live queries, and a source that changes all the time."""

from __future__ import annotations

import functools
import json
import signal
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from e2e import changing, counting, example, seen, stack, stage
from e2e.cluster import programs
from e2e.stage import DATASET, DEPLOYMENT, Stage

SMALL = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"cpu": "500m", "memory": "2Gi"}}
"""What a pod that embeds gets: the node is small, and queries come first."""
LOST_TEXTS = 4 * 4 * counting.MOST_TEXTS
"""A pod has four requests under way. One that is killed loses them, and what was answered in the last quarter of a
second; one that is evicted or suspended loses at most those under way."""
LOST_WITH_A_GATEWAY = 2 * stage.RATE
"""One that is killed takes with it what it was asked, and is asked until everybody knows: two seconds."""
ASKED = 20
"""Documents that are looked for by all that they say."""
FEW_TEXTS = 1000
"""More than what changes of the source in some minutes, and far fewer than it has."""
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
    # Worse than any other: a document is no more than the name of its module.
    live.add_version("v9", 64, template="{module}")

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
    _is_still_half_way(live)
    if live.node is not None:
        live.wait(lambda: live.kube.is_available(stack.NAMESPACE, f"{stack.RELEASE}-operator"), "it to be ready")
        (operator,), frozen = live.pods("operator"), live.holder()
        assert live.node.signal_pod(operator["metadata"]["uid"], signal.SIGSTOP) > 0
        # Nobody stands by: the kubelet finds that it does not answer, and starts its container again.
        live.wait(lambda: live.holder() not in ("", frozen), "another operator to have the Lease")
        _is_still_half_way(live)
    live.serve(before)
    live.wait(lambda: live.weight("v10") in (-1, 0), "all queries to go back")
    live.wait(lambda: live.is_ready(before), f"{before} to be Ready")


def test_6_a_gateway_is_killed_and_then_all_are_replaced_by_others(watched: Stage) -> None:
    victim, _ = watched.pods("gateway")

    watched.kube.run("delete", "pod", victim["metadata"]["name"], "-n", stack.NAMESPACE, "--grace-period=0", "--force")

    gateways = f"{stack.RELEASE}-gateway"
    watched.wait(lambda: watched.kube.is_available(stack.NAMESPACE, gateways), "another gateway")
    before = {pod["metadata"]["uid"] for pod in watched.pods("gateway")}
    assert victim["metadata"]["uid"] not in before
    killed = watched.answers()
    killed.check(LOST_WITH_A_GATEWAY)
    watched.kube.run("rollout", "restart", f"deployment/{gateways}", "-n", stack.NAMESPACE)
    watched.wait(lambda: watched.kube.is_available(stack.NAMESPACE, gateways), "new gateways")
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in watched.pods("gateway"))
    # Nobody who is replaced takes anything with it.
    replaced = watched.answers(killed.until)
    assert replaced.count > 0
    replaced.check()


def test_an_image_that_cannot_start_is_named_and_the_gateways_of_before_go_on(live: Stage) -> None:
    before = {pod["metadata"]["uid"] for pod in live.pods("gateway")}

    live.install("--set", "image.tag=none", "--wait=false")

    live.wait(lambda: _waiting(live) == {("gateway", "ImagePullBackOff"), ("operator", "ImagePullBackOff")}, "both")
    stopped = live.answers().until
    live.wait(lambda: live.answers(stopped).count >= 40, "queries to be answered meanwhile")
    rolled_back = [str(programs.helm()), "rollback", stack.RELEASE, "-n", stack.NAMESPACE, "--wait"]
    live.kube.command(rolled_back)
    assert {pod["metadata"]["uid"] for pod in live.pods("gateway")} == before
    live.wait(lambda: live.kube.is_available(stack.NAMESPACE, f"{stack.RELEASE}-operator"), "the operator to be back")


def test_7_while_the_database_restarts_queries_get_a_clear_answer_and_afterwards_hits(watched: Stage) -> None:
    watched.kube.run("delete", "pod", "-l", f"app={stack.DATABASE}", "-n", stack.NAMESPACE, "--wait=false")

    watched.wait(lambda: not watched.kube.is_available(stack.NAMESPACE, stack.DATABASE), "the database to go")
    watched.wait(lambda: watched.kube.is_available(stack.NAMESPACE, stack.DATABASE), "the database to be back")
    # A query may take as long as a gateway waits: what was asked meanwhile is answered by then.
    back = watched.answers().until
    watched.wait(lambda: watched.answers(back).count >= stage.RATE * GATEWAY_WAITS, "what was asked meanwhile")
    settled = watched.answers()
    watched.wait(lambda: watched.answers(settled.until).count >= 100, "more queries")
    watched.answers(settled.until).check()
    # Nothing else fails in this story: an outage of the database is said as one.
    assert all(failed.startswith("503 ") and "database" in failed for failed in settled.failed), settled.failed
    assert settled.lost == 0
    watched.wait(lambda: watched.is_ready(watched.serving()), "it to be Ready")


def test_8_pods_that_embed_are_killed_and_evicted_and_the_digest_is_that_of_a_run_in_the_operator(live: Stage) -> None:
    live.count()
    live.multiply(3)
    live.embed_many("parts", {"mode": "Job", "job": {"shards": 3, "parallelism": 2, "resources": SMALL}})
    live.wait(lambda: live.asked().texts > 0, "a first text to be embedded")
    live.notes.append(f"a Job's first batch came {_age(live):.0f} s after it was made")
    killed = live.wait(lambda: live.pod_of_jobs("parts"), "a pod that embeds")
    live.wait(lambda: live.asked().texts >= 400, "texts to be embedded")

    live.kube.run("delete", "pod", killed, "-n", stack.NAMESPACE, "--grace-period=0", "--force")

    begun = live.asked().texts
    evicted = live.wait(lambda: live.pod_of_jobs("parts", but=killed), "another pod that embeds")
    live.wait(lambda: live.asked().texts >= begun + 400, "more texts to be embedded")
    metadata = {"name": evicted, "namespace": stack.NAMESPACE}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{stack.NAMESPACE}/pods/{evicted}/eviction"
    live.kube.run("create", "--raw", path, "-f", "-", given=json.dumps(eviction))
    halfway = live.asked()
    parts = live.wait(lambda: _embedded(live, "parts"), "the pods' snapshot")
    asked = live.asked()
    # Both ends came in the middle of the work, and what was finished by then was not asked for again.
    assert halfway.different < asked.different
    assert asked.again <= LOST_TEXTS
    live.embed_many("whole", {"mode": "InProcess"})
    assert live.wait(lambda: _embedded(live, "whole"), "the operator's snapshot") == parts
    # As many as the ledger says, too.
    assert parts[1] == asked.different
    _is_loaded_by_pods_as_by_the_operator(live, parts[0])


def test_9_queries_are_answered_while_the_api_server_is_down_and_the_operator_goes_on_afterwards(live: Stage) -> None:
    if live.node is None:
        pytest.skip("only the API server of a node of one's own can be stopped")
    live.node.stop_api_server()
    time.sleep(60)
    live.node.start_api_server()

    live.wait(lambda: live.answers().count >= 60 * stage.RATE * 0.9, "what was asked meanwhile")
    live.add_version("v11", 256, template="{name} {text}")
    live.serve("v11", example.STEPS)
    live.wait(lambda: live.is_ready("v11"), "v11 to serve")


def test_12_a_tenant_neither_reads_nor_names_nor_reaches_what_is_anothers(live: Stage) -> None:
    live.admit(stack.TENANT)
    live.kube.apply(example.attempts(live.keys))
    wanted = {
        "with-anothers-secret": (DATASET, "SecretNotFound"),
        "with-none": (DATASET, "CredentialsRequired"),
        "by-the-api-server": (DATASET, "EndpointNotAllowed"),
        "with-anothers-database": (DEPLOYMENT, "SecretNotFound"),
        # With a Secret of its own, which opens the same database, and the names of what is there in the other one.
        "with-anothers-dataset": (DEPLOYMENT, "DatasetNotFound"),
        "with-anothers-queries": (DEPLOYMENT, "GatesUndecided"),
    }

    def said() -> dict[str, tuple[str, str]]:
        return {name: (kind, live.reason(kind, name, stack.TENANT)[0]) for name, (kind, _) in wanted.items()}

    live.wait(lambda: said() == wanted, f"{wanted} to be said", 120, lambda: f"said is {said()}")
    assert f"QuerySet {stack.NAME} is not there" in live.reason(DEPLOYMENT, "with-anothers-queries", stack.TENANT)[1]
    live.wait(lambda: bool(live.kube.list("serviceaccounts", stack.TENANT)), "an account of the namespace")
    token = live.kube.run("create", "token", "default", "-n", stack.TENANT).strip()
    assert live.search_as(token) == 403
    assert live.search_as("not-a-token") == 401


def test_nobody_reads_a_secret_a_text_or_a_vector_in_what_was_logged_or_said(served: Stage) -> None:
    _nobody_reads_what_was_planted(served, "leak-before-the-end")


def test_11_a_namespace_is_deleted_after_the_operator_and_the_documented_way_out_works(served: Stage) -> None:
    helm = [str(programs.helm()), "uninstall", stack.RELEASE, "-n", stack.NAMESPACE, "--wait"]
    served.kube.run("delete", "deployment", stack.ASKER, "-n", stack.NAMESPACE)
    served.kube.command(helm)
    served.kube.run("delete", "namespace", stack.NAMESPACE, "--wait=false")
    condition = "NamespaceFinalizersRemaining"
    served.wait(lambda: served.kube.is_true("namespace", stack.NAMESPACE, condition), "the namespace to wait for them")

    served.let_go(stack.NAMESPACE)

    served.wait(lambda: not served.kube.get("namespace", stack.NAMESPACE), "the namespace to go")


def test_10_the_chart_is_upgraded_in_mid_canary_from_an_earlier_release(earlier: Stage) -> None:
    earlier.count()
    earlier.add_version("v9", 64, template="{module}")
    earlier.serve("v9", example.STEPS)
    earlier.wait(lambda: any(each["version"] == "v9" for each in earlier.status().get("rejected", ())), "v9 rejected")
    earlier.serve("v7")
    earlier.wait(lambda: earlier.is_ready("v7"), "v7 to be Ready")
    earlier.multiply(3)
    work = {"mode": "Job", "job": {"shards": 2, "parallelism": 2, "resources": SMALL}}
    earlier.embed_many("parts", work)
    earlier.wait(lambda: earlier.asked().texts >= 1000, "texts to be embedded")
    stopped = {"spec": {"work": {"job": {"suspend": True}}}}
    earlier.kube.patch(DATASET, "parts", stack.NAMESPACE, stopped)
    earlier.wait(lambda: not earlier.pod_of_jobs("parts"), "the pods to stop")
    halfway, before = earlier.asked(), _half_way(earlier)
    earlier.wait(lambda: earlier.status()["step"]["name"] == "Pause", "v10 to stay there")
    done, snapshots, definition = _done(earlier), _snapshots(earlier), _definition(earlier)

    earlier.install()

    upgraded = earlier.answers().until
    assert _definition(earlier) != definition
    # What the earlier release has written is read: step, rejection, snapshots and indexes, none of them made anew.
    earlier.wait(lambda: earlier.weight("v10") == 50, "all gateways to give half of the queries to v10")
    earlier.wait(lambda: _done(earlier) == done, "the same to be done", explain=lambda: f"{_done(earlier)} for {done}")
    earlier.wait(lambda: earlier.answers(upgraded).versions.keys() == {before, "v10"}, "both versions to answer")
    earlier.serve("v10", [{"weight": 50}, {"pause": {"for": "1s"}}, {"weight": 100}])
    earlier.wait(lambda: earlier.is_ready("v10"), "v10 to serve")
    assert _done(earlier)["rejected"] == done["rejected"]
    # The source has changed, and nothing but that was embedded.
    earlier.wait(lambda: all(_snapshots(earlier)[name] > snapshots[name] for name in snapshots), "newer snapshots")
    assert 0 < _embedded_texts(earlier) < FEW_TEXTS
    # And the ledger: what the earlier release's pods had finished is not asked for again.
    earlier.kube.patch(DATASET, "parts", stack.NAMESPACE, {"spec": {"work": {"job": {"suspend": False}}}})
    parts = earlier.wait(lambda: _embedded(earlier, "parts"), "the pods' snapshot")
    asked = earlier.asked()
    assert 0 < halfway.different < asked.different == parts[1]
    assert asked.again <= LOST_TEXTS
    earlier.embed_many("whole", {"mode": "InProcess"})
    assert earlier.wait(lambda: _embedded(earlier, "whole"), "the operator's snapshot") == parts


def test_nobody_reads_it_after_the_last_story_either(here: Stage) -> None:
    if not here.pods("operator"):
        pytest.skip("Pointsman was removed by the story before, and installed by none since")
    _nobody_reads_what_was_planted(here, "leak-at-the-end")


def _done(live: Stage) -> dict[str, Any]:
    """Return what cannot be seen in the world but is remembered, and which indexes were made at a cost."""
    status = live.status()
    step = status.get("step", {})
    return {
        "step": [step.get(name) for name in ("name", "index", "startedAt", "hash")],
        "rejected": [(each["version"], each["reason"]) for each in status["rejected"]],
        "indexes": sorted(each["name"] for each in status["indexes"]),
    }


def _snapshots(live: Stage) -> dict[str, int]:
    """Return the newest embedded snapshot of each version."""
    return {each["name"]: each["snapshot"] for each in live.dataset(stack.NAME)["versions"]}


def _embedded_texts(live: Stage) -> float:
    """Return how many texts of the example the operator has had embedded since it started."""
    (operator,) = live.pods("operator")
    its = (line for line in live.metrics(operator).splitlines() if line.startswith("pointsman_texts_embedded_total{"))
    return sum(float(line.rpartition(" ")[2]) for line in its if f'dataset="{stack.NAME}"' in line)


def _waiting(live: Stage) -> set[tuple[str, str]]:
    """Return what containers of operator and gateways wait for, as the kubelet has it."""
    return {
        (component, state["state"]["waiting"]["reason"])
        for component in ("operator", "gateway")
        for pod in live.pods(component)
        for state in pod.get("status", {}).get("containerStatuses", ())
        if "waiting" in state["state"]
    }


def _age(live: Stage) -> float:
    """Return how many seconds ago the Job was made that embeds in pods."""
    (name,) = live.dataset("parts")["jobs"]
    made = datetime.fromisoformat(live.kube.get("job", name, stack.NAMESPACE)["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - made).total_seconds()


def _is_loaded_by_pods_as_by_the_operator(live: Stage, digest: str) -> None:
    """Have an index loaded by pods and one by the operator: both hold the digest, and find the same documents."""
    live.kube.apply([example.serving_many(name) for name in stack.MANY])
    for name in stack.MANY:
        live.wait(functools.partial(live.is_ready, "v1", name), f"the index of {name}")
        (index,) = live.status(name)["indexes"]
        assert index["digest"] == digest
    jobs = live.kube.list("jobs", stack.NAMESPACE, "pointsman.dev/index")
    by = {job["metadata"]["ownerReferences"][0]["name"]: job["status"].get("succeeded", 0) for job in jobs}
    assert by.keys() == {"parts"} and by["parts"] > 0
    rows = [json.loads(line) for line in (live.folder / "corpus" / "documents.jsonl").read_text().splitlines()]
    rows = rows[:: len(rows) // ASKED]
    texts = [f"{row['name']}. {stage.copied(row, 1)}" for row in rows]
    for name in stack.MANY:
        hits = changing.searched(live, name, texts, topK=1)["results"]
        assert [hit["document"] for (hit,) in hits] == [f"{row['id']}/1" for row in rows]


def _definition(live: Stage) -> dict[str, Any]:
    """Return the definition of an EmbeddingDataset that the cluster has."""
    found: dict[str, Any] = live.kube.get("crd", "embeddingdatasets.pointsman.dev")["spec"]
    return found


def _half_way(live: Stage) -> str:
    """Give half of the queries to another version, and return the one that serves."""
    before = live.serving()
    live.add_version("v10", 256, template="{name}: {text}")
    live.serve("v10", example.HALF_WAY)
    live.wait(lambda: live.weight("v10") == 50, "v10 to get half of the queries")
    return before


def _is_still_half_way(live: Stage) -> None:
    """Fail unless half of the queries are still what is wanted, and are what gateways give once they were asked."""
    assert live.weight("v10", "desired") == 50
    live.wait(lambda: live.weight("v10") == 50, "gateways to have been asked")
    assert live.weight("v10", "desired") == 50


def _embedded(live: Stage, name: str) -> tuple[str, int] | None:
    """Return the digest of a dataset's one version, and how many texts were embedded for it; None until it is there."""
    found = next((each for each in live.dataset(name).get("versions", ()) if each.get("digest")), None)
    return found and (found["digest"], found["embedded"])


def _nobody_reads_what_was_planted(live: Stage, name: str) -> None:
    """Fail where what was planted is found in what anybody reads, but for a pod and a ConfigMap of our own."""
    planted = seen.planted(live)
    # What is looked for is found where it is: in an object, and in the log of a pod that has gone.
    leaked = [each[0] for each in (*planted.texts.values(), *planted.vectors.values())]
    live.kube.apply(stack.leak(name, live.images.pointsman, "\n".join(map(str, leaked))))
    live.wait(
        lambda: live.kube.get("pod", name, stack.NAMESPACE).get("status", {}).get("phase") == "Succeeded",
        "a pod to log what nobody may",
    )
    if live.node is not None:
        live.kube.run("delete", "pod", name, "-n", stack.NAMESPACE)

    said = seen.said(live)

    is_leak = {where: f"/{stack.LEAK}" in where for where in said}
    everything = {*planted.texts, *planted.vectors}
    for what in ("log", "configmaps"):
        (leak,) = (where for where in said if f"/{name}" in where and where.startswith(what))
        assert {line.rpartition(" in ")[0] for line in planted.found({"it": said[leak]})} == everything
    assert any(said[where] for where in said if where.startswith("log") and "operator" in where)
    assert any(said[where] for where in said if where.startswith("log") and "gateway" in where)
    found = planted.found({where: text for where, text in said.items() if not is_leak[where]})
    assert found == []
