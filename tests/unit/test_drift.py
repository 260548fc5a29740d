"""The comparison that tells a changed model from numerical noise."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.core import drift


def unit(rows: int, dimensions: int, seed: int = 7) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_probes_are_the_ones_whose_vectors_are_pinned_in_every_store() -> None:
    digest = hashlib.sha256("\x00".join(drift.PROBES).encode()).hexdigest()
    assert len(drift.PROBES) == len(set(drift.PROBES)) == 16
    assert digest == "b33a0a66e65ff02974e5d1c2dd803f5ebd75824a080c4f585b55d451c50752ca"


def test_a_vector_is_at_no_distance_from_itself() -> None:
    vectors = unit(16, 64)
    assert drift.distance(vectors, vectors) == pytest.approx(0.0, abs=1e-12)


def test_the_largest_distance_counts_not_the_mean() -> None:
    pinned = np.eye(4, dtype=np.float32)
    now = pinned.copy()
    now[2] = [0.0, 0.0, 0.6, 0.8]
    assert drift.distance(pinned, now) == pytest.approx(0.4)


def test_opposite_vectors_are_two_apart() -> None:
    assert drift.distance(unit(3, 8), -unit(3, 8)) == pytest.approx(2.0)


def test_half_precision_is_no_change_of_model() -> None:
    vectors = unit(16, 512)
    assert drift.distance(vectors, vectors.astype(np.float16).astype(np.float32)) < drift.LIMIT / 100


def test_another_model_is_far_beyond_the_limit() -> None:
    assert drift.distance(unit(16, 64, seed=1), unit(16, 64, seed=2)) > 10 * drift.LIMIT


@pytest.mark.parametrize(
    ("pinned", "now"),
    [
        pytest.param(unit(16, 64), unit(16, 128), id="other dimensions"),
        pytest.param(unit(16, 64), unit(15, 64), id="a text is missing"),
        pytest.param(unit(1, 4), np.zeros((1, 4), np.float32), id="a zero vector"),
        pytest.param(unit(1, 2), np.array([[np.nan, 1]], np.float32), id="a NaN"),
        pytest.param(unit(1, 2), np.array([[np.inf, 1]], np.float32), id="an infinity"),
        pytest.param(np.empty((0, 4), np.float32), np.empty((0, 4), np.float32), id="nothing at all"),
    ],
)
def test_what_cannot_be_compared_is_as_far_as_can_be(pinned: np.ndarray, now: np.ndarray) -> None:
    assert drift.distance(pinned, now) == 2.0


@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_length_does_not_matter(scale: float, seed: int) -> None:
    vectors = unit(4, 16, seed)
    assert drift.distance(vectors, (vectors * np.float32(scale)).astype(np.float32)) < 1e-6
