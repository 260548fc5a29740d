"""What do NetworkPolicies let through? Worked out from the objects alone, and written as rules of iptables.

Of `networking.k8s.io/v1` everything but IPv6: a pod that a policy selects is reached by, or reaches, what some policy
that selects it names, and nothing else; ports are those of the pod, since the address of a Service is rewritten before.
The node itself reaches every pod, a pod reaches itself, and what is established goes on. A pod of which nothing is
known yet waits: what it sends is dropped and not refused, so it is sent again.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e2e.cluster.kube import Object

Network = ipaddress.IPv4Network
_ALL = ipaddress.IPv4Network("0.0.0.0/0")
_OVER = {"Succeeded", "Failed"}

ENTRY, _OUT, _IN = "POD-POLICIES", "POD-EGRESS", "POD-INGRESS"
HOOKS = ("FORWARD", "INPUT")
"""Between pods, and from a pod to this node, on which the API server is."""
REFUSED = "REJECT --reject-with icmp-admin-prohibited"


@dataclass(frozen=True, slots=True)
class Pod:
    """What policies see of a pod that has an address."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    address: Network
    ports: Mapping[tuple[str, str], int]
    """By protocol and name."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be reached, or may come: a network, and one protocol or all; of it some ports, or all."""

    network: Network
    protocol: str = ""
    first: int = 0
    last: int = 0

    def match(self, option: str) -> str:
        """Return it as iptables has it; `option` says of which end the network is."""
        parts = [] if self.network == _ALL else [option, str(self.network)]
        if self.protocol:
            parts += ["-p", self.protocol.lower()]
        if self.first:
            parts += ["--dport", str(self.first) if self.last == self.first else f"{self.first}:{self.last}"]
        return " ".join(parts)


def pods(found: Sequence[Object]) -> list[Pod]:
    """Return the pods that have an address of their own."""
    return [
        Pod(
            name=pod["metadata"]["name"],
            namespace=pod["metadata"]["namespace"],
            labels=pod["metadata"].get("labels", {}),
            address=Network(pod["status"]["podIP"]),
            ports={
                (port.get("protocol", "TCP"), port["name"]): port["containerPort"]
                for container in pod["spec"]["containers"]
                for port in container.get("ports", ())
                if port.get("name")
            },
        )
        for pod in found
        if pod.get("status", {}).get("podIP")
        and pod["status"].get("phase") not in _OVER
        and not pod["spec"].get("hostNetwork")
    ]


@dataclass(frozen=True, slots=True)
class Cluster:
    """All that policies are about."""

    pods: Sequence[Pod]
    namespaces: Mapping[str, Mapping[str, str]]
    """The labels of each."""
    policies: Sequence[Object]

    def of(self, pod: Pod, direction: str) -> list[Object] | None:
        """Return the rules of a direction that are for a pod; None where no policy is, so that all is let through."""
        selecting = [
            policy["spec"]
            for policy in self.policies
            if policy["metadata"]["namespace"] == pod.namespace
            and direction in policy["spec"].get("policyTypes", ("Ingress",))
            and is_selected(pod.labels, policy["spec"].get("podSelector", {}))
        ]
        return [rule for spec in selecting for rule in spec.get(direction.lower()) or ()] if selecting else None

    def egress(self, pod: Pod) -> list[Allowed] | None:
        """Return what a pod may reach; None is everything."""
        rules = self.of(pod, "Egress")
        if rules is None:
            return None
        return list(dict.fromkeys(each for rule in rules for each in self._reached(pod, rule)))

    def ingress(self, pod: Pod) -> list[Allowed] | None:
        """Return what may reach a pod, and at which of its ports; None is everything."""
        rules = self.of(pod, "Ingress")
        if rules is None:
            return None
        return list(dict.fromkeys(each for rule in rules for each in self._coming(pod, rule)))

    def _reached(self, pod: Pod, rule: Object) -> Iterator[Allowed]:
        for network, peer in self._peers(pod, rule.get("to")):
            # A port's name is that of a pod, so behind an address that is none of a pod there is none of that name.
            named = [peer] if peer is not None else [each for each in self.pods if each.address.subnet_of(network)]
            yield from _ports(network, rule.get("ports"), named)

    def _coming(self, pod: Pod, rule: Object) -> Iterator[Allowed]:
        for network, _ in self._peers(pod, rule.get("from")):
            for each in _ports(pod.address, rule.get("ports"), [pod]):
                yield Allowed(network, each.protocol, each.first, each.last)

    def _peers(self, pod: Pod, peers: Sequence[Object] | None) -> Iterator[tuple[Network, Pod | None]]:
        if not peers:
            yield _ALL, None
        for peer in peers or ():
            if block := peer.get("ipBlock"):
                if ":" not in block["cidr"]:
                    yield from ((network, None) for network in _without(block["cidr"], block.get("except", ())))
                continue
            for other in self.pods:
                if self._is_peer(pod, peer, other):
                    yield other.address, other

    def _is_peer(self, pod: Pod, peer: Object, other: Pod) -> bool:
        namespaces = peer.get("namespaceSelector")
        is_there = (
            other.namespace == pod.namespace
            if namespaces is None
            else is_selected(self.namespaces.get(other.namespace, {}), namespaces)
        )
        return is_there and is_selected(other.labels, peer.get("podSelector", {}))


