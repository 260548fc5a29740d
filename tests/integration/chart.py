"""The chart on a real API server: rendered and installed by helm, and what the server then says may be done."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from pointsman import errors
from pointsman.controlplane import admin, binaries, plane

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pointsman"
KUBERNETES = "1.34.4"
"""What `helm template` takes the cluster to be; the control plane's release."""
RELEASE, FULLNAME = "pm", "pm-pointsman"
POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
"""
Object = dict[str, Any]


class _OnceEach(yaml.CSafeLoader):
    """Refuses a key that comes twice, of which helm would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        assert not twice, f"{twice} twice{node.start_mark}"
        return super().construct_mapping(node, deep)


def helm_path() -> Path | None:
    """Return where helm is: on the path, or where `make chart` and `make e2e` keep what they build."""
    return _program("helm", "v3.*")


def promtool_path() -> Path | None:
    """Return where promtool is: on the path, or where `make alerts` keeps what it builds."""
    return _program("promtool", "v*")


def _program(name: str, versions: str) -> Path | None:
    found = shutil.which(name)
    built = sorted((binaries.Finder().home().parent / "programs").glob(f"{name}-{versions}"))
    return Path(found) if found is not None else next(reversed(built), None)


NEEDS_HELM = pytest.mark.skipif(helm_path() is None, reason="helm is not there; `make chart` builds it and runs these")
"""On whatever renders or installs the chart."""


