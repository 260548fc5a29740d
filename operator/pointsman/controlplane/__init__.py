"""A Kubernetes control plane on loopback, for the demo, the tests and a first look."""
