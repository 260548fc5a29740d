"""Lines of the table that nobody edits: what is lost, late, silent or behind on the way, and who does not answer."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import psycopg
import pytest
from tests.integration.delivery import DATASET_NAME, TEXT, VERSIONS, Delivery, delivering, documents
from tests.integration.operator_process import DATASET, DEPLOYMENT, Object
from tests.servers.openai_server import MODEL, OpenAIServer

from pointsman.controlplane import plane
from pointsman.embedders.wordllama import Wordllama

pytestmark = pytest.mark.server

MADE = {"Embed", "Build", "Repair"}
"""The work of a new version."""
AT_ONCE: list[Object] = [{"weight": 100}]
MIDWAY = ("lost", "deleted", "moved", "restored")
"""Deployments that have come half of the way to v8, and ask a person."""
UNANSWERED = {"unanswered": "RollBack", "held": "Hold"}
"""Deployments whose person has a second, by what becomes of them then."""
LATE = "A late arrival"


class Slow:
    """A model that keeps who sends it what came late waiting, until it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if any(LATE in text for text in texts):
            self.let_go.wait()
        return Wordllama().embed(texts)


def asking(on_timeout: str) -> Object:
    """Return a strategy whose person has a second to answer."""
    approval = {"name": "go-wide", "timeout": "1s", "onTimeout": on_timeout}
    return {"steps": [{"weight": 50}, {"approval": approval}, {"weight": 100}]}


@pytest.fixture(scope="module")
def delivery(control_plane: plane.ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivery]:
    folder = tmp_path_factory.mktemp("delivery")
    with delivering(control_plane, folder, has_other=True, workers="4") as delivery:
        # All at once: what is built for one test is built while another one waits.
        for name in (*MIDWAY, "silent", "older"):
            delivery.deploy(name)
        for name, on_timeout in UNANSWERED.items():
            delivery.deploy(name, strategy=asking(on_timeout))
        judged_nowhere = {"evaluation": {"querySetRef": {"name": "nowhere"}, "notWorseBy": "0.1"}}
        delivery.deploy("overdue", strategy={"steps": AT_ONCE, "progressDeadline": "1s"}, gates=judged_nowhere)
        delivery.deploy("resilient", AT_ONCE)
        for name in (*MIDWAY, *UNANSWERED, "resilient", "overdue"):
            delivery.wait_for(name, "UpToDate", v7=100)
        for name in (*MIDWAY, "resilient"):
            delivery.want(name, "v8")
        yield delivery


# The first of all.


def test_a_first_deployment_serves_at_once_and_skips_its_steps(delivery: Delivery) -> None:
    lines = len(delivery.stage.operator.lines())

    made = delivery.deploy("first")
    delivery.wait_for("first", "UpToDate", v7=100)

    assert delivery.shares("first", made) == [{"v7": 100}]
    assert "Evaluate" not in delivery.stage.tasks(DEPLOYMENT, "first", lines)
    assert delivery.answering("first") == {"v7"}


# Nobody answers, or nothing goes on.


def test_a_person_who_does_not_answer_in_time_has_it_go_back_or_held_as_the_step_says(delivery: Delivery) -> None:
    for name in UNANSWERED:
        delivery.want(name, "v8")
    nobody = "an Approval that answers go-wide is awaited for 1s, and nobody did"

    message = delivery.wait_for("unanswered", "TargetRejected", v7=100)
    assert message == f"serving v7 normally; v8 rejected: {nobody}; a new spec.retry would try it again"
    assert delivery.answering("unanswered") == {"v7"}

    message = delivery.wait_for("held", "Held", v8=50, v7=50)
    assert message == (f"v8 is held: {nobody}; approve go-wide, abort it, or change spec.version; serving v8 50, v7 50")
    assert delivery.answering("held") == {"v7", "v8"}
    done = delivery.stage.run("approve", "held", "go-wide")
    assert done.returncode == 0, done.stderr
    delivery.wait_for("held", "UpToDate", v8=100)


