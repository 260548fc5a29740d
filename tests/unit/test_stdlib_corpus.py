from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples.stdlib import corpus

from pointsman.api import dataset, deployment, queryset
from pointsman.core import judgements

ROOT = Path(__file__).parents[2]

MODULE = '''
"""A module's own docstring is no entry."""
import missing_module

def undocumented(): pass

def short():
    """Too little told."""

class FileWalker:
    """Walk over all the files."""

    def nextFile(self):
        """Return the file that comes next.

        The walk goes down first and then to the right.
        """

    @property
    def depth(self):
        """How deep the walk is."""

    @depth.setter
    def depth(self, value):
        """The second definition."""

    def _inner(self):
        def hidden():
            """A function inside a function cannot be called by name."""

if True:
    def twin_a():
        """Do what the other twin does.

        Both of them have one and the same text.
        """
else:
    def twin_b():
        """Do what the other twin does.

        Both of them have one and the same text.
        """
'''


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    (folder / "files" / "test").mkdir(parents=True)
    (folder / "site-packages").mkdir()
    (folder / "files" / "__init__.py").write_text(MODULE)
    (folder / "files" / "test" / "cases.py").write_text('def case():\n    """A test is no documentation."""\n')
    (folder / "site-packages" / "other.py").write_text('def other():\n    """Not of the standard library."""\n')
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    corpus.write(folder)
    return folder


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_an_entry_is_what_has_a_docstring_and_a_name_of_its_own(stdlib: Path) -> None:
    found = {entry.id: entry for entry in corpus.entries(stdlib)}

    assert {key: entry.kind for key, entry in found.items()} == {
        "files.short": "function",
        "files.FileWalker": "class",
        "files.FileWalker.nextFile": "method",
        "files.FileWalker.depth": "method",
        "files.twin_a": "function",
        "files.twin_b": "function",
    }
    assert found["files.FileWalker.depth"].docstring == "How deep the walk is."
    assert found["files.FileWalker.nextFile"].module == "files"
    assert found["files.FileWalker.nextFile"].group == "files.FileWalker"


@pytest.mark.parametrize(
    ("qualified", "words"),
    [
        ("http.client.HTTPMessage.getallmatchingheaders", "http client HTTP Message getallmatchingheaders"),
        ("files.FileWalker.nextFile", "files File Walker next File"),
        ("_pydecimal.Context.compare_total", "pydecimal Context compare total"),
        ("os.path.commonprefix", "os path commonprefix"),
    ],
)
def test_a_name_is_told_in_words(qualified: str, words: str) -> None:
    assert corpus.Entry(qualified, "module", "function", "Text.").name == words


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("Return the next file.\n\nThe walk goes down first.", "Return the next file."),
        ("Return the next file.", ""),
        ("Return the\nnext file.\n\nThe walk goes down first.", ""),
        ("Next file.\n\nThe walk goes down first.", ""),
        ("Return the next file.\n\nGoes down first.", ""),
        ("Return the next file.\n\nReturn the next file. It may wait.", ""),
    ],
)
def test_a_summary_is_one_line_with_a_body_and_both_say_something(docstring: str, summary: str) -> None:
    assert corpus.Entry("m.f", "m", "function", docstring).summary == summary


def test_a_document_keeps_the_body_alone_where_its_summary_is_a_query(written: Path) -> None:
    documents = {row["id"]: row for row in rows(written, "documents")}
    queries = rows(written, "queries")

    assert not any(query["text"] in documents[query["id"]]["text"] for query in queries)
    assert all(documents[query["id"]]["text"] for query in queries)


def test_entries_of_one_text_make_one_query_that_each_of_them_answers(written: Path) -> None:
    judged: dict[str, list[str]] = {}
    for row in rows(written, "judgements"):
        judged.setdefault(row["query"], []).append(row["document"])
    texts = {row["id"]: row["text"] for row in rows(written, "documents")}

    assert all(query in relevant for query, relevant in judged.items())
    assert all(len({texts[document] for document in relevant}) == 1 for relevant in judged.values())
    assert any(len(relevant) > 1 for relevant in judged.values())


def test_the_corpus_is_large_enough_to_compare_versions(written: Path) -> None:
    found = judgements.load(rows(written, "queries"), rows(written, "judgements"))
    documents = rows(written, "documents")

    assert len(documents) >= 5_000
    assert len({row["id"] for row in documents}) == len(documents)
    assert all(row["text"].strip() and row["name"] for row in documents)
    assert {row["kind"] for row in documents} == {"function", "method", "class"}
    assert len(found.queries) >= 800
    assert len(set(found.groups.values())) >= 200


def test_the_version_of_python_is_recorded(written: Path) -> None:
    recorded = json.loads((written / "corpus.json").read_text())

    assert recorded["python"] == platform.python_version() == corpus.PYTHON
    assert recorded["documents"] == len(rows(written, "documents"))
    assert recorded["queries"] == len(rows(written, "queries"))


def test_the_command_writes_the_same_bytes_every_time(written: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "stdlib" / "corpus.py"), str(tmp_path / "new")]

    subprocess.run(command, check=True, capture_output=True, env={"PYTHONHASHSEED": "1"})

    for path in written.iterdir():
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()


def spec(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "stdlib" / name).read_text(encoding="utf-8"))["spec"]
    return found


def test_the_resources_are_valid_and_speak_of_the_files_that_are_written(written: Path) -> None:
    declared = dataset.Spec.model_validate(spec("dataset.yaml"))
    asked = queryset.Spec.model_validate(spec("queryset.yaml"))
    serving = deployment.Spec.model_validate(spec("deployment.yaml"))

    assert serving.dataset_ref.name == "stdlib"
    assert serving.version in [version.name for version in declared.versions]
    for files in (declared.source.files, asked.queries.files, asked.judgements.files):
        assert files is not None
        assert files.uri.startswith("file:///corpus/")
        assert (written / files.uri.removeprefix("file:///corpus/")).exists()


def test_another_model_is_one_entry_more_in_the_dataset() -> None:
    before, after = spec("dataset.yaml"), spec("dataset-with-v8.yaml")

    assert after["versions"][:1] == before["versions"]
    assert [version["name"] for version in after["versions"]] == ["v7", "v8"]
    assert {**after, "versions": before["versions"]} == before
    assert len(dataset.Spec.model_validate(after).versions) == 2
