import pyarrow as pa

from pointsman.api.dataset import Cause
from pointsman.core import changes, digests, rows


def corpus(**documents: str) -> pa.Table:
    return pa.table(
        {"id": pa.array(list(documents), pa.string()), "digest": digests.text_digests(list(documents.values()))}
    )


def chunked(**documents: tuple[list[str], str]) -> pa.Table:
    """Return the chunks of documents, each given as its texts and its metadata."""
    found = []
    for document, (texts, metadata) in documents.items():
        for ordinal, text in enumerate(texts):
            found.append(
                {
                    "point_id": digests.point_id(document, ordinal),
                    "document": document,
                    "ordinal": ordinal,
                    "content_key": digests.content_key("side", text),
                    "text_digest": digests.text_digest("".join(texts)),
                    "cut_digest": digests.cut_digest(texts),
                    "metadata_digest": digests.text_digest(metadata),
                }
            )
    schema = pa.schema([field for field in rows.CHUNKS if field.name not in ("text", "metadata", "sequence")])
    return pa.Table.from_pylist(found, schema)


def test_documents_are_added_deleted_edited_or_unchanged() -> None:
    found = changes.documents(corpus(a="1", b="1", c="1"), corpus(d="1", c="2", a="1"))

    assert found.added.to_pylist() == ["d"]
    assert found.deleted.to_pylist() == ["b"]
    assert found.edited.to_pylist() == ["c"]
    assert found.unchanged == 1


def test_the_first_snapshot_adds_every_document() -> None:
    found = changes.documents(None, corpus(a="1", b="1"))

    assert found.added.to_pylist() == ["a", "b"]
    assert len(found.deleted) == len(found.edited) == found.unchanged == 0


def test_the_same_documents_in_another_order_are_no_change() -> None:
    found = changes.documents(corpus(a="1", b="2"), corpus(b="2", a="1"))

    assert len(found.added) == len(found.deleted) == len(found.edited) == 0
    assert found.unchanged == 2


def test_an_emptied_source_deletes_every_document() -> None:
    found = changes.documents(corpus(a="1"), corpus())

    assert found.deleted.to_pylist() == ["a"]


def test_each_document_counts_once_at_its_strongest_cause() -> None:
    old = chunked(
        same=(["x", "y"], "m"),
        gone=(["x"], "m"),
        edited=(["x"], "m"),
        meta=(["x"], "m"),
        recut=(["x", "y"], "m"),
        edited_and_meta=(["x"], "m"),
        recut_and_meta=(["xy"], "m"),
    )
    new = chunked(
        new=(["x"], "m"),
        same=(["x", "y"], "m"),
        edited=(["z"], "m"),
        meta=(["x"], "n"),
        recut=(["xy"], "m"),
        edited_and_meta=(["z"], "n"),
        recut_and_meta=(["x", "y"], "n"),
    )

    found = changes.chunks(old, new, same_space=True)

    assert found.counts == {
        Cause.ADDED: 1,
        Cause.DELETED: 1,
        Cause.EDITED: 2,
        Cause.METADATA_ONLY: 1,
        Cause.RECHUNKED: 2,
        Cause.RE_EMBEDDED: 0,
        Cause.UNCHANGED: 1,
    }
    assert {cause: found.ids(cause).to_pylist() for cause in Cause} == {
        Cause.ADDED: ["new"],
        Cause.DELETED: ["gone"],
        Cause.EDITED: ["edited", "edited_and_meta"],
        Cause.METADATA_ONLY: ["meta"],
        Cause.RECHUNKED: ["recut", "recut_and_meta"],
        Cause.RE_EMBEDDED: [],
        Cause.UNCHANGED: ["same"],
    }


def test_in_another_space_what_is_the_same_otherwise_is_re_embedded() -> None:
    old, new = chunked(a=(["x"], "m"), b=(["x"], "m")), chunked(a=(["x"], "m"), b=(["x"], "n"))

    found = changes.chunks(old, new, same_space=False)

    assert found.ids(Cause.RE_EMBEDDED).to_pylist() == ["a", "b"]
    assert found.counts[Cause.UNCHANGED] == 0


def test_a_first_embedding_adds_every_document() -> None:
    found = changes.chunks(None, chunked(a=(["x", "y"], "m")), same_space=True)

    assert found.counts[Cause.ADDED] == 1
    assert sum(found.counts.values()) == 1
    assert found.ids(Cause.DELETED).to_pylist() == []


def test_an_index_moves_by_the_points_that_differ() -> None:
    old = chunked(a=(["x", "y", "z"], "m"), b=(["x"], "m"), c=(["x"], "m"))
    new = chunked(a=(["x", "Y"], "m"), b=(["x"], "n"), d=(["x"], "m"))

    found = changes.points(old, new)

    assert found.upserts.to_pylist() == [digests.point_id("a", 1), digests.point_id("b", 0), digests.point_id("d", 0)]
    assert found.deletes.to_pylist() == [digests.point_id("a", 2), digests.point_id("c", 0)]
    assert found.documents.to_pylist() == ["a", "b", "d"]


def test_an_empty_index_gets_every_point() -> None:
    found = changes.points(None, chunked(a=(["x", "y"], "m")))

    assert len(found.upserts) == 2
    assert len(found.deletes) == 0


def test_points_are_compared_without_the_names_of_their_documents() -> None:
    table = chunked(a=(["x"], "m")).drop_columns(["document"])

    assert changes.points(table, table).documents.to_pylist() == []


def scan(chunks: pa.Table, recipe: str = "r") -> pa.Table:
    """Return what a scan of an index finds that holds these chunks."""
    return pa.Table.from_pylist([{**row, "recipe": recipe} for row in chunks.to_pylist()], rows.SCANNED)


def test_an_index_that_holds_its_snapshot_differs_in_nothing() -> None:
    chunks = chunked(a=(["one", "two"], "m"), b=(["one"], "m"))
    found = changes.parity(scan(chunks), chunks, "r")

    assert (len(found.upserts), len(found.deletes), found.foreign) == (0, 0, 0)


def test_an_index_differs_by_what_it_lacks_holds_otherwise_and_has_beyond() -> None:
    wanted = chunked(a=(["one"], "m"), b=(["two"], "m"), c=(["three"], "m"), d=(["four"], "m"))
    there = pa.concat_tables(
        [
            scan(chunked(a=(["ONE"], "m"), b=(["two"], "M"), x=(["five"], "m"))),
            scan(chunked(c=(["three"], "m")), recipe="another"),
            pa.Table.from_pylist(
                [{"point_id": None, "content_key": bytes(16), "metadata_digest": bytes(16), "recipe": "r"}],
                rows.SCANNED,
            ),
        ]
    )
    found = changes.parity(there, wanted, "r")

    assert found.upserts.to_pylist() == wanted["point_id"].to_pylist()
    assert found.deletes.to_pylist() == [digests.point_id("x", 0)]
    assert found.foreign == 1


def test_a_point_that_is_there_twice_is_written_again_and_not_deleted() -> None:
    wanted = chunked(a=(["one"], "m"), b=(["two"], "m"))
    twice = scan(chunked(b=(["two"], "m"), x=(["three"], "m")))
    found = changes.parity(pa.concat_tables([scan(wanted), twice, twice.slice(1)]), wanted, "r")

    assert found.upserts.to_pylist() == [digests.point_id("b", 0)]
    assert set(found.deletes.to_pylist()) == {digests.point_id("x", 0)}
