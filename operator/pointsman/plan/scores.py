"""Have the scores of the best answers shifted? Days as gateways tell of them, added up, compared, and said.

What is followed is the recipe that serves alone, from the first whole day after every gateway has taken that on. One
that serves no more is left alone, and goes on where it stood if it serves again. Nothing here moves a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from pointsman.api.conditions import Condition, ConditionType, Reason
from pointsman.core import shifts
from pointsman.core.shifts import Day, State, Watch
from pointsman.plan import traffic, words
from pointsman.plan.facts import Facts
from pointsman.plan.observed import Deployment
from pointsman.plan.tallies import Scores, Shift, Tally, Watched

GRACE = timedelta(hours=1)
"""How long a day is left open once it is over, so that every gateway has told of it, by whichever clock."""
PATIENCE = timedelta(hours=12)
"""The same while a gateway is silent."""
WRITTEN_EVERY = timedelta(hours=1)
"""How often counts of a day under way are written down: what a crash of the operator may cost."""
MOST_PROCESSES = 256
"""Processes of gateways that a day has room for; what further ones tell is passed over, and nothing counted twice."""


def followed(seen: Deployment, facts: Facts, now: datetime) -> Scores:
    """Return what is known after what gateways tell by now; the same again changes nothing."""
    known = {index.recipe for index in facts.indexes}
    kept = {recipe: watched for recipe, watched in seen.scores.watched.items() if recipe in known}
    scores = _turned(seen, facts, replace(seen.scores, watched=kept), now)
    return _closed(seen, _taken_in(seen, facts, scores, now), now)


def is_worth_writing(before: Scores, after: Scores, now: datetime) -> bool:
    """Return whether there is something new to remember: more than counts, or counts of an hour."""
    if after == before:
        return False
    if replace(after, open={}) != replace(before, open={}):
        return True
    return before.written_at is None or now - before.written_at >= WRITTEN_EVERY


def watch(seen: Deployment, facts: Facts) -> Watch | None:
    """Return what is known of the scores of what serves; None while there is no baseline of it."""
    serving = facts.serving
    found = None if serving is None else seen.scores.watched.get(serving.recipe)
    return None if found is None else found.watch


def condition(seen: Deployment, facts: Facts, now: datetime) -> Condition:
    """Return whether scores are steady: it says the same until that turns."""
    holds, reason, message = _said(seen, facts)
    return words.condition(ConditionType.SCORES_STEADY, holds, reason, message, seen.generation, now)


def _said(seen: Deployment, facts: Facts) -> tuple[bool | None, Reason, str]:
    serving, scores = facts.serving, seen.scores
    if serving is None:
        return None, Reason.NOTHING_SERVES, "no index serves yet"
    if not seen.gateways:
        return None, Reason.NO_GATEWAY, "no gateway is known to the operator, and nobody else counts scores"
    version, found = serving.version, scores.watched.get(serving.recipe, Watched())
    if scores.recipe != serving.recipe:
        message = f"the baseline of {version} begins once every gateway serves it alone and it is asked by texts"
        return None, Reason.LEARNING_SCORES, message
    if found.is_quiet and found.watch is None:
        message = (
            f"the last day of {version} had fewer than {shifts.SESSIONS} sessions and does not count; its baseline has "
            f"{len(found.days)} of {shifts.BASELINE_DAYS} days"
        )
        return None, Reason.TOO_FEW_SESSIONS, message
    if found.is_quiet:
        message = f"the last day of {version} had fewer than {shifts.SESSIONS} sessions, which says nothing"
        return None, Reason.TOO_FEW_SESSIONS, message
    if found.watch is None or found.watch.state is State.UNKNOWN:
        missing = shifts.BASELINE_DAYS - len(found.days) if found.watch is None else 0
        first = date.fromisoformat(scores.closed) + timedelta(days=missing + 2)
        message = (
            f"{version} is compared from {first} on at the earliest: its baseline takes {shifts.BASELINE_DAYS} whole "
            f"days of {shifts.SESSIONS} sessions or more"
        )
        return None, Reason.LEARNING_SCORES, message
    if found.shift is None:
        return True, Reason.SCORES_AS_USUAL, f"the best answers of {version} score as in its baseline"
    moved = ", ".join(f"{share} from {then:.0%} to {now:.0%}" for share, (then, now) in found.shift.shares.items())
    message = (
        f"the best answers of {version} score otherwise than in its baseline since {found.shift.since}: {moved}; see "
        f"whether queries or documents have changed, and evaluate {version}"
    )
    return False, Reason.SCORES_SHIFTED, message


def _turned(seen: Deployment, facts: Facts, scores: Scores, now: datetime) -> Scores:
    """Follow what serves now, once it serves alone at every gateway and one of them tells of scores."""
    serving = facts.serving
    if serving is None or serving.recipe == scores.recipe or not seen.gateways or not seen.days:
        return scores
    if facts.weights != {serving.name: 100} or not traffic.is_accepted(seen, facts):
        return scores
    watched = {serving.recipe: Watched(), **scores.watched}
    # Of the day under way some queries went elsewhere.
    return replace(scores, recipe=serving.recipe, since=now, closed=_iso(now), open={}, watched=watched)


def _taken_in(seen: Deployment, facts: Facts, scores: Scores, now: datetime) -> Scores:
    """Put down what each process tells of each day in place of what it told before."""
    ours = {index.name for index in facts.indexes if index.recipe == scores.recipe}
    # A clock may go ahead of ours, but not by more.
    latest = _iso(now + timedelta(days=1))
    days = {day: dict(tallies) for day, tallies in scores.open.items()}
    for process, told in seen.days.items():
        tallies: dict[str, Tally] = {}
        for each in told:
            if each.index in ours and scores.closed < each.date <= latest:
                tallies[each.date] = _sum([Tally(each.sessions, each.scores), *_listed(tallies, each.date)])
        for day, tally in tallies.items():
            found = days.setdefault(day, {})
            if process in found or len(found) < MOST_PROCESSES:
                found[process] = max([*_listed(found, process), tally], key=lambda tally: tally.answers)
    return replace(scores, open=days)


def _closed(seen: Deployment, scores: Scores, now: datetime) -> Scores:
    """Compare the days that are over, one after the other; a day of which nobody tells had no session."""
    grace = PATIENCE if any(not gateway.process for gateway in seen.gateways) else GRACE
    over = _iso(now - grace - timedelta(days=1))
    if not scores.recipe or over <= scores.closed:
        return scores
    watched = scores.watched.get(scores.recipe, Watched())
    due = sorted(day for day in scores.open if day <= over)
    for day in due:
        tally = _sum(scores.open[day].values())
        watched = _after(watched, Day(tally.sessions, tally.scores), day)
    if over not in due:
        if watched.is_quiet and not due:
            # There is nothing to write about one more day on which nobody asks.
            return scores
        watched = _after(watched, Day(0, {}), over)
    left = {day: tallies for day, tallies in scores.open.items() if day > over}
    return replace(scores, closed=over, open=left, watched={**scores.watched, scores.recipe: watched})


def _after(before: Watched, day: Day, at: str) -> Watched:
    if before.watch is None:
        days = (*before.days, day) if day.is_enough else before.days
        begun = shifts.watch(days)
        return replace(before, days=days if begun is None else (), watch=begun, is_quiet=not day.is_enough)
    after = shifts.follow(before.watch, day)
    return replace(before, watch=after, is_quiet=not day.is_enough, shift=_shift(before.shift, after, at))


def _shift(before: Shift | None, watch: Watch, at: str) -> Shift | None:
    match watch.state:
        case State.UNKNOWN:
            return before
        case State.STEADY:
            return None
        case State.SHIFTED:
            if before is not None and list(before.shares) == watch.shifted:
                return before
            since = at if before is None else before.since
            return Shift(since, {share: watch.shares[share] for share in watch.shifted})


def _sum(tallies: Iterable[Tally]) -> Tally:
    """Add tallies up. A session that asked at several gateways counts at each: they cannot compare whom they met."""
    sessions, scores = 0, dict[int, int]()
    for tally in tallies:
        sessions += tally.sessions
        for score, count in tally.scores.items():
            scores[score] = scores.get(score, 0) + count
    return Tally(sessions, scores)


def _listed(tallies: Mapping[str, Tally], name: str) -> list[Tally]:
    return [tallies[name]] if name in tallies else []


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()
