"""What does the pipeline (read, chunk, embed, store) cost beside the bare model on the same texts?

Run as `python bench/embed.py [TEXTS] [ROUNDS]`. Bare and pipeline take turns in one process, so that what else the
machine does touches both; the ratio is the median over the rounds. The texts are docstrings of this Python's library.
"""

from __future__ import annotations

import ast
import statistics
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pointsman.api.dataset import ModelChoice, Surprises, WordllamaModel
from pointsman.core import chunking
from pointsman.core.recipes import Recipe
from pointsman.embedders import registry
from pointsman.embedders.wordllama import Wordllama
from pointsman.sources.memory import MemorySource
from pointsman.store.root import Store
from pointsman.work import progress
from pointsman.work.embed import embed
from pointsman.work.refresh import refresh

TARGET = 0.90


def texts(count: int) -> list[str]:
    """Return real short texts: the first lines of docstrings and code of the standard library, all distinct."""
    found: dict[str, None] = {}
    for text in _definitions():
        found[text] = None
        if len(found) == count:
            break
    return list(found)


def _definitions() -> Iterator[str]:
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
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    content = texts(count)
    choice = ModelChoice(wordllama=WordllamaModel(dimensions=256))
    recipe = Recipe(registry.space_of(choice), "{text}", (), chunking.chunker(256, 0))
    model = Wordllama(256)
    model.embed(content[:512])
    bare: list[float] = []
    whole: list[float] = []
    cpu: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            dataset = Store(folder).dataset("bench", "texts")
            source = MemorySource([{"id": str(n), "text": text} for n, text in enumerate(content)])
            refresh(dataset, source, Surprises(), lambda: datetime.now(UTC), progress.nowhere)
            began, spent = time.perf_counter(), time.process_time()
            record = embed(dataset, "v1", recipe, 1, model, lambda: datetime.now(UTC), progress.nowhere)
            whole.append(time.perf_counter() - began)
            whole_cpu = time.process_time() - spent
        pieces = [piece for text in content for piece in chunking.cut(text, recipe.chunker)]
        assert record.rows == len(pieces)
        began, spent = time.perf_counter(), time.process_time()
        model.embed(pieces)
        bare.append(time.perf_counter() - began)
        cpu.append((time.process_time() - spent) / whole_cpu)
    ratios = [b / w for b, w in zip(bare, whole, strict=True)]
    print("| texts | bare model, texts/s | pipeline, texts/s | ratio, median (range) | target | ratio of CPU time |")
    print("|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {record.rows:,} | {record.rows / statistics.median(bare):,.0f} "
        f"| {record.rows / statistics.median(whole):,.0f} "
        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {TARGET:.2f} "
        f"| {statistics.median(cpu):.2f} |"
    )


if __name__ == "__main__":
    main()
