"""What every resource shares: the model's configuration, rules, durations, references."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

GROUP = "pointsman.dev"
API_VERSION = "v1alpha1"
REFERENCES: Mapping[str, str] = {"IndexDeployment": "spec.datasetRef.name", "Approval": "spec.target.name"}
"""In which field the resources of a kind name the one of ours that they rely on."""

_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")
DURATION_PATTERN = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"


class Model(BaseModel):
    """A part of a resource: camelCase in YAML, snake_case here, unknown fields refused.

    The sentence under a field is its description, in the schema and in the reference.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def dump(self) -> dict[str, Any]:
        """Return the value as Kubernetes keeps it: camelCase, plain types, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Fact(Model):
    """A part of a status. A field that a later release wrote is passed over, so that an operator can be rolled back."""

    model_config = ConfigDict(extra="ignore")


def rule(expression: str, message: str) -> dict[str, Any]:
    """Return a rule that the API server checks by CEL, with the sentence that it answers with."""
    return {"rule": expression, "message": message}


def rules(*entries: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a model that the API server holds to rules."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": list(entries)})


def ruled(*entries: dict[str, Any]) -> FieldInfo:
    """Return the annotation of a field that the API server holds to rules."""
    return _extra({"x-kubernetes-validations": list(entries)})


def keyed(key: str) -> FieldInfo:
    """Return the annotation of a list whose entries are told apart, and merged, by a key."""
    return _extra({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})


def atomic() -> FieldInfo:
    """Return the annotation of a list that is replaced whole, as the order of its entries is what it says."""
    return _extra({"x-kubernetes-list-type": "atomic"})


def distinct() -> FieldInfo:
    """Return the annotation of a list in which nothing stands twice."""
    return _extra({"x-kubernetes-list-type": "set"})


def patterned(pattern: str, message: str) -> FieldInfo:
    """Return the annotation of a string that matches a pattern, and is refused with a sentence where it does not."""
    found: FieldInfo = Field(
        pattern=pattern, json_schema_extra={"x-kubernetes-validations": [rule(f"self.matches(r'{pattern}')", message)]}
    )
    return found


def _extra(schema: dict[str, Any]) -> FieldInfo:
    found: FieldInfo = Field(json_schema_extra=schema)
    return found


def check_one_of(model: Model, names: Iterable[str], message: str) -> None:
    """Raise ValueError unless exactly one of the named fields of a model is set."""
    if sum(getattr(model, name) is not None for name in names) != 1:
        raise ValueError(message)


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `15m` or `1h30m`; raises ValueError for anything else."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"{text!r} is not a duration; wanted hours, minutes and seconds, such as 15m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _checked(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[
    str,
    AfterValidator(_checked),
    patterned(DURATION_PATTERN, "must be hours, minutes and seconds, such as 15m or 1h30m"),
    Field(min_length=2, max_length=16),
]
"""A duration as people write it: `15m`, `336h`, `1h30m`. Read it with `parse_duration`."""

URL = Annotated[
    str,
    patterned(
        r"^https?://[^/?#@ ]+(/[^?# ]*)?$",
        "must be an http or https URL without a user, a query or a fragment; secrets go into a Secret",
    ),
    Field(min_length=8, max_length=1024),
]
"""The address of an HTTP server. Nothing secret fits into it."""

Host = Annotated[
    str,
    patterned(r"^[-.:_a-zA-Z0-9]+$", "must be one host name or address, without a scheme and a path"),
    Field(min_length=1, max_length=253),
]
"""One host name or address. A list of hosts, or a socket's path, would get around the allow-list."""

DatabaseName = Annotated[
    str,
    patterned(r"^[-_.$a-zA-Z0-9]+$", "must be letters, digits and _ - . $ alone"),
    Field(min_length=1, max_length=63),
]
"""The name of a PostgreSQL database. An equals sign would let it smuggle in connection settings."""

Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""

_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_NAME_MESSAGE = "must be lower-case letters, digits, dashes and dots, and begin and end with a letter or digit"

Name = Annotated[str, patterned(_NAME, _NAME_MESSAGE), Field(min_length=1, max_length=253)]
"""The name of a Secret in the same namespace."""

MAX_NAME = 63
"""The longest name of a resource of ours, in characters: what fits into a label's value."""

ResourceName = Annotated[str, patterned(_NAME, _NAME_MESSAGE), Field(min_length=1, max_length=MAX_NAME)]
"""The name of a resource of ours in the same namespace."""

VersionName = Annotated[
    str,
    patterned(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "must be lower-case letters, digits and dashes, and begin and end with a letter or digit",
    ),
    Field(min_length=1, max_length=40),
]
"""The name of a version: lower-case letters, digits and dashes."""


class Reference(Model):
    """Another resource of the same namespace."""

    name: ResourceName
    """Its name."""


class SecretReference(Model):
    """A Secret of the same namespace, all of its keys."""

    name: Name
    """The Secret's name."""


class SecretKeyReference(Model):
    """One key of a Secret of the same namespace."""

    name: Name
    """The Secret's name."""
    key: Annotated[
        str,
        patterned(r"^[-._a-zA-Z0-9]+$", "must be letters, digits and - . _ alone"),
        Field(min_length=1, max_length=253),
    ]
    """The key in the Secret."""
