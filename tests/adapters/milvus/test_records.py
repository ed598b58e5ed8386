"""Records as columns and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from polyvec.base import Fields
from polyvec.testing import data
from polyvec.testing.compare import assert_same_metadata, assert_same_vector
from polyvec.tokens import companion_field, record_tokens
from polyvec.types import METRICS, FloatArray, Metric, RecordBatch
from polyvec_adapters.milvus import names, records

EVERYTHING = Fields(vectors=True, text=True, metadata=True)


def batch(vectors: FloatArray, **columns: Any) -> RecordBatch:
    count = len(vectors)
    return RecordBatch(
        columns.get("ids") or [f"r{row}" for row in range(count)],
        vectors,
        columns.get("texts") or [None] * count,
        columns.get("metadatas") or [{} for _ in range(count)],
    )


def column(columns: list[Any], name: str) -> Any:
    [found] = [column for column in columns if column.field_name == name]
    return found


@pytest.mark.parametrize("metric", METRICS)
def test_everything_comes_back(metric: Metric) -> None:
    count = len(data.METADATAS)
    scales = np.float32(10.0) ** np.linspace(-6, 6, count)[:, None]
    vectors: FloatArray = (data.vectors(count, 5, seed=1) * scales).astype(np.float32)
    texts = [None, "", *data.HOSTILE_STRINGS][:count]
    given = batch(vectors, ids=list(data.IDS[:count]), texts=texts, metadatas=data.METADATAS)
    found = records.decode(records.encode(given, "a", metric), EVERYTHING, 5, metric)
    assert list(found.ids) == list(data.IDS[:count])
    assert found.texts == texts
    assert found.metadatas is not None
    assert found.vectors is not None
    for got, expected in zip(found.metadatas, data.METADATAS, strict=True):
        assert_same_metadata(got, expected)
    for row, expected_vector in zip(found.vectors, vectors, strict=True):
        assert_same_vector(row, expected_vector, "vector")


def test_the_columns_of_a_record() -> None:
    given = batch(np.array([[3, 4]], np.float32), ids=["a"], metadatas=[{"n": 7, "s": "x"}])
    columns = records.encode(given, "tenant", "cosine")
    fields = ["pk", "id", "ns", "vector", "norm", "text", "meta", "tok", "num"]
    assert [column.field_name for column in columns] == fields
    assert list(column(columns, "pk").scalars.string_data.data) == [records.primary_key("tenant", "a")]
    assert list(column(columns, "norm").scalars.double_data.data) == [5.0]
    assert list(column(columns, "vector").vectors.float_vector.data) == pytest.approx([0.6, 0.8])
    [tokens] = column(columns, "tok").scalars.array_data.data
    number = companion_field("n", "n")
    assert list(tokens.string_data.data) == [*record_tokens({"n": 7, "s": "x"}), number]
    assert json.loads(column(columns, "num").scalars.json_data.data[0]) == {number: 7.0}
    assert "norm" not in [column.field_name for column in records.encode(given, "tenant", "dot")]


@pytest.mark.parametrize("character", ["a", "é", "한", "😀"])
@pytest.mark.parametrize("length", [0, 1, 16_383, 16_384, 100_000])
def test_long_texts_are_cut_into_pieces_that_fit(character: str, length: int) -> None:
    text = character * length
    pieces = records.pieces(text)
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= 65_535 for piece in pieces)
    assert len(pieces) >= 1
    assert records.pieces(None) == []


def test_no_records() -> None:
    found = records.decode([], EVERYTHING, 3, "cosine")
    assert found.vectors is not None
    assert found.vectors.shape == (0, 3)


def test_batches_are_joined() -> None:
    parts = [
        batch(np.ones((2, 3), np.float32) * np.float32(n), ids=[f"{n}a", f"{n}b"], texts=["x", None])
        for n in (1, 2)
    ]
    whole = records.joined(parts)
    assert whole.ids == ["1a", "1b", "2a", "2b"]
    assert np.asarray(whole.vectors)[:, 0].tolist() == [1, 1, 2, 2]
    assert whole.texts == ["x", None, "x", None]
    bare = records.joined([RecordBatch(["a"], None, None, None)] * 2)
    assert (bare.ids, bare.vectors, bare.texts, bare.metadatas) == (["a", "a"], None, None, None)


@pytest.mark.parametrize("name", ["docs", "_x", "Docs", "a.b", "a-b", "1st", ".", "..", "pv_mine", "x" * 128])
def test_names_are_told_apart_and_taken(name: str) -> None:
    native = names.native_name(name)
    assert native.isascii()
    assert native.replace("_", "a").isalnum()
    assert not native[0].isdigit()
    assert len(native) <= 255
    assert names.public_name(native, name) == name
    others = ("docs", "Docs", "a.b", "a-b", "a_b", "pv_mine", ".", "..")
    assert [other for other in others if other != name and names.native_name(other) == native] == []
