"""What does the pipeline (read, chunk, embed, store) cost beside the bare model on the same texts?

Run as `python bench/embed.py [TEXTS] [ROUNDS]`. Bare and pipeline take turns in one process, so that what else the
machine does touches both; the ratio is the median over the rounds. The texts are docstrings of this Python's library,
read from JSON Lines into a snapshot first, which is a step of its own and is timed apart and together.
"""

from __future__ import annotations

import ast
import functools
import itertools
import statistics
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson

from pointsman.access import Access
from pointsman.api.dataset import FilesSource as FilesSpec
from pointsman.api.dataset import ModelChoice, Surprises, WordllamaModel
from pointsman.core import chunking
from pointsman.core.recipes import Recipe
from pointsman.embedders import registry
from pointsman.embedders.wordllama import Wordllama
from pointsman.sources.files import FilesSource
from pointsman.store.root import Store
from pointsman.work import progress
from pointsman.work.embed import embed
from pointsman.work.refresh import refresh


def texts(count: int) -> list[str]:
    """Return real short texts, all distinct: of the standard library, and numbered from the second round on."""
    found: dict[str, None] = {}
    for turn in itertools.count():
        for text in _definitions():
            found[f"{turn} {text}" if turn else text] = None
            if len(found) == count:
                return list(found)
    raise AssertionError


@functools.cache
def _definitions() -> list[str]:
    return list(_walked())


def _walked() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if {"site-packages", "dist-packages"} & set(path.parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_text())
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                body = ast.get_docstring(node) or ast.unparse(node)[:300]
                yield f"{path.stem} {node.name.replace('_', ' ')}. {body}"[:600]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    content = texts(count)
    choice = ModelChoice(wordllama=WordllamaModel(dimensions=256))
    recipe = Recipe(registry.space_of(choice), "{text}", (), chunking.chunker(256, 0))
    model = Wordllama(256)
    model.embed(content[:512])
    bare: list[float] = []
    whole: list[float] = []
    reading: list[float] = []
    cpu: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            (folder / "texts.jsonl").write_bytes(
                b"".join(orjson.dumps({"id": str(n), "text": text}) + b"\n" for n, text in enumerate(content))
            )
            files = FilesSpec(uri=f"file://{folder}/texts.jsonl", format="jsonl")
            source = FilesSource(files, "id", {}, Access(file_roots=(folder,)))
            dataset = Store(str(folder / "store")).dataset("bench", "texts")
            began, spent = time.perf_counter(), time.process_time()
            refresh(dataset, source, Surprises(), lambda: datetime.now(UTC), progress.nowhere)
            reading.append(time.perf_counter() - began)
            record = embed(dataset, "v1", recipe, 1, model, lambda: datetime.now(UTC), progress.nowhere)
            whole.append(time.perf_counter() - began)
            whole_cpu = time.process_time() - spent
        pieces = [piece for text in content for piece in chunking.cut(text, recipe.chunker)]
        assert record.rows == len(pieces)
        began, spent = time.perf_counter(), time.process_time()
        model.embed(pieces)
        bare.append(time.perf_counter() - began)
        cpu.append((time.process_time() - spent) / whole_cpu)
    stored = [w - r for w, r in zip(whole, reading, strict=True)]
    print(
        "| texts | bare model, texts/s | snapshot, texts/s | chunk, embed, store, texts/s | ratio to the model, median "
        "(range) | snapshot too, ratio | of processor time |\n|---:|---:|---:|---:|---:|---:|---:|"
    )
    rates = [f"{record.rows / statistics.median(taken):,.0f}" for taken in (bare, reading, stored)]
    ratios = [b / s for b, s in zip(bare, stored, strict=True)]
    all_ratios = statistics.median(b / w for b, w in zip(bare, whole, strict=True))
    print(
        f"| {record.rows:,} | {' | '.join(rates)} "
        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
        f"| {all_ratios:.2f} | {statistics.median(cpu):.2f} |"
    )


if __name__ == "__main__":
    main()
