"""`python -m e2e.cluster.enforcer KUBECONFIG NETWORK`: have this node hold to the NetworkPolicies of its cluster.

It is what a network plug-in would be: whenever pods, namespaces or policies change, the rules that `policies` works out
for all of them take the place of those before, in the network namespace in which it runs. NETWORK is that of all pods.
What it says first is that the policies hold, or why they cannot; then it ends.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from e2e.cluster import policies, programs

from pointsman.cluster import rest
from pointsman.errors import Conflict, Retryable

HOLDS, CANNOT = "policies hold", "policies cannot hold"
_KINDS = ("/api/v1/pods", "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies")
_AGAIN_SECONDS = 0.5
_SETTLE_SECONDS = 0.02
_WATCH = {"watch": "1", "timeoutSeconds": "600"}
_WATCH_WITHIN = (5.0, 660.0)
# Pods of one node are on one bridge, and what passes a bridge is seen by iptables only where the kernel hands it over.
_BRIDGES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")

# A rule of each kind, to see that the kernel takes them.
_TRIED = policies.Cluster(
    pods=[policies.Pod("tried", "tried", {}, policies.Network("192.0.2.1/32"), {})],
    namespaces={},
    policies=[
        {
            "metadata": {"name": "tried", "namespace": "tried"},
            "spec": {"policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]},
        }
    ],
)


class CannotHold(Exception):
    """The kernel, or iptables, do not take what policies need; the message says what they said."""


class Enforcer:
    """The rules that are in place, and what has them looked at again."""

    def __init__(self, server: rest.Rest, network: str) -> None:
        self._server, self._network = server, network
        self._changed = threading.Event()
        self._chains: list[str] = []
        self._before = ""

    def run(self) -> None:
        """Look at everything whenever something changed, for ever. Raises CannotHold."""
        for path in _KINDS:
            threading.Thread(target=self._watch, args=(path,), daemon=True).start()
        while True:
            self._changed.wait()
            time.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            try:
                self._apply()
            except (Conflict, Retryable):
                # Without an API server what held goes on holding.
                time.sleep(_AGAIN_SECONDS)
                self._changed.set()

    def _apply(self) -> None:
        pods, namespaces, found = (self._list(path) for path in _KINDS)
        labels = {each["metadata"]["name"]: each["metadata"].get("labels", {}) for each in namespaces}
        cluster = policies.Cluster(policies.pods(pods), labels, found)
        wanted, chains = policies.rules(cluster, self._network, self._chains)
        if wanted != self._before:
            restore(wanted)
            print(f"{HOLDS}: {len(found)} for {len(cluster.pods)} pods", flush=True)
        self._chains, self._before = chains, wanted

    def _list(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._server.ask("GET", path)["items"]
        return found

    def _watch(self, path: str) -> None:
        # What comes says only that something changed: all of it is read anew.
        while True:
            try:
                for _ in self._server.stream(path, _WATCH, _WATCH_WITHIN):
                    self._changed.set()
            except (Conflict, Retryable):
                time.sleep(_AGAIN_SECONDS)
            self._changed.set()


def hook(network: str) -> None:
    """Have whatever passes go by rules, of which there are none yet. Raises CannotHold."""
    if not _BRIDGES.exists() or _BRIDGES.read_text().strip() != "1":
        raise CannotHold(f"{_BRIDGES} is not 1, so what passes between pods is not seen")
    tried, chains = policies.rules(_TRIED, network)
    restore(tried)
    nothing, _ = policies.rules(policies.Cluster((), {}, ()), network, chains)
    restore(nothing)
    restore("\n".join(["*filter", *(f"-I {hook} -j {policies.ENTRY}" for hook in policies.HOOKS), "COMMIT", ""]))


def restore(rules: str) -> None:
    """Put rules in place, all or none. Raises CannotHold."""
    command = [str(programs.where("iptables-restore")), "--noflush", "--wait"]
    done = subprocess.run(command, input=rules, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotHold(f"iptables says: {done.stderr.strip()[-300:]}")


def main(kubeconfig: str, network: str) -> int:
    """Hold to policies until somebody ends this."""
    try:
        hook(network)
    except CannotHold as error:
        print(f"{CANNOT}: {error}", flush=True)
        return 0
    Enforcer(rest.connect(kubeconfig), network).run()
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
