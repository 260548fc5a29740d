"""Real text that every machine with Python has: `python examples/stdlib/corpus.py FOLDER`.

A document is a documented function, method or class of the standard library, read from its source with `ast`: nothing
is imported. For every second docstring with a summary line and a body, the summary line becomes a judged query and the
document keeps the body alone: who remembers what a thing does searches for its name.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON = platform.python_version()
STDLIB = Path(sysconfig.get_path("stdlib"))

# Tests are no documentation; site-packages is not the standard library; the others are programs that come with it.
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo"}
# A query of one word, or an answer of one, would say nothing about a model.
LEAST_WORDS_OF_SUMMARY, LEAST_WORDS_OF_BODY = 4, 5


@dataclass(frozen=True)
class Entry:
    """A documented function, method or class."""

    id: str
    module: str
    kind: str
    docstring: str

    @property
    def name(self) -> str:
        """The qualified name in words: `http.client.HTTPMessage.get_all` is `http client HTTP Message get all`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[._]+", " ", self.id).strip()

    @property
    def group(self) -> str:
        """Its class or module."""
        return self.id.rpartition(".")[0]

    @property
    def summary(self) -> str:
        """The one line above a body that does not repeat it; empty where there is none such."""
        line, _, body = self.docstring.partition("\n\n")
        is_told = len(line.split()) >= LEAST_WORDS_OF_SUMMARY and len(body.split()) >= LEAST_WORDS_OF_BODY
        return line.strip() if is_told and "\n" not in line and line.strip() not in body else ""

    @property
    def is_asked(self) -> bool:
        """Whether the summary is a query. Decided by the docstring, so that entries of one text stay alike."""
        return bool(self.summary) and hashlib.blake2b(self.docstring.encode()).digest()[0] % 2 == 0

    @property
    def text(self) -> str:
        """The docstring, without its summary where that is a query."""
        return self.docstring.partition("\n\n")[2].strip() if self.is_asked else self.docstring


def entries(stdlib: Path = STDLIB) -> list[Entry]:
    """Return all entries by id; of several definitions of one name, such as a property's, the first."""
    found: dict[str, Entry] = {}
    for path in sorted(stdlib.rglob("*.py")):
        place = path.relative_to(stdlib)
        if LEFT_OUT.isdisjoint(place.parts):
            module = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
            for entry in _documented(ast.parse(path.read_bytes()), module, module):
                found.setdefault(entry.id, entry)
    return [found[key] for key in sorted(found)]


def _documented(node: ast.AST, inside: str, module: str) -> Iterator[Entry]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                name, is_class = f"{inside}.{child.name}", isinstance(child, ast.ClassDef)
                kind = "class" if is_class else "method" if isinstance(node, ast.ClassDef) else "function"
                if docstring := ast.get_docstring(child):
                    yield Entry(name, module, kind, docstring)
                if is_class:
                    yield from _documented(child, name, module)
            case ast.If() | ast.Try() | ast.With():
                yield from _documented(child, inside, module)


def write(folder: Path, stdlib: Path = STDLIB) -> int:
    """Write documents.jsonl, queries.jsonl, judgements.jsonl and corpus.json, and return the number of documents."""
    found = entries(stdlib)
    alike: dict[str, list[Entry]] = {}
    for entry in found:
        alike.setdefault(entry.docstring, []).append(entry)
    # Entries of one text make one query, and each of them answers it.
    asked = [same for same in alike.values() if same[0].is_asked]
    documents = [{"id": e.id, "name": e.name, "text": e.text, "module": e.module, "kind": e.kind} for e in found]
    queries = [{"id": same[0].id, "text": same[0].summary, "group": same[0].group} for same in asked]
    judgements = [{"query": same[0].id, "document": entry.id} for same in asked for entry in same]
    for name, rows in (("documents", documents), ("queries", queries), ("judgements", judgements)):
        _write_lines(folder / f"{name}.jsonl", rows)
    counts = {"documents": len(documents), "queries": len(queries), "judgements": len(judgements)}
    (folder / "corpus.json").write_text(json.dumps({"python": PYTHON, **counts}, indent=2) + "\n")
    return len(documents)


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write(target)
    print((target / "corpus.json").read_text(), end="")
