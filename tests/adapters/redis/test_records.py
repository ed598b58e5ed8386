"""Records as hashes, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from redis.crc import key_slot

from polyvec.base import Fields
from polyvec.metadata import microseconds
from polyvec.tokens import companion_field
from polyvec.types import CollectionSpec, Metric, RecordBatch
from polyvec_adapters.redis import records
from polyvec_adapters.redis.tables import Table

ALL = Fields(vectors=True, text=True, metadata=True)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FAR = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)


def hashes(batch: RecordBatch, metric: Metric = "cosine", fields: frozenset[str] = frozenset()) -> list[Any]:
    """Return what HSET would store."""
    numbers = [records.companions(metadata) for metadata in batch.metadatas or ()]
    known = fields or frozenset(field for each in numbers for field in each)
    found = []
    for pairs in records.encode(batch, "", metric, numbers, known):
        texts = [part if isinstance(part, bytes) else part.encode() for part in pairs]
        found.append(dict(zip(texts[::2], texts[1::2], strict=True)))
    return found


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_a_round_trip(metric: Metric) -> None:
    vectors = np.array([[3e38, 3e38], [1e-30, -2e-30], [1, 0]], np.float32)
    texts = [None, "", "nul\0 é"]
    metadatas: list[dict[str, Any]] = [{}, {"a": 1, "b": [None, {}]}, {"at": FAR}]
    batch = RecordBatch(["a", "b", "c"], vectors, texts, metadatas)
    back = records.decode(["a", "b", "c"], hashes(batch, metric), ALL, 2, metric)
    assert back.texts == texts
    assert back.metadatas == metadatas
    np.testing.assert_allclose(np.asarray(back.vectors), vectors, rtol=1e-5)


def test_vectors_are_little_endian_and_of_length_1_under_cosine() -> None:
    batch = RecordBatch(["a"], np.array([[3, 4]], np.float32), [None], [{}])
    assert np.frombuffer(hashes(batch)[0][b"vec"], "<f4").tolist() == pytest.approx([0.6, 0.8])
    assert hashes(batch)[0][b"norm"] == b"5.0"
    assert np.frombuffer(hashes(batch, "dot")[0][b"vec"], "<f4").tolist() == [3, 4]
    assert b"norm" not in hashes(batch, "dot")[0]


def test_tags_are_letters() -> None:
    hostile = {'q"\\`,|{}$@': ["}) | @ns:{*", "a,b", 1, True, FAR], "한": "글"}
    batch = RecordBatch(["a"], np.ones((1, 2), np.float32), [None], [hostile])
    [found] = hashes(batch)
    assert re.fullmatch(rb"s[a-p]{32}", found[b"ns"])
    assert re.fullmatch(rb"[a-p]{32}(,[a-p]{32})*", found[b"tok"])


def test_a_number_is_kept_where_the_index_has_its_field() -> None:
    field = companion_field("n", "x")
    batch = RecordBatch(["a"], np.ones((1, 2), np.float32), [None], [{"x": 0.1 + 0.2}])
    [kept] = hashes(batch)
    assert kept[field.encode()] == b"0.30000000000000004"
    [without] = hashes(batch, fields=frozenset({"n_other"}))
    assert field.encode() not in without
    assert len(without[b"tok"].split(b",")) == len(kept[b"tok"].split(b",")) + 16


def test_no_number_is_minus_zero() -> None:
    [number] = records.companions({"x": -0.0}).values()
    assert str(number) == "0.0"


@pytest.mark.parametrize(
    ("at", "far"),
    [
        (datetime(2024, 5, 1, 12, 0, 0, 1, UTC), False),
        (EPOCH + timedelta(microseconds=2**53 - 1), False),
        (EPOCH + timedelta(microseconds=2**53), True),
        (EPOCH - timedelta(microseconds=2**53 - 1), False),
        (EPOCH - timedelta(microseconds=2**53), True),
        (FAR, True),
    ],
)
def test_a_datetime_far_away_is_kept_as_tokens_too(at: datetime, far: bool) -> None:
    [kept] = hashes(RecordBatch(["a"], np.ones((1, 2), np.float32), [None], [{"at": at}]))
    assert float(kept[companion_field("d", "at").encode()]) == float(microseconds(at))
    assert len(kept[b"tok"].split(b",")) == 2 + 16 * far


def test_braces_of_an_id_place_no_record() -> None:
    prefix = Table(CollectionSpec("docs", 2), "00c0ffee").prefix
    assert len({key_slot(f"{prefix}:{{same}}{n}".encode()) for n in range(20)}) > 10


def test_positions_are_spread() -> None:
    found = [records.position("", f"id {n}") for n in range(1000)]
    assert all(0 <= position < records.POSITIONS for position in found)
    assert 400 < sum(position < records.POSITIONS // 2 for position in found) < 600
