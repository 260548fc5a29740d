"""`pointsman get`: the tree."""

from __future__ import annotations

import pytest
from tests.unit.cli import migrations
from tests.unit.cli.bench import Bench, condition, dataset, deployment, goal

from pointsman.api.conditions import Reason
from pointsman.cli import get
from pointsman.errors import Retryable

DATASET_STATUS = {
    "phase": "Embedding",
    "snapshot": 12,
    "documents": 7030,
    "conditions": [
        *goal("Reconciling", "Embedding", "embedding v8@12"),
        condition("Available", "True", "UpToDate", "snapshot 12 is current"),
    ],
    "versions": [
        {"name": "v7", "recipe": "aaaaaaaaaaaa", "space": "s7", "snapshot": 12, "documents": 7030, "chunks": 7101},
        {
            "name": "v8",
            "recipe": "bbbbbbbbbbbb",
            "space": "s8",
            "progress": {"done": 2130, "total": 7101, "unit": "texts", "rate": "1,200/s", "remaining": "4s"},
        },
    ],
}
DEPLOYMENT_STATUS = {
    "phase": "WaitingForDataset",
    "servingVersion": "v7",
    "conditions": [
        *goal("Reconciling", "WaitingForDataset", "v8 is being embedded; serving v7 normally"),
        condition("Available", "True", "Serving", "serving v7 from pm_papers_v7"),
        condition("RollbackReady", "False", "NothingRetained", "there is no earlier index to go back to"),
    ],
    "indexes": [
        {
            "name": "pm_papers_v7",
            "version": "v7",
            "recipe": "aaaaaaaaaaaa",
            "role": "Serving",
            "cursor": {"snapshot": 12, "sequence": 12},
            "rows": 7101,
            "verifiedAt": "2031-05-01T11:45:00Z",
        },
    ],
}


def test_a_dataset_shows_its_versions_and_the_deployments_that_serve_it(bench: Bench) -> None:
    bench.apply(dataset(), DATASET_STATUS)
    bench.apply(deployment("search"), DEPLOYMENT_STATUS)

    answer = bench.run("get")

    assert answer.code == 0
    assert [" ".join(line.split()) for line in answer.lines] == [
        "NAME SERVING TARGET STEP QUERIES PHASE DETAIL",
        "dataset papers Embedding snapshot 12, 7,030 documents",
        "├─ ✓ Reconciling embedding v8@12",
        "├─ ✓ Available snapshot 12 is current",
        "├─ version v7@12 recipe aaaaaaaaaaaa, 7,030 documents, 7,101 chunks",
        "├─ version v8 recipe bbbbbbbbbbbb, 0 documents, 0 chunks, 29 % of 7,101 texts at 1,200/s, 4s left",
        "└─ deployment search v7 v8 WaitingForDataset",
        "├─ ✓ Reconciling v8 is being embedded; serving v7 normally",
        "├─ ✓ Available serving v7 from pm_papers_v7",
        "├─ ✗ RollbackReady there is no earlier index to go back to",
        "└─ serving v7@12 7,101 rows, pm_papers_v7, verified 15m0s ago",
    ]


def test_a_migration_shows_its_step_its_weights_its_gates_and_what_wants_attention(bench: Bench) -> None:
    status = migrations.asking(
        phase="APersonIsAsked",
        rejected=[{**migrations.REJECTED, "version": "v6"}],
        rollback={"ready": True, "to": "v6", "until": "2031-05-01T14:05:00Z"},
        indexes=[
            migrations.index("v7", "Serving", weight={"desired": 50, "accepted": 50}),
            migrations.index("v8", "Candidate", weight={"desired": 50, "accepted": 10, "measured": 10}),
        ],
    )
    status["conditions"] += [
        condition("TrafficVerified", "False", "RouteNotAccepted", "gateway a serves route 3, wanted 4"),
        condition("Unguarded", "False", "EvaluationGate", "papers-eval guards it by nDCG@10"),
    ]
    migrations.put(bench, status)

    answer = bench.run("get", "papers")

    asked = "an Approval that answers go-wide is awaited for 24h"
    assert [" ".join(line.split()) for line in answer.lines[1:]] == [
        "deployment papers v7 v8 4/5 Approval v8 50, v7 50 APersonIsAsked",
        f"├─ ✓ Reconciling v8 waits: {asked}",
        f"├─ ! AwaitingApproval {asked}",
        "├─ ! TrafficVerified gateway a serves route 3, wanted 4",
        "├─ step Approval given up in 23h50m",
        "├─ rollback v6 retained for 2h5m",
        "├─ gate parity Passed all 7,101 rows are there",
        f"├─ gate evaluation Passed {migrations.PASSED['message']}",
        f"├─ rejected v6 {migrations.REJECTED['message']}, 10m0s ago",
        "├─ serving v7@12 50 % 7,101 rows, pm_papers_v7, verified 1h0m ago",
        "└─ candidate v8@12 50 %, 10 % accepted, 10 % measured 7,101 rows, pm_papers_v8, verified 1h0m ago",
    ]


