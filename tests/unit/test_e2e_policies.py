"""What the node of `make e2e` takes NetworkPolicies to say: selectors, peers, ports by name, blocks with exceptions."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import pytest
from e2e.cluster import policies
from e2e.cluster.policies import Allowed, Network

WEB, SEARCH, OTHER = "10.244.0.2/32", "10.244.0.3/32", "10.244.0.4/32"
PODS = policies.pods(
    [
        {
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {"containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"podIP": address.removesuffix("/32"), "phase": "Running"},
        }
        for name, namespace, address, port in (
            ("web", "shop", WEB, 8080),
            ("search", "shop", SEARCH, 9090),
            ("other", "else", OTHER, 8080),
        )
    ]
)
WEB_POD = PODS[0]


def cluster(spec: Mapping[str, Any], namespace: str = "shop") -> policies.Cluster:
    selecting = {"podSelector": {"matchLabels": {"app": "web"}}, **spec}
    found = [{"metadata": {"name": "p", "namespace": namespace}, "spec": selecting}]
    return policies.Cluster(PODS, {"shop": {"team": "shop"}, "else": {"team": "else"}}, found)


def egress(*rules: Mapping[str, Any]) -> list[Allowed] | None:
    return cluster({"policyTypes": ["Egress"], "egress": list(rules)}).egress(WEB_POD)


@pytest.mark.parametrize(
    ("selector", "is_wanted"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "web", "tier": "front"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
    ],
)
def test_a_selector_wants_all_that_it_names(selector: Mapping[str, Any], is_wanted: bool) -> None:
    assert policies.is_selected({"app": "web"}, selector) == is_wanted


def test_a_pod_that_no_policy_selects_is_free_and_one_that_any_selects_is_not() -> None:
    assert cluster({"policyTypes": ["Ingress"]}).ingress(WEB_POD) == []
    assert cluster({"policyTypes": ["Ingress"]}).egress(WEB_POD) is None
    assert cluster({"policyTypes": ["Ingress"]}, namespace="else").ingress(WEB_POD) is None
    assert cluster({"podSelector": {"matchLabels": {"app": "api"}}}).ingress(WEB_POD) is None


def test_peers_are_of_the_policy_s_own_namespace_unless_it_names_others() -> None:
    def reached(**peer: Any) -> set[str]:
        return {str(each.network) for each in egress({"to": [peer]}) or ()}

    assert reached(podSelector={}) == {WEB, SEARCH}
    assert reached(namespaceSelector={}) == {WEB, SEARCH, OTHER}
    assert reached(namespaceSelector={"matchLabels": {"team": "else"}}) == {OTHER}
    assert reached(namespaceSelector={}, podSelector={"matchLabels": {"app": "search"}}) == {SEARCH}
    assert reached(podSelector={"matchLabels": {"app": "other"}}) == set()


def test_a_port_s_name_is_that_of_the_pod_which_is_reached() -> None:
    named = [{"port": "http"}]

    out = egress({"to": [{"podSelector": {}}], "ports": named})
    into = cluster({"policyTypes": ["Ingress"], "ingress": [{"ports": named}]}).ingress(WEB_POD)

    assert out == [Allowed(Network(WEB), "TCP", 8080, 8080), Allowed(Network(SEARCH), "TCP", 9090, 9090)]
    assert into == [Allowed(Network("0.0.0.0/0"), "TCP", 8080, 8080)]
    assert egress({"to": [{"podSelector": {}}], "ports": [{"port": "https"}]}) == []


def test_what_is_excepted_from_a_block_is_no_part_of_it() -> None:
    block = {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "169.254.0.0/16"]}

    found = egress({"to": [{"ipBlock": block}], "ports": [{"port": 443}]}) or []

    def is_let_out(address: str) -> bool:
        return any(ipaddress.IPv4Address(address) in each.network for each in found)

    assert {(each.protocol, each.first, each.last) for each in found} == {("TCP", 443, 443)}
    assert not any(map(is_let_out, ("10.0.0.0", "10.255.255.255", "169.254.169.254")))
    assert all(map(is_let_out, ("0.0.0.0", "9.255.255.255", "11.0.0.0", "169.253.255.255", "255.255.255.255")))


def test_rules_name_protocols_and_ports_as_iptables_has_them() -> None:
    every = Network("0.0.0.0/0")

    assert Allowed(every, "UDP", 53, 53).match("-d") == "-p udp --dport 53"
    assert Allowed(Network(WEB), "TCP", 8000, 8010).match("-s") == f"-s {WEB} -p tcp --dport 8000:8010"
    assert Allowed(every).match("-d") == ""


def test_chains_that_nobody_wants_any_more_go_and_none_is_left_open_meanwhile() -> None:
    shut = cluster({"policyTypes": ["Ingress", "Egress"]})
    first, chains = policies.rules(shut, "10.244.0.0/24")

    second, left = policies.rules(policies.Cluster(PODS, {}, []), "10.244.0.0/24", chains)

    assert len(chains) == 2 and not left
    assert all(f"-A {chain} -j {policies.REFUSED}" in first.splitlines() for chain in chains)
    # Emptied and removed in one go with the rules that lead there.
    assert all({f":{chain} - [0:0]", f"-X {chain}"} <= set(second.splitlines()) for chain in chains)
