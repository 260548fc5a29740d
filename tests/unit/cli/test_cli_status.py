"""`pointsman status`: what continuous integration waits on."""

from __future__ import annotations

import json

import pytest
from tests.unit.cli import migrations
from tests.unit.cli.bench import Bench, condition, dataset, deployment, goal

from pointsman.api.conditions import Reason
from pointsman.errors import Retryable


def test_a_ready_resource_ends_with_0(bench: Bench) -> None:
    bench.apply(deployment(), {"conditions": goal("Ready", "UpToDate", "serving v8@12")})

    answer = bench.run("status", "idx/papers")

    assert answer.code == 0
    assert answer.lines == ["    0s  deployment papers  Ready (UpToDate): serving v8@12"]


def test_a_stalled_resource_ends_with_1(bench: Bench) -> None:
    message = "dataset papers declares no version v9, only v7, v8"
    bench.apply(deployment(version="v9"), {"conditions": goal("Stalled", "VersionNotFound", message)})

    answer = bench.run("status", "papers")

    assert answer.code == 1
    assert answer.lines == [f"    0s  deployment papers  Stalled (VersionNotFound): {message}"]


def test_what_does_not_become_ready_in_time_ends_with_2(bench: Bench) -> None:
    bench.apply(deployment(), {"conditions": goal("Reconciling", "Building", "loading v8@12")})

    answer = bench.run("status", "papers", "--timeout", "1m30s")

    assert answer.code == 2
    assert bench.clock.seconds == 90
    assert answer.lines == ["    0s  deployment papers  Pending (Building): loading v8@12"]
    assert answer.err == "not ready after 1m30s: loading v8@12\n"


def test_each_change_is_one_line_until_it_is_ready(bench: Bench) -> None:
    bench.apply(deployment(), {"conditions": goal("Reconciling", "WaitingForDataset", "v8 is being embedded")})
    building = {"conditions": goal("Reconciling", "Building", "loading v8@12")}
    ready = {"conditions": goal("Ready", "UpToDate", "serving v8@12")}
    bench.clock.planned = {
        3: lambda: bench.report(deployment(), building),
        70: lambda: bench.report(deployment(), ready),
    }

    answer = bench.run("status", "papers")

    assert answer.code == 0
    assert answer.lines == [
        "    0s  deployment papers  Pending (WaitingForDataset): v8 is being embedded",
        "    3s  deployment papers  Pending (Building): loading v8@12",
        " 1m10s  deployment papers  Ready (UpToDate): serving v8@12",
    ]


def test_a_rollout_is_followed_step_by_step_to_its_end(bench: Bench) -> None:
    shadow = migrations.between(1, "Shadow", "Shadowing", "shadowed for 2m")
    migrations.put(bench, shadow)
    burning = migrations.promoted(conditions=goal("Ready", "BurningIn", "serving v8@12, burning in for 24h"))
    bench.clock.planned = {
        4: lambda: bench.report(deployment(), {"observedGeneration": 1, **migrations.asking()}),
        9: lambda: bench.report(deployment(), {"observedGeneration": 1, **burning}),
    }

    answer = bench.run("status", "papers")

    assert answer.code == 0
    assert answer.lines == [
        "    0s  deployment papers  Pending (Shadowing) 1/5 Shadow: v8 waits: shadowed for 2m",
        "    4s  deployment papers  Pending (APersonIsAsked) 4/5 Approval: "
        "v8 waits: an Approval that answers go-wide is awaited for 24h",
        "    9s  deployment papers  Ready (BurningIn): serving v8@12, burning in for 24h",
    ]


def test_a_version_that_is_rejected_ends_the_wait_with_1(bench: Bench) -> None:
    migrations.put(bench, migrations.between(1, "Shadow", "Shadowing", "shadowed for 2m"))
    rejected = goal("Stalled", "TargetRejected", "serving v7 normally; v8 rejected: nDCG@10 fell by 0.041")
    bench.clock.planned = {3: lambda: bench.report(deployment(), {"conditions": rejected})}

    answer = bench.run("status", "papers")

    assert (answer.code, bench.clock.seconds) == (1, 3)
    assert answer.lines[-1].endswith(
        "Stalled (TargetRejected): serving v7 normally; v8 rejected: nDCG@10 fell by 0.041"
    )


def test_what_serves_and_is_worse_is_degraded(bench: Bench) -> None:
    message = "serving v8@12, which is worse: nDCG@10 fell by 0.041"
    bench.apply(deployment(), {"conditions": goal("Ready", "GateFailed", message)})

    answer = bench.run("status", "papers")

    assert answer.code == 1
    assert answer.lines == [f"    0s  deployment papers  Degraded (GateFailed): {message}"]


LOST = condition("Available", "False", "IndexLost", "index pm_papers_v8 is gone from the database")
NOTHING = condition("Available", "False", "NothingServes", "no index serves yet")


@pytest.mark.parametrize(("available", "code"), [(LOST, 1), (NOTHING, 2)], ids=["what served is gone", "the first one"])
def test_what_does_not_answer_when_the_time_is_up_is_degraded_if_it_did_before(
    bench: Bench, available: dict[str, object], code: int
) -> None:
    status = {"conditions": [*goal("Reconciling", "Building", "loading v8@12"), available]}
    bench.apply(deployment(), status)

    answer = bench.run("status", "papers", "--timeout", "10s")

    assert (answer.code, bench.clock.seconds) == (code, 10)
    assert ("Degraded (IndexLost): index pm_papers_v8 is gone" in answer.out) == (code == 1)


