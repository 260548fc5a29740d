"""What `v7@12`, `v7`, `12` and `@12` mean: states of a dataset that the store keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pointsman.api.conditions import Reason
from pointsman.errors import Terminal

if TYPE_CHECKING:
    from pointsman.core.recipes import Recipe
    from pointsman.store.dataset import DatasetStore
    from pointsman.store.records import EmbeddedSnapshot, Snapshot

_NUMBER = re.compile(r"@?([1-9][0-9]{0,17})")
_VERSION = re.compile(r"([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)(?:@([1-9][0-9]{0,17}))?")


@dataclass(frozen=True, slots=True)
class Point:
    """A version at a snapshot; without a snapshot its newest, without a version the content alone."""

    version: str | None
    snapshot: int | None

    def __str__(self) -> str:
        return (self.version or "") + (f"@{self.snapshot}" if self.snapshot is not None else "")


def parse(text: str) -> Point:
    """Read a point. Digits alone are a snapshot: a version of such a name is written with its snapshot, as `7@12`."""
    number = _NUMBER.fullmatch(text)
    if number is not None:
        return Point(None, int(number[1]))
    version = _VERSION.fullmatch(text)
    if version is None:
        raise Terminal(Reason.INVALID_SPEC, f"{text!r} is not a point; wanted v7@12, v7 or @12")
    return Point(version[1], int(version[2]) if version[2] else None)


def snapshot(dataset: DatasetStore, name: str, number: int) -> Snapshot:
    """Return a snapshot; raises Terminal(SNAPSHOT_NOT_FOUND) that says which there are."""
    found = dataset.snapshot(number)
    if found is None:
        there = [each.number for each in dataset.snapshots()]
        if not there:
            raise Terminal(Reason.SNAPSHOT_NOT_FOUND, nothing(name))
        raise Terminal(Reason.SNAPSHOT_NOT_FOUND, f"dataset {name} has no snapshot {number}, only {ranges(there)}")
    return found


def embedded(dataset: DatasetStore, name: str, point: Point) -> tuple[Recipe, EmbeddedSnapshot]:
    """Return the recipe of a point's version and its record; raises Terminal that says which there are."""
    pins = dataset.pins()
    recipe = pins.get(point.version or "")
    if recipe is None:
        if not pins:
            raise Terminal(Reason.VERSION_NOT_FOUND, nothing(name))
        there = ", ".join(sorted(pins))
        raise Terminal(Reason.VERSION_NOT_FOUND, f"dataset {name} has no version {point.version}, only {there}")
    records = dataset.embedded(recipe.key)
    if point.snapshot is None and records:
        return recipe, records[-1]
    found = next((record for record in records if record.snapshot == point.snapshot), None)
    if found is None:
        numbers = [record.snapshot for record in records]
        there = f"only at {ranges(numbers)}" if numbers else "at no snapshot"
        where = f" at snapshot {point.snapshot}" if point.snapshot is not None else ""
        message = f"version {point.version} of {name} is not embedded{where}, {there}"
        raise Terminal(Reason.SNAPSHOT_NOT_FOUND, message)
    return recipe, found


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as people write them: `1-3, 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def nothing(name: str) -> str:
    """Return what to say where the store does not know a dataset."""
    return f"the store has nothing of dataset {name}; check --namespace and --store or POINTSMAN_STORE"
