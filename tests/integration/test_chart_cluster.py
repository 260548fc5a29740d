"""The chart on a real API server: what is admitted, what each role may do, what an upgrade and an end leave."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.cluster import namespaces, programs
from tests.integration import chart
from tests.integration.chart import FULLNAME, Cluster, Object, is_refused, of, render
from tests.integration.test_chart import ALL_OF_IT, WITH_JOBS, WITHOUT_CLUSTER_RIGHTS

from pointsman import errors
from pointsman.controlplane import admin

pytestmark = [
    pytest.mark.helm,
    pytest.mark.controlplane,
    chart.NEEDS_HELM,
]

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
OPERATOR, GATEWAY = f"{FULLNAME}-operator", f"{FULLNAME}-gateway"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with chart.running(tmp_path_factory.mktemp("chart")) as found:
        yield found


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> str:
    """The namespace of a release that looks after two others, `search` and `shop`."""
    for name in ("pointsman", "search", "shop", "elsewhere"):
        cluster.namespace(name)
    cluster.install("pointsman", 'namespaces=["search","shop"]', 'secrets.names=["qdrant","models"]')
    return "pointsman"


@pytest.fixture(scope="module")
def everywhere(installed: str, cluster: Cluster) -> str:
    """The namespace of a second release, which looks after all namespaces and reads Secrets in one."""
    cluster.namespace("platform")
    cluster.install(
        "platform",
        "clusterWide=true",
        "crds.enabled=false",
        "userRoles.create=false",
        "admissionPolicy.enabled=false",
        'secrets.namespaces=["shop"]',
    )
    return "platform"


@pytest.mark.parametrize(
    "values", [(), ALL_OF_IT, WITHOUT_CLUSTER_RIGHTS, WITH_JOBS], ids=["default", "all", "humble", "jobs"]
)
def test_the_api_server_takes_every_object_field_by_field(cluster: Cluster, installed: str, values: Any) -> None:
    documents = [d for d in render(*values) if not d["apiVersion"].startswith("monitoring.coreos.com/")]

    for document in documents:
        cluster.try_out(document, "search")

    assert len(documents) > 15


@pytest.fixture(scope="module")
def monitoring(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The Prometheus operator's definitions, from its Go module."""
    try:
        paths = programs.monitoring_definitions()
    except namespaces.NodeError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("monitoring")
    for path in paths:
        if path.stem.endswith(("_podmonitors", "_servicemonitors", "_prometheusrules")):
            shutil.copy(path, folder)
    admin.apply_crds(cluster.plane.kubeconfig, folder)


def test_the_prometheus_operators_definitions_take_monitors_and_rules_field_by_field(
    cluster: Cluster, installed: str, monitoring: None
) -> None:
    documents = [d for d in render(*ALL_OF_IT) if d["apiVersion"].startswith("monitoring.coreos.com/")]
    wrong = copy.deepcopy(of(documents, "ServiceMonitor")[0])
    wrong["spec"]["endpoints"][0]["honourLabels"] = True

    for document in documents:
        cluster.try_out(document, "search")

    assert sorted(d["kind"] for d in documents) == ["PodMonitor"] * 2 + ["PrometheusRule"] + ["ServiceMonitor"] * 2
    with pytest.raises(errors.PointsmanError, match="honourLabels"):
        cluster.try_out(wrong, "search")


@pytest.mark.parametrize("values", [(), ALL_OF_IT], ids=["default", "all"])
def test_a_namespace_of_restricted_pods_admits_every_pod(cluster: Cluster, values: Any, request: Any) -> None:
    namespace = cluster.namespace(f"restricted-{request.node.callspec.id}", **RESTRICTED)
    admin.Admin(cluster.plane.kubeconfig).create(
        f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": OPERATOR}}
    )
    documents = render(*values, namespace=namespace)
    specs = [d["spec"]["template"]["spec"] for d in of(documents, "Deployment")]
    specs += [d["spec"] for d in of(documents, "Pod")]

    refused = [_pod(cluster, namespace, spec) for spec in specs]
    # What is refused there is seen to be: the same pod, as root.
    asroot = _pod(cluster, namespace, {**specs[0], "securityContext": {"runAsUser": 0}})

    assert refused == ["", "", ""]
    assert "violates PodSecurity" in asroot


