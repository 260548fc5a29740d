import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.api.conditions import Reason
from pointsman.core import chunking
from pointsman.core.recipes import Chunker
from pointsman.errors import Terminal

TEXTS = st.one_of(
    st.text(max_size=400),
    st.text(alphabet="ab.,\n\t 漢字。👩‍👦", max_size=600),
    st.lists(st.sampled_from(["word", "extraordinarily", ". ", "\n\n", " ", " " * 40, "漢字", "—"])).map("".join),
)


def solid(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(text=TEXTS, most=st.integers(8, 40))
def test_no_character_is_lost_or_doubled_without_overlap(text: str, most: int) -> None:
    chunks = chunking.cut(text, chunking.chunker(most, 0))
    assert solid("".join(chunks)) == solid(text)


@given(text=TEXTS, most=st.integers(8, 40), share=st.floats(0, 0.5))
def test_every_chunk_is_within_the_limit_and_comes_from_the_text_in_order(text: str, most: int, share: float) -> None:
    chunks = chunking.cut(text, chunking.chunker(most, int(most * share)))
    at = 0
    for chunk in chunks:
        assert 0 < chunking.count(chunk) <= most
        assert chunk == chunk.strip()
        found = text.find(chunk)
        assert found >= 0
    for character in solid(text):
        # Every character is in some chunk, in the order of the text.
        while character not in chunks[at]:
            at += 1


@given(text=TEXTS, most=st.integers(8, 40), shared=st.integers(0, 4))
def test_cutting_is_deterministic(text: str, most: int, shared: int) -> None:
    chunker = chunking.chunker(most, shared)
    assert chunking.cut(text, chunker) == chunking.cut(text, chunker)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("one two", 2),
        ("it's", 3),
        ("extraordinarily", 2),
        ("a" * 25, 3),
        ("漢字かな", 4),
        ("한국어", 3),
        ("👩‍👦", 3),
        ("a" + " " * 64 + "b", 4),
    ],
)
def test_tokens_are_words_and_marks(text: str, tokens: int) -> None:
    assert chunking.count(text) == tokens


def test_a_short_text_is_one_chunk() -> None:
    assert chunking.cut("  A short text.\n", chunking.chunker(8, 2)) == ["A short text."]


def test_a_text_of_white_space_has_no_chunk() -> None:
    assert chunking.cut(" \n" * 500, chunking.chunker(8, 2)) == []


def test_paragraphs_are_preferred_to_sentences_and_sentences_to_words() -> None:
    text = "One two three. Four five six.\n\nSeven eight nine ten. Eleven twelve thirteen fourteen fifteen sixteen"
    assert chunking.cut(text, chunking.chunker(12, 0)) == [
        "One two three. Four five six.",
        "Seven eight nine ten. Eleven twelve thirteen fourteen fifteen sixteen",
    ]
    assert chunking.cut(text, chunking.chunker(8, 0)) == [
        "One two three. Four five six.",
        "Seven eight nine ten.",
        "Eleven twelve thirteen fourteen fifteen sixteen",
    ]


def test_neighbours_share_whole_tokens_up_to_the_overlap() -> None:
    words = [f"w{number}" for number in range(40)]
    chunks = [chunk.split() for chunk in chunking.cut(" ".join(words), chunking.chunker(16, 4))]
    assert [(chunk[0], chunk[-1]) for chunk in chunks] == [
        ("w0", "w15"),
        ("w12", "w27"),
        ("w24", "w39"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 1_000_000, id="one word"),
        pytest.param("漢字かな" * 250_000, id="CJK without spaces"),
        pytest.param("👩‍👩‍👧‍👦" * 100_000, id="emoji"),
        pytest.param("word " * 200_000, id="words"),
        pytest.param("".join("a" + " " * n for n in range(1400)), id="runs of white space of every length"),
    ],
)
def test_a_megabyte_of_anything_is_cut_in_seconds(text: str) -> None:
    began = time.process_time()
    chunks = chunking.cut(text, chunking.chunker(256, 0))
    assert time.process_time() - began < 20
    assert max(map(chunking.count, chunks)) <= 256
    assert solid("".join(chunks)) == solid(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("word " * 20_000, id="words"),
        pytest.param("漢字かな" * 5_000, id="CJK without spaces"),
        pytest.param("one two. " * 10_000, id="short sentences"),
        pytest.param(("w " * 129 + "\n\n") * 200, id="paragraphs that end where a chunk may end first"),
        pytest.param(("w " * 129 + "\n\nw\nw. w, " + "w " * 60) * 100, id="ever worse breaks"),
    ],
)
def test_the_largest_overlap_makes_a_number_of_chunks_in_proportion_to_the_text(text: str) -> None:
    chunks = chunking.cut(text, chunking.chunker(256, 128))
    assert len(chunks) <= 4 * chunking.count(text) / 128


def test_an_overlap_of_more_than_half_a_chunk_is_refused() -> None:
    with pytest.raises(Terminal) as error:
        chunking.chunker(64, 33)
    assert error.value.message == "chunking.overlapTokens is 33; wanted at most half of maxTokens, which is 64"


def test_a_chunker_of_another_release_is_refused() -> None:
    with pytest.raises(Terminal) as error:
        chunking.check(Chunker("semchunk", "4.1", 256, 0))
    assert error.value.reason is Reason.INVALID_SPEC
    assert error.value.message.startswith("the recipe is cut by semchunk 4.1 and this release has breaks 1;")
