"""Who reaches whom? Asked from within pods, by connecting to all that there is, and compared with what is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from e2e import stack
from e2e.cluster import configuration
from e2e.cluster.kube import Object
from e2e.cluster.namespaces import NODE
from e2e.stage import Stage

from pointsman.cluster.resources import MANAGED_BY

ELSEWHERE = "elsewhere"
"""A namespace that is none of Pointsman's, and a pod in it that answers at ports that others are let out to."""
SHARD = "shard"
_STRANGER_PORTS = (5432, 6443, stack.S3_PORT, stack.MODEL_PORT)

# What there is to reach.
NUMBERS, ADMIN, QUERIES = "the operator's numbers", "a gateway's admin port", "a gateway's queries"
API, DATABASE, STORE, MODEL = "the API server", "the database", "the store", "the model"
KUBELET, METADATA = "the kubelet", "the metadata of the machine"
STRANGER = [f"a stranger's port {port}" for port in _STRANGER_PORTS]
OPEN = {API, DATABASE, STORE, MODEL, KUBELET, METADATA, *STRANGER}
"""What no policy of ours is about."""

WANTED: Mapping[str, set[str]] = {
    "operator": {API, DATABASE, STORE, MODEL, ADMIN},
    "gateway": {API, DATABASE, MODEL},
    # It embeds and loads, in a tenant's namespace.
    "shard": {DATABASE, STORE, MODEL},
    # The one whom networkPolicy.queriesFrom names.
    "asker": {*OPEN, QUERIES},
    "stranger": OPEN,
}
"""What each has to reach, with the policies that the stories' values say."""

# Connects to everything at once and says what answered. Names have to be found for it.
_CONNECT = """
import concurrent.futures, json, socket, sys
def is_reached(target):
    try:
        socket.create_connection(target, 3).close()
    except OSError:
        return False
    return True
targets = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
    reached = list(pool.map(is_reached, map(tuple, targets.values())))
print(json.dumps([name for name, is_in in zip(targets, reached) if is_in]))
"""

# Takes connections at all its ports, and closes them.
_LISTEN = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    waiting.register(socket.create_server(("", port)), selectors.EVENT_READ)
while True:
    for key, _ in waiting.select():
        key.fileobj.accept()[0].close()
"""


@dataclass(frozen=True, slots=True)
class Pod:
    """From where is connected."""

    name: str
    namespace: str
    address: str


@dataclass(frozen=True, slots=True)
class Reach:
    """Everybody who connects, and everything that may be reached."""

    stage: Stage
    pods: Mapping[str, Pod]
    targets: Mapping[str, tuple[str, int]]

    @classmethod
    def of(cls, stage: Stage) -> Reach:
        """Look who is there."""
        gateway, other = (_pod(each) for each in stage.pods("gateway")[:2])
        (operator,) = (_pod(each) for each in stage.pods("operator"))
        (asker,) = (_pod(each) for each in stage.kube.list("pods", stack.NAMESPACE, f"app={stack.ASKER}"))
        shard = _pod(stage.kube.get("pod", SHARD, stack.NAMESPACE))
        stranger = _pod(stage.kube.get("pod", ELSEWHERE, ELSEWHERE))
        targets = {
            NUMBERS: (operator.address, 8082),
            ADMIN: (other.address, 8081),
            QUERIES: (other.address, 8080),
            API: ("kubernetes.default.svc.cluster.local", 443),
            DATABASE: (stack.host(stack.DATABASE), 5432),
            STORE: (stack.host(stack.STORE), stack.S3_PORT),
            MODEL: (stack.host(stack.MODEL), stack.MODEL_PORT),
            **{name: (stranger.address, port) for name, port in zip(STRANGER, _STRANGER_PORTS, strict=True)},
        }
        if stage.node is not None:
            targets |= {KUBELET: (NODE, 10250), METADATA: (configuration.METADATA, 80)}
        pods = {"operator": operator, "gateway": gateway, "shard": shard, "asker": asker, "stranger": stranger}
        return cls(stage, pods, targets)

    def seen(self) -> Mapping[str, set[str]]:
        """Return what each reaches, of what is not itself."""
        return {who: self._reached(pod) for who, pod in self.pods.items()}

    def wanted(self) -> Mapping[str, set[str]]:
        """Return what each has to reach, of what is there and not itself."""
        return {who: WANTED[who] & self._others(pod).keys() for who, pod in self.pods.items()}

    def everything(self) -> Mapping[str, set[str]]:
        """Return what each reaches where no policy is."""
        return {who: set(self._others(pod)) for who, pod in self.pods.items()}

    def difference(self, wanted: Mapping[str, set[str]]) -> str:
        """Say in words what is reached and must not be, and what has to be and is not."""
        seen = self.seen()
        much = [f"{who} reaches {what}" for who in wanted for what in sorted(seen[who] - wanted[who])]
        little = [f"{who} does not reach {what}" for who in wanted for what in sorted(wanted[who] - seen[who])]
        return "; ".join([*much, *little]) or "it is as it has to be by now"

    def _reached(self, pod: Pod) -> set[str]:
        command = ["exec", pod.name, "-n", pod.namespace, "--", "python", "-c", _CONNECT]
        return set(json.loads(self.stage.kube.run(*command, json.dumps(self._others(pod)))))

    def _others(self, pod: Pod) -> dict[str, tuple[str, int]]:
        return {name: target for name, target in self.targets.items() if target[0] != pod.address}


def provide(stage: Stage) -> None:
    """Have everybody there who connects, and everything that may be reached."""
    stage.count()
    if stage.node is not None:
        stage.node.serve_metadata()
    labels = {**MANAGED_BY, "app.kubernetes.io/component": "shard"}
    listening = ["python", "-c", _LISTEN, *map(str, _STRANGER_PORTS)]
    image = stage.images.pointsman
    stage.kube.apply(
        [
            stack.namespace(ELSEWHERE),
            _bare(SHARD, stack.NAMESPACE, labels, image, listening),
            _bare(ELSEWHERE, ELSEWHERE, {}, image, listening),
        ]
    )
    for name, namespace in ((SHARD, stack.NAMESPACE), (ELSEWHERE, ELSEWHERE)):
        stage.kube.run("wait", "pod", name, "-n", namespace, "--for=condition=Ready", "--timeout=60s")


def clear(stage: Stage) -> None:
    """Take those away who were there for this alone."""
    stage.kube.run("delete", "namespace", ELSEWHERE, "--ignore-not-found")
    stage.kube.run("delete", "pod", SHARD, "-n", stack.NAMESPACE, "--ignore-not-found")


def _pod(found: Object) -> Pod:
    return Pod(found["metadata"]["name"], found["metadata"]["namespace"], found["status"]["podIP"])


def _bare(name: str, namespace: str, labels: Mapping[str, str], image: str, command: Sequence[str]) -> dict[str, Any]:
    container = {
        "name": "it",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": security,
        "containers": [container],
    }
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
