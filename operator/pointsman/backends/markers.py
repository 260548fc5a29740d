"""How does an index say whose it is? As one JSON object, kept wherever its database keeps words about a collection."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from pointsman import errors, ports
from pointsman.api.conditions import Reason

KEY = "pointsman"
"""Under this key, so that other tools may keep words of their own beside ours."""
FORMAT = 1


def to_json(spec: ports.IndexSpec) -> dict[str, Any]:
    """Return the object that is written beside an index: its marker, and what it is to be built with."""
    built = {"dimensions": spec.dimensions, "m": spec.m, "ef_construct": spec.ef_construct}
    return {KEY: {"format": FORMAT, **dataclasses.asdict(spec.marker), **built}}


def to_text(spec: ports.IndexSpec) -> str:
    """Return the object as text, for databases that keep text."""
    return json.dumps(to_json(spec), sort_keys=True, ensure_ascii=False)


def from_json(value: object) -> ports.Marker | None:
    """Return the marker found, or None where it is not ours. Fields of later releases are passed over."""
    found = value.get(KEY) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        return None
    words = [found.get(field.name) for field in dataclasses.fields(ports.Marker)]
    known = [word for word in words if isinstance(word, str)]
    return ports.Marker(*known) if len(known) == len(words) else None


def from_text(text: str | None) -> ports.Marker | None:
    """Return the marker found in text, or None where it is not ours."""
    return from_json(_read(text))


def spec_from_text(name: str, text: str | None) -> ports.IndexSpec:
    """Return what an index was made from; raises COLLECTION_FOREIGN where the text is not ours."""
    value = _read(text)
    marker = from_json(value)
    if marker is None:
        raise foreign(name)
    dimensions, m, ef_construct = (value[KEY].get(key) for key in ("dimensions", "m", "ef_construct"))
    if not (isinstance(dimensions, int) and isinstance(m, int) and isinstance(ef_construct, int)):
        raise foreign(name)
    return ports.IndexSpec(name, dimensions, m, ef_construct, marker)


def _read(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None


def is_free(backend: ports.Backend, spec: ports.IndexSpec) -> bool:
    """Return whether an index is still to be made; raises COLLECTION_FOREIGN where the name is another's."""
    found = backend.find(spec.name)
    if found is not None and found != spec.marker:
        raise foreign(spec.name)
    return found is None


def check_alias(alias: str, found: ports.Marker | None, owner: str) -> None:
    """Raise COLLECTION_FOREIGN unless an alias that exists belongs to the deployment that wants to change it."""
    if found is None or found.owner != owner:
        raise errors.Terminal(
            Reason.COLLECTION_FOREIGN,
            f"the alias {alias} belongs to something else; choose another alias, or remove that one",
        )


def foreign(name: str) -> errors.Terminal:
    """Return the error of a collection that is not ours."""
    return errors.Terminal(
        Reason.COLLECTION_FOREIGN,
        f"{name} exists and does not carry the marker of this index; remove or rename it",
    )


def lost(name: str) -> errors.Retryable:
    """Return the error of an index that should exist and does not."""
    return errors.Retryable(Reason.INDEX_LOST, f"{name} is not in the database; it has to be built again")
