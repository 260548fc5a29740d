"""Asking for judged queries to be answered now, and what the gates say then."""

from __future__ import annotations

from pointsman.api.conditions import Reason
from pointsman.api.deployment import GateStatus, Verdict
from pointsman.cli import deployments, explain, resources, session, status, writing
from pointsman.cli.session import Session
from pointsman.cli.status import Judgement, Outcome
from pointsman.cluster.resources import DEPLOYMENT, EVALUATE_ANNOTATION, Resource
from pointsman.errors import Terminal

CODES = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.INCONCLUSIVE: 3, Verdict.ERROR: 3}
"""By the verdict of the gate. One that cannot tell is neither a yes nor a no."""


def run(current: Session, reference: str, keep_waiting: bool, timeout: str, as_patch: bool) -> int:
    """Ask for an evaluation and, unless told not to, wait for its verdict; return the exit code."""
    seconds = resources.seconds(timeout)
    seen = deployments.read(current, reference)
    if seen.spec.gates.evaluation is None:
        message = f"spec.gates.evaluation of {seen.name} is not there: it names no queries to ask"
        raise Terminal(Reason.NO_EVALUATION_GATE, message)
    asked = current.world.now().isoformat()
    writing.annotate(current, seen, EVALUATE_ANNOTATION, asked, as_patch)
    if as_patch:
        return 0
    writing.tell(f"asked for an evaluation of {seen.name}")
    if not keep_waiting:
        return 0

    def look() -> tuple[Resource, Judgement]:
        resource = status.look_again(current, DEPLOYMENT, seen.name)
        is_handled = deployments.of(resource).status.evaluation_handled == asked
        outcome = Outcome.READY if is_handled else Outcome.PENDING
        return resource, Judgement(outcome, "", "" if is_handled else "the operator has not answered yet")

    resource, judgement = status.wait(current, look(), look, lambda _: None, seconds)
    if judgement.outcome is Outcome.PENDING:
        session.console(to_stderr=True).print(f"not evaluated after {timeout}: {judgement.message}", soft_wrap=True)
        return status.EXIT_CODES[judgement.outcome]
    after = deployments.of(resource)
    table = explain.gates(after, current.world.now())
    if table is not None:
        session.console().print(table)
    found = next((gate for gate in after.status.gates if gate.name == "evaluation"), None)
    return _code(found)


def _code(found: GateStatus | None) -> int:
    """Return the exit code by what the gate says; none says it where there is nothing to compare with."""
    if found is None:
        session.console(to_stderr=True).print("there is no other index to compare with yet")
        return CODES[Verdict.INCONCLUSIVE]
    return CODES[found.verdict]