def test_a_step_that_does_not_come_about_before_its_deadline_is_given_up(delivery: Delivery) -> None:
    before = delivery.stage.get(DEPLOYMENT, "overdue")

    delivery.want("overdue", "v8")
    message = delivery.wait_for("overdue", "TargetRejected", v7=100)

    assert message == (
        "serving v7 normally; v8 rejected: step 0 took longer than it may: evaluation: QuerySet nowhere is not there; "
        "create it, or take the gate away; a new spec.retry would try it again"
    )
    assert delivery.shares("overdue", before) == [{"v7": 100}]


# Gateways, before another operator begins another epoch.


def test_a_gateway_that_does_not_answer_holds_the_way_up_and_is_named(delivery: Delivery) -> None:
    name = f"gateway http://127.0.0.1:{delivery.door.port}: cannot be reached (ConnectError)"
    delivery.door.shut()
    try:
        delivery.want("silent", "v8")
        message = delivery.wait_for("silent", "RouteNotAccepted")
        assert message == f"v8 waits: {name}; serving v7 normally"
        condition = delivery.stage.condition(DEPLOYMENT, "silent", "TrafficVerified")
        assert (condition["status"], condition["message"]) == ("False", name)
        assert delivery.answering("silent") == {"v7"}
    finally:
        delivery.door.open()

    delivery.ask("silent")


def test_a_gateway_that_serves_an_older_route_holds_the_way_up_and_is_named(delivery: Delivery) -> None:
    stage, before = delivery.stage, delivery.stage.get(DEPLOYMENT, "older")
    revision = before["status"]["route"]["revision"]
    delivery.line.shut()
    try:
        delivery.want("older", "v8")
        old = f"gateway http://127.0.0.1:{delivery.door.port} serves route {revision}, wanted {revision + 1}"
        message = f"v8 waits: {old}; serving v7 normally"
        # At first the other one is late as well.
        stage.wait(lambda: delivery.goal("older") == ("Reconciling", "RouteNotAccepted", message), message)

        stage.wait_for_resyncs(2)
        assert delivery.goal("older")[2] == message
        told = json.loads(stage.run("why", "older", "-o", "json").stdout)
        assert (told["reason"], told["message"]) == ("RouteNotAccepted", message)
        assert delivery.shares("older", before) == [{"v7": 100}]
        assert delivery.answering("older") == delivery.answering("older", delivery.other) == {"v7"}
    finally:
        delivery.line.open()

    delivery.ask("older")
    assert delivery.answers("older") == delivery.answers("older", delivery.other)


# What is lost.


def test_what_serves_is_lost_on_the_way_and_the_candidate_takes_over(delivery: Delivery) -> None:
    delivery.ask("lost")
    before, lost = delivery.stage.get(DEPLOYMENT, "lost"), delivery.index("lost", "v7")

    delivery.database.engine.destroy(lost)
    delivery.stage.wait(lambda: delivery.weights("lost") == {"v8": 100}, "v8 to take all queries")

    assert delivery.answering("lost") == {"v8"}
    gone = f"index {lost} is gone from the database; serving v8 normally"
    assert ("Reconciling", "True", gone) in delivery.told("lost", before)
    delivery.wait_for("lost", "UpToDate", v8=100)


def test_what_serves_is_lost_and_what_is_retained_takes_over_until_it_is_built_again(delivery: Delivery) -> None:
    delivery.wait_for("resilient", "UpToDate", v8=100)
    before, lost = delivery.stage.get(DEPLOYMENT, "resilient"), delivery.index("resilient", "v8")
    embedded = delivery.stage.embedded(DATASET_NAME)

    delivery.database.engine.destroy(lost)
    delivery.stage.wait(lambda: delivery.index("resilient", "v8") != lost, "another index of v8 to be made")
    delivery.wait_for("resilient", "UpToDate", v8=100)

    assert delivery.shares("resilient", before) == [{"v8": 100}, {"v7": 100}, {"v8": 100}]
    gone = f"index {lost} is gone from the database; serving v7 normally"
    assert ("Reconciling", "True", gone) in delivery.told("resilient", before)
    assert delivery.answering("resilient") == {"v8"}
    assert delivery.stage.embedded(DATASET_NAME) == embedded