def _pod(cluster: Cluster, namespace: str, spec: Object) -> str:
    # Neither a service account nor a priority is what is asked about here.
    spec = {**spec, "serviceAccountName": OPERATOR}
    spec["topologySpreadConstraints"] = []
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    return is_refused(cluster, "POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", body)


MAY = [
    *(
        (OPERATOR, verb, plural, "search")
        for verb in ("get", "list", "watch", "patch")
        for plural in ("indexdeployments",)
    ),
    (OPERATOR, "patch", "embeddingdatasets", "shop"),
    (OPERATOR, "update", "indexdeployments/status", "search"),
    (OPERATOR, "update", "approvals/status", "search"),
    (OPERATOR, "watch", "approvals", "search"),
    (GATEWAY, "list", "indexdeployments", "search"),
    (GATEWAY, "watch", "embeddingdatasets", "shop"),
]
MAY_NOT = [
    # What people decide and want is nobody's to change.
    (OPERATOR, "create", "approvals", "search"),
    (OPERATOR, "patch", "approvals", "search"),
    (OPERATOR, "patch", "querysets", "search"),
    (OPERATOR, "update", "indexdeployments", "search"),
    (OPERATOR, "create", "indexdeployments", "search"),
    (OPERATOR, "delete", "indexdeployments", "search"),
    (OPERATOR, "create", "approvals/approve", "search"),
    # Nothing outside of the namespaces that are looked after, the release's own among them.
    (OPERATOR, "list", "indexdeployments", "elsewhere"),
    (OPERATOR, "get", "indexdeployments", "pointsman"),
    (OPERATOR, "list", "indexdeployments", ""),
    (GATEWAY, "list", "indexdeployments", "elsewhere"),
    # A gateway writes nothing.
    (GATEWAY, "patch", "indexdeployments", "search"),
    (GATEWAY, "update", "indexdeployments/status", "search"),
    (GATEWAY, "list", "approvals", "search"),
    (GATEWAY, "get", "querysets", "search"),
]
CORE = [
    (True, OPERATOR, "get", "secrets", "search", "qdrant"),
    (True, GATEWAY, "get", "secrets", "shop", "models"),
    (False, OPERATOR, "get", "secrets", "search", "another"),
    (False, OPERATOR, "list", "secrets", "search", ""),
    (False, OPERATOR, "watch", "secrets", "search", ""),
    (False, GATEWAY, "get", "secrets", "pointsman", "qdrant"),
    (False, GATEWAY, "list", "secrets", "", ""),
    (True, OPERATOR, "create", "events", "search", ""),
    (False, GATEWAY, "create", "events", "search", ""),
    (True, OPERATOR, "update", "configmaps", "search", "papers-serving"),
    (False, OPERATOR, "list", "configmaps", "search", ""),
    (False, OPERATOR, "get", "configmaps", "kube-system", "any"),
    (False, GATEWAY, "get", "configmaps", "search", "papers-serving"),
    (False, OPERATOR, "create", "pods", "search", ""),
    (False, OPERATOR, "create", "pods/exec", "search", ""),
    (False, OPERATOR, "create", "serviceaccounts/token", "search", ""),
    (False, OPERATOR, "impersonate", "users", "", ""),
]


@pytest.mark.parametrize(("account", "verb", "resource", "namespace"), MAY, ids=" ".join)
def test_a_role_may_do_what_it_needs(
    cluster: Cluster, installed: str, account: str, verb: str, resource: str, namespace: str
) -> None:
    assert cluster.may(f"{installed}:{account}", verb, resource, namespace)


@pytest.mark.parametrize(("account", "verb", "resource", "namespace"), MAY_NOT, ids=" ".join)
def test_a_role_may_do_nothing_else(
    cluster: Cluster, installed: str, account: str, verb: str, resource: str, namespace: str
) -> None:
    assert not cluster.may(f"{installed}:{account}", verb, resource, namespace)


@pytest.mark.parametrize(
    ("wanted", "account", "verb", "resource", "namespace", "name"), CORE, ids=lambda part: str(part)
)
def test_of_the_clusters_own_objects_a_role_may_touch_few(
    cluster: Cluster, installed: str, wanted: bool, account: str, verb: str, resource: str, namespace: str, name: str
) -> None:
    assert cluster.may(f"{installed}:{account}", verb, resource, namespace, name, group="") is wanted


