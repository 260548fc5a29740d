"""Each line of the table of spec transitions, caused as users do: on a real API server, operator, gateway, database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.integration.delivery import EVALUATED, Delivery, delivering, judged, weights_of
from tests.integration.operator_process import APPROVAL, DEPLOYMENT, QUERY_SET, Object

from pointsman import errors
from pointsman.controlplane import plane

pytestmark = pytest.mark.server

MIDWAY = ("back", "onward", "answered", "ignored", "aborted", "edited", "suspended")
"""Deployments that have come half of the way to v8, and ask a person."""
UNWATCHED = "failing"
"""One that has come as far to v9, since no gate of its own has looked at that yet."""
AGAIN = [3, 1, 2, 3]
"""The steps of what waits for a person, and comes to wait for one again from the first step on."""
SERVING: dict[str, Object] = {
    "rejected": {},
    "unguarded": {"steps": [{"weight": 100}], "gates": {}, "burnIn": {"for": "1h"}},
    "pinned": {},
    "tuned": {},
    "unjudged": {"gates": {"evaluation": {"querySetRef": {"name": "nowhere"}, "notWorseBy": "0.1"}}},
}
"""Deployments that serve v7, each with what its spec has of its own."""
ONE_SHIFT = ["RecordFacts", "PublishRoute"]
MADE = {"Embed", "Build", "Repair"}
"""The work of a new version."""


@pytest.fixture(scope="module")
def delivery(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    with delivering(control_plane, tmp_path_factory.mktemp("delivery")) as delivery:
        # All at once: what is built for one test is built while another one waits.
        for name in MIDWAY:
            delivery.deploy(name)
        for name, spec in SERVING.items():
            delivery.deploy(name, **spec)
        delivery.deploy(UNWATCHED, gates={})
        for name in (*MIDWAY, *SERVING, UNWATCHED):
            delivery.wait_for(name, "UpToDate", v7=100)
        for name in MIDWAY:
            delivery.want(name, "v8")
        delivery.want(UNWATCHED, "v9")
        yield delivery


@pytest.fixture
def midway(request: pytest.FixtureRequest, delivery: Delivery) -> str:
    """Return the name of a deployment of the test's own, once a person is asked."""
    name = str(request.param)
    delivery.ask(name)
    return name


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("midway", [name], indirect=True, ids=[""])


# The line is changed.


@of("back")
def test_a_to_b_to_a_is_one_shift_and_b_takes_its_steps_again_with_the_index_that_it_has(
    delivery: Delivery, midway: str
) -> None:
    lines, index = len(delivery.stage.operator.lines()), delivery.index(midway, "v8")
    before = delivery.stage.get(DEPLOYMENT, midway)
    assert delivery.answering(midway) == {"v7", "v8"}

    delivery.want(midway, "v7")
    delivery.wait_for(midway, "UpToDate", v7=100)

    assert delivery.goal(midway) == ("Ready", "UpToDate", "serving v7@1")
    assert delivery.answering(midway) == {"v7"}
    delivery.want(midway, "v8")
    delivery.ask(midway)
    assert_that_it_began_anew(delivery, before, "v8", index, lines)


def assert_that_it_began_anew(delivery: Delivery, before: Object, version: str, index: str, lines: int) -> None:
    """Fail unless a deployment has left a version and come half of the way again, with the index that was there."""
    name = before["metadata"]["name"]
    assert delivery.index(name, version) == index
    half = {version: 50, "v7": 50}
    assert delivery.shares(name, before) == [half, {"v7": 100}, half]
    assert (delivery.steps(before), delivery.shadowed(before)) == (AGAIN, {index})
    assert MADE.isdisjoint(delivery.stage.tasks(DEPLOYMENT, name, lines))


def shifts(delivery: Delivery, name: str, since: int) -> list[str]:
    """Return what was done to facts and routes after so many lines of the operator's log."""
    return [action for action in delivery.stage.actions(DEPLOYMENT, name, since) if action in ONE_SHIFT]


@of("onward")
def test_a_to_b_to_c_goes_to_a_first(delivery: Delivery, midway: str) -> None:
    before = delivery.stage.get(DEPLOYMENT, midway)

    delivery.want(midway, "v10")
    delivery.ask(midway, "v10")

    assert delivery.shares(midway, before) == [{"v8": 50, "v7": 50}, {"v7": 100}, {"v10": 50, "v7": 50}]
    assert delivery.answering(midway) == {"v7", "v10"}


