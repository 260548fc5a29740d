"""What is asked of the cluster: kubectl and helm as a user runs them, with one kubeconfig and no other."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from e2e.cluster.namespaces import NodeError

T = TypeVar("T")
Object = Mapping[str, Any]
"""One object of Kubernetes, as JSON has it."""

_LOOK_EVERY_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Kube:
    """An administrator of one cluster."""

    kubeconfig: Path

    def run(self, *arguments: str, given: str | None = None, check: bool = True, within: float = 120.0) -> str:
        """Run kubectl and return what it says; raises NodeError with its last words where it fails."""
        return self.command(["kubectl", *arguments], given, check, within)

    def command(
        self, command: Sequence[str], given: str | None = None, check: bool = True, within: float = 600.0
    ) -> str:
        """Run a program that reads the kubeconfig, and return what it says."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, env=environment, timeout=within
        )
        if check and done.returncode != 0:
            raise NodeError(f"`{' '.join(command[:6])}` ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
        return done.stdout

    def apply(self, manifests: Sequence[Object]) -> None:
        """Apply objects, on the server's side."""
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", given=yaml.safe_dump_all(manifests))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """Return an object; empty where there is none such, or the API server does not answer."""
        said = self.run("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found", check=False, within=20)
        found: dict[str, Any] = json.loads(said) if said.strip() else {}
        return found

    def list(self, kind: str, namespace: str, selector: str = "", everywhere: bool = False) -> list[dict[str, Any]]:
        """Return the objects of a kind in a namespace, or everywhere."""
        where = ["-A"] if everywhere else ["-n", namespace]
        said = self.run("get", kind, *where, "-l", selector, "-o", "json", check=False, within=20)
        found: list[dict[str, Any]] = json.loads(said)["items"] if said.strip() else []
        return found

    def patch(self, kind: str, name: str, namespace: str, patch: Object) -> None:
        """Merge a patch into an object, as `kubectl patch` does."""
        self.run("patch", kind, name, "-n", namespace, "--type=merge", "-p", json.dumps(patch))

    def condition(self, kind: str, name: str, condition: str, namespace: str = "default") -> dict[str, Any]:
        """Return a condition of an object; empty where it has none such."""
        conditions = self.get(kind, name, namespace).get("status", {}).get("conditions") or []
        return next((found for found in conditions if found["type"] == condition), {})

    def is_true(self, kind: str, name: str, condition: str, namespace: str = "default") -> bool:
        """Whether a condition of an object is True."""
        return self.condition(kind, name, condition, namespace).get("status") == "True"

    def is_available(self, namespace: str, deployment: str) -> bool:
        """Whether all replicas of a Deployment are of its newest generation, and available."""
        found = self.get("deployment", deployment, namespace)
        status, wanted = found.get("status", {}), found.get("spec", {}).get("replicas", 1)
        is_seen: bool = status.get("observedGeneration") == found.get("metadata", {}).get("generation", 0)
        # Old ones that are still there count as available too.
        counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
        return is_seen and counts == {wanted}

    def wait(self, look: Callable[[], T | None], what: str, within: float, explain: Callable[[], str] = str) -> T:
        """Look until there is something to see, and return it. Raises NodeError with what `explain` says."""
        deadline = time.monotonic() + within
        while not (seen := look()):
            if time.monotonic() > deadline:
                raise NodeError(f"waited {within:.0f} s for {what}; {explain()}")
            time.sleep(_LOOK_EVERY_SECONDS)
        return seen
