"""`pointsman rollback`, `promote`, `pause`, `resume` and `retry`: edits of the spec, and what Git makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.unit.cli import migrations
from tests.unit.cli.bench import Bench, dataset

from pointsman.cluster.resources import Resource

ARGO = {"annotations": {"argocd.argoproj.io/tracking-id": "search:pointsman.dev/IndexDeployment:default/papers"}}
UNDONE = (
    "mind: Argo CD (application search) applies this from Git and puts spec.version back "
    "within seconds where selfHeal is on, else at its next sync"
)


def declared(bench: Bench, *versions: str) -> None:
    resource = dataset()
    resource["spec"] = {"versions": [{"name": version} for version in versions]}
    bench.apply(resource)


def test_going_back_is_an_edit_of_one_line_to_what_served_before(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted())
    before = migrations.spec(bench)

    answer = bench.run("rollback", "papers")

    assert (answer.code, answer.err) == (0, "")
    assert answer.lines == ["papers goes back from v8 to v7: one switch: v7 is complete and current"]
    assert migrations.spec(bench) == {**before, "version": "v7"}


def test_in_a_migration_going_back_leads_to_what_serves_and_not_to_what_served_before_it(bench: Bench) -> None:
    migrations.put(bench, migrations.asking(rollback={"ready": True, "to": "v6"}))

    answer = bench.run("rollback", "papers")

    assert answer.lines == ["papers goes back from v8 to v7: v7 serves and takes all queries in one shift"]
    assert migrations.spec(bench)["version"] == "v7"


def retained(snapshot: int, **more: Any) -> list[dict[str, Any]]:
    return [
        migrations.index("v8", "Serving", 12),
        migrations.index("v7", "Retained", 12),
        migrations.index("v6", "Retained", snapshot, **more),
    ]


BEHIND = {"ready": False, "to": "v7", "estimate": "3m 20s"}


@pytest.mark.parametrize(
    ("status", "spec", "to", "how"),
    [
        pytest.param(
            migrations.promoted(rollback=BEHIND),
            {},
            "v7",
            "v7 has to catch up first, about 3m 20s; at once, without it: pointsman accept-lag papers v7",
            id="it is behind",
        ),
        pytest.param(
            migrations.promoted(indexes=retained(12)),
            {},
            "v6",
            "one switch: v6 was verified and is at snapshot 12",
            id="an older one that is current",
        ),
        pytest.param(
            migrations.promoted(indexes=retained(11)),
            {},
            "v6",
            "v6 has to catch up first; at once, without it: pointsman accept-lag papers v6",
            id="an older one that is behind",
        ),
        pytest.param(
            migrations.promoted(),
            {"snapshot": 12},
            "v7",
            "spec.snapshot pins 12 and the index of v7 follows: a frozen one is built first",
            id="the spec pins a snapshot",
        ),
        pytest.param(
            migrations.promoted(indexes=retained(12, frozen=True)),
            {},
            "v6",
            "the index of v6 is frozen and spec.snapshot pins nothing: one that follows is built first",
            id="the retained one is frozen",
        ),
    ],
)
def test_how_long_it_takes_is_said(
    bench: Bench, status: dict[str, Any], spec: dict[str, Any], to: str, how: str
) -> None:
    migrations.put(bench, status, spec)

    answer = bench.run("rollback", "papers", "--to", to)

    assert answer.lines == [f"papers goes back from v8 to {to}: {how}"]
    assert migrations.spec(bench)["version"] == to


@pytest.mark.parametrize(
    ("status", "to", "error"),
    [
        pytest.param(
            migrations.promoted(),
            "v5",
            "v5 of papers is not retained, only v7 is; to build it anew: pointsman promote papers v5",
            id="a version that is not kept",
        ),
        pytest.param(
            migrations.promoted(rollback=None, indexes=[migrations.index("v8", "Serving")]),
            None,
            "papers has no earlier version to go back to: only v8 has an index",
            id="there is no earlier one",
        ),
        pytest.param(
            {}, None, "papers has no earlier version to go back to: nothing has served yet", id="a first deployment"
        ),
    ],
)
def test_where_there_is_no_way_back_nothing_is_edited(
    bench: Bench, status: dict[str, Any], to: str | None, error: str
) -> None:
    migrations.put(bench, status)

    answer = bench.run("rollback", "papers", *(["--to", to] if to else []))

    assert (answer.code, answer.err) == (3, f"error: {error}\n")
    assert migrations.spec(bench)["version"] == "v8"


def test_going_back_to_what_is_wanted_already_is_no_error(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted())

    answer = bench.run("rollback", "papers", "--to", "v8")

    assert (answer.code, answer.lines) == (0, ["papers wants v8 already"])


@pytest.mark.parametrize("command", [["rollback", "papers"], ["promote", "papers", "v7"]])
def test_a_version_that_is_aborted_is_not_wanted_again(bench: Bench, command: list[str]) -> None:
    migrations.put(bench, migrations.promoted())
    declared(bench, "v7", "v8")
    migrations.decide(bench, "off", decision="Abort", version="v7")

    answer = bench.run(*command)

    assert answer.code == 3
    assert answer.err == (
        "error: Approval off keeps queries off v7 until 2031-05-02 12:00:00 UTC; "
        "first: pointsman abort papers v7 --withdraw\n"
    )


def test_what_git_undoes_is_said_with_what_stays(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted(), meta=ARGO)

    answer = bench.run("rollback", "papers")

    assert answer.code == 0
    assert answer.err == f"{UNDONE}; what stays is a commit (-o patch), or: pointsman abort papers v8\n"
    assert migrations.spec(bench)["version"] == "v7"


@pytest.mark.parametrize(
    ("meta", "who"),
    [
        pytest.param(ARGO, "Argo CD (application search) applies", id="Argo CD by its tracking annotation"),
        pytest.param(
            {"labels": {"argocd.argoproj.io/instance": "search"}},
            "Argo CD (application search) applies",
            id="its label",
        ),
        pytest.param({"annotations": {"argocd.argoproj.io/sync-wave": "2"}}, "Argo CD applies", id="any mark of it"),
        pytest.param(
            {"managedFields": [{"manager": "kubectl"}, {"manager": "argocd-controller"}]},
            "Argo CD applies",
            id="its fields",
        ),
        pytest.param(
            {
                "labels": {
                    "kustomize.toolkit.fluxcd.io/name": "apps",
                    "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
                }
            },
            "Flux (Kustomization flux-system/apps) applies",
            id="Flux by its labels",
        ),
        pytest.param(
            {"labels": {"helm.toolkit.fluxcd.io/name": "search"}}, "Flux (HelmRelease search) applies", id="its Helm"
        ),
        pytest.param({"managedFields": [{"manager": "kustomize-controller"}]}, "Flux applies", id="its own fields"),
    ],
)
def test_who_applies_from_git_is_known_by_their_marks(bench: Bench, meta: dict[str, Any], who: str) -> None:
    migrations.put(bench, migrations.promoted(), meta=meta)

    answer = bench.run("pause", "papers")

    assert answer.err.startswith(f"mind: {who} this from Git and puts spec.suspend back ")
    assert answer.err.endswith("; what stays is a commit: -o patch prints it\n")


@pytest.mark.parametrize(
    "meta",
    [
        pytest.param({}, id="nobody"),
        pytest.param({"labels": {"app.kubernetes.io/instance": "search"}}, id="a label that Helm sets too"),
        pytest.param(
            {
                "labels": {"kustomize.toolkit.fluxcd.io/name": "apps"},
                "annotations": {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"},
            },
            id="Flux that is told to leave it alone",
        ),
    ],
)
def test_where_git_undoes_nothing_nothing_is_said(bench: Bench, meta: dict[str, Any]) -> None:
    migrations.put(bench, migrations.promoted(), meta=meta)

    assert bench.run("pause", "papers").err == ""


@pytest.mark.parametrize(
    ("command", "spec"),
    [
        (["rollback", "papers"], {"version": "v7"}),
        (["promote", "papers", "v9"], {"version": "v9"}),
        (["pause", "papers"], {"suspend": True}),
        (["retry", "papers", "--value", "again"], {"retry": "again"}),
    ],
)
def test_a_patch_is_what_to_commit_and_nothing_is_edited(
    bench: Bench, command: list[str], spec: dict[str, Any]
) -> None:
    migrations.put(bench, migrations.promoted(rejected=[migrations.REJECTED]), meta=ARGO)
    declared(bench, "v8", "v9")
    before = migrations.spec(bench)

    answer = bench.run(*command, "-o", "patch")

    assert answer.code == 0
    assert yaml.safe_load(answer.out) == {
        "apiVersion": "pointsman.dev/v1alpha1",
        "kind": "IndexDeployment",
        "metadata": {"name": "papers", "namespace": "default"},
        "spec": spec,
    }
    assert "Argo" not in answer.err
    assert migrations.spec(bench) == before


def test_a_status_that_is_written_in_between_does_not_stop_an_edit(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted())
    get, looks = bench.cluster.get, []

    def get_as_the_operator_reports(kind: str, namespace: str, name: str) -> Resource | None:
        found = get(kind, namespace, name)
        if kind == "IndexDeployment" and len(looks) < 3:
            looks.append(name)
            version = found["metadata"]["resourceVersion"] if found is not None else ""
            bench.cluster.write_status(kind, namespace, name, {**migrations.promoted(), "phase": str(looks)}, version)
        return found

    bench.wire.get = get_as_the_operator_reports  # type: ignore[method-assign]

    assert bench.run("rollback", "papers").code == 0
    assert len(looks) == 3
    assert migrations.spec(bench)["version"] == "v7"


def test_a_spec_that_is_edited_in_between_is_left_as_it_is(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted())
    get = bench.cluster.get

    def get_as_another_edits(kind: str, namespace: str, name: str) -> Resource | None:
        found = get(kind, namespace, name)
        if kind == "IndexDeployment" and found is not None and found["spec"]["version"] == "v8":
            bench.cluster.patch(kind, namespace, name, {"spec": {"version": "v9"}})
        return found

    bench.wire.get = get_as_another_edits  # type: ignore[method-assign]

    answer = bench.run("rollback", "papers")

    assert answer.code == 3
    assert answer.err == "error: the spec of papers was edited in between; look again, then ask again\n"
    assert migrations.spec(bench)["version"] == "v9"


def test_promoting_wants_a_version_that_the_dataset_declares(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted())
    declared(bench, "v7", "v8", "v9")

    answer = bench.run("promote", "papers", "v9")

    assert answer.lines == [
        "papers wants v9 instead of v8; v8 serves until then; follow it by: pointsman status idx/papers"
    ]
    assert migrations.spec(bench)["version"] == "v9"
    assert bench.run("promote", "papers", "v9").lines == ["papers wants v9 already"]
    unknown = bench.run("promote", "papers", "v10")
    assert (unknown.code, unknown.err) == (3, "error: dataset papers declares no version v10, only v7, v8, v9\n")


def test_promoting_without_a_dataset_is_refused(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted())

    answer = bench.run("promote", "papers", "v9")

    assert (answer.code, answer.err) == (3, "error: dataset papers of papers is not there; declare it first\n")


def test_a_rejected_version_is_not_promoted_before_it_may_be_tried_again(bench: Bench) -> None:
    migrations.put(bench, migrations.promoted(servingVersion="v7", rejected=[migrations.REJECTED]), version="v7")
    declared(bench, "v7", "v8")

    refused = bench.run("promote", "papers", "v8")
    retried = bench.run("retry", "papers")
    promoted = bench.run("promote", "papers", "v8")

    assert refused.code == 3
    assert refused.err == (
        "error: v8 was rejected: nDCG@10 fell by 0.041 (-0.060 to -0.022) over 120 groups, policy allows a fall of "
        "0.02; to try it again, first: pointsman retry papers\n"
    )
    assert retried.lines == ["v8 of papers may be tried again; it wants v7 now"]
    assert promoted.code == 0
    assert migrations.spec(bench)["retry"] == "20310501T120000Z"


def test_trying_again_starts_from_the_first_step(bench: Bench) -> None:
    migrations.put(bench, migrations.asking(rejected=[migrations.REJECTED]))

    answer = bench.run("retry", "papers", "--value", "fixed-the-prefix")

    assert answer.lines == ["v8 of papers may be tried again: from the first step"]
    assert migrations.spec(bench)["retry"] == "fixed-the-prefix"


@pytest.mark.parametrize(
    ("rejected", "value", "error"),
    [
        ([], "a", "no version of papers is rejected; there is nothing to try again"),
        (
            [migrations.REJECTED, {**migrations.REJECTED, "retry": "a"}],
            "a",
            "spec.retry was a when a version was rejected; wanted a value that it has not had",
        ),
        ([migrations.REJECTED], "a" * 64, "a value of spec.retry has 63 characters or fewer, this one 64"),
    ],
    ids=["nothing is rejected", "a value that it had", "a value that is too long"],
)
def test_what_tries_nothing_again_is_refused(
    bench: Bench, rejected: list[dict[str, Any]], value: str, error: str
) -> None:
    migrations.put(bench, migrations.asking(rejected=rejected))

    answer = bench.run("retry", "papers", "--value", value)

    assert (answer.code, answer.err) == (3, f"error: {error}\n")


def test_pausing_and_resuming_edit_one_field_and_only_where_it_is_otherwise(bench: Bench) -> None:
    migrations.put(bench, migrations.asking())

    said = [bench.run(command, "papers").lines for command in ("pause", "pause", "resume", "resume")]

    assert said == [
        ["paused papers; v8 50, v7 50 stays as it is; a rollback is possible all the same, and failed gates act"],
        ["papers is suspended already"],
        ["resumed papers"],
        ["papers is not suspended"],
    ]
    assert migrations.spec(bench)["suspend"] is False