@of("answered")
def test_who_approves_lets_it_go_wide_and_then_each_way_is_one_shift(delivery: Delivery, midway: str) -> None:
    stage, route = delivery.stage, delivery.status(midway)["route"]
    stage.patch(DEPLOYMENT, midway, {"status": dict.fromkeys(delivery.status(midway))}, status=True)
    stage.wait(lambda: "route" in delivery.status(midway), "the status to be written again")
    delivery.ask(midway)
    assert delivery.status(midway)["route"] == route

    done = stage.run("approve", midway)
    assert done.returncode == 0, done.stderr
    delivery.wait_for(midway, "UpToDate", v8=100)

    assert delivery.answering(midway) == {"v8"}
    for version in ("v7", "v8"):
        before = len(stage.operator.lines())
        delivery.want(midway, version)
        delivery.wait_for(midway, "UpToDate", **{version: 100})
        assert shifts(delivery, midway, before)[:2] == ONE_SHIFT
        assert MADE.isdisjoint(delivery.stage.tasks(DEPLOYMENT, midway, before))
        assert delivery.answering(midway) == {version}
    assert [entry["version"] for entry in delivery.status(midway)["history"]] == ["v7", "v8", "v7", "v8"]


# What does not count.


@of("ignored")
def test_an_approval_that_does_not_count_says_why_and_moves_nothing(delivery: Delivery, midway: str) -> None:
    plan = delivery.status(midway)["planHash"]
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    cases: dict[str, Any] = {
        f"it expired at {past:%Y-%m-%d %H:%M:%S} UTC; create another one": {"expiresAt": past.isoformat()},
        f"it is for plan 0123, the plan is {plan}: the target, the steps or the gates have changed": {
            "planHash": "0123"
        },
        "it is about v10, the deployment wants v8; create one for v8": {"version": "v10"},
        "it answers go-home, which nothing asks; wanted one of go-wide, parity, model, evaluation, canaries, shadow, "
        "errors, empty, latency, deadline, retire": {"answers": "go-home"},
    }

    made = {delivery.decide(midway, "Approve", **changes): why for why, changes in cases.items()}

    for name, why in made.items():
        delivery.stage.wait(lambda n=name: delivery.stage.said(APPROVAL, n, "Stalled") != ("", ""), why)
        assert delivery.stage.said(APPROVAL, name, "Stalled") == ("DoesNotCount", why)
    delivery.stage.wait_for_resyncs(2)
    delivery.ask(midway)


def test_what_cannot_be_meant_is_refused_by_the_api_server(delivery: Delivery) -> None:
    rising = "the weights of steps must rise, each above the one before, and the last step must be weight 100"
    refused: dict[str, Any] = {
        "backwards": ([{"weight": 50}, {"weight": 10}, {"weight": 100}], rising),
        "twice": ([{"weight": 50}, {"weight": 50}, {"weight": 100}], rising),
        "short": ([{"weight": 10}, {"weight": 90}], rising),
        "a pause at the end": ([{"weight": 100}, {"pause": {"for": "1s"}}], rising),
        "two": ([{"weight": 10, "pause": {"for": "1s"}}, {"weight": 100}], "exactly one of weight, pause, shadow and"),
        "endless": ([{"pause": {}}, {"weight": 100}], "a pause needs a time (for), or a name that an Approval answers"),
    }
    for case, (steps, sentence) in refused.items():
        with pytest.raises(errors.Terminal) as error:
            delivery.stage.edit(DEPLOYMENT, "pinned", strategy={"steps": steps})
        assert sentence in error.value.message, case
    with pytest.raises(errors.Terminal, match="IndexDeployment"):
        delivery.decide("pinned", "Approve", target={"kind": "EmbeddingDataset", "name": "papers"})
    with pytest.raises(errors.Terminal, match="planHash is wanted where the decision is Approve"):
        delivery.decide("pinned", "Approve", planHash=None)


# People.


