"""Which points a search may return: one grammar, read once, meant alike by every database.

The grammar is that of OpenAI's vector stores. A comparison is `{"type": "eq", "key": "k", "value": "class"}`
with `eq`, `ne`, `gt`, `gte`, `lt`, `lte`, `in` or `nin`; a compound is `{"type": "and", "filters": [...]}` or
the same with `or`.

`matches` is what a filter means, and every database agrees with it:

- A key that is missing, or null, equals nothing: `eq`, `in` and the orderings are false of it, `ne` and `nin`
  are true.
- Kinds never mix: a string, a number and a truth value are never equal; 1 equals 1.0.
- Of a list, `eq`, `in` and the orderings are true when any element is, and `ne` and `nin` when no element is
  equal. Objects, and lists inside of lists, equal nothing.
- `gt`, `gte`, `lt` and `lte` order numbers only: no two databases sort strings alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from pointsman import errors
from pointsman.api.conditions import Reason

Scalar = str | float | bool
"""What metadata is compared with: a string, a number or a truth value."""

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
OPERATORS: tuple[str, ...] = get_args(Operator)
Junction = Literal["and", "or"]
JUNCTIONS: tuple[str, ...] = get_args(Junction)

DEEPEST = 8
"""How many compounds may stand inside each other."""
MOST_VALUES = 256
"""How many values a filter may compare with, over all of its comparisons."""
LONGEST_KEY = 256
"""Characters of a key."""
LONGEST_VALUE = 1024
"""Characters of a string that metadata is compared with."""
LARGEST_NUMBER = 2**53 - 1
"""Beyond it, databases that compare 64-bit floats hold integers equal that differ."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metadata field compared with one value, or for `in` and `nin` with one or more."""

    operator: Operator
    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Compound:
    """Filters that must all pass, or one of which must."""

    junction: Junction
    parts: tuple[Filter, ...]


Filter = Comparison | Compound


def parse(value: object) -> Filter:
    """Read a filter from its JSON form; raises Terminal(INVALID_SPEC) with what is wrong, and where."""
    parsed = _parse(value, "filter", DEEPEST)
    values = _count(parsed)
    if values > MOST_VALUES:
        raise _invalid("filter", f"compares with {values} values, {MOST_VALUES} are allowed")
    return parsed


def matches(filter_: Filter, metadata: Mapping[str, Any]) -> bool:
    """Return whether a point with this metadata passes."""
    match filter_:
        case Compound("and", parts):
            return all(matches(part, metadata) for part in parts)
        case Compound(_, parts):
            return any(matches(part, metadata) for part in parts)
        case Comparison(operator, key, values):
            found = metadata.get(key)
            elements = found if isinstance(found, list) else [found]
            return _compares(operator, elements, values)


def _compares(operator: Operator, elements: list[Any], values: tuple[Scalar, ...]) -> bool:
    match operator:
        case "eq" | "in":
            return any(_equal(element, value) for element in elements for value in values)
        case "ne" | "nin":
            return not any(_equal(element, value) for element in elements for value in values)
        case _:
            bound = cast(float, values[0])
            return any(_ordered(operator, element, bound) for element in elements if _is_number(element))


def _ordered(operator: Operator, number: float, bound: float) -> bool:
    match operator:
        case "gt":
            return number > bound
        case "gte":
            return number >= bound
        case "lt":
            return number < bound
        case _:
            return number <= bound


def _equal(element: Any, value: Scalar) -> bool:
    # Python holds True equal to 1, which no database does.
    is_same_kind = _is_number(element) if _is_number(value) else type(element) is type(value)
    return is_same_kind and bool(element == value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse(value: object, at: str, depth: int) -> Filter:
    if not isinstance(value, Mapping):
        raise _invalid(at, "is not an object")
    kind = value.get("type")
    if kind in JUNCTIONS:
        _only(value, at, {"type", "filters"})
        return _compound(cast(Junction, kind), value.get("filters"), at, depth)
    if kind in OPERATORS:
        _only(value, at, {"type", "key", "value"})
        return _comparison(cast(Operator, kind), value.get("key"), value.get("value"), at)
    raise _invalid(f"{at}.type", f"is none of {', '.join(OPERATORS + JUNCTIONS)}")


def _compound(junction: Junction, parts: object, at: str, depth: int) -> Compound:
    if depth == 0:
        raise _invalid(at, f"stands inside {DEEPEST} compounds, which is as deep as is allowed")
    if not isinstance(parts, list) or not parts:
        raise _invalid(f"{at}.filters", "is not a list of at least one filter")
    if len(parts) > MOST_VALUES:
        raise _invalid(f"{at}.filters", f"has {len(parts)} entries, {MOST_VALUES} are allowed")
    return Compound(junction, tuple(_parse(part, f"{at}.filters[{i}]", depth - 1) for i, part in enumerate(parts)))


def _comparison(operator: Operator, key: object, value: object, at: str) -> Comparison:
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or not _is_storable(key):
        raise _invalid(f"{at}.key", f"is not a text of 1 to {LONGEST_KEY} characters")
    if operator not in ("in", "nin"):
        return Comparison(operator, key, (_scalar(operator, value, f"{at}.value"),))
    if not isinstance(value, list) or not 0 < len(value) <= MOST_VALUES:
        raise _invalid(f"{at}.value", f"is not a list of 1 to {MOST_VALUES} values, which {operator} wants")
    return Comparison(operator, key, tuple(_scalar(operator, v, f"{at}.value[{i}]") for i, v in enumerate(value)))


def _scalar(operator: Operator, value: object, at: str) -> Scalar:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
            raise _invalid(at, "is not a number within 2**53 - 1 of zero")
        return value
    if operator in ("gt", "gte", "lt", "lte"):
        raise _invalid(at, f"is not a number, and {operator} orders numbers only")
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) <= LONGEST_VALUE and _is_storable(value):
        return value
    raise _invalid(at, f"is not a number, a truth value or a text of at most {LONGEST_VALUE} characters")


def _is_storable(text: str) -> bool:
    # PostgreSQL holds no NUL in a text, and nobody a lone surrogate.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _only(value: Mapping[Any, Any], at: str, known: set[str]) -> None:
    unknown = len(value.keys() - known)
    if unknown:
        raise _invalid(at, f"has {unknown} unknown fields beside {', '.join(sorted(known))}")


def _count(filter_: Filter) -> int:
    match filter_:
        case Compound(_, parts):
            return sum(_count(part) for part in parts)
        case Comparison(_, _, values):
            return len(values)


def _invalid(at: str, found: str) -> errors.Terminal:
    return errors.Terminal(Reason.INVALID_SPEC, f"{at} {found}")
