"""How long does the road to a version take at least?"""

from __future__ import annotations

from datetime import timedelta

from pointsman.api import base
from pointsman.plan import rollout
from pointsman.plan.observed import Deployment


def of_road(seen: Deployment) -> str:
    """Return how long the road takes at least, as a sum: `12m: 2m shadow + 10m pause`, then what nobody can foresee."""
    parts: list[tuple[str, str]] = []
    people = 0
    for step in rollout.road(seen):
        if step.shadow is not None:
            parts.append((step.shadow.for_, "shadow"))
        elif step.pause is not None and step.pause.for_ is not None:
            parts.append((step.pause.for_, "pause"))
        elif step.weight is None:
            people += 1
    total = sum((base.parse_duration(span) for span, _ in parts), timedelta(0))
    said = f"at least {_short(total)}" + (": " + " + ".join(f"{s} {what}" for s, what in parts) if parts else "")
    asked = f", and {people} {'answer' if people == 1 else 'answers'} of people" if people else ""
    return f"{said}{asked}"


def _short(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    said = "".join(f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (seconds, "s")) if n)
    return said or "no time"
