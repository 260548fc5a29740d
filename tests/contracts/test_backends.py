"""One contract for every database."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contracts import backends_points as some
from tests.contracts.backends_engines import QDRANT_URL, Engine, engine, milvus_uri, postgres

from pointsman import errors, ports
from pointsman.api.conditions import Reason
from pointsman.backends import documents, memory
from pointsman.core import filters, names

__all__ = ["engine", "milvus_uri", "postgres"]

MARKER = ports.Marker(
    owner="shop/papers",
    uid="0b4bd6ee-6b1a-4a6e-8d2f-30b7fb7a1c11",
    version="v7",
    recipe="a1b2c3d4e5f6",
    space="0123456789ab",
    model="wörd 'llama\" \\ 🚂",
)
OTHER = dataclasses.replace(MARKER, owner="other/papers", uid="7f7bfb2c-3dd6-4b8f-a4d1-c0ffee000000")
COUNTER = itertools.count()


def spec_named(name: str, dimensions: int = 8, marker: ports.Marker = MARKER) -> ports.IndexSpec:
    return ports.IndexSpec(name, dimensions, 16, 64, marker)


@pytest.fixture
def name(engine: Engine) -> Iterator[str]:
    """A name that no other test uses; an index of ours under it goes at the end."""
    made = f"pm_test_{next(COUNTER)}"
    yield made
    for left in engine.names(made):
        try:
            engine.backend.drop(left)
        except errors.Terminal:
            engine.destroy(left)


@pytest.fixture
def index(engine: Engine, name: str) -> str:
    engine.backend.create(spec_named(name))
    return name


def scanned(engine: Engine, name: str) -> set[tuple[bytes, bytes, bytes, str]]:
    found = [row for batch in engine.backend.scan(name) for row in some.scanned(batch)]
    assert len(found) == len(set(found))
    return set(found)


def parsed(value: dict[str, Any]) -> filters.Filter:
    return filters.parse(value)


@pytest.mark.skipif(not QDRANT_URL, reason="no Qdrant server comes in a package; set QDRANT_URL to run on one")
def test_the_contract_runs_on_a_qdrant_server_where_there_is_one(request: pytest.FixtureRequest) -> None:
    assert any("[qdrant-server" in item.name for item in request.session.items)


# What an index is and whose.


def test_a_database_that_is_there_can_be_probed(engine: Engine) -> None:
    engine.backend.probe()


def test_an_index_that_was_never_made_is_not_found(engine: Engine, name: str) -> None:
    assert engine.backend.find(name) is None


def test_a_marker_comes_back_as_it_was_written(engine: Engine, index: str) -> None:
    assert engine.backend.find(index) == MARKER


def test_an_index_is_made_once_however_often_it_is_asked_for(engine: Engine, index: str) -> None:
    engine.backend.upsert(index, some.batch(some.directions(3, 8)))
    engine.backend.create(spec_named(index))
    assert engine.backend.count(index) == 3


def test_an_index_of_another_deployment_is_foreign(engine: Engine, index: str) -> None:
    with pytest.raises(errors.Terminal) as refused:
        engine.backend.create(spec_named(index, marker=OTHER))
    assert refused.value.reason is Reason.COLLECTION_FOREIGN
    assert engine.backend.find(index) == MARKER


def test_a_collection_made_by_hand_is_foreign_and_left_alone(engine: Engine, name: str) -> None:
    engine.build_foreign(name)
    for attempt in (engine.backend.find, engine.backend.drop, lambda name: engine.backend.create(spec_named(name))):
        with pytest.raises(errors.Terminal) as refused:
            attempt(name)
        assert refused.value.reason is Reason.COLLECTION_FOREIGN
    assert engine.names(name) == [name]


def test_a_name_may_be_as_long_as_names_get(engine: Engine) -> None:
    longest = names.physical_name("n" * 63, "d" * 253, MARKER.uid, "v" * 40, "f" * 12, "e" * 8, 999)
    assert len(longest) <= 63
    engine.backend.create(spec_named(longest))
    engine.backend.load(longest, [some.batch(some.directions(3, 8))])
    engine.backend.seal(longest)
    assert engine.names(longest) == [longest]
    assert engine.backend.count(longest) == 3
    engine.backend.drop(longest)


def test_a_dropped_index_is_gone_and_may_be_dropped_again(engine: Engine, index: str) -> None:
    engine.backend.drop(index)
    engine.backend.drop(index)
    assert engine.backend.find(index) is None
    assert engine.names(index) == []


def test_an_index_deleted_by_hand_is_found_lost(engine: Engine, index: str) -> None:
    engine.backend.upsert(index, some.batch(some.directions(3, 8)))
    engine.destroy(index)
    assert engine.backend.find(index) is None
    for attempt in (
        lambda: engine.backend.count(index),
        lambda: list(engine.backend.scan(index)),
        lambda: engine.backend.search(index, some.directions(1, 8)[0], 1, None),
        lambda: engine.backend.fetch(index, [bytes(16)]),
        lambda: engine.backend.upsert(index, some.batch(some.directions(1, 8))),
        lambda: engine.backend.delete(index, [bytes(16)]),
    ):
        with pytest.raises(errors.Retryable) as lost:
            attempt()
        assert lost.value.reason is Reason.INDEX_LOST


# Writing and reading back.


def test_a_new_index_is_empty(engine: Engine, index: str) -> None:
    assert engine.backend.count(index) == 0
    assert scanned(engine, index) == set()
    assert engine.backend.search(index, some.directions(1, 8)[0], 5, None) == []
    assert engine.backend.fetch(index, [bytes(16)])[0] == []


def test_what_was_loaded_is_all_there_and_indexed(engine: Engine, index: str) -> None:
    points = some.batch(some.directions(2500, 8))
    assert engine.backend.load(index, [points.slice(0, 700), points.slice(700)]) == 2500
    engine.backend.seal(index)
    assert engine.backend.is_built(index)
    assert engine.backend.count(index) == 2500
    assert scanned(engine, index) == some.scanned(points)


def test_a_load_that_was_cut_short_may_begin_again(engine: Engine, index: str) -> None:
    points = some.batch(some.directions(900, 8))
    engine.backend.load(index, [points.slice(100, 300)])
    assert engine.backend.load(index, [points]) == 900
    engine.backend.seal(index)
    engine.backend.seal(index)
    assert scanned(engine, index) == some.scanned(points)


def test_a_load_passes_on_what_its_source_raises(engine: Engine, index: str) -> None:
    def broken() -> Iterator[Any]:
        yield some.batch(some.directions(3, 8))
        raise errors.Retryable(Reason.STORE_UNREACHABLE, "the store went away")

    with pytest.raises(errors.Retryable, match="the store went away"):
        engine.backend.load(index, broken())


def test_an_upsert_is_visible_at_once_before_and_after_sealing(engine: Engine, index: str) -> None:
    vectors = some.directions(6, 8)
    first, second = some.batch(vectors[:3]), some.batch(vectors, metadata=[{"number": i + 10} for i in range(6)])
    engine.backend.upsert(index, first)
    assert scanned(engine, index) == some.scanned(first)
    engine.backend.seal(index)
    engine.backend.upsert(index, second)
    assert scanned(engine, index) == some.scanned(second)
    assert engine.backend.count(index) == 6
    assert engine.backend.search(index, vectors[5], 1, None)[0].metadata == {"number": 15}


def test_a_delete_is_visible_at_once_and_may_be_repeated(engine: Engine, index: str) -> None:
    vectors = some.directions(4, 8)
    points = some.batch(vectors)
    engine.backend.load(index, [points])
    engine.backend.seal(index)
    gone = [*some.ids(points)[:2], bytes(16)]
    for _ in range(2):
        engine.backend.delete(index, gone)
        assert engine.backend.count(index) == 2
        assert scanned(engine, index) == some.scanned(points.slice(2))
        found = {hit.point_id for hit in engine.backend.search(index, vectors[0], 4, None)}
        assert found == set(some.ids(points)[2:])
    engine.backend.upsert(index, points)
    assert engine.backend.count(index) == 4


def test_vectors_come_back_in_the_order_of_their_ids_and_of_unit_length(engine: Engine, index: str) -> None:
    vectors = some.directions(50, 8)
    points = some.batch(vectors)
    engine.backend.load(index, [points])
    ids, found = engine.backend.fetch(index, [*some.ids(points)[20:40], bytes(16)])
    assert found.shape == (20, 8)
    assert found.dtype == np.float32
    wanted = dict(zip(some.ids(points), vectors, strict=True))
    assert set(ids) == set(some.ids(points)[20:40])
    np.testing.assert_allclose(found, np.array([wanted[i] for i in ids]), atol=1e-6)


def test_a_vector_overwritten_by_hand_is_seen(engine: Engine, index: str) -> None:
    points = some.batch(some.directions(5, 8))
    engine.backend.load(index, [points])
    engine.backend.seal(index)
    engine.overwrite(index, some.ids(points)[2], [0, 0, 0, 5.0, 0, 0, 0, 0])
    ids, found = engine.backend.fetch(index, [some.ids(points)[2]])
    assert ids == [some.ids(points)[2]]
    np.testing.assert_allclose(found[0], [0, 0, 0, 1, 0, 0, 0, 0], atol=1e-6)
    hit = engine.backend.search(index, np.array([0, 0, 0, 1, 0, 0, 0, 0], np.float32), 1, None)[0]
    assert hit.point_id == some.ids(points)[2]


ODD = [
    "",
    " ",
    "a'b\"c\\d`e",
    "%s %(x)s {0} $1",
    "line\nbreak\ttab\r\x01\x7f",
    "ünïcödé 轉轍手 🚂 \u202e \ufeff",
    "x" * 3000,
    "-- ; DROP TABLE pg_class",
    "../../etc/passwd",
    "null",
]


def test_odd_ids_and_texts_come_back_as_they_were(engine: Engine, index: str) -> None:
    vectors = some.directions(len(ODD), 8)
    points = some.batch(vectors, documents=ODD, texts=ODD, metadata=[{text: text} for text in ODD])
    engine.backend.load(index, [points])
    engine.backend.seal(index)
    hits = {hit.document: hit for hit in engine.backend.search(index, vectors[0], 100, None)}
    assert set(hits) == set(ODD)
    for text in ODD:
        assert hits[text].text == text
        assert hits[text].metadata == {text: text}
        if not text:
            continue
        only = parsed({"type": "eq", "key": text[:256], "value": text[:1024]})
        found = [hit.document for hit in engine.backend.search(index, vectors[0], 100, only)]
        assert found == ([text] if len(text) <= 256 else [])


def test_metadata_of_every_shape_comes_back(engine: Engine, index: str) -> None:
    shapes: list[dict[str, Any]] = [
        {},
        {"k": None},
        {"k": [1, "a", None, [2], {"b": 3}]},
        {"k": {"b": {"c": 1.5}}},
        {"k": 2**53 + 1},
        {"k": -0.1, "a.b[0]": "c", 'q"': True},
    ]
    vectors = some.directions(len(shapes), 8)
    points = some.batch(vectors, metadata=shapes)
    engine.backend.load(index, [points])
    found = {hit.point_id: hit.metadata for hit in engine.backend.search(index, vectors[0], 100, None)}
    assert [found[point_id] for point_id in some.ids(points)] == shapes


def test_integers_that_a_database_would_change_are_refused(engine: Engine, index: str) -> None:
    points = some.batch(some.directions(2, 8), metadata=[{"k": [{"j": 2**63}]}, {"k": 1}])
    if engine.reads_metadata:
        engine.backend.upsert(index, points)
        hit = engine.backend.search(index, some.directions(2, 8)[0], 1, None)[0]
        assert hit.metadata == {"k": [{"j": 2**63}]}
        return
    with pytest.raises(errors.Terminal) as refused:
        engine.backend.upsert(index, points)
    assert refused.value.reason is Reason.BACKEND_UNSUPPORTED
    assert refused.value.message.startswith("the metadata of 1 documents has integers of more than 64 bits")


def test_a_batch_without_rows_is_no_error(engine: Engine, index: str) -> None:
    empty = some.batch(some.directions(1, 8)).slice(0, 0)
    assert engine.backend.load(index, [empty]) == 0
    engine.backend.upsert(index, empty)
    engine.backend.delete(index, [])
    assert engine.backend.fetch(index, [])[1].shape == (0, 8)
    assert engine.backend.count(index) == 0


# Searching.


@pytest.fixture(scope="module")
def thousands(engine: Engine) -> Iterator[tuple[str, np.ndarray, ports.Backend]]:
    """4,000 points in 64 dimensions, sealed, and the reference beside it."""
    name = f"pm_thousands_{next(COUNTER)}"
    vectors, reference = some.directions(4000, 64), memory.Memory()
    metadata = [{"rare": i % 100 == 0, "number": i, "tags": [f"t{i % 7}", i % 5]} for i in range(4000)]
    points = some.batch(
        vectors,
        documents=[f"d{i // 4}" for i in range(4000)],
        ordinals=[i % 4 for i in range(4000)],
        metadata=metadata,
    )
    for backend in (engine.backend, reference):
        backend.create(spec_named(name, 64))
        backend.load(name, [points])
        backend.seal(name)
    yield name, vectors, reference
    engine.backend.drop(name)


def test_scores_are_cosines_on_every_database(engine: Engine, thousands: tuple[str, Any, ports.Backend]) -> None:
    name, vectors, _ = thousands
    for query in some.directions(20, 64, seed=1):
        hits = engine.backend.search(name, query, 10, None)
        scores = [hit.score for hit in hits]
        assert len(hits) == 10
        assert scores == sorted(scores, reverse=True)
        for hit in hits:
            number = int(hit.metadata["number"])
            assert hit.score == pytest.approx(float(vectors[number] @ query), abs=1e-4)
            assert (hit.document, hit.ordinal) == (f"d{number // 4}", number % 4)


def test_the_nearest_are_found(engine: Engine, thousands: tuple[str, Any, ports.Backend]) -> None:
    name, _, reference = thousands
    shared = 0
    for query in some.directions(20, 64, seed=2):
        wanted = {hit.point_id for hit in reference.search(name, query, 10, None)}
        shared += len(wanted & {hit.point_id for hit in engine.backend.search(name, query, 10, None)})
    assert shared >= 0.9 * 200


def test_a_filter_that_keeps_one_in_a_hundred_still_returns_k(
    engine: Engine, thousands: tuple[str, Any, ports.Backend]
) -> None:
    name, _, reference = thousands
    rare = parsed({"type": "eq", "key": "rare", "value": True})
    for query in some.directions(10, 64, seed=3):
        hits = engine.backend.search(name, query, 20, rare)
        wanted = reference.search(name, query, 20, rare)
        assert all(hit.metadata["rare"] is True for hit in hits)
        assert len(hits) == 20
        assert len({hit.point_id for hit in hits} & {hit.point_id for hit in wanted}) >= 19


def test_where_fewer_pass_than_wanted_all_of_them_come(
    engine: Engine, thousands: tuple[str, Any, ports.Backend]
) -> None:
    name, vectors, _ = thousands
    few = parsed({"type": "gte", "key": "number", "value": 3997})
    hits = engine.backend.search(name, vectors[0], 100, few)
    assert {hit.metadata["number"] for hit in hits} == {3997, 3998, 3999}


def test_more_may_be_asked_for_than_a_graph_walk_returns(
    engine: Engine, thousands: tuple[str, Any, ports.Backend]
) -> None:
    name, vectors, _ = thousands
    hits = engine.backend.search(name, vectors[0], 3000, None)
    assert len({hit.point_id for hit in hits}) == 3000


def test_documents_are_counted_by_their_best_point(engine: Engine, thousands: tuple[str, Any, ports.Backend]) -> None:
    name, vectors, reference = thousands
    few = parsed({"type": "lt", "key": "number", "value": 40})
    hits = documents.top_documents(engine.backend, name, vectors[5], 10, few)
    wanted = documents.top_documents(reference, name, vectors[5], 10, few)
    assert [hit.document for hit in hits] == [hit.document for hit in wanted]
    assert len({hit.document for hit in hits}) == 10
    assert hits[0].document == "d1"


def test_one_document_of_many_points_does_not_hide_the_others(engine: Engine, index: str) -> None:
    vectors = np.zeros((203, 8), np.float32)
    vectors[:, 0], vectors[:, 1] = 1, np.linspace(0, 1, 203)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = some.batch(vectors, documents=["long"] * 200 + ["a", "b", "c"], ordinals=[*range(200), 0, 0, 0])
    engine.backend.load(index, [points])
    engine.backend.seal(index)
    query = np.array([1, 0, 0, 0, 0, 0, 0, 0], np.float32)
    hits = documents.top_documents(engine.backend, index, query, 3)
    assert [(hit.document, hit.ordinal) for hit in hits] == [("long", 0), ("a", 0), ("b", 0)]
    everything = documents.top_documents(engine.backend, index, query, 10)
    assert [hit.document for hit in everything] == ["long", "a", "b", "c"]


VALUES: list[Any] = [
    None, True, False, 0, 1, 1.0, -1, 0.5, 2, 1e-7, 2**53 + 1, 10**30, "", "a", "b", "1", "true", "ü", '"', "a'b\\",
    [], ["a"], ["a", "b"], [1, "b"], [True], [0.5, 2], [None], [["a"]], [{"k": 1}], {"k": 1}, {},
]  # fmt: skip
PATHS = ["k", "n", "a b", "k.n", "k[0]", 'q"o', "ü", "k\\", "'", "%s"]


@pytest.fixture(scope="module")
def shapes(engine: Engine) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Points of every shape of metadata, so that a filter's meaning can be read off which it lets through."""
    name = f"pm_shapes_{next(COUNTER)}"
    numbers = len(VALUES)
    metadata: list[dict[str, Any]] = [{}]
    metadata += [{"k": value} for value in VALUES]
    metadata += [{"k": VALUES[i], "n": VALUES[(7 * i + 3) % numbers]} for i in range(numbers)]
    metadata += [{path: value} for path in PATHS for value in ("a", 1, ["a", 2])]
    if not engine.reads_metadata:
        # The others hold no integers of more than 64 bits, and say so.
        metadata = [{k: v for k, v in each.items() if v != 10**30} for each in metadata]
    engine.backend.create(spec_named(name, 4))
    engine.backend.load(name, [some.batch(some.directions(len(metadata), 4), metadata=metadata)])
    engine.backend.seal(name)
    yield name, metadata
    engine.backend.drop(name)


