"""Comparing by sorted keys answers as comparing dictionaries does."""

import random

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.api.dataset import Cause
from pointsman.core import changes, digests, rows
from pointsman.core.digests import Digest

# A document: the texts it is cut into, and its metadata. Few values, so that documents often agree.
DOCUMENT = st.tuples(st.lists(st.sampled_from(["x", "y", "xx", "xy"]), min_size=1, max_size=3), st.sampled_from("mn"))
CORPUS = st.dictionaries(st.text(max_size=3), DOCUMENT, max_size=12)
Documents = dict[str, tuple[list[str], str]]


def chunked(documents: Documents, side: str, seed: int) -> pa.Table:
    found = [
        {
            "point_id": digests.point_id(document, ordinal),
            "document": document,
            "ordinal": ordinal,
            "content_key": digests.content_key(side, text),
            "text_digest": digests.text_digest("".join(texts)),
            "cut_digest": digests.cut_digest(texts),
            "metadata_digest": digests.text_digest(metadata),
        }
        for document, (texts, metadata) in documents.items()
        for ordinal, text in enumerate(texts)
    ]
    random.Random(seed).shuffle(found)
    schema = pa.schema([field for field in rows.CHUNKS if field.name not in ("text", "metadata", "sequence")])
    return pa.Table.from_pylist(found, schema)


def cause(old: Documents, new: Documents, document: str, same_space: bool) -> Cause:
    if document not in old:
        return Cause.ADDED
    if document not in new:
        return Cause.DELETED
    (old_texts, old_metadata), (texts, metadata) = old[document], new[document]
    if "".join(old_texts) != "".join(texts):
        return Cause.EDITED
    if old_texts != texts:
        return Cause.RECHUNKED
    if not same_space:
        return Cause.RE_EMBEDDED
    return Cause.UNCHANGED if old_metadata == metadata else Cause.METADATA_ONLY


@settings(max_examples=150, deadline=None)
@given(CORPUS, CORPUS, st.booleans(), st.integers(0, 9))
def test_every_document_has_the_cause_that_a_dictionary_gives_it(
    old: Documents, new: Documents, same_space: bool, seed: int
) -> None:
    found = changes.chunks(chunked(old, "a", seed), chunked(new, "a" if same_space else "b", seed + 1), same_space)

    expected: dict[Cause, set[str]] = {each: set() for each in Cause}
    for document in old.keys() | new.keys():
        expected[cause(old, new, document, same_space)].add(document)
    assert {each: set(found.ids(each).to_pylist()) for each in Cause} == expected
    assert found.counts == {each: len(ids) for each, ids in expected.items()}


@settings(max_examples=150, deadline=None)
@given(CORPUS, CORPUS, st.integers(0, 9))
def test_applying_the_changed_points_makes_the_old_index_the_new_one(old: Documents, new: Documents, seed: int) -> None:
    before, after = chunked(old, "a", seed), chunked(new, "a", seed + 1)

    moved = changes.points(before, after)

    names = rows.PRESENCE.names
    index = {row["point_id"]: row for row in before.select(names).to_pylist()}
    target = {row["point_id"]: row for row in after.select(names).to_pylist()}
    for point in moved.deletes.to_pylist():
        del index[point]
    written = {point: target[point] for point in moved.upserts.to_pylist()}
    assert all(index.get(point) != row for point, row in written.items())
    assert index | written == target

    removed = {row["point_id"]: row for row in before.select(names).to_pylist()}
    taken = [row for point, row in removed.items() if target.get(point) != row]
    digest = (
        Digest.of(before)
        - Digest.of(pa.Table.from_pylist(taken, rows.PRESENCE))
        + Digest.of(pa.Table.from_pylist(list(written.values()), rows.PRESENCE))
    )
    assert digest == Digest.of(after)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.text(max_size=2), st.sampled_from("xyz")),
    st.dictionaries(st.text(max_size=2), st.sampled_from("xyz")),
)
def test_documents_differ_as_dictionaries_do(old: dict[str, str], new: dict[str, str]) -> None:
    tables = [
        pa.table({"id": pa.array(list(side), pa.string()), "digest": digests.text_digests(list(side.values()))})
        for side in (old, new)
    ]

    found = changes.documents(*tables)

    assert set(found.added.to_pylist()) == new.keys() - old.keys()
    assert set(found.deleted.to_pylist()) == old.keys() - new.keys()
    assert set(found.edited.to_pylist()) == {key for key in old.keys() & new.keys() if old[key] != new[key]}
    assert found.unchanged == sum(old[key] == new[key] for key in old.keys() & new.keys())
