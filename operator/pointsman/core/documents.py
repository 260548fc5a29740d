"""What a row of a source becomes: the text that is embedded and the metadata that travels along.

A row that cannot become a document is refused with a kind, and refusals are counted and placed, never quoted: this
module knows where a bad row is and does not say what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pointsman.api.conditions import Reason
from pointsman.core.recipes import Recipe
from pointsman.errors import Terminal

SHOWN_POSITIONS = 5

_PART = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|([{}])")
_MISSING = object()


class Refused(Exception):
    """A row is not a document. Its text is the kind, which reads after a count: "2 without id"."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a document becomes under one recipe."""

    text: str
    """Not empty, not all white space."""
    metadata: str
    """A canonical JSON object: sorted keys, no spaces."""


Renderer = Callable[[str], Rendered]
"""Renders a document's fields, given as JSON; raises Refused."""


class Refusals:
    """Counts what was refused by kind, and remembers the first few positions of each."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._positions: dict[str, list[tuple[str, int | None]]] = {}

    @property
    def total(self) -> int:
        """How many rows were refused."""
        return sum(self._counts.values())

    def add(self, kind: str, where: str = "", number: int | None = None) -> None:
        """Count a refused row at a file's line or row (from 1), at a row of the whole source, or a whole file."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        places = self._positions.setdefault(kind, [])
        if len(places) < SHOWN_POSITIONS:
            places.append((where, number))

    def raise_if_any(
        self, rows: int, claim: str = "rows are not documents", move: str = "the last snapshot stays current"
    ) -> None:
        """Raise Terminal(SOURCE_INVALID) with counts and first positions, where anything was refused."""
        if not self._counts:
            return
        kinds = [
            f"{count:,} {kind}{_places(self._positions[kind])}"
            for kind, count in sorted(self._counts.items(), key=lambda item: -item[1])
        ]
        raise Terminal(
            Reason.SOURCE_INVALID,
            f"{self.total:,} of {rows:,} {claim}: {', '.join(kinds)}; {move}",
        )


def renderer(recipe: Recipe) -> Renderer:
    """Compile a recipe's template and metadata fields; raises Terminal(INVALID_SPEC) for a broken template."""
    parts = _compiled(recipe.template)
    names = tuple(sorted(recipe.metadata_fields))

    def render(fields: str) -> Rendered:
        values = orjson.loads(fields)
        text = "".join(part if isinstance(part, str) else _text(values, part) for part in parts)
        if "\0" in text:
            # PostgreSQL cannot store it, and no model means anything by it.
            text = text.replace("\0", "")
        if not text or text.isspace():
            raise Refused("without text")
        return Rendered(text, _metadata(values, names) if names else "{}")

    return render


def canonical(fields: Mapping[str, Any]) -> str:
    """Return JSON with sorted keys and no spaces; raises TypeError for what JSON cannot hold."""
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()


def _compiled(template: str) -> list[str | tuple[str, ...]]:
    """Split a template into literals and the paths of fields, of which the first is the whole name."""
    parts: list[str | tuple[str, ...]] = []
    end = 0
    for found in _PART.finditer(template):
        if found[2]:
            raise Terminal(
                Reason.INVALID_SPEC,
                f"text.template has a `{found[2]}` without its partner at character {found.start() + 1}; "
                "write {field} for a field and {{ or }} for a brace",
            )
        parts.append(template[end : found.start()])
        name = found[1]
        parts.append((name, *name.split(".")) if name else found[0][0])
        end = found.end()
    parts.append(template[end:])
    if not any(isinstance(part, tuple) for part in parts):
        raise Terminal(Reason.INVALID_SPEC, "text.template names no field; write {field} where its value goes")
    return [part for part in parts if part]


def _text(values: Mapping[str, Any], path: Sequence[str]) -> str:
    value = _find(values, path)
    if isinstance(value, str):
        return value
    if value is _MISSING or value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"with a `{path[0]}` that is not text")
    return orjson.dumps(value).decode()


def _metadata(values: Mapping[str, Any], names: Sequence[str]) -> str:
    found: dict[str, Any] = {}
    for name in names:
        value = _find(values, (name, *name.split(".")))
        if value is _MISSING or value is None:
            continue
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, list | dict) for item in items):
            raise Refused(f"with a metadata field `{name}` that is no scalar and no list of scalars")
        clean = [item.replace("\0", "") if isinstance(item, str) else item for item in items if item is not None]
        found[name] = clean if isinstance(value, list) else clean[0]
    return canonical(found)


def _find(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    """Return the field of that whole name, or else what the dots lead to."""
    value: Any = values.get(path[0], _MISSING)
    if value is _MISSING and len(path) > 2:
        value = values
        for name in path[1:]:
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _places(positions: Sequence[tuple[str, int | None]]) -> str:
    words: list[str] = []
    last: str | None = None
    for where, number in positions:
        if number is None:
            words += [where] if where else []
        elif where:
            words.append(f":{number:,}" if where == last else f"{where}:{number:,}")
        else:
            words.append(f"{number:,}" if last == where else f"row {number:,}")
        last = where
    return f" ({', '.join(words)})" if words else ""
