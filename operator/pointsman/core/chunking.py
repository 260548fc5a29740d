"""How a text is cut: into runs of whole tokens, at the best break near the end of each.

An overlap of half a chunk at most keeps the number of chunks, and with it the time that cutting takes, in proportion to
the length of the text.

A token is a word of up to twelve characters, a further twelve of a longer word, one character of a script that is
written without spaces, one mark, or 32 characters of white space in a row. Counting needs no model's vocabulary, is
the same everywhere and for ever, and bounds the length of a chunk in characters too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from pointsman.api.conditions import Reason
from pointsman.core.recipes import Chunker
from pointsman.errors import Terminal

NAME = "breaks"
VERSION = "1"
"""Counts up whenever any text would be cut otherwise than before; the old way stays for recipes that pinned it."""

# Kana, CJK ideographs and Hangul: scripts in which one character is about one token.
_DENSE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[^\W{_DENSE}]{{1,12}}|\S|\s{{32}}")

_SENTENCE_ENDS = frozenset(".?!…。！？")
_CLAUSE_ENDS = frozenset(",;:—、，；：")


def chunker(max_tokens: int, overlap_tokens: int) -> Chunker:
    """Return this release's chunker, as recipes pin it; raises Terminal(INVALID_SPEC) for too large an overlap."""
    if 2 * overlap_tokens > max_tokens:
        raise Terminal(
            Reason.INVALID_SPEC,
            f"chunking.overlapTokens is {overlap_tokens:,}; wanted at most half of maxTokens, which is {max_tokens:,}",
        )
    return Chunker(NAME, VERSION, max_tokens, overlap_tokens)


def check(wanted: Chunker) -> None:
    """Raise Terminal(INVALID_SPEC) unless this release cuts as the recipe pinned it."""
    if (wanted.name, wanted.version) != (NAME, VERSION):
        raise Terminal(
            Reason.INVALID_SPEC,
            f"the recipe is cut by {wanted.name} {wanted.version} and this release has {NAME} {VERSION}; "
            "run a release that has it, or declare a new version",
        )


def count(text: str) -> int:
    """Return how many tokens a text has."""
    return len(_TOKEN.findall(text))


def cut(text: str, chunker: Chunker) -> list[str]:
    """Return the chunks of a text, in order: each of max_tokens or less, stripped, and none empty.

    Without overlap the chunks hold every character but white space between them exactly once. With it, two
    neighbours share up to overlap_tokens.
    """
    # No token is shorter than a character, so most short texts need no counting.
    if len(text) <= chunker.max_tokens or count(text) <= chunker.max_tokens:
        whole = text.strip()
        return [whole] if whole else []
    spans = [found.span() for found in _TOKEN.finditer(text)]
    chunks = (text[spans[start][0] : spans[end - 1][1]].strip() for start, end in _runs(text, spans, chunker))
    return [chunk for chunk in chunks if chunk]


def _runs(text: str, spans: Sequence[tuple[int, int]], chunker: Chunker) -> Iterator[tuple[int, int]]:
    """Yield (first token, token after the last) of each chunk."""
    most, shared = chunker.max_tokens, chunker.overlap_tokens
    breaks = [0, *(_worth(text, before[1], after[0]) for before, after in itertools.pairwise(spans))]
    start = end = 0
    while len(spans) - start > most:
        # A chunk is at least half full, and reaches further than the one before it.
        end = _best(breaks, max(start + most // 2, end) + 1, start + most)
        yield start, end
        start = end if not shared else _best_first(breaks, max(end - shared, start + 1), end - shared // 2)
    yield start, len(spans)


def _worth(text: str, end: int, start: int) -> int:
    """Return how good a place the gap between two tokens is to cut at, 0 being inside a word."""
    gap = text[end:start]
    if not gap:
        return 2 if text[end - 1] in "。！？" else 0
    lines = gap.count("\n")
    if lines:
        return 5 if lines > 1 else 4
    last = text[end - 1]
    return 3 if last in _SENTENCE_ENDS else 2 if last in _CLAUSE_ENDS else 1


def _best(breaks: Sequence[int], low: int, high: int) -> int:
    """Return the last of the best breaks in low..high, both included."""
    return max(range(low, high + 1), key=lambda at: (breaks[at], at))


def _best_first(breaks: Sequence[int], low: int, high: int) -> int:
    """Return the first of the best breaks in low..high, both included."""
    return max(range(low, high + 1), key=lambda at: (breaks[at], -at))
