"""Scores: higher is better on every metric, and rounding noise is repaired."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyvec.scores import (
    exact,
    from_cosine,
    from_cosine_distance,
    from_distance,
    from_dot,
    from_squared_distance,
    unit,
)


@pytest.mark.parametrize(
    ("convert", "native", "score"),
    [
        (from_cosine, [0.5, -1.0, 1.0, 1 + 1e-7, -1 - 1e-7], [0.5, -1.0, 1.0, 1.0, -1.0]),
        (from_cosine_distance, [0.5, 2.0, 0.0, -1e-7, 2 + 1e-7], [0.5, -1.0, 1.0, 1.0, -1.0]),
        (from_dot, [-3.5, 0.0, 1e6], [-3.5, 0.0, 1e6]),
        (from_distance, [3.0, 0.0, -1e-9], [-3.0, 0.0, 0.0]),
        (from_squared_distance, [9.0, 0.0, -1e-9, 2.0], [-3.0, 0.0, 0.0, -(2.0**0.5)]),
    ],
)
def test_conversions(convert: Any, native: list[float], score: list[float]) -> None:
    found = convert(native)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, score)
    assert not np.signbit(found[found == 0]).any(), "no -0.0 in what users see"
    np.testing.assert_array_equal(convert(np.array(native).reshape(-1, 1)), np.array(score).reshape(-1, 1))
    assert convert(np.float32(0.25)).shape == ()


QUERIES = [[1.0, 0.0], [3.0, 4.0]]
VECTORS = [[1.0, 0.0], [-2.0, 0.0], [0.0, 5.0]]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine", [[1.0, -1.0, 0.0], [0.6, -0.6, 0.8]]),
        ("dot", [[1.0, -2.0, 0.0], [3.0, -6.0, 20.0]]),
        ("euclidean", [[0.0, -3.0, -(26**0.5)], [-(20**0.5), -(41**0.5), -(10**0.5)]]),
    ],
)
def test_exact(metric: Any, expected: list[list[float]]) -> None:
    found = exact(metric, QUERIES, np.array(VECTORS, np.float32))
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30, 3e38])
def test_the_cosine_of_vectors_of_any_length(scale: float) -> None:
    vectors = (np.array(VECTORS) / 5 * scale).astype(np.float32)
    expected = [[1.0, -1.0, 0.0], [0.6, -0.6, 0.8]]
    np.testing.assert_allclose(exact("cosine", QUERIES, vectors), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(unit(vectors), axis=1), 1.0)


def test_small_distances_are_not_lost() -> None:
    """|a|^2 - 2ab + |b|^2 would give 0 here, or worse."""
    near = [[1e4, 1e4], [1e4, 1e4 + 0.001]]
    np.testing.assert_allclose(exact("euclidean", [near[0]], near), [[0, -0.001]], rtol=1e-6)


def test_a_cosine_is_never_above_1() -> None:
    vectors = np.random.default_rng(7).normal(size=(200, 37))
    found = exact("cosine", vectors, vectors)
    assert found.max() <= 1.0
    np.testing.assert_allclose(np.diag(found), 1.0)
