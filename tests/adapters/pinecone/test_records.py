"""Records as vectors and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest
from pinecone import ScoredVector, Vector

from polyvec.base import Fields
from polyvec.encoding import record_key
from polyvec.errors import UnsupportedOperationError
from polyvec.testing import data
from polyvec.testing.compare import assert_same_vector, same_value
from polyvec.tokens import companion_field, record_tokens
from polyvec.types import METRICS, FloatArray, Metric, RecordBatch
from polyvec_adapters.pinecone import records
from tests.servers.pinecone.rules import check_id, check_metadata, check_size, check_values

EVERYTHING = Fields(vectors=True, text=True, metadata=True)


def batch(vectors: Any, **columns: Any) -> RecordBatch:
    rows = np.array(vectors, np.float32)
    count = len(rows)
    return RecordBatch(
        columns.get("ids") or [f"r{row}" for row in range(count)],
        rows,
        columns.get("texts") or [None] * count,
        columns.get("metadatas") or [{} for _ in range(count)],
    )


def vectors_of(given: RecordBatch, metric: Metric = "dot") -> list[Vector]:
    sized, refused = records.encode(given, metric)
    assert refused == {}
    return [item.vector for item in sized]


def there_and_back(given: RecordBatch, metric: Metric) -> RecordBatch:
    """Through JSON, and through the rules of the service."""
    assert given.vectors is not None
    dimension = given.vectors.shape[1]
    found = []
    for vector in vectors_of(given, metric):
        check_id(vector.id)
        metadata = check_metadata(json.loads(orjson.dumps(vector.metadata)))
        check_size(metadata)
        values = check_values(vector.values, dimension)
        found.append(Vector(vector.id, [float(value) for value in values], None, metadata))
    return records.decode(found, EVERYTHING, dimension)


def test_a_vector() -> None:
    metadata = {"n": 7, "at": datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)}
    [found] = vectors_of(batch([[3, 4]], ids=["a"], texts=["text"], metadatas=[metadata]), "cosine")
    n, at = companion_field("n", "n"), companion_field("d", "at")
    assert (found.id, found.values) == ("a", [0.6, 0.8])
    assert found.metadata == {
        "meta": '{"n":7,"at":{"$datetime":"1970-01-01T00:00:01.000005+00:00"}}',
        "text": "text",
        "norm": 5.0,
        "tokens": ["*", *record_tokens(metadata), n, at],
        n: 7.0,
        at: 1.0,
        f"e_{at[2:]}": 5.0,
    }


def test_ids() -> None:
    for id in ("a", "x" * 512, "line\nbreak", "%2F", ".."):
        assert records.native_id(id) == id
    for id in ("é", "~a", "한" * 170):
        assert records.native_id(id) == "~" + record_key("", id).hex()
    given = batch(np.ones((len(data.IDS), 2)), ids=list(data.IDS))
    assert list(there_and_back(given, "cosine").ids) == list(data.IDS)


def test_namespaces() -> None:
    assert [records.native_namespace(name) for name in ("", "a", ".", "__default__")] == [
        "", "a", ".", "~__default__",
    ]  # fmt: skip


def test_metadata_and_texts_survive() -> None:
    count = len(data.METADATAS)
    texts = [*data.HOSTILE_STRINGS, None, "\0zlib:", "\0zlib:abc"][:count]
    texts += [None] * (count - len(texts))
    texts[0] = "\0zlib:not compressed"
    given = batch(np.ones((count, 2)), texts=texts, metadatas=list(data.METADATAS))
    found = there_and_back(given, "dot")
    assert found.texts == texts
    assert found.metadatas is not None
    for got, expected in zip(found.metadatas, data.METADATAS, strict=True):
        assert same_value(dict(got), dict(expected))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "vector",
    [[3, 4], [1e-3, 0], [1e-9, -2e-9], [1e-30, 3e-31], [1e-45, 0], [3e38, -3e38], [1e-8, 0], [9.99e-9, 9e-9]],
)
def test_vectors_of_any_length(metric: Metric, vector: list[float]) -> None:
    found = there_and_back(batch([vector]), metric)
    assert found.vectors is not None
    assert_same_vector(found.vectors[0], np.array(vector, np.float32), metric)


def test_zero_is_lifted_and_comes_back_as_zero() -> None:
    [found] = vectors_of(batch([[0, 0, 0]]), "euclidean")
    assert 1e-8 <= found.values[0] < 1e-7
    given = there_and_back(batch([[0, 0, 0]]), "dot")
    assert given.vectors is not None
    assert given.vectors.tolist() == [[0, 0, 0]]


def test_vectors_travel_as_short_decimals() -> None:
    rows: FloatArray = data.vectors(3, 64, 1)
    for vector, row in zip(vectors_of(batch(rows)), rows, strict=True):
        assert np.array_equal(np.array(vector.values, np.float32), row)
        assert len(orjson.dumps(vector.values)) < 0.65 * len(orjson.dumps(row.tolist()))


def test_queries() -> None:
    rows, scale = records.queries(np.array([[3, 4], [0, 0], [1e-12, 0]], np.float32), "dot")
    assert rows[0] == [3.0, 4.0]
    assert max(map(abs, rows[1])) >= 1e-8
    assert scale.tolist() == [1.0, 0.0, pytest.approx(1e-12 / 2e-8)]
    rows, scale = records.queries(np.array([[3, 4]], np.float32), "cosine")
    assert (rows, scale.tolist()) == ([[0.6, 0.8]], [1.0])


def test_long_strings_are_compressed_only_if_they_must_be() -> None:
    short, long = "word " * 7000, "word " * 20_000
    first, second = vectors_of(batch([[1, 0], [1, 0]], texts=[short, long]))
    assert first.metadata is not None
    assert second.metadata is not None
    assert first.metadata["text"] == short
    assert second.metadata["text"].startswith("\0zlib:")
    found = records.decode([first, second], EVERYTHING, 2)
    assert found.texts == [short, long]


def test_what_is_too_large_is_refused_alone() -> None:
    noise = np.random.default_rng(1).integers(0x21, 0x7E, 60_000).astype(np.uint8).tobytes().decode()
    given = batch([[1, 0]] * 3, texts=["a", noise, "c"], metadatas=[{}, {}, {"k": list(range(2000))}])
    sized, refused = records.encode(given, "dot")
    assert [item.vector.id for item in sized] == ["r0"]
    assert list(refused) == ["r1", "r2"]
    for error in refused.values():
        assert isinstance(error, UnsupportedOperationError)
        assert "40960" in str(error)


def test_requests_are_below_2_mb() -> None:
    count = 400
    columns = {
        "ids": [("\x01" * 500) + str(row) for row in range(count)],
        "texts": ['"\\' * (row * 20) for row in range(count)],
        "metadatas": [{f"key {key}": "é" * 20 for key in range(row % 30)} for row in range(count)],
    }
    sized, refused = records.encode(batch(data.vectors(count, 100, 1), **columns), "dot")
    assert refused == {}
    parts = records.requests(sized)
    assert [vector.id for part in parts for vector in part] == columns["ids"]
    assert len(parts) > 2
    for part in parts:
        body = {"vectors": [{"id": v.id, "values": v.values, "metadata": v.metadata} for v in part]}
        assert 1_000_000 < len(orjson.dumps(body | {"namespace": "n" * 128})) < 2_000_000 or part is parts[-1]


def test_what_a_query_brings_along() -> None:
    bare, hashed = ScoredVector(id="a", score=1.0), ScoredVector(id="~" + "0" * 32, score=1.0)
    nothing = Fields(vectors=False, text=False, metadata=False)
    assert records.complete(bare, nothing)
    assert not records.complete(hashed, nothing)
    assert not records.complete(bare, EVERYTHING)
    assert records.complete(ScoredVector(id="~", score=1.0, metadata={"id": "é"}), EVERYTHING)
    assert list(records.decode([bare], nothing, 3).ids) == ["a"]
