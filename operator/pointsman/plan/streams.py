"""What live queries show of a candidate, minute by minute, added up over gateways and kept through restarts.

Only whole minutes count, and each once. A new candidate starts anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from pointsman.core import guards
from pointsman.core.guards import Arm, Signal
from pointsman.plan.measured import Streams
from pointsman.plan.observed import Deployment
from pointsman.plan.reported import Gateway

GRACE = 1
"""Minutes that a minute is left alone once it is over, so that every gateway has told of it."""
MOST_GATEWAYS = 256
"""How many processes of gateways are remembered, the ones seen last."""


def followed(seen: Deployment, candidate: str, control: str, now: datetime) -> Streams:
    """Return what is known after all minutes that are over: of the same pair, or of another one from its beginning."""
    before, last = seen.streams, _minute(now) - GRACE
    if (before.candidate, before.control) != (candidate, control):
        fresh = tuple(guards.guard(signal, ratio=_ratio(seen)) for signal in Signal)
        # What happened before it was looked at may be of another state of things.
        before = replace(before, candidate=candidate, control=control, minute=last - 1, guards=fresh)
    minutes = _minutes(seen.gateways)
    known = tuple(_of_the_spec(guard, seen) for guard in before.guards)
    for minute in range(max(before.minute, last - 15) + 1, last):
        ours, theirs = minutes.get((minute, candidate), Arm()), minutes.get((minute, control), Arm())
        known = tuple(guards.observe(guard, minute, ours, theirs) for guard in known)
    after = replace(before, guards=known, minute=max(before.minute, last - 1))
    return _counted(after, seen.gateways, {index.name for index in seen.facts.indexes})


def over(before: Streams) -> Streams:
    """Return what is remembered once nobody is watched any more: how much was answered, and nothing of the pair."""
    return replace(before, candidate="", control="", guards=()) if before.candidate else before


def is_worth_writing(before: Streams, after: Streams) -> bool:
    """Return whether there is something new to remember: another pair, or another minute."""
    return (before.candidate, before.control, before.minute) != (after.candidate, after.control, after.minute)


def _minutes(gateways: Iterable[Gateway]) -> dict[tuple[int, str], Arm]:
    """Return what each index did in each minute, over all gateways, asked for real or beside."""
    found: dict[tuple[int, str], Arm] = {}
    for gateway in gateways:
        for said in gateway.minutes:
            place = (_minute(said.at), said.index)
            found[place] = found.get(place, Arm()) + said.arm
    return found


def _counted(before: Streams, gateways: Iterable[Gateway], known: set[str]) -> Streams:
    """Add what gateways answered since they were last looked at; a process that ended takes nothing away."""
    counted, answered = dict(before.counted), dict(before.answered)
    for gateway in gateways:
        if not gateway.process:
            continue
        told = counted.pop(gateway.process, {})
        for index, total in gateway.totals.items():
            answered[index] = answered.get(index, 0) + max(0, total - told.get(index, 0))
        counted[gateway.process] = dict(gateway.totals)
    kept = dict(list(counted.items())[-MOST_GATEWAYS:])
    return replace(before, counted=kept, answered={name: count for name, count in answered.items() if name in known})


def _of_the_spec(guard: guards.Guard, seen: Deployment) -> guards.Guard:
    """Return a guard, or a new one where an edit has changed what it asks: evidence of the one is none of the other."""
    is_of_latency, ratio = guard.signal is Signal.LATENCY, _ratio(seen)
    return guards.guard(Signal.LATENCY, ratio=ratio) if is_of_latency and guard.ratio != ratio else guard


def _ratio(seen: Deployment) -> float:
    gate = seen.spec.gates.latency
    return guards.RATIO if gate is None else float(gate.p95_ratio_at_most)


def _minute(at: datetime) -> int:
    return int(at.timestamp() // 60)