def test_the_lease_of_the_release_and_no_other_is_renewed(cluster: Cluster, installed: str) -> None:
    group, account = "coordination.k8s.io", f"{installed}:{OPERATOR}"

    assert cluster.may(account, "update", "leases", installed, OPERATOR, group)
    assert not cluster.may(account, "update", "leases", installed, "somebody-elses", group)
    assert not cluster.may(account, "update", "leases", "kube-system", OPERATOR, group)
    assert not cluster.may(f"{installed}:{GATEWAY}", "get", "leases", installed, OPERATOR, group)


def test_a_gateway_may_ask_who_somebody_is_and_the_operator_may_not(cluster: Cluster, installed: str) -> None:
    for account, wanted in ((GATEWAY, True), (OPERATOR, False)):
        assert cluster.may(f"{installed}:{account}", "create", "tokenreviews", group="authentication.k8s.io") is wanted
        assert (
            cluster.may(f"{installed}:{account}", "create", "subjectaccessreviews", group="authorization.k8s.io")
            is wanted
        )


def test_in_cluster_mode_resources_are_followed_everywhere_and_secrets_read_where_it_is_said(
    cluster: Cluster, everywhere: str
) -> None:
    account = f"{everywhere}:{OPERATOR}"

    assert cluster.may(account, "list", "indexdeployments")
    assert cluster.may(account, "get", "secrets", "shop", "any", group="")
    assert not cluster.may(account, "get", "secrets", "search", "any", group="")
    assert not cluster.may(account, "list", "secrets", "shop", group="")


USERS = [
    ("viewer", "list", "indexdeployments", True),
    ("viewer", "patch", "indexdeployments", False),
    ("viewer", "create", "approvals", False),
    ("editor", "patch", "indexdeployments", True),
    ("editor", "create", "querysets", True),
    ("editor", "update", "indexdeployments/status", False),
    ("editor", "create", "approvals", False),
    ("approver", "create", "approvals", True),
    ("approver", "create", "approvals/approve", True),
    ("approver", "update", "approvals", False),
    ("approver", "patch", "indexdeployments", False),
    ("aborter", "create", "approvals/abort", True),
    ("aborter", "create", "approvals/approve", False),
    ("searcher", "create", "indexdeployments/search", True),
    ("searcher", "get", "indexdeployments", False),
    ("writer", "create", "embeddingdatasets/documents", True),
]


@pytest.fixture(scope="module")
def users(cluster: Cluster, installed: str) -> None:
    """Service accounts of `search`, each with the role of its name there."""
    for role in sorted({role for role, *_ in USERS}):
        cluster.admin.create("/api/v1/namespaces/search/serviceaccounts", {"metadata": {"name": role}})
        cluster.bind(role, "search")


@pytest.mark.parametrize(("role", "verb", "resource", "wanted"), USERS)
def test_people_have_roles_that_keep_editing_and_approving_apart(
    cluster: Cluster, users: None, role: str, verb: str, resource: str, wanted: bool
) -> None:
    assert cluster.may(f"search:{role}", verb, resource, "search") is wanted


# The admission policy.

APPROVALS = "/apis/pointsman.dev/v1alpha1/namespaces/search/approvals"


def approval(name: str, decision: str = "Abort", **spec: Any) -> Object:
    wanted = {"target": {"name": "papers"}, "decision": decision, "version": "v8", "expiresAt": "2099-01-01T00:00:00Z"}
    more = {"answers": "go-wide", "planHash": "abc"} if decision == "Approve" else {}
    body = {"apiVersion": "pointsman.dev/v1alpha1", "kind": "Approval", "metadata": {"name": name}}
    return {**body, "spec": {**wanted, **more, **spec}}


@pytest.fixture(scope="module")
def people(cluster: Cluster, users: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, chart.Person]:
    """The same API server, as each of the users asks it."""
    folder = tmp_path_factory.mktemp("people")
    found = {}
    for role in ("approver", "aborter", "editor"):
        found[role] = chart.Person(cluster.plane.server, cluster.kubeconfig(folder, "search", role))
    # A policy that was made a moment ago is compiled in the background: until then it does nothing.
    forged, path = approval("probe", approvedBy="ana"), f"{APPROVALS}?dryRun=All"
    chart.wait(lambda: "says ana" in found["approver"].refused("POST", path, forged), "the policy is in force")
    return found


