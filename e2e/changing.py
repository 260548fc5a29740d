"""The source changes through all stories: is what came and was edited found by a search, and what went not?

Asked of the gateway as any user asks, for what each document said that was written lately. What is found has to be what
the source had at one moment, neither more nor less, and a later one than when a story began.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e2e import stack, writing

if TYPE_CHECKING:
    from e2e.stage import Stage

WITHIN_SECONDS = 300.0
_LATELY = 30
"""Turns: half of the queries that one search may have."""

# Asks several queries at once with the token of whoever asks, and says all of the answer.
_SEARCH = """
import sys, urllib.request
token = open("/run/token/token").read()
asked = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), {"Authorization": f"Bearer {token}"})
print(urllib.request.urlopen(asked, timeout=20).read().decode())
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment."""

    turn: int
    """How often the source had changed."""
    snapshot: int
    """The dataset's newest."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one search found of what was written lately."""

    snapshot: int
    """Which answered."""
    revisions: Mapping[int, int]
    """By the document's number, how often it was edited."""

    def is_of(self, turn: int) -> bool:
        """Whether it is what there was at a turn, and nothing else."""
        return dict(self.revisions) == dict(writing.present(turn))


def mark(live: Stage) -> Mark:
    """Return what has been written, and the newest snapshot, by now."""
    return Mark(_turn(live), int(live.dataset(stack.NAME)["snapshot"]))


def follow(live: Stage, since: Mark) -> None:
    """Wait until a search finds what the source had at one moment after a mark; raises NodeError where none does.

    The index that answers has to hold what its snapshot holds, and none may ever have held anything else.
    """

    def has_followed() -> bool:
        found = _found(live, _turn(live))
        newest = max(found.revisions, default=0)
        return newest > since.turn and found.snapshot > since.snapshot and found.is_of(newest) and _is_par(live)

    def explain() -> str:
        turn = _turn(live)
        return f"turn {turn} is written, {_found(live, turn)} found, {since} before; {live.sentence()}"

    live.wait(has_followed, "what was written meanwhile to be found, and nothing else", WITHIN_SECONDS, explain)
    differed = [e for e in live.kube.list("events", stack.NAMESPACE) if e.get("reason") == "IndexDiffers"]
    assert not differed, [event["message"] for event in differed]


def searched(live: Stage, name: str, queries: Sequence[str], **more: Any) -> dict[str, Any]:
    """Return what the gateway answers to several queries of a deployment, asked at once from within the cluster."""
    command = ["exec", "-i", f"deployment/{stack.ASKER}", "-n", stack.NAMESPACE, "--", "python", "-c", _SEARCH]
    said = live.kube.run(*command, stack.search(name), given=json.dumps({"query": [*queries], **more}))
    answer: dict[str, Any] = json.loads(said)
    return answer


def _turn(live: Stage) -> int:
    """Return how often the source was changed."""
    command = ["exec", f"deployment/{stack.WRITER}", "-n", stack.NAMESPACE, "--", "cat", str(writing.TURN)]
    return int(live.kube.run(*command))


def _found(live: Stage, turn: int) -> Found:
    """Look for whatever was written up to a turn, as it was at first and as it was edited."""
    numbers = range(max(1, turn - _LATELY + 1), turn + 1)
    looked_for = [(number, revision) for number in numbers for revision in (0, 1)]
    texts = [writing.text(number, revision) for number, revision in looked_for]
    answer = searched(live, stack.NAME, texts, topK=3, include=["text"])
    found = {
        number: revision
        for (number, revision), text, hits in zip(looked_for, texts, answer["results"], strict=True)
        for hit in hits
        if hit["document"] == f"{writing.PREFIX}{number}" and text in hit["text"]
    }
    return Found(answer["snapshot"], found)


def _is_par(live: Stage) -> bool:
    """Whether the index that serves is at its version's snapshot, by number and by digest."""
    status = live.status()
    index = next(each for each in status["indexes"] if each["name"] == status["servingIndex"])
    version = next(each for each in live.dataset(stack.NAME)["versions"] if each["name"] == index["version"])
    is_there = bool(index["cursor"]["snapshot"] == version["snapshot"])
    assert not is_there or index["digest"] == version["digest"], f"{index} is not {version}"
    return is_there
