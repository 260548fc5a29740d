"""`python -m tests.integration.enforced`, as root in namespaces of its own: pods on a bridge, and who reaches whom.

It says so as one JSON object: for each set of policies, what each reaches. There is no cluster: pods are network
namespaces with an address, and policies are put in place by what the node of `make e2e` puts them in place by.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from e2e.cluster import enforcer, policies

NETWORK, NODE, METADATA = "10.244.0.0/24", "10.245.0.2", "169.254.169.254"
PODS = {"server": "10.244.0.2", "client": "10.244.0.3", "other": "10.244.0.4", "unknown": "10.244.0.5"}
TARGETS = {
    "http": (PODS["server"], 8080),
    "admin": (PODS["server"], 8081),
    "the node": (NODE, 6443),
    "the metadata": (METADATA, 8080),
}

_CONNECT = """
import concurrent.futures, json, socket, sys
def is_reached(target):
    try:
        socket.create_connection(tuple(target), 1).close()
    except OSError:
        return False
    return True
targets = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor() as pool:
    for name, is_one in zip(targets, pool.map(is_reached, targets.values())):
        if is_one:
            print(name)
"""
_LISTEN = """
import socket, sys
kept = [socket.create_server(("", int(port))) for port in sys.argv[1:]]
print("listening", flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Have the pods, put policies in place one set after the other, and say what is reached with each."""
    _run("mount", "-t", "tmpfs", "none", "/run")
    _run("ip", "link", "set", "lo", "up")
    for address in (NODE, METADATA):
        _run("ip", "address", "add", f"{address}/32", "dev", "lo")
    _run("ip", "link", "add", "pods", "type", "bridge")
    _run("ip", "address", "add", "10.244.0.1/24", "dev", "pods")
    _run("ip", "link", "set", "pods", "up")
    for number, (name, address) in enumerate(PODS.items()):
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", f"pod{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", f"pod{number}", "master", "pods", "up")
        _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _run("ip", "-n", name, "link", "set", interface, "up")
        _run("ip", "-n", name, "route", "add", "default", "via", "10.244.0.1")
    servers = [_listening([], 6443, 8080), _listening(["ip", "netns", "exec", "server"], 8080, 8081)]
    try:
        print(json.dumps(dict(_told())))
    finally:
        for server in servers:
            server.communicate(timeout=10)


def _told() -> Iterator[tuple[str, Mapping[str, list[str]]]]:
    yield "no rules", _seen()
    chains: list[str] = []
    known = policies.pods([_pod(name) for name in PODS if name != "unknown"])
    enforcer.hook(NETWORK)
    for told, found in (("no policies", []), ("policies", _policies()), ("no policies again", [])):
        rules, chains = policies.rules(policies.Cluster(known, {"here": {}}, found), NETWORK, chains)
        enforcer.restore(rules)
        yield told, _seen()


def _seen() -> dict[str, list[str]]:
    pods = {name: ["ip", "netns", "exec", name] for name in PODS if name != "server"}
    command = [sys.executable, "-I", "-S", "-c", _CONNECT, json.dumps(TARGETS)]
    return {name: _run(*inside, *command).split("\n")[:-1] for name, inside in {**pods, "node": []}.items()}


def _policies() -> list[dict[str, Any]]:
    def policy(name: str, **spec: Any) -> dict[str, Any]:
        selecting = {"podSelector": {"matchLabels": {"app": name}}, **spec}
        return {"metadata": {"name": name, "namespace": "here"}, "spec": selecting}

    client = {"podSelector": {"matchLabels": {"app": "client"}}}
    server = {"podSelector": {"matchLabels": {"app": "server"}}}
    node = {"to": [{"ipBlock": {"cidr": f"{NODE}/32"}}], "ports": [{"port": 6443}]}
    return [
        policy("server", policyTypes=["Ingress"], ingress=[{"from": [client], "ports": [{"port": "http"}]}]),
        policy("client", policyTypes=["Egress"], egress=[{"to": [server]}, node]),
    ]


def _pod(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "here", "labels": {"app": name}},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"podIP": PODS[name], "phase": "Running"},
    }


def _listening(inside: list[str], *ports: int) -> subprocess.Popen[str]:
    command = [*inside, sys.executable, "-I", "-S", "-c", _LISTEN, *map(str, ports)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "listening\n"
    return process


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
