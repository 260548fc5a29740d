"""What do the programs of the node read and take? Their configuration files and flags, and nothing that starts them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from e2e.cluster.namespaces import NODE

from pointsman.controlplane import credentials

NAME = "pointsman-e2e"
"""The node's name, and that of its network and control groups."""
SERVER = f"https://{NODE}:6443"
SERVICES, API, DNS = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
PODS = "10.244.0.0/24"
METADATA = "169.254.169.254"
"""Where machines of a cloud are told who they are."""
SANDBOX = "localhost/pointsman-e2e-sandbox:1"
CNI_PLUGINS = Path("/usr/lib/cni")

CLIENTS = (
    credentials.Client(f"system:node:{NAME}", "system:nodes"),
    credentials.Client("system:kube-proxy"),
    credentials.Client("system:kube-scheduler"),
    credentials.Client("system:kube-controller-manager"),
    credentials.Client("kube-apiserver-kubelet-client", "system:masters"),
)
KUBELET, PROXY, SCHEDULER, CONTROLLERS, TO_KUBELET = (client.name for client in CLIENTS)


@dataclass(frozen=True, slots=True)
class Files:
    """Where everything of the node lies, below one folder."""

    folder: Path

    @property
    def containerd_socket(self) -> Path:
        """Where containerd is asked."""
        return self.folder / "containerd.sock"

    @property
    def audit(self) -> Path:
        """What was asked of the API server, by whom: one JSON object a line, without any content."""
        return self.folder / "logs" / "audit.jsonl"

    @property
    def pod_logs(self) -> Path:
        """Where the kubelet has the logs of the pods that there are."""
        return self.folder / "pod-logs"

    @property
    def kept_logs(self) -> Path:
        """Where those of all pods that there ever were are."""
        return self.folder / "kept-logs"

    @property
    def volumes(self) -> Path:
        """Where PersistentVolumes are."""
        return self.folder / "volumes"

    def kubeconfig(self, client: str) -> Path:
        """The kubeconfig of a client."""
        return self.folder / "pki" / f"{client.replace(':', '-')}.kubeconfig"

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"


def write(files: Files) -> credentials.Credentials:
    """Write all files that the programs read."""
    pki = files.folder / "pki"
    pki.mkdir()
    made = credentials.create(pki, hosts=[NODE, API], clients=CLIENTS)
    credentials.write_kubeconfig(files.admin, SERVER, made)
    for client in CLIENTS:
        credentials.write_kubeconfig(files.kubeconfig(client.name), SERVER, made, client.name)
    networks = files.folder / "networks"
    networks.mkdir()
    (networks / "10-pointsman.conflist").write_text(json.dumps(_network(files)))
    (files.folder / "containerd.toml").write_text(_containerd(files))
    (files.folder / "resolv.conf").write_text("")
    _write(files.folder / "kubelet.yaml", _kubelet(files, made))
    _write(files.folder / "proxy.yaml", _proxy(files))
    _write(files.folder / "audit.yaml", _audit())
    return made


def etcd(files: Files) -> list[object]:
    """Return the flags of etcd. It is in a network of its own, so it may have its usual ports."""
    return [f"--data-dir={files.folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"]


def api_server(files: Files, made: credentials.Credentials) -> list[object]:
    """Return the flags of the API server."""
    return [
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={NODE}",
        "--secure-port=6443",
        "--allow-privileged=true",
        f"--tls-cert-file={made.serving_certificate}",
        f"--tls-private-key-file={made.serving_key}",
        f"--client-ca-file={made.ca}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={made.service_account_public_key}",
        f"--service-account-signing-key-file={made.service_account_key}",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # By its address, so that the name need not be written into this machine's files.
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={made.clients[TO_KUBELET].certificate}",
        f"--kubelet-client-key={made.clients[TO_KUBELET].key}",
        f"--audit-policy-file={files.folder / 'audit.yaml'}",
        f"--audit-log-path={files.audit}",
        "--profiling=false",
    ]


def controller_manager(files: Files, made: credentials.Credentials) -> list[object]:
    """Return the flags of the controller manager, with all controllers that it has by default."""
    return [
        f"--kubeconfig={files.kubeconfig(CONTROLLERS)}",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={made.service_account_key}",
        f"--root-ca-file={made.ca}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]


def scheduler(files: Files) -> list[object]:
    """Return the flags of the scheduler."""
    return [
        f"--kubeconfig={files.kubeconfig(SCHEDULER)}",
        "--leader-elect=false",
        "--secure-port=0",
        "--profiling=false",
    ]


def kubelet(files: Files) -> list[object]:
    """Return the flags of the kubelet."""
    return [
        f"--config={files.folder / 'kubelet.yaml'}",
        f"--kubeconfig={files.kubeconfig(KUBELET)}",
        f"--root-dir={files.folder / 'kubelet'}",
        f"--cert-dir={files.folder / 'kubelet' / 'pki'}",
        f"--hostname-override={NAME}",
        f"--node-ip={NODE}",
    ]


def proxy(files: Files) -> list[object]:
    """Return the flags of kube-proxy."""
    return [f"--config={files.folder / 'proxy.yaml'}", f"--hostname-override={NAME}"]


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def _network(files: Files) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(files.folder / "addresses"),
    }
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    plugins = [{**bridge, "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": NAME, "plugins": plugins}


def _containerd(files: Files) -> str:
    # Without restrict_oom_score_adj no container starts where this machine itself lacks CAP_SYS_RESOURCE: runc would
    # say "can't get final child's PID from pipe: EOF".
    return f"""version = 2
root = "{files.folder / "containerd"}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]

[grpc]
address = "{files.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{SANDBOX}"
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{files.folder / "networks"}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _kubelet(files: Files, made: credentials.Credentials) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE,
        "authentication": {
            "x509": {"clientCAFile": str(made.ca)},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": ["pods"],
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{files.containerd_socket}",
        "podLogsDir": str(files.pod_logs),
        "volumePluginDir": str(files.folder / "volume-plugins"),
        "resolvConf": str(files.folder / "resolv.conf"),
        "failSwapOn": False,
        # Where a machine is full is its owner's business: only a node that cannot go on turns pods away.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "oomScoreAdj": 0,
        "maxPods": 100,
        # Pods of a test come and go in seconds.
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "registerWithTaints": [],
    }


def _proxy(files: Files) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": PODS,
        "clientConnection": {"kubeconfig": str(files.kubeconfig(PROXY))},
        # The limit belongs to the machine, and is none of ours to change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        "oomScoreAdj": 0,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }


def _audit() -> dict[str, Any]:
    # Who asked what of which object, and never what it held.
    rule = {"level": "Metadata", "omitStages": ["RequestReceived", "ResponseStarted"]}
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [rule]}
