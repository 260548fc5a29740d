"""The stories that are told with a crash at every effect: how each begins, and what the user does in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.crash.stage import NAMESPACE, SECRET_WORD, Stage
from tests.plan.fleet import FakeGateway

from pointsman.cluster.resources import APPROVAL, DATASET, DEPLOYMENT, QUERY_SET, REFRESH_ANNOTATION
from pointsman.plan.reported import Day

API = "pointsman.dev/v1alpha1"


def version(name: str, dimensions: int) -> dict[str, Any]:
    return {
        "name": name,
        "model": {"wordllama": {"dimensions": dimensions}},
        "text": {"template": "{title}. {text}", "metadataFields": ["year"]},
        "chunking": {"maxTokens": 16},
    }


def declare(stage: Stage) -> None:
    stage.documents.clear()
    for number in range(12):
        text = f"{SECRET_WORD} number {number} is about trains and points " * (1 + number % 3)
        stage.documents[f"doc-{number}"] = f'{{"text":"{text}","title":"T{number}","year":{1990 + number}}}'
    stage.cluster.apply(
        {
            "apiVersion": API,
            "kind": DATASET,
            "metadata": {"namespace": NAMESPACE, "name": "papers"},
            "spec": {
                "source": {"files": {"uri": "file:///data/*.jsonl", "format": "jsonl"}, "idField": "id"},
                "versions": [version("v7", 64)],
            },
        }
    )
    stage.cluster.apply(
        {
            "apiVersion": API,
            "kind": DEPLOYMENT,
            "metadata": {"namespace": NAMESPACE, "name": "papers"},
            "spec": {
                "datasetRef": {"name": "papers"},
                "version": "v7",
                "backend": {"memory": {}},
                "publish": {"alias": "papers"},
            },
        }
    )


def by_pods(suspend: bool = False) -> Callable[[Stage], None]:
    """Declare a dataset, of enough documents for several shares, that pods embed."""

    def tell(stage: Stage) -> None:
        declare(stage)
        for number in range(12, 40):
            text = f"{SECRET_WORD} number {number} is about sleepers"
            stage.documents[f"doc-{number}"] = f'{{"text":"{text}","title":"T{number}","year":{1990 + number}}}'
        work = {"mode": "Job", "job": {"shards": 2, "suspend": suspend}}
        edit(stage, DATASET, lambda r: r["spec"].update(work=work))

    return tell


def load_by_pods(stage: Stage) -> None:
    """Declare a dataset, of enough documents for several shares, that pods embed, and an index that they load."""
    by_pods()(stage)
    # The database is the same, under a name that pods could reach.
    edit(stage, DEPLOYMENT, lambda r: r["spec"].update(backend={"qdrant": {"url": "http://qdrant:6333"}}))


def pods(**job: Any) -> Callable[[Stage], None]:
    """Edit what the dataset says of pods."""
    return lambda stage: edit(stage, DATASET, lambda r: r["spec"]["work"]["job"].update(job))


def in_a_bucket(stage: Stage) -> None:
    """Declare a dataset with a store of its own."""
    values = {"accessKeyID": "ana", "secretAccessKey": "sesame"}
    stage.cluster.put_secret(NAMESPACE, "store", values, {"pointsman.dev/allowed-hosts": "s3.amazonaws.com"})
    declare(stage)
    store = {"uri": "s3://vectors/papers", "credentialsRef": {"name": "store"}}
    edit(stage, DATASET, lambda r: r["spec"].update(store=store))


def lose_dataset(stage: Stage) -> None:
    """Lose a dataset behind our back, finalizer and all, while a deployment relies on it."""
    stage.cluster.delete(DATASET, NAMESPACE, "papers", stage.now())
    stage.cluster.patch(DATASET, NAMESPACE, "papers", {"metadata": {"finalizers": []}})


def without_pods(stage: Stage) -> None:
    """Have the operator embed what pods were to embed."""
    edit(stage, DATASET, lambda r: r["spec"].update(work={"mode": "InProcess"}))


def ask(*relevant: str) -> Callable[[Stage], None]:
    """Declare a query set of one query with these answers."""
    query = {"id": "q1", "text": f"where is the {SECRET_WORD}?", "relevant": list(relevant)}
    resource = {
        "apiVersion": API,
        "kind": QUERY_SET,
        "metadata": {"namespace": NAMESPACE, "name": "questions"},
        "spec": {"queries": {"inline": [query]}},
    }
    return lambda stage: stage.cluster.apply(resource)


def judge(stage: Stage) -> None:
    """Declare a query set that can be measured by, and is too small to decide anything."""
    queries = [
        {"id": f"q{number}", "text": f"number {number} about {SECRET_WORD}", "relevant": [f"doc-{number}"]}
        for number in range(1, 5)
    ]
    ask()(stage)
    resource = stage.cluster.get(QUERY_SET, NAMESPACE, "questions")
    assert resource is not None
    resource["spec"] = {"queries": {"inline": queries}}
    stage.cluster.apply(resource)


def delete_queries(stage: Stage) -> None:
    stage.cluster.delete(QUERY_SET, NAMESPACE, "questions", stage.now())


def edit(stage: Stage, kind: str, change: Callable[[dict[str, Any]], None]) -> None:
    resource = stage.cluster.get(kind, NAMESPACE, "papers")
    assert resource is not None
    change(resource)
    stage.cluster.apply(resource)


def declare_v8(stage: Stage) -> None:
    edit(stage, DATASET, lambda r: r["spec"]["versions"].append(version("v8", 256)))


def serve(name: str) -> Callable[[Stage], None]:
    return lambda stage: edit(stage, DEPLOYMENT, lambda r: r["spec"].update(version=name))


def change_source(stage: Stage) -> None:
    stage.documents["doc-1"] = f'{{"text":"{SECRET_WORD} edited at last","title":"T1","year":1991}}'
    stage.documents["doc-99"] = f'{{"text":"{SECRET_WORD} added","title":"T99","year":2099}}'
    del stage.documents["doc-2"]
    stage.documents["doc-3"] = stage.documents["doc-3"].replace("1993", "2003")
    edit(stage, DATASET, lambda r: r["metadata"].setdefault("annotations", {}).update({REFRESH_ANNOTATION: "again"}))


def retire_at_once(stage: Stage) -> None:
    edit(stage, DEPLOYMENT, lambda r: r["spec"].update(retire={"after": "0s"}))


def keep_one_snapshot(stage: Stage) -> None:
    edit(stage, DATASET, lambda r: r["spec"].update(retention={"snapshots": 1, "for": "0s"}))


def drop_alias(stage: Stage) -> None:
    edit(stage, DEPLOYMENT, lambda r: r["spec"].update(publish={}))


def wipe_status(stage: Stage) -> None:
    edit(stage, DATASET, lambda r: r.update(status={}))
    edit(stage, DEPLOYMENT, lambda r: r.update(status={}))


def restore(stage: Stage) -> None:
    """Lose both resources behind our back, finalizers and all, and create them again from Git: new uids, no status."""
    for kind in (DATASET, DEPLOYMENT):
        old = stage.cluster.get(kind, NAMESPACE, "papers")
        assert old is not None
        stage.cluster.delete(kind, NAMESPACE, "papers", stage.now())
        stage.cluster.patch(kind, NAMESPACE, "papers", {"metadata": {"finalizers": []}})
        again = {name: old[name] for name in ("apiVersion", "kind", "spec")}
        stage.cluster.apply({**again, "metadata": {"namespace": NAMESPACE, "name": "papers"}})


def lose_serving_index(stage: Stage) -> None:
    data = stage.cluster.config_map(NAMESPACE, "papers-serving")
    assert data is not None
    stage.database.drop(data["collection"])


def delete_deployment(stage: Stage) -> None:
    stage.cluster.delete(DEPLOYMENT, NAMESPACE, "papers", stage.now())


def by_steps(stage: Stage) -> None:
    """Two gateways, a shadow, a tenth, a person, all; judged by a set that is too small to tell; then a burn-in."""
    stage.gateways = [FakeGateway("g1"), FakeGateway("g2")]
    spec = {
        "strategy": {
            "steps": [
                {"shadow": {"percent": 100, "for": "10s"}},
                {"weight": 10},
                {"approval": {"name": "go-wide"}},
                {"weight": 100},
            ]
        },
        "gates": {"evaluation": {"querySetRef": {"name": "questions"}}},
        "burnIn": {"for": "1h"},
    }
    edit(stage, DEPLOYMENT, lambda r: r["spec"].update(spec))


def decide(decision: str, answers: str = "") -> Callable[[Stage], None]:
    """Create an Approval of the plan of the day."""

    def create(stage: Stage) -> None:
        deployment = stage.cluster.get(DEPLOYMENT, NAMESPACE, "papers")
        assert deployment is not None
        spec: dict[str, Any] = {
            "target": {"kind": DEPLOYMENT, "name": "papers"},
            "decision": decision,
            "version": "v8",
            "expiresAt": "2030-01-01T00:00:00Z",
        }
        if answers:
            spec["answers"] = answers
        if decision == "Approve":
            spec["planHash"] = deployment["status"]["planHash"]
        name = f"{decision}-{answers}".strip("-").lower()
        metadata = {"namespace": NAMESPACE, "name": name}
        stage.cluster.apply({"apiVersion": API, "kind": APPROVAL, "metadata": metadata, "spec": spec})

    return create


def later(span: timedelta) -> Callable[[Stage], None]:
    """Let time pass."""

    def wait(stage: Stage) -> None:
        stage.time += span

    return wait


def two_gateways(stage: Stage) -> None:
    stage.gateways = [FakeGateway("g1"), FakeGateway("g2")]


def asked_for_a_day(stage: Stage) -> None:
    """Let a day pass on which 600 sessions ask."""
    for gateway in stage.gateways:
        assert gateway.route is not None
        today = Day(stage.time.date().isoformat(), gateway.route.entries[0].index, 300, {200: 400})
        gateway.days = [*gateway.days, today][-3:]
    stage.time += timedelta(days=1)


def restart_a_gateway(stage: Stage) -> None:
    stage.gateways[0].restart()


def delete_dataset(stage: Stage) -> None:
    stage.cluster.delete(DATASET, NAMESPACE, "papers", stage.now())


Step = Callable[[Stage], None]


@dataclass(frozen=True)
class Story:
    """What was before, each step settled, and what the user then does, under crashes."""

    setting: tuple[Step, ...]
    steps: tuple[Step, ...] = field(default=())


MIGRATED = (declare, declare_v8, serve("v8"))

AT_THE_GATE = (declare, judge, declare_v8, by_steps, serve("v8"), later(timedelta(seconds=10)))
AT_A_TENTH = (*AT_THE_GATE, decide("Approve", "evaluation"))

PODS_HELD = (load_by_pods, declare_v8, pods(suspend=True), serve("v8"))

STORIES: dict[str, Story] = {
    "build": Story((), (declare,)),
    "build by pods": Story((), (by_pods(),)),
    "refresh by pods": Story((by_pods(),), (change_source,)),
    "want pods no more": Story((by_pods(suspend=True),), (without_pods,)),
    "delete while pods wait": Story((by_pods(suspend=True),), (delete_deployment, delete_dataset)),
    "load by pods": Story((), (load_by_pods,)),
    "migrate by pods": Story((load_by_pods, declare_v8), (serve("v8"),)),
    "want what pods load no more": Story(PODS_HELD, (serve("v7"),)),
    "load what pods were to load": Story(PODS_HELD, (without_pods,)),
    "let pods go on to load": Story(PODS_HELD, (pods(suspend=False),)),
    "delete while pods load": Story(PODS_HELD, (delete_deployment, delete_dataset)),
    "build from a bucket": Story((), (in_a_bucket,)),
    "delete what is in a bucket": Story((in_a_bucket,), (delete_deployment, delete_dataset)),
    "migrate": Story((declare,), (declare_v8, serve("v8"))),
    "refresh": Story(MIGRATED, (change_source,)),
    "roll back": Story(MIGRATED, (serve("v7"),)),
    "retire": Story((*MIGRATED, change_source), (drop_alias, retire_at_once, keep_one_snapshot)),
    "lose the serving index": Story(MIGRATED, (lose_serving_index,)),
    "read queries": Story((), (ask("doc-1"), ask("doc-1", "doc-2"))),
    "delete queries": Story((ask("doc-1"),), (delete_queries,)),
    "delete": Story(MIGRATED, (delete_deployment, delete_dataset)),
    "status wiped": Story(MIGRATED, (wipe_status,)),
    "shadowed": Story((declare, judge, declare_v8, by_steps), (serve("v8"),)),
    "let a tenth through": Story(AT_THE_GATE, (decide("Approve", "evaluation"),)),
    "let all through, and burn in": Story(AT_A_TENTH, (decide("Approve", "go-wide"), later(timedelta(hours=1)))),
    "roll back in mid-canary": Story(AT_A_TENTH, (serve("v7"),)),
    "abort in mid-canary": Story(AT_A_TENTH, (decide("Abort"),)),
    "reject in mid-canary": Story(AT_A_TENTH, (decide("Reject", "go-wide"),)),
    "wiped and restored in mid-canary": Story(AT_A_TENTH, (wipe_status, restore)),
    "delete in mid-canary": Story(AT_A_TENTH, (delete_deployment,)),
    "learn scores": Story(
        (declare, two_gateways, asked_for_a_day),
        (asked_for_a_day, asked_for_a_day, restart_a_gateway, asked_for_a_day, later(timedelta(hours=26))),
    ),
    "restored": Story(MIGRATED, (restore, change_source, serve("v7"))),
}
