"""Comparing what a backend answered with what is right: exactly, but for rounding in vectors and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import numpy as np

from polyvec import scores
from polyvec.filters import Filter, matches
from polyvec.protocol import Collection
from polyvec.types import Match, Metadata, Metric, Record, Vector

VECTOR_RTOL: Final = 1e-5
SCORE_TOLERANCE: Final = 1e-4
"""Absolute up to a score of 1, relative beyond."""


def same_value(left: object, right: object) -> bool:
    """Whether two metadata values are equal and of the same types all the way down (1 is not 1.0)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, datetime) and isinstance(right, datetime):
        return left == right and left.utcoffset() == right.utcoffset()
    return repr(left) == repr(right)  # tells -0.0 from 0.0


def assert_same_vector(got: Vector | None, expected: Vector | None, what: str) -> None:
    """Assert that a vector came back as it was written, to rtol 1e-5 of its largest element."""
    assert got is not None, f"{what}: the vector is missing"
    assert expected is not None
    array, wanted = np.asarray(got), np.asarray(expected, np.float32)
    assert array.dtype == np.float32, f"{what}: dtype {array.dtype}"
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(
        array.astype(np.float64), wanted, rtol=VECTOR_RTOL, atol=VECTOR_RTOL * scale, err_msg=what
    )


def assert_same_record(got: Record | None, expected: Record | None, *, vector: bool = True) -> None:
    """Assert that a record came back as it was written."""
    if expected is None or got is None:
        assert got is expected, f"got {got}, expected {expected}"
        return
    assert got.id == expected.id
    assert got.text == expected.text, f"{got.id!r}: text {got.text!r}, expected {expected.text!r}"
    assert same_value(got.metadata, expected.metadata), (
        f"{got.id!r}: metadata {got.metadata!r}, expected {expected.metadata!r}"
    )
    if vector:
        assert_same_vector(got.vector, expected.vector, f"vector of {got.id!r}")


def assert_holds(collection: Collection, expected: Iterable[Record]) -> None:
    """Assert that the collection holds exactly these records, by count, scan and get."""
    wanted = {record.id: record for record in expected}
    found = list(collection.scan(include_vectors=True))
    assert sorted(record.id for record in found) == sorted(wanted), "scan shows other ids"
    assert collection.count() == len(wanted)
    for record in found:
        assert_same_record(record, wanted[record.id])
    for got, id in zip(collection.get(list(wanted)), wanted, strict=True):
        assert_same_record(got, wanted[id])


def truth(
    records: Iterable[Record], metric: Metric, vector: Vector, filter: Filter | None = None
) -> dict[str, float]:
    """Return the score of every record for which the filter holds, by numpy in float64."""
    kept = [record for record in records if matches(filter, record.metadata)]
    if not kept:
        return {}
    stored = np.array([record.vector for record in kept], np.float32)
    found = scores.exact(metric, np.asarray([vector], np.float32), stored)[0]
    return dict(zip((record.id for record in kept), found.tolist(), strict=True))


def _tolerance(score: float) -> float:
    return SCORE_TOLERANCE * max(1.0, abs(score))


def assert_best(
    got: Sequence[Match],
    expected: Mapping[str, float],
    *,
    limit: int,
    offset: int = 0,
    min_score: float | None = None,
) -> None:
    """Assert that matches are a right answer, given the true score of every record that qualifies.

    Scores may be off by rounding, so records whose true scores are that close may stand in either order.
    """
    for match in got:
        assert match.id in expected, (
            f"{match.id!r} must not be found (the filter does not hold, or it is gone)"
        )
        true = expected[match.id]
        assert abs(match.score - true) <= _tolerance(true), f"{match.id!r}: score {match.score}, numpy {true}"
        if min_score is not None:
            assert match.score >= min_score
    assert len({match.id for match in got}) == len(got), "an id was found twice"
    order = [(-match.score, match.id) for match in got]
    assert order == sorted(order), f"not ordered by score, then id: {order}"
    ranked = sorted(expected.values(), reverse=True)
    sure = [s for s in ranked if min_score is None or s >= min_score + _tolerance(s)]
    possible = [s for s in ranked if min_score is None or s >= min_score - _tolerance(s)]
    assert len(sure[offset : offset + limit]) <= len(got) <= len(possible[offset : offset + limit]), (
        f"{len(got)} matches; {len(expected)} records qualify, offset {offset}, limit {limit}"
    )
    for place, match in enumerate(got, offset):
        assert abs(match.score - ranked[place]) <= 2 * _tolerance(ranked[place]), (
            f"place {place} is {match.id!r} with {match.score}; the best at this place scores {ranked[place]}"
        )


def assert_same_metadata(got: Metadata, expected: Metadata) -> None:
    """Assert that metadata is equal and of the same types."""
    assert same_value(dict(got), dict(expected)), f"got {got!r}, expected {expected!r}"
