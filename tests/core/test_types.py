"""The values that go in and out, and the capabilities: data, with few words of its own."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from polyvec import (
    BackendError,
    Capabilities,
    EmbeddingSpace,
    HnswIndex,
    Match,
    Record,
    RecordBatch,
    WriteFailure,
    WriteReport,
)


def test_records_compare_vectors_as_float32() -> None:
    one = Record("a", [0.1, 0.2], "t", {"k": [1]})
    assert one == Record("a", np.array([0.1, 0.2], np.float32), "t", {"k": [1]})
    assert one == Record("a", (0.1 + 1e-12, 0.2), "t", {"k": [1]})
    others = [
        Record("b", [0.1, 0.2], "t", {"k": [1]}),
        Record("a", [0.1, 0.3], "t", {"k": [1]}),
        Record("a", [0.1, 0.2, 0.0], "t", {"k": [1]}),
        Record("a", None, "t", {"k": [1]}),
        Record("a", [0.1, 0.2], None, {"k": [1]}),
        Record("a", [0.1, 0.2], "t", {"k": [2]}),
        Record("a", [0.1, 0.2], "t"),
    ]
    for other in others:
        assert one != other
        assert other != one
    assert Record("a", None) == Record("a", None)
    assert one != "a"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_records_do_not_share_their_metadata() -> None:
    assert Record("a", [1.0]).metadata is not Record("b", [1.0]).metadata


@pytest.mark.parametrize(
    "value",
    [
        Record("a", [1.0]),
        RecordBatch(["a"], None),
        Match("a", 1.0, None, {}),
        HnswIndex(),
        EmbeddingSpace("p", "m", 3),
        WriteReport(1),
        Capabilities(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_they_are_frozen(value: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, None)


def test_match_compares_without_the_vector() -> None:
    assert Match("a", 1.0, None, {}, np.ones(3, np.float32)) == Match("a", 1.0, None, {})
    assert Match("a", 1.0, None, {}) != Match("a", 0.5, None, {})


def test_the_length_of_a_batch() -> None:
    assert len(RecordBatch(["a", "b"], None)) == 2
    assert len(RecordBatch([], None)) == 0


def test_reports() -> None:
    report = WriteReport(1, (WriteFailure("a", BackendError("x")), WriteFailure("b", BackendError("y"))))
    assert report.failed_ids == ["a", "b"]
    assert WriteReport(1).failed_ids == []


def test_embedding_spaces_read_well() -> None:
    assert str(EmbeddingSpace("openai", "m", 512)) == "openai:m (512 dimensions)"


def test_capabilities_are_off_by_default() -> None:
    bare = Capabilities()
    for name in ("exact_query", "hnsw_index", "flat_index", "native_namespaces", "native_filters"):
        assert getattr(bare, name) is False
    assert bare.reason("exact_query") == "the engine does not have it"
    assert Capabilities(reasons={"exact_query": "it guesses"}).reason("exact_query") == "it guesses"


def test_a_reason_must_be_of_a_capability() -> None:
    with pytest.raises(ValueError, match="there is no capability 'exact_qery'"):
        Capabilities(reasons={"exact_qery": "typo"})


def test_capabilities_as_data() -> None:
    data = Capabilities(
        metrics=("dot",), reasons={"exact_query": "no"}, emulated={"filters": "by tokens"}
    ).as_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["metrics"] == ["dot"]
    assert data["reasons"] == {"exact_query": "no"}
    assert data["emulated"] == {"filters": "by tokens"}
    assert set(data) == {item.name for item in dataclasses.fields(Capabilities)}
