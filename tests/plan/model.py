"""A small world that carries plans out: a store, a database and one runner, all in memory and without any content.

It knows what the effects of actions are, and nothing of why they are asked for. Work that is started runs until
`finish` is called, unless the world is told to do it at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, assert_never

from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.fleet import FakeGateway

from pointsman.api import dataset as dataset_api
from pointsman.api import deployment as deployment_api
from pointsman.api.conditions import Reason
from pointsman.api.deployment import Role
from pointsman.core.recipes import Recipe
from pointsman.core.rows import Cursor
from pointsman.plan import actions, dataset, deployment, measured, observed
from pointsman.plan.facts import Facts, IndexRecord
from pointsman.plan.measured import Canaries, Evaluation, Streams, with_history
from pointsman.plan.observed import Approval, Embedded, Physical, Plan, Presence, QueriesView, Snapshot
from pointsman.plan.tallies import Scores
from pointsman.plan.tasks import (
    AskCanaries,
    Build,
    Check,
    Clean,
    Embed,
    Evaluate,
    Failure,
    Follow,
    Key,
    Phase,
    Probe,
    ReadQueries,
    Refresh,
    Repair,
    Task,
    Work,
)

RECIPES = {"v7": b.V7, "v8": b.V8, "v9": b.V9}


@dataclass
class Collection:
    """What the database holds under one name: a snapshot, and how many rows were tampered with since."""

    snapshot: int
    is_ours: bool = True
    missing: int = 0

    @property
    def rows(self) -> int:
        return b.rows(self.snapshot) - self.missing


@dataclass
class Model:
    """A dataset and a deployment, with all that they stand on."""

    now: datetime = b.NOW
    versions: tuple[str, ...] = ("v7", "v8", "v9")
    dataset_spec: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=lambda: {"version": "v7"})
    parameters: str = "p1"
    address: str = "memory:"
    """The database that the spec names; all others are empty."""
    generation: int = 1
    source: int = 1
    """What the source holds, as a number that changes with it."""
    read: int = 0
    asked: str = ""
    snapshots: list[Snapshot] = field(default_factory=list)
    pins: dict[str, Recipe] = field(default_factory=dict)
    embedded: dict[str, list[Embedded]] = field(default_factory=dict)
    dataset_status: dataset_api.DatasetStatus = field(default_factory=dataset_api.DatasetStatus)
    status: deployment_api.DeploymentStatus = field(default_factory=deployment_api.DeploymentStatus)
    finalizers: set[Key] = field(default_factory=set)
    deleting: dict[Key, datetime] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    revision: int = 0
    records: dict[str, IndexRecord] = field(default_factory=dict)
    database: dict[str, Collection] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    published: dict[str, str] | None = None
    work: dict[str, Work] = field(default_factory=dict)
    failing: dict[str, Failure] = field(default_factory=dict)
    """What fails, by kind of task and version: `Build v8`."""
    uid: str = "u2"
    made_at: datetime = b.NOW - 2 * b.HOUR
    started: datetime = b.NOW - 2 * b.HOUR
    epoch: int = 1
    gateways: list[FakeGateway] = field(default_factory=list)
    query_sets: dict[str, QueriesView] = field(default_factory=fleet.sets)
    verdicts: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """What judged queries show of a version, whatever it is compared with; all else passes."""
    lacking: set[str] = field(default_factory=set)
    """The versions that do not find what one of their canaries must."""
    errors: dict[str, float] = field(default_factory=dict)
    """The share of a version's live queries that fails."""
    drill_token: str = ""
    approvals: dict[str, Approval] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    stable: Evaluation | None = None
    canaries: Canaries | None = None
    streams: Streams = field(default_factory=Streams)
    streams_revision: int = 0
    scores: Scores = field(default_factory=Scores)
    scores_revision: int = 0
    is_adopting: bool = False
    """Whether a gateway has adopted another route since the last plan."""
    probes: dict[str, measured.Probe] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    """By version, how far its model has moved the pinned texts."""
    trace: list[str] = field(default_factory=list)

    # What is seen.

    def see_dataset(self) -> observed.Dataset:
        facts = self.facts
        pinned = self.spec.get("snapshot")
        wanted = self.spec["version"]
        retained = [i.version for i in facts.indexes if i.role is Role.RETAINED]
        needs = [wanted, *([facts.serving.version] if facts.serving else [])]
        cursors = {r.cursor.snapshot for r in self.records.values() if r.cursor}
        frozen = {i.frozen for i in facts.indexes if i.frozen is not None}
        user = observed.User(
            name="papers",
            versions=tuple(dict.fromkeys([*needs, *retained])),
            needs=tuple(dict.fromkeys(needs)),
            recipes=tuple(sorted({i.recipe for i in facts.indexes})),
            snapshots=tuple(sorted(cursors | frozen | ({pinned} if pinned else set()))),
            pinned=((self.pins[wanted].key, pinned),) if pinned and wanted in self.pins else (),
        )
        return b.dataset(
            spec=b.dataset_spec(*self.versions, **self.dataset_spec),
            generation=self.generation,
            status=self.dataset_status,
            has_finalizer=b.DATASET in self.finalizers,
            deleting_since=self.deleting.get(b.DATASET),
            refresh_token=self.asked,
            snapshots=tuple(self.snapshots),
            pins=dict(self.pins),
            recipes={name: RECIPES[name] for name in self.versions},
            embedded={key: tuple(found) for key, found in self.embedded.items()},
            users=(user,) if b.DEPLOYMENT in self.finalizers else (),
            work=self._work(b.DATASET),
        )

    def see(self) -> observed.Deployment:
        facts = self.facts
        return b.deployment(
            fresh=True,
            uid=self.uid,
            generation=self.generation,
            spec=b.spec(self.spec["version"], **{k: v for k, v in self.spec.items() if k != "version"}),
            status=self.status,
            has_finalizer=b.DEPLOYMENT in self.finalizers,
            deleting_since=self.deleting.get(b.DEPLOYMENT),
            dataset=b.view(
                declared=self.versions,
                pins=dict(self.pins),
                snapshots=tuple(self.snapshots),
                embedded={key: tuple(found) for key, found in self.embedded.items()},
            ),
            facts=facts,
            revision=self.revision,
            records={i.name: self.records[i.name] for i in facts.indexes if i.name in self.records},
            physical={i.name: self._physical(i.name) for i in facts.indexes},
            parameters=self.parameters,
            address=self.address,
            published=self.published,
            work=self._work(b.DEPLOYMENT),
            drill_token=self.drill_token,
            approvals=tuple(self.approvals.values()),
            gateways=tuple(gateway.seen() for gateway in self.gateways),
            query_sets=self.query_sets,
            evaluation=self.evaluation,
            stable=self.stable,
            canaries=self.canaries,
            probes=self.probes,
            streams=self.streams,
            streams_revision=self.streams_revision,
            days={f"{g.name}/{g.process}": tuple(g.days) for g in self.gateways if g.days and not g.is_silent},
            scores=self.scores,
            scores_revision=self.scores_revision,
            made_at=self.made_at,
            started=self.started,
            epoch=self.epoch,
            holder=f"operator-{self.epoch}",
        )

    def _physical(self, name: str) -> Physical:
        found = self.database.get(name)
        if found is None or self.address != "memory:":
            return b.ABSENT
        return Physical(Presence.PRESENT, found.rows) if found.is_ours else b.FOREIGN

    def _work(self, owner: Key) -> tuple[Work, ...]:
        return tuple(work for work in self.work.values() if work.task.owner == owner)

    # What is done.

    def turn_dataset(self) -> Plan[dataset_api.DatasetStatus]:
        plan = dataset.plan(self.see_dataset(), self.now)
        for action in plan.actions:
            self.apply(action)
        self.dataset_status = plan.status
        return plan

    def turn(self) -> Plan[deployment_api.DeploymentStatus]:
        plan = deployment.plan(self.see(), self.now)
        for action in plan.actions:
            self.apply(action)
        self.status = plan.status
        self.trace += b.kinds(action for action in plan.actions if not b.is_probe(action))
        before = [gateway.route for gateway in self.gateways]
        for gateway in self.gateways:
            gateway.look(self.uid, self.status.route, b.DEPLOYMENT in self.deleting)
        self.is_adopting = before != [gateway.route for gateway in self.gateways]
        return plan

    def settle(self, turns: int = 60) -> list[str]:
        """Let everything happen until nothing more does; return what the deployment's plans did."""
        start = len(self.trace)
        for _ in range(turns):
            acted = self.turn_dataset().actions if b.DATASET in self.finalizers or not self.deleting else ()
            acted += self.turn().actions if b.DEPLOYMENT in self.finalizers or not self.deleting else ()
            finished = self.finish()
            if not acted and not finished and not self.is_adopting:
                return self.trace[start:]
        raise AssertionError(f"no rest after {turns} turns; the last actions were {self.trace[-12:]}")

    def finish(self, but: type[Task] | None = None) -> bool:
        """End all work that runs, but for tasks of one kind."""
        running = [work for work in self.work.values() if work.phase is Phase.RUNNING]
        running = [work for work in running if but is None or not isinstance(work.task, but)]
        for work in running:
            self.work[work.task.subject] = self._ended(work)
        return bool(running)

    def _ended(self, work: Work) -> Work:
        name = f"{type(work.task).__name__} {getattr(work.task, 'version', '')}".strip()
        failure = self.failing.get(name) or self._refused(work.task) or self._obstacle(work.task)
        if failure is not None:
            failure = dataclasses.replace(failure, retry_at=self.now + timedelta(seconds=30))
            return dataclasses.replace(work, phase=Phase.FAILED, failure=failure)
        self._carry_out(work.task)
        return dataclasses.replace(work, phase=Phase.DONE, failure=None, finished_at=self.now)

    def _refused(self, task: Task) -> Failure | None:
        """Return how asking both of a pair fails, where one of their models answers nobody."""
        sides = (task.candidate, task.serving) if isinstance(task, Evaluate | AskCanaries) else ()
        failures = (self.failing.get(f"Probe {side.version}") for side in sides if side is not None)
        return next((failure for failure in failures if failure is not None), None)

    def _obstacle(self, task: Task) -> Failure | None:
        """Return what the database answers where an index is missing, or another's."""
        if isinstance(task, Refresh | Embed | Clean | Evaluate | AskCanaries | ReadQueries | Probe):
            return None
        found = self.database.get(task.index)
        if found is not None and not found.is_ours:
            return b.failure(Reason.COLLECTION_FOREIGN, f"{task.index} is not ours", is_terminal=True)
        if found is None and not isinstance(task, Build):
            return b.failure(Reason.INDEX_LOST, f"index {task.index} is gone from the database")
        return None

    def _carry_out(self, task: Task) -> None:
        match task:
            case Refresh():
                if self.read != self.source:
                    number = self.snapshots[-1].number + 1 if self.snapshots else 1
                    self.snapshots.append(Snapshot(number, number, number, f"s{number}", self.now))
                    self.read = self.source
            case Embed():
                records = [*self.embedded.get(task.recipe, []), *b.embedded(task.snapshot)]
                self.embedded[task.recipe] = sorted(records, key=lambda e: e.snapshot)
            case Clean():
                self.snapshots = [s for s in self.snapshots if s.number in task.keep]
                self.embedded = {
                    key: [e for e in found if e.snapshot in task.keep]
                    for key, found in self.embedded.items()
                    if key in task.recipes
                }
            case Build() | Repair():
                self.database[task.index] = Collection(task.snapshot)
                self._verified(task.index, task.snapshot)
            case Follow():
                record, found = self.records[task.index], self.database[task.index]
                found.snapshot = task.snapshot
                cursor = Cursor(task.snapshot, task.snapshot)
                self.records[task.index] = dataclasses.replace(
                    record, cursor=cursor, rows=b.rows(task.snapshot), pending=None, differences=found.missing
                )
            case Check():
                record, found = self.records[task.index], self.database[task.index]
                self.records[task.index] = dataclasses.replace(
                    record, checked_at=self.now, rows=b.rows(task.snapshot), differences=found.missing
                )
            case Evaluate(gate="stable"):
                self.stable = with_history(self._evaluated(task), self.stable)
            case Evaluate():
                self.evaluation = with_history(self._evaluated(task), self.evaluation)
            case AskCanaries():
                other = task.serving.index if task.serving is not None else ""
                self.canaries = fleet.canaries(
                    found=4 if task.candidate.version in self.lacking else 5,
                    candidate=task.candidate.index,
                    version=task.candidate.version,
                    serving=other,
                    snapshot=task.snapshot,
                    measured_at=self.now,
                )
            case ReadQueries() | Probe():
                raise AssertionError("a deployment reads no query set")
            case _:
                assert_never(task)

    def _evaluated(self, task: Evaluate) -> Evaluation:
        other = task.serving.index if task.serving is not None else ""
        verdict = self.verdicts.get(task.candidate.version, fleet.PASSES) if other else (None, None, None)
        return fleet.evaluation(
            verdict,
            candidate=task.candidate.index,
            version=task.candidate.version,
            serving=other,
            against=task.serving.version if task.serving is not None else "",
            snapshot=task.snapshot,
            documents=100,
            measured_at=self.now,
        )

    def _verified(self, name: str, snapshot: int) -> None:
        self.records[name] = IndexRecord(
            cursor=Cursor(snapshot, snapshot),
            rows=b.rows(snapshot),
            digest=f"d{snapshot}",
            verified_at=self.now,
            checked_at=self.now,
        )

    def apply(self, action: actions.Action) -> None:
        match action:
            case actions.AddFinalizer(owner):
                self.finalizers.add(owner)
            case actions.RemoveFinalizer(owner):
                self.finalizers.discard(owner)
            case actions.PinRecipe(_, version, recipe):
                self.pins.setdefault(version, recipe)
            case actions.StartWork(Probe() as task, generation):
                # Asking an index is over at once: it changes nothing, and is told elsewhere.
                work = Work(task, generation, Phase.DONE, finished_at=self.now)
                failure = self.failing.get(f"Probe {task.side.version}")
                if failure is None:
                    moved = self.moved.get(task.side.version, 0.0)
                    self.probes[task.side.index] = b.probe(task.side.index, model_distance=moved, measured_at=self.now)
                else:
                    failure = dataclasses.replace(failure, retry_at=self.now + timedelta(seconds=30))
                    work = Work(task, generation, Phase.FAILED, failure=failure)
                self.work[task.subject] = work
            case actions.StartWork(task, generation):
                before = self.work.get(task.subject)
                if before is None or before.phase is not Phase.RUNNING:
                    failure = before.failure if before is not None and before.generation == generation else None
                    self.work[task.subject] = Work(task, generation, Phase.RUNNING, failure=failure)
            case actions.CancelWork(owner, subject):
                for name in [n for n, w in self.work.items() if w.task.owner == owner and subject in ("", n)]:
                    del self.work[name]
            case actions.RecordFacts(_, facts, after):
                assert after == self.revision, "facts were written after others that the plan had not seen"
                self.facts, self.revision = facts, after + 1
            case actions.RecordStreams(_, streams, after):
                assert after == self.streams_revision, "counts were written after others that the plan had not seen"
                self.streams, self.streams_revision = streams, after + 1
            case actions.RecordScores(_, scores, after):
                assert after == self.scores_revision, "scores were written after others that the plan had not seen"
                self.scores, self.scores_revision = scores, after + 1
            case actions.PublishRoute(_, _, data):
                self.published = dict(data)
            case actions.WithdrawRoute():
                self.published = None
            case actions.PublishAlias(_, alias, index):
                self.aliases[alias] = index
            case actions.WithdrawAlias(_, alias):
                self.aliases.pop(alias, None)
            case actions.DeleteIndex(_, index):
                found = self.facts.get(index)
                assert found is not None and found.role is Role.RETIRING, "an index was deleted that does not retire"
                assert self.published is None or self.published["collection"] != index, "what serves was deleted"
                routed = [name for gateway in self.gateways for name in gateway.weights]
                assert index not in routed, "a gateway may search what was deleted"
                del self.database[index]
            case actions.ForgetFacts():
                self.facts, self.revision, self.records = Facts(), 0, {}
                self.evaluation = self.stable = self.canaries = None
                self.streams, self.streams_revision = Streams(), 0
                self.scores, self.scores_revision = Scores(), 0
            case actions.DropStore():
                self.snapshots, self.pins, self.embedded = [], {}, {}
            case _:
                assert_never(action)

    # What people and the world do.

    def edit(self, **changes: Any) -> None:
        """Edit the deployment's spec; None unsets a field, `parameters` and `address` stand for the database's."""
        self.parameters = changes.pop("parameters", self.parameters)
        self.address = changes.pop("address", self.address)
        self.spec = {k: v for k, v in {**self.spec, **changes}.items() if v is not None}
        self.generation += 1

    def break_model(self, version: str) -> None:
        """Have the endpoint of a version's model refuse whatever is to be embedded, until it is mended."""
        dead = b.failure(Reason.MODEL_UNREACHABLE, f"the endpoint of {version} fails with HTTP 500")
        self.failing |= {f"Probe {version}": dead, f"Embed {version}": dead}

    def mend_model(self, version: str) -> None:
        """Have it answer again."""
        for kind in ("Probe", "Embed"):
            del self.failing[f"{kind} {version}"]

    def change_source(self) -> None:
        """Change the source, and ask for it to be read."""
        self.source += 1
        self.asked = str(self.source)

    def wait(self, span: timedelta) -> None:
        self.now += span

    def live(self, span: timedelta, queries: int = 1000, turns: int = 60) -> list[str]:
        """Let time pass minute by minute, under queries; return what the deployment's plans did."""
        start, end = len(self.trace), self.now + span
        while self.now < end:
            for gateway in self.gateways:
                gateway.answer(queries, self.now, self.errors)
            self.now = min(end, self.now + timedelta(minutes=1))
            self.settle(turns)
        return self.trace[start:]

    def decide(self, decision: str = "Approve", **changes: Any) -> Approval:
        """Create an Approval of the plan and version of today, unless something else is named."""
        plan = {"plan": self.status.plan_hash or "none"} if decision == "Approve" else {}
        named = {"version": self.spec["version"], "at": self.now, "expires": self.now + b.DAY, **plan, **changes}
        name = f"{decision.lower()}-{len(self.approvals)}"
        self.approvals[name] = fleet.approval(decision, **{"name": name, **named})
        return self.approvals[name]

    def lose(self, name: str) -> None:
        """Drop a collection behind our back."""
        del self.database[name]

    @property
    def weights(self) -> dict[str, int]:
        """The share of the queries by version."""
        known = self.facts
        return {index.version: w for name, w in known.weights.items() if (index := known.get(name)) is not None}

    @property
    def serving(self) -> str:
        """What answers queries, as `v8@12`."""
        found = self.facts.serving
        if found is None:
            return ""
        cursor = self.records[found.name].cursor
        assert cursor is not None
        return f"{found.version}@{cursor.snapshot}" + (" frozen" if found.frozen is not None else "")

    def roles(self) -> list[str]:
        """Every index as people would list it: `v7 Retained @12`."""
        lines = []
        for index in self.facts.indexes:
            record = self.records.get(index.name)
            where = f" @{record.cursor.snapshot}" if record is not None and record.cursor is not None else ""
            lines.append(f"{index.version} {index.role}{where}{' frozen' if index.frozen is not None else ''}")
        return lines
