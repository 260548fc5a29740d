"""How is metadata written so that every database reads a filter alike?

Databases disagree with each other, and with our grammar, about metadata: whether true is 1, what `not` says of a
missing key, whether a comparison looks into lists. So where a database's own conditions would not do, a point carries
two fields made from its metadata. Its terms are one digest for each key and value, so that equality is a look-up of
strings, which every database indexes. Its extremes are the least and the greatest number of each key: some element
of a list is more than a bound when the greatest is.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

from pointsman.core import filters

LENGTH = 32
"""Characters of a term."""


def is_in_64_bits(value: Any) -> bool:
    """Return whether all integers of a JSON value, however deep, are of at most 64 bits, with their sign."""
    if isinstance(value, dict):
        return all(map(is_in_64_bits, value.values()))
    if isinstance(value, list):
        return all(map(is_in_64_bits, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def terms(metadata: dict[str, Any]) -> list[str]:
    """Return one digest for each key and scalar value of metadata, lists element by element."""
    return list({term(key, value): None for key, value in _scalars(metadata) if _is_comparable(value)})


def extremes(metadata: dict[str, Any]) -> dict[str, float]:
    """Return the least and the greatest number of each key that has numbers."""
    found: dict[str, float] = {}
    for key, value in _scalars(metadata):
        if isinstance(value, int | float) and not isinstance(value, bool):
            # An integer may be larger than any float.
            number = float(max(-sys.float_info.max, min(sys.float_info.max, value)))
            found[least(key)] = min(found.get(least(key), number), number)
            found[greatest(key)] = max(found.get(greatest(key), number), number)
    return found


def term(key: str, value: filters.Scalar) -> str:
    """Return the term of a key and one value."""
    # 1.0 and 1 are equal; true and 1 are not, nor are they in JSON.
    plain = int(value) if isinstance(value, float) and value.is_integer() else value
    return hashlib.blake2b(json.dumps([key, plain]).encode(), digest_size=LENGTH // 2).hexdigest()


def least(key: str) -> str:
    """Return the name under which the least number of a key stands: letters, digits and an underscore."""
    return "least_" + hashlib.blake2b(key.encode(), digest_size=8).hexdigest()


def greatest(key: str) -> str:
    """Return the name under which the greatest number of a key stands."""
    return "greatest_" + hashlib.blake2b(key.encode(), digest_size=8).hexdigest()


def _scalars(metadata: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in metadata.items():
        for element in value if isinstance(value, list) else [value]:
            yield key, element


def _is_comparable(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
