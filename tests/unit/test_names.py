"""What an index is called in its database."""

from __future__ import annotations

import re

import pytest

from pointsman.core import names

UID = "0b4bd6ee-6b1a-4a6e-8d2f-30b7fb7a1c11"
USUAL = ("shop", "papers", UID, "v8", "a1b2c3d4e5f6", "9f8e7d6c")


def test_a_name_says_whose_it_is_and_of_which_version_and_recipe() -> None:
    name = names.physical_name(*USUAL)
    assert re.fullmatch(r"pm_shop_papers_[0-9a-f]{8}_v8_a1b2c3_[0-9a-f]{8}", name)
    assert name.startswith(names.physical_prefix("shop", "papers", UID))


def test_a_name_is_always_the_same() -> None:
    assert names.physical_name(*USUAL) == names.physical_name(*USUAL)


@pytest.mark.parametrize("position", range(6))
def test_whatever_differs_makes_another_name(position: int) -> None:
    other = list(USUAL)
    other[position] += "x"
    assert names.physical_name(*other) != names.physical_name(*USUAL)


def test_what_is_built_again_has_another_name() -> None:
    made = {names.physical_name(*USUAL, generation) for generation in range(100)}
    assert len(made) == 100


@pytest.mark.parametrize(
    ("namespace", "name", "version"),
    [("n" * 63, "d" * 253, "v" * 40), ("a-b", "c.d-e", "v-1"), ("1", "2", "3")],
    ids=["as long as can be", "with dashes and dots", "of digits"],
)
def test_every_engine_takes_the_name(namespace: str, name: str, version: str) -> None:
    made = names.physical_name(namespace, name, UID, version, "a1b2c3d4e5f6", "9f8e7d6c", 12)
    assert len(made.encode()) <= names.LONGEST
    assert re.fullmatch(r"[a-z_][a-z0-9_]*", made)


def test_no_deployment_finds_the_indexes_of_another() -> None:
    prefixes = [
        names.physical_prefix("shop", "papers", UID),
        names.physical_prefix("shop", "papers", UID[::-1]),
        names.physical_prefix("shop-papers", "x", UID),
        names.physical_prefix("shop", "papers-x", UID),
    ]
    assert not any(one.startswith(other) for one in prefixes for other in prefixes if one is not other)
