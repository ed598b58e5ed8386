"""Native distance to our score: higher is better, and the value is the metric's own.

`cosine` is the cosine in [-1, 1], `dot` the inner product, `euclidean` minus the (true) distance. Each
function takes and returns float64 arrays of any shape and repairs rounding noise (a cosine of 1 + 1e-7, a
squared distance of -1e-9).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from polyvec.types import Metric

Floats = npt.NDArray[np.float64]


def from_cosine(similarity: npt.ArrayLike) -> Floats:
    """Score of a cosine similarity."""
    return np.clip(np.asarray(similarity, np.float64), -1.0, 1.0)


def from_cosine_distance(distance: npt.ArrayLike) -> Floats:
    """Score of a cosine distance, 1 - cosine."""
    return from_cosine(1.0 - np.asarray(distance, np.float64))


def from_dot(product: npt.ArrayLike) -> Floats:
    """Score of an inner product: itself."""
    return np.asarray(product, np.float64)


def from_distance(distance: npt.ArrayLike) -> Floats:
    """Score of a Euclidean distance: minus it."""
    return 0.0 - np.maximum(np.asarray(distance, np.float64), 0.0)  # 0.0 for the vector itself, not -0.0


def from_squared_distance(squared: npt.ArrayLike) -> Floats:
    """Score of a squared Euclidean distance: minus its root."""
    return from_distance(np.sqrt(np.maximum(np.asarray(squared, np.float64), 0.0)))


def exact(metric: Metric, queries: npt.ArrayLike, vectors: npt.ArrayLike) -> Floats:
    """Scores of every query against every vector, by brute force: what every backend must equal.

    Args:
        metric: "cosine", "dot" or "euclidean".
        queries: Shape (q, d).
        vectors: Shape (n, d).

    Returns:
        Shape (q, n), float64.
    """
    left, right = np.asarray(queries, np.float64), np.asarray(vectors, np.float64)
    if metric == "cosine":
        return from_cosine(unit(left) @ unit(right).T)
    if metric == "dot":
        return from_dot(left @ right.T)
    # differences, not |a|^2 - 2ab + |b|^2, which loses small distances; one query at a time for memory
    return np.stack([from_distance(np.linalg.norm(right - row, axis=1)) for row in left])


def unit(vectors: npt.ArrayLike) -> Floats:
    """Return the rows scaled to length 1 in float64, whatever their magnitude; shape (n, d), no zero rows."""
    rows = np.asarray(vectors, np.float64)
    # float32 reaches 3e38, whose square float64 still holds; no need to scale first
    lengths: Floats = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / lengths
