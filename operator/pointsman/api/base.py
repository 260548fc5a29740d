"""What every resource shares: the model's configuration, durations, references."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "pointsman.dev"
API_VERSION = "v1alpha1"

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"


class Model(BaseModel):
    """A part of a resource: camelCase in YAML, snake_case here, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


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


Duration = Annotated[str, AfterValidator(_checked), Field(pattern=DURATION_PATTERN, min_length=2, max_length=16)]
"""A duration as people write it: `15m`, `336h`, `1h30m`. Read it with `parse_duration`."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", min_length=1, max_length=253)]
"""The name of a resource in the same namespace."""

VersionName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=40)]
"""The name of a version: lower-case letters, digits and dashes."""


class Reference(Model):
    """The name of another resource of the same namespace."""

    name: Name


class SecretReference(Model):
    """A Secret of the same namespace, all of its keys."""

    name: Name


class SecretKeyReference(Model):
    """One key of a Secret of the same namespace."""

    name: Name
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
