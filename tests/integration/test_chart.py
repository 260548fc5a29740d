"""What helm renders: wrong values are refused in words, and what is rendered keeps every promise of the chart."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration import chart
from tests.integration.chart import CHART, FULLNAME, of, refusal, render

pytestmark = [pytest.mark.helm, chart.NEEDS_HELM]

ALL_OF_IT = (
    "clusterWide=true",
    "monitoring.podMonitor.enabled=true",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.rules.enabled=true",
    "monitoring.dashboards.enabled=true",
    "gateway.autoscaling.enabled=true",
    "gateway.tls.secretName=tls",
    "gateway.auth.mode=tokens",
    "gateway.auth.tokensSecret=tokens",
    "store.s3.uri=s3://bucket/prefix",
    "store.s3.existingSecret=options",
    "operator.replicas=2",
    "jobs.enabled=true",
    "traces.enabled=true",
    "traces.endpoint=http://collector:4318",
)
WITH_JOBS = ('namespaces=["search","shop"]', "jobs.enabled=true", "networkPolicy.publicEgress.enabled=true")
WITHOUT_CLUSTER_RIGHTS = (
    'namespaces=["search"]',
    "crds.enabled=false",
    "userRoles.create=false",
    "admissionPolicy.enabled=false",
    "rbac.apiServerEndpoints=false",
    "gateway.auth.mode=tokens",
    "gateway.auth.tokensSecret=tokens",
)


@pytest.mark.parametrize("values", [(), ALL_OF_IT, WITHOUT_CLUSTER_RIGHTS], ids=["default", "all", "humble"])
def test_helm_finds_nothing_to_say(values: tuple[str, ...]) -> None:
    given = [part for v in values for part in ("--set-json" if "=[" in v else "--set", v)]

    found = chart.helm("lint", "--strict", str(CHART), "--kube-version", chart.KUBERNETES, *given)

    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("image.tagg=3", "at '/image': additional properties 'tagg' not allowed"),
        ("gateway.auth.mode=password", "at '/gateway/auth/mode': value must be one of 'kubernetes', 'tokens', 'none'"),
        ("operator.leaseSeconds=1", "at '/operator/leaseSeconds': minimum: got 1, want 3"),
        ("store.s3.uri=bucket/prefix", "at '/store/s3/uri': 'bucket/prefix' does not match pattern"),
        ('access.allowedHosts=["https://qdrant"]', "at '/access/allowedHosts/0': 'https://qdrant' does not match"),
        ("operator.workTimeout=6", "at '/operator/workTimeout'"),
        ("image.digest=sha256:abc", "at '/image/digest': 'sha256:abc' does not match pattern"),
        ('namespaces=["A"]', "at '/namespaces/0': 'A' does not match pattern"),
        ("operator.replicas=2", "wanted store.s3.uri or accessModes [ReadWriteMany]"),
        ("jobs.storeShared=true", "wanted store.s3.uri or accessModes [ReadWriteMany]"),
        ("gateway.auth.mode=tokens", "gateway.auth.tokensSecret names no Secret; name one with the key tokens"),
        ("store.s3.existingSecret=options", "name the bucket as s3://bucket/prefix"),
        ('secrets.namespaces=["search"]', "secrets.namespaces is for clusterWide"),
        ("traces.enabled=true", "name the collector as http://collector.monitoring:4318"),
        ("traces.ratio=2", "at '/traces/ratio': maximum: got 2, want 1"),
        ("gateway.autoscaling.minReplicas=11", "gateway.autoscaling.minReplicas is more than maxReplicas"),
        (
            'store.volume.annotations={"helm.sh/resource-policy":"delete"}',
            "at '/store/volume/annotations/helm.sh~1resource-policy': false schema",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_is_wanted(value: str, wanted: str) -> None:
    assert wanted in refusal(value)


SHARED = ("jobs.enabled=true", "jobs.storeShared=true", 'store.volume.accessModes=["ReadWriteMany"]')


def test_a_volume_is_not_shared_with_pods_that_would_mount_nothing() -> None:
    assert "name one of the datasets' namespace that is the same volume" in refusal(*SHARED)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        pytest.param((*SHARED, "jobs.storeClaim=shared"), ("shared", "/var/lib/pointsman"), id="a volume"),
        pytest.param((*SHARED, "store.s3.uri=s3://bucket/prefix"), ("", None), id="a bucket"),
    ],
)
def test_pods_have_the_shared_volume_where_the_operator_has_it(values: tuple[str, ...], told: tuple[str, str]) -> None:
    (operator,) = of(render(*values), "Deployment", f"{FULLNAME}-operator")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    said = {each["name"]: each.get("value") for each in container["env"]}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}

    assert said["POINTSMAN_JOB_STORE_SHARED"] == "true"
    assert (said["POINTSMAN_JOB_STORE_CLAIM"], said.get("POINTSMAN_JOB_STORE_MOUNT")) == told
    assert mounted.get("store") == told[1]


def test_all_namespaces_and_some_are_not_asked_for_together() -> None:
    assert "wanted one of the two" in refusal("clusterWide=true", 'namespaces=["search"]')


def pods(documents: list[chart.Object]) -> list[dict[str, Any]]:
    return [d["spec"]["template"]["spec"] for d in of(documents, "Deployment")] + [
        d["spec"] for d in of(documents, "Pod")
    ]


@pytest.mark.parametrize("values", [(), ALL_OF_IT, WITHOUT_CLUSTER_RIGHTS], ids=["default", "all", "humble"])
def test_nothing_in_a_pod_can_be_written_but_what_is_mounted_for_it(values: tuple[str, ...]) -> None:
    found = [container["securityContext"] for pod in pods(render(*values)) for container in pod["containers"]]

    assert len(found) == 3
    assert all(each["readOnlyRootFilesystem"] and not each["allowPrivilegeEscalation"] for each in found)
    assert all(each["capabilities"] == {"drop": ["ALL"]} for each in found)


@pytest.mark.parametrize("part", ["operator", "gateway", "secrets"])
def test_all_namespaces_are_looked_after_by_the_rules_of_one(part: str) -> None:
    given = ("jobs.enabled=true", 'secrets.names=["database"]')
    one, every = render(*given, 'namespaces=["search"]'), render(*given, "clusterWide=true")

    (role,) = (role for role in of(one, "Role") if role["metadata"]["name"].endswith(f"-{part}"))
    (wide,) = (role for role in of(every, "ClusterRole") if role["metadata"]["name"].endswith(f"-{part}"))
    assert role["metadata"]["namespace"] == "search"
    assert wide["rules"] == role["rules"]


@pytest.mark.parametrize("values", [(), ALL_OF_IT, WITHOUT_CLUSTER_RIGHTS], ids=["default", "all", "humble"])
def test_no_role_of_ours_has_a_wildcard_or_a_list_of_secrets(values: tuple[str, ...]) -> None:
    documents = render(*values)
    rules = [rule for d in [*of(documents, "Role"), *of(documents, "ClusterRole")] for rule in d["rules"]]

    assert not any("*" in part for rule in rules for part in itertools.chain(*rule.values()))
    assert {verb for rule in rules if "secrets" in rule["resources"] for verb in rule["verbs"]} == {"get"}
    assert not {"escalate", "bind", "impersonate"} & {verb for rule in rules for verb in rule["verbs"]}


def test_secrets_are_read_by_the_names_that_are_given() -> None:
    roles = of(render('secrets.names=["qdrant","models"]', 'namespaces=["a","b"]'), "Role")

    rules = [(d["metadata"]["namespace"], rule) for d in roles for rule in d["rules"] if "secrets" in rule["resources"]]
    assert [namespace for namespace, _ in rules] == ["a", "b"]
    assert all(rule["resourceNames"] == ["qdrant", "models"] for _, rule in rules)


def test_without_cluster_rights_nothing_is_rendered_outside_of_the_namespaces_that_are_named() -> None:
    documents = render(*WITHOUT_CLUSTER_RIGHTS)

    assert not [d["kind"] for d in documents if d["kind"].startswith(("Cluster", "Custom", "Validating"))]
    assert {d["metadata"].get("namespace", "search") for d in documents} == {"search"}


def test_pods_that_embed_have_an_account_without_rights_and_reach_neither_the_api_server_nor_databases() -> None:
    documents = render(*WITH_JOBS)
    accounts = of(documents, "ServiceAccount", f"{FULLNAME}-shard")
    subjects = [s["name"] for d in documents if d["kind"].endswith("Binding") for s in d.get("subjects", [])]
    policies = of(documents, "NetworkPolicy", "search-pm-pointsman-shards")

    assert [account["metadata"]["namespace"] for account in accounts] == ["search", "shop"]
    assert not any(account["automountServiceAccountToken"] for account in accounts)
    assert f"{FULLNAME}-shard" not in subjects
    assert [policy["metadata"]["namespace"] for policy in policies] == ["search", "shop"]
    ports = [{port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]} for policy in policies]
    assert ports == [{53, 443}, {53, 443}]


def test_jobs_are_nobodys_right_unless_they_are_asked_for() -> None:
    def rights(*values: str) -> set[str]:
        documents = render(*values)
        rules = [rule for d in of(documents, "Role") for rule in d["rules"]]
        return {f"{verb} {name}" for rule in rules for name in rule["resources"] for verb in rule["verbs"]}

    more = rights(*WITH_JOBS) - rights()
    assert more == {"list pods", *(f"{verb} jobs" for verb in ("get", "list", "create", "patch", "delete"))}


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        ("networkPolicy.enabled=false", {"NetworkPolicy"}),
        ("admissionPolicy.enabled=false", {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}),
        ("crds.enabled=false", {"CustomResourceDefinition"}),
        ("gateway.podDisruptionBudget.enabled=false", {"PodDisruptionBudget"}),
        ("store.s3.uri=s3://bucket/prefix", {"PersistentVolumeClaim"}),
        ("rbac.create=false", {"Role", "RoleBinding", "ClusterRoleBinding"}),
        ("gateway.enabled=false", {"Pod", "PodDisruptionBudget", "ClusterRoleBinding"}),
    ],
)
def test_each_part_can_be_left_out(value: str, kinds: set[str]) -> None:
    assert {d["kind"] for d in render()} - {d["kind"] for d in render(value)} == kinds


def test_the_values_that_the_docs_show_are_taken(tmp_path: Path) -> None:
    page = (CHART.parents[1] / "docs" / "install.md").read_text()
    values = tmp_path / "values.yaml"
    values.write_text(page.split("with a `values.yaml` such as")[1].split("```text\n")[1].split("```")[0])

    documents = render(files=[values])

    assert {d["metadata"]["namespace"] for d in of(documents, "Role") if "namespace" in d["metadata"]} == {
        "search",
        "shop",
        "default",
    }


def test_without_gateways_nothing_of_theirs_is_left() -> None:
    left = [d for d in render("gateway.enabled=false") if d["kind"] != "CustomResourceDefinition"]

    assert "gateway" not in yaml.safe_dump(left).lower()


def test_the_two_processes_look_after_the_same_namespaces() -> None:
    def told(*values: str) -> set[str]:
        containers = [c for d in of(render(*values), "Deployment") for c in d["spec"]["template"]["spec"]["containers"]]
        return {e["value"] for c in containers for e in c["env"] if e["name"] == "POINTSMAN_NAMESPACES"}

    assert told() == {"search"}
    assert told('namespaces=["a","b"]') == {"a,b"}
    assert told("clusterWide=true") == {""}


def test_the_operator_finds_the_gateways_where_the_chart_puts_them() -> None:
    documents = render()
    (operator,) = of(documents, "Deployment", f"{FULLNAME}-operator")
    environment = {e["name"]: e.get("value") for e in operator["spec"]["template"]["spec"]["containers"][0]["env"]}

    (service,) = of(documents, "Service", f"{FULLNAME}-gateway-admin")
    assert environment["POINTSMAN_GATEWAY_SERVICE"] == f"search/{FULLNAME}-gateway-admin"
    assert [port["name"] for port in service["spec"]["ports"]] == ["admin"]
    # An address that is not ready must say so, or a gateway that drains holds up every step.
    assert "publishNotReadyAddresses" not in service["spec"]


def test_the_priorities_of_pods_that_embed_are_those_that_the_values_list() -> None:
    for given, wanted in (((), ""), (('jobs.priorityClasses=["low","batch"]',), "low,batch")):
        (operator,) = of(render(*WITH_JOBS, *given), "Deployment", f"{FULLNAME}-operator")
        environment = {e["name"]: e.get("value") for e in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
        assert environment["POINTSMAN_JOB_PRIORITY_CLASSES"] == wanted


def test_a_gateway_has_the_time_that_draining_takes() -> None:
    (gateway,) = of(render("gateway.drainSeconds=40", "gateway.timeoutSeconds=20"), "Deployment", f"{FULLNAME}-gateway")
    pod = gateway["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] == 70
    assert {"name": "POINTSMAN_GATEWAY_DRAIN", "value": "40s"} in pod["containers"][0]["env"]
    assert gateway["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_gateways_trace_what_the_values_say_and_reach_the_collector_then_alone(tmp_path: Path) -> None:
    collector = {"to": [{"podSelector": {"matchLabels": {"app": "collector"}}}], "ports": [{"port": 4318}]}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"networkPolicy": {"traces": [collector]}}))

    def told(*given: str) -> tuple[dict[str, str], list[str]]:
        documents = render(*given, files=[values])
        (gateway,) = of(documents, "Deployment", f"{FULLNAME}-gateway")
        environment = gateway["spec"]["template"]["spec"]["containers"][0]["env"]
        reaching = [d["metadata"]["name"] for d in of(documents, "NetworkPolicy") if collector in d["spec"]["egress"]]
        return {
            e["name"]: e.get("value") for e in environment if "OTEL" in e["name"] or "TRACES" in e["name"]
        }, reaching

    assert told() == ({}, [])
    assert told("traces.enabled=true", "traces.endpoint=http://collector:4318", "traces.ratio=0.25") == (
        {
            "POINTSMAN_GATEWAY_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
        },
        [f"{FULLNAME}-gateway"],
    )


def test_every_object_says_whose_it_is() -> None:
    labels = [document["metadata"]["labels"] for document in render(*ALL_OF_IT)]

    wanted = {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version", "helm.sh/chart"}
    assert all(wanted <= set(each) for each in labels)


def test_policies_let_out_nothing_but_dns_and_the_api_server_by_default() -> None:
    policies = of(render(), "NetworkPolicy")

    assert len(policies) == 2
    assert all(policy["spec"]["policyTypes"] == ["Ingress", "Egress"] for policy in policies)
    ports = {port["port"] for policy in policies for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 6443, "admin"}
    (operator,) = of(render(), "NetworkPolicy", f"{FULLNAME}-operator")
    assert operator["spec"]["ingress"] == []


def test_what_is_let_out_besides_reaches_each_role_that_needs_it(tmp_path: Path) -> None:
    peers = {"databases": "search", "models": "models", "sources": "corpus", "store": "minio"}
    egress = {
        name: [{"to": [{"namespaceSelector": {"matchLabels": {"team": team}}}], "ports": [{"port": 9000}]}]
        for name, team in peers.items()
    }
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"networkPolicy": egress}))

    teams = {
        policy["metadata"]["name"].rpartition("-")[2]: {
            peer["namespaceSelector"]["matchLabels"]["team"]
            for rule in policy["spec"]["egress"]
            for peer in rule.get("to", [])
            if "namespaceSelector" in peer
        }
        for policy in of(render(*WITH_JOBS, files=[values]), "NetworkPolicy")
    }

    assert teams == {
        "operator": {"search", "models", "corpus", "minio"},
        "gateway": {"search", "models"},
        # Which embed and load, and read no source.
        "shards": {"search", "models", "minio"},
    }


def test_names_are_asked_for_at_the_ports_that_their_servers_have(tmp_path: Path) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"networkPolicy": {"dns": {"ports": [53, 5353], "to": [peer]}}}))

    policies = of(render(*WITH_JOBS, files=[values]), "NetworkPolicy")

    wanted = [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
    assert [policy["spec"]["egress"][0] for policy in policies] == [{"ports": wanted, "to": [peer]}] * 4


def test_the_chart_s_own_test_is_let_in_beside_those_who_may_ask(tmp_path: Path) -> None:
    searchers = {"namespaceSelector": {"matchLabels": {"team": "shop"}}}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"networkPolicy": {"queriesFrom": [searchers]}}))

    documents = render(files=[values])

    (gateway,) = of(documents, "NetworkPolicy", f"{FULLNAME}-gateway")
    (pod,) = of(documents, "Pod")
    ours, test = gateway["spec"]["ingress"][0]["from"]
    assert ours == searchers
    assert test["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert "test" in test["podSelector"]["matchLabels"].values()


def test_public_egress_reaches_no_private_address_and_no_metadata() -> None:
    policies = of(render("networkPolicy.publicEgress.enabled=true"), "NetworkPolicy")

    blocks = [
        peer["ipBlock"]
        for p in policies
        for rule in p["spec"]["egress"]
        for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]
    (excepted,) = {tuple(block["except"]) for block in blocks if "except" in block}
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(excepted)


def test_definitions_are_those_of_its_files_and_stay_when_the_release_goes() -> None:
    rendered = {d["metadata"]["name"]: d for d in of(render(), "CustomResourceDefinition")}

    ours = {
        d["metadata"]["name"]: d
        for d in map(yaml.safe_load, (p.read_text() for p in (CHART / "files" / "crds").glob("*.yaml")))
    }
    assert {name: each["spec"] for name, each in rendered.items()} == {
        name: each["spec"] for name, each in ours.items()
    }
    assert all(each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for each in rendered.values())
    assert of(render("crds.enabled=false"), "CustomResourceDefinition") == []


def test_whoever_reads_metrics_reaches_the_ports_of_numbers_and_not_that_of_queries(tmp_path: Path) -> None:
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    searchers = {"namespaceSelector": {"matchLabels": {"team": "shop"}}}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"networkPolicy": {"metricsFrom": [monitoring], "queriesFrom": [searchers]}}))

    let_in = {
        (rule["ports"][0]["port"], "monitoring" if monitoring in rule["from"] else "shop")
        for policy in of(render(files=[values]), "NetworkPolicy")
        for rule in policy["spec"]["ingress"]
    }

    assert let_in == {("metrics", "monitoring"), ("admin", "monitoring"), ("http", "shop")}


def test_monitors_find_the_ports_and_leave_the_resources_namespace_in_its_place() -> None:
    documents = render(*ALL_OF_IT)
    ports = {port["name"] for pod in pods(documents) for c in pod["containers"] for port in c.get("ports", [])}

    asked = [
        endpoint
        for kind, field in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints"))
        for monitor in of(documents, kind)
        for endpoint in monitor["spec"][field]
    ]
    assert {endpoint["port"] for endpoint in asked} == {"metrics", "admin"}
    assert {endpoint["port"] for endpoint in asked} <= ports
    assert all(endpoint["honorLabels"] for endpoint in asked)


def test_the_runbook_is_where_the_values_say() -> None:
    (rules,) = of(
        render("monitoring.rules.enabled=true", "monitoring.rules.runbookURL=https://wiki/run"), "PrometheusRule"
    )

    pages = [rule["annotations"]["runbook_url"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert len(pages) > 20
    assert all(page.startswith("https://wiki/run#pointsman") for page in pages)


def test_the_image_is_the_charts_own_unless_somebody_says_otherwise() -> None:
    digest = f"sha256:{'a' * 64}"

    def image(*values: str) -> set[str]:
        return {container["image"] for pod in pods(render(*values)) for container in pod["containers"]}

    assert image() == {"pointsman:0.1.0"}
    assert image("image.repository=registry.example.com/pointsman", "image.tag=edge") == {
        "registry.example.com/pointsman:edge"
    }
    assert image(f"image.digest={digest}", "image.tag=edge") == {f"pointsman@{digest}"}


def test_an_operator_is_asked_whether_it_is_well_and_a_gateway_whether_to_send_queries_there() -> None:
    documents = render(*ALL_OF_IT)
    containers = {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"][0] for d in of(documents, "Deployment")
    }
    probes = ("startupProbe", "livenessProbe", "readinessProbe")

    asked = {name: [each[probe]["httpGet"] for probe in probes] for name, each in containers.items()}
    assert asked[f"{FULLNAME}-operator"] == [
        {"path": path, "port": "metrics"} for path in ("/healthz", "/healthz", "/readyz")
    ]
    # Where a gateway speaks TLS its admin port does not.
    assert asked[f"{FULLNAME}-gateway"] == [
        {"path": path, "port": "admin"} for path in ("/healthz", "/healthz", "/readyz")
    ]


def test_the_keys_of_the_store_are_a_file_that_follows_its_secret() -> None:
    rendered = render("store.s3.uri=s3://bucket/prefix", "store.s3.existingSecret=keys", "store.s3.key=json")
    (operator,) = of(rendered, "Deployment", f"{FULLNAME}-operator")
    pod = operator["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (file,) = [entry["value"] for entry in container["env"] if entry["name"] == "POINTSMAN_STORE_OPTIONS_FILE"]
    (mount,) = [mount for mount in container["volumeMounts"] if file.startswith(f"{mount['mountPath']}/")]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]

    # What is mounted by `subPath`, or is in the environment, stays as it was when the pod began.
    assert mount == {"name": "store-options", "mountPath": "/run/pointsman/store", "readOnly": True}
    assert volume["secret"] == {"secretName": "keys", "items": [{"key": "json", "path": "options"}]}
    assert not [entry for entry in container["env"] if "secretKeyRef" in entry.get("valueFrom", {})]


def test_the_rules_in_the_readme_are_those_of_the_chart() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (chart.ROOT / "README.md").read_text(), re.S)
    by_hand = [rights(yaml.safe_load_all(block)) for block in blocks if "kind: ClusterRole" in block]

    rendered = render("clusterWide=true", "jobs.enabled=true", "userRoles.create=false")
    roles = {
        f"{role['kind']}/{role['metadata']['name']}": role
        for role in (*of(rendered, "Role"), *of(rendered, "ClusterRole"))
    }
    granted: dict[str, list[Any]] = {}
    for binding in (*of(rendered, "RoleBinding"), *of(rendered, "ClusterRoleBinding")):
        for subject in binding["subjects"]:
            granted.setdefault(subject["name"], []).append(
                roles[f"{binding['roleRef']['kind']}/{binding['roleRef']['name']}"]
            )

    assert by_hand == [rights(granted[f"{FULLNAME}-{role}"]) for role in ("operator", "gateway")]


def rights(roles: Iterable[Any]) -> set[tuple[str, str, str]]:
    """Return group, resource and verb of all that roles allow."""
    rules = [rule for role in roles for rule in role["rules"]]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("left_out", ["traces", "networkPolicy.dns.ports", "networkPolicy.publicEgress", "jobs"])
def test_values_of_an_earlier_chart_that_lack_something_are_refused_by_its_name(left_out: str) -> None:
    *_, name = left_out.split(".")

    assert f"missing property '{name}'" in refusal(f"{left_out}=null")
