"""Was every query answered by the model of the index that answered it? Recomputed from the texts, by nothing of ours.

    python examples/stdlib/recheck.py LOG QUERIES MODELS DOCUMENTS [DOCUMENTS ...]

Embeds each query and each document that was answered anew, by the model's own library at the dimensions of the version
that the answer names, and compares their cosine with the score of the answer. A query of another model's space would
have another score. Prints a JSON object of counts; `MODELS` is one too, of each version's dimensions and template.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from wordllama import WordLlama

NEAR = 2e-3
"""Databases keep 32-bit floats, some of them 16-bit ones."""
Vectors = npt.NDArray[np.float32]


def main() -> None:
    """Check every line of the log."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("log", type=Path)
    arguments.add_argument("queries", type=Path)
    arguments.add_argument("models", type=json.loads)
    arguments.add_argument("documents", type=Path, nargs="+")
    given = arguments.parse_args()
    queries = {row["id"]: row["text"] for row in _rows(given.queries)}
    templates = {model["template"] for model in given.models.values()}
    texts: dict[tuple[str, str], set[str]] = {}
    for row in (row for path in given.documents for row in _rows(path)):
        for template in templates:
            # White space around a text is not embedded.
            texts.setdefault((template, row["id"]), set()).add(template.format(**row).strip())
    answers = [answer for answer in _rows(given.log) if answer["status"] == 200]
    folder = resources.files("wordllama")
    model = WordLlama.load(config="l2_supercat", dim=256, cache_dir=Path(str(folder)), disable_download=True)
    whole = {text: vector for text, vector in _embedded(model, sorted(set(queries.values()) | _all(texts)))}
    checked = scores = wrong = 0
    for answer in answers:
        version = given.models[answer["version"]]
        query = _cut(whole[queries[answer["query"]]], version["dimensions"])
        found = [
            any(abs(float(query @ _cut(whole[text], version["dimensions"])) - score) <= NEAR for text in known)
            for document, score in answer["hits"]
            for known in [texts[version["template"], document]]
        ]
        checked += 1
        scores += len(found)
        wrong += not all(found)
    print(json.dumps({"answers": checked, "scores": scores, "mispaired": wrong}))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _all(texts: dict[tuple[str, str], set[str]]) -> set[str]:
    return {text for each in texts.values() for text in each}


def _embedded(model: WordLlama, texts: list[str]) -> list[tuple[str, Vectors]]:
    vectors = model.embed(texts)
    return list(zip(texts, vectors, strict=True))


def _cut(vector: Vectors, dimensions: int) -> Vectors:
    """Return the first numbers of a vector, at unit length: that is how the model is truncated."""
    part = vector[:dimensions]
    return part / np.linalg.norm(part)


if __name__ == "__main__":
    sys.exit(main())
