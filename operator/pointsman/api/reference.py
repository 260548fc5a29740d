"""The reference of the API, made from the types: `python -m pointsman.api.reference [FILE]`."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from pointsman.api import base, conditions, crd, dataset, deployment, kinds

_INTRODUCTION = f"""\
<!-- Made from the types by `python -m pointsman.api.reference`; edit those instead. -->

# The API

All kinds belong to `{base.GROUP}/{base.API_VERSION}` and live in a namespace; what they refer to lives in the same one.
An unknown field is refused, and so is whatever breaks one of the rules listed with a kind: the sentence is the API
server's answer. The API server fills nothing in: where a field is left out, the value named here holds, and
`status.effective` shows those that steer the operator.
"""


def render() -> str:
    """Return the whole reference as Markdown, the same text for the same types."""
    parts = [_INTRODUCTION, *(_kind(kind) for kind in kinds.KINDS)]
    parts.append(_vocabulary("Conditions", "Ready, Reconciling and Stalled follow kstatus.", conditions.ConditionType))
    parts.append(_vocabulary("Reasons", "Why a condition is as it is.", conditions.Reason))
    parts.append(_vocabulary("Roles", "What an index is to its deployment.", deployment.Role))
    parts.append(_vocabulary("Causes", "Why a document's rows differ, the strongest cause last.", dataset.Cause))
    return "\n".join(parts)


def sentences(vocabulary: type[StrEnum]) -> dict[str, str]:
    """Return the value of each member of a vocabulary with the sentence that stands under it."""
    (definition,) = ast.parse(inspect.getsource(vocabulary)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for member, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            (target,) = member.targets
            assert isinstance(target, ast.Name)
            found[str(vocabulary[target.id])] = " ".join(str(below.value.value).split())
    return found


def _kind(kind: kinds.Kind) -> str:
    spec, status = crd.structural(kind.spec), crd.loosened(crd.structural(kind.status))
    lines = [f"## {kind.name}", "", f"{kind.description} Short name `{kind.short}`.", ""]
    lines += ["| field | type | what it is |", "|---|---|---|", *_fields("spec", spec), ""]
    lines += ["Rules:", "", *(f"- `{path}`: {message}" for path, message in _rules("spec", spec)), ""]
    lines += ["| field | type | what it says |", "|---|---|---|", *_fields("status", status), ""]
    return "\n".join(lines)


def _fields(path: str, schema: crd.Schema) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if here == "status.conditions":
            yield f"| `{here}` | list | {field['description']} See [Conditions](#conditions). |"
            continue
        needed = " Required." if name in required and path.startswith("spec") else ""
        yield f"| `{here}` | {_type(field)} | {_escaped(field['description'])}{needed} |"
        if field["type"] == "array":
            yield from _fields(f"{here}[]", field["items"])
        else:
            yield from _fields(here, field)


def _type(field: crd.Schema) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list{_bound(field, 'minItems', 'maxItems')}"
    if field["type"] == "integer":
        return f"integer{_bound(field, 'minimum', 'maximum')}"
    if field["type"] == "string" and "maxLength" in field:
        return f"string, up to {field['maxLength']}"
    return "time" if field.get("format") == "date-time" else str(field["type"])


def _bound(field: crd.Schema, least: str, most: str) -> str:
    if most not in field:
        return ""
    return f", {field[least]} to {field[most]}" if least in field else f", up to {field[most]}"


def _rules(path: str, schema: crd.Schema) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path, _escaped(rule["message"])
    for name, field in schema.get("properties", {}).items():
        yield from _rules(f"{path}.{name}", field)
    if "items" in schema:
        yield from _rules(f"{path}[]", schema["items"])


def _vocabulary(title: str, introduction: str, vocabulary: type[StrEnum]) -> str:
    rows = (f"| `{value}` | {_escaped(sentence)} |" for value, sentence in sentences(vocabulary).items())
    return "\n".join([f"## {title}", "", introduction, "", "| word | meaning |", "|---|---|", *rows, ""])


def _escaped(text: Any) -> str:
    return str(text).replace("|", "\\|")


def main(file: Path) -> None:
    """Write the reference into a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference/api.md"))
