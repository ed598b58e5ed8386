"""Records as documents and back, and the integers that stand for numbers."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from polyvec.base import Fields
from polyvec.encoding import namespace_token, sortable_int
from polyvec.testing import data
from polyvec.testing.compare import assert_same_metadata, assert_same_vector
from polyvec.tokens import companion_field, record_tokens
from polyvec.types import METRICS, FloatArray, Metric, RecordBatch
from polyvec_adapters.typesense import records

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
    documents = [json.loads(line) for line in records.encode(given, "a", metric).values()]
    assert given.vectors is not None
    return records.decode(documents, fields, given.vectors.shape[1], metric)


def test_a_document() -> None:
    metadata = {"n": 7, "at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "s": "b"}
    given = batch(np.array([[3, 4]], np.float32), ids=["a"], texts=["text"], metadatas=[metadata])
    document = json.loads(records.encode(given, "tenant", "cosine")["a"])
    n, at = companion_field("n", "n"), companion_field("d", "at")
    assert document == {
        "id": "kcm54jeey3iqgrluzjcmwibpmy",
        "vec": [0.6, 0.8],
        "key": "a",
        "slot": document["slot"],
        "text": "text",
        "meta": '{"n":7,"at":{"$datetime":"1970-01-01T00:00:01+00:00"},"s":"b"}',
        "norm": 5.0,
        "tokens": [
            namespace_token("tenant"),
            *record_tokens(metadata),
            n.replace("_", ""),
            at.replace("_", ""),
        ],
        n: 0x401C000000000000,
        at: 1_000_000,
    }
    assert 0 <= document["slot"] < records.SLOTS


def test_a_document_of_little() -> None:
    document = json.loads(records.encode(batch(np.array([[3, 4]], np.float32)), "", "dot")["r0"])
    assert set(document) == {"id", "vec", "key", "slot", "meta", "tokens"}
    assert document["vec"] == [3.0, 4.0]
    assert document["tokens"] == [namespace_token("")]
    assert b"[3.0,4.0]" in records.encode(batch(np.array([[3, 4]], np.float32)), "", "dot")["r0"]  # no ints


def test_ids_are_told_apart() -> None:
    pairs = [(namespace, id) for namespace in ("", "a", "A", "ab") for id in (*data.IDS, "b", "a")]
    made = {records.document_id(*pair) for pair in pairs}
    assert len(made) == len(set(pairs))
    assert all(id.isascii() and id.isalnum() and id == id.lower() for id in made)
    assert records.document_id("a", "bc") != records.document_id("ab", "c")


def test_slots_are_spread() -> None:
    given = batch(np.ones((4000, 1), np.float32))
    slots = [json.loads(line)["slot"] for line in records.encode(given, "", "dot").values()]
    counts, _ = np.histogram(slots, bins=20, range=(0, records.SLOTS))
    assert counts.min() > 100
    assert counts.max() < 300


@pytest.mark.parametrize("metric", METRICS)
def test_everything_comes_back(metric: Metric) -> None:
    count = len(data.METADATAS)
    vectors = data.vectors(count, 5, seed=1) * np.float32(10.0) ** np.linspace(-6, 6, count)[:, None]
    texts = [None, *data.HOSTILE_STRINGS][:count]
    found = there_and_back(
        batch(vectors.astype(np.float32), ids=list(data.IDS[:count]), texts=texts, metadatas=data.METADATAS),
        metric,
    )
    assert list(found.ids) == list(data.IDS[:count])
    assert found.texts == texts
    assert found.metadatas is not None
    assert found.vectors is not None
    for got, expected in zip(found.metadatas, data.METADATAS, strict=True):
        assert_same_metadata(got, expected)
    for row, expected_vector in zip(found.vectors, vectors.astype(np.float32), strict=True):
        assert_same_vector(row, expected_vector, "vector")


def test_what_is_not_asked_for_is_left_out() -> None:
    given = batch(np.ones((1, 2), np.float32), texts=["t"], metadatas=[{"k": 1}])
    bare = there_and_back(given, "cosine", Fields(vectors=False, text=False, metadata=False))
    assert (list(bare.ids), bare.vectors, bare.texts, bare.metadatas) == (["r0"], None, None, None)
    assert records.fields_read(EVERYTHING, "cosine") == "key,text,meta,vec,norm"
    assert records.fields_read(EVERYTHING, "dot") == "key,text,meta,vec"
    assert records.fields_read(Fields(vectors=False, text=False, metadata=False), "cosine") == "key"


def test_no_records() -> None:
    found = records.decode([], EVERYTHING, 3, "cosine")
    assert found.vectors is not None
    assert found.vectors.shape == (0, 3)


def test_the_products_of_euclidean_are_distances() -> None:
    vectors, queries = data.vectors(20, 6, seed=2), data.vectors(5, 6, seed=3)
    stored = np.array(
        [json.loads(line)["vec"] for line in records.encode(batch(vectors), "", "euclidean").values()]
    )
    asked = np.array([json.loads(text) for text in records.queries(queries, "euclidean")])
    expected = np.square(queries[:, None] - vectors[None]).sum(axis=2)
    found = np.square(queries).sum(axis=1)[:, None] - 2 * asked @ stored.T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_squares_beyond_float32_are_its_largest() -> None:
    [line] = records.encode(batch(np.full((1, 2), 1e30, np.float32)), "", "euclidean").values()
    assert json.loads(line)["vec"][2] == pytest.approx(-3.4028235e38)


def test_queries() -> None:
    vectors = np.array([[3, 4], [1e-30, 0]], np.float32)
    assert records.queries(vectors, "dot") == ["[3.0,4.0]", "[1e-30,0.0]"]
    assert records.queries(vectors, "cosine") == ["[0.6,0.8]", "[1.0,0.0]"]
    assert records.queries(vectors, "euclidean") == ["[3.0,4.0,1.0]", "[1e-30,0.0,1.0]"]
    # the engine's parser refuses 1e-40
    assert records.queries(np.array([[1, 1e-40, -1e-40]], np.float32), "dot") == ["[1.0,0.0,0.0]"]


def test_a_change_names_the_companions_that_go() -> None:
    line = records.change("", "a", {"n": 1, "m": 2, "at": data.DATETIMES[0]}, {"m": 3, "s": "x"})
    document = json.loads(line)
    assert document.pop("meta") == '{"m":3,"s":"x"}'
    assert document.pop("id") == records.document_id("", "a")
    assert len(document.pop("tokens")) == 1 + 4 + 1
    assert document == {
        companion_field("n", "n"): None,
        companion_field("d", "at"): None,
        companion_field("n", "m"): sortable_int("n_x", 3.0),
    }
