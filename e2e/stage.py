"""The cluster with everything on it, as the stories see it: what do they edit, what do they wait for, what is read?"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from e2e import answers, example, stack
from e2e.answers import Answers
from e2e.cluster import programs
from e2e.cluster.images import ROOT
from e2e.cluster.kube import Kube, T
from e2e.cluster.node import Node
from examples.stdlib import corpus

PATIENCE = 300.0
DEPLOYMENT, DATASET, QUERY_SET = "indexdeployment", "embeddingdataset", "queryset"
RATE = 20.0
"""Live queries a second: two cores carry the whole cluster as well."""
TURN_SECONDS = 5.0
"""Between two changes of the source."""
FEW = 50
"""Documents of a tenant's."""


@dataclass(frozen=True, slots=True)
class Images:
    """The names of images that are in the cluster."""

    pointsman: str
    database: str
    object_store: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What the model's server was asked for."""

    texts: int
    different: int

    @property
    def again(self) -> int:
        """How many texts were asked for that had been before."""
        return self.texts - self.different


@dataclass
class Stage:
    """One cluster, and the folder in which what the stories need is written."""

    kube: Kube
    folder: Path
    images: Images
    bring: Callable[[Path, str], str]
    """Builds the product's image from a tree, under a tag, and loads it into the cluster; returns its name."""
    node: Node | None = None
    """Where the cluster is this machine's own node: faults of the machine itself can be made."""
    keys: stack.Keys = field(default_factory=stack.Keys.make, repr=False)
    told: dict[str, Answers] = field(default_factory=dict)
    """What became of the queries, by story."""
    notes: list[str] = field(default_factory=list)
    """What was measured by the way, in sentences."""
    begun: int = 0
    """The `until` of the answers with which the story began."""

    # What a platform team does.

    def provide(self) -> None:
        """Bring up what Pointsman needs and does not bring: a database, and an object store with the texts."""
        texts = self.folder / "corpus"
        texts.mkdir(parents=True, exist_ok=True)
        corpus.write(texts)
        self.kube.apply([stack.namespace()])
        self.kube.apply(
            [
                *stack.secrets_for(self.keys),
                *stack.database(self.images.database),
                *stack.object_store(self.images.object_store),
            ]
        )
        for name in (stack.DATABASE, stack.STORE):
            self.wait(functools.partial(self.kube.is_available, stack.NAMESPACE, name), f"{name} to be there", 120)
        with self.object_store() as client:
            for bucket in (stack.CORPUS_BUCKET, stack.STORE_BUCKET):
                client.create_bucket(Bucket=bucket)
            documents = (texts / "documents.jsonl").read_bytes()
            few = b"".join(documents.splitlines(keepends=True)[:FEW])
            put = {name: (texts / name).read_bytes() for name in ("queries.jsonl", "judgements.jsonl")}
            for key, body in {**put, stack.STANDING: documents, "few.jsonl": few}.items():
                client.put_object(Bucket=stack.CORPUS_BUCKET, Key=key, Body=body)

    def install(self, *more: str, tree: Path = ROOT, image: str = "") -> None:
        """Install the chart of a tree, or upgrade to it, and wait until it says that it is there."""
        values = self.folder / "values.yaml"
        wanted = stack.chart_values(image or self.images.pointsman, self._api_server())
        values.write_text(yaml.safe_dump(dict(wanted)))
        command = [str(programs.helm()), "upgrade", "--install", stack.RELEASE, str(tree / "charts" / "pointsman")]
        flags = ["--namespace", stack.NAMESPACE, "--values", str(values), "--wait", "--timeout", "5m", *more]
        self.kube.command([*command, *flags])

    def _api_server(self) -> Mapping[str, Any]:
        """Return where the API server is, behind its Service: that is what policies are about."""
        slices = self.kube.list("endpointslices", "default", "kubernetes.io/service-name=kubernetes")
        addresses = {address for each in slices for end in each["endpoints"] for address in end["addresses"]}
        ports = {port["port"] for each in slices for port in each["ports"]}
        cidrs = [f"{address}/{128 if ':' in address else 32}" for address in sorted(addresses)]
        return {"cidrs": cidrs, "ports": sorted(ports)}

    def clear(self) -> None:
        """Have a cluster without Pointsman and all that the stories made, whatever became of them."""
        helm = [str(programs.helm()), "uninstall", stack.RELEASE, "-n", stack.NAMESPACE, "--wait"]
        self.kube.command(helm, check=False)
        for namespace in (stack.NAMESPACE, stack.TENANT):
            self.kube.run("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
            self.let_go(namespace)
            self.wait(functools.partial(self._is_gone, namespace), f"{namespace} to go")
        self.kube.run("delete", "crd", "-l", "app.kubernetes.io/part-of=pointsman")
        self.begun = 0

    def _is_gone(self, namespace: str) -> bool:
        return not self.kube.get("namespace", namespace)

    def let_go(self, namespace: str) -> None:
        """Take off the finalizers that nobody is there to take off, as docs/install.md has it."""
        for kind in (DEPLOYMENT, DATASET):
            for name in self.kube.run("get", kind, "-n", namespace, "-o", "name", check=False).split():
                patch = '{"metadata": {"finalizers": null}}'
                # It may have gone by itself meanwhile.
                self.kube.run("patch", name, "-n", namespace, "--type=merge", "-p", patch, check=False)

    def admit(self, tenant: str) -> None:
        """Have another namespace looked after."""
        self.kube.apply([stack.namespace(tenant)])
        self.install("--set", f"namespaces={{{stack.NAMESPACE},{tenant}}}")

    # What a user does.

    def declare(self) -> None:
        """Apply the example: a dataset, a query set, and a deployment that serves its first version."""
        self.kube.apply(example.resources())

    def add_version(self, name: str, dimensions: int, template: str = "{name}. {text}", tokens: int = 4096) -> None:
        """Add a version to the dataset, unless an earlier story did."""
        found = self.kube.get(DATASET, stack.NAME, stack.NAMESPACE)["spec"]["versions"]
        if name not in {each["name"] for each in found}:
            versions = [*found, example.version(name, dimensions, template, tokens)]
            self.patch(DATASET, {"spec": {"versions": versions}})

    def serve(self, wanted: str, steps: Sequence[Mapping[str, Any]] | None = None) -> float:
        """Change the one line, and the steps with it where they are given; return when that was accepted."""
        strategy = {} if steps is None else {"strategy": {"steps": list(steps)}}
        self.patch(DEPLOYMENT, {"spec": {"version": wanted, **strategy}})
        return time.monotonic()

    def patch(self, kind: str, patch: Mapping[str, Any]) -> None:
        """Merge a patch into one of the example's resources."""
        self.kube.patch(kind, stack.NAME, stack.NAMESPACE, patch)

    def multiply(self, times: int) -> None:
        """Put a source of many documents beside the texts: each several times, under other ids and in other words."""
        rows = [json.loads(line) for line in (self.folder / "corpus" / "documents.jsonl").read_text().splitlines()]
        many = (
            json.dumps({**row, "id": f"{row['id']}/{copy}", "text": copied(row, copy)})
            for copy in range(times)
            for row in rows
        )
        with self.object_store() as client:
            client.put_object(Bucket=stack.CORPUS_BUCKET, Key="many.jsonl", Body="\n".join(many).encode())

    def count(self) -> None:
        """Have the model's server that counts, and counts from now on."""
        self.kube.apply(stack.model(self.images.pointsman))
        self.wait(lambda: self.kube.is_available(stack.NAMESPACE, stack.MODEL), "the model's server")
        self.asked("forget")

    def asked(self, what: str = "asked") -> Asked:
        """Return how many texts the model was asked for since it began to count."""
        path = f"/api/v1/namespaces/{stack.NAMESPACE}/services/{stack.MODEL}:{stack.MODEL_PORT}/proxy/{what}"
        return Asked(**json.loads(self.kube.run("get", "--raw", path)))

    def embed_many(self, name: str, work: Mapping[str, Any]) -> None:
        """Declare a dataset of the many documents, with a store of its own."""
        self.kube.apply([example.many(name, work)])

    def dataset(self, name: str) -> dict[str, Any]:
        """Return what a dataset says of itself."""
        found: dict[str, Any] = self.kube.get(DATASET, name, stack.NAMESPACE).get("status", {})
        return found

    def pod_of_jobs(self, name: str, but: str = "") -> str:
        """Return the name of a running pod of a dataset's Jobs that is not a certain one; empty where there is none."""
        jobs = set(self.dataset(name).get("jobs", ()))
        for pod in self.kube.list("pods", stack.NAMESPACE, "batch.kubernetes.io/job-name"):
            metadata = pod["metadata"]
            is_its = metadata["labels"]["batch.kubernetes.io/job-name"] in jobs and metadata["name"] != but
            if is_its and pod["status"]["phase"] == "Running" and "deletionTimestamp" not in metadata:
                return str(metadata["name"])
        return ""

    def ask(self, rate: float = RATE) -> None:
        """Have the judged queries asked, and the source changed, from now on."""
        image, queries = self.images.pointsman, self.folder / "corpus" / "queries.jsonl"
        self.kube.apply([*stack.asker(image, queries, rate), *stack.writer(image, TURN_SECONDS)])
        for name in (stack.ASKER, stack.WRITER):
            self.wait(functools.partial(self.kube.is_available, stack.NAMESPACE, name), f"the {name} to be there")
        self.wait(lambda: self.answers().versions, "the first answer")

    def answers(self, since: int | None = None) -> Answers:
        """Return what was answered since an earlier `until`; by default since the story began."""
        command = ["exec", f"deployment/{stack.ASKER}", "-n", stack.NAMESPACE, "--", "python", "-c", answers.COUNT]
        return Answers(**json.loads(self.kube.run(*command, str(self.begun if since is None else since))))

    # What everybody sees.

    def status(self, name: str = stack.NAME) -> dict[str, Any]:
        """Return all that a deployment says of itself."""
        found: dict[str, Any] = self.kube.get(DEPLOYMENT, name, stack.NAMESPACE).get("status", {})
        return found

    def settle(self) -> None:
        """Have it at rest, whatever an earlier story left under way."""
        found = self.kube.get(DEPLOYMENT, stack.NAME, stack.NAMESPACE)
        serving = found.get("status", {}).get("servingVersion")
        if serving and (found["spec"]["version"] != serving or not self.is_ready(serving)):
            self.serve(serving)
            self.wait(lambda: self.is_ready(serving), f"{serving} to be Ready")

    def serving(self) -> str:
        """Return the version that serves."""
        return str(self.status()["servingVersion"])

    def is_ready(self, wanted: str, name: str = stack.NAME) -> bool:
        """Whether a deployment says Ready of a version, at its newest generation."""
        found = self.kube.get(DEPLOYMENT, name, stack.NAMESPACE)
        status = found.get("status", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        is_current = status.get("observedGeneration") == found["metadata"]["generation"]
        return is_current and status.get("servingVersion") == wanted and conditions.get("Ready") == "True"

    def weight(self, wanted: str, which: str = "accepted") -> int:
        """Return the share of the queries, in percent, that every gateway gives to a version; -1 where it has none.

        One that has just taken over does not know it yet; what is `desired` it knows at once.
        """
        weights = [i["weight"] for i in self.status().get("indexes", ()) if i["version"] == wanted and "weight" in i]
        return max((int(weight.get(which, -1)) for weight in weights), default=-1)

    def sentence(self) -> str:
        """Return what the deployment says of itself, and what the pods say where they are not well."""
        conditions = [*self.status().get("conditions", ())]
        dataset = self.kube.get(DATASET, stack.NAME, stack.NAMESPACE).get("status", {}).get("conditions", ())
        said = [f"{each['type']}={each['status']}: {each['message']}" for each in (*conditions, *dataset)]
        pods = [
            f"{pod['metadata']['name']}: {state}"
            for pod in self.kube.list("pods", stack.NAMESPACE)
            for state in pod.get("status", {}).get("containerStatuses", ())
            if not state.get("ready")
        ]
        return "; ".join([*said, *pods]) or "nothing is said"

    def reason(self, kind: str, name: str, namespace: str) -> tuple[str, str]:
        """Return why a resource is not Ready, by reason and message; empty as long as nothing is said, or it is."""
        found = self.kube.condition(kind, name, "Ready", namespace)
        return (found["reason"], found["message"]) if found.get("status") == "False" else ("", "")

    def metrics(self, pod: Mapping[str, Any]) -> str:
        """Return the numbers of a pod of operator or gateway."""
        name = pod["metadata"]["name"]
        port = 8082 if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "operator" else 8081
        return self.kube.run("get", "--raw", f"/api/v1/namespaces/{stack.NAMESPACE}/pods/{name}:{port}/proxy/metrics")

    def search_as(self, token: str) -> int:
        """Ask the gateway with a token, from within the cluster, and return the status of its answer."""
        command = ["exec", f"deployment/{stack.ASKER}", "-n", stack.NAMESPACE, "--", "python", "-c", answers.SEARCH]
        return int(self.kube.run(*command, stack.search(stack.NAME), token))

    def token(self) -> str:
        """Return the token of whoever asks."""
        return self.kube.run(
            "exec", f"deployment/{stack.ASKER}", "-n", stack.NAMESPACE, "--", "cat", "/run/token/token"
        )

    def holder(self) -> str:
        """Return which operator has the Lease; empty while none has it."""
        found = self.kube.get("lease", f"{stack.RELEASE}-operator", stack.NAMESPACE)
        return str(found.get("spec", {}).get("holderIdentity") or "")

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Return the pods of operator or gateway that are not on their way out."""
        found = self.kube.list("pods", stack.NAMESPACE, f"app.kubernetes.io/component={component}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def wait(
        self,
        look: Callable[[], T | None],
        what: str,
        within: float = PATIENCE,
        explain: Callable[[], str] | None = None,
    ) -> T:
        """Look until there is something to see, and return it; say how things are where it takes too long."""
        return self.kube.wait(look, what, within, explain or self.sentence)

    @contextlib.contextmanager
    def object_store(self) -> Iterator[Any]:
        """Return a client of the object store, by a port of this machine's loopback."""
        with self.forwarded(stack.STORE, stack.S3_PORT) as port:
            client = botocore.session.get_session().create_client(
                "s3",
                endpoint_url=f"http://127.0.0.1:{port}",
                region_name="us-east-1",
                aws_access_key_id=self.keys.access,
                aws_secret_access_key=self.keys.secret,
            )
            try:
                yield client
            finally:
                client.close()

    @contextlib.contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[int]:
        """Forward a free port of loopback to a Service."""
        command = ["kubectl", f"--kubeconfig={self.kube.kubeconfig}", "port-forward", "-n", stack.NAMESPACE]
        command += [f"service/{service}", f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                assert process.stdout is not None
                # Forwarding from 127.0.0.1:41234 -> 7070
                yield int(process.stdout.readline().split(" -> ")[0].rpartition(":")[2])
            finally:
                process.terminate()


def copied(row: Mapping[str, Any], copy: int) -> str:
    """Return the text of a document's copy, which is like no other."""
    return f"{row['text']} {stack.COUNTED} {copy}."


KEY = pytest.StashKey[Stage]()
"""Where pytest keeps the stage for the stories."""


def folder() -> Path:
    """Return a new folder for what one run writes."""
    return Path(tempfile.mkdtemp(prefix="pointsman-e2e-"))
