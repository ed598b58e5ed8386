"""Records as points and back, and what goes over the wire as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from polyvec.base import Fields
from polyvec.encoding import record_uuid
from polyvec.testing import data
from polyvec.testing.compare import assert_same_metadata, assert_same_vector
from polyvec.tokens import companion_field, record_tokens
from polyvec.types import METRICS, FloatArray, Metric, RecordBatch
from polyvec_adapters.qdrant import records

EVERYTHING = Fields(vectors=True, text=True, metadata=True)


def batch(vectors: FloatArray, **columns: Any) -> RecordBatch:
    count = len(vectors)
    return RecordBatch(
        columns.get("ids") or [f"r{row}" for row in range(count)],
        vectors,
        columns.get("texts") or [None] * count,
        columns.get("metadatas") or [{} for _ in range(count)],
    )


def there_and_back(given: RecordBatch, metric: Metric, fields: Fields = EVERYTHING) -> RecordBatch:
    ids, vectors, payloads = records.encode(given, "a", metric)
    points = [
        models.Record(id=id, payload=payload, vector=vector)
        for id, payload, vector in zip(ids, payloads, vectors.tolist(), strict=True)
    ]
    return records.decode(points, fields, vectors.shape[1], metric)


def test_a_payload() -> None:
    given = batch(
        np.array([[3, 4]], np.float32), ids=["a"], texts=["text"], metadatas=[{"n": 7, "x": 0.1, "s": "b"}]
    )
    [id], vectors, [payload] = records.encode(given, "tenant", "cosine")
    n, x = companion_field("n", "n"), companion_field("n", "x")
    assert payload == {
        "id": "a",
        "ns": "tenant",
        "text": "text",
        "meta": '{"n":7,"x":0.1,"s":"b"}',
        "norm": 5.0,
        "f": {
            "t": record_tokens({"n": 7, "x": 0.1, "s": "b"}),
            n: 0x401C0000,
            x: 0x3FB99999,
            f"{x}_low": 0x9999999A,
        },
    }
    assert vectors.tolist() == np.array([[0.6, 0.8]], np.float32).tolist()
    assert id == record_uuid("tenant", "a")


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_only_cosine_changes_vectors(metric: Metric) -> None:
    given = batch(np.array([[3, 4]], np.float32))
    _, vectors, [payload] = records.encode(given, "", metric)
    assert vectors is given.vectors
    assert "norm" not in payload
    assert "text" not in payload


@pytest.mark.parametrize("metric", METRICS)
def test_hostile_records_come_back(metric: Metric) -> None:
    count = len(data.METADATAS)
    given = batch(
        data.vectors(count, 5, seed=1),
        ids=list(data.IDS[:count]),
        texts=[None, *data.HOSTILE_STRINGS][:count],
        metadatas=list(data.METADATAS),
    )
    got = there_and_back(given, metric)
    assert list(got.ids) == list(given.ids)
    assert got.texts == given.texts
    for row, metadata in enumerate(data.METADATAS):
        assert got.metadatas is not None
        assert_same_metadata(got.metadatas[row], metadata)
        assert got.vectors is not None
        assert given.vectors is not None
        assert_same_vector(got.vectors[row], given.vectors[row], "vector")


@pytest.mark.parametrize("metric", METRICS)
def test_vectors_of_every_magnitude_come_back(metric: Metric) -> None:
    largest = float(np.finfo(np.float32).max)
    rows: list[list[float]] = [[3 * 10.0**power, -(10.0**power), 0] for power in range(-44, 38)]
    rows += [[largest, -largest, 0], [1e-45, 0, 0], [largest, 0, 0]]
    rows += [[largest, 2.0642742836188225e38, 2.482347885463245e38]]  # rounds up, beyond the largest
    given = np.array(rows, np.float32)
    got = there_and_back(batch(given), metric).vectors
    assert got is not None
    assert np.isfinite(got).all()
    for row, expected in zip(got, given, strict=True):
        assert_same_vector(row, expected, str(expected))


def test_what_is_not_asked_for_is_left_out() -> None:
    given = batch(data.vectors(2, 3, seed=1), texts=["a", None])
    nothing = Fields(vectors=False, text=False, metadata=False)
    got = there_and_back(given, "cosine", nothing)
    assert (got.vectors, got.texts, got.metadatas) == (None, None, None)
    assert records.payload_keys(nothing, "cosine") == ["id"]
    assert records.payload_keys(EVERYTHING, "cosine") == ["id", "text", "meta", "norm"]
    assert records.payload_keys(EVERYTHING, "dot") == ["id", "text", "meta"]
    assert records.decode([], EVERYTHING, 3, "cosine").vectors.shape == (0, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("dimension", [1, 31, 32, 4095, 4096])  # around the lengths of a varint
def test_grpc_points_are_what_the_driver_makes_of_lists(dimension: int) -> None:
    given = batch(data.vectors(2, dimension, seed=1), metadatas=[{"k": [1, 0.1, "a", None]}, {}])
    ids, vectors, payloads = records.encode(given, "", "dot")
    expected = [
        RestToGrpc.convert_point_struct(models.PointStruct(id=id, vector=vector, payload=payload))
        for id, vector, payload in zip(ids, vectors.tolist(), payloads, strict=True)
    ]
    assert records.grpc_points(ids, vectors, payloads) == expected
    assert list(expected[0].vectors.vector.dense.data) == vectors[0].tolist()


def test_rest_points_are_what_the_driver_makes_of_lists() -> None:
    ids, vectors, payloads = records.encode(batch(data.vectors(3, 4, seed=1)), "", "cosine")
    expected = models.Batch(ids=list(ids), vectors=vectors.tolist(), payloads=payloads)
    assert records.rest_points(ids, vectors, payloads) == expected
