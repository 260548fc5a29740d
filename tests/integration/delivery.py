"""A real operator, a real gateway and a real database, and deployments on their way from v7 to another version."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from tests.integration import databases, gateway_process
from tests.integration.databases import Database
from tests.integration.gateway_process import GatewayProcess
from tests.integration.operator_process import APPROVAL, DEPLOYMENT, GROUP, QUERY_SET, Object, Stage, running, wordllama
from tests.servers import door, processes
from tests.servers.door import Door

from pointsman.controlplane import plane

SUBJECTS = (
    *("signal boxes", "steam locomotives", "night trains", "narrow gauge lines", "railway bridges", "tunnels"),
    *("station clocks", "dining cars", "freight yards", "level crossings", "water towers", "ticket offices"),
)
PLACES = ("Switzerland", "Japan", "Argentina", "Kenya", "Norway")
DATASET_NAME, JUDGED = "papers", "judged"
TEXT = {"template": "{title}. {text}", "metadataFields": ["year"]}
VERSIONS = (
    wordllama("v7", 64),
    wordllama("v8", 256),
    # Twelve documents say the same: whoever asks for one of them finds any.
    wordllama("v9", 64, text={"template": "{place}", "metadataFields": ["year"]}),
    wordllama("v10", 128),
)
"""v7 serves first; v8 and v10 answer as well, v9 is worse."""
EVALUATED: Object = {"evaluation": {"querySetRef": {"name": JUDGED}, "notWorseBy": "0.1"}}
HALF: list[Object] = [
    {"shadow": {"percent": 100, "for": "1s"}},
    {"weight": 50},
    {"approval": {"name": "go-wide"}},
    {"weight": 100},
]
"""Half of the queries, and then a person is asked."""
GOAL = ("Ready", "Reconciling", "Stalled")


def documents() -> list[Object]:
    """Return sixty documents, each about something else."""
    pairs = [(subject, place) for subject in SUBJECTS for place in PLACES]
    return [
        {
            "id": f"paper-{number}",
            "title": f"{subject.capitalize()} in {place}",
            "text": f"What became of the {subject} of {place}.",
            "place": place,
            "year": 1900 + number,
        }
        for number, (subject, place) in enumerate(pairs)
    ]


def judged(relevant: str = "paper-{}") -> Object:
    """Return a query set: for each document a query that it answers."""
    pairs = [(subject, place) for subject in SUBJECTS for place in PLACES]
    queries = [
        {"id": f"q{number}", "text": f"{subject} in {place}", "relevant": [relevant.format(number)]}
        for number, (subject, place) in enumerate(pairs)
    ]
    return {"queries": {"inline": queries}}


@dataclass
class Delivery:
    """What the stories happen on: one dataset, one query set, and as many deployments as are wanted."""

    stage: Stage
    database: Database
    gateway: GatewayProcess
    other: GatewayProcess
    """Another gateway where two were asked for, the same one otherwise."""
    door: Door
    """The operator's way to the other gateway: shut, that one does not answer."""
    line: Door
    """The way of a second gateway to the API server: shut, it serves the routes that it knows."""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=30))

    # What a user does.

    def declare(self) -> None:
        """Declare the dataset and the query set."""
        self.stage.declare(DATASET_NAME, self.stage.write(documents(), DATASET_NAME), *VERSIONS)
        self.stage.create(QUERY_SET, JUDGED, judged())

    def deploy(self, name: str, steps: Sequence[Object] = HALF, **spec: Any) -> Object:
        """Declare a deployment of v7; `spec` goes into its spec."""
        strategy = {"steps": list(steps)}
        spec = {"strategy": strategy, "gates": EVALUATED, "dataset": DATASET_NAME, **spec}
        return self.stage.deploy(name, self.database.spec, **spec)

    def want(self, name: str, version: str, **spec: Any) -> None:
        """Change the one line; `spec` is edited with it."""
        self.stage.edit(DEPLOYMENT, name, version=version, **spec)

    def decide(self, name: str, decision: str, version: str = "v8", **changes: Any) -> str:
        """Create an Approval for the plan of now; `changes` go into its spec. Returns its name."""
        expires = datetime.now(UTC) + timedelta(hours=1)
        spec = {
            "target": {"name": name},
            "decision": decision,
            "version": version,
            "expiresAt": expires.isoformat(timespec="seconds"),
        }
        if decision == "Approve":
            spec |= {"answers": "go-wide", "planHash": self.status(name)["planHash"]}
        body = {"apiVersion": GROUP, "kind": APPROVAL, "metadata": {"generateName": f"{name}-"}}
        path = f"/apis/{GROUP}/namespaces/{self.stage.namespace}/approvals"
        made = self.stage.admin.create(path, {**body, "spec": {**spec, **changes}})
        return str(made["metadata"]["name"])

    def search(self, name: str, session: str, gateway: GatewayProcess | None = None) -> httpx.Response:
        """Search through a gateway."""
        path = f"/v1/namespaces/{self.stage.namespace}/indexes/{name}/search"
        body = {"query": "night trains in Kenya", "session": session, "topK": 3}
        return self.client.post((gateway or self.gateway).url() + path, json=body)

    # What a user sees.

    def status(self, name: str) -> Object:
        """Return what a deployment says of itself."""
        return dict(self.stage.get(DEPLOYMENT, name).get("status", {}))

    def goal(self, name: str) -> tuple[str, str, str]:
        """Return which of Ready, Reconciling and Stalled holds of the newest generation, its reason and its message."""
        resource = self.stage.get(DEPLOYMENT, name)
        for found in resource.get("status", {}).get("conditions", []):
            is_new = found["observedGeneration"] == resource["metadata"]["generation"]
            if is_new and found["type"] in GOAL and found["status"] == "True":
                return found["type"], found["reason"], found["message"]
        return "", "", ""

    def weights(self, name: str) -> dict[str, int]:
        """Return the weights that every gateway serves, by version; what has none is left out."""
        weights = {i["version"]: i["weight"] for i in self.status(name).get("indexes", []) if "weight" in i}
        return {version: weight["accepted"] for version, weight in weights.items() if weight.get("accepted")}

    def measured(self, name: str) -> dict[str, int]:
        """Return the shares of the queries that were answered, by version, where they were measured."""
        weights = {i["version"]: i["weight"] for i in self.status(name)["indexes"] if "weight" in i}
        return {version: weight["measured"] for version, weight in weights.items() if "measured" in weight}

    def index(self, name: str, version: str) -> str:
        """Return the newest index of a version."""
        return str(next(i["name"] for i in self.status(name)["indexes"] if i["version"] == version))

    def answers(self, name: str, gateway: GatewayProcess | None = None) -> dict[str, str]:
        """Return which version answers each of some sessions; every query must be answered."""
        answers = {str(number): self.search(name, str(number), gateway) for number in range(40)}
        assert {got.status_code for got in answers.values()} == {200}, [got.text for got in answers.values()][:3]
        return {session: got.json()["version"] for session, got in answers.items()}

    def answering(self, name: str, gateway: GatewayProcess | None = None) -> set[str]:
        """Return which versions answer; every query must be answered."""
        return set(self.answers(name, gateway).values())

    def shares(self, name: str, before: Object) -> list[dict[str, int]]:
        """Return the shares of the versions since a deployment was in a state, one after the other."""
        routes = weights_of([before, *self.stage.past(DEPLOYMENT, before)]).values()
        found = [{version: weight for version, weight in route.items() if weight} for route in routes]
        return [share for share, _ in itertools.groupby(found)]

    def steps(self, before: Object) -> list[int]:
        """Return which steps a deployment took since it was in a state, counted from 1, one after the other."""
        states = [before, *self.stage.past(DEPLOYMENT, before)]
        found = [state.get("status", {}).get("step", {}).get("index") for state in states]
        return [position for position, _ in itertools.groupby(found) if position]

    def shadowed(self, before: Object) -> set[str]:
        """Return which indexes were asked beside since a deployment was in a state."""
        routes = [state["status"]["route"] for state in self.stage.past(DEPLOYMENT, before)]
        return {route["shadow"]["index"] for route in routes if "shadow" in route}

    def told(self, name: str, before: Object) -> set[tuple[str, str, str]]:
        """Return type, status and message of every condition that a deployment had since it was in a state."""
        states = self.stage.past(DEPLOYMENT, before)
        found = [condition for state in states for condition in state.get("status", {}).get("conditions", ())]
        return {(condition["type"], condition["status"], condition["message"]) for condition in found}

    def report(self, name: str) -> Object:
        """Return what the gateway reports of a deployment."""
        return dict(self.gateway.report()["deployments"].get(f"{self.stage.namespace}/{name}", {}))

    # What is waited for.

    def wait_for(self, name: str, reason: str, **weights: int) -> str:
        """Wait until a deployment is where it must be, and its queries too; return its message."""

        def is_there() -> bool:
            return self.goal(name)[1] == reason and (not weights or self.weights(name) == weights)

        self.stage.wait(is_there, f"{name} to be {reason} {weights}")
        return self.goal(name)[2]

    def ask(self, name: str, version: str = "v8") -> None:
        """Wait until a person is asked, with half of the queries each."""
        self.wait_for(name, "APersonIsAsked", **{version: 50, "v7": 50})


