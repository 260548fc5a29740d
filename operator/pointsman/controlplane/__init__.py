"""A Kubernetes control plane of one's own, for the demo and the tests.

    with plane.start() as cluster:
        subprocess.run(["kubectl", "--kubeconfig", cluster.kubeconfig, "get", "namespaces"])

`binaries` finds kube-apiserver, etcd and kube-controller-manager or makes them; `plane` starts them on loopback in a
temporary folder; `supervisor` ends them with their parent, however it dies. The user's own kubeconfig is never read.
"""