def test_a_deployment_that_is_restored_without_its_status_goes_on_where_it_was(delivery: Delivery) -> None:
    delivery.ask("restored")
    stage, lost = delivery.stage, delivery.stage.get(DEPLOYMENT, "restored")
    before, answers = delivery.status("restored"), delivery.answers("restored")
    embedded, lines = stage.embedded(DATASET_NAME), len(stage.operator.lines())

    # The cluster is lost and comes back from Git: another uid, no status, and nobody was there to see it go.
    assert stage.operator.stop() == 0
    stage.delete(DEPLOYMENT, "restored")
    stage.patch(DEPLOYMENT, "restored", {"metadata": {"finalizers": None}})
    assert not stage.exists(DEPLOYMENT, "restored")
    made = stage.create(DEPLOYMENT, "restored", lost["spec"])
    stage.operator.start()
    delivery.ask("restored")

    assert made["metadata"]["uid"] != lost["metadata"]["uid"]
    after = delivery.status("restored")
    assert [(i["name"], i["role"]) for i in after["indexes"]] == [(i["name"], i["role"]) for i in before["indexes"]]
    assert after["route"]["entries"] == before["route"]["entries"]
    assert delivery.shares("restored", made) == [{"v8": 50, "v7": 50}]
    assert delivery.answers("restored") == delivery.answers("restored", delivery.other) == answers
    assert stage.embedded(DATASET_NAME) == embedded
    assert MADE.isdisjoint(stage.tasks(DEPLOYMENT, "restored", lines))
    assert len(delivery.database.collections(stage, lost)) == 2
    assert delivery.database.collections(stage, made) == []


def test_a_deployment_that_is_deleted_on_the_way_is_let_go_by_the_gateway_and_leaves_nothing(
    delivery: Delivery,
) -> None:
    delivery.ask("deleted")
    resource = delivery.stage.get(DEPLOYMENT, "deleted")
    assert len(delivery.database.collections(delivery.stage, resource)) == 2

    delivery.stage.delete(DEPLOYMENT, "deleted")
    delivery.stage.wait(lambda: not delivery.stage.exists(DEPLOYMENT, "deleted"), "the deployment to go")

    assert delivery.search("deleted", "somebody").status_code == 404
    assert delivery.database.collections(delivery.stage, resource) == []


# What moves.


def test_neither_another_connection_nor_a_removed_version_moves_anything(delivery: Delivery) -> None:
    delivery.ask("moved")
    stage, backend = delivery.stage, delivery.database.spec["pgvector"]
    route = delivery.status("moved")["route"]
    stage.put_secret("another", delivery.database.credentials, "127.0.0.1")

    delivery.want("moved", "v8", backend={"pgvector": {**backend, "credentialsRef": {"name": "another"}}})
    stage.edit(DATASET, DATASET_NAME, versions=[version for version in VERSIONS if version["name"] != "v8"])
    stage.wait(lambda: stage.said(DATASET, DATASET_NAME)[0] == "VersionInUse", "the removal to be held")

    said = r"v8 was removed and is used by [a-z, ]+(and \d+ more)?; the pinned recipe serves on; declare it again"
    assert re.fullmatch(said, stage.said(DATASET, DATASET_NAME)[1])
    stage.wait_for_resyncs(2)
    delivery.ask("moved")
    assert delivery.status("moved")["route"] == route
    assert delivery.answering("moved") == {"v7", "v8"}
    stage.edit(DATASET, DATASET_NAME, versions=list(VERSIONS))
    stage.wait(lambda: stage.is_ready(DATASET, DATASET_NAME), "the dataset to be well again")


