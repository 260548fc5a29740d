import pytest

from pointsman.api.conditions import Reason
from pointsman.core import chunking, documents
from pointsman.core.recipes import Recipe, Space
from pointsman.errors import Terminal


def recipe(template: str = "{title}. {text}", *metadata_fields: str) -> Recipe:
    space = Space("wordllama", "m", "r", 4)
    return Recipe(space, template, metadata_fields, chunking.chunker(8, 0))


@pytest.mark.parametrize(
    ("template", "fields", "text"),
    [
        pytest.param("{title}. {text}", '{"title":"A","text":"b"}', "A. b", id="fields take their values"),
        pytest.param("{title}. {text}", '{"text":"b"}', ". b", id="a missing field is empty"),
        pytest.param("{title}{text}", '{"title":null,"text":"b"}', "b", id="a null field is empty"),
        pytest.param("{{{a}}}", '{"a":"b"}', "{b}", id="doubled braces are braces"),
        pytest.param("{a}", '{"a":3}', "3", id="integers are written out"),
        pytest.param("{a}", '{"a":0.5}', "0.5", id="floats are written out"),
        pytest.param("{a.b}", '{"a":{"b":"deep"}}', "deep", id="dots lead into objects"),
        pytest.param("{a.b}", '{"a.b":"flat","a":{"b":"deep"}}', "flat", id="a name with a dot comes first"),
        pytest.param("{a}", '{"a":"x\\u0000y"}', "xy", id="NUL is left out"),
    ],
)
def test_a_template_renders(template: str, fields: str, text: str) -> None:
    assert documents.renderer(recipe(template))(fields).text == text


@pytest.mark.parametrize(
    ("template", "fields", "kind"),
    [
        pytest.param("{a}", "{}", "without text", id="no text"),
        pytest.param("{a} {b}", '{"a":" \\n"}', "without text", id="only white space"),
        pytest.param("{a}", '{"a":"\\u0000 "}', "without text", id="only NUL and white space"),
        pytest.param("{a}", '{"a":[1]}', "with a `a` that is not text", id="a list"),
        pytest.param("{a}", '{"a":{"b":"c"}}', "with a `a` that is not text", id="an object"),
        pytest.param("{a}", '{"a":true}', "with a `a` that is not text", id="a boolean"),
    ],
)
def test_a_document_without_text_is_refused(template: str, fields: str, kind: str) -> None:
    with pytest.raises(documents.Refused) as refused:
        documents.renderer(recipe(template))(fields)
    assert str(refused.value) == kind


@pytest.mark.parametrize("template", ["{a", "a}", "{}", "{a{b}}", "plain"])
def test_a_broken_template_is_an_invalid_spec(template: str) -> None:
    with pytest.raises(Terminal) as error:
        documents.renderer(recipe(template))
    assert error.value.reason is Reason.INVALID_SPEC


def test_metadata_keeps_scalars_and_lists_of_scalars_in_canonical_form() -> None:
    render = documents.renderer(recipe("{t}", "year", "tags", "by.name", "absent", "nothing"))
    rendered = render('{"t":"x","year":1999,"tags":["b",null,"a"],"by":{"name":"Ana"},"nothing":null,"other":1}')
    assert rendered.metadata == '{"by.name":"Ana","tags":["b","a"],"year":1999}'


def test_metadata_that_no_filter_could_reach_is_refused_with_the_fields_name() -> None:
    render = documents.renderer(recipe("{t}", "author"))
    with pytest.raises(documents.Refused) as refused:
        render('{"t":"x","author":{"name":"Ana"}}')
    assert str(refused.value) == "with a metadata field `author` that is no scalar and no list of scalars"


def test_refusals_are_told_by_kind_with_first_positions() -> None:
    refusals = documents.Refusals()
    refusals.add("broken JSON", "papers.jsonl", 99)
    for line in (14, 80):
        refusals.add("without id", "papers.jsonl", line)
    with pytest.raises(Terminal) as error:
        refusals.raise_if_any(10_000)
    assert error.value.reason is Reason.SOURCE_INVALID
    assert error.value.message == (
        "3 of 10,000 rows are not documents: 2 without id (papers.jsonl:14, :80), 1 broken JSON (papers.jsonl:99); "
        "the last snapshot stays current"
    )


def test_refusals_beyond_the_fifth_are_counted_and_not_placed() -> None:
    refusals = documents.Refusals()
    for row in range(1, 8):
        refusals.add("without text", number=row)
    with pytest.raises(Terminal) as error:
        refusals.raise_if_any(7)
    assert "7 without text (row 1, 2, 3, 4, 5);" in error.value.message


def test_nothing_refused_raises_nothing() -> None:
    documents.Refusals().raise_if_any(10)
