"""Whatever people edit and whatever happens on the way: what holds of every plan of a migration under live queries."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.plan import builders as b
from tests.plan import fleet
from tests.plan.fleet import FakeGateway
from tests.plan.model import Model

from pointsman.api.conditions import ConditionType, Reason
from pointsman.api.deployment import DeploymentStatus, Role
from pointsman.plan import actions, words
from pointsman.plan.facts import Facts
from pointsman.plan.observed import Deployment, Plan, Presence

MINUTE = timedelta(minutes=1)
STEPS: list[list[dict[str, Any]]] = [
    [],
    fleet.ROAD,
    [{"weight": 5}, {"weight": 20}, {"weight": 100}],
    [{"weight": 10}, {"pause": {"name": "look"}}, {"weight": 50}, {"pause": {"for": "1h"}}, {"weight": 100}],
    [
        {"approval": {"name": "go-wide", "timeout": "1h", "onTimeout": "Hold"}},
        {"shadow": {"for": "1m"}},
        {"weight": 100},
    ],
]
GATES: list[dict[str, Any]] = [{}, fleet.EVALUATED, fleet.EVALUATED | fleet.CANARIES]
VERSIONS = st.sampled_from(["v7", "v8", "v9"])
VERDICTS = st.sampled_from([fleet.PASSES, fleet.PASSES, fleet.FAILS, fleet.UNDECIDED])


class Journey(RuleBasedStateMachine):
    """A deployment that serves v7 behind two gateways, and all that may come."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.before = Facts()
        self.lost: set[str] = set()

    @initialize()
    def begin(self) -> None:
        self.model = Model(gateways=[FakeGateway("g1"), FakeGateway("g2")], spec={"version": "v7"})
        self.model.settle()

    # What people do.

    @rule(version=VERSIONS)
    def want(self, version: str) -> None:
        self.model.edit(version=version)

    @rule(steps=st.sampled_from(STEPS), policy=st.sampled_from(["RollBack", "RollBack", "Hold"]))
    def plan_steps(self, steps: list[dict[str, Any]], policy: str) -> None:
        self.model.edit(strategy={"steps": steps, "onFailure": policy})

    @rule(asked=st.sampled_from(GATES))
    def ask_gates(self, asked: dict[str, Any]) -> None:
        self.model.edit(gates=asked)

    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.model.edit(suspend=suspend)

    @rule(number=st.integers(0, 2))
    def retry(self, number: int) -> None:
        self.model.edit(retry=str(number))

    @rule(parameters=st.sampled_from(["p1", "p1", "p2"]))
    def tune(self, parameters: str) -> None:
        self.model.edit(parameters=parameters)

    @rule(number=st.sampled_from([None, None, 1]))
    def pin(self, number: int | None) -> None:
        self.model.edit(snapshot=number)

    @rule(after=st.sampled_from(["0s", "336h"]), mode=st.sampled_from(["Automatic", "Supervised"]))
    def retire(self, after: str, mode: str) -> None:
        self.model.edit(retire={"after": after, "mode": mode})

    @rule(answers=st.sampled_from(["go-wide", "look", "evaluation", "canaries", "deadline", "retire"]))
    def approve(self, answers: str) -> None:
        self.model.decide(answers=answers)

    @rule(decision=st.sampled_from(["Abort", "AcceptLag"]), version=VERSIONS)
    def decide(self, decision: str, version: str) -> None:
        self.model.decide(decision, version=version)

    @rule()
    def reject(self) -> None:
        self.model.decide("Reject", answers="evaluation")

    @rule()
    def withdraw(self) -> None:
        self.model.approvals.clear()

    # What happens.

    @rule(version=VERSIONS, verdict=VERDICTS)
    def judge(self, version: str, verdict: tuple[float, float, float]) -> None:
        self.model.verdicts[version] = verdict

    @rule(version=VERSIONS, share=st.sampled_from([0.0, 0.0, 0.5]))
    def fail(self, version: str, share: float) -> None:
        self.model.errors[version] = share

    @rule(version=VERSIONS)
    def break_model(self, version: str) -> None:
        self.model.break_model(version)
        if version == "v7" and self.model.facts.serving is not None:
            self.model.gateways[0].problems = {self.model.facts.serving.name: "it does not answer"}

    @rule()
    def mend_models(self) -> None:
        self.model.failing.clear()
        self.model.gateways[0].problems = {}

    @rule(version=VERSIONS, steps=st.sampled_from(STEPS), asked=st.sampled_from(GATES))
    def migrate(self, version: str, steps: list[dict[str, Any]], asked: dict[str, Any]) -> None:
        """Go half a way, so that what comes next comes in the middle of it."""
        self.model.edit(version=version, strategy={"steps": steps}, gates=asked, suspend=False)
        self.live(4 * MINUTE)

    @rule(answers=st.sampled_from(["go-wide", "look"]))
    def let_go_on(self, answers: str) -> None:
        self.model.decide(answers=answers)
        self.live(2 * MINUTE)

    @rule(span=st.sampled_from([MINUTE, 5 * MINUTE, 12 * MINUTE]))
    def live(self, span: timedelta) -> None:
        end = self.model.now + span
        while self.model.now < end:
            for gateway in self.model.gateways:
                gateway.answer(1000, self.model.now, self.model.errors)
            self.model.wait(MINUTE)
            self.turns(4)

    @rule(span=st.sampled_from([b.HOUR, 3 * b.HOUR, 25 * b.HOUR, 15 * b.DAY]))
    def wait(self, span: timedelta) -> None:
        self.model.wait(span)
        self.turns(4)

    @rule()
    def change_source(self) -> None:
        self.model.change_source()

    @rule(number=st.integers(0, 1), is_late=st.booleans())
    def delay(self, number: int, is_late: bool) -> None:
        self.model.gateways[number].is_late = is_late

    @rule(number=st.integers(0, 1), is_silent=st.booleans())
    def silence(self, number: int, is_silent: bool) -> None:
        self.model.gateways[number].is_silent = is_silent

    @rule(number=st.integers(0, 1))
    def restart_gateway(self, number: int) -> None:
        self.model.gateways[number].restart()

    @rule()
    def restart_operator(self) -> None:
        self.model.work.clear()
        self.model.epoch += 1

    @rule()
    def wipe_status(self) -> None:
        self.model.status = DeploymentStatus()

    @rule(number=st.integers(0, 3))
    def lose(self, number: int) -> None:
        there = sorted(self.model.database)
        if number < len(there):
            self.lost.add(there[number])
            self.model.lose(there[number])

    @rule(number=st.integers(0, 3))
    def tamper(self, number: int) -> None:
        there = sorted(self.model.database)
        if number < len(there):
            self.model.database[there[number]].missing += 3

    @rule(count=st.integers(1, 6))
    def turns(self, count: int) -> None:
        for _ in range(count):
            self.model.turn_dataset()
            self.turn()
            self.model.finish()

    def turn(self) -> None:
        seen, before = self.model.see(), copy.copy(self.model.facts)
        plan = self.model.turn()
        self.is_sound(plan, before)
        after = self.model.facts
        there = {name for name, found in seen.physical.items() if found.presence is Presence.PRESENT}
        for name, weight in after.weights.items():
            if weight > before.weights.get(name, 0) and name not in (before.serving.name if before.serving else "",):
                # More queries go only to what was verified once and found in this run.
                record = seen.records.get(name)
                assert record is not None and record.verified_at is not None and name in there
        # Nobody is rejected for the silence of what serves: for its own failure, or by a person.
        for rejection in set(after.rejected) - set(before.rejected):
            if rejection.reason is Reason.DEADLINE_EXCEEDED and "has not answered since" in rejection.message:
                candidate = None if before.rollout is None else before.rollout.index
                assert words.failure(seen.work, f"probe of {candidate}") is not None
        # No query goes to what was rejected under this value of retry, unless all else is gone.
        serving = before.serving
        is_alone = serving is None or serving.name not in there
        for name, weight in after.weights.items():
            index = after.get(name)
            assert index is not None
            if before.weights.get(name, 0) == 0 and weight and index.proven_at is None and not is_alone:
                assert before.is_rejected(index.recipe, index.parameters, seen.spec.retry) is None
        self.weights_rise(seen, before, after)
        aborted = {
            a.spec.version for a in seen.approvals if a.spec.decision == "Abort" and self.model.now < a.spec.expires_at
        }
        for name, weight in after.weights.items():
            index = after.get(name)
            # What serves takes back what a migration that is called off had: there is nobody else.
            if index is not None and index.version in aborted and index.name != (serving.name if serving else ""):
                assert weight <= before.weights.get(name, 0)

    def weights_rise(self, seen: Deployment, before: Facts, after: Facts) -> None:
        """Weights only rise until a migration is over, and only from what every gateway that answers serves."""
        old, new = before.rollout, after.rollout
        if old is None or new is None or (old.index, old.begun_at) != (new.index, new.begun_at):
            return
        assert new.weight >= old.weight
        for gateway in seen.gateways if new.weight > old.weight else ():
            is_there = (gateway.epoch, gateway.revision) == (before.epoch, before.route)
            serving = "" if before.serving is None else before.serving.name
            is_well = not gateway.problem or gateway.problem == gateway.problems.get(serving)
            assert not gateway.is_ready or (is_there and is_well)

    def is_sound(self, plan: Plan[DeploymentStatus], before: Facts) -> None:
        irreversible = [action for action in plan.actions if isinstance(action, actions.IRREVERSIBLE)]
        assert irreversible == [] or irreversible == [plan.actions[-1]]
        kind, reason, message = b.goal(plan.status)
        assert message and "; ;" not in message and ": ;" not in message
        assert plan.look_again <= 5 * MINUTE
        assert plan.actions or plan.look_again >= timedelta(seconds=1)
        step = plan.status.step
        if kind is ConditionType.RECONCILING and step is not None and step.index is not None:
            # Every wait on the road says what it waits for, and until when.
            assert step.waiting_for or reason in (Reason.SHIFTING, Reason.SUSPENDED, Reason.INDEX_LOST), message
            if reason in (Reason.SHADOWING, Reason.PAUSED, Reason.A_PERSON_IS_ASKED, Reason.GATES_UNDECIDED):
                assert step.deadline is not None or step.until is not None
        if kind is ConditionType.STALLED and reason in (Reason.HELD, Reason.TARGET_REJECTED, Reason.TARGET_ABORTED):
            assert any(exit_ in message for exit_ in ("approve", "retry", "until"))

    @invariant()
    def weights_are_whole(self) -> None:
        known = self.model.facts
        assert sum(known.weights.values()) in ((100,) if known.serving is not None else (0,))
        assert all(0 < weight <= 100 for weight in known.weights.values())
        route = self.model.status.route
        if route is not None:
            assert sum(entry.weight for entry in route.entries) == 100
            assert route.shadow is None or route.shadow.index in {entry.index for entry in route.entries}

    @invariant()
    def what_may_be_asked_is_there(self) -> None:
        for gateway in self.model.gateways:
            for index in gateway.weights:
                assert index in self.model.database or index in self.lost, f"{index} was deleted under {gateway.name}"

    def teardown(self) -> None:
        """Let all be well again: what is wanted is where a direct way to it would have ended."""
        model = self.model
        if not model.gateways:
            return
        for gateway in model.gateways:
            gateway.is_late = gateway.is_silent = False
            gateway.problems = {}
        model.failing.clear()
        model.errors, model.verdicts = {}, {}
        model.approvals.clear()
        model.evaluation = model.canaries = None
        model.edit(
            suspend=False, retry="last", gates={}, strategy={"steps": [{"weight": 10}, {"weight": 100}]},
            check={"every": "1m"}, retire={"after": "336h"}, burnIn={"for": "1h"},
        )  # fmt: skip
        self.rest()
        # What a silent gateway tells of only now was true, and may have had its version refused.
        model.edit(retry="after that")
        self.rest()
        for _ in range(3):
            model.settle()
            model.wait(2 * b.HOUR)
        model.settle()
        direct = Model(spec=dict(model.spec), parameters=model.parameters, now=model.now, gateways=[FakeGateway("g1")])
        direct.snapshots, direct.read, direct.source = list(model.snapshots), model.read, model.source
        direct.settle()
        assert self._ends(model) == self._ends(direct)
        assert b.goal(model.status)[:2] == (ConditionType.READY, Reason.UP_TO_DATE)
        status = model.status
        assert (model.turn().actions, model.status) == ((), status)

    def rest(self) -> None:
        for _ in range(5):
            for _ in range(12):
                self.turns(1)
            self.model.wait(11 * MINUTE)

    def _ends(self, model: Model) -> tuple[str, str, int | None, dict[str, int]]:
        found = model.facts.serving
        assert found is not None and found.role is Role.SERVING
        return found.recipe, found.parameters, found.frozen, model.weights


TestJourney = Journey.TestCase
TestJourney.settings = settings(
    deadline=None, max_examples=15, stateful_step_count=20, suppress_health_check=list(HealthCheck)
)