def test_a_connection_to_where_our_marker_is_not_moves_nothing_until_it_is_changed_back(delivery: Delivery) -> None:
    delivery.ask("moved")
    route, serving = delivery.status("moved")["route"], delivery.index("moved", "v7")
    backend = delivery.stage.get(DEPLOYMENT, "moved")["spec"]["backend"]["pgvector"]
    place = route["address"].removesuffix("public")
    where = {"host": backend["host"], "port": backend["port"], "dbname": backend["database"]}
    who = {"user": delivery.database.credentials["username"], "password": delivery.database.credentials["password"]}
    with psycopg.connect(**where, **who) as client:
        client.execute("CREATE SCHEMA elsewhere")

    delivery.want("moved", "v8", backend={"pgvector": {**backend, "schema": "elsewhere"}})
    message = delivery.wait_for("moved", "IndexElsewhere")

    assert message == (
        f"spec.backend names {place}elsewhere, which does not hold index {serving}, last found at {place}public; "
        f"change it back, or declare another IndexDeployment for {place}elsewhere; v7 stays on the route"
    )
    assert delivery.status("moved")["route"] == route
    assert delivery.answering("moved") == {"v7", "v8"}
    delivery.want("moved", "v8", backend={"pgvector": {**backend, "schema": "public"}})
    delivery.ask("moved")
    assert delivery.status("moved")["route"] == route


# What is behind.


def test_what_is_behind_catches_up_before_it_goes_back_and_a_person_may_have_it_at_once(delivery: Delivery) -> None:
    stage, model = delivery.stage, Slow()
    deployments = ("patient", "hurried")
    with OpenAIServer(embed=model.embed) as server:
        choice = {"openai": {"endpoint": "main", "model": MODEL, "dimensions": 256}}
        versions = ({"name": "v7", "model": choice, "text": TEXT}, VERSIONS[1])
        endpoints = [{"name": "main", "baseURL": server.url}]
        stage.declare("followed", stage.write(documents(), "followed"), *versions, endpoints=endpoints)
        for name in deployments:
            delivery.deploy(name, AT_ONCE, gates={}, dataset="followed", maxLag="0s")
        for version in ("v7", "v8"):
            for name in deployments:
                delivery.want(name, version)
            for name in deployments:
                delivery.wait_for(name, "UpToDate", **{version: 100})

        try:
            stage.write([*documents(), {"id": "late", "title": LATE, "text": "Of a train."}], "followed")
            stage.refresh("followed", "late")
            for name in deployments:
                stage.wait(lambda n=name: cursor(delivery, n, "v8") == 2, "v8 to follow")
                delivery.want(name, "v7")
            for name in deployments:
                message = delivery.wait_for(name, "Following", v8=100)
                assert re.fullmatch(
                    r"v7@1 is [0-9ms ]+ behind, spec\.maxLag is 0s; it catches up as soon as its snapshot is embedded; "
                    r"an Approval AcceptLag or a higher spec\.maxLag switches at once; serving v8 normally",
                    message,
                ), message

            done = stage.run("accept-lag", "hurried")
            assert done.returncode == 0, done.stderr
            assert "v7@1 lacks what snapshot 2 brought, until it has caught up" in done.stdout
            stage.wait(lambda: delivery.weights("hurried") == {"v7": 100}, "v7 to take over as it is")
            path = f"/apis/pointsman.dev/v1alpha1/namespaces/{stage.namespace}/approvals/{done.stdout.split()[-1]}"
            stage.wait(lambda: stage.admin.get(path).get("status", {}).get("missed") is not None, "it to be said")
            said = stage.admin.get(path)["status"]
            assert said["missed"] == {"snapshot": 1, "newest": 2, "documents": 1, "counted": 2}
            assert any("v7@1 lacks what snapshot 2 changed: 1 added" in each["message"] for each in said["conditions"])
            assert (cursor(delivery, "hurried", "v7"), delivery.answering("hurried")) == (1, {"v7"})
            stage.wait_for_resyncs(2)
            assert (delivery.weights("patient"), delivery.answering("patient")) == ({"v8": 100}, {"v8"})
        finally:
            model.let_go.set()

        for name in deployments:
            delivery.wait_for(name, "UpToDate", v7=100)
            stage.wait(lambda n=name: cursor(delivery, n, "v7") == 2, "v7 to have caught up")
        assert delivery.answering("patient") == {"v7"}


def cursor(delivery: Delivery, name: str, version: str) -> int | None:
    """Return the snapshot that a version's index has reached."""
    index = next(i for i in delivery.status(name)["indexes"] if i["version"] == version)
    found: int | None = index.get("cursor", {}).get("snapshot")
    return found