def let_through(engine: Engine, name: str, where: filters.Filter) -> set[str]:
    return {hit.document for hit in engine.backend.search(name, some.directions(1, 4)[0], 1000, where)}


def meant(metadata: list[dict[str, Any]], where: filters.Filter) -> set[str]:
    return {f"document-{i}" for i, each in enumerate(metadata) if filters.matches(where, each)}


SCALARS = [True, False, 0, 1, 1.0, -1, 0.5, 2, 1e-7, 2.5, "", "a", "b", "1", "true", "ü", '"', "a'b\\", "c"]


@pytest.mark.parametrize("operator", ["eq", "ne"])
def test_equality_means_what_the_reference_says(
    engine: Engine, shapes: tuple[str, list[dict[str, Any]]], operator: str
) -> None:
    name, metadata = shapes
    for value in SCALARS:
        where = parsed({"type": operator, "key": "k", "value": value})
        assert let_through(engine, name, where) == meant(metadata, where), value


@pytest.mark.parametrize("operator", ["gt", "gte", "lt", "lte"])
def test_orderings_mean_what_the_reference_says(
    engine: Engine, shapes: tuple[str, list[dict[str, Any]]], operator: str
) -> None:
    name, metadata = shapes
    for value in (-2, -1, 0, 1e-7, 0.5, 1, 1.5, 2, 2**53 - 1, -(2**53) + 1):
        where = parsed({"type": operator, "key": "k", "value": value})
        assert let_through(engine, name, where) == meant(metadata, where), value


