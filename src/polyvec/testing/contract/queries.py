"""Queries: the right records, the right scores, in the right order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from polyvec.errors import (
    DimensionMismatchError,
    InvalidFilterError,
    InvalidInputError,
    PolyvecError,
    RecordNotFoundError,
    UnsupportedOperationError,
)
from polyvec.filters import F
from polyvec.protocol import Collection, VectorStore
from polyvec.testing import data
from polyvec.testing.compare import (
    assert_best,
    assert_holds,
    truth,
)
from polyvec.testing.contract.common import A, vector_of
from polyvec.testing.plugin import MakeCollection
from polyvec.types import METRICS, Metric, Record


class TestQueries:
    """The right records, the right scores, in the right order."""

    @pytest.mark.parametrize("metric", METRICS)
    def test_scores_equal_numpy(self, make_collection: MakeCollection, metric: Metric) -> None:
        collection = make_collection(16, metric)
        written = data.records(300, 16)
        collection.upsert(written)
        for vector in data.vectors(10, 16, seed=5):
            expected = truth(written, metric, vector)
            for limit in (1, 10, 300, 1000):
                assert_best(collection.query(vector, limit=limit), expected, limit=limit)

    @pytest.mark.parametrize("metric", METRICS)
    def test_filters_apply_before_the_limit(self, make_collection: MakeCollection, metric: Metric) -> None:
        collection = make_collection(8, metric)
        written = data.records(300, 8)
        collection.upsert(written)
        for filter in (
            F("n") >= 290,
            F("n") < 290,
            F("n") == 17,
            F("tags").contains_all(["t1", "u1"]),
            F("lang").not_in(["en", "de"]) & (F("even") == True),  # noqa: E712
            ~F("missing").exists(),
        ):
            for vector in data.vectors(3, 8, seed=6):
                expected = truth(written, metric, vector, filter)
                assert expected
                for limit in (1, 10, 300):
                    assert_best(collection.query(vector, limit=limit, filter=filter), expected, limit=limit)
        assert collection.query(np.ones(8), filter=F("n") < 0) == []

    def test_queries_after_many_changes(self, make_collection: MakeCollection) -> None:
        """An index full of replaced and deleted records still finds all that is there."""
        collection = make_collection(8, "cosine")
        state: dict[str, Record] = {}
        for seed in range(8):
            rows = data.records(100, 8, seed=seed)
            collection.upsert(rows)
            state |= {record.id: record for record in rows}
            gone = [record.id for record in rows if record.metadata["n"] % 8 == seed]
            collection.delete(gone)
            for id in gone:
                del state[id]
        vector = np.ones(8)
        for filter in (None, F("third") == 0, F("n") >= 95):
            expected = truth(state.values(), "cosine", vector, filter)
            for limit in (5, 100):
                assert_best(collection.query(vector, limit=limit, filter=filter), expected, limit=limit)
        assert_holds(collection, state.values())

    def test_equal_scores_are_ordered_by_id(self, collection: Collection) -> None:
        ids = [f"{number * 7919 % 100:02}" for number in range(40)]
        collection.upsert(Record(id, A) for id in ids)
        found = collection.query(A, limit=40)
        assert [match.id for match in found] == sorted(ids)
        assert len({match.score for match in found}) == 1

    @pytest.mark.parametrize("filter", [None, F("third") == 0])
    def test_pages_are_disjoint_and_complete(self, make_collection: MakeCollection, filter: Any) -> None:
        """Also within a tie, which an engine may order differently from call to call."""
        collection = make_collection(3, "dot")
        written = [
            Record(f"r{number:03}", [number // 20, 1, 0], None, {"third": number % 3})
            for number in range(150)
        ]
        collection.upsert(written)
        expected = truth(written, "dot", [1, 0, 0], filter)
        found: list[str] = []
        for offset in range(0, 160, 10):
            page = collection.query([1, 0, 0], limit=10, offset=offset, filter=filter)
            found += [match.id for match in page]
        assert found == sorted(expected, key=lambda id: (-expected[id], id))

    def test_limit_and_offset(self, store: VectorStore, collection: Collection) -> None:
        written = data.records(30, 4)
        collection.upsert(written)
        full = [match.id for match in collection.query(A, limit=30)]
        assert len(full) == 30
        assert [match.id for match in collection.query(A, limit=5, offset=3)] == full[3:8]
        assert [match.id for match in collection.query(A, limit=50, offset=28)] == full[28:]
        assert collection.query(A, offset=30) == []
        assert len(collection.query(A, limit=store.capabilities.max_query_limit)) == 30
        with pytest.raises(UnsupportedOperationError, match="offset"):
            collection.query(A, limit=store.capabilities.max_query_limit, offset=1)

    @pytest.mark.parametrize(
        "arguments",
        [{"limit": 0}, {"limit": -1}, {"limit": 2.5}, {"limit": True}, {"offset": -1}, {"offset": 1.5}],
    )
    def test_wrong_windows_are_refused(self, collection: Collection, arguments: dict[str, Any]) -> None:
        with pytest.raises(InvalidInputError, match=next(iter(arguments))):
            collection.query(A, **arguments)

    @pytest.mark.parametrize("metric", METRICS)
    def test_min_score(self, make_collection: MakeCollection, metric: Metric) -> None:
        collection = make_collection(4, metric)
        written = data.records(60, 4)
        collection.upsert(written)
        expected = truth(written, metric, A)
        middle = sorted(expected.values())[30] - 5e-3
        found = collection.query(A, limit=60, min_score=middle)
        assert 0 < len(found) < 60
        assert_best(found, expected, limit=60, min_score=middle)
        assert collection.query(A, min_score=1e9) == []
        best = collection.query(A, limit=60)
        assert len(collection.query(A, limit=60, min_score=best[29].score)) >= 30  # inclusive

    def test_query_many_equals_query(self, store: VectorStore, make_collection: MakeCollection) -> None:
        collection = make_collection(8, "euclidean")
        written = data.records(80, 8)
        collection.upsert(written)
        many = data.vectors(min(store.capabilities.max_query_vectors + 3, 120), 8, seed=9)
        filter = F("third") != 0
        found = collection.query_many(many, limit=7, filter=filter, offset=2)
        assert len(found) == len(many)
        for vector, matched in zip(many, found, strict=True):
            assert_best(matched, truth(written, "euclidean", vector, filter), limit=7, offset=2)
        assert collection.query_many([]) == []
        assert collection.query_many([many[0]], limit=3) == [collection.query(many[0], limit=3)]

    def test_query_by_id(self, collection: Collection) -> None:
        written = [*data.records(40, 4), Record("twin", data.records(1, 4)[0].vector, None, {"third": 0})]
        collection.upsert(written)
        for limit in (1, 5, 40, 41):
            expected = truth(written, "cosine", vector_of(written[0]))
            del expected["r00000"]
            found = collection.query_by_id("r00000", limit=limit)
            assert_best(found, expected, limit=limit)
            assert found[0].id == "twin"
        filtered = collection.query_by_id("r00000", filter=F("third") == 0, limit=100)
        assert {match.id for match in filtered} == {
            record.id for record in written[1:] if record.metadata["third"] == 0
        }
        with pytest.raises(RecordNotFoundError, match="missing"):
            collection.query_by_id("missing")

    def test_exact(self, store: VectorStore, make_collection: MakeCollection) -> None:
        collection = make_collection(8, "dot")
        written = data.records(200, 8)
        collection.upsert(written)
        if not store.capabilities.exact_query:
            with pytest.raises(UnsupportedOperationError, match="exact"):
                collection.query(np.ones(8), exact=True)
            return
        for filter in (None, F("third") == 1):
            expected = truth(written, "dot", np.ones(8), filter)
            assert_best(collection.query(np.ones(8), exact=True, filter=filter, limit=20), expected, limit=20)

    @pytest.mark.parametrize(
        ("vector", "error"),
        [
            ([1, 2, 3], DimensionMismatchError),
            ([[1, 2, 3, 4]], InvalidInputError),
            ([1, 2, 3, float("nan")], InvalidInputError),
            ([0, 0, 0, 0], InvalidInputError),
            ("abcd", InvalidInputError),
            (None, InvalidInputError),
        ],
    )
    def test_wrong_vectors_are_refused(
        self, collection: Collection, vector: Any, error: type[PolyvecError]
    ) -> None:
        with pytest.raises(error):
            collection.query(vector)

    def test_explain_sends_nothing_and_shows_the_request(
        self, store: VectorStore, collection: Collection
    ) -> None:
        explained = collection.explain((F("n") >= 3) & ~F("tags").contains("x"), limit=5)
        assert explained.backend == store.name
        assert explained.filter == 'n >= 3 and not tags contains "x"'
        assert explained.native is not None
        assert all(isinstance(note, str) for note in explained.notes)
        assert collection.explain().filter is None
        assert collection.explain("false").native is None
        with pytest.raises(InvalidFilterError):
            collection.explain("n >=")
