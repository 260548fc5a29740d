"""The CustomResourceDefinitions, made from the types: `python -m pointsman.api.crd [FOLDER]`.

A structural schema is smaller than what pydantic writes: no references, no unions with null, and no defaults either,
since an API server that fills in what a user left out makes every GitOps tool see a difference. A default stands in
the description instead, and the value in force in the status.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from pointsman.api import base, kinds

Schema = dict[str, Any]

_HEADER = "# Made from the types by `python -m pointsman.api.crd`; edit those instead.\n"
_DROPPED = ("title", "default", "additionalProperties", "propertyNames", "$defs", "const")
# A pattern's failure is told by the rule beside it, in a sentence rather than as an expression.
_TOLD = "pattern"
# A status is written by the operator alone, and must also take what a later release writes.
_LOOSE = ("enum", "pattern", "x-kubernetes-validations", "minLength", "maxLength", "minimum", "maximum")


def definition(kind: kinds.Kind) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.crd},
        "spec": {
            "group": base.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "singular": kind.singular,
                "plural": kind.plural,
                "shortNames": [kind.short],
                "categories": ["pointsman"],
            },
            "versions": [
                {
                    "name": base.API_VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    **_selectable(kind),
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def render(kind: kinds.Kind) -> str:
    """Return the CustomResourceDefinition of a kind as YAML, the same text for the same types."""
    text: str = yaml.dump(definition(kind), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return _HEADER + text


def structural(model: type[base.Model]) -> Schema:
    """Return the structural schema of a model: everything in place, nothing that the API server would fill in."""
    written = model.model_json_schema(by_alias=True)
    return _reduced(written, written.get("$defs", {}))


def loosened(schema: Schema) -> Schema:
    """Return a schema without whatever would refuse a value: what is left are types, formats and descriptions."""
    kept = {key: value for key, value in schema.items() if key not in _LOOSE}
    if "properties" in kept:
        kept["properties"] = {name: loosened(value) for name, value in kept["properties"].items()}
    for part in ("items", "additionalProperties"):
        if part in kept:
            kept[part] = loosened(kept[part])
    return kept


def _selectable(kind: kinds.Kind) -> Schema:
    """Return by which fields the API server can list a kind; an older one than 1.31 drops it."""
    return {"selectableFields": [{"jsonPath": f".{kind.reference}"}]} if kind.reference else {}


def _root(kind: kinds.Kind) -> Schema:
    return {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always `{base.GROUP}/{base.API_VERSION}`."},
            "kind": {"type": "string", "description": f"Always `{kind.name}`."},
            "metadata": {"type": "object"},
            "spec": structural(kind.spec),
            "status": loosened(structural(kind.status)),
        },
        "x-kubernetes-validations": [
            base.rule(
                f"self.metadata.name.size() <= {base.MAX_NAME}",
                f"metadata.name must be {base.MAX_NAME} characters or fewer, so that it fits into a label",
            )
        ],
    }


def _column(column: kinds.Column) -> Schema:
    written: Schema = {"name": column.name, "type": column.type, "description": column.description}
    if column.is_wide:
        written["priority"] = 1
    return {**written, "jsonPath": column.path}


def _reduced(schema: Schema, definitions: Schema) -> Schema:
    default = schema.get("default")
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        schema = _merged(target, {key: value for key, value in schema.items() if key != "$ref"})
    if "anyOf" in schema:
        (only,) = [option for option in schema["anyOf"] if option != {"type": "null"}]
        schema = _merged(only, {key: value for key, value in schema.items() if key != "anyOf"})
        return _reduced(schema, definitions)
    kept = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "x-kubernetes-validations" in kept:
        kept.pop(_TOLD, None)
    kept["description"] = _described(schema, default)
    if "properties" in kept:
        kept["properties"] = {name: _reduced(value, definitions) for name, value in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _reduced(kept["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        # A map, whose values have a schema; of a model it says no more than that it takes no other fields.
        values = _reduced(schema["additionalProperties"], definitions)
        kept["additionalProperties"] = {key: value for key, value in values.items() if value != ""}
    return {key: kept[key] for key in sorted(kept, key=_place)}


def _merged(target: Schema, beside: Schema) -> Schema:
    rules = [*target.get("x-kubernetes-validations", ()), *beside.get("x-kubernetes-validations", ())]
    return {**target, **beside, **({"x-kubernetes-validations": rules} if rules else {})}


def _described(schema: Schema, default: Any) -> str:
    text = " ".join(schema.get("description", "").split())
    if default in (None, "") or isinstance(default, dict | list):
        return text
    shown = str(default).lower() if isinstance(default, bool) else default
    return f"{text} Where it is left out: `{shown}`."


_ORDER = ("description", "type", "format", "enum", "required", "properties", "items")


def _place(key: str) -> tuple[int, str]:
    return (_ORDER.index(key), "") if key in _ORDER else (len(_ORDER), key)


class _Dumper(yaml.SafeDumper):
    """Writes every value where it stands: an alias is no help to a reader."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main(folder: Path) -> None:
    """Write all definitions into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds.KINDS:
        (folder / f"{kind.crd}.yaml").write_text(render(kind), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "crds"))
