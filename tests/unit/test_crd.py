from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointsman.api import conditions, crd, dataset, deployment, kinds, reference

ROOT = Path(__file__).parents[2]
EVERY_KIND = pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.name)
VOCABULARIES = (conditions.ConditionType, conditions.Status, conditions.Reason, deployment.Role, dataset.Cause)


def every_field(path: str, schema: crd.Schema) -> Iterator[tuple[str, crd.Schema]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from every_field(f"{path}.{name}", field)
    if "items" in schema:
        yield from every_field(f"{path}[]", schema["items"])


def schema_of(kind: kinds.Kind) -> crd.Schema:
    schema: crd.Schema = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def spec_of(kind: kinds.Kind) -> list[tuple[str, crd.Schema]]:
    return list(every_field("spec", schema_of(kind)["properties"]["spec"]))


@EVERY_KIND
def test_the_files_in_the_repository_are_those_made_from_the_types(kind: kinds.Kind) -> None:
    assert (ROOT / "crds" / f"{kind.crd}.yaml").read_text(encoding="utf-8") == crd.render(kind)


def test_the_reference_in_the_repository_is_that_made_from_the_types() -> None:
    assert (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8") == reference.render()


def test_no_other_definition_lies_beside_them() -> None:
    assert sorted(path.name for path in (ROOT / "crds").iterdir()) == [
        "approvals.pointsman.dev.yaml",
        "embeddingdatasets.pointsman.dev.yaml",
        "indexdeployments.pointsman.dev.yaml",
        "querysets.pointsman.dev.yaml",
    ]


def test_the_definitions_are_written_into_the_folder_that_is_named(tmp_path: Path) -> None:
    crd.main(tmp_path / "crds")
    reference.main(tmp_path / "docs" / "api.md")

    assert len(list((tmp_path / "crds").iterdir())) == 4
    assert (tmp_path / "docs" / "api.md").exists()


@EVERY_KIND
def test_every_field_of_the_schema_is_described(kind: kinds.Kind) -> None:
    fields = [*spec_of(kind), *every_field("status", schema_of(kind)["properties"]["status"])]

    assert [path for path, field in fields if not path.endswith("[]") and not field.get("description")] == []


@EVERY_KIND
def test_every_string_of_a_spec_is_bounded(kind: kinds.Kind) -> None:
    strings = [(path, field) for path, field in spec_of(kind) if field["type"] == "string"]

    assert strings
    assert [path for path, field in strings if "maxLength" not in field and "enum" not in field] == []


@EVERY_KIND
def test_every_list_is_bounded_and_says_how_it_is_merged(kind: kinds.Kind) -> None:
    fields = [*spec_of(kind), *every_field("status", schema_of(kind)["properties"]["status"])]
    lists = {path: field for path, field in fields if field["type"] == "array"}

    assert [path for path, field in lists.items() if "maxItems" not in field] == []
    # What happened has no key: the list is replaced whole.
    assert [path for path, field in lists.items() if "x-kubernetes-list-type" not in field] == (
        ["status.history"] if kind is kinds.INDEX_DEPLOYMENT else []
    )


@EVERY_KIND
def test_every_number_of_a_spec_is_bounded(kind: kinds.Kind) -> None:
    numbers = [(path, field) for path, field in spec_of(kind) if field["type"] == "integer" and "enum" not in field]

    assert [path for path, field in numbers if "minimum" not in field or "maximum" not in field] == []


@EVERY_KIND
def test_the_api_server_is_asked_to_fill_in_and_to_let_through_nothing(kind: kinds.Kind) -> None:
    unwanted = {"default", "x-kubernetes-preserve-unknown-fields", "nullable", "anyOf", "$ref"}

    fields = list(every_field("", schema_of(kind)))
    assert [path for path, field in fields if unwanted & field.keys()] == []
    # A map says what its values are; anything else would let any field through.
    maps = [(path, field["additionalProperties"]) for path, field in fields if "additionalProperties" in field]
    assert [path for path, values in maps if values.get("type") != "string"] == []


@EVERY_KIND
def test_every_rule_answers_with_a_clause(kind: kinds.Kind) -> None:
    rules = [
        rule for _, field in every_field("", schema_of(kind)) for rule in field.get("x-kubernetes-validations", ())
    ]

    assert rules
    for rule in rules:
        assert len(rule["message"].split()) >= 5
        assert not rule["message"].endswith(".")


@EVERY_KIND
def test_a_status_takes_the_words_of_a_later_release(kind: kinds.Kind) -> None:
    status = every_field("status", schema_of(kind)["properties"]["status"])
    refusing = {"enum", "pattern", "maxLength", "x-kubernetes-validations"}

    assert [path for path, field in status if refusing & field.keys()] == []


def test_a_deployment_shows_what_serves_where_it_goes_and_whether_it_can_go_back() -> None:
    columns = crd.definition(kinds.INDEX_DEPLOYMENT)["spec"]["versions"][0]["additionalPrinterColumns"]

    assert [column["name"].upper() for column in columns if "priority" not in column] == [
        *("SERVING", "TARGET", "PHASE", "STEP", "WEIGHT", "READY", "ROLLBACK", "AGE")
    ]


@EVERY_KIND
def test_every_column_shows_a_field_that_exists(kind: kinds.Kind) -> None:
    root = schema_of(kind)["properties"]
    for column in kind.columns:
        if column.path.startswith(".metadata") or ".conditions[" in column.path:
            continue
        place: Any = {"properties": root}
        for part in column.path.removeprefix(".").split("."):
            place = place["properties"][part]
        assert place["type"] in ("string", "integer")


@EVERY_KIND
def test_a_default_stands_in_the_description_alone(kind: kinds.Kind) -> None:
    fields = dict(every_field("spec", schema_of(kind)["properties"]["spec"]))

    if kind is kinds.EMBEDDING_DATASET:
        assert fields["spec.retention.snapshots"]["description"].endswith("Where it is left out: `10`.")
        assert fields["spec.suspend"]["description"].endswith("Where it is left out: `false`.")
    assert all("default" not in field for field in fields.values())


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.__name__)
def test_every_word_of_a_vocabulary_has_its_sentence(vocabulary: Any) -> None:
    sentences = reference.sentences(vocabulary)

    assert set(sentences) == {str(member) for member in vocabulary}
    assert all(sentence.endswith(".") for sentence in sentences.values())


def test_reasons_and_conditions_are_words_that_kubernetes_takes() -> None:
    words = [*conditions.ConditionType, *conditions.Reason]

    assert all(word.isalnum() and word[0].isupper() for word in words)
    assert len({*words}) == len(words)