@of("aborted")
def test_an_abort_takes_all_queries_back_until_it_is_withdrawn_and_then_the_steps_begin_anew(
    delivery: Delivery, midway: str
) -> None:
    stage, index = delivery.stage, delivery.index(midway, "v8")
    before, lines = stage.get(DEPLOYMENT, midway), len(stage.operator.lines())

    done = stage.run("abort", midway)
    assert done.returncode == 0, done.stderr
    message = delivery.wait_for(midway, "TargetAborted", v7=100)

    assert re.fullmatch(r"Approval \S+ keeps queries off v8 until [-0-9: ]+ UTC; serving v7 normally", message)
    assert delivery.answering(midway) == {"v7"}
    done = stage.run("abort", midway, "--withdraw")
    assert done.returncode == 0, done.stderr
    delivery.ask(midway)
    assert_that_it_began_anew(delivery, before, "v8", index, lines)


@of("suspended")
def test_what_is_suspended_stands_still_and_goes_back_all_the_same(delivery: Delivery, midway: str) -> None:
    delivery.want(midway, "v8", suspend=True)
    message = delivery.wait_for(midway, "Suspended", v8=50, v7=50)
    assert message == "suspended by the spec before v8; serving v8 50, v7 50"
    delivery.decide(midway, "Approve")
    delivery.stage.wait_for_resyncs(2)
    assert delivery.weights(midway) == {"v8": 50, "v7": 50}

    delivery.want(midway, "v7")
    delivery.wait_for(midway, "UpToDate", v7=100)

    assert delivery.answering(midway) == {"v7"}


# The strategy, the parameters and the snapshot.


@of("edited")
def test_a_strategy_that_is_edited_on_the_way_is_placed_where_the_queries_are(delivery: Delivery, midway: str) -> None:
    steps: list[Object] = [{"weight": 10}, {"weight": 50}, {"pause": {"for": "1h"}}, {"weight": 100}]
    revision = delivery.status(midway)["route"]["revision"]

    delivery.want(midway, "v8", strategy={"steps": steps})
    delivery.wait_for(midway, "Paused", v8=50, v7=50)

    step = delivery.status(midway)["step"]
    assert (step["name"], step["index"], step["of"]) == ("Pause", 3, 4)
    assert delivery.status(midway)["route"]["revision"] == revision
    delivery.want(midway, "v8", strategy={"steps": [{"weight": 100}]})
    delivery.wait_for(midway, "UpToDate", v8=100)


def test_index_parameters_that_are_edited_go_through_the_steps(delivery: Delivery) -> None:
    before, backend = delivery.status("tuned")["servingIndex"], delivery.database.spec["pgvector"]

    delivery.want("tuned", "v7", backend={"pgvector": {**backend, "hnsw": {"m": 8, "efConstruct": 64}}})
    delivery.wait_for("tuned", "APersonIsAsked")

    route = delivery.status("tuned")["route"]["entries"]
    assert [(entry["version"], entry["weight"]) for entry in route] == [("v7", 50), ("v7", 50)]
    assert route[1]["index"] == before
    delivery.decide("tuned", "Approve", "v7")
    delivery.stage.wait(lambda: delivery.status("tuned")["servingIndex"] == route[0]["index"], "the other to serve")
    delivery.wait_for("tuned", "UpToDate")
    assert delivery.answering("tuned") == {"v7"}


def test_a_pinned_snapshot_is_one_shift_there_and_one_back(delivery: Delivery) -> None:
    before = delivery.status("pinned")["servingIndex"]

    delivery.want("pinned", "v7", snapshot=1)
    delivery.stage.wait(lambda: delivery.status("pinned")["servingIndex"] != before, "a frozen index to serve")
    delivery.wait_for("pinned", "UpToDate")

    status = delivery.status("pinned")
    assert [(i["role"], i["frozen"]) for i in status["indexes"]] == [("Serving", True), ("Retained", False)]
    assert delivery.answering("pinned") == {"v7"}
    lines = len(delivery.stage.operator.lines())
    delivery.want("pinned", "v7", snapshot=None)
    delivery.stage.wait(lambda: delivery.status("pinned")["servingIndex"] == before, "the first to serve again")
    delivery.wait_for("pinned", "UpToDate", v7=100)
    assert shifts(delivery, "pinned", lines)[:2] == ONE_SHIFT


# What gates say.


