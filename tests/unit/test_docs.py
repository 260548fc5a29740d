"""What the documents say of the code is true: examples are admitted, links lead somewhere, folders exist."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointsman.api import base, dataset, deployment, queryset

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("e2e/*.md")])
SPECS = {"EmbeddingDataset": dataset.Spec, "IndexDeployment": deployment.Spec, "QuerySet": queryset.Spec}
SHA256_OF_APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def examples() -> Iterator[Any]:
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
            for document in yaml.safe_load_all(block):
                if document["apiVersion"].startswith("rbac."):
                    # The operator's own rights, which `test_kube` compares with what it asks for.
                    continue
                yield pytest.param(document, id=f"{page.relative_to(ROOT)}-{number}-{document.get('kind')}")


@pytest.mark.parametrize("document", list(examples()))
def test_a_resource_in_the_documents_is_one_that_the_types_admit(document: dict[str, Any]) -> None:
    assert document["apiVersion"] == f"{base.GROUP}/{base.API_VERSION}"

    SPECS[document["kind"]].model_validate(document["spec"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())

    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_part_of_the_package_is_on_the_map_and_nothing_else() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().split("## What is where")[1].split("\n\n")[1]
    mapped = {name for line in table.splitlines() for name in re.findall(r"`(\w+)/`", line.split("|")[1])}

    package = ROOT / "operator" / "pointsman"
    assert mapped == {path.parent.name for path in package.glob("*/__init__.py")}


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_modules_that_the_documents_name_exist(page: str) -> None:
    package = ROOT / "operator" / "pointsman"
    named = set(re.findall(r"`((?:[a-z]+/)+[a-z_]+\.(?:py|md))`", (ROOT / page).read_text())) - {"backends/x.py"}
    named -= {"embedders/x.py", "sources/x.py"}

    assert sorted(name for name in named if not (package / name).exists() and not (ROOT / name).exists()) == []


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()

    assert [path.name for path in sorted(folder.glob("0*.md")) if path.name not in index] == []


def test_the_licence_is_the_unmodified_apache_licence() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == SHA256_OF_APACHE_2
