"""The operator's numbers: from what was seen and planned, for as long as the resource is there, and readable."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.crash import stories
from tests.crash.stage import DATASET_KEY, DEPLOYMENT_KEY, QUERY_SET_KEY, Stage, Tripwire, settle, world
from tests.plan import builders as b
from tests.plan import fleet
from tests.unit.waiting import wait_until

from pointsman import settings
from pointsman.api.conditions import Reason
from pointsman.cli import operator
from pointsman.cluster.counting import Requests
from pointsman.cluster.memory import MemoryCluster
from pointsman.cluster.mirror import Mirror
from pointsman.cluster.resources import Resource
from pointsman.controller import exposition, figures, handlers, listener
from pointsman.controller.exposition import Parts
from pointsman.controller.health import Health, Part
from pointsman.controller.listener import Listener
from pointsman.controller.metrics import Metrics
from pointsman.controller.queue import Queue
from pointsman.controller.reconcile import reconcile
from pointsman.core import shifts
from pointsman.core.shifts import Day
from pointsman.errors import Retryable, Terminal
from pointsman.plan import deployment, measured
from pointsman.plan.facts import Rollout
from pointsman.plan.observed import Embedded
from pointsman.plan.outcomes import Ended, Outcome
from pointsman.plan.tallies import Scores, Watched
from pointsman.plan.tasks import Key

Numbers = dict[tuple[str, tuple[str, ...]], float]


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def parts(metrics: Metrics | None = None, **more: Any) -> Parts:
    return Parts(metrics or Metrics(), more.pop("health", Health()), Requests(), **more)


def read(found: Parts) -> dict[str, float]:
    """Return every sample by its name and labels as Prometheus reads them."""
    text = b"".join(exposition.text(found)).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        f"{sample.name}{{{', '.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": sample.value
        for sample in samples
        if sample.name.startswith("pointsman_")
    }


def numbers(seen: Any) -> Numbers:
    status = deployment.plan(seen, b.NOW).status
    return {
        (s.family.name.removeprefix("pointsman_"), s.labels): s.value for s in figures.deployment(seen, status, b.NOW)
    }


def test_a_label_is_read_as_it_was_written_whatever_is_in_it() -> None:
    metrics, kind = Metrics(), 'a "kind" of\n\\n'
    metrics.failed(kind, "CONFLICT")

    text = b"".join(exposition.text(parts(metrics))).decode()

    found = [each for family in text_string_to_metric_families(text) for each in family.samples]
    assert [each.value for each in found if each.labels == {"kind": kind, "reason": "CONFLICT"}] == [1.0]


# What a look gives.


def test_a_deployment_in_mid_canary_gives_weights_gates_lag_and_parity() -> None:
    facts = dataclasses.replace(
        b.deployment(b.serving(), b.candidate()).facts,
        route=7,
        rollout=Rollout("v8", "plan", begun_at=b.NOW - b.HOUR, since=b.NOW, step=1, weight=10),
    )
    seen = b.deployment(
        b.serving(),
        b.candidate(),
        spec=b.spec(
            "v8", strategy={"steps": [{"weight": 10}, {"weight": 100}]}, gates=fleet.EVALUATED | fleet.CANARIES
        ),
        facts=facts,
        records={"v8": b.record(11)},
        physical={"v8": b.present(11)},
        gateways=(fleet.gateway(7, answered={"v7": 880, "v8": 120}),),
        query_sets=fleet.sets(),
        evaluation=fleet.evaluation(fleet.UNDECIDED),
        canaries=fleet.canaries(4, overlap=0.75, kept=0.9),
    )

    found = numbers(seen)

    assert found["unguarded", ()] == 0
    assert found["rollout_begun_timestamp_seconds", ("v8",)] == (b.NOW - b.HOUR).timestamp()
    assert found["canaries_found_ratio", ("v8",)] == 0.8
    assert found["canary_overlap", ("v8", "beside")] == 0.75
    assert found["canary_overlap", ("v8", "first")] == 0.9
    assert found["index_lag_seconds", ("v7", "v7", "Serving")] == 0
    assert found["index_lag_sequences", ("v7", "v7", "Serving")] == 0
    assert found["index_lag_seconds", ("v8", "v8", "Candidate")] == (30 * b.DAY - timedelta(seconds=1)).total_seconds()
    assert found["index_lag_sequences", ("v8", "v8", "Candidate")] == 1
    assert found["index_parity", ("v7", "v7", "Serving")] == 1
    assert found["index_rows", ("v7", "v7", "Serving")] == 112
    assert found["gate_verdict", ("v8", "canaries", "Failed")] == 1
    assert found["gate_value", ("v8", "canaries")] == 4
    assert {(name, labels) for name, labels in found if name.startswith("rollback")} == set()


def test_an_evaluation_gives_the_recall_of_both_indexes_and_how_much_of_their_answers_is_judged() -> None:
    judged: dict[str, Any] = {"recall": 0.99, "other_recall": 0.98, "judged": 0.8, "other_judged": 0.95}
    seen = b.deployment(b.serving(), b.candidate(), evaluation=fleet.evaluation(pooled=True, **judged))

    found = numbers(seen)

    assert found["index_recall", ("v8", "v8")] == 0.99
    assert found["index_recall", ("v7", "v7")] == 0.98
    assert found["judged_share", ("v8", "v8")] == 0.8
    assert found["judged_share", ("v7", "v7")] == 0.95
    # Where an unjudged document is not relevant, nothing hangs on how many there are; what is gone has no recall.
    whole = dataclasses.replace(seen, evaluation=fleet.evaluation(serving="v6", **judged))
    told = {(name, labels) for name, labels in numbers(whole) if name in ("index_recall", "judged_share")}
    assert told == {("index_recall", ("v8", "v8"))}


def test_weights_are_as_desired_accepted_and_measured_to_the_percent() -> None:
    seen = b.deployment(gateways=(fleet.gateway(answered={"v7": 1000}),))

    found = numbers(seen)

    place = ("v7", "v7")
    assert found["weight_desired_percent", place] == 100
    assert found["weight_accepted_percent", place] == 100
    assert found["weight_measured_percent", place] == 100
    late = numbers(b.deployment(gateways=(fleet.gateway(0, answered={"v7": 1000}),)))
    assert late["weight_desired_percent", place] == 100
    assert ("weight_accepted_percent", place) not in late
    assert ("weight_measured_percent", place) not in late


DIFFERENT: dict[str, dict[str, Any]] = {
    "rows differ": {"records": {"v7": b.record(differences=3)}},
    "rows are missing": {"physical": {"v7": dataclasses.replace(b.present(), rows=5)}},
    "it is gone": {"physical": {"v7": b.ABSENT}},
}


@pytest.mark.parametrize("changes", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_an_index_that_is_not_as_its_snapshot_has_no_parity(changes: dict[str, Any]) -> None:
    assert numbers(b.deployment(**changes))["index_parity", ("v7", "v7", "Serving")] == 0


@pytest.mark.parametrize(("record", "ready"), [(b.record(), 1.0), (b.record(differences=2), 0.0)])
def test_a_way_back_is_ready_or_not_and_absent_where_there_is_none(record: Any, ready: float) -> None:
    seen = b.deployment(b.retained(), b.serving("v8", b.V8), spec=b.spec("v8"), records={"v7": record})

    assert numbers(seen)["rollback_ready", ()] == ready
    assert ("rollback_ready", ()) not in numbers(b.deployment())
    assert numbers(seen)["unguarded", ()] == 1


def test_shares_of_scores_are_told_beside_those_of_the_baseline() -> None:
    usual, lower = Day(600, dict.fromkeys(range(150, 250), 6)), Day(600, dict.fromkeys(range(125, 225), 6))
    watch = shifts.watch([usual] * 14)
    assert watch is not None
    for each in [usual, lower, lower, lower]:
        watch = shifts.follow(watch, each)
    seen = b.deployment(scores=Scores(recipe=b.V7.key, watched={b.V7.key: Watched(watch=watch)}))

    found = numbers(seen)

    assert found["score_share_baseline", ("v7", "below q50")] == pytest.approx(0.5)
    assert found["score_share", ("v7", "below q50")] > 0.55
    assert found["scores_shifted", ("v7",)] == 1
    quiet = Scores(recipe=b.V7.key, watched={b.V7.key: Watched(watch=shifts.follow(watch, Day(0, {})))})
    assert ("scores_shifted", ("v7",)) not in numbers(b.deployment(scores=quiet))


def test_what_the_canaries_found_of_an_index_that_is_gone_is_not_told() -> None:
    gone: measured.Canaries = fleet.canaries(candidate="v9")

    assert not [name for name, _ in numbers(b.deployment(canaries=gone)) if name.startswith("canar")]


@pytest.mark.parametrize(
    ("said", "value"),
    [("0.0123", 0.0123), ("-0.041", -0.041), ("1,234", 1234.0), ("", None), ("many", None), ("nan", None)],
)
def test_a_gate_that_measured_no_number_has_no_value(said: str, value: float | None) -> None:
    assert figures._number(said) == value


# What the loop tells.


def told(tmp_path: Path, *steps: Any) -> tuple[Metrics, Stage, Any]:
    stage = Stage(tmp_path / "store")
    stage.folder.mkdir()
    here = world(stage, Tripwire())
    for step in (stories.declare, stories.ask("doc-1"), *steps):
        step(stage)
        settle(stage, Tripwire(), here)
    return here.metrics, stage, here


def test_the_loop_tells_of_every_resource_and_forgets_those_that_are_gone(tmp_path: Path) -> None:
    metrics, stage, here = told(tmp_path)
    found = read(parts(metrics))

    place = "deployment=papers, namespace=search"
    assert (
        found["pointsman_condition{kind=IndexDeployment, name=papers, namespace=search, status=True, type=Ready}"] == 1
    )
    assert (
        found["pointsman_condition{kind=EmbeddingDataset, name=papers, namespace=search, status=True, type=Ready}"] == 1
    )
    assert found["pointsman_condition{kind=QuerySet, name=questions, namespace=search, status=True, type=Ready}"] == 1
    assert not [name for name in found if "type=Ready, status=False" in name]
    assert found["pointsman_dataset_documents{dataset=papers, namespace=search}"] == 12
    assert found["pointsman_dataset_refreshed_timestamp_seconds{dataset=papers, namespace=search}"] > 1.7e9
    assert found["pointsman_texts_embedded_total{dataset=papers, namespace=search, version=v7}"] >= 12
    assert found[f"pointsman_unguarded{{{place}}}"] == 1
    assert found["pointsman_actions_total{action=RecordFacts}"] >= 1
    assert found["pointsman_leader{}"] == 0

    for step in (stories.delete_deployment, stories.delete_dataset, stories.delete_queries):
        step(stage)
        settle(stage, Tripwire(), here)
    for key in (DEPLOYMENT_KEY, DATASET_KEY, QUERY_SET_KEY):
        assert reconcile(key, here, stage.now()) is None

    assert not [name for name in read(parts(metrics)) if "namespace=" in name]


def test_tokens_are_counted_apart_by_who_says_so() -> None:
    metrics = Metrics()
    first = Embedded(1, 1, 12, 12, "d1", 12, tokens=500, tokens_stated=500)
    later = (first, Embedded(2, 2, 12, 12, "d2", 2, 10, 30, 20), Embedded(3, 3, 12, 12, "d3", reused=12))

    for there in ((first,), later, later):
        metrics.embedded(b.dataset(embedded={b.V7.key: there}))

    found = read(parts(metrics))
    place = "dataset=papers, namespace=search, version=v7"
    assert {name: value for name, value in found.items() if name.startswith("pointsman_tokens_total")} == {
        f"pointsman_tokens_total{{basis=estimated, {place}}}": 10,
        f"pointsman_tokens_total{{basis=stated, {place}}}": 20,
    }


def test_a_second_look_at_rest_counts_no_text_again(tmp_path: Path) -> None:
    metrics, stage, here = told(tmp_path)
    before = read(parts(metrics))

    settle(stage, Tripwire(), here)

    # An operator that has just begun knows nothing of what another one embedded.
    fresh = world(stage, Tripwire())
    settle(stage, Tripwire(), fresh)
    after, anew = read(parts(metrics)), read(parts(fresh.metrics))
    texts = [name for name in before if name.startswith("pointsman_texts")]
    assert len(texts) == 2
    assert {name: after[name] for name in texts} == {name: before[name] for name in texts}
    assert not [name for name in anew if name.startswith("pointsman_texts")]


def test_a_migration_that_is_over_is_counted_once_by_how_it_ended(tmp_path: Path) -> None:
    metrics, _, _ = told(
        tmp_path,
        stories.judge,
        stories.declare_v8,
        stories.by_steps,
        stories.serve("v8"),
        stories.later(timedelta(seconds=10)),
        stories.decide("Approve", "evaluation"),
        stories.serve("v7"),
    )

    counts = {name: n for name, n in read(parts(metrics)).items() if name.startswith("pointsman_rollout_duration")}

    place = "deployment=papers, namespace=search, outcome=called_off"
    assert counts[f"pointsman_rollout_duration_seconds_count{{{place}}}"] == 1
    assert counts[f"pointsman_rollout_duration_seconds_sum{{{place}}}"] > 10
    assert all("outcome=called_off" in name for name in counts)


# What is added up.


def test_histograms_are_cumulative_and_counters_grow() -> None:
    metrics, key = Metrics(), Key("IndexDeployment", "search", "papers")
    for seconds in (0.001, 0.02, 0.02, 90.0):
        metrics.took("IndexDeployment", seconds)
    metrics.failed("IndexDeployment", Reason.BACKEND_UNREACHABLE)
    metrics.acted("RecordFacts")
    metrics.acted("RecordFacts")
    metrics.ended(key, Ended(Outcome.PROMOTED, timedelta(minutes=10)))

    found = read(parts(metrics))

    took = "pointsman_reconcile_duration_seconds"
    assert found[f"{took}_bucket{{kind=IndexDeployment, le=0.005}}"] == 1
    assert found[f"{took}_bucket{{kind=IndexDeployment, le=0.025}}"] == 3
    assert found[f"{took}_bucket{{kind=IndexDeployment, le=60}}"] == 3
    assert (
        found[f"{took}_bucket{{kind=IndexDeployment, le=+Inf}}"] == found[f"{took}_count{{kind=IndexDeployment}}"] == 4
    )
    assert found[f"{took}_sum{{kind=IndexDeployment}}"] == pytest.approx(90.041)
    assert found["pointsman_reconcile_errors_total{kind=IndexDeployment, reason=BackendUnreachable}"] == 1
    assert found["pointsman_actions_total{action=RecordFacts}"] == 2
    rest = "namespace=search, outcome=promoted}"
    for edge, count in {"300": 0, "900": 1, "1209600": 1, "+Inf": 1}.items():
        assert found[f"pointsman_rollout_duration_seconds_bucket{{deployment=papers, le={edge}, {rest}"] == count
    metrics.forget(key)
    assert not [name for name in read(parts(metrics)) if "papers" in name]


def test_work_is_added_up_over_resources() -> None:
    metrics = Metrics()
    metrics.saw(Key("IndexDeployment", "search", "papers"), (), [b.running(b.build())])
    metrics.saw(Key("IndexDeployment", "search", "books"), (), [b.running(b.build()), b.failed(b.check())])
    metrics.saw(Key("IndexDeployment", "search", "maps"), (), [b.done(b.build())])

    found = read(parts(metrics))

    assert found["pointsman_work_running{task=Build}"] == 2
    assert found["pointsman_work_failing{reason=BackendUnreachable, task=Check}"] == 1
    assert "pointsman_work_running{task=Check}" not in found


def test_requests_are_counted_by_method_and_by_what_came_of_them() -> None:
    class Answer:
        status = 200

    class Refused(Exception):
        status = 409

    def answer(method: str, url: str) -> Answer:
        if method == "PUT":
            raise Refused
        if method == "PATCH":
            raise OSError
        return Answer()

    found = parts()
    call = found.requests.counted(answer)
    call("GET", "/a")
    call("GET", "/b")
    with pytest.raises(Refused):
        call("PUT", "/a")
    with pytest.raises(OSError):
        call("PATCH", "/a")

    counts = {name: n for name, n in read(found).items() if name.startswith("pointsman_api")}
    assert counts == {
        "pointsman_api_requests_total{method=GET, status=200}": 2,
        "pointsman_api_requests_total{method=PUT, status=409}": 1,
        "pointsman_api_requests_total{method=PATCH, status=0}": 1,
    }


# Whether it is well.


def test_a_part_that_goes_silent_is_ill_and_well_again_once_it_is_heard() -> None:
    clock = Clock()
    health = Health(clock)
    health.expect(Part.WATCHES, 60)
    clock.now += 60
    assert health.problem() == ""
    clock.now += 1

    assert health.problem() == "watches: nothing heard for 61 s, wanted every 60 s"
    health.beat(Part.WATCHES)
    assert health.problem() == ""


def test_it_is_ready_while_it_stands_by_and_once_it_has_seen_everything() -> None:
    health = Health()
    standing_by = health.waits()
    health.lead(3)
    leading = health.waits()
    health.sync()

    assert (standing_by, leading, health.waits()) == ("", "resources have not all been seen yet", "")
    found = read(parts(health=health))
    assert (found["pointsman_leader{}"], found["pointsman_epoch{}"], found["pointsman_synced{}"]) == (1, 3, 1)


class Listing(MemoryCluster):
    """A cluster that cannot be listed at first."""

    is_away = True

    def list(self, kind: str, namespace: str | None) -> Sequence[Resource]:
        if self.is_away and kind == "Approval":
            raise Retryable(Reason.CLUSTER_UNREACHABLE, "no answer")
        return super().list(kind, namespace)


def test_everything_has_been_seen_once_every_kind_could_be_listed() -> None:
    cluster, mirror, health, woken = Listing(), Mirror(), Health(), []
    cluster.apply({"kind": "QuerySet", "metadata": {"namespace": "search", "name": "a"}, "spec": {}})
    queue = Queue(woken.append, 1, on_error=lambda key, error: None)
    chosen = settings.load(namespaces=("search",))

    away = operator.woken(queue, mirror, cluster, chosen, health)
    mirror_before = mirror.is_whole
    cluster.is_away = False
    there = operator.woken(queue, mirror, cluster, chosen, health)

    assert (away, mirror_before, there, mirror.is_whole) == (None, False, 1, True)
    assert queue.load().due == 1


def test_the_watches_say_that_they_go_on() -> None:
    async def story() -> list[str]:
        beats: list[str] = []
        beating = asyncio.create_task(handlers.beating(lambda: beats.append("beat")))
        await asyncio.sleep(0)
        beating.cancel()
        return beats

    assert asyncio.run(story()) == ["beat"]


def test_a_loop_whose_threads_are_gone_or_were_never_there_is_ill() -> None:
    queue = Queue(lambda key: None, 2, on_error=lambda key, error: None)
    health = Health()
    health.serve(queue)
    assert health.problem() == "loop: none of its threads lives"
    queue.start()
    try:
        assert health.problem() == ""
    finally:
        queue.stop()
    assert health.problem() == "loop: none of its threads lives"


def test_a_loop_that_takes_up_nothing_is_ill() -> None:
    go, taken = threading.Event(), threading.Event()

    def hang(key: Key) -> None:
        taken.set()
        go.wait(30)

    queue = Queue(hang, 1, on_error=lambda key, error: None)
    health = Health()
    health.serve(queue)
    queue.start()
    try:
        queue.add(Key("QuerySet", "search", "a"))
        assert taken.wait(30)
        queue.add(Key("QuerySet", "search", "b"), after=timedelta(seconds=-301))

        load = queue.load()

        assert (load.due, load.busy, load.threads) == (1, 1, 1)
        assert load.waited > 300
        assert health.problem().startswith("loop: a resource has been due for 301 s")
        assert read(parts(queue=queue))["pointsman_queue_depth{}"] == 1
    finally:
        go.set()
        queue.stop()


# Where it is asked.


@pytest.fixture
def served() -> Iterator[tuple[str, Health]]:
    health = Health()
    found = Listener("127.0.0.1", 0, listener.pages(parts(health=health)))
    found.start()
    yield f"http://127.0.0.1:{found.port}", health
    found.stop()


def asked(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_and_probes_are_answered_over_http(served: tuple[str, Health]) -> None:
    url, health = served

    assert asked(f"{url}/healthz") == (200, "ok")
    assert asked(f"{url}/readyz") == (200, "ok")
    assert asked(f"{url}/elsewhere") == (404, "not found")
    status, text = asked(f"{url}/metrics?name=x")
    assert status == 200
    assert "pointsman_leader 0.0" in text
    assert "process_resident_memory_bytes" in text

    health.lead(1)
    health.expect(Part.RESYNC, -1.0)
    assert asked(f"{url}/readyz") == (503, "resources have not all been seen yet")
    assert asked(f"{url}/healthz")[0] == 503


def test_a_port_that_is_taken_is_said(served: tuple[str, Health]) -> None:
    port = int(served[0].rpartition(":")[2])

    with pytest.raises(Terminal) as error:
        Listener("127.0.0.1", port, {})

    assert error.value.reason is Reason.INVALID_SPEC
    assert "POINTSMAN_METRICS_PORT is not usable" in error.value.message


def test_a_page_that_fails_takes_no_other_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> listener.Page:
        raise ZeroDivisionError

    pages = {**listener.pages(parts()), "/broken": fail}
    found = Listener("127.0.0.1", 0, pages)
    found.start()
    try:
        url = f"http://127.0.0.1:{found.port}"
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            asked(f"{url}/broken")
        wait_until(lambda: asked(f"{url}/healthz") == (200, "ok"))
    finally:
        found.stop()