@pytest.mark.parametrize("decision", ["Approve", "Abort"])
def test_nobody_approves_in_the_name_of_another(people: dict[str, chart.Person], decision: str) -> None:
    said = people["approver"].refused("POST", APPROVALS, approval("forged", decision, approvedBy="ana"))

    assert "approvedBy says ana and the Approval comes from system:serviceaccount:search:approver" in said


def test_an_approval_in_ones_own_name_is_taken_never_edited_and_may_be_withdrawn(
    people: dict[str, chart.Person],
) -> None:
    own = approval("own", "Approve", approvedBy="system:serviceaccount:search:approver")
    approver = people["approver"]

    assert approver.refused("POST", APPROVALS, own) == ""
    assert "cannot update" in approver.refused("PUT", f"{APPROVALS}/own", own)
    assert approver.refused("DELETE", f"{APPROVALS}/own", {}) == ""


def test_not_even_an_administrator_edits_what_was_approved(cluster: Cluster, people: dict[str, chart.Person]) -> None:
    assert people["approver"].refused("POST", APPROVALS, approval("kept")) == ""
    there = cluster.admin.get(f"{APPROVALS}/kept")
    edited = {**there, "spec": {**there["spec"], "version": "v9"}}
    named = {**there, "spec": {**there["spec"], "approvedBy": "ana"}}

    assert "cannot be edited" in is_refused(cluster, "PUT", f"{APPROVALS}/kept", edited)
    assert "cannot be edited" in is_refused(cluster, "PUT", f"{APPROVALS}/kept", named)
    labelled = {**there, "metadata": {**there["metadata"], "labels": {"team": "search"}}}
    assert is_refused(cluster, "PUT", f"{APPROVALS}/kept", labelled) == ""
    assert is_refused(cluster, "DELETE", f"{APPROVALS}/kept", {}) == ""


def test_a_decision_takes_a_right_of_its_own(people: dict[str, chart.Person]) -> None:
    aborter = people["aborter"]

    assert "may not create approvals/approve of papers" in aborter.refused("POST", APPROVALS, approval("no", "Approve"))
    assert "may not create approvals/acceptlag of papers" in aborter.refused(
        "POST", APPROVALS, approval("no", "AcceptLag")
    )
    assert aborter.refused("POST", f"{APPROVALS}?dryRun=All", approval("stop", "Abort")) == ""


def test_a_right_can_be_for_one_deployment_alone(
    cluster: Cluster, people: dict[str, chart.Person], tmp_path: Path
) -> None:
    meta = {"name": "papers-approver", "namespace": "search"}
    rules = [
        {"apiGroups": ["pointsman.dev"], "resources": ["approvals"], "verbs": ["create"]},
        {
            "apiGroups": ["pointsman.dev"],
            "resources": ["approvals/approve"],
            "resourceNames": ["papers"],
            "verbs": ["create"],
        },
    ]
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/search"
    cluster.admin.create("/api/v1/namespaces/search/serviceaccounts", {"metadata": meta})
    cluster.admin.create(f"{rbac}/roles", {"metadata": meta, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": meta["name"]}
    subjects = [{"kind": "ServiceAccount", **meta}]
    cluster.admin.create(f"{rbac}/rolebindings", {"metadata": meta, "roleRef": reference, "subjects": subjects})
    person = chart.Person(cluster.plane.server, cluster.kubeconfig(tmp_path, "search", "papers-approver"))

    path = f"{APPROVALS}?dryRun=All"
    assert person.refused("POST", path, approval("mine", "Approve")) == ""
    assert "approvals/approve of films" in person.refused(
        "POST", path, approval("no", "Approve", target={"name": "films"})
    )


def test_namespaces_that_the_release_does_not_look_after_are_left_alone(cluster: Cluster, people: object) -> None:
    path = APPROVALS.replace("/search/", "/elsewhere/")

    assert is_refused(cluster, "POST", f"{path}?dryRun=All", approval("any", approvedBy="ana")) == ""
