"""`pointsman abort` and `pointsman accept-lag`: decisions that need no question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.cli import migrations
from tests.unit.cli.bench import Bench, dataset

from pointsman.api.conditions import Reason
from pointsman.cluster.resources import Resource
from pointsman.errors import Retryable

MADE = "papers-abort-v8-20310501-120000"
BEHIND = migrations.promoted(rollback={"ready": False, "to": "v7", "estimate": "3m 20s"})
ALONE = migrations.promoted(rollback=None, indexes=[migrations.index("v8", "Serving")])


def test_aborting_keeps_queries_off_the_target_for_a_week(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("abort", "papers")

    assert answer.code == 0
    assert answer.lines == [
        f"aborted v8 of papers for 168h: Approval {MADE}; all queries go to v7",
        "nothing that Git applies takes that back; "
        "to end it: pointsman abort papers v8 --withdraw, or change spec.version",
    ]
    assert migrations.approvals(bench) == {
        MADE: {
            "target": {"kind": "IndexDeployment", "name": "papers"},
            "decision": "Abort",
            "version": "v8",
            "expiresAt": "2031-05-08T12:00:00Z",
            "approvedBy": "ana",
        }
    }
    assert migrations.spec(bench)["version"] == "v8"


@pytest.mark.parametrize(
    ("status", "wanted", "version", "where"),
    [
        pytest.param(migrations.promoted(), "v8", "v8", "all queries go to v7, by one switch", id="one switch back"),
        pytest.param(
            BEHIND,
            "v8",
            "v8",
            "queries go to v7 once it has caught up, in about 3m 20s; v8 answers until then",
            id="what is retained has to catch up",
        ),
        pytest.param(
            ALONE,
            "v8",
            "v8",
            "v8 goes on answering, as there is no other index to send queries to",
            id="nothing is retained",
        ),
        pytest.param(
            {"servingVersion": ""},
            "v8",
            "v8",
            "nothing serves yet, and nothing will until there is another version to serve",
            id="a first deployment",
        ),
        pytest.param(
            migrations.promoted(), "v9", "v8", "v8 answers until v9 takes over", id="what serves on its way out"
        ),
    ],
)
def test_where_the_queries_go_is_said(
    bench: Bench, status: dict[str, Any], wanted: str, version: str, where: str
) -> None:
    migrations.put(bench, status, version=wanted)

    answer = bench.run("abort", "papers", version)

    assert answer.lines[0] == f"aborted {version} of papers for 168h: Approval {MADE}; {where}"


def test_a_version_that_nobody_wants_and_that_does_not_serve_has_nothing_to_abort(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("abort", "papers", "v6")

    assert answer.code == 3
    assert answer.err == (
        "error: v6 is neither what papers wants, v8, nor what serves, v7; there is nothing to abort\n"
    )
    assert migrations.approvals(bench) == {}


def test_aborting_does_not_wait_for_the_operator_to_see_the_spec(bench: Bench) -> None:
    migrations.put(bench, migrations.asking() | {"observedGeneration": 0})

    assert bench.run("abort", "papers").code == 0


@pytest.mark.parametrize(("lasts", "made"), [("1h", 1), ("48h", 2)], ids=["as long", "longer"])
def test_one_abort_is_enough_unless_it_is_to_last_longer(bench: Bench, lasts: str, made: int) -> None:
    migrations.put(bench, migrations.asking())
    migrations.decide(bench, "earlier", decision="Abort")

    answer = bench.run("abort", "papers", "--for", lasts)

    assert answer.code == 0
    assert len(migrations.approvals(bench)) == made
    if made == 1:
        assert answer.lines == ["Approval earlier keeps queries off v8 until 2031-05-02 12:00:00 UTC already"]


@pytest.mark.parametrize("command", ["abort", "rollback"])
def test_whoever_may_not_look_at_approvals_finds_the_way_back_all_the_same(bench: Bench, command: str) -> None:
    migrations.put(bench, migrations.asking())
    listed = bench.wire.list

    def list_what_is_allowed(kind: str, namespace: str | None) -> Sequence[Resource]:
        if kind == "Approval":
            raise Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API refused us (403 Forbidden)")
        return listed(kind, namespace)

    bench.wire.list = list_what_is_allowed  # type: ignore[method-assign]

    assert bench.run(command, "papers").code == 0
    assert bench.run("abort", "papers", "--withdraw").err == "error: the Kubernetes API refused us (403 Forbidden)\n"


def test_withdrawing_removes_all_that_abort_the_version_and_nothing_else(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())
    migrations.decide(bench, "one", decision="Abort")
    migrations.decide(bench, "two", decision="Abort", expiresAt="2031-05-01T11:00:00Z")
    migrations.decide(bench, "another", decision="Abort", version="v7")
    migrations.decide(bench, "lag", decision="AcceptLag")

    answer = bench.run("abort", "papers", "--withdraw")

    assert answer.code == 0
    assert answer.lines == ["withdrew one, two; v8 is what the spec wants: it goes on its way again"]
    assert sorted(migrations.approvals(bench)) == ["another", "lag"]


def test_withdrawing_what_is_not_there_is_an_error(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())
    migrations.decide(bench, "another", decision="Abort", version="v7")

    answer = bench.run("abort", "papers", "--withdraw")

    assert answer.code == 3
    assert answer.err == "error: v8 of papers is not aborted, only v7 is; there is nothing to take back\n"


def test_what_to_withdraw_is_printed_and_stays(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())
    migrations.decide(bench, "one", decision="Abort")

    answer = bench.run("abort", "papers", "--withdraw", "-o", "patch")

    assert answer.out == (
        "---\napiVersion: pointsman.dev/v1alpha1\nkind: Approval\nmetadata:\n  name: one\n  namespace: default\n"
    )
    assert list(migrations.approvals(bench)) == ["one"]


def test_an_abort_to_commit_names_nobody_and_creates_nothing(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    answer = bench.run("abort", "papers", "-o", "patch")

    assert "decision: Abort" in answer.out
    assert "approvedBy" not in answer.out
    assert migrations.approvals(bench) == {}


def test_a_lag_is_accepted_with_what_is_missed(bench: Bench) -> None:
    indexes = [migrations.index("v8", "Serving", 14), migrations.index("v7", "Retained", 12)]
    migrations.put(bench, migrations.promoted(indexes=indexes), version="v7")
    bench.apply(dataset(), {"snapshot": 15})

    answer = bench.run("accept-lag", "papers")

    name = "papers-acceptlag-v7-20310501-120000"
    assert answer.code == 0
    assert answer.lines == [
        "v7@12 lacks what snapshots 13 to 15 brought, until it has caught up; "
        "counted by: pointsman diff papers @12 @15",
        f"accepted for 24h: Approval {name}",
    ]
    assert migrations.approvals(bench)[name] == {
        "target": {"kind": "IndexDeployment", "name": "papers"},
        "decision": "AcceptLag",
        "version": "v7",
        "expiresAt": "2031-05-02T12:00:00Z",
        "approvedBy": "ana",
    }


def test_a_lag_accepted_before_the_version_is_wanted_says_what_is_left_to_do(bench: Bench) -> None:
    indexes = [migrations.index("v8", "Serving", 13), migrations.index("v7", "Retained", 12)]
    migrations.put(bench, migrations.promoted(indexes=indexes))

    answer = bench.run("accept-lag", "papers", "v7")

    assert answer.lines[0].startswith("v7@12 lacks what snapshot 13 brought, until it has caught up")
    assert answer.err == "mind: spec.version is v8: v7 takes over once it is v7\n"


@pytest.mark.parametrize(
    ("version", "indexes", "error"),
    [
        pytest.param(
            "v8",
            [migrations.index("v8", "Serving")],
            "v8 of papers serves already; there is no lag to accept",
            id="what serves",
        ),
        pytest.param(
            "v6",
            [migrations.index("v8", "Serving"), migrations.index("v6", "Retiring")],
            "there is no index of v6 of papers that could take over, only of v8",
            id="what is being removed",
        ),
        pytest.param(
            "v7",
            [migrations.index("v8", "Serving"), migrations.index("v7", "Retained")],
            "v7@12 of papers lacks nothing: snapshot 12 is the newest",
            id="what is current",
        ),
        pytest.param(
            "v7",
            [migrations.index("v8", "Serving"), migrations.index("v7", "Candidate", cursor=None)],
            "the index of v7 was never complete: what it lacks cannot be said; wait until it is verified",
            id="what was never whole",
        ),
    ],
)
def test_where_no_lag_can_be_accepted_nothing_is(
    bench: Bench, version: str, indexes: list[dict[str, Any]], error: str
) -> None:
    migrations.put(bench, migrations.promoted(indexes=indexes))

    answer = bench.run("accept-lag", "papers", version)

    assert (answer.code, answer.err) == (3, f"error: {error}\n")
    assert migrations.approvals(bench) == {}
