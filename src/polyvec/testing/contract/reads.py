"""Reading without a query: get, count, scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from polyvec.errors import (
    InvalidFilterError,
    InvalidInputError,
)
from polyvec.filters import F, matches
from polyvec.protocol import Collection, VectorStore
from polyvec.testing import data
from polyvec.testing.compare import (
    assert_same_record,
    assert_same_vector,
)
from polyvec.testing.contract.common import vector_of
from polyvec.testing.plugin import MakeCollection
from polyvec.types import Record, RecordBatch


class TestReads:
    """Get, count and scan."""

    @pytest.fixture
    def written(self, collection: Collection) -> list[Record]:
        written = data.records(120, 4)
        collection.upsert(written)
        return written

    def test_get_keeps_the_order_and_says_what_is_missing(
        self, collection: Collection, written: list[Record]
    ) -> None:
        asked = ["r00007", "missing", "r00003", "r00007", "r00119"]
        got = collection.get(asked)
        expected = [written[7], None, written[3], written[7], written[119]]
        for one, other in zip(got, expected, strict=True):
            assert_same_record(one, other)
        assert collection.get([]) == []
        assert collection.get(["missing"]) == [None]

    def test_get_more_than_one_batch(self, store: VectorStore, collection: Collection) -> None:
        count = min(store.capabilities.max_batch_records + 5, 1500)
        written = data.records(count, 4)
        collection.upsert(written)
        got = collection.get([record.id for record in reversed(written)])
        assert [record.id if record else None for record in got] == [
            record.id for record in reversed(written)
        ]

    def test_what_is_not_asked_for_is_not_returned(
        self, collection: Collection, written: list[Record]
    ) -> None:
        [bare] = collection.get(["r00001"], include_vectors=False, include_text=False, include_metadata=False)
        assert bare == Record("r00001", None)
        [text] = collection.get(["r00001"], include_vectors=False, include_metadata=False)
        assert text == Record("r00001", None, "passage number 1")
        [meta] = collection.get(["r00001"], include_vectors=False, include_text=False)
        assert meta == Record("r00001", None, None, written[1].metadata)
        [match] = collection.query(vector_of(written[1]), limit=1, include_text=False, include_metadata=False)
        assert (match.id, match.text, match.metadata, match.vector) == ("r00001", None, {}, None)
        [match] = collection.query(vector_of(written[1]), limit=1, include_vectors=True)
        assert (match.text, match.metadata) == (written[1].text, written[1].metadata)
        assert_same_vector(match.vector, written[1].vector, "match.vector")
        for record in collection.scan():
            assert record.vector is None
        for record in collection.scan(include_text=False, include_metadata=False, include_vectors=True):
            assert (record.text, record.metadata) == (None, {})
            assert_same_vector(record.vector, written[int(record.id[1:])].vector, record.id)

    @pytest.mark.parametrize("ids", ["r00001", [""], [7], ["x" * 513]])
    def test_wrong_ids_are_refused(self, collection: Collection, ids: Any) -> None:
        with pytest.raises(InvalidInputError, match="id"):
            collection.get(ids)
        with pytest.raises(InvalidInputError, match="id"):
            collection.delete(ids)

    @pytest.mark.parametrize("batch_size", [None, 1, 7, 1000])
    def test_scan_shows_everything_once(
        self, collection: Collection, written: list[Record], batch_size: int | None
    ) -> None:
        found = list(collection.scan(batch_size=batch_size, include_vectors=True))
        assert sorted(record.id for record in found) == [record.id for record in written]
        for record in found:
            assert_same_record(record, written[int(record.id[1:])])

    def test_scan_with_a_filter(self, collection: Collection, written: list[Record]) -> None:
        filter = (F("third") == 1) & ~(F("tags").contains("t1"))
        expected = {record.id for record in written if matches(filter, record.metadata)}
        assert 0 < len(expected) < len(written)
        for batch_size in (None, 1, 5):
            assert {record.id for record in collection.scan(filter, batch_size=batch_size)} == expected
        assert list(collection.scan(F("n") < 0)) == []

    def test_scan_batches_are_columns(self, collection: Collection, written: list[Record]) -> None:
        batches = list(collection.scan_batches(include_vectors=True, batch_size=50))
        assert sum(map(len, batches)) == len(written)
        for batch in batches:
            assert 0 < len(batch) <= 50
            assert batch.vectors is not None
            assert batch.vectors.shape == (len(batch), 4)
            assert batch.vectors.dtype == np.float32

    def test_scan_goes_past_the_page_limits(self, make_collection: MakeCollection) -> None:
        count = 12_000
        collection = make_collection(2, "dot")
        ids = [f"{number:05}" for number in range(count)]
        rows = np.column_stack([np.arange(count), np.ones(count)]).astype(np.float32)
        meta = [{"even": number % 2 == 0} for number in range(count)]
        collection.upsert(RecordBatch(ids, rows, None, meta))
        assert sorted(record.id for record in collection.scan()) == ids
        assert sorted(r.id for r in collection.scan("even == true", include_metadata=False)) == ids[::2]
        assert collection.count() == count
        assert collection.count(F("even") == False) == count // 2  # noqa: E712

    def test_a_scan_may_be_left_early(self, collection: Collection, written: list[Record]) -> None:
        scan: Iterator[Record] = collection.scan(batch_size=5)
        assert next(scan).id in {record.id for record in written}
        del scan
        assert collection.count() == len(written)

    def test_wrong_batch_sizes_are_refused(self, collection: Collection) -> None:
        for size in (0, -1, 2.5, True):
            with pytest.raises(InvalidInputError, match="batch_size"):
                collection.scan(batch_size=size)  # type: ignore[arg-type]

    def test_count_is_exact(self, collection: Collection, written: list[Record]) -> None:
        assert collection.count() == 120
        for filter in (F("even") == True, F("n") >= 100, F("lang").is_in(["ko", "de"]), ~F("n").exists()):  # noqa: E712
            assert collection.count(filter) == sum(matches(filter, record.metadata) for record in written)
        collection.upsert(written[:50])
        collection.delete([record.id for record in written[:10]])
        assert collection.count() == 110
        assert collection.count(F("n") < 20) == 10

    def test_filters_in_every_notation(self, collection: Collection, written: list[Record]) -> None:
        expected = sum(record.metadata["n"] >= 10 and record.metadata["lang"] == "ko" for record in written)
        assert expected
        for filter in (
            (F("n") >= 10) & (F("lang") == "ko"),
            'n >= 10 and lang == "ko"',
            {"n": {"$gte": 10}, "lang": "ko"},
        ):
            assert collection.count(filter) == expected
        for bad in ("n >=", {"n": {"$near": 1}}, 7, "", {}):
            with pytest.raises(InvalidFilterError):
                collection.count(bad)  # type: ignore[arg-type]