@contextlib.contextmanager
def delivering(
    control_plane: plane.ControlPlane, folder: Path, has_other: bool = False, **settings: str
) -> Iterator[Delivery]:
    """Start a database, an operator and a gateway, or two, and declare the dataset; end them after."""
    folder.mkdir(parents=True, exist_ok=True)
    port, other_port = processes.free_port(), processes.free_port()
    with (
        databases.pgvector(folder) as database,
        door.before("127.0.0.1", other_port if has_other else port) as way,
        door.before("127.0.0.1", int(control_plane.server.rpartition(":")[2])) as line,
        running(
            control_plane,
            folder / "stage",
            **{
                "gateways": f"http://127.0.0.1:{port},http://127.0.0.1:{way.port}",
                "resync_seconds": "2",
                "workers": "3",
                **settings,
            },
        ) as stage,
        gateway_process.staged(control_plane, stage.namespace, stage.folder, database) as gateways,
    ):
        database.let_in(stage)
        gateway = other = gateways.start(admin_port=str(port), drain="0s")
        if has_other:
            gateways.kubeconfig = stage.folder / "kubeconfig"
            written = control_plane.kubeconfig.read_text()
            gateways.kubeconfig.write_text(written.replace(control_plane.server, f"https://127.0.0.1:{line.port}"))
            other = gateways.start(admin_port=str(other_port), drain="0s")
        delivery = Delivery(stage, database, gateway, other, way, line)
        delivery.declare()
        with delivery.client:
            yield delivery


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a query got."""

    session: str
    status: int
    version: str
    route: tuple[int, int]
    error: str = ""


def answer(session: str, got: httpx.Response) -> Answer:
    """Return what a query got, as it counts here."""
    if got.status_code != 200:
        return Answer(session, got.status_code, "", (0, 0), got.text[:300])
    said = got.json()
    return Answer(session, 200, said["version"], (said["route"]["epoch"], said["route"]["revision"]))


def weights_of(states: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], dict[str, int]]:
    """Return the weights of each route that a deployment's states have had, by epoch and revision."""
    routes = [state["status"]["route"] for state in states if "route" in state.get("status", {})]
    return {
        (route["epoch"], route["revision"]): {entry["version"]: entry["weight"] for entry in route["entries"]}
        for route in routes
    }
