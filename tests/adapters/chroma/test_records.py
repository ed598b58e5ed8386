"""From records to Chroma's columns and back; nothing is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from polyvec.base import Fields
from polyvec.errors import UnsupportedOperationError
from polyvec.testing import data
from polyvec.tokens import companion_field, exists_token, scalar_token
from polyvec.types import METRICS, CollectionSpec, HnswIndex, Metric, RecordBatch
from polyvec_adapters.chroma.records import (
    ANCHOR,
    BUCKETS,
    DEFAULT_INDEX,
    MAX_TOKENS,
    Document,
    anchor,
    bucket,
    configuration,
    decode,
    encode,
    encode_filterable,
    include,
    replace_metadata,
    score,
    short_token,
    sortable,
)

ALL = Fields(vectors=True, text=True, metadata=True)


def batch(metadata: dict[str, Any], text: str | None = None, vector: Any = (3.0, 4.0)) -> RecordBatch:
    return RecordBatch(["id"], np.array([vector], np.float32), [text], [metadata])


def test_the_columns_of_a_record() -> None:
    columns, refused = encode(batch({"year": 2024, "tags": ["x"]}, "text"), "cosine")
    [native] = columns["metadatas"]
    assert refused == {}
    assert columns["ids"] == ["id"]
    assert columns["documents"] == ['\0005.0:4:text{"year":2024,"tags":["x"]}']
    np.testing.assert_array_equal(columns["embeddings"], np.array([[0.6, 0.8]], np.float32))
    number, year, tags = (
        companion_field("n", "year"), companion_field("s", "year"), companion_field("s", "tags"),
    )  # fmt: skip
    assert native.keys() == {"t", "b", number, year, tags}
    assert native["b"] == bucket("id")
    assert native[number] == sortable(2024.0)
    assert native[year] == short_token(scalar_token("year", 2024))
    assert native[tags] is None
    assert len(native["t"]) == 6  # year: exists, value, the number's name; tags: exists, is a list, element
    assert {number, short_token(exists_token("year"))} < set(native["t"])


def test_a_write_names_every_fixed_key_so_that_merging_replaces() -> None:
    columns, _ = encode(batch({}), "dot")
    assert columns["metadatas"] == [{"t": None, "b": bucket("id")}]
    assert columns["documents"] == ["\0::{}"]


def test_a_key_that_is_no_scalar_any_more_loses_its_scalar() -> None:
    field = companion_field("s", "k")
    values: tuple[Any, ...] = ([1], {}, [])
    for value in values:
        assert encode_filterable({"k": value})[field] is None
    assert encode_filterable({"k": datetime(2024, 1, 1, tzinfo=UTC)})[field] is not None


def test_the_length_is_kept_only_where_it_is_not_1() -> None:
    for vector, metric, document in (
        ((0.6, 0.8), "cosine", "\0::{}"),
        ((3, 4), "cosine", "\0005.0::{}"),
        ((3, 4), "dot", "\0::{}"),
    ):
        assert encode(batch({}, vector=vector), metric)[0]["documents"] == [document]  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, "", ":", "1:2:3", "\0", "{}", "한국어 👩‍👩‍👧", "\ufeff", "e\u0301"])
@pytest.mark.parametrize("length", [None, 5e-30, 1 / 3, 1e30])
def test_documents_are_unpacked_as_they_were_packed(text: str | None, length: float | None) -> None:
    for blob in ("{}", '{"a":"1:2:3"}'):
        document = Document(length, text, blob)
        assert Document.unpack(document.pack()) == document


def test_other_metadata_leaves_the_rest_of_the_document_alone() -> None:
    before = Document(2.5, "text: {}", '{"old":1}')
    after = Document.unpack(replace_metadata(before.pack(), {"new": [None]}))
    assert after == before._replace(blob='{"new":[null]}')


@pytest.mark.parametrize("metric", METRICS)
def test_round_trip(metric: Metric) -> None:
    rows = data.vectors(len(data.METADATAS), 8, seed=1)
    ids = [f"i{number}" for number in range(len(rows))]
    texts = [None, *data.HOSTILE_STRINGS][: len(rows)]
    columns, refused = encode(RecordBatch(ids, rows, texts, data.METADATAS), metric)
    assert refused == {}
    spec = CollectionSpec("docs", 8, metric)
    got = decode(columns["ids"], columns["documents"], columns["embeddings"], ALL, spec)
    assert (got.ids, got.texts) == (ids, texts)
    assert repr(got.metadatas) == repr(list(data.METADATAS))
    assert got.vectors is not None
    np.testing.assert_allclose(got.vectors, rows, rtol=1e-6)


def test_what_was_not_asked_for_is_neither_read_nor_returned() -> None:
    nothing = Fields(vectors=False, text=False, metadata=False)
    assert include(nothing, "cosine") == []
    assert include(nothing._replace(text=True), "dot") == ["documents"]
    assert include(nothing._replace(vectors=True), "dot") == ["embeddings"]
    assert include(nothing._replace(vectors=True), "cosine") == ["documents", "embeddings"]
    got = decode(["a"], None, None, nothing, CollectionSpec("docs", 2))
    assert (got.ids, got.vectors, got.texts, got.metadatas) == (["a"], None, None, None)


def test_a_record_without_a_document_has_neither_text_nor_metadata() -> None:
    got = decode(["a"], [None], [[1.0, 0.0]], ALL, CollectionSpec("docs", 2))
    assert (got.texts, got.metadatas) == ([None], [{}])


def test_more_tokens_than_sql_variables_are_refused() -> None:
    fits = {"k": list(range(MAX_TOKENS - 2))}
    too_many = {"k": list(range(MAX_TOKENS - 1))}
    assert len(encode_filterable(fits)["t"]) == MAX_TOKENS
    with pytest.raises(UnsupportedOperationError, match=f"{MAX_TOKENS + 1} values"):
        encode_filterable(too_many)
    ids, rows = ["a", "b", "c"], np.eye(3, dtype=np.float32)
    columns, refused = encode(RecordBatch(ids, rows, [None] * 3, [{}, too_many, {"n": 1}]), "dot")
    assert columns["ids"] == ["a", "c"]
    assert len(columns["metadatas"]) == len(columns["documents"]) == 2
    np.testing.assert_array_equal(columns["embeddings"], rows[[0, 2]])
    assert list(refused) == ["b"]


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_vectors_whose_scores_float32_cannot_hold_are_refused(metric: Metric) -> None:
    assert list(encode(batch({}, vector=(1e19, 0)), metric)[1]) == ["id"]
    assert encode(batch({}, vector=(8e18, 0)), metric)[1] == {}
    assert encode(batch({}, vector=(1e38, 0)), "cosine")[1] == {}


def test_floats_become_ints_in_the_same_order() -> None:
    numbers = sorted({float(number) for number in data.NUMBERS} | {-1e-320, 1.5, 2.0, np.nextafter(2.0, 3.0)})
    ints = [sortable(number) for number in numbers]
    assert ints == sorted(set(ints))
    assert all(-(2**63) < number < 2**63 for number in ints)
    assert sortable(-0.0) == sortable(0.0) == 0
    assert sortable(-(2**53) - 1) == -(2**53) - 1


def test_scores() -> None:
    assert score([0.0, 1.0, 2.0, -1e-7, 2.0000001], "cosine").tolist() == [1.0, 0.0, -1.0, 1.0, -1.0]
    assert score([0.0, -24.0, 3.0], "dot").tolist() == [1.0, 25.0, -2.0]
    assert score([0.0, 25.0, -1e-9], "euclidean").tolist() == [0.0, -5.0, 0.0]


def test_the_index_of_a_collection() -> None:
    index = HnswIndex(m=8, ef_construction=50, ef_search=70)
    assert configuration(CollectionSpec("docs", 2, "euclidean", index=index)) == {
        "hnsw": {"space": "l2", "max_neighbors": 8, "ef_construction": 50, "ef_search": 70}
    }
    plain = configuration(CollectionSpec("docs", 2, "cosine"))
    assert plain["hnsw"]["space"] == "ip"
    assert plain["hnsw"]["ef_search"] == DEFAULT_INDEX.ef_search


def test_the_anchor_has_an_id_that_no_record_can_have() -> None:
    assert "\0" in ANCHOR
    assert anchor(CollectionSpec("docs", 3, "cosine"))["ids"] == [ANCHOR]
    assert not anchor(CollectionSpec("docs", 3, "dot"))["embeddings"].any()
    assert anchor(CollectionSpec("docs", 3, "euclidean"))["embeddings"].tolist() == [[np.float32(1e15), 0, 0]]


def test_ids_are_spread_over_all_buckets() -> None:
    counts = np.bincount([bucket(f"id-{number}") for number in range(50_000)], minlength=BUCKETS)
    assert len(counts) == BUCKETS
    assert counts.min() > 0
    assert counts.max() < 150