def test_a_worse_version_is_rejected_by_its_answers_and_stays_so_until_it_is_tried_again(delivery: Delivery) -> None:
    before = delivery.stage.get(DEPLOYMENT, "rejected")

    delivery.want("rejected", "v9")
    message = delivery.wait_for("rejected", "TargetRejected", v7=100)

    number = r"[-+]?0\.\d{3}"
    wanted = (
        rf"serving v7 normally; v9 rejected: nDCG@10 fell by {number} \({number} to {number}\) over 60 groups, policy "
        r"allows a fall of 0\.1; a new spec\.retry would try it again"
    )
    assert re.fullmatch(wanted, message), message
    delivery.stage.wait_for_resyncs(2)
    assert delivery.goal("rejected") == ("Stalled", "TargetRejected", message)
    delivery.want("rejected", "v9", retry="again")
    delivery.stage.wait(lambda: retried(delivery) == ["", "again"], "it to be tried and rejected again")
    delivery.wait_for("rejected", "TargetRejected", v7=100)
    routes = weights_of(delivery.stage.past(DEPLOYMENT, before)).values()
    assert all(route.get("v9", 0) == 0 for route in routes)
    assert delivery.answering("rejected") == {"v7"}


def retried(delivery: Delivery) -> list[str]:
    return [entry.get("retry", "") for entry in delivery.status("rejected").get("rejected", [])]


def test_what_failed_on_its_way_takes_its_steps_again_with_the_index_that_it_has(delivery: Delivery) -> None:
    delivery.ask(UNWATCHED, "v9")
    stage, index = delivery.stage, delivery.index(UNWATCHED, "v9")
    before, lines = stage.get(DEPLOYMENT, UNWATCHED), len(stage.operator.lines())

    delivery.want(UNWATCHED, "v9", gates=EVALUATED)
    delivery.wait_for(UNWATCHED, "TargetRejected", v7=100)
    assert delivery.answering(UNWATCHED) == {"v7"}

    delivery.want(UNWATCHED, "v9", gates={"evaluation": None}, retry="again")
    delivery.ask(UNWATCHED, "v9")
    assert_that_it_began_anew(delivery, before, "v9", index, lines)


def test_what_fails_during_the_burn_in_goes_back(delivery: Delivery) -> None:
    delivery.want("unguarded", "v9")
    message = delivery.wait_for("unguarded", "BurningIn", v9=100)
    assert message == "serving v9@1, burning in for 1h"
    assert delivery.stage.condition(DEPLOYMENT, "unguarded", "Unguarded")["status"] == "True"

    delivery.want("unguarded", "v9", gates=EVALUATED)
    message = delivery.wait_for("unguarded", "TargetRejected", v7=100)

    assert message.startswith("serving v7 normally; v9 rejected: nDCG@10 fell by 0.")
    assert delivery.answering("unguarded") == {"v7"}


def test_queries_that_judge_nothing_hold_the_first_weight_back(delivery: Delivery) -> None:
    stage = delivery.stage
    delivery.want("unjudged", "v8")
    empty = {"files": {"uri": stage.write("", "empty"), "format": "jsonl"}}
    cases: dict[str, Object] = {
        "QuerySet nowhere is not there; create it, or take the gate away": {},
        "QuerySet nowhere: the query set is empty; wanted at least one query": {
            "queries": empty,
            "judgements": empty,
        },
        "0 of 60 relevant documents of query set nowhere are in papers@1, wanted half of them or more; name a query "
        "set that was judged for papers": judged("stranger-{}"),
    }

    for message, spec in cases.items():
        if spec and not stage.exists(QUERY_SET, "nowhere"):
            stage.create(QUERY_SET, "nowhere", spec)
        elif spec:
            stage.edit(QUERY_SET, "nowhere", queries={**spec["queries"], "files": None}, judgements=None)
        said = f"v8 waits: evaluation: {message}; serving v7 normally"
        stage.wait(lambda s=said: delivery.goal("unjudged") == ("Reconciling", "GatesUndecided", s), said)
        assert delivery.answering("unjudged") == {"v7"}

    # A failure is waited out longer each time, in the end for longer than any test waits; what is mended is asked at
    # once.
    for refused, stranger in enumerate(("alien", "foreigner", "nobody"), start=2):
        stage.edit(QUERY_SET, "nowhere", **judged(stranger + "-{}"))
        stage.wait(lambda n=refused: failures(delivery, "unjudged") == n, f"queries of {stranger} to be refused")
    stage.edit(QUERY_SET, "nowhere", **judged())
    delivery.ask("unjudged")


def failures(delivery: Delivery, name: str) -> int:
    """Return how often an evaluation of a deployment has failed."""
    owner = f"{DEPLOYMENT} {delivery.stage.namespace}/{name}"
    return sum(line["event"] == "work_failed" and line["owner"] == owner for line in delivery.stage.operator.lines())