def is_selected(labels: Mapping[str, str], selector: Object) -> bool:
    """Whether labels are those that a selector wants; an empty one wants none."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for wanted in selector.get("matchExpressions", ()):
        key, values = wanted["key"], wanted.get("values", ())
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds[wanted["operator"]]:
            return False
    return True


def rules(cluster: Cluster, network: str, before: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return what iptables-restore takes to have the policies hold, and the chains of pods in it.

    `network` is that of all pods. `before` are the chains of pods that are there already; what is not wanted any more
    goes. All of it is taken at once or not at all.
    """
    entries = [
        f"-A {ENTRY} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN",
        f"-A {ENTRY} -m addrtype --src-type LOCAL -j RETURN",
        f"-A {ENTRY} -j {_OUT}",
        f"-A {ENTRY} -j {_IN}",
    ]
    chains: dict[str, list[str]] = {}
    for pod in cluster.pods:
        directions = ((_OUT, "-s", "-d", cluster.egress(pod)), (_IN, "-d", "-s", cluster.ingress(pod)))
        for entry, own, other, allowed in directions:
            if allowed is None:
                entries.append(f"-A {entry} {own} {pod.address} -j RETURN")
                continue
            chain = f"{entry}-{hashlib.sha256(str(pod.address).encode()).hexdigest()[:12]}"
            through = [f"-A {chain} {each.match(other)} -j RETURN" for each in (Allowed(pod.address), *allowed)]
            chains[chain] = [*through, f"-A {chain} -j {REFUSED}"]
            # Gone to and not jumped to: what returns from there returns from here.
            entries.append(f"-A {entry} {own} {pod.address} -g {chain}")
    entries.append(f"-A {_OUT} -s {network} -j DROP")
    names = [ENTRY, _OUT, _IN, *dict.fromkeys((*before, *chains))]
    gone = [f"-X {chain}" for chain in before if chain not in chains]
    lines = (
        [f":{name} - [0:0]" for name in names] + entries + [line for each in chains.values() for line in each] + gone
    )
    return "\n".join(["*filter", *lines, "COMMIT", ""]), list(chains)


def _ports(network: Network, ports: Sequence[Object] | None, named: Sequence[Pod]) -> Iterator[Allowed]:
    if not ports:
        yield Allowed(network)
    for port in ports or ():
        protocol, number = port.get("protocol", "TCP"), port.get("port")
        if number is None:
            yield Allowed(network, protocol)
        elif isinstance(number, int):
            yield Allowed(network, protocol, number, port.get("endPort", number))
        else:
            for pod in named:
                if (found := pod.ports.get((protocol, number))) is not None:
                    yield Allowed(pod.address, protocol, found, found)


def _without(block: str, excepted: Sequence[Any]) -> Iterator[Network]:
    left = [Network(block)]
    for each in map(Network, excepted):
        left = [
            piece
            for network in left
            for piece in (network.address_exclude(each) if each.subnet_of(network) else [network])
            if not piece.subnet_of(each)
        ]
    yield from left
