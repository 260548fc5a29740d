"""What is an index called in its database?

A name is read by people, fits every engine (63 bytes for PostgreSQL, letters, digits and underscores for Milvus),
and belongs to one index for ever: two indexes that differ in anything differ in name, and what is built again
after it was given up gets another generation, so that a writer of the old one has no effect on the new.
"""

from __future__ import annotations

import re

from pointsman.core import recipes

LONGEST = 63
"""Bytes of the longest identifier that PostgreSQL keeps."""


def physical_prefix(namespace: str, name: str, uid: str) -> str:
    """Return what the names of all indexes of a deployment begin with, and those of no other's."""
    owner = recipes.digest([namespace, name, uid], 8)
    return f"pm_{_readable(namespace, 10)}_{_readable(name, 12)}_{owner}_"


def physical_name(
    namespace: str,
    name: str,
    uid: str,
    version: str,
    recipe: str,
    parameters_digest: str,
    generation: int = 0,
) -> str:
    """Return the name of one index of a deployment: at most 63 letters, digits and underscores.

    `recipe` is its key and `parameters_digest` one over the index's parameters. A new `generation` is a new name.
    """
    index = recipes.digest([namespace, name, uid, version, recipe, parameters_digest, generation], 8)
    prefix = physical_prefix(namespace, name, uid)
    return f"{prefix}{_readable(version, 10)}_{_readable(recipe, 6)}_{index}"


def _readable(text: str, length: int) -> str:
    return re.sub(r"[^a-z0-9]", "_", text.lower())[:length]
