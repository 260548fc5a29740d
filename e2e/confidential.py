"""What may nobody find in a log, a status or an event, and was any of it found?

Texts and secrets are looked for as they are. Vectors are looked for in base64, and by their numbers, whatever those
were formatted by: the first digits of three that follow each other are no coincidence.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_LONGEST_LOOKED_FOR = 16
"""Numbers of one vector."""
_ENOUGH = 3
"""So many of them in a row, and it is that vector."""
_DIGITS = 5
_Rows = set[tuple[str, ...]]
_NUMBER = re.compile(r"0?\.(0*[1-9]\d{4})\d*")


@dataclass(frozen=True, slots=True)
class Planted:
    """What was put where only those who need it may read it."""

    texts: Mapping[str, Sequence[str]]
    """Secrets, queries and documents, by what they are."""
    vectors: Mapping[str, Sequence[Sequence[float]]]

    def found(self, said: Mapping[str, str]) -> list[str]:
        """Return what was found where, in one line each, without saying it again."""
        written = {what: [(_rows(_digits(one)), _bytes(one)) for one in each] for what, each in self.vectors.items()}
        return [f"{what} in {where}" for where, text in sorted(said.items()) for what in self._in(text, written)]

    def _in(self, text: str, written: Mapping[str, Sequence[tuple[_Rows, str]]]) -> Iterator[str]:
        yield from (what for what, each in self.texts.items() if any(one in text for one in each))
        rows = _rows(_NUMBER.findall(text))
        for what, vectors in written.items():
            if any(not rows.isdisjoint(own) or content in text for own, content in vectors):
                yield what


def _digits(vector: Sequence[float]) -> list[str]:
    """Return the first digits of a vector's first numbers, from the point on, as every way to write one has them."""
    written = (f"{abs(number):.12f}".partition(".")[2] for number in vector[:_LONGEST_LOOKED_FOR])
    return [part[: len(part) - len(part.lstrip("0")) + _DIGITS] for part in written if part.strip("0")]


def _rows(numbers: Sequence[str]) -> _Rows:
    """Return all rows of numbers that follow each other."""
    return {tuple(numbers[start : start + _ENOUGH]) for start in range(len(numbers) - _ENOUGH + 1)}


def _bytes(vector: Sequence[float]) -> str:
    """Return how a vector begins in base64."""
    return base64.b64encode(struct.pack("<12f", *vector[:12])).decode()