@pytest.mark.parametrize("operator", ["in", "nin"])
def test_lists_of_values_mean_what_the_reference_says(
    engine: Engine, shapes: tuple[str, list[dict[str, Any]]], operator: str
) -> None:
    name, metadata = shapes
    for values in (["a"], ["a", "b"], [1, "b"], [True, 0.5], ["c"], SCALARS):
        where = parsed({"type": operator, "key": "k", "value": values})
        assert let_through(engine, name, where) == meant(metadata, where), values


@pytest.mark.parametrize("path", PATHS)
def test_keys_of_odd_letters_are_found(engine: Engine, shapes: tuple[str, list[dict[str, Any]]], path: str) -> None:
    name, metadata = shapes
    for kind, value in (("eq", "a"), ("eq", 1), ("ne", "a"), ("gte", 2), ("lt", 2)):
        where = parsed({"type": kind, "key": path, "value": value})
        assert let_through(engine, name, where) == meant(metadata, where), (kind, value)


COMPARISONS = st.one_of(
    st.tuples(st.sampled_from(["eq", "ne"]), st.sampled_from("kn"), st.sampled_from(SCALARS)),
    st.tuples(st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from("kn"), st.sampled_from([-1, 0.5, 1])),
    st.tuples(st.sampled_from(["in", "nin"]), st.sampled_from("kn"), st.lists(st.sampled_from(SCALARS), min_size=1)),
).map(lambda found: {"type": found[0], "key": found[1], "value": found[2]})
TREES = st.recursive(
    COMPARISONS,
    lambda inner: st.builds(
        lambda kind, parts: {"type": kind, "filters": parts},
        st.sampled_from(["and", "or"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(tree=TREES)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_compounds_mean_what_the_reference_says(
    engine: Engine, shapes: tuple[str, list[dict[str, Any]]], tree: dict[str, Any]
) -> None:
    name, metadata = shapes
    where = parsed(tree)
    assert let_through(engine, name, where) == meant(metadata, where)


# Aliases.


def test_an_alias_moves_from_one_index_to_the_next(engine: Engine, name: str) -> None:
    first, second, alias = f"{name}_a", f"{name}_b", f"alias_{name}"
    for made, dimensions in ((first, 8), (second, 16)):
        engine.backend.create(spec_named(made, dimensions))
        engine.backend.load(made, [some.batch(some.directions(2, dimensions), documents=[f"{made}-1", f"{made}-2"])])
        engine.backend.seal(made)
        for _ in range(2):
            engine.backend.publish(alias, made)
        hits = engine.backend.search(alias, some.directions(1, dimensions)[0], 2, None)
        assert {hit.document for hit in hits} == {f"{made}-1", f"{made}-2"}
    engine.backend.drop(first)
    engine.backend.unpublish(alias, MARKER.owner)
    engine.backend.unpublish(alias, MARKER.owner)
    assert engine.backend.count(second) == 2


def test_an_alias_of_another_deployment_is_foreign(engine: Engine, name: str) -> None:
    first, second, alias = f"{name}_a", f"{name}_b", f"alias_{name}"
    engine.backend.create(spec_named(first))
    engine.backend.create(spec_named(second, marker=OTHER))
    engine.backend.publish(alias, first)
    for attempt in (
        lambda: engine.backend.publish(alias, second),
        lambda: engine.backend.unpublish(alias, OTHER.owner),
    ):
        with pytest.raises(errors.Terminal) as refused:
            attempt()
        assert refused.value.reason is Reason.COLLECTION_FOREIGN
    assert engine.backend.search(alias, some.directions(1, 8)[0], 1, None) == []
    engine.backend.unpublish(alias, MARKER.owner)


def test_an_alias_may_not_be_named_as_a_collection(engine: Engine, index: str) -> None:
    other = f"{index}_other"
    engine.backend.create(spec_named(other))
    with pytest.raises(errors.Terminal) as refused:
        engine.backend.publish(index, other)
    assert refused.value.reason is Reason.COLLECTION_FOREIGN


def test_an_index_is_dropped_with_its_alias(engine: Engine, index: str) -> None:
    engine.backend.publish(f"alias_{index}", index)
    engine.backend.drop(index)
    assert engine.backend.find(index) is None
    engine.backend.unpublish(f"alias_{index}", MARKER.owner)


def test_an_alias_of_a_lost_index_is_not_made(engine: Engine, name: str) -> None:
    with pytest.raises(errors.Retryable) as lost:
        engine.backend.publish(f"alias_{name}", name)
    assert lost.value.reason is Reason.INDEX_LOST
