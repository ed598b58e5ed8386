"""What the tests of the contract share."""

from __future__ import annotations

from polyvec.types import EmbeddingSpace, Record, Vector

A, B, C = [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]
SPACE = EmbeddingSpace("test", "model-1", 4)


def vector_of(record: Record) -> Vector:
    """Return the vector of a record that has one."""
    assert record.vector is not None
    return record.vector
