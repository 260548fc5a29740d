"""The stories, in the order in which they are told: real pods, live queries through all of them."""

from __future__ import annotations

import signal

from e2e import stack, stage
from e2e.stage import DEPLOYMENT, Stage


def test_1_the_chart_is_installed_and_the_example_becomes_ready(live: Stage) -> None:
    status = live.status()

    assert status["servingVersion"] == "v7"
    live.wait(lambda: live.weight("v7") == 100, "every gateway to serve v7")
    assert {pod["status"]["phase"] for pod in live.pods("gateway")} == {"Running"}
    assert len(live.pods("gateway")) == 2
    live.wait(lambda: live.answers(keep=False).versions.get("v7", 0) >= 40, "queries to be answered")


def test_2_a_better_version_takes_over_by_steps(live: Stage) -> None:
    live.add_version("v8", 256)

    live.serve("v8", stage.STEPS)

    live.wait(lambda: live.is_ready("v8"), "v8 to serve")
    live.wait(lambda: live.status().get("step", {}).get("name", "") == "", "v8 to have burnt in")
    versions = live.answers(keep=False).versions
    assert versions["v7"] > 0 and versions["v8"] > 0


def test_3_a_worse_version_is_rejected_and_nobody_gets_its_answers(live: Stage) -> None:
    live.add_version("v9", 64, tokens=24)

    live.serve("v9")

    live.wait(lambda: any(each["version"] == "v9" for each in live.status().get("rejected", ())), "v9 to be rejected")
    rejected = next(each for each in live.status()["rejected"] if each["version"] == "v9")
    assert rejected["reason"] == "GateFailed" and "nDCG@10" in rejected["message"]
    live.serve("v8")
    live.wait(lambda: live.is_ready("v8"), "v8 to be Ready")
    assert set(live.answers(keep=False).versions) == {"v8"}


def test_4_a_rollback_in_mid_canary_takes_all_queries_back(live: Stage) -> None:
    live.add_version("v10", 256, template="{name}: {text}")
    live.serve("v10", stage.HALF_WAY)
    live.wait(lambda: live.weight("v10") == 50, "v10 to get half of the queries")
    live.wait(lambda: live.answers(keep=False).versions.get("v10", 0) >= 20, "v10 to answer")

    edit = '{"spec":{"version":"v8"}}'
    live.kube.run("patch", DEPLOYMENT, stack.NAME, "-n", stack.NAMESPACE, "--type=merge", "-p", edit)

    live.wait(lambda: live.weight("v10") in (-1, 0), "all queries to go back")
    live.answers()
    live.wait(lambda: live.answers(keep=False).count >= 40, "more queries")
    assert set(live.answers(keep=False).versions) == {"v8"}
    live.wait(lambda: live.is_ready("v8"), "v8 to be Ready")


def test_5_an_operator_that_is_killed_or_frozen_in_mid_canary_is_followed_by_one_that_goes_on(live: Stage) -> None:
    live.serve("v10", stage.HALF_WAY)
    live.wait(lambda: live.weight("v10") == 50, "v10 to get half of the queries")
    (before,) = live.pods("operator")
    epoch = live.status()["route"]["epoch"]

    live.kube.run("delete", "pod", before["metadata"]["name"], "-n", stack.NAMESPACE, "--grace-period=0", "--force")

    live.wait(lambda: _other_operator(live, before), "another operator")
    live.wait(lambda: live.status().get("writer", {}).get("epoch", 0) > epoch, "the other operator to write")
    assert live.weight("v10") == 50
    if live.node is not None:
        (frozen,) = live.pods("operator")
        epoch = live.status()["writer"]["epoch"]
        assert live.node.signal_pod(frozen["metadata"]["uid"], signal.SIGSTOP) > 0
        # Nobody stands by: the kubelet finds that it does not answer, and starts its container again.
        live.wait(lambda: live.status().get("writer", {}).get("epoch", 0) > epoch, "a new operator to write")
        assert live.weight("v10") == 50

    live.serve("v8")
    live.wait(lambda: live.weight("v10") in (-1, 0), "all queries to go back")
    live.wait(lambda: live.is_ready("v8"), "v8 to be Ready")


def _other_operator(live: Stage, before: dict[str, dict[str, str]]) -> bool:
    return any(pod["metadata"]["uid"] != before["metadata"]["uid"] for pod in live.pods("operator"))