def test_a_fix_of_what_is_gone_is_waited_for(bench: Bench) -> None:
    bench.apply(deployment(), {"conditions": [*goal("Reconciling", "Building", "loading v8@12"), LOST]})
    ready = {"conditions": goal("Ready", "UpToDate", "serving v8@12")}
    bench.clock.planned = {5: lambda: bench.report(deployment(), ready)}

    assert bench.run("status", "papers").code == 0


def test_a_ready_that_speaks_of_an_older_spec_does_not_count(bench: Bench) -> None:
    bench.apply(deployment(version="v7"), {"conditions": goal("Ready", "UpToDate", "serving v7@12")})
    bench.apply(deployment(version="v8"))

    answer = bench.run("status", "papers", "--no-watch")

    assert answer.code == 2
    assert answer.lines == [
        "    0s  deployment papers  Pending (NotObserved): the operator has seen generation 1, wanted 2"
    ]


def test_a_resource_that_nobody_has_looked_at_is_pending(bench: Bench) -> None:
    bench.apply(dataset())

    answer = bench.run("status", "papers", "--no-watch")

    assert answer.code == 2
    assert "the operator has seen generation 0, wanted 1" in answer.out


def test_an_api_server_that_restarts_does_not_fail_the_wait(bench: Bench) -> None:
    bench.apply(deployment(), {"conditions": goal("Reconciling", "Building", "loading v8@12")})
    away = Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API could not be reached (MaxRetryError)")

    def back() -> None:
        bench.wire.failure = None
        bench.report(deployment(), {"conditions": goal("Ready", "UpToDate", "serving v8@12")})

    bench.clock.planned = {2: lambda: setattr(bench.wire, "failure", away), 5: back}

    answer = bench.run("status", "papers")

    assert answer.code == 0
    assert answer.lines == [
        "    0s  deployment papers  Pending (Building): loading v8@12",
        "    2s  deployment papers  Pending (ClusterUnreachable): "
        "the Kubernetes API could not be reached (MaxRetryError)",
        "    5s  deployment papers  Ready (UpToDate): serving v8@12",
    ]


def test_a_resource_that_is_deleted_while_it_is_waited_for_is_an_error(bench: Bench) -> None:
    bench.apply(deployment(), {"conditions": goal("Reconciling", "Building", "loading v8@12")})
    bench.clock.planned = {2: lambda: bench.cluster.delete("IndexDeployment", "default", "papers", bench.clock.now())}

    answer = bench.run("status", "papers")

    assert answer.code == 3
    assert answer.err == "error: deployment papers was deleted while it was waited for\n"


def test_as_json_the_result_is_one_object_and_the_changes_go_to_standard_error(bench: Bench) -> None:
    status = {
        "observedGeneration": 1,
        "phase": "Serving",
        "servingVersion": "v8",
        "targetVersion": "v8",
        "conditions": goal("Ready", "UpToDate", "serving v8@12"),
    }
    bench.apply(deployment(), status)

    answer = bench.run("status", "papers", "-o", "json")

    assert json.loads(answer.out) == {
        "kind": "IndexDeployment",
        "namespace": "default",
        "name": "papers",
        "outcome": "Ready",
        "reason": "UpToDate",
        "message": "serving v8@12",
        "generation": 1,
        "observedGeneration": 1,
        "phase": "Serving",
        "seconds": 0.0,
        "servingVersion": "v8",
        "targetVersion": "v8",
        "weight": "",
        "step": None,
    }
    assert answer.err == "    0s  deployment papers  Ready (UpToDate): serving v8@12\n"


def test_a_name_that_two_resources_have_must_be_said_with_its_kind(bench: Bench) -> None:
    bench.apply(deployment())
    bench.apply(dataset())

    answer = bench.run("status", "papers")

    assert answer.code == 3
    assert answer.err == "error: papers is the name of 2 resources; say idx/papers or eds/papers\n"


def test_a_resource_that_is_not_there_is_an_error_that_says_where_it_was_looked_for(bench: Bench) -> None:
    answer = bench.run("status", "idx/papers", "-n", "search")

    assert answer.code == 3
    assert answer.err == (
        "error: there is no deployment papers in namespace search; see pointsman get --all-namespaces\n"
    )


def test_a_kind_as_kubectl_prints_it_is_understood(bench: Bench) -> None:
    bench.apply(dataset(), {"conditions": goal("Ready", "UpToDate", "snapshot 12 is current")})

    assert bench.run("status", "embeddingdataset.pointsman.dev/papers").code == 0


def test_a_kind_that_is_not_ours_is_refused(bench: Bench) -> None:
    answer = bench.run("status", "pod/papers")

    assert answer.code == 3
    assert answer.err == (
        "error: pod/papers is not a resource that this command knows; wanted idx/NAME or eds/NAME or qs/NAME\n"
    )


def test_a_reason_of_a_later_release_is_an_error_not_a_traceback(bench: Bench) -> None:
    bench.apply(deployment(), {"conditions": goal("Ready", "BrandNew", "all is well")})

    answer = bench.run("status", "papers")

    assert answer.code == 3
    assert answer.err == (
        "error: status.conditions.0.reason of papers is of another release; use the operator's own pointsman\n"
    )