def test_a_burn_in_shows_until_when_it_lasts(bench: Bench) -> None:
    step = {"name": "BurnIn", "until": "2031-05-02T11:30:00Z", "waitingFor": "for 24h"}
    over = {"ready": True, "to": "v7", "until": "2031-05-01T11:00:00Z"}
    migrations.put(bench, migrations.promoted(step=step, rollback=over))

    lines = [" ".join(line.split()) for line in bench.run("get", "papers").lines]

    assert "├─ step BurnIn for 24h, over in 23h30m" in lines
    assert "├─ rollback v7 may be removed now" in lines


def test_a_deployment_whose_dataset_is_missing_stands_alone(bench: Bench) -> None:
    bench.apply(deployment("search", of="gone"), {"phase": "Stalled", "conditions": goal("Stalled", "Conflict", "no")})

    answer = bench.run("get")

    assert answer.lines[1].split() == ["deployment", "search", "-", "v8", "Stalled"]
    assert answer.lines[2].split() == ["└─", "✗", "Stalled", "no"]


def test_a_resource_that_the_operator_has_not_seen_in_its_present_form_says_so(bench: Bench) -> None:
    bench.apply(dataset())

    answer = bench.run("get", "papers")

    assert answer.lines[1].split() == ["dataset", "papers", "Unseen", "no", "snapshot", "yet"]
    assert answer.lines[2].endswith("the operator has not seen generation 1 yet")


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("papers", ["dataset papers", "deployment papers"]),
        ("eds/papers", ["dataset papers", "deployment papers"]),
        ("idx/papers", ["deployment papers"]),
        ("idx/other", ["deployment other"]),
    ],
    ids=["a name", "a dataset with its deployments", "a deployment alone", "a deployment of another dataset"],
)
def test_a_name_narrows_the_tree(bench: Bench, reference: str, shown: list[str]) -> None:
    bench.apply(dataset())
    bench.apply(dataset("others"))
    bench.apply(deployment("papers"))
    bench.apply(deployment("other", of="others"))

    answer = bench.run("get", reference)

    heads = [line.lstrip("└├─│ ").split()[:2] for line in answer.lines[1:] if "Unseen" in line]
    assert heads == [head.split() for head in shown]


def test_all_namespaces_are_told_apart_by_their_names(bench: Bench) -> None:
    bench.apply(dataset(namespace="search"))
    bench.apply(dataset(namespace="catalogue"))

    answer = bench.run("get", "-A")

    assert [line.split()[1] for line in answer.lines if "Unseen" in line] == ["catalogue/papers", "search/papers"]


def test_an_empty_namespace_is_no_error(bench: Bench) -> None:
    answer = bench.run("get", "-n", "search")

    assert (answer.code, answer.out) == (0, "there is nothing in namespace search\n")


def test_a_name_that_is_not_there_is_an_error(bench: Bench) -> None:
    answer = bench.run("get", "papers")

    assert answer.code == 3
    assert answer.err == (
        "error: there is no dataset or deployment papers in namespace default; see pointsman get --all-namespaces\n"
    )


def test_watching_prints_again_only_what_has_changed_and_ends_when_interrupted(bench: Bench) -> None:
    bench.apply(dataset(), DATASET_STATUS)

    def interrupt() -> None:
        raise KeyboardInterrupt

    bench.clock.planned = {
        3: lambda: bench.report(dataset(), {**DATASET_STATUS, "snapshot": 13}),
        9: interrupt,
    }

    answer = bench.run("get", "--watch")

    assert answer.code == 130
    assert [line for line in answer.lines if line.startswith("NAME")] == [answer.lines[0]] * 2
    assert "snapshot 12, 7,030 documents" in answer.out
    assert "snapshot 13, 7,030 documents" in answer.out


def test_watching_keeps_what_was_seen_last_while_the_api_server_is_away(bench: Bench) -> None:
    bench.apply(dataset(), DATASET_STATUS)

    away = Retryable(Reason.CLUSTER_UNREACHABLE, "the Kubernetes API could not be reached (MaxRetryError)")

    def interrupt() -> None:
        raise KeyboardInterrupt

    bench.clock.planned = {2: lambda: setattr(bench.wire, "failure", away), 9: interrupt}

    answer = bench.run("get", "--watch")

    assert answer.out.count("the Kubernetes API could not be reached (MaxRetryError)") == 1
    assert answer.out.count("dataset papers") == 2


def test_the_guides_of_a_tree_end_where_its_branches_end() -> None:
    assert get.guides([0, 1, 2, 2, 1, 2, 0]) == ["", "├─ ", "│  ├─ ", "│  └─ ", "└─ ", "   └─ ", ""]
