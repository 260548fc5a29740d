import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pointsman.core import digests, keys, rows
from pointsman.core.digests import Digest

KEYS = st.binary(min_size=16, max_size=16)
ROWS = st.lists(st.tuples(KEYS, KEYS, KEYS), max_size=30)


def presence(points: list[tuple[bytes, bytes, bytes]]) -> pa.Table:
    columns = list(zip(*points, strict=True)) or [(), (), ()]
    return pa.Table.from_arrays([pa.array(column, rows.KEY) for column in columns], schema=rows.PRESENCE)


def test_point_ids_are_the_same_in_every_release() -> None:
    assert digests.point_id("a", 0).hex() == "0e536d9970a4ea6c4b76b4cff2fffd76"
    assert digests.content_key("0123456789ab", "text").hex() == "c2f19e11ac28c7c6c1a23064a0cff092"
    assert digests.text_digest("text").hex() == "70870f67ef3866051e67399392f857c3"
    assert digests.cut_digest(["te", "xt"]).hex() == "635c5dc8ec9ccaa3ba2de63051060758"


def test_vectorised_digests_equal_those_of_single_values() -> None:
    documents = pa.chunked_array([["a", "ä"], ["c"]])

    assert digests.point_ids(documents, [0, 1, 2]).to_pylist() == [
        digests.point_id("a", 0),
        digests.point_id("ä", 1),
        digests.point_id("c", 2),
    ]
    assert digests.content_keys("side", documents)[1].as_py() == digests.content_key("side", "ä")
    assert digests.text_digests(["x"])[0].as_py() == digests.text_digest("x")


def test_a_text_has_another_key_in_another_space_and_another_digest_for_another_purpose() -> None:
    found = {
        digests.content_key("a", "x"),
        digests.content_key("b", "x"),
        digests.text_digest("x"),
        digests.point_id("x", 0),
    }

    assert len(found) == 4


def test_where_a_text_is_cut_matters() -> None:
    assert digests.cut_digest(["ab", "c"]) != digests.cut_digest(["a", "bc"])


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(points: list[tuple[bytes, bytes, bytes]], random: object) -> None:
    shuffled = list(points)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert Digest.of(presence(points)).hex() == Digest.of(presence(shuffled)).hex()


@given(ROWS, ROWS)
def test_what_is_added_and_taken_away_leaves_no_trace(
    a: list[tuple[bytes, bytes, bytes]], b: list[tuple[bytes, bytes, bytes]]
) -> None:
    first, second = Digest.of(presence(a)), Digest.of(presence(b))

    assert first + second == Digest.of(presence(a + b))
    assert first + second - second == first


def test_swapping_the_content_of_two_points_is_found() -> None:
    one, two, x, y = (bytes([n]) + bytes(15) for n in (1, 2, 7, 9))

    before = Digest.of(presence([(one, x, x), (two, y, y)]))
    after = Digest.of(presence([(one, y, x), (two, x, y)]))

    assert before != after


def test_the_recipe_is_part_of_the_digest() -> None:
    assert Digest().hex("a") != Digest().hex("b")


def test_documents_have_a_digest_too() -> None:
    key = bytes(16)
    one = pa.table({"id": ["a", "b"], "digest": pa.array([key, key], rows.KEY)})
    other = pa.table({"id": ["b", "a"], "digest": pa.array([key, key], rows.KEY)})

    assert Digest.of_documents(one) == Digest.of_documents(other)
    assert Digest.of_documents(one) != Digest.of_documents(one.slice(1))


@given(st.lists(KEYS, unique=True, max_size=40), st.lists(KEYS, max_size=40))
def test_an_index_of_keys_knows_where_each_stands(there: list[bytes], others: list[bytes]) -> None:
    asked = there[::2] + others

    found = keys.KeyIndex(pa.array(there, rows.KEY)).positions(pa.array(asked, rows.KEY))

    assert found.tolist() == [there.index(key) if key in there else -1 for key in asked]


def test_keys_that_share_their_first_half_are_told_apart() -> None:
    there = [bytes(8) + bytes([n]) * 8 for n in range(3)]

    found = keys.KeyIndex(pa.array(there, rows.KEY)).positions(pa.array([there[2], there[0], b"x" * 16], rows.KEY))

    assert found.tolist() == [2, 0, -1]


def test_a_key_that_stands_twice_is_always_found_in_the_same_place() -> None:
    there = pa.array([b"a" * 16, b"b" * 16, b"a" * 16], rows.KEY)

    found = keys.KeyIndex(there).positions(there)

    assert found[0] == found[2]
    assert found[1] == 1


def test_sliced_keys_are_read_from_their_own_offset() -> None:
    whole = pa.array([bytes([n]) * 16 for n in range(5)], rows.KEY)

    assert keys.KeyIndex(whole.slice(2)).positions(whole.slice(3, 1)).tolist() == [1]