def helm(*arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm, away from whatever the user has configured."""
    program = helm_path()
    assert program is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
    if kubeconfig is not None:
        environment["KUBECONFIG"] = str(kubeconfig)
    return subprocess.run(
        [str(program), *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def render(*values: str, namespace: str = "search", files: Sequence[Path] = ()) -> list[Object]:
    """Return what the chart renders to; `values` are as behind `--set`, `files` as behind `--values`."""
    found = _template(values, namespace, tuple(files))
    assert found.returncode == 0, found.stderr
    return [document for document in yaml.load_all(found.stdout, _OnceEach) if document]


def refusal(*values: str) -> str:
    """Return why helm refuses values; fails where it takes them."""
    found = _template(values, "search", ())
    assert found.returncode != 0, f"{values} were taken"
    return found.stderr


@functools.cache
def _template(values: tuple[str, ...], namespace: str, files: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    given = [part for value in values for part in ("--set-json" if "=[" in value or "={" in value else "--set", value)]
    given += [part for path in files for part in ("--values", str(path))]
    return helm("template", RELEASE, str(CHART), "-n", namespace, "--kube-version", KUBERNETES, *given)


def of(documents: Sequence[Object], kind: str, name: str = "") -> list[Object]:
    """Return the documents of a kind, of a name where one is given."""
    return [d for d in documents if d["kind"] == kind and name in ("", d["metadata"]["name"])]


@dataclass(frozen=True)
class Cluster:
    """An API server that writes down what service accounts ask."""

    plane: plane.ControlPlane
    audit: Path

    @property
    def admin(self) -> admin.Admin:
        """An administrator of it."""
        return self.plane.admin()

    def namespace(self, name: str, **labels: str) -> str:
        """Create a namespace."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.admin.create("/api/v1/namespaces", body)
        return name

    def install(
        self, namespace: str, *values: str, verb: str = "install", release: str = RELEASE, is_dry: bool = False
    ) -> str:
        """Install or upgrade the chart as a user does, without waiting for pods; return what helm says."""
        given = [part for v in values for part in ("--set-json" if "=[" in v or "={" in v else "--set", v)]
        given += ["--dry-run=client"] if is_dry else []
        found = helm(verb, release, str(CHART), "-n", namespace, *given, kubeconfig=self.plane.kubeconfig)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def uninstall(self, namespace: str, release: str = RELEASE) -> None:
        """Remove a release."""
        found = helm("uninstall", release, "-n", namespace, kubeconfig=self.plane.kubeconfig)
        assert found.returncode == 0, found.stderr

    def may(
        self, account: str, verb: str, resource: str, namespace: str = "", name: str = "", group: str = "pointsman.dev"
    ) -> bool:
        """Return what `kubectl auth can-i --as=system:serviceaccount:…` says; `account` is `namespace:name`."""
        plural, _, part = resource.partition("/")
        attributes = {"group": group, "resource": plural, "verb": verb, "namespace": namespace, "name": name}
        where, _, _ = account.partition(":")
        spec = {
            "user": f"system:serviceaccount:{account}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{where}", "system:authenticated"],
            "resourceAttributes": {**attributes, "subresource": part},
        }
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return bool(self.admin.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])

    def bind(self, role: str, namespace: str) -> None:
        """Give a service account of a namespace the chart's role of its name there."""
        body = {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{FULLNAME}-{role}"},
            "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": namespace}],
        }
        self.admin.create(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", body)

    def kubeconfig(self, folder: Path, namespace: str, account: str) -> Path:
        """Return the path of a kubeconfig by which somebody is a service account."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        token = self.admin.create(path, body)["status"]["token"]
        config = yaml.safe_load(self.plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        found = folder / f"{account}.kubeconfig"
        found.write_text(yaml.safe_dump(config))
        found.chmod(0o600)
        return found

    def asked(self, namespace: str, account: str) -> list[Object]:
        """Return what a service account has asked the API server, from its audit log."""
        user = f"system:serviceaccount:{namespace}:{account}"
        lines = map(json.loads, self.audit.read_text().splitlines())
        return [line for line in lines if line["user"]["username"] == user]

    def try_out(self, document: Object, namespace: str) -> None:
        """Have the API server admit a document that it does not keep: `kubectl apply --dry-run=server`."""
        path = f"{self.path(document, namespace)}?dryRun=All&fieldManager=tests&fieldValidation=Strict&force=true"
        self.admin.request("PATCH", path, yaml.safe_dump(document).encode(), "application/apply-patch+yaml")

    def path(self, document: Object, namespace: str) -> str:
        """Return the path of a document's object."""
        version = document["apiVersion"]
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        known = {each["kind"]: each for each in self.admin.get(root)["resources"] if "/" not in each["name"]}
        each, meta = known[document["kind"]], document["metadata"]
        where = f"/namespaces/{meta.get('namespace', namespace)}" if each["namespaced"] else ""
        return f"{root}{where}/{each['name']}/{meta['name']}"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Start an API server of its own: the chart changes what holds in a whole cluster."""
    found = binaries.Finder().find()
    policy, audit, program = folder / "audit.yaml", folder / "audit.log", folder / "kube-apiserver"
    policy.write_text(POLICY)
    # One that is told more than a control plane tells it.
    program.write_text(
        f'#!/bin/sh\nexec {found.api_server} "$@" --audit-policy-file={policy} --audit-log-path={audit}\n'
    )
    program.chmod(0o700)
    wrapped = binaries.Binaries(etcd=found.etcd, api_server=program, controller_manager=found.controller_manager)
    with plane.start(wrapped) as started:
        yield Cluster(started, audit)


@dataclass(frozen=True)
class Person:
    """Somebody with a token of their own."""

    server: str
    config: Path = field(repr=False)

    def refused(self, method: str, path: str, body: Object) -> str:
        """Return why the API server refuses a request of theirs; empty where it does not."""
        given = yaml.safe_load(self.config.read_text())
        authority = base64.b64decode(given["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        headers = {"Authorization": f"Bearer {given['users'][0]['user']['token']}"}
        context = ssl.create_default_context(cadata=authority)
        with httpx.Client(verify=context, trust_env=False, headers=headers, timeout=30) as client:
            answer = client.request(method, self.server + path, json=body or None)
        return "" if answer.is_success else str(answer.json()["message"])


def wait(claim: Callable[[], bool], what: str, within: float = 60) -> None:
    """Wait until a claim holds."""
    deadline = time.monotonic() + within
    while not claim():
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.1)


def is_refused(cluster: Cluster, method: str, path: str, body: Object) -> str:
    """Return why the API server refuses a request; empty where it does not."""
    try:
        content = json.dumps(body).encode() if body else None
        cluster.admin.request(method, path, content, "application/json")
    except errors.Terminal as error:
        return str(error)
    return ""
